/**
 * Whether nodes sort text alike. Collations of an operating system and of ICU change with their versions, and databases may
 * have different defaults: what one node takes for the first rows, or for the least value, another would not.
 */
import { quoteLiteral, quoteQualified } from '../pg/identifier.ts';

/**
 * A question with one value as answer: nodes that give the same one sort the text of these tables alike, and with `named` what
 * is sorted by any collation that a statement names.
 */
export function collationQuestion(
  tables: readonly { readonly schema: string; readonly name: string }[],
  named: boolean,
): string {
  const faces = tables.map(
    ({ schema, name }) => `${quoteLiteral(quoteQualified(schema, name))}::pg_catalog.regclass`,
  );
  const libcVersion = versionOf(`collprovider = 'c'`);
  const icuVersion = versionOf(`collname = 'und-x-icu'`);
  return `SELECT string_agg(fact, ' ' ORDER BY fact COLLATE "C") FROM (
      SELECT DISTINCT c.collname || '=' || coalesce(pg_catalog.pg_collation_actual_version(c.oid), '')
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
       WHERE a.attrelid IN (${faces.join(', ')}) AND a.attnum > 0 AND c.collname NOT IN ('default', 'C', 'POSIX')
      UNION ALL
      SELECT 'default=' || CASE WHEN d.datlocprovider = 'c' AND d.datcollate IN ('C', 'POSIX') THEN 'C'
               ELSE d.datlocprovider::text || d.datcollate || coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', '')
                 || CASE d.datlocprovider WHEN 'c' THEN ${libcVersion} ELSE ${icuVersion} END END
        FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
      ${named ? `UNION ALL SELECT 'named=' || ${libcVersion} || ' ' || ${icuVersion}` : ''}
    ) AS facts(fact)`;
}

function versionOf(condition: string): string {
  return `coalesce((SELECT max(pg_catalog.pg_collation_actual_version(oid)) FROM pg_catalog.pg_collation WHERE ${condition}), '')`;
}

/** What a server's catalogs say of a table or a leaf, with a leaf's own suffix cut off names. */
import type pg from 'pg';

export interface Described {
  readonly columns: readonly string[];
  readonly constraints: readonly string[];
  readonly foreignKeys: readonly string[];
  readonly indexes: readonly string[];
  readonly policies: readonly string[];
  readonly triggers: readonly string[];
  readonly grants: readonly string[];
  readonly flags: readonly string[];
  readonly storage: readonly string[];
  readonly comments: readonly string[];
}

const QUERIES: Readonly<Record<keyof Described, string>> = {
  columns: `SELECT format('%s %s%s default %s%s stats %s storage %s options %s', attname, format_type(atttypid, atttypmod),
      CASE WHEN attnotnull THEN ' not null' END, pg_get_expr(adbin, adrelid), attgenerated, coalesce(attstattarget, -1), attstorage, attoptions)
    FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum`,
  constraints: `SELECT format('%s %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint
    WHERE conrelid = $1 AND contype NOT IN ('f', 'n') AND conname <> 'postern_bucket' ORDER BY 1`,
  foreignKeys: `SELECT format('%s %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint
    WHERE conrelid = $1 AND contype = 'f' ORDER BY 1`,
  indexes: `SELECT format('%s %s %s %s', x.relname, pg_get_indexdef(x.oid), i.indisvalid, i.indisreplident)
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = $1 ORDER BY 1`,
  policies: `SELECT format('%s %s %s %s %s %s', polname, polcmd, polpermissive, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid),
      ARRAY(SELECT pg_get_userbyid(r) FROM unnest(polroles) r ORDER BY 1)) FROM pg_policy WHERE polrelid = $1 ORDER BY 1`,
  triggers: `SELECT format('%s %s', pg_get_triggerdef(oid), tgenabled) FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal ORDER BY 1`,
  grants: `SELECT format('%s %s %s %s', attname, g.grantee::regrole, g.privilege_type, g.is_grantable) FROM (
      SELECT NULL AS attname, a.* FROM pg_class c CROSS JOIN aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a WHERE c.oid = $1
      UNION ALL SELECT t.attname, a.* FROM pg_attribute t CROSS JOIN aclexplode(t.attacl) a WHERE t.attrelid = $1
    ) g WHERE g.privilege_type <> 'MAINTAIN' ORDER BY 1`,
  flags: `SELECT format('rls %s %s identity %s owner %s', relrowsecurity, relforcerowsecurity, relreplident, pg_get_userbyid(relowner))
    FROM pg_class WHERE oid = $1`,
  storage: `SELECT format('%s', reloptions) FROM pg_class WHERE oid = $1`,
  comments: `SELECT format('%s %s', objsubid, description) FROM pg_description WHERE objoid = $1 AND classoid = 'pg_class'::regclass ORDER BY 1`,
};

/** One for each relation, in order. */
export async function describeRelations(
  client: pg.Client,
  relations: readonly string[],
): Promise<readonly Described[]> {
  const values = relations.map((relation) => {
    const parts = Object.entries(QUERIES).map(
      ([part, query]) =>
        `'${part}', ARRAY(SELECT q.line FROM (${query.replaceAll('$1', `'${relation}'::regclass`)}) AS q (line))`,
    );
    return `json_build_object(${parts.join(', ')})`;
  });
  const { rows } = await client.query(`SELECT json_build_array(${values.join(', ')}) AS all`);
  const found: Record<keyof Described, string[]>[] = rows[0].all;
  return found.map((described) => {
    const plain = Object.entries(described).map(([part, lines]) => [part, lines.map(plainNames)]);
    return Object.fromEntries(plain) as Described;
  });
}

/** `postern_leaves.x_b1_g2` and `x_b1_g2` as of the face; words that a partitioned table's index has more. */
function plainNames(text: string): string {
  return text
    .replaceAll(/postern_leaves\.([a-z]\w*?)_b\d+_g\d+/g, 'public.$1')
    .replaceAll(/_b\d+_g\d+\b/g, '')
    .replaceAll(' ON ONLY ', ' ON ');
}

export async function leavesOf(client: pg.Client, table: string): Promise<string[]> {
  const { rows } = await client.query(
    `SELECT relname FROM pg_class WHERE relnamespace = 'postern_leaves'::regnamespace AND relkind = 'r' AND relname ~ '^${table}_b\\d+_g\\d+$' ORDER BY 1`,
  );
  return rows.map((row) => String(row.relname));
}

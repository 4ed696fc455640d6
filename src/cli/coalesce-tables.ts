/**
 * `--coalesce-table` and `--no-coalesce-table` of front mode, where there is no catalog that could hold the switch of a table:
 * names as in SQL. `schema.table` is that table; `table` alone is every table of that name, in whichever schema. Where both
 * name a table, the one with the schema decides.
 */
import { quoteLiteral } from '../pg/identifier.ts';

interface TableName {
  /** undefined: in any schema. */
  readonly schema: string | undefined;
  readonly name: string;
}

export interface TableSwitch extends TableName {
  /** true: although it has triggers and the like; false: never. */
  readonly merges: boolean;
}

const PART = /"(?:[^"]|"")+"|[a-z_\u0080-\uffff][a-z0-9_$\u0080-\uffff]*/iy;

/** undefined: the text is no name of a table. Without quotes, capital letters are small ones, as in SQL. */
export function parseTableName(text: string): TableName | undefined {
  const parts: string[] = [];
  for (let at = 0; ; at++) {
    PART.lastIndex = at;
    const part = PART.exec(text)?.[0];
    if (part === undefined) return undefined;
    parts.push(part.startsWith('"') ? part.slice(1, -1).replaceAll('""', '"') : part.toLowerCase());
    at += part.length;
    if (at === text.length) break;
    if (text[at] !== '.') return undefined;
  }
  const [first, second, third] = parts;
  if (third !== undefined) return undefined;
  return second === undefined ? { schema: undefined, name: first! } : { schema: first, name: second };
}

/** A name that is given both ways, as a user would write it; undefined: there is none. */
export function contradiction(switches: readonly TableSwitch[]): string | undefined {
  const both = switches.find((one) =>
    switches.some(
      ({ schema, name, merges }) => schema === one.schema && name === one.name && merges !== one.merges,
    ),
  );
  return both && nameText(both);
}

/** The query that WriteFactsCache wants: rows of (relation oid, merges bool). undefined: no table is named. */
export function switchesQuery(switches: readonly TableSwitch[]): string | undefined {
  if (switches.length === 0) return undefined;
  const rows = switches.map(
    (table) => `(${schemaText(table)}, ${quoteLiteral(table.name)}, ${table.merges})`,
  );
  return `SELECT DISTINCT ON (c.oid) c.oid, given.merges
    FROM (VALUES ${rows.join(', ')}) given(schema, name, merges)
    JOIN pg_catalog.pg_class c ON c.relname = given.name AND c.relkind IN ('r', 'p')
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = coalesce(given.schema, n.nspname)
   ORDER BY c.oid, given.schema IS NULL`;
}

/** A query for the names that no table has: rows of one text. */
export function missingTablesQuery(switches: readonly TableSwitch[]): string {
  const rows = switches.map(
    (table) => `(${quoteLiteral(nameText(table))}, ${schemaText(table)}, ${quoteLiteral(table.name)})`,
  );
  return `SELECT given.text FROM (VALUES ${rows.join(', ')}) given(text, schema, name)
   WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relname = given.name AND c.relkind IN ('r', 'p') AND n.nspname = coalesce(given.schema, n.nspname))`;
}

function schemaText({ schema }: TableName): string {
  return schema === undefined ? 'NULL::text' : `${quoteLiteral(schema)}::text`;
}

function nameText({ schema, name }: TableName): string {
  const quoted = (part: string) =>
    /^[a-z_\u0080-\uffff][a-z0-9_$\u0080-\uffff]*$/.test(part) ? part : `"${part.replaceAll('"', '""')}"`;
  return schema === undefined ? quoted(name) : `${quoted(schema)}.${quoted(name)}`;
}

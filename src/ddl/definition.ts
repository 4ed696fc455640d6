/**
 * Writes down the definition of a plain table, from PostgreSQL's own catalog, as the statements that make a table of the same
 * name on another node, or its face: columns, defaults, generated columns, constraints, indexes, extended statistics, comments,
 * grants.
 *
 * Invariant: what would be lost on the way (triggers, policies, …) is refused, never dropped silently.
 */
import { notSupported, type PosternError } from '../base/errors.ts';
import type { PartitionStrategy } from '../catalog/placement-sql.ts';
import { GUARD_TRIGGER } from '../catalog/reference-guard.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../pg/identifier.ts';
import { OID } from '../pg/oid.ts';
import type { UniqueSpec } from '../plan/lookups.ts';
import type { SqlConnection } from './context.ts';
import { readPlainUniques } from './plain-uniques.ts';
import { readTableExtras, statementOn } from './table-extras.ts';

export interface TableDefinition {
  readonly statements: readonly string[];
  readonly storage: ReadonlyMap<string, string>;
  /** Quoted, qualified names of its extended statistics. */
  readonly statistics: readonly string[];
  /** Those that a row is copied by: all but the generated ones. */
  readonly columns: readonly string[];
  /** Of a face: what is unique without the shard key, and not among the statements. */
  readonly uniques: readonly UniqueSpec[];
}

const SERIAL_TYPES: ReadonlyMap<number, string> = new Map([
  [OID.int2, 'smallserial'],
  [OID.int4, 'serial'],
  [OID.int8, 'bigserial'],
]);

export interface PlainTable {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
}

/** As whose definition it is needed. */
export type DefinitionUse =
  /** A face: partitioned by the key. `sequences` are the columns whose values the router supplies. */
  | {
      readonly door: 'sharded';
      readonly keyColumn: string;
      readonly strategy: PartitionStrategy;
      readonly sequences: readonly string[];
      readonly catalog?: SqlConnection;
    }
  /** A copy: its rows come with all their values, so that its own defaults matter to nobody who writes. */
  | {
      readonly door: 'reference';
      /** With the rights of Postern's role; default: the connection itself has them. */
      readonly catalog?: SqlConnection;
    };

/** Runs on home with search_path pg_catalog, so that all names come out qualified. */
export async function readDefinition(
  connection: SqlConnection,
  table: PlainTable,
  use: DefinitionUse,
): Promise<TableDefinition> {
  await refuseWhatWouldBeLost(connection, table, use);
  const columns = await readColumns(connection, table.oid);
  const parts = columns.map((column) => columnText(column, use));
  const uniques = use.door === 'sharded' ? await readPlainUniques(connection, table, use.keyColumn) : [];
  const without = uniques.map(({ indexOid }) => indexOid);
  const constraints = await connection.query<{ text: string }>(
    `SELECT format('CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)) AS text FROM pg_constraint
     WHERE conrelid = $1 AND contype IN ('p', 'u', 'c', 'x', 'f') AND NOT (contype = 'u' AND conindid = ANY ($2::oid[]))
     ORDER BY contype, conname`,
    [table.oid, without],
  );
  parts.push(...constraints.map((constraint) => constraint.text));
  const name = quoteQualified(table.schema, table.name);
  const storage = await readStorage(connection, table.oid);
  const create = `CREATE TABLE ${name} (${parts.join(', ')})${tableClause(use, storage)}`;
  const statistics = await connection.query<{ name: string }>(
    `SELECT format('%I.%I', n.nspname, s.stxname) AS name
     FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxrelid = $1`,
    [table.oid],
  );
  return {
    statistics: statistics.map((row) => row.name),
    statements: [create, ...(await readExtras(connection, { oid: table.oid, name, without }))],
    storage,
    uniques,
    columns: columns.filter((column) => column.generated === '').map((column) => column.name),
  };
}

/** A face has no storage of its own: its leaves have the parameters. */
function tableClause(use: DefinitionUse, storage: ReadonlyMap<string, string>): string {
  return use.door === 'sharded'
    ? ` PARTITION BY ${use.strategy} (${quoteIdentifier(use.keyColumn)})`
    : storageClause(storage);
}

/** Storage parameters, e.g. fillfactor, as a WITH clause. */
export function storageClause(storage: ReadonlyMap<string, string>): string {
  if (storage.size === 0) return '';
  const options = [...storage].map(([name, value]) => `${quoteIdentifier(name)} = ${quoteLiteral(value)}`);
  return ` WITH (${options.join(', ')})`;
}

interface ColumnRow {
  readonly name: string;
  readonly type: string;
  readonly typeOid: number;
  readonly collation: string | null;
  readonly notNull: boolean;
  readonly identity: '' | 'a' | 'd';
  readonly generated: '' | 's' | 'v';
  readonly expression: string | null;
  readonly ownsSequence: boolean;
}

async function readColumns(connection: SqlConnection, oid: number): Promise<ColumnRow[]> {
  return await connection.query<ColumnRow>(
    `SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.atttypid AS "typeOid",
       CASE WHEN a.attcollation <> t.typcollation THEN format('%I.%I', ln.nspname, l.collname) END AS collation,
       a.attnotnull AS "notNull", a.attidentity::text AS identity, a.attgenerated::text AS generated,
       pg_get_expr(d.adbin, d.adrelid) AS expression,
       EXISTS (SELECT FROM pg_depend p WHERE p.refclassid = 'pg_class'::regclass AND p.refobjid = a.attrelid
         AND p.refobjsubid = a.attnum AND p.classid = 'pg_class'::regclass AND p.deptype = 'a') AS "ownsSequence"
     FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
     LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     LEFT JOIN pg_collation l ON l.oid = a.attcollation LEFT JOIN pg_namespace ln ON ln.oid = l.collnamespace
     WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`,
    [oid],
  );
}

function columnText(column: ColumnRow, use: DefinitionUse): string {
  const collation = column.collation === null ? '' : ` COLLATE ${column.collation}`;
  const notNull = column.notNull ? ' NOT NULL' : '';
  const serial = column.identity === '' && takesSequence(column, use);
  if (serial && !column.ownsSequence && use.door === 'reference') {
    // The sequence is on home, where each new row is made.
    return `${quoteIdentifier(column.name)} ${column.type}${collation}${notNull}`;
  }
  if (serial && !column.ownsSequence) {
    throw notSupported(
      `column "${column.name}" takes its default from a sequence that is not its own`,
      `ALTER SEQUENCE … OWNED BY the column first, if nothing else uses it.`,
    );
  }
  const type = (serial ? SERIAL_TYPES.get(column.typeOid) : undefined) ?? column.type;
  let rest = '';
  if (column.identity !== '') {
    // A copy takes the values that the home node has given.
    const always = column.identity === 'a' && use.door === 'sharded';
    rest = ` GENERATED ${always ? 'ALWAYS' : 'BY DEFAULT'} AS IDENTITY`;
  } else if (column.generated !== '') {
    rest = ` GENERATED ALWAYS AS (${column.expression}) ${column.generated === 's' ? 'STORED' : 'VIRTUAL'}`;
  } else if (!serial && column.expression !== null) {
    rest = ` DEFAULT ${column.expression}`;
  }
  return `${quoteIdentifier(column.name)} ${type}${collation}${rest}${notNull}`;
}

function takesSequence(column: ColumnRow, use: DefinitionUse): boolean {
  if (use.door === 'sharded') return use.sequences.includes(column.name);
  return column.generated === '' && /\bnextval\(/.test(column.expression ?? '');
}

/** `without`: indexes that are left out. */
async function readExtras(
  connection: SqlConnection,
  {
    oid,
    name,
    without,
  }: { readonly oid: number; readonly name: string; readonly without: readonly number[] },
): Promise<string[]> {
  const rows = await connection.query<{ text: string }>(
    `SELECT pg_get_indexdef(i.indexrelid) AS text FROM pg_index i
     WHERE i.indrelid = $1 AND i.indexrelid <> ALL ($2::oid[]) AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = $1)
     UNION ALL SELECT pg_get_statisticsobjdef(s.oid) FROM pg_statistic_ext s WHERE s.stxrelid = $1`,
    [oid, without],
  );
  const statements = rows.map((row) => row.text);
  const comments = await connection.query<{ column: string | null; text: string }>(
    `SELECT a.attname AS column, d.description AS text FROM pg_description d
     LEFT JOIN pg_attribute a ON a.attrelid = d.objoid AND a.attnum = d.objsubid AND d.objsubid > 0
     WHERE d.objoid = $1 AND d.classoid = 'pg_class'::regclass ORDER BY d.objsubid`,
    [oid],
  );
  for (const { column, text } of comments) {
    const what = column === null ? `TABLE ${name}` : `COLUMN ${name}.${quoteIdentifier(column)}`;
    statements.push(`COMMENT ON ${what} IS ${quoteLiteral(text)}`);
  }
  const grants = await connection.query<{ text: string }>(
    `SELECT format('GRANT %s ON %s TO %s%s', a.privilege_type, $2::text, coalesce(quote_ident(r.rolname), 'PUBLIC'),
       CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END) AS text
     FROM pg_class c CROSS JOIN aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
     WHERE c.oid = $1 AND a.grantee <> c.relowner ORDER BY 1`,
    [oid, name],
  );
  const extras = await readTableExtras(connection, oid);
  return [
    ...statements,
    ...grants.map((grant) => grant.text),
    ...extras.statements.map((statement) => statementOn(name, statement)),
  ];
}

async function readStorage(connection: SqlConnection, oid: number): Promise<ReadonlyMap<string, string>> {
  const rows = await connection.query<{ name: string; value: string }>(
    `SELECT o.option_name AS name, o.option_value AS value
     FROM pg_class c CROSS JOIN pg_options_to_table(c.reloptions) o WHERE c.oid = $1`,
    [oid],
  );
  return new Map(rows.map((row) => [row.name, row.value]));
}

/** Foreign keys that hold on each node: to reference tables, or (of a reference table) to itself. */
const FOREIGN_KEYS_ELSEWHERE = `EXISTS (SELECT FROM pg_constraint k WHERE k.contype = 'f' AND k.conrelid = $1
  AND k.confrelid <> k.conrelid
  AND NOT EXISTS (SELECT FROM ${INTERNAL_SCHEMA}.local_tables l JOIN ${INTERNAL_SCHEMA}.tables t USING (table_id)
    WHERE l.face = k.confrelid AND (t.door = 'reference' OR $2 = 'sharded')))`;

/** It runs on the node of the row, which has but some of the rows of that table; or the table has another name there. */
const TRIGGERS_THAT_NAME_TABLES = `EXISTS (SELECT FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid
  WHERE g.tgrelid = $1 AND NOT g.tgisinternal AND (p.prosrc ~* '\\mtg_(table_name|relname|relid|table_schema)\\M' OR EXISTS (
    SELECT FROM (SELECT table_name FROM ${INTERNAL_SCHEMA}.tables WHERE door = 'sharded'
      UNION ALL SELECT relname FROM pg_class WHERE oid = $1) named
    WHERE p.prosrc ~* concat('\\m', regexp_replace(named.table_name, '\\W', '\\\\\\&', 'g'), '\\M'))))`;

async function refuseWhatWouldBeLost(
  connection: SqlConnection,
  table: PlainTable,
  { door, catalog = connection }: DefinitionUse,
): Promise<void> {
  const rows = await catalog.query<{ what: string }>(
    `SELECT what FROM (
       SELECT 'foreign keys to tables that are not reference tables' AS what, ${FOREIGN_KEYS_ELSEWHERE} AS found
       UNION ALL SELECT 'triggers', $2 = 'reference' AND EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal
         AND tgname <> '${GUARD_TRIGGER}')
       UNION ALL SELECT 'triggers FOR EACH STATEMENT, or with transition tables', $2 = 'sharded' AND EXISTS (
         SELECT FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal
           AND (tgtype & 1 = 0 OR tgoldtable IS NOT NULL OR tgnewtable IS NOT NULL OR tgconstrrelid <> 0))
       UNION ALL SELECT 'triggers whose function names a sharded table', $2 = 'sharded' AND ${TRIGGERS_THAT_NAME_TABLES}
       UNION ALL SELECT 'rules', EXISTS (SELECT FROM pg_rewrite WHERE ev_class = $1)
       UNION ALL SELECT 'row-level security', $2 = 'reference' AND (c.relrowsecurity OR EXISTS (SELECT FROM pg_policy WHERE polrelid = $1))
         FROM pg_class c WHERE c.oid = $1
       UNION ALL SELECT 'inheritance', EXISTS (SELECT FROM pg_inherits WHERE $1 IN (inhrelid, inhparent))
       UNION ALL SELECT 'a composite type', reloftype <> 0 FROM pg_class WHERE oid = $1
     ) checks WHERE found`,
    [table.oid, door],
  );
  if (rows.length > 0) throw cannotHaveDoor(table.name, door, rows.map((row) => row.what).join(', '));
}

function cannotHaveDoor(name: string, door: DefinitionUse['door'], what: string): PosternError {
  const become = door === 'sharded' ? 'be sharded' : 'be a reference table';
  return notSupported(
    `table "${name}" cannot ${become} as it is`,
    'Drop them first, or leave the table on its home node.',
    `It has ${what}.`,
  );
}

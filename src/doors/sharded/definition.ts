/**
 * Writes down the definition of a plain table, from PostgreSQL's own catalog, as the statements that make the face of the
 * same name: columns, defaults, generated columns, constraints, indexes, extended statistics, comments, grants.
 *
 * Invariant: what would be lost on the way (foreign keys, triggers, policies, …) is refused, never dropped silently.
 */
import { notSupported, type PosternError } from '../../base/errors.ts';
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../../pg/identifier.ts';
import { OID } from '../../pg/oid.ts';
import type { ControlConnection } from '../../platform/control-connection.ts';
import { readSequences, type SequenceColumn } from './face.ts';

export interface TableDefinition {
  readonly statements: readonly string[];
  readonly sequences: readonly SequenceColumn[];
  readonly storage: ReadonlyMap<string, string>;
  /** Quoted, qualified names of its extended statistics. */
  readonly statistics: readonly string[];
  /** Those that a row is copied by: all but the generated ones. */
  readonly columns: readonly string[];
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

/** Runs with search_path pg_catalog, so that all names come out qualified. */
export async function readDefinition(
  connection: ControlConnection,
  table: PlainTable,
  keyColumn: string,
): Promise<TableDefinition> {
  await refuseWhatWouldBeLost(connection, table);
  const sequences = await readSequences(connection, table.oid);
  const columns = await readColumns(connection, table.oid);
  const parts = columns.map((column) => columnText(column, sequences));
  const constraints = await connection.query<{ text: string }>(
    `SELECT format('CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)) AS text FROM pg_constraint
     WHERE conrelid = $1 AND contype IN ('p', 'u', 'c', 'x') ORDER BY contype, conname`,
    [table.oid],
  );
  parts.push(...constraints.map((constraint) => constraint.text));
  const name = quoteQualified(table.schema, table.name);
  const create = `CREATE TABLE ${name} (${parts.join(', ')}) PARTITION BY HASH (${quoteIdentifier(keyColumn)})`;
  const statistics = await connection.query<{ name: string }>(
    `SELECT format('%I.%I', n.nspname, s.stxname) AS name
     FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxrelid = $1`,
    [table.oid],
  );
  return {
    statistics: statistics.map((row) => row.name),
    statements: [create, ...(await readExtras(connection, table.oid, name))],
    sequences,
    storage: await readStorage(connection, table.oid),
    columns: columns.filter((column) => column.generated === '').map((column) => column.name),
  };
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

async function readColumns(connection: ControlConnection, oid: number): Promise<ColumnRow[]> {
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

function columnText(column: ColumnRow, sequences: readonly SequenceColumn[]): string {
  const collation = column.collation === null ? '' : ` COLLATE ${column.collation}`;
  const notNull = column.notNull ? ' NOT NULL' : '';
  const serial = sequences.some((sequence) => sequence.name === column.name) && column.identity === '';
  if (serial && !column.ownsSequence) {
    throw notSupported(
      `column "${column.name}" takes its default from a sequence that is not its own`,
      `ALTER SEQUENCE … OWNED BY the column first, if nothing else uses it.`,
    );
  }
  const type = (serial ? SERIAL_TYPES.get(column.typeOid) : undefined) ?? column.type;
  let rest = '';
  if (column.identity !== '') {
    rest = ` GENERATED ${column.identity === 'a' ? 'ALWAYS' : 'BY DEFAULT'} AS IDENTITY`;
  } else if (column.generated !== '') {
    rest = ` GENERATED ALWAYS AS (${column.expression}) ${column.generated === 's' ? 'STORED' : 'VIRTUAL'}`;
  } else if (!serial && column.expression !== null) {
    rest = ` DEFAULT ${column.expression}`;
  }
  return `${quoteIdentifier(column.name)} ${type}${collation}${rest}${notNull}`;
}

async function readExtras(connection: ControlConnection, oid: number, name: string): Promise<string[]> {
  const rows = await connection.query<{ text: string }>(
    `SELECT pg_get_indexdef(i.indexrelid) AS text FROM pg_index i
     WHERE i.indrelid = $1 AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = $1)
     UNION ALL SELECT pg_get_statisticsobjdef(s.oid) FROM pg_statistic_ext s WHERE s.stxrelid = $1`,
    [oid],
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
  return [...statements, ...grants.map((grant) => grant.text)];
}

async function readStorage(connection: ControlConnection, oid: number): Promise<ReadonlyMap<string, string>> {
  const rows = await connection.query<{ name: string; value: string }>(
    `SELECT o.option_name AS name, o.option_value AS value
     FROM pg_class c CROSS JOIN pg_options_to_table(c.reloptions) o WHERE c.oid = $1`,
    [oid],
  );
  return new Map(rows.map((row) => [row.name, row.value]));
}

async function refuseWhatWouldBeLost(connection: ControlConnection, table: PlainTable): Promise<void> {
  const rows = await connection.query<{ what: string }>(
    `SELECT what FROM (
       SELECT 'foreign keys' AS what, EXISTS (SELECT FROM pg_constraint
         WHERE contype = 'f' AND $1::oid IN (conrelid, confrelid)) AS found
       UNION ALL SELECT 'triggers', EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal)
       UNION ALL SELECT 'rules', EXISTS (SELECT FROM pg_rewrite WHERE ev_class = $1)
       UNION ALL SELECT 'row-level security', c.relrowsecurity OR EXISTS (SELECT FROM pg_policy WHERE polrelid = $1)
         FROM pg_class c WHERE c.oid = $1
       UNION ALL SELECT 'inheritance', EXISTS (SELECT FROM pg_inherits WHERE $1 IN (inhrelid, inhparent))
       UNION ALL SELECT 'privileges on single columns', EXISTS (SELECT FROM pg_attribute
         WHERE attrelid = $1 AND attacl IS NOT NULL)
       UNION ALL SELECT 'a composite type', reloftype <> 0 FROM pg_class WHERE oid = $1
     ) checks WHERE found`,
    [table.oid],
  );
  if (rows.length > 0) throw cannotShard(table.name, rows.map((row) => row.what).join(', '));
}

function cannotShard(name: string, what: string): PosternError {
  return notSupported(
    `table "${name}" cannot be sharded as it is`,
    'Drop them first, or leave the table on its home node.',
    `It has ${what}.`,
  );
}

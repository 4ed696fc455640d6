/**
 * Reads back, from PostgreSQL's own catalog, what a face has become: the face is the truth about a sharded table's columns,
 * constraints and indexes, and leaves are made after it (leaf.ts).
 */
import { assert } from '../../base/assert.ts';
import { notSupported } from '../../base/errors.ts';
import type { SqlConnection } from '../../ddl/context.ts';
import { readTableExtras, type TableExtras } from '../../ddl/table-extras.ts';
import { OID } from '../../pg/oid.ts';
import { type ForeignKey, readForeignKeys } from './foreign-keys.ts';

export interface SequenceColumn {
  readonly name: string;
  /** As text: PostgreSQL's own values may be beyond what a number holds. */
  readonly nextId: string;
  readonly maxId: string;
}

export interface Face {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly owner: string;
  /** Columns whose values the router supplies: serial, identity, or a default of nextval. */
  readonly sequences: readonly SequenceColumn[];
  /** Primary key, unique and exclusion constraints, with the index that comes with each; and foreign keys. */
  readonly constraints: readonly { readonly name: string; readonly definition: string }[];
  /** Names of those that are foreign keys. */
  readonly foreignKeys: readonly string[];
  /** The same, with what they reference. */
  readonly references: readonly ForeignKey[];
  /** Indexes without a constraint; `tail` begins after the table's name. */
  readonly indexes: readonly { readonly name: string; readonly unique: boolean; readonly tail: string }[];
  readonly grants: readonly Grant[];
  /** Policies, triggers, privileges on columns, …. */
  readonly extras: TableExtras;
}

interface Grant {
  /** Undefined: PUBLIC. */
  readonly grantee: string | undefined;
  readonly privilege: string;
  readonly grantable: boolean;
}

/** The largest id that a client in JavaScript reads without loss. */
const ID_MAX = Number.MAX_SAFE_INTEGER;
const TYPE_ID_MAX: ReadonlyMap<number, number> = new Map([
  [OID.int2, 32_767],
  [OID.int4, 2_147_483_647],
  [OID.int8, ID_MAX],
]);

export async function describeFace(connection: SqlConnection, oid: number): Promise<Face> {
  const names = await connection.query<{ schema: string; name: string; owner: string }>(
    `SELECT n.nspname AS schema, c.relname AS name, pg_get_userbyid(c.relowner) AS owner
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1`,
    [oid],
  );
  const name = names[0];
  assert(name, 'the face that was just made is in pg_class');
  const constraints = await connection.query<{ name: string; definition: string; isForeign: boolean }>(
    `SELECT conname AS name, pg_get_constraintdef(oid) AS definition, contype = 'f' AS "isForeign"
     FROM pg_constraint WHERE conrelid = $1 AND contype IN ('p', 'u', 'x', 'f') ORDER BY contype, conname`,
    [oid],
  );
  const indexes = await connection.query<{ name: string; unique: boolean; tail: string }>(
    `SELECT d.name, d.unique, substr(d.definition, length(d.head) + 1) AS tail FROM (
       SELECT x.relname AS name, i.indisunique AS unique, pg_get_indexdef(x.oid) AS definition,
         format('CREATE %sINDEX %I ON %s%I.%I', CASE WHEN i.indisunique THEN 'UNIQUE ' END, x.relname,
           CASE WHEN x.relkind = 'I' THEN 'ONLY ' END, n.nspname, c.relname) AS head
       FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
       JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE i.indrelid = $1 AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.oid AND k.conrelid = $1)
     ) d ORDER BY d.name`,
    [oid],
  );
  for (const index of indexes)
    assert(index.tail.startsWith(' USING '), `unexpected definition of index ${index.name}`);
  const grants = await connection.query<{ grantee: string | null; privilege: string; grantable: boolean }>(
    `SELECT r.rolname AS grantee, a.privilege_type AS privilege, a.is_grantable AS grantable
     FROM pg_class c CROSS JOIN aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
     WHERE c.oid = $1 AND a.grantee <> c.relowner ORDER BY 1, 2`,
    [oid],
  );
  return {
    oid,
    ...name,
    sequences: await readSequences(connection, oid),
    constraints,
    foreignKeys: constraints
      .filter((constraint) => constraint.isForeign)
      .map((constraint) => constraint.name),
    references: await readForeignKeys(connection, oid),
    indexes,
    extras: await readTableExtras(connection, oid),
    grants: grants.map((grant) => ({ ...grant, grantee: grant.grantee ?? undefined })),
  };
}

/** Columns of a table that take their values from a sequence. Throws 0A000 for one that Postern could not stand in for. */
export async function readSequences(
  connection: SqlConnection,
  tableOid: number,
): Promise<readonly SequenceColumn[]> {
  const rows = await connection.query<{
    name: string;
    type_oid: number;
    plain: boolean;
    increment: string;
    next_id: string;
    max_id: string;
  }>(
    `SELECT a.attname AS name, a.atttypid AS type_oid, q.seqincrement::text AS increment,
       a.attidentity <> '' OR pg_get_expr(d.adbin, d.adrelid) ~ '^nextval\\(''([^'']|'''')*''::regclass\\)$' AS plain,
       coalesce(pg_sequence_last_value(q.seqrelid) + 1, q.seqstart)::text AS next_id, q.seqmax::text AS max_id
     FROM pg_attribute a
     LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     JOIN pg_depend p ON
       (p.classid = 'pg_class'::regclass AND p.refclassid = 'pg_class'::regclass AND p.refobjid = a.attrelid
        AND p.refobjsubid = a.attnum AND p.deptype = 'i' AND a.attidentity <> '')
       OR (p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass)
     JOIN pg_sequence q ON q.seqrelid = CASE WHEN p.classid = 'pg_class'::regclass THEN p.objid ELSE p.refobjid END
     WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`,
    [tableOid],
  );
  return rows.map((row) => {
    const typeMax = TYPE_ID_MAX.get(row.type_oid);
    if (!row.plain || typeMax === undefined || row.increment !== '1') {
      throw notSupported(
        `column "${row.name}" of a sharded table cannot take its default from this sequence`,
        'Use bigserial, GENERATED BY DEFAULT AS IDENTITY, or a default without a sequence.',
        'Ids of a sharded table come from blocks that each router leases, in steps of 1.',
      );
    }
    const maxId = BigInt(row.max_id) < BigInt(typeMax) ? row.max_id : String(typeMax);
    return { name: row.name, nextId: row.next_id, maxId };
  });
}

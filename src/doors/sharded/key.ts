/**
 * Which columns may be a shard key: those whose hash depends on the value alone, equally on each node.
 *
 * Invariant: a key that is let through hashes to the same bucket on all nodes. Enums hash by OID, which differs between
 * nodes; OID-like types name what differs; a non-deterministic collation hashes by the rules of a library whose version
 * may differ; for floats, equal values and equal texts are different things.
 */
import { notSupported, type PosternError } from '../../base/errors.ts';
import type { SqlConnection } from '../../ddl/context.ts';
import type { KeyTypeName } from '../../pg/hash/key-type.ts';
import { OID } from '../../pg/oid.ts';

const KEY_TYPES: ReadonlyMap<number, KeyTypeName> = new Map([
  [OID.int2, 'int2'],
  [OID.int4, 'int4'],
  [OID.int8, 'int8'],
  [OID.text, 'text'],
  [OID.varchar, 'varchar'],
  [OID.bpchar, 'bpchar'],
  [OID.uuid, 'uuid'],
  [OID.date, 'date'],
  [OID.timestamp, 'timestamp'],
  [OID.timestamptz, 'timestamptz'],
  [OID.numeric, 'numeric'],
]);

export interface ShardKey {
  readonly column: string;
  readonly type: KeyTypeName;
  /** Qualified, e.g. pg_catalog.hashint8extended. */
  readonly hashFunction: string;
}

/** Reads the key of a face, a table that is partitioned by one column. Throws 0A000 if it may not be a key. */
export async function readShardKey(connection: SqlConnection, faceOid: number): Promise<ShardKey> {
  const rows = await connection.query<{
    name: string;
    type_oid: number;
    type_name: string;
    type_kind: string;
    element_oid: number;
    deterministic: boolean;
    hash_function: string;
    strategy: string;
    by_bytes: boolean;
  }>(
    `SELECT a.attname AS name, a.atttypid AS type_oid, format_type(a.atttypid, NULL) AS type_name,
       t.typtype::text AS type_kind, t.typelem AS element_oid,
       coalesce(l.collisdeterministic, true) AS deterministic,
       format('%I.%I', fn.nspname, f.proname) AS hash_function, pt.partstrat::text AS strategy,
       a.attcollation = 0 OR l.collname IN ('C', 'POSIX') OR a.attcollation = 'pg_catalog.default'::regcollation
         AND (SELECT d.datcollate IN ('C', 'POSIX') FROM pg_database d WHERE d.datname = current_database()) AS by_bytes
     FROM pg_partitioned_table pt
     JOIN pg_attribute a ON a.attrelid = pt.partrelid AND a.attnum = pt.partattrs[0]
     JOIN pg_type t ON t.oid = a.atttypid
     LEFT JOIN pg_collation l ON l.oid = a.attcollation
     JOIN pg_opclass o ON o.opcmethod = (SELECT oid FROM pg_am WHERE amname = 'hash')
       AND CASE pt.partstrat WHEN 'h' THEN o.oid = pt.partclass[0] ELSE o.opcdefault
         AND o.opcintype = CASE a.atttypid WHEN 'varchar'::regtype THEN 'text'::regtype ELSE a.atttypid END END
     JOIN pg_amproc p ON p.amprocfamily = o.opcfamily AND p.amproclefttype = o.opcintype
       AND p.amprocrighttype = o.opcintype AND p.amprocnum = 2
     JOIN pg_proc f ON f.oid = p.amproc JOIN pg_namespace fn ON fn.oid = f.pronamespace
     WHERE pt.partrelid = $1 AND pt.partnatts = 1`,
    [faceOid],
  );
  const row = rows[0];
  if (!row) throw refusedKey('this column', 'its type has no hash that Postern could use');
  const type = KEY_TYPES.get(row.type_oid);
  if (!type) {
    const reason = row.element_oid !== 0 ? 'arrays' : (REASONS[row.type_kind] ?? `type ${row.type_name}`);
    throw refusedKey(`column "${row.name}"`, `${reason} can't be a key`);
  }
  if (!row.deterministic) {
    throw refusedKey(
      `column "${row.name}"`,
      'its collation is not deterministic, so equal keys can differ in their bytes',
    );
  }
  if (row.strategy === 'r' && (type === 'bpchar' || !row.by_bytes)) {
    throw notSupported(
      `column "${row.name}" cannot be the key of a table that is sharded by range`,
      'Use method list or hash, or declare the column as text COLLATE "C".',
      type === 'bpchar'
        ? 'char(n) is compared without the blanks at its end'
        : 'text is compared by the rules of its collation, which the router knows of "C" alone',
    );
  }
  return { column: row.name, type, hashFunction: row.hash_function };
}

const REASONS: Readonly<Record<string, string>> = {
  e: 'enums (they hash by an OID that differs between nodes)',
  d: 'domains',
  c: 'composite types',
  r: 'ranges',
  m: 'multiranges',
};

function refusedKey(column: string, detail: string): PosternError {
  return notSupported(
    `${column} cannot be the key of a sharded table`,
    `Use a key of one of these types: ${[...KEY_TYPES.values()].join(', ')}.`,
    detail,
  );
}

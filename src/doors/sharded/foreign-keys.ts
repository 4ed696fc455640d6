/**
 * Foreign keys of a sharded table: to reference tables, which are on every node; or from leaf to leaf, to a table that is colocated with
 * it (or to itself), with the shard keys of both among the columns, so that a row and the row that it references have one bucket.
 * They are on the leaves alone (leaf.ts).
 */
import { notSupported } from '../../base/errors.ts';
import { LEAF_SCHEMA, leafName } from '../../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import type { SqlConnection } from '../../ddl/context.ts';
import { quoteQualified } from '../../pg/identifier.ts';

export interface ForeignKey {
  readonly name: string;
  /** As PostgreSQL prints it, with the table that it references qualified. */
  readonly definition: string;
  readonly schema: string;
  readonly table: string;
  /** The same, as it stands in the definition. */
  readonly relation: string;
  readonly columns: readonly string[];
  readonly referencedColumns: readonly string[];
  /** It deletes or changes rows, and does not merely refuse. */
  readonly cascades: boolean;
}

/** Of the sharded tables that are referenced, by `relation`: generations by bucket. */
export type ForeignTargets = ReadonlyMap<string, readonly number[]>;

/** With search_path pg_catalog. */
export async function readForeignKeys(
  connection: SqlConnection,
  oid: number,
): Promise<readonly ForeignKey[]> {
  const columnsOf = (relation: string, numbers: string) =>
    `ARRAY(SELECT a.attname::text FROM unnest(${numbers}) WITH ORDINALITY AS key (attnum, place)
       JOIN pg_attribute a ON a.attrelid = ${relation} AND a.attnum = key.attnum ORDER BY key.place)`;
  return await connection.query<ForeignKey>(
    `SELECT k.conname::text AS name, pg_get_constraintdef(k.oid) AS definition, n.nspname::text AS schema, c.relname::text AS table,
       k.confrelid::regclass::text AS relation, ${columnsOf('k.conrelid', 'k.conkey')} AS columns,
       ${columnsOf('k.confrelid', 'k.confkey')} AS "referencedColumns",
       k.confdeltype NOT IN ('a', 'r') OR k.confupdtype NOT IN ('a', 'r') AS cascades
     FROM pg_constraint k JOIN pg_class c ON c.oid = k.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE k.conrelid = $1 AND k.contype = 'f' AND k.conparentid = 0 ORDER BY k.conname`,
    [oid],
  );
}

interface ShardedTarget {
  readonly id: number;
  readonly door: string;
  readonly key_column: string | null;
  readonly colocation_id: number | null;
  readonly generations: readonly number[] | null;
}

/**
 * Judges the foreign keys of a table that is being made, on home, and gives what their leaves need. `catalog`: with the rights of
 * Postern's role. Throws 0A000.
 */
export async function resolveForeignKeys(
  catalog: SqlConnection,
  keys: readonly ForeignKey[],
  own: {
    readonly schema: string;
    readonly name: string;
    readonly keyColumn: string;
    readonly colocationId: number;
    readonly tableId: number;
    readonly generation: number;
    readonly bucketCount: number;
  },
): Promise<ForeignTargets> {
  const targets = new Map<string, readonly number[]>();
  for (const key of keys) {
    const isSelf = key.schema === own.schema && key.table === own.name;
    const target = isSelf ? undefined : await readTarget(catalog, key);
    if (target?.door === 'reference') continue;
    if (!isSelf && !target) throw toSingle(key, own.name);
    if (target && target.colocation_id !== own.colocationId) throw toOthers(key, own.name);
    const keyAt = key.columns.indexOf(own.keyColumn);
    const referencedKey = target ? target.key_column : own.keyColumn;
    if (keyAt < 0 || key.referencedColumns[keyAt] !== referencedKey)
      throw withoutKey(key, own, referencedKey ?? '');
    targets.set(
      key.relation,
      target?.generations ?? Array.from({ length: own.bucketCount }, () => own.generation),
    );
    if (key.cascades) {
      await catalog.query(`UPDATE ${INTERNAL_SCHEMA}.tables SET cascades = true WHERE table_id = $1`, [
        target?.id ?? own.tableId,
      ]);
    }
  }
  return targets;
}

async function readTarget(catalog: SqlConnection, key: ForeignKey): Promise<ShardedTarget | undefined> {
  const [target] = await catalog.query<ShardedTarget>(
    `SELECT t.table_id AS id, t.door, t.key_column, t.colocation_id,
       (SELECT array_agg(l.generation::int4 ORDER BY l.bucket) FROM ${INTERNAL_SCHEMA}.leaves l WHERE l.table_id = t.table_id)
         AS generations
     FROM ${INTERNAL_SCHEMA}.tables t WHERE t.state = 'ready' AND t.table_schema = $1 AND t.table_name = $2`,
    [key.schema, key.table],
  );
  return target;
}

/** What stands on the leaf of a bucket. */
export function definitionOnLeaf(key: ForeignKey, targets: ForeignTargets, bucket: number): string {
  const generation = targets.get(key.relation)?.[bucket];
  if (generation === undefined) return key.definition;
  const leaf = quoteQualified(LEAF_SCHEMA, leafName(key.table, bucket, generation));
  return key.definition.replace(` REFERENCES ${key.relation}(`, () => ` REFERENCES ${leaf}(`);
}

function toSingle(key: ForeignKey, name: string) {
  return notSupported(
    `a foreign key of sharded table "${name}" to "${key.table}", which is no reference table`,
    `It lives on the home node alone: make it a reference table first, with SELECT create_reference_table('${key.table}').`,
  );
}

function toOthers(key: ForeignKey, name: string) {
  return notSupported(
    `a foreign key of sharded table "${name}" to "${key.table}", which is not colocated with it`,
    'Rows of both would be on different nodes: shard the two by the same key, or make the other a reference table.',
  );
}

function withoutKey(
  key: ForeignKey,
  own: { readonly name: string; readonly keyColumn: string },
  referencedKey: string,
) {
  return notSupported(
    `a foreign key of sharded table "${own.name}" to "${key.table}" without both shard keys`,
    `Have "${own.keyColumn}" reference "${referencedKey}" in it, beside the other columns.`,
  );
}

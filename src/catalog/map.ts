/**
 * The map of the cluster as one router sees it at one epoch: which tables are sharded, by what, and where each bucket
 * lives; and which are on every node. Immutable: a change of the catalog makes a new map. catalog/store.ts reads it from PostgreSQL, plan/ decides by it.
 *
 * Invariant: a generation is never used twice for a leaf of the same bucket, on any node; so a statement that names a
 * leaf of a stale map fails with 42P01 and writes nothing.
 */
import { createHash } from 'node:crypto';
import type { KeyTypeName } from '../pg/hash/key-type.ts';
import { IDENTIFIER_BYTES_MAX } from '../pg/identifier.ts';
import type { KeyDirectory } from '../pg/key/directory.ts';

/** The schema, on each node, that holds the leaves of all sharded tables. */
export const LEAF_SCHEMA = 'postern_leaves';
/** The functions of two-phase commit that clients' backends call, and clients themselves don't. */
export const COMMIT_SCHEMA = 'postern_commit';
/** The schema of the catalog on the home node. */
export const CATALOG_SCHEMA = 'postern';
/** PostgreSQL's catalogs as users should see them, on the home node: views and functions (src/introspect). */
export const SHOWN_SCHEMA = 'postern_shown';

export interface NodeInfo {
  readonly id: number;
  readonly name: string;
}

export interface BucketPlace {
  readonly nodeId: number;
  readonly generation: number;
}

export interface ColumnInfo {
  readonly name: string;
  readonly typeOid: number;
  /** The router supplies this column's value, from a leased block of ids, when an INSERT leaves it out. */
  readonly sequence: boolean;
  /** Where those ids come from, on the home node. */
  readonly idSequence?: IdSequence | null;
  /** GENERATED … AS IDENTITY. */
  readonly identity?: 'always' | 'by default' | null;
}

export interface IdSequence {
  readonly schema: string;
  readonly name: string;
  /** How often it was set, by setval() or ALTER SEQUENCE: blocks leased before are of no more use. */
  readonly restarts: number;
}

export type PlacementMethod = 'hash' | 'range' | 'list';

/** Which keys each bucket has. Tables of one colocation group share it. */
export interface TablePlacement {
  readonly method: PlacementMethod;
  /** How many of the first buckets share, by hash, the keys that are in no list. RANGE: none. */
  readonly hashBuckets: number;
  /** RANGE, ascending: bucket i has the keys from bounds[i − 1] on and below bounds[i]; its ends are open. */
  readonly bounds: readonly string[];
  /** LIST, and keys pinned to a bucket of their own: index = bucket − hashBuckets. */
  readonly lists: readonly (readonly string[])[];
}

export interface ShardedTable {
  readonly id: number;
  readonly schema: string;
  readonly name: string;
  readonly keyColumn: string;
  readonly keyType: KeyTypeName;
  /** atttypmod of the key column (−1: none): varchar(n) and timestamp(p) change a value before it is stored and hashed. */
  readonly keyTypeModifier: number;
  /** The key column's full type as format_type() prints it, to cast a value to on the server. */
  readonly keyTypeText: string;
  /** The function that PostgreSQL hashes the key with, e.g. pg_catalog.hashint8extended. */
  readonly hashFunction: string;
  /** Tables with the same id share key type, bucket count and places. */
  readonly colocationId: number;
  /** Columns in the face's order. */
  readonly columns: readonly ColumnInfo[];
  readonly placement: TablePlacement;
  /** Finds the buckets of keys; undefined: all go by hash. */
  readonly directory: KeyDirectory | undefined;
  /** Index = bucket. */
  readonly buckets: readonly BucketPlace[];
  /** Other schemas of the home node in which a relation of the same name exists: they may come first in a search_path. */
  readonly shadowSchemas: readonly string[];
  /** A foreign key deletes or changes rows of colocated tables with its own: they can't change buckets. */
  readonly cascades?: boolean;
  /** Its unique constraints off the shard key; absent: none. */
  readonly lookups?: readonly Lookup[];
  /** Home has no bucket of it, and an empty leaf of CATALOG_BUCKET, by which the catalogs show what a face can't have. */
  readonly catalogLeaf?: boolean;
}

/** The bucket that the leaf of a table is named by that has no bucket on home: its foreign keys and privileges stand there too. */
export const CATALOG_BUCKET = 0;

/** Where DDL of leaves goes on a node: the buckets that it has, and home's empty leaf. */
export function leafBucketsOn(
  { buckets, catalogLeaf }: Pick<ShardedTable, 'buckets' | 'catalogLeaf'>,
  nodeId: number,
  homeNodeId: number,
): readonly number[] {
  if (catalogLeaf && nodeId === homeNodeId) return [CATALOG_BUCKET];
  return [...buckets.keys()].filter((bucket) => buckets[bucket]!.nodeId === nodeId);
}

/** A unique constraint off the shard key (src/lookup/SPEC.md). */
export interface Lookup {
  readonly id: number;
  /** Of the constraint, or the index that it was made as. */
  readonly name: string;
  readonly isConstraint: boolean;
  readonly columns: readonly string[];
  /** Where its values are kept: hashed by the first column, a table for each bucket beside the table's own leaf. */
  readonly table: ShardedTable;
}

/** The name of a lookup's tables, before the bucket's suffix. */
export function lookupName(constraintName: string): string {
  return `${constraintName}_lookup`;
}

export interface ReferenceColumn {
  readonly name: string;
  readonly typeOid: number;
  /** As format_type() prints it, qualified where it is not PostgreSQL's own. */
  readonly typeText: string;
  /** Its values can be sent in binary. */
  readonly binary: boolean;
  /** GENERATED ALWAYS AS (…): each node computes it. */
  readonly generated: boolean;
}

/** A table that is on every node, whole, under its own name. */
export interface ReferenceTable {
  readonly id: number;
  readonly schema: string;
  readonly name: string;
  /** In the table's order. */
  readonly columns: readonly ReferenceColumn[];
  /** Names of its columns; none: there is no primary key. */
  readonly primaryKey: readonly string[];
  /** As of a sharded table. */
  readonly shadowSchemas: readonly string[];
}

/** A view that reads sharded tables: its query takes its place in a statement. */
export interface ShardedView {
  readonly schema: string;
  readonly name: string;
  /** As pg_get_viewdef() prints it, names qualified. */
  readonly query: string;
  /** As of a sharded table. */
  readonly shadowSchemas: readonly string[];
}

export interface ClusterMap {
  readonly epoch: number;
  readonly nodes: readonly NodeInfo[];
  readonly homeNodeId: number;
  /** By schema, then name. */
  readonly tables: ReadonlyMap<string, ReadonlyMap<string, ShardedTable>>;
  /** By bare name: a cheap "could this text name a sharded table at all". */
  readonly tablesByName: ReadonlyMap<string, readonly ShardedTable[]>;
  /** The reference tables, in the same ways. */
  readonly references: ReadonlyMap<string, ReadonlyMap<string, ReferenceTable>>;
  readonly referencesByName: ReadonlyMap<string, readonly ReferenceTable[]>;
  /** The columns whose ids come from a sequence, by its name without schema. */
  readonly idColumnsBySequence: ReadonlyMap<string, readonly IdColumnOfTable[]>;
  /** The views that read sharded tables, as those. */
  readonly views: ReadonlyMap<string, ReadonlyMap<string, ShardedView>>;
  readonly viewsByName: ReadonlyMap<string, readonly ShardedView[]>;
  /** Schemas that live, with all that is in them, on one node, by name. */
  readonly schemas: ReadonlyMap<string, NodeSchema>;
}

export interface NodeSchema {
  readonly name: string;
  readonly nodeId: number;
  /** Names of its tables, views and sequences, as they were when last looked at. */
  readonly relations: ReadonlySet<string>;
  /** Nothing in it calls a user's function. */
  readonly plain: boolean;
}

export interface IdColumnOfTable {
  readonly table: ShardedTable;
  readonly column: string;
  readonly sequence: IdSequence;
}

/** `_b17_g4`: what a leaf's names add to the face's. */
export function leafSuffix(bucket: number, generation: number): string {
  return `_b${bucket}_g${generation}`;
}

/**
 * The name that an object of the face (the table itself, an index, a constraint) has on a leaf. Names too long for the
 * suffix are cut and get 8 hex digits of their SHA-256, so that two of them stay apart.
 */
export function leafName(faceName: string, bucket: number, generation: number): string {
  const suffix = leafSuffix(bucket, generation);
  if (Buffer.byteLength(faceName) + suffix.length <= IDENTIFIER_BYTES_MAX) return faceName + suffix;
  const digest = createHash('sha256').update(faceName).digest('hex').slice(0, 8);
  let head = faceName;
  while (Buffer.byteLength(head) > IDENTIFIER_BYTES_MAX - suffix.length - 9) head = head.slice(0, -1);
  return `${head}_${digest}${suffix}`;
}

export function emptyMap(nodes: readonly NodeInfo[], homeNodeId: number): ClusterMap {
  return buildMap({ epoch: 0, nodes, homeNodeId, tables: [], references: [] });
}

/** Builds the lookup structure once per epoch. */
export function buildMap(options: {
  epoch: number;
  nodes: readonly NodeInfo[];
  homeNodeId: number;
  tables: readonly ShardedTable[];
  references: readonly ReferenceTable[];
  views?: readonly ShardedView[];
  schemas?: readonly NodeSchema[];
}): ClusterMap {
  const { epoch, nodes, homeNodeId } = options;
  const [tables, tablesByName] = byNames(options.tables);
  const [references, referencesByName] = byNames(options.references);
  const [views, viewsByName] = byNames(options.views ?? []);
  const idColumnsBySequence = columnsBySequence(options.tables);
  return {
    ...{ epoch, nodes, homeNodeId, tables, tablesByName, references, referencesByName },
    ...{ idColumnsBySequence, views, viewsByName },
    schemas: new Map((options.schemas ?? []).map((schema) => [schema.name, schema])),
  };
}

function columnsBySequence(tables: readonly ShardedTable[]): ReadonlyMap<string, readonly IdColumnOfTable[]> {
  const byName = new Map<string, IdColumnOfTable[]>();
  for (const table of tables) {
    for (const { name: column, idSequence: sequence } of table.columns) {
      if (!sequence) continue;
      const sameName = byName.get(sequence.name);
      if (sameName) sameName.push({ table, column, sequence });
      else byName.set(sequence.name, [{ table, column, sequence }]);
    }
  }
  return byName;
}

/** By schema, then name; and by bare name. */
function byNames<T extends { readonly schema: string; readonly name: string }>(
  all: readonly T[],
): [Map<string, Map<string, T>>, Map<string, T[]>] {
  const bySchema = new Map<string, Map<string, T>>();
  const byName = new Map<string, T[]>();
  for (const table of all) {
    let inSchema = bySchema.get(table.schema);
    if (!inSchema) {
      inSchema = new Map();
      bySchema.set(table.schema, inSchema);
    }
    inSchema.set(table.name, table);
    const sameName = byName.get(table.name);
    if (sameName) sameName.push(table);
    else byName.set(table.name, [table]);
  }
  return [bySchema, byName];
}

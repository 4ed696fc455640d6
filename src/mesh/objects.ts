/**
 * From what home has to what a mesh's database is made of: a list of objects, each with the statements that make it and a
 * fingerprint that tells whether the one that is there is still right. Pure.
 *
 *   base: schemas, extensions, collations, types, functions    (one fingerprint: if it changes, all is made afresh)
 *   tables: a foreign table, or a partitioned one with a foreign table for each bucket     (a fingerprint each)
 *   late: what names tables: views, functions with bodies in SQL's own syntax            (part of the base's fingerprint)
 *
 * Invariant: a table is made together with all of its buckets: one that is there is whole.
 * Invariant: what is not made is in the list of what is left out, with the reason: its name is refused, and never means
 * something else by chance.
 */
import { createHash } from 'node:crypto';
import { type BucketPlace, LEAF_SCHEMA, leafName, type ShardedTable } from '../catalog/map.ts';
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../pg/identifier.ts';
import type {
  ColumnDefinition,
  Grantees,
  HomeState,
  LeafDefinition,
  RelationDefinition,
} from './definition.ts';

/** What is left out of a mesh, and why. */
export interface LeftOut {
  readonly kind: 'relation' | 'function' | 'operator' | 'cast' | 'other';
  readonly name: string;
  readonly reason: string;
}

/** One statement, or several that belong together; a failure leaves `failing` out, if that is given. */
export interface Making {
  readonly text: string;
  readonly orElse: Omit<LeftOut, 'reason'> | undefined;
}

export interface MeshTable {
  readonly key: string;
  readonly fingerprint: string;
  readonly qualified: string;
  /** With its buckets, and with the rights on it. */
  readonly text: string;
  readonly drop: string;
  readonly orElse: Omit<LeftOut, 'reason'>;
}

export interface MeshObjects {
  readonly base: readonly Making[];
  readonly tables: readonly MeshTable[];
  readonly late: readonly Making[];
  /** Of `base` and `late`, and of how nodes are reached. */
  readonly baseFingerprint: string;
  readonly leftOut: readonly LeftOut[];
}

export interface MeshPlan {
  readonly home: HomeState;
  /** Of all nodes, by name of the leaf. */
  readonly leaves: ReadonlyMap<string, LeafDefinition>;
  /** The node whose mesh it is. */
  readonly nodeId: number;
  /** Roles of that node's server. */
  readonly roles: ReadonlySet<string>;
  /** CREATE SERVER and CREATE USER MAPPING, for each node. */
  readonly servers: string;
}

export function serverName(nodeId: number): string {
  return `postern_node_${nodeId}`;
}

export function meshObjects(plan: MeshPlan): MeshObjects {
  const { definition } = plan.home;
  const leftOut: LeftOut[] = [];
  const base: Making[] = [];
  for (const { name, users } of definition.schemas) {
    const schema = quoteIdentifier(name);
    base.push({
      text: `CREATE SCHEMA IF NOT EXISTS ${schema}; REVOKE ALL ON SCHEMA ${schema} FROM PUBLIC${grant('USAGE', `SCHEMA ${schema}`, users, plan)}`,
      orElse: undefined,
    });
  }
  for (const { name, schema } of definition.extensions) {
    const text = `CREATE EXTENSION IF NOT EXISTS ${quoteIdentifier(name)} WITH SCHEMA ${quoteIdentifier(schema)}`;
    base.push({ text, orElse: { kind: 'other', name } });
  }
  for (const { name, text } of [...definition.collations, ...definition.types])
    base.push({ text, orElse: { kind: 'other', name } });
  const late: Making[] = [];
  for (const one of definition.functions) {
    if (one.why !== null) {
      leftOut.push({ kind: 'function', name: one.name, reason: one.why });
      continue;
    }
    const rights = `REVOKE ALL ON FUNCTION ${one.identity} FROM PUBLIC${grant('EXECUTE', `FUNCTION ${one.identity}`, one.callers, plan)}`;
    (one.isBound ? late : base).push({
      text: `${one.text};\n${rights}`,
      orElse: { kind: 'function', name: one.name },
    });
  }
  for (const { name, text } of definition.casts) late.push({ text, orElse: { kind: 'cast', name } });
  for (const name of definition.operators)
    leftOut.push({ kind: 'operator', name, reason: 'a user has made it' });
  for (const { relations } of plan.home.map.schemas.values())
    for (const name of relations)
      leftOut.push({ kind: 'relation', name, reason: 'its schema lives on one node' });
  const tables: MeshTable[] = [];
  for (const relation of definition.relations) {
    const reason = whyNot(relation, plan);
    if (reason !== undefined) leftOut.push({ kind: 'relation', name: relation.name, reason });
    else if (relation.kind === 'v') late.push(viewOf(relation, plan));
    else tables.push(tableOf(relation, plan));
  }
  const texts = [...base, ...late].map(({ text }) => text);
  return { base, tables, late, leftOut, baseFingerprint: fingerprint([plan.servers, ...texts]) };
}

function whyNot(relation: RelationDefinition, { home, leaves }: MeshPlan): string | undefined {
  if (relation.hasRowSecurity) return 'it has row-level security';
  if (home.map.schemas.has(relation.schema)) return 'its schema lives on one node';
  if (relation.door !== 'sharded') return undefined;
  const table = home.map.tables.get(relation.schema)?.get(relation.name);
  if (!table) return 'the catalog does not know it';
  for (const leaf of leavesOf(table)) {
    const found = leaves.get(leaf.name);
    if (found?.hasRowSecurity) return 'it has row-level security';
  }
  return undefined;
}

function leavesOf(table: ShardedTable): { name: string; bucket: number; place: BucketPlace }[] {
  return table.buckets.map((place, bucket) => ({
    name: leafName(table.name, bucket, place.generation),
    ...{ bucket, place },
  }));
}

function tableOf(relation: RelationDefinition, plan: MeshPlan): MeshTable {
  const qualified = quoteQualified(relation.schema, relation.name);
  const made =
    relation.door === 'sharded' ? shardedOf(relation, qualified, plan) : foreignOf(relation, qualified, plan);
  const text = made.texts.join(';\n');
  return {
    ...{ key: `${relation.schema}.${relation.name}`, qualified, text, drop: made.drop },
    fingerprint: fingerprint([text]),
    orElse: { kind: 'relation', name: relation.name },
  };
}

interface Made {
  readonly texts: readonly string[];
  readonly drop: string;
}

/** On home; a reference table on the mesh's own node. */
function foreignOf(relation: RelationDefinition, qualified: string, plan: MeshPlan): Made {
  const nodeId = relation.door === 'reference' ? plan.nodeId : plan.home.map.homeNodeId;
  const columns = relation.columns.map(columnText).join(', ');
  const options = `schema_name ${quoteLiteral(relation.schema)}, table_name ${quoteLiteral(relation.name)}`;
  return {
    texts: [
      `CREATE FOREIGN TABLE ${qualified} (${columns}) SERVER ${serverName(nodeId)} OPTIONS (${options})`,
      rightsOn(qualified, relation.readers, relation.columns, plan),
    ],
    drop: `DROP FOREIGN TABLE IF EXISTS ${qualified} CASCADE`,
  };
}

/** One that is partitioned as its buckets are, so that PostgreSQL finds the one of a key, and those of colocated tables. */
function shardedOf(relation: RelationDefinition, qualified: string, plan: MeshPlan): Made {
  const table = plan.home.map.tables.get(relation.schema)!.get(relation.name)!;
  const leaves = leavesOf(table);
  const isNullable = relation.columns.some(({ name, notNull }) => name === table.keyColumn && !notNull);
  const split = partitionsOf(table, qualified, isNullable);
  const columns = relation.columns.map(columnText).join(', ');
  const texts = [`CREATE TABLE ${qualified} (${columns})${split.by}`, ...split.between];
  for (const { name, bucket, place } of leaves) {
    texts.push(
      `CREATE FOREIGN TABLE ${quoteQualified(LEAF_SCHEMA, name)} ${split.bounds[bucket]}` +
        ` SERVER ${serverName(place.nodeId)}` +
        ` OPTIONS (schema_name ${quoteLiteral(LEAF_SCHEMA)}, table_name ${quoteLiteral(name)})`,
    );
  }
  // The rights are on the leaves; the face has none, so that nothing reaches it behind the router's back.
  const [first] = leaves.flatMap(({ name }) => plan.leaves.get(name) ?? []);
  const granted = relation.columns.map((column) => ({
    ...column,
    readers: first?.columnReaders[column.name] ?? [],
  }));
  texts.push(rightsOn(qualified, first?.readers ?? [], granted, plan));
  return { texts, drop: `DROP TABLE IF EXISTS ${qualified} CASCADE` };
}

interface Partitions {
  /** Behind the table's columns. */
  readonly by: string;
  /** Tables between it and its buckets. */
  readonly between: readonly string[];
  /** By bucket. */
  readonly bounds: readonly string[];
}

/** As pg/key/directory.ts finds the bucket of a key. */
function partitionsOf(table: ShardedTable, qualified: string, isNullable: boolean): Partitions {
  const { placement, buckets } = table;
  const key = quoteIdentifier(table.keyColumn);
  const of = (parent: string, bound: string) => `PARTITION OF ${parent} ${bound}`;
  const hashed = (parent: string) =>
    Array.from({ length: placement.hashBuckets }, (_, bucket) =>
      of(parent, `FOR VALUES WITH (MODULUS ${placement.hashBuckets}, REMAINDER ${bucket})`),
    );
  if (placement.lists.length > 0) {
    const listed = placement.lists.map((values) =>
      of(qualified, `FOR VALUES IN (${values.map(quoteLiteral).join(', ')})`),
    );
    const by = ` PARTITION BY LIST (${key})`;
    if (placement.hashBuckets === 1)
      return { by, between: [], bounds: [of(qualified, 'DEFAULT'), ...listed] };
    if (placement.hashBuckets === 0) return { by, between: [], bounds: listed };
    const rest = quoteQualified(LEAF_SCHEMA, `rest_of_${table.id}`);
    const between = [`CREATE TABLE ${rest} ${of(qualified, 'DEFAULT')} PARTITION BY HASH (${key})`];
    return { by, between, bounds: [...hashed(rest), ...listed] };
  }
  if (placement.method === 'hash' && placement.hashBuckets === buckets.length)
    return { by: ` PARTITION BY HASH (${key})`, between: [], bounds: hashed(qualified) };
  if (placement.bounds.length > 0 && placement.bounds.length + 1 === buckets.length && !isNullable) {
    const ends = ['MINVALUE', ...placement.bounds.map(quoteLiteral), 'MAXVALUE'];
    const bounds = buckets.map((_, i) => of(qualified, `FOR VALUES FROM (${ends[i]}) TO (${ends[i + 1]})`));
    return { by: ` PARTITION BY RANGE (${key})`, between: [], bounds };
  }
  // A range has no place for NULL: each bucket is looked into, whatever the key.
  return { by: '', between: [], bounds: buckets.map(() => `() INHERITS (${qualified})`) };
}

function columnText({ name, type, collation, notNull }: ColumnDefinition): string {
  return `${quoteIdentifier(name)} ${type}${collation === null ? '' : ` COLLATE ${collation}`}${notNull ? ' NOT NULL' : ''}`;
}

function viewOf(relation: RelationDefinition, plan: MeshPlan): Making {
  const qualified = quoteQualified(relation.schema, relation.name);
  const options = relation.options.length === 0 ? '' : ` WITH (${relation.options.join(', ')})`;
  const columns = relation.columns.map(({ name }) => quoteIdentifier(name)).join(', ');
  return {
    text:
      `CREATE VIEW ${qualified} (${columns})${options} AS ${relation.query}\n;` +
      `${rightsOn(qualified, relation.readers, relation.columns, plan)};\n` +
      // Its tables are read with the rights of its owner.
      `ALTER VIEW ${qualified} OWNER TO ${quoteIdentifier(relation.owner)}`,
    orElse: { kind: 'relation', name: relation.name },
  };
}

function rightsOn(
  qualified: string,
  readers: Grantees,
  columns: readonly Pick<ColumnDefinition, 'name' | 'readers'>[],
  plan: MeshPlan,
): string {
  const texts = [`REVOKE ALL ON ${qualified} FROM PUBLIC${grant('SELECT', qualified, readers, plan)}`];
  for (const { name, readers: own } of columns) {
    const text = grant(`SELECT (${quoteIdentifier(name)})`, qualified, own, plan);
    if (text !== '') texts.push(text.slice(2));
  }
  return texts.join(';\n');
}

/** `; GRANT …`, or nothing: to those whom the server knows. */
function grant(privilege: string, on: string, to: Grantees, { roles }: MeshPlan): string {
  const known = to.filter((name) => name === null || roles.has(name));
  if (known.length === 0) return '';
  const list = known.map((name) => (name === null ? 'PUBLIC' : quoteIdentifier(name))).join(', ');
  return `; GRANT ${privilege} ON ${on} TO ${list}`;
}

function fingerprint(texts: readonly string[]): string {
  const hash = createHash('sha256');
  for (const text of texts) hash.update(text).update('\0');
  return hash.digest('hex').slice(0, 32);
}

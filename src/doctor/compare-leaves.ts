/**
 * Leaves: what the map says stands where, against what is there; and all leaves of a table against each other. A leaf is the truth
 * about its rows, so none is ever to be dropped by what is said here without a look at what is in it.
 *
 * What most leaves of a table have is taken for right, and of columns, constraints and indexes what home's face has.
 */

import {
  type ClusterMap,
  LEAF_SCHEMA,
  leafBucketsOn,
  leafName,
  type NodeInfo,
  type ShardedTable,
} from '../catalog/map.ts';
import { bucketCondition } from '../catalog/placement-sql.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../pg/identifier.ts';
import type { LocalRecords } from './catalog-facts.ts';
import { compareShapes } from './compare-shapes.ts';
import { type Finding, onNode } from './finding.ts';
import type { RelationFacts } from './relation-facts.ts';
import {
  BUCKET_CONSTRAINT,
  createPart,
  keyOf,
  type LeafNames,
  leafNaming,
  type Naming,
  OWN_NAMES,
  type Part,
  type Shape,
  shapeOf,
  type Target,
} from './shape.ts';

export interface NodeTables {
  readonly node: NodeInfo;
  /** By qualified name, unquoted. */
  readonly relations: ReadonlyMap<string, RelationFacts>;
  readonly records: LocalRecords;
}

export interface TablesContext {
  readonly map: ClusterMap;
  readonly tables: readonly ShardedTable[];
  /** Nodes that have answered. */
  readonly nodes: readonly NodeTables[];
  readonly cutNames: readonly { readonly tableId: number; readonly name: string }[];
  /** DDL is not complete: it makes indexes leaf by leaf. */
  readonly underDdl: ReadonlySet<number>;
}

/** A leaf that should be there. */
interface Place {
  readonly on: NodeTables;
  readonly table: ShardedTable;
  readonly bucket: number;
  readonly generation: number;
  readonly name: string;
  /** It is of another node's bucket, and empty. */
  readonly isForCatalog: boolean;
}

interface FoundLeaf {
  readonly place: Place;
  readonly relation: RelationFacts;
  readonly naming: Naming;
  readonly shape: Shape;
}

export function relationKey(schema: string, name: string): string {
  return `${schema}.${name}`;
}

export function tableWords({ schema, name }: Pick<ShardedTable, 'schema' | 'name'>): string {
  return `${schema}.${name}`;
}

/** Postern's own constraints, and what leaves alone have. */
const FACE_KINDS: ReadonlySet<Part['kind']> = new Set(['column', 'constraint', 'index']);

export function compareLeaves(context: TablesContext): readonly Finding[] {
  return context.tables.flatMap((table) => compareTable(context, table));
}

function compareTable(context: TablesContext, table: ShardedTable): readonly Finding[] {
  const { map } = context;
  const names = leafNamesOf(map);
  const home = context.nodes.find(({ node }) => node.id === map.homeNodeId);
  const face = home?.relations.get(relationKey(table.schema, table.name));
  const known = [
    ...(face ? [...face.constraints, ...face.indexes].map(({ name }) => name) : []),
    ...context.cutNames.filter(({ tableId }) => tableId === table.id).map(({ name }) => name),
  ];
  const found: FoundLeaf[] = [];
  const missing: Place[] = [];
  for (const place of placesOf(context, table)) {
    const relation = place.on.relations.get(relationKey(LEAF_SCHEMA, place.name));
    if (!relation) missing.push(place);
    else {
      const naming = leafNaming(place, known, names);
      found.push({ place, relation, naming, shape: shapeOf(relation, naming) });
    }
  }
  const expected = majority(
    found.map(({ shape }) => shape),
    face && faceShape(face, table),
  );
  const ignores = (part: Part) =>
    context.underDdl.has(table.id) && (part.kind === 'index' || part.kind === 'constraint');
  return [
    ...missing.map((place) => missingLeaf(context, place, { expected, known, names })),
    ...found.flatMap(({ place, relation, naming, shape }) => [
      ...bucketCheck(place, relation),
      ...recordOf(place),
      ...compareShapes({
        ...{
          topic: 'leaves',
          node: place.on.node.name,
          object: leafWords(place),
          against: 'the other leaves',
        },
        ...{ target: targetOf(place, naming), found: shape, expected, ignores },
      }),
    ]),
  ];
}

function placesOf({ map, nodes }: TablesContext, table: ShardedTable): readonly Place[] {
  return nodes.flatMap((on) =>
    leafBucketsOn(table, on.node.id, map.homeNodeId).map((bucket) => {
      const { generation, nodeId } = table.buckets[bucket]!;
      const name = leafName(table.name, bucket, generation);
      return { on, table, bucket, generation, name, isForCatalog: nodeId !== on.node.id };
    }),
  );
}

/** A map is small enough for this to be made of it anew. */
function leafNamesOf(map: ClusterMap): LeafNames {
  const tables = new Map<number, ShardedTable>();
  const byLeaf = new Map<string, number>();
  for (const bySchema of map.tables.values())
    for (const table of bySchema.values()) {
      tables.set(table.id, table);
      for (const [bucket, { generation }] of table.buckets.entries())
        byLeaf.set(leafName(table.name, bucket, generation), table.id);
    }
  return {
    tableOfLeaf: (leaf) => byLeaf.get(leaf),
    leafOfTable: (tableId, bucket) => {
      const table = tables.get(tableId);
      const place = table?.buckets[bucket];
      return table && place && leafName(table.name, bucket, place.generation);
    },
  };
}

/** The face as its leaves should be: the router supplies ids, and a face has neither privileges nor storage. */
function faceShape(face: RelationFacts, table: ShardedTable): Shape {
  const supplied = new Set(table.columns.filter(({ sequence }) => sequence).map(({ name }) => name));
  const columns = face.columns.map((column) => ({
    ...column,
    identity: '' as const,
    expression: supplied.has(column.name) ? null : column.expression,
  }));
  const shape = new Map<string, Part>();
  for (const [key, part] of shapeOf({ ...face, columns }, OWN_NAMES))
    if (FACE_KINDS.has(part.kind)) shape.set(key, part);
  return shape;
}

/** By part: what most leaves have; where as many have something else, what the face has, or the leaf of the lowest bucket. */
export function majority(shapes: readonly Shape[], face: Shape | undefined): Shape {
  const expected = new Map<string, Part>();
  const keys = new Set(shapes.flatMap((shape) => [...shape.keys()]));
  for (const key of keys) {
    const votes = new Map<string, { count: number; part: Part | undefined }>();
    for (const shape of shapes) {
      const part = shape.get(key);
      const text = part ? `${part.text}/${part.enabled ?? ''}` : '';
      const vote = votes.get(text);
      if (vote) vote.count++;
      else votes.set(text, { count: 1, part });
    }
    const most = Math.max(...[...votes.values()].map(({ count }) => count));
    const [first] = [...votes.values()].filter(({ count, part }) => count === most && part);
    const winner = first ?? [...votes.values()].find(({ count }) => count === most);
    if (winner?.part) expected.set(key, { ...winner.part, isInvalid: isMeantInvalid(key, shapes) });
  }
  for (const [key, part] of face ?? []) expected.set(key, part);
  return expected;
}

/** Said with NOT VALID, and so of all leaves. An index is never meant to be of no use. */
function isMeantInvalid(key: string, shapes: readonly Shape[]): boolean {
  return shapes.every((shape) => {
    const part = shape.get(key);
    return part?.isInvalid === true && /^(CHECK|FOREIGN KEY) /.test(part.text);
  });
}

function targetOf(place: Pick<Place, 'name'>, naming: Naming): Target {
  return { schema: LEAF_SCHEMA, name: place.name, naming, isPartitioned: false };
}

function leafWords({ table, bucket, isForCatalog }: Place): string {
  return isForCatalog
    ? `home's empty leaf of ${tableWords(table)}`
    : `leaf of bucket ${bucket} of ${tableWords(table)}`;
}

function bucketDefinition({ table, bucket, isForCatalog }: Place): string {
  if (isForCatalog) return 'CHECK (false)';
  const key = { name: quoteIdentifier(table.keyColumn), type: table.keyType };
  const face = quoteQualified(table.schema, table.name);
  return `CHECK (${bucketCondition(table.placement, key, { face, bucket })})`;
}

/** By hash, the numbers have to be the bucket's; of ranges and lists only that there is one. */
function bucketCheck(place: Place, relation: RelationFacts): readonly Finding[] {
  const is = relation.constraints.find(({ name }) => name === BUCKET_CONSTRAINT);
  const shall = bucketDefinition(place);
  const table = quoteQualified(LEAF_SCHEMA, place.name);
  const add = `ALTER TABLE ${table} ADD CONSTRAINT ${BUCKET_CONSTRAINT} ${shall}`;
  const base = {
    ...({ topic: 'leaves', severity: 'error', node: place.on.node.name, object: leafWords(place) } as const),
    advice:
      'It keeps rows of other buckets out. If the statement fails, some are in already: find them by the condition, and move them through the router.',
  };
  if (!is)
    return [
      {
        ...base,
        message: `its CHECK ${BUCKET_CONSTRAINT} is missing`,
        expected: shall,
        remedies: onNode(place.on.node.name, add),
      },
    ];
  if (hashOf(is.definition) !== hashOf(shall))
    return [
      {
        ...base,
        message: `its CHECK ${BUCKET_CONSTRAINT} is of another bucket`,
        ...{ found: is.definition, expected: shall },
        remedies: onNode(
          place.on.node.name,
          `ALTER TABLE ${table} DROP CONSTRAINT ${BUCKET_CONSTRAINT}`,
          add,
        ),
      },
    ];
  if (is.valid) return [];
  return [
    {
      ...base,
      message: `its CHECK ${BUCKET_CONSTRAINT} is not validated`,
      remedies: onNode(place.on.node.name, `ALTER TABLE ${table} VALIDATE CONSTRAINT ${BUCKET_CONSTRAINT}`),
    },
  ];
}

function hashOf(definition: string): string {
  const match = /satisfies_hash_partition\(.*regclass\)?(?:::oid)?, (\d+), (\d+), /s.exec(definition);
  return match ? `${match[1]}:${match[2]}` : '';
}

/** What is not recorded is never dropped with its table, and not known to the mesh. */
function recordOf({ on, table, bucket, generation, name, ...rest }: Place): readonly Finding[] {
  const records = on.records.leaves.filter(
    (one) => one.tableId === table.id && one.bucket === bucket && one.generation === generation,
  );
  if (records.some(({ relation }) => relation === name)) return [];
  const leaf = quoteLiteral(quoteQualified(LEAF_SCHEMA, name));
  const statement =
    records.length > 0
      ? `UPDATE ${INTERNAL_SCHEMA}.local_leaves SET leaf = ${leaf}::regclass WHERE table_id = ${table.id} AND bucket = ${bucket} AND generation = ${generation}`
      : `INSERT INTO ${INTERNAL_SCHEMA}.local_leaves (table_id, bucket, generation, leaf) VALUES (${table.id}, ${bucket}, ${generation}, ${leaf}::regclass)`;
  return [
    {
      ...{ topic: 'leaves', severity: 'warning', node: on.node.name },
      object: leafWords({ on, table, bucket, generation, name, ...rest }),
      message: 'the node has no record of it: it would stay when its table is dropped',
      remedies: onNode(on.node.name, statement),
    },
  ];
}

function missingLeaf(
  context: TablesContext,
  place: Place,
  { expected, known, names }: { expected: Shape; known: readonly string[]; names: LeafNames },
): Finding {
  const { on, table, bucket, generation, name } = place;
  const node = on.node.name;
  const base = { topic: 'leaves', severity: 'error', node, object: leafWords(place) } as const;
  const record = on.records.leaves.find(
    (one) => one.tableId === table.id && one.bucket === bucket && one.generation === generation,
  );
  if (record?.relation != null)
    return {
      ...base,
      message: `it is called ${record.relation} there: every statement for it fails`,
      ...{ found: record.relation, expected: name },
      remedies: onNode(
        node,
        `ALTER TABLE ${quoteQualified(LEAF_SCHEMA, record.relation)} RENAME TO ${quoteIdentifier(name)}`,
      ),
    };
  const elsewhere = context.nodes.find(
    (one) => one !== on && one.relations.has(relationKey(LEAF_SCHEMA, name)),
  );
  if (elsewhere && !place.isForCatalog)
    return {
      ...base,
      message: `it is not there, and stands on node ${elsewhere.node.name}: every statement for it fails`,
      expected: name,
      advice: `Bring it there with pg_dump and pg_restore (table ${LEAF_SCHEMA}.${name}), and then record it; the catalog says where a bucket is.`,
      remedies: [],
    };
  const naming = leafNaming({ bucket, generation }, known, names);
  const target = targetOf({ name }, naming);
  const face = quoteQualified(table.schema, table.name);
  const leaf = quoteQualified(LEAF_SCHEMA, name);
  const owner = expected.get(keyOf({ kind: 'property', name: 'owner' }));
  const rest = [...expected.values()].filter(
    (part) => part.kind !== 'column' && !isCopiedByLike(part) && !isDefault(part),
  );
  const defaults = table.columns
    .filter(({ sequence }) => sequence)
    .map((column) => `ALTER TABLE ${leaf} ALTER COLUMN ${quoteIdentifier(column.name)} DROP DEFAULT`);
  return {
    ...base,
    message: place.isForCatalog
      ? 'it is not there'
      : 'it is not there: its rows are gone, and every statement for it fails',
    expected: name,
    ...(!place.isForCatalog && {
      advice: `Restore table ${LEAF_SCHEMA}.${name} from a backup of that node. The statements make it anew, and empty.`,
    }),
    remedies: onNode(
      node,
      `CREATE TABLE ${leaf} (LIKE ${face} INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY, CONSTRAINT ${BUCKET_CONSTRAINT} ${bucketDefinition(place)})`,
      ...defaults,
      ...(owner ? createPart(owner, target) : []),
      ...inOrder(rest).flatMap((part) => createPart(part, target)),
      ...recordStatements(table.id, { bucket, generation, name }),
    ),
  };
}

function isCopiedByLike(part: Part): boolean {
  return part.kind === 'constraint' && part.text.startsWith('CHECK ');
}

function isDefault({ kind, name, text }: Part): boolean {
  return kind === 'property' && (name === 'owner' || text === 'off' || text === 'logged');
}

const ORDER: readonly Part['kind'][] = ['storage parameter', 'constraint', 'index', 'foreign key'];

function inOrder(parts: readonly Part[]): readonly Part[] {
  const rank = ({ kind }: Part) => (ORDER.indexOf(kind) + ORDER.length + 1) % (ORDER.length + 1);
  return [...parts].sort((a, b) => rank(a) - rank(b));
}

function recordStatements(
  tableId: number,
  { bucket, generation, name }: { bucket: number; generation: number; name: string },
): readonly string[] {
  const leaf = quoteLiteral(quoteQualified(LEAF_SCHEMA, name));
  return [
    `DELETE FROM ${INTERNAL_SCHEMA}.local_leaves WHERE table_id = ${tableId} AND bucket = ${bucket}`,
    `INSERT INTO ${INTERNAL_SCHEMA}.local_leaves (table_id, bucket, generation, leaf) VALUES (${tableId}, ${bucket}, ${generation}, ${leaf}::regclass)`,
  ];
}

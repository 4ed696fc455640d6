/**
 * Makes a sharded table on all nodes: the steps 1 to 3 of SPEC.md, for CREATE TABLE and create_distributed_table alike.
 */
import { assert } from '../../base/assert.ts';
import { storeCoalescing } from '../../catalog/coalescing.ts';
import { noteNames } from '../../catalog/cut-names.ts';
import { addIdColumns } from '../../catalog/id-sequences.ts';
import { CATALOG_BUCKET, leafName, type NodeInfo } from '../../catalog/map.ts';
import type { PartitionStrategy } from '../../catalog/placement-sql.ts';
import { INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import { asAdmin, asClient, type DdlContext, type DdlSession } from '../../ddl/context.ts';
import { makeTable, type NewTable, type Prepared } from '../../ddl/make.ts';
import { readUniqueColumns } from '../../lookup/ddl.ts';
import { makeLookupsOnControl } from '../../lookup/on-control.ts';
import { quoteIdentifier } from '../../pg/identifier.ts';
import type { CoalesceOption } from '../../plan/door-options.ts';
import type { UniqueSpec } from '../../plan/lookups.ts';
import type { PlacementOptions } from '../../plan/placement-options.ts';
import type { ControlConnection } from '../../platform/control-connection.ts';
import type { SequenceColumn } from './face.ts';
import { type ForeignTargets, resolveForeignKeys } from './foreign-keys.ts';
import { type FaceDefinition, type MadeFace, makeFace, makeLeaves } from './local.ts';
import { moveRows } from './move-rows.ts';
import { choosePlacement, type Placement, strategyOf } from './placement.ts';

export interface MakeRequest {
  readonly name: string;
  readonly placement: PlacementOptions | undefined;
  readonly nodes: readonly string[] | undefined;
  readonly colocateWith: string | undefined;
}

/** What the caller has found and done on the home node, in the open transaction, under the placement lock. */
export interface PreparedDefinition extends FaceDefinition {
  readonly schema: string;
  /** Where ids go on, for columns that had a sequence before; others begin where their own sequence does. */
  readonly sequences: readonly SequenceColumn[];
  readonly storage: ReadonlyMap<string, string>;
  /** Whose the table will be, and with which search_path its statements run. */
  readonly makeAs: DdlSession;
  /** Run on home when its face is there, with search_path pg_catalog, as the client. */
  readonly thenOnHome?: readonly string[];
  /** The plain table that it takes the place of, quoted; with the columns of its rows, if it has any. */
  readonly replaces: { readonly table: string; readonly columns: readonly string[] | undefined } | undefined;
  /** Its switch of write coalescing, if it has one. */
  readonly merges: boolean | undefined;
  /** What is unique without the shard key. */
  readonly uniques: readonly UniqueSpec[];
}

export function mergesOf(option: CoalesceOption | undefined): boolean | undefined {
  return option === undefined || option === 'default' ? undefined : option === 'on';
}

/** They go on where those of the table that it takes the place of are. */
export function idColumnsOf(
  columns: readonly SequenceColumn[],
  before: readonly SequenceColumn[],
): readonly SequenceColumn[] {
  return columns.map((column) => {
    const earlier = before.find((sequence) => sequence.name === column.name);
    return earlier && BigInt(earlier.nextId) > BigInt(column.nextId)
      ? { ...column, nextId: earlier.nextId }
      : column;
  });
}

/** Undefined: there is nothing to be made (IF NOT EXISTS). */
export type Prepare = (
  home: ControlConnection,
  strategy: PartitionStrategy,
) => Promise<PreparedDefinition | undefined>;

/** False if `prepare` found nothing to do. */
export async function makeShardedTable(
  context: DdlContext,
  session: DdlSession,
  request: MakeRequest,
  prepare: Prepare,
): Promise<boolean> {
  return await makeTable<HomePlaces & Prepared>(context, {
    name: request.name,
    prepare: async (home, table) => {
      const strategy = await strategyOf(home, { ...request, searchPath: session.searchPath });
      const definition = await prepare(home, strategy);
      if (!definition) return undefined;
      const places = await makeOnHome(context, home, { session, request, definition, table });
      const { schema, name, makeAs } = definition;
      return { schema, name, role: makeAs.role, definition, ...places };
    },
    makeOn: ({ node, connection }, made) => makeOnNode(node, connection, made),
    finish: async (home, made) => {
      await replacePlainTable(context, home, made);
      await makeUniques(context, home, made);
      await markReady(home, made);
    },
  });
}

interface HomePlaces {
  readonly made: MadeFace;
  readonly targets: ForeignTargets;
  readonly placement: Placement;
  readonly definition: PreparedDefinition;
}

async function makeOnHome(
  context: DdlContext,
  home: ControlConnection,
  options: { session: DdlSession; request: MakeRequest; definition: PreparedDefinition; table: NewTable },
): Promise<Omit<HomePlaces, 'definition'>> {
  const { session, request, definition, table } = options;
  const made = await makeFace(home, definition.makeAs, definition);
  // What they can't be made of is told before anything long is begun.
  for (const unique of definition.uniques) await readUniqueColumns(home, definition, unique);
  if (definition.thenOnHome && definition.thenOnHome.length > 0) {
    await asClient(home, { role: session.role, searchPath: 'pg_catalog' });
    for (const statement of definition.thenOnHome) await home.query(statement);
    await asAdmin(home);
  }
  const placement = await choosePlacement(context, home, {
    keyType: made.key.type,
    placement: request.placement,
    nodes: request.nodes,
    colocateWith: request.colocateWith,
    searchPath: session.searchPath,
  });
  const targets = await resolveForeignKeys(home, made.face.references, {
    ...{ schema: definition.schema, name: definition.name, keyColumn: made.key.column },
    ...{ colocationId: placement.colocationId, bucketCount: placement.nodeIds.length },
    ...{ tableId: table.id, generation: table.generation },
  });
  const own = leavesRequest(made, placement, table, context.homeNodeId);
  await makeLeaves(home, definition.makeAs, {
    ...own,
    ...(own.buckets.length === 0 && { buckets: [CATALOG_BUCKET], isForCatalog: true }),
    ...{ storage: definition.storage, targets },
  });
  for (const statement of noteNames(INTERNAL_SCHEMA, table.id, made.face.foreignKeys))
    await home.query(statement);
  return { made, placement, targets };
}

async function makeOnNode(
  node: NodeInfo,
  connection: ControlConnection,
  { definition, table, placement, targets }: HomePlaces & { readonly table: NewTable },
): Promise<void> {
  const { role, searchPath } = definition.makeAs;
  // The home's schema first: what the client's search_path would make elsewhere here has to stand in the same schema.
  const here = { role, searchPath: `${quoteIdentifier(definition.schema)}, ${searchPath || '""'}` };
  const made = await makeFace(connection, here, definition);
  await makeLeaves(connection, here, {
    ...leavesRequest(made, placement, table, node.id),
    ...{ storage: definition.storage, targets },
  });
}

async function replacePlainTable(
  context: DdlContext,
  home: ControlConnection,
  options: HomePlaces & { readonly table: NewTable },
): Promise<void> {
  const { made, placement, definition, table } = options;
  if (!definition.replaces) return;
  if (definition.replaces.columns) {
    await moveRows(context, home, {
      from: definition.replaces.table,
      columns: definition.replaces.columns,
      face: made.face,
      key: made.key,
      generation: table.generation,
      ...placement,
      owner: made.face.owner,
    });
    context.afterStep?.('rows moved');
  }
  await home.query(`DROP TABLE ${definition.replaces.table}`);
}

/** The rows are where they belong. */
async function makeUniques(
  context: DdlContext,
  home: ControlConnection,
  { definition, made, placement, table }: HomePlaces & { readonly table: NewTable },
): Promise<void> {
  const buckets = placement.nodeIds.map((nodeId) => ({ nodeId, generation: table.generation }));
  await makeLookupsOnControl(context, home, {
    role: definition.makeAs.role,
    table: {
      ...{ id: table.id, schema: definition.schema, name: definition.name, keyColumn: made.key.column },
      buckets,
    },
    uniques: definition.uniques,
  });
}

function leavesRequest(made: MadeFace, placement: Placement, table: NewTable, nodeId: number) {
  const buckets: number[] = [];
  for (const [bucket, owner] of placement.nodeIds.entries()) if (owner === nodeId) buckets.push(bucket);
  return {
    face: made.face,
    key: made.key,
    tableId: table.id,
    generation: table.generation,
    placement: placement.placement,
    buckets,
  };
}

async function markReady(
  home: ControlConnection,
  options: HomePlaces & { readonly table: NewTable },
): Promise<void> {
  const { made, placement, definition, table } = options;
  const leafNames = placement.nodeIds.map((_, bucket) => leafName(definition.name, bucket, table.generation));
  await home.query(
    `INSERT INTO ${INTERNAL_SCHEMA}.leaves (table_id, bucket, generation, leaf_name)
     SELECT $1, leaf.ordinality - 1, $2, leaf.name FROM unnest($3::text[]) WITH ORDINALITY AS leaf (name, ordinality)`,
    [table.id, table.generation, leafNames],
  );
  await addIdColumns(home, table.id, idColumnsOf(made.face.sequences, definition.sequences));
  const ready = await home.query(
    `UPDATE ${INTERNAL_SCHEMA}.tables SET state = 'ready', table_schema = $2, key_column = $3, key_type = $4,
       hash_function = $5, colocation_id = $6
     WHERE table_id = $1 AND state = 'creating' RETURNING table_id`,
    [
      table.id,
      definition.schema,
      made.key.column,
      made.key.type,
      made.key.hashFunction,
      placement.colocationId,
    ],
  );
  assert(ready.length === 1, 'a row whose lock is held stays as it is');
  if (definition.merges !== undefined) await storeCoalescing(home, made.face.oid, definition.merges);
}

/**
 * Makes a sharded table on all nodes: the steps 1 to 3 of SPEC.md, for CREATE TABLE and create_distributed_table alike.
 */
import { assert } from '../../base/assert.ts';
import { storeCoalescing } from '../../catalog/coalescing.ts';
import { leafName, type NodeInfo } from '../../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import type { DdlContext, DdlSession } from '../../ddl/context.ts';
import { makeTable, type NewTable, type Prepared } from '../../ddl/make.ts';
import { quoteIdentifier } from '../../pg/identifier.ts';
import type { CoalesceOption } from '../../plan/door-options.ts';
import type { ControlConnection } from '../../platform/control-connection.ts';
import type { SequenceColumn } from './face.ts';
import { type FaceDefinition, type MadeFace, makeFace, makeLeaves } from './local.ts';
import { moveRows } from './move-rows.ts';
import { checkBucketCount, choosePlacement, type Placement } from './placement.ts';

export interface MakeRequest {
  readonly name: string;
  readonly bucketCount: number | undefined;
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
  /** The plain table that it takes the place of, quoted; with the columns of its rows, if it has any. */
  readonly replaces: { readonly table: string; readonly columns: readonly string[] | undefined } | undefined;
  /** Its switch of write coalescing, if it has one. */
  readonly merges: boolean | undefined;
}

export function mergesOf(option: CoalesceOption | undefined): boolean | undefined {
  return option === undefined || option === 'default' ? undefined : option === 'on';
}

/** Undefined: there is nothing to be made (IF NOT EXISTS). */
export type Prepare = (home: ControlConnection) => Promise<PreparedDefinition | undefined>;

/** False if `prepare` found nothing to do. */
export async function makeShardedTable(
  context: DdlContext,
  session: DdlSession,
  request: MakeRequest,
  prepare: Prepare,
): Promise<boolean> {
  checkBucketCount(request.bucketCount);
  return await makeTable<HomePlaces & Prepared>(context, {
    name: request.name,
    prepare: async (home, table) => {
      const definition = await prepare(home);
      if (!definition) return undefined;
      const places = await makeOnHome(context, home, { session, request, definition, table });
      const { schema, name, makeAs } = definition;
      return { schema, name, role: makeAs.role, definition, ...places };
    },
    makeOn: ({ node, connection }, made) => makeOnNode(node, connection, made),
    finish: async (home, made) => {
      await replacePlainTable(context, home, made);
      await markReady(home, made);
    },
  });
}

interface HomePlaces {
  readonly made: MadeFace;
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
  const placement = await choosePlacement(context, home, {
    keyType: made.key.type,
    bucketCount: request.bucketCount,
    colocateWith: request.colocateWith,
    searchPath: session.searchPath,
  });
  await makeLeaves(home, definition.makeAs, {
    ...leavesRequest(made, placement, table, context.homeNodeId),
    storage: definition.storage,
  });
  return { made, placement };
}

async function makeOnNode(
  node: NodeInfo,
  connection: ControlConnection,
  { definition, table, placement }: HomePlaces & { readonly table: NewTable },
): Promise<void> {
  const { role, searchPath } = definition.makeAs;
  // The home's schema first: what the client's search_path would make elsewhere here has to stand in the same schema.
  const here = { role, searchPath: `${quoteIdentifier(definition.schema)}, ${searchPath || '""'}` };
  const made = await makeFace(connection, here, definition);
  await makeLeaves(connection, here, {
    ...leavesRequest(made, placement, table, node.id),
    storage: definition.storage,
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
      keyColumn: made.key.column,
      generation: table.generation,
      nodeIds: placement.nodeIds,
      owner: made.face.owner,
    });
    context.afterStep?.('rows moved');
  }
  await home.query(`DROP TABLE ${definition.replaces.table}`);
}

function leavesRequest(made: MadeFace, placement: Placement, table: NewTable, nodeId: number) {
  const buckets: number[] = [];
  for (const [bucket, owner] of placement.nodeIds.entries()) if (owner === nodeId) buckets.push(bucket);
  return {
    face: made.face,
    keyColumn: made.key.column,
    tableId: table.id,
    generation: table.generation,
    bucketCount: placement.nodeIds.length,
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
  for (const column of made.face.sequences) {
    const before = definition.sequences.find((sequence) => sequence.name === column.name);
    await home.query(
      `INSERT INTO ${INTERNAL_SCHEMA}.id_columns (table_id, column_name, next_id, max_id)
       VALUES ($1, $2, GREATEST($3::bigint, $4::bigint), $5)`,
      [table.id, column.name, column.nextId, before?.nextId ?? null, column.maxId],
    );
  }
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

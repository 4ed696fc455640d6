/**
 * Makes a sharded table on all nodes: the steps 1 to 3 of SPEC.md, for CREATE TABLE and create_distributed_table alike.
 */
import { assert } from '../../base/assert.ts';
import { connectionLost, objectError, outcomeUnknown } from '../../base/errors.ts';
import { storeCoalescing } from '../../catalog/coalescing.ts';
import { leafName, type NodeInfo } from '../../catalog/map.ts';
import { bumpEpoch, INTERNAL_SCHEMA, PLACEMENT_LOCK, TABLE_LOCK_KEY } from '../../catalog/schema.ts';
import { quoteIdentifier } from '../../pg/identifier.ts';
import type { CoalesceOption } from '../../plan/door-options.ts';
import { type ControlConnection, ServerError } from '../../platform/control-connection.ts';
import {
  all,
  asAdmin,
  type DdlSession,
  otherNodes,
  type ShardingContext,
  withConnection,
} from './context.ts';
import { findRelation, type SequenceColumn } from './face.ts';
import { dropRecorded, type FaceDefinition, type MadeFace, makeFace, makeLeaves } from './local.ts';
import { moveRows } from './move-rows.ts';
import { checkBucketCount, choosePlacement, type Placement } from './placement.ts';
import { deleteRow, finishDropping, needsSweep, sweep } from './sweep.ts';

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

interface NewTable {
  readonly id: number;
  readonly generation: number;
}

/** False if `prepare` found nothing to do. */
export async function makeShardedTable(
  context: ShardingContext,
  session: DdlSession,
  request: MakeRequest,
  prepare: Prepare,
): Promise<boolean> {
  checkBucketCount(request.bucketCount);
  const made = await withConnection(context, context.homeNodeId, async (home) => {
    if (await needsSweep(home)) await sweep(context);
    const table = await beginCreating(home, request.name);
    context.afterStep?.('creating');
    let committing = false;
    try {
      await home.query('BEGIN');
      await home.query(`SELECT ${PLACEMENT_LOCK}`);
      const definition = await prepare(home);
      if (definition) {
        const places = await makeOnHome(context, home, { session, request, definition, table });
        context.afterStep?.('home prepared');
        await all(
          otherNodes(context).map((node) =>
            makeOnNode(context, home, { node, definition, table, ...places }),
          ),
        );
        await replacePlainTable(context, home, { definition, table, ...places });
        await markReady(home, { definition, table, ...places });
      } else {
        await deleteRow(home, table.id);
      }
      context.afterStep?.('ready');
      committing = true;
      await home.query('COMMIT');
      return definition !== undefined;
    } catch (error) {
      await home.rollback();
      // Lost while committing: it may exist now, so nothing may be undone here. A sweep knows by the row.
      if (home.lost && committing) throw outcomeUnknown(home.nodeName);
      if (home.lost) throw connectionLost(home.nodeName);
      // A node that can't be reached now keeps what it has until a sweep; the row says so.
      await finishDropping(context, home, table.id).catch(() => undefined);
      throw error;
    }
  });
  await context.refresh().catch(() => undefined);
  return made;
}

async function beginCreating(home: ControlConnection, name: string): Promise<NewTable> {
  return await home.transaction(async () => {
    const rows = await home.query<NewTable>(
      `WITH counter AS (
         UPDATE ${INTERNAL_SCHEMA}.cluster SET next_generation = next_generation + 1 RETURNING next_generation - 1 AS g)
       INSERT INTO ${INTERNAL_SCHEMA}.tables (state, generation, table_name) SELECT 'creating', g, $1 FROM counter
       RETURNING table_id AS id, generation::int AS generation`,
      [name],
    );
    const table = rows[0];
    assert(table, 'INSERT … RETURNING gives a row');
    await home.query(`SELECT pg_advisory_lock(${TABLE_LOCK_KEY})`, [table.id]);
    return table;
  });
}

interface HomePlaces {
  readonly made: MadeFace;
  readonly placement: Placement;
  readonly homeSchemaOwner: string;
}

async function makeOnHome(
  context: ShardingContext,
  home: ControlConnection,
  options: { session: DdlSession; request: MakeRequest; definition: PreparedDefinition; table: NewTable },
): Promise<HomePlaces> {
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
  const owners = await home.query<{ owner: string }>(
    'SELECT pg_get_userbyid(nspowner) AS owner FROM pg_namespace WHERE nspname = $1',
    [definition.schema],
  );
  return { made, placement, homeSchemaOwner: owners[0]?.owner ?? definition.makeAs.role };
}

async function makeOnNode(
  context: ShardingContext,
  home: ControlConnection,
  options: HomePlaces & {
    node: NodeInfo;
    definition: PreparedDefinition;
    table: NewTable;
  },
): Promise<void> {
  const { node, definition, table, placement, homeSchemaOwner } = options;
  await namingNode(node, () =>
    withConnection(context, node.id, (connection) =>
      connection.transaction(async () => {
        const { role } = definition.makeAs;
        await ensureSchema(connection, {
          schema: definition.schema,
          owner: homeSchemaOwner,
          role,
        });
        await clearName(connection, home, definition);
        // The home's schema first: what the client's search_path would make elsewhere here has to stand in the same schema.
        const searchPath = `${quoteIdentifier(definition.schema)}, ${definition.makeAs.searchPath || '""'}`;
        const here = { role, searchPath };
        const made = await makeFace(connection, here, definition);
        await makeLeaves(connection, here, {
          ...leavesRequest(made, placement, table, node.id),
          storage: definition.storage,
        });
      }),
    ),
  );
  context.afterStep?.(`made on ${node.name}`);
}

/** The home node has accepted the same text: what another one says makes sense only with that node's name. */
async function namingNode(node: NodeInfo, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    throw error.withHint(
      `This comes from node "${node.name}": what the table needs must be there as on the home node.`,
    );
  }
}

async function replacePlainTable(
  context: ShardingContext,
  home: ControlConnection,
  options: HomePlaces & { definition: PreparedDefinition; table: NewTable },
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

async function ensureSchema(
  connection: ControlConnection,
  options: { readonly schema: string; readonly owner: string; readonly role: string },
): Promise<void> {
  const found = await connection.query('SELECT FROM pg_namespace WHERE nspname = $1', [options.schema]);
  if (found.length > 0) return;
  const owners = await connection.query('SELECT FROM pg_roles WHERE rolname = $1', [options.owner]);
  const owner = quoteIdentifier(owners.length > 0 ? options.owner : options.role);
  const schema = quoteIdentifier(options.schema);
  await connection.query(`CREATE SCHEMA ${schema} AUTHORIZATION ${owner}`);
  await connection.query(`GRANT USAGE, CREATE ON SCHEMA ${schema} TO ${quoteIdentifier(options.role)}`);
}

/** The name must be free. Postern's own rubbish (SPEC.md, 6) is taken away; anything else is not Postern's to drop. */
async function clearName(
  connection: ControlConnection,
  home: ControlConnection,
  definition: PreparedDefinition,
): Promise<void> {
  const found = await findRelation(connection, definition.schema, definition.name);
  if (!found) return;
  if (found.tableId !== null) {
    const known = await home.query(`SELECT FROM ${INTERNAL_SCHEMA}.tables WHERE table_id = $1`, [
      found.tableId,
    ]);
    if (known.length === 0) return await dropRecorded(connection, found.tableId, { cascade: true });
  }
  throw objectError(
    '42P07',
    `relation "${definition.name}" already exists in schema "${definition.schema}" of node "${connection.nodeName}"`,
    'It is not known to the catalog. Rename or drop it there, connected to that node directly.',
  );
}

async function markReady(
  home: ControlConnection,
  options: HomePlaces & { definition: PreparedDefinition; table: NewTable },
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
  await bumpEpoch(home);
}

/** The schema in which the client's CREATE TABLE makes an unqualified table; undefined if its search_path has none. */
export async function currentSchema(
  home: ControlConnection,
  session: DdlSession,
): Promise<string | undefined> {
  await home.query(`SET LOCAL ROLE ${quoteIdentifier(session.role)}`);
  await home.query(`SELECT set_config('search_path', $1, true)`, [session.searchPath]);
  const rows = await home.query<{ schema: string | null }>('SELECT pg_catalog.current_schema() AS schema');
  await asAdmin(home);
  return rows[0]?.schema ?? undefined;
}

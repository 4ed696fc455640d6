/**
 * Makes a table with a door on all nodes: the steps 1 to 3 of doors/sharded/SPEC.md, whichever door it is.
 *
 * Invariant: it exists from the commit on home on, which is the last one, and is not there at all before.
 */
import { assert } from '../base/assert.ts';
import { connectionLost, objectError, outcomeUnknown } from '../base/errors.ts';
import type { NodeInfo } from '../catalog/map.ts';
import { bumpEpoch, INTERNAL_SCHEMA, PLACEMENT_LOCK, TABLE_LOCK_KEY } from '../catalog/schema.ts';
import { quoteIdentifier } from '../pg/identifier.ts';
import { type ControlConnection, ServerError } from '../platform/control-connection.ts';
import { all, asAdmin, type DdlContext, type DdlSession, otherNodes, withConnection } from './context.ts';
import { dropRecorded, findRelation, mayHoldRows } from './recorded.ts';
import { deleteRow, finishDropping, needsSweep, sweep } from './sweep.ts';

export interface NewTable {
  readonly id: number;
  readonly generation: number;
}

/** What `prepare` has found and made on the home node. */
export interface Prepared {
  readonly schema: string;
  readonly name: string;
  /** Whose the table is. */
  readonly role: string;
}

export interface MakingOnNode {
  readonly node: NodeInfo;
  readonly connection: ControlConnection;
  /** With its transaction open; other nodes may be using it too. */
  readonly home: ControlConnection;
}

export interface Making<T extends Prepared> {
  readonly name: string;
  /** On home, in the open transaction, under the placement lock. Undefined: there is nothing to be made (IF NOT EXISTS). */
  prepare(home: ControlConnection, table: NewTable): Promise<T | undefined>;
  /** On another node, in a transaction that is committed after it. The schema is there, and the name free. */
  makeOn(at: MakingOnNode, made: T & { readonly table: NewTable }): Promise<void>;
  /** On home again: rows and the catalog's row, `ready`. The epoch is raised and the transaction committed after it. */
  finish(home: ControlConnection, made: T & { readonly table: NewTable }): Promise<void>;
}

/** False if `prepare` found nothing to do. */
export async function makeTable<T extends Prepared>(
  context: DdlContext,
  making: Making<T>,
): Promise<boolean> {
  const made = await withConnection(context, context.homeNodeId, async (home) => {
    if (await needsSweep(home)) await sweep(context);
    const table = await beginCreating(home, making.name);
    context.afterStep?.('creating');
    let committing = false;
    try {
      await home.query('BEGIN');
      await home.query(`SELECT ${PLACEMENT_LOCK}`);
      const prepared = await making.prepare(home, table);
      if (prepared) {
        const whole = { ...prepared, table };
        context.afterStep?.('home prepared');
        await makeOnOthers(context, home, making, whole);
        await making.finish(home, whole);
        await bumpEpoch(home);
      } else {
        await deleteRow(home, table.id);
      }
      context.afterStep?.('ready');
      committing = true;
      await home.query('COMMIT');
      return prepared !== undefined;
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

async function makeOnOthers<T extends Prepared>(
  context: DdlContext,
  home: ControlConnection,
  making: Making<T>,
  made: T & { readonly table: NewTable },
): Promise<void> {
  const { schema, name, role } = made;
  const owners = await home.query<{ owner: string }>(
    'SELECT pg_get_userbyid(nspowner) AS owner FROM pg_namespace WHERE nspname = $1',
    [schema],
  );
  const owner = owners[0]?.owner ?? role;
  await all(
    otherNodes(context).map(async (node) => {
      await namingNode(node, () =>
        withConnection(context, node.id, (connection) =>
          connection.transaction(async () => {
            await ensureSchema(connection, { schema, owner, role });
            await clearName(connection, home, { schema, name });
            await making.makeOn({ node, connection, home }, made);
          }),
        ),
      );
      context.afterStep?.(`made on ${node.name}`);
    }),
  );
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

export async function ensureSchema(
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
  definition: { readonly schema: string; readonly name: string },
): Promise<void> {
  const found = await findRelation(connection, definition.schema, definition.name);
  if (!found) return;
  if (found.tableId !== null) {
    const known = await home.query(`SELECT FROM ${INTERNAL_SCHEMA}.tables WHERE table_id = $1`, [
      found.tableId,
    ]);
    if (known.length === 0 && !(await mayHoldRows(connection, found.tableId)))
      return await dropRecorded(connection, found.tableId, { cascade: true });
  }
  throw objectError(
    '42P07',
    `relation "${definition.name}" already exists in schema "${definition.schema}" of node "${connection.nodeName}"`,
    'It is not known to the catalog. Rename or drop it there, connected to that node directly.',
  );
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

/**
 * GRANT and REVOKE on sharded tables: the client's own text with the leaves in place of the tables, on each node as the
 * client, so that PostgreSQL itself judges its rights. In open transactions on all nodes, which then all commit, as TRUNCATE
 * does (SPEC.md). The face is left alone: nobody has a privilege on it.
 */
import { PosternError } from '../../base/errors.ts';
import type { ShardedTable } from '../../catalog/map.ts';
import type { RouterCommand } from '../../plan/plan.ts';
import { type ControlConnection, ServerError } from '../../platform/control-connection.ts';
import {
  all,
  asClient,
  type DdlResult,
  type DdlSession,
  noSuchTable,
  openTransactions,
  type ShardingContext,
  withConnection,
} from './context.ts';
import { readRecorded } from './local.ts';

type GrantCommand = Extract<RouterCommand, { kind: 'grantOnTables' }>;

export async function grantOnShardedTables(
  context: ShardingContext,
  command: GrantCommand,
  session: DdlSession,
): Promise<DdlResult> {
  await withConnection(context, context.homeNodeId, async (home) => {
    const others = await openTransactions(context);
    const connections = [home, ...others];
    const done: string[] = [];
    try {
      await home.query('BEGIN');
      // One node after the other, so that two of them wait for one another and never in a ring.
      for (const connection of connections) await grantOnNode(connection, command, session);
      context.afterStep?.('granted, not committed');
      for (const connection of connections) {
        await connection.query('COMMIT');
        done.push(connection.nodeName);
        context.afterStep?.(`granted on ${connection.nodeName}`);
      }
    } catch (error) {
      await all(connections.map((connection) => connection.rollback()));
      if (done.length > 0) throw partlyGranted(done);
      throw error;
    } finally {
      await all(others.map((connection) => connection.close()));
    }
  });
  return { notices: [] };
}

async function grantOnNode(
  connection: ControlConnection,
  { tables, before, after }: GrantCommand,
  session: DdlSession,
): Promise<void> {
  const leaves: string[] = [];
  // In order of their ids, since this locks the records.
  for (const table of [...tables].sort((a, b) => a.id - b.id)) {
    const recorded = await readRecorded(connection, table.id);
    if (!recorded) throw noSuchTable(table.name);
    leaves.push(...recorded.leaves);
  }
  if (leaves.length === 0) return;
  await asClient(connection, session);
  try {
    await connection.query(`${before}${leaves.join(', ')}${after}`);
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    throw inUsersNames(error, tables, connection.nodeName);
  }
}

/** What a server says of a leaf, said of its table. */
function inUsersNames(error: ServerError, tables: readonly ShardedTable[], nodeName: string): PosternError {
  const message = error.message.replaceAll(/\b[^\s"]+_b\d+_g\d+\b/g, (leaf) => {
    const table = tables.find(({ name }) => leaf.startsWith(`${name}_b`));
    return table?.name ?? leaf;
  });
  return new PosternError({
    sqlState: error.sqlState,
    message,
    detail: error.fields.get('D'),
    hint: error.fields.get('H') ?? `This comes from node "${nodeName}"; nothing was changed on any node.`,
  });
}

/** Sending the same again is right: privileges that are there already stay as they are. */
function partlyGranted(done: readonly string[]): PosternError {
  return new PosternError({
    sqlState: '08007',
    message: `the privileges are committed on nodes ${done.join(', ')}, and the outcome on the others is unknown`,
    hint: 'Send the same statement again.',
  });
}

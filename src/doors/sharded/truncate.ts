/** TRUNCATE of sharded tables: all nodes in open transactions, then all commit (SPEC.md, Truncate). */
import { PosternError } from '../../base/errors.ts';
import type { ShardedTable } from '../../catalog/map.ts';
import type { RouterCommand } from '../../plan/plan.ts';
import type { ControlConnection } from '../../platform/control-connection.ts';
import {
  all,
  asAdmin,
  asClient,
  type DdlResult,
  type DdlSession,
  noSuchTable,
  openTransactions,
  type ShardingContext,
  withConnection,
} from './context.ts';
import { readRecorded } from './local.ts';

export async function truncateShardedTables(
  context: ShardingContext,
  command: Extract<RouterCommand, { kind: 'truncateTables' }>,
  session: DdlSession,
): Promise<DdlResult> {
  const tables = [...command.tables].sort((a, b) => a.id - b.id);
  await withConnection(context, context.homeNodeId, async (home) => {
    const others = await openTransactions(context);
    const connections = [home, ...others];
    const done: string[] = [];
    try {
      await home.query('BEGIN');
      // One node after the other, so that two TRUNCATEs of the same table wait for one another and never in a ring.
      for (const connection of connections) await truncateOnNode(connection, tables, session);
      context.afterStep?.('truncated, not committed');
      for (const connection of connections) {
        await connection.query('COMMIT');
        done.push(connection.nodeName);
        context.afterStep?.(`truncated on ${connection.nodeName}`);
      }
    } catch (error) {
      await all(connections.map((connection) => connection.rollback()));
      if (done.length > 0) throw partlyTruncated(done);
      throw error;
    } finally {
      await all(others.map((connection) => connection.close()));
    }
  });
  return { notices: [] };
}

async function truncateOnNode(
  connection: ControlConnection,
  tables: readonly ShardedTable[],
  session: DdlSession,
): Promise<void> {
  const leaves: string[] = [];
  for (const table of tables) {
    const recorded = await readRecorded(connection, table.id);
    if (!recorded) throw noSuchTable(table.name);
    leaves.push(...recorded.leaves);
  }
  if (leaves.length === 0) return;
  await asClient(connection, session);
  await connection.query(`TRUNCATE ${leaves.join(', ')}`);
  await asAdmin(connection);
}

/** Not retryable as it is for a program; for a person who still wants the table empty, the same TRUNCATE is right. */
function partlyTruncated(done: readonly string[]): PosternError {
  return new PosternError({
    sqlState: '08007',
    message: `TRUNCATE is committed on nodes ${done.join(', ')}, and its outcome on the others is unknown`,
    hint: 'Send the same TRUNCATE again.',
  });
}

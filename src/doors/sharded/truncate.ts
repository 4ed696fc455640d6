/** TRUNCATE of sharded tables: all nodes in open transactions, then all commit (SPEC.md, Truncate). */
import { PosternError } from '../../base/errors.ts';
import type { ShardedTable } from '../../catalog/map.ts';
import { asAdmin, asClient, type DdlContext, type DdlResult, type DdlSession } from '../../ddl/context.ts';
import type { RouterCommand } from '../../plan/plan.ts';
import type { ControlConnection } from '../../platform/control-connection.ts';
import { leavesOn, onAllNodes } from './on-all-nodes.ts';

export async function truncateShardedTables(
  context: DdlContext,
  command: Extract<RouterCommand, { kind: 'truncateTables' }>,
  session: DdlSession,
): Promise<DdlResult> {
  await onAllNodes({
    ...{ context, done: 'truncated', partly: partlyTruncated },
    work: (connection) => truncateOnNode(connection, command.tables, session),
  });
  return { notices: [] };
}

async function truncateOnNode(
  connection: ControlConnection,
  tables: readonly ShardedTable[],
  session: DdlSession,
): Promise<void> {
  const leaves = await leavesOn(connection, tables);
  if (leaves.length === 0) return;
  await asClient(connection, session);
  await connection.query(`TRUNCATE ${leaves.join(', ')}`);
  await asAdmin(connection);
}

/** Not retryable as it is for a program; for a person who still wants the table empty, the same TRUNCATE is right. */
function partlyTruncated(nodeNames: readonly string[]): PosternError {
  return new PosternError({
    sqlState: '08007',
    message: `TRUNCATE is committed on nodes ${nodeNames.join(', ')}, and its outcome on the others is unknown`,
    hint: 'Send the same TRUNCATE again.',
  });
}

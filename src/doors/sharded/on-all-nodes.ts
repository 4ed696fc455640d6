/**
 * The same work in one open transaction on each node, which then all commit, one after the other: TRUNCATE and GRANT
 * (SPEC.md). A crash between two commits leaves it done on some nodes; whoever hears of that is told which.
 */
import type { PosternError } from '../../base/errors.ts';
import type { ShardedTable } from '../../catalog/map.ts';
import { all, type DdlContext, noSuchTable, openTransactions, withConnection } from '../../ddl/context.ts';
import { readRecorded } from '../../ddl/recorded.ts';
import type { ControlConnection } from '../../platform/control-connection.ts';

export async function onAllNodes(options: {
  readonly context: DdlContext;
  /** As in "truncated": names the steps of tests that crash between them. */
  readonly done: string;
  readonly work: (connection: ControlConnection) => Promise<void>;
  /** What is said when a commit fails after others: by the names of the nodes that have committed. */
  readonly partly: (nodeNames: readonly string[]) => PosternError;
}): Promise<void> {
  const { context, done, work, partly } = options;
  await withConnection(context, context.homeNodeId, async (home) => {
    const others = await openTransactions(context);
    const connections = [home, ...others];
    const committed: string[] = [];
    try {
      await home.query('BEGIN');
      // One node after the other, so that two of them wait for one another and never in a ring.
      for (const connection of connections) await work(connection);
      context.afterStep?.(`${done}, not committed`);
      for (const connection of connections) {
        await connection.query('COMMIT');
        committed.push(connection.nodeName);
        context.afterStep?.(`${done} on ${connection.nodeName}`);
      }
    } catch (error) {
      await all(connections.map((connection) => connection.rollback()));
      if (committed.length > 0) throw partly(committed);
      throw error;
    } finally {
      await all(others.map((connection) => connection.close()));
    }
  });
}

/** The leaves of these tables that a node holds, in order of the tables' ids, since reading them locks their records. */
export async function leavesOn(
  connection: ControlConnection,
  tables: readonly ShardedTable[],
): Promise<string[]> {
  const leaves: string[] = [];
  for (const table of [...tables].sort((a, b) => a.id - b.id)) {
    const recorded = await readRecorded(connection, table.id);
    if (!recorded) throw noSuchTable(table.name);
    leaves.push(...recorded.leaves);
  }
  return leaves;
}

/**
 * Work on all nodes that locks tables first, and is then committed on all of them together: bringing a table back (unshard), pinning
 * a tenant, moving a schema.
 *
 * Invariant: nothing is written before all locks are there. A lock that is not there in time lets all others go, so that no
 * node is frozen behind one long transaction, and no ring of waits over several nodes lasts; then all is tried again, for a
 * minute at most.
 */
import type { NodeInfo } from '../catalog/map.ts';
import { PLACEMENT_LOCK } from '../catalog/schema.ts';
import { type ControlConnection, ServerError } from '../platform/control-connection.ts';
import { commitTogether, requirePreparedTransactions } from './commit-together.ts';
import { all, type DdlContext, otherNodes } from './context.ts';
import { ROW_COPY_SETTINGS, ROW_COPY_TIMEOUT_MS } from './row-copy.ts';

const LOCK_TIMEOUT_MS = 2_000;
/** Of what comes behind the locks, as of other DDL. */
const LATER_LOCK_TIMEOUT_MS = 10_000;
const TRY_MS = 60_000;
const PAUSE_MS_FIRST = 50;
const PAUSE_MS_MAX = 1_000;
const LOCK_NOT_AVAILABLE = ['55P03', '40P01'];

export interface OneCommit<T> {
  /** Nodes other than home that have a part in it; default: all. */
  readonly others?: readonly NodeInfo[] | undefined;
  /** On home, inside its transaction and under the placement lock; then on the others, in the order of their ids. */
  readonly lock: (connection: ControlConnection, isHome: boolean) => Promise<void>;
  /** All locks are there. What it returns is returned. */
  readonly work: (home: ControlConnection, others: readonly ControlConnection[]) => Promise<T>;
}

export async function inOneCommit<T>(context: DdlContext, commit: OneCommit<T>): Promise<T> {
  const limits = { statementTimeoutMs: ROW_COPY_TIMEOUT_MS };
  const nodes = [...(commit.others ?? otherNodes(context))].sort((a, b) => a.id - b.id);
  const opened = await Promise.allSettled(
    [context.homeNodeId, ...nodes.map(({ id }) => id)].map((id) => context.connect(id, limits)),
  );
  const connections = opened.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  try {
    for (const one of opened) if (one.status === 'rejected') throw one.reason;
    const [home, ...others] = connections as [ControlConnection, ...ControlConnection[]];
    await requirePreparedTransactions(others);
    await lockAll(connections, commit.lock);
    try {
      const result = await commit.work(home, others);
      await commitTogether({ home, others, afterStep: context.afterStep?.bind(context) });
      return result;
    } catch (error) {
      await all(connections.map((connection) => connection.rollback()));
      throw error;
    }
  } finally {
    await all(connections.map((connection) => connection.close()));
    await context.refresh().catch(() => undefined);
  }
}

async function lockAll(
  connections: readonly ControlConnection[],
  lock: OneCommit<unknown>['lock'],
): Promise<void> {
  const until = performance.now() + TRY_MS;
  for (let pauseMs = PAUSE_MS_FIRST; ; pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX)) {
    try {
      for (const [index, connection] of connections.entries()) {
        await connection.query('BEGIN');
        await connection.query(`${ROW_COPY_SETTINGS}; SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}`);
        if (index === 0) await connection.query(`SELECT ${PLACEMENT_LOCK}`);
        await lock(connection, index === 0);
        await connection.query(`SET LOCAL lock_timeout = ${LATER_LOCK_TIMEOUT_MS}`);
      }
      return;
    } catch (error) {
      await all(connections.map((connection) => connection.rollback()));
      const isBusy = error instanceof ServerError && LOCK_NOT_AVAILABLE.includes(error.sqlState);
      if (!isBusy || performance.now() > until) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
}

/**
 * How the workers share out the router's connections to a node: those with clients get equal shares, the others keep
 * CONNECTIONS_IDLE, so that one worker with all the clients has nearly all the connections. Pure.
 *
 * A share shrinks first and grows later: what is taken from a worker counts as its own until it reports that it has closed
 * down to the new share. Invariant: the shares in force add up to `connections` at most (to one each, where there are fewer
 * than workers).
 */

interface WorkerShare {
  readonly ready: boolean;
  /** What it was last told. */
  readonly told: number;
  /** What it may still have open: at least `told`. */
  readonly held: number;
  /** It counts as having clients until then. */
  readonly activeUntilMs: number;
}

export interface ShareState {
  readonly connections: number;
  readonly workers: readonly WorkerShare[];
}

export interface ShareReport {
  /** The last share that it has heard. */
  readonly share: number;
  /** The most that it has open, or is opening, to any one node. */
  readonly open: number;
}

export interface ShareOrder {
  readonly worker: number;
  readonly share: number;
}

/** A worker without clients; those that merge commits use two connections. */
const CONNECTIONS_IDLE = 2;
/** Clients that come and go don't move shares to and fro. */
const ACTIVE_MS = 30_000;

export function sharesStart(options: { workers: number; connections: number }): ShareState {
  const absent = { ready: false, told: 0, held: 0, activeUntilMs: 0 };
  return {
    connections: Math.max(options.connections, options.workers),
    workers: Array.from({ length: options.workers }, () => absent),
  };
}

/** What a worker has from its start on, before it is told. Workers know it without being told. */
export function firstShare(options: { workers: number; connections: number }): number {
  return Math.max(1, Math.min(CONNECTIONS_IDLE, Math.floor(options.connections / options.workers)));
}

export function shareReady(state: ShareState, index: number): ShareState {
  const told = firstShare({ workers: state.workers.length, connections: state.connections });
  return withWorker(state, index, { ready: true, told, held: told, activeUntilMs: 0 });
}

export function shareEnded(state: ShareState, index: number): ShareState {
  return withWorker(state, index, { ready: false, told: 0, held: 0, activeUntilMs: 0 });
}

export function shareReported(state: ShareState, index: number, report: ShareReport): ShareState {
  const worker = state.workers[index]!;
  // A report from before the last order says nothing about how far that has been carried out.
  if (!worker.ready || report.share !== worker.told) return state;
  return withWorker(state, index, { ...worker, held: Math.max(worker.told, report.open) });
}

/** `clients`: of each worker, now. */
export function shareOut(
  state: ShareState,
  clients: readonly number[],
  nowMs: number,
): { state: ShareState; orders: readonly ShareOrder[] } {
  const workers: WorkerShare[] = state.workers.map((worker, i) =>
    (clients[i] ?? 0) > 0 ? { ...worker, activeUntilMs: nowMs + ACTIVE_MS } : worker,
  );
  const goals = goalsOf(state.connections, workers, nowMs);
  const orders: ShareOrder[] = [];
  for (const [i, worker] of workers.entries()) {
    if (!worker.ready || goals[i]! >= worker.told) continue;
    workers[i] = { ...worker, told: goals[i]! };
    orders.push({ worker: i, share: goals[i]! });
  }
  // Those that have not started yet will begin with the first share.
  const first = firstShare({ workers: workers.length, connections: state.connections });
  let free = state.connections;
  for (const { ready, held } of workers) free -= ready ? held : first;
  for (const [i, worker] of workers.entries()) {
    const more = Math.min(goals[i]! - worker.held, free);
    if (!worker.ready || more <= 0) continue;
    free -= more;
    const told = worker.held + more;
    workers[i] = { ...worker, told, held: told };
    orders.push({ worker: i, share: told });
  }
  return { state: { ...state, workers }, orders };
}

/** Equal shares for those with clients (for the first, if none has any) of what the others leave. */
function goalsOf(connections: number, workers: readonly WorkerShare[], nowMs: number): number[] {
  const first = firstShare({ workers: workers.length, connections });
  let active = [...workers.keys()].filter((i) => workers[i]!.ready && workers[i]!.activeUntilMs > nowMs);
  if (active.length === 0) active = [...workers.keys()].filter((i) => workers[i]!.ready).slice(0, 1);
  const forActive = connections - first * (workers.length - active.length);
  return workers.map((_, i) => {
    const place = active.indexOf(i);
    if (place < 0) return first;
    return Math.floor(forActive / active.length) + (place < forActive % active.length ? 1 : 0);
  });
}

function withWorker(state: ShareState, index: number, worker: WorkerShare): ShareState {
  return { ...state, workers: state.workers.map((old, i) => (i === index ? worker : old)) };
}

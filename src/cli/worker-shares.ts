/**
 * How the workers share out the router's connections to a node: those with clients get equal shares, the others keep
 * CONNECTIONS_IDLE, so that one worker with all the clients has nearly all the connections. Pure.
 *
 * A share shrinks first and grows later: what is taken from a worker counts as its own until it reports that it has closed
 * down to the new share. Invariant: the shares in force add up to `connections` at most (to one each, where there are fewer
 * than workers).
 *
 * While a worker is being replaced there is one more: it is awaited (shareAwaited) before it is started, so that the others make room
 * for its first share while it starts. It takes that when it is ready, whether there is room or not.
 */

interface WorkerShare {
  /** It is there, or will be: its first share is kept for it. */
  readonly awaited: boolean;
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
  /** What each begins with. */
  readonly first: number;
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

const ABSENT: WorkerShare = { awaited: true, ready: false, told: 0, held: 0, activeUntilMs: 0 };

export function sharesStart(options: { workers: number; connections: number }): ShareState {
  return {
    connections: Math.max(options.connections, options.workers),
    first: firstShare(options),
    workers: Array.from({ length: options.workers }, () => ABSENT),
  };
}

/** One more than there were. Gives the index that it has here. */
export function shareAwaited(state: ShareState): { state: ShareState; index: number } {
  const free = state.workers.findIndex(({ awaited }) => !awaited);
  if (free >= 0) return { state: withWorker(state, free, ABSENT), index: free };
  return { state: { ...state, workers: [...state.workers, ABSENT] }, index: state.workers.length };
}

/** It has ended, and nobody comes in its place. */
export function shareGone(state: ShareState, index: number): ShareState {
  return withWorker(state, index, { ...ABSENT, awaited: false });
}

/** What a worker has from its start on, before it is told. Workers know it without being told. */
export function firstShare(options: { workers: number; connections: number }): number {
  return Math.max(1, Math.min(CONNECTIONS_IDLE, Math.floor(options.connections / options.workers)));
}

export function shareReady(state: ShareState, index: number): ShareState {
  const told = state.first;
  return withWorker(state, index, { ...ABSENT, ready: true, told, held: told });
}

export function shareEnded(state: ShareState, index: number): ShareState {
  return withWorker(state, index, ABSENT);
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
  const goals = goalsOf({ ...state, workers }, nowMs);
  const orders: ShareOrder[] = [];
  for (const [i, worker] of workers.entries()) {
    if (!worker.ready || goals[i]! >= worker.told) continue;
    workers[i] = { ...worker, told: goals[i]! };
    orders.push({ worker: i, share: goals[i]! });
  }
  // Those that have not started yet will begin with the first share.
  let free = state.connections;
  for (const { ready, held, awaited } of workers) free -= ready ? held : awaited ? state.first : 0;
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
function goalsOf({ connections, first, workers }: ShareState, nowMs: number): number[] {
  let active = [...workers.keys()].filter((i) => workers[i]!.ready && workers[i]!.activeUntilMs > nowMs);
  if (active.length === 0) active = [...workers.keys()].filter((i) => workers[i]!.ready).slice(0, 1);
  const idle = workers.filter(({ awaited }) => awaited).length - active.length;
  const forActive = Math.max(connections - first * idle, active.length);
  return workers.map((_, i) => {
    const place = active.indexOf(i);
    if (place < 0) return first;
    return Math.floor(forActive / active.length) + (place < forActive % active.length ? 1 : 0);
  });
}

function withWorker(state: ShareState, index: number, worker: WorkerShare): ShareState {
  return { ...state, workers: state.workers.map((old, i) => (i === index ? worker : old)) };
}

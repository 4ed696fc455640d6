/**
 * Which worker a new client goes to: as few workers as can carry the load, because only clients of the same worker share
 * commits, and shared commits are what makes a write cheap. Pure: events in, decisions out (docs/decisions has the why).
 *
 *   starting ──ready──▶ ready ──no report for SILENT_MS──▶ silent ──report──▶ ready
 *                            └───────────── ended ─────────────┴──▶ starting (its clients are gone)
 *
 * The first ready worker, in order, that has room takes the client. One has room while it has fewer than `clientsEach` clients
 * and is not full. Where none has room: the one with the fewest clients of those that are not full, else the least loaded.
 * Where commits are not merged there is nothing to gain from company: the one with the fewest clients.
 *
 * - A worker's load is the share of a core that it has used over the last second, as it reports. Clients that have left take
 *   their share of it with them; one that came too late to be in it counts as one of `clientsEach`.
 * - Full is a worker at FULL_LOAD while the machine has part of a core idle: where it has none, another worker would only take from
 *   PostgreSQL what it gets.
 * - `clientsEach` is at first what fills a batch on each lane. A full worker halves it to half its own clients: they wanted more
 *   than a core, and a burst that comes again must be spread before it can be measured. Without a full worker it doubles each
 *   minute, up to where it began.
 *
 * Invariant: a client is never given to a worker that is not ready, nor to a silent one while another could take it. Clients that are connected stay where they are.
 */
import { BOUNDS } from '../base/bounds.ts';

/** A worker's own account of itself. `settled` clients have been there for all of the time that the load is of. */
export interface WorkerReport {
  /** 0 to 1: of one core. */
  readonly load: number;
  readonly clients: number;
  readonly settled: number;
  /** How many were there when that time began. */
  readonly settledThen: number;
  /** How many it has been given since it started. */
  readonly taken: number;
}

interface FillWorker {
  readonly ready: boolean;
  /** It has not reported for SILENT_MS: its event loop is held up. */
  readonly silent: boolean;
  readonly reportedAtMs: number;
  /** How many it has been given since it started, those on their way to it included. */
  readonly given: number;
  readonly report: WorkerReport;
}

export interface FillState {
  readonly merges: boolean;
  readonly workers: readonly FillWorker[];
  /** Of the machine, in the busiest part of the last second. */
  readonly idleCores: number;
  readonly clientsEach: number;
  /** When `clientsEach` was last changed, or a worker last full. */
  readonly changedAtMs: number;
}

export type FillEvent =
  | { readonly kind: 'ready'; readonly worker: number; readonly atMs: number }
  | { readonly kind: 'ended'; readonly worker: number }
  | { readonly kind: 'given'; readonly worker: number }
  /** It was meant for a worker that it has not reached. */
  | { readonly kind: 'returned'; readonly worker: number }
  | {
      readonly kind: 'reported';
      readonly worker: number;
      readonly report: WorkerReport;
      readonly atMs: number;
    }
  | { readonly kind: 'tick'; readonly idleCores: number; readonly atMs: number };

export const FULL_LOAD = 0.85;
/** With less of a core idle in the whole machine, no worker is full. */
const IDLE_CORES_MIN = 0.25;
/** Beyond this, more clients make no batch larger. */
export const CLIENTS_EACH = BOUNDS.coalescingLanes * BOUNDS.coalescingBatchMax;
/** One heavy client is no reason to spread all. */
export const CLIENTS_EACH_LEAST = 8;
export const RECOVERY_MS = 60_000;
export const SILENT_MS = 2_000;

const NOTHING: WorkerReport = { load: 0, clients: 0, settled: 0, settledThen: 0, taken: 0 };
const ABSENT: FillWorker = { ready: false, silent: false, reportedAtMs: 0, given: 0, report: NOTHING };

export function fillStart(options: { workers: number; merges: boolean; cores: number }): FillState {
  return {
    merges: options.merges,
    workers: Array.from({ length: options.workers }, () => ABSENT),
    idleCores: options.cores,
    clientsEach: CLIENTS_EACH,
    changedAtMs: 0,
  };
}

export function fillStep(state: FillState, event: FillEvent): FillState {
  switch (event.kind) {
    case 'ready':
      return withWorker(state, event.worker, {
        ...{ ...ABSENT, ready: true },
        reportedAtMs: event.atMs,
      });
    case 'ended':
      return withWorker(state, event.worker, ABSENT);
    case 'given':
    case 'returned': {
      const worker = state.workers[event.worker]!;
      if (!worker.ready) return state;
      const given = worker.given + (event.kind === 'given' ? 1 : -1);
      return withWorker(state, event.worker, { ...worker, given });
    }
    case 'reported': {
      const worker = state.workers[event.worker]!;
      // What a worker said before it ended may arrive after.
      if (!worker.ready) return state;
      const { report, atMs } = event;
      const next = withWorker(state, event.worker, { ...worker, report, reportedAtMs: atMs, silent: false });
      return learn(next, event);
    }
    case 'tick':
      return {
        ...state,
        idleCores: event.idleCores,
        workers: state.workers.map((worker) => ({
          ...worker,
          silent: worker.ready && event.atMs - worker.reportedAtMs >= SILENT_MS,
        })),
      };
    default:
      return event satisfies never;
  }
}

/** undefined: no worker is ready. */
export function chooseWorker(state: FillState): number | undefined {
  const { workers } = state;
  const ready = [...workers.keys()].filter((index) => workers[index]!.ready);
  const least = (of: readonly number[], value: (worker: FillWorker) => number): number | undefined =>
    of.reduce<number | undefined>(
      (best, index) => (best === undefined || value(workers[index]!) < value(workers[best]!) ? index : best),
      undefined,
    );
  // A worker refuses those beyond `clientsMax`, and a silent one makes them wait: only where there is no other.
  const open = ready.filter(
    (index) => !workers[index]!.silent && clientsOf(workers[index]!) < BOUNDS.clientsMax,
  );
  if (open.length === 0) return least(ready, clientsOf);
  if (!state.merges) return least(open, clientsOf);
  const notFull = open.filter((index) => !isFull(state, workers[index]!));
  return (
    notFull.find((index) => clientsOf(workers[index]!) < state.clientsEach) ??
    least(notFull, clientsOf) ??
    least(open, (worker) => loadOf(state, worker))
  );
}

/** Those that it has, and those that are on their way. */
export function clientsOf(worker: FillWorker): number {
  return worker.report.clients + worker.given - worker.report.taken;
}

function loadOf(state: FillState, worker: FillWorker): number {
  const { load, settled, settledThen } = worker.report;
  const stayed = settledThen === 0 ? 1 : settled / settledThen;
  return load * stayed + ((clientsOf(worker) - settled) * FULL_LOAD) / state.clientsEach;
}

function isFull(state: FillState, worker: FillWorker): boolean {
  return state.idleCores >= IDLE_CORES_MIN && loadOf(state, worker) >= FULL_LOAD;
}

function learn(state: FillState, event: Extract<FillEvent, { kind: 'reported' }>): FillState {
  const { report, atMs } = event;
  // The load of those who have stayed: a burst of logins says nothing about what they will do.
  const isFullNow =
    state.idleCores >= IDLE_CORES_MIN && report.load >= FULL_LOAD && report.settled >= 0.9 * report.clients;
  if (isFullNow) {
    const half = Math.max(CLIENTS_EACH_LEAST, Math.ceil(report.clients / 2));
    return { ...state, clientsEach: Math.min(state.clientsEach, half), changedAtMs: atMs };
  }
  if (state.clientsEach === CLIENTS_EACH || atMs - state.changedAtMs < RECOVERY_MS) return state;
  return { ...state, clientsEach: Math.min(CLIENTS_EACH, state.clientsEach * 2), changedAtMs: atMs };
}

function withWorker(state: FillState, index: number, worker: FillWorker): FillState {
  return { ...state, workers: state.workers.map((old, i) => (i === index ? worker : old)) };
}

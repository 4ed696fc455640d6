/**
 * The sweep: the same workload by 1, 2, 4, … clients in a closed loop, one point after the other, and beside each figure
 * what it has to be read with: the server's settings, the machine's load, and the generator's own use of CPU.
 *
 * Invariant: whatever ends it (its last point, an error, the signal), no thread and no connection of it is left, and the
 * schema it made is gone, or the error says that it is not.
 */
import { parseDsn } from '../../pg/dsn.ts';
import { LoadError, LoadGenerator, type LoadMeasurement } from '../load/generator.ts';
import type { Protocol } from '../load/transaction-template.ts';
import {
  type MachineFacts,
  type MachineSample,
  machineFacts,
  machineShares,
  processTreeCpuSeconds,
  sampleMachine,
} from '../server/machine.ts';
import { isThisMachine, MeasuredServer, type ServerFacts } from '../server/measured-server.ts';
import type { Workload } from '../workload/workload.ts';

const CLIENTS_DEFAULT: readonly number[] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
const SECONDS_PER_POINT_DEFAULT = 5;
const WARMUP_SECONDS_DEFAULT = 1;
const TOO_MANY_CONNECTIONS = '53300';

export interface SweepPoint {
  readonly clients: number;
  /** Transactions that succeeded within the window, a second. */
  readonly tps: number;
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** Failed transactions within the window by SQLSTATE; they don't count in tps. */
  readonly errors: Readonly<Record<string, number>>;
  /** One message to each SQLSTATE. */
  readonly errorMessages: Readonly<Record<string, string>>;
  readonly transactions: number;
  readonly seconds: number;
  /** All that the server confirmed, also during warm-up and after the window: with an empty table before, its rows. */
  readonly acknowledged: number;
  /** Of one core: 1.5 is one core and a half. */
  readonly generatorCpuShare: number;
  /** The generator was the bottleneck: the server could have done more than this figure. */
  readonly clientBound: boolean;
  /** Of all cores of the machine that the generator runs on. */
  readonly machineBusyShare?: number;
  readonly stealShare?: number;
  /** CPU time of each known process tree to each transaction; 'server' is the local postmaster's. */
  readonly cpuMsPerTransaction: Readonly<Record<string, number>>;
}

export interface SkippedPoint {
  readonly clients: number;
  readonly reason: string;
}

export interface SweepResult {
  /** Where it was measured, without the password. */
  readonly target: string;
  readonly workload: string;
  readonly protocol: Protocol;
  /** The connections were encrypted, which costs both sides CPU. */
  readonly tls: boolean;
  readonly startedAt: string;
  readonly points: readonly SweepPoint[];
  readonly skipped: readonly SkippedPoint[];
  /** The point of most transactions a second; undefined if none was measured. */
  readonly best: SweepPoint | undefined;
  readonly server: ServerFacts;
  readonly machine: MachineFacts;
  /** Client and server are on one machine, and take its cores from each other. */
  readonly sharesMachine: boolean;
}

export type ProgressEvent =
  | { readonly kind: 'preparing' | 'cleaning' }
  | { readonly kind: 'connecting'; readonly clients: number }
  | {
      readonly kind: 'running';
      readonly clients: number;
      readonly phase: 'warmup' | 'window';
      /** Since the phase began; `tps` is over this time. */
      readonly elapsedSeconds: number;
      readonly phaseSeconds: number;
      readonly tps: number;
    }
  | { readonly kind: 'point'; readonly point: SweepPoint }
  | { readonly kind: 'skipped'; readonly skipped: SkippedPoint };

export interface MeasureOptions {
  readonly dsn: string;
  /** PGHOST, PGPASSWORD and their like, for what the dsn leaves out. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
  readonly workload: Workload;
  readonly protocol?: Protocol;
  readonly clients?: readonly number[];
  readonly warmupSeconds?: number;
  readonly secondsPerPoint?: number;
  /** Default true: tables in a schema of their own, dropped again. False: they are there, and found by search_path. */
  readonly setup?: boolean;
  /** Threads of the generator; default: half the cores, at most four. */
  readonly workers?: number;
  /** Process trees on this machine whose CPU time is to be told for each transaction: a name and a pid. */
  readonly processes?: Readonly<Record<string, number>>;
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: ProgressEvent) => void;
}

/** The sweep ended early; `points` are those that were measured before. */
export class SweepError extends Error {
  readonly points: readonly SweepPoint[];

  constructor(message: string, options: { points: readonly SweepPoint[]; cause?: unknown }) {
    super(message, { cause: options.cause });
    this.name = 'SweepError';
    this.points = options.points;
  }
}

/**
 * Rejects with MeasureError or 22023 (the measurement can't begin), SweepError (it could not go on), or the signal's
 * reason. A point for which the server has no connections left is skipped and listed as such.
 */
export async function measureWall(options: MeasureOptions): Promise<SweepResult> {
  const dsn = parseDsn(options.dsn, options.environment);
  options.signal?.throwIfAborted();
  options.onProgress?.({ kind: 'preparing' });
  const server = await MeasuredServer.connect(dsn);
  const points: SweepPoint[] = [];
  let result: SweepResult | undefined;
  let failure: unknown;
  try {
    result = await sweep(server, options, points);
  } catch (error) {
    failure = error;
  }
  options.onProgress?.({ kind: 'cleaning' });
  const leftover = await server.clean();
  if (result === undefined) throw ended(failure, points, leftover);
  if (leftover !== undefined) throw new SweepError(leftover, { points });
  return result;
}

/** What stopped the sweep, as the caller is to see it. */
function ended(failure: unknown, points: readonly SweepPoint[], leftover: string | undefined): unknown {
  if (leftover === undefined && !(failure instanceof LoadError)) return failure;
  const message = failure instanceof Error ? failure.message : String(failure);
  return new SweepError(leftover === undefined ? message : `${message}; ${leftover}`, {
    points,
    cause: failure,
  });
}

/** Adds to `points`, so that what was measured before a failure is not lost. */
async function sweep(
  server: MeasuredServer,
  options: MeasureOptions,
  points: SweepPoint[],
): Promise<SweepResult> {
  const makesSchema = options.setup ?? true;
  const schema = makesSchema ? await server.makeSchema(options.workload, options.signal) : '';
  const facts = await server.facts();
  const postmaster = makesSchema ? await server.localPostmaster() : undefined;
  const processes = { ...(postmaster === undefined ? {} : { server: postmaster }), ...options.processes };
  // Behind a pooler or the router a client is no connection of the server, whose count then says nothing.
  const freeConnections = makesSchema ? await server.freeConnections() : undefined;
  const protocol = options.protocol ?? 'prepared';
  const startedAt = new Date().toISOString();
  const skipped: SkippedPoint[] = [];
  const { target } = server;
  const generator = new LoadGenerator({
    target,
    workload: options.workload,
    protocol,
    schema,
    workers: options.workers,
  });
  try {
    for (const clients of options.clients ?? CLIENTS_DEFAULT) {
      const reason = await measureInto(points, { generator, clients, processes, freeConnections, options });
      if (reason === undefined) continue;
      skipped.push({ clients, reason });
      options.onProgress?.({ kind: 'skipped', skipped: { clients, reason } });
    }
  } finally {
    await generator.close();
  }
  return {
    target: server.description,
    workload: options.workload.name,
    protocol,
    tls: target.tls !== undefined,
    startedAt,
    points,
    skipped,
    best: bestOf(points),
    server: facts,
    machine: machineFacts(),
    sharesMachine: isThisMachine(target.host),
  };
}

interface PointTask {
  readonly generator: LoadGenerator;
  readonly clients: number;
  readonly processes: Readonly<Record<string, number>>;
  readonly freeConnections: number | undefined;
  readonly options: MeasureOptions;
}

/** Gives why the point was skipped, if it was. */
async function measureInto(points: SweepPoint[], task: PointTask): Promise<string | undefined> {
  const { clients, freeConnections, options } = task;
  if (freeConnections !== undefined && clients > freeConnections) {
    return `the server has ${freeConnections} connections to spare (max_connections)`;
  }
  let point: SweepPoint;
  try {
    point = await measurePoint(task);
  } catch (error) {
    // The server, or what stands before it, has fewer connections for us than could be known before.
    if (error instanceof LoadError && error.serverError?.sqlState === TOO_MANY_CONNECTIONS)
      return error.message;
    throw error;
  }
  points.push(point);
  options.onProgress?.({ kind: 'point', point });
  if (point.transactions > 0) return undefined;
  const [failed] = Object.entries(point.errorMessages);
  throw new LoadError(
    failed === undefined
      ? `no transaction of ${clients} clients was answered within the window`
      : `every transaction failed: ${failed[1]} (${failed[0]})`,
  );
}

async function measurePoint(task: PointTask): Promise<SweepPoint> {
  const { generator, clients, processes, options } = task;
  const warmupSeconds = options.warmupSeconds ?? WARMUP_SECONDS_DEFAULT;
  const windowSeconds = options.secondsPerPoint ?? SECONDS_PER_POINT_DEFAULT;
  const live = new LiveRate({ clients, warmupSeconds, windowSeconds, tell: options.onProgress });
  let before: Sample | undefined;
  let after: Sample | undefined;
  options.onProgress?.({ kind: 'connecting', clients });
  const measured = await generator.measurePoint({
    clients,
    warmupMs: warmupSeconds * 1000,
    windowMs: windowSeconds * 1000,
    signal: options.signal,
    onConnected: () => live.enter('warmup'),
    onOpen: () => {
      before = takeSample(processes);
      live.enter('window');
    },
    onClose: () => {
      after = takeSample(processes);
    },
    onProgress: (acknowledged) => live.update(acknowledged),
  });
  if (measured.unanswered > 0) {
    throw new LoadError(`${measured.unanswered} of ${clients} clients had no answer long after the window`);
  }
  return toPoint({ clients, measured, before, after });
}

interface Sample {
  readonly machine: MachineSample | undefined;
  readonly cpuSeconds: ReadonlyMap<string, number>;
}

function takeSample(processes: Readonly<Record<string, number>>): Sample {
  const cpuSeconds = new Map<string, number>();
  for (const [name, pid] of Object.entries(processes)) {
    const seconds = processTreeCpuSeconds(pid);
    if (seconds !== undefined) cpuSeconds.set(name, seconds);
  }
  return { machine: sampleMachine(), cpuSeconds };
}

function toPoint(options: {
  clients: number;
  measured: LoadMeasurement;
  before: Sample | undefined;
  after: Sample | undefined;
}): SweepPoint {
  const { clients, measured, before, after } = options;
  const { latencies } = measured;
  const shares = machineShares(before?.machine, after?.machine);
  const cpuMsPerTransaction: Record<string, number> = {};
  for (const [name, seconds] of after?.cpuSeconds ?? []) {
    const earlier = before?.cpuSeconds.get(name);
    if (earlier !== undefined && latencies.count > 0) {
      cpuMsPerTransaction[name] = ((seconds - earlier) * 1000) / latencies.count;
    }
  }
  return {
    clients,
    tps: measured.transactionsPerSecond,
    p50Ms: latencies.percentileMs(0.5),
    p95Ms: latencies.percentileMs(0.95),
    p99Ms: latencies.percentileMs(0.99),
    maxMs: latencies.maxMs,
    errors: Object.fromEntries(measured.errors),
    errorMessages: Object.fromEntries(measured.errorMessages),
    transactions: latencies.count,
    seconds: measured.seconds,
    acknowledged: measured.acknowledged,
    generatorCpuShare: measured.cpuShare,
    clientBound: measured.clientBound,
    ...(shares === undefined ? {} : { machineBusyShare: shares.busyShare, stealShare: shares.stealShare }),
    cpuMsPerTransaction,
  };
}

function bestOf(points: readonly SweepPoint[]): SweepPoint | undefined {
  return points.reduce<SweepPoint | undefined>(
    (best, point) => (best === undefined || point.tps > best.tps ? point : best),
    undefined,
  );
}

/** Turns the count of confirmed transactions into 'running' events of the phase that is on. */
class LiveRate {
  private readonly options: {
    clients: number;
    warmupSeconds: number;
    windowSeconds: number;
    tell: ((event: ProgressEvent) => void) | undefined;
  };
  private phase: 'warmup' | 'window' | undefined;
  private enteredAt = 0;
  private acknowledged = 0;
  private acknowledgedAtEntry = 0;

  constructor(options: LiveRate['options']) {
    this.options = options;
  }

  enter(phase: 'warmup' | 'window'): void {
    this.phase = phase;
    this.enteredAt = performance.now();
    this.acknowledgedAtEntry = this.acknowledged;
  }

  update(acknowledged: number): void {
    this.acknowledged = acknowledged;
    const { clients, warmupSeconds, windowSeconds, tell } = this.options;
    const elapsedSeconds = (performance.now() - this.enteredAt) / 1000;
    if (this.phase === undefined || elapsedSeconds <= 0) return;
    tell?.({
      kind: 'running',
      clients,
      phase: this.phase,
      elapsedSeconds,
      phaseSeconds: this.phase === 'warmup' ? warmupSeconds : windowSeconds,
      tps: (acknowledged - this.acknowledgedAtEntry) / elapsedSeconds,
    });
  }
}

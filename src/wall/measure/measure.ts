/**
 * A measurement of one server from beginning to end: its schema, its points, and the facts that they have to be read with.
 * Which points: the search for the wall (search.ts), or a list of client counts, or arrivals at a given rate (an open
 * loop), or the highest rate that keeps an objective (slo-search.ts).
 *
 * Invariant: whatever ends it (its last point, an error, the signal), no thread and no connection of it is left, and the
 * schema it made is gone, or the error says that it is not.
 */
import { parseDsnOfOneServer } from '../../pg/dsn.ts';
import { LoadError, LoadGenerator } from '../load/generator.ts';
import type { Protocol } from '../load/transaction-template.ts';
import { machineFacts } from '../server/machine.ts';
import { isThisMachine, MeasuredServer, MeasureError, type ServerFacts } from '../server/measured-server.ts';
import { ProbeConnection } from '../server/probe-connection.ts';
import type { Workload } from '../workload/workload.ts';
import { findWall } from './find-wall.ts';
import { type MeasuredLoad, measurePoint } from './point.ts';
import type { ProgressEvent } from './progress.ts';
import { EarlierPoints, type MeasureSettings, workloadHash } from './resume.ts';
import type { SearchPoint } from './search.ts';
import { formatSlo, keepsSlo, type Slo } from './slo.ts';
import { nextSloStep, type SloProbe } from './slo-search.ts';
import {
  bestOf,
  isVoid,
  type SkippedPoint,
  type SloFinding,
  type SweepPoint,
  type SweepResult,
  type Wall,
} from './sweep.ts';
import { refuseTraffic } from './traffic.ts';
import { fitUsl } from './usl.ts';
import { WindowCounters } from './window-counters.ts';

const CLIENTS_MAX_DEFAULT = 512;
const SECONDS_PER_POINT_DEFAULT = 5;
/** At most; of a short point, half of its length. What is still warming up after that is cut off the window. */
const WARMUP_SECONDS_MAX = 1;
/** Connections of an open loop: arrivals that find all of them busy are late. */
const OPEN_LOOP_CLIENTS_DEFAULT = 64;
/** Connecting, draining, and what is read around a point. */
const POINT_OVERHEAD_SECONDS = 1;
const TOO_MANY_CONNECTIONS = '53300';
/** The search for an objective goes from one in a thousand of what the closed loop did to a fifth more than that. */
const SLO_LOWEST_SHARE = 0.001;
const SLO_START_SHARE = 0.5;
const SLO_HIGHEST_SHARE = 1.2;
/** What the figures depend on, beside the workload. */
const SETTINGS_THAT_COUNT = [
  ...['fsync', 'synchronous_commit', 'full_page_writes', 'wal_level', 'synchronous_standby_names'],
  ...['commit_delay', 'shared_buffers'],
];

export interface MeasureOptions {
  readonly dsn: string;
  /** PGHOST, PGPASSWORD and their like, for what the dsn leaves out. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
  readonly workload: Workload;
  readonly protocol?: Protocol;
  /** These counts and no others, in this order; undefined: the wall is searched for. Of an open loop: its connections. */
  readonly clients?: readonly number[];
  /** Of the search; default 512. */
  readonly clientsMax?: number;
  /** An open loop with so many arrivals a second. */
  readonly rate?: number;
  /** The highest rate that keeps this is searched for. */
  readonly slo?: Slo;
  readonly warmupSeconds?: number;
  readonly secondsPerPoint?: number;
  /** For the whole search; it is told as "not reached" when it ends too early. */
  readonly budgetSeconds?: number;
  /** Default true: tables in a schema of their own, dropped again. False: they are there, and found by search_path. */
  readonly setup?: boolean;
  /** Default false: a server with other traffic on it is refused. Nobody looks where `setup` is false. */
  readonly allowTraffic?: boolean;
  /** Threads of the generator; default: half the cores, at most four. */
  readonly workers?: number;
  /** Process trees on this machine whose CPU time is to be told for each transaction: a name and a pid. */
  readonly processes?: Readonly<Record<string, number>>;
  /** An earlier measurement that did not end: its points are taken over. */
  readonly resume?: SweepResult | undefined;
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: ProgressEvent) => void;
  /** After each point: what there is so far. */
  readonly onPartialResult?: (result: SweepResult) => void;
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
  const dsn = parseDsnOfOneServer(options.dsn, options.environment);
  options.signal?.throwIfAborted();
  options.onProgress?.({ kind: 'preparing' });
  const server = await MeasuredServer.connect(dsn);
  const points: SweepPoint[] = [];
  let probe: ProbeConnection | undefined;
  let result: SweepResult | undefined;
  let failure: unknown;
  try {
    if (options.setup ?? true) {
      await server.lock();
      probe = await ProbeConnection.open(server.target).catch(() => undefined);
    }
    result = await new Measurement({ server, probe, options, points }).run();
  } catch (error) {
    failure = error;
  }
  options.onProgress?.({ kind: 'cleaning' });
  await probe?.end();
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

/** What all points share, once the server is prepared. */
interface Prepared {
  readonly generator: LoadGenerator;
  readonly counters: WindowCounters | undefined;
  readonly facts: ServerFacts;
  readonly traffic: string | undefined;
  readonly processes: Readonly<Record<string, number>>;
  /** Undefined: not known; behind a pooler or the router a client is no connection of the server. */
  readonly freeConnections: number | undefined;
  readonly settings: MeasureSettings;
  readonly earlier: EarlierPoints;
}

interface Found {
  readonly wall?: Wall;
  readonly slo?: SloFinding;
}

type Purpose = NonNullable<SweepPoint['purpose']>;

class Measurement {
  private readonly server: MeasuredServer;
  private readonly probe: ProbeConnection | undefined;
  private readonly options: MeasureOptions;
  /** Added to as they are measured, so that what was measured before a failure is not lost. */
  private readonly points: SweepPoint[];
  private readonly skipped: SkippedPoint[] = [];
  private readonly protocol: Protocol;
  private readonly pace: { readonly windowSeconds: number; readonly warmupSeconds: number };
  private readonly startedAt = new Date().toISOString();

  constructor(parts: {
    server: MeasuredServer;
    probe: ProbeConnection | undefined;
    options: MeasureOptions;
    points: SweepPoint[];
  }) {
    this.server = parts.server;
    this.probe = parts.probe;
    this.options = parts.options;
    this.points = parts.points;
    this.protocol = parts.options.protocol ?? 'prepared';
    const windowSeconds = parts.options.secondsPerPoint ?? SECONDS_PER_POINT_DEFAULT;
    const warmupSeconds = parts.options.warmupSeconds ?? Math.min(WARMUP_SECONDS_MAX, windowSeconds / 2);
    this.pace = { windowSeconds, warmupSeconds };
  }

  async run(): Promise<SweepResult> {
    const prepared = await this.prepare();
    let found: Found;
    try {
      found = await this.find(prepared);
    } finally {
      await prepared.generator.close();
    }
    const { data, sharedBuffers } = await this.server.sizes();
    return {
      ...this.resultSoFar(prepared),
      finished: true,
      ...found,
      ...(data === undefined ? {} : { dataBytes: data }),
      ...(sharedBuffers === undefined ? {} : { sharedBuffersBytes: sharedBuffers }),
    };
  }

  private async prepare(): Promise<Prepared> {
    const { options, server, probe, protocol } = this;
    const makesSchema = options.setup ?? true;
    const traffic = await this.traffic();
    const facts = await server.facts();
    const settings = this.settingsThatCount(facts);
    const earlier = new EarlierPoints(options.resume, settings);
    const schema = makesSchema ? await server.makeSchema(options.workload, options.signal) : '';
    const postmaster = makesSchema ? await server.localPostmaster() : undefined;
    const counters = probe === undefined ? undefined : await openCounters(probe);
    return {
      generator: new LoadGenerator({
        ...{ target: server.target, workload: options.workload, protocol, schema },
        workers: options.workers,
      }),
      counters,
      facts: { ...facts, unread: [...facts.unread, ...(counters?.unread ?? [])] },
      traffic,
      processes: { ...(postmaster === undefined ? {} : { server: postmaster }), ...options.processes },
      freeConnections: makesSchema ? await server.freeConnections() : undefined,
      settings,
      earlier,
    };
  }

  /** Gives what was seen. */
  private async traffic(): Promise<string | undefined> {
    const { probe, options, server } = this;
    if (probe === undefined) return undefined;
    if (options.allowTraffic === true) return 'not looked for';
    return refuseTraffic(server, probe, options.signal);
  }

  private settingsThatCount(facts: ServerFacts): MeasureSettings {
    const { options, server, protocol } = this;
    const counting = SETTINGS_THAT_COUNT.flatMap((name) => {
      const value = facts.settings[name];
      return value === undefined ? [] : [[name, value]];
    });
    return {
      target: server.description,
      workload: `${options.workload.name} ${workloadHash(options.workload)}`,
      protocol,
      'seconds a point': this.pace.windowSeconds,
      'seconds of warm-up': this.pace.warmupSeconds,
      ...(options.slo === undefined ? {} : { objective: formatSlo(options.slo) }),
      ...(facts.version === undefined ? {} : { version: facts.version }),
      ...Object.fromEntries(counting),
    };
  }

  private async find(prepared: Prepared): Promise<Found> {
    const { options } = this;
    if (options.slo !== undefined) return { slo: await this.searchSlo(prepared, options.slo) };
    if (options.rate !== undefined) {
      const clients = this.openLoopClients(prepared);
      await this.measure(prepared, { clients, purpose: 'rate', rate: options.rate });
      return {};
    }
    if (options.clients === undefined) return { wall: await this.searchWall(prepared) };
    for (const clients of options.clients) await this.measure(prepared, { clients, purpose: 'sweep' });
    return {};
  }

  private async searchWall(prepared: Prepared): Promise<Wall> {
    const { budgetSeconds } = this.options;
    const wanted = this.options.clientsMax ?? CLIENTS_MAX_DEFAULT;
    const free = prepared.freeConnections ?? wanted;
    if (free === 0) throw new MeasureError('the server has no connection to spare (max_connections)');
    const pointSeconds = this.pace.windowSeconds + this.pace.warmupSeconds + POINT_OVERHEAD_SECONDS;
    return findWall({
      settings: {
        clientsMax: Math.min(wanted, free),
        clientsMaxIs: free < wanted ? 'connections' : 'max-clients',
      },
      budget:
        budgetSeconds === undefined
          ? undefined
          : { seconds: budgetSeconds, pointSeconds, now: () => performance.now() },
      measure: async (clients, purpose) => {
        const point = await this.measure(prepared, { clients, purpose });
        return point === undefined ? undefined : searchPoint(point);
      },
    });
  }

  private async searchSlo(prepared: Prepared, slo: Slo): Promise<SloFinding> {
    const clients = this.openLoopClients(prepared);
    const scale = await this.measure(prepared, { clients, purpose: 'scale' });
    if (scale === undefined) throw new LoadError(`the server has no connections for ${clients} clients`);
    const search = {
      startRate: this.options.rate ?? SLO_START_SHARE * scale.tps,
      lowestRate: SLO_LOWEST_SHARE * scale.tps,
      highestRate: SLO_HIGHEST_SHARE * scale.tps,
    };
    const probes: SloProbe[] = [];
    let next = nextSloStep(search, probes);
    while (next.kind === 'measure') {
      const { rate } = next;
      const point = await this.measure(prepared, { clients, purpose: 'slo', rate });
      probes.push({ rate, keeps: point?.keepsSlo ?? false });
      next = nextSloStep(search, probes);
    }
    const { kind, rate, low, high, points, exhausted } = next.result;
    const objective = formatSlo(slo);
    return { objective, kind, points, exhausted, ...given({ rate, low, high }) };
  }

  private openLoopClients(prepared: Prepared): number {
    const wanted = this.options.clients?.[0] ?? OPEN_LOOP_CLIENTS_DEFAULT;
    return Math.max(1, Math.min(wanted, prepared.freeConnections ?? wanted));
  }

  /** Undefined: it was skipped. Rejects with LoadError when nothing at all succeeded. */
  private async measure(
    prepared: Prepared,
    wanted: { clients: number; purpose: Purpose; rate?: number },
  ): Promise<SweepPoint | undefined> {
    const { clients } = wanted;
    const { freeConnections } = prepared;
    const earlier = prepared.earlier.take(wanted);
    if (earlier !== undefined) {
      this.add(prepared, earlier, true);
      return earlier;
    }
    if (freeConnections !== undefined && clients > freeConnections) {
      this.skip(clients, `the server has ${freeConnections} connections to spare (max_connections)`);
      return undefined;
    }
    let load: MeasuredLoad;
    try {
      load = await this.run1(prepared, wanted);
    } catch (error) {
      // The server, or what stands before it, has fewer connections for us than could be known before.
      if (!(error instanceof LoadError) || error.serverError?.sqlState !== TOO_MANY_CONNECTIONS) throw error;
      this.skip(clients, error.message);
      return undefined;
    }
    const point = this.judged(load);
    this.add(prepared, point, false);
    refuseEmpty(point);
    return point;
  }

  private run1(
    prepared: Prepared,
    wanted: { clients: number; purpose: Purpose; rate?: number },
  ): Promise<MeasuredLoad> {
    const { options } = this;
    return measurePoint({
      ...wanted,
      generator: prepared.generator,
      ...this.pace,
      processes: prepared.processes,
      counters: prepared.counters,
      signal: options.signal,
      onProgress: options.onProgress,
    });
  }

  /** With whether it kept the objective, of an open loop that has one. */
  private judged({ point, measured }: MeasuredLoad): SweepPoint {
    const { slo } = this.options;
    if (slo === undefined || measured.openLoop === undefined) return point;
    const failed = [...measured.errors.values()].reduce((sum, count) => sum + count, 0);
    const unserved = measured.openLoop.missed + failed;
    return { ...point, keepsSlo: keepsSlo(slo, { latencies: measured.latencies, unserved }) };
  }

  private add(prepared: Prepared, point: SweepPoint, resumed: boolean): void {
    this.points.push(point);
    this.options.onProgress?.({ kind: 'point', point, ...(resumed ? { resumed } : {}) });
    this.options.onPartialResult?.(this.resultSoFar(prepared));
  }

  private skip(clients: number, reason: string): void {
    const skipped = { clients, reason };
    this.skipped.push(skipped);
    this.options.onProgress?.({ kind: 'skipped', skipped });
  }

  private resultSoFar(prepared: Prepared): SweepResult {
    const { server, options, points } = this;
    const { facts, traffic } = prepared;
    const { version, replicas, settings, unread } = facts;
    const closed = points.filter((point) => point.openLoop === undefined && !isVoid(point));
    return {
      target: server.description,
      workload: options.workload.name,
      protocol: this.protocol,
      tls: server.target.tls !== undefined,
      startedAt: this.startedAt,
      finished: false,
      settings: { ...prepared.settings },
      points: [...points],
      skipped: [...this.skipped],
      ...given({ best: bestOf(points), usl: fitUsl(closed), traffic }),
      server: { settings, unread: [...unread], ...given({ version, replicas }) },
      machine: machineFacts(),
      sharesMachine: isThisMachine(server.target.host),
    };
  }
}

async function openCounters(probe: ProbeConnection): Promise<WindowCounters | undefined> {
  return WindowCounters.open(probe).catch(() => undefined);
}

function refuseEmpty(point: SweepPoint): void {
  if (point.transactions > 0) return;
  const [failed] = Object.entries(point.errorMessages);
  throw new LoadError(
    failed === undefined
      ? `no transaction of ${point.clients} clients was answered within the window`
      : `every transaction failed: ${failed[1]} (${failed[0]})`,
  );
}

export function searchPoint(point: SweepPoint): SearchPoint {
  return {
    clients: point.clients,
    mean: point.tps,
    standardError: point.standardError ?? 0,
    degrees: point.degrees ?? 0,
    voidReasons: point.voidReasons ?? [],
  };
}

/** The fields that are there: with exact optional properties, undefined is a value of its own. */
function given<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}

/**
 * `explainWall`: what binds this load on this server. It makes the workload's tables (and unlogged twins of them), finds how
 * many clients the server takes at its plateau unless that is given, runs the load unchanged and with one thing changed in
 * turns (interventions.ts), and hands what was measured to the core (conclude.ts).
 *
 * Invariant: whatever ends it, no thread, no connection and no schema of it is left, or the error says so. Its time is
 * bounded by its pace: about 70 seconds, or 20 if quick, and a few more where standbys have to catch up.
 */
import { type Dsn, parseDsnOfOneServer } from '../../pg/dsn.ts';
import { LoadError } from '../load/generator.ts';
import type { Protocol } from '../load/transaction-template.ts';
import { refuseTraffic } from '../measure/traffic.ts';
import { isThisMachine, MeasuredServer, MeasureError } from '../server/measured-server.ts';
import { NodeExporter } from '../server/node-exporter.ts';
import { ProbeConnection } from '../server/probe-connection.ts';
import { type ReplicationState, readReplication } from '../server/replication.ts';
import { hasProc, LocalSystem, localInterfaceTo, type SystemProbe } from '../server/system.ts';
import { mayTimeWal } from '../server/wal-counters.ts';
import type { Workload } from '../workload/workload.ts';
import { collectFindings, type MeasuredVariant, type SingleCommits } from './collect.ts';
import { conclude } from './conclude.ts';
import type { Explanation, InterventionName } from './explanation.ts';
import { COMMIT_ONLY, turns, type Variant, variantsOf } from './interventions.ts';
import { measuredCeilings } from './measured-ceilings.ts';
import { type LoadRun, MeasuredLoad, type Pace } from './measured-load.ts';
import { UnloggedTwin } from './unlogged-twin.ts';

export interface ExplainPace extends Pace {
  /** Each variant runs twice in a pair: there and back. */
  readonly pairs: number;
}

export const PACE: ExplainPace = { warmupMs: 400, windowMs: 1500, pairs: 3 };
export const QUICK_PACE: ExplainPace = { warmupMs: 200, windowMs: 500, pairs: 2 };
const SEARCH_PACE: Pace = { warmupMs: 200, windowMs: 500 };
const SINGLE_PACE: Pace = { warmupMs: 100, windowMs: 300 };
const SEARCHED_CLIENTS = [8, 16, 32, 64, 128];
/** Fewer clients that reach the best within this are taken: the others only wait longer. */
const SEARCH_TOLERANCE = 0.07;
const WAITS_TOLD_MAX = 12;

export type ExplainProgress =
  | { readonly kind: 'preparing' | 'cleaning' }
  | { readonly kind: 'searching'; readonly clients: number }
  | { readonly kind: 'running'; readonly change: string; readonly turn: number; readonly turns: number };

export interface ExplainOptions {
  readonly dsn: string;
  readonly environment?: Readonly<Record<string, string | undefined>>;
  readonly workload: Workload;
  readonly protocol?: Protocol;
  /** Default: searched for. */
  readonly clients?: number;
  /** Default true: tables in a schema of their own. False: they are there, and found by search_path. */
  readonly setup?: boolean;
  readonly pace?: ExplainPace;
  /** Default false: whoever calls has looked. True: a server with other traffic on it is refused. */
  readonly refuseTraffic?: boolean;
  /** Interventions to do without, for time. */
  readonly skip?: readonly InterventionName[];
  /** What the primary's link to its replicas carries. */
  readonly linkBitsPerSecond?: number;
  /** Of the server's machine, if that is not this one. */
  readonly nodeExporterUrl?: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: ExplainProgress) => void;
}

/** Rejects with MeasureError, LoadError, 22023, or the signal's reason. */
export async function explainWall(options: ExplainOptions): Promise<Explanation> {
  const dsn = parseDsnOfOneServer(options.dsn, options.environment);
  options.signal?.throwIfAborted();
  options.onProgress?.({ kind: 'preparing' });
  const server = await MeasuredServer.connect(dsn);
  let result: Explanation | undefined;
  let failure: unknown;
  try {
    result = await explainServer(server, dsn, options);
  } catch (error) {
    failure = error;
  }
  options.onProgress?.({ kind: 'cleaning' });
  const leftover = await server.clean();
  if (leftover !== undefined) throw new MeasureError(leftover, { cause: failure });
  if (result === undefined) throw failure;
  return result;
}

async function explainServer(
  server: MeasuredServer,
  dsn: Dsn,
  options: ExplainOptions,
): Promise<Explanation> {
  const probe = await ProbeConnection.open(server.target);
  try {
    if (options.refuseTraffic === true) await refuseTraffic(server, probe, options.signal);
    const schema = (options.setup ?? true) ? await server.makeSchema(options.workload, options.signal) : '';
    const twin =
      schema === ''
        ? { missing: 'the tables were not made by this program' }
        : await UnloggedTwin.make(probe, options.workload, options.signal);
    try {
      return await explainLoad({ server, dsn, options, schema, probe, twin });
    } finally {
      if (twin instanceof UnloggedTwin) await twin.drop();
    }
  } finally {
    await probe.end();
  }
}

interface Stage {
  readonly server: MeasuredServer;
  readonly dsn: Dsn;
  readonly options: ExplainOptions;
  readonly schema: string;
  readonly probe: ProbeConnection;
  readonly twin: UnloggedTwin | { missing: string };
}

async function explainLoad(stage: Stage): Promise<Explanation> {
  const { server, dsn, options, schema, probe, twin } = stage;
  const startedAt = new Date();
  const unread: string[] = [];
  const facts = await server.facts();
  unread.push(...facts.unread);
  if (!(twin instanceof UnloggedTwin)) unread.push(`the load without WAL (${twin.missing})`);
  const system = await systemOf(stage, unread);
  const replication = await readReplication(probe);
  unread.push(...replication.unread);
  const isTimed = facts.settings.track_wal_io_timing === 'on' || (await mayTimeWal(probe));
  if (!isTimed) unread.push('times of WAL writes and flushes (track_wal_io_timing)');
  const load = await MeasuredLoad.open({
    probe,
    system,
    target: server.target,
    protocol: options.protocol ?? 'prepared',
  });
  unread.push(...load.unread);
  try {
    const settings: Record<string, string> = isTimed ? { track_wal_io_timing: 'on' } : {};
    const unchanged: Variant = {
      ...{ name: 'unchanged', change: 'nothing', predictions: {} },
      ...{ workload: options.workload, schema, settings, clients: 1 },
    };
    const free = await server.freeConnections();
    const clients = options.clients ?? (await searchClients({ load, unchanged, free, options }));
    if (free !== undefined && clients > free) {
      throw new MeasureError(
        `the server has ${free} connections to spare (max_connections), and ${clients} are wanted`,
      );
    }
    const every = variantsOf({
      ...{ workload: options.workload, schema, clients, settings },
      unloggedSchema: twin instanceof UnloggedTwin ? twin.schema : undefined,
      moreClients: free === undefined || clients * 2 <= free ? clients * 2 : undefined,
      waitsForReplicas: replication.waitedFor > 0,
      synchronousCommit: facts.settings.synchronous_commit ?? 'on',
    });
    const variants = every.filter(
      ({ name }) => name === 'unchanged' || options.skip?.includes(name) !== true,
    );
    const single = await singleFlush({ load, unchanged, options });
    const measured = await measureVariants({ load, variants, options, unread });
    const base = measured.find(({ variant }) => variant.name === 'unchanged')!.runs;
    const findings = collectFindings({
      ...{ measured, clients, single, replication, settings: facts.settings },
      sharesMachine: isThisMachine(dsn.host),
      linkBitsPerSecond: options.linkBitsPerSecond ?? linkOf(replication, base, system),
    });
    if (findings.cpu === undefined)
      unread.push('CPU of the server (not on this machine: --node-exporter tells it)');
    const conclusion = conclude(findings);
    const cost = probe.cost();
    const seconds = (Date.now() - startedAt.getTime()) / 1000;
    return {
      ...{ kind: 'postern wall explanation', version: 1, target: server.description },
      ...{ workload: options.workload.name, startedAt: startedAt.toISOString(), seconds, clients },
      ...conclusion,
      remarks: [
        ...conclusion.remarks,
        ...(load.hasLagged
          ? [
              'Before some runs WAL was not flushed, or not at the standbys, within ten seconds: waiting for that looks dearer than it is.',
            ]
          : []),
      ],
      tps: findings.tps,
      interventions: [...findings.interventions],
      waits: (findings.waits ?? []).slice(0, WAITS_TOLD_MAX),
      ...measuredCeilings(findings),
      counters: {
        walBytesPerTransaction: findings.wal.bytesPerTransaction ?? null,
        fullPageImagesPerTransaction: findings.wal.fullPageImagesPerTransaction ?? null,
        fullPageImageShare: findings.wal.fullPageImageShare ?? null,
        walBuffersFullPerTransaction: findings.wal.buffersFullPerTransaction ?? null,
        commitsPerSync: findings.flush.commitsPerSync ?? null,
        syncMs: findings.flush.loadedSyncMs ?? findings.flush.unloadedSyncMs ?? null,
        syncBusyShare: findings.flush.busyShare ?? null,
        writeBusyShare: findings.flush.writeBusyShare ?? null,
        checkpoints: checkpointsOf(base),
        replicasWaitedFor: replication.waitedFor,
        cpuUtilization: findings.cpu?.utilization ?? null,
        linkUtilization: findings.replication.linkUtilization ?? null,
      },
      probeCost: {
        samples: cost.queries,
        milliseconds: cost.milliseconds,
        cpuShare: cost.cpuSeconds === undefined ? null : cost.cpuSeconds / seconds,
      },
      settings: {
        ...facts.settings,
        ...(facts.version === undefined ? {} : { server_version: facts.version }),
      },
      unread: [...new Set(unread)],
    };
  } finally {
    await load.close();
  }
}

/** Where the server's machine can be seen, if anywhere. */
async function systemOf(
  { server, options, probe }: Stage,
  unread: string[],
): Promise<SystemProbe | undefined> {
  if (options.nodeExporterUrl !== undefined) return NodeExporter.open(options.nodeExporterUrl);
  const postmasterPid = hasProc() ? await server.localPostmaster() : undefined;
  if (postmasterPid === undefined) {
    unread.push('the server’s disk and network interfaces');
    return undefined;
  }
  return new LocalSystem({ postmasterPid, dataDirectory: await probe.setting('data_directory') });
}

/** The speed of the interface by which the standbys are reached, if it is one of this machine and says so. */
function linkOf(
  { standbys }: ReplicationState,
  base: readonly LoadRun[],
  system: SystemProbe | undefined,
): number | undefined {
  const address = standbys.find((standby) => standby.address !== null)?.address;
  if (!(system instanceof LocalSystem) || address === undefined || address === null) return undefined;
  const name = localInterfaceTo(address);
  return base[0]?.use?.interfaces.find((each) => each.name === name)?.linkBitsPerSecond;
}

function checkpointsOf(runs: readonly LoadRun[]): number | null {
  return runs.reduce<number | null>(
    (sum, { checkpoints }) => (sum === null || checkpoints === undefined ? null : sum + checkpoints),
    0,
  );
}

async function searchClients(task: {
  load: MeasuredLoad;
  unchanged: Variant;
  free: number | undefined;
  options: ExplainOptions;
}): Promise<number> {
  const { load, unchanged, free, options } = task;
  const counts = SEARCHED_CLIENTS.filter((clients) => free === undefined || clients <= free);
  if (counts.length === 0) counts.push(Math.max(1, free ?? 1));
  const points: { clients: number; tps: number }[] = [];
  for (const clients of counts) {
    options.onProgress?.({ kind: 'searching', clients });
    const { tps } = await load.run({ ...unchanged, clients }, SEARCH_PACE, options.signal);
    points.push({ clients, tps });
    const best = Math.max(...points.map((point) => point.tps));
    if (tps < best * (1 - 2 * SEARCH_TOLERANCE)) break;
  }
  const best = Math.max(...points.map((point) => point.tps));
  return points.find(({ tps }) => tps >= best * (1 - SEARCH_TOLERANCE))!.clients;
}

async function singleFlush(task: {
  load: MeasuredLoad;
  unchanged: Variant;
  options: ExplainOptions;
}): Promise<SingleCommits | undefined> {
  const { load, unchanged, options } = task;
  const commit = { ...unchanged, workload: COMMIT_ONLY, schema: '', clients: 1 };
  const medianOf = async (synchronousCommit: string): Promise<number> => {
    const settings = { ...unchanged.settings, synchronous_commit: synchronousCommit };
    return (await load.run({ ...commit, settings }, SINGLE_PACE, options.signal)).medianMs;
  };
  try {
    return { flushed: await medianOf('local'), unflushed: await medianOf('off') };
  } catch (error) {
    if (error instanceof LoadError) return undefined;
    throw error;
  }
}

/** All but the unchanged load may fail (a pooler that refuses settings): then it is left out, and told. */
async function measureVariants(task: {
  load: MeasuredLoad;
  variants: readonly Variant[];
  options: ExplainOptions;
  unread: string[];
}): Promise<MeasuredVariant[]> {
  const { load, variants, options, unread } = task;
  const pace = options.pace ?? PACE;
  const measured = new Map(
    variants.map((variant) => [variant, { variant, runs: [] as MeasuredVariant['runs'][number][] }]),
  );
  const order = turns(variants, pace.pairs);
  for (const [index, variant] of order.entries()) {
    const taken = measured.get(variant);
    if (taken === undefined) continue;
    options.onProgress?.({ kind: 'running', change: variant.change, turn: index + 1, turns: order.length });
    try {
      taken.runs.push(await load.run(variant, pace, options.signal));
    } catch (error) {
      if (!(error instanceof LoadError) || variant.name === 'unchanged') throw error;
      measured.delete(variant);
      unread.push(`${variant.change} (${error.message})`);
    }
  }
  return [...measured.values()];
}

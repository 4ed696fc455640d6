/**
 * Runs the variants of the load in turns, and looks at server and system meanwhile: what the sessions wait for and what
 * the system does within each window, and the server's counters around each whole run, since sessions hand them in at
 * their end.
 *
 * Invariant: before each run all WAL is flushed, and the standbys that commits wait for have it, or the wait for that has
 * reached its bound: what an asynchronous variant has left behind must not fall on the next one.
 */
import { assert } from '../../base/assert.ts';
import { LoadError, LoadGenerator } from '../load/generator.ts';
import type { Target } from '../load/generator-messages.ts';
import type { LoadMeasurement } from '../load/load-measurement.ts';
import type { Protocol } from '../load/transaction-template.ts';
import { type ActivityProfile, ActivitySampler } from '../server/activity-sampler.ts';
import { type CheckpointCounters, CheckpointProbe } from '../server/checkpoints.ts';
import type { ProbeConnection } from '../server/probe-connection.ts';
import { type ReplicationState, readReplication, unflushedBytes } from '../server/replication.ts';
import { type SystemProbe, type SystemSample, type SystemUse, systemUse } from '../server/system.ts';
import { WalCounterProbe, type WalDifference, walDifference } from '../server/wal-counters.ts';
import type { Variant } from './interventions.ts';

const LOAD_APPLICATION_NAME = 'postern wall explain';
const STANDBY_LOOK_MS = 200;
const CATCH_UP_TIMEOUT_MS = 10_000;
const CATCH_UP_LOOK_MS = 100;
const CATCH_UP_BYTES = 64 * 1024;

export interface Pace {
  readonly warmupMs: number;
  readonly windowMs: number;
}

export interface LoadRun {
  readonly tps: number;
  /** Confirmed within the window. */
  readonly transactions: number;
  /** Confirmed in the whole run: what the counters belong to. */
  readonly acknowledged: number;
  /** Of the whole run, from the first transaction on. */
  readonly elapsedMs: number;
  readonly medianMs: number;
  readonly profile: ActivityProfile;
  readonly standbys: readonly ReplicationState[];
  readonly use: SystemUse | undefined;
  readonly wal: WalDifference;
  readonly checkpoints: number | undefined;
  readonly generatorCores: number;
  readonly generatorBound: boolean;
  readonly errors: ReadonlyMap<string, string>;
}

export class MeasuredLoad {
  readonly unread: readonly string[];
  private readonly looks: Looks;
  private readonly counters: WalCounterProbe;
  private readonly checkpoints: CheckpointProbe;
  private readonly generators = new Map<string, LoadGenerator>();
  private lagged = false;

  private constructor(looks: Looks, counters: WalCounterProbe, checkpoints: CheckpointProbe) {
    this.looks = looks;
    this.counters = counters;
    this.checkpoints = checkpoints;
    this.unread = [...counters.unread, ...checkpoints.unread, ...(looks.system?.unread ?? [])];
  }

  static async open(looks: Looks): Promise<MeasuredLoad> {
    const counters = await WalCounterProbe.open(looks.probe);
    return new MeasuredLoad(looks, counters, await CheckpointProbe.open(looks.probe));
  }

  /** Before some run, WAL was not flushed everywhere in time: figures of waiting for it are then too high. */
  get hasLagged(): boolean {
    return this.lagged;
  }

  /** Rejects with LoadError or the signal's reason. */
  async run(variant: Variant, pace: Pace, signal?: AbortSignal): Promise<LoadRun> {
    const isReplicated = await this.catchUp();
    const before = await this.counters.read();
    const checkpointsBefore = await this.checkpoints.read();
    const window = new WatchedWindow({ ...this.looks, isReplicated });
    let startedAt = 0;
    let closedAt = 0;
    let measured: LoadMeasurement;
    try {
      measured = await this.generatorOf(variant).measurePoint({
        clients: variant.clients,
        ...pace,
        signal,
        onConnected: () => {
          startedAt = performance.now();
        },
        onOpen: () => window.open(),
        onClose: () => {
          window.close();
          closedAt = performance.now();
        },
      });
    } finally {
      window.close();
    }
    const seen = await window.seen();
    const checkpointsAfter = await this.checkpoints.read();
    if (measured.latencies.count === 0) throw nothingDone(variant, measured);
    return {
      tps: measured.transactionsPerSecond,
      transactions: measured.latencies.count,
      acknowledged: measured.acknowledged,
      elapsedMs: closedAt - startedAt,
      medianMs: measured.latencies.percentileMs(0.5),
      ...seen,
      wal: walDifference(before, await this.counters.read()),
      checkpoints: checkpointCount(checkpointsBefore, checkpointsAfter),
      generatorCores: measured.cpuShare,
      generatorBound: measured.clientBound,
      errors: measured.errorMessages,
    };
  }

  async close(): Promise<void> {
    await Promise.all([...this.generators.values()].map((generator) => generator.close()));
    this.generators.clear();
  }

  /** One for each variant: its threads and their code stay warm from turn to turn. */
  private generatorOf(variant: Variant): LoadGenerator {
    const { workload, schema, settings } = variant;
    const key = JSON.stringify([workload.name, schema, settings]);
    let found = this.generators.get(key);
    if (found === undefined) {
      const target = withSettings(this.looks.target, settings);
      found = new LoadGenerator({ target, workload, protocol: this.looks.protocol, schema });
      this.generators.set(key, found);
    }
    return found;
  }

  /** Waits until what was written is flushed, here and where commits wait for it. Gives whether there are standbys. */
  private async catchUp(): Promise<boolean> {
    const deadline = performance.now() + CATCH_UP_TIMEOUT_MS;
    for (;;) {
      const unflushed = await unflushedBytes(this.looks.probe);
      const { standbys } = await readReplication(this.looks.probe);
      const behind = standbys
        .filter(({ syncState }) => syncState === 'sync' || syncState === 'quorum')
        .map((each) => (each.unsentBytes ?? 0) + (each.unwrittenBytes ?? 0) + (each.unflushedBytes ?? 0));
      if ([unflushed, ...behind].every((bytes) => bytes <= CATCH_UP_BYTES)) return standbys.length > 0;
      if (performance.now() > deadline) {
        this.lagged = true;
        return standbys.length > 0;
      }
      await new Promise((resolve) => setTimeout(resolve, CATCH_UP_LOOK_MS));
    }
  }
}

interface Looks {
  readonly probe: ProbeConnection;
  readonly system: SystemProbe | undefined;
  readonly target: Target;
  readonly protocol: Protocol;
}

/** What is looked at between the opening and the closing of one window. */
class WatchedWindow {
  private readonly probe: ProbeConnection;
  private readonly system: SystemProbe | undefined;
  private readonly isReplicated: boolean;
  private readonly sampler: ActivitySampler;
  private readonly standbys: Promise<ReplicationState>[] = [];
  private readonly samples: Promise<SystemSample | undefined>[] = [];
  private timer: NodeJS.Timeout | undefined;
  private profile: Promise<ActivityProfile> | undefined;
  private isOpen = false;

  constructor(options: Looks & { isReplicated: boolean }) {
    this.probe = options.probe;
    this.system = options.system;
    this.isReplicated = options.isReplicated;
    this.sampler = new ActivitySampler({ connection: options.probe, applicationName: LOAD_APPLICATION_NAME });
  }

  open(): void {
    this.isOpen = true;
    this.takeSample();
    this.sampler.start();
    if (!this.isReplicated) return;
    this.timer = setInterval(() => {
      const look = readReplication(this.probe);
      look.catch(() => {});
      this.standbys.push(look);
    }, STANDBY_LOOK_MS);
  }

  /** A second call does nothing. */
  close(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.takeSample();
    clearInterval(this.timer);
    this.profile = this.sampler.stop();
    this.profile.catch(() => {});
  }

  async seen(): Promise<Pick<LoadRun, 'profile' | 'standbys' | 'use'>> {
    assert(this.profile !== undefined, 'a window that was closed');
    const [before, after] = await Promise.all(this.samples);
    return {
      profile: await this.profile,
      standbys: await Promise.all(this.standbys),
      use: before === undefined || after === undefined ? undefined : systemUse(before, after),
    };
  }

  private takeSample(): void {
    // A source that fails for once leaves this window without its figures.
    if (this.system !== undefined) this.samples.push(this.system.sample().catch(() => undefined));
  }
}

function withSettings(target: Target, settings: Readonly<Record<string, string>>): Target {
  const given = target.parameters.find(([name]) => name === 'options')?.[1];
  const added = Object.entries(settings).map(([name, value]) => `-c ${name}=${value}`);
  const options = [...(given === undefined ? [] : [given]), ...added].join(' ');
  const others = target.parameters.filter(([name]) => name !== 'options' && name !== 'application_name');
  return {
    ...target,
    parameters: [
      ...others,
      ['application_name', LOAD_APPLICATION_NAME],
      ...(options === '' ? [] : ([['options', options]] as const)),
    ],
  };
}

function nothingDone(variant: Variant, { errorMessages }: LoadMeasurement): LoadError {
  const [failed] = [...errorMessages];
  return new LoadError(
    failed === undefined
      ? `no transaction of ${variant.clients} clients was answered within the window`
      : `every transaction failed: ${failed[1]} (${failed[0]})`,
  );
}

function checkpointCount(
  before: CheckpointCounters | undefined,
  after: CheckpointCounters | undefined,
): number | undefined {
  if (before === undefined || after === undefined) return undefined;
  return Math.max(0, after.timed + after.requested - before.timed - before.requested);
}

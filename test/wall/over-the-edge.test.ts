/**
 * A primary with a standby that is driven over the edge, step by step, while `postern wall watch` looks on: each step goes
 * on until its symptom is told, and the wall is told when all four stand, not before.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CpuQuota, findCpuController } from '../../src/embedded/cpu-quota.ts';
import { LoadGenerator } from '../../src/wall/load/generator.ts';
import { workloadFromScript } from '../../src/wall/workload/workload.ts';
import { startTestServer, startTestStandby, type TestServer } from '../support/servers.ts';

const SYMPTOM_TIMEOUT_MS = 90_000;
/** How long a step goes on before the next one loads the primary more: how much it takes is the machine's affair. */
const STEP_MS = 8_000;
const WRITERS_FIRST = 24;
const WRITERS_MAX = 384;
/**
 * Fewer than ten ages in two looks or three: while these alone write, latencies can't be told, however slow they are made
 * by what the processors and the standby are driven to.
 */
const TRICKLE_CLIENTS = 3;
const SETTINGS = { max_connections: '450' };
/** As long as a row may be without being compressed: a hundred of them a second are soon a megabyte of WAL, which is no noise. */
const WRITE = "INSERT INTO events (payload) VALUES (repeat('x', 1900));";
const CALM = /^postern_wall_calm_write_age_seconds\{quantile="0\.99"\} /m;
const SYMPTOM_LINE = /^ {2}(cpu|lag|latency|slo): /;
const READ = 'SELECT count(*) FROM generate_series(1, 2000);';
const controller = findCpuController();
const missing = 'missing' in controller ? controller.missing : undefined;
if (missing !== undefined) console.log(`over the edge: skipped, servers can't be capped here (${missing})`);

describe.skipIf(missing !== undefined)('a primary that is driven over the edge', () => {
  let primary: TestServer;
  let standby: TestServer;
  let quota: CpuQuota | undefined;
  let watch: Watch;
  const loads: Load[] = [];

  beforeAll(async () => {
    primary = await startTestServer({ durable: true, settings: { ...SETTINGS, autovacuum: 'off' } });
    await primary.query('CREATE TABLE events (id bigserial PRIMARY KEY, payload text)');
    standby = await startTestStandby(primary, { name: 'near', durable: true, settings: SETTINGS });
    const { directory } = controller as { directory: string };
    quota = new CpuQuota({ directory, name: `edge-${primary.port}`, share: 0.2 });
    quota.add(primary.pid);
    watch = new Watch(primary.dsn());
  }, 60_000);

  afterAll(async () => {
    watch?.stop();
    quota?.set(Number.POSITIVE_INFINITY);
    await Promise.all(loads.map((load) => load.stop()));
    await standby?.stop();
    await primary?.stop();
    quota?.remove();
  });

  function load(options: LoadOptions): Load {
    const added = new Load(primary.port, options);
    loads.push(added);
    return added;
  }

  /** Waits, and ends early when a load can't be run, or the watch has ended without it. */
  async function until(condition: () => boolean | Promise<boolean>, timeoutMs: number): Promise<boolean> {
    const deadline = Date.now() + timeoutMs;
    while (!(await condition())) {
      const failed = loads.find(({ failure }) => failure !== undefined);
      if (failed !== undefined) throw failed.failure;
      if (Date.now() > deadline) return false;
      if (watch.ended !== undefined) throw new Error(`the watch has ended:\n${watch.output}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    return true;
  }

  async function seen(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
    if (await until(condition, SYMPTOM_TIMEOUT_MS)) return;
    const figures = await watch.metrics();
    throw new Error(`not seen within its time: ${what}; the watch said:\n${watch.output}\n${figures}`);
  }

  it('shows the four symptoms one after the other, and is at the wall when all stand', async () => {
    let writers = 0;
    const drivenUntil = async (what: string, condition: () => boolean): Promise<void> => {
      do {
        const clients = Math.min(Math.max(WRITERS_FIRST, writers), WRITERS_MAX - writers);
        if (clients === 0) return seen(what, condition);
        writers += clients;
        load({ script: WRITE, clients });
      } while (!(await until(condition, STEP_MS)));
    };
    load({ script: WRITE, clients: TRICKLE_CLIENTS, rate: 100 });
    await seen('what is calm', async () => CALM.test(await watch.metrics()));
    expect(watch.told).toEqual([]);
    // They stay: the processors are at their end to the end.
    load({ script: READ, clients: 4 });
    await seen('cpu', () => watch.hasTold('cpu'));
    expect(watch.told).toEqual(['cpu']);
    // A replay that stands still, as behind a long query of the standby: the lag then grows for as long as it is written.
    await standby.query('SELECT pg_wal_replay_pause()');
    await seen('lag', () => watch.hasTold('lag'));
    expect(watch.told).toEqual(['cpu', 'lag']);
    await drivenUntil('latency', () => watch.hasTold('latency'));
    if (watch.ended === undefined) await drivenUntil('the wall', () => watch.ended !== undefined);
    expect(watch.ended).toBe(4);
    expect(new Set(watch.told)).toEqual(new Set(['cpu', 'lag', 'latency', 'slo']));
    // The line that says so is the last but what the watch says of its own cost, and of each symptom.
    const lines = watch.output.trimEnd().split('\n');
    expect(lines.filter((line) => line.includes('AT THE WALL'))).toEqual([
      expect.stringContaining('all four symptoms stand'),
    ]);
    expect(lines.at(-6)).toContain('AT THE WALL');
    expect(lines.slice(-5, -1).map((line) => SYMPTOM_LINE.exec(line)?.[1])).toEqual([
      ...['cpu', 'lag', 'latency', 'slo'],
    ]);
    expect(lines.at(-1)).toMatch(/^Watching costs the server \d+ queries/);
  }, 480_000);
});

interface LoadOptions {
  readonly script: string;
  readonly clients: number;
  readonly rate?: number;
}

/** Loads the primary until it is stopped; a server at its end may answer none of it. */
class Load {
  /** Of a load that ended although nobody stopped it. */
  failure: unknown;
  private readonly enough = new AbortController();
  private readonly running: Promise<void>;

  constructor(port: number, { script, clients, rate }: LoadOptions) {
    const generator = new LoadGenerator({
      target: {
        ...{ host: '127.0.0.1', port, user: 'postgres', database: 'postgres' },
        ...{ password: undefined, parameters: [], tls: undefined, connectTimeoutMs: SYMPTOM_TIMEOUT_MS },
      },
      ...{
        workload: workloadFromScript(script, { name: 'edge' }),
        protocol: 'prepared',
        schema: '',
        workers: 1,
      },
    });
    this.running = generator
      .measurePoint({ clients, rate, warmupMs: 0, windowMs: 600_000, signal: this.enough.signal })
      .then(
        () => generator.close(),
        (error: unknown) => {
          if (!this.enough.signal.aborted) this.failure = error;
        },
      );
  }

  /** Never rejects: what failed is in `failure`. */
  async stop(): Promise<void> {
    this.enough.abort();
    await this.running;
  }
}

/** The command itself, and what it has told so far. */
class Watch {
  output = '';
  /** Its exit status. */
  ended: number | undefined;
  private readonly child: ChildProcess;

  constructor(dsn: string) {
    const main = path.resolve(import.meta.dirname, '../../dist/cli/main.js');
    this.child = spawn(
      process.execPath,
      [
        ...[main, 'wall', 'watch', dsn, '--slo', 'p99=250ms'],
        ...['--window', '12', '--sustain', '2', '--alert', 'wall', '--wall', '5000', '--metrics', '0'],
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    const add = (text: string): void => {
      this.output += text;
    };
    this.child.stdout!.setEncoding('utf8').on('data', add);
    this.child.stderr!.setEncoding('utf8').on('data', add);
    this.child.on('close', (status) => {
      this.ended = status ?? -1;
    });
  }

  /** Symptoms in the order in which they were first told. */
  get told(): string[] {
    const names = this.output.split('\n').map((line) => SYMPTOM_LINE.exec(line)?.[1]);
    return [...new Set(names.filter((name) => name !== undefined))];
  }

  /** Its figures as of its last look; empty until there are any. */
  async metrics(): Promise<string> {
    const url = /^Metrics: (\S+)$/m.exec(this.output)?.[1];
    return url === undefined ? '' : (await fetch(url)).text();
  }

  hasTold(name: string): boolean {
    return this.told.includes(name);
  }

  stop(): void {
    if (this.ended === undefined) this.child.kill('SIGTERM');
  }
}

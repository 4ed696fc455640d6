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

const SYMPTOM_TIMEOUT_MS = 60_000;
/** Half a window has to be seen before it is known what calm is. */
const LOOKS_OF_CALM = 9;
/** As long as a row may be without being compressed: a hundred of them a second are soon a megabyte of WAL, which is no noise. */
const WRITE = "INSERT INTO events (payload) VALUES (repeat('x', 1900));";
const READ = 'SELECT count(*) FROM generate_series(1, 2000);';
const controller = findCpuController();
const missing = 'missing' in controller ? controller.missing : undefined;
if (missing !== undefined) console.log(`over the edge: skipped, servers can't be capped here (${missing})`);

describe.skipIf(missing !== undefined)('a primary that is driven over the edge', () => {
  let primary: TestServer;
  let standby: TestServer;
  let quota: CpuQuota | undefined;
  let watch: Watch;
  const generators: LoadGenerator[] = [];

  beforeAll(async () => {
    primary = await startTestServer({ durable: true, settings: { autovacuum: 'off' } });
    await primary.query('CREATE TABLE events (id bigserial PRIMARY KEY, payload text)');
    standby = await startTestStandby(primary, { name: 'near', durable: true });
    const { directory } = controller as { directory: string };
    quota = new CpuQuota({ directory, name: `edge-${primary.port}`, share: 0.2 });
    quota.add(primary.pid);
    watch = new Watch(primary.dsn());
  }, 60_000);

  afterAll(async () => {
    watch?.stop();
    for (const generator of generators) await generator.close();
    await standby?.stop();
    await primary?.stop();
    quota?.remove();
  });

  /** Loads the primary until it is stopped; a server at its end may answer none of it. */
  function load(options: { script: string; clients: number; rate?: number }): { stop(): Promise<void> } {
    const { script, clients, rate } = options;
    const generator = new LoadGenerator({
      target: {
        ...{ host: '127.0.0.1', port: primary.port, user: 'postgres', database: 'postgres' },
        ...{ password: undefined, parameters: [], tls: undefined, connectTimeoutMs: 60_000 },
      },
      ...{
        workload: workloadFromScript(script, { name: 'edge' }),
        protocol: 'prepared',
        schema: '',
        workers: 1,
      },
    });
    generators.push(generator);
    const enough = new AbortController();
    const running = generator
      .measurePoint({
        ...{ clients, warmupMs: 0, windowMs: 600_000, signal: enough.signal },
        ...(rate === undefined ? {} : { rate }),
      })
      .catch((error: unknown) => {
        if (!enough.signal.aborted) throw error;
      });
    return {
      stop: async () => {
        enough.abort();
        await running;
      },
    };
  }

  async function until(condition: () => boolean): Promise<void> {
    const deadline = Date.now() + SYMPTOM_TIMEOUT_MS;
    while (!condition()) {
      if (Date.now() > deadline)
        throw new Error(`not seen within a minute; the watch said:\n${watch.output}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  it('shows the four symptoms one after the other, and is at the wall when all stand', async () => {
    const writes = load({ script: WRITE, clients: 4, rate: 100 });
    await until(() => watch.looks >= LOOKS_OF_CALM);
    expect(watch.told).toEqual([]);
    const reads = load({ script: READ, clients: 8 });
    await until(() => watch.hasTold('cpu'));
    // A replay that stands still, as behind a long query of the standby: the lag then grows for as long as it is written.
    await standby.query('SELECT pg_wal_replay_pause()');
    await until(() => watch.hasTold('lag'));
    await reads.stop();
    const more = load({ script: WRITE, clients: 24 });
    await until(() => watch.hasTold('latency'));
    const most = load({ script: WRITE, clients: 150 });
    await until(() => watch.ended !== undefined);
    await Promise.all([writes.stop(), more.stop(), most.stop()]);
    expect(watch.ended).toBe(4);
    expect(watch.told.slice(0, 2)).toEqual(['cpu', 'lag']);
    expect(new Set(watch.told)).toEqual(new Set(['cpu', 'lag', 'latency', 'slo']));
    // The line that says so is the last but what the watch says of its own cost, and of each symptom.
    const lines = watch.output.trimEnd().split('\n');
    expect(lines.filter((line) => line.includes('AT THE WALL'))).toEqual([
      expect.stringContaining('all four symptoms stand'),
    ]);
    expect(lines.at(-1)).toMatch(/^Watching costs the server \d+ queries/);
  }, 240_000);
});

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
    return [...new Set([...this.output.matchAll(/^ {2}(cpu|lag|latency|slo): /gm)].map(([, name]) => name!))];
  }

  /** Seconds since its first line, which is a look each. */
  get looks(): number {
    const first = /^(\S+Z) {2}/m.exec(this.output)?.[1];
    return first === undefined ? 0 : (Date.now() - Date.parse(first)) / 1000;
  }

  hasTold(name: string): boolean {
    return this.told.includes(name);
  }

  stop(): void {
    if (this.ended === undefined) this.child.kill('SIGTERM');
  }
}

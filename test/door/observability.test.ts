/** What a router tells those who run it: its endpoints, its figures, and the lines that it writes about clients. */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { readiness } from '../../src/cli/readiness.ts';
import { startFront } from '../../src/cli/run-front.ts';
import type { LogFields } from '../../src/observe/log.ts';
import { METRICS } from '../../src/observe/metric-names.ts';
import { workerOf } from '../../src/session/session-ids.ts';
import { sendCancel } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { RouterProcess, until } from '../support/router-process.ts';

const PASSWORD = 'sesame-opens-9471';

interface Line {
  readonly level: string;
  readonly message: string;
  readonly fields: LogFields;
}

const lines: Line[] = [];
const write =
  (level: string) =>
  (message: string, fields: LogFields = {}): void =>
    void lines.push({ level, message, fields });

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await startTestCluster({
    settings: { max_prepared_transactions: '10' },
    users: [
      { name: 'app', password: undefined },
      { name: 'postgres', password: undefined },
      { name: 'ann', password: PASSWORD },
    ],
    router: {
      http: { host: '127.0.0.1', port: 0 },
      log: { info: write('info'), warn: write('warn'), error: write('error') },
      logging: { level: 'info', connections: true, statementsSlowerThanMs: 150 },
    },
  });
});

afterAll(async () => await cluster?.stop());

const connect = async (config: pg.ClientConfig): Promise<pg.Client> => {
  const client = new pg.Client({ host: '127.0.0.1', database: 'app', ...config });
  await client.connect();
  return client;
};

async function figures(httpPort: number): Promise<Map<string, number>> {
  const text = await (await fetch(`http://127.0.0.1:${httpPort}/metrics`)).text();
  return new Map(
    [...text.matchAll(/^(\w+(?:\{.*\})?) (\S+)$/gm)].map(([, key, value]) => [key!, Number(value)]),
  );
}

describe('the endpoints of one process', () => {
  const url = (path: string): string => `http://127.0.0.1:${cluster.router.httpPort}${path}`;

  it('say that it lives and serves, and of which nodes', async () => {
    expect(await (await fetch(url('/healthz'))).json()).toEqual({ alive: true });
    await vi.waitFor(
      async () => {
        const answer = await fetch(url('/readyz'));
        expect(answer.status).toBe(200);
        expect(await answer.json()).toMatchObject({
          ...{ ready: true, state: 'serving', reasons: [], workers: { expected: 1, serving: 1 } },
          nodes: [
            { node: 'n1', isHome: true, state: 'up', usable: true },
            { node: 'n2', isHome: false, state: 'up', usable: true },
          ],
        });
      },
      { timeout: 10_000 },
    );
  });

  it('are read, and nothing else', async () => {
    expect((await fetch(url('/metrics'), { method: 'HEAD' })).status).toBe(200);
    expect((await fetch(url('/metrics'), { method: 'POST', body: 'x'.repeat(100_000) })).status).toBe(405);
    const other = await fetch(url('/<script>?q=1'));
    expect([other.status, await other.text()]).toEqual([404, '']);
    await expect(
      fetch(url('/healthz'), { headers: { big: 'x'.repeat(20_000) } }).then((a) => a.status),
    ).resolves.toBe(431);
  });

  it('give figures by the names of the catalogue, and those of what was done', async () => {
    const client = await connect({ port: cluster.port, user: 'app' });
    try {
      await client.query(
        "CREATE TABLE k (id int8 PRIMARY KEY, n int) WITH (postern.door = 'sharded', postern.key = 'id')",
      );
      const before = await figures(cluster.router.httpPort!);
      for (let i = 0; i < 10; i++) await client.query('INSERT INTO k VALUES ($1, 0)', [i]);
      await client.query('SELECT count(*) FROM k');
      const after = await figures(cluster.router.httpPort!);
      const grown = (key: string): number => after.get(key)! - (before.get(key) ?? 0);
      expect(grown('postern_statements_total{placement="keyed"}')).toBe(10);
      expect(grown('postern_statements_total{placement="scattered"}')).toBe(1);
      expect(after.get('postern_clients')).toBe(1);
      expect(after.get('postern_router_slot')).toBe(1);
      expect(after.get('postern_admissions_total{result="admitted"}')).toBe(1);
      expect(after.get('postern_timeouts_total{timeout="idle"}')).toBe(0);
      expect(after.get('postern_node_usable{node="n2"}')).toBe(1);
      expect(after.get('postern_backends_opened_total{node="n2"}')).toBeGreaterThan(0);
      expect(after.get('postern_process_resident_bytes{process="0"}')).toBeGreaterThan(1e6);
      const names = [...after.keys()].map((key) =>
        key.replace(/\{.*/, '').replace(/_(bucket|sum|count)$/, ''),
      );
      expect([...new Set(names)].filter((name) => !(name in METRICS))).toEqual([]);
    } finally {
      await client.end();
    }
  });
});

it('tells of a router before one server, which has no catalog', async () => {
  const front = await startFront(
    cluster.servers[1]!.dsn({ database: 'app' }),
    { host: '127.0.0.1', port: 0, connections: undefined, coalesce: true, workers: undefined },
    { info() {}, warn() {}, error() {} },
  );
  try {
    expect(readiness('serving', 1, [front.answer('status')])).toMatchObject({
      ...{ ready: true, reasons: [], slot: 0, map: undefined },
    });
    const names = front.answer('metrics').families.map(({ name }) => name);
    expect(names).toContain('postern_clients');
    expect(names).not.toContain('postern_map_epoch');
  } finally {
    await front.close();
  }
});

describe('the lines about a client', () => {
  it('tell when it came, who it was, what was slow, and how it left, and no secret', async () => {
    const login = { port: cluster.port, user: 'ann', application_name: 'web' };
    const client = await connect({ ...login, password: PASSWORD });
    await client.query("SELECT 'hunter2', pg_sleep(0.2)");
    await client.query('SELECT $1::text, pg_sleep($2)', ['hunter2', 0.2]);
    await client.end();
    const wrong = `${PASSWORD}-not`;
    await expect(connect({ ...login, password: wrong })).rejects.toMatchObject({ code: '28P01' });
    const ofAnn = await vi.waitFor(() => {
      const found = lines.filter(({ fields }) => fields.role === 'ann');
      expect(found.map(({ message }) => message)).toEqual([
        ...['client logged in', 'slow statement', 'slow statement', 'client left', 'login refused'],
      ]);
      return found;
    });
    const [loggedIn, slow, , left, refused] = ofAnn;
    expect(loggedIn!.fields).toMatchObject({
      ...{ address: '127.0.0.1', database: 'app', application_name: 'web', method: 'scram-sha-256' },
    });
    expect(slow!.fields).toMatchObject({ query: 'SELECT $1, pg_sleep($2)', rows: 1, failed: false });
    expect(slow!.fields.duration_ms).toBeGreaterThanOrEqual(190);
    expect(left!.fields.connection).toBe(loggedIn!.fields.connection);
    expect(refused!.fields).toMatchObject({ sql_state: '28P01' });
    expect(refused!.fields.connection).not.toBe(loggedIn!.fields.connection);
    const all = JSON.stringify(lines);
    for (const secret of [PASSWORD, 'hunter2', 'SCRAM-SHA-256$']) expect(all).not.toContain(secret);
    const after = await figures(cluster.router.httpPort!);
    expect(after.get('postern_logins_total{method="scram-sha-256"}')).toBe(1);
    expect(after.get('postern_logins_refused_total{sql_state="28P01"}')).toBe(1);
    expect(after.get('postern_sessions_ended_total{sql_state="00000"}')).toBeGreaterThanOrEqual(1);
  });
});

describe('a router of two workers', () => {
  let router: RouterProcess;
  let url: string;

  beforeAll(async () => {
    router = await RouterProcess.start(cluster.routerOptions.nodes, {
      ...{ workers: 2, coalesce: false, http: { port: 0 }, router: { name: 'two' } },
      ...{ drain: { delay: '1500ms', timeout: '5s' }, log: { connections: true } },
    });
    url = `http://127.0.0.1:${/health and metrics on [^"]*:(\d+)/.exec(router.output)![1]}`;
  });

  afterAll(async () => await router?.stop());

  const readyz = async () => {
    const answer = await fetch(`${url}/readyz`);
    return { status: answer.status, ...((await answer.json()) as { reasons: string[]; state: string }) };
  };

  /** One client on each worker. */
  async function onEach(): Promise<pg.Client[]> {
    const byWorker = new Map<number, pg.Client>();
    for (let i = 0; byWorker.size < 2; i++) {
      if (i > 20) throw new Error('all clients came to one worker');
      const client = await connect({ port: router.port, user: 'app' });
      const worker = workerOf((client as unknown as { processID: number }).processID);
      if (byWorker.has(worker)) await client.end();
      else byWorker.set(worker, client);
    }
    return [...byWorker.values()];
  }

  it('tells of both as of one', async () => {
    expect(await readyz()).toMatchObject({
      status: 200,
      reasons: [],
      workers: { expected: 2, serving: 2 },
    });
    const clients = await onEach();
    const all = await figures(Number(new URL(url).port));
    expect(all.get('postern_workers{state="serving"}')).toBe(2);
    expect(all.get('postern_clients')).toBe(2);
    for (const process of ['first', '0', '1'])
      expect(all.get(`postern_process_cpu_seconds_total{process="${process}"}`)).toBeGreaterThan(0);
    await Promise.all(clients.map((client) => client.end()));
  });

  it('cancels at either what a request to the other, or to another router, names', async () => {
    const clients = await onEach();
    for (const client of clients) {
      const { processID, secretKey } = client as unknown as { processID: number; secretKey: number };
      // Each goes to whichever worker takes it.
      for (const port of [router.port, router.port, cluster.port]) {
        const outcome = client.query('SELECT pg_sleep(20)').catch((error: pg.DatabaseError) => error.code);
        await until(async () => {
          const [row] = await cluster.servers[0]!.query(
            "SELECT count(*)::int AS n FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(20)' AND state = 'active'",
          );
          return row!.n === 1;
        });
        await sendCancel(port, processID, secretKey);
        expect(await outcome).toBe('57014');
      }
    }
    await Promise.all(clients.map((client) => client.end()));
  });

  it('says in one line that the port for them is taken', async () => {
    const { port } = new URL(url);
    await expect(
      RouterProcess.start(cluster.routerOptions.nodes, { http: { port: Number(port) } }),
    ).rejects.toThrow(`port ${port} is in use (Choose another one with http.port or --metrics`);
  });

  it('is one router in the register', async () => {
    const client = await connect({ port: cluster.port, user: 'app' });
    const { rows } = await client.query("SELECT state, processes FROM postern.routers WHERE router = 'two'");
    expect(rows).toEqual([{ state: 'serving', processes: 2 }]);
    await client.end();
  });

  it('keeps the id of a client, and what was counted, when its workers are replaced', async () => {
    const port = Number(new URL(url).port);
    const logins = 'postern_logins_total{method="trust"}';
    const client = await connect({ port: router.port, user: 'app', application_name: 'moves' });
    const before = await figures(port);
    await router.restart();
    expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    const after = await figures(port);
    expect(after.get('postern_handovers_total{direction="taken"}')).toBe(1);
    expect(after.get(logins)).toBe(before.get(logins));
    await client.end();
    const ofClient = () => router.output.split('\n').filter((line) => line.includes('"moves"'));
    await until(() => ofClient().length === 2);
    const [came, left] = ofClient().map((line) => JSON.parse(line));
    expect([came.msg, left.msg]).toEqual(['client logged in', 'client left']);
    expect(left.connection).toBe(came.connection);
  });

  it('stays ready without one of them, and says so until it is back', async () => {
    process.kill(router.workerPids[0]!, 'SIGKILL');
    await until(async () => (await readyz()).reasons.includes('1 of 2 workers serve'));
    expect((await readyz()).status).toBe(200);
    await until(async () => (await readyz()).reasons.length === 0, 20_000);
  });

  it('is not ready from the moment that it drains, while clients still get in', async () => {
    router.signal('SIGTERM');
    await until(async () => (await readyz()).status === 503);
    expect(await readyz()).toMatchObject({ ready: false, reasons: ['draining'], state: 'draining' });
    const late = await connect({ port: router.port, user: 'app' });
    expect((await late.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    await late.end();
    expect(await router.stop()).toBe(0);
  });

  it('has written whole lines of JSON, each about a client with its connection', () => {
    const written = router.output
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line));
    const ofClients = written.filter(({ msg }) => /^client |^session /.test(msg));
    expect(ofClients.length).toBeGreaterThan(6);
    for (const { level, time, worker, connection } of ofClients) {
      expect(connection).toMatch(/^[\da-f]{8}\.[\da-f]{7,}$/);
      expect([['info', 'warn'].includes(level), Number.isInteger(worker)]).toEqual([true, true]);
      expect(Math.abs(Date.parse(time) - Date.now())).toBeLessThan(600_000);
    }
  });
});

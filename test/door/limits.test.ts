/** How many clients come in, in which order they are served, and what becomes of a crowd that never says who it is. */
import { connect, type Socket } from 'node:net';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { LIMITS, type RouterLimits } from '../../src/admission/limits.ts';
import { type Router, startRouter } from '../../src/cli/router.ts';
import type { RouterOptions } from '../../src/cli/router-options.ts';
import { RawClient } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient, value } from '../support/router-clients.ts';
import { RouterProcess } from '../support/router-process.ts';

let cluster: TestCluster;

beforeAll(async () => {
  const users = ['app', 'web', 'postgres'].map((name) => ({ name, password: undefined }));
  cluster = await startTestCluster({ nodes: 1, users });
});
afterAll(() => cluster?.stop());

interface Limited {
  readonly router: Router;
  readonly port: number;
  dsn(user?: string): string;
  options(limits: Limits): RouterOptions;
}

type Limits = Omit<Partial<RouterLimits>, 'clients'> & {
  readonly clients?: Partial<RouterLimits['clients']>;
};

/** Another router over the same node. */
async function routerWith(limits: Limits, more: Partial<RouterOptions> = {}): Promise<Limited> {
  const options = (given: Limits): RouterOptions => ({
    ...cluster.routerOptions,
    ...{ listen: { host: '127.0.0.1', port: 0 }, ...more },
    limits: { ...LIMITS, ...given, clients: { ...LIMITS.clients, ...given.clients } },
  });
  const router = await startRouter(options(limits));
  onTestFinished(() => router.close());
  return {
    router,
    port: router.port,
    dsn: (user = 'app') => `postgres://${user}@127.0.0.1:${router.port}/app`,
    options,
  };
}

const refusal = (limited: Limited, settings: pg.ClientConfig = {}, user = 'app') =>
  connectClient(limited, settings, user).then(
    () => expect.unreachable('it was let in'),
    (error: pg.DatabaseError) => `${error.code} ${error.message}`,
  );
const ofTenant = (name: string): pg.ClientConfig => ({ options: `-c postern.tenant=${name}` });

describe('clients', () => {
  it('beyond the limit wait for a place, and hear so in PostgreSQL’s words when none comes', async () => {
    const limited = await routerWith({ clients: { clients: 2, queue: { clients: 1, waitMs: 400 } } });
    const [first] = [await connectClient(limited), await connectClient(limited)];
    const waiting = connectClient(limited);
    await first!.end();
    expect(await value(await waiting, 'SELECT 1')).toBe(1);
    expect(await refusal(limited)).toBe('53300 sorry, too many clients already');
    // Who looks after the cluster comes in all the same.
    expect(await value(await connectClient(limited, {}, 'postgres'), 'SELECT 1')).toBe(1);
  });

  it('of one role or tenant have limits of their own', async () => {
    const limited = await routerWith({
      clients: { clientsPerTenant: 1, roles: new Map([['web', 1]]), queue: { clients: 0, waitMs: 0 } },
    });
    await connectClient(limited, {}, 'web');
    expect(await refusal(limited, {}, 'web')).toBe('53300 too many connections for role "web"');
    const acme = await connectClient(limited, ofTenant('acme'));
    expect(await refusal(limited, ofTenant('acme'))).toBe('53300 too many connections for tenant "acme"');
    await connectClient(limited, ofTenant('other'));
    expect(await value(acme, `SET postern.tenant = 'other'`)).toBe('!55P02');
    expect(await value(acme, `SELECT set_config('postern.tenant', 'other', false)`)).toBe('!55P02');
    // It is no setting of the server's, so that tenants share connections.
    expect(await value(acme, `SELECT current_setting('postern.tenant', true)`)).toBeNull();
    expect(await refusal(limited, ofTenant(`${'x'.repeat(300)}`))).toMatch(/^22023 /);
  });

  it('that go away while they wait make room in the queue', async () => {
    const limited = await routerWith({ clients: { clients: 1, queue: { clients: 1, waitMs: 30_000 } } });
    const inside = await connectClient(limited);
    const impatient = connect({ host: '127.0.0.1', port: limited.port });
    impatient.write(startUp('app'));
    // It holds the only place to wait in.
    await expect.poll(() => refusal(limited)).toMatch(/^53300/);
    impatient.destroy();
    let patient: Promise<pg.Client> | undefined;
    await expect
      .poll(async () => {
        const next = connectClient(limited);
        const refused = await Promise.race([next.then(undefined, () => true), expectLater(false)]);
        if (!refused) patient = next;
        return refused;
      })
      .toBe(false);
    await inside.end();
    expect(await value(await patient!, 'SELECT 1')).toBe(1);
  });

  it('find other limits when they are reloaded, and nobody is thrown out', async () => {
    const limited = await routerWith({ clients: { clients: 1, queue: { clients: 9, waitMs: 30_000 } } });
    const inside = await connectClient(limited);
    const waiting = connectClient(limited);
    await limited.router.reload(limited.options({ clients: { clients: 2 } }));
    expect(await value(await waiting, 'SELECT 1')).toBe(1);
    await limited.router.reload(
      limited.options({ clients: { clients: 1, queue: { clients: 0, waitMs: 0 } } }),
    );
    expect(await value(inside, 'SELECT 1')).toBe(1);
    expect(await refusal(limited)).toMatch(/^53300/);
  });
});

describe('several processes', () => {
  it('count clients together, and give back the places of one that dies', { timeout: 60_000 }, async () => {
    const limits = { clients: 3, clients_per_tenant: 1, queue: { clients: 0 } };
    const router = await RouterProcess.start(cluster.routerOptions.nodes, {
      workers: 2,
      coalesce: false,
      limits,
    });
    onTestFinished(async () => void (await router.stop()));
    const limited = { dsn: () => `postgres://app@127.0.0.1:${router.port}/app` };
    const clients = await Promise.all([1, 2].map(() => connectClient(limited)));
    const acme = await connectClient(limited, ofTenant('acme'));
    const refused = () =>
      connectClient(limited, ofTenant('acme')).then(
        () => 'in',
        (error: pg.DatabaseError) => error.message,
      );
    expect(await refused()).toBe('too many connections for tenant "acme"');
    await acme.end();
    await expect.poll(() => refused().then((told) => told === 'in')).toBe(true);
    // Without merging, clients are spread: each of the workers has one of these.
    const gone = clients.map((client) => new Promise<void>((resolve) => client.on('end', () => resolve())));
    process.kill(router.workerPids[0]!, 'SIGKILL');
    await Promise.race(gone);
    const next: pg.Client[] = [];
    await expect
      .poll(
        () =>
          connectClient(limited).then(
            (client) => next.push(client),
            () => next.length,
          ),
        { timeout: 20_000 },
      )
      .toBeGreaterThan(0);
  });
});

describe('statements', () => {
  it('of a tenant with many waiting delay another’s by no more than their share', async () => {
    const limited = await routerWith({}, { connectionsPerNode: 2, coalesce: false });
    const crowd = await Promise.all(
      Array.from({ length: 20 }, () => connectClient(limited, ofTenant('acme'))),
    );
    const other = await connectClient(limited, ofTenant('other'));
    let served = 0;
    let isOver = false;
    const work = crowd.map(async (client) => {
      while (!isOver) {
        await client.query('BEGIN; SELECT pg_sleep(0.01); COMMIT');
        served++;
      }
    });
    await expect.poll(() => served).toBeGreaterThan(20);
    const worst: number[] = [];
    for (let i = 0; i < 5; i++) {
      const before = served;
      await other.query('SELECT 1');
      worst.push(served - before);
    }
    isOver = true;
    await Promise.all(work);
    // Of 18 that wait, those two that are at it go first, and perhaps as many that end in the same moment.
    expect(Math.max(...worst)).toBeLessThanOrEqual(6);
  });

  it('find connections while another tenant’s transactions would have all of them', async () => {
    const limited = await routerWith({}, { connectionsPerNode: 4 });
    const other = await connectClient(limited, ofTenant('other'));
    const crowd = await Promise.all(
      Array.from({ length: 6 }, () => connectClient(limited, ofTenant('acme'))),
    );
    await crowd[0]!.query('SELECT 1');
    await other.query('SELECT 1');
    const begun = crowd.map((client) => client.query('BEGIN; SELECT 1'));
    const watch = await connectClient(cluster, {}, 'postgres');
    const idle = `SELECT count(*)::int FROM pg_stat_activity WHERE state LIKE 'idle in tr%' AND usename = 'app'`;
    await expect.poll(() => value(watch, idle)).toBe(3);
    // None of those is ended meanwhile.
    for (let i = 0; i < 5; i++) await other.query('BEGIN; SELECT 1; COMMIT');
    expect(await value(watch, idle)).toBe(3);
    await Promise.all(begun.map((each, i) => each.then(() => crowd[i]!.query('COMMIT'))));
  });

  it('of one role, and of one tenant, hold no more backends than they may', async () => {
    const limited = await routerWith({ backends: { perRole: 2, perTenant: 1 } }, { connectionsPerNode: 6 });
    const idle = `SELECT count(*)::int FROM pg_stat_activity WHERE state LIKE 'idle in tr%' AND usename = $1`;
    const held = await Promise.all(Array.from({ length: 3 }, () => connectClient(limited, {}, 'web')));
    const begun = held.map((client) => client.query('BEGIN; SELECT 1'));
    const watch = await connectClient(cluster, {}, 'postgres');
    await Promise.race([
      Promise.all(begun.slice(0, 2)),
      Promise.all(begun.slice(1)),
      Promise.all([begun[0], begun[2]]),
    ]);
    expect(await value(watch, idle, ['web'])).toBe(2);
    // Others are served meanwhile.
    const acme = await Promise.all([1, 2].map(() => connectClient(limited, ofTenant('acme'))));
    const theirs = acme.map((client) => client.query('BEGIN; SELECT 1').then(() => client));
    const first = await Promise.race(theirs);
    expect(await value(watch, idle, ['app'])).toBe(1);
    await first.query('COMMIT');
    await Promise.all(theirs);
    await acme.find((client) => client !== first)!.query('COMMIT');
    for (const client of held) void client.query('COMMIT').catch(() => {});
    await Promise.all(begun);
  });
});

describe('a crowd that does not log in', () => {
  it('keeps no honest client out, and costs little', { timeout: 60_000 }, async () => {
    const limited = await routerWith({ logins: 200 });
    await connectClient(limited);
    global.gc?.();
    const before = process.memoryUsage().rss;
    const silent: Socket[] = [];
    onTestFinished(() => {
      for (const socket of silent) socket.destroy();
    });
    let ended = 0;
    const honest: Promise<unknown>[] = [];
    for (let i = 0; i < 3_000; i++) {
      const socket = connect({ host: '127.0.0.1', port: limited.port });
      // Some say half a word, and one in ten who it is, but not its password.
      if (i % 2 === 0) socket.write(startUp('app').subarray(0, 5));
      socket.on('error', () => {}).on('close', () => ended++);
      socket.resume();
      silent.push(socket);
      if (i % 300 === 299) {
        honest.push(connectClient(limited).then((client) => value(client, 'SELECT 1')));
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
    expect(await Promise.all(honest)).toEqual(Array(10).fill(1));
    await expect.poll(() => ended, { timeout: 30_000 }).toBeGreaterThanOrEqual(2_800);
    // The sockets of both ends are in this process.
    expect((process.memoryUsage().rss - before) / 3_000).toBeLessThan(40_000);
    expect(await value(await connectClient(limited), 'SELECT 1')).toBe(1);
  });
});

function startUp(user: string): Buffer {
  const body = Buffer.from(`\0\x03\0\0user\0${user}\0database\0app\0\0`, 'latin1');
  const length = Buffer.alloc(4);
  length.writeInt32BE(body.length + 4);
  return Buffer.concat([length, body]);
}

/** When everything that is under way in this process has had a turn. */
async function expectLater<T>(given: T): Promise<T> {
  const probe = await RawClient.connect({ port: cluster.port });
  probe.socket.destroy();
  return given;
}

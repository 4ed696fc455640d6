/**
 * Deadlocks over nodes on real servers: transactions driven by hand, registered as the router registers them, and two detectors as of two
 * routers, each with transactions of its own.
 */
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { AcquireTicket } from '../../src/backend/acquire.ts';
import { NO_CREDENTIAL } from '../../src/backend/credential.ts';
import { ask } from '../../src/backend/internal-query.ts';
import { openBackend } from '../../src/backend/login.ts';
import { NodePool } from '../../src/backend/pool.ts';
import { Settings } from '../../src/backend/settings.ts';
import type { PosternError } from '../../src/base/errors.ts';
import { NO_TLS } from '../../src/pg/dsn-tls.ts';
import { FlushQueue } from '../../src/platform/flush-queue.ts';
import { DeadlockDetector } from '../../src/txn/deadlock-detector.ts';
import { conflict } from '../../src/txn/deadlock-report.ts';
import { registrationText } from '../../src/txn/registration.ts';
import { type DistributedTransactionHandle, DistributedTransactions } from '../../src/txn/registry.ts';
import { isVersionInstalled, startTestServer, type TestServer } from '../support/servers.ts';

const POSSIBLE_MS = 20_000;

let servers: TestServer[];
let routers: TestRouter[];
let pools: Map<number, NodePool>;
let transactions: HandTransaction[];

beforeAll(async () => {
  const old = (await isVersionInstalled(15)) ? 15 : 18;
  servers = await Promise.all(
    [18, old, 18].map((version) =>
      startTestServer({ version: version as 15 | 18, settings: { deadlock_timeout: '2s' } }),
    ),
  );
  for (const server of servers) {
    await server.query('CREATE TABLE rows (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)');
    await server.query('INSERT INTO rows SELECT generate_series(1, 9)');
  }
});
afterAll(() => Promise.all(servers.map((server) => server.stop())));
beforeEach(() => {
  pools = new Map();
  transactions = [];
  routers = [new TestRouter(), new TestRouter()];
});
afterEach(async () => {
  for (const router of routers) await router.detector.stop();
  for (const pool of pools.values()) pool.close();
  await Promise.all(transactions.map((transaction) => transaction.abandon()));
});

class TestRouter {
  readonly transactions = new DistributedTransactions();
  readonly detector = new DeadlockDetector({
    nodes: servers.map((server, i) => ({ id: i + 1, name: `n${i + 1}`, dsn: server.dsn() })),
    transactions: this.transactions,
    pools,
    now: () => performance.now(),
    log: { info: () => {} },
  });

  constructor() {
    this.detector.start();
  }
}

/** A distributed transaction; without a router it is one of a router that has stopped. */
class HandTransaction implements DistributedTransactionHandle {
  waitingSinceMs: number | undefined;
  awaitedPoolNodeId: number | undefined;
  readonly victimOf: PosternError[] = [];
  readonly ticket: AcquireTicket = { giveUp: undefined };
  readonly key: number;
  readonly branches = new Map<number, pg.Client>();
  #cancels: Promise<unknown>[] = [];

  constructor(key: number, router: TestRouter | undefined) {
    this.key = key;
    router?.transactions.begin(key, this);
    transactions.push(this);
  }

  async branch(nodeId: number, registered = true): Promise<pg.Client> {
    const known = this.branches.get(nodeId);
    if (known) return known;
    const client = new pg.Client({ connectionString: servers[nodeId - 1]!.dsn() });
    client.on('error', () => {});
    this.branches.set(nodeId, client);
    await client.connect();
    await client.query('BEGIN');
    if (registered) await client.query(registrationText(this.key));
    return client;
  }

  /** Runs it and waits for the answer, as a client does. */
  async run(nodeId: number, text: string): Promise<void> {
    const client = await this.branch(nodeId);
    this.waitingSinceMs = performance.now();
    try {
      await client.query(text);
    } finally {
      this.waitingSinceMs = undefined;
    }
  }

  lock(nodeId: number, id: number): Promise<void> {
    return this.run(nodeId, `UPDATE rows SET n = n + 1 WHERE id = ${id}`);
  }

  announce(): void {}

  cancelAsVictim(error: PosternError): void {
    this.victimOf.push(error);
    this.ticket.giveUp?.();
    for (const [nodeId, client] of this.branches) {
      const { processID } = client as unknown as { processID: number };
      this.#cancels.push(
        servers[nodeId - 1]!.query(`SELECT pg_cancel_backend(${processID})`).catch(() => {}),
      );
    }
  }

  async finish(text: 'COMMIT' | 'ROLLBACK'): Promise<void> {
    for (const client of this.branches.values()) await client.query(text);
  }

  async abandon(): Promise<void> {
    await Promise.all(this.#cancels);
    await Promise.all([...this.branches.values()].map((client) => client.end().catch(() => {})));
  }
}

const settled = (promise: Promise<void>): Promise<string> =>
  promise.then(
    () => 'done',
    (error: { code?: string; sqlState?: string }) => error.code ?? error.sqlState ?? String(error),
  );

async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const deadlineMs = performance.now() + POSSIBLE_MS;
  while (!(await condition())) {
    if (performance.now() > deadlineMs) throw new Error(`not within ${POSSIBLE_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Each detector has looked at the nodes so many times again. */
async function looksOf(count: number, of = routers): Promise<void> {
  const before = of.map((router) => router.detector.looks);
  await until(() => of.every((router, i) => router.detector.looks >= before[i]! + count), `${count} looks`);
}

const waitersOn = async (nodeId: number): Promise<number> => {
  const [row] = await servers[nodeId - 1]!.query(
    `SELECT count(*)::int AS n FROM pg_locks WHERE NOT granted AND waitstart < clock_timestamp() - interval '100 ms'`,
  );
  return row!.n as number;
};

const victims = (): number[] =>
  transactions.filter((each) => each.victimOf.length > 0).map((each) => each.key);

/** Each holds a row on its own node and asks for that of the next one. */
async function cycle(members: readonly HandTransaction[]): Promise<Promise<string>[]> {
  for (const [i, member] of members.entries()) await member.lock(i + 1, 1);
  return members.map((member, i) => settled(member.lock(((i + 1) % members.length) + 1, 1)));
}

describe('a deadlock over nodes', () => {
  it('of two transactions of two routers: one victim, and the other goes on', async () => {
    const smaller = new HandTransaction(0x8000_0000_0001, routers[0]);
    const greater = new HandTransaction(0xffff_ffff_ffff, routers[1]);
    const answers = await cycle([smaller, greater]);
    expect(await answers[1]).toBe('57014');
    await greater.finish('ROLLBACK');
    expect(await answers[0]).toBe('done');
    await smaller.finish('COMMIT');
    expect(victims()).toEqual([greater.key]);
    expect(greater.victimOf).toHaveLength(1);
    expect(greater.victimOf[0]).toMatchObject({ sqlState: '40P01', message: 'deadlock detected' });
    expect(greater.victimOf[0]!.detail).toBe(
      [
        'Transaction ffffffffffff waits on node "n1" for transaction 800000000001.',
        'Transaction 800000000001 waits on node "n2" for transaction ffffffffffff.',
      ].join('\n'),
    );
    expect(routers.map((router) => router.detector.victims)).toEqual([0, 1]);
  });

  it('of three over three nodes', async () => {
    const members = [7, 9, 8].map((key, i) => new HandTransaction(key, routers[i % 2]));
    const answers = await cycle(members);
    expect(await answers[1]).toBe('57014');
    await members[1]!.finish('ROLLBACK');
    expect(await answers[0]).toBe('done');
    await members[0]!.finish('ROLLBACK');
    expect(await answers[2]).toBe('done');
    expect(victims()).toEqual([9]);
  });

  it('through a transaction of one node alone', async () => {
    const [first, second] = [new HandTransaction(1, routers[0]), new HandTransaction(2, routers[0])];
    const local = new HandTransaction(3, undefined);
    const client = await local.branch(1, false);
    await client.query('UPDATE rows SET n = n WHERE id = 2');
    await first.lock(1, 1);
    await second.lock(2, 1);
    const answers = [
      settled(client.query('UPDATE rows SET n = n WHERE id = 1').then(() => {})),
      settled(first.lock(2, 1)),
      settled(second.lock(1, 2)),
    ];
    expect(await answers[2]).toBe('57014');
    await second.finish('ROLLBACK');
    expect(await answers[1]).toBe('done');
    await first.finish('ROLLBACK');
    expect(await answers[0]).toBe('done');
    expect(victims()).toEqual([2]);
  });

  it('through a prepared transaction: whoever commits is spared, however great', async () => {
    const committing = new HandTransaction(99, routers[0]);
    const other = new HandTransaction(11, routers[1]);
    await committing.lock(1, 1);
    await other.lock(2, 1);
    await committing.run(1, `PREPARE TRANSACTION 'spared'`);
    // Its next PREPARE waits, as one does over a deferred constraint.
    const answers = [settled(committing.lock(2, 1)), settled(other.lock(1, 1))];
    expect(await answers[1]).toBe('57014');
    await other.finish('ROLLBACK');
    expect(await answers[0]).toBe('done');
    await servers[0]!.query(`ROLLBACK PREPARED 'spared'`);
    expect(victims()).toEqual([11]);
    expect(other.victimOf[0]!.detail).toContain('waits on node "n1" for transaction 000000000063');
  });

  it('of two that both commit: one all the same', async () => {
    const members = [new HandTransaction(5, routers[0]), new HandTransaction(6, routers[1])];
    for (const [i, member] of members.entries()) {
      await member.lock(i + 1, 1);
      await member.run(i + 1, `PREPARE TRANSACTION 'both ${i}'`);
    }
    const answers = members.map((member, i) => settled(member.lock(2 - i, 1)));
    expect(await answers[1]).toBe('57014');
    await servers[1]!.query(`ROLLBACK PREPARED 'both 1'`);
    expect(await answers[0]).toBe('done');
    await servers[0]!.query(`ROLLBACK PREPARED 'both 0'`);
    expect(victims()).toEqual([6]);
  });

  it('is found after a restart too, which changes how prepared transactions are told', async () => {
    const committing = new HandTransaction(98, undefined);
    await committing.lock(3, 1);
    await committing.run(3, `PREPARE TRANSACTION 'restarted'`);
    await servers[2]!.restart();
    const other = new HandTransaction(11, routers[1]);
    await other.lock(2, 1);
    const answers = [settled(committing.lock(2, 1)), settled(other.lock(3, 1))];
    expect(await answers[1]).toBe('57014');
    await other.finish('ROLLBACK');
    expect(await answers[0]).toBe('done');
    await servers[2]!.query(`ROLLBACK PREPARED 'restarted'`);
    expect(victims()).toEqual([11]);
  });

  it('whose victim belongs to a router that has stopped is ended by another one', async () => {
    const own = new HandTransaction(1, routers[0]);
    const orphan = new HandTransaction(2, undefined);
    const answers = await cycle([own, orphan]);
    expect(await answers[0]).toBe('57014');
    await own.finish('ROLLBACK');
    expect(await answers[1]).toBe('done');
    expect(victims()).toEqual([1]);
  });

  it.each(['killed', 'frozen'])('is found while another node is %s', async (how) => {
    if (how === 'killed') servers[2]!.kill();
    else process.kill(servers[2]!.pid, 'SIGSTOP');
    try {
      const members = [new HandTransaction(1, routers[0]), new HandTransaction(2, routers[1])];
      const answers = await cycle(members);
      expect(await answers[1]).toBe('57014');
      await members[1]!.finish('ROLLBACK');
      expect(await answers[0]).toBe('done');
    } finally {
      if (how === 'killed') await servers[2]!.restart();
      else process.kill(servers[2]!.pid, 'SIGCONT');
    }
  });
});

describe('a wait in the line of a pool', () => {
  async function poolOf(nodeId: number): Promise<NodePool> {
    const { port } = servers[nodeId - 1]!;
    const address = { nodeId, nodeName: `n${nodeId}`, host: '127.0.0.1', port, tls: NO_TLS };
    const flushQueue = new FlushQueue();
    const pool = new NodePool({
      address,
      connectionsMax: 1,
      now: () => performance.now(),
      open: (user) =>
        openBackend({ address, database: 'postgres', user, credential: NO_CREDENTIAL, flushQueue }),
    });
    pools.set(nodeId, pool);
    return pool;
  }

  /** Two hold the connections of node 2's pool, all that there may be, and `blocker` stands in the line for one. */
  async function line(blocker: HandTransaction): Promise<[Promise<string>, HandTransaction[]]> {
    const pool = await poolOf(2);
    const holders = [8, 9].map((key) => new HandTransaction(key, routers[1]));
    for (const holder of holders) {
      const connection = await pool.acquire('postgres', Settings.none, { beside: true });
      await ask(connection, 'BEGIN');
      await ask(connection, registrationText(holder.key));
    }
    await blocker.lock(1, 1);
    blocker.awaitedPoolNodeId = 2;
    blocker.waitingSinceMs = performance.now();
    const waits = pool.acquire('postgres', Settings.none, { beside: true, ticket: blocker.ticket });
    return [settled(waits.then(() => {})), holders];
  }

  it('that all holders wait for is a deadlock, whose victim is one of this router', async () => {
    const blocker = new HandTransaction(4, routers[0]);
    const [answer, holders] = await line(blocker);
    const others = holders.map((holder) => settled(holder.lock(1, 1)));
    expect(await answer).toBe('57014');
    blocker.waitingSinceMs = undefined;
    await blocker.finish('ROLLBACK');
    expect(await Promise.race(others)).toBe('done');
    expect(victims()).toEqual([4]);
    expect(blocker.victimOf[0]!.detail).toMatch(
      /^Transaction 000000000004 waits for a connection to node "n2", held by transaction 00000000000([89])\.\nTransaction 00000000000\1 waits on node "n1" for transaction 000000000004\.$/,
    );
    for (const holder of holders) holder.cancelAsVictim({} as PosternError);
    await Promise.all(others);
  });

  it('one of whose holders works is none', async () => {
    const blocker = new HandTransaction(4, routers[0]);
    const [answer, holders] = await line(blocker);
    const others = [settled(holders[0]!.lock(1, 1)), settled(holders[1]!.run(1, 'SELECT pg_sleep(60)'))];
    await until(async () => (await waitersOn(1)) === 1, 'one waits');
    await looksOf(4);
    expect(victims()).toEqual([]);
    blocker.ticket.giveUp?.();
    expect(await answer).toBe('57014');
    for (const holder of holders) holder.cancelAsVictim({} as PosternError);
    expect(await Promise.all(others)).toEqual(['57014', '57014']);
  });
});

describe('nobody is canceled', () => {
  it('for waits without a cycle, however long', async () => {
    const [first, second, third] = [1, 2, 3].map((key, i) => new HandTransaction(key, routers[i % 2])) as [
      HandTransaction,
      HandTransaction,
      HandTransaction,
    ];
    await first.lock(1, 1);
    await second.lock(2, 1);
    const answers = [settled(second.lock(1, 1)), settled(third.lock(2, 1))];
    await until(async () => (await waitersOn(1)) + (await waitersOn(2)) === 2, 'both wait');
    await looksOf(4);
    expect(victims()).toEqual([]);
    await first.finish('COMMIT');
    expect(await answers[0]).toBe('done');
    await second.finish('COMMIT');
    expect(await answers[1]).toBe('done');
  });

  it('who waits for a prepared transaction that no router knows', async () => {
    const foreign = new HandTransaction(50, undefined);
    await (await foreign.branch(1, false)).query('UPDATE rows SET n = n WHERE id = 1');
    await (await foreign.branch(1)).query(`PREPARE TRANSACTION 'foreign'`);
    const [first, second] = [new HandTransaction(1, routers[0]), new HandTransaction(2, routers[1])];
    await first.lock(2, 1);
    const answers = [settled(first.lock(1, 1)), settled(second.lock(2, 1))];
    await until(async () => (await waitersOn(1)) + (await waitersOn(2)) === 2, 'both wait');
    await looksOf(4);
    expect(victims()).toEqual([]);
    await servers[0]!.query(`COMMIT PREPARED 'foreign'`);
    expect(await answers[0]).toBe('done');
    await first.finish('COMMIT');
    expect(await answers[1]).toBe('done');
  });

  it('for a deadlock within one node, which PostgreSQL ends', async () => {
    const members = [new HandTransaction(1, routers[0]), new HandTransaction(2, routers[1])];
    for (const member of members) await member.lock(2, member.key);
    await members[0]!.lock(1, 1);
    await members[1]!.lock(1, 2);
    const answers = [settled(members[0]!.lock(1, 2)), settled(members[1]!.lock(1, 1))];
    await looksOf(2);
    expect(await Promise.race(answers)).toBe('40P01');
    expect(victims()).toEqual([]);
    await Promise.all(members.map((member) => member.finish('ROLLBACK')));
    await Promise.all(answers);
  });
});

it('knows which modes of locks conflict, as PostgreSQL does', async () => {
  const modes =
    'ACCESS SHARE,ROW SHARE,ROW EXCLUSIVE,SHARE UPDATE EXCLUSIVE,SHARE,SHARE ROW EXCLUSIVE,EXCLUSIVE,ACCESS EXCLUSIVE';
  const nameOf = (mode: string): string =>
    `${mode.toLowerCase().replace(/(^| )\w/g, (letters) => letters.trim().toUpperCase())}Lock`;
  const [holder, taker] = [0, 1].map(() => new pg.Client({ connectionString: servers[0]!.dsn() })) as [
    pg.Client,
    pg.Client,
  ];
  await holder.connect();
  await taker.connect();
  for (const held of modes.split(',')) {
    await holder.query(`BEGIN; LOCK TABLE rows IN ${held} MODE`);
    for (const wanted of modes.split(',')) {
      const refused = await taker.query(`BEGIN; LOCK TABLE rows IN ${wanted} MODE NOWAIT`).then(
        () => false,
        () => true,
      );
      await taker.query('ROLLBACK');
      expect(conflict(nameOf(held), nameOf(wanted)), `${held}, ${wanted}`).toBe(refused);
    }
    await holder.query('ROLLBACK');
  }
  await Promise.all([holder.end(), taker.end()]);
});

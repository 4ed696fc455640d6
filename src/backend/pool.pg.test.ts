/** Who gets a backend connection when all are taken: over a real server, with two roles. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { startTestServer, type TestServer } from '../../test/support/servers.ts';
import { BOUNDS } from '../base/bounds.ts';
import { NO_TLS } from '../pg/dsn-tls.ts';
import { FlushQueue } from '../platform/flush-queue.ts';
import type { BackendConnection } from './connection.ts';
import { NO_CREDENTIAL } from './credential.ts';
import { ask } from './internal-query.ts';
import { openBackend } from './login.ts';
import { NodePool } from './pool.ts';
import { Settings } from './settings.ts';

const MAX = 2;

let server: TestServer;
let pool: NodePool;
let opened: Record<string, number>;
/** The pool's clock: it goes on when a test says so. */
let nowMs: number;

beforeAll(async () => {
  server = await startTestServer();
  for (const role of ['busy', 'other']) await server.query(`CREATE ROLE ${role} LOGIN`);
  await server.query('CREATE ROLE limited LOGIN CONNECTION LIMIT 1');
});
afterAll(() => server?.stop());
beforeEach(() => {
  opened = { busy: 0, other: 0 };
  nowMs = 1_000;
  const address = { nodeId: 1, nodeName: 'n1', host: '127.0.0.1', port: server.port, tls: NO_TLS };
  const flushQueue = new FlushQueue();
  pool = new NodePool({
    address,
    connectionsMax: MAX,
    now: () => nowMs,
    open: (user) => {
      opened[user]!++;
      return openBackend({ address, database: 'postgres', user, credential: NO_CREDENTIAL, flushQueue });
    },
  });
});
afterEach(() => pool.close());

const acquire = (user: string): Promise<BackendConnection> => pool.acquire(user, Settings.none);

describe('a pool that is full', () => {
  it('gives a connection back to the next of its role', async () => {
    const first = await acquire('busy');
    await acquire('busy');
    const next = acquire('busy');
    pool.release(first);
    expect(await next).toBe(first);
    expect(opened).toEqual({ busy: 2, other: 0 });
  });

  it('does not let a busy role starve another one, and changes roles no more than it must', async () => {
    const held = [await acquire('busy'), await acquire('busy')];
    const other = acquire('other');
    let served: BackendConnection | undefined;
    void other.then((connection) => {
      served = connection;
    });
    // As long as its turn has not come, connections stay with the role that uses them.
    for (let i = 0; i < 10; i++) {
      const next = acquire('busy');
      pool.release(held.shift()!);
      held.push(await next);
    }
    expect(served).toBeUndefined();
    nowMs += 1_000;
    const waiting = [acquire('busy'), acquire('busy')];
    pool.release(held.shift()!);
    expect((await other).user).toBe('other');
    expect(opened).toEqual({ busy: 2, other: 1 });
    // Both have the same number now. Each goes on with its own, however long the other waits.
    nowMs += 1_000;
    for (let i = 0; i < 10; i++) {
      const next = acquire('other');
      pool.release(served!);
      served = await next;
    }
    pool.release(held.shift()!);
    held.push(await waiting[0]!);
    pool.release(held.shift()!);
    held.push(await waiting[1]!);
    expect(opened).toEqual({ busy: 2, other: 1 });
    expect(await ask(held[0]!, 'SELECT current_user')).toEqual([['busy']]);
    expect(await ask(served!, 'SELECT current_user')).toEqual([['other']]);
    expect(pool.size).toBe(MAX);
  });

  it('is used by roles in turn where one of them at a time can have a connection, for a while each', async () => {
    pool.share = 1;
    const order: string[] = [];
    let left = 9;
    const served = async (user: string): Promise<void> => {
      const connection = await acquire(user);
      order.push(connection.user);
      // As long as transactions take here: two go into a turn.
      nowMs += BOUNDS.roleTurnMs / 2;
      pool.release(connection);
      if (--left > 0) await served(user);
    };
    const first = await acquire('busy');
    const all = ['busy', 'busy', 'busy', 'other', 'other', 'other', 'limited', 'limited'].map(served);
    // All have waited for long when the connection comes back.
    nowMs += 1_000;
    pool.release(first);
    await Promise.all(all);
    expect(order.slice(0, 8)).toEqual(['other', 'limited', 'busy', 'other'].flatMap((user) => [user, user]));
  });

  it('leaves to a brief question what was opened for it, whatever role waits for its turn', async () => {
    pool.share = 1;
    const held = await acquire('busy');
    const other = acquire('other');
    const question = pool.acquire('busy', Settings.none, { brief: true });
    // By the time it is open the turn of the other role has come.
    nowMs += 1_000;
    const asked = await question;
    expect(opened).toEqual({ busy: 2, other: 0 });
    pool.release(asked);
    pool.release(held);
    expect((await other).user).toBe('other');
    expect(opened).toEqual({ busy: 2, other: 1 });
  });

  it('closes what is beyond its share, what is lent when it comes back, and opens again when the share grows', async () => {
    const [first, second] = [await acquire('busy'), await acquire('busy')];
    pool.share = 1;
    expect(pool.size).toBe(2);
    const waiting = acquire('busy');
    pool.release(first);
    expect(pool.size).toBe(1);
    pool.release(second);
    expect(await waiting).toBe(second);
    const another = acquire('busy');
    pool.share = 5;
    // No more than the pool was made for.
    expect(pool.share).toBe(MAX);
    expect(await another).not.toBe(second);
    expect(opened).toEqual({ busy: 3, other: 0 });
    pool.release(await another);
    pool.share = 1;
    expect(pool.size).toBe(1);
  });

  it('has more for those who hold one elsewhere, and some more for brief questions, in this order', async () => {
    const none = Settings.none;
    const held = [await acquire('busy'), await acquire('busy')];
    const ordinary = acquire('busy');
    expect(pool.holders).toHaveLength(MAX);
    for (let i = 0; i < MAX; i++) held.push(await pool.acquire('busy', none, { beside: true }));
    const order: string[] = [];
    const note = (name: string) => (connection: BackendConnection) => {
      order.push(name);
      return connection;
    };
    const beside = ['first', 'second'].map((name) =>
      pool.acquire('busy', none, { beside: true }).then(note(name)),
    );
    expect(pool.holders).toHaveLength(2 * MAX);
    const brief: BackendConnection[] = [];
    for (let i = 0; i < BOUNDS.briefConnections; i++)
      brief.push(await pool.acquire('busy', none, { brief: true }));
    const question = pool.acquire('busy', none, { brief: true }).then(note('brief'));
    pool.release(brief[0]!);
    expect(await question).toBe(brief[0]);
    // What is beyond the limit of those who wait now is closed.
    pool.release(brief[0]!);
    pool.release(brief[1]!);
    expect(pool.size).toBe(2 * MAX + BOUNDS.briefConnections - 2);
    pool.release(held[0]!);
    pool.release(held[1]!);
    await Promise.all(beside);
    expect(order).toEqual(['brief', 'first', 'second']);
    for (const connection of [...held.slice(2), ...(await Promise.all(beside))]) pool.release(connection);
    pool.release(await ordinary);
    expect(pool.size).toBeLessThanOrEqual(2 * MAX);
  });

  it('keeps what transactions over several nodes need for such alone, and for a while', async () => {
    const none = Settings.none;
    const ordinary = [await acquire('busy'), await acquire('busy')];
    const beside = () => pool.acquire('busy', none, { beside: true });
    for (const connection of [await beside(), await beside()]) pool.release(connection);
    expect(opened).toEqual({ busy: 2 * MAX, other: 0 });
    expect(pool.tryAcquire('busy', none)).toBeUndefined();
    const again = pool.tryAcquire('busy', none, { beside: true });
    expect(again).toBeDefined();
    // Three are lent, one more than those who hold none elsewhere may have: they wait for two to come back.
    const waiting = acquire('busy');
    pool.release(again!);
    expect(pool.waiting).toBe(1);
    pool.discard(ordinary[0]!);
    // One that was kept will do.
    const served = await waiting;
    expect(opened).toEqual({ busy: 2 * MAX, other: 0 });
    nowMs += BOUNDS.besideIdleMs;
    pool.release(served);
    pool.release(ordinary[1]!);
    expect(pool.size).toBeLessThanOrEqual(MAX);
  });

  it('opens no more than there are that wait', async () => {
    const held = [await acquire('busy'), await acquire('busy')];
    const other = acquire('other');
    const waiting = [acquire('busy'), acquire('busy')];
    nowMs += 1_000;
    for (const connection of held) pool.release(connection);
    expect(await waiting[0]).toBe(held[1]);
    await other;
    expect(opened).toEqual({ busy: 2, other: 1 });
    pool.release(held[1]!);
    expect(await waiting[1]).toBe(held[1]);
  });

  it('goes on with a role that cannot log in', async () => {
    const held = await acquire('busy');
    await acquire('busy');
    opened.nobody = 0;
    const nobody = acquire('nobody');
    const waiting = acquire('busy');
    nowMs += 1_000;
    pool.release(held);
    await expect(nobody).rejects.toThrow(/nobody/);
    expect((await waiting).user).toBe('busy');
  });

  it('lets a role wait for its own connections when the server takes no more of it', async () => {
    opened.limited = 0;
    const held = await acquire('limited');
    const waiting = [acquire('limited')];
    // The server has refused one; who comes right behind waits as well, and the server isn't asked for each.
    await expect.poll(() => opened.limited).toBe(2);
    await expect.poll(() => pool.size).toBe(1);
    for (let i = 0; i < 3; i++) waiting.push(acquire('limited'));
    for (const next of waiting) {
      pool.release(held);
      expect(await next).toBe(held);
    }
    expect(opened.limited).toBe(2);
  });
});

/**
 * The second branch of a transaction, begun and registered in the write of the statement that it is for, as all but the
 * first on a connection are (session/branches.ts): what is on the servers, and what fails.
 */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IS_REGISTRATION } from '../../src/txn/registration.ts';
import { type Message, RawClient, run } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';

const S: Message = ['sync'];
const LOCK = 'FUNCTION pg_advisory_xact_lock_shared(int, int)';

let cluster: TestCluster;
let client: RawClient;
/** As a superuser, in the database of the cluster. */
let admins: pg.Client[];
/** One key of each node. */
let keys: string[];

beforeAll(async () => {
  cluster = await startTestCluster({ settings: { max_prepared_transactions: '10' } });
  client = await RawClient.connect({ port: cluster.port });
  await client.query(
    "CREATE TABLE k (id int8 PRIMARY KEY, n int) WITH (postern.door = 'sharded', postern.key = 'id')",
  );
  for (let id = 1; id <= 20; id++) await client.query(`INSERT INTO k VALUES (${id}, 0)`);
  admins = cluster.servers.map(
    (server) => new pg.Client({ connectionString: server.dsn({ database: 'app' }) }),
  );
  await Promise.all(admins.map((admin) => admin.connect()));
  keys = await Promise.all(
    admins.map(async (admin) => {
      const { rows } = await admin.query('SELECT leaf::text FROM postern_internal.local_leaves');
      const texts = rows.map(({ leaf }) => `SELECT id FROM ${leaf}`);
      return (await admin.query(`${texts.join(' UNION ALL ')} ORDER BY id LIMIT 1`)).rows[0].id;
    }),
  );
  // From here on the backends are known to be READ COMMITTED.
  for (const order of [keys, [...keys].reverse()]) await play(transaction(order.map(update)));
}, 60_000);
afterAll(async () => {
  client?.end();
  await Promise.all((admins ?? []).map((admin) => admin.end()));
  await cluster?.stop();
});

const update = (id: string) => `UPDATE k SET n = n + 1 WHERE id = ${id}`;

function transaction(texts: readonly string[], end = 'COMMIT'): Message[] {
  return ['BEGIN', ...texts, end].map((text): Message => ['query', text]);
}

/** All in one write; the lines up to the last ReadyForQuery. */
function play(messages: readonly Message[]): Promise<string[]> {
  return client.exchange(messages, messages.filter(([kind]) => kind === 'query' || kind === 'sync').length);
}

async function registrations(node: number): Promise<number> {
  const text = `SELECT FROM pg_locks l WHERE ${IS_REGISTRATION}`;
  return (await admins[node]!.query(text)).rows.length;
}

async function values(): Promise<string[]> {
  const rows: string[] = [];
  for (const id of keys) rows.push((await client.query(`SELECT n FROM k WHERE id = ${id}`))[1]!);
  return rows;
}

describe('a branch that is begun ahead', () => {
  it.each([
    [0, 1],
    [1, 0],
  ])('is registered before its statement (node %i, then node %i)', async (first, second) => {
    await play(transaction([update(keys[first]!), update(keys[second]!)], 'SELECT 1'));
    expect(await registrations(second)).toBe(1);
    expect(await client.query('COMMIT')).toEqual(['Complete COMMIT', 'Ready I']);
    expect([await registrations(0), await registrations(1)]).toEqual([0, 0]);
  });

  it('is on the way back to a branch that was not registered', async () => {
    await play(transaction([update(keys[0]!), update(keys[1]!), update(keys[0]!)], 'SELECT 1'));
    expect([await registrations(0), await registrations(1)]).toEqual([1, 1]);
    expect(await client.query('ROLLBACK')).toEqual(['Complete ROLLBACK', 'Ready I']);
  });

  it('is found as registered on both nodes once it waits', async () => {
    const [first, second] = keys as [string, string];
    const leaf = (await admins[1]!.query('SELECT leaf::text FROM postern_internal.local_leaves')).rows;
    await admins[1]!.query(`BEGIN; LOCK TABLE ${leaf.map((row) => row.leaf).join()} IN EXCLUSIVE MODE`);
    const waiting = play(transaction([update(first), update(second)]));
    await expect.poll(() => registrations(0), { timeout: 5_000 }).toBe(1);
    await admins[1]!.query('ROLLBACK');
    expect((await waiting).slice(-2)).toEqual(['Complete COMMIT', 'Ready I']);
  });

  const failing: Record<string, () => Message[]> = {
    'in the simple protocol': () => [['query', update(keys[1]!)]],
    'in the extended protocol': () => [...run(update(keys[1]!)), S],
  };
  for (const [name, statement] of Object.entries(failing)) {
    it(`fails with its statement, ${name}`, async () => {
      const before = await values();
      await admins[1]!.query(`REVOKE EXECUTE ON ${LOCK} FROM PUBLIC`);
      try {
        const lines = await play([['query', 'BEGIN'], ['query', update(keys[0]!)], ...statement()]);
        expect(lines.slice(-2)).toEqual([expect.stringMatching(/^Error ERROR C=42501/), 'Ready E']);
        expect(await client.query('SELECT 1')).toEqual([expect.stringContaining('C=25P02'), 'Ready E']);
        expect(await client.query('COMMIT')).toEqual(['Complete ROLLBACK', 'Ready I']);
      } finally {
        await admins[1]!.query(`GRANT EXECUTE ON ${LOCK} TO PUBLIC`);
      }
      expect(await values()).toEqual(before);
      const lines = await play(transaction(keys.map(update)));
      expect(lines.slice(-2)).toEqual(['Complete COMMIT', 'Ready I']);
    });
  }

  it('is not trusted to be READ COMMITTED under other settings', async () => {
    await client.query('SET default_transaction_isolation = serializable');
    const lines = await play(transaction(keys.map(update)));
    expect(lines.some((line) => line.includes('C=0A000'))).toBe(true);
    await client.query('RESET default_transaction_isolation');
  });
});

/**
 * What a client is told when something goes wrong in the middle of its COMMIT over two nodes, by every kind of session and in
 * both protocols: a backend ended, a cancel, a client that goes away, before each effect of the commit. Each answer has to be
 * true, nothing may be left, and the session has to go on.
 */
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { type Router, startRouter } from '../../src/cli/router.ts';
import { type Message, RawClient, run, sendCancel } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';

const S: Message = ['sync'];
const q = (text: string): Message => ['query', text];

let cluster: TestCluster;
let router: Router;
let admins: pg.Client[] = [];
/** A key on home, and one on the other node. */
const keys: number[] = [];
let onEffect: ((name: string, nodeId: number) => Promise<void> | void) | undefined;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 2, settings: { max_prepared_transactions: '4' } });
  router = await startRouter({
    ...cluster.routerOptions,
    connectionsPerNode: 4,
    transactions: { faults: { beforeEffect: (name, nodeId) => onEffect?.(name, nodeId) } },
  });
  admins = await Promise.all(
    cluster.servers.map(async (server) => {
      const admin = new pg.Client({ connectionString: server.dsn({ database: 'app' }) });
      await admin.connect();
      return admin;
    }),
  );
  const client = await RawClient.connect({ port: cluster.port });
  await client.query(
    "CREATE TABLE k (id int8 PRIMARY KEY, n int) WITH (postern.door = 'sharded', postern.key = 'id')",
  );
  for (let id = 0; id < 16; id++) await client.query(`INSERT INTO k VALUES (${id}, 0)`);
  client.end();
  for (const admin of admins) {
    const { rows } = await admin.query(
      "SELECT relname FROM pg_class WHERE relname ~ '^k_b' AND relkind = 'r'",
    );
    const found = await admin.query(
      rows.map(({ relname }) => `SELECT id FROM postern_leaves."${relname}"`).join(' UNION ALL '),
    );
    keys.push(Number(found.rows[0].id));
  }
}, 60_000);

afterAll(async () => {
  for (const admin of admins) await admin.end();
  await router?.close();
  await cluster?.stop();
});

beforeEach(async () => {
  onEffect = undefined;
  const client = await RawClient.connect({ port: router.port });
  for (const key of keys) await client.query(`UPDATE k SET n = 0 WHERE id = ${key}`);
  client.end();
});

const add = (at: number): string => `UPDATE k SET n = n + 1 WHERE id = ${keys[at]}`;

async function values(): Promise<string> {
  const client = await RawClient.connect({ port: router.port });
  const lines: string[] = [];
  for (const key of keys) lines.push(...(await client.query(`SELECT n FROM k WHERE id = ${key}`)));
  client.end();
  return lines
    .filter((line) => line.startsWith('Row'))
    .map((line) => line.slice(4))
    .join();
}

async function nothingIsLeft(): Promise<void> {
  await vi.waitFor(
    async () => {
      for (const admin of admins) {
        const { rows } = await admin.query(
          `SELECT 'prepared ' || gid AS what FROM pg_prepared_xacts UNION ALL
           SELECT state || ' ' || query FROM pg_stat_activity
             WHERE usename = 'app' AND backend_type = 'client backend' AND state <> 'idle'`,
        );
        expect(rows).toEqual([]);
      }
    },
    { timeout: 20_000, interval: 50 },
  );
}

/** Ends all that clients have on this node, in a transaction or not. */
async function endBackends(at: number): Promise<number> {
  const { rows } = await admins[at]!.query(
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'app' AND backend_type = 'client backend'",
  );
  return rows.length;
}

const sessions: Record<string, readonly Message[]> = {
  plain: [],
  pinned: [q('CREATE TEMP TABLE tt (a int)')],
};
const commits: Record<string, () => { begin: Message[]; commit: Message[] }> = {
  'simple protocol': () => ({ begin: [q('BEGIN'), q(add(0)), q(add(1))], commit: [q('COMMIT')] }),
  'extended protocol': () => ({
    begin: [...run('BEGIN'), ...run(add(0)), ...run(add(1)), S],
    commit: [...run('COMMIT'), S],
  }),
  'an implicit transaction': () => ({ begin: [...run(add(0)), ...run(add(1))], commit: [S] }),
};

const EFFECTS = ['prepare', 'decide', 'commitPrepared', 'answer'];

describe.each(Object.keys(sessions))('in a session that is %s', (session) => {
  describe.each(Object.keys(commits))('a COMMIT by %s', (kind) => {
    for (const effect of EFFECTS) {
      for (const at of [0, 1]) {
        it(`tells the truth when node ${at} loses its backend before "${effect}"`, async () => {
          const client = await RawClient.connect({ port: router.port });
          await client.play(sessions[session]!);
          const { begin, commit } = commits[kind]!();
          let ended = -1;
          onEffect = async (name) => {
            if (name !== effect || ended >= 0) return;
            ended = 0;
            ended = await endBackends(at);
          };
          const readyCount = [...begin, ...commit].filter(([kind]) => kind === 'query' || kind === 'sync');
          const lines = await client
            .exchange([...begin, ...commit], readyCount.length)
            .catch((error: Error) => [`Error ${error.message}`]);
          onEffect = undefined;
          expect(ended).toBeGreaterThanOrEqual(0);
          const found = await values();
          const errors = lines.filter((line) => line.startsWith('Error'));
          // An answer that says "not committed" and one that says "committed" are both told apart from the facts.
          expect(['0,0', '1,1']).toContain(found);
          const first = errors[0];
          if (found === '1,1') expect(first ?? '').not.toMatch(/C=(08006|40|25)/);
          else expect(first ?? 'no error').toMatch(/C=(08006|40001|57P01)/);
          // A session that has lost nothing goes on; for one that has, its end is told as an end, and not as a rollback.
          const next = await client
            .query('SELECT 1')
            .catch((error: Error) => [`Error ${error.message}`])
            .then((answer) => answer.filter((line) => line.startsWith('Error')));
          if (session === 'pinned' && at === 0) expect(next[0]).toMatch(/FATAL C=57P01|connection ended/);
          else if (next.length > 0) expect(next[0]).toMatch(/C=08006/);
          client.end();
          await nothingIsLeft();
        });
      }
      it(`is all or nothing when its client goes away before "${effect}"`, async () => {
        const client = await RawClient.connect({ port: router.port });
        await client.play(sessions[session]!);
        const { begin, commit } = commits[kind]!();
        const gone = new Promise<void>((resolve) => {
          onEffect = async (name) => {
            if (name !== effect) return;
            client.socket.destroy();
            await vi.waitFor(() => expect(router.clientCount).toBe(0));
            resolve();
          };
        });
        client.send(...begin, ...commit);
        await gone;
        onEffect = undefined;
        await nothingIsLeft();
        expect(['0,0', '1,1']).toContain(await values());
      });
      it(`tells the truth when it is canceled before "${effect}"`, async () => {
        const client = await RawClient.connect({ port: router.port });
        await client.play(sessions[session]!);
        const { begin, commit } = commits[kind]!();
        onEffect = async (name) => {
          if (name === effect) await sendCancel(router.port, client.processId, client.secretKey);
        };
        client.send(...begin, ...commit, q('SELECT 1'));
        const lines = await client.readUntil(/^Complete SELECT 1$|FATAL/);
        onEffect = undefined;
        expect(lines.filter((line) => line.startsWith('Error'))).toEqual([]);
        expect(await values()).toBe('1,1');
        client.end();
        await nothingIsLeft();
      });
    }
  });
});

/** DDL inside a client's transaction over real servers: as migration tools send it, undone and committed with all else. */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { startRouter } from '../../src/cli/router.ts';
import { sendCancel } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient, value, values } from '../support/router-clients.ts';
import type { TestServer } from '../support/servers.ts';

let cluster: TestCluster;
beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 2, settings: { max_prepared_transactions: '20' } });
});
afterAll(() => cluster.stop());

/** On a node itself, in the database that the router uses. */
async function onApp(server: TestServer, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: server.dsn({ database: 'app' }) });
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

/** Somebody waits for a lock on one of the nodes. */
async function waitForLock(): Promise<void> {
  const text = 'SELECT pid FROM pg_locks WHERE NOT granted';
  await expect
    .poll(async () => (await Promise.all(cluster.servers.map((server) => onApp(server, text)))).flat())
    .not.toEqual([]);
}

/** What there is of a table, on each node: its own relation, leaves, records. */
async function traces(name: string): Promise<string[]> {
  const found = await Promise.all(
    cluster.servers.map(async (server) => {
      const rows = await onApp(
        server,
        `SELECT c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname IN ('public', 'postern_leaves') AND c.relkind IN ('r', 'p') AND c.relname ~ '^${name}(_b\\d+_g\\d+)?$'
         UNION ALL SELECT 'record' FROM postern_internal.local_tables WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = face)
         UNION ALL SELECT 'prepared ' || gid FROM pg_prepared_xacts`,
      );
      return rows.map((row) => String(row.name));
    }),
  );
  return found.flat();
}

describe('a migration in one transaction', () => {
  test('CREATE TABLE with a door, index, rows; then it is there for others', async () => {
    const client = await connectClient(cluster);
    await client.query('BEGIN');
    await client.query(
      `CREATE TABLE m1 (id bigserial, tenant bigint NOT NULL, n int, PRIMARY KEY (tenant, id))
       WITH (postern.door = 'sharded', postern.key = 'tenant', postern.buckets = 4)`,
    );
    for (let tenant = 1; tenant <= 6; tenant++)
      await client.query('INSERT INTO m1 (tenant, n) VALUES ($1, $2)', [tenant, tenant]);
    expect(await value(client, 'SELECT count(*)::int FROM m1')).toBe(6);
    const other = await connectClient(cluster);
    expect(await value(other, 'SELECT count(*) FROM m1')).toBe('!42P01');
    await client.query('COMMIT');
    expect(await value(client, 'SELECT sum(n)::int FROM m1')).toBe(21);
    expect(await value(other, 'SELECT n FROM m1 WHERE tenant = 3')).toBe(3);
    await other.query('INSERT INTO m1 (tenant, n) VALUES (3, 4)');
    expect(await values(other, 'SELECT id IS NOT NULL FROM m1 WHERE tenant = 3')).toEqual([[true], [true]]);
  });

  test('ROLLBACK leaves nothing on any node', async () => {
    const client = await connectClient(cluster);
    await client.query('BEGIN');
    await client.query(
      `CREATE TABLE m2 (id bigint PRIMARY KEY, n int) WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = 4)`,
    );
    await client.query('INSERT INTO m2 VALUES (1, 1), (2, 2), (3, 3)');
    await client.query('ROLLBACK');
    expect(await value(client, 'SELECT count(*) FROM m2')).toBe('!42P01');
    expect(await traces('m2')).toEqual([]);
    await client.query('CREATE TABLE m2 (id int)');
    await client.query('DROP TABLE m2');
  });

  test('ROLLBACK TO a savepoint takes the table back, and the transaction goes on', async () => {
    const client = await connectClient(cluster);
    await client.query('BEGIN');
    await client.query(
      `CREATE TABLE m3 (id bigserial PRIMARY KEY, n int) WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = 4)`,
    );
    await client.query('INSERT INTO m3 (n) VALUES (1)');
    await client.query('SAVEPOINT s');
    await client.query('DROP TABLE m3');
    expect(await value(client, 'SELECT count(*) FROM m3')).toBe('!42P01');
    await client.query('ROLLBACK TO s');
    expect(await value(client, 'SELECT count(*)::int FROM m3')).toBe(1);
    await client.query('INSERT INTO m3 (n) VALUES (2), (3)');
    await client.query(
      `CREATE TABLE m3_other (id bigint PRIMARY KEY) WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = 4)`,
    );
    await client.query('ROLLBACK TO s');
    await client.query('INSERT INTO m3 (n) VALUES (4)');
    await client.query('COMMIT');
    const other = await connectClient(cluster);
    expect(await values(other, 'SELECT n FROM m3 ORDER BY n')).toEqual([[1], [4]]);
    expect(await traces('m3_other')).toEqual([]);
    await client.query('BEGIN');
    await client.query('DROP TABLE m3');
    await client.query('COMMIT');
    expect(await traces('m3')).toEqual([]);
    expect(await value(other, 'SELECT 1 FROM m3')).toBe('!42P01');
  });

  test('CREATE TABLE, create_distributed_table and create_reference_table of it, as Citus has it', async () => {
    const client = await connectClient(cluster);
    await client.query('BEGIN');
    await client.query(
      'CREATE TABLE m4 (id bigserial, tenant int NOT NULL, name text, PRIMARY KEY (tenant, id))',
    );
    await client.query('CREATE TABLE m4_colors (code text PRIMARY KEY, n serial)');
    await client.query("SELECT create_reference_table('m4_colors')");
    await client.query("SELECT create_distributed_table('m4', 'tenant')");
    await client.query("INSERT INTO m4_colors VALUES ('red'), ('blue')");
    await client.query(
      "INSERT INTO m4 (tenant, name) SELECT g, code FROM generate_series(1, 4) g, (VALUES ('red')) v (code)",
    );
    await client.query('COMMIT');
    const other = await connectClient(cluster);
    expect(await value(other, 'SELECT count(*)::int FROM m4')).toBe(4);
    expect(await value(other, 'SELECT count(*)::int FROM m4_colors')).toBe(2);
    expect(await value(other, 'SELECT name FROM m4 WHERE tenant = 2')).toBe('red');
    for (const server of cluster.servers)
      expect(await onApp(server, 'SELECT code FROM m4_colors')).toHaveLength(2);
  });

  test('in one query string, and in the extended protocol', async () => {
    const client = await connectClient(cluster);
    await client.query(`CREATE TABLE m5 (id bigint PRIMARY KEY, n int)
        WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = 4);
      INSERT INTO m5 VALUES (1, 1); INSERT INTO m5 VALUES (2, 2)`);
    expect(await value(client, 'SELECT sum(n)::int FROM m5')).toBe(3);
    await expect(
      client.query(
        `CREATE TABLE m6 (id bigint PRIMARY KEY) WITH (postern.door = 'sharded', postern.key = 'id'); SELECT 1 / 0`,
      ),
    ).rejects.toThrow('division by zero');
    expect(await traces('m6')).toEqual([]);
    const extended = (text: string) => client.query({ text, values: [], queryMode: 'extended' } as never);
    await extended('BEGIN');
    await extended(
      `CREATE TABLE m6 (id bigint PRIMARY KEY) WITH (postern.door = 'sharded', postern.key = 'id')`,
    );
    await extended('INSERT INTO m6 VALUES (7)');
    await extended('COMMIT');
    await extended('CREATE INDEX CONCURRENTLY m6_id ON m6 (id)');
    await extended('ALTER TABLE m6 ADD COLUMN n int DEFAULT 4');
    expect(await value(client, 'SELECT n FROM m6 WHERE id = 7')).toBe(4);
    expect(await value(client, 'SELECT id FROM m6 WHERE id = 7')).toBe('7');
  });
});

test('TRUNCATE and GRANT: all nodes or none, in a transaction too', async () => {
  const client = await connectClient(cluster);
  const options = `WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = 4)`;
  await client.query(`CREATE TABLE t1 (id bigint PRIMARY KEY) ${options}`);
  await client.query('INSERT INTO t1 SELECT generate_series(1, 8)');
  await client.query('BEGIN');
  await client.query('TRUNCATE t1');
  expect(await value(client, 'SELECT count(*)::int FROM t1')).toBe(0);
  await client.query('GRANT SELECT ON t1 TO PUBLIC');
  await client.query('ROLLBACK');
  expect(await value(client, 'SELECT count(*)::int FROM t1')).toBe(8);
  const granted = `SELECT c.relname FROM pg_class c WHERE c.relname ~ '^t1_b' AND c.relkind = 'r'
    AND EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee = 0)`;
  const leaves = async () =>
    (await Promise.all(cluster.servers.map((server) => onApp(server, granted)))).map((rows) => rows.length);
  expect(await leaves()).toEqual([0, 0]);
  await client.query('GRANT SELECT ON t1 TO PUBLIC');
  expect(await leaves()).toEqual([2, 2]);
  await client.query('TRUNCATE t1');
  expect(await value(client, 'SELECT count(*)::int FROM t1')).toBe(0);
});

describe('foreign keys between tables of one key', () => {
  test('tables that reference one another are sharded one after the other, as migrations make them', async () => {
    const client = await connectClient(cluster);
    await client.query('BEGIN');
    await client.query('CREATE TABLE f_users (id bigserial PRIMARY KEY, name text)');
    await client.query(
      `CREATE TABLE f_posts (id bigserial, user_id bigint NOT NULL REFERENCES f_users ON DELETE CASCADE, PRIMARY KEY (user_id, id))`,
    );
    await client.query("SELECT create_distributed_table('f_users', 'id')");
    await client.query("SELECT create_distributed_table('f_posts', 'user_id')");
    await client.query("INSERT INTO f_users (name) VALUES ('a'), ('b'), ('c')");
    await client.query('INSERT INTO f_posts (user_id) SELECT id FROM f_users');
    await client.query('COMMIT');
    expect(await value(client, 'INSERT INTO f_posts (user_id) VALUES (-1)')).toBe('!23503');
    await client.query("DELETE FROM f_users WHERE name = 'b'");
    expect(await value(client, 'SELECT count(*)::int FROM f_posts')).toBe(2);
    expect(await value(client, 'DROP TABLE f_users')).toBe('!2BP01');
    await client.query('DROP TABLE f_posts');
    await client.query('DROP TABLE f_users');
  });

  test.each([
    ['without the key', 'id bigint PRIMARY KEY, a bigint, FOREIGN KEY (a) REFERENCES g_parent', 4],
    ['crosswise', 'id bigint PRIMARY KEY, a bigint, FOREIGN KEY (id, a) REFERENCES g_pair (a, id)', 4],
    ['not colocated', 'id bigint PRIMARY KEY REFERENCES g_parent', 8],
  ])('refused: %s', async (_, columns, buckets) => {
    const client = await connectClient(cluster);
    const options = (count: number) =>
      `WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = ${count})`;
    await client.query(`CREATE TABLE IF NOT EXISTS g_parent (id bigint PRIMARY KEY) ${options(4)}`);
    await client.query(
      `CREATE TABLE IF NOT EXISTS g_pair (id bigint, a bigint, PRIMARY KEY (a, id)) ${options(4)}`,
    );
    expect(await value(client, `CREATE TABLE g_child (${columns}) ${options(buckets)}`)).toBe('!0A000');
    expect(await traces('g_child')).toEqual([]);
  });
});

describe('others at work', () => {
  const SHARDED = `(id bigint PRIMARY KEY, n int) WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = 4)`;

  test('DDL waits for a long transaction with retries, and others go on meanwhile', async () => {
    const [holder, changer, reader] = await Promise.all([1, 2, 3].map(() => connectClient(cluster)));
    await holder!.query(`CREATE TABLE w1 ${SHARDED}`);
    await holder!.query('INSERT INTO w1 SELECT g, g FROM generate_series(1, 8) g');
    await holder!.query('BEGIN');
    await holder!.query('UPDATE w1 SET n = 0 WHERE id = 1');
    let isDone = false;
    const changed = changer!.query('ALTER TABLE w1 ADD COLUMN added int DEFAULT 3').then(() => {
      isDone = true;
    });
    // Longer than one attempt: what queues up behind it is let through between two of them.
    const until = performance.now() + 3_000;
    let reads = 0;
    while (performance.now() < until) {
      expect(await value(reader!, 'SELECT count(*)::int FROM w1')).toBe(8);
      reads++;
    }
    expect(isDone).toBe(false);
    expect(reads).toBeGreaterThan(1);
    await holder!.query('COMMIT');
    await changed;
    expect(await value(reader!, 'SELECT sum(added)::int FROM w1')).toBe(24);
  });

  test("a client's own lock_timeout ends the waiting, with the name of who is in the way", async () => {
    const [holder, changer] = await Promise.all([1, 2].map(() => connectClient(cluster)));
    await holder!.query(`CREATE TABLE w2 ${SHARDED}`);
    await holder!.query('BEGIN');
    await holder!.query('INSERT INTO w2 VALUES (1, 1)');
    await changer!.query("SET lock_timeout = '1500ms'");
    await changer!.query('BEGIN');
    const error = await changer!
      .query('ALTER TABLE w2 ADD COLUMN added int')
      .catch((e: pg.DatabaseError) => e);
    expect(error).toMatchObject({
      code: '55P03',
      hint: expect.stringMatching(/It waited for process \d+ of role app/),
    });
    await changer!.query('ROLLBACK');
    expect(await value(changer!, 'SHOW lock_timeout')).toBe('1500ms');
    await holder!.query('COMMIT');
    await changer!.query('ALTER TABLE w2 ADD COLUMN added int');
  });

  test('a cancel ends the waiting', async () => {
    const [holder, changer] = await Promise.all([1, 2].map(() => connectClient(cluster)));
    await holder!.query(`CREATE TABLE w3 ${SHARDED}`);
    await holder!.query('BEGIN');
    await holder!.query('INSERT INTO w3 VALUES (1, 1)');
    const failed = changer!
      .query('ALTER TABLE w3 ADD COLUMN added int')
      .catch((e: pg.DatabaseError) => e.code);
    await waitForLock();
    const { processID, secretKey } = changer as unknown as { processID: number; secretKey: number };
    await sendCancel(cluster.port, processID, secretKey);
    expect(await failed).toBe('57014');
    await holder!.query('COMMIT');
    expect(await value(changer!, 'SELECT count(*)::int FROM w3')).toBe(1);
  });

  test('search_path and settings of the client are its own after DDL, inside and after the transaction', async () => {
    const client = await connectClient(cluster);
    await client.query('CREATE SCHEMA IF NOT EXISTS elsewhere');
    await client.query('SET search_path = elsewhere, public');
    await client.query('BEGIN');
    await client.query("SET LOCAL lock_timeout = '7s'");
    await client.query(`CREATE TABLE w4 ${SHARDED}`);
    expect(await value(client, 'SHOW search_path')).toBe('elsewhere, public');
    expect(await value(client, 'SHOW lock_timeout')).toBe('7s');
    await client.query('INSERT INTO w4 VALUES (1, 2)');
    await client.query('COMMIT');
    expect(await value(client, 'SHOW search_path')).toBe('elsewhere, public');
    expect(await value(client, 'SHOW lock_timeout')).toBe('0');
    expect(await value(client, 'SELECT n FROM elsewhere.w4 WHERE id = 1')).toBe(2);
  });

  test('writes through another router during and after DDL: each is done, or told to try again', async () => {
    const second = await startRouter(cluster.routerOptions);
    onTestFinished(() => second.close());
    const dsn = `postgres://app@127.0.0.1:${second.port}/app`;
    const changer = await connectClient(cluster);
    await changer.query(`CREATE TABLE w5 ${SHARDED}`);
    const other = await connectClient({ dsn: () => dsn });
    let written = 0;
    let isOver = false;
    const writing = (async () => {
      for (let id = 1; !isOver; id++) {
        const result = await values(other, 'INSERT INTO w5 (id, n) VALUES ($1, 1) RETURNING id', [id]);
        if (typeof result !== 'string') written++;
        else expect(['!40001', '!42P01', '!0A000']).toContain(result);
      }
    })();
    for (let i = 0; i < 5; i++) {
      await changer.query('BEGIN');
      await changer.query(`ALTER TABLE w5 ADD COLUMN c${i} int DEFAULT ${i}`);
      await changer.query(
        i % 2 === 0 ? `CREATE INDEX ON w5 (c${i})` : `ALTER TABLE w5 RENAME COLUMN n TO n${i}`,
      );
      if (i % 2 === 1) await changer.query(`ALTER TABLE w5 RENAME COLUMN n${i} TO n`);
      await changer.query('COMMIT');
    }
    isOver = true;
    await writing;
    expect(written).toBeGreaterThan(0);
    expect(await value(changer, 'SELECT count(*)::int FROM w5')).toBe(written);
    await expect.poll(() => value(other, 'SELECT sum(c4)::int FROM w5')).toBe(4 * written);
  });

  test('DDL that fails inside a transaction is undone by ROLLBACK TO, on all nodes', async () => {
    const client = await connectClient(cluster);
    await client.query(`CREATE TABLE w7 ${SHARDED}`);
    await client.query('INSERT INTO w7 SELECT g, g FROM generate_series(1, 8) g');
    await client.query('BEGIN');
    await client.query('ALTER TABLE w7 ADD COLUMN a int DEFAULT 1');
    await client.query('SAVEPOINT s');
    await client.query('ALTER TABLE w7 ADD COLUMN b int DEFAULT 2');
    expect(await value(client, 'ALTER TABLE w7 ADD CONSTRAINT small CHECK (n < 8)')).toBe('!23514');
    expect(await value(client, 'SELECT 1')).toBe('!25P02');
    await client.query('ROLLBACK TO s');
    expect(await values(client, 'SELECT * FROM w7 WHERE id = 3')).toEqual([['3', 3, 1]]);
    await client.query('ALTER TABLE w7 ADD COLUMN c int DEFAULT 3');
    await client.query('COMMIT');
    expect(await values(client, 'SELECT * FROM w7 WHERE id = 8')).toEqual([['8', 8, 1, 3]]);
    // Not one half of it, outside of a transaction.
    expect(await value(client, 'ALTER TABLE w7 ADD CONSTRAINT small CHECK (n < 8)')).toBe('!23514');
    await client.query('INSERT INTO w7 VALUES (100, 100)');
  });

  test('a node that is down fails all of it', async () => {
    const client = await connectClient(cluster);
    await client.query(`CREATE TABLE w6 ${SHARDED}`);
    const stopped = cluster.servers[1]!;
    stopped.kill();
    expect(await value(client, 'ALTER TABLE w6 ADD COLUMN added int')).toMatch(/^!08/);
    await stopped.restart();
    await expect.poll(() => value(client, 'SELECT count(*)::int FROM w6')).toBe(0);
    expect(await value(client, 'SELECT added FROM w6')).toBe('!42703');
    await client.query('ALTER TABLE w6 ADD COLUMN added int');
    expect(await values(client, 'SELECT added FROM w6')).toEqual([]);
  });
});

describe('a statement that the router has signed', () => {
  test('is carried out for nobody else, and in no other transaction', async () => {
    const client = new pg.Client({
      connectionString: cluster.servers[0]!.dsn({ database: 'app', user: 'app' }),
    });
    await client.connect();
    const forged =
      "SELECT postern_commit.carry_out('DELETE FROM postern_internal.tables', false, repeat('0', 64))";
    expect(await value(client, forged)).toBe('!42501');
    expect(await value(client, 'SELECT * FROM postern_internal.local_key')).toBe('!42501');
    await client.end();
    const routed = await connectClient(cluster);
    expect(await value(routed, forged)).toBe('!42501');
  });
});

test('with one node there is one branch, and an ordinary commit', async () => {
  const alone = await startTestCluster({ nodes: 1, settings: { max_prepared_transactions: '0' } });
  onTestFinished(() => alone.stop());
  const client = await connectClient(alone);
  await client.query('BEGIN');
  await client.query(
    `CREATE TABLE one (id bigserial PRIMARY KEY, n int) WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = 4)`,
  );
  await client.query('INSERT INTO one (n) VALUES (1), (2)');
  await client.query('SAVEPOINT s');
  await client.query('DROP TABLE one');
  await client.query('ROLLBACK TO s');
  await client.query('ALTER TABLE one ADD COLUMN m int DEFAULT 5');
  await client.query('COMMIT');
  await client.query('CREATE INDEX CONCURRENTLY one_m ON one (m)');
  expect(await value(client, 'SELECT sum(m)::int FROM one')).toBe(10);
});

/**
 * Tables sharded by range and by list through a router, beside the same statements on one plain PostgreSQL; tenants that are pinned
 * and tables that are brought back while others write.
 */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { startRouter } from '../../src/cli/router.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient, value, values } from '../support/router-clients.ts';

/** A bound, for a busy machine. */
const soon = <T>(read: () => T) => expect.poll(read, { timeout: 30_000 });

let cluster: TestCluster;
/** The same tables, plain. */
let plain: pg.Client;

const COLUMNS = 'k int8 NOT NULL, id int, v text, PRIMARY KEY (k, id)';

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 3 });
  const client = new pg.Client({ connectionString: cluster.dsn() });
  await client.connect();
  await client.query(
    `CREATE TABLE r (${COLUMNS}) WITH (postern.door = 'sharded', postern.key = 'k', postern.method = 'range', postern.bounds = '{-10,0,10,100}')`,
  );
  await client.query(
    `CREATE TABLE l (${COLUMNS}) WITH (postern.door = sharded, postern.key = k, postern.method = list, postern.values = '{{1,2},3}', postern.buckets = 3)`,
  );
  await client.query(
    `CREATE TABLE h (${COLUMNS}) WITH (postern.door = sharded, postern.key = k, postern.buckets = 4)`,
  );
  await client.query("CREATE TABLE ref (id int PRIMARY KEY, name text) WITH (postern.door = 'reference')");
  await client.query("INSERT INTO ref SELECT i, 'n' || i FROM generate_series(0, 9) i");
  await client.end();
  await cluster.servers[0]!.query('CREATE DATABASE plain');
  plain = new pg.Client({ connectionString: cluster.servers[0]!.dsn({ database: 'plain' }) });
  await plain.connect();
  for (const name of ['r', 'l', 'h']) await plain.query(`CREATE TABLE ${name} (${COLUMNS})`);
  await plain.query("CREATE TABLE ref AS SELECT i AS id, 'n' || i AS name FROM generate_series(0, 9) i");
});

afterAll(async () => {
  await plain?.end();
  await cluster?.stop();
});

/** Rows as a set, or the SQLSTATE. */
async function answer(client: pg.Client, sql: string, parameters: unknown[]): Promise<unknown> {
  const rows = await values(client, sql, parameters);
  return typeof rows === 'string' ? rows : rows.map((row) => JSON.stringify(row)).sort();
}

async function compare(client: pg.Client, sql: string, parameters: unknown[] = []): Promise<void> {
  const expected = await answer(plain, sql, parameters);
  expect(await answer(client, sql, parameters), sql).toEqual(expected);
}

test.each(['r', 'l'])('table %s answers as a plain table does', async (name) => {
  const client = await connectClient(cluster);
  for (let k = -30; k <= 130; k += 3)
    await compare(client, `INSERT INTO ${name} VALUES ($1, 1, $2) RETURNING *`, [k, `v${k}`]);
  await compare(
    client,
    `INSERT INTO ${name} VALUES (1, 9, 'a'), (2, 9, 'b'), (3, 9, 'c'), (500, 9, 'd'), (-500, 9, NULL)`,
  );
  const statements: [string, unknown[]?][] = [
    [`SELECT * FROM ${name}`],
    [`SELECT * FROM ${name} WHERE k = 3`],
    [`SELECT * FROM ${name} WHERE k = $1`, [99]],
    [`SELECT * FROM ${name} WHERE k IN (1, 2, 3, 99)`],
    [`SELECT * FROM ${name} WHERE k BETWEEN $1 AND $2`, [-10, 10]],
    [`SELECT * FROM ${name} WHERE k >= 10 AND k < 100`],
    [`SELECT count(*), sum(k), min(v) FROM ${name} WHERE k > $1`, [9]],
    [`SELECT k, v FROM ${name} WHERE k < 0 ORDER BY k DESC LIMIT 3`],
    [`SELECT count(*) FROM ${name} WHERE k > 50 AND k < 20`],
    [`SELECT t.k, ref.name FROM ${name} t JOIN ref ON ref.id = t.k % 10 WHERE t.k >= 100`],
    [`SELECT * FROM ${name} WHERE k = 77777777777`],
    [`UPDATE ${name} SET v = v || '!' WHERE k >= 90 RETURNING k, v`],
    [`UPDATE ${name} SET v = 'x' WHERE k = 12 RETURNING *`],
    [`UPDATE ${name} SET k = k + 1000 WHERE k = 15 RETURNING k`],
    [`UPDATE ${name} SET k = $1 WHERE k = $2`, [-77, 1015]],
    [`DELETE FROM ${name} WHERE k BETWEEN 20 AND 40 RETURNING k`],
    [`DELETE FROM ${name} WHERE k = -500`],
    [`INSERT INTO ${name} VALUES (3, 9, 'again')`],
    [
      `INSERT INTO ${name} VALUES (3, 9, 'again'), (4, 9, 'new') ON CONFLICT (k, id) DO UPDATE SET v = excluded.v`,
    ],
    [`INSERT INTO ${name} (k, id) SELECT k + 1, 50 FROM ${name} WHERE k > 100`],
    [`INSERT INTO ${name} VALUES (NULL, 1)`],
    [`SELECT * FROM ${name} WHERE k IS NULL`],
    [`SELECT * FROM ${name}`],
  ];
  for (const [sql, parameters] of statements) await compare(client, sql, parameters);
});

test('a transaction over tables of all methods is one transaction', async () => {
  const client = await connectClient(cluster);
  for (const end of ['ROLLBACK', 'COMMIT']) {
    await client.query('BEGIN');
    await client.query("INSERT INTO r VALUES (-1000, 7, 'a'), (1000, 7, 'b')");
    await client.query("INSERT INTO l VALUES (1, 7, 'a'), (3, 7, 'b')");
    await client.query("INSERT INTO h VALUES (1, 7, 'a'), (2, 7, 'b')");
    await client.query("UPDATE ref SET name = 'changed' WHERE id = 7");
    expect(await value(client, 'SELECT count(*)::int FROM l WHERE id = 7')).toBe(2);
    await client.query(end);
    const counts = await Promise.all(
      ['r', 'l', 'h'].map((name) => value(client, `SELECT count(*)::int FROM ${name} WHERE id = 7`)),
    );
    expect(counts).toEqual(end === 'COMMIT' ? [2, 2, 2] : [0, 0, 0]);
  }
});

test.each([
  "SELECT postern.unshard_table('h')",
  "SELECT postern.pin_tenant('h', '5', 'n2')",
  "SELECT postern.distribute_schema('public')",
  "ALTER TABLE h SET (postern.door = 'single')",
])('inside a transaction, %s is refused', async (text) => {
  const client = await connectClient(cluster);
  await client.query('BEGIN');
  expect(await value(client, text)).toMatch(/^!(25001|0A000)$/);
  await client.query('ROLLBACK');
});

test('ids come in order where the range says the bucket', async () => {
  const client = await connectClient(cluster);
  await client.query(
    `CREATE TABLE ided (id bigserial PRIMARY KEY, v text) WITH (postern.door = sharded, postern.key = id, postern.method = range, postern.bounds = '{4,8}')`,
  );
  const ids: unknown[] = [];
  for (let i = 0; i < 5; i++)
    ids.push(await value(client, "INSERT INTO ided (v) VALUES ('x') RETURNING id::int"));
  expect(ids).toEqual([...ids].sort((a, b) => Number(a) - Number(b)));
  const rows = await values(
    client,
    "INSERT INTO ided (v) VALUES ('a'), ('b'), ('c'), ('d'), ('e') RETURNING id",
  );
  expect(rows).toHaveLength(5);
  expect(await value(client, 'SELECT count(DISTINCT id)::int FROM ided')).toBe(10);
});

test('a condition on the key leaves other nodes alone', async () => {
  const client = await connectClient(cluster);
  const nodes = await client.query<{ node: string }>(
    `SELECT node FROM postern.buckets WHERE table_name = 'r' ORDER BY bucket`,
  );
  expect(nodes.rows.map(({ node }) => node)).toEqual(['n1', 'n2', 'n3', 'n1', 'n2']);
  // The last bucket, on n2. Were any other leaf of the table asked for, it would wait for this lock.
  const holder = new pg.Client({ connectionString: cluster.servers[2]!.dsn({ database: 'app' }) });
  await holder.connect();
  onTestFinished(() => holder.end());
  const { rows } =
    await holder.query(`SELECT leaf::text FROM postern_internal.local_leaves JOIN postern_internal.local_tables USING (table_id)
    WHERE face::text = 'r'`);
  await holder.query(`BEGIN; LOCK TABLE ${rows[0].leaf} IN ACCESS EXCLUSIVE MODE`);
  expect(await value(client, 'SELECT count(*)::int > 0 FROM r WHERE k >= $1', [100])).toBe(true);
  expect(
    await value(client, "UPDATE r SET v = 'z' WHERE k > 100 AND id = 12345 RETURNING k"),
  ).toBeUndefined();
});

/** Inserts until told to stop; the rows that were acknowledged. */
function writeOn(client: pg.Client, text: (n: number) => string): { stop(): Promise<number[]> } {
  let stopped = false;
  const acknowledged: number[] = [];
  const running = (async () => {
    for (let n = 0; !stopped; n++) {
      try {
        await client.query(text(n));
        acknowledged.push(n);
      } catch (error) {
        // What may be tried again.
        expect(['40001', '55P03', '40P01'], String(error)).toContain((error as { code?: string }).code);
      }
    }
  })();
  return {
    stop: async () => {
      stopped = true;
      await running;
      return acknowledged;
    },
  };
}

describe('while others write, through two routers', () => {
  test('a tenant is pinned, and a table brought back, without a row lost or doubled', async () => {
    const second = await startRouter({ ...cluster.routerOptions, listen: { host: '127.0.0.1', port: 0 } });
    onTestFinished(() => second.close());
    const admin = await connectClient(cluster);
    await admin.query(
      `CREATE TABLE busy (tenant text, n int, w int, PRIMARY KEY (tenant, w, n)) WITH (postern.door = sharded, postern.key = tenant, postern.buckets = 3)`,
    );
    const other = { dsn: () => cluster.dsn().replace(`:${cluster.port}/`, `:${second.port}/`) };
    const clients = await Promise.all([
      ...[connectClient(cluster), connectClient(cluster), connectClient(other), connectClient(other)],
    ]);
    const writers = clients.map((client, w) =>
      writeOn(client, (n) =>
        n % 5 === 0
          ? `INSERT INTO busy VALUES ('acme', ${n}, ${w}), ('globex', ${n}, ${w})`
          : `INSERT INTO busy VALUES ('${n % 2 ? 'acme' : 'globex'}', ${n}, ${w})`,
      ),
    );
    await soon(() => value(admin, 'SELECT count(*)::int > 200 FROM busy')).toBe(true);
    await admin.query("SELECT postern.pin_tenant('busy', 'acme', 'n3')");
    expect(
      await values(admin, `SELECT tenant, node, pinned FROM postern.tenants WHERE table_name = 'busy'`),
    ).toEqual([['acme', 'n3', true]]);
    const before = Number(await value(admin, 'SELECT count(*)::int FROM busy'));
    await soon(async () => Number(await value(admin, 'SELECT count(*)::int FROM busy'))).toBeGreaterThan(
      before + 100,
    );
    await admin.query("SELECT postern.unshard_table('busy')");
    const after = Number(await value(admin, 'SELECT count(*)::int FROM busy'));
    await soon(async () => Number(await value(admin, 'SELECT count(*)::int FROM busy'))).toBeGreaterThan(
      after + 100,
    );
    const acknowledged = await Promise.all(writers.map((writer) => writer.stop()));
    expect(await value(admin, "SELECT count(*)::int FROM postern.tables WHERE table_name = 'busy'")).toBe(0);
    const rows = (await values(admin, 'SELECT w, n, count(*)::int FROM busy GROUP BY 1, 2')) as [
      number,
      number,
      number,
    ][];
    const found = new Map(rows.map(([w, n, count]) => [`${w} ${n}`, count]));
    const missing = acknowledged.flatMap((list, w) =>
      list.filter((n) => found.get(`${w} ${n}`) !== (n % 5 === 0 ? 2 : 1)).map((n) => `${w} ${n}`),
    );
    expect(missing).toEqual([]);
    const sum = acknowledged.reduce((total, list) => total + list.length, 0);
    expect(found.size).toBe(sum);
  });
});

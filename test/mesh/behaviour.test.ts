/** Reads over nodes in transactions and in portions; what they see, follow, refuse and say. */
import pg from 'pg';
import Cursor from 'pg-cursor';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ask } from '../scatter/read-pair.ts';
import { RawClient, sendCancel } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient, value, values } from '../support/router-clients.ts';

const JOIN = 'FROM a JOIN b ON b.other = a.id';

describe('reads over nodes', () => {
  let cluster: TestCluster;
  beforeAll(async () => {
    cluster = await startTestCluster({
      nodes: 2,
      users: ['app', 'postgres', 'reader', 'clerk'].map((name) => ({ name, password: undefined })),
    });
    const app = new pg.Client({ connectionString: cluster.dsn() });
    await app.connect();
    const sharded = (key: string) =>
      `WITH (postern.door = 'sharded', postern.key = '${key}', postern.buckets = 8)`;
    await app.query(`CREATE TABLE a (id bigint PRIMARY KEY, v text, n int) ${sharded('id')}`);
    await app.query(`CREATE TABLE a2 (id bigint, k int, n int, PRIMARY KEY (id, k)) ${sharded('id')}`);
    await app.query(`CREATE TABLE b (id bigint PRIMARY KEY, other bigint) ${sharded('id')}`);
    await app.query('CREATE TABLE s (id bigint PRIMARY KEY, w text)');
    for (const text of [
      `INSERT INTO a VALUES ${list(40, (i) => `(${i}, 'v${i}', ${i % 5})`)}`,
      `INSERT INTO a2 VALUES ${list(80, (i) => `(${i % 40}, ${i}, ${i % 3})`)}`,
      `INSERT INTO b VALUES ${list(30, (i) => `(${i}, ${39 - i})`)}`,
      `INSERT INTO s VALUES ${list(5, (i) => `(${i}, 'w${i}')`)}`,
    ])
      await app.query(text);
    await app.end();
  }, 120_000);
  afterAll(() => cluster?.stop());

  describe('in a transaction', () => {
    it('see what others have committed before each statement', async () => {
      const [one, two] = [await connectClient(cluster), await connectClient(cluster)];
      await one.query('BEGIN');
      expect(await value(one, `SELECT count(*)::int ${JOIN}`)).toBe(30);
      await two.query('INSERT INTO b VALUES (100, 1)');
      expect(await value(one, `SELECT count(*)::int ${JOIN}`)).toBe(31);
      await one.query('COMMIT');
      await two.query('DELETE FROM b WHERE id = 100');
    });

    it('are refused after a write, and fail the transaction as PostgreSQL would', async () => {
      const client = await connectClient(cluster);
      await client.query('BEGIN');
      await client.query('UPDATE a SET n = n WHERE id = 1');
      expect(await value(client, `SELECT count(*) ${JOIN}`)).toBe('!0A000');
      expect(await value(client, 'SELECT 1')).toBe('!25P02');
      await client.query('ROLLBACK');
      await client.query('BEGIN');
      await client.query('UPDATE a SET n = n WHERE id = 1');
      await client.query('UPDATE a SET n = n WHERE id = 2');
      await client.query('UPDATE a SET n = n WHERE id = 3');
      expect(await value(client, `SELECT count(*) ${JOIN}`, [])).toBe('!0A000');
      await client.query('ROLLBACK');
    });

    it('are allowed after reads on several nodes, and refused where the snapshot may not move', async () => {
      const client = await connectClient(cluster);
      await client.query('BEGIN');
      for (let id = 0; id < 8; id++) await client.query('SELECT * FROM a WHERE id = $1', [id]);
      expect(await value(client, `SELECT count(*)::int ${JOIN}`)).toBe(30);
      await client.query('COMMIT');
      await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
      expect(await value(client, `SELECT count(*) ${JOIN}`)).toBe('!0A000');
      await client.query('ROLLBACK');
      await client.query('SET postern.consistent_reads = on');
      expect(await value(client, `SELECT count(*) ${JOIN}`)).toBe('!0A000');
    });

    it('have the settings that the transaction has made', async () => {
      const client = await connectClient(cluster);
      const text = `SELECT to_char(max('2024-01-01 12:00+00'::timestamptz), 'HH24') ${JOIN}`;
      await client.query("SET TimeZone = 'Asia/Tokyo'");
      expect(await value(client, text)).toBe('21');
      await client.query('BEGIN');
      await client.query("SET LOCAL TimeZone = 'America/New_York'");
      expect(await value(client, text)).toBe('07');
      await client.query('COMMIT');
      expect(await value(client, text)).toBe('21');
    });
  });

  describe('in portions', () => {
    it.each([
      ['of a join', `SELECT a.id::int ${JOIN} ORDER BY 1`],
      ['of one table', 'SELECT id::int FROM a WHERE id >= 10 ORDER BY 1'],
    ])('%s: Execute with a limit of rows', async (_, text) => {
      const client = await connectClient(cluster);
      await client.query('BEGIN');
      const cursor = client.query(new Cursor(text));
      const first = await cursor.read(7);
      expect(first.map(({ id }) => id)).toEqual([10, 11, 12, 13, 14, 15, 16]);
      expect(await cursor.read(100)).toHaveLength(23);
      expect(await cursor.read(1)).toHaveLength(0);
      await cursor.close();
      expect(await value(client, 'SELECT 1')).toBe(1);
      await client.query('COMMIT');
    });

    it('by SQL: DECLARE, FETCH, MOVE, CLOSE', async () => {
      const client = await connectClient(cluster);
      expect(await value(client, `DECLARE c CURSOR FOR SELECT 1 ${JOIN}`)).toBe('!25P01');
      for (const mode of ['simple', 'extended'] as const) {
        const run = (text: string) => ask(client, text, mode);
        await client.query('BEGIN');
        await run(`DECLARE "C c" SCROLL CURSOR FOR SELECT a.id, v ${JOIN} ORDER BY 1`);
        expect((await run('FETCH 2 FROM "C c"')).rows).toEqual([
          ['10', 'v10'],
          ['11', 'v11'],
        ]);
        expect((await run('FETCH LAST FROM "C c"')).rows).toEqual([['39', 'v39']]);
        expect((await run('FETCH BACKWARD 1 FROM "C c"')).columns).toEqual(['id 20 -1 text', 'v 25 -1 text']);
        expect((await run('MOVE ABSOLUTE 3 IN "C c"')).tag).toBe('MOVE 1');
        expect((await run('/* next */ FETCH "C c"')).rows).toEqual([['13', 'v13']]);
        const [one, two] = (await client.query(
          'FETCH "C c"; MOVE BACKWARD 1 IN "C c"',
        )) as unknown as pg.QueryResult[];
        expect([one!.rowCount, two!.command]).toEqual([1, 'MOVE']);
        await run('SAVEPOINT s');
        await run(`DECLARE d CURSOR FOR SELECT 1 ${JOIN}`);
        expect(await value(client, `DECLARE d CURSOR FOR SELECT 1 ${JOIN}`)).toBe('!42P03');
        await client.query('ROLLBACK TO s');
        expect(await value(client, 'FETCH d')).toBe('!34000');
        await client.query('ROLLBACK TO s');
        expect((await run('FETCH "C c"')).rows).toEqual([['14', 'v14']]);
        expect((await run('CLOSE "C c"')).tag).toMatch(/^CLOSE/);
        expect(await value(client, 'FETCH "C c"')).toBe('!34000');
        await client.query('ROLLBACK');
      }
      await client.query('BEGIN');
      await client.query(`DECLARE e CURSOR FOR SELECT a.id ${JOIN}`);
      await client.query('COMMIT');
      expect(await value(client, 'FETCH e')).toBe('!34000');
    });

    it('no more at once than a session may have, and none is left behind', async () => {
      const client = await connectClient(cluster);
      await client.query('BEGIN');
      for (let i = 0; i < 4; i++) await client.query(`DECLARE c${i} CURSOR FOR SELECT a.id ${JOIN}`);
      expect(await value(client, `DECLARE c9 CURSOR FOR SELECT a.id ${JOIN}`)).toBe('!53400');
      await client.query('ROLLBACK');
      const gone = await connectClient(cluster);
      await gone.query('BEGIN');
      await gone.query(`DECLARE c CURSOR FOR SELECT a.id ${JOIN}`);
      await gone.end();
      await expect
        .poll(async () => {
          const rows = await cluster.servers[0]!.query(
            "SELECT 1 FROM pg_stat_activity WHERE datname = 'app_postern_mesh' AND state <> 'idle' AND usename = 'app'",
          );
          return rows.length;
        })
        .toBe(0);
    });
  });

  describe('follow', () => {
    it('tables and types that come, change and go', async () => {
      const client = await connectClient(cluster);
      await client.query("CREATE TYPE mood AS ENUM ('sad', 'glad')");
      await client.query("CREATE TABLE t (id bigint, m mood DEFAULT 'glad')");
      await client.query('INSERT INTO t VALUES (1)');
      expect(await values(client, 'SELECT t.m, a.v FROM t JOIN a USING (id)')).toEqual([['glad', 'v1']]);
      await client.query("ALTER TABLE t ADD COLUMN extra text DEFAULT 'x'");
      expect(await values(client, 'SELECT t.*, a.v FROM t JOIN a USING (id)')).toEqual([
        ['1', 'glad', 'x', 'v1'],
      ]);
      await client.query('ALTER TABLE t RENAME extra TO more');
      expect(await value(client, 'SELECT max(more) FROM t JOIN a USING (id)')).toBe('x');
      await client.query('DROP TABLE t');
      expect(await value(client, 'SELECT count(*) FROM t JOIN a USING (id)')).toBe('!42P01');
      // Behind the router's back.
      await cluster.servers[0]!.query('SELECT 1');
      const direct = new pg.Client({
        connectionString: cluster.servers[0]!.dsn({ user: 'app', database: 'app' }),
      });
      await direct.connect();
      await direct.query('CREATE TABLE t2 AS SELECT 1::bigint AS id');
      expect(await value(client, 'SELECT v FROM t2 JOIN a USING (id)')).toBe('v1');
      await direct.query('ALTER TABLE t2 ADD COLUMN z int DEFAULT 5');
      expect(await value(client, 'SELECT z FROM t2 JOIN a USING (id)')).toBe(5);
      await direct.query('DROP TABLE t2');
      await direct.end();
    });

    it('a leaf that is somewhere else by now: one more try with a newer mesh', async () => {
      const client = await connectClient(cluster);
      const home = new pg.Client({ connectionString: cluster.servers[0]!.dsn({ database: 'app' }) });
      await home.connect();
      const { rows } = await home.query(
        `SELECT l.table_id, l.bucket, l.leaf_name FROM postern_internal.leaves l JOIN postern_internal.tables USING (table_id)
         JOIN postern_internal.local_leaves x USING (table_id, bucket) WHERE table_name = 'a' LIMIT 1`,
      );
      const { table_id: id, bucket, leaf_name: name } = rows[0];
      const next = `a_b${bucket}_g9999`;
      // So lately that the mesh is believed to be as it was.
      for (let i = 0; i < 2; i++) expect(await value(client, `SELECT count(*)::int ${JOIN}`)).toBe(30);
      await home.query(
        `BEGIN; ALTER TABLE postern_leaves."${name}" RENAME TO "${next}";
         UPDATE postern_internal.leaves SET generation = 9999, leaf_name = '${next}' WHERE table_id = ${id} AND bucket = ${bucket};
         UPDATE postern_internal.local_leaves SET generation = 9999 WHERE table_id = ${id} AND bucket = ${bucket};
         UPDATE postern_internal.cluster SET epoch = epoch + 1; COMMIT`,
      );
      await home.end();
      expect(await value(client, `SELECT count(*)::int ${JOIN}`)).toBe(30);
    });
  });

  it('give the rows that are inserted into a sharded table', async () => {
    const client = await connectClient(cluster);
    await client.query('BEGIN');
    const text = `INSERT INTO a2 SELECT a.id, 1000 + b.id, count(*) ${JOIN} WHERE a.id > $1 GROUP BY a.id, b.id`;
    expect((await client.query(text, [20])).rowCount).toBe(19);
    expect(await value(client, 'SELECT count(*)::int FROM a2 WHERE k >= 1000')).toBe(19);
    await client.query('ROLLBACK');
    expect(await value(client, `INSERT INTO s SELECT a.id, a.v ${JOIN}`)).toBe('!0A000');
  });

  it.each([
    ['ranges', "postern.method = 'range', postern.bounds = '{5,15}'", 3],
    ['lists', "postern.method = 'list', postern.values = '{{1,2},{7}}', postern.buckets = 4", 6],
  ])('of a table that is placed by %s', async (name, options, buckets) => {
    const client = await connectClient(cluster);
    await client.query(
      `CREATE TABLE ${name} (k bigint ${name === 'ranges' ? 'PRIMARY KEY' : ''}, v text) WITH (postern.door = 'sharded', postern.key = 'k', ${options})`,
    );
    await client.query(`INSERT INTO ${name} VALUES ${list(20, (i) => `(${i}, 'x${i}')`)}`);
    const [row] = (await values(
      client,
      `SELECT count(*)::int, count(DISTINCT p.k)::int FROM ${name} p JOIN a ON a.id = p.k`,
    )) as number[][];
    expect(row).toEqual([20, 20]);
    for (const k of [0, 1, 4, 5, 7, 14, 15, 19])
      expect(
        await value(
          client,
          `SELECT max(p.v) FROM ${name} p JOIN b ON b.id = p.k JOIN s ON s.id >= 0 WHERE p.k = ${k}`,
        ),
      ).toBe(`x${k}`);
    const [home] = cluster.servers;
    const mesh = new pg.Client({
      connectionString: home!.dsn({ user: 'app', database: 'app_postern_mesh' }),
    });
    await mesh.connect();
    const plan = async (where: string) =>
      (await mesh.query({ text: `EXPLAIN SELECT * FROM ${name} ${where}`, rowMode: 'array' })).rows.filter(
        ([line]) => /Foreign Scan/.test(line),
      );
    expect(await plan('')).toHaveLength(buckets);
    expect(await plan('WHERE k = 7')).toHaveLength(1);
    await mesh.end();
    await client.query(`DROP TABLE ${name}`);
  });

  describe('through views', () => {
    it('of tables without a door, with the rights of their owners', async () => {
      const app = await connectClient(cluster);
      await app.query('CREATE VIEW shown AS SELECT id, upper(w) AS big FROM s WHERE id > 1');
      await app.query('GRANT SELECT ON shown, a TO reader');
      const reader = await connectClient(cluster, {}, 'reader');
      const text = 'SELECT max(big) FROM shown JOIN a USING (id)';
      expect(await value(app, text)).toBe('W4');
      expect(await value(reader, text)).toBe('W4');
      expect(await value(reader, 'SELECT max(w) FROM s JOIN a USING (id)')).toBe('!42501');
      await app.query('CREATE OR REPLACE VIEW shown AS SELECT id, lower(w) AS big FROM s WHERE id > 1');
      expect(await value(app, text)).toBe('w4');
      await app.query('DROP VIEW shown');
    });
  });

  it('have their mesh made again when somebody has dropped it', async () => {
    const client = await connectClient(cluster);
    expect(await value(client, `SELECT count(*)::int ${JOIN}`)).toBe(30);
    await cluster.servers[0]!.query('DROP DATABASE app_postern_mesh WITH (FORCE)');
    await expect.poll(() => value(client, `SELECT count(*)::int ${JOIN}`)).toBe(30);
  });

  describe('rights', () => {
    it('are those of the role, on tables and columns', async () => {
      const app = await connectClient(cluster);
      await app.query('CREATE TABLE priv (id bigint, open text, closed text)');
      await app.query("INSERT INTO priv VALUES (1, 'o', 'c')");
      await app.query('GRANT SELECT (id, open) ON priv TO reader');
      await app.query('GRANT SELECT ON priv TO clerk');
      await app.query('GRANT SELECT ON a TO reader, clerk');
      const reader = await connectClient(cluster, {}, 'reader');
      const clerk = await connectClient(cluster, {}, 'clerk');
      const text = (column: string) => `SELECT max(${column}) FROM priv JOIN a USING (id)`;
      expect(await value(reader, text('open'))).toBe('o');
      expect(await value(reader, text('closed'))).toBe('!42501');
      expect(await value(clerk, text('closed'))).toBe('c');
      await app.query('REVOKE SELECT ON priv FROM clerk');
      expect(await value(clerk, text('closed'))).toBe('!42501');
      expect(await value(clerk, `SELECT count(*) ${JOIN}`)).toBe('!42501');
      await app.query('DROP TABLE priv');
    });

    it('on a table that home has nothing of are followed', async () => {
      const app = await connectClient(cluster);
      await app.query(
        "CREATE TABLE far (k bigint, v text) WITH (postern.door = 'sharded', postern.key = 'k', postern.method = 'range', postern.bounds = '{10}', postern.nodes = '{n2,n2}')",
      );
      await app.query("INSERT INTO far VALUES (1, 'near'), (20, 'far')");
      await app.query('GRANT SELECT ON s TO reader');
      const reader = await connectClient(cluster, {}, 'reader');
      const text = 'SELECT count(*)::int FROM far f JOIN far g ON g.k > f.k JOIN s ON s.id = 1';
      expect(await value(reader, text)).toBe('!42501');
      for (const [change, answer] of [
        ['GRANT SELECT ON far TO reader', 1],
        ['REVOKE SELECT ON far FROM reader', '!42501'],
        ['GRANT SELECT (k) ON far TO reader', 1],
        ['REVOKE SELECT (k) ON far FROM reader', '!42501'],
        ['GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader', 1],
        ['REVOKE SELECT ON ALL TABLES IN SCHEMA public FROM reader', '!42501'],
      ] as const) {
        await app.query(change);
        expect(await value(reader, text), change).toBe(answer);
      }
      await app.query('DROP TABLE far');
    });

    it('nobody reaches the nodes through a mesh beside the tables', async () => {
      const [home] = cluster.servers;
      const client = new pg.Client({
        connectionString: home!.dsn({ user: 'app', database: 'app_postern_mesh' }),
      });
      await client.connect();
      const code = (text: string) =>
        client.query(text).then(
          () => 'done',
          (error: { code: string }) => error.code,
        );
      expect(await code('SELECT count(*) FROM public.a')).toBe('done');
      expect(await code('DELETE FROM public.s')).not.toBe('done');
      expect(await code('CREATE FOREIGN TABLE x (i int) SERVER postern_node_1')).toBe('42501');
      expect(await code('SELECT * FROM postern_mesh.state')).toBe('42501');
      const { rows } = await client.query('SELECT umoptions FROM pg_user_mappings');
      expect(rows).toEqual([{ umoptions: null }, { umoptions: null }]);
      await client.end();
    });

    it('a table with row-level security is refused', async () => {
      const app = await connectClient(cluster);
      await app.query('CREATE TABLE guarded (id bigint)');
      await app.query('ALTER TABLE guarded ENABLE ROW LEVEL SECURITY');
      expect(await value(app, 'SELECT count(*) FROM guarded JOIN a USING (id)')).toBe('!0A000');
      await app.query('DROP TABLE guarded');
    });
  });

  describe('refuse', () => {
    it.each([
      'SELECT count(*) FROM a JOIN pg_class c ON c.oid::bigint = a.id',
      `SELECT a.ctid ${JOIN}`,
      `SELECT current_database(), a.id ${JOIN}`,
      `SELECT a.id ${JOIN} FOR UPDATE`,
      `SELECT nextval('x') ${JOIN}`,
      'SELECT count(*) FROM a TABLESAMPLE SYSTEM (50) JOIN b ON b.other = a.id',
      `WITH gone AS (DELETE FROM s RETURNING id) SELECT count(*) FROM gone JOIN a USING (id)`,
    ])('%s', async (text) => {
      expect(await value(await connectClient(cluster), text)).toBe('!0A000');
    });

    it('a temporary table of the session, which has the name of another', async () => {
      const client = await connectClient(cluster);
      expect(await value(client, 'SELECT max(w) FROM s JOIN a USING (id)')).toBe('w4');
      await client.query("CREATE TEMP TABLE s AS SELECT 1::bigint AS id, 'temporary' AS w");
      expect(await value(client, 'SELECT max(w) FROM s JOIN a USING (id)')).toBe('!0A000');
    });

    it('functions that may do more than read; others work', async () => {
      const client = await connectClient(cluster);
      await client.query(
        'CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT 2 * i $$',
      );
      await client.query(
        "CREATE FUNCTION writes(i int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO s VALUES (99, 'x'); RETURN i; END $$",
      );
      expect(await value(client, `SELECT sum(twice(a.n))::int ${JOIN}`)).toBe(120);
      expect(await value(client, `SELECT sum(writes(a.n)) ${JOIN}`)).toBe('!0A000');
      await client.query('DROP FUNCTION twice(int), writes(int)');
    });
  });

  it('ask a correlated subquery of each bucket once, and not once for each outer row', async () => {
    const client = await connectClient(cluster);
    const text =
      'SELECT count(*)::int AS found FROM a WHERE n >= (SELECT count(*) FROM b WHERE b.other = a.n AND b.id > $1)';
    expect((await client.query(text, [2])).rows).toEqual([{ found: 40 }]);
    expect((await client.query(text, [30])).rows).toEqual([{ found: 40 }]);
    const literal = text.replace('$1', '2');
    expect(await value(client, literal)).toBe(40);
    const plan = ((await values(client, `EXPLAIN ${literal}`)) as string[][]).flat().join('\n');
    expect(plan).toMatch(/^Postern: read through the mesh of node n1\n/);
    expect(plan).toContain('Left Join');
    expect(plan.slice(plan.indexOf('SubPlan 1\n'))).not.toContain('Foreign Scan');
    // An error of what was made of it is told in the client's own words.
    const wrong = literal.replace('b.id > 2', 'b.id > nothing');
    expect(await client.query(wrong).catch((error: pg.DatabaseError) => error)).toMatchObject({
      code: '42703',
      position: String(wrong.indexOf('nothing') + 1),
    });
  });

  it('are copied out by COPY (query) TO STDOUT', async () => {
    const client = await RawClient.connect({ port: cluster.port });
    client.send([
      'query',
      `COPY (SELECT a.id, a.v ${JOIN} WHERE a.id > 36 ORDER BY a.id) TO STDOUT (FORMAT csv)`,
    ]);
    const answer = (await client.readUntil(/^Ready/)).join('\n');
    expect(answer).toMatch(/37,v37[\s\S]*38,v38[\s\S]*39,v39[\s\S]*COPY 3/);
    client.send([
      'query',
      `BEGIN; UPDATE a SET n = n WHERE id = 1; COPY (SELECT a.id ${JOIN}) TO STDOUT; ROLLBACK`,
    ]);
    expect((await client.readUntil(/^Ready/)).join('\n')).toContain('C=0A000');
    client.end();
  });

  it('are refused where columns of text are sorted by other collations on another node', async () => {
    const client = await connectClient(cluster);
    const [, other] = cluster.servers;
    const [before] = await other!.query("SELECT datcollate FROM pg_database WHERE datname = 'app'");
    const change = (collation: unknown) =>
      other!.query(`UPDATE pg_database SET datcollate = '${collation}' WHERE datname = 'app'`);
    await change(before!.datcollate === 'C' ? 'C.UTF-8' : 'C');
    try {
      // The nodes are asked when something has changed.
      await client.query('CREATE TABLE unrelated (i int)');
      const failure = await client.query(`SELECT count(*) ${JOIN}`).catch((error: pg.DatabaseError) => error);
      expect(failure).toMatchObject({ code: '0A000', hint: expect.stringContaining('COLLATE "C"') });
      expect((failure as pg.DatabaseError).message).toContain('"a" has columns of text');
      expect(await value(client, 'SELECT count(*)::int FROM a2 JOIN b ON b.other = a2.k')).toBe(30);
    } finally {
      await change(before!.datcollate);
      await client.query('DROP TABLE unrelated');
    }
    expect(await value(client, `SELECT count(*)::int ${JOIN}`)).toBe(30);
  });

  it('say errors in the names of the user', async () => {
    const client = await connectClient(cluster);
    const failure = await client
      .query(`SELECT 1 / (a.n - a.n) ${JOIN}`)
      .catch((error: pg.DatabaseError) => error);
    expect(failure).toMatchObject({ code: '22012' });
    expect(JSON.stringify(failure)).not.toMatch(/postern_leaves|_g\d/);
    const missing = await client.query(`SELECT a.nothing ${JOIN}`).catch((error: pg.DatabaseError) => error);
    expect(missing).toMatchObject({ code: '42703', position: '8' });
  });

  it('can be canceled', async () => {
    const slow = await RawClient.connect({ port: cluster.port });
    slow.send(['query', `SELECT pg_sleep(60), a.id ${JOIN}`]);
    await expect
      .poll(async () => {
        const rows = await cluster.servers[0]!.query(
          "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60), a.id%' AND wait_event = 'PgSleep'",
        );
        return rows.length;
      })
      .toBe(1);
    await sendCancel(cluster.port, slow.processId, slow.secretKey);
    expect((await slow.readUntil(/^Ready/))[0]).toContain('C=57014');
    slow.send(['query', `SELECT count(*) ${JOIN}`]);
    expect((await slow.readUntil(/^Ready/)).join()).toContain('30');
    slow.end();
  });

  it('push joins and aggregates of colocated tables down to each node', async () => {
    const [home] = cluster.servers;
    const client = new pg.Client({
      connectionString: home!.dsn({ user: 'app', database: 'app_postern_mesh' }),
    });
    await client.connect();
    const { rows } = await client.query({
      text: 'EXPLAIN (VERBOSE) SELECT a.id, count(*), sum(a2.n) FROM a JOIN a2 ON a2.id = a.id GROUP BY a.id',
      rowMode: 'array',
    });
    const plan = rows.map(([line]) => line as string).join('\n');
    expect(plan).toMatch(/Async Foreign Scan/);
    expect(
      plan.match(/Relations: Aggregate on \(\(postern_leaves\.a_b\d+_g\d+ a(?:_\d+)?\) INNER JOIN/g),
    ).toHaveLength(8);
    const { rows: pruned } = await client.query({
      text: 'EXPLAIN SELECT * FROM a WHERE id = 7',
      rowMode: 'array',
    });
    expect(pruned.filter(([line]) => /Foreign Scan/.test(line as string))).toHaveLength(1);
    await client.end();
  });
});

it('log in to nodes that ask for passwords', async () => {
  const users = ['app', 'postgres'].map((name) => ({
    name,
    password: name === 'app' ? 'secret' : 'postgres',
  }));
  const cluster = await startTestCluster({ nodes: 2, nodeAuth: 'scram-sha-256', users });
  try {
    const client = new pg.Client({ connectionString: cluster.dsn() });
    await client.connect();
    for (const name of ['one', 'two'])
      await client.query(
        `CREATE TABLE ${name} (k bigint, v bigint) WITH (postern.door = 'sharded', postern.key = 'k', postern.buckets = 4)`,
      );
    await client.query('INSERT INTO one VALUES (1, 2), (3, 4); INSERT INTO two VALUES (2, 5), (4, 6)');
    expect(await values(client, 'SELECT one.k, two.v FROM one JOIN two ON two.k = one.v ORDER BY 1')).toEqual(
      [
        ['1', '5'],
        ['3', '6'],
      ],
    );
    await client.end();
  } finally {
    await cluster.stop();
  }
});

function list(count: number, row: (index: number) => string): string {
  return Array.from({ length: count }, (_, i) => row(i)).join(', ');
}

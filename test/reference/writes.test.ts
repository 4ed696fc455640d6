/**
 * Reference tables through a router over three nodes: every write reaches all copies in one transaction, whatever it computes,
 * and each node can answer for all of them.
 */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient, value, values } from '../support/router-clients.ts';
import { queryCopies, rowsOf, unequalNodes } from './copies.ts';

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 3, settings: { max_prepared_transactions: '100' } });
  const client = new pg.Client({ connectionString: cluster.dsn() });
  await client.connect();
  await client.query(
    `CREATE TABLE rates (id bigserial PRIMARY KEY, code text UNIQUE, rate numeric, at timestamptz DEFAULT clock_timestamp(),
       tags text[], doc jsonb, twice numeric GENERATED ALWAYS AS (rate * 2) STORED) WITH (postern.door = 'reference')`,
  );
  await client.query(
    `CREATE TABLE notes (id int GENERATED ALWAYS AS IDENTITY, note text, w float8) WITH (postern.door = reference)`,
  );
  await client.query(
    `CREATE TABLE events (account bigint, code text, n int, PRIMARY KEY (account, n)) WITH (postern.door = 'sharded', postern.key = 'account')`,
  );
  await client.query('CREATE TABLE single (id int PRIMARY KEY, name text)');
  await client.end();
});

afterAll(async () => {
  await cluster?.stop();
});

describe('INSERT', () => {
  test('what is computed is computed once: ids, defaults, now(), random()', async () => {
    const client = await connectClient(cluster);
    const inserted = await client.query(
      `INSERT INTO rates (code, rate, tags) VALUES ('eur', random(), ARRAY['a', NULL]), ('usd', 2, '{}')
       RETURNING id, code, rate * 10 AS ten, twice, now() = transaction_timestamp() AS is_now`,
    );
    expect(inserted.command).toBe('INSERT');
    expect(inserted.rowCount).toBe(2);
    expect(inserted.rows).toMatchObject([
      { id: '1', code: 'eur', is_now: true },
      { id: '2', code: 'usd', ten: '20', twice: '4', is_now: true },
    ]);
    expect(inserted.fields.map((field) => field.name)).toEqual(['id', 'code', 'ten', 'twice', 'is_now']);
    expect(await unequalNodes(cluster, 'rates')).toEqual([]);
    expect(await rowsOf(cluster, 2, 'SELECT code FROM rates ORDER BY id')).toEqual([['eur'], ['usd']]);
  });

  test('with parameters, prepared, in text and binary, without RETURNING', async () => {
    const client = await connectClient(cluster);
    for (const [n, code] of ['chf', 'sek', 'nok'].entries()) {
      const result = await client.query({
        name: 'insert-rate',
        text: 'INSERT INTO rates (code, rate, doc) VALUES ($1, $2, $3)',
        values: [code, n + 0.5, { a: [n, 'é'] }],
      });
      expect(result.rowCount).toBe(1);
      expect(result.rows).toEqual([]);
    }
    const binary = { text: 'INSERT INTO rates (code) VALUES ($1) RETURNING id, at, code', values: ['dkk'] };
    const raw: pg.QueryResult = await client.query(Object.assign(binary, { binary: true }));
    expect(raw.rows).toHaveLength(1);
    expect(await unequalNodes(cluster, 'rates')).toEqual([]);
  });

  test('INSERT … SELECT from a single table and from reference tables; none; many rows', async () => {
    const client = await connectClient(cluster);
    await client.query(`INSERT INTO single VALUES (1, 'one'), (2, 'two')`);
    await client.query('INSERT INTO notes (note, w) SELECT name, random() FROM single ORDER BY random()');
    await client.query('INSERT INTO notes (note, w) SELECT note, w / 3 FROM notes LIMIT 1 -- a comment');
    const many = await client.query(
      'INSERT INTO notes (note, w) SELECT repeat($1, g % 50), g FROM generate_series(1, 2500) g',
      ['ü'],
    );
    expect(many.rowCount).toBe(2500);
    const none = await client.query('INSERT INTO notes (note) SELECT name FROM single WHERE false');
    expect(none.rowCount).toBe(0);
    expect(await unequalNodes(cluster, 'notes')).toEqual([]);
  });

  test('ON CONFLICT: nothing, and an update of other columns', async () => {
    const client = await connectClient(cluster);
    const nothing = await client.query(
      `INSERT INTO rates (code, rate) VALUES ('eur', 9), ('gbp', 8) ON CONFLICT DO NOTHING RETURNING code`,
    );
    expect(nothing.rows).toEqual([{ code: 'gbp' }]);
    const updated = await client.query(
      `INSERT INTO rates AS r (code, rate) VALUES ('eur', 7), ('cad', 6)
       ON CONFLICT (code) DO UPDATE SET rate = excluded.rate + r.rate, at = clock_timestamp() RETURNING r.code, twice > 7`,
    );
    expect(updated.rowCount).toBe(2);
    expect(updated.rows.map((row) => row.code)).toEqual(['eur', 'cad']);
    const skipped = await client.query(
      `INSERT INTO rates (code) VALUES ('eur') ON CONFLICT (code) DO UPDATE SET rate = 0 WHERE false`,
    );
    expect(skipped.rowCount).toBe(0);
    expect(await unequalNodes(cluster, 'rates')).toEqual([]);
  });
});

describe('UPDATE and DELETE', () => {
  test('find their rows by the primary key, whatever the statement uses', async () => {
    const client = await connectClient(cluster);
    const updated = await client.query(
      `UPDATE rates SET rate = random(), at = now(), doc = DEFAULT, tags = (SELECT array_agg(name ORDER BY random()) FROM single)
       WHERE rate > $1 RETURNING code, rate < 1`,
      [1],
    );
    expect(updated.rowCount).toBeGreaterThan(2);
    expect(updated.rows[0]).toHaveProperty('?column?', true);
    const joined = await client.query(
      'UPDATE rates SET rate = s.id FROM single s, rates other WHERE other.id > rates.id AND s.id > 0',
    );
    expect(joined.rowCount).toBeGreaterThan(2);
    const deleted = await client.query(`DELETE FROM rates r USING single WHERE r.code = 'nok' RETURNING r.*`);
    expect(deleted.rows).toMatchObject([{ code: 'nok' }]);
    expect((await client.query('UPDATE rates SET rate = 1 WHERE false')).rowCount).toBe(0);
    expect(await unequalNodes(cluster, 'rates')).toEqual([]);
    expect(await queryCopies(cluster, 'SELECT count(*)::int FROM rates')).toEqual([[[7]], [[7]], [[7]]]);
  });

  test('without a primary key, or of the key itself, the statement is sent to all nodes', async () => {
    const client = await connectClient(cluster);
    const updated = await client.query('UPDATE notes SET note = upper(note) || $1, w = w * 3 WHERE w < $2', [
      '!',
      9,
    ]);
    expect(updated.rowCount).toBeGreaterThan(5);
    expect((await client.query('UPDATE rates SET id = id + 1000')).rowCount).toBe(7);
    expect(
      (await client.query(`DELETE FROM notes WHERE note LIKE '%!' RETURNING id`)).rowCount,
    ).toBeGreaterThan(1);
    expect(await unequalNodes(cluster, 'notes')).toEqual([]);
    expect(await unequalNodes(cluster, 'rates')).toEqual([]);
  });

  test.each([
    ['random()', 'UPDATE notes SET w = random()', '0A000'],
    ['now()', 'UPDATE notes SET note = now()::text', '0A000'],
    ['CURRENT_USER', 'UPDATE notes SET note = CURRENT_USER', '0A000'],
    ['a subquery', 'DELETE FROM notes WHERE id IN (SELECT id FROM notes LIMIT 1)', '0A000'],
    ['DEFAULT', 'UPDATE notes SET id = DEFAULT', '0A000'],
    ['a sharded table', 'UPDATE rates SET rate = n FROM events WHERE events.code = rates.code', '0A000'],
    ['rows of a sharded table', 'INSERT INTO rates (code) SELECT code FROM events', '0A000'],
    ['a CTE that writes it', 'WITH w AS (DELETE FROM rates RETURNING code) SELECT * FROM w', '0A000'],
    ['a CTE that writes another', `WITH w AS (DELETE FROM single RETURNING 1) DELETE FROM rates`, '0A000'],
    ['MERGE', 'MERGE INTO rates r USING single s ON r.id = s.id WHEN MATCHED THEN DELETE', '0A000'],
    ['DROP TRIGGER', 'DROP TRIGGER postern_guard ON rates', '0A000'],
    ['a second door', `ALTER TABLE rates SET (postern.door = 'reference')`, '0A000'],
    ['a write in a function', `DO $$ BEGIN DELETE FROM rates; END $$`, '0A000'],
    [
      'a foreign key to a single table',
      `CREATE TABLE bad (id int REFERENCES single) WITH (postern.door = 'reference')`,
      '0A000',
    ],
    [
      'FOR UPDATE with a sharded table',
      'SELECT * FROM events e JOIN rates r USING (code) WHERE account = 1 FOR UPDATE',
      '0A000',
    ],
    ['a constraint', `INSERT INTO rates (code) VALUES ('eur')`, '23505'],
  ])('refused: %s', async (_, text, sqlState) => {
    const client = await connectClient(cluster);
    expect(await value(client, text)).toMatch(new RegExp(`^!${sqlState}`));
    // The session goes on.
    expect(await value(client, 'SELECT 1')).toBe(1);
    expect(await unequalNodes(cluster, 'rates')).toEqual([]);
  });
});

describe('values', () => {
  test('of all kinds arrive as they were, whatever the client has set', async () => {
    // OIDs of users' types differ between nodes.
    for (const [at, server] of cluster.servers.entries()) {
      const direct = new pg.Client({ connectionString: server.dsn({ database: 'app', user: 'app' }) });
      await direct.connect();
      if (at > 0)
        await direct.query(`CREATE TYPE filler_${at} AS ENUM ('x'); CREATE TABLE filler${at} (id int)`);
      await direct.query(`CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN percent AS float8 CHECK (VALUE <= 100);
        CREATE TYPE pair AS (a float8, m mood)`);
      await direct.end();
    }
    const client = await connectClient(cluster);
    await client.query(
      `CREATE TABLE kinds (id int PRIMARY KEY, m mood, ms mood[], p percent, ps pair, c char(5), v varchar(7), n numeric(12,4)[],
         f4 float4, f8 float8, fs float8[], b bytea, t timestamp(3), tz timestamptz, d date, i interval, mo money, j json, jb jsonb,
         r int4range, tr tstzrange, u uuid, ip inet, bits bit(3), x xml, ts tsvector, rc regclass, cl "char", o oid, pt point)
       WITH (postern.door = 'reference')`,
    );
    await client.query(`SET datestyle = 'SQL, DMY'; SET extra_float_digits = -5; SET bytea_output = 'escape';
      SET intervalstyle = 'sql_standard'; SET timezone = 'Asia/Kolkata'; SET xmloption = 'content'`);
    const row = (
      id: number,
    ) => `(${id}, 'ok', '{sad,NULL,ok}', 99.5 / 7, ROW(2 / 3.0::float8, 'sad'), 'é', 'a''b\\', '{1.5,NULL}', 0.1, 1 / 3.0::float8,
      ARRAY[pi(), 'NaN', '-Infinity'], '\\x00ff5c27', '2024-02-03 04:05:06.7895', '2024-10-27 02:30:00+02', 'infinity', '1 mon -3 days 04:05:06.7',
      12.34, '{"a" : 1}', '{"b": [1, "ü"]}', '[1,5)', '[2024-01-01, 2024-02-01)', gen_random_uuid(), '10.0.0.1/8', B'101', '<a>x</a>',
      'fat:1A cat:2'::tsvector, 'pg_class', 'z', 4294967295, '(0.1,2e-300)')`;
    await client.query(`INSERT INTO kinds VALUES ${row(1)}, ${row(2)}`);
    await client.query('INSERT INTO kinds (id) VALUES (3)');
    expect(await unequalNodes(cluster, 'kinds')).toEqual([]);
    await client.query(`UPDATE kinds SET (m, ms, ps, f8, tz, i, jb, p, rc) = (SELECT m, ms, ps, f8 / 7, tz + interval '1 day', i * 1.1, jb, p / 3, rc
      FROM kinds k WHERE k.id = 1) WHERE id > 1`);
    await client.query(
      `INSERT INTO kinds VALUES ${row(2)} ON CONFLICT (id) DO UPDATE SET f8 = kinds.f8 / 3, b = excluded.b`,
    );
    expect(await unequalNodes(cluster, 'kinds')).toEqual([]);
    expect(await rowsOf(cluster, 2, 'SELECT count(*)::int, count(m)::int FROM kinds')).toEqual([[3, 3]]);
  });

  test('too many for one statement are refused, and nothing is written', async () => {
    const client = await connectClient(cluster);
    const huge = `INSERT INTO notes (note) SELECT repeat('x', 1000000) FROM generate_series(1, 70)`;
    expect(await value(client, huge)).toMatch(/^!54000/);
    expect(await unequalNodes(cluster, 'notes')).toEqual([]);
  });
});

describe('in a transaction', () => {
  test('all copies change together, or none', async () => {
    const client = await connectClient(cluster);
    await client.query('BEGIN');
    await client.query(`INSERT INTO rates (code, rate) VALUES ('aaa', 1)`);
    await client.query('SAVEPOINT s');
    await client.query(`UPDATE rates SET rate = 5 WHERE code = 'aaa'`);
    await client.query('ROLLBACK TO s');
    await client.query(`INSERT INTO events VALUES (3, 'aaa', 1)`);
    // It sees its own write, beside a sharded table and by itself.
    expect(
      await values(client, 'SELECT r.rate FROM events e JOIN rates r USING (code) WHERE account = 3'),
    ).toEqual([['1']]);
    expect(await value(client, `SELECT count(*)::int FROM rates WHERE code = 'aaa'`)).toBe(1);
    expect(await queryCopies(cluster, `SELECT FROM rates WHERE code = 'aaa'`)).toEqual([[], [], []]);
    await client.query('COMMIT');
    expect(await unequalNodes(cluster, 'rates')).toEqual([]);
    expect(await rowsOf(cluster, 1, `SELECT rate FROM rates WHERE code = 'aaa'`)).toEqual([['1']]);
    await client.query('BEGIN');
    await client.query('DELETE FROM rates');
    await client.query('ROLLBACK');
    expect(await value(client, 'SELECT count(*)::int FROM rates')).toBe(8);
  });

  test('an error makes it a failed one', async () => {
    const client = await connectClient(cluster);
    await client.query('BEGIN');
    await client.query(`DELETE FROM rates WHERE code = 'aaa'`);
    expect(await value(client, `INSERT INTO rates (code) VALUES ('eur')`)).toMatch(/^!23505/);
    expect(await value(client, 'SELECT 1')).toMatch(/^!25P02/);
    expect((await client.query('COMMIT')).command).toBe('ROLLBACK');
    expect(await value(client, `SELECT count(*)::int FROM rates WHERE code = 'aaa'`)).toBe(1);
  });

  test('TRUNCATE, GRANT and REVOKE reach all nodes', async () => {
    const client = await connectClient(cluster);
    await client.query('BEGIN');
    await client.query('TRUNCATE notes');
    await client.query('INSERT INTO notes (note) VALUES (now()::text)');
    await client.query('COMMIT');
    expect(await queryCopies(cluster, 'SELECT count(*)::int FROM notes')).toEqual([[[1]], [[1]], [[1]]]);
    await client.query('GRANT SELECT, INSERT ON notes, rates TO PUBLIC');
    await client.query('REVOKE INSERT ON notes FROM PUBLIC');
    const grants = `SELECT string_agg(privilege_type, ',' ORDER BY privilege_type) FROM information_schema.role_table_grants
      WHERE table_name = 'notes' AND grantee = 'PUBLIC'`;
    expect(await queryCopies(cluster, grants)).toEqual([[['SELECT']], [['SELECT']], [['SELECT']]]);
  });
});

describe('reading', () => {
  test('any node answers for reference tables, the transaction’s own in a transaction', async () => {
    const client = await connectClient(cluster);
    const backends = new Set<unknown>();
    for (let i = 0; i < 9; i++)
      backends.add(await value(client, 'SELECT pg_backend_pid() FROM notes LIMIT 1'));
    expect(backends.size).toBeGreaterThanOrEqual(3);
    // What depends on the server is home's.
    const ports = new Set<unknown>();
    for (let i = 0; i < 4; i++)
      ports.add(await value(client, 'SELECT inet_server_port() FROM notes LIMIT 1'));
    expect([...ports]).toEqual([cluster.servers[0]!.port]);
    await client.query('BEGIN');
    await client.query('SELECT n FROM events WHERE account = 3');
    const pid = await value(client, 'SELECT pg_backend_pid()');
    expect(await value(client, 'SELECT pg_backend_pid() FROM notes')).toBe(pid);
    await client.query('COMMIT');
  });

  test('joined with sharded and single tables, in views, and COPY TO', async () => {
    const client = await connectClient(cluster);
    const joined = await values(
      client,
      'SELECT e.n, r.code FROM rates r LEFT JOIN events e ON e.code = r.code AND e.account = $1 WHERE r.code = $2',
      [3, 'aaa'],
    );
    expect(joined).toEqual([[1, 'aaa']]);
    await client.query('CREATE VIEW codes AS SELECT code FROM rates');
    expect(
      await value(client, `SELECT count(*)::int FROM codes JOIN single ON true WHERE code = 'aaa'`),
    ).toBe(2);
    expect(await value(client, 'SELECT count(*)::int FROM rates, single WHERE false')).toBe(0);
    await client.query('DROP VIEW codes');
  });

  test('over all buckets: every leaf meets the copy of its own node', async () => {
    const client = await connectClient(cluster);
    for (let account = 20; account < 32; account++)
      await client.query('INSERT INTO events VALUES ($1, $2, $3)', [
        account,
        account % 2 ? 'aaa' : 'none',
        1,
      ]);
    const updated = await client.query(
      'UPDATE events e SET n = n + 5 FROM rates r WHERE r.code = e.code AND account >= 20',
    );
    expect(updated.rowCount).toBe(6);
    expect(
      await value(
        client,
        'SELECT count(*)::int FROM events e JOIN rates r USING (code) WHERE e.n = 6 AND account >= 20',
      ),
    ).toBe(6);
    const deleted = await client.query(
      'DELETE FROM events WHERE account >= 20 AND code NOT IN (SELECT code FROM rates WHERE code IS NOT NULL)',
    );
    expect(deleted.rowCount).toBe(6);
  });

  test('FOR UPDATE is on home, and holds a writer back', async () => {
    const [one, two] = [await connectClient(cluster), await connectClient(cluster)];
    await one.query('BEGIN');
    await one.query(`SELECT * FROM rates WHERE code = 'aaa' FOR UPDATE`);
    await two.query(`SET lock_timeout = '100ms'`);
    expect(await value(two, `UPDATE rates SET rate = 3 WHERE code = 'aaa'`)).toMatch(/^!55P03/);
    await one.query('COMMIT');
    await two.query('RESET lock_timeout');
    expect((await two.query(`UPDATE rates SET rate = 3 WHERE code = 'aaa'`)).rowCount).toBe(1);
  });
});

describe('foreign keys', () => {
  test('of sharded tables hold on each node', async () => {
    const client = await connectClient(cluster);
    await client.query(
      `CREATE TABLE orders (account bigint, n int, code text REFERENCES rates (code) ON DELETE CASCADE, PRIMARY KEY (account, n))
       WITH (postern.door = 'sharded', postern.key = 'account')`,
    );
    for (let account = 0; account < 12; account++)
      await client.query(`INSERT INTO orders VALUES ($1, 1, 'aaa')`, [account]);
    const refused = client.query(`INSERT INTO orders VALUES (1, 2, 'nowhere')`);
    await expect(refused).rejects.toMatchObject({
      code: '23503',
      table: 'orders',
      constraint: 'orders_code_fkey',
    });
    expect((await client.query(`DELETE FROM rates WHERE code = 'aaa'`)).rowCount).toBe(1);
    for (let account = 0; account < 12; account++)
      expect(await value(client, 'SELECT count(*)::int FROM orders WHERE account = $1', [account])).toBe(0);
    expect(await unequalNodes(cluster, 'rates')).toEqual([]);
  });
});

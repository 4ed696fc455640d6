/**
 * What one client leaves in its session is never met by another one on the same backend: settings, session locks, temporary
 * tables, prepared statements, cursors, notifications, random numbers. One backend connection a node, so that the second
 * client gets the very one that the first has used, unless the first keeps it.
 */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient, value, values } from '../support/router-clients.ts';

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 2, connectionsPerNode: 2 });
  const { servers } = cluster;
  for (const server of servers) {
    const admin = new pg.Client({ connectionString: server.dsn({ database: 'app' }) });
    await admin.connect();
    await admin.query('CREATE ROLE bob; CREATE ROLE carol; GRANT bob, carol TO app');
    await admin.query('GRANT CREATE ON SCHEMA public TO bob');
    await admin.end();
  }
  const client = new pg.Client({ connectionString: cluster.dsn() });
  await client.connect();
  await client.query(`
    CREATE FUNCTION leave_setting(v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.tenant', v, false); END $$;
    CREATE FUNCTION leave_lock() RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock(77)';
    CREATE FUNCTION leave_table() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CREATE TEMP TABLE left_over (x int); END $$;
    CREATE FUNCTION leave_by_view() RETURNS void LANGUAGE sql AS $$ UPDATE pg_settings SET setting = '7777' WHERE name = 'work_mem' $$;
    CREATE FUNCTION outer_call(v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM leave_setting(v); END $$;
    CREATE FUNCTION else_sets() RETURNS void LANGUAGE plpgsql AS $$ BEGIN IF false THEN NULL; ELSE /* so */ SET app.tenant = 'else'; END IF; END $$;
    CREATE PROCEDURE calls_it() LANGUAGE plpgsql AS $$ BEGIN PERFORM leave_setting('called'); END $$;
    CREATE FUNCTION harmless(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x + 1';
    CREATE SEQUENCE numbers;
    CREATE TABLE plain (id int PRIMARY KEY, note text);
  `);
  await client.query(
    `CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz, note text) WITH (postern.door = 'sharded', postern.key = 'id')`,
  );
  await client.query(
    `CREATE TABLE days (day date PRIMARY KEY, note text) WITH (postern.door = 'sharded', postern.key = 'day')`,
  );
  await client.end();
});

afterAll(() => cluster.stop());

const TENANT = `SELECT coalesce(nullif(current_setting('app.tenant', true), ''), 'none')`;

/** Runs `texts` as one client, and gives what a fresh client then sees of `question`. */
async function seenAfter(texts: readonly string[], question: string): Promise<unknown> {
  const first = await connectClient(cluster);
  for (const text of texts) await first.query(text).catch(() => {});
  const second = await connectClient(cluster);
  const seen = await value(second, question);
  await second.end();
  await first.end();
  return seen;
}

describe('settings', () => {
  it.each([
    [`SET app.tenant = 'mine'`],
    [`SELECT set_config('app.tenant', 'mine', false)`],
    [`SELECT pg_catalog.set_config('APP.tenant', 'mine', false)`],
    [`WITH c AS MATERIALIZED (SELECT set_config('app.tenant', 'mine', false)) SELECT * FROM c`],
    [`SELECT set_config('app.other', '1', false), set_config('app.tenant', 'mine', false)`],
    [`SELECT set_config('app.' || 'tenant', 'mine', false)`],
    [`SELECT set_config(name, 'mine', false) FROM (VALUES ('app.tenant')) AS v (name)`],
    [`SET app.tenant = 'mine'; SELECT 1`],
    [`BEGIN; SET app.tenant = 'mine'; COMMIT`],
    [`DO $$ BEGIN PERFORM set_config('app.tenant', 'mine', false); END $$`],
    [`SELECT leave_setting('mine')`],
    [`SELECT public.leave_setting('mine')`],
    [`SELECT outer_call('mine')`],
    ['SELECT else_sets()'],
    ['CALL calls_it()'],
    [`SELECT query_to_xml($$SELECT set_config('app.tenant', 'mine', false)$$, true, true, '')`],
    [`EXPLAIN ANALYZE SELECT leave_setting('mine')`],
    [`PREPARE p AS SELECT set_config('app.tenant', 'mine', false); EXECUTE p`],
    [`SELECT note, leave_setting('mine') FROM events WHERE id = 4`],
  ])('%s', async (text) => {
    expect(await seenAfter([text], TENANT)).toBe('none');
  });

  it('made by a function of the same transaction, or replaced in it', async () => {
    const make = (name: string, body: string) =>
      `CREATE OR REPLACE FUNCTION ${name}() RETURNS void LANGUAGE plpgsql AS $$ BEGIN ${body} END $$`;
    const sets = `PERFORM set_config('app.tenant', 'mine', false);`;
    expect(await seenAfter(['BEGIN', make('fresh', sets), 'SELECT fresh()', 'COMMIT'], TENANT)).toBe('none');
    expect(await seenAfter([`${make('fresh_too', sets)}; SELECT fresh_too()`], TENANT)).toBe('none');
    expect(
      await seenAfter(
        [
          make('changing', 'NULL;'),
          'SELECT changing()',
          'BEGIN',
          make('changing', sets),
          'SELECT changing()',
          'COMMIT',
        ],
        TENANT,
      ),
    ).toBe('none');
  });

  it('on another node than the session keeps a backend on', async () => {
    for (const key of [1, 2, 3, 4, 5, 6]) {
      const first = await connectClient(cluster);
      await first.query('SELECT pg_advisory_lock_shared(77)');
      await first.query(`INSERT INTO events VALUES ($1, now(), 'x') ON CONFLICT DO NOTHING`, [key]);
      await first.query(`SELECT set_config('app.' || 'tenant', 'mine', false) FROM events WHERE id = ${key}`);
      const second = await connectClient(cluster);
      expect(await value(second, `${TENANT} FROM events WHERE id = ${key}`)).toBe('none');
      await Promise.all([first.end(), second.end()]);
    }
  });

  it('reverts with its transaction, and a start-up value is what RESET goes back to', async () => {
    const client = await connectClient(cluster, { options: '-c TimeZone=Asia/Tokyo -c app.tenant=own' });
    const zone = () => value(client, 'SHOW TimeZone');
    expect(await zone()).toBe('Asia/Tokyo');
    await client.query('BEGIN');
    await client.query(`SET TimeZone = 'America/New_York'`);
    await client.query('ROLLBACK');
    expect(await zone()).toBe('Asia/Tokyo');
    await client.query(`SET TimeZone = 'America/New_York'`);
    expect(await zone()).toBe('America/New_York');
    await client.query('RESET TimeZone');
    expect(await zone()).toBe('Asia/Tokyo');
    for (const reset of ['RESET TimeZone', 'RESET ALL', 'SET TimeZone TO DEFAULT']) {
      await client.query(`SET TimeZone = 'America/New_York'`);
      await client.query('BEGIN');
      await client.query(reset);
      expect(await zone()).toBe('Asia/Tokyo');
      await client.query('ROLLBACK');
      expect(await zone()).toBe('America/New_York');
      await client.query(`BEGIN; ${reset}; COMMIT`);
      expect(await zone()).toBe('Asia/Tokyo');
      // A reset that does not take place changes nothing.
      await client.query(`SET TimeZone = 'America/New_York'`);
      await expect(client.query(`${reset}; SELECT 1/0`)).rejects.toThrow('division');
      expect(await zone()).toBe('America/New_York');
    }
    await client.query(`SET app.tenant = 'x'; SET ROLE bob`);
    await client.query('RESET ALL');
    expect(await values(client, `SELECT current_setting('app.tenant'), current_user`)).toEqual([
      ['own', 'bob'],
    ]);
    await client.query('DISCARD ALL');
    expect(await values(client, `SELECT current_setting('TimeZone'), current_user`)).toEqual([
      ['Asia/Tokyo', 'app'],
    ]);
  });

  it('RESET ALL also resets what the router could not follow', async () => {
    const client = await connectClient(cluster, { options: '-c DateStyle=German' });
    await client.query(`SELECT set_config('app.' || 'tenant', 'mine', false)`);
    expect(await value(client, TENANT)).toBe('mine');
    await client.query('RESET ALL');
    expect(await value(client, TENANT)).toBe('none');
    expect(await value(client, 'SHOW DateStyle')).toBe('German, DMY');
  });

  it('SET SESSION CHARACTERISTICS is of its session', async () => {
    const first = await connectClient(cluster);
    const second = await connectClient(cluster);
    await first.query('SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE');
    for (let i = 0; i < 3; i++) {
      expect(await value(first, 'SHOW transaction_read_only')).toBe('on');
      expect(await value(first, 'SHOW transaction_isolation')).toBe('serializable');
      expect(await value(second, 'SHOW transaction_read_only')).toBe('off');
      expect(await value(second, 'SHOW transaction_isolation')).toBe('read committed');
    }
  });

  it('a literal means what it means in the settings of the client that sends it', async () => {
    const text = `SELECT extract(epoch FROM '2020-01-01 00:00'::timestamptz)::int AS at, '01/02/2020'::date::text AS day`;
    const clients = await Promise.all([
      connectClient(cluster, { options: '-c TimeZone=UTC -c DateStyle=ISO,MDY' }),
      connectClient(cluster, { options: '-c TimeZone=Asia/Tokyo -c DateStyle=ISO,DMY' }),
      connectClient(cluster, { options: '-c TimeZone=America/New_York -c DateStyle=ISO,MDY' }),
    ]);
    const expected = [
      { at: 1577836800, day: '2020-01-02' },
      { at: 1577804400, day: '2020-02-01' },
      { at: 1577854800, day: '2020-01-02' },
    ];
    for (let round = 0; round < 4; round++) {
      for (const [i, client] of clients.entries()) {
        expect((await client.query({ name: 'same', text })).rows).toEqual([expected[i]]);
      }
    }
    // Also while a transaction has other settings than its session.
    await clients[0]!.query('BEGIN');
    await clients[0]!.query(`SET LOCAL TimeZone = 'Asia/Tokyo'`);
    expect((await clients[0]!.query({ text, values: [] })).rows[0].at).toBe(1577804400);
    await clients[0]!.query('COMMIT');
    expect((await clients[2]!.query({ text, values: [] })).rows).toEqual([expected[2]]);
    expect((await clients[0]!.query({ text, values: [] })).rows).toEqual([expected[0]]);
  });

  it('a key is read in the settings of the transaction that sends it', async () => {
    const client = await connectClient(cluster);
    await client.query(`INSERT INTO days VALUES ('2021-02-01', 'first of February') ON CONFLICT DO NOTHING`);
    await client.query(`INSERT INTO days VALUES ('2021-01-02', 'second of January') ON CONFLICT DO NOTHING`);
    const ask = `SELECT note FROM days WHERE day = '01/02/2021'`;
    expect(await value(client, ask)).toBe('second of January');
    await client.query('BEGIN');
    await client.query('SET LOCAL DateStyle = DMY');
    expect(await value(client, ask)).toBe('first of February');
    await client.query('COMMIT');
    expect(await value(client, ask)).toBe('second of January');
    const both = client.query('SET DateStyle = DMY');
    const at = value(client, ask);
    await both;
    expect(await at).toBe('first of February');
  });

  it('a transaction takes its settings along to the node of its first keyed statement', async () => {
    const first = await connectClient(cluster);
    const second = await connectClient(cluster);
    for (let key = 1; key <= 20; key++) {
      await first.query(`INSERT INTO events VALUES ($1, now(), 'x') ON CONFLICT DO NOTHING`, [key]);
      await first.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
      await first.query(`SELECT set_config('app.tenant', $1, true)`, [`t${key}`]);
      await first.query(`SET LOCAL ROLE bob`);
      await first.query('RESET ROLE');
      const text = `SELECT current_setting('app.tenant', true), current_setting('transaction_isolation') FROM events WHERE id = $1`;
      expect(await values(first, text, [key])).toEqual([[`t${key}`, 'repeatable read']]);
      await first.query(key % 2 === 0 ? 'COMMIT' : 'ROLLBACK');
      expect(await value(first, `${TENANT} FROM events WHERE id = $1`, [key])).toBe('none');
      expect(await value(second, `${TENANT} FROM events WHERE id = $1`, [key])).toBe('none');
    }
  });

  it('the parameters that each client is told are its own', async () => {
    const told = (client: pg.Client) => {
      const heard = new Map<string, string>();
      (client as unknown as { connection: NodeJS.EventEmitter }).connection.on(
        'parameterStatus',
        (message: { parameterName: string; parameterValue: string }) =>
          heard.set(message.parameterName, message.parameterValue),
      );
      return heard;
    };
    const first = await connectClient(cluster, { application_name: 'first' });
    const second = await connectClient(cluster, { application_name: 'second' });
    const hears = [told(first), told(second)];
    await first.query(`SET TimeZone = 'Asia/Tokyo'`);
    for (let i = 0; i < 3; i++) {
      await second.query('SELECT 1');
      await first.query('SELECT 1');
    }
    expect(hears[0]!.get('TimeZone')).toBe('Asia/Tokyo');
    expect(hears[1]!.get('TimeZone')).toBeUndefined();
    expect(hears[0]!.get('application_name')).toBeUndefined();
    expect(await value(first, 'SHOW application_name')).toBe('first');
  });

  it('settings under which the router would misread its client are refused at the start too', async () => {
    for (const options of [
      '-c standard_conforming_strings=off',
      '-c client_encoding=LATIN1',
      '-c search_path=postern_leaves',
    ]) {
      await expect(connectClient(cluster, { options })).rejects.toThrow();
    }
  });
});

describe('names', () => {
  it('one table name in two schemas, also under a prepared statement', async () => {
    const client = await connectClient(cluster);
    for (const schema of ['one', 'two']) {
      await client.query(`CREATE SCHEMA ${schema}`);
      await client.query(`CREATE TABLE ${schema}.home_notes (id int, note text)`);
      await client.query(`INSERT INTO ${schema}.home_notes VALUES (1, '${schema}')`);
      await client.query(
        `CREATE TABLE ${schema}.notes (id bigint PRIMARY KEY, note text) WITH (postern.door = 'sharded', postern.key = 'id')`,
      );
      await client.query(`INSERT INTO ${schema}.notes VALUES (1, '${schema}')`);
    }
    const other = await connectClient(cluster, { options: '-c search_path=two' });
    for (const schema of ['one', 'two', 'one']) {
      await client.query(`SET search_path = ${schema}`);
      for (const table of ['home_notes', 'notes']) {
        const text = `SELECT note FROM ${table} WHERE id = $1`;
        const asked = { name: `by_id_${table}`, text, values: [1] };
        expect((await client.query(asked)).rows).toEqual([{ note: schema }]);
        expect((await other.query(asked)).rows).toEqual([{ note: 'two' }]);
        expect(await value(client, `SELECT note FROM ${table} WHERE id = 1`)).toBe(schema);
        expect(await value(other, `SELECT note FROM ${table} WHERE id = 1`)).toBe('two');
      }
    }
    await client.query('BEGIN');
    await client.query('SET LOCAL search_path = two');
    const text = 'SELECT note FROM notes WHERE id = $1';
    expect((await client.query({ name: 'by_id_notes', text, values: [1] })).rows).toEqual([{ note: 'two' }]);
    await client.query('ROLLBACK');
    expect((await client.query({ name: 'by_id_notes', text, values: [1] })).rows).toEqual([{ note: 'one' }]);
  });

  it('roles, by SET ROLE and by RESET', async () => {
    const first = await connectClient(cluster);
    const second = await connectClient(cluster);
    await first.query('SET ROLE bob');
    await second.query('SET ROLE carol');
    for (let i = 0; i < 5; i++) {
      expect(await value(first, 'SELECT current_user')).toBe('bob');
      expect(await value(second, 'SELECT current_user')).toBe('carol');
    }
    await first.query('RESET ROLE');
    expect(await value(first, 'SELECT current_user')).toBe('app');
    expect(await value(second, 'SELECT current_user')).toBe('carol');
  });
});

describe('what needs a backend of its own', () => {
  it.each([
    ['a session lock', 'SELECT pg_advisory_lock(77)', 'SELECT pg_advisory_unlock(77)::text', 'false'],
    ['a session lock by a function', 'SELECT leave_lock()', 'SELECT pg_advisory_unlock(77)::text', 'false'],
    [
      'a temporary table',
      'CREATE TEMP TABLE left_over (x int)',
      `SELECT coalesce(to_regclass('left_over')::text, 'none')`,
      'none',
    ],
    [
      'a temporary table by a function',
      'SELECT leave_table()',
      `SELECT coalesce(to_regclass('left_over')::text, 'none')`,
      'none',
    ],
    [
      'a temporary table by search_path',
      `SET search_path = pg_temp, public; CREATE TABLE left_over (x int)`,
      `SELECT coalesce(to_regclass('pg_temp.left_over')::text, 'none')`,
      'none',
    ],
    [
      'SELECT INTO TEMP',
      'SELECT 1 AS x INTO TEMP left_over',
      `SELECT coalesce(to_regclass('left_over')::text, 'none')`,
      'none',
    ],
    [
      'PREPARE',
      'PREPARE left_over AS SELECT 1',
      `SELECT count(*)::text FROM pg_prepared_statements WHERE name = 'left_over'`,
      '0',
    ],
    [
      'a cursor WITH HOLD',
      'DECLARE left_over CURSOR WITH HOLD FOR SELECT 1',
      `SELECT count(*)::text FROM pg_cursors WHERE name = 'left_over'`,
      '0',
    ],
    ['LISTEN', 'BEGIN; LISTEN left_over; COMMIT', 'SELECT count(*)::text FROM pg_listening_channels()', '0'],
    [
      'a setting by the view of them',
      "UPDATE pg_settings SET setting = '7777' WHERE name = 'work_mem'",
      'SHOW work_mem',
      '4MB',
    ],
    ['a setting by a function that writes to that view', 'SELECT leave_by_view()', 'SHOW work_mem', '4MB'],
  ])('%s', async (_what, text, question, expected) => {
    expect(await seenAfter(text.split('; '), question)).toBe(expected);
    // And with its client it goes.
    await expect.poll(() => ownBackends(), { timeout: 10_000 }).toBe(0);
    const third = await connectClient(cluster);
    expect(await value(third, question)).toBe(expected);
  });

  it('random numbers after setseed are foreseen by nobody else', async () => {
    const seeded: unknown[] = [];
    for (const text of ['SELECT setseed(0.5)', 'SET seed = 0.5', `SELECT set_config('seed', '0.5', false)`]) {
      const client = await connectClient(cluster);
      await client.query(text);
      seeded.push(await value(client, 'SELECT random()'));
      const other = await connectClient(cluster);
      expect(seeded).not.toContain(await value(other, 'SELECT random()'));
      await Promise.all([client.end(), other.end()]);
    }
    expect(new Set(seeded).size).toBe(1);
  });

  it('currval and lastval are the session’s own, whatever the backend', async () => {
    const first = await connectClient(cluster);
    const drawn = await value(first, `SELECT nextval('numbers')`);
    const second = await connectClient(cluster);
    for (const text of [`SELECT currval('numbers')`, 'SELECT lastval()']) {
      expect(await value(second, text)).toBe('!55000');
      expect(await value(first, text)).toBe(drawn);
    }
    await first.query('SELECT pg_advisory_lock_shared(77)');
    const next = await value(first, `SELECT nextval('numbers')`);
    expect(await value(first, 'SELECT lastval()')).toBe(next);
  });

  it('a session keeps what it has made, over many statements and beside others', async () => {
    const first = await connectClient(cluster);
    const second = await connectClient(cluster);
    await first.query('CREATE TEMP TABLE mine (x int)');
    await first.query('PREPARE again AS SELECT count(*)::int AS n FROM mine');
    for (let i = 1; i <= 10; i++) {
      await first.query('INSERT INTO mine VALUES (1)');
      expect(await value(second, 'SELECT 1')).toBe(1);
      expect(await value(first, 'EXECUTE again')).toBe(i);
      expect(await value(first, 'SELECT harmless($1::int)', [i])).toBe(i + 1);
    }
    await first.query('DEALLOCATE ALL; SELECT 1');
    expect(await value(first, 'SELECT harmless($1::int)', [1])).toBe(2);
    await first.query('DISCARD ALL');
    expect(await value(first, 'SELECT count(*) FROM mine')).toBe('!42P01');
  });

  it('a harmless function, or one that is not there, costs no backend', async () => {
    const clients = await Promise.all(Array.from({ length: 5 }, () => connectClient(cluster)));
    for (const client of clients) {
      expect(await value(client, 'SELECT harmless(1)')).toBe(2);
      expect(await value(client, 'SELECT not_there(1)')).toBe('!42883');
    }
    for (const client of clients) expect(await value(client, 'SELECT 1')).toBe(1);
  });
});

/** Backends of `app` on the home node that a session keeps for itself are seen by their locks and temporary schemas. */
async function ownBackends(): Promise<number> {
  const [row] = await cluster.servers[0]!.query(
    `SELECT count(*)::int AS n FROM pg_locks WHERE locktype = 'advisory' AND pid IN
       (SELECT pid FROM pg_stat_activity WHERE usename = 'app')`,
  );
  return Number(row!.n);
}

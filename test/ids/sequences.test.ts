/**
 * Sequences through the router: those of sharded tables (nextval, currval, lastval, setval, identity columns), and those of the home
 * node, beside what one PostgreSQL does.
 */

import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';

let cluster: TestCluster;
let client: pg.Client;

async function connect(user = 'app', dsn = cluster.dsn(user)): Promise<pg.Client> {
  const made = new pg.Client(dsn);
  made.on('error', () => {});
  await made.connect();
  return made;
}

beforeAll(async () => {
  cluster = await startTestCluster();
  const first = await connect();
  for (const text of [
    `CREATE TABLE accounts (id bigserial PRIMARY KEY, name text) WITH (postern.door = 'sharded', postern.key = 'id')`,
    `CREATE TABLE items (account_id bigint, n bigint GENERATED ALWAYS AS IDENTITY, code text, PRIMARY KEY (account_id, n))
       WITH (postern.door = 'sharded', postern.key = 'account_id')`,
    'CREATE TABLE plain (id serial PRIMARY KEY, v text)',
    'CREATE SEQUENCE alone',
    'CREATE TABLE notes (v text)',
  ])
    await first.query(text);
  await first.end();
});
afterAll(() => cluster.stop());
beforeEach(async () => {
  client = await connect();
  return () => client.end();
});

async function value(text: string, values?: unknown[], on = client): Promise<unknown> {
  try {
    const result = await on.query({
      text,
      rowMode: 'array',
      ...(values && { values, queryMode: 'extended' }),
    });
    const last = Array.isArray(result) ? result.at(-1) : result;
    return last.rows[0]?.[0];
  } catch (error) {
    return `!${(error as { code?: string }).code}`;
  }
}

const both: readonly [string, (text: string) => Promise<unknown>][] = [
  ['simple', (text) => value(text)],
  ['extended', (text) => value(text, [])],
];

describe('a sharded table’s sequence', () => {
  it.each(both)('nextval by itself, and currval and lastval behind it (%s)', async (_, ask) => {
    const id = await ask(`SELECT nextval('accounts_id_seq')`);
    expect(Number(id)).toBeGreaterThan(0);
    expect(await ask(`SELECT currval('accounts_id_seq')`)).toBe(id);
    expect(await ask('SELECT lastval()')).toBe(id);
    expect(await ask(`SELECT currval('public.accounts_id_seq'::regclass)`)).toBe(id);
    expect(await ask(`SELECT currval(pg_get_serial_sequence('accounts', 'id'))`)).toBe(id);
    expect(await ask(`SELECT lastval() + 1 AS next`)).toBe(String(Number(id) + 1));
  });

  it.each(both)('again and again, as texts that are prepared (%s)', async (_, ask) => {
    for (let i = 0; i < 8; i++) {
      const id = await ask(`SELECT nextval('accounts_id_seq')`);
      expect(await ask('SELECT lastval()')).toBe(id);
      const given = await ask(`INSERT INTO accounts (name) VALUES ('${i}') RETURNING id`);
      expect(await ask(`SELECT currval('accounts_id_seq')`)).toBe(given);
      await ask(`INSERT INTO accounts (id, name) VALUES (nextval('accounts_id_seq'), '${i}')`);
      expect(await ask(`SELECT name FROM accounts WHERE id = ${await ask('SELECT lastval()')}`)).toBe(
        String(i),
      );
    }
  });

  it.each(both)('of an id that an INSERT was given (%s)', async (_, ask) => {
    expect(await ask('SELECT lastval()')).toBe('!55000');
    expect(await ask(`SELECT currval('accounts_id_seq')`)).toBe('!55000');
    const id = await ask(`INSERT INTO accounts (name) VALUES ('x') RETURNING id`);
    expect(await ask('SELECT lastval()')).toBe(id);
    expect(await ask(`SELECT currval('accounts_id_seq')`)).toBe(id);
    // The columns are called as PostgreSQL calls them.
    const { fields } = await client.query(`SELECT lastval(), currval('accounts_id_seq') AS here, 1`);
    expect(fields.map(({ name }) => name)).toEqual(['lastval', 'here', '?column?']);
  });

  it('sessions do not hear of one another', async () => {
    const other = await connect();
    const mine = await value(`INSERT INTO accounts (name) VALUES ('mine') RETURNING id`);
    const theirs = await value(
      `INSERT INTO accounts (name) VALUES ('theirs') RETURNING id`,
      undefined,
      other,
    );
    expect(await value('SELECT lastval()')).toBe(mine);
    expect(await value('SELECT lastval()', undefined, other)).toBe(theirs);
    await other.end();
  });

  it('in VALUES: keys, other columns, several rows, prepared', async () => {
    const id = await value(
      `INSERT INTO accounts (id, name) VALUES (nextval('accounts_id_seq'), 'v') RETURNING id`,
    );
    await client.query(
      `INSERT INTO items (account_id, code) VALUES (currval('accounts_id_seq'), 'of ' || currval('accounts_id_seq'))`,
    );
    expect(await value(`SELECT code FROM items WHERE account_id = ${id}`)).toBe(`of ${id}`);
    const text = `INSERT INTO accounts (id, name) VALUES (nextval('accounts_id_seq'), $1), (nextval('accounts_id_seq'), $1) RETURNING id`;
    const ids = new Set<string>();
    for (let i = 0; i < 20; i++) {
      const { rows } = await client.query({ name: 'two', text, values: [`r${i}`] });
      for (const row of rows) ids.add(row.id);
    }
    expect(ids.size).toBe(40);
    await client.query(`INSERT INTO items (account_id, code) VALUES (lastval(), 'last')`);
    expect(await value(`SELECT code FROM items WHERE account_id = $1`, [[...ids].at(-1)])).toBe('last');
  });

  it('in batches, and never twice', async () => {
    const seen = new Set<string>();
    const add = (id: string) => {
      expect(seen.has(id)).toBe(false);
      seen.add(id);
    };
    for (let i = 0; i < 5; i++) {
      const { rows } = await client.query(
        `SELECT nextval('accounts_id_seq') AS id FROM generate_series(1, 100)`,
      );
      for (const { id } of rows) add(id);
      expect(await value('SELECT lastval()')).toBe(rows.at(-1).id);
      add((await value(`INSERT INTO accounts (name) VALUES ('b') RETURNING id`)) as string);
      add((await value(`INSERT INTO accounts DEFAULT VALUES RETURNING id`)) as string);
      add((await value(`INSERT INTO accounts (id) VALUES (DEFAULT) RETURNING id`)) as string);
    }
    expect(seen.size).toBe(515);
  });

  it('setval and ALTER SEQUENCE … RESTART hold for the next INSERT, here and in another router', async () => {
    const { startRouter } = await import('../../src/cli/router.ts');
    const second = await startRouter(cluster.routerOptions);
    const other = await connect('app', cluster.dsn().replace(`:${cluster.port}/`, `:${second.port}/`));
    const insert = `INSERT INTO accounts (name) VALUES ('s') RETURNING id`;
    try {
      await value(insert);
      await value(insert, undefined, other);
      await client.query(`SELECT setval('accounts_id_seq', 1000000)`);
      expect(Number(await value(insert))).toBeGreaterThan(1_000_000);
      await expect.poll(async () => Number(await value(insert, undefined, other))).toBeGreaterThan(1_000_000);
      await client.query('ALTER SEQUENCE accounts_id_seq RESTART WITH 2000000');
      expect(Number(await value(insert))).toBeGreaterThanOrEqual(2_000_000);
      await client.query('BEGIN');
      await client.query('ALTER SEQUENCE accounts_id_seq RESTART WITH 3000000');
      await client.query('COMMIT');
      expect(Number(await value(insert))).toBeGreaterThanOrEqual(3_000_000);
      expect(await value(`SELECT pg_get_serial_sequence('accounts', 'id')`)).toBe('public.accounts_id_seq');
    } finally {
      await other.end();
      await second.close();
    }
  });

  it('TRUNCATE … RESTART IDENTITY and ALTER COLUMN … RESTART begin again, in a transaction and outside, or not at all', async () => {
    const { startRouter } = await import('../../src/cli/router.ts');
    const second = await startRouter(cluster.routerOptions);
    const other = await connect('app', cluster.dsn().replace(`:${cluster.port}/`, `:${second.port}/`));
    await client.query(
      `CREATE TABLE restarted (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n serial, v text)
         WITH (postern.door = 'sharded', postern.key = 'id')`,
    );
    const insert = `INSERT INTO restarted (v) VALUES ('s') RETURNING id || ' ' || n`;
    try {
      for (const on of [client, other]) await value(insert, undefined, on);
      await client.query('TRUNCATE restarted RESTART IDENTITY');
      expect(await value(insert)).toMatch(/^\d{1,3} 1$/);
      // The other router has its blocks from the new beginning, too.
      await expect
        .poll(async () => Number.parseInt(String(await value(insert, undefined, other)), 10))
        .toBeLessThan(2500);
      await client.query('ALTER TABLE restarted ALTER COLUMN id RESTART WITH 500000');
      expect(await value(insert)).toMatch(/^500\d{3} /);
      for (const end of ['ROLLBACK', 'COMMIT']) {
        await client.query('BEGIN');
        await client.query('TRUNCATE restarted RESTART IDENTITY');
        expect(await value(insert)).toMatch(/^\d{1,3} 1$/);
        await client.query('ALTER TABLE restarted ALTER id RESTART WITH 600000');
        expect(await value(insert)).toMatch(/^600\d{3} /);
        await client.query(end);
        const id = Number.parseInt(String(await value(insert)), 10);
        if (end === 'COMMIT') expect(id).toBeGreaterThanOrEqual(600_000);
        else expect(Math.trunc(id / 100_000)).toBe(5);
      }
      expect(await value('ALTER TABLE restarted ALTER COLUMN id SET INCREMENT 2')).toBe('!0A000');
    } finally {
      await other.end();
      await second.close();
      await client.query('DROP TABLE restarted');
    }
  });

  it('an explicit id leaves the sequence where it is', async () => {
    const before = Number(await value(`SELECT nextval('accounts_id_seq')`));
    await client.query(`INSERT INTO accounts (id, name) VALUES (${before + 5_000_000}, 'explicit')`);
    expect(Number(await value(`SELECT nextval('accounts_id_seq')`))).toBe(before + 1);
  });

  it('elsewhere on a sharded table it is refused', async () => {
    for (const text of [
      `UPDATE accounts SET name = nextval('accounts_id_seq')::text WHERE id = 1`,
      `SELECT nextval('accounts_id_seq'), name FROM accounts WHERE id = 1`,
      'SELECT * FROM accounts WHERE id = lastval()',
      `INSERT INTO accounts (id) VALUES (nextval('alone'))`,
      `INSERT INTO accounts (id) VALUES (setval('accounts_id_seq', 7))`,
      'UPDATE accounts SET id = DEFAULT WHERE id = 1',
    ])
      expect([text, await value(text)]).toEqual([text, '!0A000']);
  });

  it('rows of a query get ids of the home node', async () => {
    await client.query(`INSERT INTO plain (v) SELECT 'p' FROM generate_series(1, 3)`);
    const { rowCount } = await client.query(
      `INSERT INTO accounts (id, name) SELECT nextval('accounts_id_seq'), v FROM plain`,
    );
    expect(rowCount).toBeGreaterThanOrEqual(3);
  });
});

describe('GENERATED ALWAYS', () => {
  it.each(both)('takes a value with OVERRIDING SYSTEM VALUE only (%s)', async (_, ask) => {
    expect(await ask('INSERT INTO items (account_id, n) VALUES (7, 1)')).toBe('!428C9');
    expect(await ask('INSERT INTO items (account_id, n) SELECT 7, 1')).toBe('!428C9');
    const overridden = await ask(
      'INSERT INTO items (account_id, n) OVERRIDING SYSTEM VALUE VALUES (7, -5) RETURNING n',
    );
    expect(overridden).toBe('-5');
    const own = await ask(
      'INSERT INTO items (n, account_id) OVERRIDING USER VALUE VALUES (abs(-77, 1), 7) RETURNING n'.replace(
        'abs(-77, 1)',
        'mod(-77, 10)',
      ),
    );
    expect(Number(own)).toBeGreaterThan(0);
    expect(
      Number(await ask('INSERT INTO items (account_id, n) VALUES (7, DEFAULT) RETURNING n')),
    ).toBeGreaterThan(0);
    expect(await ask('UPDATE items SET n = 9 WHERE account_id = 7')).toBe('!428C9');
    expect(await ask('DELETE FROM items WHERE account_id = 7')).toBeUndefined();
  });
});

describe('sequences of the home node', () => {
  it.each(both)('nextval that the router has seen (%s)', async (_, ask) => {
    const one = await ask(`SELECT nextval('alone') AS n`);
    expect(await ask(`SELECT currval('alone')`)).toBe(one);
    expect(await ask('SELECT lastval()')).toBe(one);
    const { rows } = await client.query({
      text: `SELECT 1 AS x, nextval('alone') FROM generate_series(1, 3)`,
      rowMode: 'array',
    });
    expect(await ask(`SELECT currval('alone')`)).toBe(rows[2]![1]);
    expect(await ask(`SELECT nextval('alone') = currval('alone')`)).toBe(true);
  });

  it.each(both)('a serial column, in the transaction that has inserted (%s)', async (_, ask) => {
    const other = await connect();
    for (const how of [
      "currval('plain_id_seq')",
      'lastval()',
      `currval(pg_get_serial_sequence('plain', 'id'))`,
    ]) {
      await client.query('BEGIN');
      const id = await ask(`INSERT INTO plain (v) VALUES ('t') RETURNING id`);
      await value(`INSERT INTO plain (v) VALUES ('u')`, undefined, other);
      expect(Number(await ask(`SELECT ${how}`))).toBe(id);
      await client.query('SAVEPOINT s');
      expect(Number(await ask(`INSERT INTO notes (v) VALUES (${how}::text) RETURNING v`))).toBe(id);
      await client.query('ROLLBACK');
    }
    await other.end();
  });

  it('one string of an INSERT and lastval()', async () => {
    const result = (await client.query(
      `INSERT INTO plain (v) VALUES ('s') RETURNING id; SELECT lastval() AS last`,
    )) as unknown as pg.QueryResult[];
    expect(Number(result[1]!.rows[0].last)).toBe(result[0]!.rows[0].id);
  });

  it('outside of a transaction: refused once, and kept from then on', async () => {
    const reader = await connect('postgres');
    const writer = await connect('postgres');
    await value(`INSERT INTO plain (v) VALUES ('a')`, undefined, reader);
    expect(await value('SELECT lastval()', undefined, reader)).toBe('!0A000');
    for (const session of [await connect('postgres'), await connect('postgres')]) {
      expect(await value('SELECT lastval()', undefined, session)).toBe('!55000');
      for (let i = 0; i < 3; i++) {
        const id = await value(`INSERT INTO plain (v) VALUES ('b') RETURNING id`, undefined, session);
        await value(`INSERT INTO plain (v) VALUES ('c')`, undefined, writer);
        expect(Number(await value('SELECT lastval()', undefined, session))).toBe(id);
        expect(Number(await value(`SELECT currval('plain_id_seq')`, [], session))).toBe(id);
      }
      await session.end();
    }
    await client.query('SET postern.keep_sequences = on');
    const id = await value(`INSERT INTO plain (v) VALUES ('d') RETURNING id`);
    expect(Number(await value('SELECT lastval()'))).toBe(id);
    await Promise.all([reader.end(), writer.end()]);
  });
});

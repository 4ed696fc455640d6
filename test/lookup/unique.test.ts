/** UNIQUE constraints off the shard key, through the router: in both protocols, in transactions and outside of them. */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { checkLookups } from './agreement.ts';

let cluster: TestCluster;
let client: pg.Client;

async function connect(): Promise<pg.Client> {
  const made = new pg.Client(cluster.dsn());
  made.on('error', () => {});
  await made.connect();
  return made;
}

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 3 });
  const first = await connect();
  await first.query(
    `CREATE TABLE accounts (id bigint PRIMARY KEY, email text UNIQUE, "Handle" varchar(20) CONSTRAINT handles UNIQUE NOT NULL, n int,
       UNIQUE (n, email)) WITH (postern.door = 'sharded', postern.key = 'id')`,
  );
  await first.end();
});
afterAll(() => cluster.stop());
beforeEach(async () => {
  client = await connect();
  await client.query('DELETE FROM accounts');
  return async () => {
    await client.end();
    expect(await checkLookups(cluster)).toEqual([]);
  };
});

async function errorOf(text: string, values?: unknown[], on = client) {
  try {
    await on.query({ text, ...(values && { values, queryMode: 'extended' }) } as pg.QueryConfig);
    return undefined;
  } catch (error) {
    const { code, message, detail, constraint, table, schema } = error as pg.DatabaseError;
    return { code, message, detail, constraint, table, schema };
  }
}

const emailIsTaken = (email: string) => ({
  code: '23505',
  message: 'duplicate key value violates unique constraint "accounts_email_key"',
  detail: `Key (email)=(${email}) already exists.`,
  constraint: 'accounts_email_key',
  table: 'accounts',
  schema: 'public',
});

async function rows(): Promise<unknown[]> {
  const result = await client.query({
    text: 'SELECT id, email FROM accounts ORDER BY id',
    rowMode: 'array',
  });
  return result.rows.map(([id, email]) => [Number(id), email]);
}

const insert = (id: number, email: string | null) =>
  `INSERT INTO accounts (id, email, "Handle") VALUES (${id}, ${email === null ? 'NULL' : `'${email}'`}, 'h${id}')`;

describe('a value that another row has, wherever it is', () => {
  it.each([
    ['simple', undefined],
    ['extended', []],
  ])('is refused, and nothing has happened (%s)', async (_, values) => {
    for (let id = 1; id <= 20; id++) expect(await errorOf(insert(id, `e${id}`), values)).toBeUndefined();
    for (let id = 1; id <= 20; id++)
      expect(await errorOf(insert(100 + id, `e${id}`), values)).toEqual(emailIsTaken(`e${id}`));
    expect(await errorOf(`UPDATE accounts SET email = 'e1' WHERE id = 7`, values)).toEqual(
      emailIsTaken('e1'),
    );
    expect((await rows()).length).toBe(20);
    expect(await errorOf(insert(200, "o''neil\"\\ü"), values)).toBeUndefined();
    expect(await errorOf(insert(201, "o''neil\"\\ü"), values)).toMatchObject({ code: '23505' });
  });

  it('prepared, with RETURNING, and with values of all kinds', async () => {
    const text = 'INSERT INTO accounts (id, email, "Handle", n) VALUES ($1, $2, $3, $4) RETURNING id, email';
    for (let id = 1; id <= 30; id++) {
      const result = await client.query({ name: 'insert', text, values: [id, `p${id}`, `h${id}`, id % 3] });
      expect(result.rows).toEqual([{ id: String(id), email: `p${id}` }]);
    }
    await expect(client.query({ name: 'insert', text, values: [99, 'p30', 'h99', 1] })).rejects.toMatchObject(
      {
        code: '23505',
      },
    );
    await expect(client.query({ name: 'insert', text, values: [99, 'p99', 'h30', 1] })).rejects.toMatchObject(
      {
        code: '23505',
        constraint: 'handles',
        detail: 'Key ("Handle")=(h30) already exists.',
      },
    );
  });

  it('may be NULL as often as one likes', async () => {
    for (let id = 1; id <= 5; id++) await client.query(insert(id, null));
    await client.query(`UPDATE accounts SET email = 'was null' WHERE id = 1`);
    await client.query(`UPDATE accounts SET email = NULL WHERE id = 1`);
    await client.query(insert(6, 'was null'));
  });

  it('is free again when its row is gone, or has another', async () => {
    await client.query(insert(1, 'a'));
    await client.query('DELETE FROM accounts WHERE id = 1');
    await client.query(insert(2, 'a'));
    await client.query(`UPDATE accounts SET email = 'b' WHERE id = 2`);
    await client.query(insert(3, 'a'));
    expect(await rows()).toEqual([
      [2, 'b'],
      [3, 'a'],
    ]);
  });
});

describe('several rows', () => {
  it('of one INSERT, that are in conflict with one another', async () => {
    const values = Array.from({ length: 12 }, (_, i) => `(${i}, 'm${i % 11}', 'h${i}')`).join(', ');
    expect(await errorOf(`INSERT INTO accounts (id, email, "Handle") VALUES ${values}`)).toEqual(
      emailIsTaken('m0'),
    );
    expect(await rows()).toEqual([]);
  });

  it('may swap their values in one statement', async () => {
    await client.query(insert(1, 'a'));
    await client.query(insert(2, 'b'));
    await client.query(`UPDATE accounts SET email = CASE email WHEN 'a' THEN 'b' ELSE 'a' END`);
    expect(await rows()).toEqual([
      [1, 'b'],
      [2, 'a'],
    ]);
  });

  it('change all at once, by thousands', async () => {
    await client.query(
      `CREATE TABLE IF NOT EXISTS source AS SELECT i AS id, 'bulk ' || i AS email FROM generate_series(1, 5000) i`,
    );
    await client.query('INSERT INTO accounts (id, email, "Handle") SELECT id, email, email FROM source');
    await client.query(`UPDATE accounts SET email = upper(email)`);
    expect(await errorOf(`UPDATE accounts SET email = 'one for all' WHERE id < 100`)).toMatchObject({
      code: '23505',
    });
    expect(await errorOf(insert(9999, 'BULK 4321'))).toEqual(emailIsTaken('BULK 4321'));
    await client.query(`DELETE FROM accounts WHERE id % 2 = 0`);
    await client.query(insert(9999, 'BULK 4320'));
  });

  it('get other shard keys', async () => {
    for (let id = 1; id <= 6; id++) await client.query(insert(id, `k${id}`));
    for (let id = 1; id <= 6; id++)
      await client.query(`UPDATE accounts SET id = ${id + 50} WHERE id = ${id}`);
    expect(await errorOf(insert(1, 'k3'))).toEqual(emailIsTaken('k3'));
    await client.query('DELETE FROM accounts WHERE id = 53');
    await client.query(insert(3, 'k3'));
  });
});

describe('in a transaction', () => {
  it('a violation fails it, up to a savepoint', async () => {
    await client.query(insert(1, 'a'));
    await client.query('BEGIN');
    await client.query(insert(2, 'b'));
    await client.query('SAVEPOINT s');
    await client.query(insert(3, 'c'));
    expect(await errorOf(insert(4, 'a'))).toEqual(emailIsTaken('a'));
    expect(await errorOf('SELECT 1')).toMatchObject({ code: '25P02' });
    await client.query('ROLLBACK TO s');
    await client.query(insert(5, 'c'));
    await client.query('COMMIT');
    expect(await rows()).toEqual([
      [1, 'a'],
      [2, 'b'],
      [5, 'c'],
    ]);
  });

  it('rolled back, nothing of it is kept', async () => {
    await client.query('BEGIN');
    await client.query(insert(1, 'r'));
    await client.query('ROLLBACK');
    await client.query(insert(2, 'r'));
    await client.query('BEGIN');
    await client.query('DELETE FROM accounts WHERE id = 2');
    await client.query(insert(3, 'r'));
    await client.query('ROLLBACK');
    expect(await errorOf(insert(4, 'r'))).toEqual(emailIsTaken('r'));
  });

  it('waits for another that has the value, and hears how it ends', async () => {
    const other = await connect();
    for (const [end, expected] of [
      ['COMMIT', emailIsTaken('w')],
      ['ROLLBACK', undefined],
    ] as const) {
      await client.query('DELETE FROM accounts');
      await other.query('BEGIN');
      await other.query(insert(1, 'w'));
      const waiting = errorOf(insert(2, 'w'));
      await expect
        .poll(async () => {
          const waits = await Promise.all(
            cluster.servers.map((server) =>
              server.query(
                `SELECT count(*)::int AS n FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'`,
              ),
            ),
          );
          return waits.reduce((sum, [row]) => sum + Number(row!.n), 0);
        })
        .toBeGreaterThan(0);
      await other.query(end);
      expect(await waiting).toEqual(expected);
    }
    await other.end();
  });
});

describe('what is refused', () => {
  it.each([
    `INSERT INTO accounts (id, email, "Handle") VALUES (1, 'x', 'x') ON CONFLICT (email) DO NOTHING`,
    `INSERT INTO accounts (id, email, "Handle") VALUES (1, 'x', 'x') ON CONFLICT DO NOTHING`,
    `INSERT INTO accounts (id, email, "Handle") VALUES (1, 'x', 'x') ON CONFLICT ON CONSTRAINT handles DO UPDATE SET n = 1`,
    'CREATE UNIQUE INDEX ON accounts (lower(email))',
    'CREATE UNIQUE INDEX ON accounts (email) WHERE n > 0',
    'ALTER TABLE accounts ADD UNIQUE (email) DEFERRABLE',
    'ALTER TABLE accounts DROP COLUMN email',
    'ALTER TABLE accounts ALTER COLUMN email TYPE varchar(9)',
    'ALTER TABLE accounts RENAME COLUMN email TO mail',
    `CREATE TABLE bad (id int PRIMARY KEY, j jsonb UNIQUE) WITH (postern.door = 'sharded', postern.key = 'id')`,
  ])('%s', async (text) => {
    expect(await errorOf(text)).toMatchObject({ code: '0A000' });
  });

  it('ON CONFLICT of the primary key goes on', async () => {
    await client.query(insert(1, 'a'));
    await client.query(insert(2, 'b'));
    const upsert = (id: number, email: string) =>
      `${insert(id, email)} ON CONFLICT (id) DO UPDATE SET email = excluded.email`;
    await client.query(upsert(1, 'c'));
    expect(await errorOf(upsert(1, 'b'))).toEqual(emailIsTaken('b'));
    await client.query(upsert(3, 'a'));
  });

  it('a write behind the router’s back', async () => {
    for (const server of cluster.servers) {
      const direct = new pg.Client(server.dsn({ user: 'app', database: 'app' }));
      await direct.connect();
      const { rows: leaves } = await direct.query(
        `SELECT oid::regclass::text AS leaf FROM pg_class WHERE relname ~ '^accounts_b\\d+_g\\d+$' LIMIT 1`,
      );
      await expect(
        direct.query(
          `INSERT INTO ${leaves[0].leaf} (id, email, "Handle") SELECT i, 'x', 'x' FROM generate_series(1, 1000) i
           WHERE satisfies_hash_partition('accounts'::regclass, (SELECT count(DISTINCT bucket)::int FROM postern.buckets), 0, i::int8) LIMIT 1`,
        ),
      ).rejects.toThrow();
      await expect(
        direct.query(`SELECT postern_commit.keep_unique('{"leaf":"x","removed":[]}', 'no')`),
      ).rejects.toMatchObject({
        code: '42501',
      });
      await direct.end();
    }
  });
});

describe('other ways in which rows change', () => {
  it('COPY', async () => {
    const copy = async (lines: readonly string[]) => {
      const stream = client.query(copyFrom('COPY accounts (id, email, "Handle") FROM STDIN'));
      await pipeline(Readable.from(lines), stream);
    };
    await copy(Array.from({ length: 3000 }, (_, i) => `${i}\tc${i}\th${i}\n`));
    expect(await errorOf(insert(9999, 'c2999'))).toEqual(emailIsTaken('c2999'));
    await expect(copy(['4000\tnew\tnew\n', '4001\tc1\tnewer\n'])).rejects.toMatchObject({ code: '23505' });
    await client.query('BEGIN');
    await copy(['4000\tnew\tnew\n']);
    await client.query('ROLLBACK');
    await client.query(insert(4000, 'new'));
  });

  it('WITH, and cascades', async () => {
    await client.query(insert(1, 'a'));
    await client.query('WITH gone AS (DELETE FROM accounts WHERE id = 1 RETURNING *) SELECT * FROM gone');
    await client.query(insert(2, 'a'));
    await client.query(
      `CREATE TABLE logins (id bigint, name text, PRIMARY KEY (id, name)) WITH (postern.door = 'sharded', postern.key = 'id')`,
    );
    await client.query(
      'ALTER TABLE logins ADD FOREIGN KEY (id) REFERENCES accounts ON DELETE CASCADE, ADD CHECK (name > $$$$)',
    );
    await client.query('ALTER TABLE logins ADD UNIQUE (name)');
    for (let id = 2; id < 8; id++) {
      if (id > 2) await client.query(insert(id, `x${id}`));
      await client.query(`INSERT INTO logins VALUES (${id}, 'l${id}')`);
    }
    await client.query('DELETE FROM accounts WHERE id IN (2, 3)');
    expect(await checkLookups(cluster)).toEqual([]);
    await client.query(`INSERT INTO logins VALUES (4, 'l2')`);
    expect(await errorOf(`INSERT INTO logins VALUES (4, 'l5')`)).toMatchObject({
      constraint: 'logins_name_key',
    });
    await client.query('DROP TABLE logins');
  });

  it('an UPDATE of other columns, and one in which a trigger changes such a column after all', async () => {
    await client.query(
      `CREATE TABLE lone (id int PRIMARY KEY, email text UNIQUE, extra int) WITH (postern.door = 'sharded', postern.key = 'id')`,
    );
    await client.query(`INSERT INTO lone VALUES (1, 'a'), (2, 'UPPER')`);
    expect(await errorOf('UPDATE lone SET extra = 5')).toBeUndefined();
    await client.query(
      `CREATE FUNCTION lowers() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.email := lower(NEW.email); RETURN NEW; END $$`,
    );
    await client.query('CREATE TRIGGER lowers BEFORE UPDATE ON lone FOR EACH ROW EXECUTE FUNCTION lowers()');
    expect(await errorOf('UPDATE lone SET extra = 6 WHERE id = 2')).toMatchObject({ code: '55000' });
    expect(await errorOf('UPDATE lone SET extra = 6 WHERE id = 1')).toBeUndefined();
    expect(await errorOf('UPDATE lone SET email = email WHERE id = 2')).toBeUndefined();
    expect(await errorOf(`INSERT INTO lone VALUES (3, 'upper')`)).toMatchObject({ code: '23505' });
    expect(await checkLookups(cluster)).toEqual([]);
    await client.query('DROP TABLE lone');
    await client.query('DROP FUNCTION lowers');
  });

  it('EXPLAIN changes nothing', async () => {
    await client.query(`EXPLAIN ${insert(1, 'a')}`);
    expect(await errorOf(`EXPLAIN ANALYZE ${insert(1, 'a')}`)).toMatchObject({ code: '0A000' });
    expect(await rows()).toEqual([]);
  });
});

describe('DDL', () => {
  it('adds a constraint to rows that are there, refuses duplicates, and drops it again', async () => {
    await client.query(
      `CREATE TABLE later (id int PRIMARY KEY, code text, day date) WITH (postern.door = 'sharded', postern.key = 'id')`,
    );
    const values = Array.from({ length: 500 }, (_, i) => `(${i}, 'c${i}', '2026-01-01'::date + ${i})`).join(
      ', ',
    );
    await client.query(`INSERT INTO later VALUES ${values}`);
    await client.query('ALTER TABLE later ADD CONSTRAINT codes UNIQUE (code)');
    await client.query('CREATE UNIQUE INDEX days ON later (day)');
    expect(await errorOf(`INSERT INTO later VALUES (1000, 'c7', '2000-01-01')`)).toMatchObject({
      constraint: 'codes',
    });
    expect(await errorOf(`INSERT INTO later VALUES (1000, 'new', '2026-01-03')`)).toMatchObject({
      constraint: 'days',
    });
    expect(await checkLookups(cluster)).toEqual([]);
    await client.query('ALTER TABLE later DROP CONSTRAINT codes');
    await client.query('DROP INDEX days');
    await client.query(`INSERT INTO later VALUES (1000, 'c7', '2026-01-03')`);
    expect(await errorOf('ALTER TABLE later ADD UNIQUE (code)')).toMatchObject({
      code: '23505',
      message: 'could not create unique index "later_code_key"',
      detail: 'Key (code)=(c7) is duplicated.',
    });
    await client.query(`INSERT INTO later VALUES (1001, 'c7', '2026-01-03')`);
    await client.query('BEGIN');
    await client.query('DELETE FROM later WHERE id >= 1000');
    await client.query('ALTER TABLE later ADD UNIQUE (code)');
    expect(await errorOf(`INSERT INTO later VALUES (1000, 'c7', '2026-01-03')`)).toMatchObject({
      code: '23505',
    });
    await client.query('ROLLBACK');
    await client.query('DROP TABLE later');
    for (const server of cluster.servers)
      expect(await server.query(`SELECT FROM pg_class WHERE relname ~ '^(later|codes|days)'`)).toEqual([]);
  });

  it('a table that is plain again has it as PostgreSQL’s own; a key is not pinned beside it', async () => {
    await client.query(
      `CREATE TABLE plainer (id bigint PRIMARY KEY, email text UNIQUE) WITH (postern.door = 'sharded', postern.key = 'id')`,
    );
    await client.query(`INSERT INTO plainer VALUES (1, 'x'), (2, 'y')`);
    expect(await errorOf(`SELECT postern.pin_tenant('plainer', '1', 'n2')`)).toMatchObject({ code: '0A000' });
    await client.query(`SELECT postern.unshard_table('plainer')`);
    expect(await errorOf(`INSERT INTO plainer VALUES (3, 'x')`)).toMatchObject({
      constraint: 'plainer_email_key',
    });
    await client.query(`INSERT INTO plainer VALUES (3, 'z')`);
    await client.query('DROP TABLE plainer');
  });

  it('TRUNCATE takes the values along', async () => {
    await client.query(insert(1, 't'));
    await client.query('TRUNCATE accounts');
    await client.query(insert(2, 't'));
  });
});

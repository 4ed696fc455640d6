/** What goes with tables over the nodes: views, foreign keys, triggers, types, roles and rights, and what is refused of them. */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient, value, values } from '../support/router-clients.ts';

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await startTestCluster({
    nodes: 2,
    settings: { max_prepared_transactions: '20' },
    users: ['app', 'postgres', 'reader'].map((name) => ({ name, password: undefined })),
  });
});
afterAll(() => cluster.stop());

const SHARDED = "WITH (postern.door = 'sharded', postern.key = 'tenant', postern.buckets = 4)";

async function client(user = 'app') {
  const connected = await connectClient(cluster, {}, user);
  return {
    run: async (text: string) => await connected.query(text),
    rows: async (text: string, parameters?: unknown[]) => await values(connected, text, parameters),
    value: async (text: string, parameters?: unknown[]) => await value(connected, text, parameters),
  };
}

/** Not through the router. */
async function onNode(index: number, text: string, user = 'postgres'): Promise<unknown[]> {
  const direct = new pg.Client({
    connectionString: cluster.servers[index]!.dsn({ database: 'app', user }),
  });
  await direct.connect();
  try {
    const { rows } = await direct.query({ text, rowMode: 'array' });
    return rows.flat();
  } finally {
    await direct.end();
  }
}

describe('views over sharded tables', () => {
  test('read as the tables are, by key, over buckets, and in one another', async () => {
    const app = await client();
    await app.run(
      `CREATE TABLE visits (tenant bigint, id int, note text, PRIMARY KEY (tenant, id)) ${SHARDED}`,
    );
    await app.run("CREATE TABLE lands (code text PRIMARY KEY, name text) WITH (postern.door = 'reference')");
    await app.run("INSERT INTO lands VALUES ('a', 'A'), ('b', 'B')");
    for (let tenant = 1; tenant <= 8; tenant++)
      await app.run(
        `INSERT INTO visits VALUES (${tenant}, 1, 'a'), (${tenant}, 2, 'b'), (${tenant}, 3, NULL)`,
      );
    await app.run('CREATE VIEW noted (who, what) AS SELECT tenant, note FROM visits WHERE note IS NOT NULL');
    await app.run('CREATE VIEW named AS SELECT n.who, l.name FROM noted n JOIN lands l ON l.code = n.what');
    expect(await app.value('SELECT count(*)::int FROM noted')).toBe(16);
    expect(await app.rows('SELECT what FROM noted WHERE who = $1 ORDER BY what', [3])).toEqual([
      ['a'],
      ['b'],
    ]);
    expect(await app.rows('SELECT public.named.name FROM named WHERE who = 4 ORDER BY 1')).toEqual([
      ['A'],
      ['B'],
    ]);
    expect(
      await app.value('SELECT count(*)::int FROM noted a JOIN visits v ON v.tenant = a.who AND v.tenant = 5'),
    ).toBe(6);
    expect(await app.value("UPDATE noted SET what = 'x'")).toBe('!0A000');
    await app.run('ALTER TABLE visits RENAME note TO remark');
    await app.run(
      'CREATE OR REPLACE VIEW noted AS SELECT tenant AS who, remark AS what FROM visits WHERE id = 1',
    );
    expect(await app.value('SELECT count(*)::int FROM named')).toBe(8);
    await app.run('ALTER VIEW noted RENAME TO first_ones');
    expect(await app.value('SELECT count(*)::int FROM first_ones')).toBe(8);
    expect(await app.value('SELECT count(*) FROM noted')).toBe('!42P01');
    expect(await app.value('DROP VIEW first_ones')).toBe('!2BP01');
    await app.run('DROP VIEW first_ones CASCADE');
    expect(await app.value('SELECT count(*) FROM named')).toBe('!42P01');
  });

  test('in a transaction, and gone with it', async () => {
    const app = await client();
    await app.run(`CREATE TABLE notes (tenant bigint, id int) ${SHARDED}`);
    await app.run('INSERT INTO notes VALUES (1, 1)');
    await app.run('INSERT INTO notes VALUES (2, 1)');
    await app.run('BEGIN');
    await app.run('CREATE VIEW all_notes AS TABLE notes');
    expect(await app.value('SELECT count(*)::int FROM all_notes')).toBe(2);
    await app.run('ROLLBACK');
    expect(await app.value('SELECT count(*) FROM all_notes')).toBe('!42P01');
  });

  test('have the rights of who reads them, and no way past row-level security', async () => {
    const app = await client();
    const reader = await client('reader');
    await app.run(`CREATE TABLE secrets (tenant bigint, word text) ${SHARDED}`);
    await app.run("INSERT INTO secrets VALUES (1, 'x')");
    await app.run('CREATE VIEW words AS SELECT word FROM secrets');
    await app.run('GRANT SELECT ON words TO reader');
    expect(await reader.value('SELECT count(*) FROM words')).toBe('!42501');
    await app.run('GRANT SELECT ON secrets TO reader');
    expect(await reader.value('SELECT count(*)::int FROM words')).toBe(1);
    // Behind the router's back it is refused, and never empty.
    await expect(onNode(0, 'SELECT * FROM words', 'app')).rejects.toMatchObject({ code: '42501' });
    await app.run('ALTER TABLE secrets ENABLE ROW LEVEL SECURITY');
    await app.run('CREATE POLICY p ON secrets USING (tenant = 2)');
    expect(await app.value('CREATE VIEW again AS SELECT word FROM secrets')).toBe('!0A000');
    await app.run('CREATE VIEW again WITH (security_invoker = true) AS SELECT word FROM secrets');
    // Whoever may read the table may read a view of it.
    expect(await reader.value('SELECT count(*)::int FROM again')).toBe(0);
  });
});

describe('foreign keys', () => {
  test('between colocated tables, with the key, and to reference tables', async () => {
    const app = await client();
    await app.run(
      `CREATE TABLE carts (tenant bigint, id int, land text, PRIMARY KEY (tenant, id)) ${SHARDED}`,
    );
    await app.run(`CREATE TABLE items (tenant bigint, cart int, n int) ${SHARDED}`);
    await app.run("CREATE TABLE places (code text PRIMARY KEY) WITH (postern.door = 'reference')");
    await app.run("INSERT INTO places VALUES ('a')");
    await app.run('ALTER TABLE items ADD FOREIGN KEY (tenant, cart) REFERENCES carts ON DELETE CASCADE');
    await app.run('ALTER TABLE carts ADD FOREIGN KEY (land) REFERENCES places');
    expect(await app.value('ALTER TABLE items ADD FOREIGN KEY (cart) REFERENCES carts (id)')).toBe('!0A000');
    expect(await app.value("INSERT INTO carts VALUES (1, 1, 'z')")).toBe('!23503');
    for (const tenant of [1, 2, 3, 4]) {
      await app.run(`INSERT INTO carts VALUES (${tenant}, 1, 'a')`);
      await app.run(`INSERT INTO items VALUES (${tenant}, 1, 1), (${tenant}, 1, 2)`);
    }
    expect(await app.value('INSERT INTO items VALUES (1, 2, 1)')).toBe('!23503');
    // Its row would be deleted where it was, and its items with it.
    expect(await app.value('UPDATE carts SET tenant = 9 WHERE tenant = 1')).toBe('!0A000');
    await app.run('DELETE FROM carts WHERE tenant = 2');
    expect(await app.value('SELECT count(*)::int FROM items')).toBe(6);
    expect(await app.value("DELETE FROM places WHERE code = 'a'")).toBe('!23503');
    await app.run('ALTER TABLE carts DROP CONSTRAINT carts_land_fkey');
    await app.run("DELETE FROM places WHERE code = 'a'");
    await app.run('TRUNCATE carts CASCADE');
    expect(await app.value('SELECT count(*)::int FROM items')).toBe(0);
  });
});

test('notices are told once, and in the user’s names', async () => {
  const connected = await connectClient(cluster);
  const notices: string[] = [];
  connected.on('notice', ({ message }) => notices.push(message ?? ''));
  await connected.query(`CREATE TABLE told (tenant bigint, n int) ${SHARDED}`);
  await connected.query('ALTER TABLE told ADD COLUMN IF NOT EXISTS n int');
  await connected.query('DROP TRIGGER IF EXISTS t ON told');
  await connected.query('CREATE INDEX IF NOT EXISTS told_i ON told (n)');
  await connected.query('CREATE INDEX IF NOT EXISTS told_i ON told (n)');
  expect(notices).toEqual([
    'column "n" of relation "told" already exists, skipping',
    'trigger "t" for relation "public.told" does not exist, skipping',
    'relation "told_i" already exists, skipping',
  ]);
});

describe('triggers, types and functions', () => {
  test('a trigger fires on the node of its row', async () => {
    const app = await client();
    await app.run(`CREATE TABLE logged (tenant bigint, n int, twice int) ${SHARDED}`);
    await app.run(
      'CREATE FUNCTION double() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.twice := 2 * NEW.n; RETURN NEW; END $$',
    );
    await app.run('CREATE TRIGGER d BEFORE INSERT ON logged FOR EACH ROW EXECUTE FUNCTION double()');
    for (let tenant = 1; tenant <= 6; tenant++)
      await app.run(`INSERT INTO logged VALUES (${tenant}, ${tenant})`);
    expect(await app.value('SELECT sum(twice)::int FROM logged')).toBe(42);
    await app.run(
      'CREATE FUNCTION whose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE $x$%$x$, TG_TABLE_NAME; RETURN NEW; END $$',
    );
    expect(
      await app.value('CREATE TRIGGER w BEFORE INSERT ON logged FOR EACH ROW EXECUTE FUNCTION whose()'),
    ).toBe('!0A000');
    expect(
      await app.value("CREATE FUNCTION n() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM logged'"),
    ).toBe('!0A000');
  });

  test('are on all nodes', async () => {
    const app = await client();
    await app.run("CREATE TYPE color AS ENUM ('red', 'green')");
    await app.run('CREATE SCHEMA tools');
    await app.run(
      'CREATE FUNCTION tools.inc(i int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT i + 1 $$',
    );
    await app.run('CREATE TABLE only_home (a int)');
    await app.run(
      'CREATE FUNCTION tools.homely() RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM only_home $$',
    );
    await app.run(`CREATE TABLE painted (tenant bigint, c color, n int DEFAULT tools.inc(1)) ${SHARDED}`);
    for (let tenant = 1; tenant <= 6; tenant++)
      await app.run(`INSERT INTO painted VALUES (${tenant}, 'green')`);
    expect(await app.value("SELECT sum(tools.inc(n))::int FROM painted WHERE c = 'green'")).toBe(18);
    expect(await app.value('SELECT tools.homely()::int')).toBe(0);
    expect(
      await onNode(1, "SELECT to_regproc('tools.inc') IS NOT NULL, to_regproc('tools.homely') IS NOT NULL"),
    ).toEqual([true, false]);
    await app.run("ALTER TYPE color ADD VALUE 'blue'");
    await app.run("INSERT INTO painted VALUES (1, 'blue'), (2, 'blue'), (3, 'blue'), (4, 'blue')");
    await app.run('DROP FUNCTION tools.inc CASCADE');
    await app.run('INSERT INTO painted (tenant) VALUES (1), (2), (3), (4)');
    expect(await app.value('SELECT count(*)::int FROM painted WHERE n IS NULL')).toBe(4);
    await app.run('DROP SCHEMA tools CASCADE');
    expect(await onNode(1, "SELECT to_regnamespace('tools') IS NULL")).toEqual([true]);
  });

  test('DROP TYPE … CASCADE takes the columns of faces and leaves', async () => {
    const app = await client();
    await app.run("CREATE TYPE size AS ENUM ('s', 'm')");
    await app.run(`CREATE TABLE shirts (tenant bigint, s size) ${SHARDED}`);
    await app.run("INSERT INTO shirts VALUES (1, 's')");
    await app.run('DROP TYPE size CASCADE');
    expect(await app.rows('SELECT * FROM shirts WHERE tenant = 1')).toEqual([['1']]);
    expect(
      await onNode(
        1,
        "SELECT count(*)::int FROM pg_attribute WHERE attname = 's' AND NOT attisdropped AND attnum > 0",
      ),
    ).toEqual([0]);
  });
});

describe('roles and rights', () => {
  test('a role and its privileges are on all nodes, for leaves made later too', async () => {
    const admin = await client('postgres');
    const app = await client();
    const reader = await client('reader');
    await admin.run('CREATE ROLE team');
    await admin.run('GRANT team TO reader');
    expect(await onNode(1, "SELECT pg_has_role('reader', 'team', 'member')")).toEqual([true]);
    await app.run('ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO team');
    await app.run(`CREATE TABLE shared (tenant bigint, n int) ${SHARDED}`);
    for (let tenant = 1; tenant <= 6; tenant++) await app.run(`INSERT INTO shared VALUES (${tenant}, 1)`);
    expect(await reader.value('SELECT sum(n)::int FROM shared')).toBe(6);
    expect(await reader.value('UPDATE shared SET n = 2 WHERE tenant = 5')).toBe('!42501');
    await app.run('GRANT UPDATE (n) ON ALL TABLES IN SCHEMA public TO team').catch(() => {});
    await app.run('GRANT UPDATE (n) ON shared TO team');
    await reader.run('UPDATE shared SET n = 2 WHERE tenant = 5');
    expect(await reader.value('UPDATE shared SET tenant = 2 WHERE tenant = 5')).toBe('!42501');
    expect(
      await onNode(
        0,
        "SELECT a.privilege_type || a.grantee::regrole FROM pg_class c, aclexplode(c.relacl) a WHERE c.relname = 'shared' AND a.privilege_type <> 'REFERENCES'",
      ),
    ).toEqual([]);
  });
});

describe('reference tables', () => {
  test('change on all nodes at once', async () => {
    const app = await client();
    await app.run("CREATE TABLE rates (id int PRIMARY KEY, name text) WITH (postern.door = 'reference')");
    await app.run("INSERT INTO rates VALUES (1, 'one'), (2, 'two')");
    await app.run('ALTER TABLE rates ADD COLUMN rate int NOT NULL DEFAULT 3, ADD CHECK (rate > 0)');
    await app.run('CREATE INDEX ON rates (name)');
    expect(await app.value('INSERT INTO rates VALUES (3, NULL, 0)')).toBe('!23514');
    expect(await app.value('ALTER TABLE rates ADD COLUMN made timestamptz DEFAULT now()')).toBe('!0A000');
    await app.run("UPDATE rates SET rate = 4 WHERE name = 'two'");
    await app.run('ALTER TABLE rates RENAME TO prices');
    await app.run('INSERT INTO prices VALUES (5, $$five$$, 5)');
    for (const index of [0, 1]) {
      expect(
        await onNode(index, 'SELECT string_agg(id || name || rate, $$ $$ ORDER BY id) FROM prices'),
      ).toEqual(['1one3 2two4 5five5']);
      expect(
        await onNode(index, "SELECT indexname FROM pg_indexes WHERE tablename = 'prices' ORDER BY 1"),
      ).toEqual(['rates_name_idx', 'rates_pkey']);
    }
    await app.run('DROP INDEX rates_name_idx');
    expect(await onNode(1, "SELECT indexname FROM pg_indexes WHERE tablename = 'prices'")).toEqual([
      'rates_pkey',
    ]);
  });
});

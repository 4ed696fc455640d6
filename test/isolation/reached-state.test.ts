/** Session state that functions leave which a statement does not name: it is its session's, and nobody else's. */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient, value } from '../support/router-clients.ts';

let cluster: TestCluster;

const SCHEMA = [
  `CREATE FUNCTION mark(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.mark', $1, false); RETURN $1; END $$`,
  'CREATE FUNCTION mark_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM mark(NEW.v); RETURN NEW; END $$',
  'CREATE TABLE by_trigger (id int8, v text)',
  'CREATE TRIGGER x BEFORE INSERT ON by_trigger FOR EACH ROW EXECUTE FUNCTION mark_row()',
  "CREATE TABLE by_default (id int8, v text DEFAULT mark('default'))",
  "CREATE TABLE by_policy (id int8, v text); INSERT INTO by_policy VALUES (1, 'policy')",
  "CREATE POLICY p ON by_policy USING (mark('policy') = v)",
  'ALTER TABLE by_policy ENABLE ROW LEVEL SECURITY; ALTER TABLE by_policy FORCE ROW LEVEL SECURITY',
  "CREATE VIEW by_view AS SELECT set_config('app.mark', 'view', false) AS v",
  'CREATE TABLE by_chain (id int8, v text)',
  `CREATE FUNCTION pass_on() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO by_trigger VALUES (NEW.id, NEW.v); RETURN NEW; END $$`,
  'CREATE TRIGGER x AFTER INSERT ON by_chain FOR EACH ROW EXECUTE FUNCTION pass_on()',
  `CREATE FUNCTION writes() RETURNS void LANGUAGE sql AS $$ INSERT INTO by_trigger VALUES (1, 'function') $$`,
  `CREATE TABLE sharded (id int8 PRIMARY KEY, v text DEFAULT set_config('app.mark', 'sharded', false))
     WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = 4)`,
];

beforeAll(async () => {
  // Few connections to a node, so that a backend which is given back soon meets somebody else.
  cluster = await startTestCluster({ nodes: 2, connectionsPerNode: 3 });
  const owner = await connectHere();
  for (const text of SCHEMA) await owner.query(text);
  await owner.end();
});
afterAll(() => cluster?.stop());

async function connectHere(): Promise<pg.Client> {
  const client = new pg.Client(cluster.dsn());
  await client.connect();
  return client;
}

const MARK = "SELECT current_setting('app.mark', true)";

const STATEMENTS: [name: string, text: string, mark: string][] = [
  ['a trigger', "INSERT INTO by_trigger VALUES (1, 'trigger')", 'trigger'],
  ['a default', 'INSERT INTO by_default (id) VALUES (1)', 'default'],
  ['a policy', 'SELECT * FROM by_policy', 'policy'],
  ['a view', 'SELECT * FROM by_view', 'view'],
  ['a trigger that writes to a table with one', "INSERT INTO by_chain VALUES (1, 'chain')", 'chain'],
  ['a function that writes to a table with one', 'SELECT writes()', 'function'],
];

describe.each(['as text', 'prepared'] as const)('%s', (how) => {
  const run = (client: pg.Client, text: string) =>
    client.query(how === 'prepared' ? { name: text.slice(0, 60), text } : text);

  test.each(STATEMENTS)('%s', async (_name, text, mark) => {
    const client = await connectClient(cluster);
    // More often than a text is looked at before it is lifted or merged.
    for (let i = 0; i < 4; i++) await run(client, text);
    for (let i = 0; i < 3; i++) {
      const other = await connectClient(cluster);
      expect([null, '']).toContain(await value(other, MARK));
      await other.end();
    }
    expect(await value(client, MARK)).toBe(mark);
    await client.end();
  });

  test('a default of a sharded table', async () => {
    const client = await connectClient(cluster);
    const ids = [1, 2, 3, 4].map((id) => id + (how === 'prepared' ? 100 : 0));
    for (const id of ids) await run(client, `INSERT INTO sharded (id) VALUES (${id})`);
    for (const id of ids) {
      const other = await connectClient(cluster);
      const mark = `SELECT current_setting('app.mark', true) FROM sharded WHERE id = ${id}`;
      expect([null, '']).toContain(await value(other, mark));
      await other.end();
      expect(await value(client, mark)).toBe('sharded');
    }
    await client.end();
  });
});

test('a trigger that is made to leave state later', async () => {
  const client = await connectClient(cluster);
  await client.query('CREATE TABLE later (id int8, v text)');
  const insert = { name: 'later', text: "INSERT INTO later VALUES (1, 'later')" };
  for (let i = 0; i < 4; i++) await client.query(insert);
  const ddl = await connectClient(cluster);
  await ddl.query('CREATE TRIGGER x BEFORE INSERT ON later FOR EACH ROW EXECUTE FUNCTION mark_row()');
  await ddl.end();
  await client.query(insert);
  const other = await connectClient(cluster);
  expect([null, '']).toContain(await value(other, MARK));
  expect(await value(client, MARK)).toBe('later');
});

describe('a trigger with EXECUTE', () => {
  const trigger = (table: string, statement: string) => [
    `CREATE TABLE ${table} (id int8, v text)`,
    `CREATE FUNCTION audit_${table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ${statement}; RETURN NULL; END $$`,
    `CREATE TRIGGER x AFTER INSERT ON ${table} FOR EACH ROW EXECUTE FUNCTION audit_${table}()`,
  ];

  beforeAll(async () => {
    const owner = await connectHere();
    for (const text of [
      'CREATE TABLE audit_log (id int8, v text)',
      ...trigger('audited', `EXECUTE 'INSERT INTO audit_log VALUES ($1, $2)' USING NEW.id, NEW.v`),
      ...trigger('formatted', `EXECUTE format('INSERT INTO audit_log VALUES (%L, %L)', NEW.id, NEW.v)`),
      ...trigger('marked', `EXECUTE format('SELECT mark(%L)', NEW.v)`),
      ...trigger('split', `EXECUTE 'SELECT ma' || 'rk($1)' USING NEW.v`),
      // It writes to a table whose own trigger leaves a setting.
      ...trigger(
        'named',
        `EXECUTE format('INSERT INTO %I VALUES ($1, $2)', 'by_trigger') USING NEW.id, NEW.v`,
      ),
    ])
      await owner.query(text);
    await owner.end();
  });

  test.each(['audited', 'formatted'])('whose text is harmless costs no backend: %s', async (table) => {
    // More than there are connections.
    const clients = await Promise.all(Array.from({ length: 6 }, () => connectClient(cluster)));
    for (let i = 0; i < 4; i++)
      await Promise.all(clients.map((client) => client.query(`INSERT INTO ${table} VALUES (1, 'x')`)));
    for (const client of clients) await client.end();
  });

  test.each(['marked', 'split', 'named'])('whose text is not, is its session’s alone: %s', async (table) => {
    const client = await connectClient(cluster);
    await client.query(`INSERT INTO ${table} VALUES (1, '${table}')`);
    const other = await connectClient(cluster);
    expect([null, '']).toContain(await value(other, MARK));
    expect(await value(client, MARK)).toBe(table);
    for (const one of [client, other]) await one.end();
  });
});

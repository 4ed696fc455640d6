/** The switch of write coalescing of single tables: behind `postern serve` by DDL, in front mode by options. */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Router, startRouter } from '../../src/cli/router.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient, value, values } from '../support/router-clients.ts';
import { execute, outcomeOf, startTestFront, type TestFront } from './front.ts';

let lastId = 0;

/** How many rows that the clients write at once share a transaction with another one. */
async function merged(clients: readonly pg.Client[], table: string): Promise<number> {
  const text = `INSERT INTO ${table} (id) VALUES ($1) RETURNING xmin::text`;
  // The first executions are those by which the router gets to know the statement and its table.
  for (const client of clients) await execute(client, text, [++lastId]);
  const xmins: unknown[] = [];
  for (let round = 0; round < 5; round++) {
    const outcomes = await Promise.all(clients.map((client) => execute(client, text, [++lastId])));
    for (const outcome of outcomes) {
      if (typeof outcome === 'string') throw new Error(`answered ${outcome}`);
      xmins.push(outcome[0]![0]);
    }
  }
  return xmins.length - new Set(xmins).size;
}

/** What is asked of the server first may take it a while. */
const PATIENT = { timeout: 15_000 };

/**
 * The same when the router has had the time to know the table: it asks about tables one after the other, so a table that is
 * merged, and was used later, tells.
 */
async function mergedWhenKnown(clients: readonly pg.Client[], table: string): Promise<number> {
  await merged(clients, table);
  await expect.poll(() => merged(clients, 'known'), PATIENT).toBeGreaterThan(10);
  return await merged(clients, table);
}

const TRIGGERED = (name: string) => `CREATE TABLE ${name} (id int8 PRIMARY KEY);
  CREATE TRIGGER x BEFORE INSERT ON ${name} FOR EACH ROW EXECUTE FUNCTION nothing()`;

const FURNITURE = `
  CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
  CREATE FUNCTION setting() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.x', new.id::text, false); RETURN new; END $$;
  CREATE TABLE known (id int8);
  CREATE TABLE counted (statements int8); INSERT INTO counted VALUES (0);
  CREATE FUNCTION count_statement() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE counted SET statements = statements + 1; RETURN NULL; END';
  CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'at the commit'; RETURN NULL; END $$;
  CREATE FUNCTION skip_odd() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF new.id % 2 = 1 THEN RETURN NULL; END IF; RETURN new; END'`;

describe('behind postern serve', () => {
  let cluster: TestCluster;
  let second: Router;
  let admin: pg.Client;

  beforeAll(async () => {
    cluster = await startTestCluster({ nodes: 2 });
    second = await startRouter(cluster.routerOptions);
    admin = new pg.Client(cluster.dsn());
    await admin.connect();
    for (const statement of FURNITURE.split(';\n')) await admin.query(statement);
  });
  afterAll(async () => {
    await admin?.end();
    await second?.close();
    await cluster?.stop();
  });

  const clients = (count = 12) => Promise.all(Array.from({ length: count }, () => connectClient(cluster)));
  const switches = () => values(admin, 'SELECT table_name, coalesce FROM postern.coalescing');

  it('off, on and reset of a table without a door', async () => {
    const some = await clients();
    await admin.query('CREATE TABLE plain (id int8 PRIMARY KEY)');
    await expect.poll(() => merged(some, 'plain'), PATIENT).toBeGreaterThan(10);
    await admin.query("ALTER TABLE plain SET (postern.coalesce = 'off')");
    expect(await switches()).toEqual([['plain', 'off']]);
    expect(await mergedWhenKnown(some, 'plain')).toBe(0);
    await admin.query('ALTER TABLE plain RESET (postern.coalesce)');
    expect(await switches()).toEqual([]);
    await expect.poll(() => merged(some, 'plain'), PATIENT).toBeGreaterThan(10);
  });

  it('is seen by the other routers', async () => {
    const dsn = cluster.dsn().replace(`:${cluster.port}/`, `:${second.port}/`);
    const there = await Promise.all(Array.from({ length: 12 }, () => connectClient({ dsn: () => dsn })));
    await admin.query(
      'CREATE TABLE seen (id int8 PRIMARY KEY) WITH (postern.coalesce = off, fillfactor = 70)',
    );
    // It is shown, so that pg_dump writes it down: a restore makes the table with its switch again.
    expect(await value(admin, "SELECT reloptions::text FROM pg_class WHERE relname = 'seen'")).toBe(
      '{postern.coalesce=off,fillfactor=70}',
    );
    expect(await mergedWhenKnown(there, 'seen')).toBe(0);
    await admin.query("SELECT postern.set_coalescing('seen', 'on')");
    await expect.poll(() => merged(there, 'seen'), PATIENT).toBeGreaterThan(10);
    await admin.query("SELECT postern.set_coalescing('seen', 'off')");
    await expect.poll(() => merged(there, 'seen'), PATIENT).toBe(0);
  });

  it('on merges writes although there are triggers, but not where they leave state', async () => {
    const some = await clients();
    for (const statement of TRIGGERED('triggered').split(';\n')) await admin.query(statement);
    expect(await mergedWhenKnown(some, 'triggered')).toBe(0);
    await admin.query('ALTER TABLE triggered SET (postern.coalesce = on)');
    await expect.poll(() => merged(some, 'triggered'), PATIENT).toBeGreaterThan(10);
    await admin.query('DROP TRIGGER x ON triggered');
    await admin.query('CREATE TRIGGER x BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION setting()');
    expect(await merged(some, 'triggered')).toBe(0);
    const others = await clients(6);
    expect(await merged(others, 'triggered')).toBe(0);
    // Each session has its backend, and on it what the trigger has left.
    const left = await Promise.all(some.map((client) => value(client, "SELECT current_setting('app.x')")));
    expect(new Set(left).size).toBe(some.length);
  });

  it('a sharded table', async () => {
    const some = await clients();
    await admin.query(
      `CREATE TABLE doors (id int8 PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v int)
       WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = 2)`,
    );
    expect(await value(admin, "SELECT coalesce FROM postern.tables WHERE table_name = 'doors'")).toBe(
      'default',
    );
    expect(await mergedWhenKnown(some, 'doors')).toBe(0);
    await admin.query('ALTER TABLE doors SET (postern.coalesce = on)');
    expect(await value(admin, "SELECT coalesce FROM postern.tables WHERE table_name = 'doors'")).toBe('on');
    await expect.poll(() => merged(some, 'doors'), PATIENT).toBeGreaterThan(5);
    await admin.query(
      `CREATE TABLE shut (id int8 PRIMARY KEY) WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = 2, postern.coalesce = off)`,
    );
    expect(await mergedWhenKnown(some, 'shut')).toBe(0);
  });

  it('stays with a table that becomes a sharded one', async () => {
    await admin.query('CREATE TABLE later (id int8 PRIMARY KEY) WITH (postern.coalesce = off)');
    await admin.query("SELECT create_distributed_table('later', 'id')");
    expect(await value(admin, "SELECT coalesce FROM postern.tables WHERE table_name = 'later'")).toBe('off');
    await admin.query('CREATE TABLE later_on (id int8 PRIMARY KEY) WITH (postern.coalesce = off)');
    await admin.query(
      'ALTER TABLE later_on SET (postern.door = sharded, postern.key = id, postern.coalesce = on)',
    );
    expect(await value(admin, "SELECT coalesce FROM postern.tables WHERE table_name = 'later_on'")).toBe(
      'on',
    );
  });

  it('is refused where it can’t be', async () => {
    expect(await value(admin, 'ALTER TABLE nowhere SET (postern.coalesce = on)')).toBe('!42P01');
    expect(await value(admin, 'ALTER TABLE IF EXISTS nowhere SET (postern.coalesce = on)')).toBeUndefined();
    expect(await value(admin, 'ALTER TABLE pg_class SET (postern.coalesce = on)')).toBe('!42501');
  });

  it('is part of its transaction', async () => {
    const before = await switches();
    await admin.query('BEGIN');
    await admin.query('ALTER TABLE counted SET (postern.coalesce = on)');
    expect(await switches()).toContainEqual(['counted', 'on']);
    await admin.query('ROLLBACK');
    expect(await switches()).toEqual(before);
  });
});

describe('in front mode', () => {
  let front: TestFront;

  beforeAll(async () => {
    front = await startTestFront({
      schema: `SET ROLE app; ${FURNITURE}; ${TRIGGERED('agreed')}; ${TRIGGERED('silent')};
        CREATE SCHEMA other; CREATE TABLE other.agreed (id int8); CREATE TABLE "Odd" (id int8 PRIMARY KEY); CREATE TABLE plain (id int8);
        CREATE TABLE per_statement (id int8 PRIMARY KEY);
        CREATE TRIGGER x AFTER INSERT ON per_statement EXECUTE FUNCTION count_statement();
        CREATE TABLE skipping (id int8 PRIMARY KEY);
        CREATE TRIGGER x BEFORE INSERT ON skipping FOR EACH ROW EXECUTE FUNCTION skip_odd();
        CREATE TABLE deferred (id int8 PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
        CREATE TABLE warning (id int8 PRIMARY KEY);
        CREATE CONSTRAINT TRIGGER x AFTER INSERT ON warning DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION warn()`,
      tables: [
        { schema: undefined, name: 'agreed', merges: true },
        { schema: 'other', name: 'agreed', merges: false },
        { schema: undefined, name: 'Odd', merges: false },
        { schema: 'public', name: 'per_statement', merges: true },
        { schema: 'public', name: 'skipping', merges: true },
        { schema: undefined, name: 'deferred', merges: true },
        { schema: undefined, name: 'warning', merges: true },
      ],
    });
  });
  afterAll(() => front?.stop());

  const clients = (count = 12) => Promise.all(Array.from({ length: count }, () => front.connect()));

  it('goes by the options, and the name with a schema decides', async () => {
    const some = await clients();
    await expect.poll(() => merged(some, 'agreed'), PATIENT).toBeGreaterThan(10);
    expect(await mergedWhenKnown(some, 'silent')).toBe(0);
    expect(await mergedWhenKnown(some, 'other.agreed')).toBe(0);
    expect(await mergedWhenKnown(some, '"Odd"')).toBe(0);
    await expect.poll(() => merged(some, 'plain'), PATIENT).toBeGreaterThan(10);
    expect(await outcomeOf(some[0]!.query('ALTER TABLE plain SET (postern.coalesce = off)'))).toBe('!0A000');
  });

  it('each statement fires its statement triggers once, and hears of its own row', async () => {
    const some = await clients();
    const insert = async (table: string, client: pg.Client, id: number) => {
      const text = `INSERT INTO ${table} (id) VALUES ($1)`;
      return (await client.query({ name: table, text, values: [id] })).rowCount;
    };
    for (const client of some) await insert('per_statement', client, ++lastId);
    for (const client of some) await insert('skipping', client, ++lastId);
    const direct = await front.connectDirectly();
    const counted = async () =>
      Number((await direct.query('SELECT statements FROM counted')).rows[0].statements);
    const start = await counted();
    for (let round = 0; round < 5; round++) {
      await Promise.all(some.map((client) => insert('per_statement', client, ++lastId)));
      const first = lastId + 1;
      const counts = await Promise.all(some.map((client) => insert('skipping', client, ++lastId)));
      expect(counts).toEqual(some.map((_, i) => ((first + i) % 2 === 1 ? 0 : 1)));
    }
    expect((await counted()) - start).toBe(5 * some.length);
  });

  it('what a deferred trigger warns of is no doubt of the commit', async () => {
    const some = await clients();
    const warned: string[] = [];
    for (const client of some) client.on('notice', ({ message }) => warned.push(message!));
    await expect.poll(() => merged(some, 'warning'), PATIENT).toBeGreaterThan(10);
    expect(new Set(warned)).toEqual(new Set(['at the commit']));
  });

  it('a constraint that fails at the commit fails for its own statement alone', async () => {
    const some = await clients();
    await expect.poll(() => merged(some, 'deferred'), PATIENT).toBeGreaterThan(10);
    const taken = ++lastId;
    const text = 'INSERT INTO deferred (id) VALUES ($1) RETURNING xmin::text';
    await execute(some[0]!, text, [taken]);
    for (let round = 0; round < 5; round++) {
      const ids = some.map((_, i) => (i === round ? taken : ++lastId));
      const outcomes = await Promise.all(some.map((client, i) => execute(client, text, [ids[i]])));
      outcomes.forEach((outcome, i) => {
        if (i === round) expect(outcome).toBe('!23505 deferred_pkey');
        else expect(outcome).toHaveLength(1);
      });
    }
  });

  it('says nothing of other nodes when its server is away', async () => {
    const [client] = (await clients(1)) as [pg.Client];
    front.server.kill();
    const hints: unknown[] = [];
    const ask = () => client.query('SELECT 1').catch((error) => hints.push(error.hint) && error.code);
    await expect.poll(ask).toBe('08001');
    expect(hints.at(-1)).toBe('Postern connects again by itself.');
    await front.server.restart();
  });
});

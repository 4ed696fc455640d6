/** `postern/client` against a router's choice of nodes: the same places for random keys, and after each change of the catalog. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { promisify } from 'node:util';
import fc from 'fast-check';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { connectPlaces, type Places } from '../../src/client/places.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient, value } from '../support/router-clients.ts';

/** A bound, for a busy machine. */
const soon = <T>(read: () => T) => expect.poll(read, { timeout: 30_000 });

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 3 });
  const client = new pg.Client({ connectionString: cluster.dsn() });
  await client.connect();
  const sharded = (name: string, type: string, options: string) =>
    client.query(
      `CREATE TABLE ${name} (k ${type}, n int) WITH (postern.door = sharded, postern.key = k, ${options})`,
    );
  await sharded('by_hash', 'int8', 'postern.buckets = 8');
  await sharded('by_text', 'varchar(12)', 'postern.buckets = 8');
  await sharded('by_range', 'numeric(10,2)', "postern.method = range, postern.bounds = '{-1.5,0,100}'");
  await sharded(
    'by_list',
    'text',
    "postern.method = list, postern.values = '{{a,b},c}', postern.buckets = 4",
  );
  await sharded(
    'by_time',
    'timestamptz',
    "postern.method = range, postern.bounds = '{2024-01-01,2025-01-01}'",
  );
  await client.end();
});

afterAll(async () => {
  await cluster?.stop();
});

async function open(
  dsn = cluster.dsn(),
  options: Partial<Parameters<typeof connectPlaces>[0]> = {},
): Promise<Places> {
  const places = await connectPlaces({ dsn, pollIntervalMs: 100, ...options });
  onTestFinished(() => places.close());
  return places;
}

/** Writes to the place itself: the leaf's CHECK refuses a row of another bucket. */
async function insertAt(place: { dsn: string; leaf: string }, key: unknown): Promise<string> {
  const client = new pg.Client({ connectionString: place.dsn });
  await client.connect();
  try {
    await client.query(`INSERT INTO ${place.leaf} (k, n) VALUES ($1, 1)`, [key]);
    return 'taken';
  } catch (error) {
    return (error as { code: string }).code;
  } finally {
    await client.end();
  }
}

test.each<[string, fc.Arbitrary<string | number | bigint | Date | null>]>([
  ['by_hash', fc.oneof(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), fc.integer())],
  ['by_text', fc.string({ unit: 'grapheme', maxLength: 6 })],
  [
    'by_range',
    fc.oneof(fc.integer({ min: -200, max: 200 }), fc.constantFrom('-1.5', '-1.51', '0.00', '99.99', '100')),
  ],
  ['by_list', fc.constantFrom('a', 'b', 'c', 'd', 'e', 'other', '')],
  ['by_time', fc.date({ min: new Date('2023-06-01'), max: new Date('2025-06-01'), noInvalidDate: true })],
])('keys of table %s are where it says', async (table, keys) => {
  const places = await open();
  for (const key of fc.sample(keys, { numRuns: 25, seed: 7 }))
    expect(await insertAt(places.dsnFor({ table, key }), key), String(key)).toBe('taken');
  expect(places.placesOf(table).map(({ bucket }) => bucket)).toEqual([...places.placesOf(table).keys()]);
});

test('nodes are given by name, or their addresses are those that the routers know', async () => {
  const places = await open(cluster.servers[0]!.dsn({ database: 'app', user: 'app' }));
  const { node, dsn } = places.dsnFor({ table: 'by_list', key: 'a' });
  const server = cluster.servers[Number(node.slice(1)) - 1]!;
  expect(new URL(dsn).port).toBe(String(server.port));
  expect(new URL(dsn).username).toBe('app');
  const own = await open(undefined, { nodes: (name) => `postgres://me@${name}.example/db` });
  expect(own.dsnFor({ table: 'public.by_list', key: 'a' }).dsn).toBe(`postgres://me@${node}.example/db`);
});

test('what it can’t be sure of is an error, not a guess', async () => {
  const places = await open();
  expect(() => places.dsnFor({ table: 'nowhere', key: 1 })).toThrow('there is no sharded table');
  expect(() => places.dsnFor({ table: 'by_hash', key: 'x' })).toThrow('is not certain');
  expect(() => places.dsnFor({ table: 'by_range', key: '1.005' })).toThrow('is not certain');
  expect(() => places.dsnFor({ table: 'by_time', key: 'yesterday' })).toThrow('is not certain');
  expect(() => places.dsnFor({ table: 'by_hash', key: new Date() })).toThrow('a Date cannot be the key');
  expect(() => places.dsnForTenant('public')).toThrow('does not live on a node of its own');
  await expect(connectPlaces({ dsn: cluster.servers[1]!.dsn({ database: 'app' }) })).rejects.toThrow(
    'postern.',
  );
});

describe('it follows the catalog', () => {
  test('a tenant that is pinned, a schema that moves, a table that comes and goes', async () => {
    const admin = await connectClient(cluster);
    const places = await open();
    const changes: number[] = [];
    places.on('change', (epoch) => changes.push(epoch));
    await admin.query("SELECT postern.pin_tenant('by_text', 'acme', 'n3')");
    await soon(() => places.dsnFor({ table: 'by_text', key: 'acme' }).node).toBe('n3');
    expect(await insertAt(places.dsnFor({ table: 'by_text', key: 'acme' }), 'acme')).toBe('taken');
    await admin.query('CREATE SCHEMA tenant1');
    await admin.query('CREATE TABLE tenant1.t (v text)');
    await admin.query("SELECT postern.distribute_schema('tenant1', 'n2')");
    await soon(() => tenantNode(places)).toBe('n2');
    await admin.query('CREATE TABLE coming (k int) WITH (postern.door = sharded, postern.key = k)');
    await soon(() => places.tables.includes('public.coming')).toBe(true);
    await admin.query('DROP TABLE coming');
    await soon(() => places.tables.includes('public.coming')).toBe(false);
    expect(changes.length).toBeGreaterThan(2);
    expect(changes).toEqual([...changes].sort((a, b) => a - b));
  });

  test('while the catalog is away it stays as it was, and comes back by itself', async () => {
    const places = await open(cluster.servers[0]!.dsn({ database: 'app', user: 'app' }));
    const events: string[] = [];
    places.on('away', () => events.push('away'));
    places.on('back', () => events.push('back'));
    const before = places.dsnFor({ table: 'by_hash', key: 5 });
    await cluster.servers[0]!.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'postern client'",
    );
    await soon(() => events.length).toBe(2);
    expect(events).toEqual(['away', 'back']);
    expect(places.dsnFor({ table: 'by_hash', key: 5 })).toEqual(before);
    await places.refresh();
    expect(places.isCurrent).toBe(true);
    await places.close();
    expect(places.isCurrent).toBe(false);
    expect(places.dsnFor({ table: 'by_hash', key: 5 })).toEqual(before);
  });
});

function tenantNode(places: Places): string | undefined {
  try {
    return places.dsnForTenant('tenant1').node;
  } catch {
    return undefined;
  }
}

const PG_BIN = '/usr/lib/postgresql/15/bin';

describe.skipIf(!existsSync(`${PG_BIN}/pg_dump`))('one tenant is dumped and restored alone', () => {
  const run = promisify(execFile);
  const restore = async (text: string, dsn: string): Promise<void> => {
    const directory = await mkdtemp(path.join(tmpdir(), 'postern-dump-'));
    onTestFinished(() => rm(directory, { recursive: true }));
    const file = path.join(directory, 'dump.sql');
    await writeFile(file, text);
    await run(`${PG_BIN}/psql`, ['-v', 'ON_ERROR_STOP=1', '-q', '-f', file, dsn]);
  };

  test('a schema on a node, and a key in a bucket of its own', async () => {
    // pg_dump 15 reads servers up to 15.
    const old = await startTestCluster({ nodes: 2, version: 15 });
    onTestFinished(() => old.stop());
    const admin = await connectClient(old);
    await admin.query('CREATE SCHEMA acme');
    await admin.query('CREATE TABLE acme.notes (id serial PRIMARY KEY, note text)');
    await admin.query("INSERT INTO acme.notes (note) VALUES ('one'), ('two')");
    await admin.query("SELECT postern.distribute_schema('acme', node => 'n2')");
    await admin.query(
      'CREATE TABLE events (tenant text, id int, PRIMARY KEY (tenant, id)) WITH (postern.door = sharded, postern.key = tenant, postern.buckets = 2)',
    );
    await admin.query("INSERT INTO events VALUES ('globex', 1), ('globex', 2), ('other', 1)");
    await admin.query("SELECT postern.pin_tenant('events', 'globex', 'n2')");
    const places = await connectPlaces({ dsn: old.dsn() });
    onTestFinished(() => places.close());
    const tenant = places.dsnForTenant('acme');
    const dump = await run(`${PG_BIN}/pg_dump`, ['-n', 'acme', '--clean', '--if-exists', tenant.dsn]);
    const place = places.dsnFor({ table: 'events', key: 'globex' });
    const rows = await run(`${PG_BIN}/pg_dump`, ['--data-only', '--inserts', '-t', place.leaf, place.dsn]);
    await admin.query('DROP TABLE acme.notes');
    await admin.query("DELETE FROM events WHERE tenant = 'globex'");
    await restore(dump.stdout, tenant.dsn);
    await restore(rows.stdout, place.dsn);
    expect(await value(admin, "SELECT string_agg(note, ' ' ORDER BY id) FROM acme.notes")).toBe('one two');
    expect(await value(admin, "SELECT count(*)::int FROM events WHERE tenant = 'globex'")).toBe(2);
    expect(await value(admin, 'SELECT count(*)::int FROM events')).toBe(3);
  });
});

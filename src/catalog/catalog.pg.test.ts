import { afterEach, describe, expect, test } from 'vitest';
import { APP, createCommand, useShardedCluster } from '../../test/support/sharded-cluster.ts';
import { createShardedTable } from '../doors/sharded/create.ts';
import { ControlConnection } from '../platform/control-connection.ts';
import { createCoalescing, setCoalescing } from './coalescing.ts';
import { leaseIdBlocks } from './id-sequences.ts';
import { IdLeases } from './ids.ts';
import type { ClusterMap } from './map.ts';
import { judgeCluster, judgeNode, readNodeFacts } from './requirements.ts';
import { ensureCatalog, ensureNode } from './schema.ts';
import { loadMap } from './store.ts';
import { CatalogWatcher } from './watcher.ts';

const cluster = useShardedCluster(2);
const open: { close(): Promise<void> }[] = [];

async function home(): Promise<ControlConnection> {
  const connection = await cluster.open(0);
  open.push(connection);
  return connection;
}

function watch(maps: ClusterMap[] = [], said: string[] = []): CatalogWatcher {
  const { nodes, homeNodeId } = cluster.identity!;
  const watcher = new CatalogWatcher({
    dsn: cluster.servers[0]!.dsn(),
    nodes,
    homeNode: nodes.find((node) => node.id === homeNodeId)!,
    onMap: (map) => maps.push(map),
    log: { info: (message) => said.push(message), warn: (message) => said.push(message) },
  });
  open.push({ close: () => watcher.stop() });
  return watcher;
}

afterEach(async () => {
  await Promise.all(open.splice(0).map((one) => one.close()));
});

async function switches(connection: ControlConnection): Promise<Record<string, string>> {
  const rows = await connection.query<{ table_name: string; coalesce: string }>(
    'SELECT table_name, coalesce FROM postern.coalescing',
  );
  return Object.fromEntries(rows.map((row) => [row.table_name, row.coalesce]));
}

async function switchOf(connection: ControlConnection, relation: string, merges: boolean) {
  await setCoalescing(connection, { relation, merges, ifExists: false }, { ...APP, role: 'postgres' });
  return (await switches(connection))[relation];
}

describe('the catalog', () => {
  test('several routers that come first at once make one catalog', async () => {
    await cluster.servers[0]!.query('CREATE DATABASE many');
    const dsn = cluster.servers[0]!.dsn({ database: 'many' });
    const identities = await Promise.all(
      Array.from({ length: 5 }, async () => {
        const connection = await ControlConnection.open({ nodeName: 'a', dsn });
        open.push(connection);
        return await ensureCatalog(connection, { nodes: ['a', 'b', 'c'], home: 'a' });
      }),
    );
    for (const identity of identities) expect(identity).toEqual(identities[0]);
    expect(identities[0]!.nodes.map((node) => node.name)).toEqual(['a', 'b', 'c']);
    const connection = open[0] as ControlConnection;
    const more = await ensureCatalog(connection, { nodes: ['b', 'a', 'c', 'd'], home: 'a' });
    expect(more.nodes.slice(0, 3)).toEqual(identities[0]!.nodes);
    expect((await loadMap(connection)).nodes).toEqual(more.nodes);
    await expect(ensureCatalog(connection, { nodes: ['a', 'b'], home: 'a' })).rejects.toThrow('lacks: c, d');
    await expect(ensureCatalog(connection, { nodes: ['a', 'b', 'c', 'd'], home: 'b' })).rejects.toThrow(
      'home node is "a"',
    );
  });

  test('one that an earlier version has made gets what this version adds', async () => {
    await cluster.servers[0]!.query('CREATE DATABASE old_catalog');
    const dsn = cluster.servers[0]!.dsn({ database: 'old_catalog' });
    const connection = await ControlConnection.open({ nodeName: 'a', dsn });
    open.push(connection);
    const options = { nodes: ['a'], home: 'a' };
    const before = await ensureCatalog(connection, options);
    // As version 0.1.0 has left it.
    await connection.query(`DROP VIEW postern.coalescing; DROP VIEW postern.tables;
      CREATE VIEW postern.tables AS SELECT t.table_schema, t.table_name, 'sharded'::text AS door, t.key_column, t.key_type,
        g.bucket_count, t.colocation_id AS colocation_group, t.state
        FROM postern_internal.tables t LEFT JOIN postern_internal.colocation_groups g USING (colocation_id);
      DROP TABLE postern_internal.coalescing;
      ALTER TABLE postern_internal.tables DROP CONSTRAINT tables_check, DROP COLUMN door, DROP COLUMN copies;
      UPDATE postern_internal.cluster SET format_version = 1`);
    expect(await ensureCatalog(connection, options)).toEqual(before);
    expect(await connection.query('SELECT coalesce, door FROM postern.tables')).toEqual([]);
    await connection.query('CREATE TABLE public.t ()');
    expect(await switchOf(connection, 't', false)).toBe('off');
    expect(await ensureCatalog(connection, options)).toEqual(before);
    await connection.query(
      'UPDATE postern_internal.cluster SET format_version = 3; DROP VIEW postern.coalescing',
    );
    await expect(ensureCatalog(connection, options)).rejects.toThrow('Postern knows formats up to 2');
  });

  test('the switch of a table stays with it, and is its owner’s', async () => {
    const connection = await home();
    await cluster.servers[0]!.query(`SET ROLE app; CREATE TABLE switched (); CREATE VIEW seen AS SELECT 1; RESET ROLE;
      CREATE TABLE foreign_one ()`);
    const epoch = (await loadMap(connection)).epoch;
    const set = (relation: string, merges: boolean | undefined, ifExists = false) =>
      setCoalescing(connection, { relation, merges, ifExists }, APP);
    expect(await set('public."switched"', true)).toBe(true);
    expect((await loadMap(connection)).epoch).toBe(epoch + 1);
    expect(await switches(connection)).toEqual({ switched: 'on' });
    expect(await set('switched', false)).toBe(true);
    await cluster.servers[0]!.query('ALTER TABLE switched RENAME TO renamed');
    expect(await switches(connection)).toEqual({ renamed: 'off' });
    expect(await set('switched', true, true)).toBe(false);
    await expect(set('switched', true)).rejects.toMatchObject({ sqlState: '42P01' });
    await expect(set('foreign_one', true)).rejects.toMatchObject({ sqlState: '42501' });
    await expect(set('seen', true)).rejects.toMatchObject({ sqlState: '42809' });
    await expect(set('a b', true)).rejects.toMatchObject({ sqlState: '42P01' });
    expect(await set('renamed', undefined)).toBe(true);
    expect(await switches(connection)).toEqual({});
    await set('renamed', false);
    await cluster.servers[0]!.query('DROP TABLE renamed');
    expect(await switches(connection)).toEqual({});
    const create = { schema: undefined, name: 'made', ifNotExists: true, merges: false };
    const made = () =>
      createCoalescing(connection, { ...create, createText: 'CREATE TABLE IF NOT EXISTS made ()' }, APP);
    expect([await made(), await made()]).toEqual([true, false]);
    const left = await connection.query<{ count: number }>(
      'SELECT count(*)::int FROM postern_internal.coalescing',
    );
    expect(left).toEqual([{ count: 1 }]);
    await expect(
      createCoalescing(
        connection,
        { ...create, ifNotExists: false, createText: 'CREATE TABLE made ()' },
        APP,
      ),
    ).rejects.toMatchObject({ sqlState: '42P07' });
    expect(await switches(connection)).toEqual({ made: 'off' });
  });

  test('a server that is another node is refused', async () => {
    const { clusterId, nodes } = cluster.identity!;
    const connection = await home();
    await ensureNode(connection, { clusterId, node: nodes[0]! });
    await expect(ensureNode(connection, { clusterId, node: nodes[1]! })).rejects.toThrow(
      'is node "n1" of this cluster',
    );
    await expect(ensureNode(connection, { clusterId: 'x', node: nodes[0]! })).rejects.toThrow(
      'of another cluster',
    );
  });

  test('requirements of real servers', async () => {
    const all = await Promise.all(
      cluster.servers.map(async (_, i) => {
        const connection = await cluster.open(i);
        open.push(connection);
        return await readNodeFacts(connection);
      }),
    );
    expect(judgeCluster(all)).toEqual([]);
    expect(judgeCluster([...all, { ...(await readNodeFacts(await home())), node: 'again' }])).toMatchObject([
      { node: 'again', severity: 'error' },
    ]);
    for (const facts of all) {
      expect(judgeNode(facts, 50).map((finding) => finding.message)).toEqual(['fsync is off']);
    }
  });
});

describe('ids', () => {
  test('two routers lease ids of one column, and never the same one', async () => {
    await createShardedTable(
      cluster.router(),
      createCommand('counted', 'id serial PRIMARY KEY, small smallserial'),
      APP,
    );
    const { id: tableId } = await cluster.table('counted');
    const leases = await Promise.all(
      [home(), home()].map(async (connecting) => {
        const connection = await connecting;
        return new IdLeases({ lease: (request) => leaseIdBlocks(connection, request) });
      }),
    );
    const taken = await Promise.all(
      Array.from({ length: 20 }, (_, i) => leases[i % 2]!.take(tableId, 'id', 777)),
    );
    expect(new Set(taken.flat()).size).toBe(20 * 777);
    const smalls = await leases[0]!.take(tableId, 'small', 32_767);
    expect(Math.max(...smalls)).toBe(32_767);
    await expect(leases[1]!.take(tableId, 'small', 1)).rejects.toMatchObject({
      sqlState: '2200H',
      message: 'nextval: reached maximum value of sequence "counted_small_seq" (32767)',
    });
    await expect(leaseIdBlocks(await home(), { tableId: 999, column: 'id', count: 1 })).rejects.toMatchObject(
      {
        sqlState: '42P01',
      },
    );
  });
});

test('a catalog that counted ids itself goes on with the sequences', async () => {
  await createShardedTable(cluster.router(), createCommand('earlier', 'id bigserial PRIMARY KEY'), APP);
  const { id: tableId } = await cluster.table('earlier');
  await cluster.servers[0]!.query(
    `ALTER TABLE postern_internal.id_columns DROP COLUMN restarts;
     UPDATE postern_internal.id_columns SET next_id = 4001 WHERE table_id = ${tableId}`,
  );
  await cluster.prepare();
  const connection = await home();
  expect(await leaseIdBlocks(connection, { tableId, column: 'id', count: 10 })).toEqual([
    { first: 4001, last: 4010 },
  ]);
  await cluster.prepare();
  expect(await leaseIdBlocks(connection, { tableId, column: 'id', count: 1 })).toEqual([
    { first: 4011, last: 4011 },
  ]);
  // A router of before has none left.
  expect(
    await cluster.servers[0]!.query(
      `SELECT FROM postern_internal.id_columns WHERE table_id = ${tableId} AND next_id <= max_id`,
    ),
  ).toEqual([]);
});

describe('CatalogWatcher', () => {
  test('sees another router’s change by itself, and a shadowing relation', async () => {
    const maps: ClusterMap[] = [];
    const watcher = watch(maps);
    await watcher.start();
    expect(watcher.available).toBe(true);
    await createShardedTable(cluster.router(), createCommand('watched', 'id int8'), APP);
    await expect.poll(() => watcher.current.tablesByName.has('watched')).toBe(true);
    expect(maps.at(-1)).toBe(watcher.current);
    await cluster.servers[0]!.query('CREATE SCHEMA other; CREATE TABLE other.watched ()');
    await expect
      .poll(() => watcher.current.tables.get('public')?.get('watched')?.shadowSchemas)
      .toEqual(['other']);
  });

  test('a change is seen without a notification, too', async () => {
    const watcher = watch();
    await watcher.start();
    const before = watcher.current.epoch;
    await cluster.servers[0]!.query('UPDATE postern_internal.cluster SET epoch = epoch + 1');
    await expect.poll(() => watcher.current.epoch).toBe(before + 1);
  });

  test('refreshes at the same time share loads, and each sees what was there before it', async () => {
    const watcher = watch();
    await watcher.start();
    for (let round = 0; round < 60; round++) {
      // A load that may take its snapshot before the change, and must not be the answer to those who ask after it.
      const early = watcher.refresh();
      for (let i = 0; i < round % 6; i++) await new Promise((resolve) => setImmediate(resolve));
      const rows = await cluster.servers[0]!.query(
        'UPDATE postern_internal.cluster SET epoch = epoch + 1 RETURNING epoch::int',
      );
      const seen = await Promise.all(Array.from({ length: 20 }, () => watcher.refresh()));
      for (const map of seen) expect(map.epoch).toBeGreaterThanOrEqual(Number(rows[0]!.epoch));
      await early;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  });

  test('while the catalog is away the map goes on serving; it comes back by itself', async () => {
    const said: string[] = [];
    const watcher = watch([], said);
    await watcher.start();
    const before = watcher.current;
    cluster.servers[0]!.kill();
    await expect.poll(() => watcher.available).toBe(false);
    expect(watcher.current).toBe(before);
    await expect(watcher.refresh()).rejects.toMatchObject({ sqlState: '08001' });
    await cluster.servers[0]!.restart();
    await expect.poll(() => watcher.available, { timeout: 20_000 }).toBe(true);
    await cluster.servers[0]!.query('UPDATE postern_internal.cluster SET epoch = epoch + 1');
    await expect.poll(() => watcher.current.epoch).toBe(before.epoch + 1);
    expect(said.filter((message) => message === 'the catalog is back')).toHaveLength(1);
  });

  test('start() fails when there is no catalog to be reached', async () => {
    const { nodes } = cluster.identity!;
    const watcher = new CatalogWatcher({
      dsn: 'postgres://postgres@127.0.0.1:1/postgres',
      nodes,
      homeNode: nodes[0]!,
      onMap: () => undefined,
      log: { info: () => undefined, warn: () => undefined },
    });
    await expect(watcher.start()).rejects.toMatchObject({ sqlState: '08001' });
    await watcher.stop();
  });
});

/** The mesh by itself, with a role of Postern's that is no superuser: what it asks for, and that several routers agree on one. */
import { afterAll, describe, expect, it } from 'vitest';
import { APP, createCommand, useShardedCluster } from '../../test/support/sharded-cluster.ts';
import { NodePool } from '../backend/pool.ts';
import { readTokenKey } from '../catalog/store.ts';
import { createShardedTable } from '../doors/sharded/create.ts';
import { NO_TLS } from '../pg/dsn-tls.ts';
import { ClusterMesh } from './cluster-mesh.ts';

const cluster = useShardedCluster(2, 'admin');
const meshes: ClusterMesh[] = [];
afterAll(() => {
  for (const mesh of meshes) mesh.close();
});

async function routersMesh(logged: string[] = []): Promise<ClusterMesh> {
  const { clusterId, nodes, homeNodeId } = cluster.identity!;
  const home = await cluster.open(0);
  const tokenKey = await readTokenKey(home);
  const mesh = new ClusterMesh({
    ...{ clusterId, tokenKey, homeNodeId, now: () => performance.now() },
    nodes: nodes.map((node, i) => ({
      ...node,
      dsn: cluster.servers[i]!.dsn({ user: 'admin' }),
      reach: undefined,
    })),
    connect: (nodeId) => cluster.open(nodes.findIndex(({ id }) => id === nodeId)),
    askHome: async (text) => (await home.query(text)).map((row) => Object.values(row) as (string | null)[]),
    openPool: (node) =>
      new NodePool({
        address: { nodeId: node.id, nodeName: node.name, host: '127.0.0.1', port: 1, tls: NO_TLS },
        connectionsMax: 1,
        open: () => Promise.reject(new Error('nobody connects here')),
        now: () => performance.now(),
      }),
    log: { info: (message) => void logged.push(message), warn() {}, error() {} },
  });
  meshes.push(mesh);
  return mesh;
}

describe('a role that is no superuser', () => {
  it('is told what it lacks, one after the other, and has a mesh then', async () => {
    await createShardedTable(cluster.router(), createCommand('t', 'id bigint PRIMARY KEY, v text'), APP);
    const mesh = await routersMesh();
    const failure = async () => mesh.ready().catch((error: Error) => error);
    expect(await failure()).toMatchObject({ sqlState: '0A000', hint: expect.stringContaining('CREATEROLE') });
    for (const server of cluster.servers)
      await server.query('ALTER ROLE admin CREATEROLE; GRANT pg_read_all_data TO admin WITH ADMIN OPTION');
    expect(await failure()).toMatchObject({ sqlState: '0A000', hint: expect.stringContaining('CREATEDB') });
    const [home] = cluster.servers;
    await home!.query('ALTER ROLE admin CREATEDB');
    expect(await failure()).toMatchObject({
      sqlState: '0A000',
      hint: expect.stringContaining('CREATE EXTENSION'),
    });
    const { default: pg } = await import('pg');
    const superuser = new pg.Client({ connectionString: home!.dsn({ database: 'postgres_postern_mesh' }) });
    superuser.on('error', () => {});
    await superuser.connect();
    await superuser.query(
      'CREATE EXTENSION postgres_fdw WITH SCHEMA pg_catalog; GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO admin',
    );
    const ready = await mesh.ready();
    expect(ready.refusalOf({ names: ['t'], functions: [], namesCollation: false })).toBeUndefined();
    const { rows } = await superuser.query(
      "SELECT count(*)::int AS parts FROM pg_inherits WHERE inhparent = 't'::regclass",
    );
    expect(rows).toEqual([{ parts: 6 }]);
    await superuser.end();
  });
});

describe('several routers', () => {
  it('make one mesh, and follow one another', async () => {
    const [one, two] = [await routersMesh(), await routersMesh()];
    await Promise.all([one.ready(), two.ready()]);
    const [home] = cluster.servers;
    await home!.query('CREATE TABLE single (i int)');
    const [first, second] = await Promise.all([one.ready({ fresh: true }), two.ready({ fresh: true })]);
    expect([first.version, second.version]).toEqual([2, 2]);
    await home!.query('ALTER TABLE single ENABLE ROW LEVEL SECURITY');
    for (const mesh of [one, two]) {
      const ready = await mesh.ready({ fresh: true });
      expect(ready.refusalOf({ names: ['single'], functions: [], namesCollation: false })).toMatchObject({
        sqlState: '0A000',
      });
    }
  });

  it('an unchanged catalog needs nothing but its mark', async () => {
    const logged: string[] = [];
    const mesh = await routersMesh(logged);
    const ready = await mesh.ready();
    expect(await mesh.ready({ fresh: true })).toBe(ready);
    expect(logged).toHaveLength(1);
    const [home] = cluster.servers;
    await home!.query('ANALYZE; CREATE TEMP TABLE x (i int)');
    expect(await mesh.ready({ fresh: true })).toBe(ready);
  });
});

/**
 * A few real servers with a catalog on the first one and the DDL of sharded tables over them, for tests of catalog/ and
 * doors/sharded/ that need no router. Versions are mixed where the machine has more than one.
 */
import { afterAll, beforeAll } from 'vitest';
import type { ClusterMap, ShardedTable } from '../../src/catalog/map.ts';
import { type CatalogIdentity, ensureCatalog, ensureNode } from '../../src/catalog/schema.ts';
import { loadMap } from '../../src/catalog/store.ts';
import type { DdlContext, DdlSession } from '../../src/ddl/context.ts';
import type { RouterCommand } from '../../src/plan/plan.ts';
import { ControlConnection } from '../../src/platform/control-connection.ts';
import { isVersionInstalled, startTestServer, type TestServer, type TestServerOptions } from './servers.ts';

export const APP: DdlSession = { role: 'app', searchPath: '"$user", public' };

export class ShardedCluster {
  servers: TestServer[] = [];
  names: string[] = [];
  identity: CatalogIdentity | undefined;

  /** One router's view of the cluster. After `crash()` it does nothing any more, as if its process were gone. */
  router(afterStep?: (step: string, router: TestRouter) => void): TestRouter {
    return new TestRouter(this, afterStep);
  }

  /** The role of the control path. */
  readonly admin: string;
  readonly #server: TestServerOptions;

  constructor(admin: string, server: TestServerOptions = {}) {
    this.admin = admin;
    this.#server = server;
  }

  async start(count: number): Promise<void> {
    const old = (await isVersionInstalled(15)) ? 15 : 18;
    this.servers = await Promise.all(
      Array.from({ length: count }, (_, i) =>
        startTestServer({ version: i === 1 ? old : 18, ...this.#server }),
      ),
    );
    this.names = this.servers.map((_, i) => `n${i + 1}`);
    for (const server of this.servers) {
      await server.query('CREATE ROLE app LOGIN; CREATE ROLE reader; GRANT CREATE ON SCHEMA public TO app');
      if (this.admin === 'postgres') continue;
      await server.query(
        `CREATE ROLE ${this.admin} LOGIN; GRANT app TO ${this.admin}; GRANT CREATE ON DATABASE postgres TO ${this.admin}`,
      );
    }
    await this.prepare();
  }

  async prepare(): Promise<void> {
    const home = await this.open(0);
    this.identity = await ensureCatalog(home, { nodes: this.names, home: 'n1' });
    await home.close();
    for (const [i, node] of this.identity.nodes.entries()) {
      const connection = await this.open(i);
      await ensureNode(connection, { clusterId: this.identity.clusterId, node });
      await connection.close();
    }
  }

  async open(index: number): Promise<ControlConnection> {
    return await ControlConnection.open({
      nodeName: this.names[index]!,
      dsn: this.servers[index]!.dsn({ user: this.admin }),
    });
  }

  async map(): Promise<ClusterMap> {
    const home = await this.open(0);
    try {
      return await loadMap(home);
    } finally {
      await home.close();
    }
  }

  async table(name: string, schema = 'public'): Promise<ShardedTable> {
    const table = (await this.map()).tables.get(schema)?.get(name);
    if (!table) throw new Error(`no sharded table ${schema}.${name} in the map`);
    return table;
  }

  /** Names of all relations of Postern's making that have to do with `name`, by node; empty when nothing is left. */
  async traces(name: string): Promise<string[]> {
    const found: string[] = [];
    for (const [i, server] of this.servers.entries()) {
      const rows = await server.query(
        `SELECT c.oid::regclass::text AS relation FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relname LIKE '${name}%' AND n.nspname !~ '^pg_'
         UNION ALL SELECT 'record ' || table_id FROM postern_internal.local_tables
         WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = face) OR face::text LIKE '%${name}%' ORDER BY 1`,
      );
      for (const row of rows) found.push(`${this.names[i]}: ${String(row.relation)}`);
    }
    const rows = await this.servers[0]!.query(
      `SELECT state FROM postern_internal.tables WHERE table_name = '${name}'`,
    );
    for (const row of rows) found.push(`catalog: ${String(row.state)}`);
    return found;
  }

  async stop(): Promise<void> {
    await Promise.all(this.servers.map((server) => server.stop()));
  }
}

export class TestRouter implements DdlContext {
  readonly nodes;
  readonly homeNodeId;
  readonly steps: string[] = [];
  readonly #cluster: ShardedCluster;
  readonly #open = new Set<ControlConnection>();
  readonly #onStep: ((step: string, router: TestRouter) => void) | undefined;
  #crashed = false;

  constructor(cluster: ShardedCluster, onStep: ((step: string, router: TestRouter) => void) | undefined) {
    const identity = cluster.identity!;
    this.nodes = identity.nodes;
    this.homeNodeId = identity.homeNodeId;
    this.#cluster = cluster;
    this.#onStep = onStep;
  }

  async connect(nodeId: number): Promise<ControlConnection> {
    if (this.#crashed) throw new Error('this router has crashed');
    const index = this.nodes.findIndex((node) => node.id === nodeId);
    const connection = await this.#cluster.open(index);
    this.#open.add(connection);
    return connection;
  }

  async refresh(): Promise<ClusterMap> {
    return await this.#cluster.map();
  }

  afterStep(step: string): void {
    this.steps.push(step);
    this.#onStep?.(step, this);
  }

  crash(): never {
    this.#crashed = true;
    for (const connection of this.#open) connection.destroy();
    throw new Error('crash');
  }
}

/** For a test file: started before its tests and stopped after them. */
export function useShardedCluster(count: number, admin = 'postgres'): ShardedCluster {
  const cluster = new ShardedCluster(admin);
  beforeAll(() => cluster.start(count));
  afterAll(() => cluster.stop());
  return cluster;
}

export function createCommand(
  name: string,
  columns: string,
  options: Partial<Extract<RouterCommand, { kind: 'createShardedTable' }>> = {},
): Extract<RouterCommand, { kind: 'createShardedTable' }> {
  return {
    kind: 'createShardedTable',
    schema: undefined,
    name,
    ifNotExists: false,
    createText: `CREATE TABLE ${options.schema ? `${options.schema}.` : ''}${name} (${columns})`,
    key: 'id',
    placement: { method: 'hash', bucketCount: 6 },
    nodes: undefined,
    colocateWith: undefined,
    coalesce: undefined,
    ...options,
  };
}

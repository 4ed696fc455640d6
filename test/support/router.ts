/**
 * A router over real servers, for tests: `await startTestCluster()`, and `await cluster.stop()` at the end. Each node has
 * a role `app` and a database `app` that it owns, as an application would find them.
 */

import type { UserEntry } from '../../src/auth/user-entry.ts';
import { type Router, startRouter } from '../../src/cli/router.ts';
import type { RouterOptions } from '../../src/cli/router-options.ts';
import { startTestServer, type TestServer, type TestServerOptions } from './servers.ts';

export interface TestClusterOptions {
  /** Default 2. The first one is home. */
  readonly nodes?: number;
  /** Default: `app` and `postgres`, both trusted. A password is the role's on each node as well. */
  readonly users?: readonly UserEntry[];
  readonly version?: 15 | 18;
  /** Of each node; the rest have `version`. */
  readonly versions?: readonly (15 | 18)[];
  readonly connectionsPerNode?: number;
  readonly durable?: boolean;
  /** How the nodes authenticate the router; default trust. With scram-sha-256 each user needs a password. */
  readonly nodeAuth?: 'trust' | 'scram-sha-256';
  readonly settings?: Record<string, string>;
  /** Default: as the router's. */
  readonly coalesce?: boolean;
  readonly statementsEveryMs?: number;
  /** Default: as the router's. */
  readonly transactions?: RouterOptions['transactions'];
  /** Whatever else it is started with. */
  readonly router?: Partial<RouterOptions>;
}

export interface TestCluster {
  readonly router: Router;
  readonly port: number;
  readonly servers: readonly TestServer[];
  /** What the router was started with: for another one over the same nodes, or a configuration file. */
  readonly routerOptions: RouterOptions;
  /** Through the router; user `app` if none is named. */
  dsn(user?: string, password?: string): string;
  stop(): Promise<void>;
}

const DATABASE = 'app';
export const TRUSTED_USERS: readonly UserEntry[] = [
  { name: 'app', password: undefined },
  { name: 'postgres', password: undefined },
];

export async function startTestCluster(options: TestClusterOptions = {}): Promise<TestCluster> {
  const users = options.users ?? TRUSTED_USERS;
  const serverOptions: TestServerOptions = {
    ...(options.version !== undefined && { version: options.version }),
    ...(options.durable !== undefined && { durable: options.durable }),
    ...(options.nodeAuth !== undefined && { auth: options.nodeAuth }),
    ...(options.settings !== undefined && { settings: options.settings }),
  };
  const servers = await Promise.all(
    Array.from({ length: options.nodes ?? 2 }, (_, i) => {
      const version = options.versions?.[i];
      return startTestServer({ ...serverOptions, ...(version !== undefined && { version }) });
    }),
  );
  try {
    await Promise.all(servers.map((server) => prepareNode(server, users)));
    const routerOptions: RouterOptions = {
      listen: { host: '127.0.0.1', port: 0 },
      database: DATABASE,
      nodes: servers.map((server, i) => ({ name: `n${i + 1}`, dsn: server.dsn({ database: DATABASE }) })),
      home: 'n1',
      users,
      connectionsPerNode: options.connectionsPerNode,
      coalesce: options.coalesce,
      statementsEveryMs: options.statementsEveryMs,
      transactions: options.transactions,
      ...options.router,
    };
    const router = await startRouter(routerOptions);
    return {
      router,
      port: router.port,
      servers,
      routerOptions,
      dsn: (user = 'app', password) => {
        const secret = password ?? users.find((entry) => entry.name === user)?.password;
        const login = secret === undefined ? user : `${user}:${encodeURIComponent(secret)}`;
        return `postgres://${login}@127.0.0.1:${router.port}/${DATABASE}`;
      },
      stop: async () => {
        await router.close();
        await stopAll(servers);
      },
    };
  } catch (error) {
    await stopAll(servers);
    throw error;
  }
}

async function prepareNode(server: TestServer, users: readonly UserEntry[]): Promise<void> {
  for (const name of new Set([DATABASE, ...users.map((user) => user.name)])) {
    const password = users.find((user) => user.name === name)?.password;
    const clause = password === undefined ? '' : ` PASSWORD '${password.replaceAll("'", "''")}'`;
    if (name !== 'postgres') await server.query(`CREATE ROLE "${name}" LOGIN${clause}`);
  }
  await server.query(`CREATE DATABASE ${DATABASE} OWNER ${DATABASE}`);
}

async function stopAll(servers: readonly TestServer[]): Promise<void> {
  await Promise.all(servers.map((server) => server.stop()));
}

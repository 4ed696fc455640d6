/**
 * Transactions over real servers without a router's sessions: branches on backend connections of their own, which log in as
 * the client's role, and any number of routers' coordinators and recoveries beside one another.
 */
import { afterAll, afterEach, beforeAll } from 'vitest';
import type { BackendConnection } from '../../src/backend/connection.ts';
import { NO_CREDENTIAL } from '../../src/backend/credential.ts';
import { ask, type Rows } from '../../src/backend/internal-query.ts';
import { openBackend } from '../../src/backend/login.ts';
import { readTokenKey } from '../../src/catalog/store.ts';
import { NO_TLS } from '../../src/pg/dsn-tls.ts';
import { ControlConnection } from '../../src/platform/control-connection.ts';
import { FlushQueue } from '../../src/platform/flush-queue.ts';
import type { CommitBranch } from '../../src/txn/coordinator.ts';
import {
  CONTROL_LIMITS,
  startTransactions,
  type Transactions,
  type TransactionsOptions,
} from '../../src/txn/transactions.ts';
import type { TestServerOptions } from './servers.ts';
import { ShardedCluster } from './sharded-cluster.ts';

const flushQueue = new FlushQueue();

export interface TestTransactions extends Transactions {
  readonly logged: string[];
  /** Its process is gone: sockets cut, nothing carried on. */
  die(): Promise<void>;
}

export class TransactionCluster extends ShardedCluster {
  readonly #opened: BackendConnection[] = [];
  readonly #routers: TestTransactions[] = [];

  /** A router's part for transactions, with recovery only when a test calls it. */
  async transactions(options: Partial<TransactionsOptions> = {}): Promise<TestTransactions> {
    const identity = this.identity!;
    const home = await this.open(0);
    const tokenKey = await readTokenKey(home);
    await home.close();
    const logged: string[] = [];
    const log = (message: string) => void logged.push(message);
    const controls: ControlConnection[] = [];
    const started = startTransactions({
      clusterId: identity.clusterId,
      tokenKey,
      nodes: identity.nodes,
      homeNodeId: identity.homeNodeId,
      connect: async (nodeId) => {
        const index = identity.nodes.findIndex(({ id }) => id === nodeId);
        const connection = await ControlConnection.open({
          nodeName: this.names[index]!,
          dsn: this.servers[index]!.dsn({ user: this.admin }),
          ...CONTROL_LIMITS,
        });
        controls.push(connection);
        return connection;
      },
      log: { info: log, warn: log, error: log },
      recovers: false,
      now: () => performance.now(),
      ...options,
    });
    const router = {
      ...started,
      logged,
      die: async () => {
        started.coordinator.abandon();
        for (const connection of controls) connection.destroy();
        await started.stop();
      },
    };
    this.#routers.push(router);
    return router;
  }

  /** A connection to the node at `index`, inside a transaction that has run `statements`. */
  async branch(
    index: number,
    statements: readonly string[],
    options: Partial<Omit<CommitBranch, 'connection'>> & { user?: string } = {},
  ): Promise<CommitBranch> {
    const connection = await this.connect(index, options.user);
    await ask(connection, 'BEGIN');
    for (const statement of statements) await ask(connection, statement);
    return { connection, wrote: true, hasXid: true, unpreparable: undefined, ...options };
  }

  async connect(index: number, user = 'app'): Promise<BackendConnection> {
    const node = this.identity!.nodes[index]!;
    const connection = await openBackend({
      address: {
        nodeId: node.id,
        nodeName: node.name,
        host: '127.0.0.1',
        port: this.servers[index]!.port,
        tls: NO_TLS,
      },
      database: 'postgres',
      user,
      credential: NO_CREDENTIAL,
      flushQueue,
      keepalives: true,
    });
    this.#opened.push(connection);
    return connection;
  }

  /** Rows of one query on each node. */
  async everywhere(sql: string): Promise<Record<string, unknown>[][]> {
    return await Promise.all(this.servers.map((server) => server.query(sql)));
  }

  /** GIDs, marks and decisions that are there. */
  async leftovers(): Promise<string[]> {
    const rows = await this.everywhere(
      `SELECT 'prepared ' || gid AS left FROM pg_prepared_xacts UNION ALL
       SELECT 'mark ' || owner FROM postern_internal.transaction_marks UNION ALL
       SELECT outcome || ' ' || owner FROM postern_internal.decisions`,
    );
    return rows.flatMap((list, i) => list.map((row) => `${this.names[i]}: ${String(row.left)}`));
  }

  async cleanUp(): Promise<void> {
    for (const router of this.#routers.splice(0)) await router.die();
    for (const connection of this.#opened.splice(0)) if (!connection.closed) connection.destroy();
  }
}

export function rowsOf(connection: BackendConnection, text: string): Promise<Rows> {
  return ask(connection, text);
}

export function useTransactionCluster(
  count: number,
  options: { admin?: string; server?: TestServerOptions } = {},
): TransactionCluster {
  const cluster = new TransactionCluster(options.admin ?? 'postgres', options.server);
  beforeAll(() => cluster.start(count));
  afterEach(() => cluster.cleanUp());
  afterAll(() => cluster.stop());
  return cluster;
}

/** Puts a router together: checks the nodes, joins the catalog, opens the pools and listens. */

import { openBackend } from '../backend/login.ts';
import { NodePool } from '../backend/pool.ts';
import { StatementRegistry } from '../backend/prepared.ts';
import { BOUNDS } from '../base/bounds.ts';
import { besideOtherNodes, notSupported, PosternError } from '../base/errors.ts';
import { COALESCING_QUERY } from '../catalog/coalescing.ts';
import { announceRestart, leaseIdBlocks } from '../catalog/id-sequences.ts';
import { IdLeases } from '../catalog/ids.ts';
import type { NodeInfo } from '../catalog/map.ts';
import { bumpEpoch, INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { readTokenKey } from '../catalog/store.ts';
import { CatalogWatcher } from '../catalog/watcher.ts';
import { Coalescer } from '../coalesce/coalescer.ts';
import type { DdlContext } from '../ddl/context.ts';
import { sweep } from '../ddl/sweep.ts';
import { completeReferenceTables } from '../doors/reference/join.ts';
import { syncSchemas } from '../doors/schema/relations.ts';
import type { RouterContext, RouterLog } from '../execute/context.ts';
import { FunctionFacts } from '../execute/function-facts.ts';
import { IdChooser, type IdSource } from '../execute/id-chooser.ts';
import { MESH_NODE_BASE } from '../execute/mesh.ts';
import { PlanCache } from '../execute/plan-cache.ts';
import { StatefulRelations } from '../execute/stateful-relations.ts';
import { WriteFactsCache } from '../execute/write-facts.ts';
import { FiguresRefresher } from '../introspect/figures-refresher.ts';
import { ClusterMesh } from '../mesh/cluster-mesh.ts';
import { parseDsn } from '../pg/dsn.ts';
import { planQuery } from '../plan/planner.ts';
import type { ShownCatalogs } from '../plan/resolve.ts';
import { ControlConnection, type ControlConnectionOptions } from '../platform/control-connection.ts';
import { FlushQueue } from '../platform/flush-queue.ts';
import type { MetricsServer } from '../platform/metrics-server.ts';
import { Listener } from '../session/listener.ts';
import { type UserEntry, Users } from '../session/users.ts';
import { loadParser } from '../sql/parser.ts';
import { StatementCounters } from '../statements/counters.ts';
import { StatementFlusher } from '../statements/flush.ts';
import type { TransactionCoordinator } from '../txn/coordinator.ts';
import { DeadlockDetector } from '../txn/deadlock-detector.ts';
import { DecisionGate } from '../txn/decision-gate.ts';
import type { TransactionMetrics } from '../txn/metrics.ts';
import { DistributedTransactions } from '../txn/registry.ts';
import { CONTROL_LIMITS, startTransactions } from '../txn/transactions.ts';
import { checkNodes, joinCluster, optionsOf } from './join-cluster.ts';
import { runCommand } from './router-commands.ts';
import { routerDdl } from './router-ddl.ts';
import { routerMetrics } from './router-metrics.ts';
import type { RouterOptions } from './router-options.ts';
import { forwardCancel, joinWorkers, workerPlace } from './worker-side.ts';

export interface Router {
  readonly port: number;
  /** Clients that are logged in now. */
  readonly clientCount: number;
  /** Where /metrics is, if it is asked for. */
  readonly metricsPort: number | undefined;
  close(): Promise<void>;
}

const SWEEP_INTERVAL_MS = 30_000;
const FIGURES_LIMITS = { applicationName: 'postern figures', statementTimeoutMs: 20_000 };
/** DDL that has not come through this router decides on merging after this at the latest. */
const WRITE_FACTS_REFRESH_MS = 10_000;

/** Of the connection that postern.statements is written on. */
const STATEMENTS_LIMITS = {
  applicationName: 'postern statements',
  connectTimeoutMs: 3_000,
  statementTimeoutMs: 10_000,
  lockTimeoutMs: 2_000,
};

const silentLog: RouterLog = { info() {}, warn() {}, error() {} };

/** Rejects with a PosternError that says what to do when a node, the catalog or the port can't be used. */
export async function startRouter(options: RouterOptions): Promise<Router> {
  const log = options.log ?? silentLog;
  const connectionsPerNode = options.connectionsPerNode ?? BOUNDS.connectionsPerNode;
  await loadParser();
  await checkNodes(options, connectionsPerNode);
  const { clusterId, nodes, homeNodeId, shown } = await joinCluster(options);
  const dsnByNode = new Map(nodes.map((node) => [node.id, optionsOf(options, node.name).dsn]));
  const connectControl = (
    nodeId: number,
    limits?: Partial<ControlConnectionOptions>,
  ): Promise<ControlConnection> =>
    ControlConnection.open({
      nodeName: nodes.find((node) => node.id === nodeId)!.name,
      dsn: dsnByNode.get(nodeId)!,
      ...limits,
    });
  let onMap = (): void => {};
  const watcher = new CatalogWatcher({
    dsn: dsnByNode.get(homeNodeId)!,
    homeNode: nodes.find((node) => node.id === homeNodeId)!,
    nodes,
    onMap: (map) => {
      log.info(`map of epoch ${map.epoch}`);
      onMap();
    },
    log,
  });
  const sharding: DdlContext = {
    nodes,
    homeNodeId,
    connect: (nodeId, limits) => connectControl(nodeId, limits),
    refresh: () => watcher.refresh(),
  };
  const decisionGate = new DecisionGate({
    clusterId,
    nodeIds: nodes.map(({ id }) => id),
    open: (nodeId) => connectControl(nodeId, CONTROL_LIMITS),
    now: () => performance.now(),
  });
  const completeCopies = async (): Promise<void> => {
    for (const copy of await completeReferenceTables(sharding)) log.info(`reference table ${copy} is there`);
  };
  await completeCopies();
  await watcher.start();
  const control = new HomeControl(() => connectControl(homeNodeId));
  const leases = new IdLeases({ lease: (request) => control.use((home) => leaseIdBlocks(home, request)) });
  const tokenKey = await control.use(readTokenKey);
  const transactions = startTransactions({
    clusterId,
    tokenKey,
    nodes,
    homeNodeId,
    connect: (nodeId) => connectControl(nodeId, CONTROL_LIMITS),
    log,
    recovers: (workerPlace()?.index ?? 0) === 0,
    now: () => performance.now(),
    ...options.transactions,
  });
  const counters = new StatementCounters(() => performance.now());
  const statements = new StatementFlusher({
    counters,
    open: () => connectControl(homeNodeId, STATEMENTS_LIMITS),
    schema: INTERNAL_SCHEMA,
    everyMs: options.statementsEveryMs ?? BOUNDS.statementFlushIntervalMs,
    onFailure: (error) => log.warn(`postern.statements: ${error.message}`),
  });
  statements.start();
  const figures = new FiguresRefresher(
    {
      nodes,
      homeNodeId,
      connect: (nodeId) => connectControl(nodeId, FIGURES_LIMITS),
      map: () => watcher.current,
    },
    log,
  );
  const followSchemas = (): void => {
    if (watcher.current.schemas.size === 0) return;
    syncSchemas(sharding)
      .then((changed) => (changed ? watcher.refresh() : undefined))
      .catch((error: Error) => log.warn(`schemas on nodes of their own: ${error.message}`));
  };
  const sweepNow = (): void => {
    followSchemas();
    sweep(sharding).catch((error: Error) => log.warn(`sweep of half-made tables: ${error.message}`));
    completeCopies().catch((error: Error) => log.warn(`copies of reference tables: ${error.message}`));
  };
  const sweeper = setInterval(sweepNow, SWEEP_INTERVAL_MS);
  sweeper.unref();
  sweepNow();
  return serveClients({
    ...options,
    log,
    nodes: nodes.map((node) => ({ node, dsn: dsnByNode.get(node.id)! })),
    catalog: watcher,
    shown,
    counters,
    onNewMap: (listener) => {
      onMap = () => {
        listener();
        figures.onMap();
      };
    },
    ids: leases,
    announceRestart: (columns) =>
      control.use((home) =>
        home.transaction(async () => {
          await announceRestart(home, columns);
          await bumpEpoch(home);
        }),
      ),
    control,
    coalescingSwitches: COALESCING_QUERY,
    ddl: routerDdl(sharding, {
      ...{ id: clusterId, key: tokenKey, controls: control, beforeStep: options.beforeDdlStep },
    }),
    transactions: transactions.coordinator,
    meters: transactions.metrics,
    decisionGate,
    afterDdl: followSchemas,
    meshOf: (openMeshPool) =>
      new ClusterMesh({
        ...{ clusterId, tokenKey, homeNodeId, log, openPool: openMeshPool, now: () => performance.now() },
        nodes: nodes.map((node) => ({
          ...node,
          dsn: dsnByNode.get(node.id)!,
          reach: optionsOf(options, node.name).mesh,
        })),
        connect: (nodeId) => connectControl(nodeId),
        askHome: (text) => control.rows(text),
      }),
    runCommand: async (command, session) => {
      if (command.kind === 'resetStatements') {
        await statements.reset(session.role);
        return { tag: 'SELECT 1', row: { column: command.functionName, value: '' }, notices: [] };
      }
      if (command.kind === 'refreshStatistics') {
        await figures.now();
        return { tag: 'SELECT 1', row: { column: command.functionName, value: '' }, notices: [] };
      }
      if (command.kind !== 'tellOutcome') return await runCommand(sharding, command, session);
      const value = await transactions.outcome(command.token);
      return { tag: 'SELECT 1', row: { column: command.functionName, value }, notices: [] };
    },
    onClose: async () => {
      clearInterval(sweeper);
      await figures.stop();
      await statements.stop();
      await decisionGate.close();
      await transactions.stop();
      await watcher.stop();
    },
  });
}

/** What a router serves with, whether it has a catalog or stands before one server. */
export interface Serving {
  readonly listen: { readonly host: string; readonly port: number };
  readonly database: string;
  readonly users: readonly UserEntry[];
  readonly connectionsPerNode?: number | undefined;
  readonly acquireTimeoutMs?: number | undefined;
  readonly loginTimeoutMs?: number | undefined;
  readonly coalesce?: boolean | undefined;
  /** A query for the tables that have a switch of their own: rows of (relation oid, merges bool). Default: none have. */
  readonly coalescingSwitches?: string | undefined;
  readonly log: RouterLog;
  readonly nodes: readonly { readonly node: NodeInfo; readonly dsn: string }[];
  readonly catalog: RouterContext['catalog'];
  /** Default: PostgreSQL's catalogs are read as they are. */
  readonly shown?: ShownCatalogs | undefined;
  /** Default: statements are not counted. */
  readonly counters?: StatementCounters | undefined;
  /** Has `listener` called with each new map. */
  readonly onNewMap: (listener: () => void) => void;
  readonly ids: IdSource;
  readonly control: HomeControl;
  readonly transactions: TransactionCoordinator;
  readonly decisionGate?: DecisionGate | undefined;
  readonly afterDdl?: RouterContext['afterDdl'];
  /** Makes the mesh, with pools of connections to the databases of that name. */
  readonly meshOf?: (
    openPool: (node: NodeInfo & { readonly dsn: string }, database: string) => NodePool,
  ) => ClusterMesh;
  readonly meters?: TransactionMetrics | undefined;
  readonly metrics?: RouterOptions['metrics'];
  readonly runCommand: RouterContext['runCommand'];
  /** Default: there is no DDL over several nodes. */
  readonly ddl?: RouterContext['ddl'];
  readonly announceRestart?: RouterContext['announceRestart'];
  readonly onClose: () => Promise<void>;
}

export async function serveClients(serving: Serving): Promise<Router> {
  const { control, log } = serving;
  const flushQueue = new FlushQueue();
  const users = new Users(serving.users);
  const place = workerPlace();
  // For the router as a whole, whatever the number of its processes: each has a share of it.
  const connectionsPerNode = serving.connectionsPerNode ?? BOUNDS.connectionsPerNode;
  const pools = new Map<number, NodePool>();
  for (const { node, dsn } of serving.nodes)
    pools.set(
      node.id,
      openPool({
        node,
        dsn,
        connectionsPerNode,
        acquireTimeoutMs: serving.acquireTimeoutMs,
        users,
        flushQueue,
        isOnlyNode: serving.nodes.length === 1,
      }),
    );
  const mesh = serving.meshOf?.((node, database) =>
    openPool({
      ...{ dsn: node.dsn, database, users, flushQueue, isOnlyNode: false },
      node: { id: MESH_NODE_BASE + node.id, name: node.name },
      connectionsPerNode: BOUNDS.meshConnections,
      acquireTimeoutMs: serving.acquireTimeoutMs,
    }),
  );
  const coalescer = new Coalescer(pools, { merges: serving.coalesce !== false });
  const functions = new FunctionFacts((text) => control.rows(text));
  const distributed = new DistributedTransactions();
  const deadlocks = new DeadlockDetector({
    nodes: serving.nodes.map(({ node, dsn }) => ({ id: node.id, name: node.name, dsn })),
    transactions: distributed,
    pools,
    now: () => performance.now(),
    log,
  });
  const context: RouterContext = {
    database: serving.database,
    catalog: serving.catalog,
    pools,
    plans: new PlanCache((text, map, searchPath) =>
      planQuery(text, { map, searchPath, shown: serving.shown }),
    ),
    statements: new StatementRegistry(),
    functions,
    relations: new StatefulRelations((text) => control.rows(text), functions),
    writeFacts: new WriteFactsCache((text) => control.rows(text), {
      functions,
      switches: serving.coalescingSwitches,
    }),
    counters: serving.counters,
    announceRestart: serving.announceRestart,
    ids: new IdChooser(serving.ids, {
      afterTurn: setImmediate,
      underWay: () => coalescer.membersByNode(),
    }),
    coalescer,
    distributed,
    transactions: serving.transactions,
    decisionGate: serving.decisionGate,
    afterDdl: serving.afterDdl,
    mesh,
    flushQueue,
    log,
    runCommand: serving.runCommand,
    ddl: serving.ddl,
  };
  const listener = new Listener(context, users, {
    loginTimeoutMs: serving.loginTimeoutMs,
    shared: place && { index: place.index, forwardCancel },
  });
  serving.onNewMap(() => {
    context.functions.invalidate();
    context.relations.invalidate();
    context.writeFacts.invalidate();
    // Another router's DDL may have changed what a text means.
    context.statements.invalidate();
    mesh?.invalidate();
  });
  const refresher = setInterval(() => {
    Promise.all([context.relations.refresh(), context.writeFacts.refresh()]).catch((error: Error) =>
      log.warn(`table definitions: ${error.message}`),
    );
  }, WRITE_FACTS_REFRESH_MS);
  refresher.unref();
  deadlocks.start();
  const { meters, decisionGate } = serving;
  const metrics =
    serving.metrics && meters && decisionGate
      ? routerMetrics({
          ...{ transactions: meters, distributed, deadlocks, gate: decisionGate },
          clientCount: () => listener.sessionCount,
        })
      : undefined;
  const close = async (): Promise<void> => {
    clearInterval(refresher);
    metrics?.close();
    await listener.close();
    coalescer.close();
    await deadlocks.stop();
    for (const pool of pools.values()) pool.close();
    mesh?.close();
    await control.close();
    await serving.onClose();
  };
  let { port } = serving.listen;
  let metricsPort: number | undefined;
  // Known from the start, so that it is known while the home node is away.
  await context.relations.load().catch((error: Error) => log.warn(`table definitions: ${error.message}`));
  if (metrics)
    metricsPort = await listenForMetrics(metrics, serving.metrics!, place?.index ?? 0).catch(
      async (error: unknown) => {
        await close().catch(() => {});
        throw error;
      },
    );
  try {
    if (place) {
      joinWorkers({
        place,
        connections: connectionsPerNode,
        onClient: (client) => listener.take(client),
        onCancel: (processId, secretKey) => void listener.cancel(processId, secretKey),
        onShare: (connections) => {
          for (const pool of pools.values()) pool.share = connections;
        },
        open: () => Math.max(...[...pools.values()].map((pool) => pool.size)),
      });
    } else port = await listener.listen(serving.listen);
  } catch (error) {
    await close().catch(() => {});
    throw cannotListen(serving.listen, error as NodeJS.ErrnoException);
  }
  return {
    port,
    metricsPort,
    get clientCount() {
      return listener.sessionCount;
    },
    close,
  };
}

/** Of several processes each has the next port. */
async function listenForMetrics(
  metrics: MetricsServer,
  { host, port }: { readonly host: string; readonly port: number },
  index: number,
): Promise<number> {
  const own = port === 0 ? 0 : port + index;
  try {
    return await metrics.listen(host, own);
  } catch (error) {
    throw cannotListen({ host, port: own }, error as NodeJS.ErrnoException);
  }
}

/** Backends log in as the client's own role, with the password that the router knows for it. */
function openPool(options: {
  node: NodeInfo;
  dsn: string;
  /** Default: the DSN's. */
  database?: string;
  connectionsPerNode: number;
  acquireTimeoutMs: number | undefined;
  users: Users;
  flushQueue: FlushQueue;
  isOnlyNode: boolean;
}): NodePool {
  const { node, users, flushQueue } = options;
  const dsn = parseDsn(options.dsn);
  if (dsn.sslmode !== undefined && !['disable', 'allow', 'prefer'].includes(dsn.sslmode)) {
    throw notSupported(
      `node "${node.name}": sslmode=${dsn.sslmode} is not there yet on the path of the clients' data`,
      'Leave sslmode out where the network between the router and its nodes is trusted, or put a TLS tunnel between them.',
    );
  }
  const address = { nodeId: node.id, nodeName: node.name, host: dsn.host, port: dsn.port };
  return new NodePool({
    address,
    connectionsMax: options.connectionsPerNode,
    acquireTimeoutMs: options.acquireTimeoutMs,
    now: () => performance.now(),
    open: (user) =>
      openBackend({
        address,
        database: options.database ?? dsn.database,
        user,
        password: users.passwordOf(user) ?? (user === dsn.user ? dsn.password : undefined),
        flushQueue,
        // A session that is left behind on one of several nodes holds up the others.
        keepalives: !options.isOnlyNode,
      }).catch((error: unknown) => {
        throw options.isOnlyNode ? error : besideOtherNodes(error);
      }),
  });
}

/** One control connection to the home node for short questions, opened when needed and again after a loss. */
export class HomeControl {
  readonly #open: () => Promise<ControlConnection>;
  #connection: ControlConnection | undefined;
  #line: Promise<unknown> = Promise.resolve();

  constructor(open: () => Promise<ControlConnection>) {
    this.#open = open;
  }

  /** One at a time, in order. */
  use<T>(work: (home: ControlConnection) => Promise<T>): Promise<T> {
    const result = this.#line.then(async () => {
      if (!this.#connection || this.#connection.lost) this.#connection = await this.#open();
      return work(this.#connection);
    });
    this.#line = result.catch(() => {});
    return result;
  }

  /** The rows of a query, as texts. */
  rows(text: string): Promise<(string | null)[][]> {
    return this.use(async (home) => {
      const rows = await home.query<Record<string, unknown>>(text);
      return rows.map((row) => Object.values(row).map((value) => (value === null ? null : String(value))));
    });
  }

  async close(): Promise<void> {
    await this.#connection?.close();
  }
}

export function cannotListen(
  listen: { host: string; port: number },
  error: NodeJS.ErrnoException,
): PosternError {
  const where = `${listen.host}:${listen.port}`;
  switch (error.code) {
    case 'EADDRINUSE':
      return new PosternError({
        sqlState: '55006',
        message: `port ${listen.port} is in use`,
        hint: 'Choose another one with --port, or stop what listens there.',
      });
    case 'EACCES':
      return notSupported(`no permission to listen on ${where}`, 'Choose a port above 1023 with --port.');
    default:
      return new PosternError({ sqlState: '58000', message: `cannot listen on ${where}: ${error.message}` });
  }
}

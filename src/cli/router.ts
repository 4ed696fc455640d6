/** Puts a router together: checks the nodes, joins the catalog, opens the pools and listens. */

import type { UserEntry } from '../auth/user-entry.ts';
import type { NodePool } from '../backend/pool.ts';
import { StatementRegistry } from '../backend/prepared.ts';
import { BOUNDS } from '../base/bounds.ts';
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
import type { RouterContext } from '../execute/context.ts';
import { FunctionFacts } from '../execute/function-facts.ts';
import { IdChooser, type IdSource } from '../execute/id-chooser.ts';
import { MESH_NODE_BASE } from '../execute/mesh.ts';
import { PlanCache } from '../execute/plan-cache.ts';
import { StatefulRelations } from '../execute/stateful-relations.ts';
import { WriteFactsCache } from '../execute/write-facts.ts';
import { FiguresRefresher } from '../introspect/figures-refresher.ts';
import { ClusterMesh } from '../mesh/cluster-mesh.ts';
import type { ClientLogOptions } from '../observe/client-log.ts';
import type { Log } from '../observe/log.ts';
import { planQuery } from '../plan/planner.ts';
import type { ShownCatalogs } from '../plan/resolve.ts';
import type { ClientTlsOptions } from '../platform/client-tls.ts';
import { ControlConnection, type ControlConnectionOptions } from '../platform/control-connection.ts';
import { FlushQueue } from '../platform/flush-queue.ts';
import { Listener } from '../session/listener.ts';
import { loadParser } from '../sql/parser.ts';
import { StatementCounters } from '../statements/counters.ts';
import { StatementFlusher } from '../statements/flush.ts';
import type { TransactionCoordinator } from '../txn/coordinator.ts';
import { DeadlockDetector } from '../txn/deadlock-detector.ts';
import { DecisionGate } from '../txn/decision-gate.ts';
import type { TransactionMetrics } from '../txn/metrics.ts';
import { DistributedTransactions } from '../txn/registry.ts';
import { CONTROL_LIMITS, startTransactions } from '../txn/transactions.ts';
import { cannotListen } from './cannot-listen.ts';
import { controlRole } from './control-role.ts';
import { addDoorMetrics, addHealthMetrics } from './door-metrics.ts';
import { HomeControl } from './home-control.ts';
import { joinCluster, joinLateNode, optionsOf } from './join-cluster.ts';
import type { LateNode } from './late-nodes.ts';
import { LOG_DEFAULTS, openClientLogs } from './log.ts';
import { type Answer, ownHttp, routerAnswers } from './router-answers.ts';
import { type AuthenticationConfig, LOGIN_LIMITS, openAuthentication } from './router-auth.ts';
import { type RouterBypass, watchBypass } from './router-bypass.ts';
import { runCommand } from './router-commands.ts';
import { routerDdl } from './router-ddl.ts';
import { RouterDoor } from './router-door.ts';
import { type HealthOptions, RouterHealth } from './router-health.ts';
import { LISTEN_LIMITS, openHub } from './router-notifications.ts';
import type { RouterOptions } from './router-options.ts';
import { backendOpener, openPool } from './router-pools.ts';
import {
  backendsByNode,
  openRegister,
  REGISTER_LIMITS,
  type RegisteredProcess,
  type RouterRegister,
  routerIdentity,
  sessionRoutes,
} from './router-register.ts';
import { type ReloadResult, RouterReload } from './router-reload.ts';
import { openTls } from './router-tls.ts';
import { joinWorkers, workerPlace } from './worker-side.ts';

export interface Router {
  readonly port: number;
  /** Clients that are logged in now. */
  readonly clientCount: number;
  /** Where /metrics and /readyz are, if they are asked for and no other process has them. */
  readonly httpPort: number | undefined;
  /** What it tells of itself. */
  readonly answer: Answer;
  /** Of the clients that are logged in. */
  sessionIds(): readonly number[];
  /** See Listener.depart(): all clients leave, and the router can be closed then. */
  depart(options: Parameters<Listener['depart']>[0]): Promise<void>;
  /** Goes by new options as far as it can. */
  reload(options: Partial<RouterOptions>): Promise<ReloadResult>;
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

const silentLog: Log = { info() {}, warn() {}, error() {} };

/** Rejects with a PosternError that says what to do when a node, the catalog or the port can't be used. */
export async function startRouter(options: RouterOptions): Promise<Router> {
  const log = options.log ?? silentLog;
  const connectionsPerNode = options.connectionsPerNode ?? BOUNDS.connectionsPerNode;
  await loadParser();
  const joined = await joinCluster(options, connectionsPerNode);
  const { clusterId, nodes, homeNodeId, shown, late } = joined;
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
    warn: (message) => log.warn(message),
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
  if (late.length === 0) await completeCopies();
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
  const bypass = watchBypass({
    ...{ options: options.bypass, clusterId, homeNodeId, connect: connectControl, log },
    nodes: nodes.map((node) => ({ ...node, dsn: dsnByNode.get(node.id)! })),
  });
  return serveClients({
    ...options,
    configured: options,
    reservedRole: controlRole(options),
    log,
    secret: tokenKey,
    nodes: nodes.map((node) => ({ node, dsn: dsnByNode.get(node.id)! })),
    late,
    joinLate: async (node) => {
      await joinLateNode(options, node, { ...joined, connectionsPerNode });
      await completeCopies();
    },
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
    listenOn: (nodeId) => connectControl(nodeId, LISTEN_LIMITS),
    meters: transactions.metrics,
    watch: bypass,
    register: (own) =>
      openRegister(
        {
          ...{ tokenKey, log, router: routerIdentity(options.name) },
          heartbeatMs: options.heartbeatMs,
          open: () => connectControl(homeNodeId, REGISTER_LIMITS),
        },
        own,
      ),
    mapFacts: () => ({ epoch: watcher.current.epoch, ageMs: watcher.silentMs }),
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
      await bypass.stop();
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
  readonly authentication?: AuthenticationConfig | undefined;
  /** Known to this router alone, and to all of its processes: salts of roles that are not there come of it. */
  readonly secret: Buffer;
  readonly tls?: ClientTlsOptions | undefined;
  readonly connectionsPerNode?: number | undefined;
  readonly acquireTimeoutMs?: number | undefined;
  readonly loginTimeoutMs?: number | undefined;
  readonly limits?: RouterOptions['limits'];
  readonly timeouts?: RouterOptions['timeouts'];
  /** A role for which places are kept. */
  readonly reservedRole?: string | undefined;
  readonly coalesce?: boolean | undefined;
  /** A query for the tables that have a switch of their own: rows of (relation oid, merges bool). Default: none have. */
  readonly coalescingSwitches?: string | undefined;
  readonly log: Log;
  /** Default: LOG_DEFAULTS. */
  readonly logging?: ClientLogOptions | undefined;
  /** What a reload compares with. Absent: nothing is configured. */
  readonly configured?: Partial<RouterOptions> | undefined;
  readonly nodes: readonly { readonly node: NodeInfo; readonly dsn: string }[];
  readonly health?: HealthOptions | undefined;
  /** Nodes to be joined when they are back, and how. */
  readonly late?: readonly LateNode[] | undefined;
  readonly joinLate?: ((node: NodeInfo) => Promise<void>) | undefined;
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
  /** Opens a connection that listens for clients. Default: each that listens has a backend of its own. */
  readonly listenOn?: (nodeId: number) => Promise<ControlConnection>;
  readonly meters?: TransactionMetrics | undefined;
  /** Of the map; absent: there is no catalog. */
  readonly mapFacts?: () => { readonly epoch: number; readonly ageMs: number };
  readonly http?: RouterOptions['http'];
  /** Of logins at the nodes. */
  readonly watch?: RouterBypass | undefined;
  /** Puts this process into the register of routers. Default: there is none. */
  readonly register?: (own: RegisteredProcess) => RouterRegister;
  readonly runCommand: RouterContext['runCommand'];
  /** Default: there is no DDL over several nodes. */
  readonly ddl?: RouterContext['ddl'];
  readonly announceRestart?: RouterContext['announceRestart'];
  readonly onClose: () => Promise<void>;
}

export async function serveClients(serving: Serving): Promise<Router> {
  const { control, log } = serving;
  const tls = openTls(serving.tls, log);
  const flushQueue = new FlushQueue();
  const place = workerPlace();
  const door = new RouterDoor(serving, { place, reservedRole: serving.reservedRole });
  // For the router as a whole, whatever the number of its processes: each has a share of it.
  const connectionsPerNode = serving.connectionsPerNode ?? BOUNDS.connectionsPerNode;
  const health = new RouterHealth({ ...serving, homeNodeId: serving.catalog.current.homeNodeId });
  const pools = new Map<number, NodePool>();
  const home = serving.nodes.find(({ node }) => node.id === serving.catalog.current.homeNodeId)!;
  const isOnlyNode = serving.nodes.length === 1;
  const authentication = openAuthentication({
    ...serving,
    openControl: () => ControlConnection.open({ nodeName: home.node.name, dsn: home.dsn, ...LOGIN_LIMITS }),
    openAtHome: backendOpener({ ...home, flushQueue, health, isOnlyNode }).open,
  });
  const { authenticator } = authentication;
  health.adoptControl(authentication.control);
  const shared = {
    ...{ ...door.poolLimits(), flushQueue, health },
    credentialOf: (user: string) => authenticator.credentialOf(user),
  };
  for (const { node, dsn } of serving.nodes)
    pools.set(node.id, openPool({ ...shared, node, dsn, connectionsPerNode, isOnlyNode }));
  const meshPools: NodePool[] = [];
  authenticator.onCredential = (user) => {
    for (const pool of [...pools.values(), ...meshPools]) pool.forgive(user);
  };
  const mesh = serving.meshOf?.((node, database) => {
    const pool = openPool({
      ...shared,
      ...{ dsn: node.dsn, database, isOnlyNode: false },
      node: { id: node.id, name: node.name },
      poolId: MESH_NODE_BASE + node.id,
      connectionsPerNode: BOUNDS.meshConnections,
    });
    meshPools.push(pool);
    return pool;
  });
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
  const clientLogs = openClientLogs(log, serving.logging);
  const notifications = openHub(serving, pools);
  const context: RouterContext = {
    clientLogs: clientLogs.logs,
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
    notifications,
    distributed,
    transactions: serving.transactions,
    decisionGate: serving.decisionGate,
    afterDdl: () => {
      serving.afterDdl?.();
      authenticator.doubtRoles();
    },
    rolesChange: () => authenticator.doubtRoles(),
    mesh,
    flushQueue,
    log,
    runCommand: serving.runCommand,
    ddl: serving.ddl,
  };
  const register = serving.register?.({
    clients: () => listener.sessionCount,
    backends: () => backendsByNode([...pools.values(), ...meshPools]),
    cancelOwn: (id, secretKey) => void listener.cancelOwn(id, secretKey),
  });
  const listener: Listener = new Listener(context, authenticator, {
    bounds: door.bounds,
    routes: sessionRoutes(register),
    tls: tls.clientTls,
  });
  authenticator.onReplaced = (user) => {
    log.warn(`role "${user}" is another one than before: its sessions and connections are closed`);
    listener.expel(user);
    for (const pool of [...pools.values(), ...meshPools]) pool.expel(user);
  };
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
  health.start();
  const answer = routerAnswers({
    ...{ listener, pools, coalescer, distributed, deadlocks, register },
    ...{ clientLogs: clientLogs.logs, transactions: serving.meters, gate: serving.decisionGate },
    statements: serving.counters,
    map: () => serving.mapFacts?.(),
    nodes: () => health.nodes(),
    others: [
      tls,
      authentication,
      notifications,
      serving.watch,
      { addMetrics: (samples) => addHealthMetrics(samples, health) },
      { addMetrics: (samples) => addDoorMetrics(samples, { listener, ...door.bounds }) },
    ],
  });
  const close = async (): Promise<void> => {
    clearInterval(refresher);
    http?.close();
    await listener.close();
    tls.close();
    await register?.registration.stop();
    coalescer.close();
    health.stop();
    await deadlocks.stop();
    await notifications?.close();
    for (const pool of pools.values()) pool.close();
    mesh?.close();
    await control.close();
    await authentication.close();
    clientLogs.stop();
    await serving.onClose();
  };
  // What can change while it serves. Of all else a reload says that it needs a restart.
  const reload = new RouterReload(serving.configured ?? {}, [
    // The first process goes by it.
    { keys: ['drain'], reload: () => {} },
    tls.reload,
    {
      keys: ['limits', 'timeouts'],
      reload: (next) => door.reload(next, { listener, pools: pools.values() }),
    },
    { keys: ['users', 'authentication'], reload: (next) => authentication.reload(next) },
    { keys: ['logging'], reload: ({ logging }) => clientLogs.logs.reload(logging ?? LOG_DEFAULTS) },
    ...(serving.watch ? [serving.watch] : []),
  ]);
  let { port } = serving.listen;
  let http: Awaited<ReturnType<typeof ownHttp>>;
  await authentication.check().catch(async (error: unknown) => {
    await close().catch(() => {});
    throw error;
  });
  // Known from the start, so that it is known while the home node is away.
  await context.relations.load().catch((error: Error) => log.warn(`table definitions: ${error.message}`));
  await register?.registration.start();
  try {
    if (place) {
      joinWorkers({
        place,
        connections: connectionsPerNode,
        onClient: (client) => listener.take(client),
        onSession: (client, session) => listener.adopt(client, session),
        onExpect: (ids) => listener.expect(ids),
        onCancel: (processId, secretKey) => void listener.cancelOwn(processId, secretKey),
        onShare: (connections) => {
          for (const pool of pools.values()) pool.share = connections;
        },
        open: () => Math.max(...[...pools.values()].map((pool) => pool.size)),
      });
    } else {
      port = await listener.listen(serving.listen).catch((error) => {
        throw cannotListen(serving.listen, error);
      });
      http = await ownHttp(serving.http, answer);
    }
  } catch (error) {
    await close().catch(() => {});
    throw error;
  }
  return {
    port,
    httpPort: http?.port,
    answer,
    get clientCount() {
      return listener.sessionCount;
    },
    sessionIds: () => listener.sessionIds,
    depart: (how) => listener.depart(how),
    reload: (options) => reload.reload(options),
    close,
  };
}

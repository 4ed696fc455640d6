/** Puts a router together: checks the nodes, joins the catalog, opens the pools and listens. */

import { openBackend } from '../backend/login.ts';
import { NodePool } from '../backend/pool.ts';
import { StatementRegistry } from '../backend/prepared.ts';
import { unreachable } from '../base/assert.ts';
import { BOUNDS } from '../base/bounds.ts';
import { besideOtherNodes, invalidParameter, notSupported, PosternError } from '../base/errors.ts';
import { COALESCING_QUERY, createCoalescing, setCoalescing } from '../catalog/coalescing.ts';
import { IdLeases } from '../catalog/ids.ts';
import type { NodeInfo } from '../catalog/map.ts';
import {
  type Finding,
  judgeCluster,
  judgeNode,
  type NodeFacts,
  readNodeFacts,
} from '../catalog/requirements.ts';
import { ensureCatalog, ensureNode } from '../catalog/schema.ts';
import { leaseIdBlock, readTokenKey } from '../catalog/store.ts';
import { CatalogWatcher } from '../catalog/watcher.ts';
import { Coalescer } from '../coalesce/coalescer.ts';
import { type DdlContext, withConnection } from '../ddl/context.ts';
import { dropTables } from '../ddl/drop.ts';
import { sweep } from '../ddl/sweep.ts';
import { createReferenceTable, makeReferenceTable } from '../doors/reference/create.ts';
import { completeReferenceTables } from '../doors/reference/join.ts';
import { createShardedTable } from '../doors/sharded/create.ts';
import { distributeTable } from '../doors/sharded/distribute.ts';
import { grantOnShardedTables } from '../doors/sharded/grant.ts';
import { mergesOf } from '../doors/sharded/make.ts';
import { truncateShardedTables } from '../doors/sharded/truncate.ts';
import type { CommandResult, CommandSession, RouterContext, RouterLog } from '../execute/context.ts';
import { FunctionFacts } from '../execute/function-facts.ts';
import { IdChooser, type IdSource } from '../execute/id-chooser.ts';
import { PlanCache } from '../execute/plan-cache.ts';
import { StatefulRelations } from '../execute/stateful-relations.ts';
import { WriteFactsCache } from '../execute/write-facts.ts';
import { parseDsn } from '../pg/dsn.ts';
import type { RouterCommand } from '../plan/plan.ts';
import { planQuery } from '../plan/planner.ts';
import { ControlConnection, type ControlConnectionOptions } from '../platform/control-connection.ts';
import { FlushQueue } from '../platform/flush-queue.ts';
import type { MetricsServer } from '../platform/metrics-server.ts';
import { Listener } from '../session/listener.ts';
import { type UserEntry, Users } from '../session/users.ts';
import { loadParser } from '../sql/parser.ts';
import type { TransactionCoordinator } from '../txn/coordinator.ts';
import { DeadlockDetector } from '../txn/deadlock-detector.ts';
import { DecisionGate } from '../txn/decision-gate.ts';
import type { TransactionMetrics } from '../txn/metrics.ts';
import { DistributedTransactions } from '../txn/registry.ts';
import { CONTROL_LIMITS, startTransactions, type TransactionsOptions } from '../txn/transactions.ts';
import { routerMetrics } from './router-metrics.ts';
import { forwardCancel, joinWorkers, workerPlace } from './worker-side.ts';

export interface NodeOptions {
  readonly name: string;
  /** The control path: a role that may create schemas, and is a superuser or a member of the clients' roles. */
  readonly dsn: string;
}

export interface RouterOptions {
  readonly listen: { readonly host: string; readonly port: number };
  /** The database name that clients connect to. */
  readonly database: string;
  readonly nodes: readonly NodeOptions[];
  /** The node of the catalog and of tables without a door. */
  readonly home: string;
  readonly users: readonly UserEntry[];
  /** Backend connections to one node at most, over all roles. */
  readonly connectionsPerNode?: number | undefined;
  /** Merge the commits of writes that arrive together. Default: yes. */
  readonly coalesce?: boolean | undefined;
  /** Processes that share the port; read by the command line, not here. */
  readonly workers?: number | undefined;
  /** How long a statement waits for a free backend connection, and a client's login may take. */
  readonly acquireTimeoutMs?: number | undefined;
  readonly loginTimeoutMs?: number | undefined;
  readonly log?: RouterLog | undefined;
  /** Hears what each node has and lacks, before anything is served. */
  readonly onFindings?: ((findings: readonly Finding[]) => void) | undefined;
  /** Where this process tells Prometheus; with workers, each on the next port. */
  readonly metrics?: { readonly host: string; readonly port: number } | undefined;
  /** For tests: shorter times, and what goes wrong in the middle of a commit. */
  readonly transactions?: Pick<TransactionsOptions, 'times' | 'faults'> | undefined;
}

export interface Router {
  readonly port: number;
  /** Clients that are logged in now. */
  readonly clientCount: number;
  /** Where /metrics is, if it is asked for. */
  readonly metricsPort: number | undefined;
  close(): Promise<void>;
}

const SWEEP_INTERVAL_MS = 30_000;
/** DDL that has not come through this router decides on merging after this at the latest. */
const WRITE_FACTS_REFRESH_MS = 10_000;

const silentLog: RouterLog = { info() {}, warn() {}, error() {} };

/** Rejects with a PosternError that says what to do when a node, the catalog or the port can't be used. */
export async function startRouter(options: RouterOptions): Promise<Router> {
  const log = options.log ?? silentLog;
  const connectionsPerNode = options.connectionsPerNode ?? BOUNDS.connectionsPerNode;
  await loadParser();
  await checkNodes(options, connectionsPerNode);
  const { clusterId, nodes, homeNodeId } = await joinCluster(options);
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
    connect: (nodeId) => connectControl(nodeId),
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
  const leases = new IdLeases({ lease: (request) => control.use((home) => leaseIdBlock(home, request)) });
  const transactions = startTransactions({
    clusterId,
    tokenKey: await control.use(readTokenKey),
    nodes,
    homeNodeId,
    connect: (nodeId) => connectControl(nodeId, CONTROL_LIMITS),
    log,
    recovers: (workerPlace()?.index ?? 0) === 0,
    now: () => performance.now(),
    ...options.transactions,
  });
  const sweepNow = (): void => {
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
    onNewMap: (listener) => {
      onMap = listener;
    },
    ids: leases,
    control,
    coalescingSwitches: COALESCING_QUERY,
    transactions: transactions.coordinator,
    meters: transactions.metrics,
    decisionGate,
    runCommand: async (command, session) => {
      if (command.kind !== 'tellOutcome') return await runCommand(sharding, command, session);
      const value = await transactions.outcome(command.token);
      return { tag: 'SELECT 1', row: { column: command.functionName, value }, notices: [] };
    },
    onClose: async () => {
      clearInterval(sweeper);
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
  /** Has `listener` called with each new map. */
  readonly onNewMap: (listener: () => void) => void;
  readonly ids: IdSource;
  readonly control: HomeControl;
  readonly transactions: TransactionCoordinator;
  readonly decisionGate?: DecisionGate | undefined;
  readonly meters?: TransactionMetrics | undefined;
  readonly metrics?: RouterOptions['metrics'];
  readonly runCommand: RouterContext['runCommand'];
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
    plans: new PlanCache((text, map, searchPath) => planQuery(text, { map, searchPath })),
    statements: new StatementRegistry(),
    functions,
    relations: new StatefulRelations((text) => control.rows(text), functions),
    writeFacts: new WriteFactsCache((text) => control.rows(text), {
      functions,
      switches: serving.coalescingSwitches,
    }),
    ids: new IdChooser(serving.ids, {
      afterTurn: setImmediate,
      underWay: () => coalescer.membersByNode(),
    }),
    coalescer,
    distributed,
    transactions: serving.transactions,
    decisionGate: serving.decisionGate,
    flushQueue,
    log,
    runCommand: serving.runCommand,
  };
  const listener = new Listener(context, users, {
    loginTimeoutMs: serving.loginTimeoutMs,
    shared: place && { index: place.index, forwardCancel },
  });
  serving.onNewMap(() => {
    context.functions.invalidate();
    context.relations.invalidate();
    context.writeFacts.invalidate();
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

/** What each node has and lacks. Throws when a node can't be used at all. */
async function checkNodes(options: RouterOptions, connectionsPerNode: number): Promise<void> {
  const facts: NodeFacts[] = await Promise.all(
    options.nodes.map(async ({ name, dsn }) => {
      const connection = await ControlConnection.open({ nodeName: name, dsn });
      try {
        return await readNodeFacts(connection);
      } finally {
        await connection.close();
      }
    }),
  );
  const findings = [...facts.flatMap((one) => judgeNode(one, connectionsPerNode)), ...judgeCluster(facts)];
  options.onFindings?.(findings);
  const error = findings.find(({ severity }) => severity === 'error');
  if (error) {
    throw new PosternError({
      sqlState: '55000',
      message: `node "${error.node}": ${error.message}`,
      hint: error.hint,
    });
  }
}

async function joinCluster(
  options: RouterOptions,
): Promise<{ clusterId: string; nodes: readonly NodeInfo[]; homeNodeId: number }> {
  const home = await ControlConnection.open({
    nodeName: options.home,
    dsn: optionsOf(options, options.home).dsn,
  });
  try {
    const identity = await ensureCatalog(home, {
      nodes: options.nodes.map(({ name }) => name),
      home: options.home,
    });
    await Promise.all(
      identity.nodes.map(async (node) => {
        const connection = await ControlConnection.open({
          nodeName: node.name,
          dsn: optionsOf(options, node.name).dsn,
        });
        try {
          await ensureNode(connection, { clusterId: identity.clusterId, node });
        } finally {
          await connection.close();
        }
      }),
    );
    return { clusterId: identity.clusterId, nodes: identity.nodes, homeNodeId: identity.homeNodeId };
  } finally {
    await home.close();
  }
}

function optionsOf(options: RouterOptions, name: string): NodeOptions {
  const node = options.nodes.find((one) => one.name === name);
  if (!node)
    throw invalidParameter(
      `the home node "${name}" is not among the nodes`,
      `The nodes are: ${options.nodes.map((one) => one.name).join(', ')}.`,
    );
  return node;
}

/** Backends log in as the client's own role, with the password that the router knows for it. */
function openPool(options: {
  node: NodeInfo;
  dsn: string;
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
        database: dsn.database,
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

async function runCommand(
  sharding: DdlContext,
  command: Exclude<RouterCommand, { kind: 'tellOutcome' }>,
  session: CommandSession,
): Promise<CommandResult> {
  switch (command.kind) {
    case 'createShardedTable': {
      const { notices } = await createShardedTable(sharding, command, session);
      return { tag: 'CREATE TABLE', row: undefined, notices };
    }
    case 'distributeTable': {
      const { notices } = await distributeTable(sharding, command, session);
      const { functionName } = command;
      return functionName === undefined
        ? { tag: 'ALTER TABLE', row: undefined, notices }
        : { tag: 'SELECT 1', row: { column: functionName, value: '' }, notices };
    }
    case 'createReferenceTable': {
      const { notices } = await createReferenceTable(sharding, command, session);
      return { tag: 'CREATE TABLE', row: undefined, notices };
    }
    case 'makeReferenceTable': {
      const { notices } = await makeReferenceTable(sharding, command, session);
      const { functionName } = command;
      return functionName === undefined
        ? { tag: 'ALTER TABLE', row: undefined, notices }
        : { tag: 'SELECT 1', row: { column: functionName, value: '' }, notices };
    }
    case 'dropTables': {
      const { notices } = await dropTables(sharding, command, session);
      return { tag: 'DROP TABLE', row: undefined, notices };
    }
    case 'truncateTables': {
      const { notices } = await truncateShardedTables(sharding, command, session);
      return { tag: 'TRUNCATE TABLE', row: undefined, notices };
    }
    case 'grantOnTables': {
      const { notices } = await grantOnShardedTables(sharding, command, session);
      return { tag: command.isGrant ? 'GRANT' : 'REVOKE', row: undefined, notices };
    }
    case 'createCoalescing': {
      const { coalesce, ...table } = command;
      const made = await onHome(sharding, (home) =>
        createCoalescing(home, { ...table, merges: mergesOf(coalesce) }, session),
      );
      const message = `relation "${command.name}" already exists, skipping`;
      return { tag: 'CREATE TABLE', row: undefined, notices: made ? [] : [{ sqlState: '42P07', message }] };
    }
    case 'setCoalescing': {
      const { relation, ifExists, functionName } = command;
      const merges = mergesOf(command.coalesce);
      const found = await onHome(sharding, (home) =>
        setCoalescing(home, { relation, ifExists, merges }, session),
      );
      if (functionName !== undefined)
        return { tag: 'SELECT 1', row: { column: functionName, value: '' }, notices: [] };
      const message = `relation "${relation}" does not exist, skipping`;
      return { tag: 'ALTER TABLE', row: undefined, notices: found ? [] : [{ sqlState: '00000', message }] };
    }
    default:
      return unreachable(command);
  }
}

/** A change of the catalog, which this router knows of before its client does. */
async function onHome<T>(sharding: DdlContext, work: (home: ControlConnection) => Promise<T>): Promise<T> {
  const result = await withConnection(sharding, sharding.homeNodeId, work);
  await sharding.refresh().catch(() => undefined);
  return result;
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

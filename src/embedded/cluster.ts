/**
 * The cluster of `postern up`: embedded servers in one directory, kept between runs, that start and stop together.
 *
 *   startCluster: directory -> lock -> make what is missing -> start all side by side -> roles and database -> running
 *
 * Invariants: whatever ends startCluster early (a failure, an abort) leaves no server and no lock behind; a cluster that
 * was killed is started again by the same call, leftover servers included. Servers listen on 127.0.0.1 alone and ask for
 * a password.
 */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import pg from 'pg';
import { quoteLiteral } from '../pg/identifier.ts';
import { type Account, serverAccount } from './account.ts';
import {
  type ClusterFile,
  checkVersions,
  clusterPassword,
  makeDirectory,
  type NodeEntry,
  newCluster,
  readCluster,
  removeHalfMade,
  writeCluster,
} from './cluster-directory.ts';
import { type DirectoryLock, lockDirectory } from './directory-lock.ts';
import { cancelled, EmbeddedFailure } from './failure.ts';
import { freePort } from './free-port.ts';
import { embeddedInstallation, type Installation } from './installation.ts';
import { EmbeddedServer, initializeServer } from './server.ts';

export const APPLICATION_ROLE = 'app';
export const APPLICATION_DATABASE = 'app';
const SUPERUSER = 'postgres';
const NODE_COUNT_DEFAULT = 4;
const PORT_TRIES = 5;
const CONNECT_TIMEOUT_MS = 15_000;
const QUERY_TIMEOUT_MS = 60_000;

/** Every commit is durable: what is measured on these servers has to be what a careful production does. */
const SETTINGS: Readonly<Record<string, string>> = {
  fsync: 'on',
  full_page_writes: 'on',
  synchronous_commit: 'on',
  shared_buffers: '128MB',
  max_connections: '400',
  max_prepared_transactions: '100',
  wal_level: 'logical',
  max_replication_slots: '32',
  max_wal_senders: '32',
};

export interface ClusterOptions {
  readonly directory: string;
  /** Undefined: as many as the directory holds, or four. */
  readonly nodeCount?: number | undefined;
  /** Ends the start, at any moment, with a failure of kind 'cancelled'. */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((line: string) => void) | undefined;
}

export interface ClusterNode {
  readonly name: string;
  readonly port: number;
  /** Of the server's main process. */
  readonly pid: number;
}

interface StartedNode {
  readonly name: string;
  readonly server: EmbeddedServer;
}

interface Context {
  readonly directory: string;
  readonly installation: Installation;
  readonly account: Account | undefined;
  readonly password: string;
  readonly signal: AbortSignal;
  /** Writes what is known of all nodes, one write after the other. */
  readonly save: () => Promise<void>;
}

export class EmbeddedCluster {
  readonly directory: string;
  /** Of the roles `postgres` and `app`, on every node. */
  readonly password: string;
  readonly nodes: readonly ClusterNode[];
  readonly postgresqlVersion: string;
  /** Resolves, with what to tell, when a server ends that nobody stopped; otherwise never. */
  readonly serverDied: Promise<EmbeddedFailure>;
  private readonly started: readonly StartedNode[];
  private readonly lock: DirectoryLock;
  private isStopping = false;

  constructor(context: Context, started: readonly StartedNode[], lock: DirectoryLock) {
    this.directory = context.directory;
    this.password = context.password;
    this.postgresqlVersion = context.installation.version;
    this.nodes = started.map(({ name, server }) => ({ name, port: server.port, pid: server.pid }));
    this.started = started;
    this.lock = lock;
    this.serverDied = new Promise((resolve) => {
      for (const { name, server } of started) {
        void server.exited.then(async () => {
          if (this.isStopping) return;
          resolve(new EmbeddedFailure('server-died', `${name}: ${await server.deathNotice()}`));
        });
      }
    });
  }

  /** The address of one node itself, in the application's database; the user is the superuser unless said otherwise. */
  dsn(node: ClusterNode, options: { user?: string } = {}): string {
    const user = options.user ?? SUPERUSER;
    return `postgres://${user}:${this.password}@127.0.0.1:${node.port}/${APPLICATION_DATABASE}`;
  }

  /** Stops all servers side by side, then frees the directory. A second call may say `immediate` to hurry the first. */
  async stop(mode: 'fast' | 'immediate' = 'fast'): Promise<void> {
    this.isStopping = true;
    await Promise.all(this.started.map(({ server }) => server.stop(mode)));
    await this.lock.release();
  }
}

export async function startCluster(options: ClusterOptions): Promise<EmbeddedCluster> {
  const directory = path.resolve(options.directory);
  const account = serverAccount();
  const installation = await embeddedInstallation(account);
  const isFresh = await makeDirectory(directory);
  const lock = await lockDirectory(directory);
  try {
    return await startLocked({ ...options, directory, account, installation, lock });
  } catch (error) {
    await lock.release();
    if (isFresh) await removeIfNothingMade(directory);
    throw error;
  }
}

interface LockedOptions extends ClusterOptions {
  readonly account: Account | undefined;
  readonly installation: Installation;
  readonly lock: DirectoryLock;
}

async function startLocked(options: LockedOptions): Promise<EmbeddedCluster> {
  const { directory, installation } = options;
  const found = await readCluster(directory);
  const file = found ?? newCluster(options.nodeCount ?? NODE_COUNT_DEFAULT, installation);
  checkNodeCount(file, options);
  await checkVersions(directory, file, installation);
  const password = await clusterPassword(directory, !file.nodes.some((node) => node.isMade));
  await writeCluster(directory, file);
  await removeHalfMade(directory, file);

  // The first failure ends the others' starts too.
  const others = new AbortController();
  const signal = AbortSignal.any([others.signal, ...(options.signal === undefined ? [] : [options.signal])]);
  let saved = Promise.resolve();
  const save = () => {
    saved = saved.then(() => writeCluster(directory, file));
    return saved;
  };
  const context: Context = { directory, installation, account: options.account, password, signal, save };
  const fresh = file.nodes.filter((node) => !node.isMade).length;
  options.onProgress?.(
    fresh > 0
      ? `making ${fresh} PostgreSQL ${installation.version} servers in ${directory}`
      : `starting the servers of ${directory}`,
  );
  const results = await Promise.allSettled(
    file.nodes.map(async (node): Promise<StartedNode> => {
      try {
        return { name: node.name, server: await startNode(node, context) };
      } catch (error) {
        others.abort();
        throw error;
      }
    }),
  );
  const started = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  try {
    throwFirstFailure(results, options.signal);
    await save();
    return new EmbeddedCluster(context, started, options.lock);
  } catch (error) {
    await Promise.all(started.map(({ server }) => server.stop('fast')));
    throw error;
  }
}

function checkNodeCount(file: ClusterFile, options: ClusterOptions): void {
  if (options.nodeCount === undefined || options.nodeCount === file.nodes.length) return;
  throw new EmbeddedFailure(
    'directory',
    `${options.directory} holds a cluster of ${file.nodes.length} nodes: use --nodes ${file.nodes.length}, or another directory with --data`,
  );
}

/** The failure that came first, not the cancellations of the others that it caused. */
function throwFirstFailure(
  results: readonly PromiseSettledResult<StartedNode>[],
  signal: AbortSignal | undefined,
): void {
  const failures = results.flatMap((result) =>
    result.status === 'rejected' ? [result.reason as unknown] : [],
  );
  if (failures.length === 0 && !signal?.aborted) return;
  if (signal?.aborted) throw cancelled();
  throw (
    failures.find((each) => !(each instanceof EmbeddedFailure && each.kind === 'cancelled')) ?? failures[0]
  );
}

async function startNode(node: NodeEntry, context: Context): Promise<EmbeddedServer> {
  const { installation, account, password, signal } = context;
  const dataDirectory = path.join(context.directory, node.name);
  if (!node.isMade) {
    await initializeServer({
      ...{ installation, account, dataDirectory, signal },
      superuserPassword: password,
      durable: true,
    });
    node.isMade = true;
    await context.save();
  }
  const server = await startOnPort(node, context);
  try {
    await prepareDatabase(server.port, password);
    return server;
  } catch (error) {
    await server.stop('fast');
    throw error;
  }
}

/** On the port of the last run, so that connection strings stay good; on another one if somebody has taken it. */
async function startOnPort(node: NodeEntry, context: Context): Promise<EmbeddedServer> {
  for (let attempt = 1; ; attempt += 1) {
    node.port ??= await freePort();
    try {
      return await EmbeddedServer.start({
        ...context,
        dataDirectory: path.join(context.directory, node.name),
        port: node.port,
        settings: { ...SETTINGS, cluster_name: node.name },
        logFile: path.join(context.directory, `${node.name}.log`),
      });
    } catch (error) {
      const isTaken = error instanceof EmbeddedFailure && error.kind === 'port-in-use';
      if (!isTaken || attempt === PORT_TRIES) throw error;
      node.port = undefined;
    }
  }
}

/** The application's role and database; right again however often it is done, so a start that was cut off is mended. */
async function prepareDatabase(port: number, password: string): Promise<void> {
  await asSuperuser({ port, password, database: 'postgres' }, async (client) => {
    const roles = await client.query('SELECT FROM pg_roles WHERE rolname = $1', [APPLICATION_ROLE]);
    if (roles.rowCount === 0) {
      await client.query(`CREATE ROLE ${APPLICATION_ROLE} LOGIN PASSWORD ${quoteLiteral(password)}`);
    }
    const databases = await client.query('SELECT FROM pg_database WHERE datname = $1', [
      APPLICATION_DATABASE,
    ]);
    if (databases.rowCount === 0) await client.query(`CREATE DATABASE ${APPLICATION_DATABASE}`);
  });
  await asSuperuser({ port, password, database: APPLICATION_DATABASE }, async (client) => {
    const owned = await client.query(
      `SELECT FROM pg_namespace WHERE nspname = 'public' AND nspowner = to_regrole($1)`,
      [APPLICATION_ROLE],
    );
    if (owned.rowCount !== 0) return;
    await client.query(`GRANT CREATE ON DATABASE ${APPLICATION_DATABASE} TO ${APPLICATION_ROLE}`);
    await client.query(`ALTER SCHEMA public OWNER TO ${APPLICATION_ROLE}`);
  });
}

async function asSuperuser(
  login: { port: number; password: string; database: string },
  work: (client: pg.Client) => Promise<void>,
): Promise<void> {
  const client = new pg.Client({
    ...{ host: '127.0.0.1', user: SUPERUSER, ...login },
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    query_timeout: QUERY_TIMEOUT_MS,
  });
  // A server that dies now fails the query under way; this keeps it from also ending the process.
  client.on('error', () => {});
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

/** A first start that was cut off before any server's data existed leaves no trace. */
async function removeIfNothingMade(directory: string): Promise<void> {
  const file = await readCluster(directory).catch(() => undefined);
  if (file?.nodes.some((node) => node.isMade)) return;
  await fs.rm(directory, { recursive: true, force: true });
}

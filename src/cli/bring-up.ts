/**
 * `postern up`, from the first server to the last: cluster, router, the two measurements (demonstration.ts), then
 * waiting. Whatever ends it, the router closes first, then the servers stop, then the directory is free again.
 *
 *   starting -> measuring -> up -> stopped        Ctrl-C, a failure, or a server's death lead to stopped from anywhere
 */
import {
  APPLICATION_DATABASE,
  APPLICATION_ROLE,
  type EmbeddedCluster,
  startCluster,
} from '../embedded/cluster.ts';
import { EmbeddedFailure } from '../embedded/failure.ts';
import { isPortFree } from '../embedded/free-port.ts';
import { demonstrate } from './demonstration.ts';
import { failureText } from './failure-text.ts';
import { aborted, type Interrupt, listenForInterrupt } from './interrupt.ts';
import { type Router, startRouter } from './router.ts';
import type { UpOptions } from './up.ts';

const HOST = '127.0.0.1';
const STATUS_FAILED = 1;
const STATUS_INTERRUPTED = 130;

/** Returns the exit status; everything is stopped then. */
export async function bringUp(options: UpOptions): Promise<number> {
  const interrupt = listenForInterrupt();
  try {
    await refuseBusyPort(options.port);
    const cluster = await startCluster({
      directory: options.data,
      nodeCount: options.nodes,
      signal: interrupt.signal,
      onProgress: print,
    });
    try {
      await withRouter(cluster, options, interrupt);
    } finally {
      await stopCluster(cluster, interrupt);
    }
    return 0;
  } catch (error) {
    if (error instanceof Interrupted || (error instanceof EmbeddedFailure && error.kind === 'cancelled')) {
      console.error('postern: interrupted; nothing is left running');
      return STATUS_INTERRUPTED;
    }
    console.error(failureText(error));
    return STATUS_FAILED;
  }
}

/** Ctrl-C before the work was done. */
class Interrupted extends Error {}

async function withRouter(cluster: EmbeddedCluster, options: UpOptions, interrupt: Interrupt): Promise<void> {
  const died = new AbortController();
  void cluster.serverDied.then((failure) => died.abort(failure));
  const signal = AbortSignal.any([interrupt.signal, died.signal]);
  const router = await openRouter(cluster, options.port);
  try {
    print(
      `the router listens on ${HOST}:${router.port}, before ${cluster.nodes.length} PostgreSQL ${cluster.postgresqlVersion}`,
    );
    const dsn = applicationDsn(cluster, router.port);
    if (options.measure) {
      const { quick = false, seconds } = options;
      await demonstrate({ cluster, routerDsn: dsn, isQuick: quick, seconds, signal, print });
    }
    if (options.once !== true && !signal.aborted) {
      print(readyText(cluster, dsn));
      await aborted(signal);
    } else if (interrupt.signal.aborted) {
      throw new Interrupted();
    }
    if (died.signal.aborted) throw died.signal.reason;
  } catch (error) {
    // What fails after a server's death or a Ctrl-C fails because of it.
    if (died.signal.aborted) throw died.signal.reason;
    if (interrupt.signal.aborted) throw new Interrupted();
    throw error;
  } finally {
    await closeRouter(router, interrupt);
  }
}

function openRouter(cluster: EmbeddedCluster, port: number): Promise<Router> {
  const nodes = cluster.nodes.map((node) => ({ name: node.name, dsn: cluster.dsn(node) }));
  return startRouter({
    listen: { host: HOST, port },
    database: APPLICATION_DATABASE,
    nodes,
    home: nodes[0]!.name,
    users: [{ name: APPLICATION_ROLE, password: cluster.password }],
  });
}

/** Before anything is started: the router would find it out only after the servers. */
async function refuseBusyPort(port: number): Promise<void> {
  if (port === 0 || (await isPortFree(HOST, port))) return;
  throw new EmbeddedFailure(
    'port-in-use',
    `port ${port} on ${HOST} is in use: stop what listens there, or choose another port with --port`,
  );
}

function applicationDsn(cluster: EmbeddedCluster, port: number): string {
  return `postgres://${APPLICATION_ROLE}:${cluster.password}@${HOST}:${port}/${APPLICATION_DATABASE}`;
}

function readyText(cluster: EmbeddedCluster, dsn: string): string {
  return [
    '',
    'Up. Connect with psql, or give your application the same address:',
    `  psql ${dsn}`,
    `Ctrl-C stops all servers; their data stays in ${cluster.directory}.`,
  ].join('\n');
}

/** A second Ctrl-C does not wait for clients to be told. */
async function closeRouter(router: Router, interrupt: Interrupt): Promise<void> {
  await Promise.race([router.close(), aborted(interrupt.urgent)]);
}

async function stopCluster(cluster: EmbeddedCluster, interrupt: Interrupt): Promise<void> {
  const stopped = cluster.stop('fast');
  const hurried = aborted(interrupt.urgent).then(() => cluster.stop('immediate'));
  await Promise.race([stopped, hurried]);
  await stopped;
  print('all servers are stopped');
}

function print(line: string): void {
  console.log(line);
}

/**
 * What a router does before it serves: waits for its home node, asks each node what it has and lacks, and joins the catalog, or
 * makes it.
 *
 * Invariant: a node that is away is done without only if it has been part of the cluster before; a connection string that has
 * never led anywhere is told at once.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { invalidParameter, PosternError } from '../base/errors.ts';
import type { NodeInfo } from '../catalog/map.ts';
import { joinedNodes, storeNodeAddresses } from '../catalog/node-addresses.ts';
import { judgeCluster, judgeNode, type NodeFacts, readNodeFacts } from '../catalog/requirements.ts';
import { type CatalogIdentity, ensureCatalog, ensureNode } from '../catalog/schema.ts';
import { readTokenKey } from '../catalog/store.ts';
import { answerOf } from '../health/host-probe.ts';
import { settleHosts } from '../health/settle-hosts.ts';
import { ensureShown } from '../introspect/ensure-shown.ts';
import { parseDsn } from '../pg/dsn.ts';
import type { ShownCatalogs } from '../plan/resolve.ts';
import { ControlConnection } from '../platform/control-connection.ts';
import { backoffMs } from '../platform/reconnecting.ts';
import type { LateNode } from './late-nodes.ts';
import type { NodeOptions, RouterOptions } from './router-options.ts';

const PAUSE_MS_FIRST = 100;
const PAUSE_MS_MAX = 2_000;

export interface JoinedCluster extends CatalogIdentity {
  readonly clusterKey: Buffer;
  readonly shown: ShownCatalogs;
  /** They are away, and are to be joined later. */
  readonly late: readonly LateNode[];
}

/** Throws when home can't be reached in time, and when a node can't be used at all. */
export async function joinCluster(
  options: RouterOptions,
  connectionsPerNode: number,
): Promise<JoinedCluster> {
  const home = await openHome(options);
  try {
    const away = await checkNodes(options, { connectionsPerNode, joined: await joinedNodes(home) });
    const identity = await ensureCatalog(home, {
      nodes: options.nodes.map(({ name }) => name),
      home: options.home,
    });
    const clusterKey = await readTokenKey(home);
    const there = identity.nodes.filter(({ name }) => !away.has(name));
    await Promise.all(there.map((node) => ensureOn(options, node, { ...identity, clusterKey })));
    await storeNodeAddresses(
      home,
      there.map((node) => ({ node, dsn: optionsOf(options, node.name).dsn })),
    );
    const shown = await ensureShown(home);
    const late = identity.nodes
      .filter(({ name }) => away.has(name))
      .map((node) => ({ node, why: away.get(node.name)! }));
    return { ...identity, clusterKey, shown, late };
  } finally {
    await home.close();
  }
}

/** Joins a node that was away. Rejects while it is, and while it lacks what Postern needs. */
export async function joinLateNode(
  options: RouterOptions,
  node: NodeInfo,
  cluster: { readonly clusterId: string; readonly clusterKey: Buffer; readonly connectionsPerNode: number },
): Promise<void> {
  const facts = await readFacts(options, node.name);
  refuseIfUnfit(judgeNode(facts, cluster.connectionsPerNode));
  await ensureOn(options, node, cluster);
  const home = await ControlConnection.open({
    nodeName: options.home,
    dsn: optionsOf(options, options.home).dsn,
  });
  try {
    await storeNodeAddresses(home, [{ node, dsn: optionsOf(options, node.name).dsn }]);
  } finally {
    await home.close();
  }
}

/** Tries until `startupMs` is over, as long as the server is not there; what it refuses is told at once. */
async function openHome(options: RouterOptions): Promise<ControlConnection> {
  const { dsn } = optionsOf(options, options.home);
  const waitMs = options.health?.startupMs ?? 0;
  const startedAtMs = performance.now();
  for (let tries = 0; ; tries++) {
    await settleHosts({ nodeName: options.home, dsn: parseDsn(dsn) });
    try {
      return await ControlConnection.open({ nodeName: options.home, dsn });
    } catch (error) {
      const isAway = ['away', 'silent'].includes(answerOf(error).kind);
      const pauseMs = backoffMs({
        tries,
        firstMs: PAUSE_MS_FIRST,
        maxMs: PAUSE_MS_MAX,
        random: Math.random,
      });
      const leftMs = startedAtMs + waitMs - performance.now();
      if (!isAway || leftMs <= 0) throw error;
      if (tries === 0)
        options.log?.warn(
          `${(error as Error).message}; waiting for the home node for up to ${Math.round(waitMs / 1000)} s`,
        );
      await delay(Math.min(pauseMs, leftMs));
    }
  }
}

/** What each node has and lacks. Gives those that are away and were joined before, with the reason. */
async function checkNodes(
  options: RouterOptions,
  { connectionsPerNode, joined }: { connectionsPerNode: number; joined: ReadonlySet<string> },
): Promise<ReadonlyMap<string, string>> {
  const away = new Map<string, string>();
  const all = await Promise.all(
    options.nodes.map(async ({ name }): Promise<NodeFacts | undefined> => {
      const dsn = parseDsn(optionsOf(options, name).dsn);
      if (name !== options.home) await settleHosts({ nodeName: name, dsn });
      try {
        return await readFacts(options, name);
      } catch (error) {
        const isAway = ['away', 'silent'].includes(answerOf(error).kind);
        if (!isAway || name === options.home || !joined.has(name)) throw error;
        away.set(name, (error as Error).message);
        return undefined;
      }
    }),
  );
  const facts = all.filter((one) => one !== undefined);
  const findings = [...facts.flatMap((one) => judgeNode(one, connectionsPerNode)), ...judgeCluster(facts)];
  options.onFindings?.(findings);
  refuseIfUnfit(findings);
  return away;
}

async function readFacts(options: RouterOptions, name: string): Promise<NodeFacts> {
  const connection = await ControlConnection.open({ nodeName: name, dsn: optionsOf(options, name).dsn });
  try {
    return await readNodeFacts(connection);
  } finally {
    await connection.close();
  }
}

function refuseIfUnfit(findings: ReturnType<typeof judgeNode>): void {
  const error = findings.find(({ severity }) => severity === 'error');
  if (error) {
    throw new PosternError({
      sqlState: '55000',
      message: `node "${error.node}": ${error.message}`,
      hint: error.hint,
    });
  }
}

async function ensureOn(
  options: RouterOptions,
  node: NodeInfo,
  cluster: { readonly clusterId: string; readonly clusterKey: Buffer },
): Promise<void> {
  const { dsn } = optionsOf(options, node.name);
  const connection = await ControlConnection.open({ nodeName: node.name, dsn });
  try {
    await ensureNode(connection, { clusterId: cluster.clusterId, node, clusterKey: cluster.clusterKey });
  } finally {
    await connection.close();
  }
}

export function optionsOf(options: RouterOptions, name: string): NodeOptions {
  const node = options.nodes.find((one) => one.name === name);
  if (!node)
    throw invalidParameter(
      `the home node "${name}" is not among the nodes`,
      `The nodes are: ${options.nodes.map((one) => one.name).join(', ')}.`,
    );
  return node;
}

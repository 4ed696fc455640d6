/** What a router does before it serves: asks each node what it has and lacks, and joins the catalog, or makes it. */
import { invalidParameter, PosternError } from '../base/errors.ts';
import type { NodeInfo } from '../catalog/map.ts';
import { storeNodeAddresses } from '../catalog/node-addresses.ts';
import { judgeCluster, judgeNode, type NodeFacts, readNodeFacts } from '../catalog/requirements.ts';
import { ensureCatalog, ensureNode } from '../catalog/schema.ts';
import { readTokenKey } from '../catalog/store.ts';
import { ensureShown } from '../introspect/ensure-shown.ts';
import type { ShownCatalogs } from '../plan/resolve.ts';
import { ControlConnection } from '../platform/control-connection.ts';
import type { NodeOptions, RouterOptions } from './router-options.ts';

/** What each node has and lacks. Throws when a node can't be used at all. */
export async function checkNodes(options: RouterOptions, connectionsPerNode: number): Promise<void> {
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

export async function joinCluster(options: RouterOptions): Promise<{
  clusterId: string;
  clusterKey: Buffer;
  nodes: readonly NodeInfo[];
  homeNodeId: number;
  shown: ShownCatalogs;
}> {
  const home = await ControlConnection.open({
    nodeName: options.home,
    dsn: optionsOf(options, options.home).dsn,
  });
  try {
    const identity = await ensureCatalog(home, {
      nodes: options.nodes.map(({ name }) => name),
      home: options.home,
    });
    const clusterKey = await readTokenKey(home);
    await Promise.all(
      identity.nodes.map(async (node) => {
        const connection = await ControlConnection.open({
          nodeName: node.name,
          dsn: optionsOf(options, node.name).dsn,
        });
        try {
          await ensureNode(connection, { clusterId: identity.clusterId, node, clusterKey });
        } finally {
          await connection.close();
        }
      }),
    );
    const nodes = identity.nodes.map((node) => ({ node, dsn: optionsOf(options, node.name).dsn }));
    await storeNodeAddresses(home, nodes);
    const shown = await ensureShown(home);
    return { ...identity, clusterKey, shown };
  } finally {
    await home.close();
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

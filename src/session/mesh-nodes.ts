/**
 * The nodes that a read through a mesh takes rows from. Its connection leads to home alone, which goes on answering while another
 * node's server doesn't: so such a read is refused while a node of its own is silent, and ended when what waits for that node is.
 */
import type { BackendConnection } from '../backend/connection.ts';
import type { NodePool } from '../backend/pool.ts';
import { connectionLost } from '../base/errors.ts';
import type { ClusterMap } from '../catalog/map.ts';

type Pools = ReadonlyMap<number, NodePool>;

/** Of the sharded tables of these names, in whatever schema; of all nodes where a name is a view over such tables. */
export function nodesReadBy(map: ClusterMap, names: readonly string[]): ReadonlySet<number> {
  if (names.some((name) => map.viewsByName.has(name))) return new Set(map.nodes.map(({ id }) => id));
  const tables = names.flatMap((name) => map.tablesByName.get(name) ?? []);
  return new Set(tables.flatMap(({ buckets }) => buckets.map(({ nodeId }) => nodeId)));
}

/** Throws 08001 while one of them answers nothing. */
export function refuseSilent(pools: Pools, nodeIds: ReadonlySet<number>): void {
  for (const id of nodeIds) {
    const why = pools.get(id)?.whyShut;
    if (why) throw why;
  }
}

/** Runs `work` on the mesh's connection, which is closed when connections to one of the nodes are given up meanwhile. */
export async function boundToNodes<T>(
  pools: Pools,
  nodeIds: ReadonlySet<number>,
  connection: BackendConnection,
  work: () => Promise<T>,
): Promise<T> {
  const leaves: (() => void)[] = [];
  for (const id of nodeIds) {
    const pool = pools.get(id);
    if (!pool) continue;
    const onCut = (): void => {
      // The server that waits there is told as well.
      void connection.cancel();
      connection.destroy(connectionLost(pool.address.nodeName));
    };
    pool.dependents.add(onCut);
    leaves.push(() => pool.dependents.delete(onCut));
  }
  try {
    return await work();
  } finally {
    for (const leave of leaves) leave();
  }
}

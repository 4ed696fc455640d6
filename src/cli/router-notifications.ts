/** LISTEN for clients: the hub, over connections of the control path. */
import { NotificationHub } from '../backend/notification-hub.ts';
import type { NodePool } from '../backend/pool.ts';
import { BOUNDS } from '../base/bounds.ts';
import type { Log } from '../observe/log.ts';
import type { ControlConnection, ControlConnectionOptions } from '../platform/control-connection.ts';

/** Of its connections. */
export const LISTEN_LIMITS: Partial<ControlConnectionOptions> = {
  applicationName: 'postern listen',
  connectTimeoutMs: BOUNDS.notificationAnswerMs,
  statementTimeoutMs: BOUNDS.notificationAnswerMs,
};

/** undefined: there are no such connections (front mode). */
export function openHub(
  serving: {
    readonly listenOn?: ((nodeId: number) => Promise<ControlConnection>) | undefined;
    readonly nodes: readonly { readonly node: { readonly id: number; readonly name: string } }[];
    readonly catalog: { readonly current: { readonly homeNodeId: number } };
    readonly log: Log;
  },
  pools: ReadonlyMap<number, NodePool>,
): NotificationHub | undefined {
  const { listenOn, nodes, catalog, log } = serving;
  if (!listenOn) return undefined;
  return new NotificationHub({
    nodes: nodes.map(({ node }) => node),
    homeNodeId: catalog.current.homeNodeId,
    connect: listenOn,
    isAway: (nodeId) => pools.get(nodeId)?.isShut === true,
    log,
  });
}

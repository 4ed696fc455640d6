/** The connections of the data path: how a router logs in at its nodes as its clients' roles, and the pools of what is open. */
import type { BackendLimits } from '../admission/limits.ts';
import type { BackendConnection } from '../backend/connection.ts';
import type { Credential } from '../backend/credential.ts';
import { openBackend } from '../backend/login.ts';
import { NodePool } from '../backend/pool.ts';
import { besideOtherNodes } from '../base/errors.ts';
import type { NodeInfo } from '../catalog/map.ts';
import { parseDsn } from '../pg/dsn.ts';
import { nodeTlsOf } from '../pg/dsn-tls.ts';
import type { FlushQueue } from '../platform/flush-queue.ts';
import type { RouterHealth } from './router-health.ts';

export interface NodeAccess {
  readonly node: NodeInfo;
  readonly dsn: string;
  /** Default: the DSN's. */
  readonly database?: string;
  readonly flushQueue: FlushQueue;
  readonly health: RouterHealth;
  /** Default: the node's. */
  readonly poolId?: number;
  readonly isOnlyNode: boolean;
}

export interface PoolAccess extends NodeAccess {
  readonly connectionsPerNode: number;
  readonly acquireTimeoutMs?: number | undefined;
  readonly limits?: BackendLimits | undefined;
  /** What a role logs in with. */
  readonly credentialOf: (user: string) => Credential;
}

/** Backends log in as the client's own role, with what the router knows of its password. */
export function openPool(access: PoolAccess): NodePool {
  const { node, health } = access;
  const { address, open } = backendOpener(access);
  const dsn = parseDsn(access.dsn);
  const pool = new NodePool({
    address,
    connectionsMax: access.connectionsPerNode,
    acquireTimeoutMs: access.acquireTimeoutMs,
    limits: access.limits,
    now: () => performance.now(),
    open: (user) => {
      const known = access.credentialOf(user);
      // Of the role in its DSN the router has the password at this node, whatever the others store.
      const isControlRole = user === dsn.user && dsn.password !== undefined && known.kind !== 'password';
      const credential: Credential = isControlRole ? { kind: 'password', password: dsn.password } : known;
      return open(user, credential).catch((error: unknown) => {
        throw access.isOnlyNode ? error : besideOtherNodes(error);
      });
    },
  });
  return health.adopt(node.id, pool);
}

/** Opens one connection for each call, to the primary of the node. */
export function backendOpener(access: NodeAccess): {
  readonly address: NodePool['address'];
  readonly open: (user: string, credential: Credential) => Promise<BackendConnection>;
} {
  const { node, flushQueue, health } = access;
  const dsn = parseDsn(access.dsn);
  const { host, port, hosts } = dsn;
  const address = { nodeId: access.poolId ?? node.id, nodeName: node.name, host, port, tls: nodeTlsOf(dsn) };
  const open = (user: string, credential: Credential): Promise<BackendConnection> =>
    openBackend({
      ...{ address, hosts, user, credential, flushQueue },
      onDiskFull: () => health.noteFull(node.id),
      database: access.database ?? dsn.database,
      // A session that is left behind on one of several nodes holds up the others.
      keepalives: !access.isOnlyNode,
    });
  return { address, open };
}

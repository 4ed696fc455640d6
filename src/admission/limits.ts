/** What a configuration says of limits and time-outs, and what holds where it says nothing. */
import { BOUNDS } from '../base/bounds.ts';
import type { ClientLimits } from './client-admission.ts';
import type { LoginLimits } from './login-crowd.ts';
import type { ClockLimits } from './session-clock.ts';

/** Of connections to one node that are lent at once; undefined: as many as there are. */
export interface BackendLimits {
  readonly perRole?: number | undefined;
  /** Of clients that have named theirs. */
  readonly perTenant?: number | undefined;
}

export interface RouterLimits extends LoginLimits {
  readonly clients: Omit<ClientLimits, 'reserved'>;
  readonly backends: BackendLimits;
}

/** Milliseconds; 0: never. */
export interface RouterTimeouts extends ClockLimits {
  /** From the first byte to the first ReadyForQuery, but for the wait for a place. Never 0. */
  readonly login: number;
  /** How long a statement waits for a free backend connection. Never 0. */
  readonly queue: number;
  /** A client's connection is tried when it has been quiet for so long. */
  readonly keepAlive: number;
}

/** With the places that are kept for a role: that of the control path. */
export function clientLimits(limits: RouterLimits, reservedRole: string | undefined): ClientLimits {
  return { ...limits.clients, reserved: { role: reservedRole, clients: BOUNDS.reservedClients } };
}

export const LIMITS: RouterLimits = {
  clients: {
    clients: BOUNDS.clientsMax,
    roles: new Map(),
    tenants: new Map(),
    queue: { clients: BOUNDS.queuedClientsMax, waitMs: BOUNDS.clientQueueMs },
  },
  logins: BOUNDS.loginsMax,
  loginsPerAddress: BOUNDS.loginsPerAddress,
  backends: {},
};

export const TIMEOUTS: RouterTimeouts = {
  login: BOUNDS.loginTimeoutMs,
  idle: 0,
  idleInTransaction: 0,
  statement: 0,
  queue: BOUNDS.acquireTimeoutMs,
  stalled: BOUNDS.clientStalledMs,
  keepAlive: BOUNDS.clientKeepAliveMs,
};

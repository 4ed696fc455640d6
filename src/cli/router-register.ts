/** This process in the register of routers, and what follows from it: the ids of its sessions, and cancel requests over routers. */
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import type { NodePool } from '../backend/pool.ts';
import { RouterRegistration } from '../catalog/router-registration.ts';
import type { Log } from '../observe/log.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import { cancelKey } from '../session/cancel-envelope.ts';
import { CancelForwarding } from '../session/cancel-forwarding.ts';
import type { SessionRoutes } from '../session/session-ids.ts';
import { version } from './version.ts';
import { forwardCancel, ROUTER_ID_VARIABLE, workerPlace } from './worker-side.ts';

/** Of the connection to the register: a heartbeat that takes longer is none. */
export const REGISTER_LIMITS = {
  ...{ applicationName: 'postern register', connectTimeoutMs: 3_000 },
  ...{ statementTimeoutMs: 3_000, lockTimeoutMs: 2_000 },
};

/** The same for all processes of a router. `name`: default that of the machine. */
export function routerIdentity(name: string | undefined): RouterRegisterOptions['router'] {
  const id = (workerPlace() && process.env[ROUTER_ID_VARIABLE]) ?? randomUUID();
  return { id, name: name ?? hostname(), version: version() };
}

/** The server processes that a process of the router has, by name of the node. */
export function backendsByNode(pools: Iterable<NodePool>): Record<string, number[]> {
  const byNode: Record<string, number[]> = {};
  for (const { address, processIds } of pools)
    byNode[address.nodeName] = [...(byNode[address.nodeName] ?? []), ...processIds];
  return byNode;
}

/** What the register has to know of this process. */
export interface RegisteredProcess {
  readonly clients: () => number;
  /** Server processes, by name of the node. */
  readonly backends: () => Readonly<Record<string, readonly number[]>>;
  /** Cancels what a session of this process does, if there is such a session and the key is right. */
  readonly cancelOwn: (sessionId: number, secretKey: Buffer) => void;
}

export interface RouterRegister {
  readonly registration: RouterRegistration;
  readonly cancels: CancelForwarding;
}

interface RouterRegisterOptions {
  /** To home. */
  readonly open: () => Promise<ControlConnection>;
  readonly tokenKey: Buffer;
  readonly router: { readonly id: string; readonly name: string; readonly version: string };
  readonly log: Log;
  readonly heartbeatMs?: number | undefined;
}

export function openRegister(options: RouterRegisterOptions, own: RegisteredProcess): RouterRegister {
  const now = () => performance.now();
  const registration: RouterRegistration = new RouterRegistration({
    open: options.open,
    router: options.router,
    process: { id: process.pid, worker: workerPlace()?.index ?? 0 },
    clients: own.clients,
    backends: own.backends,
    onMessage: (payload) => cancels.receive(payload),
    log: options.log,
    heartbeatMs: options.heartbeatMs,
    ...{ now, random: Math.random },
  });
  const cancels = new CancelForwarding({
    key: cancelKey(options.tokenKey),
    routers: registration,
    accept: own.cancelOwn,
    now,
  });
  return { registration, cancels };
}

/** undefined: this process is alone. */
export function sessionRoutes(register: RouterRegister | undefined): SessionRoutes | undefined {
  const place = workerPlace();
  if (!place && !register) return undefined;
  return {
    place: () => ({
      slot: register?.registration.slot ?? 0,
      worker: place?.index ?? 0,
      generation: place?.generation ?? 0,
    }),
    toOtherProcess: (id, secretKey) => {
      if (place) forwardCancel(id, secretKey);
    },
    toOtherRouter: async (id, secretKey, address) => await register?.cancels.forward(id, secretKey, address),
  };
}

/**
 * The decisions about who is let in (SPEC.md), without any I/O: of clients that have proved who they are, how many there may
 * be in all, of a role, of a database and of a tenant; and who waits meanwhile, for how long, and in which order they follow.
 *
 *   arrive ──there is room──▶ in ──leave──▶ gone
 *     ├─no room─▶ waiting ──room, and its turn──▶ in
 *     │              ├─ its time is over, or the queue is full of its own kind ─▶ refused (which limit)
 *     │              └─ leave ─▶ gone
 *     └─no room in the queue either─▶ refused
 *
 * Invariant: nobody waits who could be in.
 * Invariant: no limit is exceeded but by those that `adopt` counts, and by a reload that lowers it: nobody is thrown out.
 * Invariant: an applicant ends its wait once.
 *
 * The state is changed in place: ten thousand clients are not copied for each that comes.
 */
import { unreachable } from '../base/assert.ts';
import { FairLine } from './fair-line.ts';

export interface ClientLimits {
  /** In all. */
  readonly clients: number;
  /** Of each; undefined: as many as there may be in all. */
  readonly clientsPerRole?: number | undefined;
  readonly clientsPerDatabase?: number | undefined;
  readonly clientsPerTenant?: number | undefined;
  /** In place of the limit for each. */
  readonly roles: ReadonlyMap<string, number>;
  readonly tenants: ReadonlyMap<string, number>;
  readonly queue: { readonly clients: number; readonly waitMs: number };
  /** This role finds `clients` more places than all others, and no limit of its own, so that somebody can look what is the matter. */
  readonly reserved: { readonly role: string | undefined; readonly clients: number };
}

export interface Applicant {
  /** Of this admission's alone. */
  readonly id: string;
  readonly role: string;
  readonly database: string;
  readonly tenant: string | undefined;
}

export interface Refusal {
  readonly limit: 'clients' | 'role' | 'database' | 'tenant';
  /** Of the role, database or tenant. */
  readonly name: string;
  readonly max: number;
  /** It has waited for so long; 0: there was no room to wait. */
  readonly waitedMs: number;
}

export type AdmissionEvent =
  | { readonly kind: 'arrive'; readonly client: Applicant; readonly atMs: number }
  /** It is in already, from elsewhere: it is counted and not asked. */
  | { readonly kind: 'adopt'; readonly client: Applicant }
  | { readonly kind: 'leave'; readonly id: string }
  | { readonly kind: 'tick'; readonly atMs: number }
  | { readonly kind: 'reload'; readonly limits: ClientLimits };

export type AdmissionEffect =
  | { readonly kind: 'admit'; readonly id: string }
  | { readonly kind: 'refuse'; readonly id: string; readonly refusal: Refusal };

interface Waiting extends Applicant {
  readonly sinceMs: number;
}

export interface AdmissionState {
  limits: ClientLimits;
  readonly inside: Map<string, Applicant>;
  readonly roles: Map<string, number>;
  readonly databases: Map<string, number>;
  readonly tenants: Map<string, number>;
  /** By id, in the order of arrival. */
  readonly waiting: Map<string, Waiting>;
  readonly line: FairLine<Waiting>;
}

export function admissionStart(limits: ClientLimits): AdmissionState {
  return {
    limits,
    inside: new Map(),
    roles: new Map(),
    databases: new Map(),
    tenants: new Map(),
    waiting: new Map(),
    line: new FairLine(),
  };
}

/** In the order in which they have to be told. */
export function admissionStep(state: AdmissionState, event: AdmissionEvent): AdmissionEffect[] {
  switch (event.kind) {
    case 'arrive':
      return arrive(state, { ...event.client, sinceMs: event.atMs });
    case 'adopt':
      enter(state, event.client);
      return [];
    case 'leave':
      return leave(state, event.id);
    case 'tick':
      return expire(state, event.atMs);
    case 'reload':
      state.limits = event.limits;
      return admitWaiting(state);
    default:
      return unreachable(event);
  }
}

function arrive(state: AdmissionState, client: Waiting): AdmissionEffect[] {
  const { limits, line } = state;
  const limit = limitReached(state, client);
  if (!limit) {
    enter(state, client);
    return [{ kind: 'admit', id: client.id }];
  }
  const refused = (one: Waiting, over = limit): AdmissionEffect => ({
    kind: 'refuse',
    id: one.id,
    refusal: { ...over, waitedMs: Math.max(0, client.sinceMs - one.sinceMs) },
  });
  const { clients, waitMs } = limits.queue;
  if (clients === 0 || waitMs === 0) return [refused(client)];
  if (line.count < clients) {
    wait(state, client);
    return [];
  }
  // A crowd does not keep others out of the queue: it gives up the last of its own places.
  const last = line.lastOfMost();
  if (!last || line.countOf(last.role) <= line.countOf(client.role) + 1) return [refused(client)];
  forget(state, last);
  wait(state, client);
  return [refused(last, limitReached(state, last) ?? limit)];
}

function wait(state: AdmissionState, client: Waiting): void {
  state.waiting.set(client.id, client);
  state.line.add(client);
}

function forget(state: AdmissionState, client: Waiting): void {
  state.waiting.delete(client.id);
  state.line.remove(client);
}

function leave(state: AdmissionState, id: string): AdmissionEffect[] {
  const waiting = state.waiting.get(id);
  if (waiting) {
    forget(state, waiting);
    return [];
  }
  const client = state.inside.get(id);
  if (!client) return [];
  state.inside.delete(id);
  count(state.roles, client.role, -1);
  count(state.databases, client.database, -1);
  if (client.tenant !== undefined) count(state.tenants, client.tenant, -1);
  return admitWaiting(state);
}

function expire(state: AdmissionState, atMs: number): AdmissionEffect[] {
  const effects: AdmissionEffect[] = [];
  for (const client of state.waiting.values()) {
    const waitedMs = atMs - client.sinceMs;
    if (waitedMs < state.limits.queue.waitMs) break;
    forget(state, client);
    const limit = limitReached(state, client) ?? allClients(state);
    effects.push({ kind: 'refuse', id: client.id, refusal: { ...limit, waitedMs } });
  }
  return effects;
}

function admitWaiting(state: AdmissionState): AdmissionEffect[] {
  const effects: AdmissionEffect[] = [];
  const fits = {
    role: (role: string) => !roleReached(state, role),
    one: (client: Waiting) => !limitReached(state, client),
  };
  while (state.line.count > 0 && (hasRoom(state) || isReserved(state))) {
    const client = state.line.take(fits);
    if (!client) break;
    state.waiting.delete(client.id);
    enter(state, client);
    effects.push({ kind: 'admit', id: client.id });
  }
  return effects;
}

function enter(state: AdmissionState, client: Applicant): void {
  state.inside.set(client.id, client);
  count(state.roles, client.role, 1);
  count(state.databases, client.database, 1);
  if (client.tenant !== undefined) count(state.tenants, client.tenant, 1);
}

function count(counts: Map<string, number>, name: string, by: number): void {
  const now = (counts.get(name) ?? 0) + by;
  if (now > 0) counts.set(name, now);
  else counts.delete(name);
}

function hasRoom({ limits, inside }: AdmissionState): boolean {
  return inside.size < limits.clients;
}

/** Does one of the reserved role wait, and is there a place left that is kept for it? */
function isReserved({ limits, inside, line }: AdmissionState): boolean {
  const { role, clients } = limits.reserved;
  return role !== undefined && line.countOf(role) > 0 && inside.size < limits.clients + clients;
}

type Limit = Pick<Refusal, 'limit' | 'name' | 'max'>;

function allClients({ limits }: AdmissionState): Limit {
  return { limit: 'clients', name: '', max: limits.clients };
}

/** The narrowest words first: that of a tenant says more than that of all. undefined: there is room. */
function limitReached(state: AdmissionState, client: Applicant): Limit | undefined {
  const { limits, inside, databases, tenants } = state;
  const { reserved } = limits;
  if (client.role === reserved.role)
    return inside.size < limits.clients + reserved.clients ? undefined : allClients(state);
  const { tenant, database } = client;
  if (tenant !== undefined) {
    const max = limits.tenants.get(tenant) ?? limits.clientsPerTenant;
    if (max !== undefined && (tenants.get(tenant) ?? 0) >= max) return { limit: 'tenant', name: tenant, max };
  }
  const role = roleReached(state, client.role);
  if (role) return role;
  const { clientsPerDatabase: max } = limits;
  if (max !== undefined && (databases.get(database) ?? 0) >= max)
    return { limit: 'database', name: database, max };
  return hasRoom(state) ? undefined : allClients(state);
}

function roleReached({ limits, roles }: AdmissionState, role: string): Limit | undefined {
  if (role === limits.reserved.role) return undefined;
  const max = limits.roles.get(role) ?? limits.clientsPerRole;
  return max !== undefined && (roles.get(role) ?? 0) >= max ? { limit: 'role', name: role, max } : undefined;
}

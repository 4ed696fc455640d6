/** `limits` and `timeouts` of postern.yaml. */
import { z } from 'zod';
import { LIMITS, type RouterLimits, type RouterTimeouts, TIMEOUTS } from '../admission/limits.ts';
import { duration } from './config-values.ts';

const count = z.number().int().min(0).max(1_000_000);
const some = count.min(1);
const named = z.record(z.string().min(1), count);

export const limitsSchema = z
  .strictObject({
    /** Logged in at once: in all, of each role, of each database, of each tenant. */
    clients: some.optional(),
    clients_per_role: count.optional(),
    clients_per_database: count.optional(),
    clients_per_tenant: count.optional(),
    /** In place of clients_per_role and clients_per_tenant, for these. */
    roles: named.optional(),
    tenants: named.optional(),
    /** Those that have logged in and wait for a place. */
    queue: z.strictObject({ clients: count.optional(), wait: duration().optional() }).optional(),
    /** Not logged in yet: in all, and from one address. */
    logins: some.optional(),
    logins_per_address: some.optional(),
    /** Connections to one node that statements of one role, or of one tenant, hold at once. */
    backends_per_role: some.optional(),
    backends_per_tenant: some.optional(),
  })
  .optional();

const positive = () => duration().refine((ms) => ms > 0, 'must be more than 0');

export const timeoutsSchema = z
  .strictObject({
    login: positive().optional(),
    idle: duration().optional(),
    idle_in_transaction: duration().optional(),
    statement: duration().optional(),
    queue: positive().optional(),
    stalled: duration().optional(),
    /** In whole seconds: what the socket option has. */
    keepalive: duration()
      .refine((ms) => ms >= 1_000, 'must be 1s or more')
      .optional(),
  })
  .optional();

export function limitsOptions(given: z.infer<typeof limitsSchema>): RouterLimits {
  if (!given) return LIMITS;
  const { clients, queue } = LIMITS.clients;
  return {
    clients: {
      clients: given.clients ?? clients,
      clientsPerRole: given.clients_per_role,
      clientsPerDatabase: given.clients_per_database,
      clientsPerTenant: given.clients_per_tenant,
      roles: new Map(Object.entries(given.roles ?? {})),
      tenants: new Map(Object.entries(given.tenants ?? {})),
      queue: { clients: given.queue?.clients ?? queue.clients, waitMs: given.queue?.wait ?? queue.waitMs },
    },
    logins: given.logins ?? LIMITS.logins,
    loginsPerAddress: given.logins_per_address ?? LIMITS.loginsPerAddress,
    backends: { perRole: given.backends_per_role, perTenant: given.backends_per_tenant },
  };
}

export function timeoutsOptions(given: z.infer<typeof timeoutsSchema>): RouterTimeouts {
  if (!given) return TIMEOUTS;
  return {
    login: given.login ?? TIMEOUTS.login,
    idle: given.idle ?? TIMEOUTS.idle,
    idleInTransaction: given.idle_in_transaction ?? TIMEOUTS.idleInTransaction,
    statement: given.statement ?? TIMEOUTS.statement,
    queue: given.queue ?? TIMEOUTS.queue,
    stalled: given.stalled ?? TIMEOUTS.stalled,
    keepAlive: given.keepalive ?? TIMEOUTS.keepAlive,
  };
}

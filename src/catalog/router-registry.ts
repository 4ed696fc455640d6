/**
 * Which routers serve this cluster: each has a slot, a number that stands in the ids of its sessions, for as long as it renews its
 * lease; and each of its processes says here what it has. Told by the view postern.routers.
 *
 *   no slot ──claim──▶ leased ──heartbeat, every 5 s──▶ leased
 *                        └──none for ROUTER_LEASE_MS──▶ anybody's: whoever needs a slot may take it, and who had it claims anew
 *
 * Invariant: two routers that renew their leases never have one slot. (One that was away for longer than its lease may give out ids of
 * a slot that is another's until its next heartbeat; a cancel request then reaches both, and the secret key decides.)
 */
import { quoteLiteral } from '../pg/identifier.ts';

/** After so long without a heartbeat a slot may be another router's, and its cancel requests are nobody's. */
const ROUTER_LEASE_MS = 60_000;
const SILENT_MS = 15_000;
const SLOT_MAX = 127;
const SILENT = `interval '${SILENT_MS / 1_000} s'`;
const LEASE = `interval '${ROUTER_LEASE_MS / 1_000} s'`;

/** Cancel requests for sessions of other routers: session/cancel-forwarding.ts. */
export const CANCEL_CHANNEL = 'postern_cancel';

/**
 * Not logged: a heartbeat costs a commit record of some 50 bytes and waits for no disk and no standby, and after a crash of the server
 * routers take their slots anew. `routers`: one row for a router, however many its processes. `router_processes.backends`: server process ids by name of the
 * node, `{"n1": [4711, 4712]}`, of all connections of the data path that the process has there, to mesh databases too.
 */
export function routerObjects(internal: string): string {
  return `
CREATE UNLOGGED TABLE IF NOT EXISTS ${internal}.routers (
  slot int PRIMARY KEY CHECK (slot BETWEEN 1 AND ${SLOT_MAX}),
  router_id uuid NOT NULL UNIQUE,
  router_name text NOT NULL,
  version text NOT NULL,
  started_at timestamptz NOT NULL,
  heartbeat_at timestamptz NOT NULL
);
CREATE UNLOGGED TABLE IF NOT EXISTS ${internal}.router_processes (
  slot int NOT NULL REFERENCES ${internal}.routers ON DELETE CASCADE,
  process_id int NOT NULL,
  worker int NOT NULL,
  heartbeat_at timestamptz NOT NULL,
  clients int NOT NULL,
  backends jsonb NOT NULL,
  PRIMARY KEY (slot, process_id)
);`;
}

export const ROUTERS_VIEW = {
  name: 'routers',
  comment: 'The routers of the cluster. Empty for a moment after a crash of the home node’s server.',
  query: (internal: string) => `SELECT r.router_name AS router, r.slot, r.version,
  CASE WHEN r.heartbeat_at > pg_catalog.clock_timestamp() - ${SILENT} THEN ${quoteLiteral('serving')}
    ELSE ${quoteLiteral('silent')} END AS state,
  r.started_at, r.heartbeat_at, count(p.process_id)::int AS processes, coalesce(sum(p.clients), 0)::int AS clients,
  coalesce(sum((SELECT sum(jsonb_array_length(n.value)) FROM jsonb_each(p.backends) n)), 0)::int AS backends
FROM ${internal}.routers r LEFT JOIN ${internal}.router_processes p
  ON p.slot = r.slot AND p.heartbeat_at > pg_catalog.clock_timestamp() - ${SILENT}
GROUP BY r.slot ORDER BY r.router_name, r.slot`,
  columns: {
    router: 'Its name: router.name of its configuration, or the name of its machine.',
    slot: 'A number from 1 to 127 that is in the ids of its sessions, so that cancel requests find it.',
    version: 'Of Postern.',
    state: `serving; or silent: it has not been heard of for ${SILENT_MS / 1_000} seconds.`,
    started_at: 'When it was first heard of.',
    heartbeat_at: 'When it was heard of last. Routers say every 5 seconds that they are there.',
    processes: 'Its workers, as far as they have been heard of in that time.',
    clients: 'Clients that are logged in.',
    backends: 'Its connections to all nodes together.',
  },
} as const;

/** Those who are silent for a day are forgotten. */
export function forgetRouters(internal: string): string {
  return `DELETE FROM ${internal}.routers WHERE heartbeat_at < clock_timestamp() - interval '1 day'`;
}

/** $1: router_id, $2: version. A row with its slot, if it has one. */
export function findRouter(internal: string): string {
  return `UPDATE ${internal}.routers SET version = $2, heartbeat_at = clock_timestamp() WHERE router_id = $1 RETURNING slot`;
}

/** $1: the slot that it had before, or 0. One row: a slot for it, and whether that has to be taken from a silent one. None: all are taken. */
export function chooseSlot(internal: string): string {
  return `SELECT s.slot, r.slot IS NOT NULL AS taken FROM generate_series(1, ${SLOT_MAX}) AS s (slot)
LEFT JOIN ${internal}.routers r ON r.slot = s.slot
WHERE r.slot IS NULL OR r.heartbeat_at < clock_timestamp() - ${LEASE}
ORDER BY s.slot = $1 DESC, r.slot IS NOT NULL, r.heartbeat_at, s.slot LIMIT 1`;
}

/** $1: the slot. */
export function dropRouter(internal: string): string {
  return `DELETE FROM ${internal}.routers WHERE slot = $1`;
}

/** $1: slot, $2: router_id, $3: name, $4: version. */
export function addRouter(internal: string): string {
  return `INSERT INTO ${internal}.routers VALUES ($1, $2, $3, $4, clock_timestamp(), clock_timestamp())`;
}

/**
 * $1: slot, $2: router_id, $3: process id, $4: worker, $5: clients, $6: backends as JSON. One row: is the slot still this router's, the
 * server's clock in ms since 1970, and the slots of all routers that are there.
 */
export function heartbeat(internal: string): string {
  return `WITH mine AS (UPDATE ${internal}.routers SET heartbeat_at = clock_timestamp() WHERE slot = $1 AND router_id = $2 RETURNING slot),
told AS (INSERT INTO ${internal}.router_processes AS p SELECT slot, $3, $4, clock_timestamp(), $5, $6::jsonb FROM mine
  ON CONFLICT (slot, process_id) DO UPDATE SET worker = excluded.worker, heartbeat_at = excluded.heartbeat_at,
    clients = excluded.clients, backends = excluded.backends),
gone AS (DELETE FROM ${internal}.router_processes p USING mine
  WHERE p.slot = mine.slot AND p.process_id <> $3 AND p.heartbeat_at < clock_timestamp() - ${LEASE})
SELECT EXISTS (SELECT FROM mine) AS "isMine", (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS "nowMs",
  ARRAY(SELECT slot FROM ${internal}.routers WHERE heartbeat_at > clock_timestamp() - ${LEASE}) AS slots`;
}

/** $1: slot, $2: router_id, $3: process id. A process that ends; with the last one of a router goes the router. */
export function leave(internal: string): string {
  return `WITH gone AS (DELETE FROM ${internal}.router_processes p USING ${internal}.routers r
  WHERE p.slot = $1 AND p.process_id = $3 AND r.slot = p.slot AND r.router_id = $2)
DELETE FROM ${internal}.routers r WHERE r.slot = $1 AND r.router_id = $2
  AND NOT EXISTS (SELECT FROM ${internal}.router_processes p WHERE p.slot = r.slot AND p.process_id <> $3)`;
}

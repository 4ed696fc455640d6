/** The server processes that routers say are theirs (catalog/router-registry.ts), and what is logged in beside them. */
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import { type BypassRules, unclaimed } from './bypass.ts';
import type { Finding } from './finding.ts';
import type { ServerFacts } from './server-facts.ts';

/** A router says every 5 s what it has. */
const FRESH_S = 15;
/** After this it is gone, and its server processes with it. */
const GONE_S = 60;

export interface Claims {
  /** By name of the node. */
  readonly backends: ReadonlyMap<string, ReadonlySet<number>>;
  readonly processes: number;
  /** Some router has not said for a while what it has: nothing can be told of what is unknown. */
  readonly areStale: boolean;
}

/** undefined: the catalog is of a version that knew no routers. */
export async function readClaims(home: ControlConnection): Promise<Claims | undefined> {
  const [found] = await home.query<{ there: boolean }>(
    `SELECT to_regclass('${INTERNAL_SCHEMA}.router_processes') IS NOT NULL AS there`,
  );
  if (!found?.there) return undefined;
  const rows = await home.query<{
    ageSeconds: number;
    backends: Readonly<Record<string, readonly number[]>>;
  }>(
    `SELECT extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 AS "ageSeconds", backends
     FROM ${INTERNAL_SCHEMA}.router_processes WHERE heartbeat_at > clock_timestamp() - interval '${GONE_S} s'`,
  );
  const backends = new Map<string, Set<number>>();
  for (const row of rows)
    for (const [node, processIds] of Object.entries(row.backends)) {
      const known = backends.get(node) ?? new Set();
      for (const processId of processIds) known.add(processId);
      backends.set(node, known);
    }
  return {
    backends,
    processes: rows.length,
    areStale: rows.some(({ ageSeconds }) => ageSeconds > FRESH_S),
  };
}

/** One look: so only of sessions that are older than any claim. */
export function judgeLogins(server: ServerFacts, rules: BypassRules): readonly Finding[] {
  const groups = new Map<string, { count: number; session: ServerFacts['sessions'][number] }>();
  for (const session of unclaimed(server.sessions, rules)) {
    if (session.ageSeconds < FRESH_S) continue;
    const key = JSON.stringify([session.role, session.address, session.applicationName]);
    const group = groups.get(key);
    if (group) group.count++;
    else groups.set(key, { count: 1, session });
  }
  return [...groups.values()].map(({ count, session: { role, address, applicationName, processId } }) => ({
    ...{ topic: 'logins', severity: 'warning', node: server.node, object: `role ${role}` },
    message: `${count === 1 ? 'a session is' : `${count} sessions are`} logged in there, and not through a router`,
    found: `from ${address ?? 'a Unix socket'}, application "${applicationName}", pid ${processId}${count > 1 ? ' and others' : ''}`,
    advice: `Have it connect to a router. If it belongs there (monitoring, backups), name its role in bypass.allow of postern.yaml.`,
    remedies: [],
  }));
}

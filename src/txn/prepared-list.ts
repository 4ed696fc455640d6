/** The prepared transactions of this cluster on one node, in its own database: what a foreign GID names is none of ours. */
import { quoteLiteral } from '../pg/identifier.ts';
import { type Gid, parseGid } from './gid.ts';
import type { NodeControl } from './node-controls.ts';

export interface PreparedTransaction extends Gid {
  readonly nodeId: number;
  readonly gid: string;
  readonly owner: string;
  /** As PostgreSQL prints it. */
  readonly preparedAt: string;
  /** By the clock of its node. */
  readonly ageMs: number;
}

export async function listPrepared(
  control: NodeControl,
  options: { readonly clusterId: string; readonly nodeId: number },
): Promise<PreparedTransaction[]> {
  const { clusterId, nodeId } = options;
  const rows = await control.query<{ gid: string; owner: string; prepared_at: string; age_ms: string }>(
    `SELECT gid, owner::text AS owner, prepared::text AS prepared_at,
       (extract(epoch FROM clock_timestamp() - prepared) * 1000)::int8 AS age_ms
     FROM pg_prepared_xacts
     WHERE database = current_database() AND starts_with(gid, ${quoteLiteral(`postern:${clusterId}:`)})`,
  );
  return rows.flatMap(({ gid, owner, prepared_at, age_ms }) => {
    const parsed = parseGid(clusterId, gid);
    return parsed ? [{ ...parsed, nodeId, gid, owner, preparedAt: prepared_at, ageMs: Number(age_ms) }] : [];
  });
}

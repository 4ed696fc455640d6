/** What the versions of the nodes mean to COPY data in CSV: is the line `\.` their end, or a row? (copy/end-marker.ts) */
import { borrow } from '../backend/internal-query.ts';
import type { NodePool } from '../backend/pool.ts';
import { MARKER_IS_DATA_SINCE } from '../copy/end-marker.ts';
import type { CopyFormat } from '../copy/format.ts';
import type { Conversation } from './conversation.ts';

export interface EndMarkerReading {
  /** The home node's server, as which the router behaves, would end there. */
  readonly ends: boolean;
  /** Some node would. */
  readonly someEnd: boolean;
}

export async function endMarkerReading(
  conversation: Conversation,
  format: CopyFormat,
): Promise<EndMarkerReading> {
  if (format.kind !== 'csv') return { ends: false, someEnd: false };
  const { map, homeNodeId } = conversation;
  const { pools } = conversation.state.context;
  const ends = new Map<number, boolean>();
  await Promise.all(
    map.nodes.map(async ({ id }) => {
      const pool = pools.get(id);
      const major = pool && (await majorOf(conversation, pool));
      // A node that is not known to take it for data may end there.
      ends.set(id, major === undefined || major < MARKER_IS_DATA_SINCE);
    }),
  );
  return { ends: ends.get(homeNodeId) ?? false, someEnd: [...ends.values()].includes(true) };
}

async function majorOf({ state }: Conversation, pool: NodePool): Promise<number | undefined> {
  const { user, settings } = state;
  // Whoever has opened a connection has been told.
  if (pool.serverMajor === undefined) await borrow(pool, { user, settings }, async () => {}).catch(() => {});
  return pool.serverMajor;
}

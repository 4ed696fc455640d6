/** COPY statements that the router carries out: of sharded tables, of reference tables, and of queries over several buckets. */

import { formatOf } from '../copy/format.ts';
import type { CopyPlacement } from '../plan/copy.ts';
import { isSharded } from '../plan/copy.ts';
import type { Conversation } from './conversation.ts';
import { columnsOf } from './copy-facts.ts';
import { CopyInRun } from './copy-in.ts';
import { copyQuery, copyTable } from './copy-out.ts';
import type { CarriedQueries } from './copy-query.ts';
import { ReferenceCopy } from './copy-reference.ts';
import { ShardedCopy } from './copy-sharded.ts';
import { endMarkerReading } from './copy-versions.ts';
import type { ScatteredPortal } from './scattered-run.ts';

export interface CopyContext {
  readonly portal: ScatteredPortal;
  readonly queries: CarriedQueries;
}

/** All of its answer but CommandComplete. Gives the command tag. */
export async function runCopy(
  conversation: Conversation,
  placement: CopyPlacement,
  context: CopyContext,
): Promise<string> {
  if (placement.direction === 'query') return await copyQuery(conversation, placement, context);
  const { table } = placement;
  const facts = await columnsOf(conversation, table);
  if (placement.direction === 'out') return await copyTable(conversation, placement, { ...context, facts });
  const columns =
    placement.columns ?? facts.filter(({ isGenerated }) => !isGenerated).map(({ name }) => name);
  const format = formatOf(placement.options);
  const options = { format, columns, facts };
  const target = isSharded(table)
    ? new ShardedCopy(conversation, { ...options, table })
    : new ReferenceCopy(conversation, { ...options, table });
  const endMarker = await endMarkerReading(conversation, format);
  const run = new CopyInRun(conversation, { placement, target, columns, endMarker });
  return await run.run(firstSlotOf(conversation, target));
}

/** One on the node that the transaction is on, if it has anything of the table. */
function firstSlotOf(conversation: Conversation, target: ShardedCopy | ReferenceCopy): number {
  const current = conversation.lease.connection?.address.nodeId;
  if (target instanceof ReferenceCopy || current === undefined) return 0;
  return target.slotOfNode(current) ?? 0;
}

/**
 * LOCK TABLE of tables with a door (plan/lock-table.ts): on branches of the client's transaction, home first and then node by node
 * in one order, so that two who lock the same tables wait for one another, and not in a ring. It writes nothing: a transaction
 * that only locks and reads ends without two-phase commit.
 */
import { connectionLost, objectError } from '../base/errors.ts';
import type { DdlChange, DdlStep } from '../plan/ddl/change.ts';
import { textOfReplacement } from '../plan/rewrite.ts';
import { BindView, bindTailOf, textBindFrame } from '../wire/frontend.ts';
import type { Conversation } from './conversation.ts';
import { RunningPieces } from './pieces.ts';

const NO_VALUES = textBindFrame([]);
const NO_VALUES_TAIL = bindTailOf(new BindView().read(NO_VALUES), NO_VALUES.buffer, []);

type LockStep = Extract<DdlStep, { kind: 'leafList' }>;

/** Gives the command tag. Rejects with what the client hears. */
export async function lockTables(conversation: Conversation, change: DdlChange): Promise<string> {
  const { lease, state } = conversation;
  if (state.transaction === 'none' && !lease.inBlock && !lease.branches.areMany)
    throw objectError('25P01', 'LOCK TABLE can only be used in transaction blocks');
  const steps = change.steps([]).flatMap((step) => (step.kind === 'leafList' ? [step] : []));
  const { map } = conversation;
  const nodeIds = [map.homeNodeId, ...map.nodes.map(({ id }) => id).filter((id) => id !== map.homeNodeId)];
  const named = nodeIds.filter((nodeId) =>
    steps.some((step) => namesOn(step, nodeId, map.homeNodeId).length > 0),
  );
  const connections = await lease.branches.enlist(named);
  conversation.isCanceled = false;
  await lease.branches
    .run(async () => {
      for (const nodeId of named) {
        const connection = connections.get(nodeId);
        if (!connection) throw connectionLost(String(nodeId));
        const pieces = steps.map((step) => {
          const { tables, before, after } = step;
          const [table] = tables;
          return {
            nodeId,
            text: before + namesOn(step, nodeId, map.homeNodeId).join(', ') + after,
            shared: undefined,
            parameterOids: [],
            tail: NO_VALUES_TAIL,
            leaf: table && { table, bucket: 0, buckets: [...table.buckets.keys()], mapPosition: () => 0 },
          };
        });
        const running = new RunningPieces(new Map([[nodeId, connection]]), pieces, {
          onRows() {},
          onNotice: (reader) => conversation.responses.onNotice(reader),
          onMissingLeaf: () => void state.context.catalog.refresh().catch(() => {}),
        });
        conversation.runningPieces = running;
        await running.done;
      }
    })
    .finally(() => {
      conversation.runningPieces = undefined;
    });
  return change.tag ?? 'LOCK TABLE';
}

function namesOn({ tables, others, homeOnly }: LockStep, nodeId: number, homeNodeId: number): string[] {
  const leaves = tables.flatMap((table) =>
    [...table.buckets.keys()]
      .filter((bucket) => table.buckets[bucket]!.nodeId === nodeId)
      .map((bucket) => textOfReplacement({ kind: 'leaf', table, alias: undefined }, { bucket, ids: [] })),
  );
  return [...leaves, ...others, ...(nodeId === homeNodeId ? homeOnly : [])];
}

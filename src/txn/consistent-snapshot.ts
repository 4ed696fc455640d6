/**
 * Snapshots on several nodes that agree: each distributed transaction is visible in all of them or in none
 * (CONSISTENT-READS.md).
 *
 * Invariant: a snapshot that was taken before decisions were held is found out, and is never passed for one that agrees.
 */
import type { BackendConnection } from '../backend/connection.ts';
import { ask } from '../backend/internal-query.ts';
import { assert } from '../base/assert.ts';
import type { DecisionGate } from './decision-gate.ts';

export interface SnapshotRequest {
  /** By node. Each has just begun a transaction REPEATABLE READ, and sent nothing in it but SET, SHOW or LOCK: all else takes a snapshot. */
  readonly connections: ReadonlyMap<number, BackendConnection>;
  /** Sent behind the snapshot, in the same write: the registration of a branch, say. */
  readonly thenText?: string;
}

/**
 * Opens the transactions' snapshots. Rejects with 40001 if decisions could not be held (retry is right), 08001 while a node of
 * the cluster is away, or with what a connection gave; the transactions are of no use then.
 */
export async function openConsistent(gate: DecisionGate, request: SnapshotRequest): Promise<void> {
  const { connections, thenText } = request;
  const text = `SELECT pg_catalog.pg_current_snapshot()${thenText === undefined ? '' : `;${thenText}`}`;
  await gate.held(async ({ snapshots }) => {
    await Promise.all(
      [...connections].map(async ([nodeId, connection]) => {
        const [row] = await ask(connection, text);
        const least = snapshots.get(nodeId);
        assert(least !== undefined, 'decisions are held on every node');
        assert(seesAllOf(row?.[0] ?? '', least), 'a snapshot was taken before decisions were held');
      }),
    );
  });
}

/** Two texts of pg_snapshot of one server: is all that is visible in `least` visible in `snapshot`? */
export function seesAllOf(snapshot: string, least: string): boolean {
  const [, end, running] = parseSnapshot(snapshot);
  const [, leastEnd, leastRunning] = parseSnapshot(least);
  for (const xid of running) if (xid < leastEnd && !leastRunning.has(xid)) return false;
  // What had not begun for the one had not ended for the other.
  const unknown = [...leastRunning].filter((xid) => xid >= end).length;
  return end >= leastEnd || leastEnd - end === BigInt(unknown);
}

/** `xmin:xmax:xip,xip`; xmax and above, and all in the list, are invisible (documentation: "pg_snapshot Components"). */
function parseSnapshot(text: string): [bigint, bigint, ReadonlySet<bigint>] {
  const [xmin = '0', xmax = '0', running = ''] = text.split(':');
  return [BigInt(xmin), BigInt(xmax), new Set(running.split(',').filter(Boolean).map(BigInt))];
}

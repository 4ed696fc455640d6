/**
 * Cleans up what routers that are gone have left half made or half dropped (SPEC.md, 5 and 6). Any router may do so at any
 * time, several at once.
 *
 * Invariant: a table that the catalog does not know, and that rows were written to, is left for an administrator to decide on.
 */
import { bumpEpoch, INTERNAL_SCHEMA, PLACEMENT_LOCK, TABLE_LOCK_KEY } from '../catalog/schema.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import { all, type DdlContext, homeNode, otherNodes, withConnection } from './context.ts';
import { dropRecorded, mayHoldRows } from './recorded.ts';

/** Returns the ids of the tables that were cleaned up. Throws if a node can't be reached; what is left stays for later. */
export async function sweep(context: DdlContext): Promise<readonly number[]> {
  return await withConnection(context, homeNode(context).id, async (home) => {
    const swept: number[] = [];
    const unfinished = await home.query<{ id: number }>(
      `SELECT table_id AS id FROM ${INTERNAL_SCHEMA}.tables WHERE state <> 'ready' ORDER BY table_id`,
    );
    for (const { id } of unfinished) {
      if (await sweepTable(context, home, id)) swept.push(id);
    }
    for (const node of otherNodes(context)) swept.push(...(await sweepRubbish(context, home, node.id)));
    await sweepGroups(context, home);
    return swept;
  });
}

/** The newest group at the last sweep: what is newer may be of a table that is being made. */
const newestGroups = new WeakMap<DdlContext, number>();

/** Groups of one table's own that was never committed (SPEC.md, D3). */
async function sweepGroups(context: DdlContext, home: ControlConnection): Promise<void> {
  const [row] = await home.query<{ newest: number | null }>(
    `SELECT max(colocation_id) AS newest FROM ${INTERNAL_SCHEMA}.colocation_groups`,
  );
  const before = newestGroups.get(context);
  newestGroups.set(context, row?.newest ?? 0);
  if (before === undefined) return;
  await home.query(
    `DELETE FROM ${INTERNAL_SCHEMA}.colocation_groups WHERE colocation_id IN (
       SELECT colocation_id FROM ${INTERNAL_SCHEMA}.colocation_groups g WHERE NOT shared AND colocation_id <= $1
         AND NOT EXISTS (SELECT FROM ${INTERNAL_SCHEMA}.tables t WHERE t.colocation_id = g.colocation_id)
       FOR UPDATE SKIP LOCKED)`,
    [before],
  );
}

/** True if a table is left that nobody works on, so that a sweep has something to do. Asks the home node alone. */
export async function needsSweep(home: ControlConnection): Promise<boolean> {
  const rows = await home.query<{ id: number }>(
    `SELECT table_id AS id FROM ${INTERNAL_SCHEMA}.tables WHERE state <> 'ready'`,
  );
  for (const { id } of rows) {
    if (await tryLock(home, id)) {
      await unlock(home, id);
      return true;
    }
  }
  return false;
}

/** The lock is taken by who calls, and kept until the row is as it should be. */
export async function finishDropping(
  context: DdlContext,
  home: ControlConnection,
  tableId: number,
): Promise<void> {
  await all(
    otherNodes(context).map((node) =>
      withConnection(context, node.id, (connection) =>
        connection.transaction(() => dropRecorded(connection, tableId, { cascade: true })),
      ),
    ),
  );
  await home.transaction(async () => {
    await home.query(`SELECT ${PLACEMENT_LOCK}`);
    await dropRecorded(home, tableId, { cascade: true });
    await deleteRow(home, tableId);
  });
}

/** The end of a table in the catalog; a group that has no table left goes with it. Call it in a transaction. */
export async function deleteRow(home: ControlConnection, tableId: number): Promise<void> {
  const rows = await home.query<{ group: number | null; was_seen: boolean }>(
    `DELETE FROM ${INTERNAL_SCHEMA}.tables WHERE table_id = $1
     RETURNING colocation_id AS group, state <> 'creating' AS was_seen`,
    [tableId],
  );
  const row = rows[0];
  if (!row) return;
  if (row.group !== null) {
    await home.query(
      `DELETE FROM ${INTERNAL_SCHEMA}.colocation_groups g WHERE colocation_id = $1
       AND NOT EXISTS (SELECT FROM ${INTERNAL_SCHEMA}.tables t WHERE t.colocation_id = g.colocation_id)`,
      [row.group],
    );
  }
  if (row.was_seen) await bumpEpoch(home);
}

async function sweepTable(context: DdlContext, home: ControlConnection, tableId: number): Promise<boolean> {
  if (!(await tryLock(home, tableId))) return false;
  try {
    // Read again under the lock: whoever held it until now may have finished.
    const rows = await home.query<{ state: string }>(
      `SELECT state FROM ${INTERNAL_SCHEMA}.tables WHERE table_id = $1 AND state <> 'ready'`,
      [tableId],
    );
    if (rows.length === 0) return false;
    await finishDropping(context, home, tableId);
    return true;
  } finally {
    if (!home.lost) await unlock(home, tableId);
  }
}

async function sweepRubbish(
  context: DdlContext,
  home: ControlConnection,
  nodeId: number,
): Promise<readonly number[]> {
  return await withConnection(context, nodeId, async (connection) => {
    // The node first, the catalog second: a row is there before any record is, so none is taken for rubbish too soon.
    const recorded = await connection.query<{ id: number }>(
      `SELECT table_id AS id FROM ${INTERNAL_SCHEMA}.local_tables`,
    );
    const known = await home.query<{ id: number }>(`SELECT table_id AS id FROM ${INTERNAL_SCHEMA}.tables`);
    const knownIds = new Set(known.map((row) => row.id));
    const rubbish = recorded.map((row) => row.id).filter((id) => !knownIds.has(id));
    const kept: number[] = [];
    for (const id of rubbish) {
      if (await mayHoldRows(connection, id)) kept.push(id);
      else await connection.transaction(() => dropRecorded(connection, id, { cascade: true }));
    }
    warnOfKept(context, connection.nodeName, kept);
    return rubbish.filter((id) => !kept.includes(id));
  });
}

/** By context and node, what was warned of last. */
const warned = new WeakMap<DdlContext, Map<string, string>>();

function warnOfKept(context: DdlContext, nodeName: string, kept: readonly number[]): void {
  const said = warned.get(context) ?? new Map<string, string>();
  warned.set(context, said);
  const ids = kept.join(', ');
  if (ids !== '' && said.get(nodeName) !== ids)
    context.warn?.(
      `node "${nodeName}" has rows of tables that the catalog does not know (${INTERNAL_SCHEMA}.local_tables, table_id ${ids}): was home set back to an older state? Save what is needed and drop them there; nothing is dropped by itself`,
    );
  said.set(nodeName, ids);
}

async function tryLock(home: ControlConnection, tableId: number): Promise<boolean> {
  const rows = await home.query<{ got: boolean }>(`SELECT pg_try_advisory_lock(${TABLE_LOCK_KEY}) AS got`, [
    tableId,
  ]);
  return rows[0]?.got === true;
}

async function unlock(home: ControlConnection, tableId: number): Promise<void> {
  await home.query(`SELECT pg_advisory_unlock(${TABLE_LOCK_KEY})`, [tableId]);
}

/** DROP TABLE of tables with a door: the steps 4 to 7 of doors/sharded/SPEC.md, whichever door it is. */
import { outcomeUnknown } from '../base/errors.ts';
import { bumpEpoch, INTERNAL_SCHEMA, PLACEMENT_LOCK, TABLE_LOCK_KEY } from '../catalog/schema.ts';
import type { RouterCommand } from '../plan/plan.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import {
  all,
  type DdlContext,
  type DdlResult,
  type DdlSession,
  noSuchTable,
  openTransactions,
  withConnection,
} from './context.ts';
import { inTableNames } from './leaf-names.ts';
import { dropRecorded } from './recorded.ts';
import { deleteRow } from './sweep.ts';

type DropCommand = Extract<RouterCommand, { kind: 'dropTables' }>;

export async function dropTables(
  context: DdlContext,
  command: DropCommand,
  session: DdlSession,
): Promise<DdlResult> {
  // In order of their ids, as every router does: two drops of the same tables wait for one another and never in a ring.
  const tables = [...command.tables].sort((a, b) => a.id - b.id);
  const options = { session, cascade: command.cascade };
  await withConnection(context, context.homeNodeId, (catalog) =>
    withConnection(context, context.homeNodeId, async (home) => {
      await lockTables(catalog, tables);
      const others = await openTransactions(context);
      let marked = false;
      try {
        await home.query('BEGIN');
        // Nobody joins the table's group while it may go with its last table.
        await home.query(`SELECT ${PLACEMENT_LOCK}`);
        for (const connection of [home, ...others]) {
          // The youngest first: a table is younger than those that it references.
          for (const table of tables.toReversed()) await dropRecorded(connection, table.id, options);
        }
        context.afterStep?.('dropped, not committed');
        await markDropping(catalog, tables);
        marked = true;
        context.afterStep?.('dropping');
        for (const connection of others) {
          await connection.query('COMMIT');
          context.afterStep?.(`dropped on ${connection.nodeName}`);
        }
        for (const table of tables) await deleteRow(home, table.id);
        await home.query('COMMIT');
        context.afterStep?.('dropped');
      } catch (error) {
        await all([home, ...others].map((connection) => connection.rollback()));
        // Past the point of no return: the table is gone for all routers, and a sweep takes away what is left of it.
        if (marked) throw outcomeUnknown(home.nodeName);
        throw inTableNames(error);
      } finally {
        await all(others.map((connection) => connection.close()));
      }
    }),
  );
  await context.refresh().catch(() => undefined);
  return { notices: [] };
}

/** Tells that this router is at work on the tables (SPEC.md, 5), and that they are still there. */
async function lockTables(catalog: ControlConnection, tables: DropCommand['tables']): Promise<void> {
  for (const table of tables) {
    await catalog.query(`SELECT pg_advisory_lock(${TABLE_LOCK_KEY})`, [table.id]);
    const rows = await catalog.query(
      `SELECT FROM ${INTERNAL_SCHEMA}.tables WHERE table_id = $1 AND state = 'ready'`,
      [table.id],
    );
    if (rows.length === 0) throw noSuchTable(table.name);
  }
}

async function markDropping(catalog: ControlConnection, tables: DropCommand['tables']): Promise<void> {
  const ids = tables.map((table) => table.id);
  await catalog.transaction(async () => {
    await catalog.query(
      `UPDATE ${INTERNAL_SCHEMA}.tables SET state = 'dropping' WHERE table_id = ANY ($1::int4[])`,
      [ids],
    );
    await bumpEpoch(catalog);
  });
}

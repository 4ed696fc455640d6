/** A reference table becomes a plain table of home again: its copies go, and with them the guard (SPEC.md, Leave). */
import { GUARD_TRIGGER } from '../../catalog/reference-guard.ts';
import { INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import type { DdlContext } from '../../ddl/context.ts';
import { type DoorTable, lockDoorTable } from '../../ddl/door-table.ts';
import { inOneCommit } from '../../ddl/one-commit.ts';
import { dropRecorded } from '../../ddl/recorded.ts';
import { deleteRow } from '../../ddl/sweep.ts';
import { quoteQualified } from '../../pg/identifier.ts';
import { ServerError } from '../../platform/control-connection.ts';

/** The client's right to do so has been checked. */
export async function unshardReferenceTable(context: DdlContext, table: DoorTable): Promise<void> {
  const name = quoteQualified(table.schema, table.name);
  await inOneCommit(context, {
    lock: async (connection, isHome) => {
      if (isHome) await lockDoorTable(connection, table);
      await connection.query(`LOCK TABLE ${name} IN ACCESS EXCLUSIVE MODE`);
    },
    work: async (home, others) => {
      for (const connection of others) {
        await dropRecorded(connection, table.id, { cascade: false }).catch((error: unknown) => {
          if (!(error instanceof ServerError)) throw error;
          throw error.withHint(
            `This comes from node "${connection.nodeName}": bring back the tables that reference it first.`,
          );
        });
      }
      await home.query(`DROP TRIGGER ${GUARD_TRIGGER} ON ${name}`);
      await home.query(`DELETE FROM ${INTERNAL_SCHEMA}.local_tables WHERE table_id = $1`, [table.id]);
      await deleteRow(home, table.id);
      context.afterStep?.('unsharded, not committed');
    },
  });
}

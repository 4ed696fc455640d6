/** A table with a door that a client names, found on home, and whether it may be changed by that client. */
import { objectError } from '../base/errors.ts';
import { INTERNAL_SCHEMA, TABLE_LOCK_KEY } from '../catalog/schema.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import {
  asAdmin,
  asClient,
  type DdlContext,
  type DdlSession,
  noSuchTable,
  withConnection,
} from './context.ts';

export interface DoorTable {
  readonly id: number;
  readonly door: 'sharded' | 'reference';
  readonly schema: string;
  readonly name: string;
  readonly owner: string;
  readonly colocationId: number | null;
}

/** 42P01, 42501, or 42809 for a table without a door. */
export async function findDoorTable(
  context: DdlContext,
  relation: string,
  session: DdlSession,
): Promise<DoorTable> {
  return await withConnection(context, context.homeNodeId, (home) =>
    home.transaction(async () => {
      await asClient(home, session);
      const [named] = await home.query<{ oid: number | null }>(
        'SELECT pg_catalog.to_regclass($1)::oid AS oid',
        [relation],
      );
      await asAdmin(home);
      if (!named?.oid) throw noSuchTable(relation);
      const [table] = await home.query<Omit<DoorTable, 'id'> & { id: number | null; mayOwn: boolean }>(
        `SELECT t.table_id AS id, t.door, n.nspname AS schema, c.relname AS name, pg_get_userbyid(c.relowner) AS owner,
           t.colocation_id AS "colocationId", pg_has_role($2::name, c.relowner, 'USAGE') AS "mayOwn"
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN ${INTERNAL_SCHEMA}.local_tables f ON f.face = c.oid
         LEFT JOIN ${INTERNAL_SCHEMA}.tables t ON t.table_id = f.table_id AND t.state = 'ready' WHERE c.oid = $1`,
        [named.oid, session.role],
      );
      if (!table) throw noSuchTable(relation);
      if (!table.mayOwn) throw objectError('42501', `must be owner of table ${table.name}`);
      if (table.id === null) throw objectError('42809', `table "${table.name}" has no door`);
      return { ...table, id: table.id };
    }),
  );
}

/** For the transaction on home: nobody drops the table meanwhile. 42P01 if somebody has. */
export async function lockDoorTable(
  home: ControlConnection,
  table: { readonly id: number; readonly name: string },
): Promise<void> {
  await home.query(`SELECT pg_advisory_xact_lock(${TABLE_LOCK_KEY})`, [table.id]);
  const rows = await home.query(
    `SELECT FROM ${INTERNAL_SCHEMA}.tables WHERE table_id = $1 AND state = 'ready'`,
    [table.id],
  );
  if (rows.length === 0) throw noSuchTable(table.name);
}

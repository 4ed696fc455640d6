/**
 * One node's copy of a reference table: made after the table of the home node, filled with its rows, guarded and recorded, in
 * one transaction of that node (the caller's).
 *
 * Invariant: nothing here runs a user's functions (ddl/users-code.ts), and all that names the table runs with its owner's role.
 */
import { guardSql } from '../../catalog/reference-guard.ts';
import { INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import { asAdmin, asClient } from '../../ddl/context.ts';
import type { Prepared } from '../../ddl/make.ts';
import { ROW_COPY_SETTINGS, ROW_COPY_TIMEOUT_MS } from '../../ddl/row-copy.ts';
import { refuseUsersCodeOf } from '../../ddl/users-code.ts';
import { quoteIdentifier, quoteQualified } from '../../pg/identifier.ts';
import type { ControlConnection } from '../../platform/control-connection.ts';
import { copyRows } from '../../platform/copy-rows.ts';

/** A table of the home node, of which copies are made; `role` is its owner. */
export interface CopiedTable extends Prepared {
  /** They make it, with qualified names. */
  readonly statements: readonly string[];
  /** Those that a row is copied by. */
  readonly columns: readonly string[];
}

/** The home connection reads rows for one node at a time. */
export type InTurn = <T>(work: () => Promise<T>) => Promise<T>;

export function oneAtATime(): InTurn {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const result = last.then(work);
    last = result.catch(() => undefined);
    return result;
  };
}

/** `home` has a transaction open that keeps the rows as they are. */
export async function makeCopy(request: {
  readonly home: ControlConnection;
  readonly connection: ControlConnection;
  readonly table: CopiedTable;
  readonly tableId: number;
  readonly inTurn: InTurn;
}): Promise<void> {
  const { home, connection, table, tableId, inTurn } = request;
  const name = quoteQualified(table.schema, table.name);
  const columns = table.columns.map(quoteIdentifier).join(', ');
  const owner = { role: table.role, searchPath: 'pg_catalog' };
  await connection.query(ROW_COPY_SETTINGS);
  await asClient(connection, owner);
  for (const statement of table.statements) await connection.query(statement);
  await asAdmin(connection);
  // A type of the same name may be another one here.
  await refuseUsersCodeOf(connection, name, { hasRows: true });
  await asClient(connection, owner);
  await inTurn(async () => {
    await home.query(ROW_COPY_SETTINGS);
    await asClient(home, owner);
    await copyRows({
      source: home,
      sourceText: `COPY (SELECT ${columns} FROM ${name}) TO STDOUT`,
      target: connection,
      targetText: `COPY ${name} (${columns}) FROM STDIN`,
      timeoutMs: ROW_COPY_TIMEOUT_MS,
    });
    await asAdmin(home);
  });
  await asAdmin(connection);
  await guardAndRecord(connection, table, tableId, undefined);
}

/** `nodeIds`: on home, the nodes that have a copy. */
export async function guardAndRecord(
  connection: ControlConnection,
  table: Prepared,
  tableId: number,
  nodeIds: readonly number[] | undefined,
): Promise<void> {
  const name = quoteQualified(table.schema, table.name);
  await asClient(connection, { role: table.role, searchPath: 'pg_catalog' });
  await connection.query(guardSql(name, nodeIds));
  await asAdmin(connection);
  await connection.query(
    `INSERT INTO ${INTERNAL_SCHEMA}.local_tables (table_id, face) VALUES ($1, $2::regclass)
     ON CONFLICT DO NOTHING`,
    [tableId, name],
  );
}

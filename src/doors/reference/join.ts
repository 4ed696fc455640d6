/**
 * A node that has joined the cluster gets a copy of each reference table before a router serves with it (SPEC.md, A node joins).
 *
 * Invariant: while a copy is made nobody writes to the table, and from then on nobody who doesn't know of the new node.
 */
import { objectError } from '../../base/errors.ts';
import type { NodeInfo } from '../../catalog/map.ts';
import { bumpEpoch, INTERNAL_SCHEMA, PLACEMENT_LOCK } from '../../catalog/schema.ts';
import { type DdlContext, withConnection } from '../../ddl/context.ts';
import { readDefinition } from '../../ddl/definition.ts';
import { ensureSchema } from '../../ddl/make.ts';
import { dropRecorded, findRelation } from '../../ddl/recorded.ts';
import { refuseUsersCode } from '../../ddl/users-code.ts';
import { quoteQualified } from '../../pg/identifier.ts';
import type { ControlConnection } from '../../platform/control-connection.ts';
import { guardAndRecord, makeCopy, oneAtATime } from './copy.ts';

interface HomeTable {
  readonly id: number;
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly role: string;
  readonly schemaOwner: string;
  /** Ids of the nodes that have a copy, home among them. */
  readonly copies: readonly number[];
}

/**
 * Makes the copies that are missing, table by table, in order of their ids, so that a table comes after those that it
 * references. Says which.
 */
export async function completeReferenceTables(context: DdlContext): Promise<readonly string[]> {
  const made: string[] = [];
  await withConnection(context, context.homeNodeId, async (home) => {
    for (const { id, copies } of await readTables(home)) {
      if (missingNodes(context, copies).length > 0) made.push(...(await complete(context, home, id)));
    }
  });
  return made;
}

async function complete(
  context: DdlContext,
  home: ControlConnection,
  id: number,
): Promise<readonly string[]> {
  return await home.transaction(async () => {
    await home.query(`SELECT ${PLACEMENT_LOCK}`);
    // Under the lock: another router may have made them, or dropped the table.
    const table = (await readTables(home)).find((candidate) => candidate.id === id);
    const missing = table ? missingNodes(context, table.copies) : [];
    if (!table || missing.length === 0) return [];
    await home.query(`LOCK TABLE ${quoteQualified(table.schema, table.name)} IN SHARE ROW EXCLUSIVE MODE`);
    for (const node of missing) await copyTo(context, home, node, table);
    const copies = [...table.copies, ...missing.map((node) => node.id)];
    await guardAndRecord(home, table, id, copies);
    await home.query(`UPDATE ${INTERNAL_SCHEMA}.tables SET copies = $2 WHERE table_id = $1`, [id, copies]);
    await bumpEpoch(home);
    return missing.map((node) => `${table.schema}.${table.name} on ${node.name}`);
  });
}

function missingNodes(context: DdlContext, copies: readonly number[]): readonly NodeInfo[] {
  return context.nodes.filter((node) => !copies.includes(node.id));
}

async function readTables(home: ControlConnection): Promise<readonly HomeTable[]> {
  return await home.query<HomeTable>(
    `SELECT t.table_id AS id, c.oid, n.nspname AS schema, c.relname AS name, pg_get_userbyid(c.relowner) AS role,
       pg_get_userbyid(n.nspowner) AS "schemaOwner", t.copies
     FROM ${INTERNAL_SCHEMA}.tables t JOIN ${INTERNAL_SCHEMA}.local_tables f USING (table_id)
     JOIN pg_class c ON c.oid = f.face JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE t.door = 'reference' AND t.state = 'ready' ORDER BY t.table_id`,
  );
}

async function copyTo(
  context: DdlContext,
  home: ControlConnection,
  node: NodeInfo,
  table: HomeTable,
): Promise<void> {
  await refuseUsersCode(home, table, { hasRows: true });
  const { statements, columns } = await readDefinition(home, table, { door: 'reference' });
  await withConnection(context, node.id, (connection) =>
    connection.transaction(async () => {
      const { schema, name, role, schemaOwner } = table;
      // Of an attempt that did not come to its end; rows may have changed since.
      await dropRecorded(connection, table.id, { cascade: false });
      await ensureSchema(connection, { schema, owner: schemaOwner, role });
      if (await findRelation(connection, schema, name)) {
        throw objectError(
          '42P07',
          `node "${node.name}" has a table "${schema}.${name}" already, and the cluster a reference table of that name`,
          'Rename or drop it there, connected to that node directly, and start the router again.',
        );
      }
      const request = { home, connection, tableId: table.id, inTurn: oneAtATime() };
      await makeCopy({ ...request, table: { ...table, statements, columns } });
    }),
  );
}

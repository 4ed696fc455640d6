/**
 * CREATE TABLE … WITH (postern.door = 'reference'), and create_reference_table for a table that is there: SPEC.md.
 *
 * On the home node the table is the one that the client makes, or has. The others get a copy by what PostgreSQL's own catalog
 * there says of it, whoever wrote the statement and however.
 */
import { assert } from '../../base/assert.ts';
import { notSupported, objectError } from '../../base/errors.ts';
import { INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import {
  asAdmin,
  asClient,
  type DdlContext,
  type DdlResult,
  type DdlSession,
  noSuchTable,
} from '../../ddl/context.ts';
import { readDefinition } from '../../ddl/definition.ts';
import { currentSchema, makeTable, type NewTable } from '../../ddl/make.ts';
import { findRelation } from '../../ddl/recorded.ts';
import { refuseUsersCode } from '../../ddl/users-code.ts';
import { quoteQualified } from '../../pg/identifier.ts';
import type { RouterCommand } from '../../plan/plan.ts';
import type { ControlConnection } from '../../platform/control-connection.ts';
import { type CopiedTable, guardAndRecord, makeCopy, oneAtATime } from './copy.ts';

type CreateCommand = Extract<RouterCommand, { kind: 'createReferenceTable' }>;
type ConvertCommand = Extract<RouterCommand, { kind: 'makeReferenceTable' }>;

export async function createReferenceTable(
  context: DdlContext,
  command: CreateCommand,
  session: DdlSession,
): Promise<DdlResult> {
  const made = await make(context, command.name, async (home) => {
    const schema = command.schema ?? (await currentSchema(home, session));
    if (schema === undefined) throw objectError('3F000', 'no schema has been selected to create in');
    if (command.ifNotExists && (await findRelation(home, schema, command.name))) return undefined;
    await asClient(home, session);
    await home.query(command.createText);
    await asAdmin(home);
    const found = await findRelation(home, schema, command.name);
    assert(found, 'the table that was just made is in its schema');
    return await lockAndCheck(home, found.oid, session);
  });
  if (made) return { notices: [] };
  return { notices: [{ sqlState: '42P07', message: `relation "${command.name}" already exists, skipping` }] };
}

/** A plain table of the home node, with its rows. */
export async function makeReferenceTable(
  context: DdlContext,
  { relation }: ConvertCommand,
  session: DdlSession,
): Promise<DdlResult> {
  await make(context, relation, async (home) => {
    await asClient(home, session);
    const named = await home.query<{ oid: number | null }>('SELECT pg_catalog.to_regclass($1)::oid AS oid', [
      relation,
    ]);
    await asAdmin(home);
    const oid = named[0]?.oid;
    if (oid === null || oid === undefined) throw noSuchTable(relation);
    return await lockAndCheck(home, oid, session);
  });
  return { notices: [] };
}

async function make(
  context: DdlContext,
  name: string,
  find: (home: ControlConnection) => Promise<CopiedTable | undefined>,
): Promise<boolean> {
  const nodeIds = context.nodes.map((node) => node.id);
  const inTurn = oneAtATime();
  return await makeTable<CopiedTable>(context, {
    name,
    prepare: async (home) => {
      await refuseUnknownNodes(home, nodeIds);
      return await find(home);
    },
    makeOn: ({ connection, home }, made) =>
      makeCopy({ home, connection, table: made, tableId: made.table.id, inTurn }),
    finish: async (home, made) => {
      await guardAndRecord(home, made, made.table.id, nodeIds);
      await markReady(home, made, nodeIds);
    },
  });
}

/** A node that has joined would have no copy, and its routers would look for one there. */
async function refuseUnknownNodes(home: ControlConnection, nodeIds: readonly number[]): Promise<void> {
  const unknown = await home.query<{ name: string }>(
    `SELECT node_name AS name FROM ${INTERNAL_SCHEMA}.nodes WHERE node_id <> ALL ($1::int4[]) ORDER BY node_id`,
    [nodeIds],
  );
  const [first] = unknown;
  if (!first) return;
  throw objectError(
    '55000',
    `this router does not know node "${first.name}", which has joined the cluster`,
    'Restart the router with the configuration that has all nodes: a reference table is on each of them.',
  );
}

/** The lock keeps the rows as they are until the table is ready, and is held by then. */
async function lockAndCheck(home: ControlConnection, oid: number, session: DdlSession): Promise<CopiedTable> {
  const rows = await home.query<{
    oid: number;
    schema: string;
    name: string;
    role: string;
    kind: string;
    mayOwn: boolean;
    door: string | null;
    systemSchema: boolean;
  }>(
    `SELECT c.oid, n.nspname AS schema, c.relname AS name, pg_get_userbyid(c.relowner) AS role,
       c.relkind::text || c.relpersistence::text AS kind, pg_has_role($2::name, c.relowner, 'USAGE') AS "mayOwn",
       t.door, n.nspname ~ '^(pg_|information_schema$|postern)' AS "systemSchema"
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN ${INTERNAL_SCHEMA}.local_tables f ON f.face = c.oid LEFT JOIN ${INTERNAL_SCHEMA}.tables t USING (table_id)
     WHERE c.oid = $1`,
    [oid, session.role],
  );
  const table = rows[0];
  if (!table) throw noSuchTable(String(oid));
  if (!table.mayOwn) throw objectError('42501', `must be owner of table ${table.name}`);
  if (table.door !== null) throw objectError('42P16', `table "${table.name}" has a door already`);
  if (table.systemSchema) {
    throw notSupported(
      `a reference table cannot be in schema "${table.schema}"`,
      'Name another schema, or put one first in search_path.',
    );
  }
  if (table.kind !== 'rp') {
    throw objectError(
      '42809',
      `"${table.name}" is not an ordinary table`,
      'Only ordinary, permanent tables can be reference tables.',
    );
  }
  await home.query(`LOCK TABLE ${quoteQualified(table.schema, table.name)} IN ACCESS EXCLUSIVE MODE`);
  // Whether it has rows is not looked at: a copy is made for a node that joins later, too.
  await refuseUsersCode(home, table, { hasRows: true });
  const definition = await readDefinition(home, table, { door: 'reference' });
  const { schema, name, role } = table;
  return { schema, name, role, statements: definition.statements, columns: definition.columns };
}

async function markReady(
  home: ControlConnection,
  { schema, name, table }: CopiedTable & { readonly table: NewTable },
  nodeIds: readonly number[],
): Promise<void> {
  const ready = await home.query(
    `UPDATE ${INTERNAL_SCHEMA}.tables SET state = 'ready', door = 'reference', table_schema = $2, table_name = $3,
       copies = $4
     WHERE table_id = $1 AND state = 'creating' RETURNING table_id`,
    [table.id, schema, name, nodeIds],
  );
  assert(ready.length === 1, 'a row whose lock is held stays as it is');
}

/** create_distributed_table: a plain table of the home node becomes a sharded one, with its rows. */
import { objectError } from '../../base/errors.ts';
import { readCoalescing } from '../../catalog/coalescing.ts';
import { LEAF_SCHEMA } from '../../catalog/map.ts';
import type { PartitionStrategy } from '../../catalog/placement-sql.ts';
import { INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import {
  asAdmin,
  asClient,
  type DdlContext,
  type DdlResult,
  type DdlSession,
  noSuchTable,
} from '../../ddl/context.ts';
import { type PlainTable, readDefinition } from '../../ddl/definition.ts';
import { refuseUsersCode } from '../../ddl/users-code.ts';
import { quoteIdentifier, quoteQualified } from '../../pg/identifier.ts';
import type { RouterCommand } from '../../plan/plan.ts';
import { type ControlConnection, ServerError } from '../../platform/control-connection.ts';
import { readSequences } from './face.ts';
import { makeShardedTable, mergesOf, type PreparedDefinition } from './make.ts';
import { readReferencing } from './referencing.ts';

type DistributeCommand = Extract<RouterCommand, { kind: 'distributeTable' }>;

export async function distributeTable(
  context: DdlContext,
  command: DistributeCommand,
  session: DdlSession,
): Promise<DdlResult> {
  const request = {
    name: command.relation,
    placement: command.placement,
    nodes: command.nodes,
    colocateWith: command.colocateWith,
  };
  await makeShardedTable(context, session, request, (home, strategy) =>
    prepare(home, { ...command, strategy }, session),
  );
  return { notices: [] };
}

/** Puts the plain table aside, so that its names are free for the face. It is dropped when its rows have moved. */
async function prepare(
  home: ControlConnection,
  command: DistributeCommand & { readonly strategy: PartitionStrategy },
  session: DdlSession,
): Promise<PreparedDefinition> {
  const table = await lockTable(home, command, session);
  const name = quoteQualified(table.schema, table.name);
  const sequences = await readSequences(home, table.oid);
  const definition = await readDefinition(home, table, {
    door: 'sharded',
    keyColumn: command.key,
    strategy: command.strategy,
    sequences: sequences.map((column) => column.name),
  });
  // Nobody's policy is asked in what follows, and its owner reads all of its rows.
  await home.query(`ALTER TABLE ${name} NO FORCE ROW LEVEL SECURITY`);
  const found = await home.query<{ filled: boolean }>(`SELECT EXISTS (SELECT FROM ${name}) AS filled`);
  await refuseUsersCode(home, table, { hasRows: found[0]?.filled === true });
  const referencing = await readReferencing(home, table);
  await asClient(home, { role: session.role, searchPath: 'pg_catalog' });
  for (const statement of referencing.drop) await home.query(statement);
  await asAdmin(home);
  await tryDrop(home, name);
  // Extended statistics keep their schema when their table moves, and their names would not be free.
  for (const statistics of definition.statistics) await home.query(`DROP STATISTICS ${statistics}`);
  await home.query(`ALTER TABLE ${name} SET SCHEMA ${LEAF_SCHEMA}`);
  const aside = quoteQualified(LEAF_SCHEMA, `aside_${table.oid}`);
  await home.query(
    `ALTER TABLE ${quoteQualified(LEAF_SCHEMA, table.name)} RENAME TO ${quoteIdentifier(`aside_${table.oid}`)}`,
  );
  return {
    schema: table.schema,
    name: table.name,
    statements: definition.statements,
    sequences,
    storage: definition.storage,
    // The table keeps its owner, whoever shards it; all names in the statements are qualified.
    makeAs: { role: table.owner, searchPath: 'pg_catalog' },
    thenOnHome: referencing.add,
    replaces: { table: aside, columns: found[0]?.filled ? definition.columns : undefined },
    uniques: definition.uniques,
    merges: command.coalesce ? mergesOf(command.coalesce) : await readCoalescing(home, table.oid),
  };
}

async function lockTable(
  home: ControlConnection,
  command: DistributeCommand,
  session: DdlSession,
): Promise<PlainTable & { owner: string }> {
  await asClient(home, session);
  const named = await home.query<{ oid: number | null }>('SELECT pg_catalog.to_regclass($1)::oid AS oid', [
    command.relation,
  ]);
  await asAdmin(home);
  const oid = named[0]?.oid;
  if (oid === null || oid === undefined) throw noSuchTable(command.relation);
  const rows = await home.query<
    PlainTable & {
      owner: string;
      kind: string;
      mayOwn: boolean;
      tableId: number | null;
      systemSchema: boolean;
    }
  >(
    `SELECT c.oid, n.nspname AS schema, c.relname AS name, pg_get_userbyid(c.relowner) AS owner,
       c.relkind::text || c.relpersistence::text AS kind, pg_has_role($2::name, c.relowner, 'USAGE') AS "mayOwn",
       f.table_id AS "tableId", n.nspname ~ '^(pg_|information_schema$|postern)' AS "systemSchema"
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN ${INTERNAL_SCHEMA}.local_tables f ON f.face = c.oid WHERE c.oid = $1`,
    [oid, session.role],
  );
  const table = rows[0];
  if (!table) throw noSuchTable(command.relation);
  if (!table.mayOwn) throw objectError('42501', `must be owner of table ${table.name}`);
  if (table.tableId !== null) throw objectError('42P16', `table "${table.name}" has a door already`);
  if (table.kind !== 'rp' || table.systemSchema) {
    throw objectError(
      '42809',
      `"${table.name}" is not an ordinary table`,
      'Only ordinary, permanent tables can be sharded.',
    );
  }
  await home.query(`LOCK TABLE ${quoteQualified(table.schema, table.name)} IN ACCESS EXCLUSIVE MODE`);
  const columns = await home.query(
    'SELECT FROM pg_attribute WHERE attrelid = $1 AND attname = $2 AND attnum > 0 AND NOT attisdropped',
    [oid, command.key],
  );
  if (columns.length === 0) {
    throw objectError('42703', `column "${command.key}" of relation "${table.name}" does not exist`);
  }
  return table;
}

/** What depends on the table is told before anything long is begun. */
async function tryDrop(home: ControlConnection, name: string): Promise<void> {
  await home.query('SAVEPOINT before_drop');
  try {
    await home.query(`DROP TABLE ${name}`);
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    throw error.withHint('Drop what depends on the table, shard it, and make it again.');
  }
  await home.query('ROLLBACK TO SAVEPOINT before_drop');
}

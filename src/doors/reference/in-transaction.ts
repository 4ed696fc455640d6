/**
 * CREATE TABLE … WITH (postern.door = 'reference'), and create_reference_table of a table without rows, inside the client's
 * transaction: what create.ts and copy.ts do, on the transaction's own branches (src/ddl/SPEC.md).
 */
import { assert } from '../../base/assert.ts';
import { notSupported } from '../../base/errors.ts';
import { guardSql } from '../../catalog/reference-guard.ts';
import { INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import type { DdlResult } from '../../ddl/context.ts';
import { readDefinition } from '../../ddl/definition.ts';
import {
  ensureSchemaInTransaction,
  findOid,
  type LockedTable,
  lockPlainTable,
  schemaOfNewTable,
} from '../../ddl/in-transaction.ts';
import { type DdlBranch, type DdlWorld, naming, settledAll } from '../../ddl/world.ts';
import { quoteQualified } from '../../pg/identifier.ts';
import type { RouterCommand } from '../../plan/plan.ts';

type CreateCommand = Extract<RouterCommand, { kind: 'createReferenceTable' }>;
type ConvertCommand = Extract<RouterCommand, { kind: 'makeReferenceTable' }>;

export async function createReferenceInTransaction(
  world: DdlWorld,
  command: CreateCommand,
): Promise<DdlResult> {
  const schema = await schemaOfNewTable(world, command.schema);
  const { name } = command;
  const { home, session } = world;
  if (command.ifNotExists && (await findOid(home, schema, name)) !== undefined)
    return { notices: [{ sqlState: '42P07', message: `relation "${name}" already exists, skipping` }] };
  await home.run([command.createText]);
  const oid = await findOid(home, schema, name);
  assert(oid !== undefined, 'the table that was just made is in its schema');
  await make(world, { oid, schema, name, owner: session.role, filled: false });
  return { notices: [] };
}

export async function makeReferenceInTransaction(
  world: DdlWorld,
  { relation }: ConvertCommand,
): Promise<DdlResult> {
  await make(world, await lockPlainTable(world, relation, 'reference'));
  return { notices: [] };
}

async function make(world: DdlWorld, table: LockedTable): Promise<void> {
  const { home, others, services, session, nodes } = world;
  const { schema, name, owner, filled } = table;
  if (owner !== session.role) {
    throw notSupported(
      `table "${name}" can be made a reference table inside a transaction by its owner alone`,
      `SET ROLE "${owner}" first, or send it outside of the transaction.`,
    );
  }
  if (filled) {
    throw notSupported(
      `table "${name}" has rows, and cannot be made a reference table inside a transaction`,
      'Send it outside of the transaction, or before rows are inserted.',
    );
  }
  const { statements } = await readDefinition(home, table, { door: 'reference', catalog: home.postern });
  const { id, generation } = await services.reserveTable();
  const nodeIds = nodes.map((node) => node.id);
  await guardAndRecord(home, table, id, nodeIds);
  await settledAll(
    others.map((branch) =>
      naming(branch, async () => {
        await ensureSchemaInTransaction(world, branch, schema);
        await branch.run(statements, 'pg_catalog');
        await guardAndRecord(branch, table, id, undefined);
      }),
    ),
  );
  await home.signed(
    `INSERT INTO ${INTERNAL_SCHEMA}.tables (table_id, state, generation, door, table_schema, table_name, copies)
     OVERRIDING SYSTEM VALUE VALUES ($1, 'ready', $2, 'reference', $3, $4, $5)`,
    [id, generation, schema, name, nodeIds],
  );
  world.noteCatalogChange();
}

/** `nodeIds`: on home, the nodes that have a copy. */
async function guardAndRecord(
  branch: DdlBranch,
  { schema, name }: LockedTable,
  tableId: number,
  nodeIds: readonly number[] | undefined,
): Promise<void> {
  const quoted = quoteQualified(schema, name);
  await branch.run([guardSql(quoted, nodeIds)], 'pg_catalog');
  await branch.signed(
    `INSERT INTO ${INTERNAL_SCHEMA}.local_tables (table_id, face) VALUES ($1, $2::regclass)`,
    [tableId, quoted],
  );
}

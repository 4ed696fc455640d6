/**
 * postern.distribute_schema and undistribute_schema: all tables of a schema move to one node, with their rows, and live there whole
 * under their own names; and back (SPEC.md).
 *
 * Invariant: the tables are gone on one side and there on the other in one commit; whoever still looks for them where they were
 * finds no table (42P01), and writes nothing.
 */
import { invalidParameter, notSupported, objectError } from '../../base/errors.ts';
import type { NodeInfo } from '../../catalog/map.ts';
import { bumpEpoch, INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import {
  asAdmin,
  asClient,
  type DdlContext,
  type DdlSession,
  homeNode,
  withConnection,
} from '../../ddl/context.ts';
import { ensureSchema } from '../../ddl/make.ts';
import { inOneCommit } from '../../ddl/one-commit.ts';
import { ROW_COPY_TIMEOUT_MS } from '../../ddl/row-copy.ts';
import { refuseUsersCodeOf } from '../../ddl/users-code.ts';
import { quoteIdentifier } from '../../pg/identifier.ts';
import type { ControlConnection } from '../../platform/control-connection.ts';
import { copyRows } from '../../platform/copy-rows.ts';
import { readContents, type SchemaContents } from './contents.ts';
import { readSchemaFacts, storeSchemaFacts } from './relations.ts';

interface FoundSchema {
  readonly name: string;
  readonly owner: string;
  /** Of the node that it lives on; null: it is not distributed. */
  readonly nodeId: number | null;
}

export async function distributeSchema(
  context: DdlContext,
  request: { readonly schema: string; readonly node: string | undefined },
  session: DdlSession,
): Promise<void> {
  const schema = await findSchema(context, request.schema, session);
  if (schema.nodeId !== null) {
    const node = context.nodes.find(({ id }) => id === schema.nodeId);
    throw objectError('42710', `schema "${schema.name}" lives on node "${node?.name}" already`);
  }
  const target = await chooseNode(context, request.node);
  await transfer(context, schema, { from: homeNode(context), to: target }, async (home, there) => {
    await home.query(`INSERT INTO ${INTERNAL_SCHEMA}.schemas (schema_name, node_id) VALUES ($1, $2)`, [
      ...[schema.name, target.id],
    ]);
    await storeSchemaFacts(home, schema.name, await readSchemaFacts(there, schema.name));
  });
}

export async function undistributeSchema(
  context: DdlContext,
  request: { readonly schema: string },
  session: DdlSession,
): Promise<void> {
  const schema = await findSchema(context, request.schema, session);
  const source = context.nodes.find(({ id }) => id === schema.nodeId);
  if (!source) throw objectError('42704', `schema "${schema.name}" is not distributed`);
  await transfer(context, schema, { from: source, to: homeNode(context) }, async (home) => {
    await home.query(`DELETE FROM ${INTERNAL_SCHEMA}.schemas WHERE schema_name = $1`, [schema.name]);
  });
}

async function findSchema(context: DdlContext, name: string, session: DdlSession): Promise<FoundSchema> {
  return await withConnection(context, context.homeNodeId, async (home) => {
    const [schema] = await home.query<FoundSchema & { mayOwn: boolean }>(
      `SELECT n.nspname AS name, pg_get_userbyid(n.nspowner) AS owner, s.node_id AS "nodeId",
         pg_has_role($2::name, n.nspowner, 'USAGE') AS "mayOwn"
       FROM pg_namespace n LEFT JOIN ${INTERNAL_SCHEMA}.schemas s ON s.schema_name = n.nspname WHERE n.nspname = $1`,
      [name, session.role],
    );
    if (!schema) throw objectError('3F000', `schema "${name}" does not exist`);
    if (!schema.mayOwn) throw objectError('42501', `must be owner of schema ${name}`);
    if (/^(pg_|postern|information_schema$|public$)/.test(name))
      throw notSupported(`schema "${name}" cannot be distributed`, 'Use a schema of the tenant alone.');
    return schema;
  });
}

/** The node named, or the one with the fewest schemas. */
async function chooseNode(context: DdlContext, name: string | undefined): Promise<NodeInfo> {
  if (name !== undefined) {
    const node = context.nodes.find((one) => one.name === name);
    if (node) return node;
    throw invalidParameter(
      `there is no node "${name}"`,
      `The nodes are ${context.nodes.map((one) => one.name).join(', ')}.`,
    );
  }
  return await withConnection(context, context.homeNodeId, async (home) => {
    const [row] = await home.query<{ id: number }>(
      `SELECT n.node_id AS id FROM ${INTERNAL_SCHEMA}.nodes n LEFT JOIN ${INTERNAL_SCHEMA}.schemas s USING (node_id)
       GROUP BY 1 ORDER BY count(s.schema_name), 1 LIMIT 1`,
    );
    return context.nodes.find(({ id }) => id === row?.id) ?? homeNode(context);
  });
}

async function transfer(
  context: DdlContext,
  schema: FoundSchema,
  way: { readonly from: NodeInfo; readonly to: NodeInfo },
  record: (home: ControlConnection, there: ControlConnection) => Promise<void>,
): Promise<void> {
  const { from, to } = way;
  const others = [from, to].filter(({ id }) => id !== context.homeNodeId);
  await inOneCommit(context, {
    others: others.slice(0, 1),
    lock: async (connection) => {
      if (connection.nodeName !== from.name) return;
      const tables = await connection.query<{ name: string }>(
        `SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') ORDER BY c.relname`,
        [schema.name],
      );
      if (tables.length > 0)
        await connection.query(
          `LOCK TABLE ${tables.map(({ name }) => name).join(', ')} IN ACCESS EXCLUSIVE MODE`,
        );
    },
    work: async (home, [other]) => {
      const at = (node: NodeInfo) => (node.id === context.homeNodeId || !other ? home : other);
      if (from.id !== to.id) await move(at(from), at(to), schema);
      await record(home, at(to));
      await bumpEpoch(home);
      context.afterStep?.('schema moved, not committed');
    },
  });
}

async function move(from: ControlConnection, to: ControlConnection, schema: FoundSchema): Promise<void> {
  const [found] = await from.query<{ oid: number }>('SELECT oid FROM pg_namespace WHERE nspname = $1', [
    schema.name,
  ]);
  const contents = found ? await readContents(from, found.oid) : { tables: [], sequences: [] };
  await ensureSchema(to, { schema: schema.name, owner: schema.owner, role: schema.owner });
  const there = await to.query<{ name: string }>(
    `SELECT c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 LIMIT 1`,
    [schema.name],
  );
  if (there[0])
    throw objectError(
      '42P07',
      `schema "${schema.name}" of node "${to.nodeName}" has a relation "${there[0].name}" already`,
      'Rename or drop it there, connected to that node directly.',
    );
  await makeThere(from, to, contents);
  const names = contents.tables.map(({ name }) => name);
  if (names.length > 0) await from.query(`DROP TABLE ${names.join(', ')}`);
  for (const { name, create } of contents.sequences)
    if (create !== undefined) await from.query(`DROP SEQUENCE IF EXISTS ${name}`);
}

async function makeThere(
  from: ControlConnection,
  to: ControlConnection,
  { tables, sequences }: SchemaContents,
): Promise<void> {
  const asOwner = (owner: string) => ({ role: owner, searchPath: 'pg_catalog' });
  const run = async (owner: string, statements: readonly string[]) => {
    await asClient(to, asOwner(owner));
    for (const statement of statements) await to.query(statement);
    await asAdmin(to);
  };
  for (const { owner, create } of sequences) if (create !== undefined) await run(owner, [create]);
  for (const table of tables) {
    const columns = table.columns.map(quoteIdentifier).join(', ');
    await refuseUsersCodeOf(from, table.name, { hasRows: true });
    await run(table.owner, [table.create]);
    // A type of the same name may be another one here.
    await refuseUsersCodeOf(to, table.name, { hasRows: true });
    await asClient(from, asOwner(table.owner));
    await asClient(to, asOwner(table.owner));
    await copyRows({
      ...{ source: from, sourceText: `COPY (SELECT ${columns} FROM ${table.name}) TO STDOUT` },
      ...{
        target: to,
        targetText: `COPY ${table.name} (${columns}) FROM STDIN`,
        timeoutMs: ROW_COPY_TIMEOUT_MS,
      },
    });
    await asAdmin(from);
    await asAdmin(to);
    await run(table.owner, table.extras);
  }
  for (const { owner, foreignKeys } of tables) await run(owner, foreignKeys);
  for (const { owner, extras, value } of sequences) await run(owner, [...extras, value]);
}

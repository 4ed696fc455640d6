/**
 * A sharded table becomes one plain table of home again, with all its rows, under its own name (SPEC.md, Unshard).
 *
 * Invariant: the leaves stay as they are, locked, until home and all nodes commit together; so there is never a moment in which
 * rows could be written that the plain table does not get.
 * Invariant: nothing here runs a user's functions (ddl/users-code.ts), and all that names the table runs with its owner's role.
 */
import { assert } from '../../base/assert.ts';
import { readCoalescing, storeCoalescing } from '../../catalog/coalescing.ts';
import { INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import { asAdmin, asClient, type DdlContext } from '../../ddl/context.ts';
import { type DoorTable, lockDoorTable } from '../../ddl/door-table.ts';
import { inOneCommit } from '../../ddl/one-commit.ts';
import { dropRecorded, findRelation, readRecorded } from '../../ddl/recorded.ts';
import { ROW_COPY_TIMEOUT_MS } from '../../ddl/row-copy.ts';
import { deleteRow } from '../../ddl/sweep.ts';
import { refuseUsersCodeOf } from '../../ddl/users-code.ts';
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../../pg/identifier.ts';
import { type ControlConnection, ServerError } from '../../platform/control-connection.ts';
import { copyRows } from '../../platform/copy-rows.ts';
import {
  asOwner,
  type LeafAt,
  type PlainDefinition,
  readPlainDefinition,
  type SequenceOfColumn,
} from './unshard-definition.ts';

/** The client's right to do so has been checked. */
export async function unshardTable(context: DdlContext, table: DoorTable): Promise<void> {
  await inOneCommit(context, {
    lock: async (connection, isHome) => {
      if (isHome) await lockDoorTable(connection, table);
      const recorded = await readRecorded(connection, table.id);
      if (recorded && recorded.leaves.length > 0)
        await connection.query(`LOCK TABLE ${recorded.leaves.join(', ')} IN ACCESS EXCLUSIVE MODE`);
    },
    work: async (home, others) => {
      await gather(home, others, table);
      context.afterStep?.('unsharded, not committed');
    },
  });
}

async function gather(
  home: ControlConnection,
  others: readonly ControlConnection[],
  table: DoorTable,
): Promise<void> {
  const { schema, name, owner } = table;
  const face = await findRelation(home, schema, name);
  assert(face, 'the face of a table that is ready is on home');
  const leaf = await someLeaf([home, ...others], table.id);
  const definition = await readPlainDefinition(home, { oid: face.oid, schema, name }, leaf);
  const merges = await readCoalescing(home, face.oid);
  const plain = quoteQualified(schema, `postern_plain_${table.id}`);
  await makeEmpty(home, { face: quoteQualified(schema, name), plain, owner, definition });
  for (const connection of [home, ...others])
    await moveRows(home, connection, { tableId: table.id, plain, owner, definition });
  for (const connection of [...others, home])
    await dropRecorded(connection, table.id, { cascade: false }).catch((error: unknown) => {
      if (!(error instanceof ServerError)) throw error;
      throw error.withHint('Drop what depends on the table, bring it back, and make it again.');
    });
  await finish(home, { table, plain, definition });
  const made = await findRelation(home, schema, name);
  assert(made, 'the table that was just made is in its schema');
  if (merges !== undefined) await storeCoalescing(home, made.oid, merges);
  await deleteRow(home, table.id);
}

/** One that has what leaves alone have: home's, if it has one. */
async function someLeaf(connections: readonly ControlConnection[], tableId: number): Promise<LeafAt> {
  for (const connection of connections) {
    const [row] = await connection.query<{ oid: number; bucket: number; generation: number }>(
      `SELECT leaf::oid AS oid, bucket, generation::int4 AS generation FROM ${INTERNAL_SCHEMA}.local_leaves
       WHERE table_id = $1 ORDER BY bucket LIMIT 1`,
      [tableId],
    );
    if (row) return { connection, ...row };
  }
  throw new Error('a sharded table has a leaf');
}

interface NewTable {
  readonly face: string;
  readonly plain: string;
  readonly owner: string;
  readonly definition: PlainDefinition;
}

/** Without indexes, which come when the rows are there and the face's names are free. */
async function makeEmpty(
  home: ControlConnection,
  { face, plain, owner, definition }: NewTable,
): Promise<void> {
  await asClient(home, asOwner(owner));
  // The face is closed to its owner too.
  await home.query(
    `GRANT SELECT ON ${face} TO ${quoteIdentifier(owner)}; LOCK TABLE ${face} IN ACCESS SHARE MODE`,
  );
  await asAdmin(home);
  await refuseUsersCodeOf(home, face, { hasRows: true });
  await asClient(home, asOwner(owner));
  const statements = [
    `CREATE TABLE ${plain} (LIKE ${face} INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS)${definition.storage}`,
  ];
  for (const { column, sequence, isIdentity } of definition.sequences)
    if (!isIdentity)
      statements.push(`ALTER SEQUENCE ${sequence} OWNED BY ${plain}.${quoteIdentifier(column)}`);
  await home.query(statements.join(';\n'));
  await asAdmin(home);
}

async function moveRows(
  home: ControlConnection,
  connection: ControlConnection,
  request: {
    readonly tableId: number;
    readonly plain: string;
    readonly owner: string;
    readonly definition: PlainDefinition;
  },
): Promise<void> {
  const { tableId, plain, owner, definition } = request;
  const columns = definition.columns.map(quoteIdentifier).join(', ');
  const leaves = await connection.query<{ name: string }>(
    `SELECT leaf::text AS name FROM ${INTERNAL_SCHEMA}.local_leaves WHERE table_id = $1 ORDER BY bucket`,
    [tableId],
  );
  await asClient(connection, asOwner(owner));
  if (connection !== home) await asClient(home, asOwner(owner));
  for (const { name: leaf } of leaves) {
    if (definition.forcesRowSecurity)
      await connection.query(`ALTER TABLE ${leaf} NO FORCE ROW LEVEL SECURITY`);
    if (connection === home) {
      await home.query(
        `INSERT INTO ${plain} (${columns}) OVERRIDING SYSTEM VALUE SELECT ${columns} FROM ${leaf}`,
      );
      continue;
    }
    await copyRows({
      source: connection,
      sourceText: `COPY (SELECT ${columns} FROM ${leaf}) TO STDOUT`,
      target: home,
      targetText: `COPY ${plain} (${columns}) FROM STDIN`,
      timeoutMs: ROW_COPY_TIMEOUT_MS,
    });
  }
  await asAdmin(connection);
  if (connection !== home) await asAdmin(home);
}

/** Face and leaves are gone: their names are free. */
async function finish(
  home: ControlConnection,
  request: { readonly table: DoorTable; readonly plain: string; readonly definition: PlainDefinition },
): Promise<void> {
  const { table, plain, definition } = request;
  const name = quoteQualified(table.schema, table.name);
  await asClient(home, asOwner(table.owner));
  await home.query(`ALTER TABLE ${plain} RENAME TO ${quoteIdentifier(table.name)}`);
  for (const sequence of definition.sequences) await takeOver(home, { name, table, sequence });
  for (const statement of definition.statements) await home.query(statement);
  await asAdmin(home);
}

/** The sequence goes on behind the greatest id, and behind all that it has given before. */
async function takeOver(
  home: ControlConnection,
  { name, table, sequence }: { name: string; table: DoorTable; sequence: SequenceOfColumn },
): Promise<void> {
  const { column, sequenceName, isIdentity, lastValue } = sequence;
  if (isIdentity) {
    const [made] = await home.query<{ name: string }>(
      `SELECT relname AS name FROM pg_class WHERE oid = pg_get_serial_sequence($1, $2)::regclass`,
      [name, column],
    );
    if (made && made.name !== sequenceName)
      await home.query(
        `ALTER SEQUENCE ${quoteQualified(table.schema, made.name)} RENAME TO ${quoteIdentifier(sequenceName)}`,
      );
  }
  const quoted = quoteIdentifier(column);
  await home.query(
    `SELECT setval(s.name, s.value) FROM (SELECT ${quoteLiteral(sequence.sequence)}::regclass AS name,
       greatest(${lastValue ?? 'NULL'}, (SELECT max(${quoted}) FROM ${name})) AS value) s
     WHERE s.value > coalesce(pg_sequence_last_value(s.name), 0)`,
  );
}

/**
 * CREATE TABLE with a door, and create_distributed_table of a table without rows, inside the client's transaction: the same face,
 * leaves and records as make.ts makes, on the transaction's own branches, so that they come and go with it (src/ddl/SPEC.md).
 *
 * Invariant: all that a user's text or name decides runs as the client; ids, generations and colocation groups, which are committed
 * before, are nobody else's or everybody's, and do no harm if the transaction is rolled back.
 */
import { assert } from '../../base/assert.ts';
import { notSupported, objectError, type PosternError } from '../../base/errors.ts';
import { readCoalescing, storeCoalescing } from '../../catalog/coalescing.ts';
import { noteNames } from '../../catalog/cut-names.ts';
import { addIdColumns } from '../../catalog/id-sequences.ts';
import { CATALOG_BUCKET, leafName, type ShardedTable } from '../../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import type { DdlResult } from '../../ddl/context.ts';
import { readDefinition } from '../../ddl/definition.ts';
import {
  ensureSchemaInTransaction,
  findOid,
  lockPlainTable,
  relationNamed,
  schemaOfNewTable,
} from '../../ddl/in-transaction.ts';
import { mayOwnLeaves } from '../../ddl/leaf-rights.ts';
import { type ChosenGroup, type DdlBranch, type DdlWorld, naming, settledAll } from '../../ddl/world.ts';
import { quoteIdentifier, quoteQualified } from '../../pg/identifier.ts';
import type { UniqueSpec } from '../../plan/lookups.ts';
import type { RouterCommand } from '../../plan/plan.ts';
import { ServerError } from '../../platform/control-connection.ts';
import { describeFace, readSequences, type SequenceColumn } from './face.ts';
import { type ForeignTargets, resolveForeignKeys } from './foreign-keys.ts';
import { readShardKey } from './key.ts';
import { closeFaceStatements, createLeafStatements, qualifiedLeaf } from './leaf.ts';
import { type MadeFace, withKeyHint } from './local.ts';
import { idColumnsOf, type MakeRequest, mergesOf } from './make.ts';
import { choosePlacement, strategyOf } from './placement.ts';
import { readReferencing } from './referencing.ts';

type CreateCommand = Extract<RouterCommand, { kind: 'createShardedTable' }>;
type DistributeCommand = Extract<RouterCommand, { kind: 'distributeTable' }>;

type MadeTable = Pick<ShardedTable, 'id' | 'schema' | 'name' | 'keyColumn' | 'buckets'>;

/** The table as it was made; undefined: IF NOT EXISTS, and it is there. */
export interface CreatedTable extends DdlResult {
  readonly made: MadeTable | undefined;
}

/** With what is to be made of its definition yet. */
export interface DistributedTable extends DdlResult {
  readonly made: MadeTable;
  readonly uniques: readonly UniqueSpec[];
}

export async function createShardedInTransaction(
  world: DdlWorld,
  command: CreateCommand,
): Promise<CreatedTable> {
  const schema = await schemaOfNewTable(world, command.schema);
  const { name } = command;
  if (command.ifNotExists && (await findOid(world.home, schema, name)) !== undefined)
    return {
      notices: [{ sqlState: '42P07', message: `relation "${name}" already exists, skipping` }],
      made: undefined,
    };
  const request = await qualified(world, command);
  const strategy = await strategyOf(world.home.postern, { ...request, searchPath: '' });
  // On a line of its own, in case the text ends in a comment.
  const createText = `${command.createText}\nPARTITION BY ${strategy} (${quoteIdentifier(command.key)})`;
  const { id, generation, nodeIds } = await make(world, request, {
    schema,
    name,
    statements: [createText],
    sequences: [],
    storage: new Map(),
    searchPath: undefined,
    merges: mergesOf(command.coalesce),
  });
  const buckets = nodeIds.map((nodeId) => ({ nodeId, generation }));
  return { notices: [], made: { id, schema, name, keyColumn: command.key, buckets } };
}

export async function distributeInTransaction(
  world: DdlWorld,
  command: DistributeCommand,
): Promise<DistributedTable> {
  const { home, session } = world;
  const table = await lockPlainTable(world, command.relation, 'sharded');
  const name = quoteQualified(table.schema, table.name);
  const columns = await home.query(
    'SELECT FROM pg_attribute WHERE attrelid = $1 AND attname = $2 AND attnum > 0 AND NOT attisdropped',
    [table.oid, command.key],
  );
  if (columns.length === 0)
    throw objectError('42703', `column "${command.key}" of relation "${table.name}" does not exist`);
  if (table.owner !== session.role) throw notItsOwner(table);
  if (table.filled) throw hasRows(table.name);
  const request = await qualified(world, { ...command, name: table.name });
  const strategy = await strategyOf(home.postern, { ...request, searchPath: '' });
  const sequences = await readSequences(home, table.oid);
  const { statements, storage, uniques } = await readDefinition(home, table, {
    door: 'sharded',
    keyColumn: command.key,
    strategy,
    sequences: sequences.map((column) => column.name),
    catalog: home.postern,
  });
  const merges = command.coalesce
    ? mergesOf(command.coalesce)
    : await readCoalescing(home.postern, table.oid);
  const referencing = await readReferencing(home, table);
  try {
    await home.run([...referencing.drop, `DROP TABLE ${name}`], 'pg_catalog');
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    throw error.withHint('Drop what depends on the table, shard it, and make it again.');
  }
  const { schema } = table;
  const { id, generation, nodeIds } = await make(world, request, {
    ...{ schema, name: table.name, statements, sequences, storage, merges },
    ...{ searchPath: 'pg_catalog', thenOnHome: referencing.add },
  });
  const buckets = nodeIds.map((nodeId) => ({ nodeId, generation }));
  return {
    notices: [],
    made: { id, schema, name: table.name, keyColumn: command.key, buckets },
    uniques,
  };
}

interface Definition {
  readonly schema: string;
  readonly name: string;
  /** The first one makes the face. */
  readonly statements: readonly string[];
  readonly sequences: readonly SequenceColumn[];
  readonly storage: ReadonlyMap<string, string>;
  /** Undefined: the client's own. */
  readonly searchPath: string | undefined;
  readonly merges: boolean | undefined;
  /** Run when its face is there. */
  readonly thenOnHome?: readonly string[];
}

async function make(
  world: DdlWorld,
  request: MakeRequest,
  definition: Definition,
): Promise<{ readonly id: number; readonly generation: number; readonly nodeIds: readonly number[] }> {
  const { home, others, services, session } = world;
  const { schema, name, searchPath } = definition;
  const made = await makeFace(home, definition, searchPath);
  if (definition.thenOnHome) await home.run(definition.thenOnHome, 'pg_catalog');
  const group = await chooseGroup(world, request, made);
  const reserved = await services.reserveTable();
  await home.signed(
    `INSERT INTO ${INTERNAL_SCHEMA}.tables (table_id, state, generation, door, table_schema, table_name, key_column, key_type,
       hash_function, colocation_id) OVERRIDING SYSTEM VALUE VALUES ($1, 'ready', $2, 'sharded', $3, $4, $5, $6, $7, $8)`,
    [
      ...[
        reserved.id,
        reserved.generation,
        schema,
        name,
        made.key.column,
        made.key.type,
        made.key.hashFunction,
      ],
      group.colocationId,
    ],
  );
  const targets = await resolveForeignKeys(home.postern, made.face.references, {
    ...{ schema, name, keyColumn: made.key.column, tableId: reserved.id, generation: reserved.generation },
    ...{ colocationId: group.colocationId, bucketCount: group.nodeIds.length },
  });
  const { homeNodeId } = world;
  const table = { ...reserved, group, targets, storage: definition.storage, homeNodeId };
  await mayOwnLeaves(world, [], session.role);
  await services.beforeStep?.('reserved');
  await makeLeaves(home, made, table);
  const [row] = await home.texts(`SELECT pg_catalog.current_setting('search_path')`);
  // The home's schema first: what the client's search_path would make elsewhere there has to stand in the same schema.
  const elsewhere = searchPath ?? `${quoteIdentifier(schema)}, ${row?.[0] || '""'}`;
  await settledAll(
    others.map((branch) =>
      naming(branch, async () => {
        await ensureSchemaInTransaction(world, branch, schema);
        await makeLeaves(branch, await makeFace(branch, definition, elsewhere), table);
      }),
    ),
  );
  const leafNames = group.nodeIds.map((_, bucket) => leafName(name, bucket, table.generation));
  await home.signed(
    `INSERT INTO ${INTERNAL_SCHEMA}.leaves (table_id, bucket, generation, leaf_name)
     SELECT $1::int4, leaf.ordinality - 1, $2::int8, leaf.name FROM unnest($3::text[]) WITH ORDINALITY AS leaf (name, ordinality)`,
    [table.id, table.generation, leafNames],
  );
  for (const statement of noteNames(INTERNAL_SCHEMA, table.id, made.face.foreignKeys))
    await home.signed(statement);
  await addIdColumns(home.postern, table.id, idColumnsOf(made.face.sequences, definition.sequences));
  if (definition.merges !== undefined) await storeCoalescing(home.postern, made.face.oid, definition.merges);
  world.noteCatalogChange();
  return { id: table.id, generation: table.generation, nodeIds: group.nodeIds };
}

async function makeFace(
  branch: DdlBranch,
  { schema, name, statements }: Definition,
  searchPath: string | undefined,
): Promise<MadeFace> {
  await branch.run(statements, searchPath).catch((error: unknown) => {
    throw withKeyHint(error);
  });
  const oid = await findOid(branch, schema, name);
  assert(oid !== undefined, 'the face that was just made is in its schema');
  return { face: await describeFace(branch, oid), key: await readShardKey(branch, oid) };
}

interface TableToMake {
  readonly id: number;
  readonly generation: number;
  readonly group: ChosenGroup;
  readonly storage: ReadonlyMap<string, string>;
  readonly targets: ForeignTargets;
  readonly homeNodeId: number;
}

/** The leaves of this node's buckets, and the record of face and leaves; then the face is closed. */
async function makeLeaves(
  branch: DdlBranch,
  { face, key }: MadeFace,
  { id, generation, group, storage, targets, homeNodeId }: TableToMake,
): Promise<void> {
  const { placement, nodeIds } = group;
  const own = [...nodeIds.keys()].filter((bucket) => nodeIds[bucket] === branch.nodeId);
  const isForCatalog = own.length === 0 && branch.nodeId === homeNodeId;
  const buckets = isForCatalog ? [CATALOG_BUCKET] : own;
  const statements = buckets.flatMap((bucket) =>
    createLeafStatements(face, { bucket, placement, generation, key, storage, targets, isForCatalog }),
  );
  await branch.run([...statements, ...closeFaceStatements(face)], 'pg_catalog');
  await branch.signed(
    `INSERT INTO ${INTERNAL_SCHEMA}.local_tables (table_id, face) VALUES ($1, $2::oid::regclass)`,
    [id, face.oid],
  );
  await branch.signed(
    `INSERT INTO ${INTERNAL_SCHEMA}.local_leaves (table_id, bucket, generation, leaf)
     SELECT $1::int4, made.bucket, $2::int8, made.leaf::regclass FROM unnest($3::int4[], $4::text[]) AS made (bucket, leaf)`,
    [id, generation, buckets, buckets.map((bucket) => qualifiedLeaf(face.name, bucket, generation))],
  );
}

/** A table that it names is looked up here: it may have been made in this very transaction. */
async function qualified(world: DdlWorld, request: MakeRequest): Promise<MakeRequest> {
  const { name, placement, nodes, colocateWith } = request;
  const isNamed = colocateWith !== undefined && colocateWith !== 'none' && colocateWith !== 'default';
  const found = isNamed ? await relationNamed(world, colocateWith) : undefined;
  if (isNamed && !found)
    throw objectError('42P01', `there is no sharded table "${colocateWith}" to be colocated with`);
  return {
    ...{ name, placement, nodes },
    colocateWith: found ? quoteQualified(found.schema, found.name) : colocateWith,
  };
}

async function chooseGroup(world: DdlWorld, request: MakeRequest, made: MadeFace): Promise<ChosenGroup> {
  const { colocateWith, placement, nodes } = request;
  const keyType = made.key.type;
  if (colocateWith === undefined || colocateWith === 'none' || colocateWith === 'default') {
    const others = colocateWith === 'none' ? ('none' as const) : undefined;
    return await world.services.ensureGroup({ keyType, placement, nodes, colocateWith: others });
  }
  return await choosePlacement(world, world.home.postern, { ...request, keyType, searchPath: '' });
}

/** Only its owner: what is made anew belongs to whoever makes it. */
function notItsOwner({ name, owner }: { readonly name: string; readonly owner: string }): PosternError {
  return notSupported(
    `table "${name}" can be sharded inside a transaction by its owner alone`,
    `SET ROLE "${owner}" first, or send it outside of the transaction.`,
  );
}

function hasRows(name: string): PosternError {
  return notSupported(
    `table "${name}" has rows, and cannot be sharded inside a transaction`,
    'Send it outside of the transaction, or before rows are inserted.',
  );
}

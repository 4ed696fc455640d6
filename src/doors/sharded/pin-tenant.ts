/**
 * postern.pin_tenant: a key gets a bucket of its own, on a node that is named, with the rows that it has (SPEC.md, Pin). It holds for
 * all tables of the colocation group, whose rows of a key stay together.
 *
 * Invariant: the bucket that the key was looked for in gets a new generation in the same commit. So a router that believes that
 * the key is still there reads and writes nothing of it: the leaf that it names is gone.
 */
import { assert } from '../../base/assert.ts';
import { BOUNDS } from '../../base/bounds.ts';
import { invalidParameter, notSupported, objectError } from '../../base/errors.ts';
import {
  CATALOG_BUCKET,
  LEAF_SCHEMA,
  leafName,
  leafSuffix,
  type NodeInfo,
  type TablePlacement,
} from '../../catalog/map.ts';
import { bucketCondition } from '../../catalog/placement-sql.ts';
import { bumpEpoch, INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import { asAdmin, asClient, type DdlContext, type DdlSession, withConnection } from '../../ddl/context.ts';
import { type DoorTable, lockDoorTable } from '../../ddl/door-table.ts';
import { grantLeafSchema } from '../../ddl/leaf-rights.ts';
import { inOneCommit } from '../../ddl/one-commit.ts';
import { findRelation } from '../../ddl/recorded.ts';
import { ROW_COPY_TIMEOUT_MS } from '../../ddl/row-copy.ts';
import { refuseUsersCode, refuseWhatHangsOn } from '../../ddl/users-code.ts';
import type { KeyTypeName } from '../../pg/hash/key-type.ts';
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../../pg/identifier.ts';
import { keyValueOfBound } from '../../pg/key/directory.ts';
import type { ControlConnection } from '../../platform/control-connection.ts';
import { copyRows } from '../../platform/copy-rows.ts';
import { describeFace, type Face } from './face.ts';
import { readShardKey, type ShardKey } from './key.ts';
import { BUCKET_CONSTRAINT, closeFaceStatements, createLeafStatements, qualifiedLeaf } from './leaf.ts';
import { groupOf } from './placement.ts';
import { readKey } from './placement-request.ts';
import { asOwner, type LeafAt, readLeafExtras } from './unshard-definition.ts';

interface GroupTable {
  readonly id: number;
  readonly schema: string;
  readonly name: string;
  readonly owner: string;
  readonly mayOwn: boolean;
  /** Of the bucket that the key is in now. */
  readonly generation: number;
}

interface Pin {
  readonly colocationId: number;
  readonly keyType: KeyTypeName;
  readonly key: string;
  readonly before: TablePlacement;
  readonly after: TablePlacement;
  readonly bucket: number;
  readonly newBucket: number;
  readonly generation: number;
  readonly tables: readonly GroupTable[];
  readonly source: NodeInfo;
  readonly target: NodeInfo;
}

/** False: it is there already. */
export async function pinTenant(
  context: DdlContext,
  table: DoorTable,
  request: { readonly tenant: string; readonly node: string },
  session: DdlSession,
): Promise<boolean> {
  const target = context.nodes.find(({ name }) => name === request.node);
  if (!target)
    throw invalidParameter(
      `there is no node "${request.node}"`,
      `The nodes are ${context.nodes.map(({ name }) => name).join(', ')}.`,
    );
  if (table.door !== 'sharded' || table.colocationId === null)
    throw notSupported(
      `"${table.name}" is a reference table, whole on every node`,
      'Only keys of sharded tables are pinned.',
    );
  const pin = await withConnection(context, context.homeNodeId, (home) =>
    home.transaction(() => planPin(context, home, { table, target, tenant: request.tenant, session })),
  );
  if (!pin) return false;
  const involved = context.nodes.filter(
    ({ id }) => id !== context.homeNodeId && (id === pin.source.id || id === target.id),
  );
  await inOneCommit(context, {
    others: involved,
    lock: async (connection, isHome) => {
      if (isHome) {
        for (const one of pin.tables) await lockDoorTable(connection, one);
        await refuseIfChanged(connection, pin, session.role);
      }
      if (connection.nodeName !== pin.source.name) return;
      const leaves = pin.tables.map((one) => qualifiedLeaf(one.name, pin.bucket, one.generation));
      await connection.query(`LOCK TABLE ${leaves.join(', ')} IN ACCESS EXCLUSIVE MODE`);
    },
    work: async (home, others) => {
      const connectionOf = (node: NodeInfo) => {
        const connection = [home, ...others].find(({ nodeName }) => nodeName === node.name);
        assert(connection, 'both nodes have a part in it');
        return connection;
      };
      const source = connectionOf(pin.source);
      // Behind the locks, which who adds such a constraint needs as well.
      await refuseUniqueOffKey(home, pin.colocationId);
      const tables = await referencedFirst(source, pin);
      await followOnHome(home, pin, { homeNodeId: context.homeNodeId });
      for (const one of tables) await makeOwnLeaf(source, connectionOf(target), pin, one);
      // Rows that reference others go first: so no action of a foreign key is taken, and no trigger fires for one.
      for (const one of tables.toReversed()) await takeFromOldLeaf(source, pin, one);
      await record(home, pin);
      context.afterStep?.('pinned, not committed');
    },
  });
  return true;
}

/** What is kept of unique values off the key is hashed over the group's buckets, and beside them. */
async function refuseUniqueOffKey(home: ControlConnection, colocationId: number): Promise<void> {
  const [found] = await home.query<{ constraint: string; table: string }>(
    `SELECT l.constraint_name AS constraint, t.table_name AS "table" FROM ${INTERNAL_SCHEMA}.lookups l
     JOIN ${INTERNAL_SCHEMA}.tables t USING (table_id) WHERE t.colocation_id = $1 ORDER BY l.lookup_id LIMIT 1`,
    [colocationId],
  );
  if (!found) return;
  throw notSupported(
    `a key cannot be pinned while table "${found.table}" has unique constraint "${found.constraint}" without the shard key`,
    'Drop the constraint, pin the key, and add the constraint again.',
  );
}

async function planPin(
  context: DdlContext,
  home: ControlConnection,
  request: { table: DoorTable; target: NodeInfo; tenant: string; session: DdlSession },
): Promise<Pin | undefined> {
  const { table, target, session } = request;
  const colocationId = table.colocationId!;
  const group = await groupOf(home, colocationId);
  const keyType = group.keyType as KeyTypeName;
  const before = group.placement;
  if (before.method === 'range')
    throw notSupported(
      `a tenant of "${table.name}", which is sharded by range, cannot be pinned`,
      'Use method list or hash for tenants.',
    );
  const key = await readKey(home, keyType, request.tenant);
  const value = keyValueOfBound(keyType, key);
  const listAt = before.lists.findIndex((list) =>
    list.some((one) => keyValueOfBound(keyType, one) === value),
  );
  const face = quoteQualified(table.schema, table.name);
  const bucket =
    listAt >= 0
      ? before.hashBuckets + listAt
      : await hashedBucket(home, { face, placement: before, keyType, key });
  const places = await home.query<{ nodeId: number }>(
    `SELECT node_id AS "nodeId" FROM ${INTERNAL_SCHEMA}.places WHERE colocation_id = $1 ORDER BY bucket`,
    [colocationId],
  );
  const source = context.nodes.find(({ id }) => id === places[bucket]?.nodeId);
  assert(source, 'a bucket is on a node');
  if (listAt >= 0 && before.lists[listAt]!.length === 1) {
    if (source.id === target.id) return undefined;
    throw notSupported(
      `tenant "${key}" has a bucket of its own already, on node "${source.name}"`,
      'Moving a bucket that is a tenant’s own to another node is not supported yet.',
    );
  }
  if (places.length >= BOUNDS.bucketsMax)
    throw objectError('54000', `"${table.name}" has ${places.length} buckets, and can have no more`);
  const tables = await groupTables(home, { colocationId, bucket, role: session.role });
  const foreign = tables.find(({ mayOwn }) => !mayOwn);
  if (foreign)
    throw objectError(
      '42501',
      `must be owner of table ${foreign.name}`,
      'It is colocated with the one that is named, and its rows of the tenant go along.',
    );
  const [unique] = await home.query<{ name: string }>(
    `SELECT constraint_name AS name FROM ${INTERNAL_SCHEMA}.lookups WHERE table_id = ANY ($1::int4[]) LIMIT 1`,
    [tables.map(({ id }) => id)],
  );
  if (unique)
    throw notSupported(
      `the unique constraint "${unique.name}" is kept over all buckets, and their number can't change`,
      'Pin tenants first, and add the constraint then.',
    );
  const without = before.lists.map((list) => list.filter((one) => keyValueOfBound(keyType, one) !== value));
  const [counter] = await home.query<{ generation: number }>(
    `UPDATE ${INTERNAL_SCHEMA}.cluster SET next_generation = next_generation + 1
     RETURNING (next_generation - 1)::int4 AS generation`,
  );
  return {
    ...{ colocationId, keyType, key, before, bucket, tables, source, target },
    after: { ...before, lists: [...without, [key]] },
    newBucket: places.length,
    generation: counter!.generation,
  };
}

/** Where a key that is not listed is, or is looked for. */
async function hashedBucket(
  home: ControlConnection,
  request: { face: string; placement: TablePlacement; keyType: KeyTypeName; key: string },
): Promise<number> {
  const { face, placement, keyType, key } = request;
  if (placement.hashBuckets <= 1) return 0;
  const [row] = await home.query<{ bucket: number }>(
    `SELECT bucket FROM generate_series(0, $1::int4 - 1) AS bucket WHERE
       satisfies_hash_partition(${quoteLiteral(face)}::regclass, $1, bucket, ${quoteLiteral(key)}::pg_catalog.${keyType})`,
    [placement.hashBuckets],
  );
  assert(row, 'each key has a bucket');
  return row.bucket;
}

async function groupTables(
  home: ControlConnection,
  request: { colocationId: number; bucket: number; role: string },
): Promise<readonly GroupTable[]> {
  return await home.query<GroupTable>(
    `SELECT t.table_id AS id, n.nspname AS schema, c.relname AS name, pg_get_userbyid(c.relowner) AS owner,
       pg_has_role($3::name, c.relowner, 'USAGE') AS "mayOwn", l.generation::int4 AS generation
     FROM ${INTERNAL_SCHEMA}.tables t JOIN ${INTERNAL_SCHEMA}.local_tables f USING (table_id)
     JOIN pg_class c ON c.oid = f.face JOIN pg_namespace n ON n.oid = c.relnamespace
     JOIN ${INTERNAL_SCHEMA}.leaves l ON l.table_id = t.table_id AND l.bucket = $2
     WHERE t.colocation_id = $1 AND t.state = 'ready' ORDER BY t.table_id`,
    [request.colocationId, request.bucket, request.role],
  );
}

/** Under the locks: another router may have pinned a tenant, or made a table of the group. */
async function refuseIfChanged(home: ControlConnection, pin: Pin, role: string): Promise<void> {
  const { placement } = await groupOf(home, pin.colocationId);
  const tables = await groupTables(home, { ...pin, role });
  const idsOf = (list: readonly GroupTable[]) =>
    list.map(({ id, generation }) => `${id} ${generation}`).join();
  if (JSON.stringify(placement) === JSON.stringify(pin.before) && idsOf(tables) === idsOf(pin.tables)) return;
  throw objectError('40001', 'the placement of the tables has changed meanwhile', 'Try again.');
}

/** The tables of the group, each behind those that its foreign keys reference: keys may have been added in any order. */
async function referencedFirst(source: ControlConnection, pin: Pin): Promise<readonly GroupTable[]> {
  const keys = await source.query<{ from: number; to: number }>(
    `SELECT f.table_id AS "from", t.table_id AS "to" FROM pg_constraint k
     JOIN ${INTERNAL_SCHEMA}.local_leaves f ON f.leaf = k.conrelid
     JOIN ${INTERNAL_SCHEMA}.local_leaves t ON t.leaf = k.confrelid
     WHERE k.contype = 'f' AND f.bucket = $1 AND t.bucket = $1 AND f.table_id <> t.table_id
       AND f.table_id = ANY ($2::int4[]) AND t.table_id = ANY ($2::int4[])`,
    [pin.bucket, pin.tables.map(({ id }) => id)],
  );
  const ordered: GroupTable[] = [];
  let left = [...pin.tables];
  while (left.length > 0) {
    const waits = (one: GroupTable) =>
      keys.some(({ from, to }) => from === one.id && left.some(({ id }) => id === to));
    const next = left.filter((one) => !waits(one));
    if (next.length === 0) {
      const names = left.map(({ name }) => `"${name}"`).join(', ');
      throw notSupported(
        `a key cannot be pinned while tables ${names} reference one another in a ring`,
        'Drop one of the foreign keys, pin the key, and add it again.',
      );
    }
    ordered.push(...next);
    left = left.filter((one) => !next.includes(one));
  }
  return ordered;
}

/** The empty leaves of a home without buckets go where the first one comes, and else follow the bucket that they are named by. */
async function followOnHome(
  home: ControlConnection,
  pin: Pin,
  { homeNodeId }: { readonly homeNodeId: number },
): Promise<void> {
  const kept = await home.query<{ id: number; leaf: string }>(
    `SELECT l.table_id AS id, l.leaf::text AS leaf FROM ${INTERNAL_SCHEMA}.local_leaves l WHERE l.table_id = ANY ($1::int4[])
       AND NOT EXISTS (SELECT FROM ${INTERNAL_SCHEMA}.places p WHERE p.colocation_id = $2 AND p.node_id = $3)`,
    [pin.tables.map(({ id }) => id), pin.colocationId, homeNodeId],
  );
  if (kept.length === 0) return;
  if (pin.target.id === homeNodeId) {
    await home.query(`DROP TABLE ${kept.map(({ leaf }) => leaf).join(', ')}`);
    await home.query(`DELETE FROM ${INTERNAL_SCHEMA}.local_leaves WHERE table_id = ANY ($1::int4[])`, [
      kept.map(({ id }) => id),
    ]);
  } else if (pin.bucket === CATALOG_BUCKET) {
    for (const table of pin.tables)
      if (kept.some(({ id }) => id === table.id))
        await takeFromOldLeaf(home, pin, table, { isForCatalog: true });
  }
}

async function makeOwnLeaf(
  source: ControlConnection,
  target: ControlConnection,
  pin: Pin,
  table: GroupTable,
): Promise<void> {
  const found = await findRelation(target, table.schema, table.name);
  assert(found, 'the face is on every node');
  const face = await describeFace(target, found.oid);
  const key = await readShardKey(target, found.oid);
  const old = await oldLeaf(source, pin, table);
  const leaf = qualifiedLeaf(table.name, pin.newBucket, pin.generation);
  const spec = { bucket: pin.newBucket, placement: pin.after, generation: pin.generation, key };
  const extras = await readLeafExtras(old, {
    name: leaf,
    nameOfKey: (one) => leafName(one, pin.newBucket, pin.generation),
    leafOf: (tableId) => {
      const other = pin.tables.find(({ id }) => id === tableId);
      return other && qualifiedLeaf(other.name, pin.newBucket, pin.generation);
    },
  });
  await grantLeafSchema(target, table.owner);
  await asClient(target, asOwner(table.owner));
  const faceName = quoteQualified(table.schema, table.name);
  // The face is closed to its owner too.
  await target.query(
    `GRANT SELECT ON ${faceName} TO ${quoteIdentifier(table.owner)}; LOCK TABLE ${faceName} IN ACCESS SHARE MODE`,
  );
  await asAdmin(target);
  await refuseUsersCode(target, { oid: found.oid, name: table.name }, { hasRows: true });
  await asClient(target, asOwner(table.owner));
  await target.query(
    [
      // Policies and triggers come behind the rows, as the old leaf has them.
      ...createLeafStatements(
        { ...face, extras: { ...face.extras, statements: columnSettings(face) } },
        {
          ...spec,
          storage: await storageOf(source, old.oid),
          targets: new Map(),
        },
      ),
      ...closeFaceStatements(face),
    ].join(';\n'),
  );
  await copyOwnRows(source, target, { pin, table, key, leaf });
  for (const statement of extras) await target.query(statement);
  await asAdmin(target);
  await target.query(
    `INSERT INTO ${INTERNAL_SCHEMA}.local_leaves (table_id, bucket, generation, leaf) VALUES ($1, $2, $3, $4::regclass)`,
    [table.id, pin.newBucket, pin.generation, leaf],
  );
}

function columnSettings({ extras }: Face): Face['extras']['statements'] {
  return extras.statements.filter(({ after }) => after.startsWith(' ALTER COLUMN '));
}

async function oldLeaf(source: ControlConnection, pin: Pin, table: GroupTable): Promise<LeafAt> {
  const { bucket } = pin;
  const { generation } = table;
  const [row] = await source.query<{ oid: number }>('SELECT $1::regclass::oid AS oid', [
    qualifiedLeaf(table.name, bucket, generation),
  ]);
  assert(row, 'a cast gives a row');
  return { connection: source, oid: row.oid, bucket, generation };
}

async function storageOf(connection: ControlConnection, oid: number): Promise<ReadonlyMap<string, string>> {
  const rows = await connection.query<{ name: string; value: string }>(
    `SELECT o.option_name AS name, o.option_value AS value
     FROM pg_class c CROSS JOIN pg_options_to_table(c.reloptions) o WHERE c.oid = $1`,
    [oid],
  );
  return new Map(rows.map((row) => [row.name, row.value]));
}

/** Both connections have the owner's role after it, or the target's alone. */
async function copyOwnRows(
  source: ControlConnection,
  target: ControlConnection,
  request: { pin: Pin; table: GroupTable; key: ShardKey; leaf: string },
): Promise<void> {
  const { pin, table, key, leaf } = request;
  const from = qualifiedLeaf(table.name, pin.bucket, table.generation);
  const rows = await source.query<{ name: string }>(
    `SELECT attname AS name FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped
       AND attgenerated = '' ORDER BY attnum`,
    [from],
  );
  const columns = rows.map(({ name }) => quoteIdentifier(name)).join(', ');
  const text = `SELECT ${columns} FROM ${from} WHERE ${isTenant(key, pin)}`;
  if (source !== target) await asClient(source, asOwner(table.owner));
  await withoutForcing(source, from, async () => {
    if (source === target) {
      await source.query(`INSERT INTO ${leaf} (${columns}) ${text}`);
      return;
    }
    await copyRows({
      ...{ source, sourceText: `COPY (${text}) TO STDOUT` },
      ...{ target, targetText: `COPY ${leaf} (${columns}) FROM STDIN`, timeoutMs: ROW_COPY_TIMEOUT_MS },
    });
  });
  if (source !== target) await asAdmin(source);
}

function isTenant(key: ShardKey, pin: Pin): string {
  return `${quoteIdentifier(key.column)} = ${quoteLiteral(pin.key)}::pg_catalog.${pin.keyType}`;
}

/** Its rows without the tenant's, its names of the new generation, and a check that lets no row of the tenant in. */
async function takeFromOldLeaf(
  source: ControlConnection,
  pin: Pin,
  table: GroupTable,
  { isForCatalog } = { isForCatalog: false },
): Promise<void> {
  const found = await findRelation(source, table.schema, table.name);
  assert(found, 'the face is on every node');
  const face = await describeFace(source, found.oid);
  const key = await readShardKey(source, found.oid);
  const leaf = qualifiedLeaf(table.name, pin.bucket, table.generation);
  const condition = isForCatalog
    ? 'false'
    : bucketCondition(
        pin.after,
        { name: quoteIdentifier(key.column), type: key.type },
        { face: quoteQualified(table.schema, table.name), bucket: pin.bucket },
      );
  const renames = await renamesOf(source, { pin, table, face, leaf });
  await refuseWhatHangsOn(source, leaf);
  await grantLeafSchema(source, table.owner);
  await asClient(source, asOwner(table.owner));
  await withoutForcing(source, leaf, () =>
    withoutTriggers(source, leaf, async () => {
      await source.query(`DELETE FROM ${leaf} WHERE ${isTenant(key, pin)}`);
    }),
  );
  await source.query(
    [
      // Each row that is there satisfies it: no scan is needed to know.
      `ALTER TABLE ${leaf} DROP CONSTRAINT ${BUCKET_CONSTRAINT}, ADD CONSTRAINT ${BUCKET_CONSTRAINT} CHECK (${condition}) NOT VALID`,
      ...renames,
    ].join(';\n'),
  );
  await asAdmin(source);
  await source.query(
    `UPDATE ${INTERNAL_SCHEMA}.local_leaves SET generation = $3 WHERE table_id = $1 AND bucket = $2`,
    [table.id, pin.bucket, pin.generation],
  );
}

/** The leaf last: all others are named by it. */
async function renamesOf(
  source: ControlConnection,
  request: { pin: Pin; table: GroupTable; face: Face; leaf: string },
): Promise<string[]> {
  const { pin, table, face, leaf } = request;
  const { bucket, generation } = pin;
  const renamed = (name: string) => quoteIdentifier(leafName(name, bucket, generation));
  const now = (name: string) => quoteIdentifier(leafName(name, bucket, table.generation));
  const suffix = leafSuffix(bucket, table.generation);
  const foreign = await source.query<{ name: string }>(
    `SELECT conname AS name FROM pg_constraint WHERE conrelid = $1::regclass AND contype = 'f' AND conparentid = 0`,
    [leaf],
  );
  return [
    ...face.constraints.map(
      ({ name }) => `ALTER TABLE ${leaf} RENAME CONSTRAINT ${now(name)} TO ${renamed(name)}`,
    ),
    ...foreign
      .filter(({ name }) => name.endsWith(suffix))
      .map(
        ({ name }) =>
          `ALTER TABLE ${leaf} RENAME CONSTRAINT ${quoteIdentifier(name)} TO ${renamed(name.slice(0, -suffix.length))}`,
      ),
    ...face.indexes.map(({ name }) => `ALTER INDEX ${LEAF_SCHEMA}.${now(name)} RENAME TO ${renamed(name)}`),
    `ALTER TABLE ${leaf} RENAME TO ${renamed(table.name)}`,
  ];
}

/** An owner sees all rows, unless row-level security is forced. */
async function withoutForcing(
  connection: ControlConnection,
  leaf: string,
  work: () => Promise<void>,
): Promise<void> {
  const [row] = await connection.query<{ forces: boolean }>(
    'SELECT relforcerowsecurity AS forces FROM pg_class WHERE oid = $1::regclass',
    [leaf],
  );
  if (row?.forces) await connection.query(`ALTER TABLE ${leaf} NO FORCE ROW LEVEL SECURITY`);
  await work();
  if (row?.forces) await connection.query(`ALTER TABLE ${leaf} FORCE ROW LEVEL SECURITY`);
}

const ENABLING: Readonly<Record<string, string>> = { O: 'ENABLE', R: 'ENABLE REPLICA', A: 'ENABLE ALWAYS' };

/** Rows that change their place are not deleted, as the user sees it. */
async function withoutTriggers(
  connection: ControlConnection,
  leaf: string,
  work: () => Promise<void>,
): Promise<void> {
  const triggers = await connection.query<{ name: string; enabled: string }>(
    `SELECT tgname AS name, tgenabled::text AS enabled FROM pg_trigger
     WHERE tgrelid = $1::regclass AND NOT tgisinternal AND tgenabled <> 'D'`,
    [leaf],
  );
  for (const { name } of triggers)
    await connection.query(`ALTER TABLE ${leaf} DISABLE TRIGGER ${quoteIdentifier(name)}`);
  await work();
  for (const { name, enabled } of triggers)
    await connection.query(`ALTER TABLE ${leaf} ${ENABLING[enabled]} TRIGGER ${quoteIdentifier(name)}`);
}

async function record(home: ControlConnection, pin: Pin): Promise<void> {
  const { colocationId, bucket, newBucket, generation, key, keyType, target } = pin;
  for (const { id, name } of pin.tables) {
    await home.query(
      `UPDATE ${INTERNAL_SCHEMA}.leaves SET generation = $3, leaf_name = $4 WHERE table_id = $1 AND bucket = $2`,
      [id, bucket, generation, leafName(name, bucket, generation)],
    );
    await home.query(
      `INSERT INTO ${INTERNAL_SCHEMA}.leaves (table_id, bucket, generation, leaf_name) VALUES ($1, $2, $3, $4)`,
      [id, newBucket, generation, leafName(name, newBucket, generation)],
    );
  }
  await home.query(
    `UPDATE ${INTERNAL_SCHEMA}.colocation_groups SET hash_buckets = coalesce(hash_buckets, bucket_count),
       bucket_count = bucket_count + 1 WHERE colocation_id = $1`,
    [colocationId],
  );
  await home.query(
    `INSERT INTO ${INTERNAL_SCHEMA}.places (colocation_id, bucket, node_id) VALUES ($1, $2, $3)`,
    [...[colocationId, newBucket, target.id]],
  );
  const value = keyValueOfBound(keyType, key);
  const listed = pin.before.lists.flat().filter((one) => keyValueOfBound(keyType, one) === value);
  await home.query(
    `DELETE FROM ${INTERNAL_SCHEMA}.listed_keys WHERE colocation_id = $1 AND key = ANY ($2::text[])`,
    [colocationId, listed],
  );
  await home.query(
    `INSERT INTO ${INTERNAL_SCHEMA}.listed_keys (colocation_id, bucket, key, pinned) VALUES ($1, $2, $3, true)`,
    [colocationId, newBucket, key],
  );
  await bumpEpoch(home);
}

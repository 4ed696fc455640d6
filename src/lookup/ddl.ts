/**
 * Makes and drops a unique constraint off the shard key (SPEC.md), inside of a transaction over all nodes: its tables, the triggers on
 * the leaves, an index for reads, and the values of the rows that are there.
 */
import { notSupported, objectError, PosternError } from '../base/errors.ts';
import { LOOKUP_KEY } from '../catalog/lookup-objects.ts';
import { LEAF_SCHEMA, type Lookup, leafName, lookupName, type ShardedTable } from '../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import type { SqlConnection } from '../ddl/context.ts';
import { mayOwnLeaves } from '../ddl/leaf-rights.ts';
import { type DdlBranch, type DdlWorld, everywhere } from '../ddl/world.ts';
import type { KeyTypeName } from '../pg/hash/key-type.ts';
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../pg/identifier.ts';
import type { UniqueSpec } from '../plan/lookups.ts';
import { ServerError } from '../platform/control-connection.ts';

/** Rows that are read and written at once when a constraint is added to a table that has some. */
const PORTION_ROWS = 2_000;

const HASHED_TYPES: readonly KeyTypeName[] = [
  ...(['int2', 'int4', 'int8', 'text', 'varchar', 'bpchar', 'uuid'] as const),
  ...(['numeric', 'date', 'timestamp', 'timestamptz'] as const),
];

/** The table as it is in this transaction. */
export type TableOfLookup = Pick<ShardedTable, 'id' | 'schema' | 'name' | 'keyColumn' | 'buckets'>;

interface FirstColumn {
  readonly type: KeyTypeName;
  readonly hashFunction: string;
}

export async function addLookup(world: DdlWorld, table: TableOfLookup, spec: UniqueSpec): Promise<void> {
  await refuseStrangers(world.home, table);
  await mayOwnLeaves(world, [], world.session.role);
  await makeLookup(world, table, spec);
  world.noteCatalogChange();
}

/** The right to make leaves is committed at once, whatever becomes of the statement. */
async function refuseStrangers(home: DdlBranch, { schema, name }: TableOfLookup): Promise<void> {
  const [row] = await home.query<{ may: boolean }>(
    `SELECT pg_has_role(c.relowner, 'USAGE') AS may FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relname = $2`,
    [schema, name],
  );
  if (row?.may !== true) throw objectError('42501', `must be owner of table ${name}`);
}

/** Its branches are those of a client's transaction, or connections of the control path (on-control.ts). */
export type LookupWorld = Pick<DdlWorld, 'home' | 'others'>;

/** The role of the branches may make leaves already. */
export async function makeLookup(world: LookupWorld, table: TableOfLookup, spec: UniqueSpec): Promise<void> {
  const { home } = world;
  const first = await readUniqueColumns(home, table, spec);
  const [row] = await home.signedValue<readonly { readonly id: number }[]>(
    `WITH made AS (INSERT INTO ${INTERNAL_SCHEMA}.lookups (table_id, constraint_name, is_constraint, columns, key_type, hash_function)
       VALUES (${table.id}, ${quoteLiteral(spec.name)}, ${spec.isConstraint}, ${textArray(spec.columns)}, ${quoteLiteral(first.type)},
         ${quoteLiteral(first.hashFunction)}) RETURNING lookup_id AS id) SELECT json_agg(made) FROM made`,
  );
  const id = row!.id;
  await everywhere(world, (branch) => makeOn(branch, table, { ...spec, id }));
  await fill(world, table, spec, first);
}

export async function dropLookup(world: DdlWorld, table: TableOfLookup, lookup: Lookup): Promise<void> {
  await everywhere(world, async (branch) => {
    const statements = [`DROP INDEX ${quoteQualified(table.schema, lookup.name)}`];
    for (const bucket of bucketsOn(table, branch)) {
      const leaf = leafOf(table, table.name, bucket);
      for (const trigger of triggersOf(lookup.id)) statements.push(`DROP TRIGGER ${trigger.name} ON ${leaf}`);
      statements.push(
        `DROP TABLE ${leafOf(table, lookupName(lookup.name), bucket)}`,
        `DROP INDEX ${leafOf(table, lookup.name, bucket)}`,
      );
    }
    await branch.run(statements, 'pg_catalog');
    await branch.signed(
      `DELETE FROM ${INTERNAL_SCHEMA}.local_lookups WHERE lookup_id = ${Number(lookup.id)}`,
    );
  });
  await world.home.signed(`DELETE FROM ${INTERNAL_SCHEMA}.lookups WHERE lookup_id = ${Number(lookup.id)}`);
  world.noteCatalogChange();
}

interface MadeSpec extends UniqueSpec {
  readonly id: number;
}

async function makeOn(branch: DdlBranch, table: TableOfLookup, spec: MadeSpec): Promise<void> {
  const { name, columns, id } = spec;
  const list = columns.map(quoteIdentifier).join(', ');
  const buckets = bucketsOn(table, branch);
  // For introspection, and for leaves that are made after it.
  const statements = [
    `CREATE INDEX ${quoteIdentifier(name)} ON ${quoteQualified(table.schema, table.name)} (${list})`,
  ];
  for (const bucket of buckets) {
    const leaf = leafOf(table, table.name, bucket);
    const kept = leafOf(table, lookupName(name), bucket);
    const key = quoteIdentifier(leafName(`${lookupName(name)}_pkey`, bucket, generationOf(table, bucket)));
    statements.push(
      `CREATE INDEX ${quoteIdentifier(leafName(name, bucket, generationOf(table, bucket)))} ON ${leaf} (${list})`,
      `CREATE TABLE ${kept} AS SELECT ${list}, ${quoteIdentifier(table.keyColumn)} AS ${LOOKUP_KEY} FROM ${leaf} WITH NO DATA`,
      `ALTER TABLE ${kept} ADD CONSTRAINT ${key} PRIMARY KEY (${list})`,
      ...triggersOf(id).map(({ name: trigger, event, when }) => {
        const changed = [...columns, table.keyColumn].map(quoteIdentifier);
        const condition = changed
          .map((column) => `OLD.${column} IS DISTINCT FROM NEW.${column}`)
          .join(' OR ');
        const values = [String(id), ...columns, table.keyColumn].map(quoteLiteral).join(', ');
        return `CREATE TRIGGER ${trigger} AFTER ${event} ON ${leaf} FOR EACH ROW${when ? ` WHEN (${condition})` : ''}
          EXECUTE FUNCTION postern_commit.record_lookup(${values})`;
      }),
    );
  }
  await branch.run(statements, 'pg_catalog').catch((error: unknown) => {
    throw inUsersTerms(error, spec);
  });
  if (buckets.length === 0) return;
  const rows = buckets.map(
    (bucket) =>
      `(${table.id}, ${id}, ${bucket}, ${generationOf(table, bucket)}, ${quoteLiteral(leafOf(table, lookupName(name), bucket))}::regclass)`,
  );
  await branch.signed(
    `INSERT INTO ${INTERNAL_SCHEMA}.local_lookups (table_id, lookup_id, bucket, generation, leaf) VALUES ${rows.join(', ')}`,
  );
}

/** Behind the user's own, in the order of names. */
function triggersOf(id: number) {
  return [
    { name: `"zz_postern_lookup_${id}"`, event: 'INSERT OR DELETE', when: false },
    { name: `"zz_postern_lookup_${id}_update"`, event: 'UPDATE', when: true },
  ];
}

/** The values of all rows, from where the rows are to where the values hash. No row changes meanwhile: the triggers lock the leaves. */
async function fill(
  world: LookupWorld,
  table: TableOfLookup,
  spec: UniqueSpec,
  first: FirstColumn,
): Promise<void> {
  const { columns, name } = spec;
  const branches = [world.home, ...world.others];
  const [firstColumn] = columns.map(quoteIdentifier);
  const known = columns.map((column) => `${quoteIdentifier(column)} IS NOT NULL`).join(' AND ');
  const values = [
    ...columns.map((column) => `${quoteLiteral(column)}, ${quoteIdentifier(column)}`),
    `${quoteLiteral(LOOKUP_KEY)}, ${quoteIdentifier(table.keyColumn)}`,
  ].join(', ');
  const bucket = bucketExpression(first, firstColumn!, table.buckets.length);
  for (const source of branches) {
    const leaves = bucketsOn(table, source).map((one) => leafOf(table, table.name, one));
    if (leaves.length === 0) continue;
    const rows = leaves.map(
      (leaf) =>
        `SELECT ${bucket} AS bucket, pg_catalog.json_build_object(${values})::text AS row FROM ${leaf} WHERE ${known}`,
    );
    // All rows, and not those that policies show to their owner.
    const forced = await source.query(
      'SELECT FROM pg_class WHERE oid = $1::regclass AND relforcerowsecurity',
      [leaves[0]],
    );
    const force = (word: string) =>
      forced.length === 0 ? [] : leaves.map((leaf) => `ALTER TABLE ${leaf} ${word} ROW LEVEL SECURITY`);
    await source.run(
      [...force('NO FORCE'), `DECLARE postern_fill NO SCROLL CURSOR FOR ${rows.join(' UNION ALL ')}`],
      'pg_catalog',
    );
    for (;;) {
      const fetched = await source.texts(`FETCH ${PORTION_ROWS} FROM postern_fill`);
      await put(branches, table, { name, spec, fetched });
      if (fetched.length < PORTION_ROWS) break;
    }
    await source.run(['CLOSE postern_fill', ...force('FORCE')], 'pg_catalog');
  }
}

async function put(
  branches: readonly DdlBranch[],
  table: TableOfLookup,
  options: { name: string; spec: UniqueSpec; fetched: readonly (readonly (string | null)[])[] },
): Promise<void> {
  const { name, spec, fetched } = options;
  const byBucket = new Map<number, string[]>();
  for (const [bucket, row] of fetched) {
    const rows = byBucket.get(Number(bucket));
    if (rows) rows.push(row!);
    else byBucket.set(Number(bucket), [row!]);
  }
  for (const branch of branches) {
    const statements = bucketsOn(table, branch).flatMap((bucket) => {
      const rows = byBucket.get(bucket);
      if (!rows) return [];
      const kept = leafOf(table, lookupName(name), bucket);
      return [
        `INSERT INTO ${kept} SELECT * FROM pg_catalog.json_populate_recordset(NULL::${kept}, ${quoteLiteral(`[${rows.join(',')}]`)})`,
      ];
    });
    if (statements.length === 0) continue;
    await branch.run(statements, 'pg_catalog').catch((error: unknown) => {
      throw inUsersTerms(error, spec);
    });
  }
}

/** HASH_PARTITION_SEED of PostgreSQL's partitioning, and what hash_combine64(0, h) adds to h. */
const PARTITION_SEED = '8816678312871386365';
const COMBINE_OFFSET = BigInt('0x49a0f4dd15e5a8e3').toString();
const UNSIGNED = (2n ** 64n).toString();

/** The bucket of a value, as the router finds it (execute/route.ts). */
function bucketExpression({ type, hashFunction }: FirstColumn, column: string, bucketCount: number): string {
  let value = column;
  // Before PostgreSQL 18, two types were hashed by the functions of others.
  if (type === 'timestamptz' && hashFunction.endsWith('timestamp_hash_extended'))
    value = `${column} AT TIME ZONE 'UTC'`;
  if (type === 'date' && hashFunction.endsWith('hashint4extended'))
    value = `CASE ${column} WHEN 'infinity' THEN 2147483647 WHEN '-infinity' THEN -2147483648 ELSE ${column} - '2000-01-01'::date END`;
  const hash = `${hashFunction}(${value}, ${PARTITION_SEED})::numeric`;
  return `mod(mod(${hash} + ${UNSIGNED} + ${COMBINE_OFFSET}, ${UNSIGNED}), ${bucketCount})::int4`;
}

/** Throws if a column is not there, or its equality is not that of its text. */
export async function readUniqueColumns(
  home: SqlConnection,
  table: Pick<TableOfLookup, 'schema' | 'name'>,
  { columns }: UniqueSpec,
): Promise<FirstColumn> {
  const face = quoteLiteral(quoteQualified(table.schema, table.name));
  let first: FirstColumn | undefined;
  for (const column of columns) {
    const [row] = await home.query<{
      type: string;
      deterministic: boolean;
      hash_function: string | null;
    }>(
      `SELECT t.typname AS type, coalesce(l.collisdeterministic, true) AS deterministic, (
         SELECT format('%I.%I', fn.nspname, f.proname) FROM pg_opclass o
         JOIN pg_amproc p ON p.amprocfamily = o.opcfamily AND p.amproclefttype = o.opcintype
           AND p.amprocrighttype = o.opcintype AND p.amprocnum = 2
         JOIN pg_proc f ON f.oid = p.amproc JOIN pg_namespace fn ON fn.oid = f.pronamespace
         WHERE o.opcmethod = (SELECT oid FROM pg_am WHERE amname = 'hash') AND o.opcdefault
           AND o.opcintype = CASE a.atttypid WHEN 'varchar'::regtype THEN 'text'::regtype ELSE a.atttypid END) AS hash_function
       FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid AND t.typnamespace = 'pg_catalog'::regnamespace
       LEFT JOIN pg_collation l ON l.oid = a.attcollation
       WHERE a.attrelid = ${face}::regclass AND a.attname = ${quoteLiteral(column)} AND a.attnum > 0 AND NOT a.attisdropped
         AND a.attgenerated = ''`,
    );
    const type = HASHED_TYPES.find((name) => name === row?.type);
    if (!row || !type || !row.hash_function || !row.deterministic)
      throw await refusedColumn(home, table, column);
    first ??= { type, hashFunction: row.hash_function };
  }
  return first!;
}

async function refusedColumn(
  home: SqlConnection,
  table: Pick<TableOfLookup, 'schema' | 'name'>,
  column: string,
): Promise<PosternError> {
  const face = quoteLiteral(quoteQualified(table.schema, table.name));
  const found = await home.query(
    `SELECT FROM pg_attribute WHERE attrelid = ${face}::regclass AND attname = ${quoteLiteral(column)} AND attnum > 0 AND NOT attisdropped`,
  );
  if (found.length === 0) return objectError('42703', `column "${column}" named in key does not exist`);
  return notSupported(
    `column "${column}" cannot be unique over all nodes`,
    `Use a column of one of these types: ${HASHED_TYPES.join(', ')}; or add the shard key to the constraint.`,
    'It is generated, or its type or its collation has equal values that are written in more than one way.',
  );
}

/** Duplicates are told as PostgreSQL tells them when it builds an index. */
function inUsersTerms(error: unknown, { name }: UniqueSpec): unknown {
  if (!(error instanceof ServerError) || error.sqlState !== '23505') return error;
  const detail = error.fields.get('D')?.replace('already exists', 'is duplicated');
  return new PosternError({
    sqlState: '23505',
    message: `could not create unique index "${name}"`,
    ...(detail !== undefined && { detail }),
  });
}

function bucketsOn({ buckets }: TableOfLookup, { nodeId }: DdlBranch): number[] {
  return [...buckets.keys()].filter((bucket) => buckets[bucket]!.nodeId === nodeId);
}

function generationOf({ buckets }: TableOfLookup, bucket: number): number {
  return buckets[bucket]!.generation;
}

function leafOf(table: TableOfLookup, name: string, bucket: number): string {
  return quoteQualified(LEAF_SCHEMA, leafName(name, bucket, generationOf(table, bucket)));
}

function textArray(values: readonly string[]): string {
  return `ARRAY[${values.map(quoteLiteral).join(', ')}]::text[]`;
}

/**
 * Which bucket a keyed statement goes to, from the values of its key: computed here where the value is plain, asked of
 * the server where it is not (a date in the client's DateStyle, say).
 *
 * Next hop: session/lease.ts gets a backend of the bucket's node.
 */

import type { Rows } from '../backend/internal-query.ts';
import { assert, unreachable } from '../base/assert.ts';
import { invalidParameter, notSupported, PosternError } from '../base/errors.ts';
import type { ShardedTable } from '../catalog/map.ts';
import { placeExpression, placeOfText } from '../catalog/placement-sql.ts';
import {
  ASK_SERVER,
  bucketOfBinary,
  bucketOfInteger,
  bucketOfNull,
  bucketOfText,
  bucketOfTextBytes,
  isComparable,
} from '../pg/hash/bucket.ts';
import { NO_TYPE_MODIFIER } from '../pg/hash/key-hash.ts';
import type { KeyTypeName } from '../pg/hash/key-type.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import { BY_HASH } from '../pg/key/directory.ts';
import { type KeyValue, keyValueOfBinary, keyValueOfText } from '../pg/key/key-value.ts';
import { OID } from '../pg/oid.ts';
import type { KeyLimit } from '../plan/key-limits.ts';
import type { KeySource, Placement } from '../plan/plan.ts';
import type { BindView } from '../wire/frontend.ts';

export type Keyed = Extract<Placement, { kind: 'keyed' }>;

/** The values that a statement is executed with. */
export interface KeyValues {
  /** Extended protocol: the Bind message and the parameters' declared or inferred types. */
  readonly bind:
    | { readonly view: BindView; readonly buffer: Buffer; readonly oids: readonly number[] }
    | undefined;
  /** By index in `suppliedIds`. */
  readonly ids: readonly number[];
}

/** HASH_PARTITION_SEED of PostgreSQL's partitioning, as a signed 64-bit number. */
const PARTITION_SEED = '8816678312871386365';
/** Columns of one SELECT, of which PostgreSQL allows 1664. */
const ASKED_AT_ONCE = 500;
/** What hash_combine64(0, h) adds to h. */
const COMBINE_OFFSET = 0x49a0f4dd15e5a8e3n;

/** The keys are of several buckets, and the plan says what is done then. */
export const SEVERAL = -2;

/** The bucket that all key values agree on, ASK_SERVER or SEVERAL. Throws 0A000 when they can't be compared. */
export function bucketOf(keyed: Keyed, values: KeyValues): number {
  let agreed = ASK_SERVER;
  let first = true;
  for (const source of keyed.keys) {
    const bucket = bucketOfSource(keyed.table, source, values);
    if (bucket === ASK_SERVER) return ASK_SERVER;
    if (!first && bucket !== agreed) return severalBuckets(keyed);
    agreed = bucket;
    first = false;
  }
  return agreed;
}

/** The one way from a key to its bucket, whatever the table's placement. */
function bucketOfSource(table: ShardedTable, source: KeySource, values: KeyValues): number {
  if (table.directory !== undefined) {
    const bucket = bucketByDirectory(table, source, values);
    if (bucket !== BY_HASH) return bucket;
  }
  return bucketByHash(table, source, values);
}

/** BY_HASH: it is in no list, and there are buckets for such keys. */
function bucketByDirectory(table: ShardedTable, source: KeySource, values: KeyValues): number {
  const { directory } = table;
  assert(directory, 'the table has a directory');
  const value = keyValueOf(table, source, values);
  if (value === null) return directory.bucketOfNull();
  return value === undefined ? ASK_SERVER : directory.bucketOf(value);
}

/** undefined: only a server is sure of it. */
function keyValueOf(
  table: Pick<ShardedTable, 'keyType' | 'keyTypeModifier' | 'name'>,
  source: KeySource,
  values: KeyValues,
): KeyValue | null | undefined {
  const { keyType, keyTypeModifier } = table;
  switch (source.kind) {
    case 'literal': {
      if (source.text === null) return null;
      const bytes = Buffer.from(source.text);
      return keyValueOfText(widest(keyType), bytes, 0, bytes.length, keyTypeModifier);
    }
    case 'suppliedId':
      return values.ids[source.idIndex]!;
    case 'parameter': {
      const { bind } = values;
      const { index } = source;
      if (!bind || index >= bind.view.parameterCount) return undefined;
      const oid = bind.oids[index] ?? OID.unspecified;
      if (!isComparable(keyType, oid)) throw otherType(table, index);
      const length = bind.view.parameterLength(index);
      if (length < 0) return null;
      const start = bind.view.parameterStart(index);
      if (bind.view.parameterFormat(index) === 1)
        return keyValueOfBinary(keyType, oid, bind.buffer, start, start + length, keyTypeModifier);
      const type = oid === OID.int8 ? widest(keyType) : keyType;
      return keyValueOfText(type, bind.buffer, start, start + length, keyTypeModifier);
    }
    default:
      return unreachable(source);
  }
}

function bucketByHash(table: ShardedTable, source: KeySource, values: KeyValues): number {
  const count = table.placement.hashBuckets;
  switch (source.kind) {
    case 'literal':
      return source.text === null
        ? bucketOfNull()
        : bucketOfText(widest(table.keyType), source.text, count, table.keyTypeModifier);
    case 'suppliedId':
      return bucketOfInteger(integerType(table.keyType), values.ids[source.idIndex]!, count);
    case 'parameter':
      return bucketOfParameter(table, source.index, values);
    default:
      return unreachable(source);
  }
}

function bucketOfParameter(table: ShardedTable, index: number, values: KeyValues): number {
  const { bind } = values;
  if (!bind || index >= bind.view.parameterCount) return ASK_SERVER;
  const oid = bind.oids[index] ?? OID.unspecified;
  if (!isComparable(table.keyType, oid)) throw otherType(table, index);
  const length = bind.view.parameterLength(index);
  if (length < 0) return bucketOfNull();
  const start = bind.view.parameterStart(index);
  const count = table.placement.hashBuckets;
  return bind.view.parameterFormat(index) === 1
    ? bucketOfBinary(table.keyType, oid, bind.buffer, start, start + length, count, table.keyTypeModifier)
    : bucketOfTextBytes(
        oid === OID.int8 ? widest(table.keyType) : table.keyType,
        bind.buffer,
        start,
        start + length,
        count,
        table.keyTypeModifier,
      );
}

/** The bucket by the server's own hash function, as bucketOf() gives it. */
export async function askBucket(
  keyed: Keyed,
  values: KeyValues,
  ask: (text: string) => Promise<Rows>,
): Promise<number> {
  const buckets = await bucketsOf(keyed.table, keyed.keys, values, ask);
  const [agreed] = buckets;
  assert(agreed !== undefined, 'a keyed statement has a key');
  return buckets.some((bucket) => bucket !== agreed) ? severalBuckets(keyed) : agreed;
}

/**
 * The bucket of each key. Where the router can't be sure, a server computes it: `ask` runs a query with the client's
 * settings; a value that the server refuses is refused in its words.
 */
export async function bucketsOf(
  table: ShardedTable,
  sources: readonly KeySource[],
  values: KeyValues,
  ask: (text: string) => Promise<Rows>,
): Promise<number[]> {
  const buckets: number[] = [];
  const unsure: { readonly index: number; readonly text: string }[] = [];
  for (const [index, source] of sources.entries()) {
    const bucket = bucketOfSource(table, source, values);
    buckets.push(bucket);
    if (bucket === ASK_SERVER) unsure.push({ index, text: textOf(table, source, values) });
  }
  for (let start = 0; start < unsure.length; start += ASKED_AT_ONCE) {
    const asked = unsure.slice(start, start + ASKED_AT_ONCE);
    const places = asked.map(({ text }) =>
      placeExpression(table.placement, table.keyType, {
        value: `${quoteLiteral(text)}::${table.keyTypeText}`,
        hash: `${table.hashFunction}(${hashedValue(table, text)}, ${PARTITION_SEED})`,
      }),
    );
    const [row = []] = await ask(`SELECT ${places.join(', ')}`);
    for (const [i, { index }] of asked.entries())
      buckets[index] = placeOfText(table.placement, row[i] ?? '', (hash) => bucketOfServersHash(table, hash));
  }
  return buckets;
}

function bucketOfServersHash(table: ShardedTable, hash: string): number {
  const rowHash = BigInt.asUintN(64, BigInt.asUintN(64, BigInt(hash)) + COMBINE_OFFSET);
  return Number(rowHash % BigInt(table.placement.hashBuckets));
}

/** Of a table that is sharded by range: the buckets that keys within the limits can be in, and at least one. */
export function bucketsWithin(
  table: ShardedTable,
  limits: readonly KeyLimit[],
  values: KeyValues,
): readonly number[] {
  const { directory } = table;
  let low = 0;
  let high = table.buckets.length - 1;
  for (const { comparison, value: source } of limits) {
    const value = limitValueOf(table, source, values);
    if (!directory || value === undefined || value === null) continue;
    const bucket = directory.rangeOf(value);
    if (comparison === '>' || comparison === '>=') low = Math.max(low, bucket);
    else high = Math.min(high, comparison === '<' && directory.isBound(value) ? bucket - 1 : bucket);
  }
  // No key satisfies all of them: one bucket says so.
  if (low > high) return [low];
  return Array.from({ length: high - low + 1 }, (_, i) => low + i);
}

/** As it is compared: not made to fit the column, as a value that is stored is. */
function limitValueOf(
  table: ShardedTable,
  source: KeySource,
  values: KeyValues,
): KeyValue | null | undefined {
  if (source.kind === 'parameter') {
    const oid = values.bind?.oids[source.index] ?? OID.unspecified;
    if (!isComparable(table.keyType, oid)) return undefined;
  }
  return keyValueOf(
    { keyType: table.keyType, keyTypeModifier: NO_TYPE_MODIFIER, name: table.name },
    source,
    values,
  );
}

/** The bucket of an id that the router supplies. */
export function bucketOfId(table: ShardedTable, id: number): number {
  const listed = table.directory?.bucketOf(id) ?? BY_HASH;
  if (listed !== BY_HASH) return listed;
  return bucketOfInteger(integerType(table.keyType), id, table.placement.hashBuckets);
}

/** Before PostgreSQL 18, two types were hashed by the functions of others, which take their bytes but no value of theirs. */
function hashedValue({ keyType, keyTypeText, hashFunction }: ShardedTable, text: string): string {
  const value = `${quoteLiteral(text)}::${keyTypeText}`;
  if (keyType === 'timestamptz' && hashFunction.endsWith('timestamp_hash_extended'))
    return `${value} AT TIME ZONE 'UTC'`;
  if (keyType === 'date' && hashFunction.endsWith('hashint4extended'))
    return `CASE ${value} WHEN 'infinity' THEN 2147483647 WHEN '-infinity' THEN -2147483648 ELSE ${value} - '2000-01-01'::date END`;
  return value;
}

function textOf(table: ShardedTable, source: KeySource, values: KeyValues): string {
  if (source.kind === 'literal' && source.text !== null) return source.text;
  // In the simple protocol.
  if (source.kind === 'parameter' && !values.bind)
    throw new PosternError({ sqlState: '42P02', message: `there is no parameter $${source.index + 1}` });
  if (source.kind === 'parameter' && values.bind) {
    const { view, buffer } = values.bind;
    if (source.index < view.parameterCount && view.parameterFormat(source.index) === 0) {
      const start = view.parameterStart(source.index);
      return buffer.toString('utf8', start, start + view.parameterLength(source.index));
    }
  }
  throw invalidParameter(`the value of the key of table "${table.name}" cannot be read`);
}

/** PostgreSQL compares a smaller integer with a larger one as the larger; equal values hash alike. */
function widest(type: KeyTypeName): KeyTypeName {
  return type === 'int2' || type === 'int4' ? 'int8' : type;
}

function integerType(type: KeyTypeName): 'int2' | 'int4' | 'int8' {
  if (type === 'int2' || type === 'int4' || type === 'int8') return type;
  throw notSupported('ids are supplied for integer keys only', 'Give the key in the INSERT.');
}

function severalBuckets({ table, several }: Keyed): number {
  if (several) return SEVERAL;
  throw notSupported(
    `the statement names rows of several buckets of table "${table.name}"`,
    `Send one statement for each value of "${table.keyColumn}".`,
  );
}

function otherType(table: Pick<ShardedTable, 'name' | 'keyType'>, index: number): Error {
  return notSupported(
    `parameter $${index + 1} is compared with the key of table "${table.name}" under another type`,
    `Declare it as ${table.keyType}, or write $${index + 1}::${table.keyType}.`,
  );
}

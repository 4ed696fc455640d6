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
import {
  ASK_SERVER,
  bucketOfBinary,
  bucketOfInteger,
  bucketOfNull,
  bucketOfText,
  bucketOfTextBytes,
  isComparable,
} from '../pg/hash/bucket.ts';
import type { KeyTypeName } from '../pg/hash/key-type.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import { OID } from '../pg/oid.ts';
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

function bucketOfSource(table: ShardedTable, source: KeySource, values: KeyValues): number {
  const count = table.buckets.length;
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
  const count = table.buckets.length;
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
    const hashes = asked.map(
      ({ text }) => `${table.hashFunction}(${hashedValue(table, text)}, ${PARTITION_SEED})`,
    );
    const [row = []] = await ask(`SELECT ${hashes.join(', ')}`);
    for (const [i, { index }] of asked.entries()) {
      const rowHash = BigInt.asUintN(64, BigInt.asUintN(64, BigInt(row[i] ?? 0)) + COMBINE_OFFSET);
      buckets[index] = Number(rowHash % BigInt(table.buckets.length));
    }
  }
  return buckets;
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

function otherType(table: ShardedTable, index: number): Error {
  return notSupported(
    `parameter $${index + 1} is compared with the key of table "${table.name}" under another type`,
    `Declare it as ${table.keyType}, or write $${index + 1}::${table.keyType}.`,
  );
}

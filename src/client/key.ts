/** From a key, as an application has it, to its bucket. */
import { invalidParameter } from '../base/errors.ts';
import { ASK_SERVER, bucketOfNull, bucketOfText } from '../pg/hash/bucket.ts';
import type { KeyTypeName } from '../pg/hash/key-type.ts';
import { BY_HASH } from '../pg/key/directory.ts';
import { keyValueOfText } from '../pg/key/key-value.ts';
import type { TablePlaces } from './places-map.ts';

/** A Date is an instant: for keys of type timestamptz. */
export type KeyInput = string | number | bigint | Date | null;

export function bucketOfKey(table: TablePlaces, key: KeyInput): number {
  const { directory, keyType, keyTypeModifier, hashBuckets } = table;
  if (key === null) return directory ? directory.bucketOfNull() : bucketOfNull();
  const text = textOf(table, key);
  const type = widest(keyType);
  if (directory) {
    const bytes = Buffer.from(text);
    const value = keyValueOfText(type, bytes, 0, bytes.length, keyTypeModifier);
    if (value === undefined) throw uncertain(table, text);
    const bucket = directory.bucketOf(value);
    if (bucket !== BY_HASH) return bucket;
  }
  const bucket = bucketOfText(type, text, hashBuckets, keyTypeModifier);
  if (bucket === ASK_SERVER) throw uncertain(table, text);
  return bucket;
}

function textOf({ keyType, keyColumn }: TablePlaces, key: Exclude<KeyInput, null>): string {
  if (!(key instanceof Date)) return String(key);
  if (keyType === 'timestamptz' && !Number.isNaN(key.getTime())) return key.toISOString();
  throw invalidParameter(
    `a Date cannot be the key "${keyColumn}" of type ${keyType}`,
    'Give it as a string, as PostgreSQL prints it.',
  );
}

/** A smaller integer is compared as the larger one. */
function widest(type: KeyTypeName): KeyTypeName {
  return type === 'int2' || type === 'int4' ? 'int8' : type;
}

function uncertain({ name, keyColumn, keyType }: TablePlaces, text: string): Error {
  return invalidParameter(
    `"${text}" is not certain as the key "${keyColumn}" of table "${name}"`,
    `Give a value of type ${keyType} as PostgreSQL prints it, with DateStyle ISO and an offset.`,
  );
}

/**
 * What a client says about the placement of a table's keys (its method, bounds, lists of values), read as values of the key's
 * type by the server, and checked.
 *
 * Invariant: bounds and values are kept as PostgreSQL prints them with DateStyle ISO and TimeZone UTC, are read under these
 * settings whoever sends them, and are such that each router is sure of them (pg/key).
 */
import { BOUNDS } from '../../base/bounds.ts';
import { invalidParameter, notSupported } from '../../base/errors.ts';
import type { TablePlacement } from '../../catalog/map.ts';
import { isOfCharacters } from '../../catalog/placement-sql.ts';
import type { SqlConnection } from '../../ddl/context.ts';
import type { KeyTypeName } from '../../pg/hash/key-type.ts';
import { keyValueOfBound } from '../../pg/key/directory.ts';
import type { PlacementOptions } from '../../plan/placement-options.ts';

const BUCKET_COUNT_DEFAULT = 32;

/** `connection` has a transaction open, with search_path pg_catalog. */
export async function readPlacement(
  connection: SqlConnection,
  keyType: KeyTypeName,
  options: PlacementOptions,
): Promise<TablePlacement> {
  switch (options.method) {
    case 'hash':
      return {
        method: 'hash',
        hashBuckets: options.bucketCount ?? BUCKET_COUNT_DEFAULT,
        bounds: [],
        lists: [],
      };
    case 'range': {
      const [bounds = []] = await readValues(connection, keyType, [options.bounds]);
      checkBounds(bounds);
      return { method: 'range', hashBuckets: 0, bounds: bounds.map(({ text }) => text), lists: [] };
    }
    case 'list': {
      const lists = await readValues(connection, keyType, options.lists);
      const texts = lists.map((list) => list.map(({ text }) => text));
      checkLists(keyType, texts);
      const hashBuckets = options.bucketCount ?? 0;
      if (hashBuckets + lists.length === 0)
        throw invalidParameter(
          'a table that is sharded by list needs values, or buckets for those that are not listed',
          "Give postern.values = '{acme,globex}', or postern.buckets, or both.",
        );
      checkCount(hashBuckets + lists.length);
      return { method: 'list', hashBuckets, bounds: [], lists: texts };
    }
  }
}

/** One value of the key's type, as it is kept. */
export async function readKey(
  connection: SqlConnection,
  keyType: KeyTypeName,
  text: string,
): Promise<string> {
  await readUnderFixedSettings(connection);
  const [row] = await connection.query<{ text: string }>(
    `SELECT $1::text::pg_catalog.${keyType}::text AS text`,
    [text],
  );
  return checkedText(keyType, row?.text ?? null);
}

async function readUnderFixedSettings(connection: SqlConnection): Promise<void> {
  await connection.query(
    `SELECT set_config('datestyle', 'ISO, YMD', true), set_config('timezone', 'UTC', true)`,
  );
}

interface ReadValue {
  readonly text: string;
  readonly ascends: boolean;
}

/** Array texts to values, in their order. The server refuses in its own words what is no value of the type. */
async function readValues(
  connection: SqlConnection,
  keyType: KeyTypeName,
  arrays: readonly string[],
): Promise<ReadValue[][]> {
  await readUnderFixedSettings(connection);
  const value = isOfCharacters(keyType) ? 'v COLLATE "C"' : 'v';
  const lists: ReadValue[][] = [];
  for (const array of arrays) {
    const rows = await connection.query<{ text: string | null; ascends: boolean }>(
      `SELECT v::text AS text, coalesce(${value} > lag(${value}) OVER (ORDER BY place), true) AS ascends
       FROM unnest($1::pg_catalog.${keyType}[]) WITH ORDINALITY AS given (v, place) ORDER BY place`,
      [array],
    );
    lists.push(rows.map(({ text, ascends }) => ({ text: checkedText(keyType, text), ascends })));
  }
  return lists;
}

function checkedText(keyType: KeyTypeName, text: string | null): string {
  if (text === null)
    throw invalidParameter(
      'NULL cannot be a bound or a listed value',
      'Leave it out: NULL has no bucket of its own.',
    );
  if (keyValueOfBound(keyType, text) !== undefined) return text;
  throw notSupported(
    `"${text}" cannot be a bound or a listed value`,
    'Give finite values, and dates of the years 1 to 9999.',
  );
}

function checkBounds(bounds: readonly ReadValue[]): void {
  if (bounds.length === 0)
    throw invalidParameter(
      'a table that is sharded by range needs bounds',
      "Give postern.bounds = '{100,200}': three buckets, of which the first ends below 100 and the last begins at 200.",
    );
  const wrong = bounds.findIndex(({ ascends }) => !ascends);
  if (wrong >= 0)
    throw invalidParameter(
      `the bounds do not ascend: "${bounds[wrong]!.text}" comes after "${bounds[wrong - 1]!.text}"`,
      'Give each bound once, the lowest first.',
    );
  checkCount(bounds.length + 1);
}

function checkLists(keyType: KeyTypeName, lists: readonly (readonly string[])[]): void {
  if (lists.some((list) => list.length === 0))
    throw invalidParameter('a list of values is empty', 'Give each bucket at least one value.');
  const seen = new Set<unknown>();
  for (const text of lists.flat()) {
    const value = keyValueOfBound(keyType, text);
    if (seen.has(value)) throw invalidParameter(`the value "${text}" is listed twice`);
    seen.add(value);
  }
}

function checkCount(count: number): void {
  if (count <= BOUNDS.bucketsMax) return;
  throw invalidParameter(`the table would have ${count} buckets`, `It can have up to ${BOUNDS.bucketsMax}.`);
}

/** The router's hash against PostgreSQL's own: over random keys of each type, in text and binary format, on 18 and 15. */
import fc from 'fast-check';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { keyTexts, mutatedKeyTexts } from '../../../test/support/key-texts.ts';
import { isVersionInstalled, startTestServer, type TestServer } from '../../../test/support/servers.ts';
import { OID } from '../oid.ts';
import { ASK_SERVER, bucketOfBinary, bucketOfText } from './bucket.ts';
import { hashKeyText, NO_TYPE_MODIFIER } from './key-hash.ts';
import type { KeyTypeName } from './key-type.ts';

const PARTITION_SEED = 0x7a5b22367996dcfdn;
const KEYS_PER_TYPE = 4000;
const BUCKET_COUNTS = [16, 23];
const SEND_FUNCTION: Record<KeyTypeName, string> = {
  int2: 'int2send',
  int4: 'int4send',
  int8: 'int8send',
  text: 'textsend',
  varchar: 'varcharsend',
  bpchar: 'bpcharsend',
  uuid: 'uuid_send',
  date: 'date_send',
  timestamp: 'timestamp_send',
  timestamptz: 'timestamptz_send',
  numeric: 'numeric_send',
};
const KEY_TYPES = Object.keys(SEND_FUNCTION) as KeyTypeName[];
/** Types whose modifier changes values, with modifiers that do it often to the keys of key-texts.ts. */
const MODIFIED_TYPES: readonly [KeyTypeName, string][] = [
  ['varchar', 'varchar(3)'],
  ['numeric', 'numeric(1000,2)'],
  ['numeric', 'numeric(1000,0)'],
  ['timestamp', 'timestamp(0)'],
  ['timestamptz', 'timestamptz(2)'],
];
/** Under which no key that the router takes may mean something else. */
const SETTINGS: readonly [dateStyle: string, timeZone: string][] = [
  ['ISO, MDY', 'UTC'],
  ['German, DMY', 'Asia/Kolkata'],
  ['SQL, DMY', 'America/St_Johns'],
  ['Postgres, YMD', 'Pacific/Apia'],
];

interface ServerRow {
  hash: string;
  buckets: number[];
  binary: string;
}

const VERSIONS = [18, 15] as const;
const installed = new Map(
  await Promise.all(VERSIONS.map(async (version) => [version, await isVersionInstalled(version)] as const)),
);

describe.each(VERSIONS.map((version) => [version]))('PostgreSQL %i', (version) => {
  describe.skipIf(!installed.get(version))('hashes keys as the router does', () => {
    let server: TestServer;
    let client: pg.Client;

    beforeAll(async () => {
      server = await startTestServer({ version });
      client = new pg.Client({ connectionString: server.dsn() });
      await client.connect();
      for (const type of KEY_TYPES) {
        await client.query(`CREATE TABLE face_${type} (k ${type}) PARTITION BY HASH (k)`);
      }
    });

    afterAll(async () => {
      await client?.end();
      await server?.stop();
    });

    /** The keys' opclass hash with the partition seed, buckets and binary form, as the server sees them. */
    async function askServer(
      type: KeyTypeName,
      texts: readonly string[],
      castTo: string = type,
    ): Promise<ServerRow[]> {
      // The hash of an array of one is 31 plus the element's, which its type's own operator class computes.
      const { rows } = await client.query<ServerRow>(
        `SELECT hash_array_extended(ARRAY[k], $2)::text AS hash,
                encode(${SEND_FUNCTION[type]}(k), 'hex') AS binary,
                ARRAY(SELECT remainder
                      FROM unnest($3::int[]) WITH ORDINALITY AS counts(modulus, position),
                           generate_series(0, modulus - 1) AS remainder
                      WHERE satisfies_hash_partition('face_${type}'::regclass, modulus, remainder, k)
                      ORDER BY position) AS buckets
         FROM unnest($1::text[]) WITH ORDINALITY AS keys(key, position), CAST(key AS ${castTo}) AS k
         ORDER BY position`,
        [texts, BigInt.asIntN(64, PARTITION_SEED), BUCKET_COUNTS],
      );
      return rows;
    }

    function expectEqual(type: KeyTypeName, texts: readonly string[], rows: readonly ServerRow[]): void {
      expect(rows.length).toBe(texts.length);
      const wrong: unknown[] = [];
      for (const [index, text] of texts.entries()) {
        const row = rows[index]!;
        const expected = { hash: BigInt.asUintN(64, BigInt(row.hash) - 31n), buckets: row.buckets };
        const actual = {
          hash: hashOfText(type, text),
          buckets: BUCKET_COUNTS.map((bucketCount) => bucketOfText(type, text, bucketCount)),
        };
        if (actual.hash !== expected.hash || `${actual.buckets}` !== `${expected.buckets}`) {
          wrong.push({ text, actual, expected });
        }
      }
      expect(wrong).toEqual([]);
    }

    test.each(KEY_TYPES)('%s, text format', async (type) => {
      const texts = fc.sample(keyTexts(type), { numRuns: KEYS_PER_TYPE, seed: version });
      expectEqual(type, texts, await askServer(type, texts));
    });

    test.each(KEY_TYPES)('%s, binary format', async (type) => {
      const texts = fc.sample(keyTexts(type), { numRuns: KEYS_PER_TYPE, seed: version + 1 });
      const wrong: unknown[] = [];
      for (const [index, row] of (await askServer(type, texts)).entries()) {
        const binary = Buffer.from(`aa${row.binary}aa`, 'hex');
        for (const oid of [OID.unspecified, OID[type]]) {
          const buckets = BUCKET_COUNTS.map((bucketCount) =>
            bucketOfBinary(type, oid, binary, 1, binary.length - 1, bucketCount),
          );
          if (`${buckets}` !== `${row.buckets}`) wrong.push({ text: texts[index], oid, buckets, row });
        }
      }
      expect(wrong).toEqual([]);
    });

    test.each(KEY_TYPES)(
      '%s: what the router takes of mutated text, the server takes for the same',
      async (type) => {
        const candidates = fc.sample(mutatedKeyTexts(type), {
          numRuns: 4 * KEYS_PER_TYPE,
          seed: version + 2,
        });
        const texts = candidates.filter((text) => bucketOfText(type, text, 16) !== ASK_SERVER);
        expect(texts.length).toBeGreaterThan(KEYS_PER_TYPE / 10);
        expectEqual(type, texts, await askServer(type, texts));
      },
    );

    test.each(MODIFIED_TYPES)(
      '%s as %s: values that the column changes are not taken',
      async (type, castTo) => {
        const candidates = fc.sample(keyTexts(type), { numRuns: KEYS_PER_TYPE, seed: version + 3 });
        const column = `modified_${MODIFIED_TYPES.findIndex(([, modified]) => modified === castTo)}`;
        await client.query(`CREATE TABLE ${column} (k ${castTo})`);
        const { rows } = await client.query<{ atttypmod: number }>(
          `SELECT atttypmod FROM pg_attribute WHERE attrelid = '${column}'::regclass AND attname = 'k'`,
        );
        const modifier = rows[0]!.atttypmod;
        const isTaken = (text: string) => bucketOfText(type, text, 16, modifier) !== ASK_SERVER;
        const texts = candidates.filter((text) => isTaken(text) && assignable(type, text));
        expect(texts.length).toBeGreaterThan(KEYS_PER_TYPE / 50);
        expect(texts.length).toBeLessThan(KEYS_PER_TYPE);
        const serverRows = await askServer(type, texts, castTo);
        expectEqual(type, texts, serverRows);
        for (const [index, row] of (await askServer(type, candidates, type)).entries()) {
          const binary = Buffer.from(row.binary, 'hex');
          const text = candidates[index]!;
          const bucket = bucketOfBinary(type, OID[type], binary, 0, binary.length, 16, modifier);
          expect([text, bucket]).toEqual([text, isTaken(text) ? row.buckets[0] : ASK_SERVER]);
        }
      },
    );

    test.each(['date', 'timestamp', 'timestamptz'] as const)(
      '%s under any DateStyle and TimeZone',
      async (type) => {
        const texts = fc.sample(keyTexts(type), { numRuns: KEYS_PER_TYPE / 4, seed: version + 4 });
        for (const [dateStyle, timeZone] of SETTINGS) {
          await client.query(`SELECT set_config('DateStyle', $1, false), set_config('TimeZone', $2, false)`, [
            dateStyle,
            timeZone,
          ]);
          expectEqual(type, texts, await askServer(type, texts));
        }
        await client.query('RESET DateStyle; RESET TimeZone');
      },
    );

    test('NULL is in bucket 0', async () => {
      const { rows } = await client.query(
        `SELECT satisfies_hash_partition('face_int8'::regclass, 23, 0, NULL::int8) AS zero`,
      );
      expect(rows).toEqual([{ zero: true }]);
    });
  });
});

/** Whether storing the text is no error: a column refuses more than a varchar(n)'s letters, and a numeric(p,s) infinity. */
function assignable(type: KeyTypeName, text: string): boolean {
  if (type === 'varchar') return [...text.replace(/ +$/, '')].length <= 3;
  return type !== 'numeric' || !/inf/i.test(text);
}

function hashOfText(type: KeyTypeName, text: string): bigint | undefined {
  const bytes = Buffer.from(text);
  const hash = { high: 0, low: 0 };
  if (!hashKeyText(hash, type, bytes, 0, bytes.length, NO_TYPE_MODIFIER)) return undefined;
  return (BigInt(hash.high >>> 0) << 32n) | BigInt(hash.low >>> 0);
}

/**
 * The router's choice of a bucket against PostgreSQL's own partition routing: random keys of each type into a table that is
 * partitioned by the very bounds and values, in text and binary, on 18 and 15.
 */
import fc from 'fast-check';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ShardedTable, TablePlacement } from '../../src/catalog/map.ts';
import { bucketCondition, isOfCharacters, partitionBound } from '../../src/catalog/placement-sql.ts';
import { bucketOf, bucketsOf, type Keyed } from '../../src/execute/route.ts';
import { ASK_SERVER } from '../../src/pg/hash/bucket.ts';
import type { KeyTypeName } from '../../src/pg/hash/key-type.ts';
import { KeyDirectory, keyValueOfBound } from '../../src/pg/key/directory.ts';
import { OID } from '../../src/pg/oid.ts';
import { BindView } from '../../src/wire/frontend.ts';
import { keyTexts, mutatedKeyTexts } from '../support/key-texts.ts';
import { isVersionInstalled, startTestServer, type TestServer } from '../support/servers.ts';

const KEYS = 300;
const RANGE_TYPES: readonly KeyTypeName[] = [
  ...([
    'int2',
    'int4',
    'int8',
    'numeric',
    'date',
    'timestamp',
    'timestamptz',
    'uuid',
    'text',
    'varchar',
  ] as const),
];
const LIST_TYPES: readonly KeyTypeName[] = [...RANGE_TYPES, 'bpchar'];

const VERSIONS = [18, 15] as const;
const installed = new Map(
  await Promise.all(VERSIONS.map(async (version) => [version, await isVersionInstalled(version)] as const)),
);

describe.each(VERSIONS.map((version) => [version]))('PostgreSQL %i', (version) => {
  describe.skipIf(!installed.get(version))('routes keys as the router does', () => {
    let server: TestServer;
    let client: pg.Client;

    beforeAll(async () => {
      server = await startTestServer({ version });
      client = new pg.Client({ connectionString: server.dsn() });
      await client.connect();
    });

    afterAll(async () => {
      await client?.end();
      await server?.stop();
    });

    test.each(RANGE_TYPES)('by ranges of %s', async (type) => {
      const bounds = await distinct(type, fc.sample(keyTexts(type), { numRuns: 12, seed: version }));
      const placement: TablePlacement = { method: 'range', hashBuckets: 0, bounds, lists: [] };
      await compare(type, placement);
    });

    test.each(LIST_TYPES)('by lists of %s', async (type) => {
      const values = await distinct(type, fc.sample(keyTexts(type), { numRuns: 20, seed: version }));
      const lists = [values.slice(0, 1), values.slice(1, 4), values.slice(4)];
      for (const hashBuckets of [0, 1, 5])
        await compare(type, { method: 'list', hashBuckets, bounds: [], lists });
      await compare(type, { method: 'hash', hashBuckets: 5, bounds: [], lists: [] });
    });

    /** As they are stored: printed by the server, each value once, in order, if a router is sure of them. */
    async function distinct(type: KeyTypeName, texts: readonly string[]): Promise<string[]> {
      const { rows } = await client.query<{ text: string }>(
        `SELECT v::text AS text FROM (SELECT DISTINCT v FROM unnest($1::${type}[]) AS given (v)) given
         ORDER BY v ${isOfCharacters(type) ? 'COLLATE "C"' : ''}`,
        [texts],
      );
      return rows.map(({ text }) => text).filter((text) => keyValueOfBound(type, text) !== undefined);
    }

    async function compare(type: KeyTypeName, placement: TablePlacement): Promise<void> {
      const table = await makeTable(type, placement);
      const own = [...placement.bounds, ...placement.lists.flat()];
      const drawn = [
        ...fc.sample(keyTexts(type), { numRuns: KEYS, seed: version + 1 }),
        ...fc.sample(mutatedKeyTexts(type), { numRuns: KEYS / 2, seed: version + 2 }),
        ...own,
      ];
      const texts = await valid(type, drawn);
      const expected = await byServer(type, texts);
      const asked: string[] = [];
      const sources = texts.map((text) => ({ kind: 'literal', text }) as const);
      const chosen = await bucketsOf(table, sources, { bind: undefined, ids: [] }, async (text) => {
        asked.push(text);
        return (await client.query<string[]>({ text, rowMode: 'array' })).rows.map((row) => row.map(String));
      });
      const wrong: unknown[] = [];
      for (const [index, { bucket, binary }] of expected.entries()) {
        const text = texts[index]!;
        // No partition takes it, and no bucket's condition: any bucket will say so.
        if (bucket !== null && chosen[index] !== bucket) wrong.push([text, chosen[index], bucket]);
        const inBinary = bucketOf(keyedBy(table), bindOf(Buffer.from(binary, 'hex'), OID[type]));
        if (bucket !== null && inBinary !== ASK_SERVER && inBinary !== bucket)
          wrong.push([text, binary, inBinary, bucket]);
      }
      expect(wrong).toEqual([]);
      expect(await byConditions(type, placement)).toEqual([]);
      const sure = texts.filter((text) => keyValueOfBound(type, text) !== undefined).length;
      expect(sure).toBeGreaterThan(texts.length / 2);
    }

    /** Those that the server takes for values of the type. */
    async function valid(type: KeyTypeName, texts: readonly string[]): Promise<string[]> {
      const kept: string[] = [];
      for (const text of texts) {
        const { rows } = await client.query(`SELECT $1::text::${type}`, [text]).catch(() => ({ rows: [] }));
        if (rows.length > 0) kept.push(text);
      }
      return kept;
    }

    /** A partition for each bucket; p is the table that they are of, `outside` takes what none takes. */
    async function makeTable(type: KeyTypeName, placement: TablePlacement): Promise<ShardedTable> {
      const column = `k ${type}${isOfCharacters(type) ? ' COLLATE "C"' : ''}`;
      const isMixed = placement.lists.length > 0 && placement.hashBuckets > 1;
      const strategy = placement.method === 'range' ? 'RANGE' : placement.lists.length > 0 ? 'LIST' : 'HASH';
      const texts = [
        `DROP TABLE IF EXISTS p, face; CREATE TABLE face (${column}) PARTITION BY HASH (k)`,
        `CREATE TABLE p (n int, ${column}) PARTITION BY ${strategy} (k)`,
      ];
      if (isMixed) texts.push('CREATE TABLE p_hash PARTITION OF p DEFAULT PARTITION BY HASH (k)');
      const count =
        placement.method === 'range'
          ? placement.bounds.length + 1
          : placement.hashBuckets + placement.lists.length;
      for (let bucket = 0; bucket < count; bucket++) {
        const parent = isMixed && bucket < placement.hashBuckets ? 'p_hash' : 'p';
        texts.push(
          `CREATE TABLE p_b${bucket} PARTITION OF ${parent} ${partitionBound(placement, type, bucket)}`,
        );
      }
      await client.query(texts.join(';\n'));
      const isHash = placement.method === 'hash';
      const { rows } = await client.query<{ name: string }>(
        `SELECT format('pg_catalog.%I', f.proname) AS name FROM pg_partitioned_table t JOIN pg_opclass o ON o.oid = t.partclass[0]
         JOIN pg_amproc a ON a.amprocfamily = o.opcfamily AND a.amproclefttype = o.opcintype AND a.amprocnum = 2
         JOIN pg_proc f ON f.oid = a.amproc WHERE t.partrelid = 'face'::regclass`,
      );
      return {
        ...{ name: 'p', keyColumn: 'k', keyType: type, keyTypeModifier: -1, keyTypeText: type },
        ...{ placement, hashFunction: rows[0]!.name },
        directory: isHash ? undefined : new KeyDirectory({ ...placement, keyType: type }),
        buckets: Array.from({ length: count }, () => ({ nodeId: 1, generation: 1 })),
      } as unknown as ShardedTable;
    }

    /** null: no partition takes it. */
    async function byServer(
      type: KeyTypeName,
      texts: readonly string[],
    ): Promise<{ bucket: number | null; binary: string }[]> {
      const send = type === 'uuid' || /^(date|time|num)/.test(type) ? `${type}_send` : `${type}send`;
      const results: { bucket: number | null; binary: string }[] = [];
      for (const [n, text] of texts.entries()) {
        const { rows } = await client
          .query<{ part: string; binary: string }>(
            `INSERT INTO p VALUES ($1, $2::text::${type}) RETURNING tableoid::regclass AS part, encode(${send}(k), 'hex') AS binary`,
            [n, text],
          )
          .catch((error: pg.DatabaseError) => {
            expect(error.code).toBe('23514');
            return { rows: [] };
          });
        const part = rows[0]?.part;
        results.push({
          bucket: part === undefined ? null : Number(part.slice(part.indexOf('_b') + 2)),
          binary: rows[0]?.binary ?? '',
        });
      }
      return results;
    }

    /** Rows of which not exactly the condition of their own bucket is true. */
    async function byConditions(type: KeyTypeName, placement: TablePlacement): Promise<unknown[]> {
      const { rows: parts } = await client.query<{ name: string }>(
        `SELECT relname AS name FROM pg_class WHERE relname ~ '^p_b[0-9]+$'`,
      );
      const conditions = parts.map(({ name }) => {
        const bucket = Number(name.slice(3));
        const condition = bucketCondition(placement, { name: 'k', type }, { face: 'public.face', bucket });
        return `(tableoid = '${name}'::regclass) IS DISTINCT FROM (${condition})`;
      });
      const { rows } = await client.query(`SELECT * FROM p WHERE ${conditions.join(' OR ')} LIMIT 5`);
      return rows;
    }
  });
});

function keyedBy(table: ShardedTable): Keyed {
  const keys = [{ kind: 'parameter', index: 0, castTo: undefined }] as const;
  return { kind: 'keyed', table, keys, suppliedIds: [], several: undefined };
}

/** A Bind with one parameter in binary. */
function bindOf(value: Buffer, oid: number) {
  const head = Buffer.alloc(2 + 2 + 2 + 2 + 4);
  head.writeInt16BE(1, 2);
  head.writeInt16BE(1, 4);
  head.writeInt16BE(1, 6);
  head.writeInt32BE(value.length, 8);
  const buffer = Buffer.concat([head, value, Buffer.alloc(2)]);
  const view = new BindView().read({ buffer, bodyStart: 0, end: buffer.length });
  return { bind: { view, buffer, oids: [oid] }, ids: [] };
}

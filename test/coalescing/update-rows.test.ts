/** UPDATEs by key of many clients as one statement (src/coalesce/multi-row-update.ts): each is answered as if it were alone. */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { seededRandom } from '../../src/wall/load/seeded-random.ts';
import { RawClient } from '../support/raw-client.ts';
import { startTestFront, type TestFront } from './front.ts';

const CLIENTS = 24;
const ROWS = 500;
/** Of more columns than 64 rows may have in one Bind. */
const WIDE = Array.from({ length: 1_100 }, (_, i) => `c${i}`);

let front: TestFront;

beforeAll(async () => {
  front = await startTestFront({
    schema: `
      SET ROLE app;
      CREATE TABLE rows (id int PRIMARY KEY, n int8 NOT NULL DEFAULT 0 CHECK (n >= 0), note text);
      INSERT INTO rows SELECT i FROM generate_series(1, ${ROWS}) i;
      CREATE TABLE pairs (kind text NOT NULL, part int NOT NULL, n int NOT NULL DEFAULT 0);
      INSERT INTO pairs SELECT 'k' || i % ${ROWS}, i / ${ROWS} FROM generate_series(0, ${2 * ROWS - 1}) i;
      CREATE TABLE taken (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, postern_1 int);
      INSERT INTO taken SELECT i FROM generate_series(1, ${ROWS}) i;
      CREATE TABLE tree (id int PRIMARY KEY, code int NOT NULL UNIQUE, above int REFERENCES tree (code));
      CREATE TABLE parts (id int, place int NOT NULL, n int NOT NULL DEFAULT 0) PARTITION BY LIST (place);
      CREATE TABLE parts_0 PARTITION OF parts FOR VALUES IN (0);
      CREATE TABLE parts_1 (n int NOT NULL DEFAULT 0, gone int, place int NOT NULL, id int);
      ALTER TABLE parts_1 DROP gone;
      ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES IN (1);
      INSERT INTO parts SELECT i, i % 2 FROM generate_series(1, ${ROWS}) i;
      CREATE DOMAIN short AS text CHECK (length(VALUE) < 9);
      CREATE TABLE kinds (id char(6) PRIMARY KEY, v varchar(3), c char(4), j jsonb, num numeric(6,2), s short, at timestamptz,
        list int[], f float4, day date, pair int[], said text);
      INSERT INTO kinds SELECT 'k' || i FROM generate_series(0, ${ROWS}) i;
      CREATE TABLE wide (${WIDE.map((name) => `${name} bool`).join(', ')})`,
  });
});
afterAll(() => front?.stop());

/** `body(client, step)` by all clients at once, some steps each. */
async function together(
  body: (client: pg.Client, of: { client: number; random: (below: number) => number }) => Promise<void>,
  steps = 60,
): Promise<void> {
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => front.connect()));
  await Promise.all(
    clients.map(async (client, index) => {
      const next = seededRandom(index + 1);
      const random = (below: number) => Math.floor(next() * below);
      for (let step = 0; step < steps; step++) await body(client, { client: index, random });
    }),
  );
}

/** Has an UPDATE for several reached the table? Its lanes' last statements are looked at while all write. */
async function isSeen(table: string): Promise<boolean> {
  const rows = await front.server.query(
    `SELECT FROM pg_stat_activity WHERE query LIKE 'UPDATE ${table}%postern_rows%' LIMIT 1`,
  );
  return rows.length > 0;
}

async function rowsOf(text: string): Promise<Record<string, unknown>[]> {
  const client = await front.connectDirectly();
  return (await client.query(text)).rows;
}

describe('UPDATEs by key', () => {
  it('add up, whoever wrote the same row, in whatever way; and who finds no row hears UPDATE 0', async () => {
    const sums = new Map<number, number>();
    let seen = false;
    await together(async (client, { client: index, random }) => {
      const id = 1 + random(ROWS + 20);
      const add = 1 + random(5);
      // PostgreSQL reads `07` as 7: for the router they are two keys.
      const key = random(2) === 0 ? String(id) : `0${id}`;
      const text = 'UPDATE rows SET n = n + $1, note = $2 WHERE id = $3';
      const { rowCount } = await client.query({ name: 'add', text, values: [add, `by ${index}`, key] });
      expect(rowCount).toBe(id <= ROWS ? 1 : 0);
      if (id <= ROWS) sums.set(id, (sums.get(id) ?? 0) + add);
      if (index === 0) seen ||= await isSeen('rows');
    });
    const rows = await rowsOf('SELECT id, n::int FROM rows');
    for (const { id, n } of rows) expect([id, n]).toEqual([id, sums.get(Number(id)) ?? 0]);
    expect(seen).toBe(true);
  });

  it('that touch several rows each say how many', async () => {
    const counts = new Map<string, number>();
    let seen = false;
    await together(async (client, { client: index, random }) => {
      const kind = `k${random(ROWS)}`;
      const text = 'UPDATE pairs SET n = n + $2 WHERE kind = $1;';
      const { rowCount } = await client.query({ name: 'kind', text, values: [kind, 1] });
      expect(rowCount).toBe(2);
      counts.set(kind, (counts.get(kind) ?? 0) + 1);
      if (index === 0) seen ||= await isSeen('pairs');
    });
    const rows = await rowsOf('SELECT kind, n FROM pairs');
    for (const { kind, n } of rows) expect([kind, n]).toEqual([kind, counts.get(String(kind)) ?? 0]);
    expect(seen).toBe(true);
  });

  it('fail for themselves alone', async () => {
    const before = await rowsOf('SELECT id, n::int FROM rows');
    const sums = new Map(before.map(({ id, n }) => [Number(id), Number(n)]));
    let failed = 0;
    await together(async (client, { random }) => {
      const id = 1 + random(ROWS);
      const values = random(40) === 0 ? [-1_000_000, id] : [1, id];
      const text = 'UPDATE rows SET n = n + $1 WHERE id = $2';
      const error = await client.query({ name: 'check', text, values }).then(
        () => undefined,
        (reason) => reason,
      );
      if (values[0] === 1) {
        expect(error).toBeUndefined();
        sums.set(id, (sums.get(id) ?? 0) + 1);
      } else {
        expect(error).toMatchObject({ code: '23514' });
        failed++;
      }
    });
    expect(failed).toBeGreaterThan(0);
    const rows = await rowsOf('SELECT id, n::int FROM rows');
    for (const { id, n } of rows) expect([id, n]).toEqual([id, sums.get(Number(id))]);
  });

  it('of a table whose columns are called like ours stay statements of their own', async () => {
    let sum = 0;
    await together(async (client, { random }) => {
      const text = 'UPDATE taken SET n = n + $2, postern_1 = postern_1 WHERE id = $1';
      const { rowCount } = await client.query({ name: 'taken', text, values: [1 + random(ROWS), 2] });
      expect(rowCount).toBe(1);
      sum += 2;
    }, 20);
    expect(await rowsOf('SELECT sum(n)::int AS sum FROM taken')).toEqual([{ sum }]);
  });

  it('and INSERTs of rows that refer to one another are refused as they would be one by one', async () => {
    const steps = new Array<number>(CLIENTS).fill(0);
    await together(async (client, { client: index }) => {
      // Two clients each: a pair of rows in which either needs the other.
      const pair = 2 * Math.floor(index / 2) + CLIENTS * steps[index]!++;
      const [own, other] = index % 2 === 0 ? [pair, pair + 1] : [pair + 1, pair];
      const text = 'INSERT INTO tree (id, code, above) VALUES ($1, $1, $2)';
      const failure = await client.query({ name: 'tree', text, values: [own, other] }).then(
        () => undefined,
        (error) => error,
      );
      expect(failure).toMatchObject({ code: '23503' });
    }, 20);
    expect(await rowsOf('SELECT id FROM tree')).toEqual([]);
  });

  it('that move rows to other partitions are told apart', async () => {
    const sums = new Map<number, number>();
    let seen = false;
    await together(async (client, { client: index, random }) => {
      const id = 1 + random(ROWS);
      const text = 'UPDATE parts AS p SET n = p.n + $1, place = 1 - p.place WHERE p.id = $2';
      const { rowCount } = await client
        .query({ name: 'move', text, values: [2, id] })
        // "tuple to be locked was already moved to another partition": as it would be without the router.
        .catch((error) => (error.code === '40001' ? { rowCount: 0 } : Promise.reject(error)));
      if (rowCount === 1) sums.set(id, (sums.get(id) ?? 0) + 2);
      if (index === 0) seen ||= await isSeen('parts');
    });
    for (const { id, n, place } of await rowsOf('SELECT id, n, place FROM parts')) {
      const sum = sums.get(Number(id)) ?? 0;
      expect([id, n, place]).toEqual([id, sum, (Number(id) + sum / 2) % 2]);
    }
    expect(seen).toBe(true);
  });

  it('write what they would write alone, whatever the types of the columns', async () => {
    const text = `UPDATE kinds AS "K" SET (v, c) = ($1, $2), j = $3, num = $4, s = $5, at = $6, list = list || $7, f = $8,
      day = $9::date + $10::int, pair[2] = $10, said = coalesce($11, "K".said) || CASE WHEN $10 > 2 THEN $11 ELSE 'x' END
      WHERE "K".id = $12 -- its key`;
    const values = ['abc', 'é ', '{"a": 1.0}', '1.005', 'eight', '2024-03-31 01:30+02', '{1,NULL}', '0.1'];
    values.push('2024-02-28', '3', 'said');
    let seen = false;
    await together(async (client, { client: index, random }) => {
      if (random(400) === 0) {
        const wrong = [...values.with(0, 'four'), 'k1'];
        await expect(client.query({ name: 'kinds', text, values: wrong })).rejects.toMatchObject({
          code: '22001',
        });
      }
      // char(6) ignores blanks at the end: another spelling of the key.
      const key = `k${1 + random(ROWS)}${' '.repeat(random(2))}`;
      const { rowCount } = await client.query({ name: 'kinds', text, values: [...values, key] });
      expect(rowCount).toBe(1);
      if (index === 0) seen ||= await isSeen('kinds');
    });
    const direct = await front.connectDirectly();
    await direct.query(text, [...values, 'k0']);
    const { rows } = await direct.query(
      `SELECT DISTINCT v, c, j::text, num::text, s, at, f, day, pair, said FROM kinds WHERE v IS NOT NULL`,
    );
    expect(rows).toHaveLength(1);
    expect(seen).toBe(true);
  });

  it('and INSERTs of more parameters than one Bind takes are several', async () => {
    const text = `INSERT INTO wide VALUES (${WIDE.map((_, i) => `$${i + 1}`).join(', ')})`;
    const values = WIDE.map(() => true);
    const clients = await Promise.all(Array.from({ length: 80 }, () => front.connect()));
    for (let step = 0; step < 3; step++)
      await Promise.all(clients.map((client) => client.query({ name: 'wide', text, values })));
    expect(await rowsOf('SELECT count(*)::int FROM wide')).toEqual([{ count: 240 }]);
  });

  it.each([
    ['UPDATE rows SET n = n + 1 WHERE id = $1', 1, 'UPDATE 1'],
    ['INSERT INTO rows (id) VALUES ($1)', 10_000, 'INSERT 0 1'],
  ])('and other writes are described to who has asked: %s', async (text, first, tag) => {
    const clients = await Promise.all(
      Array.from({ length: CLIENTS }, () => RawClient.connect({ port: front.router.port })),
    );
    for (const client of clients) await client.exchange([['parse', 's', text], ['sync']]);
    let id = first;
    for (let step = 0; step < 10; step++) {
      const answers = clients.map((client, i) => {
        const described = i % 2 === 0 ? [['describe', 'P', ''] as const] : [];
        return client.exchange([['bind', '', 's', [String(id++)]], ...described, ['execute', ''], ['sync']]);
      });
      for (const [i, lines] of (await Promise.all(answers)).entries()) {
        const described = i % 2 === 0 ? ['NoData'] : [];
        expect(lines).toEqual(['BindComplete', ...described, `Complete ${tag}`, 'Ready I']);
      }
    }
    for (const client of clients) client.socket.destroy();
  });
});

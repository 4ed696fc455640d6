/** What Postgres.js does, on sharded tables through the router as on one server. */

import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import postgres from 'postgres';
import { describe, expect, it } from 'vitest';
import { useSides } from './two-sides.ts';

const sides = useSides();

async function same(work: (sql: postgres.Sql) => Promise<unknown>, max = 1): Promise<unknown> {
  const [expected, is] = await Promise.all(
    sides.dsns.map(async (dsn) => {
      const sql = postgres(dsn, { max, onnotice: () => {}, connection: { TimeZone: 'UTC' } });
      try {
        return await work(sql);
      } finally {
        await sql.end({ timeout: 5 });
      }
    }),
  );
  expect(is).toEqual(expected);
  return is;
}

async function errorOf(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
    return 'no error';
  } catch (error) {
    const { code, message, constraint_name, table_name, detail } = error as postgres.PostgresError;
    return { code, message, constraint_name, table_name, detail };
  }
}

const plainRows = (rows: Iterable<unknown>) => [...rows];

describe('Postgres.js', () => {
  it('reads rows of all types, with parameters that the server describes', async () => {
    const rows = (await same(async (sql) =>
      plainRows(await sql`SELECT * FROM things WHERE id < ${6} OR name = ${'thing 20'} ORDER BY id`),
    )) as unknown[];
    expect(rows).toHaveLength(6);
  });

  it('inserts objects and arrays of them, updates, deletes', async () => {
    await same(async (sql) => {
      const things = [
        {
          id: 201,
          name: 'a',
          price: '1.50',
          tags: ['x', 'y'],
          doc: sql.json({ a: 1 }),
          raw: Buffer.from('ab'),
        },
        { id: 202, name: null, price: '2.50', tags: [], doc: sql.json(null), raw: null },
      ];
      const inserted = await sql`INSERT INTO things ${sql(things)} RETURNING *`;
      const updated =
        await sql`UPDATE things SET ${sql({ name: 'b', ok: true })} WHERE id = ${202} RETURNING name, ok`;
      const found = await sql`SELECT id FROM things WHERE id IN ${sql([201, 202, 203])} ORDER BY id`;
      const deleted = await sql`DELETE FROM things WHERE id > ${200}`;
      return [plainRows(inserted).sort(byId), plainRows(updated), plainRows(found), deleted.count];
    });
  });

  it('commits and rolls back, with savepoints', async () => {
    await same(async (sql) => {
      const error = await errorOf(
        sql.begin(async (tx) => {
          await tx`INSERT INTO words VALUES ('one', 1), ('two', 2), ('three', 3)`;
          await tx`INSERT INTO words VALUES ('one', 1)`;
        }),
      );
      await sql.begin(async (tx) => {
        await tx`INSERT INTO words VALUES ('four', 4)`;
        await tx.savepoint((sp) => sp`INSERT INTO words VALUES ('four', 5)`).catch(() => {});
        await tx`INSERT INTO words VALUES ('five', 5), ('six', 6)`;
      });
      const rows = plainRows(await sql`SELECT * FROM words ORDER BY n`);
      await sql`TRUNCATE words`;
      return [error, rows];
    });
  });

  it('pipelines in a transaction', async () => {
    await same(async (sql) => {
      const results = await sql.begin((tx) => [
        tx`INSERT INTO words VALUES ('p', 1)`,
        tx`UPDATE words SET n = n + 1 WHERE word = 'p' RETURNING n`,
        tx`SELECT count(*) FROM words`,
      ]);
      await sql`DELETE FROM words`;
      return results.map((rows) => plainRows(rows));
    });
  });

  it('reads through cursors', async () => {
    await same(async (sql) => {
      const portions: unknown[] = [];
      for await (const rows of sql`SELECT id FROM things ORDER BY id`.cursor(11))
        portions.push(plainRows(rows));
      const some: unknown[] = [];
      await sql`SELECT id FROM things ORDER BY id`.cursor(4, (rows) => {
        some.push(plainRows(rows));
        return some.length === 2 ? sql.CLOSE : undefined;
      });
      const each: unknown[] = [];
      await sql`SELECT id FROM things ORDER BY id LIMIT 5`.forEach((row) => {
        each.push(row);
      });
      return [portions, some, each, plainRows(await sql`SELECT 1 AS one`)];
    });
  });

  it('describes, runs raw, simple and unsafe statements', async () => {
    await same(async (sql) => {
      const described =
        await sql`SELECT id, name, tags FROM things WHERE id = ${1} AND name = ${'x'}`.describe();
      const raw = await sql`SELECT name FROM things WHERE id = 1`.raw();
      const several =
        await sql`SELECT 1 AS a; SELECT id FROM things WHERE id = 2; SELECT count(*) FROM things`.simple();
      const unsafe = await sql.unsafe('SELECT name FROM things WHERE id = $1', [3]);
      return [
        [described.types, described.columns.map(({ name, type }) => [name, type])],
        raw.map((row) => (row as unknown as Buffer[]).map(String)),
        (several as unknown as Iterable<unknown>[]).map((rows) => plainRows(rows)),
        plainRows(unsafe),
      ];
    });
  });

  it('copies in both directions', async () => {
    await same(async (sql) => {
      const lines = Array.from({ length: 300 }, (_, i) => `w${i}\t${i}\n`);
      await pipeline(Readable.from(lines), await sql`COPY words FROM STDIN`.writable());
      const out = await text(await sql`COPY words (n, word) TO STDOUT (FORMAT csv)`.readable());
      await sql`TRUNCATE words`;
      return out.split('\n').sort();
    });
  });

  it('listens, and is told', async () => {
    await same(async (sql) => {
      let told: (value: string) => void = () => {};
      const heard = new Promise<string>((resolve) => {
        told = resolve;
      });
      const { unlisten } = await sql.listen('chat', (value) => told(value));
      await sql.notify('chat', 'hello');
      const value = await heard;
      await unlisten();
      return value;
    });
  });

  it('tells errors, and goes on', async () => {
    await same(async (sql) => [
      await errorOf(sql`INSERT INTO things (id) VALUES (${1})`),
      await errorOf(sql`INSERT INTO words VALUES (${'x'}, ${-1})`),
      await errorOf(sql`SELECT * FROM things WHERE id = ${'not a number'}`),
      await errorOf(sql`SELECT 1 FROM nowhere`),
      plainRows(await sql`SELECT 1 AS one`),
    ]);
  });

  it('cancels a query', async () => {
    await same(async (sql) => {
      const query = sql`SELECT pg_sleep(20)`;
      const error = errorOf(query);
      // It has to be with a server before it can be canceled.
      await new Promise((resolve) => setTimeout(resolve, 300));
      query.cancel();
      const { code, message } = (await error) as postgres.PostgresError;
      return [code, message, plainRows(await sql`SELECT 1 AS one`)];
    });
  });

  it('runs many at once over a pool', async () => {
    await same(async (sql) => {
      const rows = await Promise.all(
        Array.from({ length: 100 }, (_, i) => sql`SELECT name FROM things WHERE id = ${i % 60}`),
      );
      return rows.map((found) => found[0]?.name ?? null);
    }, 5);
  });
});

function byId(one: unknown, other: unknown): number {
  return (one as { id: number }).id - (other as { id: number }).id;
}

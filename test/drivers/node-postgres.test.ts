/** What node-postgres, pg-cursor, pg-query-stream and pg-copy-streams do, on sharded tables through the router as on one server. */
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import pg from 'pg';
import { from as copyFrom, to as copyTo } from 'pg-copy-streams';
import Cursor from 'pg-cursor';
import QueryStream from 'pg-query-stream';
import { describe, expect, it } from 'vitest';
import { useSides } from './two-sides.ts';

const sides = useSides();

/** Gives what `work` gives on both sides, which have to be the same; `work` must give something that JSON can hold. */
async function same(work: (client: pg.Client) => Promise<unknown>): Promise<unknown> {
  const [expected, is] = await Promise.all(
    sides.dsns.map(async (connectionString) => {
      const client = new pg.Client({ connectionString });
      client.on('error', () => {});
      await client.connect();
      try {
        await client.query("SET timezone = 'UTC'");
        return await work(client);
      } finally {
        await client.end();
      }
    }),
  );
  expect(is).toEqual(expected);
  return is;
}

/** An error as an application may look at it. */
async function errorOf(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
    return 'no error';
  } catch (error) {
    const { code, severity, message, detail, constraint, table, column, schema, position } =
      error as pg.DatabaseError;
    return { code, severity, message, detail, constraint, table, column, schema, position };
  }
}

describe('types', () => {
  it('come as they are', async () => {
    const [, rows] = (await same(async (client) => {
      const text = 'SELECT * FROM things WHERE id < $1 ORDER BY id';
      const result = await client.query({ text, values: [9], rowMode: 'array' });
      return [result.fields.map(({ name, dataTypeID, format }) => [name, dataTypeID, format]), result.rows];
    })) as [unknown, unknown[]];
    expect(rows).toHaveLength(8);
  });

  it('go as parameters of each type, and as NULL', async () => {
    const values = [
      ...[
        101,
        "O'Neil \\ ü",
        '12.50',
        new Date('2026-03-01T10:00:00Z'),
        ['a', null, 'b"c'],
        { k: [1, null] },
      ],
      ...[Buffer.from([0, 1, 255]), true, 0.1, '9007199254740993', '00000000-0000-0000-0000-000000000101'],
      ...['2026-03-01', '10:11:12', '1 day'],
    ];
    await same(async (client) => {
      const places = values.map((_, i) => `$${i + 1}`).join(', ');
      const inserted = await client.query(`INSERT INTO things VALUES (${places}) RETURNING *`, values);
      await client.query('UPDATE things SET name = $2, tags = $3, doc = $4 WHERE id = $1', [
        101,
        null,
        null,
        null,
      ]);
      const read = await client.query('SELECT * FROM things WHERE id = $1', [101]);
      await client.query('DELETE FROM things WHERE id = $1', [101]);
      return [inserted.rows, read.rows];
    });
  });
});

describe('statements', () => {
  it('have names, and are prepared once', async () => {
    await same(async (client) => {
      const query = { name: 'thing', text: 'SELECT name FROM things WHERE id = $1' };
      const names: unknown[] = [];
      for (const id of [1, 2, 3, 50, 2])
        names.push((await client.query({ ...query, values: [id] })).rows[0].name);
      return names;
    });
  });

  it('of one string give a result each', async () => {
    await same(async (client) => {
      const results = (await client.query(
        'SELECT id FROM things WHERE id = 1; SELECT count(*) FROM things; UPDATE things SET ok = ok WHERE id = 2; SELECT 3 AS n',
      )) as unknown as pg.QueryResult[];
      return results.map(({ command, rowCount, rows }) => [command, rowCount, rows]);
    });
  });

  it('are sent ahead of the answers before them', async () => {
    await same(async (client) => {
      const queries = Array.from({ length: 40 }, (_, i) =>
        client.query('SELECT id, name FROM things WHERE id = $1', [i + 1]),
      );
      return (await Promise.all(queries)).map(({ rows }) => rows[0]);
    });
  });

  it('without text, rows or columns', async () => {
    await same(async (client) => [
      (await client.query('')).rows,
      (await client.query('SELECT FROM things WHERE id = 1')).rows,
      (await client.query('SELECT id FROM things WHERE id = -1')).rowCount,
      (await client.query('DELETE FROM things WHERE id = -1')).rowCount,
    ]);
  });
});

describe('errors', () => {
  it.each([
    'SELEC 1',
    'SELECT nothing FROM things WHERE id = 1',
    'SELECT * FROM nowhere',
    'INSERT INTO things (id) VALUES (1)',
    "INSERT INTO words VALUES ('w', -1)",
    "INSERT INTO words VALUES ('w', NULL)",
    'INSERT INTO things (id, price) VALUES (5000, 123456789012)',
    'SELECT 1/(id - 1) FROM things WHERE id = 1',
    "SELECT 'x'::int",
  ])('%s', async (statement) => {
    await same(async (client) => [
      await errorOf(client.query(statement)),
      await errorOf(client.query({ text: statement, values: [] })),
      (await client.query('SELECT 1 AS one')).rows,
    ]);
  });

  it('fail their transaction, and nothing behind it', async () => {
    await same(async (client) => {
      await client.query('BEGIN');
      const first = await errorOf(client.query('INSERT INTO things (id) VALUES (1)'));
      const second = await errorOf(client.query('SELECT 1'));
      const end = (await client.query('COMMIT')).command;
      return [first, second, end, (await client.query('SELECT count(*) FROM things')).rows];
    });
  });

  it('of PREPARE TRANSACTION end the transaction, as a failed one does on a server', async () => {
    const [, routed] = sides.dsns;
    const client = new pg.Client(routed);
    await client.connect();
    try {
      for (const values of [undefined, []])
        for (const before of [
          'SELECT 1',
          "UPDATE things SET name = 'lost' WHERE id = 3",
          'UPDATE things SET ok = NOT ok',
        ]) {
          await client.query('BEGIN');
          await client.query(before);
          const prepare = { text: "PREPARE TRANSACTION 'mine'", ...(values && { values }) };
          expect(await errorOf(client.query(prepare))).toMatchObject({ code: '0A000' });
          expect((await client.query('SELECT name, ok FROM things WHERE id = 3')).rows).toEqual([
            { name: 'thing 3', ok: false },
          ]);
        }
    } finally {
      await client.end();
    }
  });
});

describe('notices, notifications, settings, cancel', () => {
  it('hears notices', async () => {
    await same(async (client) => {
      const heard: unknown[] = [];
      client.on('notice', ({ severity, code, message }) => heard.push([severity, code, message]));
      await client.query(
        "DO $$ BEGIN RAISE NOTICE 'one %', 1; RAISE WARNING USING ERRCODE = '01P01', MESSAGE = 'two'; END $$",
      );
      await client.query('DROP TABLE IF EXISTS nowhere');
      return heard;
    });
  });

  it('listens and is told', async () => {
    await same(async (client) => {
      const heard = new Promise((resolve) =>
        client.on('notification', ({ channel, payload }) => resolve([channel, payload])),
      );
      await client.query('LISTEN news');
      await client.query("SELECT pg_notify('news', 'it is here')");
      return await heard;
    });
  });

  it('runs into statement_timeout and goes on', async () => {
    await same(async (client) => {
      await client.query('SET statement_timeout = 50');
      const error = await errorOf(client.query('SELECT pg_sleep(10)'));
      await client.query('RESET statement_timeout');
      return [error, (await client.query('SHOW statement_timeout')).rows];
    });
  });

  it('keeps its settings over transactions and nodes', async () => {
    await same(async (client) => {
      await client.query("SET timezone = 'Asia/Tokyo'");
      const made = await client.query(
        'SELECT made::text FROM things WHERE id IN (1, 2, 3, 4, 5) ORDER BY id',
      );
      await client.query('BEGIN');
      await client.query("SET LOCAL timezone = 'UTC'");
      const local = await client.query('SELECT made::text FROM things WHERE id IN (1, 2, 3) ORDER BY id');
      await client.query('ROLLBACK');
      const after = await client.query('SELECT made::text FROM things WHERE id = 4');
      return [made.rows, local.rows, after.rows];
    });
  });
});

describe('cursors and streams', () => {
  const READ = 'SELECT id, name FROM things WHERE id > $1 ORDER BY id';

  it('reads in portions, over all nodes', async () => {
    await same(async (client) => {
      const cursor = client.query(new Cursor(READ, ['3']));
      const portions: unknown[] = [];
      for (;;) {
        const rows = await cursor.read(9);
        portions.push(rows);
        if (rows.length === 0) break;
      }
      await cursor.close();
      return [portions, (await client.query('SELECT 1 AS one')).rows];
    });
  });

  it('closes a cursor that has rows left', async () => {
    await same(async (client) => {
      await client.query('BEGIN');
      const cursor = client.query(new Cursor(READ, ['0']));
      const first = await cursor.read(5);
      await cursor.close();
      const after = await client.query('SELECT count(*) FROM things');
      await client.query('COMMIT');
      return [first, after.rows];
    });
  });

  it('streams rows', async () => {
    await same(async (client) => {
      const stream = client.query(new QueryStream(READ, ['10'], { batchSize: 7 }));
      const rows: unknown[] = [];
      for await (const row of stream) rows.push(row);
      return rows;
    });
  });

  it('opens one right behind a SET, whose end must not take it along', async () => {
    const [, routed] = sides.dsns;
    for (let i = 0; i < 20; i++) {
      const client = new pg.Client(routed);
      await client.connect();
      await client.query("SET timezone = 'UTC'");
      const rows: unknown[] = [];
      for await (const row of client.query(new QueryStream(READ, ['50'], { batchSize: 4 }))) rows.push(row);
      expect(rows).toHaveLength(10);
      await client.end();
    }
  });

  it('declares and fetches in SQL', async () => {
    await same(async (client) => {
      await client.query('BEGIN');
      await client.query('DECLARE c CURSOR FOR SELECT id FROM things ORDER BY id');
      const some = [
        await client.query('FETCH 3 FROM c'),
        await client.query('MOVE 10 IN c'),
        await client.query('FETCH 2 FROM c'),
      ];
      await client.query('CLOSE c');
      await client.query('COMMIT');
      return some.map(({ command, rowCount, rows }) => [command, rowCount, rows]);
    });
  });

  it('copies in and out', async () => {
    await same(async (client) => {
      const rows = Array.from({ length: 500 }, (_, i) => `word ${i}\t${i}\n`).join('');
      await pipeline(
        Readable.from([rows.slice(0, 333), rows.slice(333)]),
        client.query(copyFrom('COPY words FROM STDIN')),
      );
      const count = await client.query('SELECT count(*), sum(n) FROM words');
      const out = await text(client.query(copyTo('COPY words TO STDOUT')));
      await client.query('TRUNCATE words');
      return [count.rows, out.split('\n').sort()];
    });
  });

  it('loads nothing of a COPY with a bad row', async () => {
    await same(async (client) => {
      const error = await errorOf(
        pipeline(
          Readable.from(['good\t1\nbetter\t2\nbad\tx\n']),
          client.query(copyFrom('COPY words FROM STDIN')),
        ),
      );
      return [error, (await client.query('SELECT count(*) FROM words')).rows];
    });
  });
});

describe('pools', () => {
  it('give a client back after an error, and lose none', async () => {
    const [, routed] = sides.dsns;
    const pool = new pg.Pool({ connectionString: routed, max: 3 });
    try {
      const outcomes = await Promise.all(
        Array.from({ length: 60 }, (_, i) =>
          i % 3 === 0
            ? errorOf(pool.query('SELECT 1/0'))
            : pool
                .query('SELECT name FROM things WHERE id = $1', [i])
                .then(({ rows }) => rows[0]?.name ?? null),
        ),
      );
      expect(outcomes[0]).toMatchObject({ code: '22012' });
      expect(outcomes[1]).toBe('thing 1');
      expect(pool.totalCount).toBeLessThanOrEqual(3);
    } finally {
      await pool.end();
      // It doesn't wait for its clients to be gone.
      await expect.poll(() => sides.cluster.router.clientCount).toBe(0);
    }
  });
});

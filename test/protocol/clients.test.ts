/** psql, pg, postgres.js and pgbench do their ordinary work through the router. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import pg from 'pg';
import postgres from 'postgres';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient } from '../support/router-clients.ts';
import { isVersionInstalled } from '../support/servers.ts';

const BIN = '/usr/lib/postgresql/15/bin';
const hasTools = await isVersionInstalled(15);

let cluster: TestCluster;
let directory: string;

beforeAll(async () => {
  cluster = await startTestCluster();
  directory = await mkdtemp(join(tmpdir(), 'postern-clients-'));
});
afterAll(async () => {
  await cluster?.stop();
  await rm(directory, { recursive: true, force: true });
});

interface Outcome {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

async function runTool(name: string, args: readonly string[], input = ''): Promise<Outcome> {
  const env = {
    PATH: process.env.PATH,
    PGHOST: '127.0.0.1',
    PGPORT: String(cluster.port),
    PGUSER: 'app',
    PGDATABASE: 'app',
  };
  const child = spawn(join(BIN, name), args, { env, cwd: directory });
  let out = '';
  let err = '';
  child.stdout.on('data', (chunk: Buffer) => {
    out += chunk;
  });
  child.stderr.on('data', (chunk: Buffer) => {
    err += chunk;
  });
  child.stdin.end(input);
  const [status] = await once(child, 'close');
  return { status, out: out.trim(), err: err.trim() };
}

const psql = (args: readonly string[], input?: string): Promise<Outcome> =>
  runTool('psql', ['-X', '-q', '-A', '-t', ...args], input);

/** Every row is in the leaf, and on the node, where the server's own hash wants it. */
async function checkPlaces(table: string, rowCount: number): Promise<void> {
  let rows = 0;
  const total = await bucketCount(table);
  for (const [i, server] of cluster.servers.entries()) {
    const node = new pg.Client(server.dsn({ database: 'app' }));
    await node.connect();
    try {
      const leaves = await node.query(
        `SELECT relname, substring(relname from '_b([0-9]+)_g[0-9]+$')::int AS bucket
           FROM pg_class WHERE relnamespace = 'postern_leaves'::regnamespace AND relkind = 'r'
            AND relname ~ '^${table}_b[0-9]+_g[0-9]+$'`,
      );
      for (const { relname, bucket } of leaves.rows) {
        const misplaced = await node.query(
          `SELECT count(*)::int AS n FROM postern_leaves."${relname}"
            WHERE NOT satisfies_hash_partition('public.${table}'::regclass, ${total}, ${bucket}, id)`,
        );
        expect({ node: i, relname, misplaced: misplaced.rows[0].n }).toEqual({
          node: i,
          relname,
          misplaced: 0,
        });
        const count = await node.query(`SELECT count(*)::int AS n FROM postern_leaves."${relname}"`);
        rows += count.rows[0].n;
      }
    } finally {
      await node.end();
    }
  }
  expect(rows).toBe(rowCount);
}

async function bucketCount(table: string): Promise<number> {
  const home = new pg.Client(cluster.servers[0]!.dsn({ database: 'app' }));
  await home.connect();
  try {
    const { rows } = await home.query(
      `SELECT count(DISTINCT bucket)::int AS n FROM postern_internal.leaves l
         JOIN postern_internal.tables t USING (table_id) WHERE t.table_name = $1`,
      [table],
    );
    return rows[0].n;
  } finally {
    await home.end();
  }
}

describe.skipIf(!hasTools)('psql', () => {
  it('runs commands, meta-commands and scripts', async () => {
    expect(await psql(['-c', 'SELECT 1', '-c', 'SELECT 2'])).toEqual({ status: 0, out: '1\n2', err: '' });
    const made = await psql([
      '-c',
      `CREATE TABLE p (id int8 PRIMARY KEY, v text) WITH (postern.door = 'sharded', postern.key = 'id')`,
      '-c',
      'CREATE TABLE q (id int PRIMARY KEY, v text)',
    ]);
    expect(made).toEqual({ status: 0, out: '', err: '' });
    expect((await runTool('psql', ['-X', '-c', '\\d q'])).out).toContain('"q_pkey" PRIMARY KEY, btree (id)');
    expect((await runTool('psql', ['-X', '-c', '\\d p'])).out).toContain('"p_pkey" PRIMARY KEY, btree (id)');
    expect((await psql(['-c', '\\dt'])).out).toContain('public|q|table|app');
    expect(
      (await psql(['-c', 'SELECT id, v FROM p WHERE id = 1 \\gdesc'.replace(' \\gdesc', '')])).status,
    ).toBe(0);
    const described = await psql([], 'SELECT id, v FROM p WHERE id = 1 \\gdesc\n');
    expect(described).toEqual({ status: 0, out: 'id|bigint\nv|text', err: '' });
  });

  it('stops at errors and runs a script as one transaction', async () => {
    const script = join(directory, 'script.sql');
    await writeFile(
      script,
      "INSERT INTO q VALUES (10, 'ten');\nSELECT nope;\nINSERT INTO q VALUES (11, 'eleven');\n",
    );
    const stopped = await psql(['-v', 'ON_ERROR_STOP=1', '-f', script]);
    expect(stopped.status).toBe(3);
    expect(stopped.err).toContain('script.sql:2: ERROR:  column "nope" does not exist');
    expect((await psql(['-c', 'SELECT id FROM q ORDER BY id'])).out).toBe('10');
    const atOnce = await psql(['-1', '-v', 'ON_ERROR_STOP=1', '-f', script]);
    expect(atOnce.status).toBe(3);
    expect((await psql(['-c', 'SELECT id FROM q ORDER BY id'])).out).toBe('10');
    const goesOn = await psql(['-f', script]);
    expect(goesOn.status).toBe(0);
    expect((await psql(['-c', 'SELECT id FROM q ORDER BY id'])).out).toBe('10\n11');
  });

  it('copies in and out', async () => {
    await writeFile(
      join(directory, 'rows.tsv'),
      Array.from({ length: 1000 }, (_, i) => `${100 + i}\trow ${i}`).join('\n'),
    );
    expect(await psql(['-c', '\\copy q from rows.tsv'])).toEqual({ status: 0, out: '', err: '' });
    expect((await psql(['-c', 'SELECT count(*) FROM q'])).out).toBe('1002');
    await psql(['-c', '\\copy (SELECT * FROM q WHERE id >= 100 ORDER BY id) to out.tsv']);
    expect(await readFile(join(directory, 'out.tsv'), 'utf8')).toBe(
      `${await readFile(join(directory, 'rows.tsv'), 'utf8')}\n`,
    );
    const bad = await psql(['-c', '\\copy q from stdin'], 'no number\tx\n\\.\n');
    expect(bad.err).toContain('invalid input syntax for type integer: "no number"');
    expect(bad.status).toBe(1);
  });

  it('falls back from encryption unless it is required', async () => {
    expect(
      (await psql(['-c', 'SELECT 1', `postgres://127.0.0.1:${cluster.port}/app?sslmode=prefer`])).out,
    ).toBe('1');
    const required = await psql([
      '-c',
      'SELECT 1',
      `postgres://127.0.0.1:${cluster.port}/app?sslmode=require`,
    ]);
    expect(required.status).toBe(2);
    expect(required.err).toContain('server does not support SSL, but SSL was required');
  });

  it('is told of a wrong database', async () => {
    const wrong = await psql(['-c', 'SELECT 1', '-d', 'elsewhere']);
    expect(wrong.status).toBe(2);
    expect(wrong.err).toContain('FATAL:  database "elsewhere" does not exist');
  });
});

describe.skipIf(!hasTools)('pgbench', () => {
  it.each(['simple', 'extended', 'prepared'])('runs TPC-B on home tables, -M %s', async (mode) => {
    if (mode === 'simple') expect((await runTool('pgbench', ['-i', '-q', '-s', '1'])).status).toBe(0);
    const run = await runTool('pgbench', ['-n', '-M', mode, '-c', '4', '-t', '50']);
    expect(run.err).toBe('');
    expect(run.out).toContain('number of transactions actually processed: 200/200');
    const sums = await psql([
      '-c',
      'SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history), (SELECT count(*) FROM pgbench_history)',
    ]);
    expect(sums.out).toBe(`t|${200 * (['simple', 'extended', 'prepared'].indexOf(mode) + 1)}`);
  });

  it.each(['simple', 'extended', 'prepared'])('writes and reads sharded rows, -M %s', async (mode) => {
    const table = `bench_${mode}`;
    const made = `CREATE TABLE ${table} (id int8 PRIMARY KEY, n int NOT NULL) WITH (postern.door = 'sharded', postern.key = 'id')`;
    expect((await psql(['-c', made])).err).toBe('');
    const script = join(directory, `${mode}.sql`);
    await writeFile(
      script,
      `\\set id random(1, 1000000000000)
INSERT INTO ${table} VALUES (:id, 1) ON CONFLICT (id) DO NOTHING;
UPDATE ${table} SET n = n + 1 WHERE id = :id;
SELECT n FROM ${table} WHERE id = :id;
BEGIN;
UPDATE ${table} SET n = n + 1 WHERE id = :id;
SELECT n FROM ${table} WHERE id = :id;
COMMIT;
`,
    );
    const run = await runTool('pgbench', ['-n', '-M', mode, '-c', '6', '-t', '30', '-f', script]);
    expect(run.err).toBe('');
    expect(run.out).toContain('number of transactions actually processed: 180/180');
    await checkPlaces(table, 180);
  });
});

describe('pg', () => {
  it('reads types, in text and binary', async () => {
    const client = await connectClient(cluster);
    const { rows } = await client.query(
      `SELECT 1::int AS i, 2::int8 AS b, 1.5::numeric AS n, true AS t, NULL AS z, '{"a":1}'::jsonb AS j,
              ARRAY[1,2] AS a, '\\xdeadbeef'::bytea AS x, '2024-02-29'::date::text AS d, 'ü€😀' AS u`,
    );
    expect(rows[0]).toEqual({
      i: 1,
      b: '2',
      n: '1.5',
      t: true,
      z: null,
      j: { a: 1 },
      a: [1, 2],
      x: Buffer.from('deadbeef', 'hex'),
      d: '2024-02-29',
      u: 'ü€😀',
    });
    await client.query(
      `CREATE TABLE types (id int8 PRIMARY KEY, v bytea, t timestamptz) WITH (postern.door = 'sharded', postern.key = 'id')`,
    );
    await client.query('INSERT INTO types VALUES ($1, $2, $3)', [
      7,
      Buffer.from([0, 1, 255, 10, 92]),
      new Date(86_400_000),
    ]);
    const direct = new pg.Client(cluster.servers[0]!.dsn({ database: 'app' }));
    await direct.connect();
    for (const binary of [false, true]) {
      // pg's typings don't know of `binary`, and it reads some types wrongly in it, from a server as well.
      const ask = (one: pg.Client, text: string) =>
        one.query({ text, values: [7], binary } as pg.QueryConfig).then(({ rows }) => rows);
      expect(await ask(client, 'SELECT id, t, length(v) AS n FROM types WHERE id = $1')).toEqual(
        await ask(direct, "SELECT $1::int8 AS id, timestamptz '1970-01-02 00:00Z' AS t, 5 AS n"),
      );
    }
    await direct.end();
    const stored = await client.query('SELECT v FROM types WHERE id = $1', [7]);
    expect(stored.rows[0].v).toEqual(Buffer.from([0, 1, 255, 10, 92]));
  });

  it('gets errors in its own names', async () => {
    const client = await connectClient(cluster);
    await client.query(
      `CREATE TABLE accounts (id int8 PRIMARY KEY, mail text UNIQUE, n int CONSTRAINT positive CHECK (n > 0))`,
    );
    await client.query(
      `CREATE TABLE orders (id int8 PRIMARY KEY, note text NOT NULL, n int CONSTRAINT few CHECK (n < 10))
         WITH (postern.door = 'sharded', postern.key = 'id')`,
    );
    await client.query('INSERT INTO orders VALUES (1, $1, 1)', ['x']);
    const failure = async (text: string, values?: unknown[]): Promise<Partial<pg.DatabaseError>> => {
      const error = await client.query(text, values).then(
        () => undefined,
        (reason: pg.DatabaseError) => reason,
      );
      const { code, message, detail, position, schema, table, column, constraint } = error!;
      return JSON.parse(
        JSON.stringify({ code, message, detail, position, schema, table, column, constraint }),
      );
    };
    expect(await failure('INSERT INTO orders VALUES ($1, $2, 1)', [1, 'again'])).toEqual({
      code: '23505',
      message: 'duplicate key value violates unique constraint "orders_pkey"',
      detail: 'Key (id)=(1) already exists.',
      schema: 'public',
      table: 'orders',
      constraint: 'orders_pkey',
    });
    expect(await failure('UPDATE orders SET n = 99 WHERE id = 1')).toMatchObject({
      code: '23514',
      message: 'new row for relation "orders" violates check constraint "few"',
      table: 'orders',
      constraint: 'few',
    });
    expect(await failure('INSERT INTO orders (id, n) VALUES (2, 1)')).toMatchObject({
      code: '23502',
      column: 'note',
      message: 'null value in column "note" of relation "orders" violates not-null constraint',
    });
    expect(await failure('SELECT note, wrong FROM orders WHERE id = 1')).toMatchObject({
      code: '42703',
      position: '14',
    });
    expect(await failure('INSERT INTO accounts VALUES (1, NULL, -1)')).toMatchObject({
      code: '23514',
      constraint: 'positive',
    });
  });

  it('gets notices and notifications', async () => {
    const listener = await connectClient(cluster);
    const notifications: string[] = [];
    const heard = new Promise<void>((resolve) => {
      listener.on('notification', ({ channel, payload }) => {
        notifications.push(`${channel} ${payload}`);
        if (payload === 'last') resolve();
      });
    });
    await listener.query('LISTEN news');
    const speaker = await connectClient(cluster);
    const notices: (string | undefined)[] = [];
    speaker.on('notice', (notice) => notices.push(notice.message));
    await speaker.query("DO $$ BEGIN RAISE NOTICE 'one'; END $$; NOTIFY news, 'first'");
    await speaker.query("SELECT pg_notify('news', 'last')");
    await heard;
    expect(notices).toEqual(['one']);
    expect(notifications).toEqual(['news first', 'news last']);
    // A session that listens is an ordinary session otherwise.
    expect((await listener.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  });

  it('uses a pool as if it had the server to itself', async () => {
    const pool = new pg.Pool({ connectionString: cluster.dsn(), max: 10 });
    try {
      await pool.query('CREATE TABLE counted (id int PRIMARY KEY, n int)');
      await pool.query('INSERT INTO counted VALUES (1, 0)');
      await Promise.all(
        Array.from({ length: 50 }, async () => {
          const client = await pool.connect();
          try {
            await client.query('BEGIN');
            await client.query('UPDATE counted SET n = n + 1 WHERE id = $1', [1]);
            await client.query('COMMIT');
          } finally {
            client.release();
          }
        }),
      );
      expect((await pool.query('SELECT n FROM counted')).rows).toEqual([{ n: 50 }]);
    } finally {
      await pool.end();
    }
  });
});

describe('postgres.js', () => {
  it('makes tables, writes, reads, and nests transactions', async () => {
    const sql = postgres(cluster.dsn(), { max: 4, onnotice: () => {} });
    try {
      await sql`CREATE TABLE notes (id int8 PRIMARY KEY, body text) WITH (postern.door = 'sharded', postern.key = 'id')`;
      await sql`CREATE TABLE plain (id int PRIMARY KEY, body text)`;
      await Promise.all(
        Array.from({ length: 40 }, (_, i) => sql`INSERT INTO notes ${sql({ id: i, body: `note ${i}` })}`),
      );
      expect(await sql`SELECT body FROM notes WHERE id = ${7}`).toEqual([{ body: 'note 7' }]);
      await checkPlaces('notes', 40);
      await sql.begin(async (tx) => {
        await tx`UPDATE notes SET body = 'changed' WHERE id = ${7}`;
        await tx
          .savepoint(async (inner) => {
            await inner`UPDATE notes SET body = 'undone' WHERE id = ${7}`;
            await inner`SELECT 1/0`;
          })
          .catch(() => {});
      });
      expect(await sql`SELECT body FROM notes WHERE id = ${7}`).toEqual([{ body: 'changed' }]);
      await expect(
        sql.begin(async (tx) => {
          await tx`DELETE FROM notes WHERE id = ${7}`;
          throw new Error('no');
        }),
      ).rejects.toThrow('no');
      expect(await sql`SELECT body FROM notes WHERE id = ${7}`).toHaveLength(1);
      await expect(sql`INSERT INTO notes ${sql({ id: 7, body: 'dup' })}`).rejects.toMatchObject({
        code: '23505',
        constraint_name: 'notes_pkey',
        table_name: 'notes',
      });
    } finally {
      await sql.end();
    }
  });

  it('reads with a cursor, streams COPY, and runs several statements at once', async () => {
    const sql = postgres(cluster.dsn(), { max: 2, onnotice: () => {} });
    try {
      await sql`INSERT INTO plain SELECT i, 'row ' || i FROM generate_series(1, 100) i`;
      const sizes: number[] = [];
      await sql`SELECT * FROM plain ORDER BY id`.cursor(30, (rows) => {
        sizes.push(rows.length);
      });
      expect(sizes).toEqual([30, 30, 30, 10]);
      const copyIn = await sql`COPY plain FROM STDIN`.writable();
      await pipeline(Readable.from(['101\tcopied\n', '102\tcop', 'ied\n']), copyIn);
      expect(await sql`SELECT count(*)::int AS n FROM plain`).toEqual([{ n: 102 }]);
      let out = '';
      for await (const chunk of await sql`COPY (SELECT id FROM plain WHERE id > 99 ORDER BY id) TO STDOUT`.readable())
        out += chunk;
      expect(out).toBe('100\n101\n102\n');
      const results = await sql.unsafe('SELECT 1 AS a; SELECT 2 AS b; DELETE FROM plain WHERE id = 102');
      // postgres.js leaves out the result of a statement without rows.
      expect(results.map((result) => [...result])).toEqual([[{ a: 1 }], [{ b: 2 }]]);
      expect(await sql`SELECT count(*)::int AS n FROM plain`).toEqual([{ n: 101 }]);
    } finally {
      await sql.end();
    }
  });
});

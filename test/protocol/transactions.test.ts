/**
 * Explicit transactions: a BEGIN on its way to a server, ahead of the statement that it was held back for, and statements
 * whose literals are lifted inside of transactions. A relay between router and server shows what is sent, and spoils what a
 * test wants to see fail.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Router, startRouter } from '../../src/cli/router.ts';
import { type Message, RawClient, run } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';

const S: Message = ['sync'];
const q = (text: string): Message => ['query', text];

/** What the router sends, chunk by chunk; a BEGIN in it becomes a text that no server takes, while `spoils`. */
class Relay {
  readonly chunks: string[] = [];
  spoils = false;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  constructor(port: number) {
    this.#server = createServer({ noDelay: true }, (client) => {
      const server = connect({ host: '127.0.0.1', port, noDelay: true });
      for (const socket of [client, server]) {
        this.#sockets.add(socket);
        socket.on('error', () => {});
      }
      let isOfClients: boolean | undefined;
      client.on('data', (chunk: Buffer) => {
        const text = chunk.toString('latin1');
        // The router's own questions are asked as another role.
        isOfClients ??= text.includes('user\0app\0');
        if (isOfClients) this.chunks.push(text);
        server.write(this.spoils ? Buffer.from(text.replaceAll('BEGIN ', 'BEGUN '), 'latin1') : chunk);
      });
      server.on('data', (chunk: Buffer) => client.write(chunk));
      client.on('close', () => server.destroy());
      server.on('close', () => client.destroy());
    });
  }

  listen(): Promise<number> {
    return new Promise((resolve) => {
      this.#server.listen(0, '127.0.0.1', () => resolve((this.#server.address() as { port: number }).port));
    });
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
  }

  close(): void {
    this.#server.close();
    this.cut();
  }
}

let cluster: TestCluster;
let relay: Relay;
let router: Router;
let direct: RawClient;
let client: RawClient;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 1 });
  const [home] = cluster.servers;
  relay = new Relay(home!.port);
  // Its relay looks for the first packet to say whose connection it is.
  const dsn = `postgres://postgres@127.0.0.1:${await relay.listen()}/app?sslmode=disable`;
  const { routerOptions } = cluster;
  // One backend, so that a test knows what is prepared where.
  router = await startRouter({ ...routerOptions, nodes: [{ name: 'n1', dsn }], connectionsPerNode: 1 });
  direct = await RawClient.connect({ port: home!.port });
  await direct.query('CREATE TABLE t (id int PRIMARY KEY, v text)');
});
afterAll(async () => {
  direct?.end();
  await router?.close();
  relay?.close();
  await cluster?.stop();
});
beforeEach(async () => {
  relay.spoils = false;
  await direct.query('DELETE FROM t');
  client?.end();
  client = await RawClient.connect({ port: router.port });
  await client.query('SELECT 1');
});

const rows = async (): Promise<string> => (await direct.query('SELECT count(*) FROM t'))[1]!;

describe('a BEGIN', () => {
  // Its text is one that is kept prepared by the router only if it is short and has no comment in it.
  const BEGINS = [
    'BEGIN ISOLATION LEVEL REPEATABLE READ',
    'BEGIN /* traced */ ISOLATION LEVEL REPEATABLE READ',
  ];
  const INSERT = "INSERT INTO t VALUES (1, 'x')";

  it.each(BEGINS)('goes out in the write of its first statement: %s', async (begin) => {
    // Nothing to lift, so that no server is asked about it afterwards.
    for (const first of [
      [q("INSERT INTO t SELECT 1, 'x'")],
      [...run('INSERT INTO t VALUES ($1, $2)', ['2', 'y']), S],
    ]) {
      await client.query(begin);
      const before = relay.chunks.length;
      expect(await client.exchange(first)).toContain('Complete INSERT 0 1');
      expect(relay.chunks.slice(before)).toHaveLength(1);
      const isolation = await client.query('SHOW transaction_isolation');
      expect(isolation).toEqual([expect.anything(), 'Row repeatable read', 'Complete SHOW', 'Ready T']);
      expect(await client.query('ROLLBACK')).toEqual(['Complete ROLLBACK', 'Ready I']);
    }
  });

  describe.each(BEGINS)('that fails, %s', (begin) => {
    // One that has been prepared would be executed under its name: each test says another one.
    let count = 0;
    let text: string;
    beforeEach(() => {
      text = `${begin}, READ WRITE${' '.repeat(++count)}`;
      relay.spoils = true;
    });
    const FAILED = /^Error ERROR C=42601 /;

    it('fails the transaction instead of its first statement, simple', async () => {
      expect(await client.query(text)).toEqual(['Complete BEGIN', 'Ready T']);
      expect(await client.query(INSERT)).toEqual([expect.stringMatching(FAILED), 'Ready E']);
      expect((await client.query(INSERT))[0]).toMatch(/^Error ERROR C=25P02 /);
      expect(await client.query('COMMIT')).toEqual(['Complete ROLLBACK', 'Ready I']);
      expect(await rows()).toBe('Row 0');
      expect(await client.query(INSERT)).toEqual(['Complete INSERT 0 1', 'Ready I']);
    });

    it('the same in the extended protocol', async () => {
      const lines = await client.exchange([...run(text), ...run(INSERT), ...run('COMMIT'), S]);
      expect(lines.filter((line) => /^(Error|Complete|Ready)/.test(line))).toEqual([
        'Complete BEGIN',
        expect.stringMatching(FAILED),
        'Ready E',
      ]);
      expect((await client.exchange([...run(INSERT), S])).at(-2)).toMatch(/^Error ERROR C=25P02 /);
      expect(await client.query('ROLLBACK')).toEqual(['Complete ROLLBACK', 'Ready I']);
      expect(await rows()).toBe('Row 0');
      expect((await client.exchange([...run(INSERT), S])).at(-2)).toBe('Complete INSERT 0 1');
    });

    it('with all that follows sent at once', async () => {
      client.send(q(text), q(INSERT), q(INSERT), q('ROLLBACK TO a'), q('COMMIT'), ...run('SELECT 7'), S);
      const lines: string[] = [];
      for (let i = 0; i < 6; i++) lines.push(...(await client.readUntil(/^Ready/)));
      expect(lines.map((line) => line.replace(/(C=\w+) .*/, '$1'))).toEqual([
        ...['Complete BEGIN', 'Ready T', 'Error ERROR C=42601', 'Ready E', 'Error ERROR C=25P02', 'Ready E'],
        ...['Error ERROR C=3B001', 'Ready E', 'Complete ROLLBACK', 'Ready I'],
        ...['ParseComplete', 'BindComplete', 'Columns ?column?:23/0/0', 'Row 7', 'Complete SELECT 1'],
        'Ready I',
      ]);
      expect(await rows()).toBe('Row 0');
    });

    it('before a COPY', async () => {
      await client.query(text);
      client.send(q('COPY t FROM STDIN'), ['copyData', '1\tx\n'], ['copyDone'], q('ROLLBACK'));
      expect(await client.readUntil(/^Ready/)).toEqual([expect.stringMatching(FAILED), 'Ready E']);
      expect(await client.readUntil(/^Ready/)).toEqual(['Complete ROLLBACK', 'Ready I']);
    });
  });

  it('that is lost with its first statement leaves a failed transaction, whose outcome is known', async () => {
    await client.query(BEGINS[0]!);
    client.send(q('INSERT INTO t SELECT 1, pg_sleep(100)::text /* cut */'));
    await expect
      .poll(
        async () =>
          (
            await direct.query(
              "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%/* cut */' AND wait_event = 'PgSleep'",
            )
          )[1],
        { timeout: 10_000 },
      )
      .toBe('Row 1');
    relay.cut();
    expect(await client.readUntil(/^Ready/)).toEqual([
      expect.stringMatching(/^Error ERROR C=08006 /),
      'Ready E',
    ]);
    expect(await client.query('COMMIT')).toEqual(['Complete ROLLBACK', 'Ready I']);
    expect(await client.query(INSERT)).toEqual(['Complete INSERT 0 1', 'Ready I']);
  });
});

describe('literals of the simple protocol in a transaction', () => {
  const TABLE = `CREATE TABLE typed (id int PRIMARY KEY, small int2 CHECK (small < 100), name varchar(5), note text NOT NULL,
      price numeric(6,2), day date, at timestamptz, token uuid, flag bool, doc jsonb, nice nice, mood mood,
      parent int REFERENCES typed);
    CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF new.note = 'refused' THEN RAISE EXCEPTION 'refused %', new.id USING DETAIL = 'so'; END IF;
      IF new.note = 'told' THEN RAISE NOTICE 'told %', new.id; END IF; RETURN new; END $$;
    CREATE TRIGGER watch BEFORE INSERT OR UPDATE ON typed FOR EACH ROW EXECUTE FUNCTION watch();
    INSERT INTO typed (id, note, small) SELECT i, 'row', i FROM generate_series(1, 20) i`;

  /** As a statement in the middle of a transaction, well and badly. Each is sent with `#` as 1, 2, … */
  const TEXTS = [
    "INSERT INTO typed (id, note) VALUES (100 + #, 'new')",
    "INSERT INTO typed (id, note) VALUES (#, 'there already')",
    'INSERT INTO typed (id, note) VALUES (100 + #, NULL)',
    "INSERT INTO typed (id, note, parent) VALUES (10#, 'orphan', 77)",
    "INSERT INTO typed (id, note, name) VALUES (10#, 'x', 'much too long')",
    "INSERT INTO typed (id, note, day, at) VALUES (10#, 'x', '2024-02-28', '2024-02-28 10:00:00')",
    "INSERT INTO typed (id, note, day) VALUES (10#, 'x', '2024-02-3#')",
    'UPDATE typed SET small = small + # WHERE id = #',
    'UPDATE typed SET small = 99999 WHERE id = #',
    'UPDATE typed SET small = small / 0 WHERE id = #',
    "UPDATE typed SET small = 'abc' WHERE id = #",
    "UPDATE typed SET small = '1#' WHERE id = #",
    'UPDATE typed SET small = 100 WHERE id = #',
    'UPDATE typed SET price = 12345.6# WHERE id = #',
    'UPDATE typed SET price = 1234.567# WHERE id = #',
    "UPDATE typed SET note = 'told' WHERE id = #",
    "UPDATE typed SET note = 'refused' WHERE id = #",
    "UPDATE typed SET note = 'ünï \u{1f600} ''quoted''', flag = 'true' WHERE id = #",
    "UPDATE typed SET token = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11' WHERE id = #",
    "UPDATE typed SET token = 'no uuid' WHERE id = #",
    'UPDATE typed SET doc = \'{"a": #\' WHERE id = #',
    'UPDATE typed SET doc = \'{"a": #}\' WHERE id = #',
    "UPDATE typed SET mood = 'happy' WHERE id = #",
    "UPDATE typed SET mood = 'bored' WHERE id = #",
    "UPDATE typed SET nice = 'x' WHERE id = 1000 + #",
    "UPDATE typed SET nice = 'x' WHERE id = #",
    "UPDATE typed SET flag = 'maybe' WHERE id = # AND small = 'zero'",
    "UPDATE typed SET note = 'y' WHERE id IN (#, 2, 3) AND small BETWEEN 0 AND 50",
    'DELETE FROM typed WHERE id = #',
    "DELETE FROM typed WHERE note = 'nobody' AND id > #",
    'SELECT id, note FROM typed WHERE id = #',
    'SELECT id, small / (id - #) FROM typed WHERE id <= 3 ORDER BY id',
    "SELECT id FROM typed WHERE day = 'no day' AND id = #",
    "UPDATE typed SET note = 'z' WHERE id = # RETURNING id, note",
  ];

  let twin: RawClient;
  beforeAll(async () => {
    const [home] = cluster.servers;
    await home!.query('CREATE DATABASE twin OWNER app');
    twin = await RawClient.connect({ port: home!.port, database: 'twin' });
    for (const one of [twin, direct]) {
      await one.query("CREATE TYPE mood AS ENUM ('happy', 'sad')");
      await one.query("CREATE DOMAIN nice AS text CHECK (value LIKE 'n%')");
      expect((await one.query(TABLE)).at(-1)).toBe('Ready I');
    }
  });
  afterAll(() => twin?.end());

  /** What the only backend has prepared. */
  const prepared = async (): Promise<string[]> =>
    client.query('SELECT statement FROM pg_prepared_statements');
  const BEFORE = "UPDATE typed SET note = 'before' WHERE id = 5";

  it.each(TEXTS)('%s', async (text) => {
    for (let i = 1; i <= 4; i++) {
      const once = text.replaceAll('#', String(i));
      // First in its transaction, and inside of it; seen before or not, prepared or not.
      for (const script of [
        ['BEGIN', once, once, 'ROLLBACK'],
        ['BEGIN', BEFORE, once, BEFORE, 'ROLLBACK'],
        ['BEGIN', BEFORE, 'SAVEPOINT a', once, 'ROLLBACK TO a', once, 'COMMIT', once],
        ['UPDATE typed SET note = note WHERE id = 6', 'BEGIN', once, 'COMMIT'],
        ['DELETE FROM typed WHERE id > 50'],
      ]) {
        for (const one of script)
          expect([one, ...(await client.query(one))]).toEqual([one, ...(await twin.query(one))]);
      }
    }
  });

  it('are prepared once on the backend', async () => {
    const shape = 'Row UPDATE typed SET note = $1 WHERE id = $2';
    await expect
      .poll(async () => {
        for (const text of ['BEGIN', BEFORE, "UPDATE typed SET note = 'b' WHERE id = 6", 'COMMIT'])
          await client.query(text);
        return prepared();
      })
      .toContain(shape);
    const before = relay.chunks.length;
    for (const text of ['BEGIN', BEFORE, "UPDATE typed SET note = 'c' WHERE id = 7", 'COMMIT'])
      await client.query(text);
    expect(relay.chunks.slice(before).filter((chunk) => chunk.includes('typed'))).toEqual([]);
    expect((await prepared()).filter((line) => line === shape)).toHaveLength(1);
  });

  it('mean what the settings of the transaction say', async () => {
    const text = "UPDATE typed SET at = '2024-06-01 00:00:00' WHERE id = 8";
    for (let i = 0; i < 4; i++) for (const one of ['BEGIN', text, text, 'COMMIT']) await client.query(one);
    await client.query('BEGIN');
    await client.query("SET LOCAL TimeZone = 'Asia/Tokyo'");
    await client.query(text);
    await client.query('COMMIT');
    expect(await direct.query("SELECT at AT TIME ZONE 'UTC' FROM typed WHERE id = 8")).toContain(
      'Row 2024-05-31 15:00:00',
    );
  });

  it('of a statement that is canceled are not tried again', async () => {
    const text = (seconds: string): string => `SELECT id, pg_sleep(${seconds}) FROM typed WHERE id = 15`;
    for (let i = 0; i < 4; i++)
      for (const one of ['BEGIN', text('0'), 'COMMIT', text('0')]) await client.query(one);
    for (const script of [[], ['BEGIN']]) {
      for (const one of script) await client.query(one);
      await client.query("SELECT set_config('statement_timeout', '200', false)");
      expect((await client.query('SELECT id, pg_sleep(30) FROM typed WHERE id = 15')).at(-2)).toMatch(
        /^Error ERROR C=57014 /,
      );
      await client.query('ROLLBACK');
    }
  });
});

/** What coalescing must never do to anybody, case by case (src/coalesce/SPEC.md). */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RawClient } from '../support/raw-client.ts';
import {
  cancelAll,
  canceledAll,
  execute,
  type Outcome,
  openTransaction,
  outcomeOf,
  rowOf,
  startTestFront,
  type TestFront,
  until,
} from './front.ts';

let front: TestFront;

const ADD = 'UPDATE rows SET n = n + 1 WHERE id = $1 RETURNING n';
const NOTE = 'INSERT INTO notes (id) VALUES ($1) RETURNING xmin::text';
/** Some seconds, unless it is canceled. */
const SLOW = `UPDATE slow SET n = n + octet_length(repeat('x', 400000000 + id)) WHERE lane = $1`;

beforeAll(async () => {
  front = await startTestFront({
    schema: `
      SET ROLE app;
      CREATE TABLE rows (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
      INSERT INTO rows SELECT i FROM generate_series(1, 200) i;
      CREATE TABLE notes (id int8 PRIMARY KEY);
      CREATE TABLE slow (lane int, id int, n int8 NOT NULL DEFAULT 0);
      INSERT INTO slow SELECT lane, i FROM generate_series(1, 2) lane, generate_series(1, 40) i;
      CREATE TABLE triggered (id int8 PRIMARY KEY);
      CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
      CREATE TRIGGER t BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION nothing();
      CREATE TABLE deferred (id int8 PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
      CREATE TABLE wide (id int8 PRIMARY KEY, filler text NOT NULL)`,
  });
});
afterAll(() => front?.stop());

let lastId = 0;
const newId = (): number => ++lastId;

/** Clients whose statements are known to the router, so that it merges them from now on. */
async function writers(count: number, settings: pg.ClientConfig = {}): Promise<pg.Client[]> {
  const clients = await Promise.all(Array.from({ length: count }, () => front.connect(settings)));
  for (const client of clients) {
    await execute(client, NOTE, [newId()]);
    await execute(client, ADD, [200]);
  }
  return clients;
}

/** How many of the notes that `clients` make at once share a transaction with another. */
async function mergedNotes(clients: readonly pg.Client[], text = NOTE): Promise<number> {
  const xmins: string[] = [];
  for (let round = 0; round < 5; round++) {
    const outcomes = await Promise.all(clients.map((client) => execute(client, text, [newId()])));
    for (const outcome of outcomes) xmins.push(String(rowOf(outcome)[0]));
  }
  return xmins.length - new Set(xmins).size;
}

const transaction = (...statements: string[]) => openTransaction(front, ...statements);

const waitsForLock = `SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = 'app' AND wait_event_type = 'Lock' AND query LIKE 'UPDATE rows%'`;

function runs(text: string, count = 1): string {
  return `SELECT count(*) >= ${count} FROM pg_stat_activity WHERE datname = 'app' AND state = 'active' AND query LIKE '${text}%'`;
}

async function deadlocks(): Promise<number> {
  const [row] = await front.server.query(`SELECT deadlocks::int FROM pg_stat_database WHERE datname = 'app'`);
  return Number(row!.deadlocks);
}

describe('who is merged', () => {
  it('autocommit writes that come together, prepared or as text', async () => {
    const clients = await writers(16);
    expect(await mergedNotes(clients)).toBeGreaterThan(20);
    const xmins: unknown[] = [];
    for (let round = 0; round < 5; round++) {
      const answers = clients.map((client) =>
        outcomeOf(
          client.query({
            text: `INSERT INTO notes (id) VALUES (${newId()}) RETURNING xmin::text`,
            rowMode: 'array',
          }),
        ),
      );
      xmins.push(...(await Promise.all(answers)).map((outcome) => rowOf(outcome)[0]));
    }
    expect(new Set(xmins).size).toBeLessThan(60);
  });

  it('not a session that has it off, and not before it is on again', async () => {
    const clients = await writers(16);
    for (const client of clients) await client.query('SET postern.coalesce = off');
    expect(await mergedNotes(clients)).toBe(0);
    for (const client of clients) await client.query('SET postern.coalesce = on');
    expect(await mergedNotes(clients)).toBeGreaterThan(20);
  });

  it('not a session with a backend of its own, and not an open transaction', async () => {
    const pinned = await writers(8);
    for (const client of pinned) await client.query('CREATE TEMP TABLE mine (id int)');
    expect(await mergedNotes(pinned)).toBe(0);
    for (const client of pinned) await client.end();
    const open = await writers(8);
    for (const client of open) await client.query('BEGIN');
    const outcomes = await Promise.all(open.map((client) => execute(client, NOTE, [newId()])));
    expect(new Set(outcomes.map((outcome) => rowOf(outcome)[0])).size).toBe(8);
    await Promise.all(open.map((client) => client.query('ROLLBACK')));
  });

  it('not writes to tables with triggers or deferrable constraints', async () => {
    const clients = await writers(16);
    for (const table of ['triggered', 'deferred'])
      expect(await mergedNotes(clients, `INSERT INTO ${table} (id) VALUES ($1) RETURNING xmin::text`)).toBe(
        0,
      );
  });

  it('not clients with another synchronous_commit', async () => {
    const on = await writers(8);
    const off = await writers(8, { options: '-c synchronous_commit=off' });
    const later = await writers(8);
    for (const client of later) await client.query('SET synchronous_commit = off');
    const mixed = on.flatMap((client, i) => [client, off[i]!, later[i]!]);
    const durable = new Set<unknown>();
    const light = new Set<unknown>();
    for (let round = 0; round < 10; round++) {
      const outcomes = await Promise.all(mixed.map((client) => execute(client, NOTE, [newId()])));
      for (const [i, outcome] of outcomes.entries()) (i % 3 === 0 ? durable : light).add(rowOf(outcome)[0]);
    }
    for (const xmin of light) expect(durable.has(xmin)).toBe(false);
    expect(durable.size).toBeLessThan(80);
    expect(light.size).toBeLessThan(160);
  });
});

describe('a row that is held', () => {
  it('never makes its holder die of a deadlock', { timeout: 60_000 }, async () => {
    const before = await deadlocks();
    const [one, two] = (await writers(2)) as [pg.Client, pg.Client];
    for (let round = 1; round <= 6; round++) {
      const [a, b] = [round * 2, round * 2 + 1];
      const holder = await transaction(`UPDATE rows SET n = n + 1 WHERE id = ${b}`);
      // Members of one batch: it has the lock on a when it comes to b, whichever of the two is sent first.
      const order = round % 2 === 0 ? [b, a] : [a, b];
      const members = [execute(one, ADD, [order[0]]), execute(two, ADD, [order[1]])];
      await until(front.server, waitsForLock);
      expect(rowOf(await execute(holder, ADD, [a]))).toHaveLength(1);
      await holder.query('COMMIT');
      for (const outcome of await Promise.all(members)) expect(rowOf(outcome)).toHaveLength(1);
    }
    expect(await deadlocks()).toBe(before);
  });

  it('keeps no OK from an application that waits for it before it lets go', async () => {
    const [own, stranger] = (await writers(2)) as [pg.Client, pg.Client];
    for (let round = 0; round < 5; round++) {
      const holder = await transaction('UPDATE rows SET n = n + 1 WHERE id = 21');
      const waiting = execute(stranger, ADD, [21]);
      expect(rowOf(await execute(own, ADD, [22 + round]))).toEqual([1]);
      await holder.query('COMMIT');
      expect(rowOf(await waiting)).toHaveLength(1);
    }
  });

  it('stops nobody but who wants it', async () => {
    const clients = await writers(12);
    const holder = await transaction('UPDATE rows SET n = n + 1 WHERE id = 40');
    const wanting = clients.slice(0, 3).map((client) => execute(client, ADD, [40]));
    await Promise.all(
      clients.slice(3).map(async (client, i) => {
        for (let step = 0; step < 60; step++)
          expect(rowOf(await execute(client, ADD, [50 + ((step + i) % 20)]))).toHaveLength(1);
      }),
    );
    await until(front.server, waitsForLock);
    await holder.query('ROLLBACK');
    const values = (await Promise.all(wanting)).map((outcome) => rowOf(outcome)[0]);
    expect(values.sort()).toEqual([1, 2, 3]);
  });

  it('is waited for as long as the client has set, not as long as a batch would', async () => {
    const holder = await transaction('UPDATE rows SET n = n + 1 WHERE id = 75');
    for (const [option, sqlState] of [
      ['lock_timeout', '!55P03'],
      ['statement_timeout', '!57014'],
    ]) {
      const [client, other] = (await writers(2, { options: `-c ${option}=400ms` })) as [pg.Client, pg.Client];
      const start = performance.now();
      const waiting = execute(client, ADD, [75]);
      expect(rowOf(await execute(other, NOTE, [newId()]))).toHaveLength(1);
      expect(await waiting).toBe(sqlState);
      expect(performance.now() - start).toBeGreaterThan(399);
    }
    const [short] = (await writers(1, { options: '-c lock_timeout=5ms' })) as [pg.Client];
    expect(await execute(short, ADD, [75])).toBe('!55P03');
    await holder.query('ROLLBACK');
  });
});

describe('a slow statement', () => {
  it('runs alone: the others of its batch, and those behind it, go on', async () => {
    const { runners, ends } = await slowWrites(2);
    const others = await writers(6);
    const outcomes = await Promise.all(others.map((client, i) => execute(client, ADD, [110 + i])));
    for (const outcome of outcomes) expect(rowOf(outcome)).toEqual([1]);
    await until(front.server, runs('UPDATE slow', 2));
    for (const end of await canceledAll(front, runners, ends)) expect(end).toBe('!57014');
  });
});

describe('a write that is taken back', () => {
  it('in any state ends, is not carried out, and the others go on', { timeout: 60_000 }, async () => {
    const [other, ...holders] = await writers(3);
    let canceled = 0;
    for (let round = 0; round < 25; round++) {
      // Two held rows keep both lanes busy for a moment: what comes behind them is queued.
      for (const [i, holder] of holders.entries()) {
        await holder.query('BEGIN');
        await execute(holder, ADD, [120 + i]);
      }
      const [client, ...waiting] = await writers(3);
      const before = await rowsOf(130);
      const ends = waiting.map((each, i) => execute(each, ADD, [120 + i]));
      const taken = execute(client!, ADD, [130]);
      const beside = execute(other!, ADD, [131]);
      await cancelAll(front, [client!]);
      const outcome = await taken;
      if (outcome === '!57014') canceled++;
      expect(await rowsOf(130)).toBe(outcome === '!57014' ? before : before + 1);
      expect(rowOf(await beside)).toEqual([round + 1]);
      for (const holder of holders) await holder.query('ROLLBACK');
      for (const end of ends) expect(rowOf(await end)).toEqual([round + 1]);
      for (const each of [client!, ...waiting]) await each.end();
    }
    expect(canceled).toBeGreaterThan(0);
  });

  it('is undone while it runs, and who was with it goes again', async () => {
    const { runners, ends } = await slowWrites(1);
    const others = await writers(3);
    const beside = others.map((client, i) => execute(client, ADD, [85 + i]));
    await until(front.server, runs('UPDATE slow'));
    for (const end of await canceledAll(front, runners, ends)) expect(end).toBe('!57014');
    for (const outcome of await Promise.all(beside)) expect(rowOf(outcome)).toEqual([1]);
  });

  it('is carried out when its client has vanished, and the others get their answers', async () => {
    const { runners, ends } = await slowWrites(2);
    const [vanishing, other] = [await rawWriter(), await rawWriter()];
    const id = newId();
    await vanishing.exchange(bound('note', newId()));
    vanishing.send(...bound('note', id));
    vanishing.socket.end();
    other.send(...bound('add', 90));
    // A client whose write runs vanishes as well.
    (runners[0] as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
    expect(await ends[0]).toMatch(/^!/);
    expect(await canceledAll(front, [runners[1]!], [ends[1]!])).toEqual(['!57014']);
    expect((await other.readUntil(/^Ready/)).slice(-3)).toEqual(['Row 1', 'Complete UPDATE 1', 'Ready I']);
    const past = await front.connectDirectly();
    for (let found = 0; found === 0; )
      found = (await past.query('SELECT FROM notes WHERE id = $1', [id])).rowCount!;
    await until(front.server, `NOT (${runs('UPDATE slow')})`);
    other.end();
  });

  it('is given up when it runs alone for a client that has vanished', async () => {
    const holder = await transaction('UPDATE rows SET n = n + 1 WHERE id = 95');
    const [vanishing, other] = [await rawWriter(), await rawWriter()];
    await vanishing.exchange(bound('add', 96));
    vanishing.send(...bound('add', 95));
    await until(front.server, waitsForLock);
    vanishing.socket.destroy();
    expect(await other.exchange(bound('add', 97))).toContain('Row 1');
    await until(front.server, `NOT (${waitsForLock})`);
    await holder.query('ROLLBACK');
    expect(await other.exchange(bound('add', 95))).toContain('Row 1');
    other.end();
  });

  it('while it waits for a held row ends, and its row stays as it was', async () => {
    const holder = await transaction('UPDATE rows SET n = n + 1 WHERE id = 98');
    const [client] = (await writers(1)) as [pg.Client];
    const waiting = execute(client, ADD, [98]);
    await until(front.server, waitsForLock);
    expect(await canceledAll(front, [client], [waiting])).toEqual(['!57014']);
    await holder.query('ROLLBACK');
    expect(await rowsOf(98)).toBe(0);
  });
});

describe('what one client sends', () => {
  it('without waiting in between is carried out in its order', async () => {
    const client = await RawClient.connect({ port: front.router.port });
    const text = 'UPDATE rows SET n = n * 2 + $2 WHERE id = $1 RETURNING n';
    await client.exchange([['parse', 's', text], ['sync']]);
    const one = (bit: number) =>
      [['bind', '', 's', ['100', String(bit)]], ['execute', ''], ['sync']] as const;
    await client.exchange(one(1));
    const noise = await writers(8);
    const others = noise.map(async (each, i) => {
      for (let step = 0; step < 20; step++) await execute(each, ADD, [i % 2 === 0 ? 100 : 101 + i]);
    });
    await Promise.all(others);
    await client.query('UPDATE rows SET n = 1 WHERE id = 100');
    const bits = [1, 0, 0, 1, 1, 0, 1, 0, 1, 1];
    const lines = await client.exchange(bits.flatMap(one), bits.length);
    const values = lines.filter((line) => line.startsWith('Row ')).map((line) => Number(line.slice(4)));
    expect(values).toEqual(bits.map((_, i) => Number.parseInt(`1${bits.slice(0, i + 1).join('')}`, 2)));
    client.end();
  });

  it('may be answered with more than a batch keeps', async () => {
    const clients = await writers(6);
    await clients[0]!.query(`INSERT INTO wide SELECT i, repeat('x', 1000) FROM generate_series(1, 8000) i`);
    const drop = 'UPDATE wide SET id = id + 10000 WHERE id < $1 RETURNING id, filler';
    await execute(clients[0]!, drop, [0]);
    const large = execute(clients[0]!, drop, [8001]);
    const small = clients.slice(1).map((client) => execute(client, NOTE, [newId()]));
    for (const outcome of await Promise.all(small)) expect(rowOf(outcome)).toHaveLength(1);
    expect(await large).toHaveLength(8000);
    const { rows } = await clients[0]!.query('SELECT min(id)::int AS low, max(id)::int AS high FROM wide');
    expect(rows[0]).toEqual({ low: 10001, high: 18000 });
  });
});

describe('a commit that waits for standbys', () => {
  const waits = (text: string) =>
    `SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '${text}%'`;

  /** From the moment on that the server has taken it up. */
  async function setStandbys(names: string): Promise<void> {
    await front.server.query(`ALTER SYSTEM SET synchronous_standby_names = '${names}'`);
    await front.server.query('SELECT pg_reload_conf()');
  }

  it('and is cut short by one client: it hears OK and the warning, the others that it is unknown', async () => {
    const [canceling, ...others] = (await writers(4)) as [pg.Client, ...pg.Client[]];
    const warnings: string[] = [];
    canceling.on('notice', (notice) => warnings.push(notice.message ?? ''));
    const probe = await front.connectDirectly();
    const told: Outcome[] = [];
    for (let round = 0; round < 10 && !told.includes('!08007'); round++) {
      await setStandbys('nobody');
      for (let waiting = false; !waiting; ) {
        const answered = probe.query('INSERT INTO notes (id) VALUES ($1)', [newId()]);
        const first = await Promise.race([
          answered,
          until(front.server, waits('INSERT')).then(() => 'waits'),
        ]);
        waiting = first === 'waits';
        if (waiting)
          await front.server.query(
            `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`,
          );
        await answered;
      }
      const id = newId();
      const own = execute(canceling, NOTE, [id]);
      const beside = others.map((client) => execute(client, NOTE, [newId()]));
      await until(front.server, waits(''));
      expect(await canceledAll(front, [canceling], [own])).not.toContain('!08007');
      await setStandbys('');
      told.push(...(await Promise.all(beside)));
    }
    expect(told).toContain('!08007');
    expect(warnings.join()).toContain('canceling wait for synchronous replication');
  });
});

describe('few connections', () => {
  it('are shared by many groups of writers and by transactions: nobody waits for ever', async () => {
    const small = await startTestFront({
      connections: 2,
      schema:
        'SET ROLE app; CREATE TABLE notes (id int8 PRIMARY KEY); CREATE TABLE rows (id int PRIMARY KEY, n int); INSERT INTO rows VALUES (1, 0)',
    });
    try {
      let stop = false;
      let id = 0;
      const clients = await Promise.all(
        Array.from({ length: 24 }, (_, i) => small.connect({ options: `-c app.tenant=t${i % 8}` })),
      );
      const load = clients.map(async (client) => {
        let done = 0;
        while (!stop) {
          expect(rowOf(await execute(client, NOTE, [++id]))).toHaveLength(1);
          done++;
        }
        return done;
      });
      const explicit = await small.connect();
      for (let i = 0; i < 10; i++) {
        await explicit.query('BEGIN');
        await explicit.query('UPDATE rows SET n = n + 1 WHERE id = 1');
        await explicit.query('COMMIT');
        await explicit.query('SELECT count(*) FROM rows');
      }
      stop = true;
      for (const done of await Promise.all(load)) expect(done).toBeGreaterThan(5);
    } finally {
      await small.stop();
    }
  });
});

async function rawWriter(): Promise<RawClient> {
  const client = await RawClient.connect({ port: front.router.port });
  const parsed = await client.exchange([
    ['parse', 'add', ADD],
    ['parse', 'note', 'INSERT INTO notes (id) VALUES ($1)'],
    ['sync'],
  ]);
  expect(parsed.at(-1)).toBe('Ready I');
  return client;
}

function bound(name: string, value: number) {
  return [['bind', '', name, [String(value)]], ['execute', ''], ['sync']] as const;
}

let slowTexts = 0;

/** Statements that take many seconds, each on a lane while it is thought to be quick. */
async function slowWrites(count: number): Promise<{ runners: pg.Client[]; ends: Promise<Outcome>[] }> {
  const runners = await Promise.all(Array.from({ length: count }, () => front.connect()));
  const ends: Promise<Outcome>[] = [];
  for (const [i, client] of runners.entries()) {
    const text = `${SLOW} AND ${++slowTexts} > 0`;
    for (let round = 0; round < 3; round++) await execute(client, text, [99]);
    ends.push(execute(client, text, [i + 1]));
  }
  return { runners, ends };
}

async function rowsOf(id: number): Promise<number> {
  const [client] = (await writers(1)) as [pg.Client];
  const { rows } = await client.query('SELECT n FROM rows WHERE id = $1', [id]);
  return rows[0].n;
}

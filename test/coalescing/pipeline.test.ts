/** Writes that are not merged: many in one pipeline, each a transaction of its own (src/coalesce/SPEC.md). */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Message, RawClient } from '../support/raw-client.ts';
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
const TOUCH = 'UPDATE rows SET n = n WHERE id = $1 RETURNING n';
/** On a lane of the router's, and on no backend of a session's, lock_timeout is 20 ms. */
const NOTE = `INSERT INTO notes (id) VALUES ($1) RETURNING xmin::text, current_setting('lock_timeout')`;
/** Some seconds, unless it is canceled. */
const SLOW = `UPDATE slow SET n = n + octet_length(repeat('x', 400000000 + id)) WHERE lane = $1`;
/** More than there are lanes, so that lanes are shared. */
const MANY = 40;

const SCHEMA = `
  CREATE TABLE rows (id int PRIMARY KEY, n int NOT NULL DEFAULT 0 CHECK (n < 1000000));
  INSERT INTO rows SELECT i FROM generate_series(1, 200) i;
  CREATE TABLE notes (id int8 PRIMARY KEY);
  CREATE TABLE slow (lane int, id int, n int8 NOT NULL DEFAULT 0);
  INSERT INTO slow SELECT lane, i FROM generate_series(1, 9) lane, generate_series(1, 40) i;
  CREATE TABLE wide (id int8 PRIMARY KEY, filler text NOT NULL)`;

beforeAll(async () => {
  front = await startTestFront({ coalesce: false, schema: `SET ROLE app; ${SCHEMA}` });
});
afterAll(() => front?.stop());

let lastId = 0;
const newId = (): number => ++lastId;

/** Clients whose statements are known to the router, so that it pipelines them from now on. */
async function writers(count: number, settings: pg.ClientConfig = {}): Promise<pg.Client[]> {
  const clients = await Promise.all(Array.from({ length: count }, () => front.connect(settings)));
  await Promise.all(
    clients.map(async (client) => {
      for (let round = 0; round < 2; round++) {
        await execute(client, NOTE, [newId()]);
        await execute(client, ADD, [200]);
        await client.query('UPDATE rows SET n = 0 WHERE id = 200');
      }
    }),
  );
  return clients;
}

/** Runs `text` until the router knows it and its table, and has it go out on a lane. */
async function onLane(client: pg.Client, text: string): Promise<void> {
  for (let tries = 0; rowOf(await execute(client, text, [newId()]))[1] !== '20ms'; tries++)
    expect(tries).toBeLessThan(500);
}

/** As one client sees its writes: a note, or an increment of a row of its own. */
async function writeBusily(client: pg.Client, index: number, rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    if (round % 2 === 0) expect(rowOf(await execute(client, NOTE, [newId()]))).toHaveLength(2);
    else expect(rowOf(await execute(client, ADD, [100 + index]))).toHaveLength(1);
  }
}

async function numberIn(past: pg.Client, id: number): Promise<number> {
  const { rows } = await past.query('SELECT n FROM rows WHERE id = $1', [id]);
  return rows[0].n;
}

const waitsForLock = `SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = 'app' AND wait_event_type = 'Lock' AND query LIKE 'UPDATE rows%'`;

let slowTexts = 0;

/** A statement of many seconds on a lane, where it is thought to be quick. */
async function slowWrite(): Promise<{ runner: pg.Client; end: Promise<Outcome> }> {
  const runner = await front.connect();
  const text = `${SLOW} AND ${++slowTexts} > 0`;
  for (let round = 0; round < 3; round++) await execute(runner, text, [99]);
  return { runner, end: execute(runner, text, [slowTexts]) };
}

describe('writes that are not merged', () => {
  it('share few connections, and are transactions of their own', async () => {
    const clients = await writers(MANY);
    const xmins = new Set<unknown>();
    let onLanes = 0;
    for (let round = 0; round < 5; round++) {
      const outcomes = await Promise.all(clients.map((client) => execute(client, NOTE, [newId()])));
      for (const outcome of outcomes) {
        const [xmin, lockTimeout] = rowOf(outcome);
        xmins.add(xmin);
        if (lockTimeout === '20ms') onLanes++;
      }
    }
    // On a busy machine one or another runs into the time-outs of its lane.
    expect(onLanes).toBeGreaterThan(3 * MANY);
    expect(xmins.size).toBe(5 * MANY);
    const [row] = await front.server.query(
      // Those that the router has for itself are no clients' backends.
      `SELECT count(*)::int AS backends FROM pg_stat_activity WHERE datname = 'app' AND application_name NOT LIKE 'postern %'`,
    );
    expect(row!.backends).toBeLessThanOrEqual(20);
  });

  it('are also those of a session that has merging off, and their rows are theirs alone', async () => {
    const merging = await startTestFront({ schema: `SET ROLE app; ${SCHEMA}` });
    try {
      const clients = await Promise.all(Array.from({ length: 16 }, () => merging.connect()));
      for (const client of clients) {
        await client.query('SET postern.coalesce = off');
        await onLane(client, NOTE);
      }
      const outcomes = await Promise.all(clients.map((client) => execute(client, NOTE, [newId()])));
      expect(new Set(outcomes.map((outcome) => rowOf(outcome)[0])).size).toBe(16);
      expect(outcomes.map((outcome) => rowOf(outcome)[1])).toContain('20ms');
    } finally {
      await merging.stop();
    }
  });

  it('are also those to a table with a deferrable constraint, whose violation the commit finds', async () => {
    const merging = await startTestFront({
      schema: `SET ROLE app; CREATE TABLE deferred (id int8 UNIQUE DEFERRABLE INITIALLY DEFERRED)`,
    });
    try {
      const text = `INSERT INTO deferred VALUES ($1) RETURNING xmin::text, current_setting('lock_timeout')`;
      const clients = await Promise.all(Array.from({ length: 16 }, () => merging.connect()));
      for (const client of clients) await onLane(client, text);
      const ids = clients.map((_, i) => (i % 4 === 3 ? 1_000_000 : newId()));
      const outcomes = await Promise.all(clients.map((client, i) => execute(client, text, [ids[i]])));
      const stored = outcomes.filter((outcome) => typeof outcome !== 'string').map(rowOf);
      expect(stored.map(([, lockTimeout]) => lockTimeout)).toContain('20ms');
      expect(new Set(stored.map(([xmin]) => xmin)).size).toBe(13);
      expect(outcomes.filter((outcome) => outcome === '!23505 deferred_id_key')).toHaveLength(3);
    } finally {
      await merging.stop();
    }
  });

  it('keep the settings of their clients apart', async () => {
    const text = `UPDATE rows SET n = n WHERE id = $1 RETURNING current_setting('TimeZone'), current_setting('lock_timeout')`;
    const zones = ['UTC', 'Asia/Tokyo', 'America/New_York'];
    const clients = await Promise.all(
      Array.from({ length: 24 }, (_, i) => front.connect({ options: `-c TimeZone=${zones[i % 3]}` })),
    );
    for (let round = 0; round < 6; round++) {
      const outcomes = await Promise.all(clients.map((client, i) => execute(client, text, [1 + i])));
      for (const [i, outcome] of outcomes.entries()) expect(rowOf(outcome)[0]).toBe(zones[i % 3]);
      if (round === 5) expect(outcomes.map((outcome) => rowOf(outcome)[1])).toContain('20ms');
    }
  });

  it('of one client keep their order when it sends them without waiting', async () => {
    const client = await RawClient.connect({ port: front.router.port });
    await client.exchange([
      ['parse', 's', 'UPDATE rows SET n = (n * 2 + $2) % 997 WHERE id = $1 RETURNING n'],
      ['sync'],
    ]);
    const noise = (await writers(8)).map((each, i) => writeBusily(each, i, 20));
    const one = (bit: number): Message[] => [
      ['bind', '', 's', ['30', String(bit)]],
      ['execute', ''],
      ['sync'],
    ];
    const bits = Array.from({ length: 60 }, (_, i) => (i * 7 + 3) % 2);
    const lines = await client.exchange(bits.flatMap(one), bits.length);
    let n = 0;
    const expected = bits.map((bit) => {
      n = (n * 2 + bit) % 997;
      return `Row ${n}`;
    });
    expect(lines.filter((line) => line.startsWith('Row'))).toEqual(expected);
    await Promise.all(noise);
    client.end();
  });
});

describe('an error', () => {
  it('is told as the server tells it, and is nobody else’s', async () => {
    const noise = (await writers(MANY)).map((client, i) => writeBusily(client, i, 12));
    const parse: Message[] = [
      ['parse', 'add', 'UPDATE rows SET n = n + $2 WHERE id = $1 RETURNING id, n'],
      ['parse', 'note', 'INSERT INTO notes (id) VALUES ($1)'],
      ['sync'],
    ];
    const one = (name: string, ...values: string[]): Message[] => [
      ['bind', '', name, values],
      ['describe', 'P', ''],
      ['execute', ''],
      ['sync'],
    ];
    const id = String(1_000_000);
    const script: Message[][] = [
      one('note', id),
      one('note', id),
      one('note', 'no number'),
      one('note', id, id),
      one('add', '41', '1'),
      one('add', '41', '5000000'),
      one('add', '41', '1'),
    ];
    const answers: string[][] = [];
    for (const port of [front.router.port, front.server.port]) {
      const client = await RawClient.connect({ port });
      await client.exchange(parse);
      const lines: string[] = [];
      for (const messages of script) lines.push(...(await client.exchange(messages)));
      answers.push(lines);
      client.end();
      const past = await front.connectDirectly();
      await past.query('DELETE FROM notes WHERE id = $1', [id]);
      await past.query('UPDATE rows SET n = 0 WHERE id = 41');
    }
    expect(answers[0]).toEqual(answers[1]);
    expect(answers[0]!.filter((line) => line.startsWith('Error'))).toHaveLength(4);
    await Promise.all(noise);
  });

  it('of a statement sent as text has the place in that text', async () => {
    const text = (value: number) => `UPDATE rows SET n = 1000000 + 0 * ${value} WHERE id = 42`;
    const told = async (client: pg.Client): Promise<unknown> => {
      for (let round = 0; round < 3; round++) await client.query(text(round)).catch(() => {});
      const { code, message, constraint, detail } = (await client
        .query(text(7))
        .catch((error) => error)) as Record<string, string>;
      return { code, message, constraint, detail };
    };
    expect(await told(await front.connect())).toEqual(await told(await front.connectDirectly()));
  });
});

describe('a row that is held', () => {
  it('keeps no OK from an application that waits for it before it lets go', { timeout: 60_000 }, async () => {
    const [stranger, another, ...clients] = (await writers(MANY)) as [pg.Client, pg.Client, ...pg.Client[]];
    for (let round = 0; round < 5; round++) {
      const holder = await openTransaction(front, 'UPDATE rows SET n = n + 1 WHERE id IN (21, 22)');
      const waiting = [execute(stranger, ADD, [21]), execute(another, ADD, [22])];
      const others = clients.map((client, i) => execute(client, ADD, [100 + i]));
      for (const outcome of await Promise.all(others)) expect(rowOf(outcome)).toHaveLength(1);
      await until(front.server, waitsForLock);
      await holder.query('COMMIT');
      for (const outcome of await Promise.all(waiting)) expect(rowOf(outcome)).toEqual([2 * round + 2]);
      await holder.end();
    }
  });

  it('is waited for as long as the client has set', async () => {
    const holder = await openTransaction(front, 'UPDATE rows SET n = n + 1 WHERE id = 75');
    for (const [option, sqlState] of [
      ['lock_timeout', '!55P03'],
      ['statement_timeout', '!57014'],
    ]) {
      const [client] = (await writers(1, { options: `-c ${option}=400ms` })) as [pg.Client];
      const start = performance.now();
      expect(await execute(client, ADD, [75])).toBe(sqlState);
      expect(performance.now() - start).toBeGreaterThan(399);
    }
    await holder.query('ROLLBACK');
  });

  it('that many write at once is written by each, and by none twice', async () => {
    const clients = await writers(MANY);
    const values: number[] = [];
    await Promise.all(
      clients.map(async (client) => {
        for (let step = 0; step < 10; step++) values.push(Number(rowOf(await execute(client, ADD, [76]))[0]));
      }),
    );
    expect(values.sort((a, b) => a - b)).toEqual(Array.from({ length: 10 * MANY }, (_, i) => i + 1));
  });
});

describe('a slow statement', () => {
  it('runs alone: those on its lane, and those behind it, go on', async () => {
    const { runner, end } = await slowWrite();
    await Promise.all((await writers(MANY)).map((client, i) => writeBusily(client, i, 6)));
    await until(
      front.server,
      `SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'UPDATE slow%'`,
    );
    expect(await canceledAll(front, [runner], [end])).toEqual(['!57014']);
  });

  it('may be answered with more than a lane keeps back', async () => {
    const clients = await writers(6);
    await clients[0]!.query(`INSERT INTO wide SELECT i, repeat('x', 1000) FROM generate_series(1, 8000) i`);
    const move = 'UPDATE wide SET id = id + 10000 WHERE id < $1 RETURNING id, filler';
    await execute(clients[0]!, move, [0]);
    const large = execute(clients[0]!, move, [8001]);
    const small = clients.slice(1).map((client) => execute(client, NOTE, [newId()]));
    for (const outcome of await Promise.all(small)) expect(rowOf(outcome)).toHaveLength(2);
    expect(await large).toHaveLength(8000);
    const { rows } = await clients[0]!.query('SELECT min(id)::int AS low, max(id)::int AS high FROM wide');
    expect(rows[0]).toEqual({ low: 10001, high: 18000 });
  });
});

describe('a write that is taken back', () => {
  it('in any state ends, is not carried out, and nobody else is told so', { timeout: 60_000 }, async () => {
    const [client, ...clients] = (await writers(MANY)) as [pg.Client, ...pg.Client[]];
    let canceled = 0;
    let stop = false;
    const past = await front.connectDirectly();
    const others = clients.map(async (each, i) => {
      while (!stop) {
        // Half of them stand before the canceled one, on the lane of its row.
        if (i % 2 === 0) expect(rowOf(await execute(each, TOUCH, [80]))).toHaveLength(1);
        else await writeBusily(each, i, 2);
      }
    });
    try {
      for (let round = 0; round < 30 || (canceled === 0 && round < 200); round++) {
        const before = await numberIn(past, 80);
        const taken = execute(client, ADD, [80]);
        await cancelAll(front, [client]);
        const outcome = await taken;
        if (outcome === '!57014') canceled++;
        else expect(rowOf(outcome)).toEqual([before + 1]);
        expect(await numberIn(past, 80)).toBe(outcome === '!57014' ? before : before + 1);
      }
    } finally {
      stop = true;
      await Promise.allSettled(others);
    }
    await Promise.all(others);
    expect(canceled).toBeGreaterThan(0);
  });

  it('while it waits for a held row ends, and its row stays as it was', async () => {
    const holder = await openTransaction(front, 'UPDATE rows SET n = n + 1 WHERE id = 98');
    const [client] = (await writers(1)) as [pg.Client];
    const waiting = execute(client, ADD, [98]);
    await until(front.server, waitsForLock);
    expect(await canceledAll(front, [client], [waiting])).toEqual(['!57014']);
    await holder.query('ROLLBACK');
    expect(await numberIn(await front.connectDirectly(), 98)).toBe(0);
  });

  it('is carried out when its client has vanished', async () => {
    const vanishing = await RawClient.connect({ port: front.router.port });
    await vanishing.exchange([['parse', 'note', 'INSERT INTO notes (id) VALUES ($1)'], ['sync']]);
    const id = newId();
    vanishing.send(['bind', '', 'note', [String(newId())]], ['execute', ''], ['sync']);
    await vanishing.readUntil(/^Ready/);
    vanishing.send(['bind', '', 'note', [String(id)]], ['execute', ''], ['sync']);
    vanishing.socket.end();
    const past = await front.connectDirectly();
    for (let found = 0; found === 0; )
      found = (await past.query('SELECT FROM notes WHERE id = $1', [id])).rowCount!;
  });
});

describe('a lane whose connection is lost', () => {
  it('leaves those sent in doubt and the others whole', { timeout: 60_000 }, async () => {
    const clients = await writers(MANY);
    const told = new Map<number, Outcome>();
    let stop = false;
    const load = clients.map(async (client) => {
      while (!stop) {
        const id = newId();
        told.set(id, await outcomeOf(client.query({ ...prepared, values: [id], rowMode: 'array' as const })));
      }
    });
    const terminate = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'app' AND query LIKE '%INTO notes%' LIMIT 3`;
    const inDoubt = () => [...told.values()].filter((outcome) => outcome === '!08007').length;
    for (let round = 0; round < 200 && inDoubt() === 0; round++) await front.server.query(terminate);
    stop = true;
    await Promise.all(load);
    expect(inDoubt()).toBeGreaterThan(0);
    const past = await front.connectDirectly();
    const { rows } = await past.query<{ id: string }>('SELECT id FROM notes');
    const there = new Set(rows.map(({ id }) => Number(id)));
    for (const [id, outcome] of told) {
      if (outcome === '!08007') continue;
      expect(typeof outcome, `note ${id}: ${outcome}`).not.toBe('string');
      expect(there.has(id)).toBe(true);
    }
  });
});

const prepared = { name: 'note', text: 'INSERT INTO notes (id) VALUES ($1)' };

/**
 * Clients that write at random through a router, each with settings of its own, and what they were answered. Everything that a
 * client is told is judged at once where it is its own affair, and kept as a history where it takes all clients' answers.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { seededRandom } from '../../src/wall/load/seeded-random.ts';
import { sendCancel } from '../support/raw-client.ts';
import { execute, type Outcome, outcomeOf } from './front.ts';
import type { Increment, Interval, KeyOperation } from './history.ts';

export const COUNTERS = 6;
export const KEYS = 10;
const ZONES = ['UTC', 'Asia/Tokyo', 'America/New_York'];
const TENANTS = ['', 'blue', 'green'];

/** `options(key)` is what comes behind each table: nothing, or WITH (postern.door …). */
export function workloadSchema(options: (key: string) => string, secondKey: boolean): string[] {
  return [
    `CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL CHECK (n < 1000000)) ${options('id')}`,
    `CREATE TABLE claims (k int PRIMARY KEY, owner text NOT NULL, other int${secondKey ? ' UNIQUE' : ''}) ${options('k')}`,
    `CREATE TABLE chain (client int PRIMARY KEY, last int NOT NULL) ${options('client')}`,
    `CREATE TABLE stamps (id int PRIMARY KEY, at timestamptz NOT NULL, tenant text DEFAULT current_setting('app.tenant', true)) ${options('id')}`,
    `CREATE TABLE handover (id int PRIMARY KEY, from_client int NOT NULL) ${options('id')}`,
  ];
}

/** What all clients have seen together. */
export class History {
  readonly increments = new Map<number, Increment[]>();
  readonly claims = new Map<number, KeyOperation[]>();
  readonly outcomes = new Map<string, number>();
  readonly violations: string[] = [];
  statements = 0;
  #time = 0;

  now(): number {
    return this.#time++;
  }

  note<T>(lists: Map<number, T[]>, key: number, entry: T): void {
    const list = lists.get(key);
    if (list) list.push(entry);
    else lists.set(key, [entry]);
  }
}

export interface WorkloadOptions {
  readonly connect: (settings: pg.ClientConfig) => Promise<pg.Client>;
  readonly port: number;
  readonly clients: number;
  readonly steps: number;
  readonly seed: number;
  /** A second unique key on claims. */
  readonly secondKey: boolean;
}

export async function runWorkload(options: WorkloadOptions): Promise<History> {
  const history = new History();
  const handovers: Handover[] = [];
  const clients = await Promise.all(
    Array.from({ length: options.clients }, (_, index) =>
      WorkloadClient.connect({ options, index, history, handovers }),
    ),
  );
  await Promise.all(clients.map((client) => client.run(options.steps)));
  return history;
}

/** A row that one client was told is there: another takes it away. */
interface Handover {
  readonly id: number;
}

interface Place {
  readonly options: WorkloadOptions;
  readonly index: number;
  readonly history: History;
  readonly handovers: Handover[];
}

type Told = Interval & { readonly outcome: Outcome };

class WorkloadClient {
  readonly #place: Place;
  readonly #client: pg.Client;
  readonly #random: () => number;
  readonly #zone: string;
  readonly #tenant: string;
  readonly #style: 'prepared' | 'unnamed' | 'simple';
  #sequence = 0;
  #cancelSent = false;

  static async connect(place: Place): Promise<WorkloadClient> {
    const zone = ZONES[place.index % 4] ?? 'UTC';
    const tenant = TENANTS[place.index % 7] ?? '';
    const client = await place.options.connect({
      options: `-c TimeZone=${zone}${tenant && ` -c app.tenant=${tenant}`}`,
    });
    return new WorkloadClient(place, client, zone, tenant);
  }

  private constructor(place: Place, client: pg.Client, zone: string, tenant: string) {
    this.#place = place;
    this.#client = client;
    this.#zone = zone;
    this.#tenant = tenant;
    this.#style = (['prepared', 'prepared', 'simple', 'unnamed'] as const)[place.index % 4]!;
    this.#random = seededRandom(place.options.seed + place.index);
  }

  async run(steps: number): Promise<void> {
    for (let step = 0; step < steps; step++) await this.#step();
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  async #step(): Promise<void> {
    const choice = this.#below(100);
    if (choice < 30) await this.#increment();
    else if (choice < 50) await this.#claim();
    else if (choice < 62) await this.#drop();
    else if (choice < 72) await this.#chain();
    else if (choice < 80) await this.#stamp();
    else if (choice < 88) await this.#handOver();
    else if (choice < 94) await this.#fail();
    else await this.#transaction();
  }

  /** Sends one statement, now and then with a cancel behind it, and says what came of it and when. */
  async #tell(text: string, values: readonly (string | number)[]): Promise<Told> {
    const { history, options } = this.#place;
    const start = history.now();
    const answered = this.#send(text, values);
    const cancels = this.#below(40) === 0;
    const canceled = cancels ? this.#cancel(options.port) : undefined;
    const outcome = await answered;
    const end = history.now();
    await canceled;
    history.statements++;
    const kind = typeof outcome === 'string' ? outcome : 'OK';
    history.outcomes.set(kind, (history.outcomes.get(kind) ?? 0) + 1);
    if (outcome === '!57014' && !this.#cancelSent) this.#complain(text, 'canceled unasked');
    this.#cancelSent = cancels;
    return { start, end, outcome };
  }

  #send(text: string, values: readonly (string | number)[]): Promise<Outcome> {
    switch (this.#style) {
      case 'prepared':
        return execute(this.#client, text, values);
      case 'unnamed':
        return outcomeOf(this.#client.query({ text, values: [...values], rowMode: 'array' }));
      case 'simple': {
        const literal = text.replace(/\$(\d)/g, (_, digit) => {
          const value = values[Number(digit) - 1]!;
          return typeof value === 'number' ? String(value) : pg.escapeLiteral(value);
        });
        return outcomeOf(this.#client.query({ text: literal, rowMode: 'array' }));
      }
    }
  }

  async #cancel(port: number): Promise<void> {
    this.#cancelSent = true;
    const { processID, secretKey } = this.#client as unknown as {
      processID: number;
      secretKey: number | Buffer;
    };
    const key = Buffer.isBuffer(secretKey) ? secretKey : Buffer.alloc(4);
    if (typeof secretKey === 'number') key.writeInt32BE(secretKey);
    if (this.#below(2) === 0) await sleep(this.#below(4));
    await sendCancel(port, processID, key);
  }

  async #increment(): Promise<void> {
    const id = this.#below(COUNTERS);
    const told = await this.#tell('UPDATE counters SET n = n + 1 WHERE id = $1 RETURNING n', [id]);
    const { outcome, ...interval } = told;
    if (typeof outcome !== 'string')
      this.#place.history.note(this.#place.history.increments, id, {
        ...interval,
        value: Number(outcome[0]?.[0]),
      });
    else this.#expect(told, 'an increment', []);
  }

  async #claim(): Promise<void> {
    const { history, options, index } = this.#place;
    const k = this.#below(KEYS);
    const owner = `${index}/${this.#sequence++}`;
    const other = 1000 + this.#below(KEYS);
    const told = await this.#tell('INSERT INTO claims (k, owner, other) VALUES ($1, $2, $3)', [
      k,
      owner,
      options.secondKey ? other : 0,
    ]);
    const { outcome, ...interval } = told;
    if (outcome === '!23505 claims_pkey') history.note(history.claims, k, { ...interval, kind: 'exists' });
    else if (outcome === '!23505 claims_other_key')
      history.note(history.claims, other, { ...interval, kind: 'exists' });
    else if (typeof outcome === 'string') this.#expect(told, 'a claim', []);
    else {
      history.note(history.claims, k, { ...interval, kind: 'inserted', owner });
      if (options.secondKey) history.note(history.claims, other, { ...interval, kind: 'inserted', owner });
    }
  }

  async #drop(): Promise<void> {
    const { history, options } = this.#place;
    const k = this.#below(KEYS);
    const told = await this.#tell('DELETE FROM claims WHERE k = $1 RETURNING owner, other', [k]);
    const { outcome, ...interval } = told;
    if (typeof outcome === 'string') {
      this.#expect(told, 'a deletion', []);
      return;
    }
    const [row] = outcome;
    if (!row) history.note(history.claims, k, { ...interval, kind: 'missing' });
    else {
      const owner = String(row[0]);
      history.note(history.claims, k, { ...interval, kind: 'deleted', owner });
      if (options.secondKey)
        history.note(history.claims, Number(row[1]), { ...interval, kind: 'deleted', owner });
    }
  }

  /** Each finds what the one before has left. */
  async #chain(): Promise<void> {
    const { index } = this.#place;
    let last = 1;
    for (const add of [0, 1, 2]) {
      const text = 'UPDATE chain SET last = last * 3 + $2 WHERE client = $1 RETURNING last';
      const told = await this.#tell(text, [index, add]);
      if (typeof told.outcome === 'string') {
        this.#expect(told, text, []);
        continue;
      }
      last = last * 3 + add;
      const found = told.outcome[0]?.[0];
      if (found !== last) this.#complain(text, `${found}, and not ${last}`);
    }
    // However many of these are canceled, the row is what the client was told of.
    for (let told: Told | undefined; typeof (told?.outcome ?? '') === 'string'; )
      told = await this.#tell('UPDATE chain SET last = 1 WHERE client = $1', [index]);
  }

  async #stamp(): Promise<void> {
    const id = this.#place.index * 100_000 + this.#sequence++;
    const told = await this.#tell(
      `INSERT INTO stamps (id, at) VALUES ($1, $2) RETURNING at::text, tenant, current_setting('TimeZone')`,
      [id, '2024-01-01 00:00:00+00'],
    );
    const { outcome } = told;
    if (typeof outcome === 'string') this.#expect(told, 'a stamp', []);
    else {
      const [at, tenant, zone] = outcome[0]!;
      const local = { UTC: '2024-01-01 00:00:00+00', 'Asia/Tokyo': '2024-01-01 09:00:00+09' }[this.#zone];
      const right = at === (local ?? '2023-12-31 19:00:00-05') && zone === this.#zone;
      if (!right || (tenant ?? '') !== this.#tenant)
        this.#complain('a stamp', `another's settings: ${outcome[0]}, not ${this.#zone} ${this.#tenant}`);
    }
  }

  /** One client's OK lets another go on. */
  async #handOver(): Promise<void> {
    const { handovers, index } = this.#place;
    const received = handovers.shift();
    if (!received) {
      const id = index * 100_000 + this.#sequence++;
      const told = await this.#tell('INSERT INTO handover (id, from_client) VALUES ($1, $2)', [id, index]);
      if (typeof told.outcome === 'string') this.#expect(told, 'a hand-over', []);
      else handovers.push({ id });
      return;
    }
    const told = await this.#tell('DELETE FROM handover WHERE id = $1 RETURNING from_client', [received.id]);
    if (typeof told.outcome === 'string') this.#expect(told, 'a taking over', []);
    else if (told.outcome.length !== 1)
      this.#complain('a taking over', 'a row is not there although it was answered OK');
  }

  /** What PostgreSQL refuses. */
  async #fail(): Promise<void> {
    const id = this.#below(COUNTERS);
    const [text, values, ...expected] = [
      ['UPDATE counters SET n = n + 1000000 WHERE id = $1', [id], '!23514 counters_n_check'],
      // While n is 0 it is the check that objects.
      [
        'UPDATE counters SET n = n + $2 WHERE id = $1',
        [id, 2_147_483_647],
        '!22003',
        '!23514 counters_n_check',
      ],
      ['INSERT INTO counters (id, n) VALUES ($1, $2)', [id, 0], '!23505 counters_pkey'],
      ['INSERT INTO counters (id, n) VALUES ($1, $2)', [id, 'many'], '!22P02'],
      ['UPDATE counters SET n = 1 / (n - n) WHERE id = $1', [id], '!22012'],
    ][this.#below(5)] as [string, (string | number)[], ...string[]];
    this.#expect(await this.#tell(text, values), text, expected);
  }

  /** Two rows, in one order as any careful application, held for a while; then kept or given up. */
  async #transaction(): Promise<void> {
    const { history, options } = this.#place;
    const first = this.#below(COUNTERS);
    const second = options.secondKey ? this.#below(COUNTERS) : first;
    const ids = first < second ? [first, second] : first > second ? [second, first] : [first];
    const values: { id: number; start: number; value: number }[] = [];
    let failed = await this.#send('BEGIN', []).then((outcome) => typeof outcome === 'string');
    for (const id of ids) {
      if (failed) break;
      const start = history.now();
      const outcome = await this.#send('UPDATE counters SET n = n + 1 WHERE id = $1 RETURNING n', [id]);
      history.statements++;
      if (typeof outcome === 'string') {
        failed = true;
        if (outcome !== '!57014' || !this.#cancelSent) this.#complain('a transaction', `died of ${outcome}`);
      } else values.push({ id, start, value: Number(outcome[0]?.[0]) });
      await sleep(this.#below(30));
    }
    const keeps = !failed && this.#below(3) > 0;
    const ended = await this.#send(keeps ? 'COMMIT' : 'ROLLBACK', []);
    if (typeof ended === 'string') this.#complain('a transaction', `did not end: ${ended}`);
    const end = history.now();
    if (keeps)
      for (const { id, start, value } of values) history.note(history.increments, id, { start, end, value });
    this.#cancelSent = false;
  }

  #expect({ outcome }: Told, what: string, expected: readonly string[]): void {
    if (typeof outcome === 'string' && (outcome === '!57014' || expected.includes(outcome))) return;
    this.#complain(what, `answered ${JSON.stringify(outcome)}`);
  }

  #complain(what: string, problem: string): void {
    this.#place.history.violations.push(`client ${this.#place.index} (${this.#style}), ${what}: ${problem}`);
  }
}

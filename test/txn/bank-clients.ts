/**
 * The bank's clients: each moves money between accounts, remembers what it was told, and after an OK looks at what it has
 * written; readers ask for the sum over all nodes. What can't be, they report at once.
 *
 * Every wait is bounded, and a query that is answered by nobody for ANSWER_TIMEOUT_MS, far longer than any disturbance and
 * the routers' own bounds, is a violation.
 */
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { isDistributed, type Leg, type Transfer } from './bank-history.ts';

export interface Accounts {
  readonly ids: readonly number[];
  readonly nodeOf: ReadonlyMap<number, number>;
  readonly sum: number;
}

export interface ClientWorld {
  readonly accounts: Accounts;
  readonly random: () => number;
  /** Where it is now; undefined: that router is down. */
  portOf(router: number): number | undefined;
  readonly isOver: () => boolean;
  report(violation: string): void;
}

const ANSWER_TIMEOUT_MS = 30_000;
const RETRY_MS = 50;
/** Of one connection; then it logs in to its own router again. */
const STEPS_MAX = 30;
/** Shorter than a frozen transaction lives: rows of one in doubt are not waited for by everybody. */
const LOCK_TIMEOUT_MS = 1_000;
const MANY_LEGS_MAX = 4;
const TOKEN = /pt1_[\w-]+/;
/** The client's own connection, and not a server's answer. */
const LOST = 'connection lost';

/** Sent to nobody, or answered by nobody. */
class ConnectionLost extends Error {}

/** One at a time; statements fail with pg.DatabaseError, or with ConnectionLost. */
class Connection {
  readonly #client: pg.Client;
  readonly #world: ClientWorld;
  warned = false;

  private constructor(client: pg.Client, world: ClientWorld) {
    this.#client = client;
    this.#world = world;
    client.on('notice', ({ severity, message }) => {
      if (severity === 'WARNING' && message?.startsWith('node "')) this.warned = true;
    });
  }

  static async open(world: ClientWorld, router: number): Promise<Connection | undefined> {
    const port = world.portOf(router);
    if (port === undefined) return undefined;
    const client = new pg.Client({
      ...{ host: '127.0.0.1', port, user: 'app', database: 'app' },
      connectionTimeoutMillis: ANSWER_TIMEOUT_MS,
    });
    client.on('error', () => {});
    try {
      await client.connect();
      return new Connection(client, world);
    } catch {
      socketOf(client)?.destroy();
      return undefined;
    }
  }

  async query(text: string, values?: unknown[]): Promise<{ tag: string; rows: Record<string, unknown>[] }> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        this.#world.report(`no answer for ${ANSWER_TIMEOUT_MS} ms: ${text}`);
        this.destroy();
        reject(new ConnectionLost(LOST));
      }, ANSWER_TIMEOUT_MS);
    });
    try {
      const result = await Promise.race([this.#client.query(text, values), late]);
      return { tag: result.command, rows: result.rows };
    } catch (error) {
      if (error instanceof pg.DatabaseError) throw error;
      this.destroy();
      throw new ConnectionLost(LOST);
    } finally {
      clearTimeout(timer);
    }
  }

  destroy(): void {
    socketOf(this.#client)?.destroy();
  }

  async close(): Promise<void> {
    await Promise.race([this.#client.end().catch(() => {}), delay(1_000, undefined, { ref: false })]);
    this.destroy();
  }
}

function socketOf(client: pg.Client): { destroy(): void } | undefined {
  return (client as unknown as { connection?: { stream?: { destroy(): void } } }).connection?.stream;
}

/** Runs `step` on a connection to one of the routers, and on a new one when it is lost, until the world is over. */
async function onConnections(
  world: ClientWorld,
  router: number,
  login: readonly string[],
  step: (connection: Connection) => Promise<void>,
): Promise<void> {
  let at = router;
  while (!world.isOver()) {
    const connection = await Connection.open(world, at);
    try {
      if (connection) {
        for (const text of login) await connection.query(text);
        for (let steps = 0; steps < STEPS_MAX && !world.isOver(); steps++) await step(connection);
        at = 1 - router;
      }
    } catch (error) {
      if (!(error instanceof ConnectionLost) && !(error instanceof pg.DatabaseError)) throw error;
    } finally {
      await connection?.close();
    }
    // While its router is down, the other one will do as well.
    at = 1 - at;
    if (!world.isOver()) await delay(RETRY_MS);
  }
}

export class BankClient {
  readonly transfers: Transfer[] = [];
  readonly #index: number;
  readonly #world: ClientWorld;
  readonly #nextId: () => number;
  /** Commits wait for no WAL of its server's. */
  readonly #lazy: boolean;

  constructor(options: { index: number; lazy: boolean; world: ClientWorld; nextId: () => number }) {
    this.#index = options.index;
    this.#lazy = options.lazy;
    this.#world = options.world;
    this.#nextId = options.nextId;
  }

  async run(): Promise<void> {
    const login = [`SET lock_timeout = ${LOCK_TIMEOUT_MS}`];
    if (this.#lazy) login.push('SET synchronous_commit = off');
    await onConnections(this.#world, this.#index % 2, login, (connection) => this.#transfer(connection));
  }

  async #transfer(connection: Connection): Promise<void> {
    const transfer: Transfer = {
      ...{ id: this.#nextId(), legs: this.#draw(), lazy: this.#lazy, view: 'refused', told: '' },
    };
    this.transfers.push(transfer);
    connection.warned = false;
    try {
      await connection.query('BEGIN');
      await this.#write(connection, transfer);
      transfer.view = 'unknown';
      transfer.told = LOST;
      const { tag } = await connection.query('COMMIT');
      transfer.view = tag === 'COMMIT' ? 'ok' : 'refused';
      transfer.told = tag;
    } catch (error) {
      if (!(error instanceof pg.DatabaseError)) throw error;
      this.#judge(transfer, error);
      await connection.query('ROLLBACK');
      await delay(RETRY_MS);
      return;
    }
    if (transfer.view === 'ok' && !connection.warned) await this.#lookAgain(connection, transfer);
  }

  #judge(transfer: Transfer, error: pg.DatabaseError): void {
    const isCommitting = transfer.view === 'unknown';
    transfer.told = `${error.code} ${error.message}`;
    transfer.view = 'refused';
    if (!isCommitting) return;
    if (error.code === 'XX001') transfer.view = 'lost';
    if (error.code !== '08007') return;
    transfer.view = 'unknown';
    const [token] = TOKEN.exec(error.detail ?? '') ?? [];
    if (token !== undefined) transfer.token = token;
    else if (isDistributed(transfer, this.#world.accounts.nodeOf))
      this.#world.report(`transfer ${transfer.id}: 08007 without a token: ${error.message}`);
  }

  /** Legs in the order of their accounts, mostly: the others meet in deadlocks. */
  #draw(): Leg[] {
    const { random, accounts } = this.#world;
    const { ids, nodeOf } = accounts;
    const below = (n: number) => Math.floor(random() * n);
    const count = below(4) > 0 ? 2 : 2 + below(MANY_LEGS_MAX - 1);
    const first = ids[below(ids.length)]!;
    // One in five stays on one node.
    const local = below(5) === 0 ? ids.filter((id) => nodeOf.get(id) === nodeOf.get(first)) : ids;
    const chosen = new Set([first]);
    while (chosen.size < Math.min(count, local.length)) chosen.add(local[below(local.length)]!);
    const [taker = first, ...givers] = [...chosen];
    const legs = givers.map((account) => ({ account, amount: -1 - below(9) }));
    legs.push({ account: taker, amount: -legs.reduce((sum, { amount }) => sum + amount, 0) });
    return below(8) === 0 ? legs : legs.sort((a, b) => a.account - b.account);
  }

  async #write(connection: Connection, { id, legs }: Transfer): Promise<void> {
    const { random, accounts } = this.#world;
    if (random() < 0.3) {
      // A branch that only reads.
      const account = accounts.ids[Math.floor(random() * accounts.ids.length)];
      await connection.query(`SELECT balance FROM accounts WHERE id = ${account}`);
    }
    if (random() < 0.2) {
      const cases = legs.map(({ account, amount }) => `WHEN ${account} THEN ${amount}`).join(' ');
      const list = legs.map(({ account }) => account).join(', ');
      await connection.query(
        `UPDATE accounts SET balance = balance + CASE id ${cases} END WHERE id IN (${list})`,
      );
      const values = legs.map(({ account, amount }) => `(${account}, ${id}, ${amount})`).join(', ');
      await connection.query(`INSERT INTO ledger (account, transfer, amount) VALUES ${values}`);
      return;
    }
    for (const { account, amount } of legs) {
      await connection.query('UPDATE accounts SET balance = balance + $2 WHERE id = $1', [account, amount]);
      const row = [account, id, amount];
      await connection.query('INSERT INTO ledger (account, transfer, amount) VALUES ($1, $2, $3)', row);
    }
  }

  /** What was told OK is there, on every node, for who has been told. */
  async #lookAgain(connection: Connection, transfer: Transfer): Promise<void> {
    const { accounts, report } = this.#world;
    if (transfer.lazy && !isDistributed(transfer, accounts.nodeOf)) return;
    for (const { account, amount } of transfer.legs) {
      const { rows } = await connection.query(
        `SELECT amount FROM ledger WHERE account = ${account} AND transfer = ${transfer.id}`,
      );
      if (Number(rows[0]?.amount) !== amount)
        report(`transfer ${transfer.id}: OK, and its client doesn't see it at account ${account}`);
    }
  }
}

/** Reads the sum over all nodes, again and again, with `postern.consistent_reads`. */
export class BankReader {
  reads = 0;
  /** By SQLSTATE: a read may fail, but not be wrong. */
  readonly failures = new Map<string, number>();
  readonly #index: number;
  readonly #world: ClientWorld;

  constructor(options: { index: number; world: ClientWorld }) {
    this.#index = options.index;
    this.#world = options.world;
  }

  async run(): Promise<void> {
    const login = ['SET postern.consistent_reads = on'];
    await onConnections(this.#world, this.#index % 2, login, (connection) => this.#read(connection));
  }

  async #read(connection: Connection): Promise<void> {
    const { random } = this.#world;
    try {
      if (random() < 0.5) this.#check(await sumOf(connection), 'outside of a transaction');
      else {
        await connection.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
        const sum = await sumOf(connection);
        const isRight = this.#check(sum, 'in a transaction');
        if (!isRight) await this.#tellHalves(connection);
        if ((await sumOf(connection)) !== sum) this.#world.report('a transaction has read two sums');
        await connection.query('COMMIT');
      }
      this.reads++;
    } catch (error) {
      if (!(error instanceof pg.DatabaseError)) throw error;
      const code = error.code ?? error.message;
      this.failures.set(code, (this.failures.get(code) ?? 0) + 1);
      await connection.query('ROLLBACK');
    }
    await delay(10);
  }

  #check(sum: number, how: string): boolean {
    const { accounts, report } = this.#world;
    if (sum === accounts.sum) return true;
    report(`a consistent read ${how} has seen a sum of ${sum}, not ${accounts.sum}`);
    return false;
  }

  /** For whoever has to find out: the transfers of which the same snapshots have a part. */
  async #tellHalves(connection: Connection): Promise<void> {
    const { rows } = await connection.query(
      'SELECT transfer, sum(amount) AS sum FROM ledger GROUP BY transfer',
    );
    const halves = rows.filter(({ sum }) => Number(sum) !== 0).map(({ transfer }) => transfer);
    this.#world.report(`transfers that it has seen half of: ${halves.join(', ')}`);
  }
}

async function sumOf(connection: Connection): Promise<number> {
  const { rows } = await connection.query('SELECT sum(balance) AS sum FROM accounts');
  return Number(rows[0]!.sum);
}

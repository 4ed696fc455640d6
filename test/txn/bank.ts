/**
 * The bank: clients move money between accounts on three servers through two routers' processes, while routers, servers and
 * the links between them are killed, frozen and cut off; then all heals, and what everybody was told is held against
 * what is there.
 *
 *   reset ──▶ two routers ──▶ clients, readers, and a script of disturbances ──▶ all is healed ──▶ the clients go on for a moment
 *     ▲                                                                                              │
 *     └── routers end ◀── books are read and judged ◀── tokens are answered ◀── nothing is left behind ┘
 *
 * Invariant: every wait is bounded, and a bound that is reached is a violation.
 */
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import type { ProtocolFaults } from '../../src/txn/commit-protocol.ts';
import type { TransactionsOptions } from '../../src/txn/transactions.ts';
import { seededRandom } from '../../src/wall/load/seeded-random.ts';
import { Relay } from '../support/relay.ts';
import { startTestServer } from '../support/servers.ts';
import { type Accounts, BankClient, BankReader, type ClientWorld } from './bank-clients.ts';
import { type Script, type Stage, until } from './bank-disturbances.ts';
import { type Books, judge, type LedgerRow, type Transfer } from './bank-history.ts';
import { BankRouter, BankServer } from './bank-processes.ts';

const NODES = ['n1', 'n2', 'n3'];
const ROUTERS = 2;
const ACCOUNTS = 24;
const INITIAL_BALANCE = 1_000;
const AFTERWARDS_MS = 500;
/** A router that was frozen, a node that was away: each has its bound, and cleaning tries again after ten seconds. */
const SETTLE_TIMEOUT_MS = 30_000;
const BROKEN_SETTLE_TIMEOUT_MS = 5_000;
const HEAL_TIMEOUT_MS = 60_000;
const ASK_TIMEOUT_MS = 5_000;
const DATABASE = 'app';

/** Seconds of a real router are tenths here. */
const TIMES: NonNullable<TransactionsOptions['times']> = {
  ...{ prepareMs: 1_000, decideMs: 600, resolveMs: 600, phaseTwoMs: 1_000, rollbackMs: 1_000 },
  ...{ retryMs: 50, cleaningDelayMs: 300, recoveryAfterMs: 1_000 },
  ...{ recoveryIntervalMs: 200, sweepIntervalMs: 400, leftAloneMs: 200 },
};

export interface RunOptions {
  readonly seed: number;
  readonly script: Script;
  readonly clients?: number;
  readonly readers?: number;
  /** The script loses a part of a transaction, and its client hears so. Otherwise nobody may. */
  readonly loses?: boolean | undefined;
  /** A broken order, which has to be caught. */
  readonly faults?: ProtocolFaults;
  readonly times?: TransactionsOptions['times'] | undefined;
}

export interface RunReport {
  /** Empty: all that was told is true, and nothing is left. */
  readonly violations: readonly string[];
  readonly disturbances: readonly string[];
  /** Transfers by view. */
  readonly views: Readonly<Record<Transfer['view'], number>>;
  readonly tokens: number;
  /** Consistent reads of the sum that were answered; undefined: this router has none. */
  readonly reads: number | undefined;
  /** What transfers and reads were told beside OK, by SQLSTATE. */
  readonly errors: ReadonlyMap<string, number>;
  /** How long after the last transfer nothing was left any more. */
  readonly cleanAfterMs: number;
  readonly routerLogs: readonly (readonly string[])[];
}

export class Bank {
  readonly #servers: BankServer[] = [];
  /** By router, then by server. */
  readonly #relays: Relay[][] = [];
  readonly #leaves: string[][] = [];
  readonly #nodeIds: number[] = [];
  #routers: BankRouter[] = [];
  #routersTimes = '';
  #accounts: Accounts | undefined;
  #lastTransfer = 0;

  static async start(): Promise<Bank> {
    const bank = new Bank();
    try {
      await bank.#start();
    } catch (error) {
      await bank.stop();
      throw error;
    }
    return bank;
  }

  async stop(): Promise<void> {
    await Promise.all(this.#routers.map((router) => router.kill()));
    for (const server of this.#servers) server.thaw();
    await Promise.all(this.#relays.flat().map((relay) => relay.stop()));
    await Promise.all(this.#servers.map(({ server }) => server.stop()));
  }

  async run(options: RunOptions): Promise<RunReport> {
    const violations: string[] = [];
    const disturbances: string[] = [];
    await this.#reset();
    await this.#freshRouters(options);
    try {
      return await this.#play(options, violations, disturbances);
    } finally {
      await this.#heal(options);
      // What a broken order leaves in a router's memory is nothing for another run.
      if (options.faults || violations.length > 0) await this.#endRouters();
    }
  }

  /** Those of the last run if they can be had: a router has no state that a run would begin with. */
  async #freshRouters(options: RunOptions): Promise<void> {
    const times = JSON.stringify(options.times ?? {});
    if (options.faults || times !== this.#routersTimes) await this.#endRouters();
    if (this.#routers.length > 0) return;
    this.#routersTimes = times;
    this.#routers = Array.from({ length: ROUTERS }, (_, index) => new BankRouter(index));
    await Promise.all(this.#routers.map((router) => this.#startRouter(router, options)));
  }

  async #endRouters(): Promise<void> {
    await Promise.all(this.#routers.map((router) => router.kill()));
    this.#routers = [];
  }

  async #play(options: RunOptions, violations: string[], disturbances: string[]): Promise<RunReport> {
    const routers = this.#routers;
    const startedAtMs = performance.now();
    let isOver = false;
    const random = seededRandom(options.seed * 3);
    const world: ClientWorld = {
      accounts: this.#accounts!,
      random,
      portOf: (index) => (routers[index]!.isAlive ? routers[index]!.port : undefined),
      isOver: () => isOver,
      report: (violation) => void violations.push(violation),
    };
    const nextId = () => ++this.#lastTransfer;
    const clients = Array.from(
      { length: options.clients ?? 8 },
      (_, index) => new BankClient({ index, lazy: index % 4 === 3, world, nextId }),
    );
    const reads = await this.#hasConsistentReads();
    // What is really lost is missing from the sum.
    const hasReaders = reads && !options.loses;
    const readers = Array.from(
      { length: hasReaders ? (options.readers ?? 2) : 0 },
      (_, index) => new BankReader({ index, world }),
    );
    const work = Promise.all([...clients, ...readers].map((one) => one.run()));
    const stage = this.#stage(options, {
      note: (text) => disturbances.push(`${Math.round(performance.now() - startedAtMs)} ms: ${text}`),
      hasViolation: () => violations.length > 0,
    });
    let healedAt = '';
    try {
      await Promise.race([options.script(stage), work]);
      await this.#heal(options);
      healedAt = await this.#now();
      if (violations.length === 0) await delay(AFTERWARDS_MS);
    } finally {
      isOver = true;
      await work;
    }
    for (const { crashed } of routers) if (crashed !== undefined) violations.push(crashed);
    const transfers = clients.flatMap((client) => client.transfers);
    if (!options.loses)
      for (const { id, view, told } of transfers)
        if (view === 'lost')
          violations.push(`transfer ${id}: nothing was lost, and its client was told ${told}`);
    const endedAtMs = performance.now();
    violations.push(...(await this.#leftBehind(options, healedAt)));
    const cleanAfterMs = Math.round(performance.now() - endedAtMs);
    await this.#askTokens(transfers);
    violations.push(...judge(transfers, await this.#books()));
    const views = { ok: 0, refused: 0, unknown: 0, lost: 0 };
    const errors = new Map<string, number>();
    const count = (error: string, by = 1) => errors.set(error, (errors.get(error) ?? 0) + by);
    for (const { view, told } of transfers) {
      views[view]++;
      if (view !== 'ok') count(told.split(' ')[0] || 'gone before COMMIT');
    }
    for (const reader of readers) for (const [code, by] of reader.failures) count(`read ${code}`, by);
    return {
      violations,
      disturbances,
      views,
      tokens: transfers.filter(({ token }) => token !== undefined).length,
      reads: hasReaders ? readers.reduce((sum, reader) => sum + reader.reads, 0) : undefined,
      errors,
      cleanAfterMs,
      routerLogs: routers.map(({ log }) => log),
    };
  }

  async #start(): Promise<void> {
    const settings = { max_prepared_transactions: '100', max_connections: '150', wal_writer_delay: '10s' };
    const servers = await Promise.all(NODES.map(() => startTestServer({ settings })));
    this.#servers.push(...servers.map((server) => new BankServer(server)));
    for (const server of servers) {
      await server.query(`CREATE ROLE app LOGIN`);
      await server.query(`CREATE DATABASE ${DATABASE} OWNER app`);
    }
    for (let router = 0; router < ROUTERS; router++)
      this.#relays.push(await Promise.all(servers.map((server) => Relay.start(server.port))));
    const router = new BankRouter(0);
    this.#routers = [router];
    await this.#startRouter(router, {});
    const client = new pg.Client({ host: '127.0.0.1', port: router.port, user: 'app', database: DATABASE });
    await client.connect();
    const door = (key: string) =>
      `WITH (postern.door = 'sharded', postern.key = '${key}', postern.buckets = 6)`;
    await client.query(`CREATE TABLE accounts (id int8 PRIMARY KEY, balance int8 NOT NULL) ${door('id')}`);
    await client.query(
      `CREATE TABLE ledger (account int8, transfer int8, amount int8, PRIMARY KEY (account, transfer)) ${door('account')}`,
    );
    for (let id = 1; id <= ACCOUNTS; id++)
      await client.query(`INSERT INTO accounts VALUES (${id}, ${INITIAL_BALANCE})`);
    await client.end();
    await this.#endRouters();
    const nodes = await this.#ask(0, 'SELECT node_id, node_name FROM postern_internal.nodes');
    const nodeOf = new Map<number, number>();
    for (const [index, name] of NODES.entries()) {
      this.#nodeIds.push(Number(nodes.find((node) => node.node_name === name)!.node_id));
      const leaves = await this.#ask(
        index,
        `SELECT relname FROM pg_class WHERE relnamespace = 'postern_leaves'::regnamespace AND relkind = 'r'`,
      );
      this.#leaves.push(leaves.map(({ relname }) => String(relname)));
      for (const { id } of await this.#rowsOf(index, 'accounts')) nodeOf.set(Number(id), index);
    }
    this.#accounts = { ids: [...nodeOf.keys()], nodeOf, sum: ACCOUNTS * INITIAL_BALANCE };
  }

  /** As if nothing had ever happened. A broken order may have left anything. */
  async #reset(): Promise<void> {
    for (const index of this.#servers.keys()) {
      for (const { gid } of await this.#ask(index, 'SELECT gid FROM pg_prepared_xacts'))
        await this.#ask(index, `ROLLBACK PREPARED '${gid}'`);
      const commands = ['TRUNCATE postern_internal.decisions, postern_internal.transaction_marks'];
      for (const leaf of this.#leaves[index]!)
        commands.push(
          leaf.startsWith('ledger')
            ? `TRUNCATE postern_leaves.${leaf}`
            : `UPDATE postern_leaves.${leaf} SET balance = ${INITIAL_BALANCE}`,
        );
      await this.#ask(index, commands.join(';'));
    }
    await this.#ask(0, 'TRUNCATE postern_internal.prepared_transactions');
  }

  async #startRouter(router: BankRouter, options: Pick<RunOptions, 'faults' | 'times'>): Promise<void> {
    await router.start({
      nodes: NODES.map((name, index) => {
        const { port } = this.#relays[router.index]![index]!;
        return { name, dsn: `postgres://postgres@127.0.0.1:${port}/${DATABASE}` };
      }),
      faults: options.faults ?? {},
      times: { ...TIMES, ...options.times },
    });
  }

  #stage(options: RunOptions, told: Pick<Stage, 'note' | 'hasViolation'>): Stage {
    return {
      ...told,
      isRight: options.faults === undefined,
      routers: this.#routers,
      servers: this.#servers,
      relay: (router, server) => this.#relays[router]![server]!,
      serverOf: (nodeId) => this.#nodeIds.indexOf(nodeId),
      ask: (server, sql) => this.#ask(server, sql),
      // While a node is away it can't start: that is for the end then.
      restartRouter: (router) => this.#startRouter(this.#routers[router]!, options).catch(() => {}),
    };
  }

  async #heal(options: RunOptions): Promise<void> {
    for (const server of this.#servers) server.thaw();
    for (const relay of this.#relays.flat()) relay.heal();
    await Promise.all(this.#servers.map((server) => server.restart()));
    const end = performance.now() + HEAL_TIMEOUT_MS;
    for (const router of this.#routers) {
      router.thaw();
      router.goOn();
      while (!router.isAlive && router.crashed === undefined) {
        const failure = await this.#startRouter(router, options).catch((error: Error) => error);
        if (failure && performance.now() > end) throw failure;
      }
    }
  }

  async #now(): Promise<string> {
    const [row] = await this.#ask(0, 'SELECT clock_timestamp()::text AS now');
    return String(row!.now);
  }

  /** Until nothing is left that should not be. */
  async #leftBehind(options: RunOptions, healedAt: string): Promise<string[]> {
    // A broken order may leave anything; what is prepared has to be ended for the books to be read.
    const lookAround = async () =>
      options.faults ? await this.#prepared() : await this.#leftovers(healedAt, options.loses === true);
    let left: string[] = [];
    const isClean = await until(
      async () => {
        left = await lookAround();
        return left.length === 0;
      },
      options.faults ? BROKEN_SETTLE_TIMEOUT_MS : SETTLE_TIMEOUT_MS,
    );
    return isClean ? [] : left.map((one) => `left behind: ${one}`);
  }

  async #prepared(): Promise<string[]> {
    return await this.#everywhere('SELECT gid AS left FROM pg_prepared_xacts');
  }

  async #leftovers(healedAt: string, mayBeLost: boolean): Promise<string[]> {
    const left = await this.#everywhere(
      `SELECT 'prepared ' || gid AS left FROM pg_prepared_xacts UNION ALL
       SELECT 'abort row of ' || transaction_id FROM postern_internal.decisions WHERE outcome = 'abort' UNION ALL
       SELECT 'decision of ' || transaction_id FROM postern_internal.decisions WHERE outcome = 'commit' AND decided_at > '${healedAt}'`,
    );
    const shown = await this.#ask(0, 'SELECT state, gid FROM postern.prepared');
    for (const { state, gid } of shown)
      if (state !== 'lost' || !mayBeLost) left.push(`postern.prepared: ${state} ${gid}`);
    const decisions = new Set(
      await this.#everywhere('SELECT transaction_id AS left FROM postern_internal.decisions', false),
    );
    // Those of routers that have died stay, for postern.outcome(), as long as their decisions do.
    for (const mark of await this.#everywhere(
      'SELECT transaction_id AS left FROM postern_internal.transaction_marks',
      false,
    ))
      if (!decisions.has(mark)) left.push(`mark of ${mark}`);
    return left;
  }

  async #everywhere(sql: string, named = true): Promise<string[]> {
    const rows = await Promise.all(NODES.map((_, index) => this.#ask(index, sql)));
    return rows.flatMap((list, index) =>
      list.map(({ left }) => (named ? `${NODES[index]}: ${left}` : String(left))),
    );
  }

  /** Asks either router for each outcome that is unknown. */
  async #askTokens(transfers: readonly Transfer[]): Promise<void> {
    const open = transfers.filter(({ token }) => token !== undefined);
    for (const [at, transfer] of open.entries()) {
      await until(async () => {
        const [row] = await this.#askRouter(
          at % ROUTERS,
          `SELECT postern.outcome('${transfer.token}') AS it`,
        ).catch((error: Error) => [{ it: error.message }]);
        transfer.outcome = String(row?.it);
        return transfer.outcome === 'committed' || transfer.outcome === 'rolled back';
      }, 5_000);
    }
  }

  /** A placeholder would be accepted by any server: only a router that can gives a snapshot over nodes. */
  async #hasConsistentReads(): Promise<boolean> {
    const texts = ['BEGIN ISOLATION LEVEL REPEATABLE READ', 'SELECT sum(balance) FROM accounts', 'COMMIT'];
    return await this.#askRouter(0, 'SET postern.consistent_reads = on', ...texts).then(
      () => true,
      () => false,
    );
  }

  async #books(): Promise<Books> {
    const balances = new Map<number, number>();
    const ledger: LedgerRow[] = [];
    for (const index of this.#servers.keys()) {
      for (const { id, balance } of await this.#rowsOf(index, 'accounts'))
        balances.set(Number(id), Number(balance));
      for (const { account, transfer, amount } of await this.#rowsOf(index, 'ledger'))
        ledger.push({ account: Number(account), transfer: Number(transfer), amount: Number(amount) });
    }
    return { balances, ledger, nodeOf: this.#accounts!.nodeOf, initialBalance: INITIAL_BALANCE };
  }

  async #rowsOf(index: number, table: string): Promise<Record<string, unknown>[]> {
    const leaves = this.#leaves[index]!.filter((leaf) => leaf.startsWith(table));
    return await this.#ask(
      index,
      leaves.map((leaf) => `SELECT * FROM postern_leaves.${leaf}`).join(' UNION ALL '),
    );
  }

  /** On a server itself, as its superuser. */
  async #ask(index: number, sql: string): Promise<Record<string, unknown>[]> {
    const { port } = this.#servers[index]!.server;
    return await ask({ port, user: 'postgres' }, [sql]);
  }

  async #askRouter(index: number, ...texts: string[]): Promise<Record<string, unknown>[]> {
    return await ask({ port: this.#routers[index]!.port, user: 'app' }, texts);
  }
}

/** The rows of the last one. */
async function ask(
  where: { port: number; user: string },
  texts: readonly string[],
): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({
    ...{ ...where, host: '127.0.0.1', database: DATABASE },
    ...{ connectionTimeoutMillis: ASK_TIMEOUT_MS, query_timeout: ASK_TIMEOUT_MS },
  });
  client.on('error', () => {});
  try {
    await client.connect();
    let rows: Record<string, unknown>[] = [];
    for (const text of texts) rows = (await client.query(text)).rows;
    return rows;
  } finally {
    await client.end().catch(() => {});
  }
}

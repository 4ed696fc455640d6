/**
 * Finds deadlocks that no single server sees, and ends each by canceling one transaction of it.
 *
 *   resting ──(an own transaction has waited long enough)──► first look ──(a cycle)──► second look ──(still)──► victim
 *      ▲                                                        │ none                     │ gone
 *      └────────────────────────────────────────────────────────┴──────────────────────────┘
 *
 * Each router looks while transactions of its own wait; all see the same waits of the nodes, hence choose the same victim, and
 * only the router whose it is cancels it. Waits in the lines of pools are known to their own router alone: of a
 * deadlock through one, the victim is one of its own.
 * Invariant: nobody is canceled for waits that were not all there at one moment (deadlock-report.ts says how that is known).
 * Invariant: a node that can't be asked holds up nothing: its waits are not seen, and no others are invented.
 */
import type { NodePool } from '../backend/pool.ts';
import { deadlockDetected } from '../base/errors.ts';
import { ControlConnection } from '../platform/control-connection.ts';
import { type Deadlock, findDeadlocks } from './deadlock-graph.ts';
import {
  describeDeadlock,
  graphOf,
  keyOfVertex,
  type Look,
  lastingWaits,
  type NodeAnswer,
  type PoolWait,
  REPORT_QUERY,
  type Waits,
  waitsOf,
} from './deadlock-report.ts';
import type { DistributedTransactions } from './registry.ts';

/** Together below a second, with the looks. */
const INTERVAL_MS = 300;
const WAITED_MS_MIN = 250;
/** Most wait for less, and need not be seen. */
const ANNOUNCED_AFTER_MS = 20;
/** What a look waits for a node. */
const ANSWER_TIMEOUT_MS = 1_000;
const RECONNECT_DELAY_MS = 1_000;
/** A victim that is still there after this (its router is stopped, or it is past its decision) is passed over. */
const VICTIM_GRACE_MS = 2_000;
/** Transactions' keys have 48 bits. */
const KEY_SPAN = 2 ** 48;

export interface DeadlockDetectorOptions {
  readonly nodes: readonly { readonly id: number; readonly name: string; readonly dsn: string }[];
  readonly transactions: DistributedTransactions;
  readonly pools: ReadonlyMap<number, Pick<NodePool, 'holders'>>;
  /** Monotonic ms: the clock of the transactions' `waitingSinceMs`. */
  readonly now: () => number;
  readonly log: { info(message: string): void };
}

export class DeadlockDetector {
  readonly #options: DeadlockDetectorOptions;
  readonly #sources: readonly NodeSource[];
  readonly #nodeNames: ReadonlyMap<number, string>;
  /** By key: since when a deadlock has been seen whose victim it is. */
  readonly #chosenSinceMs = new Map<number, number>();
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #stopped = false;
  /** Deadlocks that this router has ended, and looks at all nodes that it has taken; for metrics. */
  victims = 0;
  looks = 0;

  constructor(options: DeadlockDetectorOptions) {
    this.#options = options;
    this.#sources = options.nodes.map((node) => new NodeSource(node, options.now));
    this.#nodeNames = new Map(options.nodes.map((node) => [node.id, node.name]));
  }

  start(): void {
    this.#timer = setTimeout(() => {
      this.#running = this.#round().finally(() => {
        if (!this.#stopped) this.start();
      });
    }, INTERVAL_MS);
    this.#timer.unref();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#running;
    await Promise.all(this.#sources.map((source) => source.close()));
  }

  async #round(): Promise<void> {
    const waiting = this.#waitingLong();
    if (waiting.size === 0) {
      this.#chosenSinceMs.clear();
      return;
    }
    const first = waitsOf(await this.#look());
    if (this.#stopped || this.#deadlocksIn(first).length === 0) {
      this.#chosenSinceMs.clear();
      return;
    }
    const waits = lastingWaits(first, waitsOf(await this.#look()));
    if (this.#stopped) return;
    const deadlocks = this.#deadlocksIn(waits);
    this.#noteChosen(deadlocks);
    for (const deadlock of deadlocks) this.#end(deadlock, waits, waiting);
  }

  /** By key, since when: own transactions worth a look. */
  #waitingLong(): Map<number, number> {
    const nowMs = this.#options.now();
    const waiting = new Map<number, number>();
    for (const [key, handle] of this.#options.transactions.entries()) {
      const { waitingSinceMs } = handle;
      if (waitingSinceMs === undefined) continue;
      if (nowMs - waitingSinceMs >= ANNOUNCED_AFTER_MS) handle.announce();
      if (nowMs - waitingSinceMs >= WAITED_MS_MIN) waiting.set(key, waitingSinceMs);
    }
    return waiting;
  }

  async #look(): Promise<Look> {
    this.looks++;
    const poolWaits: PoolWait[] = [];
    for (const [
      key,
      { awaitedPoolNodeId: nodeId, waitingSinceMs: sinceMs },
    ] of this.#options.transactions.entries()) {
      if (nodeId === undefined || sinceMs === undefined) continue;
      const holders = this.#options.pools.get(nodeId)?.holders;
      if (holders) poolWaits.push({ key, nodeId, sinceMs, holders });
    }
    const answers = new Map<number, NodeAnswer>();
    await Promise.all(
      this.#sources.map(async (source) => {
        const answer = await source.ask(poolWaits.length > 0);
        if (answer) answers.set(source.nodeId, answer);
      }),
    );
    return { answers, poolWaits };
  }

  #deadlocksIn(waits: Waits): Deadlock[] {
    const rankOf = (key: number, isCommitting: boolean): number => {
      if (this.#isPassedOver(key)) return key - 2 * KEY_SPAN;
      return isCommitting ? key - KEY_SPAN : key;
    };
    // First what all routers see alike, and then what takes the waits inside of this one.
    const seenByAll = findDeadlocks(graphOf({ ...waits, pools: [] }, rankOf));
    if (waits.pools.length === 0) return seenByAll;
    const isOwn = (key: number): boolean => this.#options.transactions.get(key) !== undefined;
    const all = graphOf(waits, (key, isCommitting) => (isOwn(key) ? rankOf(key, isCommitting) : undefined));
    const gone = new Set(seenByAll.map((deadlock) => deadlock.victim));
    return [...seenByAll, ...findDeadlocks(new Map([...all].filter(([name]) => !gone.has(name))))];
  }

  #isPassedOver(key: number): boolean {
    const sinceMs = this.#chosenSinceMs.get(key);
    return sinceMs !== undefined && this.#options.now() - sinceMs >= VICTIM_GRACE_MS;
  }

  #noteChosen(deadlocks: readonly Deadlock[]): void {
    const members = new Set(deadlocks.flatMap((deadlock) => deadlock.members));
    // Whoever has been passed over stays so while it is part of one.
    for (const key of this.#chosenSinceMs.keys()) {
      if (![...members].some((member) => keyOfVertex(member) === key)) this.#chosenSinceMs.delete(key);
    }
    for (const { victim } of deadlocks) {
      const key = keyOfVertex(victim)!;
      if (!this.#chosenSinceMs.has(key)) this.#chosenSinceMs.set(key, this.#options.now());
    }
  }

  #end(deadlock: Deadlock, waits: Waits, waiting: ReadonlyMap<number, number>): void {
    const key = keyOfVertex(deadlock.victim)!;
    const handle = this.#options.transactions.get(key);
    // Not this router's, or it waits no more for what it waited for before the looks.
    if (!handle || handle.waitingSinceMs === undefined || handle.waitingSinceMs !== waiting.get(key)) return;
    const detail = describeDeadlock(deadlock, waits, this.#nodeNames);
    this.victims++;
    this.#options.log.info(`deadlock over several nodes, ended by canceling ${deadlock.victim}: ${detail}`);
    handle.cancelAsVictim(deadlockDetected(detail));
  }
}

/** One node's answers, over a connection that stays open once it was needed. */
class NodeSource {
  readonly nodeId: number;
  readonly #node: { readonly name: string; readonly dsn: string };
  readonly #now: () => number;
  #connection: ControlConnection | undefined;
  #notBeforeMs = Number.NEGATIVE_INFINITY;
  #asking: Promise<NodeAnswer | undefined> | undefined;
  #closed = false;

  constructor(node: DeadlockDetectorOptions['nodes'][number], now: () => number) {
    this.nodeId = node.id;
    this.#node = node;
    this.#now = now;
  }

  /** undefined: the node doesn't answer, or not in time. Never rejects. */
  async ask(registrations: boolean): Promise<NodeAnswer | undefined> {
    // A node that still owes an answer is not asked again before it has come, or has been given up.
    if (this.#asking) return undefined;
    const asking = this.#ask(registrations)
      .catch(() => {
        this.#notBeforeMs = this.#now() + RECONNECT_DELAY_MS;
        return undefined;
      })
      .finally(() => {
        this.#asking = undefined;
      });
    this.#asking = asking;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), ANSWER_TIMEOUT_MS);
    });
    return await Promise.race([asking, late]).finally(() => clearTimeout(timer));
  }

  async close(): Promise<void> {
    this.#closed = true;
    // One that is silent is not waited for.
    if (this.#asking) this.#connection?.destroy();
    else await this.#connection?.close();
  }

  async #ask(registrations: boolean): Promise<NodeAnswer | undefined> {
    if (!this.#connection || this.#connection.lost) {
      if (this.#now() < this.#notBeforeMs) return undefined;
      const connection = await ControlConnection.open({
        nodeName: this.#node.name,
        dsn: this.#node.dsn,
        applicationName: 'postern deadlocks',
        connectTimeoutMs: ANSWER_TIMEOUT_MS,
        statementTimeoutMs: ANSWER_TIMEOUT_MS,
      });
      if (this.#closed) {
        connection.destroy();
        return undefined;
      }
      this.#connection = connection;
    }
    const [row] = await this.#connection.query<{ report: NodeAnswer }>(REPORT_QUERY, [registrations]);
    return row?.report;
  }
}

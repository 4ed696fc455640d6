/**
 * The commit protocol of src/txn in a world of its own: a few PostgreSQL servers (simulated-node.ts), routers that run the real
 * decision cores (simulated-router.ts), clients that move money between accounts on several nodes, and a scheduler that crashes,
 * freezes, cuts off and fails over whatever it likes, between any two effects. All of it follows from the seed.
 *
 * Checked: each transaction is on all of its nodes or on none; what each client was told is true; what was told as committed could
 * be read from then on; the sum never changes; once all is quiet nothing is prepared and no row is left; and a loss is reported
 * if, and only if, there was one.
 */

import type { Branch, CommitResult, ProtocolFaults } from '../../src/txn/commit-protocol.ts';
import { seededRandom } from '../../src/wall/load/seeded-random.ts';
import { type Connection, Process } from './simulated-network.ts';
import { type Clock, type Gid, SimulatedNode } from './simulated-node.ts';
import { SimulatedRouter, TIMES, TOKEN_VALID_MS, type World } from './simulated-router.ts';

const NODES = 3;
const ROUTERS = 2;
const CLIENTS = 6;
const TRANSACTIONS_EACH = 4;
const CHAOS_ENDS_MS = 2_000;
const ENDS_MS = 20_000;

export interface SimulationOptions {
  readonly faults?: ProtocolFaults;
  /** Note every event and effect. */
  readonly traced?: boolean;
  /** How likely something happens before an effect, instead of what the seed says. */
  readonly chaos?: number;
}

export interface SimulationRun {
  readonly violations: readonly string[];
  readonly told: Readonly<Record<string, number>>;
  readonly trace: readonly string[];
}

interface Attempt {
  readonly id: string;
  readonly synchronous: boolean;
  readonly participants: number;
  /** Where it has changed balances. */
  readonly writes: readonly number[];
  told: CommitResult['kind'] | 'nothing';
  /** What postern.outcome(token) said. */
  outcome: string | undefined;
}

export function simulate(seed: number, options: SimulationOptions = {}): SimulationRun {
  return new Simulation(seed, options).run();
}

class Simulation {
  readonly #random: () => number;
  readonly #agenda = new Agenda();
  readonly #clock: Clock;
  readonly #mode: 'none' | 'sync' | 'async';
  readonly #nodes: SimulatedNode[];
  readonly #routers: SimulatedRouter[] = [];
  readonly #world: World;
  readonly #cut = new Set<string>();
  readonly #attempts: Attempt[] = [];
  readonly #losses = new Set<string>();
  readonly #violations: string[] = [];
  readonly #trace: string[] = [];
  #clientsLeft = CLIENTS;
  #failovers = 0;
  #questions = 0;
  /** How likely something happens before an effect. */
  readonly #chaos: number;

  constructor(seed: number, { faults, traced, chaos }: SimulationOptions) {
    const random = seededRandom(seed);
    this.#random = random;
    const agenda = this.#agenda;
    this.#clock = { now: () => agenda.nowMs, after: (delayMs, run) => agenda.add(delayMs, run), random };
    this.#mode = (['none', 'sync', 'async'] as const)[Math.floor(random() * 3)]!;
    this.#nodes = Array.from({ length: NODES }, (_, id) => new SimulatedNode(id, this.#mode, this.#clock));
    this.#world = {
      clock: this.#clock,
      nodes: this.#nodes,
      options: { times: TIMES, ...(faults && { faults }) },
      isCut: (routerId, nodeId) => this.#cut.has(`${routerId} ${nodeId}`),
      reportLoss: (id, nodeId) => {
        this.#note(`LOSS of ${id} on ${nodeId}`);
        this.#losses.add(`${id} ${nodeId}`);
      },
      betweenEffects: (router, next) => this.#betweenEffects(router, next),
      note: (text) => {
        if (traced) this.#note(text);
      },
    };
    const ownChaos = random() < 0.4 ? 0 : random() * 0.03;
    this.#chaos = chaos ?? ownChaos;
    for (let id = 0; id < ROUTERS; id++) this.#startRouter(id);
  }

  run(): SimulationRun {
    for (let client = 0; client < CLIENTS; client++) this.#client(client, 0);
    const disturbances = Math.floor(this.#random() * 14);
    for (let i = 0; i < disturbances; i++) {
      this.#clock.after(this.#random() * CHAOS_ENDS_MS, () => this.#disturb());
    }
    this.#agenda.runUntil(
      ENDS_MS,
      () => this.#clientsLeft === 0 && this.#clock.now() > CHAOS_ENDS_MS && this.#isQuiet(),
    );
    this.#judge();
    const told: Record<string, number> = {};
    for (const attempt of this.#attempts) told[attempt.told] = (told[attempt.told] ?? 0) + 1;
    return { violations: this.#violations, told, trace: this.#trace };
  }

  #note(text: string): void {
    this.#trace.push(`${this.#clock.now().toFixed(1).padStart(8)} ${text}`);
  }

  #pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.#random() * list.length)]!;
  }

  #startRouter(routerId: number): void {
    const process = new Process(routerId);
    const router = new SimulatedRouter(process, this.#world);
    this.#routers[routerId] = router;
    this.#every(
      process,
      () => (this.#clock.now() < CHAOS_ENDS_MS ? 60 : 250),
      () => router.recover(),
    );
    this.#every(
      process,
      () => (this.#clock.now() < CHAOS_ENDS_MS ? 150 : 500),
      () => router.sweep(),
    );
  }

  #every(process: Process, pauseMs: () => number, work: () => void): void {
    this.#clock.after(this.#random() * pauseMs() + pauseMs() / 2, () => {
      if (!process.alive) return;
      // One round only is made up for when it wakes.
      process.run(() => {
        work();
        this.#every(process, pauseMs, work);
      });
    });
  }

  // --- clients -----------------------------------------------------------------------------------------------------------

  #client(client: number, round: number): void {
    if (round === TRANSACTIONS_EACH) {
      this.#clientsLeft--;
      return;
    }
    const pauseMs = this.#random() * 200;
    this.#clock.after(pauseMs, () =>
      this.#transaction(`t${client}.${round}`, () => this.#client(client, round + 1)),
    );
  }

  #transaction(id: string, then: () => void): void {
    const random = this.#random;
    const router = this.#pick(this.#routers);
    const { process } = router;
    const order = this.#nodes.map(({ nodeId }) => nodeId).sort(() => random() - 0.5);
    const count = random() < 0.2 ? 1 : random() < 0.7 ? 2 : 3;
    const writes = order.slice(0, count);
    // One more that reads, or that may have written and has not.
    const extra = count < NODES && random() < 0.3 ? order[count] : undefined;
    const extraWrites = random() < 0.5;
    const branches = [...writes, ...(extra === undefined ? [] : [extra])].map((nodeId): Branch => {
      const wrote = nodeId !== extra || extraWrites;
      return {
        nodeId,
        wrote,
        hasXid: nodeId !== extra && random() < 0.7,
        unpreparable: wrote && random() < 0.03,
      };
    });
    const attempt: Attempt = {
      id,
      synchronous: random() < 0.6,
      participants: branches.filter(({ wrote }) => wrote).length,
      writes,
      told: 'nothing',
      outcome: undefined,
    };
    this.#attempts.push(attempt);
    const connections = new Map<number, Connection>();
    let isOver = false;
    const end = () => {
      if (isOver) return;
      isOver = true;
      for (const connection of connections.values()) connection.close();
      then();
    };
    // The client gives up on a router that is dead; its transaction's fate is not known to it.
    this.#whenDead(process, () => isOver, end);
    const failing = random() < 0.06 ? this.#pick(writes) : undefined;
    const open = (at: number): void => {
      const branch = branches[at];
      if (!branch) {
        router.commit({ id, branches, connections, synchronous: attempt.synchronous }, (result, gid) => {
          this.#told(attempt, result, gid);
          end();
        });
        return;
      }
      const { nodeId } = branch;
      router.connect(nodeId, (connection) => {
        if (!connection || isOver) {
          connection?.close();
          return end();
        }
        connections.set(nodeId, connection);
        let isWaiting = true;
        this.#clock.after(120, () => {
          if (isWaiting) connection.cut();
        });
        connection.ask<'ok'>(
          (reply) => {
            const { node, backend } = connection;
            const transaction = node.begin(backend, id, attempt.synchronous);
            if (nodeId === extra) return reply('ok');
            const amounts =
              writes.length === 1 ? [5, -5] : [writes.indexOf(nodeId) === 0 ? writes.length - 1 : -1];
            const move = (i: number): void => {
              const amount = amounts[i];
              if (amount === undefined) {
                transaction.failed = nodeId === failing;
                reply('ok');
                return;
              }
              node.transfer(backend, { account: `a${i}${Math.floor(random() * 3)}`, amount }, () =>
                move(i + 1),
              );
            };
            move(0);
          },
          (got) => {
            isWaiting = false;
            if (got === 'lost') end();
            else open(at + 1);
          },
        );
      });
    };
    process.run(() => open(0));
  }

  #whenDead(process: Process, isOver: () => boolean, then: () => void): void {
    this.#clock.after(50, () => {
      if (isOver()) return;
      if (process.alive) this.#whenDead(process, isOver, then);
      else then();
    });
  }

  #told(attempt: Attempt, result: CommitResult, gid: Gid | undefined): void {
    this.#note(`${attempt.id} TOLD ${JSON.stringify(result)}`);
    attempt.told = result.kind;
    if (result.kind === 'committed') {
      for (const nodeId of attempt.writes) {
        if (result.unconfirmed.includes(nodeId)) continue;
        const node = this.#nodes[nodeId]!;
        // With synchronous_commit off, a client has agreed to see its commit late after a failover.
        const strict = this.#mode !== 'async' && attempt.participants > 1 && attempt.synchronous;
        if (!(strict ? node.applied : node.everApplied).has(attempt.id)) {
          this.#violations.push(`${attempt.id}: told OK, and node ${nodeId} does not show it`);
        }
      }
    }
    if (result.kind === 'unknown' && result.twoPhase && gid) {
      this.#questions++;
      this.#clock.after(this.#random() * TOKEN_VALID_MS, () => this.#askOutcome(attempt, gid));
    }
  }

  #askOutcome(attempt: Attempt, gid: Gid): void {
    this.#questions--;
    const router = this.#routers.find(({ process }) => process.alive && !process.frozen);
    router?.settle(gid, 'settle', gid.commitPoint, (result) => {
      if (result.kind === 'settled') attempt.outcome = result.outcome;
      this.#note(`${attempt.id} OUTCOME ${JSON.stringify(result)}`);
    });
  }

  // --- disturbances ------------------------------------------------------------------------------------------------------

  #betweenEffects(router: SimulatedRouter, next: string): void {
    if (this.#chaos === 0 || this.#clock.now() > CHAOS_ENDS_MS) return;
    // The moment before the decision is the one that all turns on.
    if (this.#random() > this.#chaos * (next === 'decide' ? 8 : 1)) return;
    const what = this.#random();
    if (what < 0.6) this.#freeze(router);
    else if (what < 0.85) this.#crash(router);
    else this.#down(this.#pick(this.#nodes), 'crash');
  }

  #freeze({ process }: SimulatedRouter): void {
    if (process.frozen || !process.alive) return;
    this.#note(`freeze router ${process.routerId}`);
    process.frozen = true;
    const [fromMs, toMs] = this.#pick([
      [0, 100],
      [100, 500],
      [500, 1_500],
      [500, 1_500],
      [3_000, 7_000],
    ] as const);
    const forMs = fromMs + this.#random() * (toMs - fromMs);
    this.#clock.after(forMs, () => process.wake());
  }

  #crash({ process }: SimulatedRouter): void {
    if (!process.alive) return;
    this.#note(`crash router ${process.routerId}`);
    process.crash();
    this.#startRouter(process.routerId);
  }

  #disturb(): void {
    const random = this.#random;
    const router = this.#pick(this.#routers);
    const node = this.#pick(this.#nodes);
    const what = random();
    if (what < 0.25) this.#freeze(router);
    else if (what < 0.4) this.#crash(router);
    else if (what < 0.6) {
      this.#down(node, 'crash');
    } else if (what < 0.75 && this.#mode !== 'none') {
      // Of one asynchronous failover it can be told what was lost; several hide one another.
      if (this.#mode === 'sync' || this.#failovers++ === 0) this.#down(node, 'failover');
    } else if (what < 0.9) {
      const key = `${router.process.routerId} ${node.nodeId}`;
      this.#note(`cut ${key}`);
      this.#cut.add(key);
      for (const connection of router.process.connections) if (connection.node === node) connection.cut();
      this.#clock.after(random() * 700, () => this.#cut.delete(key));
    } else {
      const connections = [...router.process.connections];
      if (connections.length > 0) this.#pick(connections).cut();
    }
  }

  #down(node: SimulatedNode, kind: 'crash' | 'failover'): void {
    this.#note(`${kind} of node ${node.nodeId}`);
    node.crash(kind);
    for (const { process } of this.#routers) {
      for (const connection of [...process.connections]) {
        if (connection.node === node) this.#clock.after(this.#random() * 10, () => connection.cut());
      }
    }
    this.#clock.after(10 + this.#random() * 400, () => {
      node.up = true;
    });
  }

  // --- the judgement -----------------------------------------------------------------------------------------------------

  #isQuiet(): boolean {
    return (
      this.#questions === 0 &&
      this.#routers.every(({ process }) => !process.frozen) &&
      this.#nodes.every((node) => node.up && node.prepared.size + node.decisions.size + node.marks.size === 0)
    );
  }

  #judge(): void {
    const blame = (text: string) => this.#violations.push(text);
    if (this.#clientsLeft > 0) blame(`${this.#clientsLeft} clients still wait`);
    for (const node of this.#nodes) {
      for (const [what, rows] of Object.entries({
        prepared: node.prepared,
        decisions: node.decisions,
        marks: node.marks,
      })) {
        if (rows.size > 0) blame(`node ${node.nodeId}: ${what} left: ${[...rows.keys()].join(', ')}`);
      }
    }
    let isWhole = true;
    for (const attempt of this.#attempts) if (!this.#judgeAttempt(attempt, blame)) isWhole = false;
    const sum = this.#nodes.reduce((total, node) => total + node.sum, 0);
    if (isWhole && sum !== 0) blame(`the sum has become ${sum}`);
    for (const loss of this.#losses) {
      const [id] = loss.split(' ') as [string];
      // The loss may be that of the commit point, which has got back a decision that was deleted.
      const isReal = this.#mode === 'async' && this.#nodes.some((node) => node.truncated.has(id));
      if (!isReal) blame(`false alarm: ${loss}`);
    }
  }

  /** False: a failover has taken part of it, as asynchronous replication does. */
  #judgeAttempt(attempt: Attempt, blame: (text: string) => void): boolean {
    const { id, told, writes, outcome } = attempt;
    const onNodes = writes.filter((nodeId) => this.#nodes[nodeId]!.applied.has(id));
    const truncatedOn = this.#nodes.filter((node) => node.truncated.has(id)).map(({ nodeId }) => nodeId);
    const isLossy = this.#mode === 'async' || (attempt.participants === 1 && !attempt.synchronous);
    if (isLossy && truncatedOn.length > 0) {
      const prepareLost = truncatedOn.some(
        (at) => writes.includes(at) && !this.#nodes[at]!.everApplied.has(id),
      );
      const isReported = truncatedOn.some((at) => this.#losses.has(`${id} ${at}`));
      if (told === 'committed' && prepareLost && onNodes.length > 0 && !isReported) {
        blame(`${id}: node ${truncatedOn} has lost its part, and nobody said so`);
      }
      return false;
    }
    const isPartial = onNodes.length > 0 && onNodes.length < writes.length;
    if (isPartial) blame(`${id}: committed on ${onNodes} of ${writes}`);
    const isThere = onNodes.length > 0;
    const said = {
      committed: true,
      rolledBack: false,
      lost: undefined,
      unknown: undefined,
      nothing: undefined,
    }[told];
    if (said !== undefined && said !== isThere) blame(`${id}: told ${told}, and it is on [${onNodes}]`);
    if (told === 'lost') blame(`${id}: told lost, and nothing was`);
    if (outcome !== undefined && (outcome === 'committed') !== isThere) {
      blame(`${id}: postern.outcome said ${outcome}, and it is on [${onNodes}]`);
    }
    return true;
  }
}

/** What happens when, by virtual time and, at the same time, by order of arrival: a heap. */
class Agenda {
  nowMs = 0;
  readonly #heap: { atMs: number; order: number; run: () => void }[] = [];
  #order = 0;

  add(delayMs: number, run: () => void): void {
    const heap = this.#heap;
    const entry = { atMs: this.nowMs + Math.max(0, delayMs), order: this.#order++, run };
    let at = heap.push(entry) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(entry, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = entry;
  }

  /** `isOver` is asked now and then. */
  runUntil(untilMs: number, isOver: () => boolean): void {
    let nextLookMs = 0;
    for (let entry = this.#take(); entry && entry.atMs <= untilMs; entry = this.#take()) {
      this.nowMs = entry.atMs;
      entry.run();
      if (this.nowMs < nextLookMs) continue;
      if (isOver()) return;
      nextLookMs = this.nowMs + 100;
    }
  }

  #take(): { atMs: number; order: number; run: () => void } | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (!first || !last || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: { atMs: number; order: number }, b: { atMs: number; order: number }): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

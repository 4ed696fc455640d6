/**
 * A router in the simulation: carries out the effects of both protocols against simulated nodes, recovers the transactions of
 * all routers, and cleans their rows. The decisions are the production code's; this shell is the simulation's own.
 */
import {
  type Branch,
  type CommitEffect,
  type CommitEvent,
  type CommitOptions,
  type CommitResult,
  type CommitState,
  type Reply,
  startCommit,
  stepCommit,
} from '../../src/txn/commit-protocol.ts';
import {
  type ForeignTransaction,
  judgeDecision,
  mayDeleteAbortRow,
  mayDeleteMark,
  type PreparedLeft,
  type RecoveryEffect,
  type RecoveryEvent,
  type RecoveryResult,
  startRecovery,
  stepRecovery,
} from '../../src/txn/recovery-protocol.ts';
import { Connection, delay, type Process } from './simulated-network.ts';
import type { Backend, Clock, DecisionRow, Gid, SimulatedNode } from './simulated-node.ts';

/** Virtual; the proportions are those of production, but for the retention, which some freezes outlast. */
export const TIMES = {
  prepareMs: 300,
  decideMs: 300,
  resolveMs: 400,
  phaseTwoMs: 500,
  rollbackMs: 300,
  retryMs: 30,
  marksKeptMs: 3_500,
};
export const RECOVERY_AFTER_MS = 300;
const RECOVERY_LOOKS_AFTER_MS = 50;
const ASK_BOUND_MS = 150;
const LOCK_TIMEOUT_MS = 40;
const CLEAN_AFTER_MS = 100;
const DECISIONS_KEPT_MS = 4_500;
/** Below DECISIONS_KEPT_MS: no token outlives its decision. */
export const TOKEN_VALID_MS = 3_000;

export interface World {
  readonly clock: Clock;
  readonly nodes: readonly SimulatedNode[];
  readonly options: CommitOptions;
  isCut(routerId: number, nodeId: number): boolean;
  reportLoss(id: string, nodeId: number): void;
  /** The scheduler's chance. */
  betweenEffects(router: SimulatedRouter, next: string): void;
  /** For the trace of a failing seed. */
  note(text: string): void;
}

/** A client's transaction: its open branches. */
export interface ClientTransaction {
  readonly id: string;
  readonly branches: readonly Branch[];
  readonly connections: ReadonlyMap<number, Connection>;
  readonly synchronous: boolean;
}

export class SimulatedRouter {
  readonly process: Process;
  readonly #world: World;
  /** Its own commits that are under way: recovery leaves them to their coordinator. */
  readonly #own = new Set<string>();
  readonly #recovering = new Set<string>();
  #sweeping = false;

  constructor(process: Process, world: World) {
    this.process = process;
    this.#world = world;
  }

  connect(nodeId: number, then: (connection: Connection | undefined) => void): void {
    const { clock, nodes } = this.#world;
    const node = nodes[nodeId]!;
    clock.after(delay(clock), () => {
      const isThere = node.up && !this.#world.isCut(this.process.routerId, nodeId);
      this.process.run(() =>
        then(isThere && node.up ? new Connection(this.process, node, clock) : undefined),
      );
    });
  }

  /** Between any two effects it may be frozen, or end. */
  #inTurn(kind: string, work: () => void): void {
    this.#world.betweenEffects(this, kind);
    this.process.run(work);
  }

  /** On a connection of its own, bounded. */
  #ask<T>(
    nodeId: number,
    work: (node: SimulatedNode, backend: Backend, reply: (answer: T) => void) => void,
    then: (answer: T | 'unreachable') => void,
  ): void {
    this.connect(nodeId, (connection) => {
      if (!connection) return then('unreachable');
      this.#world.clock.after(ASK_BOUND_MS, () => connection.cut());
      connection.ask<T>(
        (reply) => work(connection.node, connection.backend, reply),
        (answer) => {
          connection.close();
          then(answer === 'lost' ? 'unreachable' : answer);
        },
      );
    });
  }

  commit(transaction: ClientTransaction, answer: (result: CommitResult, gid: Gid | undefined) => void): void {
    const { clock, options } = this.#world;
    const { id, connections } = transaction;
    this.#own.add(id);
    let state: CommitState;
    let gid: (Gid & { decidedAtMs: number }) | undefined;
    let timerNumber = 0;
    const apply = (step: { state: CommitState; effects: readonly CommitEffect[] }) => {
      state = step.state;
      for (const effect of step.effects) this.#inTurn(effect.kind, () => carryOut(effect));
      if (state.kind === 'done') this.#own.delete(id);
    };
    const report = (event: CommitEvent) => {
      this.#world.note(`${id} ${state.kind} ${JSON.stringify(event)}`);
      apply(stepCommit(state, event, options));
    };
    const own = <T>(
      nodeId: number,
      work: (node: SimulatedNode, backend: Backend, reply: (a: T) => void) => void,
      then: (a: T | 'lost') => void,
    ) => {
      const connection = connections.get(nodeId)!;
      connection.ask<T>(
        (reply) => work(connection.node, connection.backend, reply),
        (got) => {
          if (!abandoned.has(nodeId)) then(got);
        },
      );
    };
    const abandoned = new Set<number>();
    const reply = (got: string): Reply =>
      got === 'lost'
        ? { kind: 'lost', error: undefined }
        : got === 'error'
          ? { kind: 'error', error: got }
          : { kind: 'tag', tag: got, owner: 'app' };
    const answered =
      (nodeId: number, to: Extract<CommitEvent, { kind: 'answered' }>['to']) => (got: string) =>
        report({ kind: 'answered', nodeId, to, reply: reply(got) });
    const carryOut = (effect: CommitEffect): void => {
      this.#world.note(`${id}   ${JSON.stringify(effect)}`);
      switch (effect.kind) {
        case 'commit':
          own<string>(
            effect.nodeId,
            (node, backend, done) => node.commit(backend, done),
            answered(effect.nodeId, 'commit'),
          );
          return;
        case 'rollback':
          own<string>(
            effect.nodeId,
            (node, backend, done) => {
              node.rollback(backend);
              done('ROLLBACK');
            },
            answered(effect.nodeId, 'rollback'),
          );
          return;
        case 'assignXid':
          own<string>(
            effect.nodeId,
            (node, backend, done) => {
              const open = backend.transaction!;
              if (!open.failed) node.assignXid(open);
              done(open.failed ? 'error' : 'SELECT 1');
            },
            answered(effect.nodeId, 'assignXid'),
          );
          return;
        case 'prepare': {
          const { nodeId, commitPoint } = effect;
          gid = {
            id,
            commitPoint,
            processId: connections.get(commitPoint)!.backend.processId,
            decidedAtMs: 0,
          };
          const named = gid;
          own<string>(
            nodeId,
            (node, backend, done) =>
              node.prepare(backend, named, effect.mark ? commitPoint : undefined, done),
            answered(nodeId, 'prepare'),
          );
          return;
        }
        case 'decide':
          gid ??= {
            id,
            commitPoint: effect.nodeId,
            processId: connections.get(effect.nodeId)!.backend.processId,
            decidedAtMs: 0,
          };
          gid.decidedAtMs = clock.now();
          own<string>(
            effect.nodeId,
            (node, backend, done) => {
              const hasFailed = backend.transaction?.failed === true;
              node.decide(backend, effect.participants, (ok) =>
                node.commit(backend, (tag) => done(ok || hasFailed ? tag : 'error')),
              );
            },
            answered(effect.nodeId, 'decide'),
          );
          return;
        case 'resolve': {
          const until = clock.now() + options.times.resolveMs;
          this.settle(gid!, 'settle', 0, (result) => {
            if (result.kind === 'settled') {
              if (state.kind === 'resolving') report({ kind: 'resolved', outcome: result.outcome });
            } else if (result.kind === 'stays' && result.why === 'expired') {
              if (state.kind === 'resolving') report({ kind: 'resolved', outcome: 'expired' });
            } else if (clock.now() < until) {
              clock.after(options.times.retryMs, () => this.process.run(() => carryOut(effect)));
            }
          });
          return;
        }
        case 'commitPrepared':
        case 'rollbackPrepared': {
          const { nodeId, kind, via } = effect;
          const outcome = kind === 'commitPrepared' ? 'commit' : 'abort';
          const then = (got: 'done' | 'notThere' | 'failed' | 'lost' | 'unreachable') => {
            const result = got === 'done' || got === 'notThere' ? got : 'failed';
            if (state.kind !== 'done') report({ kind: 'finished', nodeId, to: kind, result });
          };
          const synchronous = via === 'fresh' || transaction.synchronous;
          const work = (
            node: SimulatedNode,
            backend: Backend,
            done: (got: 'done' | 'notThere' | 'failed') => void,
          ) => node.finish(backend, id, { outcome, synchronous }, done);
          if (via === 'own') own(nodeId, work, then);
          else clock.after(effect.afterMs, () => this.process.run(() => this.#ask(nodeId, work, then)));
          return;
        }
        case 'askMark':
          clock.after(effect.afterMs, () =>
            this.process.run(() =>
              this.#ask<boolean>(
                effect.nodeId,
                (node, backend, done) =>
                  node.marks.has(id)
                    ? node.write(backend, [{ kind: 'barrier' }], () => done(true))
                    : done(false),
                (got) => {
                  const mark = got === 'unreachable' ? got : got ? 'visible' : 'missing';
                  const elapsedMs = clock.now() - gid!.decidedAtMs;
                  if (state.kind !== 'done')
                    report({ kind: 'markAsked', nodeId: effect.nodeId, mark, elapsedMs });
                },
              ),
            ),
          );
          return;
        case 'abandon':
          abandoned.add(effect.nodeId);
          connections.get(effect.nodeId)!.cut();
          return;
        case 'setTimer': {
          const mine = ++timerNumber;
          clock.after(effect.afterMs, () =>
            this.process.run(() => {
              if (mine === timerNumber && state.kind !== 'done')
                report({ kind: 'timeout', timer: effect.timer });
            }),
          );
          return;
        }
        case 'reportLoss':
          this.#world.reportLoss(id, effect.nodeId);
          return;
        case 'answer':
          answer(effect.result, gid);
          return;
        case 'clean':
          clock.after(CLEAN_AFTER_MS, () =>
            this.process.run(() =>
              this.#deleteDecision(
                { ...effect, id },
                (node) => options.faults?.skipMark === true || node.marks.has(id),
              ),
            ),
          );
          return;
      }
    };
    apply(startCommit(transaction.branches, options));
  }

  /** Recovery's protocol for one transaction. `nodeId`: where it is prepared. */
  settle(
    gid: Gid,
    purpose: 'recover' | 'settle',
    nodeId: number,
    then: (result: RecoveryResult) => void,
  ): void {
    const { clock } = this.#world;
    const { id, commitPoint } = gid;
    const preparedAtMs = this.#world.nodes[nodeId]!.prepared.get(id)?.atMs ?? clock.now();
    const foreign = (): ForeignTransaction => ({
      purpose,
      ageMs: clock.now() - (purpose === 'settle' ? gid.decidedAtMs : preparedAtMs),
      recoveryAfterMs: RECOVERY_AFTER_MS,
      decisionsKeptMs: DECISIONS_KEPT_MS,
    });
    let step = startRecovery();
    const report = (event: RecoveryEvent) => {
      this.#world.note(`${id} by ${this.process.routerId}: ${step.state.kind} ${JSON.stringify(event)}`);
      step = stepRecovery(step.state, event, foreign());
      go();
    };
    const carryOut = (effect: RecoveryEffect): void => {
      switch (effect.kind) {
        case 'askDecision':
          this.#ask<DecisionSeenAt>(
            commitPoint,
            (node, backend, done) => {
              const decision = node.decisions.get(id)?.outcome ?? 'none';
              const isOpen = node.isWithin(gid.processId, id) !== undefined;
              const seen = { decision, backend: isOpen ? 'inTransaction' : 'gone' } as const;
              // What was found has to be on the standby before anybody acts on it.
              if (decision === 'none') done(seen);
              else node.write(backend, [{ kind: 'barrier' }], () => done(seen));
            },
            (got) =>
              report(
                got === 'unreachable'
                  ? { kind: 'decisionAsked', decision: got, backend: 'gone' }
                  : { kind: 'decisionAsked', ...got },
              ),
          );
          return;
        case 'askMarks':
          this.#onAll<boolean>(
            (node, _, done) => done(node.marks.has(id)),
            (answers) => report({ kind: 'marksAsked', visible: answers.includes(true) }),
          );
          return;
        case 'askPrepared':
          this.#ask<boolean>(
            nodeId,
            (node, _, done) => done(node.prepared.has(id)),
            (got) =>
              report({
                kind: 'preparedAsked',
                prepared: got === 'unreachable' ? got : got ? 'there' : 'gone',
              }),
          );
          return;
        case 'insertAbortRow':
          this.#ask<'inserted' | 'exists' | 'locked'>(
            commitPoint,
            (node, backend, done) => node.insertAbortRow(backend, id, LOCK_TIMEOUT_MS, done),
            (result) => report({ kind: 'abortRowInserted', result }),
          );
          return;
        case 'terminate':
          this.#ask<'gone'>(
            commitPoint,
            (node, _, done) => {
              const backend = node.isWithin(gid.processId, id);
              if (backend) node.terminate(backend);
              done('gone');
            },
            (result) => report({ kind: 'terminated', result }),
          );
          return;
        case 'finish':
          this.#ask<'done' | 'notThere' | 'failed'>(
            nodeId,
            (node, backend, done) =>
              node.finish(backend, id, { outcome: effect.outcome, synchronous: true }, done),
            (got) => report({ kind: 'finished', result: got === 'unreachable' ? 'failed' : got }),
          );
          return;
        case 'reportLoss':
          this.#world.reportLoss(id, commitPoint);
          return;
      }
    };
    const go = () => {
      const { state } = step;
      for (const effect of step.effects) this.#inTurn(effect.kind, () => carryOut(effect));
      if (state.kind === 'done') then(state.result);
    };
    go();
  }

  /** Recovery of what is prepared anywhere, by whomever. */
  recover(): void {
    const { clock, nodes } = this.#world;
    for (const { nodeId } of nodes) {
      this.#ask<readonly { gid: Gid; ageMs: number }[]>(
        nodeId,
        (node, _, done) =>
          done([...node.prepared.values()].map(({ gid, atMs }) => ({ gid, ageMs: clock.now() - atMs }))),
        (found) => {
          if (found === 'unreachable') return;
          for (const { gid, ageMs } of found) {
            const key = `${gid.id} ${nodeId}`;
            if (ageMs < RECOVERY_LOOKS_AFTER_MS || this.#own.has(gid.id) || this.#recovering.has(key))
              continue;
            this.#recovering.add(key);
            this.settle(gid, 'recover', nodeId, () => this.#recovering.delete(key));
          }
        },
      );
    }
  }

  /** Deletes what commits have left: each stage is read after the one before (SPEC.md, "Sweeping"). */
  sweep(): void {
    if (this.#sweeping) return;
    this.#sweeping = true;
    const { clock } = this.#world;
    type Rows = { row: DecisionRow; id: string; belowXmin: boolean }[];
    const decisionsOf = (node: SimulatedNode): Rows =>
      [...node.decisions].map(([id, row]) => ({ id, row, belowXmin: row.xid < node.xmin }));
    this.#onAll<[string, number][]>(
      (node, _, done) => done([...node.marks]),
      (marks) =>
        this.#onAll<Rows>(
          (node, backend, done) => {
            // That a decision is gone has to be so on the standby as well, before its marks go.
            const seen = decisionsOf(node);
            node.write(backend, [{ kind: 'barrier' }], () => done(seen));
          },
          (decisions) =>
            this.#onAll<string[]>(
              (node, _, done) => done([...node.prepared.keys()]),
              (prepared) =>
                this.#onAll<string[]>(
                  (node, _, done) => done([...node.marks.keys()]),
                  (marksAfter) =>
                    this.#onAll<Rows>(
                      (node, _, done) => done(decisionsOf(node)),
                      (decisionsAfter) => {
                        this.#sweeping = false;
                        const left = (id: string): PreparedLeft =>
                          prepared.some((list) => list !== 'unreachable' && list.includes(id))
                            ? 'yes'
                            : prepared.includes('unreachable')
                              ? 'unknown'
                              : 'no';
                        for (const [nodeId, rows] of decisions.entries()) {
                          if (rows === 'unreachable') continue;
                          for (const { id, row, belowXmin } of rows) {
                            if (row.outcome === 'abort') {
                              const seen = { xidBelowXmin: belowXmin, preparedLeft: left(id) };
                              if (mayDeleteAbortRow(seen, this.#world.options.faults))
                                this.#delete('decisions', id, nodeId);
                              continue;
                            }
                            const after = decisionsAfter[nodeId]!;
                            const verdict = judgeDecision({
                              ageMs: clock.now() - row.atMs,
                              keptMs: DECISIONS_KEPT_MS,
                              stillThere:
                                after !== 'unreachable' &&
                                after.some((one) => one.id === id && one.row.outcome === 'commit'),
                              participants: row.participants.map((at) => {
                                const list = prepared[at]!;
                                const seen = marksAfter[at]!;
                                return {
                                  nodeId: at,
                                  prepared:
                                    list === 'unreachable' ? list : list.includes(id) ? 'there' : 'gone',
                                  mark:
                                    seen === 'unreachable' ? seen : seen.includes(id) ? 'visible' : 'missing',
                                };
                              }),
                            });
                            for (const at of verdict.lost) this.#world.reportLoss(id, at);
                            if (verdict.mayDelete)
                              this.#deleteDecision(
                                { ...row, id, commitPoint: nodeId },
                                (node) => !node.prepared.has(id),
                              );
                          }
                        }
                        for (const [nodeId, rows] of marks.entries()) {
                          if (rows === 'unreachable') continue;
                          for (const [id, commitPoint] of rows) {
                            const there = decisions[commitPoint]!;
                            const decision =
                              there === 'unreachable'
                                ? there
                                : (there.find((one) => one.id === id)?.row.outcome ?? 'none');
                            if (mayDeleteMark({ decision, preparedLeft: left(id) }))
                              this.#delete('marks', id, nodeId);
                          }
                        }
                      },
                    ),
                ),
            ),
        ),
    );
  }

  /**
   * First every participant shows that it is over and, on the same connection, has that on its standby; then the decision goes;
   * then the marks.
   */
  #deleteDecision(
    row: { id: string; commitPoint: number; participants: readonly number[] },
    isOver: (node: SimulatedNode) => boolean,
  ): void {
    const { id, commitPoint, participants } = row;
    let confirmed = 0;
    for (const nodeId of participants) {
      this.#ask<boolean>(
        nodeId,
        (node, backend, done) =>
          isOver(node) ? node.write(backend, [{ kind: 'barrier' }], () => done(true)) : done(false),
        (got) => {
          if (got !== true || ++confirmed < participants.length) return;
          this.#delete('decisions', id, commitPoint, () => {
            for (const at of participants) this.#delete('marks', id, at);
          });
        },
      );
    }
  }

  #delete(table: 'decisions' | 'marks', id: string, nodeId: number, then?: () => void): void {
    this.#world.note(`${id} by ${this.process.routerId}: delete ${table} at ${nodeId}`);
    this.#ask<true>(
      nodeId,
      (node, backend, done) => node.write(backend, [{ kind: 'delete', table, id }], () => done(true)),
      (got) => {
        if (got !== 'unreachable') then?.();
      },
    );
  }

  #onAll<T>(
    work: (node: SimulatedNode, backend: Backend, reply: (answer: T) => void) => void,
    then: (answers: (T | 'unreachable')[]) => void,
  ): void {
    const { nodes } = this.#world;
    const answers: (T | 'unreachable')[] = [];
    let left = nodes.length;
    for (const { nodeId } of nodes) {
      this.#ask<T>(nodeId, work, (answer) => {
        answers[nodeId] = answer;
        if (--left === 0) then(answers);
      });
    }
  }
}

interface DecisionSeenAt {
  readonly decision: 'commit' | 'abort' | 'none';
  readonly backend: 'inTransaction' | 'gone';
}

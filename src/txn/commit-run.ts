/**
 * One commit under way: carries out the effects of commit-protocol.ts on the branches' own connections and on fresh ones, and
 * feeds back what came of them. It lives on after its answer, for what has to be tried again.
 *
 * Invariant: an effect begins only after all that come before it; each gives exactly one event, unless its connection was
 * abandoned.
 * Invariant: at the answer each branch's connection is idle or closed.
 */
import { type BackendConnection, TransactionStatus } from '../backend/connection.ts';
import type { SharedStatement } from '../backend/prepared.ts';
import { assert, unreachable } from '../base/assert.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import type { BackendFacts } from './backend-facts.ts';
import {
  type CommitEffect,
  type CommitEvent,
  type CommitOptions,
  type CommitResult,
  type CommitState,
  type CommitStep,
  type CommitTimer,
  type Reply,
  stepCommit,
} from './commit-protocol.ts';
import { type Answer, Exchange, type Step } from './exchange.ts';
import { formatGid } from './gid.ts';
import { REGISTRATION, registrationValues, transactionKeyOf } from './registration.ts';
import { finishFailure, type TransactionKey } from './settle.ts';

const MARK: SharedStatement = {
  text: 'SELECT postern_commit.mark($1, $2, $3)',
  // uuid, int4, int4[]
  parameterOids: [2950, 23, 1007],
  validated: true,
};
const DECIDE: SharedStatement = {
  text: 'SELECT postern_commit.decide($1, $2, $3)',
  // uuid, int4[], name
  parameterOids: [2950, 1007, 19],
  validated: true,
};
const COMMIT: SharedStatement = { text: 'COMMIT', parameterOids: [], validated: true };
const COMMIT_STEP: Step = { prepared: COMMIT, values: [] };

export type FreshResult = 'done' | 'notThere' | 'failed';

/** What a commit needs beside the connections of its branches. */
export interface CommitWorld {
  readonly clusterId: string;
  readonly options: CommitOptions;
  now(): number;
  factsOf(connection: BackendConnection): BackendFacts;
  finishPrepared(options: { nodeId: number; gid: string; verb: 'COMMIT' | 'ROLLBACK' }): Promise<FreshResult>;
  askMark(nodeId: number, key: TransactionKey): Promise<'visible' | 'missing' | 'unreachable'>;
  /** Settles it as recovery would; gives up when `isWanted` says so. */
  resolve(options: ResolveRequest): Promise<'committed' | 'rolledBack' | 'lost' | undefined>;
  reportLoss(loss: { nodeId: number; gid: string; commitPoint: number } & TransactionKey): void;
  clean(done: { commitPoint: number; participants: readonly number[] } & TransactionKey): void;
  /** For tests: stops before an effect. */
  readonly beforeEffect: ((name: string, nodeId: number) => Promise<void> | void) | undefined;
}

export interface ResolveRequest extends TransactionKey {
  readonly commitPoint: number;
  readonly participants: readonly number[];
  readonly backend: BackendFacts;
  isWanted(): boolean;
  /** Since the commit began. */
  ageMs(): number;
}

export class CommitRun {
  readonly transactionId: string;
  /** In ms of the monotonic clock; Infinity: no timer is set. */
  deadlineMs = Number.POSITIVE_INFINITY;
  /** Recorded by PREPARE, told by mark(). */
  owner = '';
  commitPoint = 0;
  readonly #world: CommitWorld;
  readonly #branches: ReadonlyMap<number, BackendConnection>;
  readonly #onNotice: ((reader: FrameReader) => void) | undefined;
  readonly #onAnswer: (result: CommitResult) => void;
  readonly #onEnd: () => void;
  readonly #onFailure: (error: unknown) => void;
  readonly #unregistered: number | 'commitPoint' | undefined;
  readonly #exchanges = new Map<number, Exchange>();
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #queue: CommitEvent[] = [];
  #state: CommitState;
  #gid = '';
  #participants: readonly number[] = [];
  #timer: CommitTimer = 'prepare';
  readonly #startedAtMs: number;
  /** When decide() was sent, in ms of the monotonic clock; undefined: it was not. */
  decideSentAtMs: number | undefined;
  #stepping = false;
  #stopped = false;

  constructor(options: {
    transactionId: string;
    /** The node whose branch does not hold the lock of registration.ts yet. */
    unregistered: number | 'commitPoint' | undefined;
    world: CommitWorld;
    branches: ReadonlyMap<number, BackendConnection>;
    start: CommitStep;
    onNotice: ((reader: FrameReader) => void) | undefined;
    onAnswer: (result: CommitResult) => void;
    /** Nothing is left to do. */
    onEnd: () => void;
    /** An assertion has failed. May come after the answer. */
    onFailure: (error: unknown) => void;
  }) {
    this.transactionId = options.transactionId;
    this.#world = options.world;
    this.#startedAtMs = options.world.now();
    this.#branches = options.branches;
    this.#onNotice = options.onNotice;
    this.#onAnswer = options.onAnswer;
    this.#onEnd = options.onEnd;
    this.#onFailure = options.onFailure;
    this.#unregistered = options.unregistered;
    this.#state = options.start.state;
  }

  start(effects: readonly CommitEffect[]): void {
    this.#stepping = true;
    this.#perform(effects);
  }

  onDeadline(): void {
    this.deadlineMs = Number.POSITIVE_INFINITY;
    this.#feed({ kind: 'timeout', timer: this.#timer });
  }

  /** As if its process had died: nothing of it happens any more. */
  stop(): void {
    this.#stopped = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.deadlineMs = Number.POSITIVE_INFINITY;
  }

  get isTwoPhase(): boolean {
    return this.#gid !== '';
  }

  #end(): void {
    if (this.#stopped) return;
    this.stop();
    this.#onEnd();
  }

  get #key(): TransactionKey {
    return { transactionId: this.transactionId, owner: this.owner };
  }

  #feed(event: CommitEvent): void {
    if (this.#stopped) return;
    this.#queue.push(event);
    if (!this.#stepping) this.#drain();
  }

  #drain(): void {
    this.#stepping = true;
    const event = this.#queue.shift();
    if (!event) {
      this.#stepping = false;
      if (this.#state.kind === 'done') this.#end();
      return;
    }
    let step: CommitStep;
    try {
      step = stepCommit(this.#state, event, this.#world.options);
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#state = step.state;
    this.#perform(step.effects);
  }

  /** In order; then the next event's turn. Without a hook all of it happens in this turn. */
  #perform(effects: readonly CommitEffect[]): void {
    const { beforeEffect } = this.#world;
    if (beforeEffect) {
      void this.#performSlowly(effects, beforeEffect);
      return;
    }
    for (const effect of effects) this.#begin(effect);
    this.#drain();
  }

  async #performSlowly(
    effects: readonly CommitEffect[],
    beforeEffect: NonNullable<CommitWorld['beforeEffect']>,
  ): Promise<void> {
    for (const effect of effects) {
      await beforeEffect(effect.kind, 'nodeId' in effect ? effect.nodeId : 0);
      if (this.#stopped) return;
      this.#begin(effect);
    }
    this.#drain();
  }

  #begin(effect: CommitEffect): void {
    switch (effect.kind) {
      case 'commit':
        this.#ask(effect.nodeId, 'commit', [COMMIT_STEP]);
        return;
      case 'rollback':
        this.#rollBack(effect.nodeId);
        return;
      case 'assignXid':
        this.#ask(effect.nodeId, 'assignXid', [
          { prepared: undefined, text: 'SELECT pg_catalog.pg_current_xact_id()' },
        ]);
        return;
      case 'prepare':
        this.#prepare(effect);
        return;
      case 'decide':
        this.#decide(effect);
        return;
      case 'resolve':
        this.#resolve(effect.nodeId);
        return;
      case 'commitPrepared':
      case 'rollbackPrepared':
        this.#finishPrepared(effect);
        return;
      case 'askMark':
        this.#after(effect.afterMs, () => void this.#askMark(effect.nodeId));
        return;
      case 'abandon':
        this.#exchanges.delete(effect.nodeId);
        this.#branches.get(effect.nodeId)?.destroy();
        return;
      case 'setTimer':
        this.#timer = effect.timer;
        this.deadlineMs = this.#world.now() + effect.afterMs;
        return;
      case 'reportLoss': {
        const { commitPoint } = this;
        this.#world.reportLoss({ nodeId: effect.nodeId, gid: this.#gid, commitPoint, ...this.#key });
        return;
      }
      case 'answer':
        this.#answer(effect.result);
        return;
      case 'clean':
        this.#world.clean({
          commitPoint: effect.commitPoint,
          participants: effect.participants,
          ...this.#key,
        });
        return;
      default:
        unreachable(effect);
    }
  }

  /** A bug in Postern: what is open is left to recovery, and nobody waits for ever. */
  #fail(error: unknown): void {
    this.stop();
    for (const connection of this.#branches.values()) connection.destroy();
    this.#onFailure(error);
    this.#onEnd();
  }

  #answer(result: CommitResult): void {
    for (const connection of this.#branches.values()) {
      if (connection.closed) continue;
      const isFree = connection.pendingCount === 0 && connection.transactionStatus === TransactionStatus.idle;
      if (!isFree) connection.destroy();
    }
    this.#onAnswer(result);
  }

  #connection(nodeId: number): BackendConnection {
    const connection = this.#branches.get(nodeId);
    assert(connection, 'an effect is for a branch of its transaction');
    return connection;
  }

  #exchange(nodeId: number, onAnswer: (answer: Answer) => void): Exchange {
    const exchange = new Exchange({
      connection: this.#connection(nodeId),
      onNotice: this.#onNotice,
      onAnswer: (answer) => {
        // An abandoned one is no longer reported.
        if (this.#exchanges.get(nodeId) !== exchange) return;
        this.#exchanges.delete(nodeId);
        onAnswer(answer);
      },
    });
    this.#exchanges.set(nodeId, exchange);
    return exchange;
  }

  #ask(nodeId: number, to: Extract<CommitEvent, { kind: 'answered' }>['to'], steps: readonly Step[]): void {
    this.#exchange(nodeId, (answer) => {
      if (answer.kind !== 'lost' && this.#connection(nodeId).transactionStatus === TransactionStatus.failed) {
        // What failed was before the end of the block: the block is ended, and then the failure told.
        this.#exchange(nodeId, () => this.#told(nodeId, to, answer)).query('ROLLBACK');
      } else this.#told(nodeId, to, answer);
    }).send(steps);
  }

  #told(nodeId: number, to: Extract<CommitEvent, { kind: 'answered' }>['to'], answer: Answer): void {
    if (to === 'prepare' && answer.kind === 'answered' && answer.value !== undefined)
      this.owner = answer.value;
    this.#feed({ kind: 'answered', nodeId, to, reply: replyOf(answer) });
  }

  #rollBack(nodeId: number): void {
    const connection = this.#connection(nodeId);
    if (!connection.closed && connection.transactionStatus === TransactionStatus.idle) {
      this.#feed({ kind: 'answered', nodeId, to: 'rollback', reply: { kind: 'tag', tag: 'ROLLBACK' } });
      return;
    }
    this.#exchange(nodeId, (answer) =>
      this.#feed({ kind: 'answered', nodeId, to: 'rollback', reply: replyOf(answer) }),
    ).query('ROLLBACK');
  }

  #prepare(effect: Extract<CommitEffect, { kind: 'prepare' }>): void {
    const { nodeId, commitPoint, participants } = effect;
    if (this.#gid === '') {
      this.commitPoint = commitPoint;
      this.#participants = participants;
      this.#gid = formatGid(this.#world.clusterId, {
        transactionId: this.transactionId,
        commitPointNodeId: commitPoint,
        commitPointBackend: this.#world.factsOf(this.#connection(commitPoint)).identity,
      });
      if (this.#unregistered === 'commitPoint' || this.#unregistered === commitPoint)
        this.#register(this.#connection(commitPoint));
    }
    const values = [this.transactionId, String(commitPoint), `{${participants.join()}}`];
    const prepare: Step = { prepared: undefined, text: `PREPARE TRANSACTION '${this.#gid}'` };
    const steps: Step[] = effect.mark ? [{ prepared: MARK, values }, prepare] : [prepare];
    if (this.#unregistered === nodeId) steps.unshift(this.#registration());
    this.#ask(nodeId, 'prepare', steps);
  }

  /** Ahead of its decision, on the same connection: a failure or loss of it becomes one of the decision's. */
  #register(connection: BackendConnection): void {
    new Exchange({ connection, onAnswer: () => {}, onNotice: undefined }).send([this.#registration()]);
  }

  #registration(): Step {
    return { prepared: REGISTRATION, values: registrationValues(transactionKeyOf(this.transactionId)) };
  }

  #decide(effect: Extract<CommitEffect, { kind: 'decide' }>): void {
    this.decideSentAtMs = this.#world.now();
    const values = [this.transactionId, `{${effect.participants.join()}}`, effect.owner ?? null];
    this.#ask(effect.nodeId, 'decide', [{ prepared: DECIDE, values }, COMMIT_STEP]);
  }

  #resolve(nodeId: number): void {
    const request: ResolveRequest = {
      ...this.#key,
      commitPoint: nodeId,
      participants: this.#participants,
      backend: this.#world.factsOf(this.#connection(nodeId)),
      ageMs: () => this.#world.now() - this.#startedAtMs,
      isWanted: () => !this.#stopped && this.#state.kind === 'resolving',
    };
    void this.#world.resolve(request).then((outcome) => {
      if (outcome !== undefined) this.#feed({ kind: 'resolved', outcome });
    });
  }

  #finishPrepared(effect: Extract<CommitEffect, { kind: 'commitPrepared' | 'rollbackPrepared' }>): void {
    const { kind, nodeId } = effect;
    const verb = kind === 'commitPrepared' ? 'COMMIT' : 'ROLLBACK';
    const finished = (result: FreshResult) => this.#feed({ kind: 'finished', nodeId, to: kind, result });
    this.#after(effect.afterMs, () => {
      if (effect.via === 'own') {
        this.#exchange(nodeId, (answer) => finished(finishedAs(answer, `${verb} PREPARED`))).query(
          `${verb} PREPARED '${this.#gid}'`,
        );
      } else {
        void this.#world.finishPrepared({ nodeId, gid: this.#gid, verb }).then(finished);
      }
    });
  }

  async #askMark(nodeId: number): Promise<void> {
    const mark = await this.#world.askMark(nodeId, this.#key);
    const now = this.#world.now();
    this.#feed({ kind: 'markAsked', nodeId, mark, elapsedMs: now - (this.decideSentAtMs ?? now) });
  }

  #after(delayMs: number, work: () => void): void {
    if (delayMs === 0) {
      work();
      return;
    }
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      if (!this.#stopped) work();
    }, delayMs);
    timer.unref();
    this.#timers.add(timer);
  }
}

function replyOf(answer: Answer): Reply {
  switch (answer.kind) {
    case 'answered':
      return answer.value === undefined
        ? { kind: 'tag', tag: answer.tag }
        : { kind: 'tag', tag: answer.tag, owner: answer.value };
    case 'refused':
      return { kind: 'error', error: answer.error };
    case 'lost':
      return { kind: 'lost', error: answer.cause };
    default:
      return unreachable(answer);
  }
}

function finishedAs(answer: Answer, tag: string): FreshResult {
  if (answer.kind === 'answered') return answer.tag === tag ? 'done' : 'failed';
  return answer.kind === 'refused' ? finishFailure(answer.error) : 'failed';
}

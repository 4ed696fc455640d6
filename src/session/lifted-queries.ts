/**
 * Autocommit statements of the simple protocol as prepared ones: the literals are lifted out of the text, what is left is a
 * shape, and a shape that was seen before, judged safe (sql/lifted-shape.ts) and described by a server is executed with
 * the literals as values. So it is planned once, here and on each backend, and a write can be a batch's member.
 *
 * Invariant: an error never comes from the lifted form while nothing of the answer has been passed on: the original text is
 * then sent as it came, and its answer is the client's. (A lifted value's error has another position and context.)
 */
import { Pending, type PendingKind, type ResponseSink } from '../backend/pending.ts';
import { describeStatement } from '../execute/describe.ts';
import type { CachedQuery } from '../execute/plan-cache.ts';
import { type Lifted, liftLiterals, mapPosition } from '../sql/lift.ts';
import { parametersKeepMeaning, shapeIsSafe } from '../sql/lifted-shape.ts';
import { encodeErrorFields, readErrorFields } from '../wire/backend.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { BindView, bindTail, textBindFrame } from '../wire/frontend.ts';
import { Backend } from '../wire/message-types.ts';
import { CoalescedWrite } from './coalesced-write.ts';
import type { Conversation, PARKED } from './conversation.ts';
import { inUsersNames } from './leaf-errors.ts';
import {
  type BoundStatement,
  type ClientStatement,
  type PreparedExecution,
  rowAffinity,
} from './prepared-execution.ts';
import type { RequestTag } from './responses.ts';

/** What is known of a shape with these literal types. Kept with its plan, so for one map and search_path. */
export interface Shape {
  readonly statement: ClientStatement;
  /** `seen`: once; `judging`: a server is being asked. */
  state: 'seen' | 'judging' | 'usable' | 'unsafe';
}

type Outcome = void | Promise<void> | typeof PARKED;

export class LiftedQueries {
  readonly #c: Conversation;
  readonly #execution: PreparedExecution;
  /** Sends the text as it came. */
  readonly #asItCame: (text: string) => void | Promise<void>;
  readonly #bind = new BindView();

  constructor(options: {
    conversation: Conversation;
    execution: PreparedExecution;
    asItCame: (text: string) => void | Promise<void>;
  }) {
    this.#c = options.conversation;
    this.#execution = options.execution;
    this.#asItCame = options.asItCame;
  }

  /** Carries the statement out; undefined: it is not one for this way. */
  run(text: string): { readonly outcome: Outcome } | undefined {
    const { state, lease, responses } = this.#c;
    if (state.transaction !== 'none' || lease.connection || responses.owedReady > 0) return undefined;
    const lifted = liftLiterals(text);
    if (!lifted) return undefined;
    const shape = this.#shapeOf(text, lifted);
    if (shape?.state !== 'usable') return undefined;
    const frame = textBindFrame(lifted.values);
    this.#bind.read(frame);
    const bound = this.#execution.bind(shape.statement, this.#bind, frame.buffer);
    if (bound instanceof Promise)
      return { outcome: bound.then((done) => this.#send(text, lifted, shape.statement, done)) };
    const write = this.#execution.mergeable(shape.statement, bound);
    if (!write) return { outcome: this.#send(text, lifted, shape.statement, bound) };
    const member = new CoalescedWrite({
      conversation: this.#c,
      statement: bound.shared,
      tail: bindTail(this.#bind, frame.buffer, bound.extra),
      row: write.valuesOnly && !write.returning,
      describe: write.returning,
      affinity: rowAffinity(write.rowParameters, this.#bind, frame.buffer),
      extended: false,
      runAlone: () => this.#asItCame(text),
    });
    return { outcome: this.#c.submit(bound.nodeId!, member) };
  }

  #shapeOf(text: string, lifted: Lifted): Shape | undefined {
    const cached = this.#c.plan(lifted.text);
    const key = lifted.oids.join(',');
    const known = cached.shapes.get(key) as Shape | undefined;
    if (!known) {
      const statement = { name: '', text: lifted.text, oids: lifted.oids, cached, described: undefined };
      cached.shapes.set(key, { statement, state: 'seen' });
      return undefined;
    }
    if (known.state === 'seen') this.#judge(text, lifted, known, cached);
    return known;
  }

  /** At the second sight: once per shape, and in the background where a server is asked. */
  #judge(text: string, lifted: Lifted, shape: Shape, cached: CachedQuery): void {
    const [only, another] = cached.plan.statements;
    const plain =
      only !== undefined &&
      another === undefined &&
      only.refusal === undefined &&
      only.command === undefined &&
      only.effects.length === 0 &&
      only.unknownFunctions.length === 0 &&
      !only.needsPinBefore &&
      !only.outsideTransaction &&
      only.placement.kind !== 'anywhere';
    if (!plain || !shapeIsSafe(text, lifted)) {
      shape.state = 'unsafe';
      return;
    }
    shape.state = 'judging';
    void this.#c
      .onHome((connection) => describeStatement(connection, lifted.text, lifted.oids))
      .then((described) => {
        cached.described.set(lifted.oids.join(','), described);
        shape.statement.described = described;
        shape.state = parametersKeepMeaning(lifted, described.parameterOids) ? 'usable' : 'unsafe';
      })
      .catch(() => {
        // A table that is not there, or not yet: the text as it came will hear so.
        shape.state = 'seen';
      });
  }

  async #send(
    text: string,
    lifted: Lifted,
    statement: ClientStatement,
    bound: BoundStatement,
  ): Promise<void> {
    // The values are bound before anything is waited for: the view is the session's only one.
    const tail = bindTail(this.#bind, textBindFrame(lifted.values).buffer, bound.extra);
    const connection = await this.#c.lease.ensure(bound.nodeId);
    const { plan } = statement.cached;
    const answer = new Promise<boolean>((resolve) => {
      const sink = new LiftedAnswers(this.#c, text, lifted, bound.tag, resolve);
      const name = this.#execution.prepareUnheard(connection, bound.shared, sink);
      connection.bindTail(name, tail.bytes, sink, undefined);
      connection.describe('P', '', sink, undefined);
      this.#c.noteSending(plan, connection);
      connection.execute('', 0, sink, undefined);
      this.#c.responses.owe(1);
      connection.sync(sink, undefined);
    });
    if (!(await answer)) await this.#asItCame(text);
  }
}

/** The answers of a lifted statement in the terms of the simple protocol. */
class LiftedAnswers implements ResponseSink {
  readonly #c: Conversation;
  readonly #text: string;
  readonly #lifted: Lifted;
  readonly #tag: RequestTag;
  /** true: answered; false: it failed, and nothing of it was passed on. */
  readonly #end: (answered: boolean) => void;
  #columns: Buffer | undefined;
  #passedOn = false;
  #failed = false;

  constructor(
    conversation: Conversation,
    text: string,
    lifted: Lifted,
    tag: RequestTag,
    end: (answered: boolean) => void,
  ) {
    this.#c = conversation;
    this.#text = text;
    this.#lifted = lifted;
    this.#tag = tag;
    this.#end = end;
  }

  onMessage(type: number, reader: FrameReader, kind: PendingKind): void {
    switch (type) {
      case Backend.ParseComplete:
        if (this.#tag.statement) this.#tag.statement.validated = true;
        return;
      case Backend.BindComplete:
      case Backend.NoData:
        return;
      case Backend.RowDescription:
        this.#columns = Buffer.from(reader.buffer.subarray(reader.start, reader.end));
        return;
      case Backend.ErrorResponse:
        this.#onError(reader, kind);
        return;
      case Backend.ReadyForQuery:
        this.#onReady();
        return;
      default:
        this.#passOn();
        this.#c.state.output.writer.raw(reader.buffer, reader.start, reader.end);
    }
  }

  onRows(buffer: Buffer, start: number, end: number): void {
    this.#passOn();
    this.#c.responses.onRows(buffer, start, end);
  }

  onNotice(reader: FrameReader): void {
    this.#passOn();
    this.#c.responses.onNotice(reader);
  }

  onLocal(): void {}
  onDiscarded(): void {}

  /** The session is told as the connection's lessee. */
  onLost(): void {
    this.#end(true);
  }

  #passOn(): void {
    this.#passedOn = true;
    if (!this.#columns) return;
    this.#c.state.output.writer.raw(this.#columns, 0, this.#columns.length);
    this.#columns = undefined;
  }

  #onError(reader: FrameReader, kind: PendingKind): void {
    this.#failed = true;
    const fields = readErrorFields(reader);
    const prepared = this.#c.lease.connection?.prepared;
    const { statement } = this.#tag;
    if (statement && kind === Pending.parse) prepared?.remove(statement);
    // "cached plan must not change result type": the next one prepares it afresh.
    else if (statement && fields.get('C') === '0A000') prepared?.drop(statement);
    if (!this.#passedOn) return;
    const position = fields.get('P');
    if (position !== undefined)
      fields.set('P', String(mapPosition(this.#text, this.#lifted)(Number(position))));
    const told = this.#tag.leaf ? inUsersNames(fields, this.#tag.leaf) : fields;
    encodeErrorFields(this.#c.state.output.writer, 'E', told);
  }

  #onReady(): void {
    const { responses, lease } = this.#c;
    if (!this.#failed || this.#passedOn) {
      responses.onServerReady();
      this.#end(true);
      return;
    }
    responses.owe(-1);
    lease.onReady();
    this.#end(false);
  }
}

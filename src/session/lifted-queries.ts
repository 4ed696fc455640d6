/**
 * Statements of the simple protocol as prepared ones: the literals are lifted out of the text, what is left is a shape, and
 * a shape that was seen before, judged safe (sql/lifted-shape.ts) and described by a server is executed with the literals
 * as values. So it is planned once, here and on each backend, and a write outside of a transaction can be a batch's member.
 *
 * An error may be another one than that of the text as it came (a lifted value's has another position and context), so:
 * - A statement by itself that fails is sent again as it came, and that answer is the client's. The first one of a transaction too, in
 *   a transaction begun anew. Not so a write that has begun to run: its triggers may have done what no rollback undoes.
 * - Further on in a transaction there is no second try. There a statement is lifted only if its errors are the same either way: it
 *   gives no rows (whose columns a plan kept from before may get wrong) and its values are such that no server refuses to read them.
 *
 * Invariant: an error never comes from the lifted form of the other statements while nothing of the answer has been passed on.
 */
import type { BackendConnection } from '../backend/connection.ts';
import { Pending, type PendingKind, type ResponseSink } from '../backend/pending.ts';
import { BOUNDS } from '../base/bounds.ts';
import { describeStatement } from '../execute/describe.ts';
import type { CachedQuery } from '../execute/plan-cache.ts';
import type { QueryPlan } from '../plan/plan.ts';
import { type Lifted, liftLiterals, mapPosition } from '../sql/lift.ts';
import { parametersKeepMeaning, shapeIsSafe } from '../sql/lifted-shape.ts';
import { isAlwaysReadable } from '../sql/lifted-values.ts';
import { encodeErrorFields, readErrorFields } from '../wire/backend.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { BindView, bindTail, textBindFrame } from '../wire/frontend.ts';
import { Backend } from '../wire/message-types.ts';
import { CoalescedWrite } from './coalesced-write.ts';
import type { Conversation, PARKED } from './conversation.ts';
import { inUsersNames } from './leaf-errors.ts';
import { type Measurement, measure } from './measurement.ts';
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
  /** It gives no rows. */
  rowless: boolean;
}

/** Where the statement is: by itself, the first one that a node hears of in its transaction, or a later one. */
type Place = 'alone' | 'first' | 'inside';

const SELECTS = /^\s*select\b/i;

type Outcome = void | Promise<void> | typeof PARKED;

export class LiftedQueries {
  readonly #c: Conversation;
  readonly #execution: PreparedExecution;
  /** Sends the text as it came. */
  readonly #asItCame: (text: string) => void | Promise<void>;
  readonly #bind = new BindView();
  /** Shapes that were seen again in the transaction. */
  readonly #unjudged = new Map<Shape, () => void>();

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
    const place = this.#place();
    if (!place) return undefined;
    const lifted = liftLiterals(text);
    if (!lifted) return undefined;
    const shape = this.#shapeOf(place, text, lifted);
    if (shape?.state !== 'usable') return undefined;
    // Rows that a rule adds are told to whoever sends text, and to nobody else.
    if (this.#c.state.context.relations.hasRules(shape.statement.cached.plan)) return undefined;
    if (place === 'inside') {
      const { parameterOids } = shape.statement.described!;
      if (!shape.rowless || !isAlwaysReadable(lifted, parameterOids)) return undefined;
    }
    const frame = textBindFrame(lifted.values);
    this.#bind.read(frame);
    const bound = this.#execution.bind(shape.statement, this.#bind, frame.buffer);
    const { statement } = shape;
    if (bound instanceof Promise)
      return {
        outcome: bound.then((done) =>
          done ? this.#send(place, text, lifted, { statement, bound: done }) : this.#asItCame(text),
        ),
      };
    // Several buckets after all.
    if (!bound) return undefined;
    const write = this.#execution.mergeable(statement, bound);
    if (!write) return { outcome: this.#send(place, text, lifted, { statement, bound }) };
    const member = new CoalescedWrite({
      conversation: this.#c,
      statement: bound.shared,
      tail: bindTail(this.#bind, frame.buffer, bound.extra),
      row: (write.valuesOnly && !write.returning) || write.updatesByKey,
      describe: write.returning,
      affinity: rowAffinity(write.rowParameters, this.#bind, frame.buffer),
      bucket: bound.tag.leaf?.bucket,
      apart: write.apart === true,
      errors: undefined,
      measurement: measure(this.#c.state, statement.cached, bound.nodeId),
      runAlone: () => this.#asItCame(text),
    });
    return { outcome: this.#c.submit(bound.nodeId!, member) };
  }

  /** The transaction is over. */
  onFree(): void {
    if (this.#unjudged.size === 0) return;
    const unjudged = [...this.#unjudged];
    this.#unjudged.clear();
    for (const [shape, judge] of unjudged) if (shape.state === 'seen') judge();
  }

  #place(): Place | undefined {
    const { state, lease, responses } = this.#c;
    if (responses.owedReady > 0 || state.transaction === 'failed') return undefined;
    if (!state.context.relations.areKnown) return undefined;
    if (!lease.connection) {
      if (state.transaction === 'none') return 'alone';
      return lease.pinReason === undefined ? 'first' : undefined;
    }
    return state.transaction === 'none' && lease.isPlainBlock ? 'inside' : undefined;
  }

  #shapeOf(place: Place, text: string, lifted: Lifted): Shape | undefined {
    const cached = this.#c.plan(lifted.text);
    const key = lifted.oids.join(',');
    const known = cached.shapes.get(key) as Shape | undefined;
    if (!known) {
      const statement = { name: '', text: lifted.text, oids: lifted.oids, cached, described: undefined };
      cached.shapes.set(key, { statement, state: 'seen', rowless: false });
      return undefined;
    }
    if (known.state === 'seen') {
      // A server that is asked beside a transaction could wait for its locks.
      if (place === 'alone') this.#judge(text, lifted, known, cached);
      else if (this.#unjudged.size < BOUNDS.liftedShapesUnjudgedMax)
        this.#unjudged.set(known, () => this.#judge(text, lifted, known, cached));
    }
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
      only.sequences === undefined &&
      !only.outsideTransaction &&
      only.placement.kind !== 'anywhere' &&
      only.placement.kind !== 'cursor' &&
      only.placement.kind !== 'node' &&
      only.placement.kind !== 'scattered' &&
      only.placement.kind !== 'referenceWrite';
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
        shape.rowless = described.rows[0] === Backend.NoData;
        shape.state = parametersKeepMeaning(lifted, described.parameterOids) ? 'usable' : 'unsafe';
      })
      .catch(() => {
        // A table that is not there, or not yet: the text as it came will hear so.
        shape.state = 'seen';
      });
  }

  #send(
    place: Place,
    text: string,
    lifted: Lifted,
    what: { statement: ClientStatement; bound: BoundStatement },
  ): void | Promise<void> {
    const { bound } = what;
    // The values are bound before anything is waited for: the view is the session's only one.
    const tail = bindTail(this.#bind, textBindFrame(lifted.values).buffer, bound.extra);
    const { cached } = what.statement;
    const { plan } = cached;
    const measurement = measure(this.#c.state, cached, bound.nodeId);
    const connection = this.#c.lease.ensure(bound.nodeId, bound.tag.leaf?.bucket);
    const send = (acquired: BackendConnection): void | Promise<void> => {
      if (place === 'inside') {
        const sink = new LiftedAnswers(this.#c, {
          text,
          lifted,
          tag: bound.tag,
          measurement,
          onEnd: undefined,
        });
        this.#sendOn(acquired, bound, tail.bytes, { plan, sink });
        return;
      }
      const answered = new Promise<boolean>((onEnd) => {
        const sink = new LiftedAnswers(this.#c, { text, lifted, tag: bound.tag, measurement, onEnd });
        this.#sendOn(acquired, bound, tail.bytes, { plan, sink });
      });
      return answered.then((done) => (done ? undefined : this.#again(place, text)));
    };
    return connection instanceof Promise ? connection.then(send) : send(connection);
  }

  #sendOn(
    connection: BackendConnection,
    bound: BoundStatement,
    tail: Buffer,
    { plan, sink }: { plan: QueryPlan; sink: LiftedAnswers },
  ): void {
    this.#c.sequences.beforeSending(plan);
    const name = this.#execution.prepareUnheard(connection, bound.shared, sink);
    connection.bindTail(name, tail, sink, undefined);
    if (!sink.rowless) connection.describe('P', '', sink, undefined);
    this.#c.noteSending(plan, connection);
    connection.execute('', 0, sink, undefined);
    this.#c.responses.owe(1);
    connection.sync(sink, undefined);
  }

  async #again(place: Place, text: string): Promise<void> {
    if (place === 'first') await this.#c.lease.beginAgain();
    await this.#asItCame(text);
  }
}

/** The answers of a lifted statement in the terms of the simple protocol. */
class LiftedAnswers implements ResponseSink {
  readonly #c: Conversation;
  readonly #text: string;
  readonly #lifted: Lifted;
  readonly #tag: RequestTag;
  readonly #measurement: Measurement | undefined;
  /** true: answered; false: it failed, and nothing of it was passed on. undefined: errors are told in any case. */
  readonly #onEnd: ((answered: boolean) => void) | undefined;
  #columns: Buffer | undefined;
  #passedOn = false;
  #failed = false;

  constructor(
    conversation: Conversation,
    options: {
      text: string;
      lifted: Lifted;
      tag: RequestTag;
      measurement: Measurement | undefined;
      onEnd: ((answered: boolean) => void) | undefined;
    },
  ) {
    this.#c = conversation;
    this.#text = options.text;
    this.#lifted = options.lifted;
    this.#tag = options.tag;
    this.#onEnd = options.onEnd;
    this.#measurement = options.measurement;
  }

  /** Of statements that give rows, none comes this way. */
  get rowless(): boolean {
    return this.#onEnd === undefined;
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
        if (type === Backend.CommandComplete) this.#measurement?.addRows(reader.buffer, reader.end);
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
    this.#onEnd?.(true);
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
    if (this.#onEnd && !this.#passedOn) {
      if (!this.#isTheSame(fields, kind)) return;
      // Rows that were about to come have had their columns told.
      if (kind === Pending.execute && SELECTS.test(this.#text)) this.#passOn();
      this.#passedOn = true;
    }
    const victimOf = this.#c.lease.branches.waits.victimOf(reader);
    if (victimOf) {
      this.#c.responses.writeError(victimOf);
      return;
    }
    const position = fields.get('P');
    if (position !== undefined)
      fields.set('P', String(mapPosition(this.#text, this.#lifted)(Number(position))));
    const told = this.#tag.leaf ? inUsersNames(fields, this.#tag.leaf) : fields;
    this.#c.responses.errorsTold++;
    encodeErrorFields(this.#c.state.output.writer, 'E', told);
  }

  /**
   * Would the text as it came fail alike? To try it again would also undo a cancel, double a wait that was too long, and do
   * twice what triggers do that no rollback undoes.
   */
  #isTheSame(fields: ReadonlyMap<string, string>, kind: PendingKind): boolean {
    const code = fields.get('C') ?? '';
    if (code === '57014') return true;
    if (SELECTS.test(this.#text)) return false;
    // Values are read, and plans made, before a write is executed: all that it may find out later is of its rows.
    const isOfRows =
      kind === Pending.execute || code.startsWith('23') || code.startsWith('40') || code === '55P03';
    if (!isOfRows) return false;
    return fields.get('P') === undefined && !(fields.get('W') ?? '').includes('portal parameter $');
  }

  #onReady(): void {
    const { responses, lease } = this.#c;
    if (!this.#onEnd || !this.#failed || this.#passedOn) {
      if (this.#failed) this.#measurement?.fail();
      else this.#measurement?.end();
      responses.onServerReady();
      this.#onEnd?.(true);
      return;
    }
    responses.owe(-1);
    lease.onReady();
    this.#onEnd(false);
  }
}

/**
 * One write of this session as a member of a batch or a pipeline (coalesce/): what is sent for it, and what the client hears.
 *
 * Previous hop: simple-protocol.ts or extended-protocol.ts. Next: coalesce/group.ts.
 */

import { Pending } from '../backend/pending.ts';
import type { SharedStatement } from '../backend/prepared.ts';
import { type PosternError, queryCanceled } from '../base/errors.ts';
import type { WriteGroup } from '../coalesce/group.ts';
import type { Member, MemberFailure, MemberOwner } from '../coalesce/member.ts';
import { encodeBindComplete, encodeReadyForQuery } from '../wire/backend.ts';
import type { BindTail } from '../wire/frontend.ts';
import type { Conversation } from './conversation.ts';
import type { Measurement } from './measurement.ts';
import type { RequestTag } from './responses.ts';

export class CoalescedWrite implements Member, MemberOwner {
  readonly statement: SharedStatement;
  readonly tail: BindTail;
  readonly row: boolean;
  readonly describe: boolean;
  readonly affinity: number;
  readonly tenant: string | number | undefined;
  /** It shares no transaction with others, whatever its session has set. */
  readonly apart: boolean;
  single = false;
  lane = 0;
  captureStart = -1;
  captureEnd = -1;
  readonly #c: Conversation;
  readonly #errors: RequestTag | undefined;
  readonly #measurement: Measurement | undefined;
  readonly #runAlone: () => void | Promise<void>;
  #group: WriteGroup | undefined;
  #onEnd: (() => void) | undefined;

  constructor(options: {
    conversation: Conversation;
    statement: SharedStatement;
    tail: BindTail;
    row: boolean;
    describe: boolean;
    affinity: number;
    /** Of its shard key; undefined: none. */
    bucket: number | undefined;
    apart: boolean;
    /** For the extended protocol: whose its errors are. The simple one hears them as it runs alone, with the text as it came. */
    errors: RequestTag | undefined;
    /** Does the same in a transaction of its own, up to and including ReadyForQuery. */
    runAlone: () => void | Promise<void>;
    measurement: Measurement | undefined;
  }) {
    this.#c = options.conversation;
    this.statement = options.statement;
    this.tail = options.tail;
    this.row = options.row;
    this.describe = options.describe;
    this.affinity = options.affinity;
    this.tenant = options.conversation.state.tenant ?? options.bucket;
    this.apart = options.apart;
    this.#errors = options.errors;
    this.#runAlone = options.runAlone;
    this.#measurement = options.measurement;
  }

  get owner(): MemberOwner {
    return this;
  }

  submitTo(group: WriteGroup, onEnd: () => void): void {
    this.#group = group;
    this.#onEnd = onEnd;
    group.submit(this);
  }

  cancel(): void {
    this.#group?.cancel(this);
  }

  onCommitted(buffer: Buffer, start: number, end: number): void {
    const { writer } = this.#c.state.output;
    // The extended protocol tells BindComplete as well.
    if (this.#errors) encodeBindComplete(writer);
    if (start >= 0) writer.raw(buffer, start, end);
    encodeReadyForQuery(writer, 'I');
    if (this.#measurement) {
      if (start >= 0) this.#measurement.addRows(buffer, end);
      this.#measurement.end();
    }
    this.#end();
  }

  onFailed({ frame, kind }: MemberFailure, buffer: Buffer, start: number, end: number): void {
    if (!this.#errors) {
      this.onAlone();
      return;
    }
    const { writer } = this.#c.state.output;
    if (kind !== Pending.parse && kind !== Pending.bind) encodeBindComplete(writer);
    if (start >= 0) writer.raw(buffer, start, end);
    this.#c.responses.writeServerError(frame, kind, this.#errors);
    encodeReadyForQuery(writer, 'I');
    this.#measurement?.fail();
    this.#end();
  }

  onAlone(): void {
    this.#onEnd?.();
    const done = this.#runAlone();
    if (done) void done.then(() => this.#c.unpark());
    else this.#c.unpark();
  }

  onCanceled(): void {
    this.#fail(queryCanceled());
  }

  onUnknown(cause: PosternError): void {
    this.#fail(cause);
  }

  #fail(error: PosternError): void {
    this.#c.responses.writeError(error);
    encodeReadyForQuery(this.#c.state.output.writer, 'I');
    this.#measurement?.fail();
    this.#end();
  }

  #end(): void {
    this.#onEnd?.();
    this.#c.unpark();
  }
}

/**
 * One write of this session as a member of a batch (coalesce/): what is sent for it, and what the client hears.
 *
 * Previous hop: simple-protocol.ts or extended-protocol.ts. Next: coalesce/group.ts.
 */

import type { SharedStatement } from '../backend/prepared.ts';
import { type PosternError, queryCanceled } from '../base/errors.ts';
import type { CoalescingGroup } from '../coalesce/group.ts';
import type { Member, MemberOwner } from '../coalesce/member.ts';
import { encodeBindComplete, encodeReadyForQuery } from '../wire/backend.ts';
import type { BindTail } from '../wire/frontend.ts';
import type { Conversation } from './conversation.ts';

export class CoalescedWrite implements Member, MemberOwner {
  readonly statement: SharedStatement;
  readonly tail: BindTail;
  readonly row: boolean;
  readonly describe: boolean;
  readonly affinity: number;
  single = false;
  lane = 0;
  captureStart = -1;
  captureEnd = -1;
  readonly #c: Conversation;
  readonly #extended: boolean;
  readonly #runAlone: () => void | Promise<void>;
  #group: CoalescingGroup | undefined;
  #onEnd: (() => void) | undefined;

  constructor(options: {
    conversation: Conversation;
    statement: SharedStatement;
    tail: BindTail;
    row: boolean;
    describe: boolean;
    affinity: number;
    /** The extended protocol tells BindComplete as well. */
    extended: boolean;
    /** Does the same in a transaction of its own, up to and including ReadyForQuery. */
    runAlone: () => void | Promise<void>;
  }) {
    this.#c = options.conversation;
    this.statement = options.statement;
    this.tail = options.tail;
    this.row = options.row;
    this.describe = options.describe;
    this.affinity = options.affinity;
    this.#extended = options.extended;
    this.#runAlone = options.runAlone;
  }

  get owner(): MemberOwner {
    return this;
  }

  submitTo(group: CoalescingGroup, onEnd: () => void): void {
    this.#group = group;
    this.#onEnd = onEnd;
    group.submit(this);
  }

  cancel(): void {
    this.#group?.cancel(this);
  }

  onCommitted(buffer: Buffer, start: number, end: number): void {
    const { writer } = this.#c.state.output;
    if (this.#extended) encodeBindComplete(writer);
    if (start >= 0) writer.raw(buffer, start, end);
    encodeReadyForQuery(writer, 'I');
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
    this.#end();
  }

  #end(): void {
    this.#onEnd?.();
    this.#c.unpark();
  }
}

/**
 * A Bind of a write that may become a member of a batch or a pipeline, and what came after it so far: held back until it is clear that it
 * stands alone before its Sync.
 */
import type { SharedStatement } from '../backend/prepared.ts';
import type { WriteFacts } from '../plan/plan.ts';
import { type BindTail, type BindView, bindTail } from '../wire/frontend.ts';
import { CoalescedWrite } from './coalesced-write.ts';
import type { Conversation } from './conversation.ts';
import { measure } from './measurement.ts';
import { type BoundStatement, type ClientStatement, rowAffinity } from './prepared-execution.ts';
import type { RequestTag } from './responses.ts';

export class HeldWrite {
  readonly statement: ClientStatement;
  readonly shared: SharedStatement;
  readonly nodeId: number;
  readonly tag: RequestTag;
  readonly tail: BindTail;
  describe = false;
  execute = false;
  readonly #row: boolean;
  readonly #affinity: number;
  readonly #apart: boolean;

  constructor(options: {
    statement: ClientStatement;
    bound: BoundStatement;
    write: WriteFacts;
    view: BindView;
    buffer: Buffer;
  }) {
    const { statement, bound, write, view, buffer } = options;
    this.statement = statement;
    this.shared = bound.shared;
    this.nodeId = bound.nodeId!;
    this.tag = bound.tag;
    this.tail = bindTail(view, buffer, bound.extra);
    this.#row = (write.valuesOnly && !write.returning) || write.updatesByKey;
    this.#apart = write.apart === true;
    this.#affinity = rowAffinity(write.rowParameters, view, buffer);
  }

  asMember(conversation: Conversation, runAlone: () => void | Promise<void>): CoalescedWrite {
    return new CoalescedWrite({
      conversation,
      statement: this.shared,
      tail: this.tail,
      row: this.#row,
      describe: this.describe,
      affinity: this.#affinity,
      bucket: this.tag.leaf?.bucket,
      apart: this.#apart,
      errors: this.tag,
      measurement: measure(conversation.state, this.statement.cached, this.nodeId),
      runAlone,
    });
  }
}

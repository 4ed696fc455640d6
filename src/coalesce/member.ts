/**
 * One write on its way through a batch: what is sent for it, and where its answer goes. A session makes one at the Sync
 * (or Query) that ends an autocommit statement, and has at most one.
 */

import type { SharedStatement } from '../backend/prepared.ts';
import type { PosternError } from '../base/errors.ts';
import type { BindTail } from '../wire/frontend.ts';

/** The session of a member. Exactly one of these is called, once. */
export interface MemberOwner {
  /**
   * Committed. `buffer[start, end)` holds the frames between BindComplete and ReadyForQuery as the server sent them; they are
   * valid during the call only.
   */
  onCommitted(buffer: Buffer, start: number, end: number): void;
  /** Run it in a transaction of its own. */
  onAlone(): void;
  onCanceled(): void;
  onUnknown(cause: PosternError): void;
}

export interface Member {
  readonly owner: MemberOwner;
  readonly statement: SharedStatement;
  readonly tail: BindTail;
  /** It is one row of plain values: with others of the same statement it may become a multi-row INSERT. */
  readonly row: boolean;
  /** The client (or the simple protocol) wants the row description. */
  readonly describe: boolean;
  /** Members with the same one may touch the same row; −1: unknown or none. */
  readonly affinity: number;
  /** It was in a multi-row INSERT that failed: it is sent by itself from now on. Written by group.ts. */
  single: boolean;
  /** The lane that it is on. Written by group.ts. */
  lane: number;
  /** Where its answer lies in its batch's capture. Written by group.ts. */
  captureStart: number;
  captureEnd: number;
}

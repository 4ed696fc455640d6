/**
 * One write on its way through a batch or a pipeline: what is sent for it, and where its answer goes. A session makes one at
 * the Sync (or Query) that ends an autocommit statement, and has at most one.
 */

import type { PendingKind } from '../backend/pending.ts';
import type { SharedStatement } from '../backend/prepared.ts';
import type { PosternError } from '../base/errors.ts';
import type { Frame } from '../wire/frame-reader.ts';
import type { BindTail } from '../wire/frontend.ts';

/** The server's own error, from a transaction that was the member's alone. */
export interface MemberFailure {
  /** The ErrorResponse, of lasting memory. */
  readonly frame: Frame;
  /** Which of its messages the error answers. */
  readonly kind: PendingKind;
}

/** The session of a member. Exactly one of these is called, once. */
export interface MemberOwner {
  /**
   * Committed. `buffer[start, end)` holds the frames between BindComplete and ReadyForQuery as the server sent them; they are
   * valid during the call only.
   */
  onCommitted(buffer: Buffer, start: number, end: number): void;
  /** Failed by itself, and undone. `buffer[start, end)`: as for onCommitted, what came between BindComplete and the error. */
  onFailed(failure: MemberFailure, buffer: Buffer, start: number, end: number): void;
  /** Run it in a transaction of its own. */
  onAlone(): void;
  onCanceled(): void;
  onUnknown(cause: PosternError): void;
}

export interface Member {
  readonly owner: MemberOwner;
  readonly statement: SharedStatement;
  readonly tail: BindTail;
  /** With others of the same statement it may become one statement for all (multi-row.ts). */
  readonly row: boolean;
  /** The client (or the simple protocol) wants the row description. */
  readonly describe: boolean;
  /** Members with the same one may touch the same row; −1: unknown or none. */
  readonly affinity: number;
  /** Whose it is, if that is known: a name, or the bucket of its shard key. For a fair turn where many wait. */
  readonly tenant: string | number | undefined;
  /** It was in a statement for several that failed, or that did not touch its row: it is sent by itself from now on. Written by its lane. */
  single: boolean;
  /** The lane that it is on. Written by its lane. */
  lane: number;
  /** Where its answer lies in its lane's capture; start −1: nowhere. Written by its lane. */
  captureStart: number;
  captureEnd: number;
}

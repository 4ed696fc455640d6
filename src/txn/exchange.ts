/**
 * One question to a branch on its own backend connection: several messages in one write, up to one ReadyForQuery, with the
 * command tags that came back. What runs here may take long (deferred constraints, a synchronous standby), so it has bounds
 * of its own, kept by the coordinator's one timer and not by one for each.
 */
import type { BackendConnection } from '../backend/connection.ts';
import { Pending, type PendingKind, type ResponseSink } from '../backend/pending.ts';
import type { SharedStatement } from '../backend/prepared.ts';
import { rowFrames } from '../backend/row-frames.ts';
import { connectionLost, type PosternError } from '../base/errors.ts';
import { ServerError } from '../platform/control-connection.ts';
import { readCommandTag, readDataRowText, readErrorFields } from '../wire/backend.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { Backend } from '../wire/message-types.ts';

export interface Answered {
  readonly kind: 'answered';
  /** Tag of the last command that was carried out. */
  readonly tag: string;
  /** First value of the last row, if there was one. */
  readonly value: string | undefined;
}

export type Answer =
  | Answered
  | { readonly kind: 'refused'; readonly error: ServerError }
  | { readonly kind: 'lost'; readonly cause: PosternError };

export class Exchange implements ResponseSink {
  readonly connection: BackendConnection;
  readonly #onNotice: ((reader: FrameReader) => void) | undefined;
  readonly #onAnswer: (answer: Answer) => void;
  #tag = '';
  #value: string | undefined;
  #error: ServerError | undefined;

  /** `onAnswer` is called once, when the connection is ready again or lost. */
  constructor(options: {
    connection: BackendConnection;
    onAnswer: (answer: Answer) => void;
    onNotice: ((reader: FrameReader) => void) | undefined;
  }) {
    this.connection = options.connection;
    this.#onAnswer = options.onAnswer;
    this.#onNotice = options.onNotice;
  }

  /** Statements in their order: a text, or one kept prepared with its values. A failure keeps those behind it from running. */
  send(steps: readonly Step[]): void {
    const { connection } = this;
    if (connection.closed) {
      this.onLost(connection, connectionLost(connection.address.nodeName));
      return;
    }
    for (const step of steps) {
      let name = '';
      if (step.prepared) {
        name =
          connection.prepared.nameOf(step.prepared) ?? connection.parse(step.prepared, this, step.prepared);
      } else connection.parseUnnamed(step.text, this, undefined);
      connection.bindText(name, step.prepared ? step.values : [], this, step.prepared);
      connection.execute('', 0, this, undefined);
    }
    connection.sync(this, undefined);
  }

  /** One text in the simple protocol. */
  query(text: string): void {
    if (this.connection.closed)
      this.onLost(this.connection, connectionLost(this.connection.address.nodeName));
    else this.connection.query(text, this, undefined);
  }

  onMessage(type: number, reader: FrameReader, kind: PendingKind, tag: unknown): void {
    switch (type) {
      case Backend.CommandComplete:
        this.#tag = readCommandTag(reader);
        return;
      case Backend.ErrorResponse: {
        this.#error ??= new ServerError(this.connection.address.nodeName, readErrorFields(reader));
        // The client has thrown it away behind the router's back (DEALLOCATE ALL in a function): the next one makes it anew.
        if (kind === Pending.bind && tag) this.connection.prepared.remove(tag as SharedStatement);
        return;
      }
      case Backend.ReadyForQuery:
        this.#onAnswer(
          this.#error
            ? { kind: 'refused', error: this.#error }
            : { kind: 'answered', tag: this.#tag, value: this.#value },
        );
    }
  }

  onRows(buffer: Buffer, start: number, end: number): void {
    for (const frame of rowFrames(buffer, start, end)) this.#value = readDataRowText(frame)[0] ?? undefined;
  }

  onNotice(reader: FrameReader): void {
    this.#onNotice?.(reader);
  }

  onLocal(): void {}
  onDiscarded(): void {}

  onLost(_connection: BackendConnection, cause: PosternError): void {
    this.#onAnswer({ kind: 'lost', cause });
  }
}

export type Step =
  | { readonly prepared: SharedStatement; readonly values: readonly (string | null)[] }
  | { readonly prepared: undefined; readonly text: string };

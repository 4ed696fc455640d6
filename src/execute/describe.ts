/** A server's description of a statement: its parameters' types and its result's columns. */

import type { BackendConnection } from '../backend/connection.ts';
import type { PendingKind, ResponseSink } from '../backend/pending.ts';
import { connectionLost, type PosternError } from '../base/errors.ts';
import { ServerError } from '../platform/control-connection.ts';
import { readErrorFields, readParameterDescription } from '../wire/backend.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { Backend } from '../wire/message-types.ts';
import type { Described } from './plan-cache.ts';

/** Parses and describes `text` under a name of the moment, on a connection that the caller holds. */
export function describeStatement(
  connection: BackendConnection,
  text: string,
  parameterOids: readonly number[],
): Promise<Described> {
  return new Promise((resolve, reject) => {
    if (connection.closed) {
      reject(connectionLost(connection.address.nodeName));
      return;
    }
    const sink = new DescribeSink(connection.address.nodeName, resolve, reject);
    const statement = { text, parameterOids, validated: false };
    const name = connection.parse(statement, sink, undefined);
    connection.describe('S', name, sink, undefined);
    connection.close('S', name, sink, undefined);
    connection.prepared.remove(statement);
    connection.sync(sink, undefined);
  });
}

class DescribeSink implements ResponseSink {
  readonly #nodeName: string;
  readonly #resolve: (described: Described) => void;
  readonly #reject: (error: Error) => void;
  #error: ServerError | undefined;
  #parameterOids: readonly number[] = [];
  #rows: Buffer = Buffer.alloc(0);

  constructor(nodeName: string, resolve: (described: Described) => void, reject: (error: Error) => void) {
    this.#nodeName = nodeName;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  onMessage(type: number, reader: FrameReader, _kind: PendingKind): void {
    switch (type) {
      case Backend.ErrorResponse:
        this.#error = new ServerError(this.#nodeName, readErrorFields(reader));
        break;
      case Backend.ParameterDescription:
        this.#parameterOids = readParameterDescription(reader);
        break;
      case Backend.RowDescription:
      case Backend.NoData:
        this.#rows = Buffer.from(reader.buffer.subarray(reader.start, reader.end));
        break;
      case Backend.ReadyForQuery:
        if (this.#error) this.#reject(this.#error);
        else this.#resolve({ parameterOids: this.#parameterOids, rows: this.#rows, leaves: new Map() });
        break;
    }
  }

  onRows(): void {}
  onNotice(): void {}
  onLocal(): void {}
  onDiscarded(): void {}

  onLost(_connection: BackendConnection, cause: PosternError): void {
    this.#reject(cause);
  }
}

/**
 * One query of the router's own with values, on a connection that the caller holds and with nothing pending there, whose rows
 * come as objects: the few types that PostgreSQL's catalogs have as JavaScript's, all others as text. What npm `pg` gives on
 * the control path, so that the same questions can be asked in a client's transaction.
 *
 * It waits as long as its server does: for locks, and to the connection's end.
 */
import { connectionLost, type PosternError } from '../base/errors.ts';
import { OID } from '../pg/oid.ts';
import { ServerError } from '../platform/control-connection.ts';
import {
  type FieldDescription,
  readDataRowText,
  readErrorFields,
  readRowDescription,
} from '../wire/backend.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { Backend } from '../wire/message-types.ts';
import type { BackendConnection } from './connection.ts';
import type { ResponseSink } from './pending.ts';
import { rowFrames } from './row-frames.ts';

/** Rejects with ServerError or PosternError. */
export function queryRows<Row extends object>(
  connection: BackendConnection,
  text: string,
  values: readonly unknown[] = [],
): Promise<Row[]> {
  return new Promise((resolve, reject) => {
    if (connection.closed) {
      reject(connectionLost(connection.address.nodeName));
      return;
    }
    const sink = new RowSink(connection.address.nodeName, (rows) => resolve(rows as Row[]), reject);
    connection.parseUnnamed(text, sink, undefined);
    connection.bindText('', values.map(parameterText), sink, undefined);
    connection.describe('P', '', sink, undefined);
    connection.execute('', 0, sink, undefined);
    connection.sync(sink, undefined);
  });
}

class RowSink implements ResponseSink {
  readonly #nodeName: string;
  readonly #resolve: (rows: object[]) => void;
  readonly #reject: (error: Error) => void;
  readonly #rows: object[] = [];
  #fields: readonly FieldDescription[] = [];
  #error: ServerError | undefined;

  constructor(nodeName: string, resolve: (rows: object[]) => void, reject: (error: Error) => void) {
    this.#nodeName = nodeName;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  onMessage(type: number, reader: FrameReader): void {
    switch (type) {
      case Backend.RowDescription:
        this.#fields = readRowDescription(reader);
        return;
      case Backend.ErrorResponse:
        this.#error ??= new ServerError(this.#nodeName, readErrorFields(reader));
        return;
      case Backend.ReadyForQuery:
        if (this.#error) this.#reject(this.#error);
        else this.#resolve(this.#rows);
        return;
    }
  }

  onRows(buffer: Buffer, start: number, end: number): void {
    for (const frame of rowFrames(buffer, start, end)) {
      const texts = readDataRowText(frame);
      const row: Record<string, unknown> = {};
      for (const [i, { name, typeOid }] of this.#fields.entries())
        row[name] = decoded(texts[i] ?? null, typeOid);
      this.#rows.push(row);
    }
  }

  onNotice(): void {}
  onLocal(): void {}
  onDiscarded(): void {}

  onLost(_connection: BackendConnection, cause: PosternError): void {
    this.#reject(cause);
  }
}

const JSON_OIDS: readonly number[] = [114, 3802];
/** int2[], int4[], oid[]. */
const NUMBER_ARRAY_OIDS: readonly number[] = [1005, 1007, 1028];
/** text[], varchar[]. */
const TEXT_ARRAY_OIDS: readonly number[] = [1009, 1015];

function decoded(text: string | null, typeOid: number): unknown {
  if (text === null) return null;
  switch (typeOid) {
    case OID.bool:
      return text === 't';
    case OID.int2:
    case OID.int4:
    case OID.oid:
      return Number(text);
  }
  if (JSON_OIDS.includes(typeOid)) return JSON.parse(text);
  if (NUMBER_ARRAY_OIDS.includes(typeOid)) return elementsOf(text).map(Number);
  return TEXT_ARRAY_OIDS.includes(typeOid) ? elementsOf(text) : text;
}

/** Of an array of one dimension as PostgreSQL prints it: `{a,"b c",NULL}`. */
function elementsOf(text: string): (string | null)[] {
  const elements: (string | null)[] = [];
  for (const [, quoted, plain] of text.slice(1, -1).matchAll(/"((?:[^"\\]|\\.)*)"|([^,]+)/g)) {
    if (quoted !== undefined) elements.push(quoted.replaceAll(/\\(.)/g, '$1'));
    else elements.push(plain === 'NULL' ? null : plain!);
  }
  return elements;
}

/** A value as PostgreSQL reads it. */
export function parameterText(value: unknown): string | null {
  if (value === null || value === undefined) return null;
  if (!Array.isArray(value)) return String(value);
  const elements = value.map((element) =>
    element === null ? 'NULL' : `"${String(element).replaceAll(/["\\]/g, '\\$&')}"`,
  );
  return `{${elements.join(',')}}`;
}

/**
 * The messages that a client sends: decoded on the router's client side, encoded on its server side. Decoders work on the
 * current frame of a FrameReader and check every field against the frame's end, so that a message that passed is also
 * safe to send on; broken ones are protocol violations in PostgreSQL's words. Text is UTF-8, the only client_encoding here.
 *
 * Boundary: values of parameters stay bytes; what they mean is for PostgreSQL, or for the hash of a key, to say.
 */
import { assert } from '../base/assert.ts';
import { objectError, protocolViolation } from '../base/errors.ts';
import { type Body, BodyCursor } from './body-cursor.ts';
import { FrameWriter } from './frame-writer.ts';
import { Frontend } from './message-types.ts';

const PARAMETERS_MAX = 0xffff;
/** Room for this many parameters is kept by a BindView between messages; more is given back. */
const PARAMETERS_KEPT_MAX = 1024;
const TARGET_STATEMENT = 0x53; // S
const TARGET_PORTAL = 0x50; // P

export interface ParseMessage {
  readonly name: string;
  readonly text: string;
  /** As many as the client stated; 0 among them: left to the server. */
  readonly parameterOids: number[];
}

export interface TargetMessage {
  /** S: a prepared statement, P: a portal. */
  readonly target: 'S' | 'P';
  readonly name: string;
}

export interface ExecuteMessage {
  readonly portal: string;
  /** 0: no limit. */
  readonly maxRows: number;
}

const cursor = new BodyCursor();

export function readQueryText(body: Body): string {
  cursor.open(body);
  const text = cursor.cstring();
  cursor.finish();
  return text;
}

export function readParse(body: Body): ParseMessage {
  cursor.open(body);
  const name = cursor.cstring();
  const text = cursor.cstring();
  const count = cursor.uint16();
  const parameterOids: number[] = [];
  for (let i = 0; i < count; i++) parameterOids.push(cursor.uint32());
  cursor.finish();
  return { name, text, parameterOids };
}

export function readDescribe(body: Body): TargetMessage {
  return readTarget(body, 'DESCRIBE');
}

export function readClose(body: Body): TargetMessage {
  return readTarget(body, 'CLOSE');
}

function readTarget(body: Body, messageName: string): TargetMessage {
  cursor.open(body);
  const subtype = cursor.uint8();
  const name = cursor.cstring();
  cursor.finish();
  if (subtype === TARGET_STATEMENT) return { target: 'S', name };
  if (subtype === TARGET_PORTAL) return { target: 'P', name };
  throw protocolViolation(`invalid ${messageName} message subtype ${subtype}`);
}

export function readExecute(body: Body): ExecuteMessage {
  cursor.open(body);
  const portal = cursor.cstring();
  const maxRows = cursor.int32();
  cursor.finish();
  // A negative limit means none, as in PostgreSQL.
  return { portal, maxRows: Math.max(maxRows, 0) };
}

/** PasswordMessage: the clear-text or the md5 answer. */
export function readPassword(body: Body): string {
  return readQueryText(body);
}

/** SASLInitialResponse; `data` is undefined where the client sent none. */
export function readSaslInitial(body: Body): { mechanism: string; data: string | undefined } {
  cursor.open(body);
  const mechanism = cursor.cstring();
  const dataBytes = cursor.int32();
  const data = dataBytes === -1 ? undefined : cursor.countedText(dataBytes);
  cursor.finish();
  return { mechanism, data };
}

export function readSaslResponse(body: Body): string {
  cursor.open(body);
  const data = cursor.countedText(cursor.remainingBytes);
  cursor.finish();
  return data;
}

/** Sync, Flush, Terminate, CopyDone: nothing in them. */
export function readEmptyBody(body: Body): void {
  cursor.open(body);
  cursor.finish();
}

/**
 * A Bind message by its offsets, one object for all the Binds of a connection. Valid until the next read(); all offsets
 * are into the buffer that was read, which the view doesn't keep. After read() has thrown it holds nothing of use.
 */
export class BindView {
  portal = '';
  statement = '';
  parameterCount = 0;
  /** Where the part behind both names begins: formats, values, result formats. It ends at tailEnd, the frame's end. */
  tailStart = 0;
  tailEnd = 0;
  /** The count of values, and behind it the values. */
  valuesStart = 0;
  /** The count of result formats, and behind it the formats, up to resultFormatsEnd. */
  resultFormatsStart = 0;
  resultFormatsEnd = 0;

  /** 0 formats: all text; 1: the same for all; else one for each parameter. */
  #formatCount = 0;
  #formats = new Uint8Array(16);
  #starts = new Int32Array(16);
  #lengths = new Int32Array(16);

  read(body: Body): this {
    cursor.open(body);
    this.portal = cursor.cstring();
    this.statement = cursor.cstring();
    this.tailStart = cursor.position;
    this.tailEnd = body.end;
    this.#readFormats();
    this.valuesStart = cursor.position;
    this.#readValues();
    this.resultFormatsStart = cursor.position;
    this.resultFormatsEnd = body.end;
    const resultFormatCount = cursor.uint16();
    for (let i = 0; i < resultFormatCount; i++) readFormat();
    cursor.finish();
    return this;
  }

  /** The format of all parameters: 0 text, 1 binary; −1: some of each. */
  get uniformFormat(): -1 | 0 | 1 {
    const first = this.#formatCount === 0 ? 0 : (this.#formats[0] as 0 | 1);
    for (let i = 1; i < this.#formatCount; i++) if (this.#formats[i] !== first) return -1;
    return first;
  }

  /** 0: text, 1: binary. */
  parameterFormat(index: number): 0 | 1 {
    assert(index >= 0 && index < this.parameterCount, 'there is no such parameter');
    if (this.#formatCount === 0) return 0;
    return this.#formats[this.#formatCount === 1 ? 0 : index] as 0 | 1;
  }

  parameterStart(index: number): number {
    assert(index >= 0 && index < this.parameterCount, 'there is no such parameter');
    return this.#starts[index]!;
  }

  /** In bytes; −1: null. */
  parameterLength(index: number): number {
    assert(index >= 0 && index < this.parameterCount, 'there is no such parameter');
    return this.#lengths[index]!;
  }

  #readFormats(): void {
    const count = cursor.uint16();
    if (2 * count > cursor.remainingBytes) throw protocolViolation('insufficient data left in message');
    if (needsOtherCapacity(this.#formats.length, count)) this.#formats = new Uint8Array(capacityFor(count));
    for (let i = 0; i < count; i++) this.#formats[i] = readFormat();
    this.#formatCount = count;
  }

  #readValues(): void {
    const count = cursor.uint16();
    if (this.#formatCount > 1 && this.#formatCount !== count) {
      throw protocolViolation(
        `bind message has ${this.#formatCount} parameter formats but ${count} parameters`,
      );
    }
    if (4 * count > cursor.remainingBytes) throw protocolViolation('insufficient data left in message');
    if (needsOtherCapacity(this.#starts.length, count)) {
      this.#starts = new Int32Array(capacityFor(count));
      this.#lengths = new Int32Array(capacityFor(count));
    }
    for (let i = 0; i < count; i++) {
      const length = cursor.int32();
      this.#lengths[i] = length;
      this.#starts[i] = cursor.skip(length === -1 ? 0 : length);
    }
    this.parameterCount = count;
  }
}

function needsOtherCapacity(capacity: number, count: number): boolean {
  return capacity < count || (capacity > PARAMETERS_KEPT_MAX && count <= PARAMETERS_KEPT_MAX);
}

function capacityFor(count: number): number {
  return 2 ** Math.max(4, Math.ceil(Math.log2(count)));
}

function readFormat(): 0 | 1 {
  const format = cursor.int16();
  if (format !== 0 && format !== 1) throw protocolViolation(`unsupported format code: ${format}`);
  return format;
}

/** A view of its own. The data path keeps one BindView for each connection and calls its read(). */
export function readBind(body: Body): BindView {
  return new BindView().read(body);
}

export function encodeQuery(writer: FrameWriter, text: string): void {
  writer.begin(Frontend.Query);
  writer.cstring(text);
  writer.end();
}

export function encodeParse(
  writer: FrameWriter,
  name: string,
  text: string,
  parameterOids: readonly number[],
): void {
  writer.begin(Frontend.Parse);
  writer.cstring(name);
  writer.cstring(text);
  writer.int16(parameterOids.length);
  for (const oid of parameterOids) writer.int32(oid);
  writer.end();
}

/** The client's Bind with other names; `buffer` is the one that `view` was read from. */
export function encodeBindFrom(
  writer: FrameWriter,
  portal: string,
  statement: string,
  view: BindView,
  buffer: Buffer,
): void {
  writer.begin(Frontend.Bind);
  writer.cstring(portal);
  writer.cstring(statement);
  writer.bytes(buffer, view.tailStart, view.tailEnd);
  writer.end();
}

/** The same with parameters in text format behind the client's own. */
export function encodeBindWithExtraParameters(
  writer: FrameWriter,
  portal: string,
  statement: string,
  view: BindView,
  buffer: Buffer,
  extra: readonly string[],
): void {
  const count = view.parameterCount + extra.length;
  if (count > PARAMETERS_MAX) {
    throw objectError(
      '54023',
      `a statement can have at most ${PARAMETERS_MAX} parameters, and this one needs ${count}`,
    );
  }
  writer.begin(Frontend.Bind);
  writer.cstring(portal);
  writer.cstring(statement);
  encodeFormatsWithExtra(writer, view, extra.length);
  writer.int16(count);
  writer.bytes(buffer, view.valuesStart + 2, view.resultFormatsStart);
  for (const value of extra) writer.countedString(value);
  writer.bytes(buffer, view.resultFormatsStart, view.resultFormatsEnd);
  writer.end();
}

/** A Bind whose tail (formats, values, result formats) was kept by bindTail(). */
export function encodeBindTail(writer: FrameWriter, statement: string, tail: Buffer, portal = ''): void {
  writer.begin(Frontend.Bind);
  writer.cstring(portal);
  writer.cstring(statement);
  writer.bytes(tail, 0, tail.length);
  writer.end();
}

/** A Bind message behind its two names, kept for later: formats, values, result formats. */
export interface BindTail {
  readonly bytes: Buffer;
  readonly parameterCount: number;
  /** Where the values lie, without their count. */
  readonly valuesStart: number;
  readonly valuesEnd: number;
  /** The format of all values: 0 text, 1 binary; −1: some of each. */
  readonly format: -1 | 0 | 1;
}

/** Keeps a Bind's tail, with `extra` text parameters behind the client's own. */
export function bindTail(view: BindView, buffer: Buffer, extra: readonly string[] | undefined): BindTail {
  if (!extra || extra.length === 0) {
    return {
      bytes: Buffer.from(buffer.subarray(view.tailStart, view.tailEnd)),
      parameterCount: view.parameterCount,
      valuesStart: view.valuesStart + 2 - view.tailStart,
      valuesEnd: view.resultFormatsStart - view.tailStart,
      format: view.uniformFormat,
    };
  }
  const scratch = new FrameWriter(view.tailEnd - view.tailStart + 32 * extra.length);
  encodeFormatsWithExtra(scratch, view, extra.length);
  scratch.int16(view.parameterCount + extra.length);
  const valuesStart = scratch.length;
  scratch.bytes(buffer, view.valuesStart + 2, view.resultFormatsStart);
  for (const value of extra) scratch.countedString(value);
  const valuesEnd = scratch.length;
  scratch.bytes(buffer, view.resultFormatsStart, view.resultFormatsEnd);
  return {
    bytes: scratch.take(),
    parameterCount: view.parameterCount + extra.length,
    valuesStart,
    valuesEnd,
    format: view.uniformFormat === 1 && view.parameterCount > 0 ? -1 : view.uniformFormat,
  };
}

/**
 * A Bind behind its two names, with those of the client's parameters alone that `indexes` names, in that order.
 * `resultFormats`: one for each column; undefined: as the client wants them.
 */
export function bindTailOf(
  view: BindView,
  buffer: Buffer,
  indexes: readonly number[],
  resultFormats?: readonly (0 | 1)[],
): Buffer {
  const scratch = new FrameWriter(64 + 16 * indexes.length);
  scratch.int16(indexes.length);
  for (const index of indexes) scratch.int16(view.parameterFormat(index));
  scratch.int16(indexes.length);
  for (const index of indexes) {
    const length = view.parameterLength(index);
    const start = view.parameterStart(index);
    scratch.int32(length);
    if (length > 0) scratch.bytes(buffer, start, start + length);
  }
  if (resultFormats) {
    scratch.int16(resultFormats.length);
    for (const format of resultFormats) scratch.int16(format);
  } else scratch.bytes(buffer, view.resultFormatsStart, view.resultFormatsEnd);
  return scratch.take();
}

/** A value of a Bind: bytes of a buffer; null is SQL NULL. */
export interface BoundValue {
  readonly bytes: Buffer | null;
  readonly format: 0 | 1;
}

/** A Bind behind its two names: these values, and behind them those of the client's parameters that `indexes` names. */
export function bindTailOfValues(
  values: readonly BoundValue[],
  client: { readonly view: BindView; readonly buffer: Buffer; readonly indexes: readonly number[] },
): Buffer {
  const { view, buffer, indexes } = client;
  const count = values.length + indexes.length;
  const scratch = new FrameWriter(64 + 32 * count);
  scratch.int16(count);
  for (const { format } of values) scratch.int16(format);
  for (const index of indexes) scratch.int16(view.parameterFormat(index));
  scratch.int16(count);
  for (const { bytes } of values) {
    scratch.int32(bytes ? bytes.length : -1);
    if (bytes) scratch.bytes(bytes, 0, bytes.length);
  }
  for (const index of indexes) {
    const length = view.parameterLength(index);
    const start = view.parameterStart(index);
    scratch.int32(length);
    if (length > 0) scratch.bytes(buffer, start, start + length);
  }
  scratch.bytes(buffer, view.resultFormatsStart, view.resultFormatsEnd);
  return scratch.take();
}

/** One Bind with the values of several, which have equal formats: those of `tails[start]` to `tails[start + count − 1]`. */
export function encodeBindOfRows(
  writer: FrameWriter,
  statement: string,
  rows: {
    readonly tails: readonly { readonly tail: BindTail }[];
    readonly start: number;
    readonly count: number;
  },
): void {
  const first = rows.tails[rows.start]!.tail;
  writer.begin(Frontend.Bind);
  writer.uint8(0);
  writer.cstring(statement);
  writer.int16(1);
  writer.int16(first.format);
  writer.int16(first.parameterCount * rows.count);
  for (let i = rows.start; i < rows.start + rows.count; i++) {
    const { bytes, valuesStart, valuesEnd } = rows.tails[i]!.tail;
    writer.bytes(bytes, valuesStart, valuesEnd);
  }
  writer.int16(0);
  writer.end();
}

/** The body of a Bind of unnamed things with text parameters, and results in text: to be read as if a client had sent it. */
export function textBindFrame(values: readonly (string | null)[]): Body {
  const scratch = new FrameWriter(32 + 16 * values.length);
  scratch.int16(0); // Both names are empty.
  scratch.int16(0);
  scratch.int16(values.length);
  for (const value of values) {
    if (value === null) scratch.int32(-1);
    else scratch.countedString(value);
  }
  scratch.int16(0);
  const buffer = scratch.take();
  return { buffer, bodyStart: 0, end: buffer.length };
}

function encodeFormatsWithExtra(writer: FrameWriter, view: BindView, extraCount: number): void {
  let anyBinary = false;
  for (let i = 0; i < view.parameterCount; i++) anyBinary ||= view.parameterFormat(i) === 1;
  if (!anyBinary) {
    writer.int16(0);
    return;
  }
  writer.int16(view.parameterCount + extraCount);
  for (let i = 0; i < view.parameterCount; i++) writer.int16(view.parameterFormat(i));
  for (let i = 0; i < extraCount; i++) writer.int16(0);
}

/** Values in text format, and results in text format. */
export function encodeBind(
  writer: FrameWriter,
  message: { portal: string; statement: string; parameters: readonly (string | null)[] },
): void {
  writer.begin(Frontend.Bind);
  writer.cstring(message.portal);
  writer.cstring(message.statement);
  writer.int16(0);
  writer.int16(message.parameters.length);
  for (const value of message.parameters) {
    if (value === null) writer.int32(-1);
    else writer.countedString(value);
  }
  writer.int16(0);
  writer.end();
}

export function encodeDescribe(writer: FrameWriter, target: 'S' | 'P', name: string): void {
  encodeTarget(writer, Frontend.Describe, target, name);
}

export function encodeClose(writer: FrameWriter, target: 'S' | 'P', name: string): void {
  encodeTarget(writer, Frontend.Close, target, name);
}

function encodeTarget(writer: FrameWriter, type: number, target: 'S' | 'P', name: string): void {
  writer.begin(type);
  writer.uint8(target === 'S' ? TARGET_STATEMENT : TARGET_PORTAL);
  writer.cstring(name);
  writer.end();
}

/** @param maxRows 0: no limit */
export function encodeExecute(writer: FrameWriter, portal: string, maxRows: number): void {
  writer.begin(Frontend.Execute);
  writer.cstring(portal);
  writer.int32(maxRows);
  writer.end();
}

export function encodeSync(writer: FrameWriter): void {
  writer.begin(Frontend.Sync);
  writer.end();
}

export function encodeFlush(writer: FrameWriter): void {
  writer.begin(Frontend.Flush);
  writer.end();
}

export function encodeTerminate(writer: FrameWriter): void {
  writer.begin(Frontend.Terminate);
  writer.end();
}

export function encodePassword(writer: FrameWriter, password: string): void {
  writer.begin(Frontend.Password);
  writer.cstring(password);
  writer.end();
}

export function encodeSaslInitial(writer: FrameWriter, mechanism: string, data: string): void {
  writer.begin(Frontend.Password);
  writer.cstring(mechanism);
  writer.countedString(data);
  writer.end();
}

export function encodeSaslResponse(writer: FrameWriter, data: string): void {
  writer.begin(Frontend.Password);
  writer.string(data);
  writer.end();
}

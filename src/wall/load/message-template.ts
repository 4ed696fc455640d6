/**
 * A message group as bytes, encoded once, with the places where values go, and the buffer of one client that it is put
 * together in. What has no values goes out as it is, uncopied.
 *
 * Values are text, as pgbench sends them: put into a simple query's text, or as parameters whose types the server
 * infers. A null is the word NULL in a query and a null parameter otherwise.
 */
import { invalidParameter } from '../../base/errors.ts';
import { FrameWriter } from '../../wire/frame-writer.ts';
import { encodeDescribe, encodeExecute, encodeParse, encodeQuery, encodeSync } from '../../wire/frontend.ts';
import { Frontend } from '../../wire/message-types.ts';
import { type Value, valueText } from '../workload/script-value.ts';

export interface MessageTemplate {
  /** One more than there are values; each value stands between two. */
  readonly chunks: readonly Buffer[];
  /** The slots of the variables, in order. */
  readonly slots: readonly number[];
  readonly encoding: 'text' | 'parameters';
  /** In the first chunk: the length of the frame that the values are in. */
  readonly lengthOffset: number;
  /** Bytes of the last chunk that belong to that frame no more. */
  readonly tailBytes: number;
}

const NULL_TEXT = Buffer.from('NULL');
const DIGIT_ZERO = 0x30;
const MINUS = 0x2d;
/** Digits, sign; enough for any number or boolean. */
const NUMBER_BYTES_MAX = 24;
const BUFFER_BYTES_FIRST = 1024;
/** Views of this many lengths are kept, so that messages of the usual sizes make none. */
const VIEW_BYTES_MAX = 4096;
const PARAMETERS_MAX = 65_535;

export const SYNC = fixedMessage((writer) => encodeSync(writer));

/** `texts` is one longer than `slots`: what stands around the values. */
export function queryMessage(texts: readonly string[], slots: readonly number[]): MessageTemplate {
  if (slots.length === 0) return fixedMessage((writer) => encodeQuery(writer, texts[0]!));
  const first = new FrameWriter();
  first.begin(Frontend.Query);
  first.string(texts[0]!);
  first.end();
  const last = Buffer.from(`${texts.at(-1)!}\0`);
  const chunks = [Buffer.from(first.take()), ...texts.slice(1, -1).map((text) => Buffer.from(text)), last];
  return { chunks, slots, encoding: 'text', lengthOffset: 1, tailBytes: 0 };
}

/** Parse (unless `name` is one that is prepared already), Bind, Execute, and Sync if `isLast`. */
export function extendedMessage(options: {
  readonly text: string;
  readonly name: string;
  readonly slots: readonly number[];
  /** The result's columns are wanted. */
  readonly describes: boolean;
  readonly isLast: boolean;
}): MessageTemplate {
  const { text, name, slots, describes, isLast } = options;
  if (slots.length > PARAMETERS_MAX)
    throw invalidParameter(`a statement has at most ${PARAMETERS_MAX} parameters`);
  const parse = new FrameWriter();
  if (name === '') encodeParse(parse, '', text, []);
  const parseBytes = Buffer.from(parse.take());
  const bind = new FrameWriter();
  bind.begin(Frontend.Bind);
  bind.cstring('');
  bind.cstring(name);
  bind.int16(0);
  bind.int16(slots.length);
  if (slots.length === 0) bind.int16(0);
  bind.end();
  const rest = new FrameWriter();
  if (describes) encodeDescribe(rest, 'P', '');
  encodeExecute(rest, '', 0);
  if (isLast) encodeSync(rest);
  const restBytes = Buffer.from(rest.take());
  const head = Buffer.concat([parseBytes, bind.take()]);
  const lengthOffset = parseBytes.length + 1;
  const chunks =
    slots.length === 0
      ? [Buffer.concat([head, restBytes])]
      : // The last two bytes of Bind: every result in its default format, which is text.
        [head, ...slots.slice(1).map(() => Buffer.alloc(0)), Buffer.concat([Buffer.alloc(2), restBytes])];
  return { chunks, slots, encoding: 'parameters', lengthOffset, tailBytes: restBytes.length };
}

function fixedMessage(encode: (writer: FrameWriter) => void): MessageTemplate {
  const writer = new FrameWriter();
  encode(writer);
  return { chunks: [Buffer.from(writer.take())], slots: [], encoding: 'text', lengthOffset: 1, tailBytes: 0 };
}

/** What one client is about to send. */
export class MessageBuffer {
  private bytes: Buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES_FIRST);
  private views: Buffer[] = [];
  private length = 0;
  /** The only message so far has no values: its own bytes do. */
  private whole: Buffer | undefined;

  append(message: MessageTemplate, values: readonly (Value | undefined)[]): void {
    const { chunks, slots } = message;
    if (slots.length === 0 && this.length === 0 && this.whole === undefined) {
      this.whole = chunks[0]!;
      return;
    }
    this.copyWhole();
    const start = this.length;
    this.put(chunks[0]!);
    if (slots.length === 0) return;
    for (let index = 0; index < slots.length; index++) {
      const value = values[slots[index]!];
      if (value === undefined) throw invalidParameter('the statement has a variable that is not set');
      if (message.encoding === 'text') this.putText(value);
      else this.putParameter(value);
      const chunk = chunks[index + 1]!;
      if (chunk.length > 0) this.put(chunk);
    }
    const lengthAt = start + message.lengthOffset;
    this.bytes.writeInt32BE(this.length - message.tailBytes - lengthAt, lengthAt);
  }

  /** All that was appended, until the next append; the buffer begins anew. */
  take(): Buffer {
    const { whole, length } = this;
    this.whole = undefined;
    this.length = 0;
    if (whole !== undefined) return whole;
    if (length > VIEW_BYTES_MAX) return this.bytes.subarray(0, length);
    let view = this.views[length];
    if (view === undefined) {
      view = this.bytes.subarray(0, length);
      this.views[length] = view;
    }
    return view;
  }

  private copyWhole(): void {
    const whole = this.whole;
    if (whole === undefined) return;
    this.whole = undefined;
    this.put(whole);
  }

  private put(chunk: Buffer): void {
    this.reserve(chunk.length);
    this.length += chunk.copy(this.bytes, this.length);
  }

  private putParameter(value: Value): void {
    this.reserve(4);
    const lengthAt = this.length;
    this.length += 4;
    if (value === null) {
      this.bytes.writeInt32BE(-1, lengthAt);
      return;
    }
    this.putText(value);
    this.bytes.writeInt32BE(this.length - lengthAt - 4, lengthAt);
  }

  private putText(value: Value): void {
    if (typeof value === 'number') {
      this.putNumber(value);
    } else if (value === null) {
      this.put(NULL_TEXT);
    } else {
      const text = valueText(value);
      this.reserve(text.length * 3);
      this.length += this.bytes.write(text, this.length);
    }
  }

  private putNumber(value: number): void {
    this.reserve(NUMBER_BYTES_MAX);
    let rest = value;
    if (rest < 0) {
      this.bytes[this.length++] = MINUS;
      rest = -rest;
    }
    let digits = 1;
    for (let power = 10; power <= rest; power *= 10) digits++;
    for (let at = this.length + digits - 1; at >= this.length; at--) {
      const quotient = Math.floor(rest / 10);
      this.bytes[at] = DIGIT_ZERO + (rest - quotient * 10);
      rest = quotient;
    }
    this.length += digits;
  }

  private reserve(count: number): void {
    if (this.bytes.length - this.length >= count) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(2 * this.bytes.length, this.length + count));
    this.bytes.copy(grown, 0, 0, this.length);
    this.bytes = grown;
    this.views = [];
  }
}

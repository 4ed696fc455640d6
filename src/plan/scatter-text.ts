/**
 * A stretch of the client's text, cut where something is put in and at each $n, so that texts for single buckets can be made
 * of some stretches with the parameters numbered afresh; and the way back for error positions.
 */
import { nextToken } from '../sql/scanner.ts';
import type { Edit, EditReplacement } from './plan.ts';

export type TextPart =
  /** As it stands in the client's text, from the byte offset `at` on; −1: it does not stand there. */
  | { readonly kind: 'text'; readonly text: string; readonly at: number }
  /** 0-based. */
  | { readonly kind: 'parameter'; readonly index: number; readonly at: number }
  | { readonly kind: 'edit'; readonly replacement: EditReplacement; readonly at: number };

/** The bytes [start, end) of `sql`; `edits` of the whole statement, in order. */
export function cutText(sql: Uint8Array, start: number, end: number, edits: readonly Edit[]): TextPart[] {
  const bytes = Buffer.from(sql.buffer, sql.byteOffset, sql.length);
  const parts: TextPart[] = [];
  let at = start;
  for (const edit of edits) {
    if (edit.start < start || edit.end > end) continue;
    cutParameters(bytes, at, edit.start, parts);
    parts.push({ kind: 'edit', replacement: edit.replacement, at: edit.start });
    at = edit.end;
  }
  cutParameters(bytes, at, end, parts);
  return parts;
}

export function textPart(text: string): TextPart {
  return { kind: 'text', text, at: -1 };
}

function cutParameters(bytes: Buffer, start: number, end: number, parts: TextPart[]): void {
  let at = start;
  for (let token = nextToken(bytes, at); token.start < end; token = nextToken(bytes, token.end)) {
    if (token.kind === 'end') break;
    if (token.kind !== 'parameter') continue;
    if (token.start > at) parts.push({ kind: 'text', text: bytes.toString('utf8', at, token.start), at });
    const index = Number(bytes.toString('latin1', token.start + 1, token.end)) - 1;
    parts.push({ kind: 'parameter', index, at: token.start });
    at = token.end;
  }
  if (at < end) parts.push({ kind: 'text', text: bytes.toString('utf8', at, end), at });
}

export interface AssembledText {
  readonly text: string;
  /** The client's parameters that it uses: $1 is the first of them, and so on. */
  readonly parameters: readonly number[];
  /** From a 1-based character position in `text` to a byte offset in the client's; undefined: it is not there. */
  readonly offsetOf: (position: number) => number | undefined;
}

/** Parts put together, $n numbered from `firstParameter` (1-based) on in the order of their first use. */
export function assemble(
  parts: readonly TextPart[],
  replace: (replacement: EditReplacement) => string,
  firstParameter = 1,
): AssembledText {
  const parameters: number[] = [];
  const numbers = new Map<number, number>();
  const texts = parts.map((part) => {
    if (part.kind === 'text') return part.text;
    if (part.kind === 'edit') return replace(part.replacement);
    let number = numbers.get(part.index);
    if (number === undefined) {
      number = firstParameter + parameters.length;
      numbers.set(part.index, number);
      parameters.push(part.index);
    }
    return `$${number}`;
  });
  return {
    text: texts.join(''),
    parameters,
    offsetOf: (position) => offsetOf(parts, texts, position),
  };
}

function offsetOf(
  parts: readonly TextPart[],
  texts: readonly string[],
  position: number,
): number | undefined {
  let before = 0;
  for (const [index, part] of parts.entries()) {
    const characters = [...texts[index]!];
    if (position > before + characters.length) {
      before += characters.length;
      continue;
    }
    if (part.at < 0) return undefined;
    if (part.kind !== 'text') return part.at;
    return part.at + Buffer.byteLength(characters.slice(0, position - before - 1).join(''));
  }
  return undefined;
}

/** The 1-based character position of a byte offset. */
export function characterAt(text: string, byteOffset: number): number {
  const before = Buffer.from(text).toString('utf8', 0, byteOffset);
  return [...before].length + 1;
}

/** Rows of text and CSV, cut at every byte, against a reader that sees all data at once and looks at one character at a time. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type CopyOption, formatOf } from './format.ts';
import { CopyDataError, LineRows, type RowView } from './line-rows.ts';

interface Told {
  readonly rows: readonly string[];
  readonly lines: readonly number[];
  readonly error: string | undefined;
}

/** The pieces as a stream gives them; each in memory that has other bytes behind it. */
function read(pieces: readonly Buffer[], options: readonly CopyOption[], markerEnds = false): Told {
  const rows: string[] = [];
  const lines: number[] = [];
  const onRow = ({ buffer, start, contentEnd, line }: RowView) => {
    rows.push(buffer.toString('latin1', start, contentEnd));
    lines.push(line);
  };
  const reader = new LineRows(
    formatOf(options),
    { onRow, onHeader() {} },
    { markerEnds, rowBytesMax: 100_000 },
  );
  try {
    for (const piece of pieces) {
      const memory = Buffer.concat([Buffer.from('\n"'), piece, Buffer.from('\\.\r\n"x')]);
      reader.push(memory, 2, 2 + piece.length);
      memory.fill(0x7a);
    }
    reader.finish();
  } catch (error) {
    if (!(error instanceof CopyDataError)) throw error;
    return { rows, lines, error: `${error.line}: ${error.message}` };
  }
  return { rows, lines, error: undefined };
}

/** One character after the other. */
function readSlowly(data: string, options: readonly CopyOption[], markerEnds = false): Told {
  const format = formatOf(options);
  const isCsv = format.kind === 'csv';
  const quote = String.fromCharCode(format.quote);
  const escapeText = String.fromCharCode(format.escape);
  const rows: string[] = [];
  const lines: number[] = [];
  let style = '';
  let line = 0;
  let at = 0;
  let isHeader = format.header !== 'none';
  const fail = (message: string): Told => ({ rows, lines, error: `${line}: ${message}` });
  while (at < data.length) {
    line++;
    const start = at;
    let inQuotes = false;
    let escaped = false;
    let contentEnd = data.length;
    let after = data.length;
    for (;;) {
      const c = data[at];
      if (c === undefined) break;
      const rest = data.slice(at);
      if (!isCsv && c === '\\') {
        if (data[at + 1] === '.') {
          const end = /^\\\.(\r\n|\r|\n)/.exec(rest)?.[1];
          if (end === undefined || at > start) return fail('end-of-copy marker is not alone on its line');
          const own = end === '\r\n' && style === '\r' ? '\r' : end;
          if (style !== '' && style !== own)
            return fail('end-of-copy marker does not match previous newline style');
          return { rows, lines, error: undefined };
        }
        if (at + 1 === data.length) contentEnd = at;
        at += 2;
        continue;
      }
      if (isCsv && markerEnds && at === start) {
        const [, first, second] = /^\\\.([\r\n])([\r\n]?)/.exec(rest) ?? [];
        const isOther =
          (style === '\r\n' && first === '\r' && second === '\r') ||
          (style === '\n' && first === '\r') ||
          (style === '\r' && first === '\n');
        if (isOther) return fail('end-of-copy marker does not match previous newline style');
        if (first !== undefined && (style !== '\r\n' || (first === '\r' && second === '\n')))
          return { rows, lines, error: undefined };
      }
      if (isCsv) {
        if (inQuotes && c === escapeText && escapeText !== quote) escaped = !escaped;
        if (c === quote && !escaped) inQuotes = !inQuotes;
        if (c !== escapeText || escapeText === quote) escaped = false;
        if (inQuotes && c === (style === '\n' ? '\n' : '\r')) line++;
      }
      const mark = isCsv ? 'unquoted' : 'literal';
      if (c === '\n' && !inQuotes) {
        if (style === '\r' || style === '\r\n') return fail(`${mark} newline found in data`);
        style = '\n';
        contentEnd = at;
        after = at + 1;
        break;
      }
      if (c === '\r' && !inQuotes) {
        if (style === '\n') return fail(`${mark} carriage return found in data`);
        if (style !== '\r' && data[at + 1] === '\n') style = '\r\n';
        else if (style === '\r\n') return fail(`${mark} carriage return found in data`);
        else style = '\r';
        contentEnd = at;
        after = at + style.length;
        break;
      }
      at++;
    }
    if (isHeader) isHeader = false;
    else {
      rows.push(data.slice(start, contentEnd));
      lines.push(line);
    }
    at = after;
  }
  return { rows, lines, error: undefined };
}

const TEXT: readonly CopyOption[] = [];
const CSV: readonly CopyOption[] = [{ name: 'format', value: 'csv' }];
const FORMATS: readonly (readonly CopyOption[])[] = [
  TEXT,
  CSV,
  [...CSV, { name: 'escape', value: '\\' }],
  [...CSV, { name: 'quote', value: "'" }, { name: 'header', value: undefined }],
  [{ name: 'header', value: 'match' }],
];

/** Data that are mostly what they should be, with the lines of one system or another. */
const data = fc
  .tuple(
    fc.constantFrom('\n', '\r', '\r\n'),
    fc.array(
      fc.array(
        fc.oneof(
          {
            weight: 12,
            arbitrary: fc.constantFrom('a', 'bc', '\t', ',', 'N', ' ', 'é', '"x"', '"', "'", '\\N', '\\t'),
          },
          {
            weight: 3,
            arbitrary: fc.constantFrom('"\n"', '"\r"', '"\r\n"', "'\n'", '\\\n', '\\\r', '""', '\\"'),
          },
          { weight: 1, arbitrary: fc.constantFrom('\n', '\r', '\\', '\\.', '.') },
        ),
        { maxLength: 6 },
      ),
      { maxLength: 6 },
    ),
    fc.constantFrom('', '\\.', '\\', '\\.\n', '\\.\r\n', 'x'),
    fc.boolean(),
  )
  .map(
    ([style, rows, tail, isWhole]) =>
      rows.map((row) => row.join('') + style).join('') + tail + (isWhole ? style : ''),
  );

describe.each(FORMATS.map((format) => [JSON.stringify(format), format] as const))('%s', (_, format) => {
  test.each([false, true])(
    'rows are the same wherever the data are cut (marker ends CSV: %s)',
    (markerEnds) => {
      fc.assert(
        fc.property(data, fc.infiniteStream(fc.integer({ min: 1, max: 4 })), (text, cuts) => {
          const bytes = Buffer.from(text);
          const expected = readSlowly(bytes.toString('latin1'), format, markerEnds);
          expect(read([bytes], format, markerEnds)).toEqual(expected);
          for (let cut = 1; cut < bytes.length; cut++)
            expect(read([bytes.subarray(0, cut), bytes.subarray(cut)], format, markerEnds)).toEqual(expected);
          const pieces: Buffer[] = [];
          for (let at = 0; at < bytes.length; ) {
            const { value } = cuts.next() as { value: number };
            pieces.push(bytes.subarray(at, at + value));
            at += value;
          }
          expect(read(pieces, format, markerEnds)).toEqual(expected);
        }),
        { numRuns: 400 },
      );
    },
  );
});

test('a row that is put together from many pieces is looked at once', () => {
  const rows: number[] = [];
  const reader = new LineRows(
    formatOf(CSV),
    { onRow: ({ start, contentEnd }) => void rows.push(contentEnd - start), onHeader() {} },
    { markerEnds: false, rowBytesMax: 10_000_000 },
  );
  const piece = Buffer.from('x'.repeat(99).concat('\n'));
  reader.push(Buffer.from('a\n"'), 0, 3);
  for (let i = 0; i < 50_000; i++) reader.push(piece, 0, piece.length);
  reader.push(Buffer.from('"\nb'), 0, 3);
  reader.finish();
  expect(rows).toEqual([1, 5_000_002, 1]);
  expect(reader.line).toBe(50_003);
});

test('a row beyond the bound is refused before it is held', () => {
  const reader = new LineRows(
    formatOf(TEXT),
    { onRow() {}, onHeader() {} },
    { markerEnds: false, rowBytesMax: 1000 },
  );
  const push = () => reader.push(Buffer.alloc(600, 0x61), 0, 600);
  push();
  expect(push).toThrow('longer than 1000 bytes');
});

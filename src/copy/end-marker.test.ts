import { expect, test } from 'vitest';
import { guarded, looksLikeEnd } from './end-marker.ts';
import { type CopyOption, formatOf } from './format.ts';
import { CopyDataError, type RowView } from './line-rows.ts';

/** The row in memory that has other bytes around it. */
function rowOf(text: string): RowView {
  const content = text.replace(/[\r\n]+$/, '');
  const buffer = Buffer.from(`\\.${text}\n`);
  return {
    ...{ buffer, start: 2, contentEnd: 2 + content.length, end: 2 + text.length },
    ...{ line: 7, breaks: 0, returns: 0 },
  };
}

test.each<[string, boolean]>([
  ['\\.\n', true],
  ['\\.\r\n', true],
  ['\\.\r', true],
  ['\\.', true],
  ['\\.\nx\\\n', true],
  ['\\.x\n', false],
  ['\\\n', false],
  ['\\', false],
  ['a\\.\n', false],
  ['"\\."\n', false],
])('%j looks like the end: %s', (text, expected) => {
  expect(looksLikeEnd(rowOf(text))).toBe(expected);
});

const csv = (...options: CopyOption[]) => formatOf([{ name: 'format', value: 'csv' }, ...options]);

test('its value is put in quotes, its end of line stays', () => {
  for (const end of ['', '\n', '\r\n', '\r']) {
    const { buffer, start, contentEnd, end: rowEnd, line } = guarded(rowOf(`\\.${end}`), csv());
    expect(buffer.toString('latin1', start, contentEnd)).toBe('"\\."');
    expect(buffer.toString('latin1', contentEnd, rowEnd)).toBe(end);
    expect(line).toBe(7);
  }
  const { buffer } = guarded(rowOf('\\.\n'), csv({ name: 'quote', value: "'" }));
  expect(buffer.toString()).toBe("'\\.'\n");
});

test.each<[string, string]>([
  ['delimiter', '.'],
  ['delimiter', '\\'],
  ['quote', '\\'],
  ['quote', '.'],
  ['null', '\\.'],
  ['default', '\\.'],
])('with %s %j it is refused', (name, value) => {
  expect(() => guarded(rowOf('\\.\n'), csv({ name, value }))).toThrow(CopyDataError);
});

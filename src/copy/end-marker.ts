/**
 * A row of CSV data that begins as the line `\.` does: up to version 17 PostgreSQL takes such a line for the end of the data,
 * from 18 on for data (documentation: "COPY", CSV Format). Where a server of the one kind gets what another kind, or the place of
 * the row in the client's data, has made a row of, it would end there and the rows behind it were lost.
 *
 * Invariant: what guarded() gives means the same to all versions, or it throws.
 */
import type { CopyFormat } from './format.ts';
import { CopyDataError, type RowView } from './line-rows.ts';

/** The first version that takes it for data. */
export const MARKER_IS_DATA_SINCE = 18;

const BACKSLASH = 0x5c;
const DOT = 0x2e;
const NEWLINE = 0x0a;
const RETURN = 0x0d;
const MARKER = Buffer.from([BACKSLASH, DOT]);

/** Would a server up to version 17 end there? A row without an end of line is given one. */
export function looksLikeEnd({ buffer, start, end }: RowView): boolean {
  if (buffer[start] !== BACKSLASH || end < start + 2 || buffer[start + 1] !== DOT) return false;
  const behind = end === start + 2 ? NEWLINE : buffer[start + 2];
  return behind === NEWLINE || behind === RETURN;
}

/** The same row with its value in quotes. */
export function guarded(row: RowView, format: CopyFormat): RowView {
  const { buffer, start, contentEnd, end, line } = row;
  const { delimiter, quote, nullText, defaultText } = format;
  const isPlain = [BACKSLASH, DOT].every((byte) => byte !== delimiter && byte !== quote);
  const isValue = !nullText.equals(MARKER) && !defaultText?.equals(MARKER);
  if (!isPlain || !isValue || contentEnd !== start + MARKER.length) {
    throw new CopyDataError({
      message: 'a line "\\." is the end of the data to a node of PostgreSQL 17 or older, and a row to others',
      hint: 'Use text format, or other characters for DELIMITER, QUOTE, NULL and DEFAULT.',
      sqlState: '0A000',
      line,
    });
  }
  const quoteBytes = Buffer.from([quote]);
  const whole = Buffer.concat([quoteBytes, MARKER, quoteBytes, buffer.subarray(contentEnd, end)]);
  const length = MARKER.length + 2;
  return { buffer: whole, start: 0, contentEnd: length, end: whole.length, line, breaks: 0, returns: 0 };
}

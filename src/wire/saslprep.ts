/**
 * SASLprep (RFC 4013) of a password as PostgreSQL does it, deviations included, since both ends must hash the same bytes:
 * ASCII is taken as it is, control characters too; a password that the profile forbids is used unprepared, not refused;
 * and the checks look at the characters before normalization, not after it.
 */
import {
  type CodePointRanges,
  isInRanges,
  LEFT_TO_RIGHT,
  MAPPED_TO_NOTHING,
  PROHIBITED,
  RIGHT_TO_LEFT,
  SPACE,
  UNASSIGNED,
} from './stringprep-tables.ts';

const ASCII = /^[\0-\x7f]*$/;

export function saslprep(password: string): string {
  if (ASCII.test(password)) return password;
  const mapped = mapCodePoints(password);
  if (mapped.length === 0 || isForbidden(mapped)) return password;
  return mapped
    .map((codePoint) => String.fromCodePoint(codePoint))
    .join('')
    .normalize('NFKC');
}

function mapCodePoints(password: string): number[] {
  const mapped: number[] = [];
  for (const character of password) {
    const codePoint = character.codePointAt(0)!;
    // U+200B is in both tables, and a space first.
    if (isInRanges(SPACE, codePoint)) mapped.push(0x20);
    else if (!isInRanges(MAPPED_TO_NOTHING, codePoint)) mapped.push(codePoint);
  }
  return mapped;
}

function isForbidden(codePoints: readonly number[]): boolean {
  const has = (ranges: CodePointRanges) => codePoints.some((codePoint) => isInRanges(ranges, codePoint));
  if (has(PROHIBITED) || has(UNASSIGNED)) return true;
  if (!has(RIGHT_TO_LEFT)) return false;
  // RFC 3454, section 6: right-to-left text has nothing left-to-right in it, and begins and ends right-to-left.
  const [first, last] = [codePoints[0]!, codePoints.at(-1)!];
  return has(LEFT_TO_RIGHT) || !isInRanges(RIGHT_TO_LEFT, first) || !isInRanges(RIGHT_TO_LEFT, last);
}

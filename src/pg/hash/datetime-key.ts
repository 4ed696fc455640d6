/**
 * date, timestamp and timestamptz as keys: days or microseconds since 2000-01-01, hashed as int4 and int8. Their text
 * means what DateStyle, TimeZone and the clock make of it ('today', '01/02/2003', a time without an offset), so only the
 * ISO forms that mean the same under every setting are taken here; the server is asked about all others.
 *
 * Each function returns whether it is sure of the value; only then `out` is set.
 */
import { COLON, DOT, digitOf, digitsAt, MINUS, PLUS, SPACE } from './ascii.ts';
import { hashInt64 } from './integer-key.ts';
import { type Hash64, hashUint32 } from './lookup3.ts';

const DATE_CHARS = 10;
const SECONDS_CHARS = 19;
const FRACTION_DIGITS_MAX = 6;
const DAY_SECONDS = 86_400;
/** PostgreSQL's MAX_TZDISP_HOUR. */
const OFFSET_HOURS_MAX = 15;
const TWO_32 = 4294967296;
const TWO_26 = 2 ** 26;
const LETTER_T = 0x54;
const LETTER_Z = 0x5a;
/** No date that is taken comes near it. */
const NO_DAY = Number.NEGATIVE_INFINITY;

/** Days or microseconds since 2000-01-01, as readDateText and readTimestampText last read them. */
export const readTime = { days: 0, seconds: 0, microseconds: 0 };

/** YYYY-MM-DD. */
export function hashDateText(out: Hash64, bytes: Uint8Array, start: number, end: number): boolean {
  if (!readDateText(bytes, start, end)) return false;
  hashUint32(out, readTime.days);
  return true;
}

/** Sets `readTime.days`. */
export function readDateText(bytes: Uint8Array, start: number, end: number): boolean {
  if (end - start !== DATE_CHARS) return false;
  const days = daysAt(bytes, start);
  if (days === NO_DAY) return false;
  readTime.days = days;
  return true;
}

export function hashTimestampText(
  out: Hash64,
  bytes: Uint8Array,
  start: number,
  end: number,
  withTimeZone: boolean,
  precision: number,
): boolean {
  if (!readTimestampText(bytes, start, end, withTimeZone, precision)) return false;
  hashMicroseconds(out, readTime.seconds, readTime.microseconds);
  return true;
}

/**
 * YYYY-MM-DD HH:MM:SS[.ffffff], the space may be a T; a timestamptz must end in an offset (Z, ±HH, ±HHMM, ±HH:MM) and a
 * timestamp must not have one. `precision` is the column's, 0 to 6: a value that it would round is not taken. Sets
 * `readTime.seconds` and, to be added, `readTime.microseconds`.
 */
export function readTimestampText(
  bytes: Uint8Array,
  start: number,
  end: number,
  withTimeZone: boolean,
  precision: number,
): boolean {
  if (end - start < SECONDS_CHARS) return false;
  const days = daysAt(bytes, start);
  const separator = bytes[start + DATE_CHARS];
  if (days === NO_DAY || (separator !== SPACE && separator !== LETTER_T)) return false;
  if (bytes[start + 13] !== COLON || bytes[start + 16] !== COLON) return false;
  const hour = digitsAt(bytes, start + 11, 2);
  const minute = digitsAt(bytes, start + 14, 2);
  const second = digitsAt(bytes, start + 17, 2);
  if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59) return false;

  let at = start + SECONDS_CHARS;
  let microseconds = 0;
  if (at < end && bytes[at] === DOT) {
    at++;
    let unit = 1_000_000;
    for (let count = 0; at < end; at++, count++) {
      const digit = digitOf(bytes[at]!);
      if (digit < 0) break;
      if (count === FRACTION_DIGITS_MAX || (digit > 0 && count >= precision)) return false;
      unit /= 10;
      microseconds += digit * unit;
    }
    if (unit === 1_000_000) return false;
  }
  let seconds = days * DAY_SECONDS + hour * 3600 + minute * 60 + second;
  if (withTimeZone) {
    const offsetMinutes = offsetMinutesAt(bytes, at, end);
    if (Number.isNaN(offsetMinutes)) return false;
    seconds -= offsetMinutes * 60;
  } else if (at !== end) {
    return false;
  }
  readTime.seconds = seconds;
  readTime.microseconds = microseconds;
  return true;
}

/** Whether an int64 of microseconds keeps its value in a column of this precision (which would round it). */
export function fitsPrecision(buffer: Buffer, at: number, precision: number): boolean {
  const unit = 10 ** (FRACTION_DIGITS_MAX - precision);
  const high = ((buffer.readInt32BE(at) % unit) + unit) % unit;
  return (high * (TWO_32 % unit) + (buffer.readUInt32BE(at + 4) % unit)) % unit === 0;
}

/** seconds * 10^6 + microseconds as an int64; the product is past what a double holds, so it is made in two halves. */
function hashMicroseconds(out: Hash64, seconds: number, microseconds: number): void {
  // 10^6 is 64 * 15625, and years up to 9999 keep seconds * 15625 exact.
  const sixtyFourths = seconds * 15_625;
  const upper = Math.floor(sixtyFourths / TWO_26);
  const lower = (sixtyFourths - upper * TWO_26) * 64 + microseconds;
  hashInt64(out, lower >= TWO_32 ? upper + 1 : upper, lower >>> 0);
}

/** Days from 2000-01-01 to the YYYY-MM-DD at `at`, or NO_DAY where there is no such day of the years 1 to 9999. */
function daysAt(bytes: Uint8Array, at: number): number {
  if (bytes[at + 4] !== MINUS || bytes[at + 7] !== MINUS) return NO_DAY;
  const year = digitsAt(bytes, at, 4);
  const month = digitsAt(bytes, at + 5, 2);
  const day = digitsAt(bytes, at + 8, 2);
  if (year < 1 || month < 1 || month > 12 || day < 1 || day > daysInMonth(year, month)) return NO_DAY;
  // Years that begin in March have the leap day last, and their months a regular length: 153 days in every five.
  const marchYear = month > 2 ? year : year - 1;
  const marchMonth = month > 2 ? month - 3 : month + 9;
  const leapDays = Math.floor(marchYear / 4) - Math.floor(marchYear / 100) + Math.floor(marchYear / 400);
  const daysBefore2000 = 730_425;
  return marchYear * 365 + leapDays + Math.floor((marchMonth * 153 + 2) / 5) + day - 1 - daysBefore2000;
}

function daysInMonth(year: number, month: number): number {
  if (month === 2) return year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 29 : 28;
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31;
}

/** What bytes[at, end) says, east of UTC counted positive, or NaN where it is no offset. */
function offsetMinutesAt(bytes: Uint8Array, at: number, end: number): number {
  const length = end - at;
  if (length === 1 && bytes[at] === LETTER_Z) return 0;
  const sign = bytes[at];
  if (length < 3 || (sign !== PLUS && sign !== MINUS)) return Number.NaN;
  const hours = digitsAt(bytes, at + 1, 2);
  let minutes = 0;
  if (length === 5) minutes = digitsAt(bytes, at + 3, 2);
  else if (length === 6 && bytes[at + 3] === COLON) minutes = digitsAt(bytes, at + 4, 2);
  else if (length !== 3) return Number.NaN;
  if (hours < 0 || hours > OFFSET_HOURS_MAX || minutes < 0 || minutes > 59) return Number.NaN;
  const total = hours * 60 + minutes;
  return sign === MINUS ? -total : total;
}

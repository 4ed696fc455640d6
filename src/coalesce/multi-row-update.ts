/**
 * UPDATEs by key of one prepared statement as one: its values come from VALUES, and FROM joins them to the table.
 *
 *   UPDATE t SET n = n + $1 WHERE id = $2
 *   UPDATE t SET n = n + postern_rows.postern_1 FROM (VALUES ($1, $2, 0), ($3, $4, 1)) AS postern_rows(…)
 *    WHERE id = postern_rows.postern_2 RETURNING postern_rows.postern_at
 *
 * Only for statements of which plan/write-facts.ts says `updatesByKey`: then what one member changes decides neither which
 * rows another one finds, nor what it makes of them, unless both name the same key. Of those PostgreSQL would carry out
 * one; so they never stand in one statement as far as their bytes tell, and a member that has touched no row goes again by
 * itself, since another one that wrote the key in another way may have been before it.
 *
 * RETURNING says whose each row was. In VALUES a parameter has no type of its own, so the server is asked once which types
 * the statement's parameters have.
 */
import type { SharedStatement } from '../backend/prepared.ts';
import { BYTE, isPunctuation, keywordOf, nextToken } from '../sql/scanner.ts';

/** Wide statements have little to gain, and 64 of them would have very many parameters. */
const PARAMETERS_MAX = 32;
/** Judged by so many of the last members, one in this many may miss its row: it is carried out twice. */
const JUDGED_OVER = 1_024;
const MISSES_ONE_IN = 8;
/** PostgreSQL's OID of a type that it does not know. */
const OID_UNKNOWN = 705;
/** Of point, lseg, path, box, polygon, line, circle: `=` compares areas there, or nearly equal ones, so that it is no key. */
const GEOMETRIC_OIDS = new Set([600, 601, 602, 603, 604, 628, 718]);
/** A text with one of our names might find our columns instead of its own, or of none; an escape might hide one. */
const OUR_NAMES = /postern_|u&"/i;

export class MultiRowUpdate {
  /** The text with its parameters replaced, up to WHERE, and from there on. */
  readonly #head: string;
  readonly #condition: string;
  readonly parameterCount: number;
  readonly #oids: readonly number[];
  readonly #byRows = new Map<number, SharedStatement>();
  #sent = 0;
  #missed = 0;
  #isOff = false;

  private constructor(parts: { head: string; condition: string; oids: readonly number[] }) {
    this.#head = parts.head;
    this.#condition = parts.condition;
    this.#oids = parts.oids;
    this.parameterCount = parts.oids.length;
  }

  /** `oids`: the types of all parameters. False: the statement has no such form. */
  static of(text: string, oids: readonly number[]): MultiRowUpdate | false {
    if (oids.length === 0 || oids.length > PARAMETERS_MAX) return false;
    if (oids.some((oid) => oid === 0 || oid === OID_UNKNOWN || GEOMETRIC_OIDS.has(oid))) return false;
    if (OUR_NAMES.test(text)) return false;
    const parts = partsOf(text);
    return parts !== undefined && new MultiRowUpdate({ ...parts, oids });
  }

  /** Is it worth sending? Not where many members touch no row, nor where a server does not take it. */
  get pays(): boolean {
    return !this.#isOff;
  }

  /** A server refused its text, which it must not for a plain statement. */
  turnOff(): void {
    this.#isOff = true;
  }

  noteOutcome(rows: number, missed: number): void {
    this.#sent += rows;
    this.#missed += missed;
    if (this.#sent < JUDGED_OVER) return;
    if (this.#missed * MISSES_ONE_IN > this.#sent) this.#isOff = true;
    this.#sent /= 2;
    this.#missed /= 2;
  }

  statement(rows: number): SharedStatement {
    let statement = this.#byRows.get(rows);
    if (!statement) {
      const values: string[] = [];
      const oids: number[] = [];
      for (let row = 0; row < rows; row++) {
        const cells = this.#oids.map((_, i) => `$${row * this.parameterCount + i + 1}`);
        values.push(`(${cells.join(', ')}, ${row})`);
        oids.push(...this.#oids);
      }
      const columns = this.#oids.map((_, i) => `postern_${i + 1}`).join(', ');
      const text =
        `${this.#head} FROM (VALUES ${values.join(', ')}) AS postern_rows(${columns}, postern_at) ` +
        // A comment at the end of the text would hide what follows.
        `${this.#condition}\nRETURNING postern_rows.postern_at`;
      statement = { text, parameterOids: oids, validated: false };
      this.#byRows.set(rows, statement);
    }
    return statement;
  }
}

export function isUpdate(text: string): boolean {
  const bytes = Buffer.from(text.slice(0, 200));
  return keywordOf(bytes, nextToken(bytes, 0)) === 'update';
}

/** The text before WHERE and from it on, with `$n` as columns of VALUES; undefined: it has no WHERE of its own. */
function partsOf(text: string): { head: string; condition: string } | undefined {
  const bytes = Buffer.from(text);
  let depth = 0;
  let copied = 0;
  let written = '';
  let head: string | undefined;
  const copyTo = (at: number): void => {
    written += bytes.toString('utf8', copied, at);
    copied = at;
  };
  for (let token = nextToken(bytes, 0); token.kind !== 'end'; token = nextToken(bytes, token.end)) {
    if (isPunctuation(bytes, token, BYTE.openParen)) depth++;
    else if (isPunctuation(bytes, token, BYTE.closeParen)) depth--;
    else if (isPunctuation(bytes, token, SEMICOLON)) {
      copyTo(token.start);
      copied = bytes.length;
      break;
    } else if (token.kind === 'parameter') {
      copyTo(token.start);
      written += `postern_rows.postern_${bytes.toString('latin1', token.start + 1, token.end)}`;
      copied = token.end;
    } else if (depth === 0 && head === undefined && keywordOf(bytes, token) === 'where') {
      copyTo(token.start);
      head = written;
      written = '';
    }
  }
  copyTo(bytes.length);
  return head === undefined ? undefined : { head, condition: written };
}

const SEMICOLON = 0x3b;

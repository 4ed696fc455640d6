/**
 * Members of one prepared statement as one statement for all: PostgreSQL starts and ends one statement for all the rows then,
 * which is most of what a row costs in a batch. UPDATEs by key: multi-row-update.ts.
 *
 * Single-row INSERTs become one multi-row INSERT: `VALUES ($1, $2), ($3, $4), …`.
 * Only for rows of plain values (plan/write-facts.ts says so), without ON CONFLICT and RETURNING, so that each member's own
 * answer is `INSERT 0 1` and nothing else. An error doesn't tell whose row it was: the members then go again one by one.
 */
import type { SharedStatement } from '../backend/prepared.ts';
import { BYTE, closingParen, isPunctuation, keywordOf, nextToken } from '../sql/scanner.ts';
import { isUpdate, MultiRowUpdate } from './multi-row-update.ts';

/** Row counts that are prepared: few, so that they stay few on each backend; and so that mostly two make up a batch. */
const ROW_COUNTS = [64, 48, 40, 32, 28, 24, 20, 16, 14, 12, 10, 8, 7, 6, 5, 4, 3, 2] as const;

/** What the protocol can count. */
const BIND_PARAMETERS_MAX = 65_535;
/** A statement's text for all rows is kept for each number of rows, here and on each backend. */
const ROW_TEXT_BYTES_MAX = 4_096;

/** One parameter's place in the row's text, and which it is. */
interface Piece {
  readonly before: string;
  /** 0-based; −1 behind the last one. */
  readonly parameter: number;
}

class MultiRowInsert {
  readonly #head: string;
  readonly #row: readonly Piece[];
  readonly #tail: string;
  /** As the text has it: the first client to bind it may have got it wrong. */
  readonly parameterCount: number;
  readonly #oids: readonly number[];
  readonly #byRows = new Map<number, SharedStatement>();

  constructor(options: {
    text: string;
    /** Byte offsets of `(…)`. */
    rowStart: number;
    rowEnd: number;
    parameterOids: readonly number[];
  }) {
    const bytes = Buffer.from(options.text);
    this.#head = bytes.toString('utf8', 0, options.rowStart);
    this.#tail = bytes.toString('utf8', options.rowEnd);
    this.#oids = options.parameterOids;
    const pieces: Piece[] = [];
    let parameterCount = options.parameterOids.length;
    let copied = options.rowStart;
    for (let token = nextToken(bytes, options.rowStart); token.start < options.rowEnd; ) {
      if (token.kind === 'end') break;
      if (token.kind === 'parameter') {
        const number = Number(bytes.toString('latin1', token.start + 1, token.end));
        pieces.push({ before: bytes.toString('utf8', copied, token.start), parameter: number - 1 });
        parameterCount = Math.max(parameterCount, number);
        copied = token.end;
      }
      token = nextToken(bytes, token.end);
    }
    pieces.push({ before: bytes.toString('utf8', copied, options.rowEnd), parameter: -1 });
    this.#row = pieces;
    this.parameterCount = parameterCount;
  }

  statement(rows: number): SharedStatement {
    let statement = this.#byRows.get(rows);
    if (!statement) {
      const oids: number[] = [];
      const values: string[] = [];
      for (let row = 0; row < rows; row++) {
        for (let i = 0; i < this.parameterCount; i++) oids.push(this.#oids[i] ?? 0);
        values.push(this.#rowText(row * this.parameterCount));
      }
      const text = this.#head + values.join(', ') + this.#tail;
      statement = { text, parameterOids: oids, validated: false };
      this.#byRows.set(rows, statement);
    }
    return statement;
  }

  #rowText(offset: number): string {
    let text = '';
    for (const { before, parameter } of this.#row)
      text += parameter < 0 ? before : `${before}$${parameter + offset + 1}`;
    return text;
  }
}

/** The most rows, up to `count`, that one statement takes with so many parameters each; 1: none. */
export function rowsFor(count: number, parameterCount: number): number {
  for (const rows of ROW_COUNTS)
    if (rows <= count && rows * parameterCount <= BIND_PARAMETERS_MAX) return rows;
  return 1;
}

export type MultiRow = MultiRowInsert | MultiRowUpdate;

const known = new WeakMap<SharedStatement, MultiRow | false>();
/** Types of parameters, as a server has inferred them. */
const inferredOids = new WeakMap<SharedStatement, readonly number[]>();

/**
 * The form for several rows of a statement whose plan says `valuesOnly` or `updatesByKey`, made once per statement; false: it
 * has none after all. The text may be that of a leaf, with other offsets than the client's own: its row is found again.
 */
export function multiRowOf(statement: SharedStatement, parameterCount: number): MultiRow | false {
  const found = known.get(statement);
  if (found !== undefined) return found;
  if (needsTypes(statement, parameterCount)) return false;
  const made = isUpdate(statement.text)
    ? MultiRowUpdate.of(statement.text, inferredOids.get(statement) ?? statement.parameterOids)
    : insertOf(statement);
  known.set(statement, made);
  return made;
}

/** Has a server to say (noteTypes) which types the parameters have, before it is known whether there is such a form? */
export function needsTypes(statement: SharedStatement, parameterCount: number): boolean {
  if (known.has(statement) || inferredOids.has(statement) || !isUpdate(statement.text)) return false;
  const { parameterOids } = statement;
  return parameterOids.length !== parameterCount || parameterOids.includes(0);
}

export function noteTypes(statement: SharedStatement, oids: readonly number[]): void {
  inferredOids.set(statement, oids);
}

function insertOf({ text, parameterOids }: SharedStatement): MultiRowInsert | false {
  const range = rowOf(text);
  if (!range || range.rowEnd - range.rowStart > ROW_TEXT_BYTES_MAX) return false;
  return new MultiRowInsert({ text, ...range, parameterOids });
}

/** INSERT INTO name [AS alias] [(columns)] VALUES (row), and nothing behind it. */
function rowOf(text: string): { rowStart: number; rowEnd: number } | undefined {
  const bytes = Buffer.from(text);
  let at = 0;
  let words = 0;
  for (;;) {
    const token = nextToken(bytes, at);
    if (token.kind === 'end') return undefined;
    // INSERT INTO and the table's name come first; a table may be called "values".
    if (++words > 3 && keywordOf(bytes, token) === 'values') {
      const open = nextToken(bytes, token.end);
      if (!isPunctuation(bytes, open, BYTE.openParen)) return undefined;
      const rowEnd = closingParen(bytes, open.start) + 1;
      const rest = nextToken(bytes, rowEnd);
      const ends = rest.kind === 'end' || bytes.toString('utf8', rowEnd).trim() === ';';
      return ends ? { rowStart: open.start, rowEnd } : undefined;
    }
    at = isPunctuation(bytes, token, BYTE.openParen) ? closingParen(bytes, token.start) + 1 : token.end;
  }
}

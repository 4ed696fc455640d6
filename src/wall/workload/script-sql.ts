/**
 * Cuts a script into statements and meta commands: it knows where quotes, comments and parentheses end, as psql does, and
 * where `:name` may mean a variable. Line comments are dropped; everything else of a statement stays as it is written.
 */
import { invalidParameter } from '../../base/errors.ts';

/** Text as it is, or what may be a variable: whether there is one of that name is not known here. */
export type SqlPiece = string | { readonly variable: string; readonly quoting: Quoting };

/** 'whole': a text in single quotes that is nothing but the variable, whose quotes are in the pieces beside it. */
export type Quoting = 'none' | 'part' | 'whole';

export interface SqlStatement {
  /** Where it begins, from 1. */
  readonly line: number;
  /** Empty if there was nothing but blanks and comments. */
  readonly pieces: readonly SqlPiece[];
  readonly isCombined: boolean;
}

/** What is looked at in one step outside of quotes; a dollar quote's tag can't follow a letter or digit. */
const SPECIAL =
  /--[^\n]*|:+(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?|\/\*|'|"|\$(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$|[\w\u0080-\uffff]+(?:\$[\w\u0080-\uffff$]*)?|[();]|\\.?/gs;
const COMMENT_EDGE = /\/\*|\*\//g;
/** pgbench takes a single colon and a name that begins with no digit. */
const WHOLE = /^':[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*'$/;
const VARIABLE = /:+(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?/g;

export class SqlReader {
  private readonly text: string;
  private position = 0;
  private lineAt = 0;
  private lineThere = 1;

  constructor(text: string) {
    this.text = text;
  }

  get isAtEnd(): boolean {
    return this.position >= this.text.length;
  }

  get isAtMetaCommand(): boolean {
    return this.text[this.position] === '\\';
  }

  /** Of the next character, from 1. */
  get line(): number {
    for (; this.lineAt < this.position; this.lineAt++) if (this.text[this.lineAt] === '\n') this.lineThere++;
    return this.lineThere;
  }

  /** Up to `;`, which is taken, or to a backslash or the end, which are not. */
  statement(): SqlStatement {
    const blank = /\s*(?:--[^\n]*\s*)*/y;
    blank.lastIndex = this.position;
    blank.exec(this.text);
    this.position = blank.lastIndex;
    const line = this.line;
    const pieces: SqlPiece[] = [];
    let depth = 0;
    let isCombined = false;
    for (;;) {
      SPECIAL.lastIndex = this.position;
      const match = SPECIAL.exec(this.text);
      addText(pieces, this.text.slice(this.position, match?.index));
      this.position = match?.index ?? this.text.length;
      if (match === null) break;
      const [token] = match;
      if (token === ';' && depth === 0) {
        this.position++;
        break;
      }
      if (token === '\\;' || token === '\\:') {
        isCombined ||= token === '\\;';
        addText(pieces, token.slice(1));
        this.position += 2;
        continue;
      }
      if (token.startsWith('\\')) break;
      depth += token === '(' ? 1 : token === ')' ? -1 : 0;
      this.takeToken(pieces, token);
    }
    return { line, pieces: trimmed(pieces), isCombined };
  }

  /** The line after the backslash; a backslash at its end takes the next one in. */
  metaCommand(): string {
    const line = /\\((?:\\\r?\n|[^\n])*)/y;
    line.lastIndex = this.position;
    const [all, words] = line.exec(this.text)!;
    this.position += all.length;
    return words!.replace(/\\\r?\n/g, ' ');
  }

  private takeToken(pieces: SqlPiece[], token: string): void {
    const start = this.position;
    const after = start + token.length;
    if (token.startsWith('--')) {
      this.position = after;
    } else if (token === '/*') {
      this.position = this.commentEnd(after);
      addText(pieces, this.text.slice(start, this.position));
    } else if (token === "'" || token === '"') {
      this.position = this.quoteEnd(after, token, false);
      const text = this.text.slice(start, this.position);
      addPieces(pieces, text, WHOLE.test(text) ? 'whole' : 'part');
    } else if (token.endsWith('$') && token.startsWith('$')) {
      const end = this.text.indexOf(token, after);
      if (end < 0) throw invalidParameter(`a text that begins with ${token} does not end`);
      this.position = end + token.length;
      addPieces(pieces, this.text.slice(start, this.position), 'part');
    } else if (/^e$/i.test(token) && this.text[after] === "'") {
      this.position = this.quoteEnd(after + 1, "'", true);
      addPieces(pieces, this.text.slice(start, this.position), 'part');
    } else {
      this.position = after;
      if (token.startsWith(':')) addPieces(pieces, token, 'none');
      else addText(pieces, token);
    }
  }

  private commentEnd(from: number): number {
    let depth = 1;
    COMMENT_EDGE.lastIndex = from;
    while (depth > 0) {
      const edge = COMMENT_EDGE.exec(this.text);
      if (edge === null) throw invalidParameter('a comment that begins with /* does not end');
      depth += edge[0] === '/*' ? 1 : -1;
    }
    return COMMENT_EDGE.lastIndex;
  }

  private quoteEnd(from: number, quote: string, hasEscapes: boolean): number {
    for (let at = from; at < this.text.length; at++) {
      if (hasEscapes && this.text[at] === '\\') at++;
      else if (this.text[at] === quote) {
        if (this.text[at + 1] !== quote) return at + 1;
        at++;
      }
    }
    throw invalidParameter(`a text in ${quote === "'" ? 'single' : 'double'} quotes does not end`);
  }
}

function addText(pieces: SqlPiece[], text: string): void {
  const last = pieces.at(-1);
  if (typeof last === 'string') pieces[pieces.length - 1] = last + text;
  else if (text !== '') pieces.push(text);
}

function addPieces(pieces: SqlPiece[], text: string, quoting: Quoting): void {
  let taken = 0;
  for (const match of text.matchAll(VARIABLE)) {
    if (match[0].length < 2 || match[0][1] === ':') continue;
    addText(pieces, text.slice(taken, match.index));
    pieces.push({ variable: match[0].slice(1), quoting });
    taken = match.index + match[0].length;
  }
  addText(pieces, text.slice(taken));
}

/** Without blanks at the end; the beginning has none. */
function trimmed(pieces: SqlPiece[]): SqlPiece[] {
  const last = pieces.at(-1);
  if (typeof last !== 'string') return pieces;
  const kept = last.trimEnd();
  return kept === '' ? pieces.slice(0, -1) : [...pieces.slice(0, -1), kept];
}

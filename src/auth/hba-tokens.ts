/**
 * The lines of pg_hba.conf and pg_ident.conf: words between blanks, lists of words between commas, double quotes around what has
 * blanks or commas or would else mean something, comments from `#` on, and a backslash at the end of a line that goes on.
 */
import { invalidParameter, type PosternError } from '../base/errors.ts';

export interface Token {
  readonly text: string;
  /** It begins with a quote: it is a name, whatever it spells. */
  readonly quoted: boolean;
}

export interface TokenLine {
  readonly line: number;
  /** A field is a list of one or more. */
  readonly fields: readonly (readonly Token[])[];
}

/** For a place in a file. 22023, naming file and line. */
export function fault(where: { readonly file: string; readonly line: number }, what: string): PosternError {
  return invalidParameter(`${where.file}, line ${where.line}: ${what}`);
}

export function readTokens(text: string, file: string): TokenLine[] {
  const lines = text.split(/\r?\n/);
  const found: TokenLine[] = [];
  for (let at = 0; at < lines.length; at++) {
    const line = at + 1;
    let whole = lines[at]!;
    while (whole.endsWith('\\') && at + 1 < lines.length) whole = whole.slice(0, -1) + lines[++at]!;
    const fields = fieldsOf(whole, { file, line });
    if (fields.length > 0) found.push({ line, fields });
  }
  return found;
}

const WORD = /[ \t]*(?:#.*|,[ \t]*|(?:[^\s,"#]|"(?:[^"]|"")*")+)/y;

/** A comma joins what is on both sides of it, with or without blanks behind it. With blanks before it, PostgreSQL begins a new field. */
function fieldsOf(text: string, where: { file: string; line: number }): Token[][] {
  const fields: Token[][] = [];
  let joins = false;
  WORD.lastIndex = 0;
  while (/[^ \t]/.test(text.slice(WORD.lastIndex))) {
    const from = WORD.lastIndex;
    const match = WORD.exec(text);
    if (!match)
      throw fault(
        where,
        `a quote is not closed, or an odd character stands outside of quotes: ${text.slice(from).trim()}`,
      );
    const word = match[0].trim();
    if (word.startsWith('#')) break;
    if (word.startsWith(',')) {
      if (fields.length === 0 || joins || !match[0].startsWith(','))
        throw fault(where, 'nothing stands before a comma');
      joins = true;
      continue;
    }
    const token = { text: unquoted(word), quoted: word.startsWith('"') };
    if (joins) fields.at(-1)!.push(token);
    else fields.push([token]);
    joins = false;
  }
  if (joins) throw fault(where, 'nothing stands behind a comma');
  return fields;
}

function unquoted(word: string): string {
  return word.replaceAll(/"((?:[^"]|"")*)"/g, (_, inner: string) => inner.replaceAll('""', '"'));
}

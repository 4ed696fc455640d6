/**
 * A DDL statement as text that is edited: for the faces with fixed text, for leaves with names that each leaf fills in. What the tree
 * doesn't say (where a name is, where a clause ends) is read from the tokens.
 */
import type { ColumnRef, Node, RangeVar } from '@pgsql/types';
import { notSupported } from '../../base/errors.ts';
import { LEAF_SCHEMA, type ReferenceTable, type ShardedTable } from '../../catalog/map.ts';
import { quoteIdentifier, quoteQualified } from '../../pg/identifier.ts';
import { BYTE, endOfName, isPunctuation, keywordOf, nextToken, type Token } from '../../sql/scanner.ts';
import { columnNamesOf } from '../scope.ts';
import type { LeafTextPart } from './change.ts';

/** Byte offsets into the whole query string. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/** A replacement; `parts` empty: the text is taken out. */
export interface TextEdit extends Range {
  readonly parts: readonly LeafTextPart[];
}

export class StatementText {
  readonly #sql: Uint8Array;
  readonly start: number;
  readonly end: number;

  constructor({ sql, start, end }: { sql: Uint8Array; start: number; end: number }) {
    this.#sql = sql;
    this.start = start;
    this.end = end;
  }

  slice(start: number, end: number): string {
    return Buffer.from(this.#sql.buffer, this.#sql.byteOffset + start, end - start).toString('utf8');
  }

  get whole(): string {
    return this.slice(this.start, this.end);
  }

  /** A token that lies beyond the statement is its end. */
  token(at: number): Token {
    const token = nextToken(this.#sql, at);
    if (token.start < this.end) return token;
    return { kind: 'end', start: this.end, end: this.end };
  }

  keyword(token: Token): string {
    return keywordOf(this.#sql, token);
  }

  is(token: Token, byte: number): boolean {
    return isPunctuation(this.#sql, token, byte);
  }

  /** The token behind these keywords, which have to stand at `at`, one after the other; undefined: they don't. */
  after(at: number, ...keywords: readonly string[]): Token | undefined {
    let token = this.token(at);
    for (const keyword of keywords) {
      if (this.keyword(token) !== keyword) return undefined;
      token = this.token(token.end);
    }
    return token;
  }

  /** The token at `at`, or the one behind these keywords if they stand there. */
  skip(at: number, ...keywords: readonly string[]): Token {
    return this.after(at, ...keywords) ?? this.token(at);
  }

  /** Where the name of a relation in the text is, from its first part to its last. */
  nameOf(relation: RangeVar): Range {
    const start = relation.location ?? -1;
    const parts = (relation.catalogname ? 1 : 0) + (relation.schemaname ? 1 : 0) + 1;
    const end = start < 0 || this.#sql[start + 1] === 0x26 ? undefined : endOfName(this.#sql, start, parts);
    if (end === undefined) throw notPlain();
    return { start, end };
  }

  /** The statement's text, or a part of it, with edits put in. They have to be in order and apart. */
  edited(edits: readonly TextEdit[], range: Range = this): LeafTextPart[] {
    const parts: LeafTextPart[] = [];
    let at = range.start;
    for (const edit of [...edits].sort((a, b) => a.start - b.start || a.end - b.end)) {
      if (edit.start < at || edit.end > range.end) continue;
      parts.push(this.slice(at, edit.start), ...edit.parts);
      at = edit.end;
    }
    parts.push(this.slice(at, range.end));
    return joined(parts);
  }

  /** The same where no edit depends on a leaf. */
  editedText(edits: readonly TextEdit[], range: Range = this): string {
    return textOf(this.edited(edits, range));
  }

  /** Byte ranges between the commas that are in no parentheses or brackets. */
  commaSeparated(start: number, end: number): Range[] {
    const ranges: Range[] = [];
    let from = start;
    let depth = 0;
    let at = start;
    let lastEnd = start;
    for (;;) {
      const token = this.token(at);
      if (token.kind === 'end' || token.start >= end) break;
      if (this.is(token, BYTE.openParen) || this.is(token, OPEN_BRACKET)) depth++;
      else if (this.is(token, BYTE.closeParen) || this.is(token, CLOSE_BRACKET)) depth--;
      else if (depth === 0 && this.is(token, BYTE.comma)) {
        ranges.push({ start: from, end: lastEnd });
        from = this.token(token.end).start;
      }
      lastEnd = token.end;
      at = token.end;
    }
    ranges.push({ start: from, end: lastEnd });
    return ranges;
  }

  /** Column references that name the table, which has another name on the leaf: `events.a`, `public.events.a`. */
  columnEdits(tree: unknown, table: ShardedTable): TextEdit[] {
    const edits: TextEdit[] = [];
    for (const reference of columnReferences(tree)) {
      const names = columnNamesOf(reference);
      if (!names || names.length < 2 || names.at(-2) !== table.name) continue;
      if (names.length === 3 && names[0] !== table.schema) continue;
      const start = reference.location ?? -1;
      if (start < 0 || this.#sql[start + 1] === 0x26) throw notPlain();
      const end = endOfName(this.#sql, start, names.length - 1);
      if (end === undefined) throw notPlain();
      edits.push({ start, end, parts: [{ kind: 'leafObject', table, name: table.name }] });
    }
    return edits;
  }
}

const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/** Neighbouring strings become one. */
export function joined(parts: readonly LeafTextPart[]): LeafTextPart[] {
  const out: LeafTextPart[] = [];
  for (const part of parts) {
    const last = out.at(-1);
    if (typeof part === 'string' && typeof last === 'string') out[out.length - 1] = last + part;
    else if (part !== '') out.push(part);
  }
  return out;
}

function textOf(parts: readonly LeafTextPart[]): string {
  return parts
    .map((part) => {
      if (typeof part !== 'string') throw new Error('a text for all nodes names no leaf');
      return part;
    })
    .join('');
}

export function leafOf(table: ShardedTable): LeafTextPart {
  return { kind: 'leaf', table, alias: undefined };
}

export function onLeaf(table: ShardedTable, name: string): LeafTextPart {
  return { kind: 'leafObject', table, name };
}

/** An index, or statistics, of a leaf, with the schema that it is in. */
export function qualifiedOnLeaf(table: ShardedTable, name: string): LeafTextPart[] {
  return [`${quoteIdentifier(LEAF_SCHEMA)}.`, onLeaf(table, name)];
}

export function quotedName(table: ShardedTable | ReferenceTable): string {
  return quoteQualified(table.schema, table.name);
}

function columnReferences(tree: unknown): ColumnRef[] {
  if (typeof tree !== 'object' || tree === null) return [];
  if (Array.isArray(tree)) return tree.flatMap(columnReferences);
  return Object.entries(tree).flatMap(([key, value]) =>
    key === 'ColumnRef' ? [value as ColumnRef] : columnReferences(value),
  );
}

/** Names of the columns that an expression reads, each once, in order; of `a.b` it is `b`. */
export function columnsReadBy(tree: unknown): string[] {
  const names = columnReferences(tree).map((reference) => columnNamesOf(reference)?.at(-1) ?? '*');
  return [...new Set(names)];
}

export function rangeVarsOf(nodes: readonly Node[] | undefined): RangeVar[] {
  return (nodes ?? []).flatMap((node) => ('RangeVar' in node ? [node.RangeVar] : []));
}

export function notPlain() {
  return notSupported(
    'this spelling of a name is not understood',
    'Write the name in plain quotes, without Unicode escapes.',
  );
}

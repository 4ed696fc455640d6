/**
 * Text to parse tree, with PostgreSQL's own grammar (libpg-query, WASM). Loaded once, then synchronous. Offsets in a tree
 * are UTF-8 byte offsets into the whole query string, whatever the text holds.
 *
 * The compiled module is used directly rather than through the package's wrapper, because an instance must be thrown away
 * when a deeply nested text overflows its stack: the overflow leaves the instance's own stack pointer where it was, and
 * some thirty of them in a row (tried) leave a parser that traps on every text, or worse.
 *
 * Invariant: an instance that threw anything but a syntax error never parses again. A text long enough to overflow the stack
 * is parsed only while a spare instance stands ready, so that short statements never find the parser gone.
 */
import type { Node } from '@pgsql/types';
import instantiate, { type PgQueryInstance } from 'libpg-query/wasm/libpg-query.js';
import { assert } from '../base/assert.ts';
import { BOUNDS } from '../base/bounds.ts';

export interface ParsedStatement {
  /** UTF-8 byte range in the query string, without the semicolon. */
  readonly start: number;
  readonly end: number;
  readonly node: Node;
}

export type ParseOutcome =
  | { readonly kind: 'parsed'; readonly statements: readonly ParsedStatement[] }
  | { readonly kind: 'syntaxError' }
  /** Too long or too deep for the router; a server might take it. */
  | { readonly kind: 'tooComplex'; readonly reason: string };

/** No text below this can nest deep enough to overflow the stack (the shortest that did, of every shape tried, had 14 KB). */
const STACK_SAFE_BYTES = 6 * 1024;

let current: PgQueryInstance | undefined;
let spare: PgQueryInstance | undefined;
let loading: Promise<void> | undefined;

/** Must have resolved before the first parseSql. */
export async function loadParser(): Promise<void> {
  while (!current || !spare) await loadOne();
}

/** Also whether the parser has its spare: false only for the milliseconds after an instance was thrown away. */
export function parserIsLoaded(): boolean {
  return current !== undefined && spare !== undefined;
}

function loadOne(): Promise<void> {
  loading ??= instantiate().then((instance) => {
    loading = undefined;
    if (!current) current = instance;
    else spare = instance;
  });
  return loading;
}

function retireCurrent(): void {
  current = spare;
  spare = undefined;
  // A failed load leaves no spare: long texts are then refused, and the next retirement tries again.
  loadOne().catch(() => {
    loading = undefined;
  });
}

export function parseSql(text: string): ParseOutcome {
  assert(current, 'the SQL parser is used before it is loaded');
  // C strings end at a NUL. None can arrive through the protocol, and what follows one must not go unread.
  if (text.includes('\0')) return { kind: 'syntaxError' };
  const bytes = Buffer.byteLength(text);
  if (bytes > BOUNDS.parsedTextBytesMax) {
    return { kind: 'tooComplex', reason: `it is longer than ${BOUNDS.parsedTextBytesMax} bytes` };
  }
  if (bytes > STACK_SAFE_BYTES && !spare) {
    return {
      kind: 'tooComplex',
      reason: 'the parser is being loaded again after one that was too deeply nested',
    };
  }
  let tree: string | undefined;
  try {
    tree = parseWith(current, text, bytes);
  } catch {
    retireCurrent();
    return { kind: 'tooComplex', reason: 'it is too deeply nested' };
  }
  if (spare && current.HEAPU8.length > BOUNDS.parserMemoryBytesMax) retireCurrent();
  if (tree === undefined) return { kind: 'syntaxError' };
  return { kind: 'parsed', statements: statementsOf(JSON.parse(tree) as RawTree, bytes) };
}

interface RawTree {
  readonly stmts?: readonly { stmt?: Node; stmt_location?: number; stmt_len?: number }[];
}

function statementsOf(tree: RawTree, bytes: number): ParsedStatement[] {
  const statements: ParsedStatement[] = [];
  for (const raw of tree.stmts ?? []) {
    if (!raw.stmt) continue;
    const start = raw.stmt_location ?? 0;
    statements.push({ start, end: raw.stmt_len ? start + raw.stmt_len : bytes, node: raw.stmt });
  }
  return statements;
}

/** The tree as JSON; undefined for a syntax error; throws what the instance throws when it breaks. */
function parseWith(instance: PgQueryInstance, text: string, bytes: number): string | undefined {
  const input = instance._malloc(bytes + 1);
  assert(input !== 0, 'the SQL parser is out of memory');
  instance.stringToUTF8(text, input, bytes + 1);
  const result = instance._wasm_parse_query_raw(input);
  assert(result !== 0, 'the SQL parser is out of memory');
  // struct { char *parse_tree; char *stderr_buffer; PgQueryError *error; }
  const tree = instance.getValue(result, 'i32');
  const error = instance.getValue(result + 8, 'i32');
  const json = error || !tree ? undefined : instance.UTF8ToString(tree);
  instance._free(input);
  instance._wasm_free_parse_result(result);
  return json;
}

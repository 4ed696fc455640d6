/**
 * The text that goes to a node: the client's own, with the plan's edits put in for one bucket per statement; and the way
 * back for error positions. What lies between the edits is cut once per plan, so that a text is one join.
 */
import { assert, unreachable } from '../base/assert.ts';
import { LEAF_SCHEMA, leafName, type ShardedTable } from '../catalog/map.ts';
import { quoteIdentifier, quoteQualified } from '../pg/identifier.ts';
import type { EditReplacement, QueryPlan } from './plan.ts';

/** What one statement of the query is bound to. */
export interface StatementBinding {
  /** Not read unless the statement is keyed. */
  readonly bucket: number;
  /** One per SuppliedId of the statement; read for literals only. */
  readonly ids: readonly (number | string)[];
}

export interface RewrittenText {
  readonly text: string;
  /** From a 1-based character position in `text` to one in the client's text, as in field P of ErrorResponse. */
  readonly mapPosition: (position: number) => number;
}

/** Literals for the simple protocol; parameters after the client's own for the extended. */
export type IdStyle = 'literal' | 'parameter';

interface Piece {
  /** The client's text before the edit. */
  readonly before: string;
  /** What the edit replaces. */
  readonly replaced: string;
  readonly replacement: EditReplacement;
  readonly statementIndex: number;
  /** $n of the statement's first supplied id. */
  readonly firstIdParameter: number;
}

interface Pieces {
  readonly pieces: readonly Piece[];
  readonly rest: string;
}

const piecesOfPlan = new WeakMap<QueryPlan, Pieces>();

export function rewriteQuery(
  plan: QueryPlan,
  bindings: readonly StatementBinding[],
  idStyle: IdStyle,
): RewrittenText {
  let cut = piecesOfPlan.get(plan);
  if (!cut) {
    cut = cutText(plan);
    piecesOfPlan.set(plan, cut);
  }
  const { pieces, rest } = cut;
  if (pieces.length === 0) return { text: plan.text, mapPosition: (position) => position };
  const parts: string[] = [];
  for (const piece of pieces) parts.push(piece.before, replacementText(piece, bindings, idStyle));
  parts.push(rest);
  return { text: parts.join(''), mapPosition: (position) => mapPosition(pieces, parts, position) };
}

/**
 * From a position in a text without leaves to one in the client's, if the two differ: catalogs are put in as users should see
 * them, and what only the router understands is left out.
 */
export function positionsWithoutLeaves(plan: QueryPlan): ((position: number) => number) | undefined {
  if (!plan.statements.some(({ edits }) => edits.length > 0)) return undefined;
  return (position) => rewriteQuery(plan, [], 'literal').mapPosition(position);
}

function cutText(plan: QueryPlan): Pieces {
  const slice = byteSlicer(plan.text);
  const pieces: Piece[] = [];
  let at = 0;
  for (const [statementIndex, statement] of plan.statements.entries()) {
    for (const edit of statement.edits) {
      assert(edit.start >= at && edit.end >= edit.start, 'edits are in order and apart');
      pieces.push({
        before: slice(at, edit.start),
        replaced: slice(edit.start, edit.end),
        replacement: edit.replacement,
        statementIndex,
        firstIdParameter: statement.parameterCount + 1,
      });
      at = edit.end;
    }
  }
  return { pieces, rest: slice(at, undefined) };
}

/** Slices by UTF-8 byte offsets, which are string offsets when all is ASCII. */
function byteSlicer(text: string): (start: number, end: number | undefined) => string {
  if (Buffer.byteLength(text) === text.length) return (start, end) => text.slice(start, end);
  const bytes = Buffer.from(text);
  return (start, end) => bytes.toString('utf8', start, end ?? bytes.length);
}

function replacementText(piece: Piece, bindings: readonly StatementBinding[], idStyle: IdStyle): string {
  const { replacement } = piece;
  if (replacement.kind === 'id' && idStyle === 'parameter')
    return `$${piece.firstIdParameter + replacement.idIndex}`;
  return textOfReplacement(replacement, bindings[piece.statementIndex]);
}

/** What is put in for one bucket; ids as literals. */
export function textOfReplacement(
  replacement: EditReplacement,
  binding: StatementBinding | undefined,
): string {
  switch (replacement.kind) {
    case 'text':
      return replacement.text;
    case 'leaf': {
      const leaf = quoteQualified(
        LEAF_SCHEMA,
        nameOnLeaf(replacement.table, replacement.table.name, binding),
      );
      return replacement.alias === undefined ? leaf : `${leaf} AS ${quoteIdentifier(replacement.alias)}`;
    }
    case 'leafObject':
      return quoteIdentifier(nameOnLeaf(replacement.table, replacement.name, binding));
    case 'id': {
      const id = binding?.ids[replacement.idIndex];
      assert(id !== undefined && /^-?\d+$/.test(String(id)), 'every supplied id has its value');
      return String(id);
    }
    default:
      return unreachable(replacement);
  }
}

function nameOnLeaf(table: ShardedTable, name: string, binding: StatementBinding | undefined): string {
  const place = binding && table.buckets[binding.bucket];
  assert(binding && place, 'a keyed statement is bound to a bucket of its table');
  return leafName(name, binding.bucket, place.generation);
}

/** Characters are Unicode code points, as PostgreSQL counts them. */
function mapPosition(pieces: readonly Piece[], parts: readonly string[], position: number): number {
  let rewritten = 0;
  let original = 0;
  for (const [index, piece] of pieces.entries()) {
    const before = codePoints(piece.before);
    if (position <= rewritten + before) return original + position - rewritten;
    rewritten += before;
    original += before;
    const inserted = codePoints(parts[2 * index + 1] ?? '');
    // Anything in a replacement is said of what it replaces.
    if (position <= rewritten + inserted) return original + 1;
    rewritten += inserted;
    original += codePoints(piece.replaced);
  }
  return original + position - rewritten;
}

function codePoints(text: string): number {
  let count = 0;
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    // The second half of a surrogate pair is not a character of its own.
    if (unit < 0xdc00 || unit > 0xdfff) count++;
  }
  return count;
}

/**
 * An UPDATE that sets the shard key, taken apart: the rows are deleted where they are, and the DELETE gives them as they are
 * to be; then they are inserted where they belong, in the same transaction. The parts of the UPDATE's text are found by its
 * keywords outside of parentheses and brackets, all of which are reserved words.
 */
import type { Node, UpdateStmt } from '@pgsql/types';
import type { ShardedTable } from '../catalog/map.ts';
import { BYTE, isPunctuation, keywordOf, nextToken } from '../sql/scanner.ts';
import type { KeyScope } from './key-limits.ts';
import type { Edit } from './plan.ts';
import { notUnderstood } from './refusal.ts';
import type { ScatterMove } from './scatter.ts';
import { cutText, type TextPart, textPart } from './scatter-text.ts';
import { columnNamesOf, type Slot } from './scope.ts';

interface MoveRequest {
  readonly sql: Uint8Array;
  readonly end: number;
  readonly edits: readonly Edit[];
}

interface MoveWrite {
  readonly slot: Slot;
  readonly update: UpdateStmt;
  readonly nameEnd: number;
}

/** Byte ranges of the clauses, without their keywords; RETURNING with it. */
interface Clauses {
  readonly assignments: readonly { readonly start: number; readonly end: number }[];
  readonly from: { readonly start: number; readonly end: number } | undefined;
  readonly where: { readonly start: number; readonly end: number } | undefined;
  readonly returning: number;
}

export function planMove(
  { sql, end, edits }: MoveRequest,
  { slot, update, nameEnd }: MoveWrite,
  keys: KeyScope,
): ScatterMove {
  const { table } = slot;
  refuse(update, table);
  const clauses = clausesOf(sql, nameEnd, end);
  const targets = update.targetList ?? [];
  const assigned = new Map<string, readonly TextPart[] | undefined>();
  const untyped = new Set<string>();
  for (const [index, node] of targets.entries()) {
    const range = clauses.assignments[index];
    if (!('ResTarget' in node) || !range || clauses.assignments.length !== targets.length)
      throw notUnderstood('this UPDATE of the shard key', table, 'DELETE the rows and INSERT them.');
    const { name = '', val } = node.ResTarget;
    if (val && 'SetToDefault' in val) {
      assigned.set(name, undefined);
      continue;
    }
    assigned.set(name, cutText(sql, range.start, range.end, edits));
    if (val && isUntyped(val)) untyped.add(name);
  }
  const { from, where, returning } = clauses;
  const alias = slot.visibleName;
  const source: TextPart[] = [
    textPart('DELETE FROM '),
    { kind: 'edit', replacement: { kind: 'leaf', table, alias }, at: update.relation?.location ?? -1 },
  ];
  if (from) source.push(textPart('\nUSING '), ...cutText(sql, from.start, from.end, edits));
  if (where) source.push(textPart('\nWHERE '), ...cutText(sql, where.start, where.end, edits));
  const tail = cutText(sql, returning, end, edits);
  return {
    ...{ kind: 'move', keys, source, alias, assigned, untyped },
    target: { table, alias, atOnce: false, tail },
  };
}

function refuse(update: UpdateStmt, table: ShardedTable): void {
  const hint = 'DELETE the rows and INSERT them, in a transaction.';
  if (table.cascades) {
    const why =
      'A foreign key would take the rows that reference it along: INSERT the new rows, move those, and DELETE the old ones.';
    throw notUnderstood('an UPDATE of the shard key', table, why);
  }
  if (update.withClause) throw notUnderstood('WITH in an UPDATE that sets the shard key', table, hint);
  if (update.fromClause && update.returningClause)
    throw notUnderstood('FROM together with RETURNING in an UPDATE that sets the shard key', table, hint);
  const { options, exprs = [] } = update.returningClause ?? {};
  if (options || exprs.some(mentionsOld))
    throw notUnderstood('RETURNING old.… in an UPDATE that sets the shard key', table, hint);
  for (const node of update.targetList ?? []) {
    if (!('ResTarget' in node)) continue;
    const { indirection, val } = node.ResTarget;
    if (indirection || (val && 'MultiAssignRef' in val))
      throw notUnderstood(
        'this form of SET together with the shard key',
        table,
        'SET each column by itself.',
      );
  }
}

function mentionsOld(tree: object): boolean {
  for (const [key, value] of Object.entries(tree)) {
    if (typeof value !== 'object' || value === null) continue;
    if (key === 'ColumnRef') {
      if (columnNamesOf(value)?.[0] === 'old') return true;
    } else if (mentionsOld(value)) return true;
  }
  return false;
}

function isUntyped(node: Node): boolean {
  if ('ParamRef' in node) return true;
  return 'A_Const' in node && (node.A_Const.isnull === true || node.A_Const.sval !== undefined);
}

/** What stands behind SET: up to the end, with brackets and parentheses passed over. */
function clausesOf(sql: Uint8Array, nameEnd: number, end: number): Clauses {
  const assignments: { start: number; end: number }[] = [];
  let clause: 'name' | 'column' | 'value' | 'from' | 'where' = 'name';
  let start = nameEnd;
  let from: Clauses['from'];
  let where: Clauses['where'];
  let depth = 0;
  let previous = '';
  const close = (at: number) => {
    if (clause === 'value') assignments.push({ start, end: at });
    else if (clause === 'from') from = { start, end: at };
    else if (clause === 'where') where = { start, end: at };
  };
  for (let token = nextToken(sql, nameEnd); ; token = nextToken(sql, token.end)) {
    const isEnd = token.kind === 'end' || token.start >= end;
    if (isEnd) {
      close(end);
      return { assignments, from, where, returning: end };
    }
    const keyword = keywordOf(sql, token);
    if (token.kind === 'punctuation') {
      const byte = sql[token.start];
      if (byte === BYTE.openParen || byte === OPEN_BRACKET) depth++;
      else if (byte === BYTE.closeParen || byte === CLOSE_BRACKET) depth--;
    }
    if (depth > 0) {
      previous = '';
      continue;
    }
    if (clause === 'name' && keyword === 'set') clause = 'column';
    else if (clause === 'column' && sql[token.start] === EQUALS && token.kind === 'punctuation') {
      clause = 'value';
      start = token.end;
    } else if (clause === 'value' && isPunctuation(sql, token, BYTE.comma)) {
      close(token.start);
      clause = 'column';
    } else if (keyword === 'returning') {
      close(token.start);
      return { assignments, from, where, returning: token.start };
    } else if (keyword === 'where' && clause !== 'where') {
      close(token.start);
      clause = 'where';
      start = token.end;
    } else if (keyword === 'from' && clause === 'value' && previous !== 'distinct') {
      close(token.start);
      clause = 'from';
      start = token.end;
    }
    previous = keyword;
  }
}

const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const EQUALS = 0x3d;

/**
 * Writes over several buckets: whether INSERT, UPDATE and DELETE may be carried out bucket by bucket, and how.
 *
 * Why it is right: each row of the statement's effect belongs to one row of its root (the target of UPDATE and DELETE; the
 * table whose shard key becomes the new row's, of INSERT … SELECT), and every other use of a sharded table is bound to the
 * root's key by an equality, so that what the statement does to the rows of a bucket depends on that bucket's leaves alone.
 * What looks at all rows at once (LIMIT, window functions, subqueries that are not bound to the root) is refused.
 */
import type { DeleteStmt, InsertStmt, Node, SelectStmt, UpdateStmt, WithClause } from '@pgsql/types';
import type { PosternError } from '../base/errors.ts';
import { type StatementFacts, stringsOf } from '../sql/facts.ts';
import { BYTE, isPunctuation, keywordOf, nextToken } from '../sql/scanner.ts';
import { afterColumns } from './insert.ts';
import type { InsertSelect } from './insert-select.ts';
import { keyScopeOf } from './key-limits.ts';
import type { NewKey } from './key-update.ts';
import type { Edit } from './plan.ts';
import { notColocated, notLinked, notUnderstood } from './refusal.ts';
import type { RowOfValues, Scatter, ScatterRows } from './scatter.ts';
import { planMove } from './scatter-move.ts';
import { characterAt, cutText } from './scatter-text.ts';
import { keyReferenceOf, type Scope, type Slot } from './scope.ts';

/** The statement itself, if it writes a sharded table. */
export type TopWrite = { readonly slot: Slot } & (
  | {
      readonly kind: 'insertRows';
      readonly insert: InsertStmt;
      readonly rows: readonly RowOfValues[];
      readonly isNotKeyed?: undefined;
      readonly newKeys?: undefined;
    }
  | ({
      readonly kind: 'insertSelect';
      readonly insert: InsertStmt;
      readonly select: SelectStmt;
      /** Where the target's name ends in the text. */
      readonly nameEnd: number;
      readonly scope: Scope;
      /** Uses of the query's FROM that no outer join can turn into NULLs. */
      readonly preserved: readonly Slot[];
      readonly newKeys?: undefined;
    } & InsertSelect)
  | ({ readonly kind: 'update'; readonly update: UpdateStmt; readonly nameEnd: number } & NewKey)
  | {
      readonly kind: 'delete';
      readonly statement: DeleteStmt;
      readonly isNotKeyed?: undefined;
      readonly newKeys?: undefined;
    }
);

export interface ScatterRequest {
  readonly write: TopWrite;
  readonly facts: StatementFacts;
  /** In the order of the text. */
  readonly edits: readonly Edit[];
  /** All uses of sharded tables. */
  readonly slots: readonly Slot[];
  readonly usesHome: boolean;
  readonly sql: Uint8Array;
  readonly start: number;
  readonly end: number;
  /** Why it can't go to one bucket; undefined: it can, unless its keys turn out to be of several. */
  readonly refusal: PosternError | undefined;
}

/** They tell one row of a table from another, but not one of a leaf from one of another leaf. */
const SYSTEM_COLUMNS = new Set(['ctid', 'tableoid', 'xmin', 'xmax', 'cmin', 'cmax']);

/** undefined: not in any way known here. Throws the refusal where there is more to say. */
export function planScatterWrite(request: ScatterRequest): Scatter | undefined {
  const { write, refusal } = request;
  try {
    refuseWhatDiffers(request);
    switch (write.kind) {
      case 'insertRows':
        return rowsOf(request, write.rows);
      case 'insertSelect':
        return planInsertSelect(request, write);
      case 'update':
      case 'delete':
        return planInPlace(request, write);
    }
  } catch (error) {
    // As long as its keys are of one bucket, it is not refused.
    if (refusal) throw error;
    return undefined;
  }
}

/** Does each use of `slots` depend on the root's key alone? */
function firstUnlinked(slots: readonly Slot[], root: Slot): Slot | undefined {
  return slots.find((slot) => slot !== root && !reaches(slot, root));
}

function reaches(from: Slot, root: Slot): boolean {
  const seen = new Set<Slot>([from]);
  for (const current of seen) {
    if (current === root) return true;
    for (const next of current.equalTo) seen.add(next);
  }
  return false;
}

function planInPlace(
  request: ScatterRequest,
  write: Extract<TopWrite, { kind: 'update' | 'delete' }>,
): Scatter | undefined {
  const { slots, usesHome } = request;
  const { slot } = write;
  if (usesHome) return undefined;
  // Equal keys are in one bucket of colocated tables only.
  const elsewhere = slots.find(({ table }) => table.colocationId !== slot.table.colocationId);
  if (elsewhere) throw notColocated(slot.table, elsewhere.table);
  const unlinked = firstUnlinked(slots, slot);
  if (unlinked) throw notLinked(slot.table, unlinked.table, unlinked.keyName);
  const keys = keyScopeOf(slot);
  if (write.kind === 'update' && write.setsKey) return planMove(request, write, keys);
  return { kind: 'leaves', keys };
}

function rowsOf(request: ScatterRequest, rows: readonly RowOfValues[]): ScatterRows | undefined {
  const { sql, start, end, edits, slots, usesHome } = request;
  const [first] = rows;
  const last = rows.at(-1);
  if (!first || !last || usesHome || slots.length > 1) return undefined;
  return {
    kind: 'rows',
    head: cutText(sql, start, first.start, edits),
    rows: rows.map((row) => ({ key: row.key, parts: cutText(sql, row.start, row.end, edits) })),
    tail: cutText(sql, last.end, end, edits),
  };
}

type WriteOfSelect = Extract<TopWrite, { kind: 'insertSelect' }>;

function planInsertSelect(request: ScatterRequest, write: WriteOfSelect): Scatter | undefined {
  const { keySlot } = write;
  if (keySlot && staysInBucket(request, write, keySlot)) return { kind: 'leaves', keys: keyScopeOf(keySlot) };
  // All keys are of one bucket, or the statement is refused.
  if (!request.refusal) return undefined;
  return planCopy(request, write);
}

/** Is the query on one bucket's leaves the query's rows of that bucket? */
function staysInBucket(request: ScatterRequest, write: WriteOfSelect, keySlot: Slot): boolean {
  const { slots, usesHome, facts } = request;
  const { select, preserved, scope, slot } = write;
  if (usesHome || slots.some(({ table }) => table.colocationId !== slot.table.colocationId)) return false;
  if (!preserved.includes(keySlot) || firstUnlinked(slots, keySlot)) return false;
  if (select.limitCount || select.limitOffset || select.larg || facts.kinds.has('GroupingSet')) return false;
  if (facts.functionCalls.some((call) => call.over) || select.windowClause) return false;
  // DISTINCT alone is [{}]; the key is among what it compares.
  if (select.distinctClause?.some((node) => Object.keys(node).length > 0)) return false;
  if (!select.groupClause) return true;
  return select.groupClause.some((node) => {
    const reference = keyReferenceOf(node, scope);
    return reference !== undefined && !reference.merged && reference.slots[0] === keySlot;
  });
}

/** The rows are read and inserted. */
function planCopy(request: ScatterRequest, write: WriteOfSelect): Scatter {
  const { sql, start, edits } = request;
  const { insert, slot, nameEnd } = write;
  const { table } = slot;
  const bytes = Buffer.from(sql.buffer, sql.byteOffset, sql.length);
  const from = startOfQuery(request, afterColumns({ statement: insert, sql, nameEnd }), table);
  const to = endOfQuery(request, insert, from);
  let sourceText = bytes.toString('utf8', from, to);
  let sourceAt: number | undefined = characterAt(bytes.toString('utf8'), from) - 1;
  if (insert.withClause) {
    if (write.select.withClause)
      throw notUnderstood('INSERT … SELECT with two WITH clauses', table, 'Put all of WITH into the query.');
    sourceText = `${bytes.toString('utf8', start, insertKeyword(request))}\n${sourceText}`;
    sourceAt = undefined;
  }
  const tail = cutText(sql, to, request.end, edits);
  if (tail.some((part) => part.kind === 'edit' && part.replacement.kind === 'leaf'))
    throw notUnderstood(
      'a subquery in ON CONFLICT or RETURNING',
      table,
      'Send it as a statement of its own.',
    );
  return {
    ...{ kind: 'copy', sourceText, sourceAt, columns: write.columns, untyped: write.untyped },
    target: {
      ...{ table, alias: insert.relation?.alias?.aliasname ?? table.name, tail },
      atOnce: insert.onConflictClause?.action === 'ONCONFLICT_UPDATE',
    },
  };
}

/** Behind OVERRIDING SYSTEM VALUE. */
function startOfQuery({ sql }: ScatterRequest, at: number, table: Slot['table']): number {
  const token = nextToken(sql, at);
  if (keywordOf(sql, token) !== 'overriding') return token.start;
  const kind = nextToken(sql, token.end);
  if (keywordOf(sql, kind) !== 'system')
    throw notUnderstood('OVERRIDING USER VALUE', table, 'Leave the column out.');
  return nextToken(sql, nextToken(sql, kind.end).end).start;
}

function endOfQuery({ sql, end }: ScatterRequest, insert: InsertStmt, from: number): number {
  const conflictAt = insert.onConflictClause?.location;
  if (conflictAt !== undefined) return conflictAt;
  if (!insert.returningClause) return end;
  return keywordAt(sql, from, end, 'returning') ?? end;
}

function insertKeyword({ sql, start, end }: ScatterRequest): number {
  for (let at = start; ; ) {
    const found = keywordAt(sql, at, end, 'insert');
    if (found === undefined) return end;
    const token = nextToken(sql, found);
    if (keywordOf(sql, nextToken(sql, token.end)) === 'into') return found;
    at = token.end;
  }
}

/** Where a keyword stands outside of all parentheses. */
function keywordAt(sql: Uint8Array, start: number, end: number, keyword: string): number | undefined {
  let depth = 0;
  for (let token = nextToken(sql, start); token.start < end; token = nextToken(sql, token.end)) {
    if (token.kind === 'end') return undefined;
    if (isPunctuation(sql, token, BYTE.openParen)) depth++;
    else if (isPunctuation(sql, token, BYTE.closeParen)) depth--;
    else if (depth === 0 && keywordOf(sql, token) === keyword) return token.start;
  }
  return undefined;
}

/** What would be another thing done once for each bucket. */
function refuseWhatDiffers({ write, facts }: ScatterRequest): void {
  const { table } = write.slot;
  if (facts.kinds.has('CurrentOfExpr'))
    throw notUnderstood('WHERE CURRENT OF over several buckets', table, 'Name the rows by their key.');
  const withClause = withClauseOf(write);
  const inner = write.kind === 'insertSelect' ? write.select.withClause : undefined;
  if (modifies(withClause) || modifies(inner))
    throw notUnderstood(
      'a statement over several buckets that modifies data in WITH',
      table,
      'Send the statements one by one, in a transaction.',
    );
  if (mentionsSystemColumn(rootOf(write)))
    throw notUnderstood(
      'a system column (ctid, xmin, …) in a statement over several buckets',
      table,
      'Name the rows by their key.',
    );
}

function withClauseOf(write: TopWrite): WithClause | undefined {
  switch (write.kind) {
    case 'update':
      return write.update.withClause;
    case 'delete':
      return write.statement.withClause;
    default:
      return write.insert.withClause;
  }
}

function rootOf(write: TopWrite): object {
  switch (write.kind) {
    case 'update':
      return write.update;
    case 'delete':
      return write.statement;
    default:
      return write.insert;
  }
}

function modifies(clause: WithClause | undefined): boolean {
  return (clause?.ctes ?? []).some((node) => {
    const query = 'CommonTableExpr' in node ? node.CommonTableExpr.ctequery : undefined;
    return query !== undefined && !('SelectStmt' in query);
  });
}

function mentionsSystemColumn(tree: object): boolean {
  for (const [key, value] of Object.entries(tree)) {
    if (typeof value !== 'object' || value === null) continue;
    if (key === 'ColumnRef') {
      const last = stringsOf((value as { fields?: Node[] }).fields)?.at(-1);
      if (last !== undefined && SYSTEM_COLUMNS.has(last)) return true;
    } else if (mentionsSystemColumn(value)) return true;
  }
  return false;
}

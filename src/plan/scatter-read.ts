/**
 * SELECT over several buckets. Says how its pieces are made and whether their rows have to be merged, or why it is refused.
 *
 * Why it is right: one use of a sharded table, the root, gives each row of FROM its bucket: it is in FROM itself (or in a
 * plain query that is), no outer join can turn it into NULLs, and the keys of all other uses equal its key. So the rows that
 * FROM and WHERE give fall apart into those of single buckets, and each bucket's are found on its own leaves. What is done
 * with more than one row at once (groups, sorting, LIMIT, DISTINCT) is done again over all (plan/scatter-read-merge.ts),
 * unless groups or windows are of the root's key, and so of one bucket each.
 *
 * Invariant: no function is called a different number of times, in a way that shows, than PostgreSQL would on one table.
 */
import type { Node, SelectStmt } from '@pgsql/types';
import { notSupported, type PosternError } from '../base/errors.ts';
import type { ShardedTable } from '../catalog/map.ts';
import { collectFacts, type StatementFacts } from '../sql/facts.ts';
import { functionName, inspectCalls } from './calls.ts';
import { type KeyScope, keyScopeOf } from './key-limits.ts';
import { mayAggregateOuter } from './outer-aggregates.ts';
import type { Edit } from './plan.ts';
import { nameOf } from './refusal.ts';
import type { PlanContext } from './resolve.ts';
import { isAggregateCall, VOLATILE_FUNCTIONS } from './scatter-read-calls.ts';
import { planMerge, type ReadMerge } from './scatter-read-merge.ts';
import { SelectText } from './scatter-read-text.ts';
import type { TextPart } from './scatter-text.ts';
import { columnNamesOf, keyReferenceOf, type Scope, type Slot } from './scope.ts';

/** A SELECT over several buckets. */
export interface ScatterRead {
  readonly kind: 'read';
  readonly keys: KeyScope;
  /** Each piece reads a bucket's leaves, or all leaves of a node in place of the only table. */
  readonly unit: 'bucket' | 'node';
  /** The whole statement. */
  readonly text: readonly TextPart[];
  /** undefined: the rows of the pieces are those of the result, in any order. */
  readonly merge: ReadMerge | undefined;
  /** All tables that it reads. */
  readonly tables: readonly ShardedTable[];
  /** Names among which are those of all columns that it reads; undefined: it may read any. */
  readonly columnNames: ReadonlySet<string> | undefined;
  /** COLLATE is written in it. */
  readonly namesCollation: boolean;
}

export interface ScatterReadInput {
  readonly select: SelectStmt;
  readonly facts: StatementFacts;
  readonly sql: Uint8Array;
  readonly start: number;
  readonly end: number;
  readonly context: PlanContext;
  readonly edits: readonly Edit[];
  /** Every use of a sharded table in the statement. */
  readonly slots: readonly Slot[];
  /** Those that may be the root. */
  readonly roots: readonly Slot[];
  /** Of the statement's own FROM. */
  readonly scope: Scope;
  /** What is said if there is no root. */
  readonly refusal: PosternError | undefined;
}

const SYSTEM_COLUMNS = new Set(['ctid', 'tableoid', 'xmin', 'xmax', 'cmin', 'cmax']);
/** Beside those that plan/calls.ts knows of. */
const OF_THE_SERVER = new Set(['pg_backend_pid', 'current_query', 'currtid2', 'amvalidate']);
const WRITES = ['InsertStmt', 'UpdateStmt', 'DeleteStmt', 'MergeStmt'];
const JSON_AGGREGATES = ['JsonObjectAgg', 'JsonArrayAgg'];

function refused(what: string, hint: string): PosternError {
  return notSupported(`${what} is not supported over several buckets of a sharded table`, hint);
}

export function planScatterRead(input: ScatterReadInput): ScatterRead {
  const { select, facts, slots } = input;
  const root = rootOf(input);
  refuseForms(input);
  refuseCalls(input, isPlain(select, facts));
  refuseColumns(input);
  const keys = keyScopeOf(root);
  const own = collectFacts({ SelectStmt: ownPart(select) });
  const windows = own.functionCalls.filter((call) => call.over !== undefined);
  const hasAggregates =
    own.functionCalls.some(isAggregateCall) || JSON_AGGREGATES.some((kind) => own.kinds.has(kind));
  const isGrouped = hasAggregates || select.groupClause !== undefined || select.havingClause !== undefined;
  const byKey = isGrouped && groupsByKey(select, input.scope, root);
  if (!byKey && mayAggregateOuter(select, input.context))
    throw refused(
      'an aggregate in a subquery that may be over the rows of the outer query',
      "Qualify its columns with the subquery's own tables, or write it outside of the subquery.",
    );
  if (windows.length > 0) {
    const isOfKey = windows.every((call) =>
      (call.over?.partitionClause ?? []).some((node) => isKey(node, input.scope, root)),
    );
    if (isGrouped || select.windowClause || !isOfKey)
      throw refused(
        'a window',
        `Have PARTITION BY name the shard key "${root.table.keyColumn}", or read the rows first.`,
      );
  }
  const text = new SelectText({
    sql: input.sql,
    edits: input.edits,
    range: { start: input.start, end: input.end },
  });
  const isLocking = select.lockingClause !== undefined || facts.kinds.has('LockingClause');
  const mustMerge =
    (isGrouped && !byKey) ||
    [select.distinctClause, select.sortClause, select.limitCount, select.limitOffset].some(Boolean);
  if (mustMerge && isLocking)
    throw refused(
      'FOR UPDATE or FOR SHARE together with ORDER BY, LIMIT or groups',
      'Lock the rows without them.',
    );
  const merge = mustMerge
    ? planMerge({ select, text, sql: input.sql, scope: input.scope }, isGrouped && !byKey)
    : undefined;
  const isOfOneTable = slots.length === 1 && !byKey && windows.length === 0;
  return {
    ...{ kind: 'read', keys, merge, namesCollation: facts.kinds.has('CollateClause') },
    tables: [...new Set(slots.map(({ table }) => table))],
    columnNames: namesItsColumns(input) ? facts.names : undefined,
    unit: isOfOneTable && !isLocking ? 'node' : 'bucket',
    text: text.slice({ start: input.start, end: input.end }),
  };
}

/** Right for some columns is enough for a statement that names no others. */
function namesItsColumns({ select, facts, slots }: ScatterReadInput): boolean {
  if (facts.kinds.has('A_Star') || JSON.stringify(select).includes('"isNatural":true')) return false;
  return slots.every(({ rangeVar }) => !rangeVar.alias?.colnames);
}

/** What this SELECT itself does with the rows of its FROM. */
function ownPart(select: SelectStmt): SelectStmt {
  const { targetList, havingClause, sortClause, distinctClause, groupClause } = select;
  const own = { targetList, havingClause, sortClause, distinctClause, groupClause };
  return withoutSubqueries(own) as SelectStmt;
}

function withoutSubqueries(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(withoutSubqueries);
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => key !== 'SubLink')
      .map(([key, child]) => [key, withoutSubqueries(child)]),
  );
}

/** Does a SELECT give its rows one by one, each of them from one row of its FROM? */
export function givesRowsOneByOne(select: SelectStmt, context: PlanContext): boolean {
  if (select.larg || select.rarg || select.valuesLists) return false;
  const own = ownPart(select);
  // Its order is nothing that may be relied on, and many do.
  if (own.groupClause || own.havingClause || own.distinctClause || own.sortClause) return false;
  if (select.limitCount || select.limitOffset || select.windowClause || select.lockingClause) return false;
  if (select.withClause || mayAggregateOuter(select, context)) return false;
  const { functionCalls, kinds } = collectFacts({ SelectStmt: own });
  if (JSON_AGGREGATES.some((kind) => kinds.has(kind))) return false;
  return functionCalls.every((call) => call.over === undefined && !isAggregateCall(call));
}

/** The use whose bucket each row has. */
function rootOf({ roots, slots, refusal }: ScatterReadInput): Slot {
  const [first] = slots;
  const root = roots.find((candidate) => slots.every((slot) => reaches(slot, candidate)));
  if (root) return root;
  if (refusal && roots.length === 0 && slots.length === 1) throw refusal;
  throw notSupported(
    `this statement can't be carried out bucket by bucket of sharded table ${nameOf(first!.table)}`,
    'Join colocated tables on their shard keys, and name one of them in FROM itself; or give the key: WHERE … = a value.',
  );
}

/** Does the slot's key equal that of `other` wherever its rows count? */
function reaches(slot: Slot, other: Slot): boolean {
  return equalTo(slot).has(other);
}

function equalTo(slot: Slot): Set<Slot> {
  const seen = new Set<Slot>([slot]);
  for (const current of seen) for (const next of current.equalTo) seen.add(next);
  return seen;
}

function refuseForms({ select, facts }: ScatterReadInput): void {
  if (select.larg || select.rarg || select.op !== 'SETOP_NONE')
    throw refused('UNION, INTERSECT or EXCEPT', 'Send the queries one by one.');
  if (WRITES.some((kind) => facts.kinds.has(kind)))
    throw refused('a WITH that writes', 'Send the statements one by one, in a transaction.');
  if (hasRecursion(select)) throw refused('WITH RECURSIVE', 'Read the rows first.');
  if (select.limitOption === 'LIMIT_OPTION_WITH_TIES')
    throw refused('WITH TIES', 'Read more rows than you need, and cut them yourself.');
  if (facts.kinds.has('RangeTableSample')) throw refused('TABLESAMPLE', 'Use WHERE random() < …');
}

function hasRecursion(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if ('recursive' in value && value.recursive === true) return true;
  return Object.values(value).some(hasRecursion);
}

/** One table, no groups, no subqueries: what is written in it is evaluated for each row, once. */
function isPlain(select: SelectStmt, facts: StatementFacts): boolean {
  const isNested =
    facts.kinds.has('SubLink') || facts.kinds.has('RangeSubselect') || select.withClause !== undefined;
  const calls = collectFacts({ SelectStmt: ownPart(select) }).functionCalls;
  const from = collectFacts({ SelectStmt: { fromClause: select.fromClause ?? [] } });
  return (
    !isNested &&
    from.functionCalls.length === 0 &&
    !select.groupClause &&
    !select.havingClause &&
    !calls.some((call) => isAggregateCall(call))
  );
}

function refuseCalls({ select, facts, context }: ScatterReadInput, isPlain: boolean): void {
  const calls = inspectCalls(facts.functionCalls);
  const [unknown] = calls.unknownFunctions;
  if (unknown !== undefined)
    throw refused(
      `function ${unknown}()`,
      "Use PostgreSQL's own functions, and call others on the rows that were read.",
    );
  const isStateful = calls.effects.length > 0 || calls.writes || calls.needsHome || calls.needsPinBefore;
  if (isStateful || facts.functionCalls.some((call) => OF_THE_SERVER.has(functionName(call).name)))
    throw refused('a function that is about the session or the server', 'Call it in a statement of its own.');
  if (JSON.stringify(select).includes('"SVFOP_CURRENT_CATALOG"'))
    throw refused('CURRENT_CATALOG', 'Call it in a statement of its own.');
  const volatile = facts.functionCalls.find((call) => VOLATILE_FUNCTIONS.has(functionName(call).name));
  if (volatile && !isPlain)
    throw refused(
      `${functionName(volatile).name}() beside groups, subqueries or functions in FROM`,
      'Call it in a plain SELECT … FROM … WHERE.',
    );
  // Names of PostgreSQL's own functions mean these only if pg_catalog is searched first.
  if (context.searchPath.indexOf('pg_catalog') > 0)
    throw refused('a search_path that names pg_catalog behind others', 'Leave pg_catalog out of it.');
}

/** What a row of leaves in a UNION ALL, or of a leaf, does not have as the table has it. */
function refuseColumns({ select, slots }: ScatterReadInput): void {
  const visibleNames = new Set(slots.map((slot) => slot.visibleName));
  const columns = new Set(slots.flatMap((slot) => slot.columnNames));
  eachColumn(select, (names) => {
    const last = names.at(-1)!;
    if (SYSTEM_COLUMNS.has(last))
      throw refused(`the system column ${last}`, 'Name the rows by their primary key.');
    if (names.length === 1 && visibleNames.has(last) && !columns.has(last))
      throw refused(`a whole row ("${last}")`, `Name the columns, or write "${last}".*`);
  });
}

function eachColumn(value: unknown, visit: (names: readonly string[]) => void): void {
  if (typeof value !== 'object' || value === null) return;
  if ('ColumnRef' in value) {
    const names = columnNamesOf((value as Extract<Node, { ColumnRef: unknown }>).ColumnRef);
    if (names) visit(names);
    return;
  }
  for (const child of Object.values(value)) eachColumn(child, visit);
}

function groupsByKey(select: SelectStmt, scope: Scope, root: Slot): boolean {
  return (select.groupClause ?? []).some((node) => {
    if ('GroupingSet' in node) return false;
    if (!('A_Const' in node)) return isKey(node, scope, root);
    const target = select.targetList?.[(node.A_Const.ival?.ival ?? 0) - 1];
    const before = (select.targetList ?? []).slice(0, node.A_Const.ival?.ival ?? 0);
    if (JSON.stringify(before).includes('"A_Star"')) return false;
    return target !== undefined && 'ResTarget' in target && isKey(target.ResTarget.val, scope, root);
  });
}

/** Is it the root's key, or one that equals it in each row? */
function isKey(node: Node | undefined, scope: Scope, root: Slot): boolean {
  const equal = equalTo(root);
  return (keyReferenceOf(node, scope)?.slots ?? []).some((slot) => equal.has(slot));
}

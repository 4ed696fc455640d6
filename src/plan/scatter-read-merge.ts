/**
 * How the partial results of a SELECT over several buckets become its result: what each node is asked for, and what one of
 * them then makes of the rows. PostgreSQL does both; here the texts are only taken apart. execute/merge.ts puts them together
 * when the types of the columns are known.
 *
 * Why it is right. Rows: the nodes give disjoint parts of one multiset, each at least the part that the result's LIMIT can
 * reach; sorting, removing duplicates and cutting are done over all of them. Groups: each aggregate is one whose value over
 * parts is a function of its values of the parts (for avg: sum and count); a group's row is made of nothing else.
 */
import type { FuncCall, Node, SelectStmt, SortBy } from '@pgsql/types';
import { notSupported, PosternError } from '../base/errors.ts';
import { BYTE, closingParen, endOfName, isPunctuation, keywordOf, nextToken } from '../sql/scanner.ts';
import { functionName } from './calls.ts';
import { aggregateKind, isAggregateCall } from './scatter-read-calls.ts';
import { type Clauses, type Range, type SelectText, treeText } from './scatter-read-text.ts';
import { type TextPart, textPart } from './scatter-text.ts';
import { columnNamesOf, type Scope } from './scope.ts';

/** Text of the final query. */
export type FinalPart =
  | TextPart
  /** A partial column as it is: a group's. */
  | { readonly kind: 'column'; readonly column: number }
  /** Partial results of one aggregate put together. */
  | { readonly kind: 'merged'; readonly aggregate: MergedAggregate; readonly column: number }
  /** Of sums and, in the next column, counts. */
  | { readonly kind: 'average'; readonly column: number };

export type MergedAggregate = 'count' | 'sum' | 'min' | 'max' | 'bool_and' | 'bool_or';

export interface OrderItem {
  /** A column of the result, 0-based; or the one of this name if there is one, and else the expression. */
  readonly position: number | undefined;
  readonly name: string | undefined;
  readonly expression: readonly FinalPart[] | undefined;
  /** ` DESC NULLS LAST` */
  readonly suffix: string;
}

export interface PartialColumn {
  readonly text: readonly TextPart[];
  /** What is asked for instead if `text` is of type float4: an average is not made of sums of that precision. */
  readonly wideText: readonly TextPart[] | undefined;
}

interface MergeBase {
  /** WITH, SELECT. */
  readonly head: readonly TextPart[];
  readonly distinct: boolean;
  readonly order: readonly OrderItem[];
  /** Empty: none. */
  readonly limit: readonly TextPart[];
  readonly offset: readonly TextPart[];
}

/** Rows that are sorted, cut, or freed of duplicates. */
export interface RowsMerge extends MergeBase {
  readonly kind: 'rows';
  readonly list: readonly TextPart[];
  /** FROM up to HAVING. */
  readonly source: readonly TextPart[];
  /** ORDER BY, without these words, as it stands; empty: none. */
  readonly orderText: readonly TextPart[];
}

/** Groups, or one row of aggregates over all. */
export interface GroupsMerge extends MergeBase {
  readonly kind: 'groups';
  /** The expressions of GROUP BY, and behind them the aggregates. */
  readonly columns: readonly PartialColumn[];
  readonly groupCount: number;
  /** FROM and WHERE. */
  readonly source: readonly TextPart[];
  readonly list: readonly (readonly FinalPart[])[];
  /** Empty: none. */
  readonly having: readonly FinalPart[];
}

export type ReadMerge = RowsMerge | GroupsMerge;

interface MergeInput {
  readonly select: SelectStmt;
  readonly text: SelectText;
  readonly sql: Uint8Array;
  readonly scope: Scope;
}

function cannotMerge(what: string, hint: string): PosternError {
  return notSupported(`${what} is not supported over several buckets of a sharded table`, hint);
}

const WRITE_PLAINLY = 'Write the statement as SELECT … FROM …, with plain names.';

/** `isGrouped`: groups have to be put together; otherwise each row of the pieces is a row of the result. */
export function planMerge(input: MergeInput, isGrouped: boolean): ReadMerge {
  const clauses = input.text.clauses(input.select);
  if (!clauses) throw cannotMerge('a merge of this form of SELECT', WRITE_PLAINLY);
  return isGrouped ? new GroupsPlanner(input, clauses).plan() : planRows(input, clauses);
}

function planRows(input: MergeInput, clauses: Clauses): RowsMerge {
  const { select, text } = input;
  const distinct = isDistinct(select);
  const hasLimit = select.limitCount !== undefined;
  const order = orderItems(input, clauses, {
    targets: distinct
      ? (select.targetList ?? []).map((node) => canonical(valueOfTarget(node), input.scope))
      : [],
    expression: (_node, range) => (distinct ? undefined : text.slice(range)),
  });
  return {
    ...{ kind: 'rows', distinct, order },
    head: text.slice(clauses.head),
    list: text.slice(clauses.list),
    source: text.slice(clauses.sourceAndGroups),
    orderText: hasLimit && clauses.order ? text.slice(clauses.order) : [],
    limit: limitText(select.limitCount),
    offset: limitText(select.limitOffset),
  };
}

function isDistinct(select: SelectStmt): boolean {
  const { distinctClause } = select;
  if (!distinctClause) return false;
  if (distinctClause.length > 1 || Object.keys(distinctClause[0] ?? {}).length > 0)
    throw cannotMerge('DISTINCT ON', 'Use GROUP BY with min() and max().');
  return true;
}

/** A number or a parameter: anything else would have to be evaluated once. */
function limitText(node: Node | undefined): TextPart[] {
  if (!node) return [];
  if ('A_Const' in node) {
    const { isnull, ival, fval } = node.A_Const;
    if (isnull) return [textPart('NULL')];
    if (ival) return [textPart(String(ival.ival ?? 0))];
    if (fval && /^\d+$/.test(fval.fval ?? '')) return [textPart(fval.fval ?? '')];
  }
  if ('ParamRef' in node) return [{ kind: 'parameter', index: (node.ParamRef.number ?? 0) - 1, at: -1 }];
  if ('TypeCast' in node && node.TypeCast.arg && 'ParamRef' in node.TypeCast.arg) {
    const name = node.TypeCast.typeName?.names?.at(-1);
    const type = name && 'String' in name ? name.String.sval : undefined;
    if (type === 'int8' || type === 'int4') return limitText(node.TypeCast.arg);
  }
  throw cannotMerge('an expression in LIMIT or OFFSET', 'Give a number or a parameter.');
}

/** The expression of an item of the list of columns. */
function valueOfTarget(node: Node): Node {
  if (!('ResTarget' in node) || !node.ResTarget.val) throw cannotMerge('this list of columns', WRITE_PLAINLY);
  return node.ResTarget.val;
}

/** Equal for what is the same expression, as far as names tell: a column may be written with its table or without. */
function canonical(node: Node, scope: Scope): string {
  if (!('ColumnRef' in node)) return treeText(canonicalTree(node, scope));
  return canonicalColumn(node, scope);
}

function canonicalTree(value: unknown, scope: Scope): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map((item) => canonicalTree(item, scope));
  if ('ColumnRef' in value) return canonicalColumn(value as Node, scope);
  return Object.fromEntries(Object.entries(value).map(([key, child]) => [key, canonicalTree(child, scope)]));
}

function canonicalColumn(node: Node, scope: Scope): string {
  const names = 'ColumnRef' in node ? columnNamesOf(node.ColumnRef) : undefined;
  const column = names?.at(-1);
  if (!names || column === undefined) return treeText(node);
  if (names.length > 1) return JSON.stringify([names.at(-2), column]);
  const owners = scope.items.filter((item) => item.slot?.columnNames.includes(column));
  const unsure = scope.natural || scope.merged.has(column) || scope.items.some((item) => !item.slot);
  const [owner] = owners;
  if (owners.length !== 1 || unsure || !owner) return JSON.stringify([column]);
  return JSON.stringify([owner.visibleName, column]);
}

interface OrderOptions {
  /** Canonical texts of the result's columns that an expression may be. */
  readonly targets: readonly string[];
  /** undefined: it can't be had; an error then, unless it turns out to be the name of a column. */
  readonly expression: (node: Node, range: Range) => readonly FinalPart[] | undefined;
}

function orderItems(input: MergeInput, clauses: Clauses, options: OrderOptions): OrderItem[] {
  const { select, text } = input;
  if (!clauses.order) return [];
  const ranges = text.items(clauses.order);
  const hasStar = (select.targetList ?? []).some((node) => isStar(valueOfTarget(node)));
  return (select.sortClause ?? []).map((item, index) => {
    if (!('SortBy' in item) || !item.SortBy.node || !ranges[index])
      throw cannotMerge('this ORDER BY', WRITE_PLAINLY);
    const { node } = item.SortBy;
    const suffix = suffixOf(item.SortBy);
    const none = { name: undefined, expression: undefined, suffix };
    if ('A_Const' in node) {
      if (!node.A_Const.ival) throw cannotMerge('a constant in ORDER BY', 'Leave it out.');
      return { ...none, position: (node.A_Const.ival.ival ?? 0) - 1 };
    }
    const name = 'ColumnRef' in node ? columnNamesOf(node.ColumnRef) : undefined;
    const target = hasStar ? -1 : options.targets.indexOf(canonical(node, input.scope));
    const range = text.expressionOfSort(ranges[index], node);
    if (!range) throw cannotMerge('this ORDER BY', WRITE_PLAINLY);
    if (name?.length === 1) {
      // The name of a column of the result comes before that of a column of a table.
      const expression: readonly FinalPart[] | undefined =
        target >= 0 ? undefined : lenient(() => options.expression(node, range));
      if (target < 0 && !expression && !mayBeNamed(select, name[0]!))
        throw cannotMerge('ORDER BY a column that is not in the result', 'Order by columns of the result.');
      return { name: name[0], position: target >= 0 ? target : undefined, expression, suffix };
    }
    if (target >= 0) return { ...none, position: target };
    const expression = options.expression(node, range);
    if (!expression)
      throw cannotMerge('ORDER BY something that DISTINCT removes', 'Order by columns of the result.');
    return { name: undefined, position: undefined, expression, suffix };
  });
}

/** May a column of the result have this name, as far as the text tells? */
function mayBeNamed({ targetList = [] }: SelectStmt, name: string): boolean {
  return targetList.some((node) => {
    if (!('ResTarget' in node)) return true;
    if (node.ResTarget.name !== undefined) return node.ResTarget.name === name;
    const { val } = node.ResTarget;
    const names = val && 'ColumnRef' in val ? columnNamesOf(val.ColumnRef) : undefined;
    return names === undefined || names.at(-1) === name;
  });
}

function lenient<T>(make: () => T): T | undefined {
  try {
    return make();
  } catch (error) {
    if (error instanceof PosternError) return undefined;
    throw error;
  }
}

function suffixOf(sort: SortBy): string {
  if (sort.sortby_dir === 'SORTBY_USING') throw cannotMerge('ORDER BY … USING', 'Use ASC or DESC.');
  const direction = sort.sortby_dir === 'SORTBY_DESC' ? ' DESC' : '';
  if (sort.sortby_nulls === 'SORTBY_NULLS_FIRST') return `${direction} NULLS FIRST`;
  if (sort.sortby_nulls === 'SORTBY_NULLS_LAST') return `${direction} NULLS LAST`;
  return direction;
}

function isStar(node: Node): boolean {
  return 'ColumnRef' in node && columnNamesOf(node.ColumnRef)?.at(-1) === '*';
}

interface Group {
  readonly canonical: string;
  readonly range: Range;
}

class GroupsPlanner {
  readonly #in: MergeInput;
  readonly #clauses: Clauses;
  readonly #targets: readonly { readonly value: Node; readonly range: Range }[];
  readonly #groups: readonly Group[];
  readonly #columns: PartialColumn[] = [];
  /** Columns of aggregates by canonical text. */
  readonly #columnOf = new Map<string, number>();

  constructor(input: MergeInput, clauses: Clauses) {
    this.#in = input;
    this.#clauses = clauses;
    const ranges = input.text.items(clauses.list);
    this.#targets = (input.select.targetList ?? []).map((node, index) => {
      const value = valueOfTarget(node);
      const item = ranges[index];
      const range = item && input.text.expressionOfTarget(item, value);
      if (!range) throw cannotMerge('this list of columns', WRITE_PLAINLY);
      return { value, range };
    });
    this.#groups = this.#groupsOf();
  }

  plan(): GroupsMerge {
    const { select, text } = this.#in;
    for (const { range } of this.#groups)
      this.#columns.push({ text: parenthesized(text.slice(range)), wideText: undefined });
    const list = this.#targets.map(({ value, range }) => this.#final(value, range));
    const having =
      select.havingClause && this.#clauses.having ? this.#final(select.havingClause, this.#having()) : [];
    const order = orderItems(this.#in, this.#clauses, {
      targets: this.#targets.map(({ value }) => canonical(value, this.#in.scope)),
      expression: (node, range) => (isDistinct(select) ? undefined : this.#final(node, range)),
    });
    return {
      ...{ kind: 'groups', distinct: isDistinct(select), order, list, having },
      head: text.slice(this.#clauses.head),
      columns: this.#columns,
      groupCount: this.#groups.length,
      source: text.slice(this.#clauses.source),
      limit: limitText(select.limitCount),
      offset: limitText(select.limitOffset),
    };
  }

  #having(): Range {
    const { havingClause } = this.#in.select;
    const range = this.#clauses.having;
    if (!range || !havingClause || !this.#in.text.isText(range, havingClause))
      throw cannotMerge('this HAVING', WRITE_PLAINLY);
    return range;
  }

  #groupsOf(): Group[] {
    const { select, text, scope } = this.#in;
    const range = this.#clauses.group;
    if (select.groupDistinct) throw cannotMerge('GROUP BY DISTINCT', 'Use GROUP BY.');
    const ranges = range ? text.items(range) : [];
    return (select.groupClause ?? []).map((node, index) => {
      if ('GroupingSet' in node) throw cannotMerge('a grouping set', 'Use GROUP BY with plain expressions.');
      const target = this.#targetOfGroup(node);
      if (target) return { canonical: canonical(target.value, scope), range: target.range };
      const item = ranges[index];
      if (!item || !text.isText(item, node)) throw cannotMerge('this GROUP BY', WRITE_PLAINLY);
      return { canonical: canonical(node, scope), range: item };
    });
  }

  /** The column of the result that an item of GROUP BY means, by position or by name. */
  #targetOfGroup(node: Node) {
    const { select, scope } = this.#in;
    if ('A_Const' in node) {
      const target = this.#targets[(node.A_Const.ival?.ival ?? 0) - 1];
      if (!target || !node.A_Const.ival) throw cannotMerge('this GROUP BY', WRITE_PLAINLY);
      return target;
    }
    const names = 'ColumnRef' in node ? columnNamesOf(node.ColumnRef) : undefined;
    if (names?.length !== 1) return undefined;
    const [name] = names;
    // A column of a table comes before a name of the result.
    if (scope.items.some((item) => item.slot?.columnNames.includes(name!))) return undefined;
    const at = (select.targetList ?? []).findIndex(
      (one) => 'ResTarget' in one && one.ResTarget.name === name,
    );
    const target = this.#targets[at];
    if (!target) return undefined;
    if (scope.items.some((item) => !item.slot) && canonical(target.value, scope) !== canonical(node, scope))
      throw cannotMerge(`GROUP BY "${name}", which may mean two things`, 'Write the expression out.');
    return target;
  }

  /** An expression over groups and aggregates, in terms of the partial columns. */
  #final(node: Node, range: Range): FinalPart[] {
    const pieces: { readonly range: Range; readonly part: FinalPart }[] = [];
    this.#replace(node, range, pieces);
    const { text } = this.#in;
    const parts: FinalPart[] = [textPart('(')];
    let at = range.start;
    for (const piece of pieces.sort((a, b) => a.range.start - b.range.start)) {
      parts.push(...text.slice({ start: at, end: piece.range.start }), piece.part);
      at = piece.range.end;
    }
    parts.push(...text.slice({ start: at, end: range.end }), textPart(')'));
    return parts;
  }

  /** Finds what in `node` is a group or an aggregate. `range`: where the node stands, if that is known. */
  #replace(node: Node, range: Range | undefined, pieces: { range: Range; part: FinalPart }[]): void {
    const group = this.#groups.findIndex((one) => one.canonical === canonical(node, this.#in.scope));
    if (group >= 0) {
      pieces.push({ range: range ?? this.#rangeOf(node), part: { kind: 'column', column: group } });
      return;
    }
    if ('ColumnRef' in node)
      throw cannotMerge(
        'a column that is neither grouped nor aggregated',
        'Add it to GROUP BY, or aggregate it.',
      );
    if ('SubLink' in node || 'GroupingFunc' in node)
      throw cannotMerge('a subquery beside aggregates', 'Query it separately.');
    if ('FuncCall' in node && isAggregateCall(node.FuncCall)) {
      pieces.push(this.#aggregate(node, node.FuncCall));
      return;
    }
    this.#replaceWithin(node, pieces);
  }

  #replaceWithin(value: unknown, pieces: { range: Range; part: FinalPart }[]): void {
    if (typeof value !== 'object' || value === null) return;
    for (const child of Array.isArray(value) ? value : Object.values(value)) {
      if (typeof child !== 'object' || child === null) continue;
      const [kind] = Object.keys(child);
      const isNode = !Array.isArray(child) && kind !== undefined && /^[A-Z]/.test(kind);
      if (isNode) this.#replace(child as Node, undefined, pieces);
      else this.#replaceWithin(child, pieces);
    }
  }

  /** Where a column or a call stands. */
  #rangeOf(node: Node): Range {
    const range = 'ColumnRef' in node ? this.#rangeOfColumn(node) : undefined;
    const found = 'FuncCall' in node ? this.#rangesOfCall(node.FuncCall).whole : range;
    if (!found || !this.#in.text.isText(found, node))
      throw cannotMerge(
        'part of an expression that is grouped by',
        'Group by columns, and compute around them.',
      );
    return found;
  }

  #rangeOfColumn(node: Extract<Node, { ColumnRef: unknown }>): Range | undefined {
    const start = node.ColumnRef.location ?? 0;
    const end = endOfName(this.#in.sql, start, node.ColumnRef.fields?.length ?? 1);
    return end === undefined ? undefined : { start, end };
  }

  #rangesOfCall(call: FuncCall): { whole: Range; name: Range; inside: Range } {
    const { sql } = this.#in;
    const start = call.location ?? 0;
    const nameEnd = endOfName(sql, start, call.funcname?.length ?? 1);
    if (nameEnd === undefined) throw cannotMerge('this call of an aggregate', WRITE_PLAINLY);
    const open = nextToken(sql, nameEnd);
    const close = closingParen(sql, open.start);
    let end = close + 1;
    const next = nextToken(sql, end);
    if (call.agg_filter && keywordOf(sql, next) === 'filter') {
      const paren = nextToken(sql, next.end);
      if (isPunctuation(sql, paren, BYTE.openParen)) end = closingParen(sql, paren.start) + 1;
    }
    return {
      whole: { start, end },
      name: { start, end: nameEnd },
      inside: { start: open.end, end: close },
    };
  }

  #aggregate(node: Node, call: FuncCall): { range: Range; part: FinalPart } {
    const { name } = functionName(call);
    const kind = aggregateKind(call);
    if (!kind) {
      throw cannotMerge(
        `${name}(${call.agg_distinct ? 'DISTINCT …' : ''})`,
        'count, sum, min, max, avg, bool_and and bool_or can be merged; others where GROUP BY has the shard key.',
      );
    }
    const { text, scope } = this.#in;
    const { whole, name: nameRange, inside } = this.#rangesOfCall(call);
    if (!text.isText(whole, node)) throw cannotMerge('this call of an aggregate', WRITE_PLAINLY);
    const key = canonical(node, scope);
    let column = this.#columnOf.get(key);
    if (column === undefined) {
      column = this.#columns.length;
      this.#columnOf.set(key, column);
      if (kind === 'average') this.#addAverage(call, { whole, name: nameRange, inside });
      else this.#columns.push({ text: text.slice(whole), wideText: undefined });
    }
    const part: FinalPart =
      kind === 'average' ? { kind, column } : { kind: 'merged', aggregate: kind, column };
    return { range: whole, part };
  }

  /** avg(x) FILTER (…) is asked for as sum(x) FILTER (…) and count(x) FILTER (…). */
  #addAverage(call: FuncCall, ranges: { whole: Range; name: Range; inside: Range }): void {
    const { text } = this.#in;
    const [argument] = call.args ?? [];
    if (!argument || !text.isText(ranges.inside, argument))
      throw cannotMerge('this call of avg', WRITE_PLAINLY);
    const rest = text.slice({ start: ranges.name.end, end: ranges.whole.end });
    const behind = text.slice({ start: ranges.inside.end, end: ranges.whole.end });
    this.#columns.push(
      {
        text: [textPart('pg_catalog.sum'), ...rest],
        wideText: [
          textPart('pg_catalog.sum(('),
          ...text.slice(ranges.inside),
          textPart(')::pg_catalog.float8'),
          ...behind,
        ],
      },
      { text: [textPart('pg_catalog.count'), ...rest], wideText: undefined },
    );
  }
}

function parenthesized(parts: readonly TextPart[]): TextPart[] {
  return [textPart('('), ...parts, textPart(')')];
}

/**
 * Aggregates in a subquery that are the outer query's: `SELECT (SELECT sum(t.n)) FROM t` gives one row, since an aggregate
 * belongs to the innermost query of which its arguments name a column.
 *
 * Invariant: where it can't be told whose it is, it counts as the outer query's.
 */
import type { ColumnRef, FuncCall, Node, RangeVar, SelectStmt } from '@pgsql/types';
import { type PlanContext, resolveRangeVar, resolveReferenceVar } from './resolve.ts';
import { isAggregateCall } from './scatter-read-calls.ts';
import { columnNamesOf } from './scope.ts';

/** What a subquery's own FROM has. */
interface Level {
  readonly names: Set<string>;
  readonly columns: Set<string>;
}

/** May a subquery in its list, HAVING or ORDER BY have an aggregate of this SELECT's? */
export function mayAggregateOuter(select: SelectStmt, context: PlanContext): boolean {
  const { targetList, havingClause, sortClause, distinctClause } = select;
  const search = new Search(context, collectNames(select, 'ctename'));
  return search.within([targetList, havingClause, sortClause, distinctClause], []);
}

class Search {
  readonly #context: PlanContext;
  readonly #ctes: ReadonlySet<string>;

  constructor(context: PlanContext, ctes: ReadonlySet<string>) {
    this.#context = context;
    this.#ctes = ctes;
  }

  /** `levels`: the subqueries that it is in. */
  within(value: unknown, levels: readonly Level[]): boolean {
    if (typeof value !== 'object' || value === null) return false;
    if (Array.isArray(value)) return value.some((item) => this.within(item, levels));
    return Object.entries(value).some(([key, child]) => {
      if (key === 'SelectStmt') return this.#inSelect(child as SelectStmt, levels);
      if (key === 'FuncCall' && levels.length > 0 && this.#isOuter(child as FuncCall, levels)) return true;
      return this.within(child, levels);
    });
  }

  #inSelect(select: SelectStmt, levels: readonly Level[]): boolean {
    const level: Level = { names: new Set(), columns: new Set() };
    for (const node of select.fromClause ?? []) this.#note(node, level);
    const { fromClause, withClause, larg, rarg, ...own } = select;
    if (this.within(own, [...levels, level])) return true;
    // These do not see the FROM beside them, unless they are LATERAL.
    if ([larg, rarg].some((part) => part && this.#inSelect(part, levels))) return true;
    return this.within([fromClause, withClause], levels);
  }

  #note(node: Node, level: Level): void {
    if ('JoinExpr' in node) {
      const { larg, rarg, alias } = node.JoinExpr;
      if (alias?.aliasname) level.names.add(alias.aliasname);
      if (larg) this.#note(larg, level);
      if (rarg) this.#note(rarg, level);
    } else if ('RangeVar' in node) this.#noteTable(node.RangeVar, level);
    else if ('RangeSubselect' in node) level.names.add(node.RangeSubselect.alias?.aliasname ?? '');
    else if ('RangeFunction' in node) level.names.add(node.RangeFunction.alias?.aliasname ?? '');
  }

  #noteTable(rangeVar: RangeVar, level: Level): void {
    const { alias, relname = '', schemaname } = rangeVar;
    level.names.add(alias?.aliasname ?? relname);
    if (alias?.colnames || (schemaname === undefined && this.#ctes.has(relname))) return;
    const table = resolveRangeVar(this.#context, rangeVar) ?? resolveReferenceVar(this.#context, rangeVar);
    for (const { name } of table?.columns ?? []) level.columns.add(name);
  }

  #isOuter(call: FuncCall, levels: readonly Level[]): boolean {
    if (!isAggregateCall(call)) return false;
    const references = columnsOf([call.args, call.agg_filter, call.agg_order]);
    return references.length > 0 && !references.some((reference) => isOf(reference, levels));
  }
}

function isOf(reference: ColumnRef, levels: readonly Level[]): boolean {
  const names = columnNamesOf(reference);
  const last = names?.at(-1);
  if (!names || last === undefined) return false;
  return levels.some((level) =>
    names.length === 1 ? level.columns.has(last) : level.names.has(names.at(-2)!),
  );
}

function columnsOf(value: unknown): ColumnRef[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, child]) =>
    key === 'ColumnRef' ? [child as ColumnRef] : columnsOf(child),
  );
}

function collectNames(tree: unknown, key: string): Set<string> {
  const names = new Set<string>();
  const visit = (value: unknown) => {
    if (typeof value !== 'object' || value === null) return;
    for (const [name, child] of Object.entries(value)) {
      if (name === key && typeof child === 'string') names.add(child);
      else visit(child);
    }
  };
  visit(tree);
  return names;
}

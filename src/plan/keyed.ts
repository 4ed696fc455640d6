/**
 * Keyed statements: SELECT, INSERT, UPDATE and DELETE in which every use of a sharded table is bound to one shard key, so
 * that the whole statement gives the same result on one bucket's leaves. Finds what binds each use, and the edits that put
 * the leaves into the text.
 *
 * Why it is right: a use is bound by an equality that every row of it in the result must satisfy: WHERE and the ON of
 * inner joins for all beneath them, the ON of an outer join only for its nullable side. So rows outside the bucket can be left
 * out. An equality with the key of a bound use binds as well; with a use of an outer query only in that direction.
 *
 * Invariant: each RangeVar that means a sharded table is either a bound use with an edit, or the statement is refused.
 */
import type {
  ColumnRef,
  DeleteStmt,
  InsertStmt,
  JoinExpr,
  Node,
  RangeVar,
  ReturningClause,
  SelectStmt,
  UpdateStmt,
  WithClause,
} from '@pgsql/types';
import { assert } from '../base/assert.ts';
import { notSupported } from '../base/errors.ts';
import type { ShardedTable } from '../catalog/map.ts';
import type { StatementFacts } from '../sql/facts.ts';
import { BYTE, endOfName, isPunctuation, nextToken } from '../sql/scanner.ts';
import { bindByCondition, bindByUsing, slotIsBound } from './binding.ts';
import { planInsert } from './insert.ts';
import type { Edit, Placement, SuppliedId } from './plan.ts';
import { keyIsFixed, mixedWithHome, noKey, notColocated, notUnderstood } from './refusal.ts';
import { type PlanContext, resolveRangeVar } from './resolve.ts';
import { columnNamesOf, type FromItem, newScope, newSlot, type Scope, type Slot } from './scope.ts';

export interface KeyedStatement {
  readonly placement: Placement;
  readonly edits: readonly Edit[];
}

/** Names of CTEs that are visible, innermost first. */
interface VisibleCte {
  readonly name: string;
  readonly outer: VisibleCte | undefined;
}

/** One side of a join. */
interface Side {
  readonly items: readonly FromItem[];
  /** Uses that no outer join beneath can turn into NULLs. */
  readonly preserved: readonly Slot[];
  readonly merged: ReadonlySet<string>;
  readonly natural: boolean;
}

/** Undefined: no sharded table is meant after all (CTEs and aliases have the name). Throws the refusal. */
export function planKeyed(options: {
  node: Node;
  facts: StatementFacts;
  sql: Uint8Array;
  context: PlanContext;
}): KeyedStatement | undefined {
  const analysis = new KeyedAnalysis(options.sql, options.context);
  analysis.visitStatement(options.node, undefined, undefined);
  return analysis.finish(options.facts);
}

class KeyedAnalysis {
  readonly #sql: Uint8Array;
  readonly #context: PlanContext;
  readonly #slots: Slot[] = [];
  readonly #edits: Edit[] = [];
  readonly #suppliedIds: SuppliedId[] = [];
  readonly #visited = new Set<RangeVar>();
  readonly #strippedAt = new Set<number>();
  #homeRelation: string | undefined;
  #comparedWithExpression = false;

  constructor(sql: Uint8Array, context: PlanContext) {
    this.#sql = sql;
    this.#context = context;
  }

  finish(facts: StatementFacts): KeyedStatement | undefined {
    for (const rangeVar of facts.rangeVars) {
      if (this.#visited.has(rangeVar)) continue;
      const table = resolveRangeVar(this.#context, rangeVar);
      if (table) throw notUnderstood('this form of statement', table, 'Write it without this clause.');
    }
    const first = this.#slots[0];
    if (!first) return undefined;
    if (this.#homeRelation !== undefined) throw mixedWithHome(first.table, this.#homeRelation);
    for (const slot of this.#slots) {
      if (slot.table.colocationId !== first.table.colocationId) throw notColocated(first.table, slot.table);
      if (!slotIsBound(slot)) throw noKey(slot.table, this.#comparedWithExpression);
    }
    const keys = this.#slots.flatMap((slot) => slot.sources);
    // Array.prototype.sort is stable: several insertions at one place stay in order.
    const edits = this.#edits.sort((a, b) => a.start - b.start);
    const suppliedIds = this.#suppliedIds;
    return { placement: { kind: 'keyed', table: first.table, keys, suppliedIds }, edits };
  }

  visitStatement(node: Node, parent: Scope | undefined, ctes: VisibleCte | undefined): void {
    if ('SelectStmt' in node) this.#visitSelect(node.SelectStmt, parent, ctes);
    else if ('InsertStmt' in node) this.#visitInsert(node.InsertStmt, parent, ctes);
    else if ('UpdateStmt' in node) this.#visitUpdate(node.UpdateStmt, parent, ctes);
    else if ('DeleteStmt' in node) this.#visitDelete(node.DeleteStmt, parent, ctes);
    // Anything else (MERGE) is not looked into: finish() refuses it if a sharded table is in it.
  }

  #visitWith(clause: WithClause | undefined, parent: Scope | undefined, outer: VisibleCte | undefined) {
    let visible = outer;
    const ctes = (clause?.ctes ?? []).flatMap((node) =>
      'CommonTableExpr' in node ? [node.CommonTableExpr] : [],
    );
    if (clause?.recursive) for (const cte of ctes) visible = { name: cte.ctename ?? '', outer: visible };
    for (const cte of ctes) {
      if (cte.ctequery) this.visitStatement(cte.ctequery, parent, visible);
      if (!clause?.recursive) visible = { name: cte.ctename ?? '', outer: visible };
    }
    return visible;
  }

  #visitSelect(select: SelectStmt, parent: Scope | undefined, outerCtes: VisibleCte | undefined): void {
    const ctes = this.#visitWith(select.withClause, parent, outerCtes);
    const scope = newScope(parent);
    if (select.larg && select.rarg) {
      this.#visitSelect(select.larg, parent, ctes);
      this.#visitSelect(select.rarg, parent, ctes);
    }
    for (const node of select.fromClause ?? []) this.#visitFrom(node, scope, ctes);
    this.#bind(select.whereClause, scope, () => true);
    for (const node of select.lockingClause ?? []) this.#markLocked(node);
    this.#visitExpressions(
      [
        select.distinctClause,
        select.targetList,
        select.whereClause,
        select.groupClause,
        select.havingClause,
        select.windowClause,
        select.valuesLists,
        select.sortClause,
        select.limitOffset,
        select.limitCount,
      ],
      scope,
      ctes,
    );
  }

  /** FOR UPDATE OF names are aliases of this level, which a leaf keeps. */
  #markLocked(node: Node): void {
    if (!('LockingClause' in node)) return;
    for (const locked of node.LockingClause.lockedRels ?? []) {
      if ('RangeVar' in locked) this.#visited.add(locked.RangeVar);
    }
  }

  #visitInsert(insert: InsertStmt, parent: Scope | undefined, outerCtes: VisibleCte | undefined): void {
    const ctes = this.#visitWith(insert.withClause, parent, outerCtes);
    const scope = newScope(undefined);
    assert(insert.relation, 'INSERT has a target');
    const target = this.#addRelation(insert.relation, scope, ctes, true);
    const slot = target.item.slot;
    scope.items.push({ visibleName: 'excluded', slot: undefined });
    if (slot) {
      planInsert(
        { table: slot.table, statement: insert, sql: this.#sql, nameEnd: target.nameEnd },
        { edits: this.#edits, suppliedIds: this.#suppliedIds, sources: slot.sources },
      );
    }
    if (insert.selectStmt) this.visitStatement(insert.selectStmt, undefined, ctes);
    const conflict = insert.onConflictClause;
    if (slot && conflict) {
      refuseKeyUpdate(conflict.targetList, slot.table);
      if (conflict.infer?.conname) {
        this.#editConstraint(conflict.infer.conname, conflict.infer.location ?? -1, slot.table);
      }
    }
    this.#visitExpressions([conflict?.infer, conflict?.targetList, conflict?.whereClause], scope, ctes);
    this.#visitReturning(insert.returningClause, scope, ctes);
  }

  #visitUpdate(update: UpdateStmt, parent: Scope | undefined, outerCtes: VisibleCte | undefined): void {
    const ctes = this.#visitWith(update.withClause, parent, outerCtes);
    const scope = newScope(undefined);
    assert(update.relation, 'UPDATE has a target');
    const slot = this.#addRelation(update.relation, scope, ctes, true).item.slot;
    for (const node of update.fromClause ?? []) this.#visitFrom(node, scope, ctes);
    if (slot) refuseKeyUpdate(update.targetList, slot.table);
    this.#bind(update.whereClause, scope, () => true);
    this.#visitExpressions([update.targetList, update.whereClause], scope, ctes);
    this.#visitReturning(update.returningClause, scope, ctes);
  }

  #visitDelete(statement: DeleteStmt, parent: Scope | undefined, outerCtes: VisibleCte | undefined): void {
    const ctes = this.#visitWith(statement.withClause, parent, outerCtes);
    const scope = newScope(undefined);
    assert(statement.relation, 'DELETE has a target');
    this.#addRelation(statement.relation, scope, ctes, true);
    for (const node of statement.usingClause ?? []) this.#visitFrom(node, scope, ctes);
    this.#bind(statement.whereClause, scope, () => true);
    this.#visitExpressions([statement.whereClause], scope, ctes);
    this.#visitReturning(statement.returningClause, scope, ctes);
  }

  #visitReturning(clause: ReturningClause | undefined, scope: Scope, ctes: VisibleCte | undefined): void {
    if (clause) this.#visitExpressions(clause.exprs, scope, ctes);
  }

  #visitFrom(node: Node, scope: Scope, ctes: VisibleCte | undefined): Side {
    if ('RangeVar' in node) return sideOf(this.#addRelation(node.RangeVar, scope, ctes, false).item);
    if ('JoinExpr' in node) return this.#visitJoin(node.JoinExpr, scope, ctes);
    if ('RangeTableSample' in node) {
      const sample = node.RangeTableSample;
      assert(sample.relation, 'TABLESAMPLE has a table');
      const side = this.#visitFrom(sample.relation, scope, ctes);
      this.#visitExpressions([sample.args, sample.repeatable], scope, ctes);
      return side;
    }
    let visibleName: string | undefined;
    if ('RangeSubselect' in node) {
      const { subquery, lateral, alias } = node.RangeSubselect;
      assert(subquery, 'a subquery in FROM has a query');
      this.visitStatement(subquery, lateral ? scope : scope.parent, ctes);
      visibleName = alias?.aliasname;
    } else {
      // Functions, XMLTABLE, JSON_TABLE: expressions, always lateral.
      this.#visitExpressions(node, scope, ctes);
      if ('RangeFunction' in node) visibleName = node.RangeFunction.alias?.aliasname;
    }
    const item: FromItem = { visibleName, slot: undefined };
    scope.items.push(item);
    return sideOf(item);
  }

  #visitJoin(join: JoinExpr, scope: Scope, ctes: VisibleCte | undefined): Side {
    assert(join.larg && join.rarg, 'a join has two sides');
    const left = this.#visitFrom(join.larg, scope, ctes);
    const right = this.#visitFrom(join.rarg, scope, ctes);
    const items = [...left.items, ...right.items];
    const someSlot = items.find((item) => item.slot)?.slot;
    if (join.alias && someSlot) {
      throw notUnderstood('an alias for a whole join', someSlot.table, 'Give the tables aliases instead.');
    }
    const merged = new Set([...left.merged, ...right.merged]);
    const natural = left.natural || right.natural || join.isNatural === true;
    const joinScope: Scope = { items, merged, natural, parent: scope.parent };
    const nullableLeft = join.jointype === 'JOIN_RIGHT' || join.jointype === 'JOIN_FULL';
    const nullableRight = join.jointype === 'JOIN_LEFT' || join.jointype === 'JOIN_FULL';
    // An outer join's ON filters the side that it may replace by NULLs, and a full join's ON filters neither.
    const bindLeft = join.jointype === 'JOIN_INNER' || join.jointype === 'JOIN_RIGHT';
    const bindRight = join.jointype === 'JOIN_INNER' || join.jointype === 'JOIN_LEFT';
    const leftSlots = new Set(left.items.map((item) => item.slot));
    this.#bind(join.quals, joinScope, (slot) => (leftSlots.has(slot) ? bindLeft : bindRight));
    for (const node of join.usingClause ?? []) {
      const column = 'String' in node ? (node.String.sval ?? '') : '';
      bindByUsing({ column, left: left.preserved, right: right.preserved, bindLeft, bindRight });
      merged.add(column);
      scope.merged.add(column);
    }
    if (join.isNatural) scope.natural = true;
    this.#visitExpressions(join.quals, joinScope, ctes);
    const preserved = [...(nullableLeft ? [] : left.preserved), ...(nullableRight ? [] : right.preserved)];
    return { items, preserved, merged, natural };
  }

  #bind(condition: Node | undefined, scope: Scope, mayBind: (slot: Slot) => boolean): void {
    const own = new Set(scope.items.map((item) => item.slot));
    const outcome = bindByCondition(condition, scope, (slot) => own.has(slot) && mayBind(slot));
    if (outcome.comparedWithExpression) this.#comparedWithExpression = true;
  }

  /** Registers a table of FROM, or the target of a statement, which is never a CTE. */
  #addRelation(rangeVar: RangeVar, scope: Scope, ctes: VisibleCte | undefined, isTarget: boolean) {
    this.#visited.add(rangeVar);
    const name = rangeVar.relname ?? '';
    const visibleName = rangeVar.alias?.aliasname ?? name;
    const other = { item: { visibleName, slot: undefined } as FromItem, nameEnd: -1 };
    const table = resolveRangeVar(this.#context, rangeVar);
    const isCte = !isTarget && rangeVar.schemaname === undefined && cteIsVisible(ctes, name);
    if (isCte || !table) {
      if (!isCte) this.#homeRelation ??= name;
      scope.items.push(other.item);
      return other;
    }
    const slot = newSlot(table, rangeVar);
    this.#slots.push(slot);
    const item: FromItem = { visibleName, slot };
    scope.items.push(item);
    return { item, nameEnd: this.#editTableName(rangeVar, table) };
  }

  /** Puts the leaf in the place of the name; says where the name ends. */
  #editTableName(rangeVar: RangeVar, table: ShardedTable): number {
    if (!rangeVar.inh) throw notUnderstood('ONLY', table, 'Leave ONLY out: the table has no children.');
    const start = rangeVar.location ?? -1;
    const parts = (rangeVar.catalogname ? 1 : 0) + (rangeVar.schemaname ? 1 : 0) + 1;
    const nameEnd =
      start < 0 || this.#isUnicodeEscaped(start) ? undefined : endOfName(this.#sql, start, parts);
    if (nameEnd === undefined) {
      throw notUnderstood('a name with Unicode escapes', table, 'Write the name in plain quotes.');
    }
    // The old `name *` says "and its children", which a leaf does not have.
    const next = nextToken(this.#sql, nameEnd);
    const end = isPunctuation(this.#sql, next, BYTE.star) ? next.end : nameEnd;
    const alias = rangeVar.alias ? undefined : table.name;
    this.#edits.push({ start, end, replacement: { kind: 'leaf', table, alias } });
    return end;
  }

  #isUnicodeEscaped(start: number): boolean {
    return this.#sql[start + 1] === 0x26;
  }

  /** ON CONFLICT ON CONSTRAINT name. */
  #editConstraint(name: string, location: number, table: ShardedTable): void {
    const on = nextToken(this.#sql, Math.max(location, 0));
    const constraint = nextToken(this.#sql, on.end);
    const token = nextToken(this.#sql, constraint.end);
    if (location < 0 || this.#isUnicodeEscaped(token.start)) {
      throw notUnderstood('this ON CONFLICT', table, 'Name the columns: ON CONFLICT (…).');
    }
    this.#edits.push({
      start: token.start,
      end: token.end,
      replacement: { kind: 'leafObject', table, name },
    });
  }

  /** Expressions: subqueries in them are query levels of their own, and column references may name a schema. */
  #visitExpressions(value: unknown, scope: Scope, ctes: VisibleCte | undefined): void {
    if (typeof value !== 'object' || value === null) return;
    if (Array.isArray(value)) {
      for (const item of value) this.#visitExpressions(item, scope, ctes);
      return;
    }
    for (const [key, child] of Object.entries(value)) {
      if (key === 'SelectStmt') this.#visitSelect(child as SelectStmt, scope, ctes);
      else if (key === 'ColumnRef') this.#visitColumn(child as ColumnRef, scope);
      else this.#visitExpressions(child, scope, ctes);
    }
  }

  /** `schema.table.column` loses its schema, since the leaf has an alias and an alias has none. */
  #visitColumn(reference: ColumnRef, scope: Scope): void {
    const names = columnNamesOf(reference);
    if (names && names.length < 3) return;
    const [schema, name] = names ?? [];
    if (schema === undefined || name === undefined) {
      // database.schema.table.column: only harmless if no sharded table is about.
      const table = this.#slots[0]?.table;
      if (table) throw notUnderstood('a column name with a database', table, 'Leave the database out.');
      return;
    }
    if (!this.#context.map.tables.get(schema)?.has(name)) return;
    for (let level: Scope | undefined = scope; level; level = level.parent) {
      const named = level.items.filter((item) => item.visibleName === name);
      const slot = named[0]?.slot;
      if (!named[0]) continue;
      if (named.length > 1 || !slot || slot.rangeVar.alias || slot.table.schema !== schema) {
        throw notSupported(
          `"${schema}.${name}" is not the only "${name}" in this statement`,
          'Give the tables aliases, and qualify columns with those.',
        );
      }
      this.#stripSchema(reference.location ?? -1, slot.table);
      return;
    }
  }

  #stripSchema(start: number, table: ShardedTable): void {
    if (start < 0 || this.#isUnicodeEscaped(start)) {
      throw notUnderstood('a name with Unicode escapes', table, 'Write the name in plain quotes.');
    }
    // One expression can be in the tree twice: UPDATE … SET (a, b) = (…).
    if (this.#strippedAt.has(start)) return;
    this.#strippedAt.add(start);
    const dot = nextToken(this.#sql, nextToken(this.#sql, start).end);
    this.#edits.push({ start, end: dot.end, replacement: { kind: 'text', text: '' } });
  }
}

function sideOf(item: FromItem): Side {
  return { items: [item], preserved: item.slot ? [item.slot] : [], merged: new Set(), natural: false };
}

function cteIsVisible(ctes: VisibleCte | undefined, name: string): boolean {
  for (let cte = ctes; cte; cte = cte.outer) if (cte.name === name) return true;
  return false;
}

function refuseKeyUpdate(targets: readonly Node[] | undefined, table: ShardedTable): void {
  for (const node of targets ?? []) {
    if ('ResTarget' in node && node.ResTarget.name === table.keyColumn) throw keyIsFixed(table);
  }
}

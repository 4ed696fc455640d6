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
import { notSupported, PosternError } from '../base/errors.ts';
import type { ShardedTable } from '../catalog/map.ts';
import type { StatementFacts } from '../sql/facts.ts';
import { BYTE, endOfName, isPunctuation, nextToken } from '../sql/scanner.ts';
import { bindByCondition, bindByUsing, slotIsBound } from './binding.ts';
import { type Cte, type VisibleCte, visibleCte } from './ctes.ts';
import { planInsert } from './insert.ts';
import { bindInsertSelect, isPlainValues } from './insert-select.ts';
import { newKeyOf, refuseKeyUpdate, refuseKeyUpdateOnConflict } from './key-update.ts';
import { placeByLookup } from './lookup-placement.ts';
import type { Edit, Placement, SuppliedId } from './plan.ts';
import { refuseLockOfReference, writesReferenceWithin } from './reference-refusal.ts';
import { mixedWithHome, noKey, notColocated, notUnderstood, refuseTableoid } from './refusal.ts';
import { type PlanContext, resolveRangeVar, resolveReferenceVar } from './resolve.ts';
import type { RowOfValues, Scatter } from './scatter.ts';
import { givesRowsOneByOne, planScatterRead, type ScatterRead } from './scatter-read.ts';
import { planScatterWrite, type TopWrite } from './scatter-write.ts';
import {
  columnNamesOf,
  type FromItem,
  keysOfQuery,
  NO_ROOTS,
  newScope,
  newSlot,
  type Scope,
  type Slot,
  slotsOf,
  type TableQuery,
} from './scope.ts';

export interface KeyedStatement {
  readonly placement: Placement;
  readonly edits: readonly Edit[];
  /** How a SELECT by itself is read instead, if it may. */
  readonly byLookup?: Placement | undefined;
}

/** One side of a join. */
interface Side {
  readonly items: readonly FromItem[];
  /** Uses that no outer join beneath can turn into NULLs. */
  readonly preserved: readonly Slot[];
  /** The same, and those in plain queries: each row is of one row of each of these. */
  readonly roots: readonly Slot[];
  readonly merged: ReadonlySet<string>;
  readonly natural: boolean;
}

/** One SELECT. */
interface SelectLevel {
  readonly scope: Scope;
  /** Uses of its FROM that no outer join can turn into NULLs. */
  readonly preserved: readonly Slot[];
  /** The same, and those in plain queries of FROM. */
  readonly roots: readonly Slot[];
}

/** Undefined: no sharded table is meant after all (CTEs and aliases have the name). Throws the refusal. */
export function planKeyed(options: {
  node: Node;
  facts: StatementFacts;
  sql: Uint8Array;
  /** The bytes of the statement in `sql`. */
  start: number;
  end: number;
  context: PlanContext;
}): KeyedStatement | undefined {
  const analysis = new KeyedAnalysis(options);
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
  readonly #node: Node;
  readonly #start: number;
  readonly #end: number;
  #homeRelation: string | undefined;
  #usesReference = false;
  #comparedWithExpression = false;
  /** The statement itself, if it writes a sharded table. */
  #write: TopWrite | undefined;
  /** The statement itself, if it is a SELECT. */
  #read: SelectLevel | undefined;
  readonly #ctes: Cte[] = [];

  constructor(options: {
    node: Node;
    sql: Uint8Array;
    start: number;
    end: number;
    context: PlanContext;
  }) {
    this.#node = options.node;
    this.#start = options.start;
    this.#end = options.end;
    this.#sql = options.sql;
    this.#context = options.context;
  }

  finish(facts: StatementFacts): KeyedStatement | undefined {
    for (const rangeVar of facts.rangeVars) {
      if (this.#visited.has(rangeVar)) continue;
      const table = resolveRangeVar(this.#context, rangeVar);
      if (table) throw notUnderstood('this form of statement', table, 'Write it without this clause.');
    }
    const first = this.#slots[0];
    if (!first) return undefined;
    // Array.prototype.sort is stable: several insertions at one place stay in order.
    const edits = eachOnce(this.#edits.sort((a, b) => a.start - b.start));
    const suppliedIds = this.#suppliedIds;
    const refusal = this.#refusalAsKeyed(first);
    if (refusal) {
      const scatter = this.#scatter(facts, edits, refusal);
      if (!scatter) throw refusal;
      const placement = { kind: 'scattered' as const, table: first.table, scatter, suppliedIds };
      return { placement, edits, byLookup: placeByLookup(this.#slots, scatter) };
    }
    const keys = [...this.#slots.flatMap((slot) => slot.sources), ...(this.#write?.newKeys ?? [])];
    const several = keys.length > 1 ? this.#scatter(facts, edits, undefined) : undefined;
    return { placement: { kind: 'keyed', table: first.table, keys, suppliedIds, several }, edits };
  }

  /** Why it can't be carried out on one bucket; undefined: it can, if all keys are of one. */
  #refusalAsKeyed(first: Slot): PosternError | undefined {
    if (this.#homeRelation !== undefined) return mixedWithHome(first.table, this.#homeRelation);
    for (const slot of this.#slots) {
      if (slot.table.colocationId !== first.table.colocationId) return notColocated(first.table, slot.table);
      if (!slotIsBound(slot)) return noKey(slot.table, this.#comparedWithExpression);
    }
    return this.#write?.isNotKeyed;
  }

  /** How it is carried out over several buckets. `refusal`: what it is refused with otherwise. */
  #scatter(
    facts: StatementFacts,
    edits: readonly Edit[],
    refusal: PosternError | undefined,
  ): Scatter | undefined {
    if ('SelectStmt' in this.#node) return this.#scatterRead(this.#node.SelectStmt, facts, edits, refusal);
    if (!this.#write) return undefined;
    return planScatterWrite({
      ...{ write: this.#write, facts, edits, refusal, slots: this.#slots },
      ...{ sql: this.#sql, start: this.#start, end: this.#end },
      usesHome: this.#homeRelation !== undefined || (this.#usesReference && movesRows(this.#write)),
    });
  }

  #scatterRead(
    select: SelectStmt,
    facts: StatementFacts,
    edits: readonly Edit[],
    refusal: PosternError | undefined,
  ): ScatterRead | undefined {
    const [first] = this.#slots;
    const isColocated = this.#slots.every((slot) => slot.table.colocationId === first!.table.colocationId);
    if (!this.#read || this.#homeRelation !== undefined || !isColocated) return undefined;
    // Read by two, its rows would be joined with those of other buckets.
    if (this.#ctes.some((cte) => cte.isSharded && cte.references !== 1)) return undefined;
    const { roots, scope } = this.#read;
    const input = {
      ...{ select, facts, edits, refusal, roots, scope, slots: this.#slots },
      ...{ sql: this.#sql, start: this.#start, end: this.#end, context: this.#context },
    };
    // If the keys may be of one bucket after all, a refusal waits until they are known.
    return refusal ? planScatterRead(input) : unlessRefused(() => planScatterRead(input));
  }

  visitStatement(node: Node, parent: Scope | undefined, ctes: VisibleCte | undefined): void {
    if ('SelectStmt' in node) {
      const level = this.#visitSelect(node.SelectStmt, parent, ctes);
      if (node === this.#node) this.#read = level;
    } else if ('InsertStmt' in node) this.#visitInsert(node.InsertStmt, parent, ctes);
    else if ('UpdateStmt' in node) this.#visitUpdate(node.UpdateStmt, parent, ctes);
    else if ('DeleteStmt' in node) this.#visitDelete(node.DeleteStmt, parent, ctes);
    // Anything else (MERGE) is not looked into: finish() refuses it if a sharded table is in it.
  }

  #visitWith(clause: WithClause | undefined, parent: Scope | undefined, outer: VisibleCte | undefined) {
    let visible = outer;
    const ctes = (clause?.ctes ?? []).flatMap((node) =>
      'CommonTableExpr' in node ? [node.CommonTableExpr] : [],
    );
    const known = ctes.map((): Cte => ({ roots: [], isSharded: false, references: 0 }));
    this.#ctes.push(...known);
    const show = (index: number) => {
      visible = { name: ctes[index]!.ctename ?? '', outer: visible, cte: known[index]! };
    };
    if (clause?.recursive) for (const index of ctes.keys()) show(index);
    for (const [index, { ctequery }] of ctes.entries()) {
      const slotsBefore = this.#slots.length;
      if (ctequery) known[index]!.roots = this.#visitTableQuery(ctequery, parent, visible).roots;
      known[index]!.isSharded = this.#slots.length > slotsBefore;
      if (!clause?.recursive) show(index);
    }
    return visible;
  }

  #visitSelect(
    select: SelectStmt,
    parent: Scope | undefined,
    outerCtes: VisibleCte | undefined,
  ): SelectLevel {
    const ctes = this.#visitWith(select.withClause, parent, outerCtes);
    const scope = newScope(parent);
    const preserved: Slot[] = [];
    const roots: Slot[] = [];
    if (select.larg && select.rarg) {
      this.#visitSelect(select.larg, parent, ctes);
      this.#visitSelect(select.rarg, parent, ctes);
    }
    for (const node of select.fromClause ?? []) {
      const side = this.#visitFrom(node, scope, ctes);
      preserved.push(...side.preserved);
      roots.push(...side.roots);
    }
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
    return { scope, preserved, roots };
  }

  /** A query that is read like a table. Gives the uses of whose rows each row of it is one, and which columns are their keys. */
  #visitTableQuery(query: Node, parent: Scope | undefined, ctes: VisibleCte | undefined): TableQuery {
    if (!('SelectStmt' in query)) {
      this.visitStatement(query, parent, ctes);
      return NO_ROOTS;
    }
    const { roots, scope } = this.#visitSelect(query.SelectStmt, parent, ctes);
    if (!givesRowsOneByOne(query.SelectStmt, this.#context)) return NO_ROOTS;
    return { roots, keys: keysOfQuery(query.SelectStmt, scope, roots) };
  }

  /** FOR UPDATE OF names are aliases of this level, which a leaf keeps. */
  #markLocked(node: Node): void {
    if (!('LockingClause' in node)) return;
    refuseLockOfReference(node.LockingClause, this.#usesReference);
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
    if (slot) this.#visitInserted({ insert, slot, nameEnd: target.nameEnd }, ctes);
    else if (insert.selectStmt) this.visitStatement(insert.selectStmt, undefined, ctes);
    const conflict = insert.onConflictClause;
    if (slot && conflict) {
      refuseKeyUpdateOnConflict(conflict.targetList, slot.table);
      if (conflict.infer?.conname) {
        this.#editConstraint(conflict.infer.conname, conflict.infer.location ?? -1, slot.table);
      }
    }
    this.#visitExpressions([conflict?.infer, conflict?.targetList, conflict?.whereClause], scope, ctes);
    this.#visitReturning(insert.returningClause, scope, ctes);
  }

  /** What is inserted into a sharded table. */
  #visitInserted(
    target: { insert: InsertStmt; slot: Slot; nameEnd: number },
    ctes: VisibleCte | undefined,
  ): void {
    const { insert, slot, nameEnd } = target;
    const isTop = 'InsertStmt' in this.#node && this.#node.InsertStmt === insert;
    const rows: RowOfValues[] = [];
    if (!insert.selectStmt || isPlainValues(insert.selectStmt)) {
      planInsert(
        { table: slot.table, statement: insert, sql: this.#sql, nameEnd, context: this.#context },
        { edits: this.#edits, suppliedIds: this.#suppliedIds, sources: slot.sources, rows },
      );
      if (insert.selectStmt) this.visitStatement(insert.selectStmt, undefined, ctes);
      if (isTop) this.#write = { kind: 'insertRows', slot, rows, insert };
      return;
    }
    assert('SelectStmt' in insert.selectStmt, 'INSERT takes its rows from a query');
    const select = insert.selectStmt.SelectStmt;
    const level = this.#visitSelect(select, undefined, ctes);
    const bound = bindInsertSelect({ slot, insert, select, scope: level.scope });
    if (!isTop) {
      if (bound.isNotKeyed) throw bound.isNotKeyed;
      return;
    }
    this.#write = {
      ...{ kind: 'insertSelect', slot, insert, select, nameEnd, ...bound },
      ...{ preserved: level.preserved, scope: level.scope },
    };
  }

  #visitUpdate(update: UpdateStmt, parent: Scope | undefined, outerCtes: VisibleCte | undefined): void {
    const ctes = this.#visitWith(update.withClause, parent, outerCtes);
    const scope = newScope(undefined);
    assert(update.relation, 'UPDATE has a target');
    const { item, nameEnd } = this.#addRelation(update.relation, scope, ctes, true);
    const { slot } = item;
    for (const node of update.fromClause ?? []) this.#visitFrom(node, scope, ctes);
    const isTop = 'UpdateStmt' in this.#node && this.#node.UpdateStmt === update;
    if (slot && isTop)
      this.#write = { kind: 'update', slot, update, nameEnd, ...newKeyOf(update, slot, scope) };
    else if (slot) refuseKeyUpdate(update.targetList, slot.table);
    this.#bind(update.whereClause, scope, () => true);
    this.#visitExpressions([update.targetList, update.whereClause], scope, ctes);
    this.#visitReturning(update.returningClause, scope, ctes);
  }

  #visitDelete(statement: DeleteStmt, parent: Scope | undefined, outerCtes: VisibleCte | undefined): void {
    const ctes = this.#visitWith(statement.withClause, parent, outerCtes);
    const scope = newScope(undefined);
    assert(statement.relation, 'DELETE has a target');
    const slot = this.#addRelation(statement.relation, scope, ctes, true).item.slot;
    const isTop = 'DeleteStmt' in this.#node && this.#node.DeleteStmt === statement;
    if (slot && isTop) this.#write = { kind: 'delete', slot, statement };
    for (const node of statement.usingClause ?? []) this.#visitFrom(node, scope, ctes);
    this.#bind(statement.whereClause, scope, () => true);
    this.#visitExpressions([statement.whereClause], scope, ctes);
    this.#visitReturning(statement.returningClause, scope, ctes);
  }

  #visitReturning(clause: ReturningClause | undefined, scope: Scope, ctes: VisibleCte | undefined): void {
    if (clause) this.#visitExpressions(clause.exprs, scope, ctes);
  }

  #visitFrom(node: Node, scope: Scope, ctes: VisibleCte | undefined): Side {
    if ('RangeVar' in node) {
      const { item, cte } = this.#addRelation(node.RangeVar, scope, ctes, false);
      return cte ? { ...sideOf(item), roots: cte.roots } : sideOf(item);
    }
    if ('JoinExpr' in node) return this.#visitJoin(node.JoinExpr, scope, ctes);
    if ('RangeTableSample' in node) {
      const sample = node.RangeTableSample;
      assert(sample.relation, 'TABLESAMPLE has a table');
      const side = this.#visitFrom(sample.relation, scope, ctes);
      this.#visitExpressions([sample.args, sample.repeatable], scope, ctes);
      return side;
    }
    let visibleName: string | undefined;
    let { roots, keys }: TableQuery = NO_ROOTS;
    if ('RangeSubselect' in node) {
      const { subquery, lateral, alias } = node.RangeSubselect;
      assert(subquery, 'a subquery in FROM has a query');
      ({ roots, keys } = this.#visitTableQuery(subquery, lateral ? scope : scope.parent, ctes));
      if (alias?.colnames) keys = undefined;
      visibleName = alias?.aliasname;
    } else {
      // Functions, XMLTABLE, JSON_TABLE: expressions, always lateral.
      this.#visitExpressions(node, scope, ctes);
      if ('RangeFunction' in node) visibleName = node.RangeFunction.alias?.aliasname;
    }
    const item: FromItem = { visibleName, slot: undefined, keys };
    scope.items.push(item);
    return { ...sideOf(item), roots };
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
    const leftSlots = new Set(left.items.flatMap(slotsOf));
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
    const roots = [...(nullableLeft ? [] : left.roots), ...(nullableRight ? [] : right.roots)];
    return { items, preserved, roots, merged, natural };
  }

  #bind(condition: Node | undefined, scope: Scope, mayBind: (slot: Slot) => boolean): void {
    const own = new Set(scope.items.flatMap(slotsOf));
    const outcome = bindByCondition(condition, scope, (slot) => own.has(slot) && mayBind(slot));
    if (outcome.comparedWithExpression) this.#comparedWithExpression = true;
  }

  /** Registers a table of FROM, or the target of a statement, which is never a CTE. */
  #addRelation(rangeVar: RangeVar, scope: Scope, ctes: VisibleCte | undefined, isTarget: boolean) {
    this.#visited.add(rangeVar);
    const name = rangeVar.relname ?? '';
    const visibleName = rangeVar.alias?.aliasname ?? name;
    const cte = isTarget || rangeVar.schemaname !== undefined ? undefined : visibleCte(ctes, name);
    const other = { item: { visibleName, slot: undefined } as FromItem, nameEnd: -1, cte };
    if (cte) cte.references++;
    const table = resolveRangeVar(this.#context, rangeVar);
    if (cte || !table) {
      if (!cte) this.#noteOther(rangeVar, isTarget);
      scope.items.push(other.item);
      return other;
    }
    const slot = newSlot(table, rangeVar);
    this.#slots.push(slot);
    const item: FromItem = { visibleName, slot };
    scope.items.push(item);
    return { item, nameEnd: this.#editTableName(rangeVar, table), cte: undefined };
  }

  /** A reference table is on the bucket's node too, under its own name; it is written to on all nodes, and so not from here. */
  #noteOther(rangeVar: RangeVar, isTarget: boolean): void {
    const reference = resolveReferenceVar(this.#context, rangeVar);
    if (!reference) this.#homeRelation ??= rangeVar.relname ?? '';
    else if (isTarget) throw writesReferenceWithin(reference);
    else this.#usesReference = true;
  }

  /** Puts the leaf in the place of the name; says where the name ends. */
  #editTableName(rangeVar: RangeVar, table: ShardedTable): number {
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
    // `TABLE name` takes no alias.
    const before = Buffer.from(this.#sql.buffer, this.#sql.byteOffset, start).toString('latin1');
    if (!rangeVar.inh) {
      // It has no children, and what is put in may be no table.
      const only = /\bonly\s+$/i.exec(before);
      if (!only) throw notUnderstood('ONLY ( … )', table, 'Leave ONLY out: the table has no children.');
      this.#editText(only.index, start, '');
    }
    const command = /\btable\s+$/i.exec(before);
    if (command) this.#editText(command.index, start, 'SELECT * FROM ');
    this.#edits.push({ start, end, replacement: { kind: 'leaf', table, alias } });
    return end;
  }

  #editText(start: number, end: number, text: string): void {
    this.#edits.push({ start, end, replacement: { kind: 'text', text } });
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
    if (names?.at(-1) === 'tableoid') refuseTableoid(this.#slots[0]?.table);
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
    this.#editText(start, dot.end, '');
  }
}

/** UPDATE … SET (a, b) = (SELECT …) has the query in its tree once for each column. */
function eachOnce(sorted: readonly Edit[]): Edit[] {
  return sorted.filter(({ start, end }, index) => {
    const before = sorted[index - 1];
    return start === end || before?.start !== start || before.end !== end;
  });
}

/** Rows that move are found with the tables of one bucket, and put into another. */
function movesRows(write: TopWrite): boolean {
  return write.kind === 'update' && write.setsKey;
}

function sideOf(item: FromItem): Side {
  const slots = item.slot ? [item.slot] : [];
  return { items: [item], preserved: slots, roots: slots, merged: new Set(), natural: false };
}

function unlessRefused<T>(make: () => T): T | undefined {
  try {
    return make();
  } catch (error) {
    if (error instanceof PosternError) return undefined;
    throw error;
  }
}

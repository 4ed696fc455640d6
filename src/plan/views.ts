/**
 * Views that read sharded tables: on the servers they read the empty faces, so a statement gets the view's query in the place of its
 * name, as a subquery, before it is planned. What results is planned as any other text.
 *
 * Such a query runs with the rights of the role that sends it, as a view with security_invoker does.
 *
 * Invariant: a name is taken for a view only where PostgreSQL takes it for one: not where a CTE of that name is visible.
 */
import type { ColumnRef, Node, RangeVar } from '@pgsql/types';
import { assert } from '../base/assert.ts';
import { notSupported } from '../base/errors.ts';
import type { ShardedView } from '../catalog/map.ts';
import { quoteIdentifier } from '../pg/identifier.ts';
import { BYTE, endOfName, isPunctuation, nextToken } from '../sql/scanner.ts';
import { type PlanContext, resolveView } from './resolve.ts';
import { columnNamesOf } from './scope.ts';

interface Replacement {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** Statements that read; DDL names views to change them. */
const READING = [
  'SelectStmt',
  'InsertStmt',
  'UpdateStmt',
  'DeleteStmt',
  'MergeStmt',
  'ExplainStmt',
  'DeclareCursorStmt',
  'CopyStmt',
  'CreateTableAsStmt',
  'PrepareStmt',
];
const WRITING = ['InsertStmt', 'UpdateStmt', 'DeleteStmt', 'MergeStmt'];

interface StatementText {
  readonly node: Node;
  readonly sql: Uint8Array;
  readonly start: number;
  readonly end: number;
}

/** The text of the statement with the views' queries put in; undefined: it reads none. */
export function withViews(
  { node, sql, start, end }: StatementText,
  context: PlanContext,
): string | undefined {
  const replacements = replacementsIn(node, sql, context);
  if (replacements.length === 0) return undefined;
  const slice = (from: number, to: number) =>
    Buffer.from(sql.buffer, sql.byteOffset + from, to - from).toString('utf8');
  let text = '';
  let at = start;
  for (const replacement of replacements) {
    // UPDATE … SET (a, b) = (SELECT …) has the query in its tree once for each column.
    if (replacement.start < at) continue;
    text += slice(at, replacement.start) + replacement.text;
    at = replacement.end;
  }
  return text + slice(at, end);
}

/** In order. Throws the refusal of a use that can't be replaced. */
function replacementsIn(node: Node, sql: Uint8Array, context: PlanContext): readonly Replacement[] {
  if (context.map.viewsByName.size === 0 || !READING.some((kind) => kind in node)) return [];
  const uses = new ViewUses(sql, context);
  uses.visit(node, NO_CTES);
  return uses.replacements.sort((a, b) => a.start - b.start);
}

/** Throws if the statement writes through a view, or names one in a way that is not understood. */
export function refuseUsesOfViews({ node, sql }: StatementText, context: PlanContext): void {
  if (context.map.viewsByName.size === 0) return;
  refuseTargets(node, context);
  replacementsIn(node, sql, context);
}

function refuseTargets(tree: unknown, context: PlanContext): void {
  if (typeof tree !== 'object' || tree === null) return;
  for (const [key, child] of Object.entries(tree)) {
    if (WRITING.includes(key)) refuseTarget(child as { relation?: RangeVar }, context);
    refuseTargets(child, context);
  }
}

function refuseTarget({ relation }: { readonly relation?: RangeVar }, context: PlanContext): void {
  const view = relation && resolveView(context, relation);
  if (!view) return;
  throw notSupported(
    `writing through view "${view.schema}.${view.name}", which reads sharded tables, is not supported`,
    'Write to the table itself.',
  );
}

type Tree = { readonly [key: string]: unknown };
const NO_CTES: ReadonlySet<string> = new Set();

class ViewUses {
  readonly replacements: Replacement[] = [];
  readonly #sql: Uint8Array;
  readonly #context: PlanContext;

  constructor(sql: Uint8Array, context: PlanContext) {
    this.#sql = sql;
    this.#context = context;
  }

  /** `ctes`: the names that are CTEs here. */
  visit(tree: unknown, ctes: ReadonlySet<string>): void {
    if (typeof tree !== 'object' || tree === null) return;
    if (Array.isArray(tree)) {
      for (const item of tree) this.visit(item, ctes);
      return;
    }
    const fields = tree as Tree;
    if (typeof fields.relname === 'string') this.#use(fields as RangeVar, ctes);
    const visible = this.#visitWith(fields.withClause, ctes);
    for (const [key, child] of Object.entries(fields)) {
      // Names of aliases.
      if (key === 'withClause' || key === 'lockedRels') continue;
      if (key === 'ColumnRef') this.#stripSchema(child as ColumnRef);
      else this.visit(child, visible);
    }
  }

  #visitWith(clause: unknown, outer: ReadonlySet<string>): ReadonlySet<string> {
    const { ctes = [], recursive = false } = (clause ?? {}) as {
      ctes?: readonly Node[];
      recursive?: boolean;
    };
    if (ctes.length === 0) return outer;
    const names = ctes.map((node) => ('CommonTableExpr' in node ? (node.CommonTableExpr.ctename ?? '') : ''));
    const visible = new Set([...outer, ...(recursive ? names : [])]);
    for (const [index, cte] of ctes.entries()) {
      this.visit(cte, new Set(visible));
      visible.add(names[index]!);
    }
    return visible;
  }

  #use(rangeVar: RangeVar, ctes: ReadonlySet<string>): void {
    const { schemaname, relname = '', alias } = rangeVar;
    if (schemaname === undefined && ctes.has(relname)) return;
    const view = resolveView(this.#context, rangeVar);
    if (!view) return;
    const start = rangeVar.location ?? -1;
    const parts = 1 + (schemaname ? 1 : 0) + (rangeVar.catalogname ? 1 : 0);
    const nameEnd =
      start < 0 || this.#sql[start + 1] === 0x26 ? undefined : endOfName(this.#sql, start, parts);
    if (nameEnd === undefined || !rangeVar.inh) throw spelledOddly(view);
    const next = nextToken(this.#sql, nameEnd);
    const end = isPunctuation(this.#sql, next, BYTE.star) ? next.end : nameEnd;
    const query = `(${plainQuery(view)})${alias ? '' : ` AS ${quoteIdentifier(relname)}`}`;
    const before = Buffer.from(this.#sql.buffer, this.#sql.byteOffset, start).toString('latin1');
    // `TABLE name` takes no subquery.
    const command = /\btable\s+$/i.exec(before);
    if (command) this.replacements.push({ start: command.index, end, text: `SELECT * FROM ${query}` });
    else this.replacements.push({ start, end, text: query });
  }

  /** `schema.view.column`: the subquery's alias has no schema. */
  #stripSchema(reference: ColumnRef): void {
    const names = columnNamesOf(reference);
    if (names?.length !== 3 || !this.#context.map.views.get(names[0]!)?.has(names[1]!)) return;
    const start = reference.location ?? -1;
    assert(start >= 0, 'a column reference has a place');
    const dot = nextToken(this.#sql, nextToken(this.#sql, start).end);
    this.replacements.push({ start, end: dot.end, text: '' });
  }
}

/** Without the semicolon at its end. */
function plainQuery({ query }: ShardedView): string {
  return query.trim().replace(/;$/, '');
}

function spelledOddly(view: ShardedView) {
  return notSupported(
    `this way to name view "${view.schema}.${view.name}", which reads sharded tables, is not supported`,
    'Write its name plainly, without ONLY and Unicode escapes.',
  );
}

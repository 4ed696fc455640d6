/**
 * DO blocks that migration tools write around one DDL statement, since PostgreSQL has no IF NOT EXISTS for it. The statement is
 * carried out over the nodes, as it would be by itself; another block runs on the home node, and can make nothing on others.
 *
 *   DO $$ BEGIN statement; EXCEPTION WHEN duplicate_object THEN null; END $$
 *   DO $$ BEGIN IF NOT EXISTS (SELECT …) THEN statement; END IF; END $$
 */
import type { DoStmt } from '@pgsql/types';
import type { DdlChange } from './ddl/change.ts';
import type { QueryPlan, StatementPlan } from './plan.ts';
import type { PlanParts } from './query.ts';

/** The conditions of PL/pgSQL that say that something is there already. */
const DUPLICATES: Readonly<Record<string, string>> = {
  duplicate_object: '42710',
  duplicate_table: '42P07',
  duplicate_column: '42701',
  duplicate_schema: '42P06',
  duplicate_function: '42723',
  unique_violation: '23505',
};

const WITH_EXCEPTION =
  /^\s*begin\s+([^;]+);\s*exception\s+((?:when\s+[a-z_]+(?:\s+or\s+[a-z_]+)*\s+then\s+(?:null|raise\s+notice[^;]*)\s*;\s*)+)end\s*;?\s*$/i;
const CONDITIONS = /when\s+([a-z_]+(?:\s+or\s+[a-z_]+)*)\s+then/gi;
const IF_NOT_EXISTS =
  /^\s*begin\s+if\s+not\s+exists\s*\(([^;]+)\)\s*then\s+([^;]+);\s*end\s+if\s*;\s*end\s*;?\s*$/i;

/** Undefined: it is another block, or its statement is none for all nodes. */
export function planDoBlock(statement: DoStmt, planText: (text: string) => QueryPlan): PlanParts | undefined {
  const body = bodyOf(statement);
  if (body === undefined) return undefined;
  const guarded = WITH_EXCEPTION.exec(body);
  if (guarded) {
    const states = statesOf(guarded[2]!);
    const inner = states && ddlOf(guarded[1]!, planText);
    return inner && partsOf(inner.statement, { ...inner.change, tag: 'DO', forgives: states });
  }
  const conditional = IF_NOT_EXISTS.exec(body);
  if (!conditional) return undefined;
  const [condition] = planText(conditional[1]!).statements;
  if (condition?.placement.kind !== 'home' || !condition.readOnly || condition.refusal) return undefined;
  const inner = ddlOf(conditional[2]!, planText);
  if (!inner) return undefined;
  const { change } = inner;
  const question = { text: `SELECT EXISTS (${conditional[1]})::pg_catalog.text`, nodeId: undefined };
  return partsOf(inner.statement, {
    ...change,
    tag: 'DO',
    questions: [question, ...change.questions],
    steps: ([isThere, ...answers]) => (isThere?.[0]?.[0] === 'true' ? [] : change.steps(answers)),
  });
}

/** In PL/pgSQL. */
function bodyOf({ args = [] }: DoStmt): string | undefined {
  let body: string | undefined;
  for (const node of args) {
    if (!('DefElem' in node)) return undefined;
    const { defname, arg } = node.DefElem;
    const value = arg && 'String' in arg ? (arg.String.sval ?? '') : undefined;
    if (defname === 'as') body = value;
    else if (defname !== 'language' || value !== 'plpgsql') return undefined;
  }
  return body;
}

/** Undefined: one of them means more than that something is there. */
function statesOf(handlers: string): string[] | undefined {
  const states: string[] = [];
  for (const [, conditions = ''] of handlers.matchAll(CONDITIONS)) {
    for (const name of conditions.toLowerCase().split(/\s+or\s+/)) {
      const state = DUPLICATES[name];
      if (state === undefined) return undefined;
      states.push(state);
    }
  }
  return states;
}

function ddlOf(
  text: string,
  planText: (text: string) => QueryPlan,
): { statement: StatementPlan; change: DdlChange } | undefined {
  const { statements } = planText(text);
  const [only, second] = statements;
  if (only?.refusal) throw only.refusal;
  if (second || only?.placement.kind !== 'everywhere' || only.placement.change.mode !== 'transaction')
    return undefined;
  return { statement: only, change: only.placement.change };
}

function partsOf({ effects }: StatementPlan, change: DdlChange): PlanParts {
  return { placement: { kind: 'everywhere', change }, effects };
}

/**
 * DDL of views that read sharded tables (plan/views.ts): home makes them over the faces, and the map is read again. Reading one behind the
 * router's back is refused by the server, as faces have no privileges.
 */
import type { AlterTableStmt, DropStmt, RangeVar, RenameStmt, ViewStmt } from '@pgsql/types';
import { notSupported } from '../../base/errors.ts';
import type { ShardedTable } from '../../catalog/map.ts';
import { stringsOf } from '../../sql/facts.ts';
import type { PlanParts, Request } from '../query.ts';
import { nameOf } from '../refusal.ts';
import { resolveRangeVar, resolveView } from '../resolve.ts';
import { refuseShadowing } from '../utility.ts';
import { changeAfter, changeOf, type DdlAnswer, type DdlQuestion, type DdlStep } from './change.ts';
import { oidOf } from './constraints.ts';
import { everywhere } from './placement.ts';
import { StatementText } from './statement-text.ts';

const TOUCH: DdlStep = { kind: 'catalog', change: { kind: 'touch' } };

/** Undefined: the view has nothing to do with sharded tables. */
export function planCreateView(statement: ViewStmt, request: Request): PlanParts | undefined {
  const { context, facts } = request;
  const { view } = statement;
  const others = facts.rangeVars.filter((rangeVar) => rangeVar !== view);
  const tables = others.flatMap((rangeVar) => resolveRangeVar(context, rangeVar) ?? []);
  const reads = tables.length > 0 || others.some((rangeVar) => resolveView(context, rangeVar));
  const replaces = statement.replace && view !== undefined && resolveView(context, view) !== undefined;
  if (!view || (!reads && !replaces)) return undefined;
  if (reads && (view.relpersistence === 't' || view.schemaname?.startsWith('pg_temp'))) {
    throw notSupported(
      'a temporary view that reads sharded tables is not supported',
      'Create it without TEMPORARY, or put its query into WITH.',
    );
  }
  refuseShadowing(view, context);
  const steps: DdlStep[] = [{ kind: 'text', nodes: 'home', text: new StatementText(request).whole }, TOUCH];
  if (saysInvoker(statement)) return everywhere(changeOf(steps, { tag: 'CREATE VIEW' }));
  const questions = tables.map(rowSecurityOf);
  const checked = (answers: readonly DdlAnswer[]) => {
    for (const [index, answer] of answers.entries())
      if (answer.length > 0) throw withRowSecurity(tables[index]!);
    return steps;
  };
  return everywhere(changeAfter(questions, checked, { tag: 'CREATE VIEW' }));
}

function saysInvoker({ options }: ViewStmt): boolean {
  return (options ?? []).some((node) => {
    if (!('DefElem' in node) || node.DefElem.defname !== 'security_invoker') return false;
    const { arg } = node.DefElem;
    const word = arg && 'String' in arg ? arg.String.sval : undefined;
    if (arg && 'Integer' in arg) return arg.Integer.ival === 1;
    return arg === undefined || ['true', 'on', 'yes', '1'].includes((word ?? '').toLowerCase());
  });
}

function rowSecurityOf({ schema, name }: ShardedTable): DdlQuestion {
  const text = `SELECT 'yes' FROM pg_catalog.pg_class c WHERE c.oid = ${oidOf(schema, name)} AND c.relrowsecurity`;
  return { text, nodeId: undefined };
}

function withRowSecurity(table: ShardedTable) {
  return notSupported(
    `a view with its owner's rights over sharded table ${nameOf(table)}, which has row-level security, is not supported`,
    'Create it WITH (security_invoker = true): it is read with the rights of the role that reads it.',
  );
}

/** DROP VIEW. */
export function planDropView({ objects }: DropStmt, request: Request): PlanParts | undefined {
  const names = (objects ?? []).map((node) => ('List' in node ? (stringsOf(node.List.items) ?? []) : []));
  const some = names.some((list) => {
    const [relname = '', schemaname] = [...list].reverse();
    return resolveView(request.context, { relname, ...(schemaname !== undefined && { schemaname }) });
  });
  return some ? onHome(request, 'DROP VIEW') : undefined;
}

/** RENAME, SET SCHEMA and all forms of ALTER VIEW. */
export function planAlterView(
  { relation }: Pick<AlterTableStmt | RenameStmt, 'relation'>,
  request: Request,
): PlanParts | undefined {
  return relation && resolveView(request.context, relation as RangeVar)
    ? onHome(request, undefined)
    : undefined;
}

/** What else may drop such views, or change them: the map is read again. */
export function onHome(request: Request, tag: string | undefined): PlanParts {
  return everywhere(
    changeOf([{ kind: 'text', nodes: 'home', text: new StatementText(request).whole }, TOUCH], { tag }),
  );
}

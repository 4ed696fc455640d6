/**
 * The views of information_schema and pg_catalog over what is shown otherwise than it is: PostgreSQL's own definitions, as the
 * server at hand prints them, with the planner's own replacements made in them. So they are right for its version.
 */
import { assert } from '../base/assert.ts';
import { SHOWN_SCHEMA } from '../catalog/map.ts';
import { shownEdits } from '../plan/introspection.ts';
import type { Edit } from '../plan/plan.ts';
import type { ShownCatalogs } from '../plan/resolve.ts';
import { collectFacts, type StatementFacts, stringsOf } from '../sql/facts.ts';
import { parseSql } from '../sql/parser.ts';
import { endOfName } from '../sql/scanner.ts';

export interface ServersView {
  readonly schema: 'pg_catalog' | 'information_schema';
  readonly name: string;
  /** As pg_get_viewdef() prints it with search_path pg_catalog. */
  readonly definition: string;
}

interface ParsedView extends ServersView {
  readonly facts: StatementFacts;
  /** `schema.name` of each relation in it. */
  readonly reads: ReadonlySet<string>;
}

/** Those that lead to something of `shown`, at whatever distance: in an order in which they can be made, with what makes each. */
export function deriveViews(
  views: readonly ServersView[],
  shown: ShownCatalogs,
): readonly { readonly view: ServersView; readonly create: string }[] {
  const parsed = views.map(parseView);
  const derived = new Set<ParsedView>();
  for (let grows = true; grows; ) {
    const known = new Set([...derived].map(keyOf));
    const found = parsed.filter((view) => !derived.has(view) && leadsTo(view, shown, known));
    for (const view of found) derived.add(view);
    grows = found.length > 0;
  }
  const all = withViews(shown, [...derived]);
  return inOrder([...derived]).map((view) => ({ view, create: createView(view, all) }));
}

function keyOf({ schema, name }: ServersView): string {
  return `${schema}.${name}`;
}

function parseView(view: ServersView): ParsedView {
  const outcome = parseSql(view.definition);
  assert(outcome.kind === 'parsed' && outcome.statements.length === 1, `view ${view.name} can be read`);
  const facts = collectFacts(outcome.statements[0]!.node);
  const reads = facts.rangeVars.map(({ schemaname, relname }) => `${schemaname ?? 'pg_catalog'}.${relname}`);
  return { ...view, facts, reads: new Set(reads) };
}

function leadsTo({ facts, reads }: ParsedView, shown: ShownCatalogs, views: ReadonlySet<string>): boolean {
  const callsShown = facts.functionCalls.some(({ funcname }) => {
    const last = funcname?.at(-1);
    return last !== undefined && 'String' in last && shown.functions.has(last.String.sval ?? '');
  });
  return callsShown || [...reads].some((name) => views.has(name) || isShown(name, shown));
}

function isShown(name: string, { relations, information }: ShownCatalogs): boolean {
  const [schema = '', relation = ''] = name.split('.');
  return (schema === 'pg_catalog' ? relations : information).has(relation);
}

export function withViews(shown: ShownCatalogs, views: readonly ServersView[]): ShownCatalogs {
  const namesOf = (schema: string) => views.filter((view) => view.schema === schema).map(({ name }) => name);
  return {
    ...shown,
    relations: new Set([...shown.relations, ...namesOf('pg_catalog')]),
    information: new Set([...shown.information, ...namesOf('information_schema')]),
  };
}

/** What others read comes before them. */
function inOrder(views: readonly ParsedView[]): ParsedView[] {
  const ordered: ParsedView[] = [];
  let waiting = [...views];
  while (waiting.length > 0) {
    const names = new Set(waiting.map(keyOf));
    const ready = waiting.filter((view) => ![...view.reads].some((name) => names.has(name)));
    assert(ready.length > 0, 'views do not read one another in a circle');
    ordered.push(...ready);
    waiting = waiting.filter((view) => !ready.includes(view));
  }
  return ordered;
}

function createView(view: ParsedView, shown: ShownCatalogs): string {
  const outcome = parseSql(view.definition);
  assert(outcome.kind === 'parsed', 'it was read before');
  const sql = Buffer.from(view.definition);
  const { node } = outcome.statements[0]!;
  const edits = [
    ...shownEdits({ node, facts: view.facts, sql, searchPath: ['pg_catalog'], shown }),
    ...roleEdits(view.facts, sql),
    ...rowFunctionEdits(view.facts, sql),
  ].sort((one, other) => one.start - other.start);
  let text = '';
  let at = 0;
  for (const { start, end, replacement } of edits) {
    assert(replacement.kind === 'text' && start >= at, 'edits are in order and apart');
    text += sql.toString('utf8', at, start) + replacement.text;
    at = end;
  }
  text += sql.toString('utf8', at).replace(/;\s*$/, '');
  return `CREATE VIEW ${SHOWN_SCHEMA}.${view.name} AS ${text}`;
}

/** Only superusers may read pg_authid, and the views that name it want no more of it than the names of roles. */
function roleEdits({ rangeVars }: StatementFacts, sql: Uint8Array): Edit[] {
  return rangeVars.flatMap(({ relname, schemaname, location = 0, alias }) => {
    const end = endOfName(sql, location, schemaname === undefined ? 1 : 2);
    if (relname !== 'pg_authid' || end === undefined) return [];
    const text = `pg_catalog.pg_roles${alias ? '' : ' AS pg_authid'}`;
    return [{ start: location, end, replacement: { kind: 'text', text } as const }];
  });
}

/** Functions of information_schema that take rows of catalogs, and these are rows of views. */
export const ROW_FUNCTIONS = `
CREATE FUNCTION ${SHOWN_SCHEMA}._pg_truetypid(${SHOWN_SCHEMA}.pg_attribute, ${SHOWN_SCHEMA}.pg_type) RETURNS oid
  LANGUAGE sql IMMUTABLE RETURN CASE WHEN ($2).typtype = 'd' THEN ($2).typbasetype ELSE ($1).atttypid END;
CREATE FUNCTION ${SHOWN_SCHEMA}._pg_truetypmod(${SHOWN_SCHEMA}.pg_attribute, ${SHOWN_SCHEMA}.pg_type) RETURNS int4
  LANGUAGE sql IMMUTABLE RETURN CASE WHEN ($2).typtype = 'd' THEN ($2).typtypmod ELSE ($1).atttypmod END`;

function rowFunctionEdits({ functionCalls }: StatementFacts, sql: Uint8Array): Edit[] {
  return functionCalls.flatMap(({ funcname, location = 0 }) => {
    const [schema, name = ''] = stringsOf(funcname) ?? [];
    const end = endOfName(sql, location, 2);
    if (schema !== 'information_schema' || !/^_pg_truetyp(id|mod)$/.test(name) || end === undefined)
      return [];
    return [
      { start: location, end, replacement: { kind: 'text', text: `${SHOWN_SCHEMA}.${name}` } as const },
    ];
  });
}

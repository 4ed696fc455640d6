/**
 * PostgreSQL's catalogs as the user should see them: where a query reads a system catalog, a view of schema `postern_shown` is
 * put into its text (introspect/, which makes those views on the home node); and for a few functions about relations, one of the
 * same name from there. What is not understood stays as it is, and shows the home node's own catalog.
 *
 * Invariant: only what is read is replaced: never the target of a write or of DDL, and nothing inside the definition of a view or
 * function, which would keep the other name.
 * Invariant: a name is replaced only where PostgreSQL would find the catalog by it. (A user's own relation with a catalog's name
 * is the one exception: in a schema before an explicit pg_catalog in search_path, or a temporary one.)
 */
import type { ColumnRef, FuncCall, Node, RangeVar } from '@pgsql/types';
import { SHOWN_SCHEMA } from '../catalog/map.ts';
import { type StatementFacts, stringsOf } from '../sql/facts.ts';
import { endOfName } from '../sql/scanner.ts';
import type { Edit } from './plan.ts';
import type { ShownCatalogs } from './resolve.ts';

/**
 * The view with the columns that every table has and a view has not. They would be part of `*`, so it is used where they are
 * named.
 */
export function withSystemColumns(catalog: string): string {
  return `${catalog}_with_tableoid`;
}

export interface IntrospectionRequest {
  readonly node: Node;
  readonly facts: StatementFacts;
  /** The whole query string in UTF-8. */
  readonly sql: Uint8Array;
  readonly searchPath: readonly string[];
  readonly shown: ShownCatalogs;
}

/** Statements that read, whatever else they do. */
const READING = [
  ...['SelectStmt', 'InsertStmt', 'UpdateStmt', 'DeleteStmt', 'MergeStmt'],
  ...['DeclareCursorStmt', 'PrepareStmt', 'CopyStmt', 'CreateTableAsStmt'],
];
const NO_VIEW_HAS = ['ctid', 'cmin', 'cmax', 'xmax'];

/** In order and apart; none if the statement reads no catalog, or not in a way that is understood. */
export function shownEdits(request: IntrospectionRequest): Edit[] {
  const { node, facts } = request;
  if (!READING.some((kind) => kind in node) || facts.kinds.has('LockingClause')) return [];
  if ('CreateTableAsStmt' in node && node.CreateTableAsStmt.objtype !== 'OBJECT_TABLE') return [];
  const edits = facts.functionCalls.flatMap((call) => functionEdit(call, request));
  // Most statements name none, and need no second walk.
  if (facts.rangeVars.some((rangeVar) => catalogOf(rangeVar, request, NO_CTES))) {
    if (NO_VIEW_HAS.some((name) => facts.names.has(name))) return [];
    const system = facts.names.has('tableoid') || facts.names.has('xmin');
    const reads: Reads = { relations: [], columns: [], ctes: new Set() };
    collectReads(node as Tree, reads);
    for (const rangeVar of reads.relations) {
      const name = catalogOf(rangeVar, request, reads.ctes);
      if (name === undefined) continue;
      // ONLY can't stand before a query.
      if (rangeVar.inh !== true) return [];
      const parts = 1 + (rangeVar.schemaname ? 1 : 0) + (rangeVar.catalogname ? 1 : 0);
      const text = `${relationText(name, system, request)}${rangeVar.alias ? '' : ` AS ${name}`}`;
      edits.push(...edit(request, rangeVar.location, parts, text));
    }
    edits.push(...reads.columns.flatMap((column) => columnEdit(column, request)));
  }
  return edits.sort((one, other) => one.start - other.start);
}

/** As pg_dump and psql write operators: so pg_dump asks for what its options name, by the user's search_path. */
const QUALIFIED_OPERATOR = 'OPERATOR(pg_catalog.';

/**
 * pg_dump has no views but PostgreSQL's own read to it: the query itself is put in. It is told by its empty search_path, and then
 * by what is no part of a dump.
 */
function relationText(
  name: string,
  system: boolean,
  { shown, searchPath, sql }: IntrospectionRequest,
): string {
  const table = shown.tables.get(name);
  if (!table) return `${SHOWN_SCHEMA}.${name}`;
  if (searchPath.length === 0) return `(${system ? table.dumpedWithSystemColumns : table.dumped})`;
  if (Buffer.from(sql.buffer, sql.byteOffset, sql.byteLength).includes(QUALIFIED_OPERATOR))
    return `(${system ? table.shownWithSystemColumns : table.shown})`;
  return `${SHOWN_SCHEMA}.${system ? withSystemColumns(name) : name}`;
}

const NO_CTES: ReadonlySet<string> = new Set();

/** The catalog that is meant, if it is one that is shown otherwise than it is. */
function catalogOf(
  { schemaname, relname = '' }: RangeVar,
  { searchPath, shown }: IntrospectionRequest,
  ctes: ReadonlySet<string>,
): string | undefined {
  const isRelation = shown.relations.has(relname);
  const isInformation = shown.information.has(relname);
  if (!isRelation && !isInformation) return undefined;
  if (schemaname === 'pg_catalog') return isRelation ? relname : undefined;
  if (schemaname === 'information_schema') return isInformation ? relname : undefined;
  if (schemaname !== undefined || ctes.has(relname)) return undefined;
  if (isRelation) return relname;
  const first = searchPath.find((schema) => schema !== 'pg_catalog');
  return first === 'information_schema' ? relname : undefined;
}

function functionEdit(call: FuncCall, request: IntrospectionRequest): Edit[] {
  const names = stringsOf(call.funcname) ?? [];
  const name = names.at(-1) ?? '';
  if (!request.shown.functions.has(name)) return [];
  if (names.length > 2 || (names.length === 2 && names[0] !== 'pg_catalog')) return [];
  return edit(request, call.location, names.length, `${SHOWN_SCHEMA}.${name}`);
}

/** `pg_catalog.pg_class.relname`: the schema's name is none of the view's. */
function columnEdit(column: ColumnRef, request: IntrospectionRequest): Edit[] {
  const fields = column.fields ?? [];
  const names = stringsOf(fields.slice(0, 2)) ?? [];
  const [schemaname, relname] = names;
  if (fields.length !== 3 || schemaname === undefined || relname === undefined) return [];
  const name = catalogOf({ schemaname, relname }, request, NO_CTES);
  return name === undefined ? [] : edit(request, column.location, 2, name);
}

/** None where the name can't be found in the text, which then stays as it is. */
function edit({ sql }: IntrospectionRequest, start: number | undefined, parts: number, text: string): Edit[] {
  // A location of 0 is left out of the tree, and no name that can be replaced is at the start of a text.
  const end = start === undefined ? undefined : endOfName(sql, start, parts);
  return start === undefined || end === undefined
    ? []
    : [{ start, end, replacement: { kind: 'text', text } }];
}

type Tree = { readonly [key: string]: unknown };

interface Reads {
  readonly relations: RangeVar[];
  readonly columns: ColumnRef[];
  readonly ctes: Set<string>;
}

function collectReads(tree: Tree, reads: Reads): void {
  for (const key in tree) {
    const value = tree[key];
    if (key === 'ctename' && typeof value === 'string') reads.ctes.add(value);
    if (typeof value !== 'object' || value === null) continue;
    if (key === 'ColumnRef') reads.columns.push(value as ColumnRef);
    else if (key === 'sourceRelation') collectItem(value as Node, reads);
    else if ((key === 'fromClause' || key === 'usingClause') && Array.isArray(value)) {
      for (const item of value) collectItem(item as Node, reads);
    }
    collectReads(value as Tree, reads);
  }
}

/** What is deeper down, in subqueries, the walk comes to by itself. */
function collectItem(item: Node | undefined, reads: Reads): void {
  if (!item) return;
  if ('RangeVar' in item) reads.relations.push(item.RangeVar);
  else if ('JoinExpr' in item) {
    collectItem(item.JoinExpr.larg, reads);
    collectItem(item.JoinExpr.rarg, reads);
  }
}

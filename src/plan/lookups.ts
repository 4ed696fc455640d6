/**
 * Unique constraints off the shard key (src/lookup/SPEC.md): in CREATE TABLE, ALTER TABLE and CREATE INDEX, which writes have to carry
 * their values over to where they are kept, and what is refused because no node alone could judge it.
 */
import type { Constraint, CreateStmt, InsertStmt, Node } from '@pgsql/types';
import { notSupported, type PosternError } from '../base/errors.ts';
import type { Lookup, ShardedTable } from '../catalog/map.ts';
import { IDENTIFIER_BYTES_MAX } from '../pg/identifier.ts';
import { type StatementFacts, stringsOf } from '../sql/facts.ts';
import { BYTE, closingParen, isPunctuation, keywordOf, nextToken, type Token } from '../sql/scanner.ts';
import type { PlanParts, Request } from './query.ts';
import { nameOf } from './refusal.ts';
import { type PlanContext, resolveRangeVar, resolveTable } from './resolve.ts';

/** A unique constraint off the shard key, to be made. */
export interface UniqueSpec {
  readonly name: string;
  readonly columns: readonly string[];
  /** Else it is an index. */
  readonly isConstraint: boolean;
}

const WRITING_KINDS = ['InsertStmt', 'UpdateStmt', 'DeleteStmt', 'MergeStmt'];

/** May it change values that are kept elsewhere, itself or by a foreign key's action? */
export function keepsLookups(node: Node, facts: StatementFacts, context: PlanContext): boolean {
  if (!WRITING_KINDS.some((kind) => facts.kinds.has(kind) || kind in node)) return false;
  return facts.rangeVars.some((rangeVar) => {
    const table = resolveRangeVar(context, rangeVar);
    return table !== undefined && mayReachLookups(table, context) && !leavesThemAlone(node, table);
  });
}

/**
 * An UPDATE of nothing but other columns. A trigger of the user's may change them all the same: then the server refuses it, since
 * nobody carries what has changed.
 */
function leavesThemAlone(node: Node, { lookups = [], keyColumn, cascades }: ShardedTable): boolean {
  if (!('UpdateStmt' in node) || node.UpdateStmt.withClause || cascades) return false;
  return (node.UpdateStmt.targetList ?? []).every((target) => {
    const name = 'ResTarget' in target ? target.ResTarget.name : undefined;
    return (
      name !== undefined && name !== keyColumn && lookups.every(({ columns }) => !columns.includes(name))
    );
  });
}

function mayReachLookups(table: ShardedTable, { map }: PlanContext): boolean {
  if (table.lookups) return true;
  if (!table.cascades) return false;
  for (const tables of map.tables.values())
    for (const other of tables.values())
      if (other.lookups && other.colocationId === table.colocationId) return true;
  return false;
}

/** ON CONFLICT that depends on such a constraint: the row it is in conflict with may be on any node. */
export function refuseConflictOffKey(node: Node, context: PlanContext): void {
  if (!('InsertStmt' in node)) return;
  const insert: InsertStmt = node.InsertStmt;
  const conflict = insert.onConflictClause;
  const table = insert.relation && resolveRangeVar(context, insert.relation);
  if (!conflict || !table?.lookups) return;
  const { infer } = conflict;
  if (!infer) throw conflictOffKey(table, table.lookups[0]!);
  const inferred = (infer.indexElems ?? []).flatMap((element) =>
    'IndexElem' in element ? [element.IndexElem.name ?? ''] : [],
  );
  for (const lookup of table.lookups) {
    const isNamed = infer.conname === lookup.name;
    const isInferred =
      infer.conname === undefined &&
      inferred.length === lookup.columns.length &&
      lookup.columns.every((column) => inferred.includes(column));
    if (isNamed || isInferred) throw conflictOffKey(table, lookup);
  }
}

function conflictOffKey(table: ShardedTable, lookup: Lookup): PosternError {
  return notSupported(
    `ON CONFLICT with "${lookup.name}" of sharded table ${nameOf(table)} is not supported`,
    `INSERT it, and take error 23505 for the conflict; or name the conflict's columns, with the shard key "${table.keyColumn}".`,
    'The row that it is in conflict with may be on another node.',
  );
}

/** The elements of a CREATE TABLE without its unique constraints off the key, and these. `elementsEnd`: behind the last parenthesis. */
export function takeUniques(
  statement: CreateStmt,
  sql: Uint8Array,
  options: { readonly key: string; readonly start: number; readonly elementsEnd: number },
): { readonly text: string; readonly uniques: readonly UniqueSpec[] } {
  const { key, start, elementsEnd } = options;
  const slice = (from: number, to: number) =>
    Buffer.from(sql.buffer, sql.byteOffset + from, to - from).toString('utf8');
  const found = uniquesIn(statement, key);
  if (found.length === 0) return { text: slice(start, elementsEnd).trimEnd(), uniques: [] };
  const table = statement.relation?.relname ?? '';
  const { open, close, items } = itemsOf(sql, statement.relation?.location ?? start);
  const kept: string[] = [];
  for (const item of items) {
    const inside = found.filter(({ at }) => at >= item.start && at < item.end);
    if (inside.some(({ column }) => column === undefined)) continue;
    let text = '';
    let from = item.start;
    for (const { at } of inside) {
      text += slice(from, at);
      from = endOfUnique(sql, at);
    }
    kept.push(text + slice(from, item.end));
  }
  const text = slice(start, open + 1) + kept.join(', ') + slice(close, elementsEnd);
  return {
    text: text.trimEnd(),
    uniques: found.map(({ constraint, columns }) => specOf(table, columns, constraint)),
  };
}

interface FoundUnique {
  readonly constraint: Constraint;
  readonly columns: readonly string[];
  /** Of a column's own; undefined: of the table. */
  readonly column: string | undefined;
  readonly at: number;
}

function uniquesIn({ tableElts }: CreateStmt, key: string): FoundUnique[] {
  const found: FoundUnique[] = [];
  for (const element of tableElts ?? []) {
    const column = 'ColumnDef' in element ? element.ColumnDef.colname : undefined;
    const constraints = 'ColumnDef' in element ? (element.ColumnDef.constraints ?? []) : [element];
    for (const node of constraints) {
      if (!('Constraint' in node) || node.Constraint.contype !== 'CONSTR_UNIQUE') continue;
      const { Constraint: constraint } = node;
      const columns = column === undefined ? (stringsOf(constraint.keys) ?? []) : [column];
      if (columns.includes(key)) continue;
      refuseOptions(constraint, constraints);
      found.push({ constraint, columns, column, at: constraint.location ?? 0 });
    }
  }
  return found;
}

function specOf(table: string, columns: readonly string[], { conname }: Constraint): UniqueSpec {
  return { name: conname ?? defaultName(table, columns, 'key'), columns, isConstraint: true };
}

/** As PostgreSQL chooses it, if nothing has the name yet. */
function defaultName(table: string, columns: readonly string[], ending: string): string {
  let head = [table, ...columns].join('_');
  while (Buffer.byteLength(head) > IDENTIFIER_BYTES_MAX - ending.length - 1) head = head.slice(0, -1);
  return `${head}_${ending}`;
}

function refuseOptions(constraint: Constraint, beside: readonly Node[] = []): void {
  const attributes = ['CONSTR_ATTR_DEFERRABLE', 'CONSTR_ATTR_DEFERRED'];
  const isDeferrable =
    constraint.deferrable === true ||
    beside.some((node) => 'Constraint' in node && attributes.includes(node.Constraint.contype ?? ''));
  if (isDeferrable) throw refused('DEFERRABLE');
  if (constraint.nulls_not_distinct) throw refused('NULLS NOT DISTINCT');
  if (constraint.including) throw refused('INCLUDE');
  if (constraint.indexname) throw refused('USING INDEX');
  if (constraint.options) throw refused('storage parameters');
  if (constraint.indexspace) throw refused('a tablespace');
}

function refused(what: string): PosternError {
  return notSupported(
    `a unique constraint without the shard key and with ${what} is not supported`,
    'Leave it out, or add the shard key to the constraint.',
  );
}

/** The parenthesis behind a table's name, and what stands between its commas. */
function itemsOf(sql: Uint8Array, at: number) {
  let token = nextToken(sql, at);
  while (!isPunctuation(sql, token, BYTE.openParen)) token = nextToken(sql, token.end);
  const open = token.start;
  const close = closingParen(sql, open);
  const items: { start: number; end: number }[] = [];
  let start = open + 1;
  for (token = nextToken(sql, start); token.start < close; token = nextToken(sql, token.end)) {
    if (isPunctuation(sql, token, BYTE.openParen))
      token = { ...token, end: closingParen(sql, token.start) + 1 };
    else if (isPunctuation(sql, token, BYTE.comma)) {
      items.push({ start, end: token.start });
      start = token.end;
    }
  }
  items.push({ start, end: close });
  return { open, close, items };
}

/** [CONSTRAINT name] UNIQUE [NULLS DISTINCT] of a column. */
function endOfUnique(sql: Uint8Array, at: number): number {
  let token: Token = nextToken(sql, at);
  if (keywordOf(sql, token) === 'constraint') token = nextToken(sql, nextToken(sql, token.end).end);
  const next = nextToken(sql, token.end);
  if (keywordOf(sql, next) !== 'nulls') return token.end;
  return nextToken(sql, next.end).end;
}

/** DDL of such constraints on tables that are there; undefined: it has nothing to do with them. Throws what is refused. */
export function planLookupDdl({ node, context }: Request): PlanParts | undefined {
  if ('IndexStmt' in node) {
    const statement = node.IndexStmt;
    const table = statement.relation && resolveRangeVar(context, statement.relation);
    if (!table || !statement.unique) return undefined;
    const elements = statement.indexParams ?? [];
    const columns = elements.flatMap((element) =>
      'IndexElem' in element && element.IndexElem.name !== undefined ? [element.IndexElem.name] : [],
    );
    if (columns.includes(table.keyColumn)) return undefined;
    if (columns.length < elements.length) throw refused('expressions');
    if (statement.whereClause) throw refused('WHERE');
    if (statement.concurrent) throw refused('CONCURRENTLY');
    if (statement.nulls_not_distinct) throw refused('NULLS NOT DISTINCT');
    if (statement.indexIncludingParams) throw refused('INCLUDE');
    const name = statement.idxname ?? defaultName(table.name, columns, 'idx');
    const spec = { name, columns, isConstraint: false };
    return addition(table, spec, { tag: 'CREATE INDEX', ifNotExists: statement.if_not_exists === true });
  }
  if ('AlterTableStmt' in node) {
    const statement = node.AlterTableStmt;
    const table = statement.relation && resolveRangeVar(context, statement.relation);
    if (!table) return undefined;
    const commands = (statement.cmds ?? []).flatMap((one) =>
      'AlterTableCmd' in one ? [one.AlterTableCmd] : [],
    );
    for (const { subtype, name } of commands)
      if (subtype === 'AT_DropColumn' || subtype === 'AT_AlterColumnType') refuseColumn(table, name);
    const [only, another] = commands;
    if (!only || another) return undefined;
    if (only.subtype === 'AT_DropConstraint') {
      const lookup = table.lookups?.find(({ name, isConstraint }) => isConstraint && name === only.name);
      return lookup && removal(table, lookup, 'ALTER TABLE');
    }
    const { def } = only;
    if (only.subtype !== 'AT_AddConstraint' || !def || !('Constraint' in def)) return undefined;
    const { Constraint: constraint } = def;
    const columns = stringsOf(constraint.keys) ?? [];
    if (constraint.contype !== 'CONSTR_UNIQUE' || columns.includes(table.keyColumn)) return undefined;
    refuseOptions(constraint);
    const spec = specOf(table.name, columns, constraint);
    return addition(table, spec, { tag: 'ALTER TABLE', ifNotExists: false });
  }
  if ('DropStmt' in node && node.DropStmt.removeType === 'OBJECT_INDEX') {
    const names = (node.DropStmt.objects ?? []).map((object) =>
      'List' in object ? (stringsOf(object.List.items) ?? []) : [],
    );
    const found = names.map((parts) => lookupNamed(parts.at(-2), parts.at(-1) ?? '', context));
    const [only] = found;
    if (found.every((one) => one === undefined)) return undefined;
    if (!only || found.length > 1) throw refused('DROP INDEX of several');
    if (only.lookup.isConstraint) throw refused('DROP INDEX');
    return removal(only.table, only.lookup, 'DROP INDEX');
  }
  if ('RenameStmt' in node) {
    const { renameType, relation, subname } = node.RenameStmt;
    if (renameType === 'OBJECT_INDEX') {
      if (lookupNamed(relation?.schemaname, relation?.relname ?? '', context)) throw refused('RENAME');
      return undefined;
    }
    const table = relation && resolveRangeVar(context, relation);
    if (renameType === 'OBJECT_COLUMN' && table) refuseColumn(table, subname);
    if (renameType === 'OBJECT_TABCONSTRAINT' && table?.lookups?.some(({ name }) => name === subname))
      throw refused('RENAME');
  }
  return undefined;
}

function addition(
  table: ShardedTable,
  spec: UniqueSpec,
  { tag, ifNotExists }: { readonly tag: string; readonly ifNotExists: boolean },
): PlanParts {
  return { command: { kind: 'addLookup', table, spec, tag, ifNotExists }, effects: [{ kind: 'ddl' }] };
}

function removal(table: ShardedTable, lookup: Lookup, tag: string): PlanParts {
  return { command: { kind: 'dropLookup', table, lookup, tag }, effects: [{ kind: 'ddl' }] };
}

function lookupNamed(schema: string | undefined, name: string, context: PlanContext) {
  for (const one of schema === undefined ? context.searchPath : [schema]) {
    for (const [tableName] of context.map.tables.get(one) ?? []) {
      const table = resolveTable(context, one, tableName);
      const lookup = table?.lookups?.find((candidate) => candidate.name === name);
      if (table && lookup) return { table, lookup };
    }
  }
  return undefined;
}

/** Dropped with the table alone. */
function refuseColumn(table: ShardedTable, column: string | undefined): void {
  const lookup = table.lookups?.find(
    ({ columns }) => column !== undefined && (columns.includes(column) || column === table.keyColumn),
  );
  if (!lookup) return;
  throw notSupported(
    `column "${column}" of table ${nameOf(table)} is part of unique constraint "${lookup.name}", whose values are kept on other nodes`,
    'Drop the constraint, change the column, and add the constraint again.',
  );
}

/** What is truncated with these tables: what is kept of their unique values. */
export function withLookups(tables: readonly ShardedTable[]): readonly ShardedTable[] {
  return [...tables, ...tables.flatMap(({ lookups = [] }) => lookups.map(({ table }) => table))];
}

/** TRUNCATE … CASCADE may reach tables that it does not name. */
export function refuseTruncatedBesides(named: readonly ShardedTable[], { map }: PlanContext): void {
  for (const tables of map.tables.values()) {
    for (const table of tables.values()) {
      if (!table.lookups || named.includes(table)) continue;
      throw notSupported(
        `TRUNCATE … CASCADE beside table ${nameOf(table)} is not supported`,
        'Name all tables that are to be truncated, and leave CASCADE out.',
        'It has a unique constraint whose values are kept on other nodes.',
      );
    }
  }
}

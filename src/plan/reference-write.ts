/**
 * INSERT, UPDATE and DELETE of a reference table: the home node carries the statement out and says which rows it has made of it;
 * the others are given those rows. So whatever the statement computes, it is computed once: sequences, now(), random(), the
 * order of a subquery's rows.
 *
 * An UPDATE or DELETE finds its rows on the other nodes by the primary key. Without one, or if it changes the key, the statement
 * itself is sent to all nodes, and may contain nothing but what gives the same on each of them.
 *
 * Invariant: a statement is planned here only if it writes to nothing but the reference table that it names.
 */
import type { DeleteStmt, InsertStmt, Node, RangeVar, UpdateStmt } from '@pgsql/types';
import { assert } from '../base/assert.ts';
import { notSupported } from '../base/errors.ts';
import type { ReferenceColumn, ReferenceTable } from '../catalog/map.ts';
import { quoteIdentifier } from '../pg/identifier.ts';
import type { StatementFacts } from '../sql/facts.ts';
import { functionName } from './calls.ts';
import { notOnReference, writesReferenceWithin } from './reference-refusal.ts';
import { nameOf } from './refusal.ts';
import { type PlanContext, resolveRangeVar, resolveReferenceVar } from './resolve.ts';
import { columnNamesOf } from './scope.ts';

/** Where a statement that writes to a reference table, or changes something of it, goes: to all nodes. */
export interface ReferenceWritePlacement {
  readonly kind: 'referenceWrite';
  readonly tables: readonly ReferenceTable[];
  /** Nobody else may write to the table until the transaction is over. */
  readonly locks: boolean;
  readonly rows: ReferenceRows | undefined;
}

/** The rows of the home node's answer are applied on the others; undefined: the statement itself is sent to all nodes. */
export interface ReferenceRows {
  /** The client's text with what the others need behind what the client has asked to be returned. */
  readonly homeText: string;
  /** The client's statement returns rows. */
  readonly returning: boolean;
  /** What is returned of each row for the other nodes. */
  readonly columns: readonly ReferenceColumn[];
  readonly apply:
    | { readonly kind: 'insert' }
    /** ON CONFLICT (columns) DO UPDATE. */
    | {
        readonly kind: 'upsert';
        readonly conflict: readonly string[];
        /** Those of them that are set as well, to the value that they equal. */
        readonly rewritten: readonly string[];
      }
    /** By the primary key, which comes first among the columns. */
    | { readonly kind: 'update' | 'delete'; readonly keyCount: number };
}

interface WriteRequest {
  readonly node: Node;
  readonly facts: StatementFacts;
  readonly context: PlanContext;
  readonly sql: Uint8Array;
  readonly start: number;
  readonly end: number;
}

/** Undefined: the statement writes to no reference table. Throws the refusal. */
export function planReferenceWrite(request: WriteRequest): ReferenceWritePlacement | undefined {
  const { node, facts, context } = request;
  if (context.map.referencesByName.size === 0) return undefined;
  const target = targetOf(node);
  const table = target && resolveReferenceVar(context, target);
  for (const other of writeTargets(node)) {
    if (other === target) continue;
    const written = resolveReferenceVar(context, other);
    if (written) throw writesReferenceWithin(written);
    if (table)
      throw notOnReference('writing to another table in the same statement', table, 'Send two statements.');
  }
  if (!table) return undefined;
  assert(target, 'a table was found by the name of the target');
  if ('MergeStmt' in node)
    throw notOnReference('MERGE', table, 'Use INSERT … ON CONFLICT, UPDATE and DELETE.');
  for (const rangeVar of facts.rangeVars) {
    const sharded = rangeVar === target ? undefined : resolveRangeVar(context, rangeVar);
    if (!sharded) continue;
    throw notSupported(
      `reference table ${nameOf(table)} cannot be written to from sharded table ${nameOf(sharded)}`,
      'Read the rows first, and send them as values.',
    );
  }
  if (facts.kinds.has('CurrentOfExpr')) {
    throw notOnReference('WHERE CURRENT OF', table, 'Name the row by its key.');
  }
  if ('InsertStmt' in node) return planInsert(node.InsertStmt, table, request);
  return planChange(node, table, request);
}

function targetOf(node: Node): RangeVar | undefined {
  if ('InsertStmt' in node) return node.InsertStmt.relation;
  if ('UpdateStmt' in node) return node.UpdateStmt.relation;
  if ('DeleteStmt' in node) return node.DeleteStmt.relation;
  if ('MergeStmt' in node) return node.MergeStmt.relation;
  return undefined;
}

/** All tables that the statement writes to, those of its CTEs included. */
function writeTargets(tree: unknown): RangeVar[] {
  if (typeof tree !== 'object' || tree === null) return [];
  if (Array.isArray(tree)) return tree.flatMap(writeTargets);
  const own = targetOf(tree as Node);
  const inner = Object.values(tree).flatMap(writeTargets);
  return own ? [own, ...inner] : inner;
}

function planInsert(
  insert: InsertStmt,
  table: ReferenceTable,
  request: WriteRequest,
): ReferenceWritePlacement {
  const columns = table.columns.filter((column) => !column.generated);
  const returning = insert.returningClause !== undefined;
  const homeText = withReturned(request, insert.relation!, returning, columns);
  const conflict = insert.onConflictClause;
  if (conflict?.action !== 'ONCONFLICT_UPDATE') {
    const apply = { kind: 'insert' } as const;
    return placementOf(table, { locks: false, rows: { homeText, returning, columns, apply } });
  }
  const names = (conflict.infer?.indexElems ?? []).map((element) =>
    'IndexElem' in element && !element.IndexElem.expr ? (element.IndexElem.name ?? '') : '',
  );
  if (names.length === 0 || names.includes('') || conflict.infer?.whereClause) {
    throw notOnReference(
      'this form of ON CONFLICT',
      table,
      'Name the columns: ON CONFLICT (a, b) DO UPDATE ….',
    );
  }
  const changed = assignedColumns(conflict.targetList?.filter((node) => !keepsItsValue(node)));
  if (names.some((name) => changed.includes(name))) {
    throw notOnReference(
      'ON CONFLICT … DO UPDATE of the columns that conflict',
      table,
      'Change other columns only.',
    );
  }
  const given = assignedColumns(conflict.targetList);
  const rewritten = names.filter((name) => given.includes(name));
  const apply = { kind: 'upsert', conflict: names, rewritten } as const;
  return placementOf(table, { locks: true, rows: { homeText, returning, columns, apply } });
}

function planChange(node: Node, table: ReferenceTable, request: WriteRequest): ReferenceWritePlacement {
  const isUpdate = 'UpdateStmt' in node;
  assert(isUpdate || 'DeleteStmt' in node, 'an UPDATE or a DELETE');
  const statement: UpdateStmt | DeleteStmt = isUpdate ? node.UpdateStmt : node.DeleteStmt;
  const changed = isUpdate ? assignedColumns(node.UpdateStmt.targetList) : [];
  const keyIsKept = table.primaryKey.length > 0 && !table.primaryKey.some((name) => changed.includes(name));
  if (!keyIsKept) {
    refuseWhatMayDiffer(node, table, request.facts);
    return placementOf(table, { locks: true, rows: undefined });
  }
  const key = table.primaryKey.map((name) => table.columns.find((column) => column.name === name));
  const columns = key.filter((column) => column !== undefined);
  assert(columns.length === key.length, 'the primary key is of columns of the table');
  const keyCount = columns.length;
  for (const name of changed) {
    const column = table.columns.find((candidate) => candidate.name === name);
    if (column && !column.generated && !columns.includes(column)) columns.push(column);
  }
  const returning = statement.returningClause !== undefined;
  const homeText = withReturned(request, statement.relation!, returning, columns);
  const apply = { kind: isUpdate ? 'update' : 'delete', keyCount } as const;
  return placementOf(table, { locks: true, rows: { homeText, returning, columns, apply } });
}

function placementOf(
  table: ReferenceTable,
  how: { readonly locks: boolean; readonly rows: ReferenceRows | undefined },
): ReferenceWritePlacement {
  return { kind: 'referenceWrite', tables: [table], ...how };
}

/** RETURNING is the last clause of all these statements. On a line of its own, in case the text ends in a comment. */
function withReturned(
  { sql, start, end }: WriteRequest,
  target: RangeVar,
  returning: boolean,
  columns: readonly ReferenceColumn[],
): string {
  const text = Buffer.from(sql.buffer, sql.byteOffset + start, end - start).toString('utf8');
  const alias = quoteIdentifier(target.alias?.aliasname ?? target.relname ?? '');
  const list = columns.map((column) => `${alias}.${quoteIdentifier(column.name)}`).join(', ');
  return `${text}\n${returning ? ',' : 'RETURNING'} ${list}`;
}

/** `a = excluded.a`, as tools write it for all columns: of one that conflicts, the value is there already. */
function keepsItsValue(node: Node): boolean {
  if (!('ResTarget' in node) || node.ResTarget.indirection) return false;
  const { name, val } = node.ResTarget;
  const names = val && 'ColumnRef' in val ? columnNamesOf(val.ColumnRef) : undefined;
  return names?.length === 2 && names[0] === 'excluded' && names[1] === name;
}

/** The columns that SET gives values. */
function assignedColumns(targets: readonly Node[] | undefined): string[] {
  return (targets ?? []).flatMap((node) => ('ResTarget' in node ? [node.ResTarget.name ?? ''] : []));
}

/** PostgreSQL's own functions that give the same wherever they are called, as far as statements without subqueries use them. */
const IMMUTABLE_FUNCTIONS = new Set(
  (
    'abs ceil ceiling floor round trunc mod power sqrt sign div gcd lcm length char_length character_length octet_length ' +
    'substr substring left right replace overlay position strpos split_part btrim ltrim rtrim lpad rpad reverse repeat ' +
    'translate upper lower md5 sha224 sha256 sha384 sha512 encode decode ascii chr jsonb_set jsonb_insert ' +
    'jsonb_strip_nulls array_append array_prepend array_cat array_remove array_replace array_length cardinality'
  ).split(' '),
);

function refuseWhatMayDiffer(node: Node, table: ReferenceTable, facts: StatementFacts): void {
  const refuse = (what: string): never => {
    throw notOnReference(
      `${what} in an UPDATE or DELETE that ${table.primaryKey.length > 0 ? 'changes the primary key' : 'finds its rows without a primary key'}`,
      table,
      table.primaryKey.length > 0
        ? 'It is sent to each node as it is. Pass the value as a parameter.'
        : 'It is sent to each node as it is. Give the table a primary key, or pass the value as a parameter.',
    );
  };
  for (const kind of MAY_DIFFER) if (facts.kinds.has(kind.node)) refuse(kind.name);
  if (
    ('UpdateStmt' in node && node.UpdateStmt.fromClause) ||
    ('DeleteStmt' in node && node.DeleteStmt.usingClause)
  ) {
    refuse('a join');
  }
  for (const call of facts.functionCalls) {
    const { schema, name } = functionName(call);
    if (schema !== undefined || !IMMUTABLE_FUNCTIONS.has(name)) refuse(`function ${name}()`);
  }
  for (const operator of facts.operators)
    if (!/^[-+*/<>=~!@#%^&|`?]{1,4}$/.test(operator)) refuse('an operator');
}

const MAY_DIFFER = [
  { node: 'SubLink', name: 'a subquery' },
  { node: 'CommonTableExpr', name: 'WITH' },
  { node: 'SQLValueFunction', name: 'the time or the user' },
  { node: 'SetToDefault', name: 'DEFAULT' },
];

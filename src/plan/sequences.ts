/**
 * What a statement does with sequences by name: nextval(), currval(), lastval() and setval(), and which of them mean the sequence
 * that a sharded table has its ids from.
 *
 * In a VALUES row of a sharded table each call becomes an id that the router supplies (insert.ts). Everywhere else a statement that
 * goes to leaves is refused: the sequences that the nodes have beside the home node's are used by nobody. On the home node they
 * are PostgreSQL's own; only currval() and lastval() need the router, since no backend is the session's (session/sequences.ts).
 */
import type { AlterSeqStmt, FuncCall, Node, SelectStmt } from '@pgsql/types';
import { notSupported, type PosternError } from '../base/errors.ts';
import type { IdColumnOfTable } from '../catalog/map.ts';
import type { StatementFacts } from '../sql/facts.ts';
import { closingParen, nextToken } from '../sql/scanner.ts';
import { functionName, stringLiteral } from './calls.ts';
import type { Edit } from './plan.ts';
import { type PlanContext, resolveTable } from './resolve.ts';

export type SequenceFunction = 'nextval' | 'currval' | 'lastval' | 'setval';

/** A sequence as a statement names it. */
export interface NamedSequence {
  /** Equal for names that mean the same; those that differ may mean the same, too. */
  readonly key: string;
  /** The argument, as written. */
  readonly argument: string;
  /** A column that has its ids from it; undefined: no sharded table has. */
  readonly idColumn: IdColumnOfTable | undefined;
}

export interface SequenceUse {
  /** Columns of the result that are nextval() of a sequence, by their place. */
  readonly given: readonly { readonly column: number; readonly sequence: NamedSequence }[];
  /** nextval() and setval() elsewhere; undefined: of a sequence that is not known. */
  readonly advanced: readonly (NamedSequence | undefined)[];
  /** Set, so that ids leased before are of no more use. */
  readonly set: readonly IdColumnOfTable[];
  readonly reads: readonly SequenceRead[];
  /** Put the values of `reads` into the text, if the router has them: as ids with the index of the read. */
  readonly edits: readonly Edit[];
}

export interface SequenceRead {
  readonly kind: 'currval' | 'lastval';
  /** Of currval; undefined: not known. */
  readonly sequence: NamedSequence | undefined;
}

const NAME = /^\s*(?:("(?:[^"]|"")+"|[^".\s]+)\s*\.\s*)?("(?:[^"]|"")+"|[^".\s]+)\s*$/;

export function sequenceFunctionOf(call: FuncCall): SequenceFunction | undefined {
  const { schema, name } = functionName(call);
  if (schema !== undefined) return undefined;
  return name === 'nextval' || name === 'currval' || name === 'lastval' || name === 'setval'
    ? name
    : undefined;
}

/** Where `name(…)` stands in the text. */
export function rangeOfCall(sql: Uint8Array, call: FuncCall): { start: number; open: number; end: number } {
  const start = call.location ?? 0;
  let token = nextToken(sql, start);
  while (sql[token.start] !== OPEN_PAREN) token = nextToken(sql, token.end);
  return { start, open: token.start, end: closingParen(sql, token.start) + 1 };
}

const OPEN_PAREN = 0x28;

/** undefined: which one it is, is known at execution only. */
export function namedSequence(
  call: FuncCall,
  sql: Uint8Array,
  context: PlanContext,
): NamedSequence | undefined {
  const [argument] = call.args ?? [];
  const { open, end } = rangeOfCall(sql, call);
  const text = Buffer.from(sql.buffer, sql.byteOffset + open + 1, end - open - 2).toString('utf8');
  const serial = serialColumn(argument, context);
  if (serial) return { key: serial.key, argument: text, idColumn: serial.idColumn };
  const written = stringLiteral(argument);
  const name = written === undefined ? undefined : parseName(written);
  if (!name) return undefined;
  const idColumn = idColumnOf(name, context);
  if (idColumn) return { key: keyOf(idColumn), argument: text, idColumn };
  // What a name without its schema means depends on the path.
  const path = name.schema === undefined ? context.searchPath.join('\0') : '';
  return { key: `${name.schema ?? ''}.${name.name}\0${path}`, argument: text, idColumn: undefined };
}

/** pg_get_serial_sequence('table', 'column'). */
function serialColumn(argument: Node | undefined, context: PlanContext) {
  if (argument && 'TypeCast' in argument) return serialColumn(argument.TypeCast.arg, context);
  if (!argument || !('FuncCall' in argument)) return undefined;
  const { schema, name } = functionName(argument.FuncCall);
  if (schema !== undefined || name !== 'pg_get_serial_sequence') return undefined;
  const [tableText, column] = (argument.FuncCall.args ?? []).map(stringLiteral);
  const table = tableText === undefined ? undefined : parseName(tableText);
  if (!table || column === undefined) return undefined;
  const resolved = resolveTable(context, table.schema, table.name);
  const sequence = resolved?.columns.find((one) => one.name === column)?.idSequence;
  const idColumn = resolved && sequence ? { table: resolved, column, sequence } : undefined;
  const path = table.schema === undefined ? context.searchPath.join('\0') : '';
  const key = idColumn ? keyOf(idColumn) : `serial ${tableText} ${column}\0${path}`;
  return { key, idColumn };
}

/** Of the sequence, not the column: several columns may share it. */
export function keyOf({ sequence }: Pick<IdColumnOfTable, 'sequence'>): string {
  return `sequence ${sequence.schema}.${sequence.name}`;
}

function parseName(text: string): { schema: string | undefined; name: string } | undefined {
  const match = NAME.exec(text);
  if (!match) return undefined;
  const plain = (part: string) =>
    part.startsWith('"') ? part.slice(1, -1).replaceAll('""', '"') : part.toLowerCase();
  return { schema: match[1] === undefined ? undefined : plain(match[1]), name: plain(match[2]!) };
}

/** The calls in an expression, in the order of the text; not those in its subqueries. */
export function sequenceCallsIn(value: unknown): FuncCall[] {
  const found: FuncCall[] = [];
  collect(value, found);
  return found.sort((a, b) => (a.location ?? 0) - (b.location ?? 0));
}

function collect(value: unknown, found: FuncCall[]): void {
  if (typeof value !== 'object' || value === null) return;
  if (Array.isArray(value)) {
    for (const item of value) collect(item, found);
    return;
  }
  for (const [key, child] of Object.entries(value)) {
    if (key === 'SelectStmt') continue;
    if (key === 'FuncCall' && sequenceFunctionOf(child as FuncCall)) found.push(child as FuncCall);
    collect(child, found);
  }
}

/** Of a statement that goes to leaves: throws if a call is left that the router does not stand in for. */
export function refuseCallsOnLeaves(facts: StatementFacts, sql: Uint8Array, edits: readonly Edit[]): void {
  const replaced = new Set(
    edits.flatMap(({ start, replacement }) => (replacement.kind === 'id' ? start : [])),
  );
  for (const call of facts.functionCalls) {
    const name = sequenceFunctionOf(call);
    if (name && !replaced.has(rangeOfCall(sql, call).start)) throw callOnLeaves(name);
  }
}

function callOnLeaves(name: SequenceFunction): PosternError {
  return notSupported(
    `${name}() in a statement on a sharded table is supported in VALUES only`,
    `Send SELECT ${name}(…) by itself, and its result as a value.`,
    'Sequences are on the home node, and the rows are on others.',
  );
}

/** What a statement that goes to no leaf does with sequences; undefined: nothing, by name. */
export function sequenceUseOf(request: {
  readonly node: Node;
  readonly facts: StatementFacts;
  readonly sql: Uint8Array;
  readonly context: PlanContext;
}): SequenceUse | undefined {
  const { node, facts, sql, context } = request;
  if ('AlterSeqStmt' in node) return alteredSequence(node.AlterSeqStmt, context);
  const calls = facts.functionCalls.filter((call) => sequenceFunctionOf(call));
  if (calls.length === 0) return undefined;
  const given: { column: number; sequence: NamedSequence }[] = [];
  const advanced: (NamedSequence | undefined)[] = [];
  const set: IdColumnOfTable[] = [];
  const reads: SequenceRead[] = [];
  const edits: Edit[] = [];
  const columns = 'SelectStmt' in node ? callsByColumn(node.SelectStmt) : new Map<FuncCall, ResultColumn>();
  for (const call of calls) {
    const name = sequenceFunctionOf(call)!;
    const sequence = name === 'lastval' ? undefined : namedSequence(call, sql, context);
    const column = columns.get(call);
    switch (name) {
      case 'nextval':
        if (column && sequence) given.push({ column: column.index, sequence });
        else advanced.push(sequence);
        break;
      case 'setval':
        advanced.push(sequence);
        if (sequence?.idColumn) set.push(sequence.idColumn);
        break;
      case 'currval':
      case 'lastval':
        edits.push(...readEdits(call, sql, { index: reads.length, column }));
        reads.push({ kind: name, sequence });
        break;
    }
  }
  edits.sort((a, b) => a.start - b.start);
  return { given, advanced, set, reads, edits };
}

/** ALTER SEQUENCE: RESTART, or anything else that changes what comes next. */
function alteredSequence({ sequence }: AlterSeqStmt, context: PlanContext): SequenceUse | undefined {
  const name = { schema: sequence?.schemaname, name: sequence?.relname ?? '' };
  const idColumn = idColumnOf(name, context);
  return idColumn && { given: [], advanced: [], set: [idColumn], reads: [], edits: [] };
}

function idColumnOf(
  { schema, name }: { readonly schema: string | undefined; readonly name: string },
  { map, searchPath }: PlanContext,
): IdColumnOfTable | undefined {
  const candidates = map.idColumnsBySequence.get(name) ?? [];
  for (const one of schema === undefined ? searchPath : [schema]) {
    const found = candidates.find(({ sequence }) => sequence.schema === one);
    if (found) return found;
  }
  return undefined;
}

interface ResultColumn {
  readonly index: number;
  /** It has a name of its own. */
  readonly isNamed: boolean;
}

/** Calls that are, maybe cast, a column of the result, by themselves. */
function callsByColumn(select: SelectStmt): Map<FuncCall, ResultColumn> {
  const found = new Map<FuncCall, ResultColumn>();
  if (select.op !== undefined && select.op !== 'SETOP_NONE') return found;
  for (const [index, node] of (select.targetList ?? []).entries()) {
    // What a star stands for is not known.
    if (!('ResTarget' in node) || !node.ResTarget.val || 'ColumnRef' in node.ResTarget.val) break;
    let value: Node | undefined = node.ResTarget.val;
    while (value && 'TypeCast' in value) value = value.TypeCast.arg;
    if (value && 'FuncCall' in value)
      found.set(value.FuncCall, { index, isNamed: node.ResTarget.name !== undefined });
  }
  return found;
}

function readEdits(
  call: FuncCall,
  sql: Uint8Array,
  read: { readonly index: number; readonly column: ResultColumn | undefined },
): Edit[] {
  const { start, end } = rangeOfCall(sql, call);
  const text = (value: string): Edit['replacement'] => ({ kind: 'text', text: value });
  // A cast keeps the column's name only if the call itself is the column.
  const isColumn = read.column && !read.column.isNamed && isEndOfColumn(sql, end);
  const { name } = functionName(call);
  return [
    { start, end: start, replacement: text('(') },
    { start, end, replacement: { kind: 'id', idIndex: read.index } },
    { start: end, end, replacement: text(`)::pg_catalog.int8${isColumn ? ` AS ${name}` : ''}`) },
  ];
}

function isEndOfColumn(sql: Uint8Array, end: number): boolean {
  const next = nextToken(sql, end);
  const byte = sql[next.start];
  return next.kind === 'end' || byte === COMMA || byte === SEMICOLON || byte === undefined || isWord(byte);
}

const COMMA = 0x2c;
const SEMICOLON = 0x3b;

/** FROM, WHERE, …: a name of the column's own would have been seen in the tree. */
function isWord(byte: number): boolean {
  return (byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x7a;
}

/**
 * DDL that the router itself carries out over the nodes: CREATE TABLE with a door or a switch of write coalescing, ALTER TABLE
 * … SET (postern.…), and the functions that do the same to an existing table, Citus's names included.
 */
import type { AlterTableStmt, CreateStmt, FuncCall, Node, RangeVar, SelectStmt } from '@pgsql/types';
import { assert } from '../base/assert.ts';
import { invalidParameter, notSupported, objectError } from '../base/errors.ts';
import { BYTE, closingParen, endOfName, isPunctuation, keywordOf, nextToken } from '../sql/scanner.ts';
import { functionName, stringLiteral } from './calls.ts';
import {
  type CoalesceOption,
  coalesceOptionOf,
  posternOption,
  posternOptions,
  readDoorOptions,
} from './door-options.ts';
import { takeUniques } from './lookups.ts';
import {
  isPlacementFunction,
  PLACEMENT_PARAMETERS,
  PLACEMENT_USAGE,
  placementCommand,
} from './placement-functions.ts';
import { readPlacementOptions } from './placement-options.ts';
import type { Edit, RouterCommand } from './plan.ts';
import { nameOf } from './refusal.ts';
import { type PlanContext, resolveRangeVar, resolveReferenceVar } from './resolve.ts';

export interface DoorDdl {
  readonly command: RouterCommand | undefined;
  readonly edits: readonly Edit[];
}

/** CREATE TABLE … WITH (postern.…); undefined if it has no such option. */
export function planDoorTable(
  statement: CreateStmt,
  sql: Uint8Array,
  range: { start: number; end: number },
  context: PlanContext,
): DoorDdl | undefined {
  const options = posternOptions(statement.options);
  if (options.length === 0) return undefined;
  const door = readDoorOptions(options);
  assert(statement.relation, 'CREATE TABLE has a name');
  const clause = withClauseRange(sql, options[0]?.location ?? -1, range);
  if (door.door !== 'sharded') {
    const edit = singleDoorEdit(statement, sql, clause);
    if (door.door === 'reference') {
      return { command: createReference(statement, sql, { edit, range }), edits: [] };
    }
    if (door.coalesce === undefined) return { command: undefined, edits: [edit] };
    return { command: createCoalescing(statement, sql, { edit, range, coalesce: door.coalesce }), edits: [] };
  }
  assert(door.key !== undefined, 'a sharded table has a key');
  refuseWhatShardedTablesLack(statement, context);
  refuseUnknownKey(statement, door.key);
  const { start } = range;
  const { elementsEnd } = clause;
  const { text, uniques } = takeUniques(statement, sql, { key: door.key, start, elementsEnd });
  return {
    command: {
      kind: 'createShardedTable',
      schema: statement.relation.schemaname,
      name: statement.relation.relname ?? '',
      ifNotExists: statement.if_not_exists === true,
      // WITH is the last clause, since those that may follow it are refused; so PARTITION BY can be appended.
      createText: text,
      ...(uniques.length > 0 && { uniques }),
      key: door.key,
      ...door.placement,
      colocateWith: door.colocateWith,
      coalesce: door.coalesce,
    },
    edits: [],
  };
}

/** What it is made of is read from the home node's catalog when it is there, and refused there if it can't be copied. */
function createReference(
  statement: CreateStmt,
  sql: Uint8Array,
  options: { edit: Edit; range: { start: number; end: number } },
): RouterCommand {
  const { relation } = statement;
  if (relation?.relpersistence === 't' || relation?.schemaname?.startsWith('pg_temp')) {
    throw notSupported(
      'a temporary reference table is not supported',
      'Temporary tables live in one session: leave the door out.',
    );
  }
  return {
    kind: 'createReferenceTable',
    schema: relation?.schemaname,
    name: relation?.relname ?? '',
    ifNotExists: statement.if_not_exists === true,
    createText: textWithEdit(sql, options.edit, options.range),
  };
}

function textWithEdit(sql: Uint8Array, edit: Edit, range: { start: number; end: number }): string {
  const text = (start: number, end: number) =>
    Buffer.from(sql.buffer, sql.byteOffset + start, end - start).toString('utf8');
  assert(edit.replacement.kind === 'text', 'a WITH clause is replaced by text');
  return text(range.start, edit.start) + edit.replacement.text + text(edit.end, range.end);
}

/** The table and its switch are made in one transaction, by the router. */
function createCoalescing(
  statement: CreateStmt,
  sql: Uint8Array,
  options: { edit: Edit; range: { start: number; end: number }; coalesce: CoalesceOption },
): RouterCommand {
  const { edit, range, coalesce } = options;
  const { relation } = statement;
  if (relation?.relpersistence === 't' || relation?.schemaname?.startsWith('pg_temp')) {
    throw notSupported(
      'postern.coalesce of a temporary table is not supported',
      'Leave it out: writes to temporary tables are never merged with others.',
    );
  }
  return {
    kind: 'createCoalescing',
    schema: relation?.schemaname,
    name: relation?.relname ?? '',
    ifNotExists: statement.if_not_exists === true,
    createText: textWithEdit(sql, edit, range),
    coalesce,
  };
}

interface WithClauseRange {
  /** Where the table's last parenthesis or clause before WITH ends. */
  readonly elementsEnd: number;
  readonly start: number;
  readonly end: number;
}

/** Finds WITH ( … ) around the option at `optionAt`, reading tokens from the start, since the tree does not say. */
function withClauseRange(
  sql: Uint8Array,
  optionAt: number,
  range: { start: number; end: number },
): WithClauseRange {
  let previousEnd = range.start;
  let at = range.start;
  while (at < range.end) {
    const token = nextToken(sql, at);
    if (token.kind === 'end') break;
    at = token.end;
    if (isPunctuation(sql, token, BYTE.openParen)) at = closingParen(sql, token.start) + 1;
    else if (keywordOf(sql, token) === 'with') {
      const open = nextToken(sql, token.end);
      const close = isPunctuation(sql, open, BYTE.openParen) ? closingParen(sql, open.start) : -1;
      if (open.start < optionAt && optionAt < close) {
        return { elementsEnd: previousEnd, start: token.start, end: close + 1 };
      }
    }
    previousEnd = at;
  }
  throw invalidParameter('the WITH clause of this CREATE TABLE could not be read');
}

/** `single` is the absence of a door: the option goes, and other storage parameters stay. */
function singleDoorEdit(statement: CreateStmt, sql: Uint8Array, clause: WithClauseRange): Edit {
  const all = (statement.options ?? []).flatMap((node) => ('DefElem' in node ? [node.DefElem] : []));
  const kept: string[] = [];
  for (const [index, option] of all.entries()) {
    if (posternOption(option)) continue;
    const start = option.location ?? 0;
    const next = all[index + 1]?.location ?? clause.end - 1;
    const text = Buffer.from(sql.buffer, sql.byteOffset + start, next - start).toString('utf8');
    kept.push(index + 1 < all.length ? text.slice(0, text.lastIndexOf(',')) : text);
  }
  const text = kept.length > 0 ? `WITH (${kept.join(', ')})` : '';
  return { start: clause.start, end: clause.end, replacement: { kind: 'text', text } };
}

function refuseWhatShardedTablesLack(statement: CreateStmt, context: PlanContext): void {
  const relation = statement.relation;
  const refuse = (what: string, hint: string): never => {
    throw notSupported(`a sharded table with ${what} is not supported`, hint);
  };
  const persistence = relation?.relpersistence;
  if (persistence === 't') refuse('TEMPORARY', 'Temporary tables live in one session: leave the door out.');
  if (persistence === 'u') refuse('UNLOGGED', 'Leave UNLOGGED out.');
  if (relation?.catalogname) refuse('a database in its name', 'Leave the database out.');
  if (statement.partspec) refuse('PARTITION BY', 'Postern partitions it by its key already.');
  if (statement.partbound) refuse('PARTITION OF', 'Create it as a table of its own.');
  if (statement.inhRelations) refuse('INHERITS', 'Give it the columns itself.');
  if (statement.ofTypename) refuse('OF a type', 'Give it the columns itself.');
  if (statement.accessMethod) refuse('an access method', 'Leave USING out.');
  if (statement.tablespacename) refuse('a tablespace', 'Leave TABLESPACE out.');
  if (statement.oncommit && statement.oncommit !== 'ONCOMMIT_NOOP') {
    refuse('ON COMMIT', 'Leave ON COMMIT out.');
  }
  const others = (statement.options?.length ?? 0) - posternOptions(statement.options).length;
  if (others > 0) refuse('storage parameters', 'Leave all but the postern options out of WITH.');
  for (const element of statement.tableElts ?? []) {
    if ('TableLikeClause' in element) refuse('LIKE', 'Give it the columns itself.');
    const constraints = 'ColumnDef' in element ? (element.ColumnDef.constraints ?? []) : [element];
    for (const constraint of constraints) {
      if (!('Constraint' in constraint) || constraint.Constraint.contype !== 'CONSTR_FOREIGN') continue;
      const referenced = constraint.Constraint.pktable;
      if (referenced && resolveReferenceVar(context, referenced)) continue;
      // Whether it is colocated, and has the key, is known when the table is made (doors/sharded/foreign-keys.ts).
      if (referenced && resolveRangeVar(context, referenced)) continue;
      if (referenced && relation && referenced.relname === relation.relname) continue;
      refuse(
        'a foreign key to a table that is not a reference table',
        `Leave REFERENCES out, or make "${referenced?.relname}" a reference table first.`,
      );
    }
  }
}

function refuseUnknownKey(statement: CreateStmt, key: string): void {
  const columns = (statement.tableElts ?? []).flatMap((element) =>
    'ColumnDef' in element ? [element.ColumnDef.colname ?? ''] : [],
  );
  if (!columns.includes(key)) {
    throw objectError(
      '42703',
      `the shard key "${key}" is not a column of the table`,
      `Its columns are ${columns.join(', ')}.`,
    );
  }
}

/** ALTER TABLE … SET (postern.…); undefined if it has no such option. */
export function planAlterDoor(
  statement: AlterTableStmt,
  sql: Uint8Array,
  context: PlanContext,
): RouterCommand | undefined {
  const commands = (statement.cmds ?? []).flatMap((node) =>
    'AlterTableCmd' in node ? [node.AlterTableCmd] : [],
  );
  const optionsOf = (definition: Node | undefined): Node[] =>
    definition && 'List' in definition ? (definition.List.items ?? []) : [];
  const options = commands.flatMap((command) => posternOptions(optionsOf(command.def)));
  if (options.length === 0) return undefined;
  assert(statement.relation, 'ALTER TABLE has a table');
  const hint =
    "Say ALTER TABLE t SET (postern.door = 'sharded', postern.key = 'column'), SET (postern.door = 'reference'), or SET (postern.coalesce = 'off'), and nothing else.";
  const only = commands.length === 1 ? commands[0] : undefined;
  const alone = only && optionsOf(only.def).length === options.length && statement.objtype === 'OBJECT_TABLE';
  const coalescing = (coalesce: CoalesceOption): RouterCommand => ({
    kind: 'setCoalescing',
    relation: relationText(statement.relation!, sql),
    ifExists: statement.missing_ok === true,
    coalesce,
    functionName: undefined,
  });
  if (alone && only.subtype === 'AT_ResetRelOptions') {
    if (options.every(({ defname }) => defname === 'coalesce')) return coalescing('default');
    throw notSupported('only postern.coalesce can be reset', hint);
  }
  if (!alone || only.subtype !== 'AT_SetRelOptions') {
    throw notSupported('postern options cannot be changed together with anything else', hint);
  }
  const door = readDoorOptions(options);
  if (door.door === undefined && door.coalesce !== undefined) return coalescing(door.coalesce);
  const table = resolveRangeVar(context, statement.relation);
  const reference = resolveReferenceVar(context, statement.relation);
  if (door.door === 'single' && (table || reference))
    return {
      kind: 'unshardTable',
      relation: relationText(statement.relation, sql),
      functionName: undefined,
    };
  if (table) throw notSupported(`changing the door of sharded table ${nameOf(table)} is not supported`, hint);
  if (reference)
    throw notSupported(`changing the door of reference table ${nameOf(reference)} is not supported`, hint);
  if (door.door === 'reference') {
    const relation = relationText(statement.relation, sql);
    return { kind: 'makeReferenceTable', relation, functionName: undefined };
  }
  if (door.door !== 'sharded' || door.key === undefined) {
    throw notSupported('only the doors "sharded" and "reference" can be given to a table afterwards', hint);
  }
  return {
    kind: 'distributeTable',
    relation: relationText(statement.relation, sql),
    key: door.key,
    ...door.placement,
    colocateWith: door.colocateWith,
    coalesce: door.coalesce,
    functionName: undefined,
  };
}

function relationText(relation: RangeVar, sql: Uint8Array): string {
  const start = relation.location ?? 0;
  const end = endOfName(sql, start, relation.schemaname ? 2 : 1) ?? start;
  return Buffer.from(sql.buffer, sql.byteOffset + start, end - start).toString('utf8');
}

/** Parameter names, in order. */
const PARAMETERS: Readonly<Record<string, readonly string[]>> = {
  create_distributed_table: [
    'table_name',
    'distribution_column',
    'distribution_type',
    'colocate_with',
    'shard_count',
  ],
  shard_table: ['table_name', 'key', 'colocate_with', 'buckets', 'method', 'bounds', 'values', 'nodes'],
  set_coalescing: ['table_name', 'value'],
  create_reference_table: ['table_name'],
  ...PLACEMENT_PARAMETERS,
  outcome: ['token'],
  reset_statements: [],
  resume_ddl: [],
  refresh_statistics: [],
};

/** Which of Postern's table functions this calls; those with names that others may have too only count with their schema. */
export function doorFunctionOf(call: FuncCall): string | undefined {
  const { schema, name } = functionName(call);
  if (isPlacementFunction(schema, name)) return name;
  if (
    [
      'shard_table',
      'set_coalescing',
      'outcome',
      'reset_statements',
      'refresh_statistics',
      'resume_ddl',
    ].includes(name)
  )
    return schema === 'postern' ? name : undefined;
  if (name !== 'create_distributed_table' && name !== 'create_reference_table') return undefined;
  return schema === undefined || schema === 'postern' ? name : undefined;
}

const USAGE: Readonly<Record<string, string>> = {
  ...PLACEMENT_USAGE,
  set_coalescing: "Say SELECT postern.set_coalescing('table', 'off').",
  outcome: "Say SELECT postern.outcome('token').",
  resume_ddl: 'Say SELECT postern.resume_ddl().',
  reset_statements: 'Say SELECT postern.reset_statements().',
  refresh_statistics: 'Say SELECT postern.refresh_statistics().',
  create_reference_table: "Say SELECT create_reference_table('table').",
};

/** SELECT create_distributed_table(…): only alone, with literals, since the router answers it itself. */
export function planDoorFunction(select: SelectStmt, call: FuncCall): RouterCommand {
  const name = doorFunctionOf(call);
  assert(name !== undefined, 'the caller has looked');
  const target = select.targetList?.[0];
  const resTarget = target && 'ResTarget' in target ? target.ResTarget : undefined;
  const clauses = Object.keys(select).filter((key) => !['targetList', 'limitOption', 'op'].includes(key));
  const alone = resTarget?.val && 'FuncCall' in resTarget.val && resTarget.val.FuncCall === call;
  const usage = USAGE[name] ?? `Say SELECT ${name}('table', 'key').`;
  if (!resTarget || !alone || select.targetList?.length !== 1 || clauses.length > 0) {
    throw notSupported(`${name} can only be called alone`, usage);
  }
  const values = argumentsOf(call, name);
  const placed = placementCommand(name, values, resTarget.name ?? name);
  if (placed) return placed;
  if (name === 'resume_ddl') return { kind: 'resumeDdl', functionName: resTarget.name ?? name };
  if (name === 'reset_statements') return { kind: 'resetStatements', functionName: resTarget.name ?? name };
  if (name === 'outcome') {
    const token = values.get('token');
    if (token === undefined) throw invalidParameter(`${name} needs a token`, usage);
    return { kind: 'tellOutcome', token, functionName: resTarget.name ?? name };
  }
  if (name === 'refresh_statistics')
    return { kind: 'refreshStatistics', functionName: resTarget.name ?? name };
  const relation = values.get('table_name');
  if (name === 'set_coalescing') {
    const coalesce = coalesceOptionOf(values.get('value'));
    if (!relation || !coalesce) throw invalidParameter(`${name} needs a table and a value`, usage);
    return {
      kind: 'setCoalescing',
      relation,
      ifExists: false,
      coalesce,
      functionName: resTarget.name ?? name,
    };
  }
  if (name === 'create_reference_table') {
    if (!relation) throw invalidParameter(`${name} needs a table`, usage);
    return { kind: 'makeReferenceTable', relation, functionName: resTarget.name ?? name };
  }
  const key = values.get('key') ?? values.get('distribution_column');
  if (!relation || !key) {
    throw invalidParameter(`${name} needs a table and its key`, usage);
  }
  const type = values.get('distribution_type');
  if (type !== undefined && type !== 'hash') {
    throw notSupported(
      `distribution type "${type}" is not supported`,
      "Use 'hash', or postern.shard_table('table', 'key', method => 'range', bounds => '{100,200}').",
    );
  }
  const colocateWith = values.get('colocate_with');
  return {
    kind: 'distributeTable',
    relation,
    key,
    ...readPlacementOptions({
      method: values.get('method'),
      bounds: values.get('bounds'),
      values: values.get('values'),
      buckets: values.get('buckets') ?? values.get('shard_count'),
      nodes: values.get('nodes'),
    }),
    // 'default' and 'none' are Citus's words for "as it comes" and "with none".
    colocateWith: colocateWith === 'default' ? undefined : colocateWith,
    coalesce: undefined,
    functionName: resTarget.name ?? name,
  };
}

function argumentsOf(call: FuncCall, name: string): Map<string, string> {
  const values = new Map<string, string>();
  const parameters = PARAMETERS[name]!;
  for (const [index, argument] of (call.args ?? []).entries()) {
    const named = 'NamedArgExpr' in argument ? argument.NamedArgExpr : undefined;
    const parameter = named ? named.name : parameters[index];
    const node = named ? named.arg : argument;
    if (parameter === undefined || !parameters.includes(parameter)) {
      throw invalidParameter(`${name} has no such argument`, `It has ${parameters.join(', ')}.`);
    }
    if (node && 'A_Const' in node && node.A_Const.isnull) continue;
    const text = stringLiteral(node) ?? integerLiteral(node);
    if (text === undefined) {
      throw notSupported(
        `the arguments of ${name} must be literals`,
        `${USAGE[name] ?? `Say SELECT ${name}('table', 'key').`} Parameters and expressions are not understood.`,
      );
    }
    values.set(parameter, text);
  }
  return values;
}

function integerLiteral(node: Node | undefined): string | undefined {
  if (!node || !('A_Const' in node) || !node.A_Const.ival) return undefined;
  return String(node.A_Const.ival.ival ?? 0);
}

/**
 * ALTER TABLE of a table with a door: each of its commands becomes a text for the faces and one for the leaves (a sharded table), or
 * one for all copies (a reference table).
 *
 * Invariant: a command that is not listed here is refused. None moves a row to another bucket, or gives copies different rows.
 */
import type {
  AlterTableCmd,
  AlterTableStmt,
  ColumnDef,
  Node,
  RangeVar,
  ReplicaIdentityStmt,
} from '@pgsql/types';
import type { ReferenceTable, ShardedTable } from '../../catalog/map.ts';
import { stringsOf } from '../../sql/facts.ts';
import { functionName } from '../calls.ts';
import type { PlanParts, Request } from '../query.ts';
import { notOnReference } from '../reference-refusal.ts';
import { notUnderstood } from '../refusal.ts';
import { type PlanContext, resolveRangeVar, resolveReferenceVar } from '../resolve.ts';
import {
  type CatalogChange,
  changeAfter,
  type DdlAnswer,
  type DdlQuestion,
  type DdlStep,
  type LeafTextPart,
} from './change.ts';
import {
  type AddedConstraint,
  addedConstraint,
  constraintQuestions,
  constraintType,
  idsOfTheirOwn,
} from './constraints.ts';
import { chosenNames, questionsFor, type WantedName } from './names.ts';
import { everywhere } from './placement.ts';
import { mayDiffer } from './same-everywhere.ts';
import {
  joined,
  leafOf,
  onLeaf,
  quotedName,
  type Range,
  StatementText,
  type TextEdit,
} from './statement-text.ts';

/** One command of the statement, as it is for faces (or copies) and leaves; an empty one is left out there. */
interface Command {
  readonly wanted: readonly WantedName[];
  readonly questions: readonly DdlQuestion[];
  readonly make: (
    names: readonly string[],
    answers: readonly DdlAnswer[],
  ) => { readonly face: readonly LeafTextPart[]; readonly leaf: readonly LeafTextPart[] };
  readonly catalog: readonly CatalogChange[];
  readonly leafOwner?: string | undefined;
}

interface CommandOptions {
  readonly text: StatementText;
  readonly table: ShardedTable | ReferenceTable;
  readonly context: PlanContext;
  readonly command: AlterTableCmd;
  readonly range: Range;
}

/** Undefined: it is of a table without a door. */
export function planAlterTable(statement: AlterTableStmt, request: Request): PlanParts | undefined {
  const { context } = request;
  const relation = statement.relation;
  if (!relation || statement.objtype !== 'OBJECT_TABLE') return undefined;
  const table = resolveRangeVar(context, relation) ?? resolveReferenceVar(context, relation);
  if (!table) return undefined;
  const text = new StatementText(request);
  const cmds = (statement.cmds ?? []).flatMap((node) =>
    'AlterTableCmd' in node ? [node.AlterTableCmd] : [],
  );
  const ranges = commandRanges(text, relation);
  if (ranges.length !== cmds.length) throw notUnderstoodHere(table, 'this ALTER TABLE');
  const commands = cmds.map((command, index) =>
    planCommand({ text, table, context, command, range: ranges[index]! }),
  );
  const wanted = commands.flatMap((command) => command.wanted);
  const nameQuestions = questionsFor(wanted);
  const questions = [...nameQuestions, ...commands.flatMap((command) => command.questions)];
  const steps = (answers: readonly DdlAnswer[]): DdlStep[] => {
    const names = chosenNames(wanted, answers);
    let nameAt = 0;
    let answerAt = nameQuestions.length;
    const made = commands.map((command) => {
      const ownNames = names.slice(nameAt, nameAt + command.wanted.length);
      const own = answers.slice(answerAt, answerAt + command.questions.length);
      nameAt += command.wanted.length;
      answerAt += command.questions.length;
      return command.make(ownNames, own);
    });
    return stepsOf(table, made, commands);
  };
  const leafOwner = commands.find((command) => command.leafOwner !== undefined)?.leafOwner;
  return everywhere(changeAfter(questions, steps, { tag: 'ALTER TABLE', leafOwner }));
}

function stepsOf(
  table: ShardedTable | ReferenceTable,
  made: readonly ReturnType<Command['make']>[],
  commands: readonly Command[],
): DdlStep[] {
  const steps: DdlStep[] = [];
  const listed = (texts: (readonly LeafTextPart[])[]) =>
    texts.filter((parts) => parts.length > 0).flatMap((parts, i) => (i === 0 ? parts : [', ', ...parts]));
  const face = listed(made.map(({ face }) => face));
  if (face.length > 0) {
    const text = [`ALTER TABLE ${quotedName(table)} `, ...face].join('');
    steps.push({ kind: 'text', nodes: 'all', text });
  }
  const leaf = 'keyColumn' in table ? listed(made.map(({ leaf }) => leaf)) : [];
  if ('keyColumn' in table && leaf.length > 0) {
    steps.push({ kind: 'leaves', table, parts: joined(['ALTER TABLE ', leafOf(table), ' ', ...leaf]) });
  }
  const changes = commands.flatMap((command) => command.catalog);
  for (const change of changes) steps.push({ kind: 'catalog', change });
  if (changes.length === 0) steps.push({ kind: 'catalog', change: { kind: 'touch' } });
  return steps;
}

/** Where each command of ALTER TABLE [IF EXISTS] [ONLY] name [*] command, … is. */
function commandRanges(text: StatementText, relation: RangeVar): Range[] {
  const { end } = text.nameOf(relation);
  const next = text.token(end);
  const start = text.is(next, 0x2a) ? text.token(next.end).start : next.start;
  return text.commaSeparated(start, text.end);
}

function planCommand(options: CommandOptions): Command {
  const { command, table, range, text } = options;
  const subtype = command.subtype ?? '';
  const rule = RULES[subtype];
  if (rule === undefined) throw notUnderstoodHere(table, 'this form of ALTER TABLE', REASONS[subtype]);
  if (rule !== 'both' && rule !== 'leaves') return rule(options);
  const own = [text.slice(range.start, range.end)];
  return simple({ face: rule === 'both' || !('keyColumn' in table) ? own : [], leaf: own });
}

function simple(made: ReturnType<Command['make']>, more: Partial<Command> = {}): Command {
  return { wanted: [], questions: [], catalog: [], ...more, make: () => made };
}

/** ALTER COLUMN … RESTART [WITH n]: of the sequence on home, which routers lease ids from. */
function restartIdentity({ table, command, range, text }: CommandOptions): Command {
  const options = command.def && 'List' in command.def ? (command.def.List.items ?? []) : [];
  const restarts =
    options.length > 0 && options.every((one) => 'DefElem' in one && one.DefElem.defname === 'restart');
  if (!restarts)
    throw notUnderstoodHere(table, 'this change of an identity column', 'RESTART alone can be carried out.');
  const column = command.name ?? '';
  const isSharded = 'keyColumn' in table && table.columns.some((one) => one.name === column && one.sequence);
  const catalog = isSharded ? [{ kind: 'restartIds' as const, tableId: table.id, column }] : [];
  return simple({ face: [text.slice(range.start, range.end)], leaf: [] }, { catalog });
}

type Rule = 'both' | 'leaves' | ((options: CommandOptions) => Command);

/** What becomes of each command. Of a reference table the faces' text is that of all copies. */
const RULES: Readonly<Record<string, Rule>> = {
  AT_AddColumn: addColumn,
  AT_DropColumn: dropColumn,
  AT_ColumnDefault: setDefault,
  AT_AlterColumnType: alterType,
  AT_SetNotNull: 'both',
  AT_DropNotNull: 'both',
  AT_SetStatistics: 'both',
  AT_SetOptions: 'both',
  AT_ResetOptions: 'both',
  AT_SetStorage: 'both',
  AT_SetCompression: 'both',
  AT_SetExpression: alterExpression,
  AT_DropExpression: 'both',
  AT_AddConstraint: addConstraint,
  AT_DropConstraint: (options) => namedConstraint(options, ['drop', 'constraint']),
  AT_ValidateConstraint: (options) => namedConstraint(options, ['validate', 'constraint']),
  AT_AlterConstraint: (options) => namedConstraint(options, ['alter', 'constraint']),
  AT_ChangeOwner: changeOwner,
  AT_EnableRowSecurity: 'both',
  AT_DisableRowSecurity: 'both',
  AT_ForceRowSecurity: 'both',
  AT_NoForceRowSecurity: 'both',
  AT_EnableTrig: 'both',
  AT_DisableTrig: 'both',
  AT_EnableAlwaysTrig: 'both',
  AT_EnableReplicaTrig: 'both',
  AT_EnableTrigAll: allTriggers,
  AT_EnableTrigUser: allTriggers,
  AT_DisableTrigAll: allTriggers,
  AT_DisableTrigUser: allTriggers,
  // A partitioned table, as the face is one, has no storage.
  AT_SetRelOptions: 'leaves',
  AT_ResetRelOptions: 'leaves',
  AT_DropCluster: 'leaves',
  AT_ClusterOn: (options) => namedIndex(options, ['cluster', 'on'], 'leaves'),
  AT_ReplicaIdentity: replicaIdentity,
  AT_SetIdentity: restartIdentity,
};

const NO_INHERITANCE = 'A table with a door has no parents and no partitions of its own.';
const REASONS: Readonly<Record<string, string>> = {
  AT_AddIdentity: 'Declare it in CREATE TABLE: ids come from blocks that each router leases.',
  AT_DropIdentity: 'Give ids yourself: a value in the INSERT is always taken.',
  AT_AddInherit: NO_INHERITANCE,
  AT_DropInherit: NO_INHERITANCE,
  AT_AttachPartition: NO_INHERITANCE,
  AT_DetachPartition: NO_INHERITANCE,
  AT_AddOf: NO_INHERITANCE,
  AT_DropOf: NO_INHERITANCE,
  AT_SetLogged: 'It is logged always, so that buckets can be moved.',
  AT_SetUnLogged: 'It is logged always, so that buckets can be moved.',
  AT_SetTableSpace: 'Set default_tablespace on each node before the table is created.',
  AT_SetAccessMethod: 'Set default_table_access_method on each node before the table is created.',
  AT_EnableRule: 'Rules are not supported: they would rewrite statements on one node.',
  AT_DisableRule: 'Rules are not supported: they would rewrite statements on one node.',
};

function notUnderstoodHere(table: ShardedTable | ReferenceTable, what: string, hint?: string) {
  const advice = hint ?? 'Send its commands by themselves, without comments between names.';
  return 'keyColumn' in table ? notUnderstood(what, table, advice) : notOnReference(what, table, advice);
}

const SERIAL = /^(small|big)?serial[248]?$/;

function addColumn(options: CommandOptions): Command {
  const { command, table, text, range, context } = options;
  const column = (command.def as { ColumnDef: ColumnDef }).ColumnDef;
  const type = stringsOf(column.typeName?.names)?.at(-1) ?? '';
  if (SERIAL.test(type)) throw idsOfTheirOwn(table, `a column of type ${type} that is added later`);
  refuseDefault(options, column.constraints, 'a new column');
  const edits: AddedConstraint[] = [];
  const constraints = (column.constraints ?? []).flatMap((node) =>
    'Constraint' in node ? [node.Constraint] : [],
  );
  for (const [index, constraint] of constraints.entries()) {
    const next = constraints.slice(index + 1).find(({ contype }) => !contype?.startsWith('CONSTR_ATTR'));
    const collation = column.collClause?.location ?? -1;
    const start = constraint.location ?? range.end;
    if (collation > start && constraint.contype === 'CONSTR_FOREIGN')
      throw notUnderstoodHere(table, 'COLLATE behind REFERENCES', 'Write COLLATE behind the type.');
    const own = { start, end: next?.location ?? range.end };
    const added = addedConstraint({ text, table, context, constraint, column: column.colname, range: own });
    if (added) edits.push(added);
  }
  return withConstraints(options, edits);
}

function addConstraint(options: CommandOptions): Command {
  const { command, table, text, context, range } = options;
  const def = command.def;
  if (!def || !('Constraint' in def)) throw notUnderstoodHere(table, 'this constraint');
  const added = addedConstraint({
    text,
    table,
    context,
    constraint: def.Constraint,
    column: undefined,
    range,
  });
  return withConstraints(options, added ? [added] : [], added && !added.onFace);
}

function withConstraints(
  { text, range, table }: CommandOptions,
  added: readonly AddedConstraint[],
  leavesOnly = false,
): Command {
  return {
    wanted: added.flatMap(({ wanted }) => (wanted ? [wanted] : [])),
    questions: added.flatMap(({ questions }) => questions),
    catalog: [...(added.length > 0 ? added.flatMap(({ catalog }) => catalog) : [])],
    make(names, answers) {
      const face: TextEdit[] = [];
      const leaf: TextEdit[] = [];
      let nameAt = 0;
      let answerAt = 0;
      for (const constraint of added) {
        const edits = constraint.edits(constraint.wanted ? names[nameAt++] : undefined);
        constraint.check(answers.slice(answerAt, answerAt + constraint.questions.length));
        answerAt += constraint.questions.length;
        face.push(...edits.face);
        leaf.push(...edits.leaf);
      }
      const onFace = leavesOnly ? [] : text.edited(face, range);
      return { face: onFace, leaf: 'keyColumn' in table ? text.edited(leaf, range) : [] };
    },
  };
}

function dropColumn(options: CommandOptions): Command {
  const { command, table, text, range } = options;
  const name = command.name ?? '';
  const own = [text.slice(range.start, range.end)];
  if (!('keyColumn' in table)) return simple({ face: own, leaf: [] });
  if (name === table.keyColumn) {
    throw notUnderstood(
      'dropping the shard key',
      table,
      'Copy the rows into a table with another key, or take the table out of sharding first.',
    );
  }
  const ids = table.columns.find((column) => column.name === name)?.sequence === true;
  const change: CatalogChange = ids
    ? { kind: 'dropColumn', tableId: table.id, column: name }
    : { kind: 'touch' };
  return simple({ face: own, leaf: own }, { catalog: [change] });
}

function setDefault(options: CommandOptions): Command {
  const { command, table, text, range } = options;
  const column = table.columns.find(({ name }) => name === command.name);
  const own = [text.slice(range.start, range.end)];
  if (!('keyColumn' in table)) {
    // Rows are made on home, and the copies are given their values.
    return simple({ face: own, leaf: [] });
  }
  if (column && 'sequence' in column && column.sequence)
    throw idsOfTheirOwn(table, 'another default of a column whose ids come from the router');
  if (callsNextval(command.def)) throw idsOfTheirOwn(table, 'a default of nextval() that is added later');
  return simple({ face: own, leaf: own });
}

function alterType(options: CommandOptions): Command {
  const { command, table, text, range } = options;
  const column = command.def && 'ColumnDef' in command.def ? command.def.ColumnDef : undefined;
  if (!('keyColumn' in table)) {
    if (column?.raw_default && mayDiffer(column.raw_default))
      throw notOnReference(
        'USING with what may differ between nodes',
        table,
        'Use functions that are immutable.',
      );
    return simple({ face: [text.slice(range.start, range.end)], leaf: [] });
  }
  if (command.name === table.keyColumn) {
    throw notUnderstood(
      'another type of the shard key',
      table,
      'Its rows would belong to other buckets: copy them into a table with the new type.',
    );
  }
  const edits = text.columnEdits(column?.raw_default, table);
  return simple({ face: [text.slice(range.start, range.end)], leaf: text.edited(edits, range) });
}

function alterExpression({ command, table, text, range }: CommandOptions): Command {
  const edits = 'keyColumn' in table ? text.columnEdits(command.def, table) : [];
  return simple({ face: [text.slice(range.start, range.end)], leaf: text.edited(edits, range) });
}

/** What would give each copy, or each node's leaves, rows of their own. */
function refuseDefault(
  { table }: CommandOptions,
  constraints: readonly Node[] | undefined,
  what: string,
): void {
  for (const node of constraints ?? []) {
    if (!('Constraint' in node) || node.Constraint.contype !== 'CONSTR_DEFAULT') continue;
    const expression = node.Constraint.raw_expr;
    if (callsNextval(expression)) throw idsOfTheirOwn(table, `a default of nextval() of ${what}`);
    if (!('keyColumn' in table) && expression && mayDiffer(expression)) {
      throw notOnReference(
        'a default that may differ between nodes, for rows that are there already,',
        table,
        'Add the column without it, UPDATE the rows, and then SET DEFAULT.',
      );
    }
  }
}

function callsNextval(tree: unknown): boolean {
  if (typeof tree !== 'object' || tree === null) return false;
  if (Array.isArray(tree)) return tree.some(callsNextval);
  return Object.entries(tree).some(([key, value]) => {
    if (key === 'FuncCall' && functionName(value).name === 'nextval') return true;
    return callsNextval(value);
  });
}

/** DROP, VALIDATE and ALTER CONSTRAINT: what it is called on a leaf depends on what it is. */
function namedConstraint(options: CommandOptions, keywords: readonly string[]): Command {
  const { command, table, text, range } = options;
  const own = text.slice(range.start, range.end);
  if (!('keyColumn' in table)) return simple({ face: [own], leaf: [] });
  const def = command.def;
  const name =
    command.name ??
    (def && 'ATAlterConstraint' in def
      ? (def.ATAlterConstraint as { conname?: string }).conname
      : undefined) ??
    (def && 'Constraint' in def ? def.Constraint.conname : undefined) ??
    '';
  const behind = text.after(range.start, ...keywords);
  if (!behind) throw notUnderstoodHere(table, 'this constraint');
  const token = text.skip(behind.start, 'if', 'exists');
  const renamed = text.edited([{ start: token.start, end: token.end, parts: [onLeaf(table, name)] }], range);
  return {
    wanted: [],
    questions: constraintQuestions(table, name),
    catalog: [],
    make(_names, answers) {
      const type = constraintType(answers);
      // Nothing is there: the face says so.
      if (type === undefined) return { face: [own], leaf: [] };
      if (type === 'n') {
        throw notUnderstood(
          'a NOT NULL constraint by its name',
          table,
          'Use ALTER COLUMN … SET or DROP NOT NULL.',
        );
      }
      if (type === 'f') return { face: [], leaf: renamed };
      return { face: [own], leaf: type === 'c' ? [own] : renamed };
    },
  };
}

function namedIndex(options: CommandOptions, keywords: readonly string[], where: 'leaves' | 'both'): Command {
  const { command, table, text, range } = options;
  const own = text.slice(range.start, range.end);
  if (!('keyColumn' in table)) return simple({ face: [own], leaf: [] });
  const def = command.def;
  const name = def && 'ReplicaIdentityStmt' in def ? def.ReplicaIdentityStmt.name : command.name;
  const token = text.after(range.start, ...keywords);
  if (!token || name === undefined) throw notUnderstoodHere(table, 'this index');
  const leaf = text.edited([{ start: token.start, end: token.end, parts: [onLeaf(table, name)] }], range);
  return simple({ face: where === 'both' ? [own] : [], leaf });
}

function replicaIdentity(options: CommandOptions): Command {
  const identity = (options.command.def as { ReplicaIdentityStmt: ReplicaIdentityStmt }).ReplicaIdentityStmt;
  if (identity.identity_type === 'i')
    return namedIndex(options, ['replica', 'identity', 'using', 'index'], 'both');
  const own = [options.text.slice(options.range.start, options.range.end)];
  return simple({ face: own, leaf: own });
}

function changeOwner({ command, text, range }: CommandOptions): Command {
  const own = [text.slice(range.start, range.end)];
  return simple({ face: own, leaf: own }, { leafOwner: command.newowner?.rolename });
}

function allTriggers({ table, text, range }: CommandOptions): Command {
  if (!('keyColumn' in table)) {
    throw notOnReference(
      'all triggers at once',
      table,
      'One of them keeps its copies equal: name the others.',
    );
  }
  const own = [text.slice(range.start, range.end)];
  return simple({ face: own, leaf: own });
}

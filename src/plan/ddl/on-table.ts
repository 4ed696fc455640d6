/**
 * What belongs to a table with a door and bears its own name there: policies, triggers, statistics, comments. A policy and a trigger
 * are a table's own, so the face's name is the leaf's too.
 */
import type {
  AlterPolicyStmt,
  CommentStmt,
  CreatePolicyStmt,
  CreateStatsStmt,
  CreateTrigStmt,
  DropStmt,
  RangeVar,
} from '@pgsql/types';
import { notSupported } from '../../base/errors.ts';
import type { ReferenceTable, ShardedTable } from '../../catalog/map.ts';
import { quoteIdentifier, quoteLiteral } from '../../pg/identifier.ts';
import { stringsOf } from '../../sql/facts.ts';
import type { PlanParts, Request } from '../query.ts';
import { referenceOfNames } from '../reference-ddl.ts';
import { notOnReference } from '../reference-refusal.ts';
import { nameOf, notUnderstood } from '../refusal.ts';
import { type PlanContext, resolveRangeVar, resolveReferenceVar, resolveTable } from '../resolve.ts';
import { shardedTableInBody } from '../utility.ts';
import { changeAfter, changeOf, type DdlAnswer, type DdlQuestion, type DdlStep } from './change.ts';
import { constraintQuestions, constraintType } from './constraints.ts';
import { onIndex } from './indexes.ts';
import { chosenNames, questionsFor, wantedName } from './names.ts';
import { everywhere } from './placement.ts';
import { MISSING } from './shared-objects.ts';
import {
  joined,
  leafOf,
  notPlain,
  onLeaf,
  qualifiedOnLeaf,
  quotedName,
  StatementText,
  type TextEdit,
} from './statement-text.ts';

type DoorTable = ShardedTable | ReferenceTable;
const TOUCH: DdlStep = { kind: 'catalog', change: { kind: 'touch' } };

function tableOf(relation: RangeVar | undefined, context: PlanContext): DoorTable | undefined {
  return relation && (resolveRangeVar(context, relation) ?? resolveReferenceVar(context, relation));
}

/** A statement in whose text the table stands once, beside column references in `tree`. */
export function onTable(
  request: Request,
  table: DoorTable,
  relation: RangeVar,
  options: {
    readonly tag: string;
    readonly tree?: unknown;
    readonly questions?: readonly DdlQuestion[];
    check?: (answers: readonly DdlAnswer[]) => void;
  },
): PlanParts {
  const text = new StatementText(request);
  const name = text.nameOf(relation);
  const steps: DdlStep[] = [
    { kind: 'text', nodes: 'all', text: text.editedText([{ ...name, parts: [quotedName(table)] }]) },
  ];
  if ('keyColumn' in table) {
    const inner = text.columnEdits(options.tree, table);
    steps.push({
      kind: 'leaves',
      table,
      parts: text.edited([{ ...name, parts: [leafOf(table)] }, ...inner]),
    });
  }
  steps.push(TOUCH);
  const made = (answers: readonly DdlAnswer[]) => {
    options.check?.(answers);
    return steps;
  };
  return everywhere(changeAfter(options.questions ?? [], made, { tag: options.tag }));
}

export function planPolicy(
  statement: CreatePolicyStmt | AlterPolicyStmt,
  tag: string,
  request: Request,
): PlanParts | undefined {
  const { context, facts } = request;
  const table = tableOf(statement.table, context);
  if (!table || !statement.table) return undefined;
  for (const rangeVar of facts.rangeVars) {
    if (rangeVar === statement.table || resolveReferenceVar(context, rangeVar)) continue;
    throw notSupported(
      `a policy of ${nameOf(table)} that reads "${rangeVar.relname}", which is no reference table, is not supported`,
      'It is evaluated on the node of the row, which has its own bucket of a sharded table, and no other tables: make it a reference table, or compare with current_setting().',
    );
  }
  return onTable(request, table, statement.table, { tag, tree: [statement.qual, statement.with_check] });
}

/** FOR EACH ROW, with a function that names no sharded table and does not ask what its table is called. */
export function planCreateTrigger(statement: CreateTrigStmt, request: Request): PlanParts | undefined {
  const { context } = request;
  const { relation } = statement;
  const table = tableOf(relation, context);
  if (!table || !relation) return undefined;
  if (!('keyColumn' in table)) {
    throw notOnReference('CREATE TRIGGER', table, 'It would fire on every node, for each copy of the row.');
  }
  const refuse = (what: string, hint: string): never => {
    throw notUnderstood(what, table, hint);
  };
  if (!statement.row)
    refuse('a trigger FOR EACH STATEMENT', 'It would fire once for each bucket: use FOR EACH ROW.');
  if (statement.transitionRels) refuse('a trigger with transition tables', 'Use NEW and OLD.');
  if (statement.constrrel) refuse('a constraint trigger FROM another table', 'Leave FROM out.');
  const names = stringsOf(statement.funcname) ?? [];
  const question: DdlQuestion = {
    text:
      'SELECT p.prosrc FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang ' +
      `WHERE p.oid = pg_catalog.to_regprocedure(${quoteLiteral(`${names.map(quoteIdentifier).join('.')}()`)}) ` +
      "AND l.lanname NOT IN ('internal', 'c')",
    nodeId: undefined,
  };
  const check = ([answer]: readonly DdlAnswer[]) => {
    const body = answer?.[0]?.[0] ?? '';
    const named = shardedTableInBody(body, context);
    if (named) {
      const hint = 'A trigger runs on the node of the row, which has but its own buckets of that table.';
      refuse(`a trigger function whose body names sharded table ${nameOf(named)}`, hint);
    }
    if (/\btg_(table_name|relname|relid|table_schema)\b/i.test(body)) {
      const hint =
        "The table is a bucket's there, with another name: pass the name as an argument (TG_ARGV).";
      refuse("a trigger function that reads its table's name", hint);
    }
  };
  const parts = onTable(request, table, relation, { tag: 'CREATE TRIGGER', questions: [question], check });
  return withTriggerRight(parts, table);
}

/** A trigger takes a privilege that even its owner lacks on the face; only they can give it to themselves. */
function withTriggerRight(parts: PlanParts, table: ShardedTable): PlanParts {
  if (parts.placement?.kind !== 'everywhere') return parts;
  const { change } = parts.placement;
  const right = (text: string): DdlStep => ({ kind: 'text', nodes: 'all', text });
  const give = right(`GRANT TRIGGER ON ${quotedName(table)} TO CURRENT_USER`);
  const take = right(`REVOKE TRIGGER ON ${quotedName(table)} FROM CURRENT_USER`);
  const steps = (answers: readonly DdlAnswer[]) => [give, ...change.steps(answers), take];
  return everywhere({ ...change, steps });
}

const DROPPED: Readonly<Record<string, string>> = { OBJECT_POLICY: 'POLICY', OBJECT_TRIGGER: 'TRIGGER' };

/** DROP POLICY and DROP TRIGGER … ON table. */
export function planDropOnTable(statement: DropStmt, { context }: Request): PlanParts | undefined {
  const what = DROPPED[statement.removeType ?? ''];
  const [node] = statement.objects ?? [];
  const names = node && 'List' in node ? (stringsOf(node.List.items) ?? []) : [];
  const table = doorTableOfNames(names.slice(0, -1), context);
  if (what === undefined || !table) return undefined;
  if (what === 'TRIGGER' && !('keyColumn' in table))
    throw notOnReference('DROP TRIGGER', table, 'The triggers that it has keep its copies equal.');
  const name = quoteIdentifier(names.at(-1) ?? '');
  const before = `DROP ${what} ${statement.missing_ok ? 'IF EXISTS ' : ''}${name} ON `;
  const after = statement.behavior === 'DROP_CASCADE' ? ' CASCADE' : '';
  const steps: DdlStep[] = [{ kind: 'text', nodes: 'all', text: before + quotedName(table) + after }];
  if ('keyColumn' in table)
    steps.push({ kind: 'leaves', table, parts: joined([before, leafOf(table), after]) });
  return everywhere(changeOf([...steps, TOUCH], { tag: `DROP ${what}` }));
}

/** table, or schema.table. */
function doorTableOfNames(names: readonly string[], context: PlanContext): DoorTable | undefined {
  const [first, second] = names.slice(-2);
  if (first === undefined) return undefined;
  const sharded =
    second === undefined ? resolveTable(context, undefined, first) : resolveTable(context, first, second);
  return sharded ?? referenceOfNames(names, context);
}

/** A comment stands on the face, and is copied from there to what is made after it. */
export function planComment(statement: CommentStmt, request: Request): PlanParts | undefined {
  const { context } = request;
  const { objtype, object } = statement;
  const names = object && 'List' in object ? (stringsOf(object.List.items) ?? []) : [];
  const { whole } = new StatementText(request);
  const all: DdlStep = { kind: 'text', nodes: 'all', text: whole };
  const options = { tag: 'COMMENT' };
  switch (objtype) {
    case 'OBJECT_TABLE':
      return doorTableOfNames(names, context) ? everywhere(changeOf([all], options)) : undefined;
    case 'OBJECT_COLUMN':
    case 'OBJECT_POLICY':
    case 'OBJECT_TRIGGER':
      return doorTableOfNames(names.slice(0, -1), context) ? everywhere(changeOf([all], options)) : undefined;
    case 'OBJECT_TABCONSTRAINT': {
      const table = doorTableOfNames(names.slice(0, -1), context);
      if (!table) return undefined;
      if (!('keyColumn' in table)) return everywhere(changeOf([all], options));
      const name = names.at(-1) ?? '';
      const comment = statement.comment === undefined ? 'NULL' : quoteLiteral(statement.comment);
      const parts = joined([
        'COMMENT ON CONSTRAINT ',
        onLeaf(table, name),
        ' ON ',
        leafOf(table),
        ` IS ${comment}`,
      ]);
      const steps = (answers: readonly DdlAnswer[]): DdlStep[] =>
        constraintType(answers) === 'f' ? [{ kind: 'leaves', table, parts }] : [all];
      return everywhere(changeAfter(constraintQuestions(table, name), steps, options));
    }
    case 'OBJECT_INDEX':
      return onIndex({ relname: names.at(-1) ?? '', ...schemaOf(names) }, request, {
        tag: 'COMMENT',
        steps: () => [all],
      });
    default:
      return undefined;
  }
}

function schemaOf(names: readonly string[]): Pick<RangeVar, 'schemaname'> {
  const schemaname = names.at(-2);
  return schemaname === undefined ? {} : { schemaname };
}

export function planCreateStatistics(statement: CreateStatsStmt, request: Request): PlanParts | undefined {
  const [node] = statement.relations ?? [];
  const relation = node && 'RangeVar' in node ? node.RangeVar : undefined;
  const table = tableOf(relation, request.context);
  if (!table || !relation) return undefined;
  const text = new StatementText(request);
  const names = stringsOf(statement.defnames) ?? [];
  const behind = text.after(text.start, 'create', 'statistics');
  if (!behind) throw notPlain();
  const first = text.skip(behind.start, 'if', 'not', 'exists');
  const end =
    names.length === 0
      ? first.start
      : text.nameOf({ location: first.start, relname: names.at(-1)!, ...schemaOf(names) }).end;
  const place = { start: first.start, end };
  const options = { tag: 'CREATE STATISTICS' };
  const steps = (name: string): DdlStep[] => {
    const named = (parts: TextEdit['parts']): TextEdit => ({
      ...place,
      parts: names.length === 0 ? [...parts, ' '] : parts,
    });
    const at = text.nameOf(relation);
    const faceName =
      names.length > 0
        ? names.map(quoteIdentifier).join('.')
        : `${quoteIdentifier(table.schema)}.${quoteIdentifier(name)}`;
    const face = text.editedText([named([faceName]), { ...at, parts: [quotedName(table)] }]);
    const all: DdlStep = { kind: 'text', nodes: 'all', text: face };
    if (!('keyColumn' in table)) return [all];
    const inner = text.columnEdits(statement.exprs, table);
    const parts = text.edited([
      named(qualifiedOnLeaf(table, name)),
      { ...at, parts: [leafOf(table)] },
      ...inner,
    ]);
    return [all, { kind: 'leaves', table, parts }];
  };
  if (names.length > 0) return everywhere(changeOf(steps(names.at(-1)!), options));
  const columns = (statement.exprs ?? []).map((expr) =>
    'StatsElem' in expr ? (expr.StatsElem.name ?? 'expr') : 'expr',
  );
  const wanted = [wantedName('statistics', table, columns)];
  return everywhere(
    changeAfter(questionsFor(wanted), (answers) => steps(chosenNames(wanted, answers)[0]!), options),
  );
}

/** Whose statistics they are is asked of home. */
export function planDropStatistics(statement: DropStmt, request: Request): PlanParts | undefined {
  const { context } = request;
  if (context.map.tablesByName.size === 0 && context.map.referencesByName.size === 0) return undefined;
  const lists = (statement.objects ?? []).map((node) =>
    'List' in node ? (stringsOf(node.List.items) ?? []) : [],
  );
  const { whole } = new StatementText(request);
  const questions = lists.map((names): DdlQuestion => {
    const schema = names.at(-2);
    const where =
      schema === undefined
        ? 'pg_catalog.pg_statistics_obj_is_visible(s.oid)'
        : `n.nspname = ${quoteLiteral(schema)}`;
    return {
      text:
        'SELECT n.nspname::text, s.stxname::text, tn.nspname::text, t.relname::text FROM pg_catalog.pg_statistic_ext s ' +
        'JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace JOIN pg_catalog.pg_class t ON t.oid = s.stxrelid ' +
        `JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace WHERE s.stxname = ${quoteLiteral(names.at(-1) ?? '')} AND ${where}`,
      nodeId: undefined,
    };
  });
  const steps = (answers: readonly DdlAnswer[]): DdlStep[] => {
    const out: DdlStep[] = [{ kind: 'text', nodes: 'home', text: whole }];
    for (const answer of answers) {
      const [schema, name, tableSchema = '', tableName = ''] = answer[0] ?? [];
      const table =
        context.map.tables.get(tableSchema ?? '')?.get(tableName ?? '') ??
        context.map.references.get(tableSchema ?? '')?.get(tableName ?? '');
      if (!table || !schema || !name) continue;
      const text = `DROP STATISTICS ${quoteIdentifier(schema)}.${quoteIdentifier(name)}`;
      out.push({ kind: 'text', nodes: 'others', text, toleratedStates: MISSING });
      if ('keyColumn' in table)
        out.push({
          kind: 'leaves',
          table,
          parts: joined(['DROP STATISTICS IF EXISTS ', ...qualifiedOnLeaf(table, name)]),
        });
    }
    return out;
  };
  return everywhere(changeAfter(questions, steps, { tag: 'DROP STATISTICS' }));
}

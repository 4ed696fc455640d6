/**
 * Indexes of tables with a door: CREATE, DROP, ALTER and REINDEX INDEX. The map knows no indexes: whose an index is, is asked of home.
 *
 * A face's index is one of an empty partitioned table; each leaf has its own, with the leaf's suffix. CONCURRENTLY is for the leaves: they
 * come first, so that the face, which is what is shown, has the index when all leaves do.
 */
import type { AlterTableStmt, DropStmt, IndexStmt, RangeVar, ReindexStmt, RenameStmt } from '@pgsql/types';
import type { ReferenceTable, ShardedTable } from '../../catalog/map.ts';
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../../pg/identifier.ts';
import { stringsOf } from '../../sql/facts.ts';
import type { PlanParts, Request } from '../query.ts';
import { notUnderstood } from '../refusal.ts';
import { type PlanContext, resolveRangeVar, resolveReferenceVar } from '../resolve.ts';
import { changeAfter, type DdlAnswer, type DdlQuestion, type DdlStep } from './change.ts';
import { oidOf, uniqueWithoutKey } from './constraints.ts';
import { chosenNames, indexColumnNames, questionsFor, wantedName } from './names.ts';
import { everywhere } from './placement.ts';
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

export function planCreateIndex(statement: IndexStmt, request: Request): PlanParts | undefined {
  const { context } = request;
  const relation = statement.relation;
  if (!relation) return undefined;
  const table = resolveRangeVar(context, relation) ?? resolveReferenceVar(context, relation);
  if (!table) return undefined;
  const sharded = 'keyColumn' in table;
  const elements = statement.indexParams ?? [];
  const columns = elements.flatMap((node) => ('IndexElem' in node ? [node.IndexElem.name] : []));
  if (sharded && statement.unique && !columns.includes(table.keyColumn)) throw uniqueWithoutKey(table);
  const text = new StatementText(request);
  const words = wordsOf(statement, text);
  const name = text.nameOf(relation);
  const only: TextEdit[] = words.only ? [{ ...words.only, parts: [] }] : [];
  const facesTable: TextEdit = { ...name, parts: [quotedName(table)] };
  const steps = (index: string): DdlStep[] => {
    const named = (part: string | ReturnType<typeof onLeaf>): TextEdit => ({
      ...words.name,
      parts: words.name.start === words.name.end ? [part, ' '] : [part],
    });
    const concurrently: TextEdit[] =
      words.concurrently && sharded ? [{ ...words.concurrently, parts: [] }] : [];
    const ofAll = text.editedText([...concurrently, ...only, named(quoteIdentifier(index)), facesTable]);
    const face: DdlStep = { kind: 'text', nodes: 'all', text: ofAll };
    if (!sharded) return [face, TOUCH];
    const inner = text.columnEdits([elements, statement.whereClause], table);
    const parts = text.edited([
      ...only,
      named(onLeaf(table, index)),
      { ...name, parts: [leafOf(table)] },
      ...inner,
    ]);
    const leaves: DdlStep = { kind: 'leaves', table, parts };
    return statement.concurrent ? [leaves, face, TOUCH] : [face, leaves, TOUCH];
  };
  const options = {
    tag: 'CREATE INDEX',
    mode: statement.concurrent ? ('outside' as const) : ('transaction' as const),
  };
  if (statement.idxname === undefined) {
    const all = [...elements, ...(statement.indexIncludingParams ?? [])];
    const wanted = [wantedName('index', table, indexColumnNames(all))];
    return everywhere(
      changeAfter(questionsFor(wanted), (answers) => steps(chosenNames(wanted, answers)[0]!), options),
    );
  }
  const own = statement.idxname;
  if (!statement.if_not_exists) return everywhere(changeAfter([], () => steps(own), options));
  // Whatever has the name already, home says that it has.
  const isThere = `SELECT 'yes' WHERE ${oidOf(table.schema, own)} IS NOT NULL`;
  const skipped: DdlStep[] = [{ kind: 'text', nodes: 'home', text: text.whole }];
  return everywhere(
    changeAfter(
      [{ text: isThere, nodeId: undefined }],
      ([answer]) => ((answer ?? []).length > 0 ? skipped : steps(own)),
      options,
    ),
  );
}

const TOUCH: DdlStep = { kind: 'catalog', change: { kind: 'touch' } };

interface Place {
  readonly start: number;
  readonly end: number;
}

/** CREATE [UNIQUE] INDEX [CONCURRENTLY] [IF NOT EXISTS] [name] ON [ONLY] table. */
function wordsOf(
  statement: IndexStmt,
  text: StatementText,
): { name: Place; concurrently: Place | undefined; only: Place | undefined } {
  let token = text.skip(text.token(text.start).end, 'unique');
  token = text.after(token.start, 'index') ?? token;
  let concurrently: Place | undefined;
  if (statement.concurrent) {
    concurrently = { start: token.start, end: token.end };
    token = text.token(token.end);
  }
  token = text.skip(token.start, 'if', 'not', 'exists');
  const unnamed = statement.idxname === undefined;
  const name = unnamed ? { start: token.start, end: token.start } : { start: token.start, end: token.end };
  const behindOn = text.after(unnamed ? token.start : token.end, 'on');
  if (!behindOn) throw notPlain();
  const only = text.keyword(behindOn) === 'only' ? { start: behindOn.start, end: behindOn.end } : undefined;
  return { name, concurrently, only };
}

/** An index of a table with a door, as home has told. */
interface FoundIndex {
  readonly schema: string;
  readonly name: string;
  readonly table: ShardedTable | ReferenceTable;
}

/** `written`: the name as in the text, maybe qualified. What it means depends on the client's search_path. */
function indexQuestion(names: readonly string[]): DdlQuestion {
  const written = names.slice(-2).map(quoteIdentifier).join('.');
  const text =
    'SELECT n.nspname::text, x.relname::text, tn.nspname::text, t.relname::text FROM pg_catalog.pg_index i ' +
    'JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace ' +
    'JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace ' +
    `WHERE i.indexrelid = pg_catalog.to_regclass(${quoteLiteral(written)})`;
  return { text, nodeId: undefined };
}

/** Undefined: it is of a table without a door, or not there. */
function foundIndex(answer: DdlAnswer | undefined, { map }: PlanContext): FoundIndex | undefined {
  const [schema, name, tableSchema, tableName] = answer?.[0] ?? [];
  if (!schema || !name || !tableSchema || !tableName) return undefined;
  const table =
    map.tables.get(tableSchema)?.get(tableName) ?? map.references.get(tableSchema)?.get(tableName);
  return table && { schema, name, table };
}

function hasDoors({ map }: PlanContext): boolean {
  return map.tablesByName.size > 0 || map.referencesByName.size > 0;
}

export function planDropIndex(statement: DropStmt, request: Request): PlanParts | undefined {
  const { context } = request;
  if (!hasDoors(context)) return undefined;
  const names = (statement.objects ?? []).map((node) =>
    'List' in node ? (stringsOf(node.List.items) ?? []) : [],
  );
  const { whole } = new StatementText(request);
  const concurrently = statement.concurrent ? 'CONCURRENTLY ' : '';
  const cascade = statement.behavior === 'DROP_CASCADE' ? ' CASCADE' : '';
  const steps = (answers: readonly DdlAnswer[]): DdlStep[] => {
    const found = names.map((_, index) => foundIndex(answers[index], context));
    if (found.every((index) => index === undefined)) return [{ kind: 'text', nodes: 'home', text: whole }];
    return found.flatMap((index, at): DdlStep[] => {
      if (!index) {
        const ifExists = statement.missing_ok ? 'IF EXISTS ' : '';
        const name = names[at]!.map(quoteIdentifier).join('.');
        return [
          { kind: 'text', nodes: 'home', text: `DROP INDEX ${concurrently}${ifExists}${name}${cascade}` },
        ];
      }
      return dropSteps(index, { concurrently, cascade });
    });
  };
  const mode = statement.concurrent ? 'outside' : 'transaction';
  return everywhere(changeAfter(names.map(indexQuestion), steps, { tag: 'DROP INDEX', mode }));
}

/** A face's own index can't be dropped CONCURRENTLY, and need not be: nobody uses it. */
function dropSteps(index: FoundIndex, words: { concurrently: string; cascade: string }): DdlStep[] {
  const { table } = index;
  const name = quoteQualified(index.schema, index.name);
  if (!('keyColumn' in table)) {
    const text = `DROP INDEX ${words.concurrently}${name}${words.cascade}`;
    return [{ kind: 'text', nodes: 'all', text }, TOUCH];
  }
  const leaf = joined([
    `DROP INDEX ${words.concurrently}${words.concurrently ? 'IF EXISTS ' : ''}`,
    ...qualifiedOnLeaf(table, index.name),
    words.cascade,
  ]);
  const text = `DROP INDEX ${name}${words.cascade}`;
  return [{ kind: 'text', nodes: 'all', text }, { kind: 'leaves', table, parts: leaf }, TOUCH];
}

/** ALTER INDEX … RENAME TO. */
export function planRenameIndex(statement: RenameStmt, request: Request): PlanParts | undefined {
  const to = quoteIdentifier(statement.newname ?? '');
  return onIndex(statement.relation, request, {
    tag: 'ALTER INDEX',
    steps: (index) => {
      const { table } = index;
      const text = `ALTER INDEX ${quoteQualified(index.schema, index.name)} RENAME TO ${to}`;
      const all: DdlStep = { kind: 'text', nodes: 'all', text };
      if (!('keyColumn' in table)) return [all, TOUCH];
      const rename = ['ALTER INDEX ', ...qualifiedOnLeaf(table, index.name), ' RENAME TO '];
      const parts = joined([...rename, onLeaf(table, statement.newname ?? '')]);
      return [all, { kind: 'leaves', table, parts }, TOUCH];
    },
  });
}

/** ALTER INDEX … SET, RESET, ALTER COLUMN … SET STATISTICS: what leaves store. */
export function planAlterIndex(statement: AlterTableStmt, request: Request): PlanParts | undefined {
  const relation = statement.relation;
  const commands = (statement.cmds ?? []).flatMap((node) =>
    'AlterTableCmd' in node ? [node.AlterTableCmd] : [],
  );
  const text = new StatementText(request);
  return onIndex(relation, request, {
    tag: 'ALTER INDEX',
    steps: (index) => {
      const { table } = index;
      const rest = text.slice(text.nameOf(relation!).end, text.end);
      if (!('keyColumn' in table)) {
        const own = `ALTER INDEX ${quoteQualified(index.schema, index.name)}${rest}`;
        return [{ kind: 'text', nodes: 'all', text: own }];
      }
      if (!commands.every(({ subtype }) => ALTERED_ON_LEAVES.has(subtype ?? '')))
        throw notUnderstood(
          'this form of ALTER INDEX',
          table,
          'Drop the index, and create it as it should be.',
        );
      return [
        {
          kind: 'leaves',
          table,
          parts: joined(['ALTER INDEX ', ...qualifiedOnLeaf(table, index.name), rest]),
        },
      ];
    },
  });
}

const ALTERED_ON_LEAVES = new Set<string>(['AT_SetRelOptions', 'AT_ResetRelOptions', 'AT_SetStatistics']);

/** A statement on one index, which home tells whose it is; of a table without a door it goes to home as it is. */
export function onIndex(
  relation: RangeVar | undefined,
  request: Request,
  options: {
    readonly tag: string;
    readonly mode?: 'transaction' | 'outside';
    readonly steps: (index: FoundIndex) => DdlStep[];
  },
): PlanParts | undefined {
  const { context } = request;
  if (!relation || !hasDoors(context)) return undefined;
  const { whole } = new StatementText(request);
  const { relname = '', schemaname } = relation;
  const question = indexQuestion(schemaname === undefined ? [relname] : [schemaname, relname]);
  const steps = ([answer]: readonly DdlAnswer[]): DdlStep[] => {
    const index = foundIndex(answer, context);
    return index ? options.steps(index) : [{ kind: 'text', nodes: 'home', text: whole }];
  };
  return everywhere(
    changeAfter([question], steps, { tag: options.tag, mode: options.mode ?? 'transaction' }),
  );
}

/** REINDEX of what has a door, by table or index; all else is the home node's. */
export function planReindex(statement: ReindexStmt, request: Request): PlanParts | undefined {
  const { context } = request;
  const { kind, relation } = statement;
  const concurrent = (statement.params ?? []).some(
    (node) => 'DefElem' in node && node.DefElem.defname === 'concurrently',
  );
  const mode = concurrent ? 'outside' : 'transaction';
  const text = new StatementText(request);
  if (!relation) return undefined;
  const before = text.slice(text.start, text.nameOf(relation).start);
  if (kind === 'REINDEX_OBJECT_INDEX') {
    return onIndex(relation, request, {
      tag: 'REINDEX',
      mode,
      steps: ({ table, schema, name }) =>
        'keyColumn' in table
          ? [{ kind: 'leaves', table, parts: joined([before, ...qualifiedOnLeaf(table, name)]) }]
          : [{ kind: 'text', nodes: 'all', text: before + quoteQualified(schema, name) }],
    });
  }
  const table = resolveRangeVar(context, relation) ?? resolveReferenceVar(context, relation);
  if (!table) return undefined;
  const step: DdlStep =
    'keyColumn' in table
      ? { kind: 'leaves', table, parts: joined([before, leafOf(table)]) }
      : { kind: 'text', nodes: 'all', text: before + quotedName(table) };
  return everywhere(changeAfter([], () => [step], { tag: 'REINDEX', mode }));
}

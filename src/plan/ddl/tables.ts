/** Statements on lists of tables, of any door: TRUNCATE, GRANT, VACUUM, ANALYZE, CLUSTER, DROP TABLE. */
import type {
  ClusterStmt,
  DropStmt,
  GrantStmt,
  Node,
  RangeVar,
  TruncateStmt,
  VacuumStmt,
} from '@pgsql/types';
import type { ReferenceTable, ShardedTable } from '../../catalog/map.ts';
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../../pg/identifier.ts';
import { stringsOf } from '../../sql/facts.ts';
import { refuseTruncatedBesides, withLookups } from '../lookups.ts';
import type { PlanParts, Request } from '../query.ts';
import { notUnderstood } from '../refusal.ts';
import {
  type PlanContext,
  resolveRangeVar,
  resolveReference,
  resolveReferenceVar,
  resolveTable,
} from '../resolve.ts';
import {
  changeAfter,
  changeOf,
  type DdlAnswer,
  type DdlChange,
  type DdlQuestion,
  type DdlStep,
} from './change.ts';
import { everywhere } from './placement.ts';
import {
  joined,
  leafOf,
  notPlain,
  onLeaf,
  quotedName,
  rangeVarsOf,
  StatementText,
} from './statement-text.ts';
import { onHome } from './views.ts';

/** The tables of a list, by door; names quoted. */
interface Sorted {
  readonly sharded: readonly ShardedTable[];
  readonly references: readonly ReferenceTable[];
  readonly singles: readonly string[];
}

function sorted(relations: readonly RangeVar[], context: PlanContext): Sorted {
  const sharded: ShardedTable[] = [];
  const references: ReferenceTable[] = [];
  const singles: string[] = [];
  for (const relation of relations) {
    const table = resolveRangeVar(context, relation);
    const reference = table ? undefined : resolveReferenceVar(context, relation);
    if (table) sharded.push(table);
    else if (reference) references.push(reference);
    else singles.push(`${relation.inh ? '' : 'ONLY '}${writtenName(relation)}`);
  }
  return { sharded, references, singles };
}

function writtenName({ schemaname, relname = '' }: RangeVar): string {
  return schemaname === undefined ? quoteIdentifier(relname) : quoteQualified(schemaname, relname);
}

/** One statement on each node, with all that it has of the tables. */
function onEachNode(tables: Sorted, text: { before: string; after: string; suffix?: string }): DdlStep {
  return {
    kind: 'leafList',
    tables: tables.sharded,
    others: tables.references.map(quotedName),
    homeOnly: tables.singles,
    before: text.before,
    after: text.after,
    suffix: text.suffix ?? '',
  };
}

/** Undefined: neither sharded tables nor a mixture are in it (reference-ddl.ts has those of reference tables alone). */
export function planTruncateOverNodes(statement: TruncateStmt, { context }: Request): PlanParts | undefined {
  const relations = rangeVarsOf(statement.relations);
  const tables = sorted(relations, context);
  const cascade = statement.behavior === 'DROP_CASCADE';
  const [first] = tables.sharded;
  const [reference] = tables.references;
  if (!first && !reference) return undefined;
  if (!first && tables.singles.length === 0 && !cascade && !statement.restart_seqs) return undefined;
  if (first && relations.some((relation) => !relation.inh && resolveRangeVar(context, relation)))
    throw notUnderstood('TRUNCATE ONLY', first, 'Leave ONLY out: the table has no children.');
  const words = `${statement.restart_seqs ? ' RESTART IDENTITY' : ''}${cascade ? ' CASCADE' : ''}`;
  if (cascade) refuseTruncatedBesides(tables.sharded, context);
  const sharded = withLookups(tables.sharded);
  const step = onEachNode({ ...tables, sharded }, { before: 'TRUNCATE TABLE ', after: words });
  const options = { tag: 'TRUNCATE TABLE', liftsGuard: reference !== undefined || cascade };
  if (!statement.restart_seqs || !first) return everywhere(changeOf([step], options));
  const questions = tables.sharded.map(ownedSequences);
  const restarts = (answers: readonly DdlAnswer[]) => answers.flatMap((rows) => restartSteps(rows, context));
  return everywhere(changeAfter(questions, (answers) => [step, ...restarts(answers)], options));
}

/** Of the face's columns: those that RESTART IDENTITY is about. */
function ownedSequences(table: ShardedTable): DdlQuestion {
  const face = `${quoteLiteral(quotedName(table))}::pg_catalog.regclass`;
  return {
    text:
      `SELECT n.nspname::text, s.relname::text FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S' ` +
      `JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass ` +
      `AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i') AND d.refobjid = ${face} ORDER BY 1, 2`,
    nodeId: undefined,
  };
}

/** Routers drop the ids that they have leased. */
function restartSteps(sequences: DdlAnswer, { map }: PlanContext): DdlStep[] {
  return sequences.flatMap(([schema, name]): DdlStep[] => {
    const columns = (map.idColumnsBySequence.get(name ?? '') ?? []).filter(
      ({ sequence }) => sequence.schema === schema,
    );
    return [
      { kind: 'text', nodes: 'home', text: `ALTER SEQUENCE ${quoteQualified(schema!, name!)} RESTART` },
      ...columns.map(({ table, column }): DdlStep => {
        return { kind: 'catalog', change: { kind: 'restartIds', tableId: table.id, column } };
      }),
    ];
  });
}

/** GRANT and REVOKE on tables by name, or on all tables of a schema. */
export function planGrantOverNodes(statement: GrantStmt, request: Request): PlanParts | undefined {
  const { context } = request;
  if (statement.objtype !== 'OBJECT_TABLE') return undefined;
  if (statement.targtype === 'ACL_TARGET_ALL_IN_SCHEMA') return planGrantInSchemas(statement, request);
  if (statement.targtype !== 'ACL_TARGET_OBJECT') return undefined;
  const relations = rangeVarsOf(statement.objects);
  const tables = sorted(relations, context);
  if (tables.sharded.length === 0 && tables.references.length === 0) return undefined;
  const text = new StatementText(request);
  const before = text.slice(text.start, text.nameOf(relations[0]!).start);
  const after = text.slice(text.nameOf(relations.at(-1)!).end, text.end);
  return everywhere(changeOf(granting(tables, { before, after }), grantOptions(statement)));
}

/** Rights on leaves are read by the mesh, which looks again when the epoch has changed (mesh/SPEC.md). */
function granting(tables: Sorted, words: { readonly before: string; readonly after: string }): DdlStep[] {
  const step = onEachNode(tables, words);
  return tables.sharded.length === 0 ? [step] : [step, { kind: 'catalog', change: { kind: 'touch' } }];
}

function grantOptions({ is_grant }: GrantStmt): Partial<Pick<DdlChange, 'tag'>> {
  return { tag: is_grant ? 'GRANT' : 'REVOKE' };
}

/** Faces have no privileges: the tables are listed, and the leaves named instead of the faces. */
function planGrantInSchemas(statement: GrantStmt, request: Request): PlanParts | undefined {
  const { context } = request;
  const { tables, references } = context.map;
  const schemas = (statement.objects ?? []).flatMap((node) =>
    'String' in node ? [node.String.sval ?? ''] : [],
  );
  if (!schemas.some((schema) => tables.has(schema) || references.has(schema))) return undefined;
  const text = new StatementText(request);
  const { before, after } = aroundAllTables(text, schemas.length);
  const question = {
    text:
      'SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ' +
      `WHERE n.nspname IN (${schemas.map(quoteLiteral).join(', ')}) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1, 2`,
    nodeId: undefined,
  };
  const steps = ([answer]: readonly DdlAnswer[]): DdlStep[] => {
    const found = (answer ?? []).map(
      ([schemaname, relname]): RangeVar => ({
        schemaname: schemaname ?? '',
        relname: relname ?? '',
        inh: true,
      }),
    );
    return found.length === 0 ? [] : granting(sorted(found, context), { before, after });
  };
  return everywhere(changeAfter([question], steps, grantOptions(statement)));
}

/** GRANT … ON ALL TABLES IN SCHEMA a, b TO …: the text before ALL and behind the schemas. */
function aroundAllTables(text: StatementText, schemaCount: number): { before: string; after: string } {
  for (let token = text.token(text.start); token.kind !== 'end'; token = text.token(token.end)) {
    const behind = text.after(token.start, 'on', 'all', 'tables', 'in', 'schema');
    if (!behind) continue;
    let last = behind;
    for (let index = 1; index < schemaCount; index++) last = text.token(text.token(last.end).end);
    return { before: `${text.slice(text.start, token.end)} TABLE `, after: text.slice(last.end, text.end) };
  }
  throw notPlain();
}

/** VACUUM and ANALYZE of tables with a door; without a list, of all tables of all nodes. */
export function planVacuum(statement: VacuumStmt, request: Request): PlanParts | undefined {
  const { context } = request;
  const entries = (statement.rels ?? []).flatMap((node) =>
    'VacuumRelation' in node ? [node.VacuumRelation] : [],
  );
  const text = new StatementText(request);
  const vacuums = statement.is_vacuumcmd === true;
  const options = {
    tag: vacuums ? 'VACUUM' : 'ANALYZE',
    mode: vacuums ? ('outside' as const) : ('transaction' as const),
  };
  if (entries.length === 0) {
    if (context.map.nodes.length < 2) return undefined;
    return everywhere(changeOf([{ kind: 'text', nodes: 'all', text: text.whole }], options));
  }
  const relations = entries.flatMap(({ relation }) => (relation ? [relation] : []));
  const all = sorted(relations, context);
  if (all.sharded.length === 0 && all.references.length === 0) return undefined;
  const firstName = text.nameOf(relations[0]!).start;
  const before = text.slice(text.start, firstName).replace(/\bonly\s+$/i, '');
  const steps = entries.map(({ relation, va_cols }) => {
    const columns = (stringsOf(va_cols) ?? []).map(quoteIdentifier).join(', ');
    const suffix = columns === '' ? '' : ` (${columns})`;
    return onEachNode(sorted(relation ? [relation] : [], context), { before, after: '', suffix });
  });
  return everywhere(changeOf(steps, options));
}

/** CLUSTER t [USING index]: the face has no rows. */
export function planCluster(statement: ClusterStmt, request: Request): PlanParts | undefined {
  const { context } = request;
  const { relation, indexname } = statement;
  const text = new StatementText(request);
  if (!relation) {
    if (context.map.nodes.length < 2) return undefined;
    return everywhere(
      changeOf([{ kind: 'text', nodes: 'all', text: text.whole }], { tag: 'CLUSTER', mode: 'outside' }),
    );
  }
  const table = resolveRangeVar(context, relation) ?? resolveReferenceVar(context, relation);
  if (!table) return undefined;
  const using = indexname === undefined ? [] : [' USING '];
  const step: DdlStep =
    'keyColumn' in table
      ? {
          kind: 'leaves',
          table,
          parts: joined([
            'CLUSTER ',
            leafOf(table),
            ...using,
            ...(indexname ? [onLeaf(table, indexname)] : []),
          ]),
        }
      : {
          kind: 'text',
          nodes: 'all',
          text: [
            'CLUSTER ',
            quotedName(table),
            ...using,
            ...(indexname ? [quoteIdentifier(indexname)] : []),
          ].join(''),
        };
  return everywhere(changeOf([step], { tag: 'CLUSTER' }));
}

/** DROP TABLE of some with and some without a door. Those with a door alone are a command of the router. */
export function planDropMixed(statement: DropStmt, request: Request): PlanParts | undefined {
  const { context } = request;
  const lists = (statement.objects ?? []).map((node: Node) =>
    'List' in node ? (stringsOf(node.List.items) ?? []) : [],
  );
  const found = lists.map((names) => doorTable(names, context));
  const tables = found.filter((table) => table !== undefined);
  const cascade = statement.behavior === 'DROP_CASCADE';
  // It may drop views that the map has.
  if (tables.length === 0 && cascade && context.map.viewsByName.size > 0)
    return onHome(request, 'DROP TABLE');
  if (tables.length === 0 || tables.length === lists.length) return undefined;
  const singles = lists
    .filter((_, index) => !found[index])
    .map((names) => names.map(quoteIdentifier).join('.'));
  const text = `DROP TABLE ${statement.missing_ok ? 'IF EXISTS ' : ''}${singles.join(', ')}${cascade ? ' CASCADE' : ''}`;
  return everywhere(
    changeOf(
      [
        // They may refer to reference tables, and nothing with a door to them.
        { kind: 'text', nodes: 'home', text },
        { kind: 'dropTables', tables, cascade },
        { kind: 'catalog', change: { kind: 'touch' } },
      ],
      { tag: 'DROP TABLE' },
    ),
  );
}

function doorTable(
  names: readonly string[],
  context: PlanContext,
): ShardedTable | ReferenceTable | undefined {
  const [first, second] = names.slice(-2);
  if (first === undefined) return undefined;
  const [schema, name] = second === undefined ? [undefined, first] : [first, second];
  return resolveTable(context, schema, name) ?? resolveReference(context, schema, name);
}

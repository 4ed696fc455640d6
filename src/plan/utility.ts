/**
 * Statements that are not queries: DDL, COPY, maintenance. They run on the home node as they are, unless they name a sharded
 * table, which is refused (its face on the home node is not the table) or becomes a command of the router.
 *
 * Invariant: no statement reaches the home node in which a name means a sharded table, or makes a name mean something else
 * than it. Name lists and bodies of functions are matched by name alone, so a false alarm is possible and a miss is not.
 */
import type { DropStmt, RangeVar } from '@pgsql/types';
import { notSupported } from '../base/errors.ts';
import type { ReferenceTable, ShardedTable } from '../catalog/map.ts';
import { type StatementFacts, stringsOf } from '../sql/facts.ts';
import type { RouterCommand } from './plan.ts';
import { referenceOfNames } from './reference-ddl.ts';
import { nameOf, notUnderstood } from './refusal.ts';
import { type PlanContext, resolveRangeVar, resolveReference, resolveTable } from './resolve.ts';

const COMMAND_NAMES: Readonly<Record<string, string>> = {
  AlterTableStmt: 'ALTER TABLE',
  AlterObjectSchemaStmt: 'ALTER TABLE … SET SCHEMA',
  AlterOwnerStmt: 'ALTER … OWNER',
  AlterSeqStmt: 'ALTER SEQUENCE',
  ClusterStmt: 'CLUSTER',
  CommentStmt: 'COMMENT',
  CopyStmt: 'COPY',
  CreateFunctionStmt: 'CREATE FUNCTION',
  CreatePolicyStmt: 'CREATE POLICY',
  CreatePublicationStmt: 'CREATE PUBLICATION',
  CreateSeqStmt: 'CREATE SEQUENCE',
  CreateStatsStmt: 'CREATE STATISTICS',
  CreateStmt: 'CREATE TABLE',
  CreateTableAsStmt: 'CREATE TABLE AS',
  CreateTrigStmt: 'CREATE TRIGGER',
  DoStmt: 'DO',
  DropStmt: 'DROP',
  ExplainStmt: 'EXPLAIN of this statement',
  GrantStmt: 'GRANT or REVOKE',
  IndexStmt: 'CREATE INDEX',
  LockStmt: 'LOCK TABLE',
  PrepareStmt: 'PREPARE',
  ReindexStmt: 'REINDEX',
  RenameStmt: 'RENAME',
  RuleStmt: 'CREATE RULE',
  TruncateStmt: 'TRUNCATE',
  VacuumStmt: 'VACUUM or ANALYZE',
  ViewStmt: 'CREATE VIEW',
};

function commandName(kind: string): string {
  return COMMAND_NAMES[kind] ?? kind.replace(/Stmt$/, '');
}

const HINTS: Readonly<Record<string, string>> = {
  CopyStmt: 'Use INSERT, or SELECT … WHERE with the shard key.',
  PrepareStmt: "Use the protocol's prepared statements, which drivers do.",
  AlterTableStmt: 'Create the table with all it needs; later changes are not supported yet.',
  IndexStmt: 'Declare constraints in CREATE TABLE; later indexes are not supported yet.',
  CreateFunctionStmt: 'Functions run on one node: put the statement into the application.',
  DoStmt: 'DO blocks run on one node: send the statements by themselves.',
};

/** Throws if any name in the statement means a sharded table. `created` is what the statement makes, not what it reads. */
export function refuseShardedNames(
  kind: string,
  facts: StatementFacts,
  context: PlanContext,
  created: RangeVar | undefined,
): void {
  for (const rangeVar of facts.rangeVars) {
    if (rangeVar === created) continue;
    const table = resolveRangeVar(context, rangeVar);
    if (table) throw refusalOf(kind, table);
  }
  for (const names of facts.nameLists) {
    const table = tableOfNames(names, context);
    if (table) throw refusalOf(kind, table);
  }
}

function refusalOf(kind: string, table: ShardedTable) {
  const hint = HINTS[kind] ?? 'It would reach only an empty stand-in of the table on the home node.';
  return notUnderstood(commandName(kind), table, hint);
}

/** table, schema.table, or either with a column, constraint, trigger behind it. */
function tableOfNames(names: readonly string[], context: PlanContext): ShardedTable | undefined {
  const [first, second, third] = names;
  if (first === undefined) return undefined;
  const qualified = second === undefined ? undefined : resolveTable(context, first, second);
  if (qualified) return qualified;
  if (second !== undefined && third !== undefined) return resolveTable(context, second, third);
  return resolveTable(context, undefined, first);
}

/**
 * Throws if a new relation of this name would come before a sharded table in someone's search_path. The very name of a sharded
 * table passes: the face has it on the home node, which says that it exists.
 */
export function refuseShadowing(created: RangeVar, context: PlanContext): void {
  const name = created.relname ?? '';
  const shadowed = tableNamed(name, context);
  if (!shadowed) return;
  const schema = created.schemaname ?? context.searchPath[0];
  const itself = resolveTable(context, schema, name) ?? resolveReference(context, schema, name);
  if (created.relpersistence !== 't' && itself) return;
  throw shadowing(name, shadowed);
}

function tableNamed(name: string, { map }: PlanContext): ShardedTable | ReferenceTable | undefined {
  return map.tablesByName.get(name)?.[0] ?? map.referencesByName.get(name)?.[0];
}

function shadowing(name: string, shadowed: ShardedTable | ReferenceTable) {
  return notSupported(
    `a relation named "${name}" would hide ${kindOf(shadowed)} table ${nameOf(shadowed)}`,
    `Choose another name: the name of a ${kindOf(shadowed)} table is taken in all schemas.`,
  );
}

function kindOf(table: ShardedTable | ReferenceTable): 'sharded' | 'reference' {
  return 'keyColumn' in table ? 'sharded' : 'reference';
}

export function refuseName(name: string, context: PlanContext): void {
  const shadowed = tableNamed(name, context);
  if (shadowed) throw shadowing(name, shadowed);
}

/** The word characters of PostgreSQL's identifiers. */
const NOT_WORD = /[^A-Za-z0-9_$\u0080-\uffff]+/;

/** Throws if the body of a function or DO block has the name of a sharded table in it as a word. */
export function refuseShardedBody(kind: string, facts: StatementFacts, context: PlanContext): void {
  for (const body of facts.names) {
    const table = shardedTableInBody(body, context);
    if (table) throw refusalOf(kind, table);
  }
}

/** A sharded table whose name is in the text as a word. */
export function shardedTableInBody(body: string, context: PlanContext): ShardedTable | undefined {
  const { tablesByName } = context.map;
  if (tablesByName.size === 0) return undefined;
  for (const word of body.split(NOT_WORD)) {
    const [table] = tablesByName.get(word) ?? tablesByName.get(word.toLowerCase()) ?? [];
    if (table) return table;
  }
  for (const [name, [table]] of tablesByName) {
    if (NOT_WORD.test(name) && body.includes(name.replaceAll('"', '""'))) return table;
  }
  return undefined;
}

/** DROP: a command if it names sharded tables only; undefined for the home node. */
export function planDrop(
  statement: DropStmt,
  facts: StatementFacts,
  context: PlanContext,
): RouterCommand | undefined {
  const cascade = statement.behavior === 'DROP_CASCADE';
  if (statement.removeType === 'OBJECT_TABLE') {
    const tables = (statement.objects ?? []).map((node) => {
      const names = 'List' in node ? (stringsOf(node.List.items) ?? []) : [];
      return tableOfNames(names, context) ?? referenceOfNames(names, context);
    });
    const sharded = tables.filter((table) => table !== undefined);
    if (sharded.length === 0) return undefined;
    if (sharded.length < tables.length) throw mixedCommand('DROP', sharded[0]!);
    return { kind: 'dropTables', tables: sharded, cascade };
  }
  refuseShardedNames('DropStmt', facts, context, undefined);
  if (!cascade) return undefined;
  if (!CASCADES_STAY_HOME.has(statement.removeType ?? '')) {
    refuseIfAnySharded('DROP … CASCADE of what tables may depend on', context);
  }
  return undefined;
}

/** What depends on these can't be a sharded table or its columns. */
const CASCADES_STAY_HOME = new Set<string>([
  'OBJECT_VIEW',
  'OBJECT_MATVIEW',
  'OBJECT_INDEX',
  'OBJECT_FOREIGN_TABLE',
  'OBJECT_TRIGGER',
  'OBJECT_RULE',
  'OBJECT_POLICY',
  'OBJECT_EVENT_TRIGGER',
  'OBJECT_PUBLICATION',
  'OBJECT_STATISTIC_EXT',
  'OBJECT_FOREIGN_SERVER',
  'OBJECT_FDW',
  'OBJECT_CAST',
]);

function mixedCommand(command: string, table: ShardedTable | ReferenceTable) {
  return notSupported(
    `${command} of ${kindOf(table)} table ${nameOf(table)} together with others that are not`,
    `Send one ${command} for the ${kindOf(table)} tables and one for the others.`,
  );
}

export function refuseIfAnySharded(command: string, context: PlanContext): void {
  const { tablesByName, referencesByName } = context.map;
  if (tablesByName.size === 0 && referencesByName.size === 0) return;
  throw notSupported(
    `${command} is not supported while there are sharded or reference tables`,
    'It could change what is of them on the home node alone. Name what is meant, without CASCADE.',
  );
}

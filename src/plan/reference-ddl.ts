/**
 * Statements about reference tables that are not queries. What would change one copy alone is refused; TRUNCATE, GRANT and REVOKE
 * are sent to all nodes in one transaction; what only reads, or locks, runs on the home node.
 */
import type { Node, RangeVar, TruncateStmt } from '@pgsql/types';
import { notSupported } from '../base/errors.ts';
import type { ReferenceTable } from '../catalog/map.ts';
import { stringsOf } from '../sql/facts.ts';
import { notOnReference } from './reference-refusal.ts';
import type { ReferenceWritePlacement } from './reference-write.ts';
import { nameOf } from './refusal.ts';
import { type PlanContext, resolveReference, resolveReferenceVar } from './resolve.ts';

/** Kinds that change the relation which they name first, and what they are called. */
const CHANGES: Readonly<Record<string, string>> = {
  AlterTableStmt: 'ALTER TABLE',
  AlterObjectSchemaStmt: 'ALTER TABLE … SET SCHEMA',
  AlterPolicyStmt: 'ALTER POLICY',
  ClusterStmt: 'CLUSTER',
  CreatePolicyStmt: 'CREATE POLICY',
  CreateStatsStmt: 'CREATE STATISTICS',
  CreateTrigStmt: 'CREATE TRIGGER',
  IndexStmt: 'CREATE INDEX',
  RenameStmt: 'RENAME',
  RuleStmt: 'CREATE RULE',
};

const HINT = 'Create the table with all it needs; later changes are not supported yet.';

/** Throws if the statement would change the home node's copy of a reference table. */
export function refuseChangeOfReference(node: Node, context: PlanContext): void {
  if (context.map.referencesByName.size === 0) return;
  for (const [kind, statement] of Object.entries(node)) {
    if (kind === 'CopyStmt') refuseCopyFrom(statement as { is_from?: boolean; relation?: RangeVar }, context);
    if (kind === 'CreateStmt') refuseInheritance(statement as { inhRelations?: Node[] }, context);
    if (kind === 'DropStmt') refuseDropOn(statement as { removeType?: string; objects?: Node[] }, context);
    const command = CHANGES[kind];
    if (command === undefined) continue;
    for (const rangeVar of ownRelations(statement as OwnRelations)) {
      const table = resolveReferenceVar(context, rangeVar);
      if (table) throw notOnReference(command, table, HINT);
    }
  }
}

interface OwnRelations {
  readonly relation?: RangeVar;
  readonly table?: RangeVar;
  readonly relations?: readonly Node[];
  readonly cmds?: readonly Node[];
}

function ownRelations({ relation, table, relations, cmds }: OwnRelations): RangeVar[] {
  const own = [relation, table].filter((rangeVar) => rangeVar !== undefined);
  for (const node of relations ?? []) if ('RangeVar' in node) own.push(node.RangeVar);
  // ALTER TABLE … INHERIT.
  for (const node of cmds ?? []) {
    const def = 'AlterTableCmd' in node ? node.AlterTableCmd.def : undefined;
    if (def && 'RangeVar' in def) own.push(def.RangeVar);
  }
  return own;
}

function refuseCopyFrom(
  statement: { readonly is_from?: boolean; readonly relation?: RangeVar },
  context: PlanContext,
): void {
  const table = statement.is_from && statement.relation && resolveReferenceVar(context, statement.relation);
  if (table) throw notOnReference('COPY … FROM', table, 'Use INSERT with several rows of VALUES.');
}

function refuseInheritance(
  statement: { readonly inhRelations?: readonly Node[] },
  context: PlanContext,
): void {
  for (const node of statement.inhRelations ?? []) {
    const table = 'RangeVar' in node ? resolveReferenceVar(context, node.RangeVar) : undefined;
    if (table) throw notOnReference('INHERITS', table, 'Use LIKE, and copy the rows.');
  }
}

/** DROP TRIGGER, RULE and POLICY: the last name is what is dropped, those before it are the table's. */
function refuseDropOn(
  statement: { readonly removeType?: string; readonly objects?: readonly Node[] },
  context: PlanContext,
): void {
  if (!['OBJECT_TRIGGER', 'OBJECT_RULE', 'OBJECT_POLICY'].includes(statement.removeType ?? '')) return;
  for (const node of statement.objects ?? []) {
    const names = 'List' in node ? (stringsOf(node.List.items) ?? []) : [];
    const table = referenceOfNames(names.slice(0, -1), context);
    if (table) throw notOnReference('DROP of what belongs to it', table, HINT);
  }
}

/** table, or schema.table. */
export function referenceOfNames(names: readonly string[], context: PlanContext): ReferenceTable | undefined {
  const [first, second] = names.slice(-2);
  if (first === undefined) return undefined;
  return second === undefined
    ? resolveReference(context, undefined, first)
    : resolveReference(context, first, second);
}

/** Undefined: no reference table is among the relations. They are all, or the statement is refused. */
function referencesOnly(
  command: string,
  nodes: readonly Node[] | undefined,
  context: PlanContext,
): readonly ReferenceTable[] | undefined {
  const relations = (nodes ?? []).flatMap((node) => ('RangeVar' in node ? [node.RangeVar] : []));
  const tables = relations.map((relation) => resolveReferenceVar(context, relation));
  const references = tables.filter((table) => table !== undefined);
  const [first] = references;
  if (!first) return undefined;
  if (references.length === tables.length) return references;
  throw notSupported(
    `${command} of reference table ${nameOf(first)} together with others that are not`,
    `Send one ${command} for the reference tables and one for the others.`,
  );
}

export function planTruncateOfReferences(
  statement: TruncateStmt,
  context: PlanContext,
): ReferenceWritePlacement | undefined {
  const tables = referencesOnly('TRUNCATE', statement.relations, context);
  const [first] = tables ?? [];
  if (!tables || !first) return undefined;
  if (statement.behavior === 'DROP_CASCADE') {
    throw notOnReference('TRUNCATE … CASCADE', first, 'Name all the tables, or use DELETE.');
  }
  return { kind: 'referenceWrite', tables, locks: false, rows: undefined };
}

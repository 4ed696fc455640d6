/**
 * DDL over the nodes: which statements are more than the home node's. One branch for each kind; what none of them takes stays with
 * statement-kinds.ts (the home node, a command of the router, or a refusal).
 *
 * Next on the way: session/ddl-run.ts.
 */
import type { AlterTableStmt, DropStmt, RenameStmt } from '@pgsql/types';
import { planLookupDdl } from '../lookups.ts';
import type { PlanParts, Request } from '../query.ts';
import { planAlterTable } from './alter-table.ts';
import { planIdColumn, planOwnedBy } from './id-columns.ts';
import { planAlterIndex, planCreateIndex, planDropIndex, planReindex, planRenameIndex } from './indexes.ts';
import {
  planComment,
  planCreateStatistics,
  planCreateTrigger,
  planDropOnTable,
  planDropStatistics,
  planPolicy,
} from './on-table.ts';
import { planRenameOnTable, planSetSchema } from './renames.ts';
import { planCreateSchema, planDropSchema, planRenameSchema } from './schemas.ts';
import { planSharedObject } from './shared-objects.ts';
import {
  planCluster,
  planDropMixed,
  planGrantOverNodes,
  planTruncateOverNodes,
  planVacuum,
} from './tables.ts';
import { planAlterView, planCreateView, planDropView } from './views.ts';

/** Undefined: it is nothing for all nodes. */
export function planDdlOverNodes(request: Request): PlanParts | undefined {
  return planLookupDdl(request) ?? planOfTables(request) ?? planSharedObject(request);
}

function planOfTables(request: Request): PlanParts | undefined {
  const { node } = request;
  if ('AlterSeqStmt' in node) return planOwnedBy(node.AlterSeqStmt, request);
  if ('AlterTableStmt' in node) return planAlter(node.AlterTableStmt, request);
  if ('AlterObjectSchemaStmt' in node) {
    const statement = node.AlterObjectSchemaStmt;
    return planSetSchema(statement, request) ?? planAlterView(statement, request);
  }
  if ('AlterPolicyStmt' in node) return planPolicy(node.AlterPolicyStmt, 'ALTER POLICY', request);
  if ('ClusterStmt' in node) return planCluster(node.ClusterStmt, request);
  if ('CommentStmt' in node) return planComment(node.CommentStmt, request);
  if ('CreatePolicyStmt' in node) return planPolicy(node.CreatePolicyStmt, 'CREATE POLICY', request);
  if ('CreateSchemaStmt' in node) return planCreateSchema(node.CreateSchemaStmt, request);
  if ('CreateStatsStmt' in node) return planCreateStatistics(node.CreateStatsStmt, request);
  if ('CreateTrigStmt' in node) return planCreateTrigger(node.CreateTrigStmt, request);
  if ('DropStmt' in node) return planDropOverNodes(node.DropStmt, request);
  if ('GrantStmt' in node) return planGrantOverNodes(node.GrantStmt, request);
  if ('IndexStmt' in node) return planCreateIndex(node.IndexStmt, request);
  if ('ReindexStmt' in node) return planReindex(node.ReindexStmt, request);
  if ('RenameStmt' in node) return planRename(node.RenameStmt, request);
  if ('TruncateStmt' in node) return planTruncateOverNodes(node.TruncateStmt, request);
  if ('VacuumStmt' in node) return planVacuum(node.VacuumStmt, request);
  if ('ViewStmt' in node) return planCreateView(node.ViewStmt, request);
  return undefined;
}

function planAlter(statement: AlterTableStmt, request: Request): PlanParts | undefined {
  if (statement.objtype === 'OBJECT_INDEX') return planAlterIndex(statement, request);
  const ofTable = planIdColumn(statement, request) ?? planAlterTable(statement, request);
  return ofTable ?? planAlterView(statement, request);
}

function planDropOverNodes(statement: DropStmt, request: Request): PlanParts | undefined {
  switch (statement.removeType) {
    case 'OBJECT_INDEX':
      return planDropIndex(statement, request);
    case 'OBJECT_SCHEMA':
      return planDropSchema(statement, request);
    case 'OBJECT_TABLE':
      return planDropMixed(statement, request);
    case 'OBJECT_VIEW':
      return planDropView(statement, request);
    case 'OBJECT_POLICY':
    case 'OBJECT_TRIGGER':
      return planDropOnTable(statement, request);
    case 'OBJECT_STATISTIC_EXT':
      return planDropStatistics(statement, request);
    default:
      return undefined;
  }
}

function planRename(statement: RenameStmt, request: Request): PlanParts | undefined {
  switch (statement.renameType) {
    case 'OBJECT_INDEX':
      return planRenameIndex(statement, request);
    case 'OBJECT_SCHEMA':
      return planRenameSchema(statement, request);
    default:
      return planRenameOnTable(statement, request) ?? planAlterView(statement, request);
  }
}

/**
 * Which SELECTs over several nodes go to the mesh (src/mesh/SPEC.md): those that can't be taken apart bucket by bucket, and
 * that read nothing but tables. There the client's own text is planned and carried out by one PostgreSQL that sees all tables.
 *
 * Invariant: nothing goes there whose answer depends on the database or the session that gives it: catalogs, sequences,
 * locks, system columns, settings that a function makes.
 */
import type { Node } from '@pgsql/types';
import { PosternError } from '../base/errors.ts';
import type { ShardedTable } from '../catalog/map.ts';
import { CATALOG_SCHEMA } from '../catalog/map.ts';
import type { StatementFacts } from '../sql/facts.ts';
import { stringsOf } from '../sql/facts.ts';
import { type CallFacts, functionName } from './calls.ts';
import { type KeyedStatement, planKeyed } from './keyed.ts';
import type { PlanParts, Request } from './query.ts';
import { notUnderstood } from './refusal.ts';
import { resolveRangeVar } from './resolve.ts';
import type { ScatteredPlacement } from './scatter.ts';

/** A SELECT that one of the meshes answers, as it is. */
export interface ScatterMesh {
  readonly kind: 'mesh';
  /** Why it can't be taken apart, for EXPLAIN. */
  readonly reason: string;
  /** Names of all functions that it calls, without their schemas: those that users have made may hide PostgreSQL's own. */
  readonly functions: readonly string[];
  /** COLLATE is written in it. */
  readonly namesCollation: boolean;
  /** FETCH, MOVE or CLOSE of this cursor. */
  readonly cursor?: string;
}

const WRITES = ['InsertStmt', 'UpdateStmt', 'DeleteStmt', 'MergeStmt', 'LockingClause', 'IntoClause'];
/** In nodes/parsenodes.h. */
const CURSOR_OPT_BINARY = 0x01;
const CURSOR_OPT_HOLD = 0x20;
const SYSTEM_COLUMNS = ['ctid', 'tableoid', 'xmin', 'xmax', 'cmin', 'cmax'];
const OF_THE_SERVER = new Set([
  ...['pg_backend_pid', 'current_query', 'currtid2', 'amvalidate', 'pg_typeof', 'version'],
  ...['inet_client_addr', 'inet_client_port'],
]);
/** SQL words without parentheses that name the database. */
const OF_THE_DATABASE = /"SVFOP_CURRENT_CATALOG"/;

/** Keyed, scattered, or of the mesh; undefined: no table with a door is meant after all. Throws the refusal. */
export function planNamed(request: Request, calls: CallFacts): KeyedStatement | undefined {
  const { node, facts, sql, start, end, context } = request;
  let keyed: KeyedStatement | undefined;
  try {
    keyed = planKeyed({ node, facts, sql, start, end, context });
  } catch (error) {
    if (!(error instanceof PosternError) || error.sqlState !== '0A000') throw error;
    const placement = meshOf(request, calls, error.message);
    if (!placement) throw error;
    return { placement, edits: [] };
  }
  if (keyed?.placement.kind !== 'keyed' || keyed.placement.several || keyed.placement.keys.length < 2)
    return keyed;
  // Only when its values are known is it known whether they are of one bucket.
  const mesh = meshOf(request, calls, 'its keys are of several buckets');
  return mesh ? { ...keyed, placement: { ...keyed.placement, several: mesh.scatter } } : keyed;
}

/** DECLARE CURSOR of it: what goes to several buckets is read through the mesh, which has cursors. */
export function planCursorOverNodes(
  parts: PlanParts,
  request: Request,
  calls: CallFacts,
  options = 0,
): { readonly parts: PlanParts; readonly isOverNodes: boolean } {
  const { placement } = parts;
  if (placement?.kind !== 'scattered') return { parts, isOverNodes: false };
  const mesh = meshOf(request, calls, 'a cursor over several buckets');
  const refuse = (what: string, hint: string) => notUnderstood(what, placement.table, hint);
  if (!mesh) throw refuse('DECLARE CURSOR over several buckets', 'Name one value of the shard key.');
  if ((options & CURSOR_OPT_HOLD) !== 0)
    throw refuse('a cursor WITH HOLD over several buckets', 'Read it inside of one transaction.');
  if ((options & CURSOR_OPT_BINARY) !== 0)
    throw refuse('a BINARY cursor over several buckets', "Use the protocol's binary format.");
  return { parts: { ...parts, placement: mesh, edits: [] }, isOverNodes: true };
}

/** The statement as one for the mesh; undefined: it is not for it. */
function meshOf(
  { node, facts, context }: Request,
  calls: CallFacts,
  reason: string,
): ScatteredPlacement | undefined {
  const table = firstSharded(facts, context);
  if (!table || !('SelectStmt' in node) || whyNot(node, facts, calls) !== undefined) return undefined;
  const functions = [...new Set(facts.functionCalls.map((call) => functionName(call).name))];
  return {
    kind: 'scattered',
    table,
    scatter: { kind: 'mesh', reason, functions, namesCollation: facts.kinds.has('CollateClause') },
    suppliedIds: [],
  };
}

function firstSharded(facts: StatementFacts, context: Request['context']): ShardedTable | undefined {
  for (const rangeVar of facts.rangeVars) {
    const table = resolveRangeVar(context, rangeVar);
    if (table) return table;
  }
  return undefined;
}

function whyNot(node: Node, facts: StatementFacts, calls: CallFacts): string | undefined {
  if (WRITES.some((kind) => facts.kinds.has(kind))) return 'it writes or locks';
  if (calls.effects.length > 0 || calls.needsPinBefore || calls.writes || calls.needsHome)
    return 'a function of it is about the session or the server';
  if (facts.functionCalls.some((call) => OF_THE_SERVER.has(functionName(call).name)))
    return 'a function of it is about the session or the server';
  // Of a foreign table it would be silently ignored.
  if (facts.kinds.has('RangeTableSample')) return 'TABLESAMPLE';
  for (const { schemaname, relname, inh } of facts.rangeVars) {
    if (!inh) return 'ONLY';
    const isCatalog = schemaname === undefined && /^pg_/.test(relname ?? '');
    if (isCatalog || isSystemSchema(schemaname)) return 'it reads the catalog';
  }
  if (SYSTEM_COLUMNS.some((name) => facts.names.has(name))) return 'it names a system column';
  if (facts.typeNames.some((type) => /^reg/.test(stringsOf(type.names)?.at(-1) ?? '')))
    return 'it looks names up in the catalog';
  return OF_THE_DATABASE.test(JSON.stringify(node)) ? 'it names its database' : undefined;
}

function isSystemSchema(schema: string | undefined): boolean {
  return (
    schema !== undefined && (/^pg_/.test(schema) || ['information_schema', CATALOG_SCHEMA].includes(schema))
  );
}

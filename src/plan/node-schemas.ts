/**
 * Schemas that live on one node, with all that is in them (a schema for each tenant): which statements go there.
 *
 * A statement belongs to such a schema if it names something in it, or if the schema comes first in the search_path and the
 * statement names relations, or calls functions, that nothing else is known of: PostgreSQL would look there first, and would
 * make there what it makes. The whole statement goes to the schema's node then, as it is, where all reference tables are too.
 *
 * Invariant: a statement that would find other tables there than on one PostgreSQL is refused.
 */
import type { Node, RangeVar } from '@pgsql/types';
import { notSupported } from '../base/errors.ts';
import type { NodeSchema } from '../catalog/map.ts';
import { type StatementFacts, stringsOf } from '../sql/facts.ts';
import { functionName, inspectCalls, stringLiteral } from './calls.ts';
import type { PlanParts, Request } from './query.ts';
import type { PlanContext } from './resolve.ts';
import { resolveRangeVar, resolveReferenceVar } from './resolve.ts';

/** Nothing else is in them that PostgreSQL would look for there first. */
const SYSTEM_SCHEMAS = new Set(['pg_catalog', 'information_schema', 'postern']);
/** Places that are the same on the schema's node, or that a plan has when it knows of nothing in particular. */
const ADAPTABLE = new Set(['home', 'node', 'anywhere', 'reference', 'everywhere', 'mesh']);

/** The plan as it is where a schema on a node has a part in the statement; undefined: none has. */
export function placeInSchema(request: Request, parts: PlanParts): PlanParts | undefined {
  const { context, facts, node } = request;
  if (context.map.schemas.size === 0 || parts.command) return undefined;
  const named = new Set(namedSchemas(node, context));
  const first = firstOfPath(context);
  const sequences = sequenceNames(facts);
  for (const { schema } of sequences) {
    const found = schema === undefined ? undefined : context.map.schemas.get(schema);
    if (found) named.add(found);
  }
  const calls = sequences.some(({ schema, name }) => schema === undefined && isOfPath(name, context));
  const unknown = facts.rangeVars.filter((rangeVar) => isUnknown(rangeVar, request));
  const [one, other] = [...named];
  const byPath = first && (unknown.length > 0 || calls || makesOrCalls(request)) ? first : undefined;
  const schema = one ?? byPath;
  if (!schema) {
    refuseBehindOthers(unknown, context);
    return undefined;
  }
  refuseSchemaItself(node, schema);
  if (other && other.nodeId !== schema.nodeId) throw onOtherNodes(schema.name, other.name);
  if (!ADAPTABLE.has(parts.placement?.kind ?? 'home')) throw besideSharded(schema);
  if (parts.refusal) throw parts.refusal;
  for (const rangeVar of facts.rangeVars) refuseElsewhere(rangeVar, schema, request);
  refuseTakenName(node, schema, context);
  const effects = [...(parts.effects ?? [])];
  if (parts.placement?.kind === 'everywhere') effects.push({ kind: 'ddl' });
  // Triggers and functions there are not looked into: what they leave in a session must not reach another client.
  if (!schema.plain) effects.push({ kind: 'pin', reason: 'schema with functions or triggers on a node' });
  return { ...parts, effects, placement: { kind: 'node', nodeId: schema.nodeId } };
}

const SEQUENCE_FUNCTIONS = new Set(['nextval', 'currval', 'setval']);

/** Of nextval('name') and its like. */
function sequenceNames(facts: StatementFacts): { schema: string | undefined; name: string }[] {
  return facts.functionCalls.flatMap((call) => {
    if (!SEQUENCE_FUNCTIONS.has(functionName(call).name)) return [];
    const parts = partsOfName(stringLiteral(call.args?.[0]) ?? '');
    const name = parts?.at(-1);
    return name === undefined ? [] : [{ schema: parts?.at(-2), name }];
  });
}

/** `a.b`, `"A".b`: as names are read; undefined: it is none. */
function partsOfName(text: string): string[] | undefined {
  const parts = text.match(/"(?:[^"]|"")+"|[^".]+/g);
  return parts?.map((part) =>
    part.startsWith('"') ? part.slice(1, -1).replaceAll('""', '"') : part.trim().toLowerCase(),
  );
}

/** No sharded table takes its ids from it. */
function isOfPath(sequence: string, { map }: PlanContext): boolean {
  return !map.idColumnsBySequence.has(sequence);
}

/** A name that nobody else than the schema on the path is known to have. */
function isUnknown(rangeVar: RangeVar, { context, node }: Request): boolean {
  const { schemaname, relname = '' } = rangeVar;
  if (schemaname !== undefined || relname.startsWith('pg_') || isCte(node, relname)) return false;
  return !resolveRangeVar(context, rangeVar) && !resolveReferenceVar(context, rangeVar);
}

function isCte(node: Node, name: string): boolean {
  return JSON.stringify(node).includes(`"ctename":${JSON.stringify(name)}`);
}

/** The schema that comes first in the search_path, if it lives on a node. */
function firstOfPath({ map, searchPath }: PlanContext): NodeSchema | undefined {
  const first = searchPath.find((name) => name !== 'pg_catalog');
  return first === undefined ? undefined : map.schemas.get(first);
}

/** It makes something in the current schema, or calls what may be there. */
function makesOrCalls({ node, facts }: Request): boolean {
  const [kind = ''] = Object.keys(node);
  if (inspectCalls(facts.functionCalls).unknownFunctions.length > 0) return true;
  return MAKING.has(kind);
}

const MAKING = new Set([
  ...[
    'CreateStmt',
    'CreateTableAsStmt',
    'ViewStmt',
    'IndexStmt',
    'CreateSeqStmt',
    'AlterSeqStmt',
    'CreateFunctionStmt',
  ],
  ...[
    'CreateEnumStmt',
    'CreateDomainStmt',
    'CompositeTypeStmt',
    'CreateRangeStmt',
    'AlterEnumStmt',
    'DefineStmt',
    'DoStmt',
  ],
  ...[
    'CallStmt',
    'DropStmt',
    'RenameStmt',
    'AlterTableStmt',
    'CreateTrigStmt',
    'AlterFunctionStmt',
    'CommentStmt',
  ],
]);

/** The schemas on nodes in which the statement names something. */
function namedSchemas(node: Node, { map }: PlanContext): ReadonlySet<NodeSchema> {
  const found = new Set<NodeSchema>();
  const add = (name: string | undefined) => {
    const schema = name === undefined ? undefined : map.schemas.get(name);
    if (schema) found.add(schema);
  };
  const walk = (value: unknown, key: string): void => {
    if (typeof value !== 'object' || value === null) return;
    if (Array.isArray(value)) {
      const names = stringsOf(value as Node[]);
      // A column reference `a.b` is of a table, whose schema would come before it.
      if (names && names.length >= (key === 'fields' ? 3 : 2)) add(names.at(-(key === 'fields' ? 3 : 2)));
      for (const item of value) walk(item, key);
      return;
    }
    if ('schemaname' in value) add(value.schemaname as string);
    if ('objectSchema' in value) add(value.objectSchema as string);
    for (const [name, child] of Object.entries(value)) walk(child, name);
  };
  walk(node, '');
  for (const name of schemasThemselves(node)) add(name);
  return found;
}

/** GRANT … ON SCHEMA, DROP SCHEMA, ALTER SCHEMA, COMMENT ON SCHEMA: names of schemas. */
function schemasThemselves(node: Node): readonly string[] {
  const text = (objects: readonly Node[] | undefined) =>
    (objects ?? []).flatMap((object) =>
      'String' in object ? [object.String.sval ?? ''] : (stringsOf([object]) ?? []),
    );
  if ('GrantStmt' in node) {
    const { objtype, targtype, objects } = node.GrantStmt;
    return objtype === 'OBJECT_SCHEMA' || targtype === 'ACL_TARGET_ALL_IN_SCHEMA' ? text(objects) : [];
  }
  if ('DropStmt' in node && node.DropStmt.removeType === 'OBJECT_SCHEMA') return text(node.DropStmt.objects);
  if ('RenameStmt' in node && node.RenameStmt.renameType === 'OBJECT_SCHEMA')
    return [node.RenameStmt.subname ?? ''];
  return [];
}

/** The schema is known by its name, in the catalog. */
function refuseSchemaItself(node: Node, schema: NodeSchema): void {
  const drops = 'DropStmt' in node && node.DropStmt.removeType === 'OBJECT_SCHEMA';
  const renames = 'RenameStmt' in node && node.RenameStmt.renameType === 'OBJECT_SCHEMA';
  if (!drops && !renames) return;
  throw notSupported(
    `schema "${schema.name}" lives on a node of its own`,
    `Say SELECT postern.undistribute_schema('${schema.name}') first.`,
  );
}

/** Other schemas are not there, but for what is on every node. */
function refuseElsewhere(rangeVar: RangeVar, schema: NodeSchema, { context }: Request): void {
  const { schemaname, relname = '' } = rangeVar;
  if (resolveRangeVar(context, rangeVar)) throw besideSharded(schema);
  if (schemaname === undefined || schemaname === schema.name || SYSTEM_SCHEMAS.has(schemaname)) return;
  if (context.map.schemas.has(schemaname) || /^pg_(temp|toast)/.test(schemaname)) return;
  if (resolveReferenceVar(context, rangeVar)) return;
  throw notSupported(
    `"${schemaname}.${relname}" is not on the node of schema "${schema.name}"`,
    'Make it a reference table, which is on every node.',
  );
}

/** Unqualified names of sharded and reference tables have to go on meaning these. */
function refuseTakenName(node: Node, schema: NodeSchema, { map }: PlanContext): void {
  const made =
    'CreateStmt' in node
      ? node.CreateStmt.relation
      : 'ViewStmt' in node
        ? node.ViewStmt.view
        : 'CreateTableAsStmt' in node
          ? node.CreateTableAsStmt.into?.rel
          : undefined;
  const name = made?.relname;
  if (name === undefined || made?.relpersistence === 't') return;
  if (!map.tablesByName.has(name) && !map.referencesByName.has(name) && !map.viewsByName.has(name)) return;
  throw notSupported(
    `"${name}" in schema "${schema.name}" would have the name of a sharded or reference table`,
    'Give it another name.',
  );
}

/** Home has no such table, or another one that PostgreSQL would find first: that can't be known here. */
function refuseBehindOthers(unknown: readonly RangeVar[], { map, searchPath }: PlanContext): void {
  for (const { relname = '' } of unknown) {
    const schema = searchPath.map((name) => map.schemas.get(name)).find((one) => one?.relations.has(relname));
    if (!schema) continue;
    throw notSupported(
      `"${relname}" is in schema "${schema.name}", which lives on a node and is not the first of the search_path`,
      `Put "${schema.name}" first in the search_path, or write "${schema.name}"."${relname}".`,
    );
  }
}

function onOtherNodes(one: string, other: string) {
  return notSupported(
    `schemas "${one}" and "${other}" live on different nodes`,
    'Send a statement for each of them.',
  );
}

function besideSharded({ name }: NodeSchema) {
  return notSupported(
    `schema "${name}", which lives on one node, together with a sharded table`,
    'Read from one of them first; reference tables can be joined with both.',
  );
}

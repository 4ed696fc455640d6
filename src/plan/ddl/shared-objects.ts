/**
 * DDL of what is the same on all nodes and no table: types, extensions, functions, roles, and what belongs to them. It has to succeed on
 * home. What names something that only home has (the row type of a table without a door, or an object from before the node has
 * joined) stays home's.
 */
import type { Node, ObjectType } from '@pgsql/types';
import type { PlanParts, Request } from '../query.ts';
import { refuseName, refuseShadowing, refuseShardedBody, refuseShardedNames } from '../utility.ts';
import { changeOf, type DdlStep } from './change.ts';
import { everywhere } from './placement.ts';
import { StatementText } from './statement-text.ts';

/** What a statement names is not there: a relation, an object, a function, a schema, a column. */
export const MISSING: readonly string[] = ['42P01', '42704', '42883', '3F000', '42703'];
const DUPLICATE_OBJECT = '42710';
const UNKNOWN_DATABASE = '3D000';

interface Shared {
  /** SQLSTATEs beside MISSING with which another node may refuse it. */
  readonly tolerated: readonly string[];
  /** The map may be read from what it changes: names of types, columns that go with a type. */
  readonly touches: boolean;
  readonly oncePerServer: boolean;
}

const CREATED: Shared = { tolerated: [], touches: false, oncePerServer: false };
const CHANGED: Shared = { tolerated: [], touches: true, oncePerServer: false };
const ROLE: Shared = { tolerated: [], touches: false, oncePerServer: true };

const KINDS: Readonly<Record<string, Shared>> = {
  CompositeTypeStmt: CREATED,
  CreateEnumStmt: CREATED,
  CreateRangeStmt: CREATED,
  CreateDomainStmt: CREATED,
  DefineStmt: CREATED,
  CreateFunctionStmt: CREATED,
  CreateCastStmt: CREATED,
  CreateConversionStmt: CREATED,
  CreateOpClassStmt: CREATED,
  CreateOpFamilyStmt: CREATED,
  CreatePLangStmt: CREATED,
  CreateTransformStmt: CREATED,
  CreateAmStmt: CREATED,
  CreateExtensionStmt: { ...CREATED, tolerated: [DUPLICATE_OBJECT] },
  AlterDefaultPrivilegesStmt: CREATED,
  AlterEnumStmt: CHANGED,
  AlterDomainStmt: CHANGED,
  AlterTypeStmt: CHANGED,
  AlterFunctionStmt: CHANGED,
  AlterOperatorStmt: CHANGED,
  AlterOpFamilyStmt: CHANGED,
  AlterCollationStmt: CHANGED,
  AlterTSConfigurationStmt: CHANGED,
  AlterTSDictionaryStmt: CHANGED,
  AlterExtensionStmt: CHANGED,
  AlterExtensionContentsStmt: CHANGED,
  CreateRoleStmt: { ...ROLE, tolerated: [DUPLICATE_OBJECT] },
  AlterRoleStmt: ROLE,
  AlterRoleSetStmt: { ...ROLE, tolerated: [UNKNOWN_DATABASE] },
  DropRoleStmt: ROLE,
  GrantRoleStmt: ROLE,
};

/** Objects of databases that are no relations, and belong to none; and how many words DROP has before the first of them. */
const DROP_WORDS = {
  OBJECT_ACCESS_METHOD: 3,
  OBJECT_AGGREGATE: 2,
  OBJECT_CAST: 2,
  OBJECT_COLLATION: 2,
  OBJECT_CONVERSION: 2,
  OBJECT_DOMAIN: 2,
  OBJECT_EXTENSION: 2,
  OBJECT_FUNCTION: 2,
  OBJECT_LANGUAGE: 2,
  OBJECT_OPCLASS: 3,
  OBJECT_OPERATOR: 2,
  OBJECT_OPFAMILY: 3,
  OBJECT_PROCEDURE: 2,
  OBJECT_ROUTINE: 2,
  OBJECT_TRANSFORM: 2,
  OBJECT_TSCONFIGURATION: 4,
  OBJECT_TSDICTIONARY: 4,
  OBJECT_TSPARSER: 4,
  OBJECT_TSTEMPLATE: 4,
  OBJECT_TYPE: 2,
} as const satisfies Partial<Record<ObjectType, number>>;

function isShared(type: string | undefined, ...more: readonly string[]): boolean {
  return type !== undefined && (type in DROP_WORDS || more.includes(type));
}

/** Undefined: it is none of these, or there is but one node, without tables that go with it. */
export function planSharedObject(request: Request): PlanParts | undefined {
  const { node, context, facts } = request;
  const { nodes, tablesByName, referencesByName } = context.map;
  if (nodes.length < 2 && tablesByName.size === 0 && referencesByName.size === 0) return undefined;
  const shared = sharedOf(node);
  if (!shared) return undefined;
  // An object of the session.
  if ([...facts.names].some((name) => /^pg_temp(_\d+)?$/.test(name))) return undefined;
  if (
    facts.rangeVars.some(
      ({ schemaname, relpersistence }) => relpersistence === 't' || schemaname === 'pg_temp',
    )
  )
    return undefined;
  refuse(request);
  const text = new StatementText(request);
  const tolerance = {
    toleratedStates: [...MISSING, ...shared.tolerated],
    oncePerServer: shared.oncePerServer,
  };
  const steps: DdlStep[] = [{ kind: 'text', nodes: 'home', text: text.whole }];
  steps.push({ kind: 'text', nodes: 'others', text: textForOthers(node, text), ...tolerance });
  if (shared.touches) steps.push({ kind: 'catalog', change: { kind: 'touch' } });
  return everywhere(changeOf(steps));
}

function sharedOf(node: Node): Shared | undefined {
  const [kind = ''] = Object.keys(node);
  const own = KINDS[kind];
  if (own) return own;
  if ('DropStmt' in node) return isShared(node.DropStmt.removeType) ? CHANGED : undefined;
  if ('AlterTableStmt' in node) return node.AlterTableStmt.objtype === 'OBJECT_TYPE' ? CHANGED : undefined;
  if ('RenameStmt' in node) {
    const { renameType } = node.RenameStmt;
    if (renameType === 'OBJECT_ROLE') return ROLE;
    if (renameType === 'OBJECT_ATTRIBUTE')
      return node.RenameStmt.relationType === 'OBJECT_TYPE' ? CHANGED : undefined;
    return isShared(renameType, 'OBJECT_DOMCONSTRAINT') ? CHANGED : undefined;
  }
  if ('AlterObjectSchemaStmt' in node)
    return isShared(node.AlterObjectSchemaStmt.objectType) ? CHANGED : undefined;
  if ('AlterOwnerStmt' in node)
    return isShared(node.AlterOwnerStmt.objectType, 'OBJECT_SCHEMA') ? CHANGED : undefined;
  if ('AlterObjectDependsStmt' in node)
    return isShared(node.AlterObjectDependsStmt.objectType) ? CHANGED : undefined;
  if ('CommentStmt' in node) {
    const { objtype } = node.CommentStmt;
    if (objtype === 'OBJECT_ROLE') return ROLE;
    return isShared(objtype, 'OBJECT_SCHEMA', 'OBJECT_DOMCONSTRAINT') ? CREATED : undefined;
  }
  if ('SecLabelStmt' in node) {
    const { objtype } = node.SecLabelStmt;
    return objtype === 'OBJECT_ROLE' ? ROLE : isShared(objtype, 'OBJECT_SCHEMA') ? CREATED : undefined;
  }
  if ('GrantStmt' in node) {
    const { objtype, targtype } = node.GrantStmt;
    return targtype !== 'ACL_TARGET_DEFAULTS' && isShared(objtype, 'OBJECT_SCHEMA') ? CREATED : undefined;
  }
  return undefined;
}

/** As for objects of the home node (statement-kinds.ts). */
function refuse({ node, facts, context }: Request): void {
  const [kind = ''] = Object.keys(node);
  const created = 'CompositeTypeStmt' in node ? node.CompositeTypeStmt.typevar : undefined;
  if (!('CommentStmt' in node)) refuseShardedNames(kind, facts, context, created);
  if (created) refuseShadowing(created, context);
  if ('CreateFunctionStmt' in node) refuseShardedBody(kind, facts, context);
  if ('RenameStmt' in node && node.RenameStmt.renameType === 'OBJECT_TYPE')
    refuseName(node.RenameStmt.newname ?? '', context);
}

/** What of a list is not there does not keep the rest of it. */
function textForOthers(node: Node, text: StatementText): string {
  if (!('DropStmt' in node) || node.DropStmt.missing_ok) return text.whole;
  let token = text.token(text.start);
  const type = node.DropStmt.removeType as keyof typeof DROP_WORDS;
  for (let word = 1; word < DROP_WORDS[type]; word++) token = text.token(token.end);
  // DROP PROCEDURAL LANGUAGE.
  if (type === 'OBJECT_LANGUAGE') token = text.after(token.start, 'procedural') ?? token;
  return `${text.slice(text.start, token.end)} IF EXISTS${text.slice(token.end, text.end)}`;
}

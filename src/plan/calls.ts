/**
 * What the functions that a statement calls mean for its session and its place: settings, session locks, sequence state,
 * and functions of which nothing is known. Only names are seen; what a user's function, trigger or operator does is not.
 */
import type { FuncCall, Node } from '@pgsql/types';
import { BUILTIN_FUNCTIONS, WRITING_BUILTIN_FUNCTIONS } from '../sql/builtin-functions.ts';
import { stringsOf } from '../sql/facts.ts';
import type { SessionEffect } from './plan.ts';
import { refuseSetting } from './settings.ts';

export interface CallFacts {
  readonly effects: readonly SessionEffect[];
  readonly unknownFunctions: readonly string[];
  /** currval, lastval: nothing but the session that called nextval can answer. */
  readonly needsPinBefore: boolean;
  /** Writes, signals or locks: must not be sent again unasked. */
  readonly writes: boolean;
  /** The answer depends on the node: catalogs, sizes, sequences, locks. */
  readonly needsHome: boolean;
}

/** Not unlocking: without a lock there is nothing to unlock, and pools' reset queries call it all the time. */
const SESSION_LOCKS = new Set([
  'pg_advisory_lock',
  'pg_advisory_lock_shared',
  'pg_try_advisory_lock',
  'pg_try_advisory_lock_shared',
]);

/** PostgreSQL's own functions that leave other state behind, or run text as SQL, which may. */
const STATEFUL_BUILTINS =
  /^(setseed|ts_stat|ts_rewrite|(query|cursor|table|schema|database)_to_xml\w*|pg_replication_origin_\w+|pg_(create|copy)_\w+_slot|pg_backup_\w+|pg_start_backup|pg_stop_backup)$/;

const NODE_DEPENDENT =
  /^(pg_|has_|to_reg|lo_|lo(read|write)$|txid_|(col|obj|shobj)_description$|nextval$|setval$|currval$|lastval$|current_database$|inet_server_)/;
const NODE_INDEPENDENT = /^pg_(sleep|typeof$|client_encoding$|backend_pid$)/;

/** Schema and name; the schema is undefined for pg_catalog's own. */
export function functionName(call: FuncCall): { schema: string | undefined; name: string } {
  const names = stringsOf(call.funcname) ?? [];
  const name = names.at(-1) ?? '';
  const schema = names.length > 1 ? names.slice(0, -1).join('.') : undefined;
  return { schema: schema === 'pg_catalog' ? undefined : schema, name };
}

export function inspectCalls(calls: readonly FuncCall[]): CallFacts {
  const effects: SessionEffect[] = [];
  const unknownFunctions = new Set<string>();
  let needsPinBefore = false;
  let writes = false;
  let needsHome = false;
  for (const call of calls) {
    const { schema, name } = functionName(call);
    if (schema === undefined && STATEFUL_BUILTINS.test(name)) {
      effects.push({ kind: 'pin', reason: name });
      writes = true;
      needsHome = true;
      continue;
    }
    if (schema !== undefined || !BUILTIN_FUNCTIONS.has(name)) {
      unknownFunctions.add(schema === undefined ? name : `${schema}.${name}`);
      continue;
    }
    if (WRITING_BUILTIN_FUNCTIONS.has(name)) writes = true;
    if (NODE_DEPENDENT.test(name) && !NODE_INDEPENDENT.test(name)) needsHome = true;
    if (name === 'set_config') effects.push(setConfigEffect(call));
    else if (SESSION_LOCKS.has(name)) effects.push({ kind: 'pin', reason: name });
    else if (name === 'currval' || name === 'lastval') needsPinBefore = true;
  }
  return { effects, unknownFunctions: [...unknownFunctions], needsPinBefore, writes, needsHome };
}

/** set_config(name, value, is_local). */
function setConfigEffect(call: FuncCall): SessionEffect {
  const [nameNode, valueNode, localNode] = call.args ?? [];
  const name = stringLiteral(nameNode)?.toLowerCase();
  const local = booleanLiteral(localNode);
  if (name === undefined || local === undefined) return { kind: 'setMany' };
  if (name === 'seed') return { kind: 'pin', reason: 'setseed' };
  const value = stringLiteral(valueNode);
  refuseSetting(name, value === undefined ? undefined : [value]);
  return { kind: 'set', names: [name], local, reset: false };
}

/** A string literal, maybe cast; undefined for anything else. */
export function stringLiteral(node: Node | undefined): string | undefined {
  if (!node) return undefined;
  if ('TypeCast' in node) return stringLiteral(node.TypeCast.arg);
  if (!('A_Const' in node) || !node.A_Const.sval) return undefined;
  return node.A_Const.sval.sval ?? '';
}

function booleanLiteral(node: Node | undefined): boolean | undefined {
  if (!node || !('A_Const' in node) || !node.A_Const.boolval) return undefined;
  return node.A_Const.boolval.boolval ?? false;
}

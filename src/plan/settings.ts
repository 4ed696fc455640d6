/**
 * SET, RESET and DISCARD: what changes in the session, and the few settings under which Postern would read a client's text
 * or its bytes wrongly, and which it therefore refuses.
 */
import type { DiscardStmt, Node, VariableSetStmt } from '@pgsql/types';
import { fixedAtStartUp, invalidParameter, notSupported } from '../base/errors.ts';
import { COMMIT_SCHEMA, LEAF_SCHEMA } from '../catalog/map.ts';
import type { SessionEffect } from './plan.ts';
import { commitSchemaIsPrivate, leafSchemaIsPrivate } from './refusal.ts';

const BOOLEANS = new Set(['on', 'off', 'true', 'false', 't', 'f', 'yes', 'no', 'y', 'n', '1', '0', '']);

export function planSet(statement: VariableSetStmt): SessionEffect {
  const name = (statement.name ?? '').toLowerCase();
  const local = statement.is_local === true;
  switch (statement.kind) {
    case 'VAR_RESET_ALL':
      return { kind: 'resetAll' };
    case 'VAR_SET_MULTI':
      return multipleSettings(name, statement.args ?? []);
    case 'VAR_SET_VALUE':
      refuseSetting(name, (statement.args ?? []).map(constantText));
      break;
  }
  // SET SESSION AUTHORIZATION resets the role as well.
  const names = name === 'session_authorization' ? [name, 'role'] : [name];
  // It cannot be read back, so no other backend could be given it.
  if (name === 'seed') return { kind: 'pin', reason: 'setseed' };
  const reset = statement.kind === 'VAR_RESET' || statement.kind === 'VAR_SET_DEFAULT';
  return { kind: 'set', names, local, reset };
}

/** SET TRANSACTION … lasts as long as the transaction; SET SESSION CHARACTERISTICS sets the defaults of later ones. */
function multipleSettings(name: string, args: readonly Node[]): SessionEffect {
  const options = args.flatMap((node) => ('DefElem' in node ? [node.DefElem.defname ?? ''] : []));
  if (name !== 'session characteristics') return { kind: 'set', names: options, local: true, reset: false };
  const names = options.map((option) => `default_${option}`);
  return { kind: 'set', names, local: false, reset: false };
}

function constantText(node: Node): string {
  if (!('A_Const' in node)) return '';
  const { sval, ival, fval } = node.A_Const;
  if (sval) return sval.sval ?? '';
  return ival ? String(ival.ival ?? 0) : (fval?.fval ?? '');
}

/** Of the start-up packet alone: whose a client is. */
export const TENANT_SETTING = 'postern.tenant';

/** Throws if the session must not have this value. `values` undefined: not known in advance. */
export function refuseSetting(name: string, values: readonly string[] | undefined): void {
  if (name === 'client_encoding') {
    const encoding = values?.[0]?.toLowerCase().replaceAll(/[^a-z0-9]/g, '');
    if (encoding !== 'utf8' && encoding !== 'unicode') {
      throw notSupported('client_encoding must be UTF8', "SET client_encoding TO 'UTF8' is the only choice.");
    }
  } else if (name === 'standard_conforming_strings') {
    const value = values?.[0]?.toLowerCase() ?? '';
    if (!['on', 'true', 'yes', '1', 't', 'y'].includes(value)) {
      throw notSupported('standard_conforming_strings must be on', "Write backslash escapes as E'…'.");
    }
  } else if (name === TENANT_SETTING) {
    throw fixedAtStartUp(name);
  } else if (name === 'postern.consistent_reads') {
    const value = values?.[0]?.toLowerCase();
    if (value !== undefined && !BOOLEANS.has(value))
      throw invalidParameter(`parameter "${name}" requires a Boolean value`, 'Say on or off.');
  } else if (name === 'search_path') {
    // set_config has the whole list in one string.
    const schemas = values?.flatMap((value) => value.split(',')).map((schema) => schema.trim());
    const names = schemas?.map((schema) => schema.replaceAll('"', ''));
    if (names?.includes(LEAF_SCHEMA)) throw leafSchemaIsPrivate(LEAF_SCHEMA);
    if (names?.includes(COMMIT_SCHEMA)) throw commitSchemaIsPrivate(COMMIT_SCHEMA);
  }
}

export function planDiscard(statement: DiscardStmt): SessionEffect | undefined {
  return statement.target === 'DISCARD_ALL' ? { kind: 'discardAll' } : undefined;
}

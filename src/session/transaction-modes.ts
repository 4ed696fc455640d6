/**
 * SET TRANSACTION right behind BEGIN: the same as BEGIN with these modes, and told to all nodes alike, since no node knows of the
 * transaction yet. pg_dump says so what its transaction is.
 */
import type { SessionEffect } from '../plan/plan.ts';
import type { ClientState } from './state.ts';

const PLAIN_BEGIN = /^\s*(?:begin|start)(?:\s+(?:work|transaction))?\s*$/i;
const SET_TRANSACTION = /^\s*set\s+(?:local\s+)?transaction\s+([a-z\s,]+)$/i;
const MODES = new Set(['transaction_isolation', 'transaction_read_only', 'transaction_deferrable']);

/** The text of the BEGIN that says the same as both; undefined: there is none. */
export function beginWithModes(state: ClientState, effect: SessionEffect, text: string): string | undefined {
  if (state.transaction !== 'virtual' || effect.kind !== 'set' || !effect.local) return undefined;
  if (effect.names.length === 0 || !effect.names.every((name) => MODES.has(name))) return undefined;
  const [, modes] = SET_TRANSACTION.exec(text) ?? [];
  if (modes === undefined || !PLAIN_BEGIN.test(state.beginText)) return undefined;
  return `${/^\s*start/i.test(state.beginText) ? 'START TRANSACTION' : 'BEGIN'} ${modes.trim()}`;
}

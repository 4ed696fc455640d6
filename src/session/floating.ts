/**
 * What a transaction has done while it named no node (lease.ts calls it floating): settings and savepoints, in order, and
 * how they are made again on the node that its first real statement needs.
 */
import { notSupported } from '../base/errors.ts';
import { quoteIdentifier, quoteLiteral } from '../pg/identifier.ts';

export type FloatingStep =
  | { readonly kind: 'set'; readonly name: string; readonly local: boolean }
  | { readonly kind: 'savepoint'; readonly name: string };

/** Settings that SET takes only before the transaction's first query; set_config() would be one. */
const TRANSACTION_SETTINGS = new Set([
  'transaction_isolation',
  'transaction_read_only',
  'transaction_deferrable',
]);

export function isSessionSet(step: FloatingStep): boolean {
  return step.kind === 'set' && !step.local;
}

/** The question for the settings' values as the server has computed them; undefined: there are none. Throws 0A000. */
export function settingsOf(steps: readonly FloatingStep[]): string | undefined {
  const lastSet = steps.findLastIndex((step) => step.kind === 'set');
  const firstSavepoint = steps.findIndex((step) => step.kind === 'savepoint');
  if (firstSavepoint >= 0 && firstSavepoint < lastSet) {
    throw notSupported(
      'the transaction has changed settings after a savepoint on another node',
      'Make settings (SET LOCAL, set_config) before the first SAVEPOINT.',
    );
  }
  const list = steps
    .filter((step) => step.kind === 'set')
    .map((step) => `pg_catalog.current_setting(${quoteLiteral(step.name)}, true)`);
  return list.length === 0 ? undefined : `SELECT ${list.join(', ')}`;
}

/** The statements that make them again, one by one; `values` answer settingsOf(). */
export function replayOf(steps: readonly FloatingStep[], values: readonly (string | null)[]): string[] {
  const own: string[] = [];
  const others: string[] = [];
  const savepoints: string[] = [];
  let at = 0;
  for (const step of steps) {
    if (step.kind === 'savepoint') {
      savepoints.push(`SAVEPOINT ${quoteIdentifier(step.name)}`);
      continue;
    }
    const value = values[at++];
    if (value === null || value === undefined) continue;
    if (TRANSACTION_SETTINGS.has(step.name)) own.push(`SET LOCAL ${step.name} = ${quoteLiteral(value)}`);
    else
      others.push(
        `SELECT pg_catalog.set_config(${quoteLiteral(step.name)}, ${quoteLiteral(value)}, ${step.local})`,
      );
  }
  return [...own, ...others, ...savepoints];
}

/**
 * Which branches have written, where the transaction may be READ ONLY: nothing can be marked or decided in such a one. A function
 * that may write, in a transaction that may not, has written nothing.
 */
import { ask } from '../backend/internal-query.ts';
import { notSupported } from '../base/errors.ts';
import type { Branch } from './branch.ts';
import type { ClientState } from './state.ts';
import type { TransactionSteps } from './transaction-steps.ts';

/** `branches`: of a transaction that is about to commit. Their `wrote` becomes exact. Throws 0A000. */
export async function checkWhatWasWritten(
  branches: readonly Branch[],
  { state, steps }: { readonly state: ClientState; readonly steps: TransactionSteps },
): Promise<void> {
  const writers = branches.filter(({ wrote }) => wrote);
  if (writers.length < 2 || !mayBeReadOnly(writers, state, steps)) return;
  let isReadOnly = false;
  await Promise.all(
    writers.map(async (branch) => {
      const [row] = await ask(
        branch.connection,
        `SELECT pg_catalog.current_setting('transaction_read_only'),
           pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL`,
      );
      isReadOnly ||= row?.[0] === 'on';
      branch.wrote = row?.[1] === 't';
    }),
  );
  // Nothing ends READ ONLY but the end of the transaction: if nobody has set it since, it was so from the start. (A branch may have
  // got its transaction id by registering.)
  if (isReadOnly && !steps.hasSet('transaction_read_only'))
    for (const branch of writers) branch.wrote = false;
  if (!isReadOnly || writers.filter(({ wrote }) => wrote).length < 2) return;
  throw notSupported(
    'SET TRANSACTION READ ONLY after writes on several nodes',
    'Leave it out: a transaction that has written on several nodes has to write its outcome.',
  );
}

function mayBeReadOnly(writers: readonly Branch[], state: ClientState, steps: TransactionSteps): boolean {
  if (/read\s+only/i.test(state.beginText) || steps.hasSet('transaction_read_only')) return true;
  return writers.some(
    ({ connection }) => connection.parameters.get('default_transaction_read_only') === 'on',
  );
}

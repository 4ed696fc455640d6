/** SELECT postern.outcome('token'): what became of a transaction whose client was told 08007. It never guesses. */
import { unreachable } from '../base/assert.ts';
import { BOUNDS } from '../base/bounds.ts';
import { invalidParameter, PosternError } from '../base/errors.ts';
import { type ResolveWorld, resolveTransaction } from './resolve.ts';
import { type OutcomeToken, parseToken } from './token.ts';

export interface OutcomeWorld {
  readonly world: ResolveWorld;
  readonly tokenKey: Buffer;
  readonly recoveryAfterMs: number;
}

/**
 * A decision that is not there is settled as recovery would settle it: the transaction is then rolled back for ever. Throws 22023
 * for what is no token, or an expired one.
 */
export async function answerOutcome(
  { world, tokenKey, recoveryAfterMs }: OutcomeWorld,
  text: string,
): Promise<'committed' | 'rolled back' | 'in doubt'> {
  const token = parseToken(text, tokenKey);
  const ageMs = await ageOf(world, token);
  if (ageMs === undefined) return 'in doubt';
  if (ageMs >= BOUNDS.outcomeRetentionMs) {
    throw invalidParameter(
      'this outcome token has expired',
      `Outcomes are kept for ${BOUNDS.outcomeRetentionMs / 3_600_000} hours.`,
    );
  }
  const result = await resolveTransaction(world, {
    transactionId: token.transactionId,
    owner: token.owner,
    commitPoint: token.commitPointNodeId,
    backend: token.commitPointBackend,
    foreign: {
      purpose: 'settle',
      ageMs,
      recoveryAfterMs,
      decisionsKeptMs: BOUNDS.outcomeRetentionMs,
    },
    found: undefined,
  });
  if (result.kind !== 'settled') return 'in doubt';
  switch (result.outcome) {
    case 'committed':
      return 'committed';
    case 'rolledBack':
      return 'rolled back';
    case 'lost':
      throw new PosternError({
        sqlState: 'XX001',
        message: 'the transaction was committed, and its commit point has lost its own part',
        hint: 'See SELECT * FROM postern.prepared.',
      });
    default:
      return unreachable(result.outcome);
  }
}

/** By the commit point's clock alone: beyond the retention its decision may have been deleted. undefined: it can't be asked. */
async function ageOf(world: ResolveWorld, token: OutcomeToken): Promise<number | undefined> {
  const rows = await world.controls
    .use(token.commitPointNodeId, (control) =>
      control.query<{ age_ms: string }>(
        'SELECT (extract(epoch FROM clock_timestamp()) * 1000 - $1::numeric / 1000)::int8 AS age_ms',
        [token.issuedAtUs],
      ),
    )
    .catch(() => []);
  const [row] = rows;
  return row && Number(row.age_ms);
}

/** How a command that failed says so on stderr. */
import { PosternError } from '../base/errors.ts';
import { EmbeddedFailure } from '../embedded/failure.ts';
import { ServerError } from '../platform/control-connection.ts';
import { LoadError } from '../wall/load/generator.ts';
import { SweepError } from '../wall/measure/measure.ts';
import { MeasureError } from '../wall/server/measured-server.ts';

/** One line for what a user can mend; the trace as well for what only we can. */
export function failureText(error: unknown): string {
  if (!(error instanceof Error)) return `postern: ${String(error)}`;
  if (!isExpected(error)) return `postern: ${error.stack ?? error.message}`;
  const hint = hintOf(error);
  const suffix = hint === undefined ? '' : ` (${hint})`;
  return `postern: ${error.message.replace(/\s*\n\s*/g, ' ')}${suffix}`;
}

function hintOf(error: Error): string | undefined {
  // What a client is told of a node that is away, that the others go on and it comes back, is no help to who starts a program.
  if (error instanceof PosternError && error.sqlState === '08001')
    return 'Check the address and the password, and that the server runs.';
  if (error instanceof PosternError) return error.hint;
  return error instanceof ServerError ? error.fields.get('H') : undefined;
}

/** Errors of the system and of PostgreSQL have a code. */
function isExpected(error: Error): boolean {
  return (
    error instanceof EmbeddedFailure ||
    error instanceof PosternError ||
    error instanceof ServerError ||
    error instanceof SweepError ||
    error instanceof LoadError ||
    error instanceof MeasureError ||
    'code' in error
  );
}

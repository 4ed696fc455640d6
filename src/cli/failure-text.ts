/** How a command that failed says so on stderr. */
import { PosternError } from '../base/errors.ts';
import { EmbeddedFailure } from '../embedded/failure.ts';
import { SweepError } from '../wall/measure.ts';
import { MeasureError } from '../wall/measured-server.ts';

/** One line for what a user can mend; the trace as well for what only we can. */
export function failureText(error: unknown): string {
  if (!(error instanceof Error)) return `postern: ${String(error)}`;
  if (!isExpected(error)) return `postern: ${error.stack ?? error.message}`;
  const hint = error instanceof PosternError && error.hint !== undefined ? ` (${error.hint})` : '';
  return `postern: ${error.message.replace(/\s*\n\s*/g, ' ')}${hint}`;
}

/** Errors of the system and of PostgreSQL have a code. */
function isExpected(error: Error): boolean {
  return (
    error instanceof EmbeddedFailure ||
    error instanceof PosternError ||
    error instanceof SweepError ||
    error instanceof MeasureError ||
    'code' in error
  );
}

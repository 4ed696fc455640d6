/**
 * `postern wall measure DSN`: the sweep of src/wall/measure/measure.ts against any server, printed live, and written as JSON and
 * HTML. Exit status: 0 measured; 1 it failed, with one line on stderr; 130 interrupted. The schema is dropped in each case.
 */
import { writeFileSync } from 'node:fs';
import { PosternError } from '../base/errors.ts';
import { measureWall, SweepError, type SweepResult } from '../wall/measure/measure.ts';
import { verdictOf } from '../wall/measure/verdict.ts';
import { renderReport, reportJson } from '../wall/report/report.ts';
import { WallTable } from '../wall/report/table.ts';
import { MeasureError } from '../wall/server/measured-server.ts';
import { eventsWorkload } from '../wall/workload/workload.ts';
import type { MeasureArguments } from './wall.ts';

const STATUS_FAILED = 1;
const STATUS_INTERRUPTED = 130;

/** Gives the exit status. */
export async function runMeasure(dsn: string, options: MeasureArguments): Promise<number> {
  const interruption = new AbortController();
  const onSignal = (): void => {
    // Who asks a second time is not made to wait for the cleaning.
    if (interruption.signal.aborted) process.exit(STATUS_INTERRUPTED);
    interruption.abort();
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  const table = new WallTable({
    write: (text) => process.stdout.write(text),
    isTerminal: process.stdout.isTTY === true,
  });
  try {
    const result = await measureWall({
      dsn,
      environment: process.env,
      workload: eventsWorkload(),
      protocol: options.protocol,
      ...(options.clients === undefined ? {} : { clients: options.clients }),
      secondsPerPoint: options.seconds,
      signal: interruption.signal,
      onProgress: (event) => table.tell(event),
    });
    table.end();
    report(result, options);
    return 0;
  } catch (error) {
    table.end();
    return fail(error, interruption.signal);
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}

function report(result: SweepResult, options: MeasureArguments): void {
  const verdict = verdictOf(result);
  process.stdout.write(`\n${verdict}\n`);
  const input = {
    title: `The wall of ${result.target}`,
    curves: [{ label: `${result.workload}, direct`, result }],
    verdict,
  };
  if (options.json !== undefined) writeFileSync(options.json, reportJson(input));
  if (options.html !== undefined) writeFileSync(options.html, renderReport(input));
}

function fail(error: unknown, signal: AbortSignal): number {
  // An interruption that could not clean up comes as a SweepError, and says so.
  if (signal.aborted && !(error instanceof SweepError)) {
    process.stderr.write('postern: interrupted; nothing of the measurement is left on the server\n');
    return STATUS_INTERRUPTED;
  }
  const isKnown =
    error instanceof MeasureError || error instanceof SweepError || error instanceof PosternError;
  const isFileError = error instanceof Error && 'syscall' in error;
  if (!isKnown && !isFileError) throw error;
  const hint = error instanceof PosternError && error.hint !== undefined ? `. ${error.hint}` : '';
  process.stderr.write(`postern: ${error.message}${hint}\n`);
  return signal.aborted ? STATUS_INTERRUPTED : STATUS_FAILED;
}

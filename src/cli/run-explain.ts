/**
 * `postern wall explain DSN`: the explanation of src/wall/explain/explain.ts as text and as JSON. Exit status: 0 explained;
 * 1 it failed, with one line on stderr; 130 interrupted. The schemas are dropped in each case.
 */
import { writeFileSync } from 'node:fs';
import { evidenceText } from '../wall/explain/evidence-text.ts';
import { type ExplainProgress, explainWall, PACE, QUICK_PACE } from '../wall/explain/explain.ts';
import { MeasureError } from '../wall/server/measured-server.ts';
import { workloadByName } from '../wall/workload/built-in-workloads.ts';
import { type Workload, workloadFromScript } from '../wall/workload/workload.ts';
import { failureText } from './failure-text.ts';
import { listenForInterrupt } from './interrupt.ts';
import { checkWritable } from './output-files.ts';
import type { ExplainArguments } from './wall-explain.ts';

const STATUS_FAILED = 1;
const STATUS_INTERRUPTED = 130;

/** Gives the exit status. */
export async function runExplain(dsn: string, options: ExplainArguments): Promise<number> {
  const { signal, urgent } = listenForInterrupt();
  // Who asks a second time is not made to wait for the cleaning.
  urgent.addEventListener('abort', () => process.exit(STATUS_INTERRUPTED));
  const progress = new ProgressLine(process.stderr.isTTY === true);
  try {
    checkWritable([options.json]);
    const explanation = await explainWall({
      dsn,
      environment: process.env,
      workload: workloadOf(options),
      protocol: options.protocol,
      pace: options.quick === true ? QUICK_PACE : PACE,
      refuseTraffic: options.iKnow !== true,
      ...(options.clients === undefined ? {} : { clients: options.clients }),
      ...(options.link === undefined ? {} : { linkBitsPerSecond: options.link }),
      ...(options.nodeExporter === undefined ? {} : { nodeExporterUrl: options.nodeExporter }),
      signal,
      onProgress: (event) => progress.tell(event),
    });
    progress.end();
    process.stdout.write(evidenceText(explanation));
    if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(explanation, null, 2)}\n`);
    return 0;
  } catch (error) {
    progress.end();
    // An interruption that could not clean up comes as a MeasureError, and says so.
    if (signal.aborted && !(error instanceof MeasureError)) {
      process.stderr.write('postern: interrupted; nothing of it is left on the server\n');
      return STATUS_INTERRUPTED;
    }
    process.stderr.write(`${failureText(error)}\n`);
    return signal.aborted ? STATUS_INTERRUPTED : STATUS_FAILED;
  }
}

function workloadOf({ script, scale, workload }: ExplainArguments): Workload {
  return script === undefined
    ? workloadByName(workload, { scale })
    : workloadFromScript(script.text, { name: script.name, scale });
}

/** On a terminal one line that changes; in a log nothing, since all of it takes a minute or so. */
class ProgressLine {
  private readonly isTerminal: boolean;
  private isShown = false;

  constructor(isTerminal: boolean) {
    this.isTerminal = isTerminal;
  }

  tell(event: ExplainProgress): void {
    if (!this.isTerminal) return;
    process.stderr.write(`\r\x1b[K${progressText(event)}`);
    this.isShown = true;
  }

  end(): void {
    if (this.isShown) process.stderr.write('\r\x1b[K');
    this.isShown = false;
  }
}

function progressText(event: ExplainProgress): string {
  switch (event.kind) {
    case 'preparing':
      return 'preparing …';
    case 'searching':
      return `how many clients it takes: ${event.clients} …`;
    case 'running':
      return `${event.turn} of ${event.turns}: ${event.change === 'nothing' ? 'the load as it is' : event.change} …`;
    case 'cleaning':
      return 'cleaning up …';
  }
}

/**
 * `postern wall measure DSN`: the measurement of src/wall/measure/measure.ts against any server, printed live, written as
 * JSON after each point, and as CSV and HTML at the end. Exit status: 0 measured; 1 it failed, with one line on stderr, or
 * a figure was asked for with --fail-below and none could be told; 3 the figure is below --fail-below; 130 interrupted. The
 * schema is dropped in each case.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { explainWall } from '../wall/explain/explain.ts';
import type { Explanation } from '../wall/explain/explanation.ts';
import { formatTps } from '../wall/measure/format-rate.ts';
import { measureWall, SweepError } from '../wall/measure/measure.ts';
import type { SweepResult } from '../wall/measure/sweep.ts';
import { verdictOf } from '../wall/measure/verdict.ts';
import { reportCsv } from '../wall/report/csv.ts';
import { explanationText } from '../wall/report/explanation-text.ts';
import { essentialFacts } from '../wall/report/facts.ts';
import { type ReportInput, renderReport, reportJson } from '../wall/report/report.ts';
import { reportSchema } from '../wall/report/report-schema.ts';
import { WallTable } from '../wall/report/table.ts';
import { MeasureError } from '../wall/server/measured-server.ts';
import { workloadByName } from '../wall/workload/built-in-workloads.ts';
import { type Workload, workloadFromScript } from '../wall/workload/workload.ts';
import { failureText } from './failure-text.ts';
import { listenForInterrupt } from './interrupt.ts';
import { checkWritable } from './output-files.ts';
import type { MeasureArguments } from './wall-measure.ts';

const STATUS_FAILED = 1;
const STATUS_BELOW = 3;
const STATUS_INTERRUPTED = 130;

/** Gives the exit status. */
export async function runMeasure(dsn: string, options: MeasureArguments): Promise<number> {
  const { signal, urgent } = listenForInterrupt();
  // Who asks a second time is not made to wait for the cleaning.
  urgent.addEventListener('abort', () => process.exit(STATUS_INTERRUPTED));
  const table = new WallTable({
    write: (text) => process.stdout.write(text),
    isTerminal: process.stdout.isTTY === true,
  });
  try {
    checkWritable([options.json, options.csv, options.html]);
    return await measureAndReport(dsn, { options, table, signal });
  } catch (error) {
    table.end();
    return fail(error, signal);
  }
}

interface Run {
  readonly options: MeasureArguments;
  readonly table: WallTable;
  readonly signal: AbortSignal;
}

async function measureAndReport(dsn: string, run: Run): Promise<number> {
  const { options, table, signal } = run;
  const workload = workloadOf(options);
  // An interrupted measurement goes on in its own file unless another is named.
  const json = options.json ?? options.resume;
  const { clients, maxClients, rate, slo, budget, resume } = options;
  const common = { dsn, environment: process.env, workload, protocol: options.protocol, signal };
  const result = await measureWall({
    ...common,
    ...(clients === undefined ? {} : { clients }),
    ...(maxClients === undefined ? {} : { clientsMax: maxClients }),
    ...(rate === undefined ? {} : { rate }),
    ...(slo === undefined ? {} : { slo }),
    ...(budget === undefined ? {} : { budgetSeconds: budget * 60 }),
    secondsPerPoint: options.seconds,
    allowTraffic: options.iKnow === true,
    resume: resume === undefined ? undefined : earlierMeasurement(resume),
    onProgress: (event) => table.tell(event),
    onPartialResult: (partial) => {
      if (json !== undefined) writeFileSync(json, reportJson(reportOf(partial, undefined)));
    },
  });
  table.end();
  const explanation = options.explain === true ? await explained(common, result, run) : undefined;
  report(reportOf(result, explanation), { options, json, explanation, result });
  return statusOf(result, options.failBelow);
}

function workloadOf({ script, scale, workload }: MeasureArguments): Workload {
  return script === undefined
    ? workloadByName(workload, { scale })
    : workloadFromScript(script.text, { name: script.name, scale });
}

/** What the file holds; undefined if it isn't there yet. */
function earlierMeasurement(path: string): SweepResult | undefined {
  if (!existsSync(path)) return undefined;
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    throw new MeasureError(`${path} is no JSON: it can't be resumed`);
  }
  const parsed = reportSchema.safeParse(content);
  const curve = parsed.success ? parsed.data.curves[0] : undefined;
  if (curve === undefined) {
    throw new MeasureError(
      `${path} is no report of this version of postern wall measure: it can't be resumed`,
    );
  }
  const { label: _, explanation: __, ...result } = curve;
  return result;
}

async function explained(
  common: Pick<Parameters<typeof explainWall>[0], 'dsn' | 'environment' | 'workload' | 'protocol' | 'signal'>,
  result: SweepResult,
  { table }: Run,
): Promise<Explanation> {
  const { wall, best } = result;
  const clients = wall?.kind === 'reached' ? wall.chosenClients : best?.clients;
  table.tell({ kind: 'note', text: '\nWhat binds it: the same load with one thing changed at a time …' });
  const explanation = await explainWall({
    ...common,
    ...(clients === undefined ? {} : { clients }),
    onProgress: (event) =>
      table.live(event.kind === 'running' ? `${event.change} (${event.turn} of ${event.turns}) …` : ''),
  });
  table.end();
  return explanation;
}

function reportOf(result: SweepResult, explanation: Explanation | undefined): ReportInput {
  return {
    title: `The wall of ${result.target}`,
    curves: [{ label: `${result.workload}, direct`, result, explanation }],
    verdict: verdictOf(result),
  };
}

function report(
  input: ReportInput,
  of: {
    options: MeasureArguments;
    json: string | undefined;
    explanation: Explanation | undefined;
    result: SweepResult;
  },
): void {
  const { options, json, explanation, result } = of;
  process.stdout.write(`\n${input.verdict}\n`);
  if (explanation !== undefined) process.stdout.write(`\n${explanationText(explanation)}`);
  const facts = essentialFacts(result).map(([name, value]) => `  ${name.padEnd(17)}${value}`);
  process.stdout.write(`\n${facts.join('\n')}\n`);
  if (json !== undefined) writeFileSync(json, reportJson(input));
  if (options.csv !== undefined) writeFileSync(options.csv, reportCsv(input.curves));
  if (options.html !== undefined) writeFileSync(options.html, renderReport(input));
}

/** Judged by the estimate, whose interval is printed: of the wall, of "at least", or the rate that keeps the objective. */
function statusOf(result: SweepResult, failBelow: number | undefined): number {
  const { wall, slo, best } = result;
  if (failBelow === undefined) return best === undefined || wall?.kind === 'void' ? STATUS_FAILED : 0;
  const figure =
    slo !== undefined
      ? (slo.rate ?? 0)
      : wall === undefined
        ? best?.tps
        : wall.kind === 'void'
          ? undefined
          : wall.rate.tps;
  if (figure === undefined) {
    process.stderr.write('postern: no figure to compare with --fail-below: every point was void\n');
    return STATUS_FAILED;
  }
  if (figure >= failBelow) return 0;
  process.stderr.write(
    `postern: ${formatTps(figure)} transactions a second are below --fail-below ${formatTps(failBelow)}\n`,
  );
  return STATUS_BELOW;
}

function fail(error: unknown, signal: AbortSignal): number {
  // An interruption that could not clean up comes as one of these, and says so.
  if (signal.aborted && !(error instanceof SweepError) && !(error instanceof MeasureError)) {
    process.stderr.write('postern: interrupted; nothing of the measurement is left on the server\n');
    return STATUS_INTERRUPTED;
  }
  process.stderr.write(`${failureText(error)}\n`);
  return signal.aborted ? STATUS_INTERRUPTED : STATUS_FAILED;
}

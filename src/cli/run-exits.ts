/**
 * `postern wall exits`: stage by stage (exits-stage.ts), pair by pair, each line printed when it is known. Exit status: 0
 * measured, 1 it failed (one line on stderr), 130 interrupted; nothing is left running or lying about in each case.
 */
import { writeFileSync } from 'node:fs';
import { findCpuController } from '../embedded/cpu-quota.ts';
import { describeDsn, parseDsnOfOneServer } from '../pg/dsn.ts';
import { descriptionOf, EXIT_IDS, type ExitOutcome, type ExitsReport } from '../wall/exits/exit.ts';
import { EXITS_HEADER, exitLine, exitsHtml, exitsJson, exitsSummary } from '../wall/exits/exits-page.ts';
import { measurePairs } from '../wall/exits/pairs.ts';
import { EmptyWindow, type Pace, type SideLoad, SideLoads } from '../wall/exits/side-loads.ts';
import { LoadError } from '../wall/load/generator.ts';
import type { Target } from '../wall/load/generator-messages.ts';
import { refuseTraffic } from '../wall/measure/traffic.ts';
import { durability } from '../wall/report/facts.ts';
import { MeasuredServer, MeasureError } from '../wall/server/measured-server.ts';
import { ProbeConnection } from '../wall/server/probe-connection.ts';
import { eventsWorkload } from '../wall/workload/workload.ts';
import {
  cpuStage,
  durabilityStage,
  type ExitPlan,
  primariesStage,
  replicaStage,
  Stage,
} from './exits-stage.ts';
import { failureText } from './failure-text.ts';
import type { FrontOptions } from './front.ts';
import { listenForInterrupt } from './interrupt.ts';
import { checkWritable } from './output-files.ts';
import { startFront } from './run-front.ts';
import type { ExitsArguments } from './wall-exits.ts';

const PACE: Pace = { warmupMs: 500, windowMs: 2_500, rounds: 3 };
const QUICK_PACE: Pace = { warmupMs: 250, windowMs: 1_000, rounds: 2 };
const FLUSH_PACE: Pace = { warmupMs: 200, windowMs: 700, rounds: 1 };
/** Some servers are capped to a small share of a core, and a login costs them milliseconds. */
const WARM_UP_MAX_MS = 15_000;
const COMMIT_DELAY_MAX_US = 10_000;
const STATUS_FAILED = 1;
const STATUS_INTERRUPTED = 130;
const INSUFFICIENT_PRIVILEGE = '42501';
const ERASE_LINE = '\r\x1b[2K';

/** What the scale model is for. */
const MODELLED = EXIT_IDS.filter((id) => /^(replicas_|reads_on|more_cpu|all_combined|primaries_)/.test(id));

interface Run {
  readonly options: ExitsArguments;
  readonly dsn: string | undefined;
  readonly wanted: ReadonlySet<string>;
  readonly loads: SideLoads;
  readonly pace: Pace;
  readonly signal: AbortSignal;
  readonly outcomes: ExitOutcome[];
  readonly notes: string[];
}

export async function runExits(dsn: string | undefined, options: ExitsArguments): Promise<number> {
  const { signal, urgent } = listenForInterrupt();
  // Who asks a second time is not made to wait: what runs here ends by itself when this process is gone.
  urgent.addEventListener('abort', () => process.exit(STATUS_INTERRUPTED));
  const run: Run = {
    ...{ options, dsn, signal, loads: new SideLoads(), outcomes: [], notes: [] },
    wanted: new Set(options.only ?? EXIT_IDS),
    pace: options.quick === true ? QUICK_PACE : PACE,
  };
  const startedAt = new Date().toISOString();
  try {
    checkWritable([options.json, options.html]);
    await runStages(run);
    const report: ExitsReport = {
      target: dsn === undefined ? undefined : describeDsn(parseDsnOfOneServer(dsn, process.env)),
      ...{ startedAt, clients: options.clients, windowSeconds: run.pace.windowMs / 1000 },
      model: run.notes.join(' '),
      outcomes: run.outcomes,
    };
    process.stdout.write(`\n${exitsSummary(report)}`);
    if (options.json !== undefined) writeFileSync(options.json, exitsJson(report));
    if (options.html !== undefined) writeFileSync(options.html, exitsHtml(report));
    return 0;
  } catch (error) {
    live('');
    if (signal.aborted && !(error instanceof MeasureError)) {
      process.stderr.write('postern: interrupted; nothing of the measurement is left\n');
      return STATUS_INTERRUPTED;
    }
    process.stderr.write(`${failureText(error)}\n`);
    return signal.aborted ? STATUS_INTERRUPTED : STATUS_FAILED;
  } finally {
    await run.loads.close();
  }
}

async function runStages(run: Run): Promise<void> {
  const found = findCpuController();
  const controller = 'directory' in found ? found.directory : undefined;
  if (MODELLED.some((id) => run.wanted.has(id)))
    run.notes.push(
      'missing' in found
        ? `Servers could not be capped to a share of a core (${found.missing}): replicas shared this machine with their primary.`
        : 'In the scale model each server is capped to the same small share of this machine. Its ratios count, its single figures do not; and since each pause costs a capped server a little, a larger cap gains somewhat more than its share.',
    );
  const options = { clients: run.options.clients, controller, wanted: run.wanted };
  await givenServer(run);
  await onStage(run, ['full_page_writes_off', 'fsync_off', 'wal_minimal', 'all_combined'], (stage) =>
    durabilityStage(stage, options),
  );
  await onStage(
    run,
    ['replicas_async', 'replicas_first', 'replicas_any', 'replicas_cascaded', 'reads_on_replicas'],
    (stage) => replicaStage(stage, options),
  );
  const modelled = ['more_cpu', 'primaries_2', 'primaries_4', 'primaries_8'];
  if (controller === undefined) {
    for (const id of modelled)
      if (run.wanted.has(id))
        tell(run, { id, skipped: `needs caps: ${'missing' in found ? found.missing : ''}` });
    return;
  }
  await onStage(run, ['more_cpu'], (stage) => cpuStage(stage, { ...options, controller }));
  await onStage(run, modelled.slice(1), (stage) => primariesStage(stage, { ...options, controller }));
}

/** Opens a stage if any of its exits is wanted, measures them, and closes it. */
async function onStage(
  run: Run,
  ids: readonly string[],
  open: (stage: Stage) => Promise<void>,
): Promise<void> {
  if (!ids.some((id) => run.wanted.has(id))) return;
  run.signal.throwIfAborted();
  const stage = new Stage();
  try {
    live('starting scratch servers …');
    await open(stage);
    for (const plan of stage.plans) if (run.wanted.has(plan.id)) await measure(run, plan);
  } finally {
    await stage.close();
  }
}

/** What is tried by the settings of sessions alone, and front mode: on the given server, or on a scratch one. */
async function givenServer(run: Run): Promise<void> {
  const ids = ['commit_delay', 'commit_delay_1ms', 'synchronous_commit_off', 'coalescing'];
  if (!ids.some((id) => run.wanted.has(id))) return;
  const stage = new Stage();
  try {
    live('preparing …');
    const scratch = run.dsn === undefined ? await stage.scratch() : undefined;
    const dsn = run.dsn ?? `postgres://postgres@127.0.0.1:${scratch!.port}/postgres`;
    const server = await MeasuredServer.connect(parseDsnOfOneServer(dsn, process.env));
    let leftover: string | undefined;
    try {
      await measureSessions(run, { stage, server, dsn });
    } finally {
      leftover = await server.clean();
    }
    if (leftover !== undefined) throw new MeasureError(leftover);
  } finally {
    await stage.close();
  }
}

async function measureSessions(
  run: Run,
  options: { stage: Stage; server: MeasuredServer; dsn: string },
): Promise<void> {
  const { stage, server, dsn } = options;
  if (run.dsn !== undefined && run.options.iKnow !== true) await refuseOtherTraffic(server, run.signal);
  const facts = await server.facts();
  run.notes.push(`The server was PostgreSQL ${facts.version ?? 'unknown'}: ${durability(facts.settings)}.`);
  const workload = eventsWorkload();
  const schema = await server.makeSchema(workload, run.signal);
  const clients = Math.min(run.options.clients, (await server.freeConnections()) ?? run.options.clients);
  const load = (target: Target, settings?: Record<string, string>): SideLoad => ({
    ...{ targets: [target], workload, schema, clients, settings },
  });
  const { target } = server;
  const place = run.dsn === undefined ? 'scratch server' : 'given server';
  const pair = (id: string, changed: SideLoad): ExitPlan => ({
    id,
    place,
    without: load(target),
    with: changed,
  });
  if (run.wanted.has('commit_delay')) {
    const us = await halfFlushUs(run, load(target), load(target, { synchronous_commit: 'off' }));
    run.notes.push(`Half a flush was ${us} µs.`);
    await measure(
      run,
      pair('commit_delay', load(target, { commit_delay: String(us), commit_siblings: '5' })),
    );
  }
  if (run.wanted.has('commit_delay_1ms')) {
    await measure(
      run,
      pair('commit_delay_1ms', load(target, { commit_delay: '1000', commit_siblings: '5' })),
    );
  }
  if (run.wanted.has('synchronous_commit_off')) {
    await measure(run, pair('synchronous_commit_off', load(target, { synchronous_commit: 'off' })));
  }
  if (run.wanted.has('coalescing')) {
    const front = await startFront(dsn, FRONT_OPTIONS, { info() {}, warn() {}, error() {} });
    stage.keepRouter(front);
    const through: Target = { ...target, host: '127.0.0.1', port: front.port, tls: undefined };
    await measure(run, pair('coalescing', load(through)));
  }
}

async function refuseOtherTraffic(server: MeasuredServer, signal: AbortSignal): Promise<void> {
  const probe = await ProbeConnection.open(server.target);
  try {
    await refuseTraffic(server, probe, signal);
  } finally {
    await probe.end();
  }
}

const FRONT_OPTIONS: FrontOptions = {
  connections: undefined,
  host: '127.0.0.1',
  port: 0,
  workers: 1,
  coalesce: true,
};

/** PostgreSQL's own advice on where commit_delay begins; from what one client waits for durability. */
async function halfFlushUs(run: Run, durable: SideLoad, asynchronous: SideLoad): Promise<number> {
  const one = async (load: SideLoad): Promise<number> =>
    (await run.loads.measure({ ...load, clients: 1 }, FLUSH_PACE, run.signal)).p50Ms;
  const flushMs = (await one(durable)) - (await one(asynchronous));
  return Math.min(COMMIT_DELAY_MAX_US, Math.max(10, Math.round((flushMs * 1000) / 2)));
}

async function measure(run: Run, plan: ExitPlan): Promise<void> {
  const { title } = descriptionOf(plan.id);
  let windows = 0;
  try {
    for (const side of ['without', 'with'] as const) {
      live(`${title}: warming up …`);
      await warmUp(run, plan, side);
    }
    const pairs = await measurePairs({
      rounds: run.pace.rounds,
      measure: async (side) => {
        windows += 1;
        live(`${title}: window ${windows} of ${4 * run.pace.rounds} …`);
        run.signal.throwIfAborted();
        await plan.prepare?.(side);
        return run.loads.measure(plan[side], run.pace, run.signal);
      },
    });
    tell(run, { id: plan.id, place: plan.place, pairs });
  } catch (error) {
    const mayNot = error instanceof LoadError && error.serverError?.sqlState === INSUFFICIENT_PRIVILEGE;
    // One exit that can't be measured is no reason to lose the others.
    if (!mayNot && !(error instanceof EmptyWindow)) throw error;
    tell(run, { id: plan.id, skipped: error.message });
  }
}

/** Thrown away: the first load of a side meets code that isn't compiled yet, plans that aren't made, and a server that is slow to take so many clients. */
async function warmUp(run: Run, plan: ExitPlan, side: 'without' | 'with'): Promise<void> {
  const pace: Pace = { ...run.pace, windowMs: run.pace.windowMs / 2 };
  const deadline = performance.now() + WARM_UP_MAX_MS;
  await plan.prepare?.(side);
  for (;;) {
    run.signal.throwIfAborted();
    try {
      await run.loads.measure(plan[side], pace, run.signal);
      return;
    } catch (error) {
      if (!(error instanceof EmptyWindow) || performance.now() > deadline) throw error;
    }
  }
}

function tell(run: Run, outcome: ExitOutcome): void {
  live('');
  if (run.outcomes.length === 0) process.stdout.write(`${EXITS_HEADER}\n`);
  run.outcomes.push(outcome);
  process.stdout.write(`${exitLine(outcome)}\n`);
}

function live(text: string): void {
  if (process.stdout.isTTY) process.stdout.write(ERASE_LINE + text);
}

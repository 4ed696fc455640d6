/**
 * The loads of both sides of a pair: one warm generator to each address, workload and session settings, so that no window
 * measures the start of a thread. A side may have several addresses (reads over replicas), loaded at the same time.
 */
import { LoadGenerator } from '../load/generator.ts';
import type { Target } from '../load/generator-messages.ts';
import { LatencyHistogram } from '../load/latency-histogram.ts';
import { MeasureError } from '../server/measured-server.ts';
import type { Workload } from '../workload/workload.ts';
import type { Window } from './pairs.ts';

export interface SideLoad {
  readonly targets: readonly Target[];
  readonly workload: Workload;
  /** Where the workload's tables are; empty, or ends in a dot. */
  readonly schema: string;
  /** At each target. */
  readonly clients: number;
  /** Settings of each session, as `synchronous_commit`. */
  readonly settings?: Readonly<Record<string, string>> | undefined;
}

export interface Pace {
  readonly warmupMs: number;
  readonly windowMs: number;
  readonly rounds: number;
}

/** There is nothing to compare with. */
export class EmptyWindow extends MeasureError {
  constructor(message: string) {
    super(message);
    this.name = 'EmptyWindow';
  }
}

export class SideLoads {
  private readonly generators = new Map<string, LoadGenerator>();

  /** One window; rejects with LoadError, or with EmptyWindow when nothing was answered within it. */
  async measure(load: SideLoad, pace: Pace, signal: AbortSignal): Promise<Window> {
    const { warmupMs, windowMs } = pace;
    const parts = await Promise.all(
      load.targets.map((target) =>
        this.generator(target, load).measurePoint({ clients: load.clients, warmupMs, windowMs, signal }),
      ),
    );
    const latencies = new LatencyHistogram();
    let tps = 0;
    for (const part of parts) {
      latencies.merge(part.latencies);
      tps += part.transactionsPerSecond;
      const [failed] = part.errorMessages.values();
      if (failed !== undefined && part.latencies.count === 0)
        throw new EmptyWindow(`every transaction failed: ${failed}`);
    }
    signal.throwIfAborted();
    if (tps === 0) throw new EmptyWindow('no transaction was answered within a window');
    return { tps, p50Ms: latencies.percentileMs(0.5), p99Ms: latencies.percentileMs(0.99) };
  }

  async close(): Promise<void> {
    const generators = [...this.generators.values()];
    this.generators.clear();
    await Promise.all(generators.map((generator) => generator.close()));
  }

  private generator(target: Target, load: SideLoad): LoadGenerator {
    const settings = Object.entries(load.settings ?? {});
    const key = JSON.stringify([
      target.host,
      target.port,
      target.database,
      load.workload.name,
      load.schema,
      settings,
    ]);
    let found = this.generators.get(key);
    if (found === undefined) {
      found = new LoadGenerator({
        target: withSettings(target, settings),
        workload: load.workload,
        protocol: 'prepared',
        schema: load.schema,
        workers: 1,
      });
      this.generators.set(key, found);
    }
    return found;
  }
}

/** As psql's PGOPTIONS has it: `-c name=value`, blanks and backslashes escaped. */
function withSettings(target: Target, settings: readonly (readonly [string, string])[]): Target {
  if (settings.length === 0) return target;
  const own = settings.map(([name, value]) => `-c ${name}=${value.replace(/[\\ ]/g, '\\$&')}`).join(' ');
  const given = target.parameters.find(([name]) => name === 'options')?.[1];
  const options = given === undefined ? own : `${given} ${own}`;
  return {
    ...target,
    parameters: [...target.parameters.filter(([name]) => name !== 'options'), ['options', options]],
  };
}

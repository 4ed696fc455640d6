/**
 * Counters of several processes, some of which end: what they had counted stays in the sums. Else a sum would fall with each process
 * that is replaced, and whoever computes a rate from it (Prometheus takes any fall for a reset to zero) would see all that the others
 * have ever counted as if it were new.
 *
 * Invariant: as long as each process counts upwards, so do the sums; what a process has counted after it was last asked is lost with it.
 */
import type { MetricFamily } from './metric-samples.ts';

export interface ProcessMetrics {
  /** Never the same for two processes. */
  readonly process: string;
  readonly families: readonly MetricFamily[];
}

const ENDED_MAX = 64;

export class CounterMemory {
  /** What each has said last, counters and histograms alone. */
  readonly #last = new Map<string, readonly MetricFamily[]>();
  /** Of those that were forgotten: one family for each name. */
  #sums = new Map<string, MetricFamily>();

  /** What is to be added up: that of the processes that have answered, and the counters of all others that there ever were. */
  complete(answers: readonly ProcessMetrics[]): (readonly MetricFamily[])[] {
    const answered = new Set(answers.map(({ process }) => process));
    const absent = [...this.#last].filter(([process]) => !answered.has(process));
    for (const { process, families } of answers) {
      this.#last.delete(process);
      this.#last.set(
        process,
        families.filter(({ type }) => type !== 'gauge'),
      );
    }
    for (const [process, families] of absent.slice(0, Math.max(0, absent.length - ENDED_MAX))) {
      this.#last.delete(process);
      this.#sums = sumOf([...this.#sums.values(), ...families]);
    }
    const remembered = absent.filter(([process]) => this.#last.has(process)).map(([, families]) => families);
    return [...answers.map(({ families }) => families), ...remembered, [...this.#sums.values()]];
  }
}

function sumOf(families: readonly MetricFamily[]): Map<string, MetricFamily> {
  const sums = new Map<string, MetricFamily>();
  for (const family of families) {
    const values = new Map<string, MetricFamily['values'][number]>();
    for (const sample of [...(sums.get(family.name)?.values ?? []), ...family.values]) {
      const key = JSON.stringify([sample.metricName, sample.labels]);
      values.set(key, { ...sample, value: sample.value + (values.get(key)?.value ?? 0) });
    }
    sums.set(family.name, { ...family, values: [...values.values()] });
  }
  return sums;
}

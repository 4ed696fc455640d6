/** The figures of one process at one moment, as plain data that goes between processes as JSON. */
import { METRICS, type MetricName } from './metric-names.ts';

interface Sample {
  readonly value: number;
  readonly labels: Readonly<Record<string, string | number>>;
  /** Of a part of a histogram. */
  readonly metricName?: string;
}

/** As prom-client's AggregatorRegistry.aggregate() takes them. */
export interface MetricFamily {
  readonly name: string;
  readonly help: string;
  readonly type: string;
  readonly aggregator: string;
  readonly values: readonly Sample[];
}

export class MetricSamples {
  readonly #values = new Map<MetricName, Sample[]>();

  /** What is not known is left out. */
  set(
    name: MetricName,
    value: number | undefined,
    labels: Readonly<Record<string, string | number>> = {},
  ): void {
    if (value === undefined || !Number.isFinite(value)) return;
    this.#add(name, { value, labels });
  }

  /** Each entry of `values` by the one label that the metric has, beside `labels`. */
  setEach(
    name: MetricName,
    values: ReadonlyMap<string, number> | Readonly<Record<string, number>>,
    labels: Readonly<Record<string, string | number>> = {},
  ): void {
    const label = METRICS[name].labels.find((one) => !(one in labels))!;
    const entries = values instanceof Map ? values.entries() : Object.entries(values);
    for (const [key, value] of entries) this.set(name, value, { ...labels, [label]: key });
  }

  setHistogram(
    name: MetricName,
    histogram: WaitHistogram,
    labels: Readonly<Record<string, string | number>>,
  ): void {
    let count = 0;
    for (const [i, upper] of [...WAIT_SECONDS, '+Inf'].entries()) {
      count += histogram.counts[i]!;
      this.#add(name, { value: count, labels: { le: upper, ...labels }, metricName: `${name}_bucket` });
    }
    this.#add(name, { value: histogram.sumMs / 1_000, labels, metricName: `${name}_sum` });
    this.#add(name, { value: count, labels, metricName: `${name}_count` });
  }

  families(): MetricFamily[] {
    return [...this.#values].map(([name, values]) => {
      const { help, type, together = 'sum' } = METRICS[name];
      return { name, help, type, aggregator: together, values };
    });
  }

  #add(name: MetricName, sample: Sample): void {
    const known = this.#values.get(name);
    if (known) known.push(sample);
    else this.#values.set(name, [sample]);
  }
}

/** Upper ends, in seconds. */
const WAIT_SECONDS = [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 30] as const;

/** Of waits: a few additions for each, and counted nowhere else. */
export class WaitHistogram {
  /** Not cumulative; the last one has what took longer than all ends. */
  readonly counts: number[] = new Array<number>(WAIT_SECONDS.length + 1).fill(0);
  sumMs = 0;

  record(waitedMs: number): void {
    let at = 0;
    while (at < WAIT_SECONDS.length && waitedMs > WAIT_SECONDS[at]! * 1_000) at++;
    this.counts[at]!++;
    this.sumMs += waitedMs;
  }
}

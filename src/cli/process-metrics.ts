/** What any process of a router tells of itself: its time, memory, and how late its timers are. */
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import type { MetricSamples } from '../observe/metric-samples.ts';

const RESOLUTION_MS = 20;

/** Measured from the first time that it is asked for: until then it costs nothing. */
let delay: IntervalHistogram | undefined;

/** `name`: `first`, or the number of the worker. */
export function addProcessMetrics(samples: MetricSamples, name: string): void {
  const process_ = { process: name };
  const { user, system } = process.cpuUsage();
  const { rss, heapUsed } = process.memoryUsage();
  samples.set('postern_process_start_time_seconds', performance.timeOrigin / 1_000, process_);
  samples.set('postern_process_cpu_seconds_total', (user + system) / 1_000_000, process_);
  samples.set('postern_process_resident_bytes', rss, process_);
  samples.set('postern_process_heap_bytes', heapUsed, process_);
  if (!delay) {
    delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
    delay.enable();
    return;
  }
  for (const percentile of [50, 99]) {
    // What is measured is the time between two of its timers.
    const lateMs = Math.max(0, delay.percentile(percentile) / 1e6 - RESOLUTION_MS);
    samples.set('postern_event_loop_delay_seconds', lateMs / 1_000, {
      ...process_,
      quantile: percentile / 100,
    });
  }
  delay.reset();
}

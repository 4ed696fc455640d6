/** What this thread of the generator spends between two moments: CPU, time in which its loop did not rest, and its lag. */
import { readFileSync } from 'node:fs';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import type { ThreadLoad } from './generator-messages.ts';

/** How often the loop's lag is looked at: a timer that fires a hundred times a second costs nothing that could be seen. */
const LAG_RESOLUTION_MS = 10;

export class ThreadMeter {
  private readonly delay = monitorEventLoopDelay({ resolution: LAG_RESOLUTION_MS });
  private begun = takeSample();
  private timer: NodeJS.Timeout | undefined;

  /** Begins after `waitMs`; until then everything counts that has happened since the meter was made. */
  start(waitMs: number): void {
    this.timer = setTimeout(() => {
      this.begun = takeSample();
      this.delay.enable();
    }, waitMs);
  }

  stop(): ThreadLoad {
    clearTimeout(this.timer);
    this.delay.disable();
    const ended = takeSample();
    const { begun } = this;
    const cpuSeconds =
      ended.cpuSeconds === undefined || begun.cpuSeconds === undefined
        ? undefined
        : ended.cpuSeconds - begun.cpuSeconds;
    return {
      cpuShare: cpuSeconds === undefined ? undefined : cpuSeconds / ((ended.atMs - begun.atMs) / 1000),
      loopUtilization: performance.eventLoopUtilization(ended.loop, begun.loop).utilization,
      // It tells the time from one firing of a timer to the next.
      loopLagP99Ms:
        this.delay.count === 0 ? 0 : Math.max(0, this.delay.percentile(99) / 1e6 - LAG_RESOLUTION_MS),
    };
  }
}

function takeSample() {
  return {
    atMs: performance.now(),
    loop: performance.eventLoopUtilization(),
    cpuSeconds: threadCpuSeconds(),
  };
}

/** CPU time of this thread since it began; Linux only, to the nanosecond. */
function threadCpuSeconds(): number | undefined {
  try {
    return Number(readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ', 1)[0]) / 1e9;
  } catch {
    return undefined;
  }
}

/** The thread of metronome.ts: it sleeps until an arrival is due, says so, and does nothing else until it is stopped. */
import { parentPort } from 'node:worker_threads';
import { assert } from '../../base/assert.ts';
import { ArrivalSchedule } from './arrival-schedule.ts';
import { type MetronomeTask, STOPPED, WAKE_PENDING } from './metronome.ts';
import { sharedNow } from './shared-clock.ts';

const NAP_MS_MIN = 0.1;
/** At the lowest rates too it looks up so often: a nap of hours would not fit into a timeout. */
const NAP_MS_MAX = 1_000;

const port = parentPort;
assert(port !== null, 'the metronome runs in a worker thread');

function beat({ arrivals, cells }: MetronomeTask): void {
  const schedule = new ArrivalSchedule(arrivals);
  while (Atomics.load(cells, STOPPED) === 0) {
    const napMs = schedule.nextAtMs - sharedNow();
    if (napMs > 0) {
      Atomics.wait(cells, STOPPED, 0, Math.min(NAP_MS_MAX, Math.max(NAP_MS_MIN, napMs)));
      continue;
    }
    const now = sharedNow();
    while (schedule.nextAtMs <= now) schedule.advance();
    if (Atomics.exchange(cells, WAKE_PENDING, 1) === 0) port!.postMessage('due');
  }
}

port.on('message', beat);
port.postMessage('ready');

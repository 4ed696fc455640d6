/**
 * The fuzz test for as long as one likes: `npm run soak -- --seed N --minutes M`. Default: ten million frames from a random
 * seed. Ends with status 1 if anything is not as it should be.
 */
import { parseArgs } from 'node:util';
import { fuzzRouter } from '../robustness/fuzzed-router.ts';

const { values } = parseArgs({ options: { seed: { type: 'string' }, minutes: { type: 'string' } } });
const seed = Number(values.seed ?? Math.floor(Math.random() * 1_000_000_000));
const minutes = values.minutes === undefined ? undefined : Number(values.minutes);
const FRAMES = 10_000_000;
const RSS_GROWTH_BYTES_MAX = 200 * 1024 * 1024;

console.log(`seed ${seed}, ${minutes === undefined ? `${FRAMES} frames` : `${minutes} minutes`}`);
const start = performance.now();
let toldAt = start;
const report = await fuzzRouter({
  seed,
  connectionsAtOnce: 16,
  isDone: ({ frames, connections, hangs }) => {
    const now = performance.now();
    if (now - toldAt > 10_000) {
      toldAt = now;
      const rss = Math.round(process.memoryUsage().rss / 1024 / 1024);
      console.log(`${frames} frames, ${connections} connections, ${hangs.length} hangs, ${rss} MiB`);
    }
    return minutes === undefined ? frames >= FRAMES : now - start > minutes * 60_000;
  },
});
console.log(JSON.stringify(report, undefined, 2));
const ok =
  report.hangs.length === 0 &&
  report.wrongAnswers.length === 0 &&
  Object.values(report.left).every((count) => count === 0) &&
  report.rssBytesAfter - report.rssBytesBefore < RSS_GROWTH_BYTES_MAX;
console.log(ok ? 'well' : 'NOT WELL');
process.exitCode = ok ? 0 : 1;

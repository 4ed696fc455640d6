/** A million frames of rubbish: no crash, no leak, no hang, and a well-behaved client notices nothing. FUZZ_SEED repeats a run. */
import { expect, it } from 'vitest';
import { fuzzRouter } from './fuzzed-router.ts';

const FRAMES = 1_000_000;
/** On a slow machine fewer will do: the soak has no such limit. */
const TIME_MAX_MS = 45_000;
const FRAMES_MIN = 100_000;

it('a million random and mutated frames', { timeout: 150_000 }, async () => {
  const seed = Number(process.env.FUZZ_SEED ?? 20_261_122);
  console.log(`FUZZ_SEED=${seed}`);
  const start = performance.now();
  const report = await fuzzRouter({
    seed,
    connectionsAtOnce: 16,
    isDone: ({ frames }) => frames >= FRAMES || performance.now() - start > TIME_MAX_MS,
  });
  console.log(
    `${report.frames} frames over ${report.connections} connections, ${report.rightAnswers} right answers`,
  );
  expect(report.hangs).toEqual([]);
  expect(report.wrongAnswers).toEqual([]);
  expect(report.left).toEqual({ clients: 0, transactions: 0, locks: 0, backendsMissing: 0 });
  expect(report.rightAnswers).toBeGreaterThan(10);
  expect(report.frames).toBeGreaterThan(FRAMES_MIN);
  expect(report.rssBytesAfter - report.rssBytesBefore).toBeLessThan(200 * 1024 * 1024);
});

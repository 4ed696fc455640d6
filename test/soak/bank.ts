/**
 * The bank (test/txn/bank.ts) for as long as one likes: `npm run soak:bank -- --seed N --minutes M`. Run after run, each by a
 * seed of its own, the first by N; default: ten minutes from a random seed. Prints for each run its seed, what was disturbed,
 * and what clients were told. Ends with status 1 at the first run that is not as it should be.
 */
import { parseArgs } from 'node:util';
import { Bank, type RunReport } from '../txn/bank.ts';
import { atRandom } from '../txn/bank-disturbances.ts';

const { values } = parseArgs({
  options: { seed: { type: 'string' }, minutes: { type: 'string' }, runs: { type: 'string' } },
});
const firstSeed = numberOf('seed') ?? Math.floor(Math.random() * 1_000_000_000);
const endAtMs = performance.now() + (numberOf('minutes') ?? 10) * 60_000;
const runsMax = numberOf('runs') ?? Number.POSITIVE_INFINITY;
const RUN_MS = 3_000;

let isOver = false;
for (const name of ['SIGINT', 'SIGTERM'] as const)
  process.on(name, () => {
    isOver = true;
  });

const bank = await Bank.start();
const sums = { runs: 0, transfers: 0, unknown: 0, tokens: 0, reads: 0, disturbances: 0 };
try {
  for (let seed = firstSeed; !isOver && performance.now() < endAtMs && sums.runs < runsMax; seed++) {
    const report = await bank.run({ seed, script: atRandom({ seed, forMs: RUN_MS }) });
    tell(seed, report);
    sums.runs++;
    sums.transfers += Object.values(report.views).reduce((sum, count) => sum + count, 0);
    sums.unknown += report.views.unknown;
    sums.tokens += report.tokens;
    sums.reads += report.reads ?? 0;
    sums.disturbances += report.disturbances.length;
    if (report.violations.length > 0) {
      tellViolations(seed, report);
      process.exitCode = 1;
      break;
    }
  }
} finally {
  await bank.stop();
}
console.log(JSON.stringify(sums));
console.log(process.exitCode === 1 ? 'NOT WELL' : 'well');

function tell(seed: number, { views, tokens, reads, disturbances, cleanAfterMs }: RunReport): void {
  const { ok, refused, unknown } = views;
  console.log(
    `seed ${seed}: ${ok} ok, ${refused} refused, ${unknown} unknown, ${tokens} tokens, ${reads ?? 'no'} consistent reads; clean after ${cleanAfterMs} ms`,
  );
  for (const disturbance of disturbances) console.log(`  ${disturbance}`);
}

function tellViolations(seed: number, { violations, errors, routerLogs }: RunReport): void {
  for (const [index, log] of routerLogs.entries())
    for (const line of log) console.log(`  router ${index}: ${line}`);
  console.log('errors told:', Object.fromEntries(errors));
  for (const violation of violations) console.log(`VIOLATION ${violation}`);
  console.log(`seed ${seed}`);
}

/** A soak that runs nothing would end well. */
function numberOf(name: 'seed' | 'minutes' | 'runs'): number | undefined {
  const text = values[name];
  if (text === undefined) return undefined;
  const number = Number(text);
  if (text.trim() !== '' && number >= (name === 'seed' ? 0 : Number.MIN_VALUE)) return number;
  console.error(`--${name} must be a number${name === 'seed' ? '' : ' above 0'}, not "${text}"`);
  process.exit(2);
}

/**
 * The confusion matrix of `postern wall explain`: servers with each bottleneck made real, so that the truth is known, and
 * what it says of each. A verdict counts as confidently wrong if it is wrong and its confidence is not low.
 *
 *   npm run bench:verdicts -- [--quick] [--json FILE] [--only REGEXP]
 */
import { writeFileSync } from 'node:fs';
import { evidenceText } from '../src/wall/explain/evidence-text.ts';
import { explainWall, QUICK_PACE } from '../src/wall/explain/explain.ts';
import type { Explanation } from '../src/wall/explain/explanation.ts';
import { machineFacts } from '../src/wall/server/machine.ts';
import { benchArguments } from './support/arguments.ts';
import { type Arranged, VERDICT_CASES, type VerdictCase } from './support/verdict-cases.ts';
import { VerdictStage } from './support/verdict-stage.ts';

interface Judged {
  readonly name: string;
  readonly truth: string;
  readonly said: string;
  readonly causes: readonly string[];
  readonly confidence: Explanation['confidence'];
  readonly isRight: boolean;
  readonly explanation: Explanation;
}

/** Shorter than explain's own quick pace, and without looking for more clients: ten servers in two minutes. */
const SHORT_PACE = { warmupMs: 100, windowMs: 300, pairs: 2 };

const { quick, json, only } = benchArguments({ takesCells: true });
const stage = await VerdictStage.start();
const judged: Judged[] = [];
const skipped: { name: string; reason: string }[] = [];
try {
  for (const each of VERDICT_CASES) {
    if ((quick && each.isLong === true) || only?.test(each.name) === false) continue;
    const reason = reasonToSkip(each, stage);
    if (reason !== undefined) {
      skipped.push({ name: each.name, reason });
      continue;
    }
    const one = await judge(each);
    judged.push(one);
    console.log(
      `${one.isRight ? 'right' : 'WRONG'}  ${each.name.padEnd(28)} ${one.truth.padEnd(16)} ${one.said} [${one.causes.join('; ')}] (${one.confidence}, ${Math.round(one.explanation.seconds)} s)`,
    );
    if (!one.isRight || !quick) console.log(evidenceText(one.explanation).replaceAll(/^/gm, '    '));
  }
} finally {
  await stage.stop();
}
printMatrix(judged);
for (const { name, reason } of skipped) console.log(`skipped: ${name}: ${reason}`);
const ratios = {
  right: judged.filter(({ isRight }) => isRight).length,
  of: judged.length,
  confidently_wrong: judged.filter(({ isRight, confidence }) => !isRight && confidence !== 'low').length,
};
console.log(`right ${ratios.right} of ${ratios.of}, confidently wrong ${ratios.confidently_wrong}`);
if (json !== undefined) {
  const result = {
    ...{ bench: 'verdicts', at: new Date().toISOString(), machine: machineFacts(), ratios, skipped },
    cases: judged,
  };
  writeFileSync(json, `${JSON.stringify(result, null, 2)}\n`);
}

function reasonToSkip(each: VerdictCase, { hasSlowDisk, quota, missing }: VerdictStage): string | undefined {
  const lacks = (each.needs ?? []).some((need) => (need === 'disk' ? !hasSlowDisk : quota === undefined));
  return lacks ? missing.join('; ') : undefined;
}

async function judge(each: VerdictCase): Promise<Judged> {
  const earlier = new Map(judged.map(({ name, explanation }) => [name, explanation]));
  let arranged: Arranged | undefined;
  try {
    arranged = await each.arrange(stage, earlier);
    const { dsn, linkBitsPerSecond } = arranged;
    const explanation = await explainWall({
      ...{ dsn, workload: each.workload, clients: each.clients },
      pace: quick ? SHORT_PACE : QUICK_PACE,
      ...(quick ? { skip: ['more_clients'] } : {}),
      ...(linkBitsPerSecond === undefined ? {} : { linkBitsPerSecond }),
    });
    const { verdict, causes, confidence } = explanation;
    const names = (each.causes ?? []).every((cause) => causes.some((said) => cause.test(said)));
    const isRight = verdict === each.truth && names;
    return { name: each.name, truth: each.truth, said: verdict, causes, confidence, isRight, explanation };
  } finally {
    await arranged?.undo?.();
    await stage.release();
  }
}

/** Rows: what is true; columns: what was said. */
function printMatrix(all: readonly Judged[]): void {
  const said = [...new Set(all.flatMap((one) => [one.truth, one.said]))].sort();
  console.log(`\n${'truth \\ said'.padEnd(18)}${said.map((each) => each.padStart(17)).join('')}`);
  for (const truth of said) {
    const counts = said.map((each) => all.filter((one) => one.truth === truth && one.said === each).length);
    if (counts.every((count) => count === 0)) continue;
    console.log(
      `${truth.padEnd(18)}${counts.map((count) => (count === 0 ? '·' : String(count)).padStart(17)).join('')}`,
    );
  }
}

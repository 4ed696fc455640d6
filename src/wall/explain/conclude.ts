/**
 * From observations to a verdict. The weights are added up; the cause with the most is the verdict if it is supported at
 * all and well ahead of the next one. Two that are close are `mixed`, none that is supported is `unknown`. Confidence is
 * high only where the cause is far ahead and facts of at least two kinds say so, an intervention or the system among them.
 */
import {
  type Confidence,
  type Explanation,
  HYPOTHESES,
  type Hypothesis,
  type Interval,
  type Observation,
} from './explanation.ts';
import { type Findings, interventionOf } from './findings.ts';
import {
  coresOfOthers,
  FULL_PAGE_IMAGES,
  observe,
  percent,
  STANDBY_FLUSH,
  show,
  times,
} from './observations.ts';
import { groupShares } from './waits.ts';

/** Less than this is no support. */
const SUPPORT_MIN = 2;
/** Two that are closer than this can't be told apart. */
const MARGIN_MIN = 2;
/** Half an interval of the load's own throughput, over it. Above the first nothing is certain, above the second all is doubtful. */
const NOISE_HIGH = 0.2;
const NOISE_MAX = 0.35;

export type Conclusion = Pick<
  Explanation,
  'verdict' | 'causes' | 'confidence' | 'sentence' | 'remarks' | 'scores' | 'observations'
>;

export function conclude(findings: Findings): Conclusion {
  const observations = observe(findings);
  const scores = scoresOf(observations);
  const ranked = [...HYPOTHESES].sort((a, b) => scores[b] - scores[a]);
  const [first, second] = [ranked[0]!, ranked[1]!];
  const margin = scores[first] - Math.max(0, scores[second]);
  const remarks = remarksOf(findings);
  const common = { remarks, scores, observations };
  if (scores[first] < SUPPORT_MIN) {
    const sentence = 'What binds could not be told: no cause is supported by what was measured.';
    return { ...common, verdict: 'unknown', causes: [], confidence: 'low', sentence };
  }
  if (margin < MARGIN_MIN) {
    const close = ranked.filter(
      (each) => scores[each] >= SUPPORT_MIN && scores[first] - scores[each] < MARGIN_MIN,
    );
    if (close.length > 1) {
      const causes = close.map((each) => nameOf(each, findings, observations));
      const sentence = `Mixed: ${causes.join(' and ')} are both at or near their limit; easing one alone gains little.`;
      return { ...common, verdict: 'mixed', causes, confidence: 'low', sentence };
    }
  }
  const cause = nameOf(first, findings, observations);
  const confidence = confidenceOf({
    first,
    margin,
    score: scores[first],
    observations,
    noise: widthOf(findings.tps),
  });
  return {
    ...common,
    verdict: first,
    causes: [cause],
    confidence,
    sentence: `${SENTENCES[first](cause)}.`,
  };
}

function scoresOf(observations: readonly Observation[]): Record<Hypothesis, number> {
  const sums = Object.fromEntries(HYPOTHESES.map((each) => [each, 0])) as Record<Hypothesis, number>;
  for (const { weights } of observations) {
    for (const [hypothesis, weight] of Object.entries(weights) as [Hypothesis, number][])
      sums[hypothesis] += weight;
  }
  return sums;
}

function confidenceOf(options: {
  first: Hypothesis;
  margin: number;
  score: number;
  observations: readonly Observation[];
  noise: number;
}): Confidence {
  const { first, margin, score, observations, noise } = options;
  const supporting = observations.filter(({ weights }) => (weights[first] ?? 0) >= 1);
  const kinds = new Set(supporting.map(({ kind }) => kind));
  // The sessions' waits settle these two: for them there is no intervention.
  const isSeenInWaits = first === 'lock_contention' || first === 'other';
  const isDirect = kinds.has('intervention') || kinds.has('system') || kinds.has('client') || isSeenInWaits;
  const isSupportedTwice = kinds.size >= 2 || score >= 6;
  const level = margin >= 4 && isDirect && isSupportedTwice ? 2 : margin >= 2.5 && isDirect ? 1 : 0;
  return (['low', 'medium', 'high'] as const)[
    Math.min(level, noise > NOISE_MAX ? 0 : noise > NOISE_HIGH ? 1 : 2)
  ]!;
}

function widthOf({ value, low, high }: Interval): number {
  return (high - low) / 2 / value;
}

const SENTENCES: Readonly<Record<Hypothesis, (cause: string) => string>> = {
  wal_fsync: () => 'The flush of the WAL binds: commits wait for it',
  wal_write: () => 'Inserting and writing the WAL binds: less of it would be faster',
  cpu: () => 'The CPU binds: every core that the server may use is full',
  network: () => 'The network to the replicas binds: commits wait until standbys have them',
  lock_contention: (cause) =>
    `Locks bind, not the server’s capacity: sessions wait for one another (${cause})`,
  client_bound: () => 'The client binds: the server waits for it',
  other: (cause) => `Something else binds: ${cause}`,
};

const NAMES: Readonly<Record<Hypothesis, string>> = {
  wal_fsync: 'the WAL’s flush',
  wal_write: 'WAL insertion and writing',
  cpu: 'the CPU',
  network: 'the network to the replicas',
  lock_contention: 'locks',
  client_bound: 'the client',
  other: 'something else',
};

function nameOf(hypothesis: Hypothesis, findings: Findings, observations: readonly Observation[]): string {
  const waits = findings.waits ?? [];
  if (hypothesis === 'lock_contention') {
    const lock = waits.find(({ key }) => key.startsWith('lock:'));
    return lock?.event ?? NAMES.lock_contention;
  }
  if (hypothesis !== 'other') return NAMES[hypothesis];
  const special = observations.find(
    ({ name, weights }) => (name === FULL_PAGE_IMAGES || name === STANDBY_FLUSH) && (weights.other ?? 0) > 0,
  );
  return special?.name ?? groupShares(waits).named?.event ?? NAMES.other;
}

function remarksOf(findings: Findings): string[] {
  const { clients, client, cpu, flush, replication } = findings;
  const said: string[] = [];
  const more = interventionOf(findings, 'more_clients');
  if (more !== undefined && more.ratio.low > 1.1) {
    said.push(
      `${clients} clients are not at the wall yet: twice as many give ${times(more.ratio)}. What binds them is latency, and more clients hide it.`,
    );
  }
  if (client.sharesMachine && cpu !== undefined && cpu.utilization >= 0.8 && client.cores > 0.2) {
    said.push(`The load generator shares the server’s machine and took ${show(client.cores)} cores of it.`);
  }
  const others = coresOfOthers(findings);
  if (others !== undefined && cpu !== undefined && others > 0.25 * cpu.cores) {
    said.push(
      `Other programs took ${show(others)} of the machine’s ${show(cpu.cores)} cores: not a quiet machine.`,
    );
  }
  if (
    flush.loadedSyncMs !== undefined &&
    flush.unloadedSyncMs !== undefined &&
    flush.loadedSyncMs > 2 * flush.unloadedSyncMs &&
    flush.loadedSyncMs > 0.2
  ) {
    said.push(
      `A flush takes ${show(flush.unloadedSyncMs)} ms by itself and ${show(flush.loadedSyncMs)} ms under this load: the disk, or the wait for a core.`,
    );
  }
  if ((replication.replicas ?? 0) > 0 && replication.waitedFor === 0) {
    said.push('Replicas stream, but no commit waits for them: they may fall behind without slowing writes.');
  }
  if (widthOf(findings.tps) > NOISE_MAX) {
    said.push(
      `The load’s own throughput varied by ±${percent(widthOf(findings.tps))} between its windows: a noisy machine.`,
    );
  }
  return said;
}

/**
 * The wall of one server, measured five times over: do the reported intervals cover one another, and how far are the
 * figures apart? One embedded server, durable, the same events insert; each measure is a whole search from one client on.
 *
 *   npm run bench:repeatability -- [--quick] [--json FILE]
 *
 * covered_pairs_share: of all pairs of measures, those whose intervals overlap. spread: the highest figure less the lowest,
 * over the median.
 */
import { measureWall } from '../src/wall/measure/measure.ts';
import type { SweepResult } from '../src/wall/measure/sweep.ts';
import { verdictOf } from '../src/wall/measure/verdict.ts';
import { eventsWorkload } from '../src/wall/workload/workload.ts';
import { startTestServer } from '../test/support/servers.ts';
import { benchArguments } from './support/arguments.ts';
import { median } from './support/ratios.ts';
import { report } from './support/result.ts';

const MEASURES = 5;
/** A measure that other programs disturbed tells of them: it is made again, within so many. */
const TRIES_MAX = 8;
const OTHERS_MAX = 0.15;
const CLIENTS_MAX = 64;

interface Measured {
  readonly tps: number;
  readonly plusMinus: number;
  readonly stealShare: number;
  readonly othersShare: number;
  readonly text: string;
}

const { quick, json } = benchArguments();
const pace = quick ? { secondsPerPoint: 0.4, budgetSeconds: 20 } : { secondsPerPoint: 3, budgetSeconds: 180 };
const server = await startTestServer({
  durable: true,
  settings: { max_connections: '100', shared_buffers: '512MB', max_wal_size: '8GB', wal_level: 'replica' },
});
try {
  const measures: Measured[] = [];
  const disturbed: string[] = [];
  for (let tries = 1; tries <= TRIES_MAX && measures.length < MEASURES; tries++) {
    await server.query('CHECKPOINT');
    const result = await measureWall({
      ...{ dsn: server.dsn(), workload: eventsWorkload(), clientsMax: CLIENTS_MAX, allowTraffic: true },
      ...pace,
    });
    const measured = measuredOf(result);
    const text = `${tries}: ${verdictOf(result)}`;
    console.log(text);
    if (measured === undefined || measured.othersShare > OTHERS_MAX) disturbed.push(text);
    else measures.push(measured);
  }
  const steal = Math.max(0, ...measures.map(({ stealShare }) => stealShare));
  report({
    bench: 'repeatability',
    setting: { measures: String(MEASURES), seconds_per_point: String(pace.secondsPerPoint) },
    ratios: [
      { name: 'covered_pairs_share', ...coveredPairs(measures), steal },
      { name: 'spread', median: spreadOf(measures), rounds: measures.map(({ tps }) => tps), steal },
    ],
    points: [],
    notes: [
      ...measures.map(({ text }, index) => `${index + 1}: ${text}`),
      ...disturbed.map((text) => `not counted, other programs disturbed it or it told no figure: ${text}`),
    ],
    file: json,
  });
} finally {
  await server.stop();
}

function measuredOf(result: SweepResult): Measured | undefined {
  const { wall, points } = result;
  if (wall === undefined || wall.kind === 'void' || wall.rate.plusMinus === undefined) return undefined;
  return {
    tps: wall.rate.tps,
    plusMinus: wall.rate.plusMinus,
    stealShare: Math.max(...points.map(({ stealShare = 0 }) => stealShare)),
    // What the figure rests on.
    othersShare: Math.max(
      0,
      ...points.filter(({ purpose }) => purpose === 'confirm').map(({ othersShare = 0 }) => othersShare),
    ),
    text: verdictOf(result),
  };
}

/** Over all pairs; and for each measure, over its pairs with the others. */
function coveredPairs(measures: readonly Measured[]): { median: number; rounds: number[] } {
  const rounds = measures.map((one) => {
    const others = measures.filter((other) => other !== one);
    const covered = others.filter(
      (other) => Math.abs(one.tps - other.tps) <= one.plusMinus + other.plusMinus,
    );
    return covered.length / Math.max(1, others.length);
  });
  // Each pair counts for both of its measures, so the mean of the shares is the share of pairs.
  return { median: rounds.reduce((sum, share) => sum + share, 0) / Math.max(1, rounds.length), rounds };
}

function spreadOf(measures: readonly Measured[]): number {
  const rates = measures.map(({ tps }) => tps);
  return (Math.max(...rates) - Math.min(...rates)) / median(rates);
}

/**
 * What a measurement says in a few sentences, and no more than it can: where the wall is, or that it was not reached, and
 * whether client or machine were at their end. Naming the server's own bottleneck takes interventions, not a sweep. Pure.
 */
import { formatRate, formatTps } from './format-rate.ts';
import type { Limit } from './search.ts';
import { isVoid, type SloFinding, type SweepPoint, type SweepResult, type Wall } from './sweep.ts';

/** A later point has to be this much above an earlier one to count as growth; below it is taken for noise. */
const GROWTH_SHARE = 0.05;
const MACHINE_BUSY_SHARE = 0.85;
const STEAL_SHARE = 0.05;
/** When other programs take this much of a machine, its CPU being full says nothing of the server. */
const OTHERS_SHARE = 0.15;

export function verdictOf(result: SweepResult): string {
  const { wall, slo, points } = result;
  if (points.length === 0) return 'Nothing was measured.';
  if (slo !== undefined) return [sloSentence(slo), ...reasons(result, points.at(-1)!)].join(' ');
  const openLoop = points.filter((point) => point.openLoop !== undefined);
  if (openLoop.length > 0) {
    return openLoop.flatMap((point) => [openLoopSentence(point), ...reasons(result, point)]).join(' ');
  }
  if (wall !== undefined) {
    const best = result.best ?? points.at(-1)!;
    return [wallSentence(wall, points), ...reasons(result, best)].join(' ');
  }
  return sweepSentences(result).join(' ');
}

function wallSentence(wall: Wall, points: readonly SweepPoint[]): string {
  switch (wall.kind) {
    case 'reached': {
      const beyond = wall.fallsAfter ? 'more gave less' : 'more were not tried';
      const flat =
        wall.flatTo > wall.clients ? `flat to ${wall.flatTo} (${beyond})` : `and no more (${beyond})`;
      const stale = wall.afresh
        ? ''
        : ' There was no time to measure it afresh, so the figure is somewhat high.';
      return `The wall is at ${formatRate(wall.rate)} transactions a second, reached with ${counted(wall.clients)}, ${flat}.${stale}`;
    }
    case 'not-reached':
      return `The wall was not reached: at least ${formatRate(wall.rate)} transactions a second, with ${counted(wall.clients)}; ${limitText(wall.because)}.`;
    default: {
      const best = points.reduce((a, b) => (b.tps > a.tps ? b : a));
      return `The wall could not be found: every point was void (${wall.reasons.join(', ')}). The highest of them, which proves nothing, was ${formatTps(best.tps)} transactions a second.`;
    }
  }
}

const LIMIT_TEXTS: Readonly<Record<Limit, string>> = {
  'max-clients': 'more clients were not allowed (--max-clients)',
  connections: 'the server has no more connections (max_connections)',
  'client-bound': 'the load generator was at its end: measure from a larger machine',
  budget: 'the time was over (--budget)',
  'void-points': 'the points after it were void',
};

function limitText(limit: Limit): string {
  return LIMIT_TEXTS[limit];
}

function sloSentence(slo: SloFinding): string {
  const exhausted = slo.exhausted ? ' The points ran out before both sides of the edge were agreed on.' : '';
  switch (slo.kind) {
    case 'never':
      return `${slo.objective} does not hold at any rate that was tried.${exhausted}`;
    case 'always':
      return `${slo.objective} holds at every rate that was tried, up to ${formatTps(slo.rate ?? 0)} transactions a second.${exhausted}`;
    default: {
      const low = slo.low === undefined ? 'unknown' : formatTps(slo.low);
      const high = slo.high === undefined ? 'unknown' : formatTps(slo.high);
      return `${slo.objective} holds up to ${formatTps(slo.rate ?? 0)} transactions a second (every point at ${low} and below kept it, every point at ${high} and above broke it).${exhausted}`;
    }
  }
}

function openLoopSentence(point: SweepPoint): string {
  const { rate, late, lateMs, missed, offered } = point.openLoop!;
  const share = (count: number): string => `${((100 * count) / Math.max(1, offered)).toFixed(1)}%`;
  return `At ${formatTps(rate)} arrivals a second: ${formatTps(point.tps)} done, p50 ${point.p50Ms.toFixed(2)} ms and p99 ${point.p99Ms.toFixed(2)} ms from the intended start; ${share(late)} began more than ${lateMs} ms late, ${share(missed)} were missed.`;
}

/** Of a list of counts. */
function sweepSentences(result: SweepResult): string[] {
  const { points } = result;
  const best = result.best;
  if (best === undefined) return ['Every point was void.', ...reasons(result, points.at(-1)!)];
  const rate = `${formatTps(best.tps)} transactions a second`;
  const valid = points.filter((point) => !isVoid(point));
  // The fewest clients that reach the best figure but for noise: from there on more clients only wait longer.
  const knee = valid.find((point) => point.tps >= best.tps * (1 - GROWTH_SHARE)) ?? best;
  const most = valid.reduce((a, b) => (b.clients > a.clients ? b : a));
  const isWall = valid.length > 1 && most.clients > knee.clients && !knee.clientBound;
  const sentence = isWall
    ? `The wall is at about ${rate}, reached with ${counted(knee.clients)}; ${counted(most.clients)} gave ${formatTps(most.tps)}.`
    : `The wall was not reached: at least ${rate}, with ${counted(best.clients)}.`;
  return [sentence, ...reasons(result, best)];
}

function reasons(result: SweepResult, point: SweepPoint): string[] {
  const said: string[] = [];
  if (point.clientBound) said.push('The load generator itself was at its limit there.');
  if ((point.othersShare ?? 0) >= OTHERS_SHARE) {
    said.push(
      `Other programs took ${percent(point.othersShare)} of this machine meanwhile: the figure is as much theirs as the server's.`,
    );
  } else if ((point.machineBusyShare ?? 0) >= MACHINE_BUSY_SHARE) {
    const cores = `${result.machine.cores} cores`;
    said.push(
      result.sharesMachine
        ? `The machine's ${cores} were ${percent(point.machineBusyShare)} busy, and the load generator took ${point.generatorCpuShare.toFixed(2)} of them: CPU is what ends it here.`
        : `The ${cores} of the generator's machine were ${percent(point.machineBusyShare)} busy: measure from a larger one.`,
    );
  }
  if ((point.stealShare ?? 0) >= STEAL_SHARE) {
    said.push(`The hypervisor took ${percent(point.stealShare)} of the CPU for others meanwhile.`);
  }
  const failed = Object.values(point.errors).reduce((sum, count) => sum + count, 0);
  if (failed > 0) said.push(`${failed} transactions failed in the best window.`);
  return said;
}

function percent(share: number | undefined): string {
  return `${Math.round((share ?? 0) * 100)}%`;
}

function counted(clients: number): string {
  return clients === 1 ? '1 client' : `${clients} clients`;
}

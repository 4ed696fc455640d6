/** One point for each count of clients, for charts and tables: several windows of one count become their mean. Pure. */
import { combineRepeats, halfWidth, medianOf } from '../measure/statistics.ts';
import { isVoid, type SweepPoint } from '../measure/sweep.ts';

/**
 * In order of clients, without those of open loops. Void points count only where a count has no other. Latencies are the
 * medians of the windows'; what else stands beside a figure is of the last of them.
 */
export function oneForEachCount(points: readonly SweepPoint[]): SweepPoint[] {
  const closed = points.filter((point) => point.openLoop === undefined);
  const counts = [...new Set(closed.map((point) => point.clients))].sort((a, b) => a - b);
  return counts.map((clients) => {
    const all = closed.filter((point) => point.clients === clients);
    const valid = all.filter((point) => !isVoid(point));
    return combined(valid.length > 0 ? valid : all);
  });
}

function combined(points: readonly SweepPoint[]): SweepPoint {
  const last = points.at(-1)!;
  if (points.length === 1) return last;
  const estimate = combineRepeats(
    points.map(({ tps, standardError = 0, degrees = 0 }) => ({ mean: tps, standardError, degrees })),
  );
  const width = halfWidth(estimate);
  const median = (of: (point: SweepPoint) => number): number => medianOf(points.map(of));
  const { tpsPlusMinus: _, ...rest } = last;
  return {
    ...rest,
    tps: estimate.mean,
    ...(Number.isFinite(width) ? { tpsPlusMinus: width } : {}),
    p50Ms: median((point) => point.p50Ms),
    p95Ms: median((point) => point.p95Ms),
    p99Ms: median((point) => point.p99Ms),
    maxMs: Math.max(...points.map((point) => point.maxMs)),
  };
}

/**
 * A service level objective of the load: "this share of all transactions is answered within this time", written as
 * p99=50ms. It is judged over every arrival of the window, timed from its intended start: one that was never served, or that
 * failed, counts as slower than any bound. Pure.
 */
import { PosternError } from '../../base/errors.ts';

export interface Slo {
  /** From 0 to 1, both excluded: 0.99 for p99. */
  readonly share: number;
  readonly latencyMs: number;
}

/** "p99=50ms", "p99.9=1.5s", "p50=800us". Throws 22023. */
export function parseSlo(text: string): Slo {
  const match = /^p(\d+(?:\.\d+)?)\s*=\s*(\d+(?:\.\d+)?)\s*(us|ms|s)$/i.exec(text.trim());
  const percent = Number(match?.[1]);
  const unitMs = { us: 0.001, ms: 1, s: 1000 }[match?.[3]?.toLowerCase() ?? ''];
  const latencyMs = Number(match?.[2]) * (unitMs ?? Number.NaN);
  if (!(percent > 0 && percent < 100 && latencyMs > 0)) {
    throw new PosternError({
      sqlState: '22023',
      message: `"${text}" is no service level objective`,
      hint: 'Write a percentile and a time, such as p99=50ms or p99.9=1.5s.',
    });
  }
  return { share: percent / 100, latencyMs };
}

export function formatSlo(slo: Slo): string {
  return `p${Number((slo.share * 100).toFixed(6))}=${Number(slo.latencyMs.toFixed(6))}ms`;
}

/** What one open-loop point has to tell for it. */
export interface SloEvidence {
  /** Of the arrivals that were served, by intended start; see LatencyHistogram. */
  readonly latencies: { readonly count: number; shareWithin(latencyMs: number): number };
  /** Arrivals of the window that were never served, or failed. */
  readonly unserved: number;
}

/** A point without arrivals keeps nothing. */
export function keepsSlo(slo: Slo, evidence: SloEvidence): boolean {
  const { latencies, unserved } = evidence;
  const arrivals = latencies.count + unserved;
  return arrivals > 0 && latencies.shareWithin(slo.latencyMs) * latencies.count >= slo.share * arrivals;
}

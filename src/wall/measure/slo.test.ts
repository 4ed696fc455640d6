import { describe, expect, it } from 'vitest';
import { LatencyHistogram } from '../load/latency-histogram.ts';
import { formatSlo, keepsSlo, parseSlo } from './slo.ts';

describe('parseSlo', () => {
  it.each([
    ['p99=50ms', { share: 0.99, latencyMs: 50 }, 'p99=50ms'],
    ['P99.9 = 1.5s', { share: 0.999, latencyMs: 1500 }, 'p99.9=1500ms'],
    ['p50=800us', { share: 0.5, latencyMs: 0.8 }, 'p50=0.8ms'],
  ])('reads %s', (text, slo, formatted) => {
    const parsed = parseSlo(text);
    expect(parsed.share).toBeCloseTo(slo.share);
    expect(parsed.latencyMs).toBeCloseTo(slo.latencyMs);
    expect(formatSlo(parsed)).toBe(formatted);
  });

  it.each(['', 'p99', 'p0=1ms', 'p100=1ms', 'p99=0ms', 'p99=50', '99=50ms', 'p99=50min', 'p99=-1ms'])(
    'refuses "%s"',
    (text) => {
      expect(() => parseSlo(text)).toThrow(/is no service level objective/);
    },
  );
});

describe('keepsSlo', () => {
  const latencies = new LatencyHistogram();
  for (let ms = 1; ms <= 100; ms++) latencies.record(ms * 1000);
  const slo = { share: 0.9, latencyMs: 90.05 };

  it.each([
    ['as many within as asked for', 0, true],
    ['arrivals that were never served', 1, false],
  ])('judges %s', (_, unserved, keeps) => {
    expect(keepsSlo(slo, { latencies, unserved })).toBe(keeps);
  });

  it('agrees with the percentile', () => {
    expect(keepsSlo({ ...slo, latencyMs: latencies.percentileMs(0.9) }, { latencies, unserved: 0 })).toBe(
      true,
    );
    expect(keepsSlo({ ...slo, latencyMs: 89 }, { latencies, unserved: 0 })).toBe(false);
  });

  it('finds nothing kept by a point without arrivals', () => {
    expect(keepsSlo(slo, { latencies: new LatencyHistogram(), unserved: 0 })).toBe(false);
  });
});

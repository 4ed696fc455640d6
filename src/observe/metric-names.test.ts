import { readFileSync } from 'node:fs';
import { AggregatorRegistry } from 'prom-client';
import { describe, expect, it } from 'vitest';
import { METRICS, type MetricName } from './metric-names.ts';
import { MetricSamples, WaitHistogram } from './metric-samples.ts';

const NAMES = Object.keys(METRICS) as MetricName[];

describe('the catalogue of metrics', () => {
  it.each(NAMES)('%s has a name and labels as Prometheus wants them', (name) => {
    const { type, help, labels } = METRICS[name];
    expect(name).toMatch(/^postern_[a-z][a-z_]*[a-z]$/);
    expect(name.endsWith('_total')).toBe(type === 'counter');
    expect(help).toMatch(/^\p{Lu}?.*\.$/u);
    for (const label of labels) expect(label).toMatch(/^[a-z_]+$/);
  });

  it('is what the documentation lists, labels and all', () => {
    const page = readFileSync(new URL('../../docs/reference/metrics.md', import.meta.url), 'utf8');
    const listed = [...page.matchAll(/^\| `(postern_\w+)(?:\{([\w, ]+)\})?`/gm)].map(
      ([, name, labels = '']) => ({
        name,
        labels: labels.split(/, ?/).filter((label) => label !== ''),
      }),
    );
    const wanted = NAMES.map((name) => ({ name, labels: [...METRICS[name].labels] }));
    const byName = (a: { name?: string | undefined }, b: { name?: string | undefined }) =>
      a.name!.localeCompare(b.name!);
    expect(listed.toSorted(byName)).toEqual(wanted.toSorted(byName));
  });
});

describe('figures of several processes', () => {
  /** As they come from another process. */
  const sent = (fill: (samples: MetricSamples) => void): object => {
    const samples = new MetricSamples();
    fill(samples);
    return JSON.parse(JSON.stringify(samples.families()));
  };
  const text = (...processes: object[]): Promise<string> => AggregatorRegistry.aggregate(processes).metrics();

  it('are added, or the greatest or least of them is told', async () => {
    const one = sent((samples) => {
      samples.set('postern_clients', 3);
      samples.set('postern_map_epoch', 9);
      samples.set('postern_router_slot', 4);
      samples.setEach('postern_backends', { idle: 1, lent: 2 }, { node: 'n1' });
    });
    const two = sent((samples) => {
      samples.set('postern_clients', 5);
      samples.set('postern_map_epoch', 8);
      samples.set('postern_router_slot', 4);
      samples.setEach('postern_backends', { idle: 10, lent: 20 }, { node: 'n1' });
    });
    const lines = (await text(one, two)).split('\n');
    expect(lines).toContain('postern_clients 8');
    expect(lines).toContain('postern_map_epoch 8');
    expect(lines).toContain('postern_router_slot 4');
    expect(lines).toContain('postern_backends{node="n1",state="idle"} 11');
    expect(lines).toContain('# TYPE postern_clients gauge');
  });

  it('leave out what is not known', async () => {
    const known = sent((samples) => samples.set('postern_prepared_transactions', 2));
    const unknown = sent((samples) => samples.set('postern_prepared_transactions', undefined));
    expect(await text(unknown, known)).toContain('\npostern_prepared_transactions 2');
    expect(await text(unknown)).not.toContain('postern_prepared_transactions');
  });

  it('have histograms that add up', async () => {
    const waits = new WaitHistogram();
    for (const ms of [0.5, 1, 3, 100, 60_000]) waits.record(ms);
    const one = sent((samples) =>
      samples.setHistogram('postern_backend_wait_seconds', waits, { node: 'n1' }),
    );
    const lines = (await text(one, one)).split('\n');
    expect(lines).toContain('postern_backend_wait_seconds_bucket{le="0.001",node="n1"} 4');
    expect(lines).toContain('postern_backend_wait_seconds_bucket{le="0.1",node="n1"} 8');
    expect(lines).toContain('postern_backend_wait_seconds_bucket{le="30",node="n1"} 8');
    expect(lines).toContain('postern_backend_wait_seconds_bucket{le="+Inf",node="n1"} 10');
    expect(lines).toContain('postern_backend_wait_seconds_count{node="n1"} 10');
    expect(lines).toContain('postern_backend_wait_seconds_sum{node="n1"} 120.209');
  });
});

import fc from 'fast-check';
import { expect, it } from 'vitest';
import { CounterMemory, type ProcessMetrics } from './counter-memory.ts';
import { MetricSamples } from './metric-samples.ts';

function answer(process: string, logins: number): ProcessMetrics {
  const samples = new MetricSamples();
  samples.set('postern_logins_total', logins, { method: 'trust' });
  samples.set('postern_clients', 1);
  return { process, families: samples.families() };
}

function total(all: ReturnType<CounterMemory['complete']>, name: string): number {
  return all
    .flat()
    .filter((family) => family.name === name)
    .flatMap(({ values }) => values)
    .reduce((sum, { value }) => sum + value, 0);
}

it('keeps what a process had counted that is gone, and nothing of its gauges', () => {
  const memory = new CounterMemory();
  memory.complete([answer('a', 100), answer('b', 200)]);
  const after = memory.complete([answer('b', 201), answer('c', 1)]);
  expect(total(after, 'postern_logins_total')).toBe(302);
  expect(total(after, 'postern_clients')).toBe(2);
  // It had only been late.
  expect(total(memory.complete([answer('a', 101), answer('b', 201)]), 'postern_logins_total')).toBe(303);
});

it('never falls, however many processes come, count, are late and end', () => {
  fc.assert(
    fc.property(
      fc.array(fc.array(fc.record({ process: fc.nat(150), grows: fc.nat(9) }), { maxLength: 4 }), {
        maxLength: 150,
      }),
      (rounds) => {
        const memory = new CounterMemory();
        const counts = new Map<number, number>();
        let last = 0;
        for (const round of rounds) {
          const asked = new Map(round.map(({ process, grows }) => [process, grows]));
          for (const [process, grows] of asked) counts.set(process, (counts.get(process) ?? 0) + grows);
          const answers = [...asked.keys()].map((process) => answer(String(process), counts.get(process)!));
          const now = total(memory.complete(answers), 'postern_logins_total');
          expect(now).toBeGreaterThanOrEqual(last);
          last = now;
        }
      },
    ),
    { numRuns: 50 },
  );
});

it('holds no more than it must', () => {
  const memory = new CounterMemory();
  for (let i = 0; i < 1_000; i++) memory.complete([answer(`p${i}`, 1)]);
  const all = memory.complete([]);
  expect(all.length).toBeLessThanOrEqual(66);
  expect(total(all, 'postern_logins_total')).toBe(1_000);
});

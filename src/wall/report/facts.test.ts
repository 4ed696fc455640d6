import { describe, expect, it } from 'vitest';
import { samplePoint, sampleResult, sampleSearch } from '../../../test/support/sample-sweep.ts';
import type { SweepResult } from '../measure/sweep.ts';
import { reportCsv } from './csv.ts';
import { oneForEachCount } from './curve-points.ts';
import { allFacts, essentialFacts } from './facts.ts';

const of = (result: SweepResult) => new Map(essentialFacts(result));

describe('essentialFacts', () => {
  it('says what the figures have to be read with', () => {
    const facts = of(sampleSearch());
    expect(facts.get('unit')).toBe('transactions a second of workload events, prepared protocol');
    expect(facts.get('durability')).toContain('fsync=on, synchronous_commit=on, full_page_writes=unknown');
    expect(facts.get('data')).toBe('256 MiB at the end, 2.00 of shared_buffers, 0.03 of memory');
    expect(facts.get('checkpoints')).toContain('none while it was measured');
    expect(facts.get('full-page images')).toBe('2.0% of WAL records');
    expect(facts.get('client')).toContain('on the same machine');
    expect(facts.get('stolen CPU')).toBe('unknown');
    expect(facts.get('void points')).toBe('1 of 9');
    expect(of({ ...sampleSearch(), tls: true }).get('client')).toMatch(/; over TLS$/);
  });

  it('warns of what is not durable, and says what is not known', () => {
    const bare = sampleResult([samplePoint({ checkpoints: 1, errors: { '40001': 3 }, stealShare: 0.031 })]);
    const server = { settings: { fsync: 'off' }, unread: ['pg_stat_wal'] };
    const facts = of({ ...bare, server, sharesMachine: false });
    expect(facts.get('durability')).toContain('NOT durable');
    expect(facts.get('server')).toBe('PostgreSQL unknown, standbys unknown');
    expect(facts.get('hardware')).toContain('not visible');
    expect(facts.get('checkpoints')).toBe('1 while it was measured, in 1 of 1 points');
    expect(facts.get('errors')).toBe('3 × 40001');
    expect(facts.get('stolen CPU')).toBe("at most 3.1% of the generator's machine");
    expect(facts.get('not readable')).toBe('pg_stat_wal');
    expect(facts.get('data')).toContain('size unknown');
  });

  it('are a part of all', () => {
    const all = allFacts(sampleSearch()).map(([name]) => name);
    for (const [name] of essentialFacts(sampleSearch())) expect(all).toContain(name);
  });
});

describe('oneForEachCount', () => {
  it('puts windows of one count together, and leaves void ones out where there are others', () => {
    const points = oneForEachCount(sampleSearch().points);
    expect(points.map(({ clients }) => clients)).toEqual([1, 2, 3, 4, 8, 16]);
    expect(points.find(({ clients }) => clients === 8)!.tps).toBeCloseTo(1408, 0);
    expect(points.find(({ clients }) => clients === 16)!.tps).toBe(1390);
    const onlyVoid = oneForEachCount([samplePoint({ voidReasons: ['steal'], tps: 7 })]);
    expect(onlyVoid.map(({ tps }) => tps)).toEqual([7]);
  });
});

describe('reportCsv', () => {
  it('has a line for each point, as many fields in each, and quotes what needs it', () => {
    const csv = reportCsv([{ label: 'a "b", c', result: sampleSearch() }]);
    const lines = csv.split('\r\n');
    expect(lines).toHaveLength(sampleSearch().points.length + 2);
    expect(lines[0]).toMatch(/^curve,purpose,clients,arrivals_per_second,tps,tps_plus_minus,void,/);
    expect(lines[1]).toMatch(/^"a ""b"", c",ramp,1,,500,22,,0\.29,/);
    const fields = lines[0]!.split(',').length;
    for (const line of lines.slice(1, -1))
      expect(line.replace('"a ""b"", c"', 'l').split(',')).toHaveLength(fields);
  });
});

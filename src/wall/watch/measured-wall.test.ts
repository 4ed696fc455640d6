import { describe, expect, it } from 'vitest';
import { samplePoint, sampleResult, sampleSearch } from '../../../test/support/sample-sweep.ts';
import type { SweepResult } from '../measure/sweep.ts';
import { reportJson } from '../report/report.ts';
import { wallOfReport } from './measured-wall.ts';

const read = (result: SweepResult): unknown => {
  const curves = [{ label: 'events, direct', result }];
  return wallOfReport(JSON.parse(reportJson({ title: 'The wall', verdict: '', curves })));
};

describe('the wall in a report', () => {
  it('is what the search has found', () => {
    expect(read(sampleSearch())).toEqual({ rate: 1402, isLowerBound: false });
  });

  it('is a lower bound where it was not reached, or nothing was searched for', () => {
    const wall: SweepResult['wall'] = {
      ...{ kind: 'not-reached', rate: { tps: 900 }, clients: 8, because: 'max-clients', afresh: true },
    };
    expect(read({ ...sampleSearch(), wall })).toEqual({ rate: 900, isLowerBound: true });
    const points = [samplePoint({ clients: 1, tps: 400 }), samplePoint({ tps: 700 })];
    expect(read(sampleResult(points))).toEqual({ rate: 700, isLowerBound: true });
  });

  it.each([
    ['every point was void', { ...sampleSearch(), wall: { kind: 'void', reasons: ['unsteady'] } }],
    ['was interrupted', { ...sampleSearch(), finished: false }],
    ['without --clients', sampleResult([])],
  ] as [string, SweepResult][])('is none: %s', (wrong, result) => {
    expect(read(result)).toEqual({ wrong: expect.stringContaining(wrong) });
  });

  it.each([[null], [{}], [{ wall: { tps: 5 } }], [[]]])('is none in %j', (document) => {
    expect(wallOfReport(document)).toEqual({ wrong: expect.stringContaining('no report') });
  });
});

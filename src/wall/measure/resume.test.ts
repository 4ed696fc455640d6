import { describe, expect, it } from 'vitest';
import { samplePoint, sampleSearch } from '../../../test/support/sample-sweep.ts';
import { countersWorkload, eventsWorkload } from '../workload/workload.ts';
import { EarlierPoints, workloadHash } from './resume.ts';

const settings = { target: 'u@h:5432/d', protocol: 'prepared' };

describe('EarlierPoints', () => {
  it('gives each point once, by clients, purpose and rate, in their order', () => {
    const earlier = new EarlierPoints(sampleSearch(), settings);
    expect(earlier.take({ clients: 8, purpose: 'confirm' })?.tps).toBe(1400);
    expect(earlier.take({ clients: 8, purpose: 'confirm' })?.tps).toBe(1404);
    expect(earlier.take({ clients: 8, purpose: 'confirm' })).toBeUndefined();
    expect(earlier.take({ clients: 8, purpose: 'ramp' })?.tps).toBe(1420);
    expect(earlier.take({ clients: 16, purpose: 'ramp' })?.voidReasons).toEqual([]);
    expect(earlier.take({ clients: 16, purpose: 'ramp' })?.voidReasons).toEqual(['unsteady']);
    expect(earlier.take({ clients: 1, purpose: 'ramp', rate: 5 })).toBeUndefined();
  });

  it('tells arrivals at one rate from those at another', () => {
    const openLoop = {
      ...{ rate: 700, offered: 1, completed: 1, failed: 0, late: 0, lateMs: 10, missed: 0 },
      ...{ latenessP99Ms: 0, timingP99Ms: 0 },
    };
    const points = [samplePoint({ purpose: 'slo', openLoop })];
    const earlier = new EarlierPoints({ ...sampleSearch(), points }, settings);
    expect(earlier.take({ clients: 8, purpose: 'slo', rate: 350 })).toBeUndefined();
    expect(earlier.take({ clients: 8, purpose: 'slo', rate: 700 })).toBeDefined();
  });

  it.each([
    [{ ...settings, target: 'u@other:5432/d' }, 'target was u@h:5432/d, is u@other:5432/d'],
    [{ ...settings, fsync: 'off' }, 'fsync was not recorded, is off'],
    [{ target: 'u@h:5432/d' }, 'protocol was prepared, is not set'],
  ])('refuses what was measured otherwise: %j', (other, message) => {
    expect(() => new EarlierPoints(sampleSearch(), other)).toThrow(message);
  });

  it('has nothing of nothing', () => {
    expect(new EarlierPoints(undefined, settings).take({ clients: 1, purpose: 'ramp' })).toBeUndefined();
  });
});

describe('workloadHash', () => {
  it('differs where a workload does', () => {
    const [few, many] = [countersWorkload({ rows: 10 }), countersWorkload({ rows: 11 })];
    expect(workloadHash(few)).not.toBe(workloadHash(many));
    expect(workloadHash(eventsWorkload())).toBe(workloadHash(eventsWorkload()));
  });
});

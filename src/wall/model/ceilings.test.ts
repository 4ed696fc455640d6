import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CEILING_NAMES, ceilingsOf, EXAMPLE, type ModelInputs, placeOf, shapesOf } from './ceilings.ts';

const INPUTS: fc.Arbitrary<ModelInputs> = fc.record({
  syncMs: fc.double({ min: 0.001, max: 50, noNaN: true }),
  commitsPerSync: fc.double({ min: 1, max: 500, noNaN: true }),
  walInsertUs: fc.double({ min: 0.01, max: 100, noNaN: true }),
  walRecordsPerTransaction: fc.double({ min: 1, max: 100, noNaN: true }),
  cores: fc.integer({ min: 1, max: 512 }),
  cpuMsPerTransaction: fc.double({ min: 0.001, max: 100, noNaN: true }),
  linkBitsPerSecond: fc.double({ min: 1e6, max: 4e11, noNaN: true }),
  walBytesPerTransaction: fc.double({ min: 10, max: 1e6, noNaN: true }),
  wireOverheadBytes: fc.double({ min: 0, max: 1000, noNaN: true }),
  replicas: fc.integer({ min: 0, max: 50 }),
});

describe('the model of four ceilings', () => {
  it('gives the figures of its example', () => {
    const { all, binding } = ceilingsOf(EXAMPLE);
    expect(all.map(({ name, perSecond }) => [name, Math.round(perSecond)])).toEqual([
      ['wal_fsync', 100_000],
      ['wal_write', 500_000],
      ['cpu', 100_000],
      ['network', 200_321],
    ]);
    expect(binding.perSecond).toBe(100_000);
  });

  it('is capped by the smallest, and lifting any other changes nothing', () => {
    fc.assert(
      fc.property(INPUTS, fc.double({ min: 1.01, max: 10, noNaN: true }), (inputs, factor) => {
        const { all, binding } = ceilingsOf(inputs);
        expect(binding.perSecond).toBe(Math.min(...all.map((each) => each.perSecond)));
        const lifted: Record<(typeof CEILING_NAMES)[number], ModelInputs> = {
          wal_fsync: { ...inputs, syncMs: inputs.syncMs / factor },
          wal_write: { ...inputs, walInsertUs: inputs.walInsertUs / factor },
          cpu: { ...inputs, cores: inputs.cores * factor },
          network: { ...inputs, linkBitsPerSecond: inputs.linkBitsPerSecond * factor },
        };
        for (const name of CEILING_NAMES) {
          const after = ceilingsOf(lifted[name]).binding.perSecond;
          if (name === binding.name) expect(after).toBeGreaterThanOrEqual(binding.perSecond);
          else expect(after).toBe(binding.perSecond);
        }
      }),
    );
  });

  it('gains nothing from a replica, ever', () => {
    fc.assert(
      fc.property(INPUTS, (inputs) => {
        const more = ceilingsOf({ ...inputs, replicas: inputs.replicas + 1 });
        expect(more.binding.perSecond).toBeLessThanOrEqual(ceilingsOf(inputs).binding.perSecond);
      }),
    );
  });

  it('lets the shape of the workload pick which one binds', () => {
    const bound = shapesOf(EXAMPLE).map(({ name, inputs }) => [name, ceilingsOf(inputs).binding.name]);
    expect(bound.slice(1)).toEqual([
      ['small inserts', 'wal_fsync'],
      ['joins and foreign keys', 'cpu'],
      ['many replicas, skinny records', 'network'],
    ]);
  });

  it('says where a rate stands, and how many primaries it needs', () => {
    const ceilings = ceilingsOf(EXAMPLE);
    const places = [3_000, 30_000, 80_000, 300_000].map((rate) => placeOf(rate, ceilings));
    expect(places.map(({ standing, primaries }) => [standing, primaries])).toEqual([
      ['far', 1],
      ['in sight', 1],
      ['at the wall', 2],
      ['beyond', 5],
    ]);
  });
});

/**
 * Thousands of small clusters that are crashed, frozen, cut off and failed over between any two effects of a commit, of recovery
 * and of cleaning (commit-simulation.ts); and five broken orders of the protocol, each of which the same simulation finds.
 *
 * A failure names its seed. `SEED=n npx vitest run --project servers test/txn/simulation.test.ts` runs that one alone and prints
 * all that happened in it; SIMULATION_SEEDS=n runs as many, from SIMULATION_FROM on.
 */
import { describe, expect, it } from 'vitest';
import type { ProtocolFaults } from '../../src/txn/commit-protocol.ts';
import { type SimulationOptions, simulate } from './commit-simulation.ts';

const { SEED, SIMULATION_SEEDS, SIMULATION_FROM } = process.env;
const FROM = Number(SEED ?? SIMULATION_FROM ?? 1);
const COUNT = SEED === undefined ? Number(SIMULATION_SEEDS ?? 800) : 1;
/** Within so many seeds a broken order has to be found. */
const SEEDS_MAX = 1_000;
/** Makes it likelier that something happens between two effects. */
const EAGER = 0.02;

/** What the simulation finds wrong with this seed; an assertion of the protocol is such a thing too. */
function violationsOf(seed: number, options: SimulationOptions = {}): readonly string[] {
  try {
    return simulate(seed, options).violations;
  } catch (error) {
    return [String(error)];
  }
}

describe('commit, recovery and cleaning', () => {
  it(`I1 to I20: hold in ${COUNT} simulated clusters from seed ${FROM} on`, () => {
    const told: Record<string, number> = {};
    for (let seed = FROM; seed < FROM + COUNT; seed++) {
      const run = simulate(seed, { traced: SEED !== undefined });
      if (SEED !== undefined) console.log(run.trace.join('\n'));
      expect(run.violations, `replay with SEED=${seed}`).toEqual([]);
      for (const [kind, count] of Object.entries(run.told)) told[kind] = (told[kind] ?? 0) + count;
    }
    if (COUNT < 500) return;
    // Each end of a commit is met, or the simulation would not be worth much.
    expect(Object.keys(told).sort()).toEqual(['committed', 'lost', 'nothing', 'rolledBack', 'unknown']);
    expect(told.committed).toBeGreaterThan(5 * COUNT);
  });

  it('is the same again with the same seed', () => {
    expect(simulate(7, { traced: true })).toEqual(simulate(7, { traced: true }));
  });

  it.each<[string, ProtocolFaults, RegExp]>([
    ['I1: the decision before the prepares', { decisionBeforePrepare: true }, /committed on/],
    ['I11: abort rows cleaned early', { cleanAbortRowsEarly: true }, /committed on/],
    ['I12: command tags not looked at', { ignoreTags: true }, /committed on|told OK/],
    // Without marks, only a loss that nobody notices counts, not that sweeping misses the marks.
    ['I7: no marks', { skipMark: true }, /told OK, and node/],
    ['I8: OK before phase two', { okBeforePhaseTwo: true }, /told OK, and node/],
  ])('is not as it should be with %s, and that is found', (_, faults, expected) => {
    let found: string | undefined;
    for (let seed = 1; seed <= SEEDS_MAX && found === undefined; seed++) {
      found = violationsOf(seed, { faults, chaos: EAGER }).find((violation) => expected.test(violation));
    }
    expect(found, `within ${SEEDS_MAX} seeds`).toBeDefined();
  });
});

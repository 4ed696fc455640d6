import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Figures } from './point.ts';
import { type Cell, runRounds } from './rounds.ts';

const figures: Figures = {
  ...{ tool: 'generator', workload: 'A', protocol: 'prepared', clients: 1, tps: 1, failedPerSecond: 0 },
  ...{ p50Ms: 1, p99Ms: 1, errors: {}, cpuUs: {}, steal: 0, others: 0, clientBound: false },
};

/** A cell whose contenders say in `log` that they were asked, and answer with what `answer` gives. */
function cell(name: string, log: string[], answer: () => Figures = () => figures): Cell {
  return {
    name,
    prepare: async () => void log.push('prepare'),
    contenders: ['a', 'b'].map((endpoint) => ({
      endpoint,
      measure: async () => {
        log.push(`${name}${endpoint}`);
        return answer();
      },
    })),
  };
}

describe('runRounds', () => {
  beforeEach(() => void vi.spyOn(console, 'log').mockImplementation(() => {}));
  afterEach(() => void vi.restoreAllMocks());

  it('turns the order round from round to round, and prepares each point', async () => {
    const log: string[] = [];
    const cells = [cell('1', log), cell('2', log)];
    const { points } = await runRounds({ cells, rounds: 2, deadlineMs: Number.POSITIVE_INFINITY });
    const order = log.filter((entry) => entry !== 'prepare');
    expect(order).toEqual(['1a', '1b', '2a', '2b', '1b', '1a', '2b', '2a']);
    expect(log.filter((entry) => entry === 'prepare')).toHaveLength(8);
    expect(points.map(({ round }) => round)).toEqual([0, 0, 0, 0, 1, 1, 1, 1]);
  });

  it('measures a point again from which much was stolen, and leaves it out the second time', async () => {
    const steals = [0.07, 0.05, 0.5, 0.5];
    const cells = [cell('1', [], () => ({ ...figures, steal: steals.shift()! }))];
    const { points, notes } = await runRounds({ cells, rounds: 1, deadlineMs: Number.POSITIVE_INFINITY });
    expect(points.map(({ endpoint, steal }) => [endpoint, steal])).toEqual([['a', 0.05]]);
    expect(notes).toEqual([expect.stringContaining('1, b, round 1: left out')]);
  });

  it('tells after each cell what there is, and measures as often as it is told', async () => {
    const seen: number[] = [];
    let asked = 0;
    const answer = (): Figures => ({ ...figures, steal: asked++ < 2 ? 0.5 : 0 });
    const { points, notes } = await runRounds({
      ...{ cells: [cell('1', [], answer), cell('2', [])], rounds: 1, deadlineMs: Number.POSITIVE_INFINITY },
      ...{ attemptsMax: 3, onCell: (result) => void seen.push(result.points.length) },
    });
    expect(seen).toEqual([2, 4]);
    expect(points).toHaveLength(4);
    expect(notes).toEqual([]);
  });

  it('goes on after a point that fails, and begins no round after the deadline', async () => {
    let asked = 0;
    const answer = (): Figures => {
      asked++;
      if (asked === 1) throw new Error('refused');
      return figures;
    };
    const { points, notes } = await runRounds({ cells: [cell('1', [], answer)], rounds: 3, deadlineMs: 0 });
    expect(points.map(({ endpoint }) => endpoint)).toEqual(['b']);
    expect(notes).toEqual(['1, a, round 1: failed: refused', '1 of 3 rounds: the time was up']);
  });
});

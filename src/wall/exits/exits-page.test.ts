import { describe, expect, it } from 'vitest';
import { EXIT_IDS, type ExitsReport } from './exit.ts';
import { exitLine, exitsHtml, exitsJson, exitsSummary } from './exits-page.ts';

const window = (tps: number) => ({ tps, p50Ms: 64_000 / tps, p99Ms: 200 });
const measured = (id: string, [value, low, high]: [number, number, number]) => ({
  ...{ id, place: 'scratch server' as const },
  pairs: { ratio: { value, low, high, pairs: 6 }, without: window(10_000), with: window(10_000 * value) },
});

const REPORT: ExitsReport = {
  ...{ target: 'app@db:5432/<app>', startedAt: '2026-01-01T00:00:00Z', clients: 64, windowSeconds: 2.5 },
  model: 'No caps.',
  outcomes: [
    measured('commit_delay', [1.01, 0.96, 1.06]),
    measured('fsync_off', [1.7, 1.6, 1.8]),
    measured('replicas_first', [0.8, 0.76, 0.84]),
    measured('reads_on_replicas', [2.9, 2.8, 3]),
    measured('all_combined', [3.9, 3.7, 4.1]),
    { id: 'more_cpu', skipped: 'only root can make control groups' },
  ],
};

describe('the table of exits', () => {
  it('tells a gain, a loss, that there is none, and what was not tried', () => {
    const lines = REPORT.outcomes.map(exitLine);
    expect(lines[0]).toContain('none measurable (0.96 to 1.06)');
    expect(lines[1]).toContain('1.70× (1.60 to 1.80)');
    expect(lines[2]).toContain('0.80× (0.76 to 0.84)');
    expect(lines[5]).toContain('skipped: only root');
  });

  it('concludes what the figures say, and nothing about what was not measured', () => {
    const summary = exitsSummary(REPORT);
    expect(summary).toContain('No arrangement of replicas gave more writes.');
    expect(summary).toMatch(/together: 3\.90×, less than the 5 times/);
    expect(summary).not.toContain('8 primaries');
  });

  it('says what each costs and risks, in text, JSON and HTML', () => {
    const { outcomes } = JSON.parse(exitsJson(REPORT));
    expect(outcomes.map((outcome: { finding?: string }) => outcome.finding)).toEqual([
      ...['no measurable gain', 'gain', 'loss', 'gain', 'gain', undefined],
    ]);
    const html = exitsHtml(REPORT);
    expect(html).toContain('app@db:5432/&lt;app&gt;');
    expect(html.match(/<tr>/g)).toHaveLength(1 + REPORT.outcomes.length);
    // The chart: a point to each that was measured, and no chart without any.
    expect(html.match(/<circle /g)).toHaveLength(REPORT.outcomes.length - 1);
    expect(exitsHtml({ ...REPORT, outcomes: REPORT.outcomes.slice(-1) })).not.toContain('<svg');
    for (const text of [html, exitsSummary(REPORT)]) expect(text).toContain('destroy the whole database');
  });

  it('has a description to each id', () => {
    expect(new Set(EXIT_IDS).size).toBe(EXIT_IDS.length);
    for (const id of EXIT_IDS) expect(exitLine({ id, skipped: 'x' })).toContain('skipped: x');
  });
});

import { Script } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { sampleExplanation } from '../../../test/support/sample-explanation.ts';
import { samplePoint, sampleResult, sampleSearch } from '../../../test/support/sample-sweep.ts';
import { explanationText } from './explanation-text.ts';
import { renderReport, reportJson } from './report.ts';

const hostile = `</script><script>alert("1 & '2'")</script>`;
const curves = [
  {
    label: 'direct',
    result: sampleResult([
      samplePoint({ clients: 1, tps: 500 }),
      samplePoint({ clients: 2, tps: 800, tpsPlusMinus: 100 }),
    ]),
  },
  {
    label: hostile,
    result: {
      ...sampleResult([
        samplePoint({ clients: 1, tps: 1000, errors: { '23505': 4 }, errorMessages: { '23505': hostile } }),
      ]),
      skipped: [{ clients: 4, reason: hostile }],
    },
  },
];
const input = { title: hostile, verdict: `It holds ${hostile}`, notes: [hostile], curves };

describe('renderReport', () => {
  const page = renderReport(input);
  const scripts = [...page.matchAll(/<script( type="application\/json" id="data")?>([\s\S]*?)<\/script>/g)];

  it('asks nothing of the network', () => {
    const outside = page.replace(/<script>[\s\S]*?<\/script>/g, '');
    expect(outside).not.toMatch(/(?:src|href)=|@import|url\(/);
    expect(page).not.toMatch(/fetch\(|XMLHttpRequest|importScripts/);
  });

  it('holds the data, uPlot and a script, all of which parse', () => {
    expect(scripts).toHaveLength(3);
    const data = JSON.parse(scripts[0]![2]!);
    expect(data).toEqual({
      clients: [1, 2, 4],
      curves: [
        {
          label: 'direct',
          tps: [500, 800, null],
          low: [null, 700, null],
          high: [null, 900, null],
          p50Ms: [0.29, 0.29, null],
          p99Ms: [0.91, 0.91, null],
        },
        {
          label: hostile,
          ...{ tps: [1000, null, null], low: [null, null, null], high: [null, null, null] },
          ...{ p50Ms: [0.29, null, null], p99Ms: [0.91, null, null] },
        },
      ],
    });
    for (const script of scripts.slice(1)) expect(() => new Script(script[2]!)).not.toThrow();
  });

  it('lets no text from outside become markup', () => {
    expect(page).not.toContain('<script>alert');
    expect(page).toContain('&lt;/script&gt;&lt;script&gt;alert(&quot;1 &amp; &#39;2&#39;&quot;)');
  });

  it('has every point, the ratio, and what diminishes a figure', () => {
    const row = /<tr><th>1<\/th>.*?<\/tr>/s.exec(page)![0];
    expect(row.replace(/<[^>]+>/g, ' ').replace(/\s+/g, ' ')).toContain(
      '1 500 0.29 ms 0.91 ms 1,000 0.29 ms 0.91 ms 2.00',
    );
    expect(row).toContain('<em>4 failed</em> with 23505');
    expect(page).toContain('skipped: ');
  });
});

describe('reportJson', () => {
  it('gives back what went in', () => {
    const parsed = JSON.parse(reportJson(input));
    expect(parsed).toMatchObject({
      format: 'postern-wall',
      formatVersion: 2,
      title: hostile,
      verdict: input.verdict,
    });
    expect(parsed.curves).toEqual(curves.map(({ label, result }) => ({ label, ...result })));
  });
});

describe('the report of a search', () => {
  const text = (page: string): string => page.replace(/<[^>]+>/g, ' ').replace(/\s+/g, ' ');
  const page = renderReport({
    title: 'The wall',
    verdict: 'It is there.',
    curves: [{ label: 'events', result: sampleSearch(), explanation: sampleExplanation() }],
  });

  it('shows the wall with its interval, every window, the void one as such, and the fit as a diagnosis', () => {
    expect(text(page)).toContain('1,402 ± 15 a second at 8 clients');
    expect(page.match(/<td>confirm<\/td>/g)).toHaveLength(2);
    expect(page).toContain('<em>void</em>: unsteady');
    expect(text(page)).toContain('a peak at 22 clients');
    expect(text(page)).toContain('nothing here foretells one');
    expect(text(page)).toContain('durability fsync=on');
  });

  it('shows what binds the server, escaped', () => {
    expect(text(page)).toContain('LWLock:WALWrite 41.0%');
    expect(text(page)).toContain('WAL fsync at least 12,000');
    expect(page).not.toContain('<b>hostile</b>');
    const printed = explanationText(sampleExplanation());
    expect(printed).toContain('synchronous_commit off: 1.60 times (1.50 to 1.70)');
    expect(printed).toContain('ceiling WAL fsync                  at least 12,000  ← lowest');
  });

  it('shows an open loop by its rates', () => {
    const openLoop = {
      ...{ rate: 900, offered: 1000, completed: 950, failed: 0, late: 20, lateMs: 10, missed: 50 },
      ...{ latenessP99Ms: 12, timingP99Ms: 0.1 },
    };
    const result = sampleResult([samplePoint({ purpose: 'slo', openLoop, keepsSlo: false })]);
    const shown = text(renderReport({ title: 't', verdict: 'v', curves: [{ label: 'l', result }] }));
    expect(shown).toContain('900 1,000 0.29 ms 0.60 ms 0.91 ms 3.00 ms 2.0% 5.0% 12.00 ms broken');
  });
});

import { Script } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { samplePoint, sampleResult } from '../../../test/support/sample-sweep.ts';
import { renderReport, reportJson } from './report.ts';

const hostile = `</script><script>alert("1 & '2'")</script>`;
const curves = [
  {
    label: 'direct',
    result: sampleResult([samplePoint({ clients: 1, tps: 500 }), samplePoint({ clients: 2, tps: 800 })]),
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
        { label: 'direct', tps: [500, 800, null], p50Ms: [0.29, 0.29, null], p99Ms: [0.91, 0.91, null] },
        { label: hostile, tps: [1000, null, null], p50Ms: [0.29, null, null], p99Ms: [0.91, null, null] },
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
      formatVersion: 1,
      title: hostile,
      verdict: input.verdict,
    });
    expect(parsed.curves).toEqual(curves.map(({ label, result }) => ({ label, ...result })));
  });
});

import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { samplePoint, sampleResult, sampleSearch } from '../../../test/support/sample-sweep.ts';
import { reportJson } from './report.ts';
import { reportJsonSchema, reportSchema } from './report-schema.ts';

const FILE = new URL('../../../docs/reference/wall-report.schema.json', import.meta.url);

describe('the report’s schema', () => {
  it('stands in the documentation as it is here (UPDATE_SCHEMA=1 writes it)', () => {
    const schema = JSON.parse(JSON.stringify(reportJsonSchema()));
    if (process.env.UPDATE_SCHEMA !== undefined) writeFileSync(FILE, `${JSON.stringify(schema, null, 2)}\n`);
    expect(JSON.parse(readFileSync(FILE, 'utf8'))).toEqual(schema);
  });

  it.each([
    ['a list of counts', sampleResult([samplePoint()])],
    ['a search', sampleSearch()],
    ['nothing yet', { ...sampleResult([]), finished: false }],
  ])('holds for %s, and reading gives back what was written', (_, result) => {
    const curves = [{ label: 'direct', result }];
    const parsed = reportSchema.parse(JSON.parse(reportJson({ title: 't', verdict: 'v', curves })));
    expect(parsed.curves[0]).toEqual({ label: 'direct', ...result });
  });

  it('refuses another version, and a point without its rate', () => {
    const document = JSON.parse(
      reportJson({ title: 't', verdict: 'v', curves: [{ label: 'l', result: sampleSearch() }] }),
    );
    expect(reportSchema.safeParse({ ...document, formatVersion: 1 }).success).toBe(false);
    delete document.curves[0].points[0].tps;
    expect(reportSchema.safeParse(document).success).toBe(false);
  });
});

import { describe, expect, it } from 'vitest';
import { EXAMPLE } from './ceilings.ts';
import { modelHtml, modelJson, modelText } from './model-page.ts';

const RATES = [3_000, 30_000, 300_000];

describe('the page of the model', () => {
  it('says in text which one binds, and where each rate stands', () => {
    const lines = modelText({ inputs: { ...EXAMPLE, cores: 16 }, rates: RATES }).split('\n');
    expect(lines.filter((line) => line.includes('← binds'))).toEqual([
      expect.stringMatching(/^CPU .*25,000\/s/),
    ]);
    expect(lines.filter((line) => line.includes('primaries would hold it'))).toHaveLength(2);
  });

  it('has no network ceiling without replicas, in any of its forms', () => {
    const page = { inputs: { ...EXAMPLE, replicas: 0 }, rates: RATES };
    expect(modelText(page)).toMatch(/network to replicas .* unlimited {2}no replica/);
    const network = JSON.parse(modelJson(page)).ceilings.find(
      (each: { name: string }) => each.name === 'network',
    );
    expect(network.perSecond).toBeNull();
    expect(modelHtml(page)).toContain('>unlimited</text>');
    expect(modelHtml(page)).not.toMatch(/NaN|Infinity|undefined/);
  });

  it('draws a bar to each ceiling, as long as it is high', () => {
    const widths = [
      ...modelHtml({ inputs: EXAMPLE, rates: RATES }).matchAll(/<rect [^>]*width="([\d.]+)"/g),
    ].map((match) => Number(match[1]));
    expect(widths).toHaveLength(4);
    expect(widths[1]! / widths[0]!).toBeCloseTo(5, 1);
  });
});

import { describe, expect, it } from 'vitest';
import { FrameReader } from '../../wire/frame-reader.ts';
import { readBind, readExecute, readParse, readQueryText } from '../../wire/frontend.ts';
import { Frontend } from '../../wire/message-types.ts';
import { countersWorkload, eventsWorkload, type Workload } from '../workload/workload.ts';
import { seededRandom } from './seeded-random.ts';
import { compileTransaction, copyTemplate, drawValues, type Protocol } from './transaction-template.ts';

/** What the bytes say, read with the codec's own readers. */
function messages(bytes: Buffer): object[] {
  const reader = new FrameReader({ frameBytesMax: 10_000 });
  reader.push(bytes);
  const said: object[] = [];
  while (reader.next()) {
    if (reader.type === Frontend.Query) said.push({ query: readQueryText(reader) });
    else if (reader.type === Frontend.Parse) said.push({ parse: readParse(reader) });
    else if (reader.type === Frontend.Execute) said.push({ execute: readExecute(reader) });
    else if (reader.type === Frontend.Bind) {
      const view = readBind(reader);
      const values = Array.from({ length: view.parameterCount }, (_, index) => {
        const start = view.parameterStart(index);
        expect(view.parameterFormat(index)).toBe(1);
        const isInt4 = view.parameterLength(index) === 4;
        return isInt4 ? reader.buffer.readInt32BE(start) : Number(reader.buffer.readBigInt64BE(start));
      });
      said.push({ bind: view.statement, values });
    } else said.push({ type: String.fromCharCode(reader.type) });
  }
  expect(reader.bufferedBytes).toBe(0);
  return said;
}

const pair: Workload = {
  name: 'pair',
  setup: [],
  variables: [
    { name: 'id', type: 'int8', min: 2 ** 40 - 3, max: 2 ** 40 + 3 },
    { name: 'delta', type: 'int4', min: -5, max: 5 },
  ],
  statements: [
    { text: 'BEGIN', parameters: [] },
    { text: 'UPDATE {schema}t SET n = n -$2 WHERE id = $1 AND $1 > 0', parameters: ['id', 'delta'] },
  ],
};

function compile(workload: Workload, protocol: Protocol) {
  return copyTemplate(compileTransaction({ workload, protocol, schema: 's.' }));
}

describe('compileTransaction', () => {
  it('sends a simple query as it is written', () => {
    const template = compile(eventsWorkload(), 'simple');
    expect(template.preparation).toHaveLength(0);
    expect(template.steps.map(messages)).toEqual([
      [{ query: "INSERT INTO s.events (payload) VALUES ('x')" }],
    ]);
  });

  it('parses once when prepared, and each time when not', () => {
    const prepared = compile(countersWorkload({ rows: 9 }), 'prepared');
    const text = 'UPDATE s.counters SET n = n + 1 WHERE id = $1';
    expect(messages(prepared.preparation)).toEqual([
      { parse: { name: 'postern_wall_0', text, parameterOids: [20] } },
      { type: 'S' },
    ]);
    const bound = (statement: string) => [
      { bind: statement, values: [0] },
      { execute: { portal: '', maxRows: 0 } },
      { type: 'S' },
    ];
    expect(prepared.steps.map(messages)).toEqual([bound('postern_wall_0')]);
    const extended = compile(countersWorkload({ rows: 9 }), 'extended');
    expect(extended.preparation).toHaveLength(0);
    expect(extended.steps.map(messages)).toEqual([
      [{ parse: { name: '', text, parameterOids: [20] } }, ...bound('')],
    ]);
  });
});

describe('drawValues', () => {
  it.each<Protocol>(['simple', 'extended', 'prepared'])(
    'writes the same values wherever they stand (%s)',
    (protocol) => {
      const template = compile(pair, protocol);
      const random = seededRandom(7);
      const values = new Float64Array(2);
      const seen = [new Set<number>(), new Set<number>()] as const;
      for (let round = 0; round < 500; round++) {
        drawValues(template, random, values);
        const [id, delta] = [values[0]!, values[1]!];
        seen[0].add(id);
        seen[1].add(delta);
        const sent = JSON.stringify(messages(template.steps[1]!));
        if (protocol === 'simple') {
          expect(sent.replace(/ +/g, ' ')).toContain(`n - ${delta} WHERE id = ${id} AND ${id} > 0`);
        } else {
          expect(sent).toContain(`"values":[${id},${delta}]`);
        }
      }
      expect([...seen[0]].sort()).toEqual([-3, -2, -1, 0, 1, 2, 3].map((offset) => 2 ** 40 + offset));
      expect([...seen[1]].sort((a, b) => a - b)).toEqual([-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5]);
    },
  );

  it('gives each client bytes of its own', () => {
    const template = compileTransaction({ workload: pair, protocol: 'prepared', schema: '' });
    const [one, other] = [copyTemplate(template), copyTemplate(template)];
    const before = Buffer.from(other.steps[1]!);
    drawValues(one, () => 0.99, new Float64Array(2));
    expect(other.steps[1]).toEqual(before);
    expect(one.steps[1]).not.toEqual(before);
  });

  it('draws evenly, the same sequence from the same seed and others from others', () => {
    const counts = new Uint32Array(10);
    const random = seededRandom(1);
    for (let round = 0; round < 100_000; round++) counts[Math.floor(random() * 10)]!++;
    // Chi-squared of 9 degrees of freedom: 27.9 is passed once in a thousand seeds, and this one is fixed.
    const chiSquared = counts.reduce((sum, count) => sum + (count - 10_000) ** 2 / 10_000, 0);
    expect(chiSquared).toBeLessThan(27.9);
    const first = (seed: number) => Array.from({ length: 3 }, seededRandom(seed));
    expect(first(1)).toEqual(first(1));
    expect(first(1)).not.toEqual(first(2));
  });
});

import { describe, expect, it } from 'vitest';
import { PosternError } from '../../base/errors.ts';
import { FrameReader } from '../../wire/frame-reader.ts';
import { readBind, readExecute, readParse, readQueryText } from '../../wire/frontend.ts';
import { Frontend } from '../../wire/message-types.ts';
import { Double, type Value } from '../workload/script-value.ts';
import { countersWorkload, eventsWorkload, type Workload, workloadFromScript } from '../workload/workload.ts';
import { MessageBuffer } from './message-template.ts';
import { compileWorkload, type Instruction, type Protocol } from './transaction-template.ts';

/** What the bytes say, read with the codec's own readers. */
function messages(bytes: Buffer): object[] {
  const reader = new FrameReader({ frameBytesMax: 100_000 });
  reader.push(bytes);
  const said: object[] = [];
  while (reader.next()) {
    if (reader.type === Frontend.Query) said.push({ query: readQueryText(reader) });
    else if (reader.type === Frontend.Parse) said.push({ parse: readParse(reader) });
    else if (reader.type === Frontend.Execute) said.push({ execute: readExecute(reader) });
    else if (reader.type === Frontend.Bind) {
      const view = readBind(reader);
      const values = Array.from({ length: view.parameterCount }, (_, index) => {
        expect(view.parameterFormat(index)).toBe(0);
        const start = view.parameterStart(index);
        const length = view.parameterLength(index);
        return length < 0 ? null : reader.buffer.toString('utf8', start, start + length);
      });
      said.push({ bind: view.statement, values });
    } else said.push({ type: String.fromCharCode(reader.type) });
  }
  expect(reader.bufferedBytes).toBe(0);
  return said;
}

function script(text: string): Workload {
  return workloadFromScript(text, { name: 'test.sql' });
}

function compile(workload: Workload, protocol: Protocol) {
  return compileWorkload({ workload, protocol, schema: 's.' });
}

/** What is sent, one entry to each write, with the values that the variables have then. */
function sent(instructions: readonly Instruction[], values: readonly Value[]): object[][] {
  const output = new MessageBuffer();
  const writes: object[][] = [];
  for (const instruction of instructions) {
    if (instruction.kind !== 'send') continue;
    output.append(instruction.message, values);
    if (instruction.writes) writes.push(messages(output.take()));
  }
  return writes;
}

const execute = { execute: { portal: '', maxRows: 0 } };
const sync = { type: 'S' };

describe('compileWorkload', () => {
  it('sends a statement without variables as bytes that are never copied', () => {
    const template = compile(eventsWorkload(), 'simple');
    expect(template.preparation).toHaveLength(0);
    const [instruction] = template.transactions[0]!.instructions;
    if (instruction?.kind !== 'send') throw new Error('not a statement');
    const output = new MessageBuffer();
    output.append(instruction.message, []);
    expect(output.take()).toBe(instruction.message.chunks[0]);
    expect(sent([instruction], [])).toEqual([[{ query: "INSERT INTO s.events (payload) VALUES ('x')" }]]);
  });

  it('parses once when prepared, and each time when not', () => {
    const text = 'UPDATE s.counters SET n = n + 1 WHERE id = $1';
    const prepared = compile(countersWorkload({ rows: 9 }), 'prepared');
    expect(messages(prepared.preparation)).toEqual([
      { parse: { name: 'postern_wall_0', text, parameterOids: [] } },
      sync,
    ]);
    const values: Value[] = [];
    values[prepared.slots.get('id')!] = 7;
    const bound = (statement: string) => [{ bind: statement, values: ['7'] }, execute, sync];
    expect(sent(prepared.transactions[0]!.instructions, values)).toEqual([bound('postern_wall_0')]);
    const extended = compile(countersWorkload({ rows: 9 }), 'extended');
    expect(extended.preparation).toHaveLength(0);
    expect(sent(extended.transactions[0]!.instructions, values)).toEqual([
      [{ parse: { name: '', text, parameterOids: [] } }, ...bound('')],
    ]);
  });

  it('writes values of any length and kind', () => {
    const workload = script("\\set a 1\n\\set b 2\nSELECT :a, 'a' || :b, :a::text, :unknown;\n");
    const ends: [Value, string | null][] = [
      [0, '0'],
      [-7, '-7'],
      [10, '10'],
      [99, '99'],
      [2 ** 31, '2147483648'],
      [Number.MAX_SAFE_INTEGER, '9007199254740991'],
      [-(2n ** 63n), '-9223372036854775808'],
      [new Double(0.1), '0.1'],
      [new Double(1e20), '1e+20'],
      [new Double(-0.00001), '-1e-05'],
      [true, 'true'],
      ['ü'.repeat(3000), 'ü'.repeat(3000)],
      [null, null],
    ];
    for (const [one, oneText] of ends) {
      for (const [other, otherText] of ends) {
        for (const protocol of ['simple', 'extended'] as const) {
          const template = compile(workload, protocol);
          const values: Value[] = [];
          values[template.slots.get('a')!] = one;
          values[template.slots.get('b')!] = other;
          const [[first, second]] = sent(template.transactions[0]!.instructions, values) as [object[]];
          if (protocol === 'simple') {
            const [a, b] = [oneText ?? 'NULL', otherText ?? 'NULL'];
            expect(first).toEqual({ query: `SELECT ${a}, 'a' || ${b}, ${a}::text, :unknown` });
          } else {
            expect(second).toEqual({ bind: '', values: [oneText, otherText, oneText] });
          }
        }
      }
    }
  });

  it('makes a parameter of a text that is nothing but a variable', () => {
    const workload = script("\\set a 1\nSELECT ':a', ':b', '''', 'it''s' || ':a' WHERE ':a' = '1';\n");
    const values: Value[] = [];
    const simple = compile(workload, 'simple');
    values[simple.slots.get('a')!] = 'q';
    expect(sent(simple.transactions[0]!.instructions, values)).toEqual([
      [{ query: "SELECT 'q', ':b', '''', 'it''s' || 'q' WHERE 'q' = '1'" }],
    ]);
    const [parse] = messages(compile(workload, 'prepared').preparation);
    const text = "SELECT $1, ':b', '''', 'it''s' || $2 WHERE $3 = '1'";
    expect(parse).toEqual({ parse: { name: 'postern_wall_0', text, parameterOids: [] } });
  });

  it('puts a pipeline into one write, and a Sync where it says', () => {
    const text =
      '\\startpipeline\nSELECT 1;\nSELECT 2;\n\\syncpipeline\nSELECT 1;\n\\endpipeline\nSELECT 3;\n';
    const template = compile(script(text), 'prepared');
    expect(messages(template.preparation)).toHaveLength(4);
    const { instructions } = template.transactions[0]!;
    const syncs = instructions.map((instruction) =>
      instruction.kind === 'send' ? instruction.syncs : undefined,
    );
    expect(syncs).toEqual([0, 0, 1, 0, 1, 1]);
    const one = (name: string) => [{ bind: name, values: [] }, execute];
    expect(sent(template.transactions[0]!.instructions, [])).toEqual([
      [...one('postern_wall_0'), ...one('postern_wall_1'), sync, ...one('postern_wall_0'), sync],
      [...one('postern_wall_2'), sync],
    ]);
  });

  it('asks for the columns of a result that is wanted', () => {
    const template = compile(script('SELECT 1 AS one \\gset\nSELECT :one;\n'), 'extended');
    const values: Value[] = [];
    values[template.slots.get('one')!] = 5;
    const [first, second] = sent(template.transactions[0]!.instructions, values);
    expect(first).toContainEqual({ type: 'D' });
    expect(second).toContainEqual({ bind: '', values: ['5'] });
  });

  it('shares the draws of a mix by weight', () => {
    const mix = {
      ...eventsWorkload(),
      transactions: [3, 1, 4].map((weight) => ({ ...eventsWorkload().transactions[0]!, weight })),
    };
    expect(compile(mix, 'simple').shares).toEqual([3 / 8, 4 / 8, 1]);
  });

  it.each<[Protocol, string, RegExp]>([
    [
      'simple',
      '\\startpipeline\nSELECT 1;\n\\endpipeline\n',
      /^test\.sql:1: a pipeline is not possible in the simple/,
    ],
    ['extended', "\\set a 1\nSELECT 'x:a';\n", /^test\.sql:2: :a stands within quotes/],
    ['prepared', 'SELECT 1\\; SELECT 2;\n', /^test\.sql:1: several statements in one/],
    ['simple', '\\set a :b + 1\nSELECT :a;\n', /^test\.sql:1: undefined variable "b"/],
  ])('refuses by the line what the %s protocol can’t do', (protocol, text, message) => {
    expect(() => compile(script(text), protocol)).toThrow(PosternError);
    expect(() => compile(script(text), protocol)).toThrow(message);
  });
});

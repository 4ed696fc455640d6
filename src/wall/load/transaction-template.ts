/**
 * A workload's transaction as bytes, encoded once: one message group to each statement, each ending in what makes the
 * server answer ReadyForQuery. The values of variables have a fixed place and width in the bytes, and drawing new ones
 * overwrites them there, so the hot loop of the generator encodes nothing.
 *
 * Values go as binary parameters in the extended protocol, and as digits padded with blanks in a simple query's text.
 * A template belongs to one client: its bytes may only be patched when the answer to what was sent before is complete.
 */
import { assert } from '../../base/assert.ts';
import { FrameWriter } from '../../wire/frame-writer.ts';
import { encodeExecute, encodeParse, encodeSync } from '../../wire/frontend.ts';
import { Frontend } from '../../wire/message-types.ts';
import { type Variable, type Workload, withSchema } from '../workload/workload.ts';

/** How statements are sent: as text, parsed each time, or parsed once a connection. */
export type Protocol = 'simple' | 'extended' | 'prepared';

interface Patch {
  readonly step: number;
  readonly offset: number;
  readonly widthBytes: number;
  readonly variable: number;
  readonly encoding: 'int4' | 'int8' | 'digits';
}

export interface TransactionTemplate {
  /** Sent once on each connection, answered by one ReadyForQuery; empty if nothing is prepared. */
  readonly preparation: Buffer;
  /** One write and one ReadyForQuery each. */
  readonly steps: readonly Buffer[];
  readonly variables: readonly Variable[];
  readonly patches: readonly Patch[];
}

const INT4_OID = 23;
const INT8_OID = 20;
const BINARY = 1;

/** A double in [0, 1). */
type RandomSource = () => number;

export function compileTransaction(options: {
  workload: Workload;
  protocol: Protocol;
  /** Empty, or ends in a dot. */
  schema: string;
}): TransactionTemplate {
  const { workload, protocol, schema } = options;
  const patches: Patch[] = [];
  const preparation = new FrameWriter();
  const steps = workload.statements.map((statement, step) => {
    const text = withSchema(statement.text, schema);
    const drawn = statement.parameters.map((name) => variableIndex(workload, name));
    if (protocol === 'simple') return encodeSimple({ workload, text, drawn, step, patches });
    const name = protocol === 'prepared' ? `postern_wall_${step}` : '';
    const writer = new FrameWriter();
    const oids = drawn.map((index) => (workload.variables[index]!.type === 'int4' ? INT4_OID : INT8_OID));
    encodeParse(protocol === 'prepared' ? preparation : writer, name, text, oids);
    encodeBind(writer, { workload, name, drawn, step, patches });
    encodeExecute(writer, '', 0);
    encodeSync(writer);
    return Buffer.from(writer.take());
  });
  if (protocol === 'prepared') encodeSync(preparation);
  return { preparation: Buffer.from(preparation.take()), steps, variables: workload.variables, patches };
}

/** The same transaction with bytes of its own, for another client. */
export function copyTemplate(template: TransactionTemplate): TransactionTemplate {
  if (template.patches.length === 0) return template;
  return { ...template, steps: template.steps.map((step) => Buffer.from(step)) };
}

/** Draws each variable once and writes it wherever the transaction uses it. `values` is scratch, as long as `variables`. */
export function drawValues(template: TransactionTemplate, random: RandomSource, values: Float64Array): void {
  const { variables, patches, steps } = template;
  for (let index = 0; index < variables.length; index++) {
    const { min, max } = variables[index]!;
    values[index] = min + Math.floor(random() * (max - min + 1));
  }
  for (let index = 0; index < patches.length; index++) {
    const patch = patches[index]!;
    writeValue(steps[patch.step]!, patch, values[patch.variable]!);
  }
}

function writeValue(bytes: Buffer, patch: Patch, value: number): void {
  switch (patch.encoding) {
    case 'int4':
      bytes.writeInt32BE(value, patch.offset);
      return;
    case 'int8':
      // Two halves, since a BigInt for each value would be an allocation.
      bytes.writeInt32BE(Math.floor(value / 2 ** 32), patch.offset);
      bytes.writeUInt32BE(value - Math.floor(value / 2 ** 32) * 2 ** 32, patch.offset + 4);
      return;
    case 'digits':
      bytes.write(String(value).padStart(patch.widthBytes), patch.offset, 'latin1');
  }
}

function encodeSimple(options: {
  workload: Workload;
  text: string;
  drawn: readonly number[];
  step: number;
  patches: Patch[];
}): Buffer {
  const { workload, text, drawn, step, patches } = options;
  const writer = new FrameWriter();
  writer.begin(Frontend.Query);
  let textEnd = 0;
  for (const reference of text.matchAll(/\$(\d+)/g)) {
    const variable = drawn[Number(reference[1]) - 1];
    assert(variable !== undefined, `a workload's text names ${reference[0]} without a parameter for it`);
    writer.string(text.slice(textEnd, reference.index));
    textEnd = reference.index + reference[0].length;
    const { min, max } = workload.variables[variable]!;
    // One blank more than the digits need: `n -$1` with -5 must not become the comment `--5`.
    const widthBytes = Math.max(String(min).length, String(max).length) + 1;
    patches.push({ step, offset: writer.length, widthBytes, variable, encoding: 'digits' });
    writer.string(' '.repeat(widthBytes));
  }
  writer.cstring(text.slice(textEnd));
  writer.end();
  return Buffer.from(writer.take());
}

function encodeBind(
  writer: FrameWriter,
  options: { workload: Workload; name: string; drawn: readonly number[]; step: number; patches: Patch[] },
): void {
  writer.begin(Frontend.Bind);
  writer.cstring('');
  writer.cstring(options.name);
  writer.int16(1);
  writer.int16(BINARY);
  writer.int16(options.drawn.length);
  for (const variable of options.drawn) {
    const encoding = options.workload.variables[variable]!.type;
    const widthBytes = encoding === 'int4' ? 4 : 8;
    writer.int32(widthBytes);
    options.patches.push({ step: options.step, offset: writer.length, widthBytes, variable, encoding });
    for (let written = 0; written < widthBytes; written += 4) writer.int32(0);
  }
  writer.int16(0);
  writer.end();
}

function variableIndex(workload: Workload, name: string): number {
  const index = workload.variables.findIndex((variable) => variable.name === name);
  assert(index >= 0, `workload ${workload.name} has no variable ${name}`);
  return index;
}

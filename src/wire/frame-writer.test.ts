import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FrameWriter } from './frame-writer.ts';

type Step =
  | { kind: 'frame'; type: number; fields: Field[] }
  | { kind: 'raw'; bytes: Uint8Array }
  | { kind: 'clear' }
  | { kind: 'take' };
type Field =
  | { kind: 'cstring' | 'string' | 'countedString'; text: string }
  | { kind: 'int16' | 'int32'; value: number };

const textArbitrary = fc
  .oneof(fc.string({ unit: 'binary', maxLength: 700 }), fc.string({ unit: 'binary-ascii', maxLength: 30 }))
  .map((text) => text.replaceAll('\0', ''));
const fieldArbitrary: fc.Arbitrary<Field> = fc.oneof(
  fc.record({ kind: fc.constantFrom('cstring', 'string', 'countedString'), text: textArbitrary }),
  fc.record({ kind: fc.constant('int16' as const), value: fc.integer({ min: -0x8000, max: 0xffff }) }),
  fc.record({
    kind: fc.constant('int32' as const),
    value: fc.integer({ min: -0x8000_0000, max: 0xffff_ffff }),
  }),
);
const stepArbitrary: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('frame' as const),
      type: fc.integer({ min: 1, max: 255 }),
      fields: fc.array(fieldArbitrary, { maxLength: 8 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('raw' as const), bytes: fc.uint8Array({ maxLength: 3000 }) }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'clear' as const }) },
  { weight: 3, arbitrary: fc.constant({ kind: 'take' as const }) },
);

/** The dumb way: each field a buffer, all put together. */
function fieldBytes(field: Field): Buffer {
  switch (field.kind) {
    case 'string':
      return Buffer.from(field.text);
    case 'cstring':
      return Buffer.from(`${field.text}\0`);
    case 'countedString':
      return Buffer.concat([intBytes(4, Buffer.byteLength(field.text)), Buffer.from(field.text)]);
    case 'int16':
      return intBytes(2, field.value);
    case 'int32':
      return intBytes(4, field.value);
  }
}

function intBytes(width: 2 | 4, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value | 0);
  return bytes.subarray(4 - width);
}

function writeField(writer: FrameWriter, field: Field): void {
  if ('text' in field) writer[field.kind](field.text);
  else writer[field.kind](field.value);
}

describe('FrameWriter', () => {
  test('writes what the dumb way writes, and never again what was taken', () => {
    fc.assert(
      fc.property(
        fc.array(stepArbitrary, { maxLength: 60 }),
        fc.constantFrom(1, 16, 1024, 65536),
        (steps, bytes) => {
          const writer = new FrameWriter(bytes);
          const taken: { view: Buffer; expected: Buffer }[] = [];
          let expected = Buffer.alloc(0);
          for (const step of steps) {
            if (step.kind === 'frame') {
              writer.begin(step.type);
              for (const field of step.fields) writeField(writer, field);
              writer.end();
              const body = Buffer.concat(step.fields.map(fieldBytes));
              expected = Buffer.concat([
                expected,
                Buffer.from([step.type]),
                intBytes(4, body.length + 4),
                body,
              ]);
            } else if (step.kind === 'raw') {
              writer.raw(
                Buffer.concat([Buffer.from('xx'), step.bytes, Buffer.from('y')]),
                2,
                2 + step.bytes.length,
              );
              expected = Buffer.concat([expected, step.bytes]);
            } else if (step.kind === 'clear') {
              writer.clear();
              expected = Buffer.alloc(0);
            } else {
              taken.push({ view: writer.take(), expected });
              expected = Buffer.alloc(0);
            }
            expect(writer.length).toBe(expected.length);
          }
          taken.push({ view: writer.take(), expected });
          for (const { view, expected: bytesThen } of taken) expect(view.equals(bytesThen)).toBe(true);
        },
      ),
    );
  });

  test('clear forgets an open frame', () => {
    const writer = new FrameWriter();
    writer.begin(0x51);
    writer.cstring('select');
    writer.clear();
    writer.begin(0x53);
    writer.end();
    expect(writer.take().toString('hex')).toBe('5300000004');
  });

  test('memory of a huge message is let go, and small messages share a chunk', () => {
    const writer = new FrameWriter();
    const message = Buffer.alloc(1 << 20);
    writer.raw(message, 0, message.length);
    expect(writer.take().buffer.byteLength).toBeGreaterThanOrEqual(message.length);
    writer.uint8(1);
    const first = writer.take();
    expect(first.buffer.byteLength).toBeLessThanOrEqual(16 * 1024);
    writer.uint8(2);
    expect(writer.take().buffer).toBe(first.buffer);
  });

  test.each<[string, (writer: FrameWriter) => void]>([
    [
      'a frame in a frame',
      (writer) => {
        writer.begin(1);
        writer.begin(2);
      },
    ],
    ['an end without a beginning', (writer) => writer.end()],
    [
      'a take in a frame',
      (writer) => {
        writer.begin(1);
        writer.take();
      },
    ],
    [
      'raw bytes in a frame',
      (writer) => {
        writer.begin(1);
        writer.raw(Buffer.alloc(1), 0, 1);
      },
    ],
    ['a zero byte in a string', (writer) => writer.cstring('a\0b')],
    ['a count that does not fit', (writer) => writer.int16(65536)],
    ['an OID that does not fit', (writer) => writer.int32(2 ** 32)],
    ['a slice outside its buffer', (writer) => writer.bytes(Buffer.alloc(3), 1, 4)],
  ])('%s is a bug', (_what, write) => {
    expect(() => write(new FrameWriter())).toThrow(/a bug in Postern/);
  });
});

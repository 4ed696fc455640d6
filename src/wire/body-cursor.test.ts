import { describe, expect, test } from 'vitest';
import { BodyCursor } from './body-cursor.ts';

function over(text: string, behind = 'behind\0'): BodyCursor {
  const buffer = Buffer.from(`before${text}${behind}`, 'latin1');
  const cursor = new BodyCursor();
  cursor.open({ buffer, bodyStart: 6, end: 6 + text.length });
  return cursor;
}

describe('BodyCursor', () => {
  test('reads big-endian numbers, signed and unsigned', () => {
    const text = '\xff\x80\x01\x80\x01\xff\xff\xff\xfe\xff\xff\xff\xfe';
    const cursor = over(text);
    expect(cursor.uint8()).toBe(255);
    expect(cursor.uint16()).toBe(0x8001);
    expect(cursor.int16()).toBe(-0x7fff);
    expect(cursor.int32()).toBe(-2);
    expect(cursor.uint32()).toBe(0xffff_fffe);
    expect(cursor.remainingBytes).toBe(0);
    cursor.finish();
  });

  test.each([-1, -4, -0x8000_0000, 4, 0x7fff_ffff])('%d bytes of three are not there', (bytes) => {
    const cursor = over('abc');
    for (const step of [
      () => cursor.skip(bytes),
      () => cursor.bytes(bytes),
      () => cursor.countedText(bytes),
    ]) {
      expect(step).toThrow('insufficient data left in message');
      expect(cursor.remainingBytes).toBe(3);
    }
  });

  test.each([0, 1, 63, 64, 65, 200])(
    'a string of %d bytes ends at its own terminator or not at all',
    (bytes) => {
      const text = 'x'.repeat(bytes);
      expect(over(`${text}\0`).cstring()).toBe(text);
      expect(over(`${text}\0`).lenientCstring()).toBe(text);
      expect(() => over(text, '\0').cstring()).toThrow('invalid string in message');
      expect(() => over(text, '').lenientCstring()).toThrow('invalid string in message');
    },
  );

  test('what is left over is refused', () => {
    const cursor = over('ab');
    cursor.skip(1);
    expect(() => cursor.finish()).toThrow('invalid message format');
  });
});

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PosternError } from '../base/errors.ts';
import { FrameReader } from './frame-reader.ts';
import { cutDumbly } from './test-frames.ts';

const frameBytesMax = 1 << 20;

function frameBytes(type: number, body: Uint8Array): Buffer {
  const header = Buffer.alloc(5);
  header[0] = type;
  header.writeInt32BE(4 + body.length, 1);
  return Buffer.concat([header, body]);
}

/** Pushes a chunk in memory that is overwritten afterwards, as a socket with a buffer of its own would do. */
function readAll(reader: FrameReader, chunks: readonly Buffer[]): string[] {
  const frames: string[] = [];
  for (const chunk of chunks) {
    const memory = Buffer.from(chunk);
    reader.push(memory);
    while (reader.next()) {
      const { buffer, start, bodyStart, end } = reader;
      if (buffer[start] !== reader.type || bodyStart !== start + 5)
        throw new Error('the view contradicts itself');
      frames.push(`${reader.type}:${buffer.toString('hex', bodyStart, end)}`);
    }
    memory.fill(0xee);
  }
  return frames;
}

function cutAt(stream: Buffer, cuts: readonly number[]): Buffer[] {
  const sorted = [0, ...cuts.map((cut) => cut % (stream.length + 1)).sort((a, b) => a - b), stream.length];
  return sorted.slice(1).map((end, i) => stream.subarray(sorted[i], end));
}

const streamArbitrary = fc
  .array(fc.record({ type: fc.integer({ min: 1, max: 255 }), body: fc.uint8Array({ maxLength: 3000 }) }))
  .map((frames) => Buffer.concat(frames.map(({ type, body }) => frameBytes(type, body))));

describe('FrameReader', () => {
  test('gives the same frames as the dumb parser, however the stream is cut', () => {
    fc.assert(
      fc.property(streamArbitrary, fc.array(fc.nat(), { maxLength: 40 }), (stream, cuts) => {
        const reader = new FrameReader({ frameBytesMax });
        expect(readAll(reader, cutAt(stream, cuts))).toEqual(cutDumbly(stream));
        expect(reader.bufferedBytes).toBe(0);
      }),
    );
  });

  test('gives the same frames cut at every byte, and byte by byte', () => {
    const stream = Buffer.concat([
      frameBytes(0x51, Buffer.from('select 1\0')),
      frameBytes(0x53, Buffer.alloc(0)),
      frameBytes(0x64, Buffer.alloc(2000, 7)),
      frameBytes(0x58, Buffer.alloc(0)),
    ]);
    const expected = cutDumbly(stream);
    for (let cut = 0; cut <= stream.length; cut++) {
      expect(readAll(new FrameReader({ frameBytesMax }), cutAt(stream, [cut]))).toEqual(expected);
    }
    const single = Array.from(stream, (byte) => Buffer.from([byte]));
    expect(readAll(new FrameReader({ frameBytesMax }), single)).toEqual(expected);
  });

  test('a whole frame is a view of the chunk, also behind one that spans chunks', () => {
    const reader = new FrameReader({ frameBytesMax });
    const [first, second] = [frameBytes(0x51, Buffer.from('a\0')), frameBytes(0x51, Buffer.from('b\0'))];
    const chunk = Buffer.concat([first.subarray(3), second]);
    reader.push(first.subarray(0, 3));
    expect(reader.next()).toBe(false);
    expect(reader.bufferedBytes).toBe(3);
    reader.push(chunk);
    expect(reader.next()).toBe(true);
    expect(reader.buffer).not.toBe(chunk);
    expect(reader.bufferedBytes).toBe(second.length);
    expect(reader.next()).toBe(true);
    expect(reader.buffer).toBe(chunk);
    expect(reader.next()).toBe(false);
    expect(reader.buffer).not.toBe(chunk);
  });

  test.each([
    ['too short', 3],
    ['zero', 0],
    ['negative', -1],
    ['above the bound', frameBytesMax + 1],
    ['the largest', 0x7fff_ffff],
  ])('a length that is %s is a protocol violation, now and again', (_what, length) => {
    const header = Buffer.alloc(5, 0x51);
    header.writeInt32BE(length, 1);
    for (const chunks of [[header], [header.subarray(0, 1), header.subarray(1)]]) {
      const reader = new FrameReader({ frameBytesMax });
      const readThem = () => readAll(reader, chunks);
      expect(readThem).toThrow(
        expect.objectContaining({ sqlState: '08P01', message: 'invalid message length' }),
      );
      expect(() => reader.next()).toThrow(PosternError);
    }
  });

  test('a frame of just the bound passes', () => {
    const reader = new FrameReader({ frameBytesMax });
    reader.push(frameBytes(0x51, Buffer.alloc(frameBytesMax - 4)));
    expect(reader.next()).toBe(true);
  });

  test('a frame in many pieces is copied a constant number of times, and memory follows what has arrived', () => {
    let allocatedBytes = 0;
    let largestBytes = 0;
    const original = Buffer.allocUnsafeSlow;
    Buffer.allocUnsafeSlow = (size) => {
      allocatedBytes += size;
      largestBytes = Math.max(largestBytes, size);
      return original(size);
    };
    try {
      const whole = frameBytes(0x64, Buffer.alloc(frameBytesMax - 4, 1));
      const reader = new FrameReader({ frameBytesMax });
      const pieceBytes = 100;
      for (let at = 0; at < whole.length; at += pieceBytes) {
        reader.push(whole.subarray(at, at + pieceBytes));
        const complete = at + pieceBytes >= whole.length;
        expect(reader.next()).toBe(complete);
        expect(largestBytes).toBeLessThanOrEqual(Math.max(2 * (at + pieceBytes), 1024));
      }
      expect(reader.end - reader.bodyStart).toBe(frameBytesMax - 4);
      expect(allocatedBytes).toBeLessThan(4 * whole.length);
    } finally {
      Buffer.allocUnsafeSlow = original;
    }
  });

  test('a push before the last chunk is used up is a bug', () => {
    const reader = new FrameReader({ frameBytesMax });
    reader.push(frameBytes(0x53, Buffer.alloc(0)));
    expect(() => reader.push(Buffer.alloc(1))).toThrow(/a bug in Postern/);
    expect(reader.next()).toBe(true);
    expect(() => reader.push(Buffer.alloc(1))).toThrow(/a bug in Postern/);
  });

  test('what is taken away in the middle, another reader goes on with', () => {
    fc.assert(
      fc.property(
        streamArbitrary,
        fc.array(fc.nat()),
        fc.nat(20),
        fc.nat(20),
        (stream, cuts, chunksBefore, framesBefore) => {
          const chunks = cutAt(stream, cuts);
          const reader = new FrameReader({ frameBytesMax });
          const frames: string[] = [];
          let used = 0;
          // Stops behind any frame of any chunk.
          for (let isOver = false; !isOver && used < Math.min(chunksBefore, chunks.length); ) {
            reader.push(Buffer.from(chunks[used++]!));
            for (;;) {
              isOver = frames.length >= framesBefore;
              if (isOver || !reader.next()) break;
              frames.push(`${reader.type}:${reader.buffer.toString('hex', reader.bodyStart, reader.end)}`);
            }
          }
          const expected = reader.bufferedBytes;
          const rest = reader.takeRest();
          expect(rest.length).toBe(expected);
          expect(reader.bufferedBytes).toBe(0);
          const other = new FrameReader({ frameBytesMax });
          frames.push(...readAll(other, [rest, ...chunks.slice(used)]));
          expect(frames).toEqual(readAll(new FrameReader({ frameBytesMax }), [stream]));
        },
      ),
    );
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PosternError } from '../../base/errors.ts';
import {
  encodeBindComplete,
  encodeCommandComplete,
  encodeDataRow,
  encodeErrorResponse,
  encodeNoticeResponse,
  encodeReadyForQuery,
} from '../../wire/backend.ts';
import { FrameWriter } from '../../wire/frame-writer.ts';
import { AnswerScanner } from './answer-scanner.ts';

const duplicate = new PosternError({
  sqlState: '23505',
  message: 'duplicate key',
  detail: 'Key (id)=(1) exists.',
});

type Part = 'bind' | 'row' | 'notice' | 'tag' | 'error' | 'ready' | 'readyFailed';

function encode(parts: readonly Part[]): Buffer {
  const writer = new FrameWriter();
  for (const part of parts) {
    if (part === 'bind') encodeBindComplete(writer);
    // Z and E within a value must not be taken for the frames of these letters.
    else if (part === 'row') encodeDataRow(writer, ['ZE\0\0\0\u0005I', null]);
    else if (part === 'notice') encodeNoticeResponse(writer, 'NOTICE', '00000', 'E Z');
    else if (part === 'tag') encodeCommandComplete(writer, 'INSERT 0 1');
    else if (part === 'error') encodeErrorResponse(writer, duplicate);
    else encodeReadyForQuery(writer, part === 'ready' ? 'I' : 'E');
  }
  return Buffer.from(writer.take());
}

/** Scans the chunks out of one buffer that is overwritten each time, as a socket's reads are. */
function scanChunks(chunks: readonly Buffer[]): { scanner: AnswerScanner; readyCount: number } {
  const scanner = new AnswerScanner();
  const shared = Buffer.alloc(65_536);
  let readyCount = 0;
  for (const chunk of chunks) {
    shared.fill(0xff);
    chunk.copy(shared);
    scanner.scan(shared, chunk.length);
    readyCount += scanner.readyCount;
  }
  return { scanner, readyCount };
}

describe('AnswerScanner', () => {
  it('finds the end and the error of an answer cut at any byte', () => {
    const bytes = encode(['bind', 'row', 'error', 'readyFailed']);
    for (let cut = 0; cut <= bytes.length; cut++) {
      const { scanner, readyCount } = scanChunks([bytes.subarray(0, cut), bytes.subarray(cut)]);
      expect([readyCount, String.fromCharCode(scanner.status)]).toEqual([1, 'E']);
      expect(scanner.error).toEqual({ sqlState: '23505', severity: 'ERROR', message: 'duplicate key' });
    }
  });

  it('counts what was written, in chunks of any sizes', () => {
    const part = fc.constantFrom<Part>('bind', 'row', 'notice', 'tag', 'error', 'ready', 'readyFailed');
    fc.assert(
      fc.property(
        fc.array(part, { maxLength: 20 }),
        fc.array(fc.integer({ min: 1, max: 9 })),
        (parts, sizes) => {
          const bytes = encode(parts);
          const chunks: Buffer[] = [];
          for (let at = 0, index = 0; at < bytes.length; index++) {
            const size = sizes[index % Math.max(1, sizes.length)] ?? bytes.length;
            chunks.push(bytes.subarray(at, at + size));
            at += size;
          }
          const { scanner, readyCount } = scanChunks(chunks);
          expect(readyCount).toBe(parts.filter((one) => one.startsWith('ready')).length);
          expect(scanner.error !== undefined).toBe(parts.includes('error'));
          const last = parts.findLast((one) => one.startsWith('ready'));
          expect(scanner.status).toBe(last === undefined ? 0 : (last === 'ready' ? 'I' : 'E').charCodeAt(0));
        },
      ),
    );
  });

  it('keeps the first error until the caller has taken it', () => {
    const scanner = new AnswerScanner();
    const bytes = encode(['error', 'ready']);
    scanner.scan(bytes, bytes.length);
    scanner.error = undefined;
    const fine = encode(['tag', 'ready']);
    scanner.scan(fine, fine.length);
    expect([scanner.readyCount, scanner.error]).toEqual([1, undefined]);
  });

  it('keeps rows when they are wanted, cut at any byte, and no others', () => {
    const writer = new FrameWriter();
    encodeDataRow(writer, ['ab', null]);
    encodeCommandComplete(writer, 'SELECT 1');
    encodeDataRow(writer, ['c', 'd']);
    encodeReadyForQuery(writer, 'I');
    const bytes = Buffer.from(writer.take());
    for (let cut = 0; cut <= bytes.length; cut++) {
      const scanner = new AnswerScanner();
      scanner.keepsResults = true;
      for (const part of [bytes.subarray(0, cut), bytes.subarray(cut)]) scanner.scan(part, part.length);
      const rows = scanner.results.map(({ type, body }) => [
        String.fromCharCode(type),
        body.toString('latin1'),
      ]);
      expect(rows).toEqual([
        ['D', '\0\x02\0\0\0\x02ab\xff\xff\xff\xff'],
        ['D', '\0\x02\0\0\0\x01c\0\0\0\x01d'],
      ]);
    }
  });

  it.each([
    ['a negative length', [0x43, 0xff, 0xff, 0xff, 0xff]],
    ['a ReadyForQuery of two bytes', [0x5a, 0, 0, 0, 6, 0x49, 0x49]],
    ['an empty ErrorResponse', [0x45, 0, 0, 0, 4]],
    ['a server that waits for COPY data', [0x47, 0, 0, 0, 7, 0, 0, 0]],
  ])('refuses %s', (_, bytes) => {
    expect(() => new AnswerScanner().scan(Buffer.from(bytes), bytes.length)).toThrow(PosternError);
  });
});

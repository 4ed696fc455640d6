/** Whatever bytes come, the codec answers with a PosternError or a message, and never reads outside the frame. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PosternError } from '../base/errors.ts';
import {
  encodeDataRow,
  encodeErrorResponse,
  encodeRowDescription,
  readAuthentication,
  readBackendKeyData,
  readCommandTag,
  readDataRowText,
  readErrorFields,
  readParameterDescription,
  readParameterStatus,
  readReadyStatus,
  readRowDescription,
} from './backend.ts';
import { type Frame, FrameReader } from './frame-reader.ts';
import {
  BindView,
  encodeBind,
  encodeBindFrom,
  encodeBindWithExtraParameters,
  encodeExecute,
  encodeParse,
  encodeQuery,
  readClose,
  readDescribe,
  readEmptyBody,
  readExecute,
  readParse,
  readPassword,
  readQueryText,
  readSaslInitial,
  readSaslResponse,
} from './frontend.ts';
import { encodeStartup, readStartup } from './startup.ts';
import { written } from './test-frames.ts';

const bindView = new BindView();

const decoders: readonly ((frame: Frame) => unknown)[] = [
  readQueryText,
  readParse,
  readDescribe,
  readClose,
  readExecute,
  readPassword,
  readSaslInitial,
  readSaslResponse,
  readEmptyBody,
  (frame) => bindView.read(frame),
  readErrorFields,
  readCommandTag,
  readReadyStatus,
  readParameterStatus,
  readBackendKeyData,
  readAuthentication,
  readDataRowText,
  readRowDescription,
  readParameterDescription,
];

/** Runs it; whether it passed. Anything thrown but a PosternError fails the test. */
function passes(run: () => unknown): boolean {
  try {
    run();
    return true;
  } catch (error) {
    if (!(error instanceof PosternError)) throw error;
    return false;
  }
}

function decodeEverything(frame: Frame): void {
  for (const read of decoders) passes(() => read(frame));
  if (passes(() => bindView.read(frame))) checkBindView(frame);
}

/** A Bind that passed is safe to send on: what is made of it passes again. */
function checkBindView(frame: Frame): void {
  for (let i = 0; i < bindView.parameterCount; i++) {
    const [start, length] = [bindView.parameterStart(i), bindView.parameterLength(i)];
    expect(length >= -1 && start >= bindView.tailStart && start + Math.max(length, 0) <= frame.end).toBe(
      true,
    );
  }
  for (const sent of [
    written((writer) => encodeBindFrom(writer, 'p', 's', bindView, frame.buffer)),
    written((writer) => encodeBindWithExtraParameters(writer, 'p', 's', bindView, frame.buffer, ['1'])),
  ]) {
    const again = new BindView();
    expect(again.read({ buffer: sent, bodyStart: 5, end: sent.length }).statement).toBe('s');
  }
}

function readStream(bytes: Buffer, chunkBytes: number): void {
  const reader = new FrameReader({ frameBytesMax: 1 << 16 });
  passes(() => {
    for (let at = 0; at < bytes.length; at += chunkBytes) {
      reader.push(bytes.subarray(at, at + chunkBytes));
      while (reader.next()) decodeEverything(reader);
    }
  });
}

const sound = written((writer) => {
  encodeQuery(writer, "select 'ü'");
  encodeParse(writer, 's1', 'select $1, $2', [25, 20]);
  encodeBind(writer, { portal: '', statement: 's1', parameters: ['one', null, 'three'] });
  encodeExecute(writer, '', 100);
  encodeRowDescription(writer, [{ name: 'a', typeOid: 25 }]);
  encodeDataRow(writer, ['x', null]);
  encodeErrorResponse(writer, new PosternError({ sqlState: 'XX000', message: 'm', position: 1 }));
});
const soundStartup = written((writer) =>
  encodeStartup(writer, [
    ['user', 'me'],
    ['_pq_.x', 'y'],
  ]),
);

const mutationArbitrary = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), {
  minLength: 1,
  maxLength: 6,
});

function mutate(bytes: Buffer, mutations: readonly (readonly [number, number])[]): Buffer {
  const mutated = Buffer.from(bytes);
  for (const [at, value] of mutations) mutated[at % mutated.length] = value;
  return mutated;
}

const numRuns = 3000;

describe('rubbish', () => {
  test('random bytes', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 200 }),
        fc.integer({ min: 1, max: 200 }),
        (bytes, chunkBytes) => {
          readStream(Buffer.from(bytes), chunkBytes);
          passes(() => readStartup(Buffer.from(bytes)));
        },
      ),
      { numRuns },
    );
  });

  test('random bodies in sound frames', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (body) => {
        const buffer = Buffer.from(body);
        decodeEverything({ type: 0, buffer, start: 0, bodyStart: 0, end: buffer.length });
      }),
      { numRuns },
    );
  });

  test('bodies of a few small numbers, which pass more often', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(0, 0, 0, 1, 2, 4, 255), { maxLength: 40 }), (body) => {
        const buffer = Buffer.from(body);
        decodeEverything({ type: 0, buffer, start: 0, bodyStart: 0, end: buffer.length });
      }),
      { numRuns },
    );
  });

  test('sound messages with bytes changed', () => {
    fc.assert(
      fc.property(mutationArbitrary, fc.integer({ min: 1, max: 200 }), (mutations, chunkBytes) => {
        readStream(mutate(sound, mutations), chunkBytes);
        passes(() => readStartup(mutate(soundStartup, mutations)));
      }),
      { numRuns },
    );
  });

  test('what lies behind a frame changes nothing', () => {
    fc.assert(
      fc.property(
        mutationArbitrary,
        fc.nat(sound.length),
        fc.uint8Array({ maxLength: 20 }),
        (mutations, end, behind) => {
          const body = mutate(sound, mutations).subarray(0, end);
          const alone = { type: 0, buffer: body, start: 0, bodyStart: 5, end: Math.max(end, 5) };
          if (end < 5) return;
          const followed = { ...alone, buffer: Buffer.concat([body, behind]) };
          for (const read of decoders) {
            expect(passes(() => read(followed))).toBe(passes(() => read(alone)));
          }
        },
      ),
      { numRuns },
    );
  });
});

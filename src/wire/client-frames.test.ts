import { expect, test } from 'vitest';
import { checkUnfinished } from './client-frames.ts';
import { FrameReader } from './frame-reader.ts';
import { Frontend } from './message-types.ts';

function readerOf(...bytes: number[]): FrameReader {
  const reader = new FrameReader({ frameBytesMax: 2 ** 30 });
  reader.onUnfinished = checkUnfinished;
  reader.push(Buffer.from(bytes));
  return reader;
}

test.each([Frontend.Query, Frontend.Parse, Frontend.Bind, Frontend.CopyData, Frontend.FunctionCall])(
  'type %i may be large',
  (type) => {
    expect(readerOf(type, 0, 0x10, 0, 0).next()).toBe(false);
  },
);

test.each([Frontend.Sync, Frontend.Describe, Frontend.Execute, Frontend.Close, Frontend.CopyFail])(
  'type %i may not',
  (type) => {
    expect(() => readerOf(type, 0, 0x10, 0, 0).next()).toThrow('invalid message length');
    expect(readerOf(type, 0, 0, 0x20, 0, 1).next()).toBe(false);
  },
);

test.each([0, 0x21, Frontend.Password, 0xff])('there is no type %i', (type) => {
  expect(() => readerOf(type, 0, 0, 0x20, 0).next()).toThrow(`invalid frontend message type ${type}`);
});

test('what is whole is for its handler', () => {
  expect(readerOf(0x21, 0, 0, 0, 4).next()).toBe(true);
});

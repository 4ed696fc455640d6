import { serialize } from 'pg-protocol';
import { describe, expect, test } from 'vitest';
import { encodeCancelRequest, encodeSslRequest, encodeStartup, readStartup } from './startup.ts';
import { written } from './test-frames.ts';

function packet(version: number, body: string): Buffer {
  const bytes = Buffer.alloc(8 + Buffer.byteLength(body));
  bytes.writeInt32BE(bytes.length, 0);
  bytes.writeUInt32BE(version, 4);
  bytes.write(body, 8);
  return bytes;
}

const V3 = 3 << 16;

describe('readStartup', () => {
  test('reads what it encodes, when it has arrived whole, and leaves what follows', () => {
    const parameters = new Map([
      ['user', 'jürgen'],
      ['database', ''],
      ['options', '-c a=b'],
    ]);
    const bytes = written((writer) => encodeStartup(writer, parameters, 2));
    for (let end = 0; end < bytes.length; end++) expect(readStartup(bytes.subarray(0, end))).toBeUndefined();
    const expected = {
      kind: 'startup',
      minorVersion: 2,
      parameters,
      unsupportedOptions: [],
      bytes: bytes.length,
    };
    expect(readStartup(bytes)).toEqual(expected);
    expect(readStartup(Buffer.concat([bytes, Buffer.from('Q')]))).toEqual(expected);
  });

  test('requests for encryption and for a cancel', () => {
    expect(readStartup(written(encodeSslRequest))).toEqual({ kind: 'ssl', bytes: 8 });
    expect(readStartup(packet(80877104, ''))).toEqual({ kind: 'gssenc', bytes: 8 });
    for (const secretKey of [Buffer.from([1, 2, 3, 4]), Buffer.alloc(256, 9)]) {
      const bytes = written((writer) => encodeCancelRequest(writer, 17, secretKey));
      expect(readStartup(bytes)).toEqual({ kind: 'cancel', pid: 17, secretKey, bytes: bytes.length });
    }
  });

  test('reads what pg-protocol writes, and writes what pg-protocol writes', () => {
    expect(readStartup(serialize.startup({ user: 'me', database: 'd' }))).toMatchObject({
      kind: 'startup',
      minorVersion: 0,
      parameters: new Map([
        ['user', 'me'],
        ['database', 'd'],
        ['client_encoding', 'UTF8'],
      ]),
    });
    expect(written(encodeSslRequest)).toEqual(serialize.requestSsl());
    expect(written((writer) => encodeCancelRequest(writer, 12345, 0x7fff_0001))).toEqual(
      serialize.cancel(12345, 0x7fff_0001),
    );
  });

  test('options of the protocol are set apart, and newer minor versions are told', () => {
    const read = readStartup(packet(V3 | 9999, 'user\0me\0_pq_.command\0on\0\0'));
    expect(read).toMatchObject({ minorVersion: 9999, unsupportedOptions: ['_pq_.command'] });
    expect(read?.kind === 'startup' && [...read.parameters]).toEqual([['user', 'me']]);
  });

  test.each<[string, Buffer, string, RegExp]>([
    ['HTTP', Buffer.from('GET / HTTP/1.1\r\n\r\n'), '08P01', /^invalid length of startup packet$/],
    ['TLS', Buffer.from('16030100f8', 'hex'), '08P01', /^invalid length of startup packet$/],
    ['a length below 8', Buffer.from([0, 0, 0, 7]), '08P01', /^invalid length of startup packet$/],
    ['a length above the bound', Buffer.from([0, 0, 0x27, 0x15]), '08P01', /^invalid length/],
    ['a longer request for SSL', packet(80877103, 'x'), '08P01', /^invalid length/],
    [
      'protocol 2',
      packet(2 << 16, '\0'),
      '0A000',
      /^unsupported frontend protocol 2\.0: server supports 3\.0 to 3\.2$/,
    ],
    ['protocol 4', packet((4 << 16) | 1, '\0'), '0A000', /^unsupported frontend protocol 4\.1/],
    [
      'a second request for an unknown encryption',
      packet(80877105, ''),
      '0A000',
      /^unsupported frontend protocol/,
    ],
    ['no terminator', packet(V3, 'user\0me\0'), '08P01', /^invalid string in message$/],
    ['no list', packet(V3, ''), '08P01', /^invalid startup packet layout/],
    [
      'a name without a value',
      packet(V3, 'user\0me\0database\0\0'),
      '08P01',
      /^invalid startup packet layout/,
    ],
    ['something behind the end', packet(V3, 'user\0me\0\0x\0'), '08P01', /^invalid startup packet layout/],
    ['a last byte that is not zero', packet(V3, 'user\0me\0\0x'), '08P01', /^invalid startup packet layout/],
    ['a cancel without a key', packet(80877102, 'pid.'), '08P01', /^invalid length of cancel key/],
    ['a cancel without a pid', packet(80877102, ''), '08P01', /^invalid length of cancel request packet$/],
    [
      'a cancel with too long a key',
      packet(80877102, `pid.${'k'.repeat(257)}`),
      '08P01',
      /^invalid length of cancel key/,
    ],
  ])('%s is refused', (_what, bytes, sqlState, message) => {
    const error = expect.objectContaining({
      sqlState,
      severity: 'FATAL',
      message: expect.stringMatching(message),
    });
    expect(() => readStartup(bytes)).toThrow(error);
  });
});

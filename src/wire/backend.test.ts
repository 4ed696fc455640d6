import { PassThrough } from 'node:stream';
import { parse } from 'pg-protocol';
import { describe, expect, test } from 'vitest';
import { PosternError } from '../base/errors.ts';
import { OID } from '../pg/oid.ts';
import {
  encodeAuthenticationOk,
  encodeAuthenticationSasl,
  encodeAuthenticationSaslContinue,
  encodeAuthenticationSaslFinal,
  encodeBackendKeyData,
  encodeBindComplete,
  encodeCloseComplete,
  encodeCommandComplete,
  encodeDataRow,
  encodeEmptyQueryResponse,
  encodeErrorFields,
  encodeErrorResponse,
  encodeNegotiateProtocolVersion,
  encodeNoData,
  encodeNoticeResponse,
  encodeParameterDescription,
  encodeParameterStatus,
  encodeParseComplete,
  encodePortalSuspended,
  encodeReadyForQuery,
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
import type { Frame } from './frame-reader.ts';
import type { FrameWriter } from './frame-writer.ts';
import { Backend } from './message-types.ts';
import { frameOf, viewOf, written } from './test-frames.ts';

type Write = (writer: FrameWriter) => void;

const error = new PosternError({
  sqlState: '0A000',
  message: 'that is ✗',
  detail: 'why',
  hint: 'how',
  position: 7,
});
const errorFields = new Map([
  ['S', 'ERROR'],
  ['V', 'ERROR'],
  ['C', '0A000'],
  ['M', 'that is ✗'],
  ['D', 'why'],
  ['H', 'how'],
  ['P', '7'],
]);
const columns = [
  { name: 'id', typeOid: OID.int8 },
  { name: 'größe', typeOid: OID.text },
];
const values = ['1', null, '', 'ü'.repeat(400)];
const key = Buffer.alloc(32, 5);
const salt = Buffer.from([1, 2, 3, 4]);

function message(type: number, body: Buffer): Buffer {
  const header = Buffer.alloc(5, type);
  header.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([header, body]);
}

function authentication(code: number, data: Buffer | string = ''): Buffer {
  return message(Backend.Authentication, Buffer.concat([Buffer.from([0, 0, 0, code]), Buffer.from(data)]));
}

/** Decoder, sound message, what it reads. */
const decoded: [string, (frame: Frame) => unknown, Buffer, unknown][] = [
  ['ErrorResponse', readErrorFields, written((writer) => encodeErrorResponse(writer, error)), errorFields],
  [
    'CommandComplete',
    readCommandTag,
    written((writer) => encodeCommandComplete(writer, 'INSERT 0 1')),
    'INSERT 0 1',
  ],
  ['ReadyForQuery', readReadyStatus, written((writer) => encodeReadyForQuery(writer, 'T')), 0x54],
  [
    'ParameterStatus',
    readParameterStatus,
    written((writer) => encodeParameterStatus(writer, 'TimeZone', 'Europe/Zürich')),
    { name: 'TimeZone', value: 'Europe/Zürich' },
  ],
  [
    'BackendKeyData',
    readBackendKeyData,
    written((writer) => encodeBackendKeyData(writer, 42, 0x8000_0001)),
    { pid: 42, secretKey: Buffer.from([0x80, 0, 0, 1]) },
  ],
  ['DataRow', readDataRowText, written((writer) => encodeDataRow(writer, values)), values],
  [
    'RowDescription',
    readRowDescription,
    written((writer) => encodeRowDescription(writer, columns)),
    columns.map((column) => ({
      ...column,
      tableOid: 0,
      columnNumber: 0,
      typeLength: column.typeOid === OID.int8 ? 8 : -1,
      typeModifier: -1,
      format: 0,
    })),
  ],
  [
    'ParameterDescription',
    readParameterDescription,
    written((writer) => encodeParameterDescription(writer, [20, 4_000_000_000])),
    [20, 4_000_000_000],
  ],
  ['AuthenticationOk', readAuthentication, written(encodeAuthenticationOk), { kind: 'ok' }],
  ['AuthenticationCleartextPassword', readAuthentication, authentication(3), { kind: 'cleartext' }],
  ['AuthenticationMD5Password', readAuthentication, authentication(5, salt), { kind: 'md5', salt }],
  [
    'AuthenticationSASL',
    readAuthentication,
    written((writer) => encodeAuthenticationSasl(writer, ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256'])),
    { kind: 'sasl', mechanisms: ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256'] },
  ],
];

describe('decoders', () => {
  test.each(decoded)('%s', (_name, read, bytes, expected) => {
    expect(read(viewOf(bytes))).toEqual(expected);
  });

  test.each(decoded)(
    '%s is refused at every shorter length, and with a byte too many',
    (_name, read, bytes) => {
      const violation = expect.objectContaining({ sqlState: '08P01' });
      // A shorter key is a key, as long as it has the four bytes of the oldest.
      for (let end = 5; end < bytes.length; end++) {
        expect(() => read(viewOf(bytes.subarray(0, end)))).toThrow(violation);
      }
      if (read === readBackendKeyData) return;
      for (const byte of [0, 1]) {
        expect(() => read(viewOf(Buffer.concat([bytes, Buffer.from([byte])])))).toThrow(violation);
      }
    },
  );

  test('messages whose data goes to the end', () => {
    expect(readAuthentication(frameOf((writer) => encodeAuthenticationSaslContinue(writer, 'r=x')))).toEqual({
      kind: 'saslContinue',
      data: 'r=x',
    });
    expect(readAuthentication(frameOf((writer) => encodeAuthenticationSaslFinal(writer, 'v=x')))).toEqual({
      kind: 'saslFinal',
      data: 'v=x',
    });
    expect(readAuthentication(viewOf(authentication(7, 'gss')))).toEqual({ kind: 'other', code: 7 });
    const longKey = frameOf((writer) => encodeBackendKeyData(writer, -1, key));
    expect(readBackendKeyData(longKey)).toEqual({ pid: -1, secretKey: key });
    const tooLong = frameOf((writer) => encodeBackendKeyData(writer, 1, Buffer.alloc(257)));
    expect(() => readBackendKeyData(tooLong)).toThrow('invalid length of cancel key');
  });

  test('what is kept of a message outlives it', () => {
    const frame = frameOf((writer) => encodeBackendKeyData(writer, 1, key));
    const { secretKey } = readBackendKeyData(frame);
    frame.buffer.fill(0);
    expect(secretKey).toEqual(key);
  });

  test('an unknown transaction status is refused', () => {
    expect(() => readReadyStatus(viewOf(message(Backend.ReadyForQuery, Buffer.from('X'))))).toThrow(
      PosternError,
    );
  });

  test('text of a server that is not UTF-8 is read as far as it goes', () => {
    const body = Buffer.concat([Buffer.from('Mgr'), Buffer.from([0xf6]), Buffer.from('sser\0\0')]);
    expect(readErrorFields(viewOf(message(Backend.ErrorResponse, body)))).toEqual(
      new Map([['M', 'gr\ufffdsser']]),
    );
  });

  test('fields that were changed go on as an error or a notice', () => {
    const changed = new Map([...errorFields, ['t', 'events']]);
    const notice = frameOf((writer) => encodeErrorFields(writer, 'N', changed));
    expect(notice.type).toBe(Backend.NoticeResponse);
    expect(readErrorFields(notice)).toEqual(changed);
    expect(frameOf((writer) => encodeErrorFields(writer, 'E', changed)).type).toBe(Backend.ErrorResponse);
  });
});

describe('NegotiateProtocolVersion', () => {
  test('has the layout that libpq reads', () => {
    const bytes = written((writer) => encodeNegotiateProtocolVersion(writer, 2, ['_pq_.a', '_pq_.b']));
    const options = Buffer.from('_pq_.a\0_pq_.b\0');
    expect(bytes).toEqual(message(0x76, Buffer.concat([Buffer.from([0, 3, 0, 2, 0, 0, 0, 2]), options])));
  });
});

describe('pg-protocol', () => {
  async function parsed(bytes: Buffer): Promise<Record<string, unknown>[]> {
    const stream = new PassThrough();
    const messages: Record<string, unknown>[] = [];
    const done = parse(stream, (parsedMessage) => messages.push(parsedMessage as never));
    stream.end(bytes);
    await done;
    return messages;
  }

  const oracle: [string, Write, Record<string, unknown>][] = [
    ['authenticationOk', encodeAuthenticationOk, {}],
    [
      'authenticationSASL',
      (writer) => encodeAuthenticationSasl(writer, ['SCRAM-SHA-256']),
      { mechanisms: ['SCRAM-SHA-256'] },
    ],
    [
      'authenticationSASLContinue',
      (writer) => encodeAuthenticationSaslContinue(writer, 'r=ü'),
      { data: 'r=ü' },
    ],
    ['authenticationSASLFinal', (writer) => encodeAuthenticationSaslFinal(writer, 'v=x'), { data: 'v=x' }],
    [
      'parameterStatus',
      (writer) => encodeParameterStatus(writer, 'a', 'b'),
      { parameterName: 'a', parameterValue: 'b' },
    ],
    ['backendKeyData', (writer) => encodeBackendKeyData(writer, 7, 8), { processID: 7, secretKey: 8 }],
    ['readyForQuery', (writer) => encodeReadyForQuery(writer, 'E'), { status: 'E' }],
    [
      'error',
      (writer) => encodeErrorResponse(writer, error),
      { severity: 'ERROR', code: '0A000', message: 'that is ✗', detail: 'why', hint: 'how', position: '7' },
    ],
    [
      'notice',
      (writer) => encodeNoticeResponse(writer, 'WARNING', '01000', 'careful'),
      { severity: 'WARNING', code: '01000', message: 'careful' },
    ],
    ['commandComplete', (writer) => encodeCommandComplete(writer, 'UPDATE 3'), { text: 'UPDATE 3' }],
    ['parseComplete', encodeParseComplete, {}],
    ['bindComplete', encodeBindComplete, {}],
    ['closeComplete', encodeCloseComplete, {}],
    ['noData', encodeNoData, {}],
    ['emptyQuery', encodeEmptyQueryResponse, {}],
    ['portalSuspended', encodePortalSuspended, {}],
    [
      'parameterDescription',
      (writer) => encodeParameterDescription(writer, [23, 25]),
      { dataTypeIDs: [23, 25] },
    ],
    [
      'rowDescription',
      (writer) => encodeRowDescription(writer, columns),
      {
        fields: columns.map(({ name, typeOid }) =>
          expect.objectContaining({ name, dataTypeID: typeOid, format: 'text', dataTypeModifier: -1 }),
        ),
      },
    ],
    ['dataRow', (writer) => encodeDataRow(writer, values), { fields: values }],
  ];

  test.each(oracle)('reads %s', async (name, write, expected) => {
    expect(await parsed(written(write))).toEqual([expect.objectContaining({ name, ...expected })]);
  });

  test('reads all of them in one stream', async () => {
    const names = (await parsed(Buffer.concat(oracle.map(([, write]) => written(write))))).map(
      ({ name }) => name,
    );
    expect(names).toEqual(oracle.map(([name]) => name));
  });
});

import fc from 'fast-check';
import { serialize } from 'pg-protocol';
import { describe, expect, test } from 'vitest';
import type { Frame } from './frame-reader.ts';
import {
  BindView,
  encodeBind,
  encodeBindFrom,
  encodeBindWithExtraParameters,
  encodeClose,
  encodeDescribe,
  encodeExecute,
  encodeFlush,
  encodeParse,
  encodePassword,
  encodeQuery,
  encodeSaslInitial,
  encodeSaslResponse,
  encodeSync,
  encodeTerminate,
  readBind,
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
import { Frontend } from './message-types.ts';
import { frameOf, viewOf, written } from './test-frames.ts';

interface PlainBind {
  portal: string;
  statement: string;
  formats: number[];
  values: (Buffer | null)[];
  resultFormats: number[];
}

function int(width: 2 | 4, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value | 0);
  return bytes.subarray(4 - width);
}

/** The dumb encoder, which also writes what is wrong. */
function bindBytes(bind: PlainBind): Buffer {
  const body = Buffer.concat([
    Buffer.from(`${bind.portal}\0${bind.statement}\0`),
    int(2, bind.formats.length),
    ...bind.formats.map((format) => int(2, format)),
    int(2, bind.values.length),
    ...bind.values.flatMap((value) => (value === null ? [int(4, -1)] : [int(4, value.length), value])),
    int(2, bind.resultFormats.length),
    ...bind.resultFormats.map((format) => int(2, format)),
  ]);
  return message(Frontend.Bind, body);
}

function message(type: number, body: Buffer): Buffer {
  return Buffer.concat([Buffer.from([type]), int(4, body.length + 4), body]);
}

/** What a view says, as plain values: formats spelled out for each parameter. */
function plain(view: BindView, buffer: Buffer): PlainBind {
  const formats: number[] = [];
  const values: (Buffer | null)[] = [];
  for (let i = 0; i < view.parameterCount; i++) {
    const [start, length] = [view.parameterStart(i), view.parameterLength(i)];
    formats.push(view.parameterFormat(i));
    values.push(length === -1 ? null : Buffer.from(buffer.subarray(start, start + length)));
  }
  const resultFormats: number[] = [];
  for (let at = view.resultFormatsStart + 2; at < view.resultFormatsEnd; at += 2) {
    resultFormats.push(buffer.readInt16BE(at));
  }
  return { portal: view.portal, statement: view.statement, formats, values, resultFormats };
}

/** With one format a parameter, as plain() gives it. */
function spelledOut(bind: PlainBind): PlainBind {
  const { formats, values } = bind;
  return { ...bind, formats: values.map((_, i) => (formats.length > 1 ? formats[i]! : (formats[0] ?? 0))) };
}

const nameArbitrary = fc
  .oneof(fc.constant(''), fc.string({ maxLength: 70 }), fc.string({ unit: 'binary', maxLength: 70 }))
  .map((name) => name.replaceAll('\0', ''));
const formatArbitrary = fc.constantFrom(0, 1);
const bindArbitrary: fc.Arbitrary<PlainBind> = fc
  .array(fc.option(fc.uint8Array({ maxLength: 40 })), { maxLength: 40 })
  .chain((values) =>
    fc.record({
      portal: nameArbitrary,
      statement: nameArbitrary,
      formats: fc.oneof(
        fc.array(formatArbitrary, { maxLength: 1 }),
        fc.array(formatArbitrary, { minLength: values.length, maxLength: values.length }),
      ),
      values: fc.constant(values.map((value) => value && Buffer.from(value))),
      resultFormats: fc.array(formatArbitrary, { maxLength: 5 }),
    }),
  );

const violation = (text: string | RegExp) =>
  expect.objectContaining({ sqlState: '08P01', message: expect.stringMatching(text) });

describe('what the router encodes, it decodes', () => {
  test.each(['', 'select 1', `select '${'ü€😀'.repeat(500)}'`, '\ufffd'])('Query %#', (text) => {
    expect(readQueryText(frameOf((writer) => encodeQuery(writer, text)))).toBe(text);
  });

  test('the others', () => {
    const parameterOids = [0, 25, 4_294_967_295];
    expect(readParse(frameOf((writer) => encodeParse(writer, 's1', 'select $1', parameterOids)))).toEqual({
      name: 's1',
      text: 'select $1',
      parameterOids,
    });
    for (const target of ['S', 'P'] as const) {
      const expected = { target, name: 'x' };
      expect(readDescribe(frameOf((writer) => encodeDescribe(writer, target, 'x')))).toEqual(expected);
      expect(readClose(frameOf((writer) => encodeClose(writer, target, 'x')))).toEqual(expected);
    }
    expect(readExecute(frameOf((writer) => encodeExecute(writer, 'p', 10)))).toEqual({
      portal: 'p',
      maxRows: 10,
    });
    expect(readExecute(frameOf((writer) => encodeExecute(writer, '', -5)))).toEqual({
      portal: '',
      maxRows: 0,
    });
    expect(readPassword(frameOf((writer) => encodePassword(writer, 'geheim')))).toBe('geheim');
    expect(
      readSaslInitial(frameOf((writer) => encodeSaslInitial(writer, 'SCRAM-SHA-256', 'n,,n=,r=x'))),
    ).toEqual({
      mechanism: 'SCRAM-SHA-256',
      data: 'n,,n=,r=x',
    });
    const withoutData = message(Frontend.Password, Buffer.concat([Buffer.from('M\0'), int(4, -1)]));
    expect(readSaslInitial(viewOf(withoutData))).toEqual({ mechanism: 'M', data: undefined });
    expect(readSaslResponse(frameOf((writer) => encodeSaslResponse(writer, 'c=biws')))).toBe('c=biws');
    for (const encode of [encodeSync, encodeFlush, encodeTerminate]) {
      expect(() => readEmptyBody(frameOf(encode))).not.toThrow();
    }
    expect(() => readEmptyBody(viewOf(message(Frontend.Sync, Buffer.alloc(1))))).toThrow(
      violation('invalid message'),
    );
  });
});

describe('Bind', () => {
  test('a view reads what the dumb encoder wrote, again and again', () => {
    const view = new BindView();
    fc.assert(
      fc.property(bindArbitrary, (bind) => {
        const frame = viewOf(bindBytes(bind));
        expect(plain(view.read(frame), frame.buffer)).toEqual(spelledOut(bind));
      }),
    );
  });

  test('goes on under other names, its tail as it was', () => {
    fc.assert(
      fc.property(bindArbitrary, nameArbitrary, nameArbitrary, (bind, portal, statement) => {
        const frame = viewOf(bindBytes(bind));
        const view = readBind(frame);
        const sent = written((writer) => encodeBindFrom(writer, portal, statement, view, frame.buffer));
        expect(sent.equals(bindBytes({ ...bind, portal, statement }))).toBe(true);
      }),
    );
  });

  test('goes on with parameters in text behind its own', () => {
    fc.assert(
      fc.property(bindArbitrary, fc.array(fc.string({ unit: 'binary' }), { maxLength: 5 }), (bind, extra) => {
        const frame = viewOf(bindBytes(bind));
        const sent = frameOf((writer) =>
          encodeBindWithExtraParameters(writer, 'p', 's', readBind(frame), frame.buffer, extra),
        );
        const own = spelledOut(bind);
        expect(plain(readBind(sent), sent.buffer)).toEqual({
          portal: 'p',
          statement: 's',
          formats: [...own.formats, ...extra.map(() => 0)],
          values: [...own.values, ...extra.map((value) => Buffer.from(value))],
          resultFormats: bind.resultFormats,
        });
      }),
    );
  });

  test('parameters behind others in text need no formats', () => {
    const own: PlainBind = {
      portal: '',
      statement: 's',
      formats: [0],
      values: [Buffer.from('1')],
      resultFormats: [],
    };
    const frame = viewOf(bindBytes(own));
    const sent = written((writer) =>
      encodeBindWithExtraParameters(writer, '', 's', readBind(frame), frame.buffer, ['2']),
    );
    expect(sent).toEqual(bindBytes({ ...own, formats: [], values: [Buffer.from('1'), Buffer.from('2')] }));
  });

  test('encodeBind is text in, text out', () => {
    const parameters = ['ä', '', null, 'x'.repeat(300)];
    const frame = frameOf((writer) => encodeBind(writer, { portal: 'p', statement: 's', parameters }));
    expect(plain(readBind(frame), frame.buffer)).toEqual({
      portal: 'p',
      statement: 's',
      formats: [0, 0, 0, 0],
      values: parameters.map((value) => (value === null ? null : Buffer.from(value))),
      resultFormats: [],
    });
  });

  test('65,535 parameters pass, one more does not, and the view works on afterwards', () => {
    const values = new Array<Buffer | null>(65_535).fill(null);
    const view = new BindView();
    const large = viewOf(
      bindBytes({ portal: '', statement: '', formats: values.map(() => 1), values, resultFormats: [1] }),
    );
    expect(view.read(large).parameterCount).toBe(65_535);
    expect(view.parameterLength(65_534)).toBe(-1);
    expect(view.parameterFormat(65_534)).toBe(1);
    expect(() =>
      written((writer) => encodeBindWithExtraParameters(writer, '', '', view, large.buffer, ['1'])),
    ).toThrow(expect.objectContaining({ sqlState: '54023' }));
    const small: PlainBind = {
      portal: '',
      statement: '',
      formats: [],
      values: [Buffer.from('1')],
      resultFormats: [],
    };
    const frame = viewOf(bindBytes(small));
    expect(plain(view.read(frame), frame.buffer)).toEqual(spelledOut(small));
    expect(() => view.parameterStart(1)).toThrow(/a bug in Postern/);
  });

  const sound: PlainBind = {
    portal: '',
    statement: 's',
    formats: [],
    values: [Buffer.from('1')],
    resultFormats: [],
  };
  test.each<[string, Buffer, string]>([
    ['an unknown parameter format', bindBytes({ ...sound, formats: [2] }), 'unsupported format code: 2'],
    ['a negative result format', bindBytes({ ...sound, resultFormats: [-1] }), 'unsupported format code: -1'],
    [
      'formats that are not as many as parameters',
      bindBytes({ ...sound, formats: [0, 1] }),
      'bind message has 2 parameter formats but 1 parameters',
    ],
    [
      'formats that are not there',
      message(0x42, Buffer.from([0, 0, 0xff, 0xff])),
      'insufficient data left in message',
    ],
    [
      'values that are not there',
      message(0x42, Buffer.from([0, 0, 0, 0, 0xff, 0xff])),
      'insufficient data left',
    ],
    [
      'a value of length -2',
      message(0x42, Buffer.concat([Buffer.alloc(4), int(2, 1), int(4, -2), int(2, 0)])),
      'insufficient data left in message',
    ],
    [
      'a value of the largest length',
      message(0x42, Buffer.concat([Buffer.alloc(4), int(2, 1), int(4, 0x7fff_ffff), int(2, 0)])),
      'insufficient data left in message',
    ],
  ])('%s is refused', (_what, bytes, text) => {
    expect(() => readBind(viewOf(bytes))).toThrow(violation(text));
  });
});

describe('broken messages', () => {
  const bind: PlainBind = {
    portal: 'p',
    statement: 's',
    formats: [0, 1],
    values: [Buffer.from('1'), null],
    resultFormats: [1],
  };
  const decoders: [string, (frame: Frame) => unknown, Buffer][] = [
    ['Query', readQueryText, written((writer) => encodeQuery(writer, 'select'))],
    ['Parse', readParse, written((writer) => encodeParse(writer, 'name', 'select', [1, 2]))],
    ['Bind', readBind, bindBytes(bind)],
    ['Describe', readDescribe, written((writer) => encodeDescribe(writer, 'S', 'name'))],
    ['Close', readClose, written((writer) => encodeClose(writer, 'P', 'name'))],
    ['Execute', readExecute, written((writer) => encodeExecute(writer, 'name', 3))],
    ['Password', readPassword, written((writer) => encodePassword(writer, 'secret'))],
    ['SASLInitialResponse', readSaslInitial, written((writer) => encodeSaslInitial(writer, 'name', 'data'))],
  ];

  test.each(decoders)(
    '%s is refused at every shorter length, and with a byte too many',
    (_name, read, bytes) => {
      expect(() => read(viewOf(bytes))).not.toThrow();
      for (let end = 5; end < bytes.length; end++) {
        expect(() => read(viewOf(bytes.subarray(0, end)))).toThrow(violation('message'));
      }
      for (const byte of [0, 1]) {
        expect(() => read(viewOf(Buffer.concat([bytes, Buffer.from([byte])])))).toThrow(violation('message'));
      }
    },
  );

  test('a long text without its end, and one with a zero within', () => {
    for (const text of ['x'.repeat(100), `${'x'.repeat(100)}\0x\0`]) {
      expect(() => readQueryText(viewOf(message(0x51, Buffer.from(text))))).toThrow(violation('message'));
    }
  });

  test('a subtype that is neither statement nor portal', () => {
    const body = Buffer.from('Xname\0');
    expect(() => readDescribe(viewOf(message(0x44, body)))).toThrow(
      violation('^invalid DESCRIBE message subtype 88$'),
    );
    expect(() => readClose(viewOf(message(0x43, body)))).toThrow(
      violation('^invalid CLOSE message subtype 88$'),
    );
  });

  test.each([
    ['ff', '0xff'],
    ['41c328', '0xc3 0x28'],
    ['c3a4eda080', '0xed 0xa0 0x80'],
    ['f09f98', '0xf0 0x9f 0x98'],
    ['c080', '0xc0 0x80'],
    ['efbfbd80', '0x80'],
  ])('text that is not UTF-8 (%s) is refused, not changed', (hex, shown) => {
    const frame = viewOf(message(0x51, Buffer.from(`${hex}00`, 'hex')));
    expect(() => readQueryText(frame)).toThrow(
      expect.objectContaining({
        sqlState: '22021',
        severity: 'ERROR',
        message: `invalid byte sequence for encoding "UTF8": ${shown}`,
      }),
    );
  });
});

describe('pg-protocol', () => {
  test('what it writes is read', () => {
    expect(readQueryText(viewOf(serialize.query('select 1')))).toBe('select 1');
    expect(readParse(viewOf(serialize.parse({ name: 'n', text: 'select $1', types: [23] })))).toEqual({
      name: 'n',
      text: 'select $1',
      parameterOids: [23],
    });
    expect(readDescribe(viewOf(serialize.describe({ type: 'P', name: 'x' })))).toEqual({
      target: 'P',
      name: 'x',
    });
    expect(readClose(viewOf(serialize.close({ type: 'S' })))).toEqual({ target: 'S', name: '' });
    expect(readExecute(viewOf(serialize.execute({ portal: 'p', rows: 7 })))).toEqual({
      portal: 'p',
      maxRows: 7,
    });
    expect(readExecute(viewOf(serialize.execute()))).toEqual({ portal: '', maxRows: 0 });
    const values = ['1', null, Buffer.from([0, 255])];
    const frame = viewOf(serialize.bind({ portal: 'p', statement: 's', values, binary: true }));
    expect(plain(readBind(frame), frame.buffer)).toEqual({
      portal: 'p',
      statement: 's',
      formats: [0, 0, 1],
      values: [Buffer.from('1'), null, Buffer.from([0, 255])],
      resultFormats: [1],
    });
    expect(readPassword(viewOf(serialize.password('x')))).toBe('x');
    expect(readSaslInitial(viewOf(serialize.sendSASLInitialResponseMessage('M', 'd')))).toEqual({
      mechanism: 'M',
      data: 'd',
    });
    expect(readSaslResponse(viewOf(serialize.sendSCRAMClientFinalMessage('d')))).toBe('d');
  });

  test('what has one form only is written alike', () => {
    expect(written((writer) => encodeQuery(writer, 'select 1'))).toEqual(serialize.query('select 1'));
    const parse = { name: 'n', text: 'select $1', types: [23] };
    expect(written((writer) => encodeParse(writer, 'n', 'select $1', [23]))).toEqual(serialize.parse(parse));
    expect(written((writer) => encodeDescribe(writer, 'S', 'n'))).toEqual(
      serialize.describe({ type: 'S', name: 'n' }),
    );
    expect(written((writer) => encodeClose(writer, 'P', ''))).toEqual(serialize.close({ type: 'P' }));
    expect(written((writer) => encodeExecute(writer, 'p', 9))).toEqual(
      serialize.execute({ portal: 'p', rows: 9 }),
    );
    expect(written(encodeSync)).toEqual(serialize.sync());
    expect(written(encodeFlush)).toEqual(serialize.flush());
    expect(written(encodeTerminate)).toEqual(serialize.end());
    expect(written((writer) => encodePassword(writer, 'x'))).toEqual(serialize.password('x'));
    expect(written((writer) => encodeSaslInitial(writer, 'M', 'd'))).toEqual(
      serialize.sendSASLInitialResponseMessage('M', 'd'),
    );
    expect(written((writer) => encodeSaslResponse(writer, 'd'))).toEqual(
      serialize.sendSCRAMClientFinalMessage('d'),
    );
  });
});

/** Vectors that a PostgreSQL 15 gave, a plain second reckoning for each fast path, and all that is ASK_SERVER. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { keyTexts } from '../../../test/support/key-texts.ts';
import { OID } from '../oid.ts';
import {
  ASK_SERVER,
  bucketOfBinary,
  bucketOfInteger,
  bucketOfNull,
  bucketOfText,
  bucketOfTextBytes,
  isComparable,
} from './bucket.ts';
import { hashKeyText, NO_TYPE_MODIFIER } from './key-hash.ts';
import type { KeyTypeName } from './key-type.ts';
import { bucketOfHash, hashBytes, hashUint32 } from './lookup3.ts';

/** Type, text, hash with the partition seed, bucket of 23. */
const SERVER_VECTORS: readonly [KeyTypeName, string, bigint, number][] = [
  ['int2', '-32768', 0x51ac94e226a0db9an, 15],
  ['int4', '42', 0x663218bcfb84b17fn, 3],
  ['int4', '-1', 0xba5fc748095606c2n, 9],
  ['int8', '9007199254740993', 0xa51c4fa58c38f562n, 22],
  ['int8', '-9223372036854775808', 0xac09237e4899f89cn, 4],
  ['text', '', 0xb0e33d0b543fbfc3n, 0],
  ['text', 'a', 0xa2f240f8823ba67bn, 14],
  ['text', 'abcdefghijk', 0xe39999edea562278n, 22],
  ['text', 'abcdefghijkl', 0x92b003d370554786n, 15],
  ['text', 'Grüße, 世界', 0x4eda7b38d34a689cn, 2],
  ['varchar', 'postern ', 0x5ee38919d1ab4f10n, 17],
  ['bpchar', 'postern  ', 0xccb0f8a5cf7e58d1n, 22],
  ['uuid', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 0x05e42c7f7f75bcedn, 18],
  ['date', '2024-02-29', 0x98f4c43666df1404n, 14],
  ['date', '0001-01-01', 0x97b1e7d375a3a268n, 14],
  ['timestamp', '1999-12-31 23:59:59.999999', 0xba5fc748095606c2n, 9],
  ['timestamptz', '2024-03-10T12:34:56.789+05:30', 0x6b856ca579336b83n, 12],
  ['numeric', '0', 0x7a5b22367996dcfcn, 14],
  ['numeric', 'NaN', 0x7a5b22367996dcfdn, 15],
  ['numeric', '-12345.678900', 0x59731bd268d46ee3n, 17],
  ['numeric', '0.00001234', 0xd97d9d6d0e9f91b5n, 12],
  ['numeric', '1e20', 0xd32735c3aa01325bn, 6],
];

const UUID = 'a0eebc999c0b4ef8bb6d6bb9bd380a11';

const NOT_TAKEN: Record<KeyTypeName, readonly string[]> = {
  int2: [
    '',
    ' ',
    '-',
    '+',
    '32768',
    '-32769',
    '0000000032768',
    '1.0',
    '1e3',
    '0x1f',
    '1_000',
    '- 1',
    '--1',
    '1 2',
  ],
  int4: [
    '2147483648',
    '-2147483649',
    '4294967296',
    '0o17',
    '0b1',
    'abc',
    '1\u00a0',
    '٣',
    '12345678901234567890',
  ],
  int8: [
    '9223372036854775808',
    '-9223372036854775809',
    '18446744073709551616',
    '99999999999999999999999999',
    '123456789012345678x',
    '1234567890x',
    '12_345',
  ],
  text: [],
  varchar: [],
  bpchar: [],
  uuid: [
    '',
    UUID.slice(1),
    `${UUID}0`,
    ` ${UUID}`,
    `{${UUID}`,
    `${UUID}}`,
    `${UUID}-`,
    `-${UUID}`,
    `a-${UUID}`,
    '{}',
  ],
  date: [
    ...['0000-01-01', '2023-02-29', '1900-02-29', '2024-04-31', '2024-13-01', '2024-00-10', '2024-01-00'],
    ...[
      '01/02/2003',
      '2024-1-1',
      '20240101',
      'today',
      'infinity',
      '2024-01-01 BC',
      '12024-01-01',
      '2024.01.01',
    ],
  ],
  timestamp: [
    ...[
      '2024-01-01',
      '2024-01-01 10:00',
      '2024-01-01 24:00:00',
      '2024-01-01 23:60:00',
      '2024-01-01 23:59:60',
    ],
    ...[
      '2024-01-01 10:00:00Z',
      '2024-01-01 10:00:00+00',
      '2024-01-01 10:00:00.',
      '2024-01-01 10:00:00.1234567',
    ],
    ...['2024-02-30 10:00:00', '2024-01-01t10:00:00', '2024-01-01  10:00:00', '2024-01-01 10:00:00 ', 'now'],
    ...['2024-01-01 10.00:00', '2024-01-01 10:00.00'],
  ],
  timestamptz: [
    ...['2024-01-01 10:00:00', '2024-01-01 10:00:00+', '2024-01-01 10:00:00+1', '2024-01-01 10:00:00+16'],
    ...[
      '2024-01-01 10:00:00+01:60',
      '2024-01-01 10:00:00 CET',
      '2024-01-01 10:00:00+01:0',
      '2024-01-01 10:00:00z',
    ],
    ...['2024-01-01 10:00:00+01:00:30', '2024-01-01 10:00:00 Europe/Paris', '2024-01-01 10:00:00-+1'],
  ],
  numeric: [
    ...[
      '',
      '.',
      '-',
      '-.',
      'e5',
      '.e5',
      '1e',
      '1e+',
      '1.2.3',
      '1_0',
      '0x10',
      '-NaN',
      '+nan',
      'infinit',
      '1e5.5',
    ],
    ...['1e1001', '1e-1001', '1'.repeat(1001), '1 2', '1,5', '--1', 'abc', '1e99999999999'],
  ],
};

function hashOf(type: KeyTypeName, text: string): bigint | undefined {
  const bytes = Buffer.from(text);
  const hash = { high: 0, low: 0 };
  return hashKeyText(hash, type, bytes, 0, bytes.length, NO_TYPE_MODIFIER) ? asBigInt(hash) : undefined;
}

function asBigInt(hash: { high: number; low: number }): bigint {
  return (BigInt(hash.high >>> 0) << 32n) | BigInt(hash.low >>> 0);
}

/** The bucket of an int32 that a key folds into. */
function bucketOfFolded(folded: bigint, bucketCount: number): number {
  return bucketOfInteger('int4', Number(BigInt.asIntN(32, folded)), bucketCount);
}

/** hashint8's fold, as it is defined. */
function fold(value: bigint): bigint {
  return BigInt.asIntN(32, value ^ (value >= 0n ? value >> 32n : ~(value >> 32n)));
}

function int64Bytes(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(value);
  return bytes;
}

/** numeric_send's form. */
function numericBytes(weight: number, sign: number, scale: number, digits: readonly number[]): Buffer {
  const bytes = Buffer.alloc(8 + digits.length * 2);
  [digits.length, weight & 0xffff, sign, scale, ...digits].forEach((word, index) => {
    bytes.writeUInt16BE(word, index * 2);
  });
  return bytes;
}

function bucketOfWholeBinary(type: KeyTypeName, parameterOid: number, bytes: Buffer, typeModifier?: number) {
  return bucketOfBinary(type, parameterOid, bytes, 0, bytes.length, 1009, typeModifier);
}

describe('the hash', () => {
  test.each(SERVER_VECTORS)('%s %j is what the server said', (type, text, hash, bucket) => {
    expect(hashOf(type, text)).toBe(hash);
    expect(bucketOfText(type, text, 23)).toBe(bucket);
  });

  test('of a uint32 is that of its four bytes', () => {
    fc.assert(
      fc.property(fc.integer(), (value) => {
        const bytes = Buffer.alloc(4);
        bytes.writeInt32LE(value);
        const ofBytes = { high: 0, low: 0 };
        const ofWord = { high: 0, low: 0 };
        hashBytes(ofBytes, bytes, 0, 4);
        hashUint32(ofWord, value);
        expect(ofWord).toEqual(ofBytes);
      }),
    );
  });

  test('falls into its row hash modulo the number of buckets', () => {
    const counts = fc.oneof(
      fc.integer({ min: 1, max: 2 ** 16 }),
      fc.nat({ max: 16 }).map((power) => 2 ** power),
    );
    fc.assert(
      fc.property(fc.integer(), fc.integer(), counts, (high, low, bucketCount) => {
        const rowHash = BigInt.asUintN(64, asBigInt({ high, low }) + 0x49a0f4dd15e5a8e3n);
        expect(bucketOfHash({ high, low }, bucketCount)).toBe(Number(rowHash % BigInt(bucketCount)));
      }),
      { numRuns: 10_000 },
    );
  });

  test.each([0, -1, 2 ** 16 + 1, Number.NaN])('has no bucket among %d', (bucketCount) => {
    expect(() => bucketOfHash({ high: 0, low: 0 }, bucketCount)).toThrow('bucket count');
  });

  test('of NULL falls into bucket 0', () => {
    expect(bucketOfNull()).toBe(0);
  });
});

describe('integers', () => {
  test('in text fold as their definition says', () => {
    fc.assert(
      fc.property(keyTexts('int8'), (text) => {
        expect(bucketOfText('int8', text, 1009)).toBe(
          bucketOfFolded(fold(BigInt(text.replace('+', ''))), 1009),
        );
      }),
      { numRuns: 5000 },
    );
  });

  test('in binary hash as in text, whatever their size', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), (value) => {
        const expected = bucketOfText('int8', `${value}`, 1009);
        expect(bucketOfWholeBinary('int8', OID.int8, int64Bytes(value))).toBe(expected);
        expect(bucketOfWholeBinary('int4', OID.int8, int64Bytes(value))).toBe(expected);
      }),
    );
    fc.assert(
      fc.property(fc.integer({ min: -32768, max: 32767 }), (value) => {
        const bytes = int64Bytes(BigInt(value));
        const expected = bucketOfInteger('int2', value, 1009);
        for (const type of ['int2', 'int4', 'int8'] as const) {
          expect(bucketOfText(type, `${value}`, 1009)).toBe(expected);
          expect(bucketOfWholeBinary(type, OID.int2, bytes.subarray(6))).toBe(expected);
          expect(bucketOfWholeBinary(type, OID.int4, bytes.subarray(4))).toBe(expected);
          expect(bucketOfWholeBinary(type, OID.int8, bytes)).toBe(expected);
        }
      }),
    );
  });

  test('of a size other than their type’s are not taken', () => {
    const bytes = int64Bytes(1n);
    for (const [type, size] of Object.entries({ int2: 2, int4: 4, int8: 8 }) as [KeyTypeName, number][]) {
      for (let length = 0; length <= 8; length++) {
        for (const oid of [OID.unspecified, OID.unknown, OID[type]]) {
          const bucket = bucketOfWholeBinary(type, oid, bytes.subarray(8 - length));
          expect(bucket !== ASK_SERVER).toBe(length === size);
        }
      }
    }
  });

  test('that are numbers hash as in text', () => {
    const near = fc
      .tuple(fc.constantFrom(0, 2 ** 31, -(2 ** 31), 2 ** 32, -(2 ** 32)), fc.integer({ min: -2, max: 2 }))
      .map(([value, added]) => value + added);
    fc.assert(
      fc.property(fc.oneof(fc.maxSafeInteger(), near), (value) => {
        for (const type of ['int2', 'int4', 'int8'] as const) {
          expect(bucketOfInteger(type, value, 1009)).toBe(bucketOfText(type, `${value}`, 1009));
        }
      }),
    );
    for (const value of [2 ** 53, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(bucketOfInteger('int8', value, 16)).toBe(ASK_SERVER);
    }
  });
});

describe('other keys', () => {
  test('bytes are read within their bounds alone', () => {
    for (const [type, text, , bucket] of SERVER_VECTORS) {
      const bytes = Buffer.from(`7${text}7`);
      expect(bucketOfTextBytes(type, bytes, 1, bytes.length - 1, 23)).toBe(bucket);
    }
  });

  test('long text hashes as its bytes do', () => {
    for (const length of [1364, 1365, 1366, 4096, 4097, 20_000]) {
      const text = '世'.repeat(length);
      const bytes = Buffer.from(text);
      expect(bucketOfText('text', text, 1009)).toBe(bucketOfTextBytes('text', bytes, 0, bytes.length, 1009));
      expect(bucketOfWholeBinary('varchar', OID.text, bytes)).toBe(bucketOfText('text', text, 1009));
    }
  });

  test('bpchar has no blanks at its end, and text has', () => {
    expect(bucketOfText('bpchar', 'ab   ', 1009)).toBe(bucketOfText('text', 'ab', 1009));
    expect(bucketOfText('bpchar', '   ', 1009)).toBe(bucketOfText('text', '', 1009));
    expect(bucketOfText('bpchar', 'ab\t', 1009)).toBe(bucketOfText('text', 'ab\t', 1009));
    expect(bucketOfText('text', 'ab ', 1009)).not.toBe(bucketOfText('text', 'ab', 1009));
  });

  test('days and microseconds are those of the calendar', () => {
    fc.assert(
      fc.property(keyTexts('timestamp'), (text) => {
        const day = text.slice(0, 10);
        const epochMs = Date.parse('2000-01-01T00:00:00Z');
        const days = (Date.parse(`${day}T00:00:00Z`) - epochMs) / 86_400_000;
        expect(bucketOfText('date', day, 1009)).toBe(bucketOfInteger('int4', days, 1009));
        const seconds = (Date.parse(`${day}T${text.slice(11, 19)}Z`) - epochMs) / 1000;
        const microseconds = BigInt(seconds) * 1_000_000n + BigInt(text.slice(20).padEnd(6, '0'));
        const expected = bucketOfFolded(fold(microseconds), 1009);
        expect(bucketOfText('timestamp', text, 1009)).toBe(expected);
        expect(bucketOfWholeBinary('timestamp', OID.timestamp, int64Bytes(microseconds))).toBe(expected);
        expect(bucketOfText('timestamptz', `${text}Z`, 1009)).toBe(expected);
      }),
      { numRuns: 2000 },
    );
  });

  test('microseconds carry from one half of the int64 into the other', () => {
    const epochMs = Date.parse('2000-01-01T00:00:00Z');
    fc.assert(
      fc.property(
        fc.integer({ min: -14_000_000, max: 58_000_000 }),
        fc.integer({ min: -1_000_000, max: 1_000_000 }),
        (halves, added) => {
          const microseconds = BigInt(halves) * 2n ** 32n + BigInt(added);
          // Moved up by whole seconds, so that the division has no negative remainder.
          const shifted = microseconds + 10n ** 18n;
          const seconds = Number(shifted / 1_000_000n - 10n ** 12n);
          const fraction = `${shifted % 1_000_000n}`.padStart(6, '0');
          const text = `${new Date(epochMs + seconds * 1000).toISOString().slice(0, 19)}.${fraction}`;
          expect(bucketOfText('timestamp', text, 1009)).toBe(bucketOfFolded(fold(microseconds), 1009));
        },
      ),
      { numRuns: 1000 },
    );
  });

  test('one instant is one key, whatever its offset', () => {
    const instant = bucketOfText('timestamptz', '2024-03-10 12:00:00Z', 1009);
    for (const same of [
      '2024-03-10 13:00:00+01',
      '2024-03-10T17:30:00.000+05:30',
      '2024-03-10 08:30:00-0330',
    ]) {
      expect(bucketOfText('timestamptz', same, 1009)).toBe(instant);
    }
  });

  test('one number is one key, however it is written', () => {
    for (const spellings of [
      ['12345.6789', '+0012345.678900', '123456789e-4', '.0000123456789e9', ' 12345.6789 ', '-12345.6789'],
      ['10000', '1e4', '0.1E+5', '10000.0000', '100000000e-4', '1000000.e-2'],
      ['0', '-0', '0.000', '.0e9', '0e-1000'],
      ['NaN', 'nan', 'Infinity', '-inf'],
    ]) {
      expect(new Set(spellings.map((spelling) => hashOf('numeric', spelling))).size).toBe(1);
    }
  });

  test('numeric in binary is the same number without zeros at its ends', () => {
    const expected = bucketOfText('numeric', '10000.05', 1009);
    expect(bucketOfWholeBinary('numeric', OID.numeric, numericBytes(1, 0, 2, [1, 0, 500]))).toBe(expected);
    expect(bucketOfWholeBinary('numeric', 0, numericBytes(2, 0x4000, 8, [0, 1, 0, 500, 0]))).toBe(expected);
    const zero = bucketOfText('numeric', '0', 1009);
    expect(bucketOfWholeBinary('numeric', 0, numericBytes(0, 0, 0, []))).toBe(zero);
    expect(bucketOfWholeBinary('numeric', 0, numericBytes(7, 0, 0, [0, 0]))).toBe(zero);
    const special = bucketOfText('numeric', 'NaN', 1009);
    for (const sign of [0xc000, 0xd000, 0xf000]) {
      expect(bucketOfWholeBinary('numeric', 0, numericBytes(0, sign, 0, []))).toBe(special);
    }
  });
});

describe('ASK_SERVER', () => {
  test.each(Object.entries(NOT_TAKEN) as [KeyTypeName, string[]][])(
    'for %s that means something else or nothing',
    (type, texts) => {
      for (const text of texts) expect([text, bucketOfText(type, text, 16)]).toEqual([text, ASK_SERVER]);
    },
  );

  test('for binary of the wrong size or shape', () => {
    const eight = int64Bytes(1n);
    expect(bucketOfWholeBinary('uuid', OID.uuid, eight)).toBe(ASK_SERVER);
    expect(bucketOfWholeBinary('date', OID.date, eight)).toBe(ASK_SERVER);
    expect(bucketOfWholeBinary('timestamptz', OID.timestamptz, eight.subarray(1))).toBe(ASK_SERVER);
    // No room for a header, more or less digits than stated, a sign that is none, a digit that is none.
    expect(bucketOfWholeBinary('numeric', 0, Buffer.alloc(7))).toBe(ASK_SERVER);
    expect(bucketOfWholeBinary('numeric', 0, Buffer.concat([numericBytes(0, 0, 0, [1]), eight]))).toBe(
      ASK_SERVER,
    );
    expect(bucketOfWholeBinary('numeric', 0, numericBytes(0, 0, 0, [1]).subarray(0, 9))).toBe(ASK_SERVER);
    expect(bucketOfWholeBinary('numeric', 0, numericBytes(0, 1, 0, [1]))).toBe(ASK_SERVER);
    expect(bucketOfWholeBinary('numeric', 0, numericBytes(0, 0, 0, [10_000]))).toBe(ASK_SERVER);
    expect(bucketOfWholeBinary('numeric', 0, numericBytes(0, 0, 0, new Array(1025).fill(1)))).toBe(
      ASK_SERVER,
    );
  });

  test('for binary numerics with digits beyond their display scale, which the server cuts', () => {
    expect(bucketOfWholeBinary('numeric', 0, numericBytes(0, 0, 1, [1, 2500]))).toBe(ASK_SERVER);
    expect(bucketOfWholeBinary('numeric', 0, numericBytes(0, 0, 2, [1, 2500]))).toBe(
      bucketOfText('numeric', '1.25', 1009),
    );
  });

  test('for values that the column’s type modifier changes', () => {
    const varchar3 = 4 + 3;
    expect(bucketOfText('varchar', 'abc ', 16, varchar3)).toBe(ASK_SERVER);
    expect(bucketOfText('varchar', 'ab ', 16, varchar3)).toBe(bucketOfText('text', 'ab ', 16));
    const numeric10And2 = ((10 << 16) | 2) + 4;
    expect(bucketOfText('numeric', '1.005', 16, numeric10And2)).toBe(ASK_SERVER);
    expect(bucketOfText('numeric', '1.500', 16, numeric10And2)).toBe(bucketOfText('numeric', '1.5', 16));
    expect(bucketOfWholeBinary('numeric', 0, numericBytes(0, 0, 4, [1, 50]), numeric10And2)).toBe(ASK_SERVER);
    const numeric5AndMinus2 = ((5 << 16) | (-2 & 0x7ff)) + 4;
    expect(bucketOfText('numeric', '1250', 16, numeric5AndMinus2)).toBe(ASK_SERVER);
    expect(bucketOfText('numeric', '1200', 16, numeric5AndMinus2)).toBe(bucketOfText('numeric', '1200', 16));
    expect(bucketOfText('timestamp', '2024-01-01 00:00:00.125', 16, 2)).toBe(ASK_SERVER);
    expect(bucketOfText('timestamp', '2024-01-01 00:00:00.120', 16, 2)).not.toBe(ASK_SERVER);
    expect(bucketOfWholeBinary('timestamptz', 0, int64Bytes(-1_000_001n), 0)).toBe(ASK_SERVER);
    expect(bucketOfWholeBinary('timestamptz', 0, int64Bytes(-1_000_000n), 0)).not.toBe(ASK_SERVER);
  });

  test('for binary of a type that is not compared in the key’s hash family', () => {
    expect(bucketOfWholeBinary('timestamptz', OID.timestamp, int64Bytes(1n))).toBe(ASK_SERVER);
    expect(bucketOfWholeBinary('int8', OID.timestamp, int64Bytes(1n))).toBe(ASK_SERVER);
    expect(bucketOfWholeBinary('text', OID.bytea, int64Bytes(1n))).toBe(ASK_SERVER);
  });
});

test('keys are comparable within their hash family alone', () => {
  const comparable: Record<KeyTypeName, readonly KeyTypeName[]> = {
    int2: ['int2', 'int4', 'int8'],
    int4: ['int2', 'int4', 'int8'],
    int8: ['int2', 'int4', 'int8'],
    text: ['text', 'varchar'],
    varchar: ['text', 'varchar'],
    bpchar: ['bpchar'],
    uuid: ['uuid'],
    date: ['date'],
    timestamp: ['timestamp'],
    timestamptz: ['timestamptz'],
    numeric: ['numeric'],
  };
  for (const type of Object.keys(comparable) as KeyTypeName[]) {
    const found = Object.entries(OID).filter(([, oid]) => isComparable(type, oid));
    expect(found.map(([name]) => name).sort()).toEqual(
      [...comparable[type], 'unknown', 'unspecified'].sort(),
    );
  }
});

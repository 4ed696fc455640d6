import { describe, expect, it } from 'vitest';
import { OID } from '../pg/oid.ts';
import { liftLiterals } from './lift.ts';
import { isAlwaysReadable } from './lifted-values.ts';

function readable(value: string, oid: number): boolean {
  return isAlwaysReadable(liftLiterals(`UPDATE t SET v = ${value} WHERE id = 1`)!, [oid, OID.int8]);
}

describe('values that every server reads', () => {
  it.each([
    ["'anything at all, '' too'", OID.text],
    ["''", OID.varchar],
    ["'x '", OID.bpchar],
    ["'true'", OID.bool],
    ["'-123'", OID.int4],
    ["'999999999999999999'", OID.int8],
    ["'1.50'", OID.numeric],
    ["'A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11'", OID.uuid],
    ["'2024-02-28'", OID.date],
    ["'2024-12-01 23:59:59.123456'", OID.timestamp],
    ["'2024-12-01T00:00:00'", OID.timestamptz],
    ['5', OID.int4],
    ['-9223372036854775808', OID.int8],
    ['1.25', OID.numeric],
  ])('%s', (value, oid) => {
    expect(readable(value, oid)).toBe(true);
  });

  it.each([
    ["'abc'", OID.int4],
    ["' 5'", OID.int4],
    ["'9999999999'", OID.int4],
    ["'99999'", OID.int2],
    ["'yes'", OID.bool],
    ["'NaN'", OID.numeric],
    ["'2024-02-30'", OID.date],
    ["'01/02/2024'", OID.date],
    ["'2024-02-28 24:00:00'", OID.timestamp],
    ["'now'", OID.timestamptz],
    ["'2024-02-28'", OID.interval],
    ["'x'", OID.unknown],
    ["'happy'", 16_400],
    ['1e400000', OID.numeric],
  ])('not for sure: %s', (value, oid) => {
    expect(readable(value, oid)).toBe(false);
  });

  it('every value counts', () => {
    const lifted = liftLiterals("INSERT INTO t VALUES (1, 'a', 'b')")!;
    expect(isAlwaysReadable(lifted, [OID.int4, OID.text, OID.text])).toBe(true);
    expect(isAlwaysReadable(lifted, [OID.int4, OID.text, OID.int4])).toBe(false);
    expect(isAlwaysReadable(lifted, [OID.int4, OID.text])).toBe(false);
  });
});

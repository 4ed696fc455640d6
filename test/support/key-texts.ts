/** For tests: random keys of each type in text format, in the forms that the router takes; and such texts, damaged. */
import fc from 'fast-check';
import type { KeyTypeName } from '../../src/pg/hash/key-type.ts';

const WHITE_SPACE = [' ', '\t', '\n', '\v', '\f', '\r'];
/** What may make one value of another, or none: digits, signs, separators, exponents, words' letters. */
const DAMAGE = [...'0123456789 +-.:,/eEtTzZxXoObB_{}afnuiyAFNUI', '\t', '\n', 'é', '٣', '\u00a0'];

const spaces = fc.array(fc.constantFrom(...WHITE_SPACE), { maxLength: 2 }).map((parts) => parts.join(''));
const zeros = fc.oneof(
  { weight: 4, arbitrary: fc.constant('') },
  { weight: 1, arbitrary: fc.constant('000') },
);

export function keyTexts(type: KeyTypeName): fc.Arbitrary<string> {
  switch (type) {
    case 'int2':
      return integers(16n);
    case 'int4':
      return integers(32n);
    case 'int8':
      return integers(64n);
    case 'text':
    case 'varchar':
    case 'bpchar':
      return characters;
    case 'uuid':
      return uuids;
    case 'date':
      return dates;
    case 'timestamp':
      return timestamps;
    case 'timestamptz':
      return fc.tuple(timestamps, offsets).map(([timestamp, offset]) => timestamp + offset);
    case 'numeric':
      return numerics;
  }
}

/** A key's text with one or two characters inserted, replaced or left out. */
export function mutatedKeyTexts(type: KeyTypeName): fc.Arbitrary<string> {
  const damage = fc.record({
    at: fc.nat({ max: 40 }),
    insert: fc.constantFrom('', ...DAMAGE),
    remove: fc.nat({ max: 1 }),
  });
  return fc.tuple(keyTexts(type), fc.array(damage, { minLength: 1, maxLength: 2 })).map(([text, damages]) => {
    const letters = [...text];
    for (const { at, insert, remove } of damages) letters.splice(at % (letters.length + 1), remove, insert);
    return letters.join('');
  });
}

function integers(bits: bigint): fc.Arbitrary<string> {
  const max = 2n ** (bits - 1n) - 1n;
  const value = fc.oneof(
    fc.bigInt({ min: -max - 1n, max }),
    fc.bigInt({ min: -1000n, max: 1000n }),
    // Around the powers of two and ten, where halves and digit counts change.
    fc
      .tuple(fc.boolean(), fc.nat({ max: 63 }), fc.constantFrom(2n, 10n), fc.bigInt({ min: -2n, max: 2n }))
      .map(([negative, power, base, added]) => (negative ? -1n : 1n) * base ** BigInt(power) + added)
      .filter((near) => near <= max && near >= -max - 1n),
  );
  return fc
    .tuple(spaces, fc.boolean(), zeros, value, spaces)
    .map(([before, plus, leading, number, after]) => {
      const sign = number < 0n ? '-' : plus ? '+' : '';
      return `${before}${sign}${leading}${number < 0n ? -number : number}${after}`;
    });
}

const characters = fc.oneof(
  fc.string({ maxLength: 40 }),
  fc.string({ unit: 'grapheme', maxLength: 12 }),
  fc.string({ unit: 'binary', maxLength: 12 }).map((text) => text.replaceAll('\0', '')),
  fc
    .tuple(fc.string({ maxLength: 5 }), fc.constantFrom(' ', '    ', '\t '))
    .map(([text, blanks]) => text + blanks),
  fc.nat({ max: 3000 }).map((length) => 'é'.repeat(length)),
);

const uuids = fc
  .tuple(fc.uuid(), fc.array(fc.boolean(), { minLength: 8, maxLength: 8 }), fc.boolean(), fc.boolean())
  .map(([uuid, hyphens, braces, upperCase]) => {
    const groups = uuid.replaceAll('-', '').match(/.{4}/g)!;
    const text = groups.map((group, index) => (index > 0 && hyphens[index] ? `-${group}` : group)).join('');
    return `${braces ? '{' : ''}${upperCase ? text.toUpperCase() : text}${braces ? '}' : ''}`;
  });

const dates = fc
  .oneof(
    // Days from 0001-01-01 to 9999-12-31, counted from 1970.
    fc.integer({ min: -719_162, max: 2_932_896 }),
    fc.integer({ min: 0, max: 30_000 }),
  )
  .map((days) => new Date(days * 86_400_000).toISOString().slice(0, 10));

const timestamps = fc
  .tuple(
    dates,
    fc.constantFrom(' ', 'T'),
    fc.integer({ min: 0, max: 86_399 }),
    fc.oneof(fc.constant(''), fc.stringMatching(/^\.[0-9]{1,6}$/), fc.stringMatching(/^\.[0-9]0{0,5}$/)),
  )
  .map(([date, separator, second, fraction]) => {
    const time = new Date(second * 1000).toISOString().slice(11, 19);
    return `${date}${separator}${time}${fraction}`;
  });

const offsets = fc.oneof(
  fc.constantFrom('Z', '+00', '-00', '+00:00'),
  fc.stringMatching(/^[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?$/),
);

const numerics = fc.oneof(
  fc.constantFrom('NaN', 'nan', '0', '-0.00', '.0', '0e5', 'Infinity', '-infinity', '+inf'),
  fc
    .tuple(
      spaces,
      fc.constantFrom('', '-', '+'),
      fc.oneof(
        fc.stringMatching(/^[0-9]{1,30}$/),
        fc.stringMatching(/^[0-9]{0,20}\.[0-9]{1,20}$/),
        fc.stringMatching(/^[0-9]{1,8}\.$/),
        fc.stringMatching(/^(0{0,9}[1-9]0{0,9}){1,3}(\.(0{0,9}[1-9]0{0,9}){1,3})?$/),
      ),
      fc.oneof(fc.constant(''), fc.stringMatching(/^[eE][+-]?[0-9]{1,2}$/), fc.constantFrom('e300', 'E-300')),
      spaces,
    )
    .map((parts) => parts.join('')),
);

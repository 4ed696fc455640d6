import { describe, expect, test } from 'vitest';
import { saslprep } from './saslprep.ts';
import { makeScramVerifier, parseScramVerifier } from './scram.ts';

describe('saslprep', () => {
  test.each([
    ['the examples of RFC 4013: soft hyphen', 'I\u00adX', 'IX'],
    ['no change', 'user', 'user'],
    ['case is kept', 'USER', 'USER'],
    ['compatibility forms', '\u00aa', 'a'],
    ['compatibility forms of more characters', '\u2168', 'IX'],
    ['other spaces', 'a\u00a0b\u3000ü', 'a b ü'],
    ['U+200B is a space rather than nothing', 'x\u200by', 'x y'],
    ['composition', 'A\u030a', '\u00c5'],
    ['right-to-left text', '\u06271\u0628', '\u06271\u0628'],
  ])('%s', (_what, password, prepared) => {
    expect(saslprep(password)).toBe(prepared);
  });

  test.each([
    ['a control character in ASCII', '\u0007'],
    ['a control character beside other text', '\u0007\u2168'],
    ['right-to-left text that ends otherwise', '\u06271\u2168'],
    ['right-to-left text with left-to-right within', '\u0627\u2168\u0628'],
    ['nothing left', '\u00ad'],
    ['a character that Unicode 3.2 did not have', '\u0221\u2168'],
    ['an emoji', '🔑\u2168'],
    ['half a surrogate pair', '\ud800\u2168'],
  ])('what the profile forbids is used as it is: %s', (_what, password) => {
    expect(saslprep(password)).toBe(password);
  });

  /** Passwords and what PostgreSQL 15 stored for them. */
  test.each([
    [
      'I\u00adX',
      'SCRAM-SHA-256$4096:CUk/aQ3NyZMjZTwJNBeeHw==$cDQxsGegxTSjYV17hNoHpJCg1jGgN2wVD5SAazzW9bU=:/SnLGCXTxH3RwQw2qbe67yFtW0BL5gKnIpPSfglwTeM=',
    ],
    [
      '\u00aa\u2168',
      'SCRAM-SHA-256$4096:36hHB2W7d8hsDHovxPfCdQ==$V2TFMkmd+De65P7v60JJ7n2E2Br9f5214Z3MZm4wVMM=:U6B88kzqy+OQ/pOjLfXtKlbIhe1VZ/yxqG2f/vEwDvo=',
    ],
    [
      '\u06271',
      'SCRAM-SHA-256$4096:CJdBDYK5RblXr6fwpLq+Kg==$fCj828ZYQmPhWK/uYD5fT0s9TlvsDGc0UDZ1wh7vi/Q=:em8wP0UUHxn9Szup4S0zYoQTFQ0wRPeuxomgD4PowqU=',
    ],
    [
      '\u06271\u0628',
      'SCRAM-SHA-256$4096:AC/pVdPtyZX1r/gewZl79g==$rel8aWpMJJodF+xpQc2lTEt/0TUzdIpIOUklx2/lbd4=:7maFUnc5YKnqjY4iAps9IffrQZYkQI3gnqWAUxUW58M=',
    ],
    [
      'x\u200by',
      'SCRAM-SHA-256$4096:9nJsGuN9K2iV1SJPLC0JAw==$sL+bQotFca6NUX27sAtcDJ3AIxj57S/6gQ4wf+hz8oA=:W5MrkX6Dzlcub45GjwE9UpqfAGY7hPxbOG8iSiw9riY=',
    ],
    [
      '\u00ad',
      'SCRAM-SHA-256$4096:LC1AYnAc0S0G1TZ2jNA4xA==$sk7X0sPavCrSugWVETRLH6NLu4+EW+JwUI+Haw5Bigg=:JAKC+fJQay3zC6xznOYozjSfgyssCYWS1KmmpBSZyZE=',
    ],
    [
      '\u0221\u00e9',
      'SCRAM-SHA-256$4096:TSjFUb2UriGfXwgUy24OBA==$RnDfy51FrXyoU19Di4cFZwJ0g/FIeJKWn74GCMQNAaw=:zeRi6z7zNVBI9B6hS7loT8bJojhCoFZh9lTY1bu3ZfI=',
    ],
    [
      'pa\u0007ss',
      'SCRAM-SHA-256$4096:U40stmnSEHehJZ6mBVo4Nw==$nCT+XDQSTaJupwEE71HQDFpEi0sf7pjycVV9/qJEe5I=:+LlN/QezcYgIcDpKbmc0uCXBqBePqj/eb2W7GpiTsOw=',
    ],
  ])('PostgreSQL prepares %j alike', async (password, stored) => {
    const verifier = parseScramVerifier(stored);
    const { salt, iterations } = verifier;
    expect(await makeScramVerifier({ password, salt, iterations })).toEqual(verifier);
  });
});

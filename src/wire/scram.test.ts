import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PosternError } from '../base/errors.ts';
import { chooseScram, SCRAM_MECHANISM } from './channel-binding.ts';
import {
  answerServerFirst,
  checkServerFinal,
  finishScramServer,
  formatScramVerifier,
  makeScramVerifier,
  mockScramVerifier,
  parseScramVerifier,
  type ScramVerifier,
  startScramClient,
  startScramServer,
} from './scram.ts';

/** RFC 7677, section 3. */
const rfc = {
  password: 'pencil',
  salt: Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64'),
  clientNonce: 'rOprNGfwEbeRWgbNEkqO',
  serverNonce: '%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0',
  clientFirst: 'n,,n=user,r=rOprNGfwEbeRWgbNEkqO',
  serverFirst: 'r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096',
  clientFinal:
    'c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=',
  serverFinal: 'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=',
};
const rfcVerifier = await makeScramVerifier({ password: rfc.password, salt: rfc.salt });
const rfcClientStart = {
  nonce: rfc.clientNonce,
  clientFirstBare: rfc.clientFirst.slice(3),
  channelBinding: 'biws',
};
const clientNonce = 'fyko+d2lbbFgONRv9qkxdawL';
const serverNonce = '3rfcNHYJY1ZVvWVs7j+Rx1a2';
const secret = Buffer.alloc(32, 3);

const violation = (message: string) =>
  expect.objectContaining({ sqlState: '08P01', severity: 'FATAL', message });

/** The server's last word to a client with this password; undefined: refused. */
async function exchange(verifier: ScramVerifier, password: string): Promise<string | undefined> {
  const { gs2 } = chooseScram([SCRAM_MECHANISM], { serverEndPoint: undefined, channelBinding: 'prefer' })!;
  const client = startScramClient(clientNonce, gs2);
  const server = startScramServer({ verifier, clientFirst: client.clientFirst, nonce: serverNonce });
  const answer = await answerServerFirst(client.state, password, server.serverFirst);
  const serverFinal = finishScramServer(server.state, answer.clientFinal);
  if (serverFinal !== undefined) checkServerFinal(answer.state, serverFinal);
  return serverFinal;
}

function startRfcServer(verifier = rfcVerifier, clientFirst = rfc.clientFirst) {
  return startScramServer({ verifier, clientFirst, nonce: rfc.serverNonce });
}

describe('the example of RFC 7677', () => {
  test('server side', () => {
    const { state, serverFirst } = startRfcServer();
    expect(serverFirst).toBe(rfc.serverFirst);
    expect(finishScramServer(state, rfc.clientFinal)).toBe(rfc.serverFinal);
  });

  test('client side', async () => {
    const { state, clientFinal } = await answerServerFirst(rfcClientStart, rfc.password, rfc.serverFirst);
    expect(clientFinal).toBe(rfc.clientFinal);
    expect(() => checkServerFinal(state, rfc.serverFinal)).not.toThrow();
  });
});

describe('an exchange', () => {
  test.each(['x', 'pass,word=', 'ß\u00adü', 'I\u00adX', '\u0627\u0031', '🔑', ''])(
    'password %j',
    async (password) => {
      const verifier = await makeScramVerifier({ password, salt: rfc.salt, iterations: 7 });
      expect(await exchange(parseScramVerifier(formatScramVerifier(verifier)), password)).toMatch(/^v=/);
      expect(await exchange(verifier, `${password}.`)).toBeUndefined();
    },
  );

  test('a user that is not there looks like one that is, up to the end', async () => {
    const mock = mockScramVerifier({ userName: 'nobody', secret });
    expect(mock.salt).toHaveLength(16);
    expect(mock.iterations).toBe(4096);
    expect(mockScramVerifier({ userName: 'nobody', secret })).toEqual(mock);
    expect(mockScramVerifier({ userName: 'nobody2', secret }).salt).not.toEqual(mock.salt);
    expect(mockScramVerifier({ userName: 'nobody', secret: Buffer.alloc(32) }).salt).not.toEqual(mock.salt);
    expect(await exchange(mock, 'anything')).toBeUndefined();
    // Even with a proof that would be right.
    const doomed = { ...rfcVerifier, mock: true };
    expect(finishScramServer(startRfcServer(doomed).state, rfc.clientFinal)).toBeUndefined();
    expect(() => formatScramVerifier(mock)).toThrow(/a bug in Postern/);
  });

  test('a client that could bind a channel, and one with extensions', async () => {
    const clientFirst = `y,,n=,r=${clientNonce},x=1`;
    const server = startScramServer({ verifier: rfcVerifier, clientFirst, nonce: serverNonce });
    const { clientFinal } = await answerServerFirst(
      { nonce: clientNonce, clientFirstBare: clientFirst.slice(3), channelBinding: 'biws' },
      rfc.password,
      server.serverFirst,
    );
    // The header that a client repeats is its own; "n,," would mean that somebody changed it on the way.
    expect(() => finishScramServer(server.state, clientFinal)).toThrow(
      violation('unexpected SCRAM channel-binding attribute in client-final-message'),
    );
  });
});

describe('what a server refuses', () => {
  test.each([
    ['', '08P01'],
    ['n', '08P01'],
    ['x,,n=,r=abc', '08P01'],
    ['n,n=,r=abc', '08P01'],
    ['p=tls-server-end-point,,n=,r=abc', '08P01'],
    ['n,a=admin,n=,r=abc', '0A000'],
    ['n,,m=ext,n=,r=abc', '0A000'],
    ['n,,r=abc', '08P01'],
    ['n,,n=', '08P01'],
    ['n,,n=,r=', '08P01'],
    ['n,,n=,r=äbc', '08P01'],
    ['n,,n=,r=a bc', '08P01'],
    ['n,,n=,r=abc,', 'none'],
    ['n,,n=,r=abc,x', '08P01'],
    ['n,,n=,r=abc,1=2', '08P01'],
    ['n,,n=,r=abc\0', '08P01'],
    ['n,,nx,r=abc', '08P01'],
  ])('client-first-message %j: %s', (clientFirst, sqlState) => {
    const start = () => startRfcServer(rfcVerifier, clientFirst);
    if (sqlState === 'none') expect(start).not.toThrow();
    else expect(start).toThrow(expect.objectContaining({ sqlState, severity: 'FATAL' }));
  });

  const [head, proof] = rfc.clientFinal.split(',p=') as [string, string];
  test.each([
    ['', 'malformed SCRAM message'],
    [`${head}`, 'malformed SCRAM message'],
    [`${head},`, 'malformed SCRAM message'],
    [`${head},p=`, 'malformed SCRAM message'],
    [`${head},p=${proof.slice(4)}`, 'malformed SCRAM message'],
    [`${head},p=${proof.replace('=', '')}`, 'malformed SCRAM message'],
    [`${head},p=*${proof.slice(1)}`, 'malformed SCRAM message'],
    [`${head},p=${proof},x=1`, 'malformed SCRAM message'],
    [
      `${head.replace('biws', 'eSws')},p=${proof}`,
      'unexpected SCRAM channel-binding attribute in client-final-message',
    ],
    [`${head}x,p=${proof}`, 'invalid SCRAM response'],
    [`p=${proof},${head}`, 'malformed SCRAM message'],
  ])('client-final-message %j', (clientFinal, message) => {
    expect(() => finishScramServer(startRfcServer().state, clientFinal)).toThrow(violation(message));
  });

  test('a proof with any bit changed', () => {
    const { state } = startRfcServer();
    for (let bit = 0; bit < 256; bit++) {
      const wrong = Buffer.from(proof, 'base64');
      wrong[bit >> 3]! ^= 1 << (bit & 7);
      expect(finishScramServer(state, `${head},p=${wrong.toString('base64')}`)).toBeUndefined();
    }
  });

  test('an extension that the proof does not cover', () => {
    expect(finishScramServer(startRfcServer().state, `${head},x=1,p=${proof}`)).toBeUndefined();
  });
});

describe('what a client refuses', () => {
  const nonce = rfc.clientNonce + rfc.serverNonce;
  test.each([
    ['', 'malformed SCRAM message'],
    ['e=other-error', 'malformed SCRAM message'],
    [`r=${rfc.clientNonce},s=AAAA,i=4096`, 'invalid SCRAM response'],
    [`r=x${nonce},s=AAAA,i=4096`, 'invalid SCRAM response'],
    [`r=${nonce}ü,s=AAAA,i=4096`, 'invalid SCRAM response'],
    [`r=${nonce}`, 'malformed SCRAM message'],
    [`r=${nonce},s=,i=4096`, 'malformed SCRAM message'],
    [`r=${nonce},s=A,i=4096`, 'malformed SCRAM message'],
    [`r=${nonce},s=AAAA`, 'malformed SCRAM message'],
    [`r=${nonce},s=AAAA,i=`, 'malformed SCRAM message'],
    [`r=${nonce},s=AAAA,i=0`, 'malformed SCRAM message'],
    [`r=${nonce},s=AAAA,i=-1`, 'malformed SCRAM message'],
    [`r=${nonce},s=AAAA,i=1e3`, 'malformed SCRAM message'],
    [`r=${nonce},s=AAAA,i=10000001`, 'malformed SCRAM message'],
  ])('server-first-message %j', async (serverFirst, message) => {
    await expect(answerServerFirst(rfcClientStart, rfc.password, serverFirst)).rejects.toThrow(
      violation(message),
    );
  });

  test.each([
    ['', 'malformed SCRAM message'],
    ['v=', 'malformed SCRAM message'],
    ['v=AAAA', 'malformed SCRAM message'],
    ['e=invalid-proof', 'the server refused the SCRAM exchange'],
    [`v=${Buffer.alloc(32).toString('base64')}`, 'incorrect server signature'],
    [`${rfc.serverFinal}x`, 'malformed SCRAM message'],
  ])('server-final-message %j', async (serverFinal, message) => {
    const { state } = await answerServerFirst(rfcClientStart, rfc.password, rfc.serverFirst);
    expect(() => checkServerFinal(state, serverFinal)).toThrow(violation(message));
  });
});

describe('verifiers', () => {
  test('one that PostgreSQL 15 stored for "secret" is the one that is made here', async () => {
    const stored =
      'SCRAM-SHA-256$4096:+2nY4NaRnDkF7RLPHaZ8pA==$eBAUcZprNTqYBPhEn0C6Fp+4IHs4/u1dM5UgdZaStqE=:WwS4/mhuR4olqSGPGlzSNnzmqUuJrld6gVP/Z6dXDzM=';
    const verifier = parseScramVerifier(stored);
    expect(formatScramVerifier(verifier)).toBe(stored);
    expect(await makeScramVerifier({ password: 'secret', salt: verifier.salt })).toEqual(verifier);
  });

  test.each([
    '',
    'secret',
    'md5d41d8cd98f00b204e9800998ecf8427e',
    'SCRAM-SHA-256$4096:c2FsdA==$AAAA:AAAA',
    formatScramVerifier(rfcVerifier).replace('4096', '0'),
    formatScramVerifier(rfcVerifier).replace('4096', '9999999999'),
    formatScramVerifier(rfcVerifier).replace('$W', '$*'),
    `${formatScramVerifier(rfcVerifier)}\n`,
  ])('%j is not one', (text) => {
    expect(() => parseScramVerifier(text)).toThrow(expect.objectContaining({ sqlState: '22023' }));
  });
});

describe('rubbish', () => {
  const messageArbitrary = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.string({ unit: fc.constantFrom(...'nyparcsivem=,biwsAA0') }),
    fc
      .tuple(
        fc.constantFrom(rfc.clientFirst, rfc.serverFirst, rfc.clientFinal, rfc.serverFinal),
        fc.nat(),
        fc.string(),
      )
      .map(
        ([sound, at, text]) =>
          sound.slice(0, at % sound.length) + text + sound.slice((at % sound.length) + 1),
      ),
  );

  test('every message is answered or refused with a PosternError', async () => {
    const isPosternError = (error: unknown) => {
      if (!(error instanceof PosternError)) throw error;
    };
    const { state } = startRfcServer();
    await fc.assert(
      fc.asyncProperty(messageArbitrary, async (message) => {
        for (const step of [
          () => startRfcServer(rfcVerifier, message),
          () => finishScramServer(state, message),
          () => checkServerFinal({ serverSignature: Buffer.alloc(32) }, message),
          () => parseScramVerifier(message),
        ]) {
          try {
            step();
          } catch (error) {
            isPosternError(error);
          }
        }
        // Large counts of iterations are sound, and slow.
        if (!/i=\d{5}/.test(message)) {
          await answerServerFirst(rfcClientStart, 'x', message).catch(isPosternError);
        }
      }),
      { numRuns: 1000 },
    );
  });
});

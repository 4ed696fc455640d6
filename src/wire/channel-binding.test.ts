import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import {
  checkChannelBinding,
  chooseScram,
  readGs2,
  SCRAM_MECHANISM,
  SCRAM_PLUS_MECHANISM,
  scramMechanisms,
} from './channel-binding.ts';
import {
  answerServerFirst,
  checkServerFinal,
  finishScramServer,
  makeScramVerifier,
  startScramClient,
  startScramServer,
} from './scram.ts';

const endPoint = createHash('sha256').update('the server').digest();
const otherEndPoint = createHash('sha256').update('somebody in between').digest();
const nonce = 'fyko+d2lbbFgONRv9qkxdawL';
const verifier = await makeScramVerifier({ password: 'pw', salt: Buffer.from('salt'), iterations: 5 });

type Policy = 'disable' | 'prefer' | 'require';

/** A login over a channel of which each side sees its own end; `offer` changes what the server offers on the way. */
async function exchange(options: {
  readonly client: Buffer | undefined;
  readonly server: Buffer | undefined;
  readonly policy?: Policy;
  readonly offer?: (mechanisms: readonly string[]) => readonly string[];
}): Promise<{ mechanism: string; accepted: boolean }> {
  const offered = scramMechanisms(options.server);
  const chosen = chooseScram(options.offer?.(offered) ?? offered, {
    serverEndPoint: options.client,
    channelBinding: options.policy ?? 'prefer',
  });
  if (!chosen) throw new Error('no mechanism');
  const { mechanism } = chosen;
  const client = startScramClient(nonce, chosen.gs2);
  const server = startScramServer({
    ...{ verifier, nonce, mechanism, serverEndPoint: options.server },
    clientFirst: client.clientFirst,
  });
  const answer = await answerServerFirst(client.state, 'pw', server.serverFirst);
  const serverFinal = finishScramServer(server.state, answer.clientFinal);
  if (serverFinal !== undefined) checkServerFinal(answer.state, serverFinal);
  return { mechanism, accepted: serverFinal !== undefined };
}

const withoutPlus = () => [SCRAM_MECHANISM];

describe('a login', () => {
  test('is bound where both sides can', async () => {
    expect(scramMechanisms(endPoint)).toEqual([SCRAM_PLUS_MECHANISM, SCRAM_MECHANISM]);
    const bound = { mechanism: SCRAM_PLUS_MECHANISM, accepted: true };
    expect(await exchange({ client: endPoint, server: endPoint })).toEqual(bound);
    expect(await exchange({ client: endPoint, server: endPoint, policy: 'require' })).toEqual(bound);
  });

  test.each([
    ['the client does not want to', { client: endPoint, server: endPoint, policy: 'disable' as Policy }],
    ['the client sees no certificate', { client: undefined, server: endPoint }],
    ['the server has none', { client: endPoint, server: undefined }],
    ['neither has', { client: undefined, server: undefined }],
  ])('is not bound where %s', async (_, options) => {
    expect(await exchange(options)).toEqual({ mechanism: SCRAM_MECHANISM, accepted: true });
  });

  test('through somebody with another certificate is refused', async () => {
    await expect(exchange({ client: otherEndPoint, server: endPoint })).rejects.toMatchObject({
      sqlState: '28000',
      severity: 'FATAL',
      message: 'SCRAM channel binding check failed',
    });
  });

  test('from whose offer PLUS was taken is refused', async () => {
    await expect(exchange({ client: endPoint, server: endPoint, offer: withoutPlus })).rejects.toMatchObject({
      sqlState: '28000',
      severity: 'FATAL',
      message: 'SCRAM channel binding negotiation error',
      detail: expect.stringContaining('thinks the server does not'),
    });
  });

  test('that has to be bound does not come about otherwise', async () => {
    const require = 'require' as const;
    for (const options of [
      { client: endPoint, server: undefined, policy: require },
      { client: undefined, server: endPoint, policy: require },
      { client: endPoint, server: endPoint, policy: require, offer: withoutPlus },
    ])
      await expect(exchange(options)).rejects.toThrow('no mechanism');
    expect(chooseScram(['OTHER'], { serverEndPoint: undefined, channelBinding: 'prefer' })).toBeUndefined();
  });

  test('bound to a channel can not be answered as if it were not', async () => {
    const { gs2 } = chooseScram(scramMechanisms(endPoint), {
      serverEndPoint: endPoint,
      channelBinding: 'prefer',
    })!;
    for (const said of ['biws', 'eSws', '', Buffer.from('p=tls-server-end-point,,').toString('base64')])
      expect(() => checkChannelBinding(gs2, said)).toThrow('SCRAM channel binding check failed');
    expect(() => checkChannelBinding(gs2, gs2.channelBinding)).not.toThrow();
  });
});

describe('a client-first message', () => {
  const plus = { mechanism: SCRAM_PLUS_MECHANISM, serverEndPoint: endPoint };
  const plain = { mechanism: SCRAM_MECHANISM, serverEndPoint: endPoint };
  test.each([
    ['n,,n=', plus, '08P01', /does not include channel binding data/],
    ['y,,n=', plus, '08P01', /does not include channel binding data/],
    ['p=tls-server-end-point,,n=', plain, '08P01', /without channel binding/],
    ['p=tls-unique,,n=', plus, '08P01', /unsupported SCRAM channel-binding type "tls-unique"/],
    ['p=tls-\u0007\u00e4,,n=', plus, '08P01', /type "tls-\?\?"/],
    ['p=tls-server-end-point', plus, '08P01', /names no type/],
    ['p,,n=', plus, '08P01', /names no type/],
    ['p=tls-server-end-point,n=', plus, '08P01', /Unexpected attribute/],
    ['p=tls-server-end-point,a=admin,n=', plus, '0A000', /authorization identity/],
    ['', plus, '08P01', /Unexpected channel-binding flag/],
    ['p=tls-server-end-point,,n=', { ...plus, serverEndPoint: undefined }, '08P01', /invalid SASL/],
  ])('%j to %j: %s', (clientFirst, chosen, sqlState, words) => {
    let thrown: { sqlState?: string; message?: string; detail?: string } = {};
    try {
      readGs2(clientFirst, chosen);
    } catch (error) {
      thrown = error as typeof thrown;
    }
    expect(thrown.sqlState).toBe(sqlState);
    expect(`${thrown.message} ${thrown.detail}`).toMatch(words);
  });
});

/**
 * Channel binding of SCRAM (RFC 5802, section 6): the proof of the password covers the server's certificate as the client sees
 * it, so that it is of no use to somebody in between who has another one. The type is tls-server-end-point (RFC 5929), the one
 * that PostgreSQL knows; its data is made where the certificate is (platform/certificate.ts).
 *
 *   server offers PLUS?   client says   is
 *   yes                   p             bound: the client-final message has to carry the same data
 *   yes                   y             refused: somebody has taken PLUS out of the offer
 *   yes or no             n             not bound: the client can't, or does not want to
 *   no                    y             not bound: the client would, and the server can't
 *   no                    p             refused
 *
 * Words and SQLSTATEs are those of PostgreSQL (auth-scram.c, fe-auth-scram.c).
 */
import { PosternError, protocolNotSupported, protocolViolation } from '../base/errors.ts';

export const SCRAM_MECHANISM = 'SCRAM-SHA-256';
export const SCRAM_PLUS_MECHANISM = 'SCRAM-SHA-256-PLUS';

const BINDING_TYPE = 'tls-server-end-point';

/** What a server offers, best first. `serverEndPoint`: of the connection, if it has one. */
export function scramMechanisms(serverEndPoint: Buffer | undefined): readonly string[] {
  return serverEndPoint ? [SCRAM_PLUS_MECHANISM, SCRAM_MECHANISM] : [SCRAM_MECHANISM];
}

/** The beginning of a client-first message, and what the client-final one has to repeat of it. */
export interface Gs2 {
  readonly header: string;
  /** The value of the attribute `c`. */
  readonly channelBinding: string;
  readonly isBound: boolean;
}

/** A server's side: reads it. `mechanism`: as the client has chosen it, of those that were offered. */
export function readGs2(
  clientFirst: string,
  chosen: { readonly mechanism: string; readonly serverEndPoint: Buffer | undefined },
): Gs2 {
  const wantsPlus = chosen.mechanism === SCRAM_PLUS_MECHANISM;
  const flag = clientFirst[0];
  let afterFlag = 1;
  switch (flag) {
    case 'n':
    case 'y':
      if (wantsPlus)
        throw malformed(
          'The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.',
        );
      if (flag === 'y' && chosen.serverEndPoint) throw downgraded();
      break;
    case 'p': {
      if (!wantsPlus)
        throw malformed(
          'The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.',
        );
      const comma = clientFirst.indexOf(',');
      const type = clientFirst[1] === '=' && comma > 0 ? clientFirst.slice(2, comma) : undefined;
      if (type === undefined) throw malformed('The channel-binding flag names no type.');
      if (type !== BINDING_TYPE)
        throw protocolViolation(`unsupported SCRAM channel-binding type "${printable(type)}"`);
      afterFlag = comma;
      break;
    }
    default:
      throw malformed('Unexpected channel-binding flag.');
  }
  if (clientFirst[afterFlag] !== ',') throw malformed('Comma expected after the channel-binding flag.');
  if (clientFirst[afterFlag + 1] === 'a')
    throw protocolNotSupported('client uses authorization identity, but it is not supported');
  if (clientFirst[afterFlag + 1] !== ',') throw malformed('Unexpected attribute in client-first-message.');
  return gs2(
    clientFirst.slice(0, afterFlag + 2),
    wantsPlus ? requireEndPoint(chosen.serverEndPoint) : undefined,
  );
}

/** A server's side: throws unless the client-final message repeats it. */
export function checkChannelBinding(expected: Pick<Gs2, 'channelBinding' | 'isBound'>, said: string): void {
  if (said === expected.channelBinding) return;
  if (!expected.isBound)
    throw protocolViolation('unexpected SCRAM channel-binding attribute in client-final-message');
  throw new PosternError({
    sqlState: '28000',
    message: 'SCRAM channel binding check failed',
    severity: 'FATAL',
  });
}

export interface ClientBinding {
  /** Of the connection; undefined: it has none. */
  readonly serverEndPoint: Buffer | undefined;
  /** `require`: rather no login than one that is not bound. */
  readonly channelBinding: 'disable' | 'prefer' | 'require';
}

/** A client's side: which of the offered mechanisms it takes; undefined: none of them is spoken here. */
export function chooseScram(
  offered: readonly string[],
  binding: ClientBinding,
): { readonly mechanism: string; readonly gs2: Gs2 } | undefined {
  const { serverEndPoint } = binding;
  if (serverEndPoint && binding.channelBinding !== 'disable' && offered.includes(SCRAM_PLUS_MECHANISM))
    return { mechanism: SCRAM_PLUS_MECHANISM, gs2: gs2(`p=${BINDING_TYPE},,`, serverEndPoint) };
  if (binding.channelBinding === 'require' || !offered.includes(SCRAM_MECHANISM)) return undefined;
  const flag = serverEndPoint && binding.channelBinding !== 'disable' ? 'y' : 'n';
  return { mechanism: SCRAM_MECHANISM, gs2: gs2(`${flag},,`, undefined) };
}

function gs2(header: string, serverEndPoint: Buffer | undefined): Gs2 {
  const bytes = Buffer.concat([Buffer.from(header), serverEndPoint ?? Buffer.alloc(0)]);
  return { header, channelBinding: bytes.toString('base64'), isBound: serverEndPoint !== undefined };
}

function requireEndPoint(serverEndPoint: Buffer | undefined): Buffer {
  if (serverEndPoint) return serverEndPoint;
  throw protocolViolation('client selected an invalid SASL authentication mechanism');
}

function downgraded(): PosternError {
  return new PosternError({
    sqlState: '28000',
    message: 'SCRAM channel binding negotiation error',
    detail:
      'The client supports SCRAM channel binding but thinks the server does not.  However, this server does support channel binding.',
    severity: 'FATAL',
  });
}

function malformed(detail: string): PosternError {
  return protocolViolation('malformed SCRAM message', detail);
}

/** What a client has sent, in an error: its visible characters, and not many of them. */
function printable(text: string): string {
  return text.slice(0, 64).replace(/[^\x21-\x7e]/g, '?');
}

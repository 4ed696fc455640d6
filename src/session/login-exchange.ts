/**
 * The messages of one client's authentication: asks for what the attempt's challenge is, and checks what comes.
 *
 *   challenge     router says                  client says
 *   nothing
 *   password      CleartextPassword            PasswordMessage
 *   md5           MD5Password (salt)           PasswordMessage
 *   scram         SASL (mechanisms)            SASLInitialResponse
 *                 SASLContinue                 SASLResponse
 *                 SASLFinal (with what follows)
 *
 * Source: PostgreSQL documentation, "Message Flow", "SASL Authentication". Every failure is a PosternError, and ends the login.
 */
import { randomBytes } from 'node:crypto';
import type { Attempt, Challenge } from '../auth/attempt.ts';
import { protocolViolation } from '../base/errors.ts';
import {
  encodeAuthenticationCleartext,
  encodeAuthenticationMd5,
  encodeAuthenticationSasl,
  encodeAuthenticationSaslContinue,
  encodeAuthenticationSaslFinal,
} from '../wire/backend.ts';
import type { Body } from '../wire/body-cursor.ts';
import { scramMechanisms } from '../wire/channel-binding.ts';
import type { FrameWriter } from '../wire/frame-writer.ts';
import { readPassword, readSaslInitial, readSaslResponse } from '../wire/frontend.ts';
import { startScramServer } from '../wire/scram.ts';

export interface LoginTalk {
  readonly writer: FrameWriter;
  /** What channel binding is about; undefined: there is none. */
  readonly serverEndPoint: Buffer | undefined;
  /** Sends what was written, and waits for the client's next password message. Rejects when something else comes. */
  answer(): Promise<Body>;
}

/** Resolves once the client has proved what was asked of it; what the writer holds then goes ahead of AuthenticationOk. */
export async function authenticate(attempt: Attempt, talk: LoginTalk): Promise<void> {
  const { challenge } = attempt;
  const { writer } = talk;
  switch (challenge.kind) {
    case 'nothing':
      return;
    case 'password': {
      encodeAuthenticationCleartext(writer);
      await attempt.checkPassword(readPassword(await talk.answer()));
      return;
    }
    case 'md5': {
      const salt = randomBytes(4);
      encodeAuthenticationMd5(writer, salt);
      attempt.checkMd5(salt, readPassword(await talk.answer()));
      return;
    }
    case 'scram':
      await runScram(attempt, challenge, talk);
  }
}

async function runScram(
  attempt: Attempt,
  challenge: Extract<Challenge, { kind: 'scram' }>,
  talk: LoginTalk,
): Promise<void> {
  const { writer, serverEndPoint } = talk;
  const offered = scramMechanisms(serverEndPoint);
  encodeAuthenticationSasl(writer, offered);
  const { mechanism, data } = readSaslInitial(await talk.answer());
  if (!offered.includes(mechanism))
    throw protocolViolation('client selected an invalid SASL authentication mechanism');
  // A client may begin with nothing, and is then asked again.
  let clientFirst = data;
  if (clientFirst === undefined) {
    encodeAuthenticationSaslContinue(writer, '');
    clientFirst = readSaslResponse(await talk.answer());
  }
  const { state, serverFirst } = startScramServer({
    ...{ clientFirst, mechanism, serverEndPoint },
    verifier: challenge.verifiers[0]!,
    nonce: randomBytes(18).toString('base64'),
  });
  encodeAuthenticationSaslContinue(writer, serverFirst);
  encodeAuthenticationSaslFinal(writer, attempt.checkScram(state, readSaslResponse(await talk.answer())));
}

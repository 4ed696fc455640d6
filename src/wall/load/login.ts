/**
 * The client's side of the start of a connection, until the server is ready for a query: trust, password, MD5 and
 * SCRAM-SHA-256. It knows no socket: bytes to send come out, frames go in.
 * Source: PostgreSQL documentation, "Message Flow: Start-up" and "SASL Authentication".
 */
import { randomBytes } from 'node:crypto';
import { unreachable } from '../../base/assert.ts';
import { readAuthentication, readErrorFields } from '../../wire/backend.ts';
import { chooseScram } from '../../wire/channel-binding.ts';
import type { FrameReader } from '../../wire/frame-reader.ts';
import { FrameWriter } from '../../wire/frame-writer.ts';
import { encodePassword, encodeSaslInitial, encodeSaslResponse } from '../../wire/frontend.ts';
import { md5Hash, md5Response } from '../../wire/md5-password.ts';
import { Backend } from '../../wire/message-types.ts';
import {
  answerServerFirst,
  checkServerFinal,
  type ScramClientProof,
  type ScramClientStart,
  startScramClient,
} from '../../wire/scram.ts';
import { encodeStartup } from '../../wire/startup.ts';
import type { ServerError } from './answer-scanner.ts';
import type { Target } from './generator-messages.ts';

const NONCE_BYTES = 18;

/** The connection could not be made; `serverError` is what the server said, if it was the server. */
export class ConnectError extends Error {
  readonly serverError: ServerError | undefined;

  constructor(message: string, serverError?: ServerError) {
    super(message);
    this.name = 'ConnectError';
    this.serverError = serverError;
  }
}

export class Login {
  private readonly target: Target;
  private scramStart: ScramClientStart | undefined;
  private scramProof: ScramClientProof | undefined;
  /** SCRAM proves the server to the client, too: until then its OK counts for nothing. */
  private serverProofMissing = false;

  constructor(target: Target) {
    this.target = target;
  }

  begin(): Buffer {
    const { user, database, parameters } = this.target;
    return bytesOf((writer) =>
      encodeStartup(writer, [['user', user], ['database', database], ...parameters]),
    );
  }

  /** The reader's current frame. Gives what to send, 'ready' at a ReadyForQuery, or nothing; throws ConnectError. */
  step(frame: FrameReader): Promise<Buffer> | Buffer | 'ready' | undefined {
    switch (frame.type) {
      case Backend.Authentication:
        return this.authenticate(frame);
      case Backend.ErrorResponse: {
        const fields = readErrorFields(frame);
        const message = fields.get('M') ?? 'no message';
        const serverError = {
          sqlState: fields.get('C') ?? 'XX000',
          severity: fields.get('V') ?? fields.get('S') ?? 'FATAL',
          message,
        };
        throw new ConnectError(message, serverError);
      }
      case Backend.ReadyForQuery:
        return 'ready';
      default:
        return undefined;
    }
  }

  private authenticate(frame: FrameReader): Promise<Buffer> | Buffer | undefined {
    const request = readAuthentication(frame);
    switch (request.kind) {
      case 'ok':
        if (this.serverProofMissing) throw new ConnectError('the server ended SCRAM without proving itself');
        return undefined;
      case 'cleartext':
        return bytesOf((writer) => encodePassword(writer, this.password()));
      case 'md5': {
        const { user } = this.target;
        const response = md5Response(md5Hash(user, this.password()), request.salt);
        return bytesOf((writer) => encodePassword(writer, response));
      }
      case 'sasl': {
        const scram = chooseScram(request.mechanisms, {
          serverEndPoint: undefined,
          channelBinding: 'disable',
        });
        if (!scram) {
          throw new ConnectError(`the server offers only ${request.mechanisms.join(', ')} to log in`);
        }
        this.password();
        const { state, clientFirst } = startScramClient(
          randomBytes(NONCE_BYTES).toString('base64'),
          scram.gs2,
        );
        this.scramStart = state;
        this.serverProofMissing = true;
        return bytesOf((writer) => encodeSaslInitial(writer, scram.mechanism, clientFirst));
      }
      case 'saslContinue':
        return this.answerScram(request.data);
      case 'saslFinal':
        if (this.scramProof === undefined) throw outOfOrder();
        checkServerFinal(this.scramProof, request.data);
        this.serverProofMissing = false;
        return undefined;
      case 'other':
        throw new ConnectError(
          `the server asks for a way to log in that is not known here (${request.code})`,
        );
      default:
        return unreachable(request);
    }
  }

  private async answerScram(serverFirst: string): Promise<Buffer> {
    if (this.scramStart === undefined) throw outOfOrder();
    const { state, clientFinal } = await answerServerFirst(this.scramStart, this.password(), serverFirst);
    this.scramProof = state;
    return bytesOf((writer) => encodeSaslResponse(writer, clientFinal));
  }

  private password(): string {
    if (this.target.password !== undefined) return this.target.password;
    throw new ConnectError('the server asks for a password, and the connection string has none');
  }
}

function outOfOrder(): ConnectError {
  return new ConnectError('the server sent a SCRAM message out of its order');
}

function bytesOf(encode: (writer: FrameWriter) => void): Buffer {
  const writer = new FrameWriter();
  encode(writer);
  return writer.take();
}

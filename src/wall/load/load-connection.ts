/**
 * One connection of the load generator: opened, with TLS where it is wanted, logged in (login.ts), and then raw: bytes
 * out as they are, bytes in to whoever has set `onBytes`.
 *
 * A plain socket reads into one buffer that all connections of the thread share (`onread`), which spares a buffer, a
 * stream and several calls for each answer; so `onBytes` must not keep what it is given.
 */
import { createConnection, isIP, type NetConnectOpts, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { FrameReader } from '../../wire/frame-reader.ts';
import { FrameWriter } from '../../wire/frame-writer.ts';
import { encodeTerminate } from '../../wire/frontend.ts';
import { encodeSslRequest } from '../../wire/startup.ts';
import type { Target, TlsOptions } from './generator-messages.ts';
import { ConnectError, Login } from './login.ts';

const READ_BUFFER_BYTES = 65_536;
/** What comes before the first statement: parameters, a key, perhaps a long error. */
const LOGIN_FRAME_BYTES_MAX = 1024 * 1024;
/** A server that has been told goodbye gets this long to hang up. */
const CLOSE_TIMEOUT_MS = 2_000;

const sharedReadBuffer = Buffer.allocUnsafeSlow(READ_BUFFER_BYTES);

export class LoadConnection {
  onBytes: (buffer: Buffer, length: number) => void = () => {};
  /** Called once, when the connection ends by anything but `close` or `destroy`. */
  onLost: (message: string) => void = () => {};
  private readonly socket: Socket;
  private closing = false;

  constructor(socket: Socket) {
    this.socket = socket;
    let reason = 'the server closed the connection';
    socket.on('error', (error) => {
      reason = `the connection was lost: ${socketReason(error)}`;
    });
    socket.on('close', () => {
      if (!this.closing) this.onLost(reason);
    });
  }

  write(bytes: Buffer): void {
    this.socket.write(bytes);
  }

  /** Resolves when the server has hung up too, so that its backend is gone, or CLOSE_TIMEOUT_MS later. */
  close(): Promise<void> {
    this.closing = true;
    if (this.socket.closed) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.socket.destroy(), CLOSE_TIMEOUT_MS);
      this.socket.once('close', () => {
        clearTimeout(timer);
        resolve();
      });
      const writer = new FrameWriter();
      encodeTerminate(writer);
      this.socket.end(writer.take());
    });
  }

  destroy(): void {
    this.closing = true;
    this.socket.destroy();
  }
}

/** Opens a connection, logs in, and has `preparation` (if it is not empty) answered. Throws ConnectError. */
export async function openConnection(target: Target, preparation: Buffer): Promise<LoadConnection> {
  const opened: Socket[] = [];
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    const seconds = target.connectTimeoutMs / 1000;
    timer = setTimeout(
      () => reject(new ConnectError(`no login within ${seconds} s`)),
      target.connectTimeoutMs,
    );
  });
  try {
    return await Promise.race([enter(target, preparation, opened), timeout]);
  } catch (error) {
    for (const socket of opened) socket.destroy();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** `opened` is told of each socket, for the caller to close them when this takes too long. */
async function enter(target: Target, preparation: Buffer, opened: Socket[]): Promise<LoadConnection> {
  const connection =
    target.tls === undefined ? openPlain(target, opened) : await openEncrypted(target, target.tls, opened);
  const login = new Login(target);
  connection.write(login.begin());
  await converse(connection, login);
  if (preparation.length > 0) {
    connection.write(preparation);
    await converse(connection, login).catch((error: unknown) => {
      if (!(error instanceof ConnectError) || error.serverError === undefined) throw error;
      throw new ConnectError(`a statement of the workload is refused: ${error.message}`, error.serverError);
    });
  }
  return connection;
}

/** Answers the server's frames until it is ready for a query. */
function converse(connection: LoadConnection, login: Login): Promise<void> {
  const reader = new FrameReader({ frameBytesMax: LOGIN_FRAME_BYTES_MAX });
  return new Promise((resolve, reject) => {
    connection.onLost = (message) => reject(new ConnectError(message));
    connection.onBytes = (buffer, length) => {
      try {
        reader.push(buffer.subarray(0, length));
        while (reader.next()) {
          const outcome = login.step(reader);
          if (outcome === undefined) continue;
          if (outcome === 'ready') resolve();
          else if (outcome instanceof Promise) outcome.then((bytes) => connection.write(bytes), reject);
          else connection.write(outcome);
        }
      } catch (error) {
        reject(error);
      }
    };
  });
}

function openPlain(target: Target, opened: Socket[]): LoadConnection {
  const socket = createConnection({
    ...addressOf(target),
    onread: {
      buffer: sharedReadBuffer,
      callback: (length) => {
        connection.onBytes(sharedReadBuffer, length);
        return true;
      },
    },
  });
  opened.push(socket);
  const connection = new LoadConnection(socket);
  return connection;
}

async function openEncrypted(target: Target, tls: TlsOptions, opened: Socket[]): Promise<LoadConnection> {
  const plain = createConnection(addressOf(target));
  opened.push(plain);
  await askForTls(plain);
  const encrypted = connectTls({
    socket: plain,
    host: target.host,
    // A server name is for names: TLS allows no address there, and a Unix socket has neither.
    ...(isIP(target.host) !== 0 || target.host.startsWith('/') ? {} : { servername: target.host }),
    rejectUnauthorized: tls.verify !== 'none',
    ...(tls.verify === 'full' ? {} : { checkServerIdentity: () => undefined }),
    ...(tls.ca === undefined ? {} : { ca: tls.ca }),
  });
  opened.push(encrypted);
  const connection = new LoadConnection(encrypted);
  await new Promise<void>((resolve, reject) => {
    connection.onLost = (message) => reject(new ConnectError(message));
    encrypted.once('secureConnect', resolve);
  });
  encrypted.on('data', (chunk: Buffer) => connection.onBytes(chunk, chunk.length));
  return connection;
}

function askForTls(plain: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (error: Error): void => reject(new ConnectError(socketReason(error)));
    const onClose = (): void => reject(new ConnectError('the server closed the connection'));
    plain.once('error', onError).once('close', onClose);
    plain.once('data', (answer: Buffer) => {
      plain.off('error', onError).off('close', onClose);
      // Bytes behind the answer were sent before encryption began, by somebody in between (CVE-2021-23222).
      if (answer.length > 1)
        reject(new ConnectError('unencrypted data came with the answer to the TLS request'));
      else if (answer[0] === 'S'.charCodeAt(0)) resolve();
      else reject(new ConnectError('the server does not do TLS, and sslmode asks for it'));
    });
    const writer = new FrameWriter();
    encodeSslRequest(writer);
    plain.write(writer.take());
  });
}

function addressOf(target: Target): NetConnectOpts {
  if (target.host.startsWith('/')) return { path: `${target.host}/.s.PGSQL.${target.port}` };
  return { host: target.host, port: target.port, noDelay: true, keepAlive: true };
}

/** An AggregateError (several addresses tried) has no message of its own. */
function socketReason(error: Error & { code?: string }): string {
  return error.message || (error.code ?? 'unknown reason');
}

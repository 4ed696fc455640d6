/**
 * Somebody between a client and a server, who wants to read along: answers the client's SSLRequest himself, and passes on what
 * both say, decrypted in between.
 */

import { readFileSync } from 'node:fs';
import * as net from 'node:net';
import * as tls from 'node:tls';
import type { CertificateFiles } from './certificates.ts';

export interface MiddleOptions {
  readonly targetPort: number;
  /** Shown to the client; undefined: he says that there is no TLS. */
  readonly certificate: CertificateFiles | undefined;
  /** Towards the server: TLS, or plain. */
  readonly upstream: 'tls' | 'plain';
  /** What the server says, on its way to the client. */
  readonly change?: (fromServer: Buffer) => Buffer;
}

const SSL_REQUEST = Buffer.from('0000000804d2162f', 'hex');

export class ManInTheMiddle {
  readonly port: number;
  /** What the client has said, in clear. */
  heard = '';
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();
  readonly #options: MiddleOptions;

  private constructor(server: net.Server, options: MiddleOptions) {
    this.#server = server;
    this.#options = options;
    this.port = (server.address() as net.AddressInfo).port;
    server.on(
      'connection',
      (socket) => this.#keep(socket) && socket.once('data', (first) => this.#onFirst(socket, first)),
    );
  }

  static async start(options: MiddleOptions): Promise<ManInTheMiddle> {
    const server = net.createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new ManInTheMiddle(server, options);
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #keep(socket: net.Socket): true {
    this.#sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#sockets.delete(socket));
    return true;
  }

  async #onFirst(client: net.Socket, first: Buffer): Promise<void> {
    const { certificate } = this.#options;
    const asksForTls = first.equals(SSL_REQUEST);
    if (!asksForTls) return this.#join(client, first);
    if (!certificate) {
      client.write('N');
      client.once('data', (next) => void this.#join(client, next));
      return;
    }
    client.write('S');
    const secure = new tls.TLSSocket(client, {
      isServer: true,
      cert: readFileSync(certificate.certificate),
      key: readFileSync(certificate.key),
    });
    this.#keep(secure);
    secure.once('data', (next) => void this.#join(secure, next));
  }

  async #join(client: net.Socket, first: Buffer): Promise<void> {
    client.pause();
    const server = await this.#upstream();
    server.on('data', (chunk: Buffer) => client.write(this.#options.change?.(chunk) ?? chunk));
    server.on('close', () => client.destroy());
    client.on('close', () => server.destroy());
    const pass = (chunk: Buffer): void => {
      this.heard += chunk.toString('latin1');
      server.write(chunk);
    };
    pass(first);
    client.on('data', pass);
    client.resume();
  }

  async #upstream(): Promise<net.Socket> {
    const socket = net.connect(this.#options.targetPort, '127.0.0.1');
    this.#keep(socket);
    if (this.#options.upstream === 'plain') return socket;
    socket.write(SSL_REQUEST);
    await new Promise((resolve) => socket.once('data', resolve));
    const secure = tls.connect({ socket, rejectUnauthorized: false });
    this.#keep(secure);
    await new Promise((resolve) => secure.once('secureConnect', resolve));
    return secure;
  }
}

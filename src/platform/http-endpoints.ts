/**
 * An HTTP server with a few paths that are fixed when it starts, to be read by machines: GET (and HEAD) alone, without bodies, each
 * answer whole. Nothing of a request comes back in an answer.
 *
 * Invariant: a request, its headers and its answer are bounded in time and size, and so are the connections.
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface HttpAnswer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
}

const REQUEST_TIMEOUT_MS = 5_000;
/** Longer than any answer takes to be made; Node looks twice before it closes a connection that was written to. */
const STALL_TIMEOUT_MS = 10_000;
const CONNECTIONS_MAX = 64;
const HEADER_BYTES_MAX = 8 * 1024;

export class HttpEndpoints {
  readonly #answers: ReadonlyMap<string, () => Promise<HttpAnswer>>;
  /** By path: those who ask at the same time get one answer. */
  readonly #underWay = new Map<string, Promise<HttpAnswer>>();
  readonly #stallTimeoutMs: number;
  #server: Server | undefined;

  constructor(
    answers: Readonly<Record<string, () => Promise<HttpAnswer>>>,
    stallTimeoutMs: number = STALL_TIMEOUT_MS,
  ) {
    this.#answers = new Map(Object.entries(answers));
    this.#stallTimeoutMs = stallTimeoutMs;
  }

  /** Gives the port; rejects when it can't be listened on. */
  async listen(host: string, port: number): Promise<number> {
    const limits = {
      ...{ requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS },
      ...{ keepAliveTimeout: REQUEST_TIMEOUT_MS, maxHeaderSize: HEADER_BYTES_MAX },
      connectionsCheckingInterval: REQUEST_TIMEOUT_MS,
    };
    const server = createServer(limits, (request, response) => {
      const path = request.url?.split('?', 1)[0] ?? '';
      const answer = this.#answers.get(path);
      const isRead = request.method === 'GET' || request.method === 'HEAD';
      // A body is read to its end, or to that of the time for it, and thrown away.
      request.resume();
      if (!answer || !isRead) {
        response.writeHead(answer ? 405 : 404, answer ? { allow: 'GET, HEAD' } : {}).end();
        return;
      }
      this.#one(path, answer).then(
        ({ status, contentType, body }) => {
          const headers = { 'content-type': contentType, 'content-length': Buffer.byteLength(body) };
          response.writeHead(status, { ...headers, 'cache-control': 'no-store' });
          response.end(request.method === 'HEAD' ? undefined : body);
        },
        () => response.writeHead(500).end(),
      );
    });
    server.maxConnections = CONNECTIONS_MAX;
    // Of connections on which nothing comes or goes: those who don't read their answer would keep their places.
    server.timeout = this.#stallTimeoutMs;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(port, host, () => {
        server.off('error', reject);
        // What goes wrong with one connection must not end the process.
        server.on('error', () => {});
        resolve();
      });
    });
    this.#server = server;
    return (server.address() as AddressInfo).port;
  }

  #one(path: string, answer: () => Promise<HttpAnswer>): Promise<HttpAnswer> {
    const known = this.#underWay.get(path);
    if (known) return known;
    const begun = answer().finally(() => this.#underWay.delete(path));
    this.#underWay.set(path, begun);
    return begun;
  }

  close(): void {
    this.#server?.close();
    this.#server?.closeAllConnections();
  }
}

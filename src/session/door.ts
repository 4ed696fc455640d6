/**
 * The port: who listens on it, whoever serves the clients. Apart from listener.ts so that a process which only hands clients on has
 * nothing of a router in its memory.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { PosternError } from '../base/errors.ts';
import { encodeErrorResponse } from '../wire/backend.ts';
import { FrameWriter } from '../wire/frame-writer.ts';

/** Whoever a door lets in. */
export type AcceptedClient = Socket;

export interface DoorAddress {
  readonly host: string;
  readonly port: number;
  /** Of a socket that somebody else has opened, in place of host and port. */
  readonly fileDescriptor?: number | undefined;
}

const REFUSED_LINGER_MS = 5_000;

/** Accepts clients for other processes: none of their bytes are read here. Errors and bounds are those of `listen`. */
export async function openDoor(options: {
  readonly address: DoorAddress;
  readonly onClient: (client: AcceptedClient) => void;
  readonly onError: (error: Error) => void;
}): Promise<{ port: number; close(): void }> {
  const server = createServer({ pauseOnConnect: true }, options.onClient);
  const port = await bind(server, options.address);
  server.on('error', options.onError);
  return { port, close: () => void server.close() };
}

/** Tells a client of another process, before anything was read from it, why nobody serves it. */
export function refuseClient(client: AcceptedClient, error: PosternError): void {
  const writer = new FrameWriter();
  const { sqlState, message, detail, hint } = error;
  encodeErrorResponse(writer, new PosternError({ sqlState, message, detail, hint, severity: 'FATAL' }));
  client.on('error', () => client.destroy());
  client.setTimeout(REFUSED_LINGER_MS, () => client.destroy());
  // What it has sent is read, or the system would throw away what it is told.
  client.resume();
  client.end(writer.take());
}

/** Resolves with the port. Rejects with the system's error (EADDRINUSE, EACCES …). */
export function bind(server: Server, address: DoorAddress): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    const { host, port, fileDescriptor: fd } = address;
    server.listen(fd === undefined ? { host, port, backlog: 4_096 } : { fd }, () => {
      server.off('error', reject);
      const bound = server.address();
      resolve(typeof bound === 'object' && bound ? bound.port : port);
    });
  });
}

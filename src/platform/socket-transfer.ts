/** Giving a client's connection to another process, without a byte lost on the way. */
import type { Socket } from 'node:net';

/**
 * Nothing more is read from the system: a socket that is only paused reads ahead, into memory that does not go along with it.
 * Node has no public name for this. false: there is no connection any more, or it can't be given away (TLS).
 */
export function stopReading(socket: Socket): boolean {
  const { _handle: handle } = socket as unknown as { readonly _handle: Handle | null | undefined };
  if (!handle || socket.destroyed || 'encrypted' in socket) return false;
  socket.pause();
  handle.reading = false;
  return handle.readStop() === 0;
}

/**
 * As stopReading(), and gives what was read before and nobody has taken yet. The socket has no listener for data any more.
 * undefined: it can't be given away.
 */
export function stopAndDrain(socket: Socket): Buffer | undefined {
  if (!stopReading(socket)) return undefined;
  const chunks: Buffer[] = [];
  // Taking from it may make it read on.
  for (let chunk = socket.read(); chunk !== null; chunk = socket.read()) chunks.push(chunk as Buffer);
  return stopReading(socket) ? Buffer.concat(chunks) : undefined;
}

interface Handle {
  reading: boolean;
  readStop(): number;
}

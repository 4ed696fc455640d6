/** Finds a port of the loopback interface that is free now. It may be taken a moment later: whoever binds it retries. */
import * as net from 'node:net';

// Below the ranges from which Linux (32768 up) and macOS (49152 up) take the ports of outgoing connections: a port from
// those could be lost to any connection of this machine while its server restarts.
const FIRST = 20_000;
const LAST = 32_000;
const TRIES = 100;

export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < TRIES; attempt += 1) {
    const port = FIRST + Math.floor(Math.random() * (LAST - FIRST));
    if (await isPortFree('127.0.0.1', port)) return port;
  }
  throw new Error(`no free port found between ${FIRST} and ${LAST} on 127.0.0.1`);
}

export function isPortFree(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = net.createServer();
    probe.once('error', () => resolve(false));
    probe.listen({ host, port, exclusive: true }, () => probe.close(() => resolve(true)));
  });
}

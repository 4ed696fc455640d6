/**
 * Holds connections that say nothing, in a process of its own: PORT USER DATABASE COUNT. Writes "holding COUNT" once all
 * have logged in, and keeps them until it is ended. One that the other side closes ends the program with status 1: a
 * figure beside fewer idle clients than said would be wrong.
 */
import { connect, type Socket } from 'node:net';
import { FrameWriter } from '../../src/wire/frame-writer.ts';
import { encodeStartup } from '../../src/wire/startup.ts';

/** How many log in at a time. */
const LOGINS_MAX = 64;
const READY_FOR_QUERY = Buffer.from([0x5a, 0, 0, 0, 5, 0x49]);

const [port, user, database, count] = process.argv.slice(2) as [string, string, string, string];
const writer = new FrameWriter();
encodeStartup(writer, Object.entries({ user, database }));
const startup = Buffer.from(writer.take());

let started = 0;
const next = async (): Promise<void> => {
  while (started < Number(count)) {
    started++;
    await login();
  }
};
await Promise.all(Array.from({ length: LOGINS_MAX }, next));
console.log(`holding ${count}`);

/** Everybody is trusted: what comes is a greeting that ends with ReadyForQuery, or an error and the end. */
function login(): Promise<void> {
  return new Promise((resolve) => {
    const socket: Socket = connect(Number(port), '127.0.0.1', () => socket.write(startup));
    let received = Buffer.alloc(0);
    const end = (why: string): void => {
      console.error(`an idle client: ${why}: ${received.toString('latin1')}`);
      process.exit(1);
    };
    socket.on('error', (error) => end(error.message));
    socket.on('close', () => end('closed'));
    const onData = (chunk: Buffer): void => {
      received = Buffer.concat([received, chunk]);
      if (!received.subarray(-READY_FOR_QUERY.length).equals(READY_FOR_QUERY)) return;
      socket.off('data', onData);
      socket.resume();
      resolve();
    };
    socket.on('data', onData);
  });
}

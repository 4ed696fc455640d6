/**
 * The process of fake-server.ts: takes its options as its one argument, sends its port to its parent, and ends with it.
 *
 * Precision: Node's timers are a millisecond apart. While a job is under way the loop naps for at most NAP_MS_MAX in a
 * futex and then looks at its sockets, which takes some hundredths of a core, and is late with an answer by that at most on a
 * machine with a core to spare.
 */
import { createServer, type Socket } from 'node:net';
import { seededRandom } from '../../src/wall/load/seeded-random.ts';
import { encodeAuthenticationOk, encodeBackendKeyData, encodeReadyForQuery } from '../../src/wire/backend.ts';
import { FrameReader } from '../../src/wire/frame-reader.ts';
import { FrameWriter } from '../../src/wire/frame-writer.ts';
import { Backend, Frontend } from '../../src/wire/message-types.ts';
import type { FakeServerOptions } from './fake-server.ts';
import { exponentialMs, ServiceQueue } from './service-queue.ts';

const NAP_MS_MAX = 0.25;
const FRAME_BYTES_MAX = 1 << 20;
const ENCRYPTION_REQUESTS = new Set([80877103, 80877104]);

interface Job {
  readonly socket: Socket;
  readonly answer: Buffer;
  readonly doneAtMs: number;
}

const options = JSON.parse(process.argv[2]!) as Required<FakeServerOptions>;
const random = seededRandom(options.seed);
const queue = new ServiceQueue({
  servers: options.servers,
  drawServiceMs: () =>
    options.service === 'deterministic' ? options.serviceMs : exponentialMs(options.serviceMs, random),
});
/** By the time they are done, the last one first. */
const jobs: Job[] = [];
const napCell = new Int32Array(new SharedArrayBuffer(4));
let turning = false;

function admit(socket: Socket, answer: Buffer): void {
  const job = { socket, answer, doneAtMs: queue.arrive(performance.now()) };
  let place = jobs.length;
  while (place > 0 && jobs[place - 1]!.doneAtMs < job.doneAtMs) place--;
  jobs.splice(place, 0, job);
  if (!turning) {
    turning = true;
    setImmediate(turn);
  }
}

/** Answers what is done, naps, and comes again after the loop has looked at its sockets. */
function turn(): void {
  const now = performance.now();
  for (let job = jobs.at(-1); job !== undefined && job.doneAtMs <= now; job = jobs.at(-1)) {
    jobs.pop();
    if (!job.socket.destroyed) job.socket.write(job.answer);
  }
  const next = jobs.at(-1);
  turning = next !== undefined;
  if (next === undefined) return;
  Atomics.wait(napCell, 0, 0, Math.min(NAP_MS_MAX, next.doneAtMs - now));
  setImmediate(turn);
}

function encoded(encode: (writer: FrameWriter) => void): Buffer {
  const writer = new FrameWriter();
  encode(writer);
  return Buffer.from(writer.take());
}

function bare(writer: FrameWriter, type: number): void {
  writer.begin(type);
  writer.end();
}

function commandComplete(writer: FrameWriter): void {
  writer.begin(Backend.CommandComplete);
  writer.cstring('INSERT 0 1');
  writer.end();
}

/** One client: the start-up packet has no type byte, and everything behind it has. */
function serve(socket: Socket): void {
  const reader = new FrameReader({ frameBytesMax: FRAME_BYTES_MAX });
  let startup: Buffer | undefined = Buffer.alloc(0);
  let group = new FrameWriter();
  let executes = false;
  const onFrame = (): void => {
    switch (reader.type) {
      case Frontend.Parse:
        bare(group, Backend.ParseComplete);
        return;
      case Frontend.Bind:
        bare(group, Backend.BindComplete);
        return;
      case Frontend.Describe:
        bare(group, Backend.NoData);
        return;
      case Frontend.Close:
        bare(group, Backend.CloseComplete);
        return;
      case Frontend.Execute:
        executes = true;
        commandComplete(group);
        return;
      case Frontend.Query:
        executes = true;
        commandComplete(group);
        endGroup();
        return;
      case Frontend.Sync:
        endGroup();
        return;
      case Frontend.Terminate:
        socket.end();
        return;
      default:
        socket.destroy(new Error(`the fake server does not know the message ${reader.type}`));
    }
  };
  const endGroup = (): void => {
    encodeReadyForQuery(group, 'I');
    const answer = Buffer.from(group.take());
    group = new FrameWriter();
    if (executes) admit(socket, answer);
    else socket.write(answer);
    executes = false;
  };
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk) => {
    let bytes: Buffer = chunk;
    if (startup !== undefined) {
      startup = Buffer.concat([startup, chunk]);
      if (startup.length < 8 || startup.length < startup.readInt32BE(0)) return;
      if (ENCRYPTION_REQUESTS.has(startup.readInt32BE(4))) {
        startup = Buffer.alloc(0);
        socket.write('N');
        return;
      }
      bytes = startup.subarray(startup.readInt32BE(0));
      startup = undefined;
      socket.write(
        encoded((writer) => {
          encodeAuthenticationOk(writer);
          encodeBackendKeyData(writer, process.pid, 0);
          encodeReadyForQuery(writer, 'I');
        }),
      );
    }
    reader.push(bytes);
    while (reader.next()) onFrame();
  });
}

const listener = createServer({ noDelay: true }, serve);
listener.listen({ port: 0, host: '127.0.0.1', backlog: 1024 }, () => {
  const address = listener.address();
  if (address !== null && typeof address === 'object') process.send!(address.port);
});
process.on('disconnect', () => process.exit(0));

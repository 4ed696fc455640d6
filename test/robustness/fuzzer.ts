/**
 * Sends rubbish to a listening router: random and mutated frames before the login, in it and after it, over many connections
 * at once. All of it follows from a seed. What it checks itself is that each connection ends in bounded time; whether the
 * router is still well is the caller's to ask.
 */
import { connect } from 'node:net';
import { seededRandom } from '../../src/wall/load/seeded-random.ts';
import { FrameWriter } from '../../src/wire/frame-writer.ts';
import {
  encodeBind,
  encodeClose,
  encodeDescribe,
  encodeExecute,
  encodeFlush,
  encodeParse,
  encodePassword,
  encodeQuery,
  encodeSaslInitial,
  encodeSaslResponse,
  encodeSync,
  encodeTerminate,
} from '../../src/wire/frontend.ts';
import { Backend, Frontend } from '../../src/wire/message-types.ts';
import { encodeCancelRequest, encodeSslRequest, encodeStartup } from '../../src/wire/startup.ts';

export interface FuzzOptions {
  readonly port: number;
  readonly database: string;
  /** Logs in without a password. */
  readonly trustedUser: string;
  /** Is asked for one. */
  readonly secretUser: string;
  readonly seed: number;
  readonly connectionsAtOnce: number;
  /** Goes on until it gives true; asked before each connection. */
  readonly isDone: (sent: FuzzResult) => boolean;
  /** A connection that has sent all it has and is not closed after this is a hang. */
  readonly endTimeoutMs: number;
}

export interface FuzzResult {
  frames: number;
  connections: number;
  /** Connections that the router did not close in time: the seed of each. */
  readonly hangs: number[];
}

/** Runs until done. Each connection has a seed of its own, so that a single one can be run again. */
export async function fuzz(options: FuzzOptions): Promise<FuzzResult> {
  const result: FuzzResult = { frames: 0, connections: 0, hangs: [] };
  let next = options.seed;
  const lane = async (): Promise<void> => {
    while (!options.isDone(result)) {
      const seed = next++;
      const { frames, ended } = await fuzzOnce(options, seed);
      result.frames += frames;
      result.connections++;
      if (!ended) result.hangs.push(seed);
    }
  };
  await Promise.all(Array.from({ length: options.connectionsAtOnce }, lane));
  return result;
}

/** One connection's worth. */
function fuzzOnce(options: FuzzOptions, seed: number): Promise<{ frames: number; ended: boolean }> {
  const dice = new Dice(seed);
  const plan = conversation(options, dice);
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port: options.port, noDelay: true });
    let frames = 0;
    let timer: NodeJS.Timeout | undefined;
    const finish = (ended: boolean): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ frames, ended });
    };
    const send = (part: Part): void => {
      frames += part.frames;
      for (const bytes of cut(part.bytes, dice)) if (socket.writable) socket.write(bytes);
    };
    const sendRest = (): void => {
      if (plan.afterLogin) send(plan.afterLogin);
      if (plan.ending === 'destroy') {
        // Nobody is left to see how it ends.
        socket.destroy();
        finish(true);
        return;
      }
      if (plan.ending === 'end') socket.end();
    };
    let loggedIn = false;
    socket.on('connect', () => {
      timer = setTimeout(() => finish(false), options.endTimeoutMs);
      send(plan.first);
      if (!plan.afterLogin) sendRest();
    });
    socket.on('data', (chunk: Buffer) => {
      if (loggedIn || !plan.afterLogin) return;
      // ReadyForQuery is the last of the greeting; one in the middle of a chunk would be no worse.
      if (!chunk.includes(READY)) return;
      loggedIn = true;
      sendRest();
    });
    socket.on('end', () => socket.end());
    socket.on('error', () => finish(true));
    socket.on('close', () => finish(true));
  });
}

const READY = Buffer.from([Backend.ReadyForQuery, 0, 0, 0, 5, 0x49]);

interface Part {
  readonly bytes: Buffer;
  readonly frames: number;
}

interface Conversation {
  readonly first: Part;
  /** Sent when the greeting is there; undefined: all goes at once. */
  readonly afterLogin: Part | undefined;
  readonly ending: 'end' | 'destroy' | 'wait';
}

function conversation(options: FuzzOptions, dice: Dice): Conversation {
  const kind = dice.below(100);
  const startup = (user: string, more: [string, string][] = []) =>
    frame((writer) => encodeStartup(writer, [['user', user], ['database', options.database], ...more]));
  if (kind < 6) return { first: part([startupRubbish(dice, startup)]), afterLogin: undefined, ending: 'end' };
  if (kind < 10) {
    return {
      first: part([startup(options.secretUser), ...loginRubbish(dice)]),
      afterLogin: undefined,
      ending: 'end',
    };
  }
  if (kind < 12) {
    // All of it at once, behind the start-up packet.
    return {
      first: part([startup(options.trustedUser), ...messages(dice, 20)]),
      afterLogin: undefined,
      ending: 'end',
    };
  }
  const settings: [string, string][] = dice.chance(0.2)
    ? [
        [
          dice.pick(['application_name', 'TimeZone', 'DateStyle', 'options', 'x']),
          dice.pick(['UTC', '', '-c a.b=c', '\ud83d\ude00']),
        ],
      ]
    : [];
  const frames = messages(dice, 1 + dice.below(300));
  const broken = dice.chance(0.6);
  if (broken) frames.push(mutated(dice, dice.pick(frames)));
  // Without an end of its own the client closes: a router may wait for the rest of a frame for ever.
  const ending = dice.chance(0.2) ? 'destroy' : 'end';
  if (!broken && dice.chance(0.5)) frames.push(frame(encodeTerminate));
  return { first: part([startup(options.trustedUser, settings)]), afterLogin: part(frames), ending };
}

function part(frames: readonly Buffer[]): Part {
  return { bytes: Buffer.concat(frames), frames: frames.length };
}

function frame(write: (writer: FrameWriter) => void): Buffer {
  const writer = new FrameWriter(256);
  write(writer);
  return Buffer.from(writer.take());
}

/** In one piece mostly, sometimes in several. */
function cut(bytes: Buffer, dice: Dice): Buffer[] {
  if (bytes.length < 2 || !dice.chance(0.3)) return [bytes];
  const at = 1 + dice.below(bytes.length - 1);
  return [bytes.subarray(0, at), bytes.subarray(at)];
}

function startupRubbish(dice: Dice, startup: (user: string) => Buffer): Buffer {
  switch (dice.below(6)) {
    case 0:
      return dice.bytes(dice.below(200));
    case 1:
      return mutated(dice, startup('app'));
    case 2:
      return Buffer.concat([frame(encodeSslRequest), dice.chance(0.5) ? startup('app') : dice.bytes(30)]);
    case 3:
      return frame((writer) =>
        encodeCancelRequest(writer, dice.below(2000), dice.bytes(dice.pick([4, 32, 200]))),
      );
    case 4:
      return mutated(
        dice,
        frame((writer) => encodeCancelRequest(writer, 1, dice.bytes(4))),
      );
    default:
      return Buffer.from(`GET / HTTP/1.1\r\nHost: ${'x'.repeat(dice.below(50))}\r\n\r\n`);
  }
}

function loginRubbish(dice: Dice): Buffer[] {
  const nonce = dice.bytes(12).toString('base64');
  const initial = frame((writer) =>
    encodeSaslInitial(
      writer,
      dice.pick(['SCRAM-SHA-256', 'SCRAM-SHA-256-PLUS', 'PLAIN']),
      `n,,n=,r=${nonce}`,
    ),
  );
  const response = frame((writer) =>
    encodeSaslResponse(writer, `c=biws,r=${nonce},p=${dice.bytes(32).toString('base64')}`),
  );
  const all = [initial, response, frame((writer) => encodePassword(writer, 'secret')), ...messages(dice, 3)];
  const chosen = Array.from({ length: 1 + dice.below(4) }, () => dice.pick(all));
  return chosen.map((one) => (dice.chance(0.5) ? mutated(dice, one) : one));
}

const TEXTS = [
  'SELECT 1',
  'SELECT $1::int + 1',
  'SELECT generate_series(1, 50)',
  'INSERT INTO plain (note) VALUES ($1)',
  `INSERT INTO plain (note) VALUES ('fuzz')`,
  'INSERT INTO events (id, note) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING',
  `INSERT INTO events (note) VALUES ('fuzz')`,
  'SELECT * FROM events WHERE id = $1',
  'UPDATE events SET note = note WHERE id = 5',
  'SELECT count(*) FROM events',
  'BEGIN',
  'COMMIT',
  'ROLLBACK',
  'SAVEPOINT s',
  'ROLLBACK TO s',
  'BEGIN; SELECT 1; COMMIT',
  'SELECT 1; SELECT 2',
  'SELECT 1/0',
  'SELEC',
  '',
  ';',
  `SET app.tenant = 'fuzz'`,
  `SET LOCAL app.tenant = 'fuzz'`,
  `SET search_path = nowhere, public`,
  `SELECT set_config('app.tenant', 'fuzz', true)`,
  'RESET app.tenant',
  'RESET ALL',
  'DISCARD ALL',
  'DEALLOCATE ALL',
  'DEALLOCATE s1',
  'COPY plain (note) FROM STDIN',
  'COPY plain (note) TO STDOUT',
  'DECLARE c CURSOR FOR SELECT 1',
  'FETCH 1 FROM c',
  'SELECT pg_advisory_xact_lock(3)',
  'SELECT no_such_function(1)',
  `SELECT '\u00e9\ud83d\ude00'`,
];
/** Those that give the session a backend of its own: seldom, since there are only so many. */
const PINNING = [
  'CREATE TEMP TABLE t (x int)',
  'LISTEN c',
  'SELECT pg_advisory_lock_shared(9)',
  'PREPARE p AS SELECT 1',
];
const STATEMENTS = ['', '', '', 's1', 's2', 's3'];
const PORTALS = ['', '', '', 'p1', 'p2'];

/** Whole frames, rightly framed, in an order that may make sense. */
function messages(dice: Dice, count: number): Buffer[] {
  const frames: Buffer[] = [];
  while (frames.length < count) {
    if (dice.chance(0.4)) {
      frames.push(...properRun(dice));
      continue;
    }
    frames.push(anyMessage(dice));
  }
  return frames;
}

function properRun(dice: Dice): Buffer[] {
  const name = dice.pick(STATEMENTS);
  const text = sqlText(dice);
  const count = text.includes('$2') ? 2 : text.includes('$1') ? 1 : 0;
  const parameters = Array.from({ length: count }, () => String(dice.below(1000)));
  return [
    frame((writer) => encodeParse(writer, name, text, [])),
    frame((writer) => encodeBind(writer, { portal: '', statement: name, parameters })),
    frame((writer) => encodeDescribe(writer, 'P', '')),
    frame((writer) => encodeExecute(writer, '', 0)),
    frame(encodeSync),
  ];
}

function sqlText(dice: Dice): string {
  if (dice.chance(0.002)) return dice.pick(PINNING);
  const text = dice.pick(TEXTS);
  if (!dice.chance(0.1)) return text;
  const at = dice.below(text.length + 1);
  return (
    text.slice(0, at) +
    dice.pick(["'", '"', '$1', '$$', '/*', ';', ' events ', '\u0001', ')']) +
    text.slice(at)
  );
}

function anyMessage(dice: Dice): Buffer {
  const statement = dice.pick(STATEMENTS);
  const portal = dice.pick(PORTALS);
  const target = dice.chance(0.5) ? 'S' : 'P';
  switch (dice.below(14)) {
    case 0:
    case 1:
    case 2:
      return frame((writer) => encodeQuery(writer, sqlText(dice)));
    case 3:
      return frame((writer) =>
        encodeParse(writer, statement, sqlText(dice), dice.chance(0.3) ? [23, 25] : []),
      );
    case 4:
      return frame((writer) =>
        encodeBind(writer, { portal, statement, parameters: dice.chance(0.3) ? ['1', null] : ['7'] }),
      );
    case 5:
      return frame((writer) => encodeDescribe(writer, target, target === 'S' ? statement : portal));
    case 6:
      return frame((writer) => encodeExecute(writer, portal, dice.pick([0, 1, -1, 2 ** 31 - 1])));
    case 7:
      return frame((writer) => encodeClose(writer, target, target === 'S' ? statement : portal));
    case 8:
      return frame(encodeFlush);
    case 9:
    case 10:
      return frame(encodeSync);
    case 11:
      return raw(Frontend.CopyData, Buffer.from('some row\n'));
    case 12:
      return raw(Frontend.CopyDone, Buffer.alloc(0));
    default:
      return dice.chance(0.3) ? raw(Frontend.CopyFail, Buffer.from('no\0')) : frame(encodeSync);
  }
}

function raw(type: number, body: Buffer): Buffer {
  const header = Buffer.alloc(5);
  header[0] = type;
  header.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([header, body]);
}

/** Something that is a frame no more, or a wrong one. */
function mutated(dice: Dice, original: Buffer): Buffer {
  const bytes = Buffer.from(original);
  switch (dice.below(7)) {
    case 0:
      // Any length: huge, negative, too small.
      if (bytes.length >= 5)
        bytes.writeUInt32BE(dice.pick([0, 3, 4, 5, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff]), 1);
      return bytes;
    case 1:
      return bytes.subarray(0, dice.below(bytes.length + 1));
    case 2: {
      // Cut short, with a length that agrees.
      if (bytes.length <= 5) return bytes;
      return raw(bytes[0]!, bytes.subarray(5, 5 + dice.below(bytes.length - 5)));
    }
    case 3:
      if (bytes.length > 0) bytes[0] = dice.below(256);
      return bytes;
    case 4:
      return Buffer.concat([bytes, dice.bytes(1 + dice.below(64))]);
    case 5:
      return dice.bytes(1 + dice.below(300));
    default:
      for (let i = 1 + dice.below(4); i > 0 && bytes.length > 5; i--)
        bytes[5 + dice.below(bytes.length - 5)] = dice.below(256);
      return bytes;
  }
}

class Dice {
  readonly #random: () => number;

  constructor(seed: number) {
    this.#random = seededRandom(seed);
  }

  below(bound: number): number {
    return Math.floor(this.#random() * bound);
  }

  chance(probability: number): boolean {
    return this.#random() < probability;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }

  bytes(count: number): Buffer {
    const bytes = Buffer.alloc(count);
    for (let i = 0; i < count; i++) bytes[i] = this.below(256);
    return bytes;
  }
}

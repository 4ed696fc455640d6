/**
 * The attacker's process: `node --import tsx attack-load.ts KIND PORT`. With port 0 it attacks a server of its own that throws everything
 * away: what the attack itself costs the machine is the baseline. It goes on until it is killed.
 */
import { connect, createServer, type Socket } from 'node:net';
import pg from 'pg';
import { header, startUp, startUpOf, typed } from '../../test/support/attacker.ts';

const PER_SECOND = 500;
const SILENT_MAX = 5_000;
const TICK_MS = 20;
const STATEMENTS_AT_ONCE = 8;
const DRIP = Buffer.alloc(1_000, 0x20);

const [, , kind = '', portText = '0'] = process.argv;
const open = new Set<Socket>();
const isOnSink = portText === '0';
const port = isOnSink ? await sink() : Number(portText);

function sink(): Promise<number> {
  const server = createServer((socket) => {
    socket.on('error', () => {}).resume();
    // As a router would, which has nothing to say to them.
    if (kind !== 'silent' && kind !== 'drip') socket.once('data', () => socket.end());
  });
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port));
  });
}

function send(...bytes: readonly Buffer[]): Socket {
  const socket = connect({ host: '127.0.0.1', port });
  open.add(socket);
  socket.on('error', () => {}).on('close', () => open.delete(socket));
  socket.resume();
  socket.write(Buffer.concat(bytes));
  return socket;
}

function cancelRequest(): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt32BE(16, 0);
  bytes.writeUInt32BE(80_877_102, 4);
  bytes.writeUInt32BE(Math.floor(Math.random() * 2 ** 31), 8);
  bytes.writeUInt32BE(Math.floor(Math.random() * 2 ** 32), 12);
  return bytes;
}

const APP = startUp({ user: 'app', database: 'app' });
const PROOF = Buffer.from('SCRAM-SHA-256\0\0\0\0\x20n,,n=,r=bm9uY2Ugb2YgYSB0ZXN0IQ==');
const ATTACKS: Record<string, () => void> = {
  /** Never log in: some say nothing, some half a word, some all but the password. */
  silent: () => {
    if (open.size < SILENT_MAX) send(...[[Buffer.alloc(0)], [APP.subarray(0, 5)], [APP]][open.size % 3]!);
  },
  cancels: () => void send(cancelRequest()),
  rubbish: () =>
    void send(Math.random() < 0.5 ? header('G', 0xffffffff) : startUpOf(Buffer.alloc(9_000, 0x78))),
  /** The whole exchange of a login, with a proof that is none. */
  passwords: () => {
    const socket = send(APP, typed('p', PROOF));
    socket.write(typed('p', `c=biws,r=bm9uY2Ugb2YgYSB0ZXN0IQ==,p=${'A'.repeat(43)}=`));
  },
  /** Large messages that never end, by clients that are logged in. */
  drip: () => {
    if (open.size < 100) {
      const socket = send(startUp({ user: 'mallory', database: 'app' }));
      socket.once('data', () => socket.write(header('Q', 200 * 1024 * 1024)));
      return;
    }
    for (const socket of open) if (Math.random() < 0.02 && socket.writableLength === 0) socket.write(DRIP);
  },
};

if (kind === 'statements') await statements();
else {
  const attack = ATTACKS[kind];
  if (!attack) throw new Error(`no attack is called ${kind}`);
  let due = performance.now();
  setInterval(() => {
    for (; due < performance.now(); due += 1_000 / PER_SECOND) attack();
  }, TICK_MS);
}

/** Statements that are refused, by a role that has no right to anything. */
async function statements(): Promise<void> {
  if (isOnSink) return;
  const clients = Array.from(
    { length: STATEMENTS_AT_ONCE },
    () => new pg.Client({ host: '127.0.0.1', port, user: 'mallory', database: 'app' }),
  );
  for (const client of clients) {
    client.on('error', () => {});
    await client.connect();
  }
  const texts = [
    'SELECT * FROM postern_internal.cluster',
    'SELECT * FROM events WHERE id = 1',
    'SET ROLE app',
  ];
  for (const [i, client] of clients.entries())
    void (async () => {
      for (let turn = i; ; turn++) {
        await client.query(texts[turn % texts.length]!).catch(() => {});
        await new Promise((resolve) => setTimeout(resolve, TICK_MS));
      }
    })();
}

/**
 * Lets npm `pg` come over a socket that is open already: so the control path connects, encrypts and checks certificates exactly
 * as the path of the clients' data does (node-tls.ts), and pg's own ways of doing so are not used.
 */
import type { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import type pg from 'pg';
import type { NodeTls } from '../pg/dsn-tls.ts';
import type { NodeSocket } from './node-tls.ts';

const PLUS = 'SCRAM-SHA-256-PLUS';
const NOT_BOUND =
  'channel_binding=require, and it did not offer an authentication method that supports channel binding';

/** For pg.Client's constructor. */
export function clientOver(
  opened: NodeSocket,
): Pick<pg.ClientConfig, 'stream' | 'ssl' | 'enableChannelBinding'> {
  const { socket } = opened;
  return {
    ssl: false,
    enableChannelBinding: opened.serverEndPoint !== undefined,
    stream: () => Object.assign(socket, { connect: () => announce(socket) }),
  };
}

/** pg calls connect(), and listens right after it. */
function announce(socket: Socket): Socket {
  process.nextTick(() => socket.emit('connect'));
  return socket;
}

/**
 * channel_binding=require: no password, and no proof of one, goes to a server that does not bind it to the channel. To be
 * called before the client connects; what it returns is asked when it has, and throws if the login was not bound.
 */
export function requireBinding(
  client: pg.Client,
  tls: NodeTls,
  password: string | undefined,
): { check(): void } {
  if (tls.channelBinding !== 'require') return { check() {} };
  // Not in pg's types, and as old as pg: what its Client listens to.
  const { connection } = client as unknown as { connection: EventEmitter };
  let offersPlus = false;
  let isProved = false;
  connection.prependListener('authenticationSASL', (message: { mechanisms: readonly string[] }) => {
    offersPlus = message.mechanisms.includes(PLUS);
  });
  connection.on('authenticationSASLFinal', () => {
    isProved = offersPlus;
  });
  // Asked for by every method, before anything is sent.
  Object.assign(client, {
    password: () => {
      if (!offersPlus) throw new Error(NOT_BOUND);
      return password;
    },
  });
  return {
    check() {
      if (!isProved) throw new Error(NOT_BOUND);
    },
  };
}

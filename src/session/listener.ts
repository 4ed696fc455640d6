/**
 * The router's door: accepts clients, sees them through login.ts, gives each a session, and finds the one that a cancel
 * request means.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';
import { ask, borrow } from '../backend/internal-query.ts';
import type { Settings } from '../backend/settings.ts';
import { BOUNDS } from '../base/bounds.ts';
import { notSupported, PosternError, shuttingDown, tooManyConnections } from '../base/errors.ts';
import type { RouterContext } from '../execute/context.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import {
  encodeBackendKeyData,
  encodeErrorResponse,
  encodeParameterStatus,
  encodeReadyForQuery,
} from '../wire/backend.ts';
import { FrameWriter } from '../wire/frame-writer.ts';
import { ClientLogin, type LoggedIn, type LoginHost } from './login.ts';
import { ClientOutput } from './output.ts';
import { Session } from './session.ts';
import { ClientState } from './state.ts';
import type { Users } from './users.ts';

/** What a login has to know of the home node, remembered for a moment: many clients of one kind log in together. */
interface LoginFacts {
  readonly parameters: ReadonlyMap<string, string>;
  readonly defaults: Settings;
  readonly searchPath: string;
  readonly atMs: number;
}

/** Accepts clients for other processes: none of their bytes are read here. Errors and bounds are those of `listen`. */
export async function openDoor(options: {
  readonly address: { readonly host: string; readonly port: number };
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

function bind(server: Server, address: { host: string; port: number }): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: address.host, port: address.port, backlog: 4_096 }, () => {
      server.off('error', reject);
      const bound = server.address();
      resolve(typeof bound === 'object' && bound ? bound.port : address.port);
    });
  });
}

const KEEP_ALIVE_DELAY_MS = 30_000;
const REFUSED_LINGER_MS = 5_000;
const LOGIN_FACTS_FRESH_MS = 5_000;
const LOGIN_FACTS_MAX = 1_000;

/** Whoever a door lets in. */
export type AcceptedClient = Socket;

/** This process's place among those that share the port. */
export interface SharedListener {
  readonly index: number;
  forwardCancel(processId: number, secretKey: Buffer): void;
}

export class Listener implements LoginHost {
  readonly users: Users;
  readonly mockSecret = randomBytes(32);
  readonly loginTimeoutMs: number;
  readonly #context: RouterContext;
  readonly #server: Server;
  readonly #logins = new Set<ClientLogin>();
  readonly #sessions = new Map<number, { session: Session; secretKey: Buffer }>();
  readonly #facts = new Map<string, LoginFacts>();
  /** Session ids of a router of several processes: which one, in the first byte, and a number. */
  readonly #shared: SharedListener | undefined;
  /** Of take(): the server does not know of them. */
  readonly #taken = new Set<Socket>();
  #onLastGone: (() => void) | undefined;
  #nextNumber = 0;
  #closing = false;

  constructor(
    context: RouterContext,
    users: Users,
    options: { readonly loginTimeoutMs?: number | undefined; readonly shared?: SharedListener | undefined },
  ) {
    this.#context = context;
    this.users = users;
    this.loginTimeoutMs = options.loginTimeoutMs ?? BOUNDS.loginTimeoutMs;
    this.#shared = options.shared;
    const keepAlive = { keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_DELAY_MS };
    this.#server = createServer({ noDelay: true, ...keepAlive }, (socket) => this.#onSocket(socket));
  }

  get database(): string {
    return this.#context.database;
  }

  get sessionCount(): number {
    return this.#sessions.size;
  }

  /** Resolves with the port. Rejects with the system's error (EADDRINUSE, EACCES …). */
  async listen(address: { host: string; port: number }): Promise<number> {
    const port = await bind(this.#server, address);
    this.#server.on('error', (error) => this.#context.log.error(`listener: ${error.message}`));
    return port;
  }

  /** A client that another process has accepted, in place of listen(). */
  take(socket: AcceptedClient): void {
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEP_ALIVE_DELAY_MS);
    this.#taken.add(socket);
    socket.on('close', () => {
      this.#taken.delete(socket);
      if (this.#taken.size === 0) this.#onLastGone?.();
    });
    this.#onSocket(socket);
  }

  /** Stops accepting and ends every client with 57P01. */
  async close(): Promise<void> {
    this.#closing = true;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const login of [...this.#logins]) login.refuse(shuttingDown());
    for (const { session } of [...this.#sessions.values()]) session.shutDown();
    await closed;
    if (this.#taken.size > 0) await new Promise<void>((resolve) => (this.#onLastGone = resolve));
  }

  /** A key that fits no session is ignored, as PostgreSQL does. */
  async cancel(processId: number, secretKey: Buffer): Promise<void> {
    const shared = this.#shared;
    if (shared && processId >>> 24 !== shared.index) {
      shared.forwardCancel(processId, secretKey);
      return;
    }
    const found = this.#sessions.get(processId);
    if (!found || found.secretKey.length !== secretKey.length) return;
    if (!timingSafeEqual(found.secretKey, secretKey)) return;
    await found.session.cancel();
  }

  async admit(client: LoggedIn): Promise<void> {
    const { socket, user } = client;
    const facts = await this.#loginFacts(user, client.defaults);
    if (socket.destroyed) return;
    if (this.#closing) throw shuttingDown();
    const id = this.#freeId();
    // Protocol 3.2 has keys of up to 256 bytes; before, it was 4.
    const secretKey = randomBytes(client.minorVersion >= 2 ? 32 : 4);
    const output = new ClientOutput(socket, this.#context.flushQueue);
    const state = new ClientState({
      context: this.#context,
      user,
      output,
      defaults: facts.defaults,
      searchPathText: facts.searchPath,
    });
    const { writer } = output;
    writer.raw(client.greeting, 0, client.greeting.length);
    for (const [name, value] of facts.parameters) {
      state.told.set(name, value);
      encodeParameterStatus(writer, name, value);
    }
    encodeBackendKeyData(writer, id, secretKey);
    encodeReadyForQuery(writer, 'I');
    const session = new Session({
      socket,
      reader: client.reader,
      state,
      onClosed: () => this.#sessions.delete(id),
    });
    this.#sessions.set(id, { session, secretKey });
    session.start();
  }

  #onSocket(socket: Socket): void {
    const login = new ClientLogin(socket, this);
    this.#logins.add(login);
    socket.on('close', () => this.#logins.delete(login));
    if (this.#closing) login.refuse(shuttingDown());
    else if (this.#logins.size > BOUNDS.clientsMax)
      login.refuse(tooManyConnections('sorry, too many clients already'));
  }

  /** Tries the client's settings where they will be used, and learns what it has to be told. */
  async #loginFacts(user: string, asked: Settings): Promise<LoginFacts> {
    const key = `${user}\0${asked.key}`;
    const known = this.#facts.get(key);
    const now = performance.now();
    if (known && now - known.atMs < LOGIN_FACTS_FRESH_MS) return known;
    const { pools, catalog } = this.#context;
    try {
      const facts = await borrow(
        pools.get(catalog.current.homeNodeId)!,
        { user, settings: asked },
        async (connection): Promise<LoginFacts> => {
          const names = ['search_path', ...asked.values.keys()];
          const list = names.map((name) => `pg_catalog.current_setting(${quoteLiteral(name)}, true)`);
          const [row = []] = await ask(connection, `SELECT ${list.join(', ')}`);
          const values = new Map([...asked.values.keys()].map((name, i) => [name, row[i + 1] ?? undefined]));
          const defaults = asked.with(values);
          connection.settings = defaults;
          if (connection.parameters.get('standard_conforming_strings') === 'off')
            throw notSupported(
              'standard_conforming_strings is off for this role or database',
              'Set it to on: the router reads string literals by the standard.',
            );
          return {
            parameters: new Map(connection.parameters),
            defaults,
            searchPath: row[0] ?? '',
            atMs: performance.now(),
          };
        },
      );
      if (this.#facts.size >= LOGIN_FACTS_MAX) this.#facts.clear();
      this.#facts.set(key, facts);
      return facts;
    } catch (error) {
      // The home node is away: a client whose like has been here before is let in, for the tables of other nodes.
      const away =
        error instanceof PosternError && (error.sqlState === '08001' || error.sqlState === '08006');
      if (known && away) return known;
      throw error;
    }
  }

  #freeId(): number {
    const base = (this.#shared?.index ?? 0) << 24;
    do {
      this.#nextNumber = (this.#nextNumber % 0xff_fffe) + 1;
    } while (this.#sessions.has(base + this.#nextNumber));
    return base + this.#nextNumber;
  }
}

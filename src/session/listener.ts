/**
 * The router's door: accepts clients, sees them through login.ts, gives each a session, and finds the one that a cancel
 * request means.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';
import { LoginCrowd, type LoginLimits } from '../admission/login-crowd.ts';
import type { Authenticator } from '../auth/authenticator.ts';
import { BOUNDS } from '../base/bounds.ts';
import { shuttingDown, tooManyLogins } from '../base/errors.ts';
import type { RouterContext } from '../execute/context.ts';
import type { ClientTls } from '../platform/client-tls.ts';
import { encodeBackendKeyData, encodeParameterStatus, encodeReadyForQuery } from '../wire/backend.ts';
import { FrameReader } from '../wire/frame-reader.ts';
import type { Admitted, ClientAdmission } from './client-admission.ts';
import { type Departure, type Leaver, leaveAll } from './departures.ts';
import { type AcceptedClient, bind, refuseClient } from './door.ts';
import { unpackState } from './handover.ts';
import type { HandedSession } from './handover-form.ts';
import { ClientLogin, type LoggedIn, type LoginHost } from './login.ts';
import { LoginFactsCache } from './login-facts.ts';
import { ClientOutput } from './output.ts';
import { Session } from './session.ts';
import { SessionIds, type SessionRoutes, slotOf } from './session-ids.ts';
import { ClientState } from './state.ts';
import type { SessionTimeouts } from './timeouts.ts';

/** Of a client that sends before it is told that it may. */
const EARLY_BYTES_MAX = 64 * 1024;

/** What bounds the clients of a listener. */
export interface DoorBounds {
  readonly admission: ClientAdmission;
  readonly timeouts: SessionTimeouts;
  readonly logins: LoginLimits;
  readonly loginTimeoutMs: number;
  readonly keepAliveMs: number;
  /** To be called at each look at the clients. */
  readonly onLook: () => void;
}

export class Listener implements LoginHost {
  readonly authenticator: Authenticator;
  readonly tls: ClientTls | undefined;
  loginTimeoutMs: number;
  readonly counters = { evictedLogins: 0, refusedLogins: 0, cancels: 0, handedOver: 0, adopted: 0 };
  readonly #context: RouterContext;
  readonly #server: Server;
  readonly #logins: LoginCrowd<ClientLogin>;
  readonly #sessions = new Map<number, { session: Session; secretKey: Buffer }>();
  readonly #facts: LoginFactsCache;
  readonly #admission: ClientAdmission;
  readonly #timeouts: SessionTimeouts;
  readonly #looks: NodeJS.Timeout;
  #keepAliveMs: number;
  /** undefined: there is no other process, nor router. */
  readonly #routes: SessionRoutes | undefined;
  readonly #ids = new SessionIds();
  /** Of take(): the server does not know of them. */
  readonly #taken = new Set<Socket>();
  #onLastGone: (() => void) | undefined;
  /** Of sessions that may yet be handed to this process. */
  #expectedIds: ReadonlySet<number> = new Set();
  #departure: Departure | undefined;
  /** Clients that have proved who they are, and have no session yet. */
  #entering = 0;
  #closing = false;
  #isThinningOut = false;

  constructor(
    context: RouterContext,
    authenticator: Authenticator,
    options: {
      readonly bounds: DoorBounds;
      readonly routes?: SessionRoutes | undefined;
      /** Default: there is none. */
      readonly tls?: ClientTls | undefined;
    },
  ) {
    this.#context = context;
    this.authenticator = authenticator;
    this.tls = options.tls;
    const { admission, timeouts, logins, loginTimeoutMs, keepAliveMs, onLook } = options.bounds;
    this.loginTimeoutMs = loginTimeoutMs;
    this.#keepAliveMs = keepAliveMs;
    this.#admission = admission;
    this.#timeouts = timeouts;
    this.#logins = new LoginCrowd(logins);
    this.#facts = new LoginFactsCache(context);
    this.#routes = options.routes;
    this.#server = createServer({ noDelay: true }, (socket) => this.#onSocket(socket));
    this.#looks = setInterval(() => {
      // When what has come meanwhile was read: after a pause of this process a client's silence may be none.
      setImmediate(() => this.#timeouts.tick());
      this.#thinOutSoon();
      onLook();
    }, BOUNDS.timeoutLookMs);
    this.#looks.unref();
  }

  get database(): string {
    return this.#context.database;
  }

  get sessionCount(): number {
    return this.#sessions.size;
  }

  /** Its clients are told to leave. */
  get isLeaving(): boolean {
    return this.#departure !== undefined || this.#closing;
  }

  /** Clients that have not logged in yet. */
  get loginCount(): number {
    return this.#logins.count;
  }

  /** For clients that come from now on; time-outs and places have reloads of their own. */
  reload(bounds: Pick<DoorBounds, 'logins' | 'loginTimeoutMs' | 'keepAliveMs'>): void {
    this.#logins.limits = bounds.logins;
    this.loginTimeoutMs = bounds.loginTimeoutMs;
    this.#keepAliveMs = bounds.keepAliveMs;
  }

  /** Resolves with the port. Rejects with the system's error (EADDRINUSE, EACCES …). */
  async listen(address: { host: string; port: number }): Promise<number> {
    const port = await bind(this.#server, address);
    this.#server.on('error', (error) => this.#context.log.error(`listener: ${error.message}`));
    return port;
  }

  /** A client that another process has accepted, in place of listen(). */
  take(socket: AcceptedClient): void {
    this.#own(socket);
    this.#onSocket(socket);
  }

  #own(socket: AcceptedClient): void {
    socket.setNoDelay(true);
    socket.setKeepAlive(true, this.#keepAliveMs);
    this.#taken.add(socket);
    socket.on('close', () => {
      this.#taken.delete(socket);
      if (this.#taken.size === 0) this.#onLastGone?.();
    });
  }

  /** As take(), of a client that another process has served until now. */
  adopt(socket: AcceptedClient, handed: HandedSession): void {
    this.#own(socket);
    socket.on('error', () => socket.destroy());
    if (this.#closing || this.#sessions.has(handed.id)) {
      refuseClient(socket, shuttingDown());
      return;
    }
    this.counters.adopted++;
    const { state: packed } = handed;
    socket.on('close', this.authenticator.adopt(packed.user, handed.credential));
    const output = new ClientOutput(socket, this.#context.flushQueue);
    const state = unpackState(packed, { context: this.#context, output });
    const reader = new FrameReader({ frameBytesMax: BOUNDS.clientFrameBytesMax });
    reader.push(Buffer.from(packed.unread, 'base64'));
    const secretKey = Buffer.from(handed.secretKey, 'base64');
    const place = this.#admission.adopt({ role: state.user, database: this.database, tenant: state.tenant });
    const session = this.#begin(handed.id, { secretKey, socket, reader, state, place });
    session.restore(packed);
    session.start();
  }

  /** No new client is given one of these. */
  expect(ids: readonly number[]): void {
    this.#expectedIds = new Set(ids);
  }

  get sessionIds(): number[] {
    return [...this.#sessions.keys()];
  }

  /**
   * Has all clients leave, each between two of its transactions; at the end of the time, or when `atOnce` is aborted, those that are
   * still there are ended with 57P01 wherever they are.
   */
  async depart(options: {
    readonly timeoutMs: number;
    /** Until then nobody is ended. */
    readonly spareMs?: number | undefined;
    readonly atOnce?: AbortSignal | undefined;
    /** To another process. */
    readonly send?: ((socket: AcceptedClient, handed: HandedSession) => Promise<void>) | undefined;
  }): Promise<void> {
    const { send } = options;
    await leaveAll({
      sessions: () => this.#departing(),
      announce: (departure) => {
        this.#departure = departure;
      },
      isMore: () => this.#logins.count + this.#entering > 0,
      ...{ timeoutMs: options.timeoutMs, spareMs: options.spareMs, atOnce: options.atOnce },
      send:
        send &&
        (({ id }, socket, state) => {
          const secretKey = this.#sessions.get(id)!.secretKey.toString('base64');
          const credential = this.authenticator.exportCredential(state.user);
          this.counters.handedOver++;
          return send(socket, { id, secretKey, credential, state });
        }),
    });
    this.#stop();
  }

  #stop(): void {
    this.#closing = true;
    this.#server.close();
    for (const login of [...this.#logins]) login.refuse(shuttingDown());
  }

  *#departing(): Iterable<Leaver> {
    for (const { session } of this.#sessions.values()) yield session;
  }

  #begin(
    id: number,
    of: { secretKey: Buffer; socket: Socket; reader: FrameReader; state: ClientState; place: Admitted },
  ): Session {
    const { secretKey, socket, reader, state, place } = of;
    const onClosed = (): void => {
      this.#sessions.delete(id);
      this.#timeouts.forget(session);
      place.leave();
    };
    const session = new Session({ id, socket, reader, state, onClosed });
    session.departure = this.#departure;
    this.#timeouts.watch(session);
    this.#sessions.set(id, { session, secretKey });
    return session;
  }

  /** Stops accepting and ends every client with 57P01. */
  async close(): Promise<void> {
    this.#closing = true;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const login of [...this.#logins]) login.refuse(shuttingDown());
    for (const { session } of [...this.#sessions.values()]) session.shutDown();
    await closed;
    clearInterval(this.#looks);
    if (this.#taken.size > 0) await new Promise<void>((resolve) => (this.#onLastGone = resolve));
  }

  /** Ends the sessions of a role whose name is another role's now. */
  expel(user: string): void {
    for (const { session } of [...this.#sessions.values()]) if (session.user === user) session.shutDown();
  }

  /** A key that fits no session is ignored, as PostgreSQL does. `address`: of whoever asks. */
  async cancel(processId: number, secretKey: Buffer, address?: string): Promise<void> {
    if (this.#sessions.has(processId) || !this.#routes) await this.cancelOwn(processId, secretKey);
    else if ([0, this.#routes.place().slot].includes(slotOf(processId)))
      this.#routes.toOtherProcess(processId, secretKey);
    else await this.#routes.toOtherRouter(processId, secretKey, address);
  }

  /** The same where the session can be no other process's: nobody else is asked. */
  async cancelOwn(processId: number, secretKey: Buffer): Promise<void> {
    const found = this.#sessions.get(processId);
    if (!found || found.secretKey.length !== secretKey.length) return;
    if (!timingSafeEqual(found.secretKey, secretKey)) return;
    this.counters.cancels++;
    await found.session.cancel();
  }

  async admit(client: LoggedIn): Promise<void> {
    this.#logins.remove(client.login);
    this.#entering++;
    try {
      const place = await this.#placeFor(client);
      const isServed = await this.#serve(client, place).catch((error: unknown) => {
        place.leave();
        throw error;
      });
      if (!isServed) place.leave();
    } finally {
      this.#entering--;
    }
  }

  /** Its place among the clients. One that goes away meanwhile waits no longer, nor does it take up room in the queue. */
  async #placeFor({ socket, user, tenant }: LoggedIn): Promise<Admitted> {
    const gone = new AbortController();
    const onGone = (): void => gone.abort(shuttingDown());
    const early: Buffer[] = [];
    let earlyBytes = 0;
    const onData = (chunk: Buffer): void => {
      early.push(chunk);
      earlyBytes += chunk.length;
      if (earlyBytes > EARLY_BYTES_MAX) socket.pause();
    };
    socket.on('close', onGone);
    // A socket that is not read says nothing of its end.
    socket.on('data', onData);
    socket.resume();
    try {
      if (socket.destroyed) onGone();
      return await this.#admission.enter({ role: user, database: this.database, tenant }, gone.signal);
    } finally {
      socket.off('close', onGone);
      socket.off('data', onData);
      socket.pause();
      if (earlyBytes > 0) socket.unshift(Buffer.concat(early));
    }
  }

  /** False: it has gone. */
  async #serve(client: LoggedIn, place: Admitted): Promise<boolean> {
    const { socket, user } = client;
    const facts = await this.#facts.of(user, client.defaults);
    if (socket.destroyed) return false;
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
      tenant: client.tenant,
      log: client.log,
    });
    const { writer } = output;
    writer.raw(client.greeting, 0, client.greeting.length);
    for (const [name, value] of facts.parameters) {
      state.told.set(name, value);
      encodeParameterStatus(writer, name, value);
    }
    encodeBackendKeyData(writer, id, secretKey);
    encodeReadyForQuery(writer, 'I');
    this.#begin(id, { secretKey, socket, reader: client.reader, state, place }).start();
    return true;
  }

  #onSocket(socket: Socket): void {
    socket.setKeepAlive(true, this.#keepAliveMs);
    const login = new ClientLogin(socket, this, this.#context.clientLogs.open(socket.remoteAddress));
    const isTaken = this.#logins.add(login, socket.remoteAddress ?? '', performance.now());
    socket.on('close', () => this.#logins.remove(login));
    if (this.#closing) login.refuse(shuttingDown());
    else if (!isTaken) {
      this.counters.refusedLogins++;
      login.dismiss(tooManyLogins());
    } else if (this.#logins.isCrowded) this.#thinOutSoon();
  }

  /** When what is there has been read. */
  #thinOutSoon(): void {
    if (this.#isThinningOut || this.#logins.count === 0) return;
    this.#isThinningOut = true;
    setImmediate(() => {
      this.#isThinningOut = false;
      this.#thinOut();
    });
  }

  /** Too many have not logged in yet: who has said least goes. */
  #thinOut(): void {
    for (const login of this.#logins.tick(performance.now())) {
      this.counters.evictedLogins++;
      login.dismiss(tooManyLogins());
    }
  }

  #freeId(): number {
    return this.#ids.next((id) => this.#sessions.has(id) || this.#expectedIds.has(id), this.#routes?.place());
  }
}

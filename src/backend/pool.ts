/**
 * The backend connections to one node, for all roles: few, shared by many clients a transaction at a time.
 *
 * A connection is in one of three places: idle (here), lent (with a session), opening. Their sum never exceeds
 * `connectionsMax`, or the share of it that this process has (`share`); for those who hold a connection to another node in the
 * same transaction, twice that, since they would wait for one another; and for brief questions, which wait for nobody, a few more.
 * Those beyond the share that transactions over several nodes have made necessary are kept for a while, for such alone: to open
 * one costs a server more than the whole transaction.
 * Whoever finds none waits in line, bounded in number and time.
 * Backends log in as the client's own role (docs/decisions), so a connection is lent to its own role only. When the node's
 * limit is reached, an idle one of another role is closed to make room; and where none is idle, roles that want more take their
 * share: one that comes back goes to whoever waits for its role, unless somebody of a role with fewer connections has been
 * first in line for `roleTurnMs`. Then it is closed, and one is opened for that role.
 */
import { BOUNDS } from '../base/bounds.ts';
import { PosternError, queryCanceled, tooManyConnections } from '../base/errors.ts';
import type { BackendAddress, BackendConnection } from './connection.ts';
import type { Settings } from './settings.ts';

export interface PoolOptions {
  readonly address: BackendAddress;
  readonly connectionsMax: number;
  readonly open: (user: string) => Promise<BackendConnection>;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  /** How long a statement waits for a free connection. */
  readonly acquireTimeoutMs?: number | undefined;
}

/** How a waiter leaves the line: a client that cancels or goes away. */
export interface AcquireTicket {
  giveUp: (() => void) | undefined;
}

/** Those with the greater need come first, and find more connections. */
const NEED = { ordinary: 0, beside: 1, brief: 2 } as const;
type Need = (typeof NEED)[keyof typeof NEED];

interface Waiter {
  readonly user: string;
  readonly settings: Settings;
  readonly resolve: (connection: BackendConnection) => void;
  readonly reject: (error: PosternError) => void;
  readonly deadlineMs: number;
  readonly need: Need;
  gone: boolean;
}

export class NodePool {
  readonly address: BackendAddress;
  readonly #options: PoolOptions;
  readonly #acquireTimeoutMs: number;
  /** `connectionsMax`, or this process's present share of it. */
  #share: number;
  /** By role, most recently used last. */
  readonly #idle = new Map<string, BackendConnection[]>();
  readonly #lent = new Set<BackendConnection>();
  #waiters: Waiter[] = [];
  #opening = 0;
  #openingByUser = new Map<string, number>();
  #idleCount = 0;
  #failedUntilMs = 0;
  /** The server's major version, as the connection that was opened last has told it; undefined: none was yet. */
  serverMajor: number | undefined;
  /** When somebody last asked who holds a connection to another node. */
  #besideAtMs = Number.NEGATIVE_INFINITY;
  #failure: PosternError | undefined;
  #failureUser = '';
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#acquireTimeoutMs = options.acquireTimeoutMs ?? BOUNDS.acquireTimeoutMs;
    this.#share = options.connectionsMax;
    this.address = options.address;
    this.#timer = setInterval(() => this.#tick(), 1_000);
    this.#timer.unref();
  }

  get size(): number {
    return this.#idleCount + this.#lent.size + this.#opening;
  }

  get connectionsMax(): number {
    return this.#options.connectionsMax;
  }

  get share(): number {
    return this.#share;
  }

  /** From now on so many at most. Of those beyond, idle ones are closed at once, lent ones when they come back. */
  set share(connections: number) {
    this.#share = Math.min(connections, this.#options.connectionsMax);
    while (this.size > this.#share && this.#closeIdleOfAnother(undefined));
    this.#openForWaiters();
  }

  /** How many connections could be lent now without anybody's waiting for one to come back. */
  get spare(): number {
    return this.#share - this.#lent.size - this.#waiters.length;
  }

  /** Told when somebody waits and no connection is being opened: those who keep idle ones may give them back. */
  onScarcity: (() => void) | undefined;

  /** How many wait for a connection. */
  get waiting(): number {
    return this.#waiters.length;
  }

  /**
   * The server processes of all connections, if whoever waits can only get one that is lent now; undefined: one is idle, is
   * being opened, or may be.
   */
  get holders(): readonly number[] | undefined {
    if (this.#opening > 0 || this.#idleCount > 0 || this.size < this.#limit) return undefined;
    return [...this.#lent].map((connection) => connection.processId);
  }

  /** For how long the first of them has; 0: nobody does. */
  get longestWaitMs(): number {
    const [first] = this.#waiters;
    return first ? this.#options.now() - (first.deadlineMs - this.#acquireTimeoutMs) : 0;
  }

  /** An idle connection of this role, one with the same settings if there is any; undefined: use acquire(). */
  tryAcquire(
    user: string,
    settings: Settings,
    options?: { readonly beside?: boolean; readonly brief?: boolean },
  ): BackendConnection | undefined {
    if (options?.beside) this.#besideAtMs = this.#options.now();
    if (this.#lent.size >= this.#limitFor(needOf(options))) return undefined;
    return this.#takeIdle(user, settings);
  }

  #takeIdle(user: string, settings: Settings): BackendConnection | undefined {
    const idle = this.#idle.get(user);
    if (!idle || idle.length === 0) return undefined;
    let at = idle.length - 1;
    const last = Math.max(0, idle.length - 16);
    for (let i = at; i >= last; i--) {
      if (idle[i]!.settings.key === settings.key) {
        at = i;
        break;
      }
    }
    const connection = at === idle.length - 1 ? idle.pop()! : idle.splice(at, 1)[0]!;
    this.#idleCount--;
    this.#lent.add(connection);
    return connection;
  }

  /**
   * Rejects with a PosternError: 08001 node away, 53300 none free in time. `ticket` leaves the line early. `beside`: whoever asks
   * holds a connection to another node, and others may wait for that one; so that not all wait for one another, these may be
   * as many again as the limit allows. `brief`: so does whoever asks, and gives it back after a question that waits for nobody's
   * locks; it never has to wait for those that do.
   */
  acquire(
    user: string,
    settings: Settings,
    options: { readonly ticket?: AcquireTicket; readonly beside?: boolean; readonly brief?: boolean } = {},
  ): Promise<BackendConnection> {
    const { ticket } = options;
    const need = needOf(options);
    const idle = this.tryAcquire(user, settings, options);
    if (idle) return Promise.resolve(idle);
    const now = this.#options.now();
    if (this.#isBackingOff(user) && !this.#mayWaitForOthers(user)) return Promise.reject(this.#failure);
    if (this.#waiters.length >= BOUNDS.acquireWaitersMax)
      return Promise.reject(tooManyConnections('too many statements wait for a backend connection'));
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        user,
        settings,
        resolve,
        reject,
        deadlineMs: now + this.#acquireTimeoutMs,
        need,
        gone: false,
      };
      if (ticket) ticket.giveUp = () => this.#giveUp(waiter);
      const behind = need === NEED.ordinary ? -1 : this.#waiters.findIndex((other) => other.need < need);
      this.#waiters.splice(behind < 0 ? this.#waiters.length : behind, 0, waiter);
      this.#openForWaiters();
      if (this.#waiters.length > this.#opening) this.onScarcity?.();
    });
  }

  /** Back from a session, quiet (no transaction, nothing pending). */
  release(connection: BackendConnection): void {
    connection.lessee = undefined;
    connection.onDrain = undefined;
    connection.onAnswered = undefined;
    // Whoever had it may have stopped it for a client that does not read.
    connection.resumeReading();
    if (connection.closed || !this.#lent.delete(connection)) return;
    if (this.#closed || this.size >= this.#sizeMaxFor(this.#limit)) {
      connection.destroy();
      return;
    }
    const at = this.#waiters.findIndex(
      ({ user, need }) => user === connection.user && this.#lent.size < this.#limitFor(need),
    );
    if (at > 0 && this.#isTurnOfAnother(connection.user)) {
      const { user } = this.#waiters[0]!;
      connection.destroy();
      // Its end may have been used for this already.
      if (this.#mayOpenFor(user) && this.#lent.size + this.#opening < this.#share) this.#open(user);
      return;
    }
    if (at >= 0) {
      const [waiter] = this.#waiters.splice(at, 1);
      waiter!.gone = true;
      this.#lent.add(connection);
      waiter!.resolve(connection);
      return;
    }
    connection.idleSinceMs = this.#options.now();
    this.#pushIdle(connection);
    if (this.#waiters.length > 0) this.#openForWaiters();
  }

  /** Not to be used again: its state is unknown or belongs to a client that has gone. */
  discard(connection: BackendConnection): void {
    this.#lent.delete(connection);
    connection.lessee = undefined;
    connection.onDrain = undefined;
    connection.onAnswered = undefined;
    connection.destroy();
    this.#openForWaiters();
  }

  /** Has the first in line waited long enough, and its role fewer connections than the one that gets one back? */
  #isTurnOfAnother(user: string): boolean {
    const first = this.#waiters[0]!;
    if (this.longestWaitMs < BOUNDS.roleTurnMs || !this.#mayOpenFor(first.user)) return false;
    // The one that has come back counts as its role's, though it is lent no more.
    const others = this.#countOf(first.user);
    return others === 0 || others < this.#countOf(user);
  }

  /** Do more wait of this role than connections are being opened for it? */
  #mayOpenFor(user: string): boolean {
    let missing = -(this.#openingByUser.get(user) ?? 0);
    for (const waiter of this.#waiters) if (waiter.user === user && ++missing > 0) return true;
    return false;
  }

  /** Lent, idle, or being opened. */
  #countOf(user: string): number {
    let count = (this.#idle.get(user)?.length ?? 0) + (this.#openingByUser.get(user) ?? 0);
    for (const connection of this.#lent) if (connection.user === user) count++;
    return count;
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#timer);
    for (const waiter of this.#waiters) waiter.reject(tooManyConnections('the router is shutting down'));
    this.#waiters = [];
    for (const list of this.#idle.values()) for (const connection of [...list]) connection.destroy();
    for (const connection of [...this.#lent]) connection.destroy();
  }

  #pushIdle(connection: BackendConnection): void {
    const list = this.#idle.get(connection.user);
    if (list) list.push(connection);
    else this.#idle.set(connection.user, [connection]);
    this.#idleCount++;
  }

  /** How many connections there may be for whoever is first in line. */
  get #limit(): number {
    return this.#limitFor(this.#waiters[0]?.need ?? NEED.ordinary);
  }

  /** How many connections there may be, idle ones and all, where so many may be lent. */
  #sizeMaxFor(lentMax: number): number {
    const isBeside = this.#options.now() - this.#besideAtMs < BOUNDS.besideIdleMs;
    return isBeside ? Math.max(lentMax, this.#limitFor(NEED.beside)) : lentMax;
  }

  #limitFor(need: Need): number {
    if (need === NEED.ordinary) return this.#share;
    return 2 * this.#share + (need === NEED.brief ? BOUNDS.briefConnections : 0);
  }

  #openForWaiters(): void {
    if (this.#closed || this.#waiters.length === 0) return;
    this.#lendIdle();
    if (this.size >= this.#limit && this.#idleCount === 0) return;
    for (const least of [NEED.brief, NEED.beside]) {
      const needy = this.#waiters.filter(({ need }) => need >= least);
      if (needy.length > 0) this.#openFor(needy, this.#limitFor(least));
    }
    this.#openFor(this.#waiters, this.#share);
  }

  /** What is kept for those who hold a connection elsewhere may go to the others as well, once fewer are lent. */
  #lendIdle(): void {
    if (this.#idleCount === 0) return;
    this.#waiters = this.#waiters.filter((waiter) => {
      if (this.#lent.size >= this.#limitFor(waiter.need)) return true;
      const connection = this.#takeIdle(waiter.user, waiter.settings);
      if (!connection) return true;
      waiter.gone = true;
      waiter.resolve(connection);
      return false;
    });
  }

  #openFor(waiters: readonly Waiter[], limit: number): void {
    const wanted = new Map<string, number>();
    for (const waiter of waiters) wanted.set(waiter.user, (wanted.get(waiter.user) ?? 0) + 1);
    for (const [user, count] of wanted) {
      if (this.#isBackingOff(user)) continue;
      let missing = count - (this.#openingByUser.get(user) ?? 0);
      while (missing-- > 0) {
        if (this.#lent.size + this.#opening >= limit) return;
        if (this.size >= this.#sizeMaxFor(limit) && !this.#closeIdleOfAnother(user)) return;
        this.#open(user);
      }
    }
  }

  #open(user: string): void {
    this.#opening++;
    this.#openingByUser.set(user, (this.#openingByUser.get(user) ?? 0) + 1);
    const opened = (): void => {
      this.#opening--;
      this.#openingByUser.set(user, this.#openingByUser.get(user)! - 1);
    };
    this.#options.open(user).then(
      (connection) => {
        opened();
        this.#failure = undefined;
        this.serverMajor =
          Number.parseInt(connection.parameters.get('server_version') ?? '', 10) || undefined;
        connection.onClosed = (closed) => this.#onClosed(closed);
        this.#lent.add(connection);
        this.release(connection);
      },
      (error: unknown) => {
        opened();
        this.#onOpenFailed(user, error);
      },
    );
  }

  #onOpenFailed(user: string, error: unknown): void {
    const failure =
      error instanceof PosternError
        ? error
        : new PosternError({
            sqlState: '08001',
            message: error instanceof Error ? error.message : String(error),
          });
    this.#failure = failure;
    this.#failureUser = user;
    this.#failedUntilMs = this.#options.now() + BOUNDS.backendConnectBackoffMs;
    if (this.#mayWaitForOthers(user)) return;
    const rest: Waiter[] = [];
    for (const waiter of this.#waiters) {
      if (waiter.user === user) {
        waiter.gone = true;
        waiter.reject(failure);
      } else rest.push(waiter);
    }
    this.#waiters = rest;
    this.#openForWaiters();
  }

  /** The last connection that was tried could not be opened: what can go elsewhere as well had better. */
  get isDoubtful(): boolean {
    return this.#failure !== undefined;
  }

  #isBackingOff(user: string): boolean {
    return (
      this.#failure !== undefined && this.#failureUser === user && this.#options.now() < this.#failedUntilMs
    );
  }

  /** A node at max_connections: while others of the role work, one waits for those. All else is heard at once. */
  #mayWaitForOthers(user: string): boolean {
    const full = this.#failure?.sqlState.startsWith('53') === true;
    return full && [...this.#lent].some((connection) => connection.user === user);
  }

  /** The longest idle connection of any other role; undefined: of any. */
  #closeIdleOfAnother(user: string | undefined): boolean {
    let oldest: BackendConnection | undefined;
    for (const [other, list] of this.#idle) {
      const first = list[0];
      if (other !== user && first && (!oldest || first.idleSinceMs < oldest.idleSinceMs)) oldest = first;
    }
    oldest?.destroy();
    return oldest !== undefined;
  }

  #onClosed(connection: BackendConnection): void {
    this.#lent.delete(connection);
    const list = this.#idle.get(connection.user);
    const at = list ? list.indexOf(connection) : -1;
    if (at >= 0) {
      list!.splice(at, 1);
      this.#idleCount--;
      if (list!.length === 0) this.#idle.delete(connection.user);
    }
    this.#openForWaiters();
  }

  #giveUp(waiter: Waiter): void {
    if (waiter.gone) return;
    waiter.gone = true;
    this.#waiters = this.#waiters.filter((other) => other !== waiter);
    waiter.reject(queryCanceled());
  }

  /** Once a second: time-outs of those in line, and connections idle for too long. */
  #tick(): void {
    const now = this.#options.now();
    const late = this.#waiters.filter((waiter) => waiter.deadlineMs <= now);
    if (late.length > 0) {
      this.#waiters = this.#waiters.filter((waiter) => waiter.deadlineMs > now);
      for (const waiter of late) {
        waiter.gone = true;
        waiter.reject(
          tooManyConnections(
            `no connection to node "${this.address.nodeName}" became free within ${this.#acquireTimeoutMs / 1000} s`,
            'Sessions that stay in a transaction, or need a backend of their own, hold one each.',
          ),
        );
      }
    }
    if (this.#waiters.length > 0) this.#openForWaiters();
    for (const list of this.#idle.values()) {
      const first = list[0];
      const keptMs = this.size > this.#share ? BOUNDS.besideIdleMs : BOUNDS.backendIdleMs;
      if (first && now - first.idleSinceMs > keptMs) first.destroy();
    }
  }
}

function needOf(options: { readonly beside?: boolean; readonly brief?: boolean } = {}): Need {
  if (options.brief) return NEED.brief;
  return options.beside ? NEED.beside : NEED.ordinary;
}

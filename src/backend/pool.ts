/**
 * The backend connections to one node, for all roles: few, shared by many clients a transaction at a time.
 *
 * A connection is in one of three places: idle (here), lent (with a session), opening. Their sum never exceeds
 * `connectionsMax`, or the share of it that this process has (`share`); for those who hold a connection to another node in the
 * same transaction, twice that, since they would wait for one another; and for brief questions, which wait for nobody, a few more.
 * Those beyond the share that transactions over several nodes have made necessary are kept for a while, for such alone: to open
 * one costs a server more than the whole transaction.
 * Whoever finds none waits in line, bounded in number and time; who of a role is next, waiting-line.ts decides.
 * Backends log in as the client's own role (docs/decisions), so a connection is lent to its own role only. When the node's
 * limit is reached, an idle one of another role is closed to make room; and where none is idle, roles that want more take their
 * share: one that comes back goes to whoever waits for its role, unless a role with fewer connections has waited for `roleTurnMs`. Then
 * it is closed, and one is opened for that role (role-turns.ts).
 * A role, and a tenant, may have a limit of its own. Whoever has the greater need is above it: it holds others up.
 */
import type { BackendLimits } from '../admission/limits.ts';
import { BOUNDS } from '../base/bounds.ts';
import { type PosternError, queryCanceled, tooManyConnections } from '../base/errors.ts';
import { WaitHistogram } from '../observe/metric-samples.ts';
import type { Host } from '../pg/dsn.ts';
import { type AcquireOptions, type AcquireTicket, needOf, openingFailure, type Waiter } from './acquire.ts';
import type { BackendAddress, BackendConnection } from './connection.ts';
import { HeldByTenant, SharedUse } from './held-by-tenant.ts';
import { switchSettings } from './internal-query.ts';
import { type RoleCount, RoleTurns } from './role-turns.ts';
import type { Settings } from './settings.ts';
import { type Holding, NEED, type Need, type Tenant, WaitingLine } from './waiting-line.ts';

export interface PoolOptions {
  readonly address: BackendAddress;
  readonly connectionsMax: number;
  readonly open: (user: string) => Promise<BackendConnection>;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  /** How long a statement waits for a free connection. */
  readonly acquireTimeoutMs?: number | undefined;
  readonly limits?: BackendLimits | undefined;
}

export class NodePool {
  readonly address: BackendAddress;
  readonly #options: PoolOptions;
  #acquireTimeoutMs: number;
  #limits: BackendLimits;
  /** `connectionsMax`, or this process's present share of it. */
  #share: number;
  /** By role, most recently used last. */
  readonly #idle = new Map<string, BackendConnection[]>();
  readonly #lent = new Set<BackendConnection>();
  readonly #line = new WaitingLine<Waiter>();
  /** Of lent connections. */
  readonly #held = new HeldByTenant();
  readonly #usage = new SharedUse();
  readonly #holding: Holding;
  #opening = 0;
  #openingByUser = new Map<string, number>();
  readonly #turns = new RoleTurns();
  /** How often the role of a name was found to be another one. */
  readonly #expulsions = new Map<string, number>();
  #idleCount = 0;
  #failedUntilMs = 0;
  /** The server's major version, as the connection that was opened last has told it; undefined: none was yet. */
  serverMajor: number | undefined;
  /** When somebody last asked who holds a connection to another node. */
  #besideAtMs = Number.NEGATIVE_INFINITY;
  #failure: PosternError | undefined;
  #failureUser = '';
  /** The node answers nothing: whoever asks hears this at once. */
  #shut: PosternError | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#acquireTimeoutMs = options.acquireTimeoutMs ?? BOUNDS.acquireTimeoutMs;
    this.#limits = options.limits ?? {};
    this.#share = options.connectionsMax;
    const perBucket = (): number => this.#mostOfOne();
    const perTenant = (): number => Math.min(this.#shareOf(this.#limits.perTenant), perBucket());
    this.#holding = {
      fits: (user, need) => this.#fits(user, need),
      heldBy: (tenant) => this.#held.of(tenant),
      get perTenant() {
        return perTenant();
      },
      get perBucket() {
        return perBucket();
      },
    };
    this.address = options.address;
    this.#timer = setInterval(() => this.#tick(), 1_000);
    this.#timer.unref();
  }

  get size(): number {
    return this.#idleCount + this.#lent.size + this.#opening;
  }

  /** For metrics. */
  readonly counters = { opened: 0, failed: 0, waits: new WaitHistogram() };

  get census(): { readonly idle: number; readonly lent: number; readonly opening: number } {
    return { idle: this.#idleCount, lent: this.#lent.size, opening: this.#opening };
  }

  /** The server processes of all connections. */
  get processIds(): readonly number[] {
    return [...this.#lent, ...[...this.#idle.values()].flat()].map(({ processId }) => processId);
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

  /** For those who come from now on. */
  reload(options: Pick<PoolOptions, 'acquireTimeoutMs' | 'limits'>): void {
    this.#acquireTimeoutMs = options.acquireTimeoutMs ?? BOUNDS.acquireTimeoutMs;
    this.#limits = options.limits ?? {};
    this.#openForWaiters();
  }

  /** How many connections could be lent now without anybody's waiting for one to come back. */
  get spare(): number {
    return this.#share - this.#lent.size - this.#line.count;
  }

  /** Told when somebody waits and no connection is being opened: those who keep idle ones may give them back. */
  onScarcity: (() => void) | undefined;

  /** How many wait for a connection. */
  get waiting(): number {
    return this.#line.count;
  }

  /**
   * The server processes of all connections, if whoever waits can only get one that is lent now; undefined: one is idle, is
   * being opened, or may be.
   */
  get holders(): readonly number[] | undefined {
    if (this.#opening > 0 || this.#idleCount > 0 || this.size < this.#limit) return undefined;
    return [...this.#lent].map((connection) => connection.processId);
  }

  /** For how long the one has that came first; 0: nobody does. */
  get longestWaitMs(): number {
    const oldest = this.#line.oldest();
    return oldest ? this.#options.now() - oldest.sinceMs : 0;
  }

  /** An idle connection of this role, one with the same settings if there is any; undefined: use acquire(). */
  tryAcquire(user: string, settings: Settings, options?: AcquireOptions): BackendConnection | undefined {
    if (options?.beside) this.#besideAtMs = this.#options.now();
    const need = needOf(options);
    if (need === NEED.ordinary) this.#usage.note(options?.tenant);
    if (this.#shut || this.#lent.size >= this.#limitFor(need)) return undefined;
    const { perRole, perTenant } = this.#limits;
    const isTight = this.#lent.size >= this.#mostOfOne() || (perRole ?? perTenant) !== undefined;
    if (isTight && !this.#isWithinLimits(user, need, options?.tenant)) return undefined;
    return this.#takeIdle(user, settings, options?.tenant);
  }

  #isWithinLimits(user: string, need: Need, tenant: Tenant): boolean {
    if (!this.#fits(user, need)) return false;
    if (need !== NEED.ordinary || tenant === undefined) return true;
    const { perTenant, perBucket } = this.#holding;
    return this.#held.of(tenant) < (typeof tenant === 'string' ? perTenant : perBucket);
  }

  /** While several use the node, none of those that are known has more than three quarters, or its long transactions would keep the rest out. */
  #mostOfOne(): number {
    if (!this.#usage.isShared) return Number.POSITIVE_INFINITY;
    return this.#share - Math.floor(this.#share * BOUNDS.othersShare);
  }

  #lend(connection: BackendConnection, tenant: Tenant): void {
    connection.lentTo = tenant;
    this.#lent.add(connection);
    this.#held.count(tenant, 1);
  }

  /** False: it was not lent. */
  #takeBack(connection: BackendConnection): boolean {
    if (!this.#lent.delete(connection)) return false;
    this.#held.count(connection.lentTo, -1);
    connection.lentTo = undefined;
    return true;
  }

  /** May one more be lent to this role? */
  #fits(user: string, need: Need): boolean {
    if (this.#lent.size >= this.#limitFor(need)) return false;
    if (need !== NEED.ordinary || this.#limits.perRole === undefined) return true;
    let held = this.#openingByUser.get(user) ?? 0;
    for (const connection of this.#lent) if (connection.user === user) held++;
    return held < this.#shareOf(this.#limits.perRole);
  }

  /** Of a limit of the router as a whole. */
  #shareOf(limit: number | undefined): number {
    if (limit === undefined) return Number.POSITIVE_INFINITY;
    return Math.max(1, Math.ceil((limit * this.#share) / this.#options.connectionsMax));
  }

  #takeIdle(user: string, settings: Settings, tenant: Tenant): BackendConnection | undefined {
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
    this.#lend(connection, tenant);
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
    options: AcquireOptions & { readonly ticket?: AcquireTicket } = {},
  ): Promise<BackendConnection> {
    const { ticket } = options;
    const need = needOf(options);
    if (this.#shut) return Promise.reject(this.#shut);
    const idle = this.tryAcquire(user, settings, options);
    if (idle) return Promise.resolve(idle);
    const now = this.#options.now();
    if (this.#isBackingOff(user) && !this.#mayWaitForOthers(user)) return Promise.reject(this.#failure);
    if (this.#line.count >= BOUNDS.acquireWaitersMax)
      return Promise.reject(tooManyConnections('too many statements wait for a backend connection'));
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        user,
        settings,
        resolve,
        reject,
        tenant: options.tenant,
        sinceMs: now,
        deadlineMs: now + this.#acquireTimeoutMs,
        need,
        waits: false,
      };
      if (ticket) ticket.giveUp = () => this.#giveUp(waiter);
      this.#line.add(waiter);
      this.#openForWaiters();
      if (this.#line.count > this.#opening) this.onScarcity?.();
    });
  }

  /** Back from a session, quiet (no transaction, nothing pending). */
  release(connection: BackendConnection): void {
    connection.lessee = undefined;
    connection.onDrain = undefined;
    connection.onAnswered = undefined;
    // Whoever had it may have stopped it for a client that does not read.
    connection.resumeReading();
    if (connection.settings.endRest && !connection.closed) {
      switchSettings(connection, connection.settings.atRest).then(
        () => this.release(connection),
        () => this.discard(connection),
      );
      return;
    }
    if (connection.closed || !this.#takeBack(connection)) return;
    if (this.#closed || this.size >= this.#sizeMaxFor(this.#limit)) {
      connection.destroy();
      return;
    }
    if (this.#line.countOf(connection.user) > 0) {
      const other = this.#roleInTurn(connection.user);
      if (other !== undefined) {
        connection.destroy();
        // Its end may have been used for this already.
        if (this.#mayOpenFor(other) && this.#lent.size + this.#opening < this.#share) this.#open(other);
        return;
      }
      const waiter = this.#line.take(connection.user, this.#holding);
      if (waiter) {
        this.#lend(connection, waiter.tenant);
        this.#serve(waiter, connection);
        return;
      }
    }
    connection.idleSinceMs = this.#options.now();
    this.#pushIdle(connection);
    if (this.#line.count > 0) this.#openForWaiters();
  }

  #serve(waiter: Waiter, connection: BackendConnection): void {
    this.counters.waits.record(this.#options.now() - waiter.sinceMs);
    waiter.resolve(connection);
  }

  /** Not to be used again: its state is unknown or belongs to a client that has gone. */
  discard(connection: BackendConnection): void {
    this.#takeBack(connection);
    connection.lessee = undefined;
    connection.onDrain = undefined;
    connection.onAnswered = undefined;
    connection.destroy();
    this.#openForWaiters();
  }

  /** Which other role has waited long enough, and has so few connections that one of this role's had better be its own? */
  #roleInTurn(user: string): string | undefined {
    if (this.#line.userCount < 2) return undefined;
    const now = this.#options.now();
    const own = { user, count: this.#countOf(user), need: this.#line.greatestNeedOf(user) };
    let inTurn: RoleCount | undefined;
    for (const other of this.#line.users) {
      const waitedMs = now - this.#line.oldest(other)!.sinceMs;
      if (other === user || waitedMs < BOUNDS.roleTurnMs || !this.#mayOpenFor(other)) continue;
      const one = { user: other, count: this.#countOf(other), need: this.#line.greatestNeedOf(other) };
      // Nobody is helped by closing it where none may be opened instead.
      if (one.need < own.need || this.#lent.size + this.#opening >= this.#limitFor(one.need)) continue;
      if (!this.#turns.isOver(own, one, now) || (inTurn && !this.#turns.isBefore(one, inTurn))) continue;
      if (!this.#fits(other, NEED.ordinary) && this.#limits.perRole !== undefined) continue;
      inTurn = one;
    }
    return inTurn?.user;
  }

  /** Do more wait of this role than connections are being opened for it? */
  #mayOpenFor(user: string): boolean {
    return this.#line.countOf(user) > (this.#openingByUser.get(user) ?? 0);
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
    for (const waiter of this.#line.removeAll())
      waiter.reject(tooManyConnections('the router is shutting down'));
    for (const list of this.#idle.values()) for (const connection of [...list]) connection.destroy();
    for (const connection of [...this.#lent]) connection.destroy();
  }

  #pushIdle(connection: BackendConnection): void {
    const list = this.#idle.get(connection.user);
    if (list) list.push(connection);
    else this.#idle.set(connection.user, [connection]);
    this.#idleCount++;
  }

  /** How many connections there may be for those in line with the greatest need. */
  get #limit(): number {
    return this.#limitFor(this.#line.greatestNeed);
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
    if (this.#closed || this.#line.count === 0) return;
    this.#lendIdle();
    if (this.size >= this.#limit && this.#idleCount === 0) return;
    const { greatestNeed } = this.#line;
    for (const least of [NEED.brief, NEED.beside]) if (greatestNeed >= least) this.#openFor(least);
    this.#openFor(NEED.ordinary);
  }

  /** What is kept for those who hold a connection elsewhere may go to the others as well, once fewer are lent. */
  #lendIdle(): void {
    if (this.#idleCount === 0) return;
    for (const user of this.#line.users) {
      while ((this.#idle.get(user)?.length ?? 0) > 0) {
        const waiter = this.#line.take(user, this.#holding);
        if (!waiter) break;
        this.#serve(waiter, this.#takeIdle(user, waiter.settings, waiter.tenant)!);
      }
    }
  }

  /** For those with at least this need, one after the other for the role that has fewest. */
  #openFor(least: Need): void {
    const limit = this.#limitFor(least);
    const wanted: { readonly user: string; missing: number; count: number }[] = [];
    for (const user of this.#line.users) {
      if (this.#isBackingOff(user)) continue;
      const servable = this.#line.countServable(user, least, this.#holding);
      const missing = servable - (this.#openingByUser.get(user) ?? 0);
      if (missing > 0) wanted.push({ user, missing, count: this.#countOf(user) });
    }
    while (wanted.length > 0 && this.#lent.size + this.#opening < limit) {
      let next = wanted[0]!;
      for (const one of wanted) if (this.#turns.isBefore(one, next)) next = one;
      if (next.missing-- <= 0 || !this.#fits(next.user, least)) {
        wanted.splice(wanted.indexOf(next), 1);
        continue;
      }
      if (this.size >= this.#sizeMaxFor(limit)) {
        // Its end opens for all that wait, this one too.
        this.#closeIdleOfAnother(next.user);
        return;
      }
      next.count++;
      this.#open(next.user);
    }
  }

  #open(user: string): void {
    this.#turns.begin(user, this.#options.now());
    this.#opening++;
    this.#openingByUser.set(user, (this.#openingByUser.get(user) ?? 0) + 1);
    const opened = (): void => {
      this.#opening--;
      this.#openingByUser.set(user, this.#openingByUser.get(user)! - 1);
    };
    const expulsions = this.#expulsions.get(user);
    this.#options.open(user).then(
      (connection) => {
        opened();
        if (expulsions !== this.#expulsions.get(user)) {
          connection.destroy();
          this.#openForWaiters();
          return;
        }
        this.counters.opened++;
        this.#turns.begin(user, this.#options.now());
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
    this.counters.failed++;
    const failure = openingFailure(error);
    this.#failure = failure;
    this.#failureUser = user;
    this.#failedUntilMs = this.#options.now() + BOUNDS.backendConnectBackoffMs;
    if (this.#mayWaitForOthers(user)) return;
    for (const waiter of this.#line.removeAll(user)) waiter.reject(failure);
    this.#openForWaiters();
  }

  /** The last connection that was tried could not be opened: what can go elsewhere as well had better. */
  get isDoubtful(): boolean {
    return this.isLate || this.#failure !== undefined || this.#shut !== undefined;
  }

  /** Something is amiss with the node. */
  isLate = false;

  /** Does the node answer nothing? */
  get isShut(): boolean {
    return this.#shut !== undefined;
  }

  get whyShut(): PosternError | undefined {
    return this.#shut;
  }

  /** Called at each cut(): whoever waits for the node over another connection than one of these. */
  readonly dependents = new Set<() => void>();

  /** Told when it begins to be. */
  onShut: (() => void) | undefined;

  /** Whoever asks, and who is in line, hears `why`; what is lent stays lent. */
  shut(why: PosternError): void {
    this.#shut = why;
    for (const waiter of this.#line.removeAll()) waiter.reject(why);
    this.onShut?.();
  }

  /** The node answers: what failed before says nothing any more. */
  reopen(): void {
    this.#shut = undefined;
    this.#failure = undefined;
  }

  /** Ends what waits for the node, over connections of this pool and others. */
  cut(keep: Host | undefined): void {
    for (const onCut of [...this.dependents]) onCut();
    this.keepOnly(keep);
  }

  /** Ends connections to other hosts, with what runs there. */
  keepOnly(keep: Host | undefined): void {
    for (const connection of [...this.#lent, ...[...this.#idle.values()].flat()])
      if (connection.address.host !== keep?.host || connection.address.port !== keep.port)
        connection.destroy();
  }

  /** The role of this name is another one than before: what is open has the rights of the old one, and is nobody's any more. */
  expel(user: string): void {
    this.#expulsions.set(user, (this.#expulsions.get(user) ?? 0) + 1);
    for (const connection of [...this.#lent, ...(this.#idle.get(user) ?? [])])
      if (connection.user === user) connection.destroy();
  }

  /** What the router logs in with for this role is another one now: what the server has said of the last holds no longer. */
  forgive(user: string): void {
    if (this.#failureUser === user && this.#failure?.sqlState.startsWith('28')) this.#failure = undefined;
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
    this.#takeBack(connection);
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
    if (this.#line.remove(waiter)) waiter.reject(queryCanceled());
  }

  /** Once a second: time-outs of those in line, and connections idle for too long. */
  #tick(): void {
    const now = this.#options.now();
    this.#usage.tick();
    for (const waiter of [...this.#line].filter(({ deadlineMs }) => deadlineMs <= now)) {
      this.#line.remove(waiter);
      waiter.reject(
        tooManyConnections(
          `no connection to node "${this.address.nodeName}" became free within ${this.#acquireTimeoutMs / 1000} s`,
          'Sessions that stay in a transaction, or need a backend of their own, hold one each.',
        ),
      );
    }
    if (this.#line.count > 0) this.#openForWaiters();
    for (const list of this.#idle.values()) {
      const first = list[0];
      const keptMs = this.size > this.#share ? BOUNDS.besideIdleMs : BOUNDS.backendIdleMs;
      if (first && now - first.idleSinceMs > keptMs) first.destroy();
    }
  }
}

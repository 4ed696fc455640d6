/**
 * One process's line to the register of routers (router-registry.ts), on a connection of its own to home: takes the router's slot,
 * renews its lease, knows which other routers are there, and sends and hears what routers tell one another.
 *
 *   away ──connect, claim──▶ registered ──(connection lost, an answer overdue)──▶ away ──(a pause)──▶ …
 *                               └──(another has the slot)──▶ claims anew
 *
 * Invariant: nothing that a client waits for waits for it, but a cancel request for another router's session. While home is away the
 * slot stays: sessions go on, and their ids are right if home comes back within the lease.
 */
import { setTimeout as pause } from 'node:timers/promises';
import type { ControlConnection } from '../platform/control-connection.ts';
import {
  addRouter,
  CANCEL_CHANNEL,
  chooseSlot,
  dropRouter,
  findRouter,
  forgetRouters,
  heartbeat,
  leave,
} from './router-registry.ts';
import { INTERNAL_SCHEMA, ROUTERS_LOCK } from './schema.ts';

const HEARTBEAT_MS = 5_000;
const RECONNECT_DELAY_MS_MIN = 250;
const RECONNECT_DELAY_MS_MAX = 5_000;
/** Between two looks at which routers there are: whoever asks for one that is unknown waits for the next look. */
const LOOK_INTERVAL_MS_MIN = 250;
const STOP_TIMEOUT_MS = 1_000;

export interface RouterRegistrationOptions {
  readonly open: () => Promise<ControlConnection>;
  /** The same for all processes of one router. */
  readonly router: { readonly id: string; readonly name: string; readonly version: string };
  readonly process: { readonly id: number; readonly worker: number };
  readonly clients: () => number;
  /** Server processes, by name of the node. */
  readonly backends: () => Readonly<Record<string, readonly number[]>>;
  /** What some role has sent on CANCEL_CHANNEL. */
  readonly onMessage: (payload: string) => void;
  readonly log: { warn(message: string): void };
  /** Default: 5 s. */
  readonly heartbeatMs?: number | undefined;
  /** ms of a clock that never goes back. */
  readonly now: () => number;
  /** From 0 to 1. */
  readonly random: () => number;
}

interface HeartbeatRow {
  readonly isMine: boolean;
  readonly nowMs: number;
  readonly slots: number[];
}

export class RouterRegistration {
  readonly #options: RouterRegistrationOptions;
  #connection: ControlConnection | undefined;
  readonly #heartbeatMs: number;
  #slot = 0;
  #slots: ReadonlySet<number> = new Set();
  #clockOffsetMs: number | undefined;
  #heardAtMs = Number.NEGATIVE_INFINITY;
  #beating: Promise<void> | undefined;
  #looking: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #delayMs = RECONNECT_DELAY_MS_MIN;
  #stopped = false;
  #isWarned = false;
  #isFullTold = false;

  constructor(options: RouterRegistrationOptions) {
    this.#options = options;
    this.#heartbeatMs = options.heartbeatMs ?? HEARTBEAT_MS;
  }

  /** 0: none yet. */
  get slot(): number {
    return this.#slot;
  }

  /** How long ago home has last answered; Infinity: never. */
  get silentMs(): number {
    return this.#options.now() - this.#heardAtMs;
  }

  /** Never rejects: a router serves without a slot, and tries again. */
  async start(): Promise<void> {
    await this.#connect();
  }

  async hasSlot(slot: number): Promise<boolean> {
    if (slot === 0) return false;
    if (!this.#slots.has(slot)) await this.#look();
    return this.#slots.has(slot);
  }

  homeNowMs(): number | undefined {
    return this.#clockOffsetMs === undefined ? undefined : this.#options.now() + this.#clockOffsetMs;
  }

  /** To every process of every router, this one included. Rejects when home is away. */
  async publish(payload: string): Promise<void> {
    await this.#beating?.catch(() => {});
    if (!this.#connection) throw new Error('the register of routers is away');
    await this.#connection.query('SELECT pg_notify($1, $2)', [CANCEL_CHANNEL, payload]);
  }

  /** Says good-bye, if home answers. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    const connection = this.#connection;
    this.#connection = undefined;
    if (!connection) return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, STOP_TIMEOUT_MS);
    });
    const { router, process } = this.#options;
    const left = connection
      .query(leave(INTERNAL_SCHEMA), [this.#slot, router.id, process.id])
      .then(() => connection.close())
      .catch(() => {});
    await Promise.race([left, late]);
    clearTimeout(timer);
    connection.destroy();
  }

  async #connect(): Promise<void> {
    let connection: ControlConnection | undefined;
    try {
      connection = await this.#options.open();
      connection.onNotification((channel, payload) => {
        if (channel === CANCEL_CHANNEL) this.#options.onMessage(payload);
      });
      await connection.query(`LISTEN ${CANCEL_CHANNEL}`);
      await this.#claim(connection);
      if (this.#stopped || connection.lost) throw new Error('the connection was closed');
      this.#connection = connection;
      await this.#beat();
    } catch (error) {
      connection?.destroy();
      this.#onAway(error as Error);
      return;
    }
    const registered = connection;
    registered.onLost(() => {
      if (this.#connection === registered) this.#onAway(new Error('the connection was lost'));
    });
    this.#delayMs = RECONNECT_DELAY_MS_MIN;
    this.#isWarned = false;
    this.#schedule(this.#heartbeatMs, () => this.#beatOrReconnect());
  }

  #onAway(error: Error): void {
    this.#connection = undefined;
    if (this.#stopped) return;
    if (!this.#isWarned) this.#options.log.warn(`the register of routers is away: ${error.message}`);
    this.#isWarned = true;
    // Not all routers at once.
    const delayMs = this.#delayMs * (0.5 + this.#options.random());
    this.#delayMs = Math.min(2 * this.#delayMs, RECONNECT_DELAY_MS_MAX);
    this.#schedule(delayMs, () => this.#connect());
  }

  #schedule(delayMs: number, work: () => Promise<void>): void {
    clearTimeout(this.#timer);
    if (this.#stopped) return;
    this.#timer = setTimeout(() => void work(), delayMs);
    this.#timer.unref();
  }

  /** The router's slot, which another of its processes may have taken already. */
  async #claim(connection: ControlConnection): Promise<void> {
    const { router } = this.#options;
    const slot = await connection.transaction(async () => {
      await connection.query(`SELECT ${ROUTERS_LOCK}`);
      await connection.query(forgetRouters(INTERNAL_SCHEMA));
      const [own] = await connection.query<{ slot: number }>(findRouter(INTERNAL_SCHEMA), [
        router.id,
        router.version,
      ]);
      if (own) return own.slot;
      const [choice] = await connection.query<{ slot: number; taken: boolean }>(chooseSlot(INTERNAL_SCHEMA), [
        this.#slot,
      ]);
      if (!choice) return 0;
      if (choice.taken) await connection.query(dropRouter(INTERNAL_SCHEMA), [choice.slot]);
      await connection.query(addRouter(INTERNAL_SCHEMA), [
        choice.slot,
        router.id,
        router.name,
        router.version,
      ]);
      return choice.slot;
    });
    if (slot === 0 && !this.#isFullTold)
      this.#options.log.warn(
        'all 127 slots of routers are taken: this one is not in postern.routers, and its sessions are canceled through it alone',
      );
    this.#isFullTold = slot === 0;
    this.#slot = slot;
  }

  async #beatOrReconnect(): Promise<void> {
    const connection = this.#connection;
    try {
      await this.#beat();
    } catch (error) {
      if (this.#connection === connection && connection) {
        this.#connection = undefined;
        connection.destroy();
        this.#onAway(error as Error);
      }
      return;
    }
    if (this.#connection === connection) this.#schedule(this.#heartbeatMs, () => this.#beatOrReconnect());
  }

  /** One at a time: a claim is a transaction on the one connection. */
  #beat(): Promise<void> {
    this.#beating ??= this.#beatOnce().finally(() => {
      this.#beating = undefined;
    });
    return this.#beating;
  }

  async #beatOnce(): Promise<void> {
    const connection = this.#connection;
    if (!connection) return;
    if (!(await this.#tell(connection))) {
      // Its lease had run out, or home has crashed.
      await this.#claim(connection);
      await this.#tell(connection);
    }
  }

  async #tell(connection: ControlConnection): Promise<boolean> {
    const { router, process, clients, backends, now } = this.#options;
    const askedAtMs = now();
    const [row] = await connection.query<HeartbeatRow>(heartbeat(INTERNAL_SCHEMA), [
      ...[this.#slot, router.id, process.id, process.worker, clients(), JSON.stringify(backends())],
    ]);
    const heardAtMs = now();
    this.#heardAtMs = heardAtMs;
    this.#clockOffsetMs = row!.nowMs - (askedAtMs + heardAtMs) / 2;
    this.#slots = new Set(row!.slots);
    return row!.isMine;
  }

  /** Who is there that the last heartbeat did not know? One question for all who ask at the same time. */
  #look(): Promise<void> {
    this.#looking ??= pause(Math.max(0, LOOK_INTERVAL_MS_MIN - this.silentMs))
      .then(() => this.#beat())
      .catch(() => {})
      .finally(() => {
        this.#looking = undefined;
      });
    return this.#looking;
  }
}

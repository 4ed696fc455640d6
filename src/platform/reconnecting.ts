/**
 * A control connection that is kept: opened again after each loss, at pauses that grow and are jittered, so that many routers
 * don't come back to a server in the same moment.
 *
 *   start() ─► open ──(lost)──► away ──(pause)──► opening ──► open
 *                                 ▲                  │ failed
 *                                 └──────────────────┘
 *
 * Invariant: there is one connection at a time, and `current` is one that is not lost.
 */
import type { ControlConnection } from './control-connection.ts';

export interface ReconnectingOptions {
  /** Opens one and makes it ready; whatever it rejects with, it is tried again. */
  readonly open: () => Promise<ControlConnection>;
  readonly firstMs: number;
  readonly maxMs: number;
  /** It is gone, and tried again from now on. */
  readonly onAway: (reason: string) => void;
  /** Another one is there. */
  readonly onBack: () => void;
}

export class Reconnecting {
  readonly #options: ReconnectingOptions;
  #current: ControlConnection | undefined;
  #tries = 0;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: ReconnectingOptions) {
    this.#options = options;
  }

  get current(): ControlConnection | undefined {
    return this.#current;
  }

  /** The first time: rejects if it can't be opened, and then nothing is tried again. */
  async start(): Promise<void> {
    this.#adopt(await this.#options.open());
  }

  /** It answers with errors, or not in time: it is as good as gone. */
  giveUp(connection: ControlConnection, reason: string): void {
    this.#onLost(connection, reason);
    connection.destroy();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    const connection = this.#current;
    this.#current = undefined;
    await connection?.close();
  }

  #adopt(connection: ControlConnection): void {
    if (this.#stopped) {
      connection.destroy();
      return;
    }
    this.#current = connection;
    this.#tries = 0;
    connection.onLost(() => this.#onLost(connection, 'the connection was lost'));
  }

  #onLost(connection: ControlConnection, reason: string): void {
    if (this.#current !== connection) return;
    this.#current = undefined;
    if (this.#stopped) return;
    this.#options.onAway(reason);
    this.#schedule();
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    if (this.#stopped) return;
    const { firstMs, maxMs } = this.#options;
    const delayMs = backoffMs({ tries: this.#tries++, firstMs, maxMs, random: Math.random });
    this.#timer = setTimeout(() => void this.#reopen(), delayMs);
  }

  async #reopen(): Promise<void> {
    let connection: ControlConnection;
    try {
      connection = await this.#options.open();
    } catch {
      this.#schedule();
      return;
    }
    // Lost while it was made ready: onLost() would not be called any more.
    if (connection.lost) this.#schedule();
    else {
      this.#adopt(connection);
      if (!this.#stopped) this.#options.onBack();
    }
  }
}

/** The pause before the next try after `tries` that failed: doubled each time, up to `maxMs`, and a fifth more or less. */
export function backoffMs(options: {
  readonly tries: number;
  readonly firstMs: number;
  readonly maxMs: number;
  /** From 0 to 1. */
  readonly random: () => number;
}): number {
  const { tries, firstMs, maxMs, random } = options;
  return Math.min(firstMs * 2 ** Math.min(tries, 30), maxMs) * (0.8 + 0.4 * random());
}

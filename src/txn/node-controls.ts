/**
 * The control path of transactions: a few connections to each node for what no client's backend can do any more, opened when
 * needed, kept for the next question, and given up after a while without one.
 *
 * Invariant: each question is bounded, and one that waits (for a lock, for a backend to end) holds up no other.
 */
import { assert } from '../base/assert.ts';
import { BOUNDS } from '../base/bounds.ts';
import { quoteIdentifier } from '../pg/identifier.ts';
import type { ControlConnection } from '../platform/control-connection.ts';

interface Kept {
  readonly connection: ControlConnection;
  readonly isSuperuser: boolean;
  usedAtMs: number;
}

export class NodeControls {
  readonly #open: (nodeId: number) => Promise<ControlConnection>;
  readonly #now: () => number;
  readonly #idle = new Map<number, Kept[]>();
  readonly #used = new Map<number, number>();
  readonly #lines = new Map<number, (() => void)[]>();
  #closed = false;

  constructor(options: { open: (nodeId: number) => Promise<ControlConnection>; now: () => number }) {
    this.#open = options.open;
    this.#now = options.now;
  }

  /** Runs `work` on a connection to that node. Rejects with PosternError 08001, 08006 or ServerError. */
  async use<T>(nodeId: number, work: (control: NodeControl) => Promise<T>): Promise<T> {
    await this.#turn(nodeId);
    let kept: Kept | undefined;
    try {
      kept = this.#takeIdle(nodeId) ?? (await this.#openNew(nodeId));
      return await work(new NodeControl(kept.connection, kept.isSuperuser));
    } finally {
      this.#release(nodeId, kept);
    }
  }

  /** Closes what nobody has used for a minute. */
  closeIdle(): void {
    for (const list of this.#idle.values())
      while (list[0] && this.#now() - list[0].usedAtMs > IDLE_MS) void list.shift()!.connection.close();
  }

  /** What is in use ends with its own question. */
  async close(): Promise<void> {
    this.#closed = true;
    const all = [...this.#idle.values()].flat();
    this.#idle.clear();
    await Promise.all(all.map(({ connection }) => connection.close()));
  }

  #turn(nodeId: number): Promise<void> | void {
    const used = this.#used.get(nodeId) ?? 0;
    if (used < BOUNDS.transactionControlsPerNode) {
      this.#used.set(nodeId, used + 1);
      return;
    }
    return new Promise((resolve) => {
      const line = this.#lines.get(nodeId);
      if (line) line.push(resolve);
      else this.#lines.set(nodeId, [resolve]);
    });
  }

  #takeIdle(nodeId: number): Kept | undefined {
    const list = this.#idle.get(nodeId);
    for (let kept = list?.pop(); kept; kept = list?.pop()) if (!kept.connection.lost) return kept;
    return undefined;
  }

  async #openNew(nodeId: number): Promise<Kept> {
    const connection = await this.#open(nodeId);
    const rows = await connection.query<{ superuser: boolean }>(
      // A limit that is set for the role would end the wait for a standby with a mere warning; this side gives up by itself.
      'SET statement_timeout = 0; SELECT rolsuper AS superuser FROM pg_roles WHERE rolname = session_user',
    );
    return { connection, isSuperuser: rows[0]?.superuser === true, usedAtMs: this.#now() };
  }

  #release(nodeId: number, kept: Kept | undefined): void {
    const next = this.#lines.get(nodeId)?.shift();
    if (next) next();
    else this.#used.set(nodeId, this.#used.get(nodeId)! - 1);
    if (!kept || kept.connection.lost) return;
    if (this.#closed) {
      void kept.connection.close();
      return;
    }
    kept.usedAtMs = this.#now();
    const list = this.#idle.get(nodeId);
    if (list) list.push(kept);
    else this.#idle.set(nodeId, [kept]);
  }
}

const IDLE_MS = 60_000;

/** One connection while a question runs on it. */
export class NodeControl {
  readonly connection: ControlConnection;
  readonly #isSuperuser: boolean;

  constructor(connection: ControlConnection, isSuperuser: boolean) {
    this.connection = connection;
    this.#isSuperuser = isSuperuser;
  }

  query<Row extends object>(text: string, values?: readonly unknown[]): Promise<Row[]> {
    return this.connection.query<Row>(text, values);
  }

  /** With the rights of that role: only it or a superuser may finish a prepared transaction or end a backend. */
  async asOwner<Row extends object>(
    owner: string,
    text: string,
    values?: readonly unknown[],
  ): Promise<Row[]> {
    if (this.#isSuperuser) return await this.connection.query<Row>(text, values);
    assert(owner !== '', 'an owner has a name');
    await this.connection.query(`SET ROLE ${quoteIdentifier(owner)}`);
    try {
      return await this.connection.query<Row>(text, values);
    } finally {
      // Whoever has this connection next must not be that role: if it can't be undone, the connection ends.
      await this.connection.query('RESET ROLE').catch(() => this.connection.destroy());
    }
  }
}

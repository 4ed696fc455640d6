/**
 * A PostgreSQL server as far as two-phase commit goes, in virtual time: open and prepared transactions with their row locks,
 * unique keys on which inserts wait, what is visible, and a WAL. What is visible is a fold of the WAL, so that a crash is
 * the replay of what was flushed, and a failover that of what had reached the standby.
 *
 * As in PostgreSQL: PREPARE TRANSACTION and COMMIT PREPARED always flush; a commit becomes visible after its wait for the standby;
 * a backend that is ended in that wait has committed all the same; a prepared transaction is busy while a backend works on it.
 */
export interface Clock {
  readonly now: () => number;
  readonly after: (delayMs: number, run: () => void) => void;
  readonly random: () => number;
}

export interface DecisionRow {
  readonly outcome: 'commit' | 'abort';
  readonly participants: readonly number[];
  readonly xid: number;
  readonly atMs: number;
}

export interface Gid {
  readonly id: string;
  readonly commitPoint: number;
  readonly processId: number;
  /** When its decision was sent; without one, 0. */
  readonly decidedAtMs: number;
}

interface Changes {
  readonly id: string;
  readonly transfers: (readonly [account: string, amount: number])[];
  decision?: DecisionRow;
  mark?: number;
}

export interface PreparedTransaction {
  readonly gid: Gid;
  readonly atMs: number;
  readonly xid: number;
  readonly changes: Changes;
  busy: boolean;
}

type WalRecord =
  | { readonly kind: 'commit'; readonly xid: number; readonly changes: Changes }
  | { readonly kind: 'prepare'; readonly prepared: PreparedTransaction }
  | { readonly kind: 'finish'; readonly id: string; readonly outcome: 'commit' | 'abort' }
  | { readonly kind: 'delete'; readonly table: 'decisions' | 'marks'; readonly id: string }
  | { readonly kind: 'barrier' };

interface OpenTransaction {
  readonly changes: Changes;
  xid: number | undefined;
  /** The commit waits for flush and standby. */
  synchronous: boolean;
  /** A statement has failed. */
  failed: boolean;
  /** Others can tell that its backend is within it (a ROLLBACK TO SAVEPOINT may have freed the lock that shows it). */
  isRecognized: boolean;
}

export interface Backend {
  readonly processId: number;
  readonly queue: ((done: () => void) => void)[];
  busy: boolean;
  closed: boolean;
  alive: boolean;
  transaction: OpenTransaction | undefined;
}

type Holder = OpenTransaction | PreparedTransaction;

export class SimulatedNode {
  readonly nodeId: number;
  readonly #clock: Clock;
  /** `sync`: commits wait for the standby; `async`: they don't; none: a failover doesn't happen. */
  readonly #standby: 'none' | 'sync' | 'async';
  #wal: WalRecord[] = [];
  #flushed = 0;
  #replicated = 0;
  #nextXid = 100;
  #nextProcessId = 1;
  #life = 0;
  up = true;
  readonly backends = new Set<Backend>();
  prepared = new Map<string, PreparedTransaction>();
  decisions = new Map<string, DecisionRow>();
  marks = new Map<string, number>();
  applied = new Set<string>();
  /** Also what a failover has taken back. */
  readonly everApplied = new Set<string>();
  /** Transactions of which a crash or a failover has taken records back. */
  readonly truncated = new Set<string>();
  #balances = new Map<string, number>();
  #locks = new Map<string, Holder>();
  #lockWaits: { key: string; holder: Holder; granted: () => void }[] = [];
  #standbyWaits: { position: number; backend: Backend; then: () => void }[] = [];

  constructor(nodeId: number, standby: 'none' | 'sync' | 'async', clock: Clock) {
    this.nodeId = nodeId;
    this.#standby = standby;
    this.#clock = clock;
  }

  connect(): Backend {
    const backend: Backend = {
      processId: this.#nextProcessId++,
      queue: [],
      busy: false,
      closed: false,
      alive: true,
      transaction: undefined,
    };
    this.backends.add(backend);
    return backend;
  }

  /** One after the other, as a backend reads its messages. */
  run(backend: Backend, work: (done: () => void) => void): void {
    if (!backend.alive || backend.closed) return;
    backend.queue.push(work);
    this.#next(backend);
  }

  #next(backend: Backend): void {
    if (backend.busy || !backend.alive) return;
    const work = backend.queue.shift();
    if (!work) {
      if (backend.closed) this.#end(backend);
      return;
    }
    backend.busy = true;
    work(() => {
      if (!backend.alive) return;
      backend.busy = false;
      this.#next(backend);
    });
  }

  /** The client has gone; noticed when the backend next reads. */
  close(backend: Backend): void {
    backend.closed = true;
    this.#next(backend);
  }

  /** As pg_terminate_backend. */
  terminate(backend: Backend): void {
    if (!backend.alive) return;
    const waits = this.#standbyWaits.filter((wait) => wait.backend === backend);
    this.#standbyWaits = this.#standbyWaits.filter((wait) => wait.backend !== backend);
    for (const { then } of waits) then();
    this.#end(backend);
  }

  #end(backend: Backend): void {
    backend.alive = false;
    this.backends.delete(backend);
    this.rollback(backend);
  }

  crash(kind: 'crash' | 'failover'): void {
    this.#life++;
    this.up = false;
    for (const backend of this.backends) backend.alive = false;
    this.backends.clear();
    this.#locks.clear();
    this.#lockWaits = [];
    this.#standbyWaits = [];
    const kept = kind === 'crash' ? this.#flushed : Math.min(this.#flushed, this.#replicated);
    for (const record of this.#wal.slice(kept)) this.truncated.add(idOf(record));
    this.#wal = this.#wal.slice(0, kept);
    this.#flushed = kept;
    this.#replicated = Math.min(this.#replicated, kept);
    this.prepared = new Map();
    this.decisions = new Map();
    this.marks = new Map();
    this.applied = new Set();
    this.#balances = new Map();
    for (const record of this.#wal) this.#apply(record);
    for (const prepared of this.prepared.values()) {
      prepared.busy = false;
      for (const [account] of prepared.changes.transfers) this.#locks.set(account, prepared);
    }
  }

  get sum(): number {
    return [...this.#balances.values()].reduce((sum, amount) => sum + amount, 0);
  }

  get xmin(): number {
    const open = [...this.backends].map(({ transaction }) => transaction?.xid ?? Infinity);
    return Math.min(this.#nextXid, ...open, ...[...this.prepared.values()].map(({ xid }) => xid));
  }

  /** Still within the transaction `id`, so that ending it strikes nobody else. */
  isWithin(processId: number, id: string): Backend | undefined {
    return [...this.backends].find(
      (one) => one.processId === processId && one.transaction?.changes.id === id,
    );
  }

  begin(backend: Backend, id: string, synchronous: boolean): OpenTransaction {
    backend.transaction ??= {
      changes: { id, transfers: [] },
      xid: undefined,
      synchronous,
      failed: false,
      isRecognized: this.#clock.random() < 0.5,
    };
    return backend.transaction;
  }

  assignXid(transaction: OpenTransaction): number {
    transaction.xid ??= this.#nextXid++;
    return transaction.xid;
  }

  /** UPDATE … SET balance = balance + amount: waits for the row's lock. */
  transfer(backend: Backend, change: { account: string; amount: number }, then: () => void): void {
    const transaction = backend.transaction!;
    this.assignXid(transaction);
    this.#lock(change.account, transaction, () => {
      transaction.changes.transfers.push([change.account, change.amount]);
      then();
    });
  }

  #lock(key: string, holder: Holder, granted: () => void): void {
    const held = this.#locks.get(key);
    if (held !== undefined && held !== holder) {
      this.#lockWaits.push({ key, holder, granted });
      return;
    }
    this.#locks.set(key, holder);
    granted();
  }

  #unlock(holder: Holder): void {
    this.#lockWaits = this.#lockWaits.filter((wait) => wait.holder !== holder);
    for (const [key, held] of this.#locks) if (held === holder) this.#locks.delete(key);
    for (const wait of [...this.#lockWaits]) {
      if (this.#locks.has(wait.key) || !this.#lockWaits.includes(wait)) continue;
      this.#lockWaits = this.#lockWaits.filter((one) => one !== wait);
      this.#lock(wait.key, wait.holder, wait.granted);
    }
  }

  rollback(backend: Backend): void {
    const { transaction } = backend;
    backend.transaction = undefined;
    if (transaction) this.#unlock(transaction);
  }

  prepare(backend: Backend, gid: Gid, mark: number | undefined, then: (tag: string) => void): void {
    const transaction = backend.transaction!;
    if (transaction.failed) {
      this.rollback(backend);
      then('ROLLBACK');
      return;
    }
    // postern_commit.mark()
    if (mark !== undefined) {
      transaction.changes.mark = mark;
      transaction.synchronous = true;
    }
    const xid = this.assignXid(transaction);
    const prepared = { gid, atMs: this.#clock.now(), xid, changes: transaction.changes, busy: true };
    backend.transaction = undefined;
    const position = this.#log({ kind: 'prepare', prepared });
    this.#flushed = position;
    this.prepared.set(gid.id, prepared);
    for (const [key, held] of this.#locks) if (held === transaction) this.#locks.set(key, prepared);
    this.#whenReplicated(backend, position, transaction.synchronous, () => {
      prepared.busy = false;
      then('PREPARE TRANSACTION');
    });
  }

  /** postern_commit.decide(): the row, under a unique key, whose first writer the next one waits for. */
  decide(backend: Backend, participants: readonly number[], then: (ok: boolean) => void): void {
    const transaction = backend.transaction!;
    const { id } = transaction.changes;
    if (transaction.failed) {
      then(false);
      return;
    }
    transaction.synchronous = true;
    transaction.isRecognized = true;
    this.#insertDecision(transaction, id, { outcome: 'commit', participants }, (ok) => {
      transaction.failed = !ok;
      then(ok);
    });
  }

  #insertDecision(
    transaction: OpenTransaction,
    id: string,
    row: Pick<DecisionRow, 'outcome' | 'participants'>,
    then: (ok: boolean) => void,
  ): void {
    const xid = this.assignXid(transaction);
    this.#lock(`decision ${id}`, transaction, () => {
      if (this.decisions.has(id)) {
        then(false);
        return;
      }
      transaction.changes.decision = { ...row, xid, atMs: this.#clock.now() };
      then(true);
    });
  }

  commit(backend: Backend, then: (tag: string) => void): void {
    const transaction = backend.transaction;
    if (!transaction || transaction.failed) {
      this.rollback(backend);
      then('ROLLBACK');
      return;
    }
    if (transaction.xid === undefined) {
      backend.transaction = undefined;
      then('COMMIT');
      return;
    }
    const record: WalRecord = { kind: 'commit', xid: transaction.xid, changes: transaction.changes };
    const position = this.#log(record);
    const { synchronous } = transaction;
    if (synchronous) this.#flushed = position;
    else this.#flushLater(position);
    this.#whenReplicated(backend, position, synchronous, () => {
      this.#apply(record);
      this.rollback(backend);
      then('COMMIT');
    });
  }

  /** With a lock_timeout. */
  insertAbortRow(
    backend: Backend,
    id: string,
    timeoutMs: number,
    then: (result: 'inserted' | 'exists' | 'locked') => void,
  ): void {
    const transaction = this.begin(backend, `abort ${id}`, true);
    let waits = true;
    this.#clock.after(timeoutMs, () => {
      if (!waits || !backend.alive) return;
      waits = false;
      this.rollback(backend);
      then('locked');
    });
    this.#insertDecision(transaction, id, { outcome: 'abort', participants: [] }, (ok) => {
      if (!waits) return;
      waits = false;
      if (ok) {
        this.commit(backend, () => then('inserted'));
      } else {
        this.rollback(backend);
        then('exists');
      }
    });
  }

  finish(
    backend: Backend,
    id: string,
    options: { outcome: 'commit' | 'abort'; synchronous: boolean },
    then: (result: 'done' | 'notThere' | 'failed') => void,
  ): void {
    const prepared = this.prepared.get(id);
    if (!prepared || prepared.busy) {
      then(prepared ? 'failed' : 'notThere');
      return;
    }
    prepared.busy = true;
    const record: WalRecord = { kind: 'finish', id, outcome: options.outcome };
    const position = this.#log(record);
    this.#flushed = position;
    this.#whenReplicated(backend, position, options.synchronous, () => {
      this.#apply(record);
      this.#unlock(prepared);
      then('done');
    });
  }

  /** Writes something small and waits until it, and all before it, is on the standby. */
  write(backend: Backend, records: readonly WalRecord[], then: () => void): void {
    let position = this.#wal.length;
    for (const record of records) position = this.#log(record);
    this.#flushed = position;
    this.#whenReplicated(backend, position, true, () => {
      for (const record of records) this.#apply(record);
      then();
    });
  }

  #log(record: WalRecord): number {
    const position = this.#wal.push(record);
    const life = this.#life;
    if (this.#standby !== 'none') {
      const lagMs = this.#clock.random() < 0.04 ? 600 : 60;
      this.#clock.after(this.#clock.random() * this.#clock.random() * lagMs, () => {
        if (life === this.#life) this.#replicate(position);
      });
    }
    return position;
  }

  #flushLater(position: number): void {
    const life = this.#life;
    this.#clock.after(20 + this.#clock.random() * 100, () => {
      if (life === this.#life) this.#flushed = Math.max(this.#flushed, position);
    });
  }

  #replicate(position: number): void {
    this.#replicated = Math.max(this.#replicated, position);
    const over = this.#standbyWaits.filter((wait) => wait.position <= this.#replicated);
    this.#standbyWaits = this.#standbyWaits.filter((wait) => wait.position > this.#replicated);
    for (const { then } of over) then();
  }

  #whenReplicated(backend: Backend, position: number, synchronous: boolean, then: () => void): void {
    if (this.#standby !== 'sync' || !synchronous || this.#replicated >= position) then();
    else this.#standbyWaits.push({ position, backend, then });
  }

  #apply(record: WalRecord): void {
    switch (record.kind) {
      case 'commit':
        this.#nextXid = Math.max(this.#nextXid, record.xid + 1);
        this.#show(record.changes);
        break;
      case 'prepare':
        this.prepared.set(record.prepared.gid.id, record.prepared);
        break;
      case 'finish': {
        const prepared = this.prepared.get(record.id);
        this.prepared.delete(record.id);
        if (prepared && record.outcome === 'commit') this.#show(prepared.changes);
        break;
      }
      case 'delete':
        this[record.table].delete(record.id);
        break;
      case 'barrier':
        break;
    }
  }

  #show({ id, transfers, decision, mark }: Changes): void {
    for (const [account, amount] of transfers) {
      this.#balances.set(account, (this.#balances.get(account) ?? 0) + amount);
    }
    if (decision) this.decisions.set(decision.outcome === 'abort' ? id.replace('abort ', '') : id, decision);
    if (mark !== undefined) this.marks.set(id, mark);
    if (transfers.length === 0) return;
    this.applied.add(id);
    this.everApplied.add(id);
  }
}

function idOf(record: WalRecord): string {
  switch (record.kind) {
    case 'commit':
      return record.changes.id;
    case 'prepare':
      return record.prepared.gid.id;
    case 'finish':
    case 'delete':
      return record.id;
    case 'barrier':
      return '';
  }
}

/**
 * What currval() and lastval() give in a session whose backends change: the router remembers the ids that it has supplied, and
 * the results of nextval() that it has seen pass. What may have advanced a sequence without its seeing (a serial column of a
 * table on home, a function) puts that in doubt: then only the backend that did it can answer.
 *
 *   nothing known ──note()──▶ known ──mayHaveAdvanced()──▶ in doubt ──note()──▶ known …
 *
 * Invariant: a value is given only if nothing can have changed it since it was noted.
 */

/** `undefined`: the session has not called nextval yet. `doubtful`: a backend of home knows. */
export type Remembered = { readonly value: string } | 'undefined' | 'doubtful';

/** Where a statement that may have advanced a sequence ran: on the session's own backend, or on one that others use as well. */
export type Where = 'own' | 'shared';

/** All of it between two transactions, as JSON, for a session that goes on in another process. */
export interface PackedSequences {
  readonly values: readonly (readonly [string, string])[];
  readonly doubtful: readonly (readonly [string, Where])[];
  readonly last?: string | undefined;
  readonly lastDoubt?: Where | undefined;
  readonly anyDoubt?: Where | undefined;
}

export class SequenceMemory {
  readonly #values = new Map<string, string>();
  /** Sequences that were advanced by name, and where. */
  readonly #doubtful = new Map<string, Where>();
  #last: string | undefined;
  /** Since #last was noted, where something may have been advanced; `shared` outweighs `own`. */
  #lastDoubt: Where | undefined;
  /** The same of all sequences that the router does not keep, since the beginning. */
  #anyDoubt: Where | undefined;
  /** In the open transaction: something was noted; something may have been advanced; #lastDoubt as it was before. */
  #noted = false;
  #advanced = false;
  #doubtBefore: Where | undefined;

  /** nextval() of this sequence has given this value. */
  note(key: string, value: string): void {
    this.#values.set(key, value);
    this.#doubtful.delete(key);
    this.#last = value;
    this.#lastDoubt = undefined;
    this.#noted = true;
  }

  /** A statement on home may have. `key`: of which sequence, if that is known. */
  mayHaveAdvanced(key: string | undefined, where: Where): void {
    this.#advanced = true;
    this.#lastDoubt = worse(this.#lastDoubt, where);
    if (key === undefined) this.#anyDoubt = worse(this.#anyDoubt, where);
    else this.#doubtful.set(key, worse(this.#doubtful.get(key), where));
  }

  onTransactionEnd(): void {
    this.#noted = false;
    this.#advanced = false;
    this.#doubtBefore = this.#lastDoubt;
  }

  pack(): PackedSequences {
    return {
      ...{ values: [...this.#values], doubtful: [...this.#doubtful] },
      ...{ last: this.#last, lastDoubt: this.#lastDoubt, anyDoubt: this.#anyDoubt },
    };
  }

  unpack(packed: PackedSequences): void {
    for (const [key, value] of packed.values) this.#values.set(key, value);
    for (const [key, where] of packed.doubtful) this.#doubtful.set(key, where);
    this.#last = packed.last;
    this.#lastDoubt = packed.lastDoubt;
    this.#anyDoubt = packed.anyDoubt;
    this.onTransactionEnd();
  }

  /** DISCARD ALL. */
  clear(): void {
    this.#values.clear();
    this.#doubtful.clear();
    this.#last = undefined;
    this.#lastDoubt = undefined;
    this.#anyDoubt = undefined;
    this.onTransactionEnd();
  }

  /** `isSupplied`: a sharded table has its ids from it, so that statements on home advance it only by its name. */
  current(key: string, isSupplied: boolean): Remembered {
    const value = this.#values.get(key);
    if (this.#doubtful.has(key)) return 'doubtful';
    if (value !== undefined && (isSupplied || !this.#anyDoubt)) return { value };
    return this.#anyDoubt ? 'doubtful' : 'undefined';
  }

  /** Of a doubtful one: does the session's own backend know for sure? */
  isOwn(key: string | undefined): boolean {
    return (
      (key === undefined ? undefined : this.#doubtful.get(key)) !== 'shared' && this.#anyDoubt !== 'shared'
    );
  }

  last(): Remembered {
    if (this.#lastDoubt) return 'doubtful';
    return this.#last === undefined ? 'undefined' : { value: this.#last };
  }

  /** Of a doubtful last: does the session's own backend know for sure? Not if something was noted that it does not know of. */
  get lastIsOwn(): boolean {
    return this.#lastDoubt === 'own' && this.#anyDoubt !== 'shared' && this.#last === undefined;
  }

  /**
   * Of a doubtful last, in a transaction that has, or has not, advanced a sequence on its branch of home. `thatBranch`: the branch
   * knows it.
   */
  lastInTransaction(hasAdvanced: boolean): Remembered | 'thatBranch' {
    if (this.#noted && this.#advanced) return 'doubtful';
    if (hasAdvanced) return 'thatBranch';
    if (this.#doubtBefore) return 'doubtful';
    return this.#last === undefined ? 'undefined' : { value: this.#last };
  }
}

function worse(one: Where | undefined, other: Where): Where {
  return one === 'shared' ? one : other;
}

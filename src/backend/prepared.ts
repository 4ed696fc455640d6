/**
 * Prepared statements under the router's own names, shared by all clients that send the same text: each backend connection
 * prepares one when it is first needed there, keeps the most recently used, and closes the rest.
 */
import { BOUNDS } from '../base/bounds.ts';

/** One text with its declared parameter types, the same object for all who send it. */
export interface SharedStatement {
  readonly text: string;
  readonly parameterOids: readonly number[];
  /** Some server has accepted it: its Parse can be answered without asking. */
  validated: boolean;
}

/**
 * Gives the same SharedStatement for the same text and types in the same scope, bounded by bytes (the oldest go). A scope
 * stands for all that decides what a text means when it is prepared: PostgreSQL reads `'2024-01-01'::timestamptz` under the
 * TimeZone of that moment, and finds names by that search_path, for as long as the statement lives.
 */
export class StatementRegistry {
  readonly #scopes = new Map<string, Map<string, SharedStatement>>();
  #bytes = 0;

  get(text: string, parameterOids: readonly number[], scope: string): SharedStatement {
    const key = keyOf(text, parameterOids);
    let statements = this.#scopes.get(scope);
    const known = statements?.get(key);
    if (known) return known;
    const statement: SharedStatement = { text, parameterOids, validated: false };
    this.#bytes += key.length * 2;
    if (this.#bytes > BOUNDS.planCacheBytesMax) {
      this.#evict();
      statements = this.#scopes.get(scope);
    }
    if (!statements) {
      statements = new Map();
      this.#scopes.set(scope, statements);
      this.#bytes += SCOPE_BYTES;
    }
    statements.set(key, statement);
    return statement;
  }

  /** A server has found that it means something else now: whoever needs it next prepares it afresh, on each backend. */
  forget(statement: SharedStatement): void {
    const key = keyOf(statement.text, statement.parameterOids);
    for (const statements of this.#scopes.values()) {
      if (statements.get(key) !== statement) continue;
      statements.delete(key);
      this.#bytes -= key.length * 2;
    }
  }

  /** After DDL: a text may mean something else now, so that each is prepared afresh. */
  invalidate(): void {
    this.#scopes.clear();
    this.#bytes = 0;
  }

  #evict(): void {
    for (const [scope, statements] of this.#scopes) {
      for (const key of statements.keys()) {
        if (this.#bytes <= BOUNDS.planCacheBytesMax / 2) return;
        statements.delete(key);
        this.#bytes -= key.length * 2;
      }
      this.#scopes.delete(scope);
      this.#bytes -= SCOPE_BYTES;
    }
  }
}

function keyOf(text: string, parameterOids: readonly number[]): string {
  return parameterOids.length === 0 ? text : `${parameterOids.join(',')}:${text}`;
}

/** What a scope of its own is taken to need. */
const SCOPE_BYTES = 500;

/** One Parse that was sent. */
interface Prepared {
  readonly name: string;
  /** Counts the Syncs before it. */
  readonly batch: number;
  confirmed: boolean;
}

/**
 * What is prepared on one backend connection, in order of use. A server-side name is never used twice on a connection, so
 * that a Parse or Close that the server skipped after an error can at worst leave a statement unused.
 *
 * Invariant: what was prepared is used behind a later Sync only once the server has confirmed it: an error before that Sync
 * may have skipped the Parse. Within one batch the use would be skipped with it.
 */
export class PreparedOnBackend {
  readonly #names = new Map<SharedStatement, Prepared>();
  /** Parses in the order in which they were sent and will be answered; the unnamed ones are undefined. */
  readonly #unanswered: ({ statement: SharedStatement; prepared: Prepared } | undefined)[] = [];
  #newest: SharedStatement | undefined;
  #newestPrepared: Prepared | undefined;
  #textBytes = 0;
  #counter = 0;
  #batch = 0;
  /** Names that are prepared on the server and will not be used again. */
  #dropped: string[] = [];

  nameOf(statement: SharedStatement): string | undefined {
    let prepared = this.#newestPrepared;
    if (this.#newest !== statement || !prepared) {
      prepared = this.#names.get(statement);
      if (!prepared) return undefined;
      this.#names.delete(statement);
      this.#names.set(statement, prepared);
      this.#newest = statement;
      this.#newestPrepared = prepared;
    }
    return prepared.confirmed || prepared.batch === this.#batch ? prepared.name : undefined;
  }

  /** A name for a statement that is about to be prepared. */
  add(statement: SharedStatement): string {
    const prepared = { name: `postern_${++this.#counter}`, batch: this.#batch, confirmed: false };
    this.remove(statement);
    this.#names.set(statement, prepared);
    this.#newest = statement;
    this.#newestPrepared = prepared;
    this.#textBytes += statement.text.length;
    this.#unanswered.push({ statement, prepared });
    return prepared.name;
  }

  /** A Parse of the unnamed statement was sent. */
  addUnnamed(): void {
    this.#unanswered.push(undefined);
  }

  /** A Sync (or Query) was sent. */
  nextBatch(): void {
    this.#batch++;
  }

  /** The oldest Parse without an answer has it: the server has carried it out, or has refused or skipped it. */
  onAnswer(carriedOut: boolean): void {
    const parse = this.#unanswered.shift();
    if (!parse) return;
    const { statement, prepared } = parse;
    prepared.confirmed = carriedOut;
    const isCurrent = this.#names.get(statement) === prepared;
    if (carriedOut && !isCurrent) this.#dropped.push(prepared.name);
    else if (!carriedOut && isCurrent) this.remove(statement);
  }

  /** It was closed, or will be: it is not used any more. */
  remove(statement: SharedStatement): void {
    if (this.#newest === statement) {
      this.#newest = undefined;
      this.#newestPrepared = undefined;
    }
    if (this.#names.delete(statement)) this.#textBytes -= statement.text.length;
  }

  /** It is on the server and of no use any more: it will be closed there when the next one is prepared. */
  drop(statement: SharedStatement): void {
    const prepared = this.#names.get(statement);
    if (prepared?.confirmed) this.#dropped.push(prepared.name);
    this.remove(statement);
  }

  /**
   * The server is about to drop all of them (DEALLOCATE ALL, DISCARD ALL), or to skip that after an error: none is used any
   * more, and each is closed, which does no harm to one that is gone.
   */
  clear(): void {
    for (const { name, confirmed } of this.#names.values()) if (confirmed) this.#dropped.push(name);
    this.#names.clear();
    this.#newest = undefined;
    this.#newestPrepared = undefined;
    this.#textBytes = 0;
  }

  /** The name of one to close, if there is any: dropped, or the least recently used if there is one too many. */
  takeSurplus(): string | undefined {
    const dropped = this.#dropped.pop();
    if (dropped !== undefined) return dropped;
    const tooMany =
      this.#names.size > BOUNDS.preparedStatementsPerBackend ||
      this.#textBytes > BOUNDS.preparedTextBytesPerBackend;
    if (!tooMany) return undefined;
    for (const [statement, { name, confirmed }] of this.#names) {
      if (statement === this.#newest || !confirmed) continue;
      this.remove(statement);
      return name;
    }
    return undefined;
  }
}

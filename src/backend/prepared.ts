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

/** Gives the same SharedStatement for the same text and types, bounded by bytes (the oldest go). */
export class StatementRegistry {
  readonly #byKey = new Map<string, SharedStatement>();
  #bytes = 0;

  get(text: string, parameterOids: readonly number[]): SharedStatement {
    const key = parameterOids.length === 0 ? text : `${parameterOids.join(',')}:${text}`;
    const known = this.#byKey.get(key);
    if (known) return known;
    const statement: SharedStatement = { text, parameterOids, validated: false };
    this.#byKey.set(key, statement);
    this.#bytes += key.length * 2;
    if (this.#bytes > BOUNDS.planCacheBytesMax) this.#evict();
    return statement;
  }

  /** After DDL: a text may mean something else now, so that each is prepared afresh. */
  invalidate(): void {
    this.#byKey.clear();
    this.#bytes = 0;
  }

  #evict(): void {
    for (const key of this.#byKey.keys()) {
      if (this.#bytes <= BOUNDS.planCacheBytesMax / 2) break;
      this.#byKey.delete(key);
      this.#bytes -= key.length * 2;
    }
  }
}

/**
 * What is prepared on one backend connection, in order of use. A server-side name is never used twice on a connection, so
 * that a Parse or Close that the server skipped after an error can at worst leave a statement unused.
 */
export class PreparedOnBackend {
  readonly #names = new Map<SharedStatement, string>();
  #newest: SharedStatement | undefined;
  #newestName = '';
  #textBytes = 0;
  #counter = 0;

  nameOf(statement: SharedStatement): string | undefined {
    if (this.#newest === statement) return this.#newestName;
    const name = this.#names.get(statement);
    if (name === undefined) return undefined;
    this.#names.delete(statement);
    this.#names.set(statement, name);
    this.#newest = statement;
    this.#newestName = name;
    return name;
  }

  /** A name for a statement that is about to be prepared. */
  add(statement: SharedStatement): string {
    const name = `postern_${++this.#counter}`;
    this.#names.set(statement, name);
    this.#newest = statement;
    this.#newestName = name;
    this.#textBytes += statement.text.length;
    return name;
  }

  /** It was closed, refused, or never reached the server. */
  remove(statement: SharedStatement): void {
    if (this.#newest === statement) this.#newest = undefined;
    if (this.#names.delete(statement)) this.#textBytes -= statement.text.length;
  }

  /** The server has dropped all of them (DEALLOCATE ALL, DISCARD ALL). */
  clear(): void {
    this.#names.clear();
    this.#newest = undefined;
    this.#textBytes = 0;
  }

  /** Takes out the least recently used one, if there is one too many, and gives the name to close. */
  takeSurplus(): string | undefined {
    const tooMany =
      this.#names.size > BOUNDS.preparedStatementsPerBackend ||
      this.#textBytes > BOUNDS.preparedTextBytesPerBackend;
    if (!tooMany) return undefined;
    for (const [statement, name] of this.#names) {
      if (statement === this.#newest) continue;
      this.remove(statement);
      return name;
    }
    return undefined;
  }
}

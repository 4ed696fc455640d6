/**
 * What a login has to know of the home node: the settings as they are there, and what its client is told. Remembered for a moment,
 * and asked once where many of one kind log in together.
 */
import { ask, borrow } from '../backend/internal-query.ts';
import type { Settings } from '../backend/settings.ts';
import { notSupported, PosternError } from '../base/errors.ts';
import type { RouterContext } from '../execute/context.ts';
import { quoteLiteral } from '../pg/identifier.ts';

export interface LoginFacts {
  readonly parameters: ReadonlyMap<string, string>;
  readonly defaults: Settings;
  readonly searchPath: string;
  readonly atMs: number;
}

const FRESH_MS = 5_000;
const KNOWN_MAX = 1_000;

export class LoginFactsCache {
  readonly #context: RouterContext;
  readonly #known = new Map<string, LoginFacts>();
  readonly #asked = new Map<string, Promise<LoginFacts>>();

  constructor(context: RouterContext) {
    this.#context = context;
  }

  /** Tries the client's settings where they will be used. Rejects with what is wrong with them, or with the home node. */
  async of(user: string, asked: Settings): Promise<LoginFacts> {
    const key = `${user}\0${asked.key}`;
    const known = this.#known.get(key);
    if (known && performance.now() - known.atMs < FRESH_MS) return known;
    let answer = this.#asked.get(key);
    if (!answer) {
      answer = this.#ask(user, asked).finally(() => this.#asked.delete(key));
      this.#asked.set(key, answer);
    }
    try {
      const facts = await answer;
      if (this.#known.size >= KNOWN_MAX) this.#known.clear();
      this.#known.set(key, facts);
      return facts;
    } catch (error) {
      // The home node is away: a client whose like has been here before is let in, for the tables of other nodes.
      const away =
        error instanceof PosternError && (error.sqlState === '08001' || error.sqlState === '08006');
      if (known && away) return known;
      throw error;
    }
  }

  #ask(user: string, asked: Settings): Promise<LoginFacts> {
    const { pools, catalog } = this.#context;
    return borrow(
      pools.get(catalog.current.homeNodeId)!,
      { user, settings: asked },
      async (connection): Promise<LoginFacts> => {
        const names = ['search_path', ...asked.values.keys()];
        const list = names.map((name) => `pg_catalog.current_setting(${quoteLiteral(name)}, true)`);
        const [row = []] = await ask(connection, `SELECT ${list.join(', ')}`);
        const values = new Map([...asked.values.keys()].map((name, i) => [name, row[i + 1] ?? undefined]));
        const defaults = asked.with(values);
        connection.settings = defaults;
        if (connection.parameters.get('standard_conforming_strings') === 'off')
          throw notSupported(
            'standard_conforming_strings is off for this role or database',
            'Set it to on: the router reads string literals by the standard.',
          );
        return {
          parameters: new Map(connection.parameters),
          defaults,
          searchPath: row[0] ?? '',
          atMs: performance.now(),
        };
      },
    );
  }
}

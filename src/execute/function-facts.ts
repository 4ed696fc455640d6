/**
 * Which user-defined functions may leave state in a session: they set a configuration parameter, take a session-level
 * advisory lock, make a temporary table, listen, prepare, or run text that the router can't see. A session that calls one
 * gets a backend of its own, so that nothing leaks to another client.
 *
 * The judgement reads the function's source on the home node, and of what it runs by EXECUTE the text (dynamic-statements.ts). It errs on the side of "may": the cost of that is a
 * backend, never a wrong answer. A function in C of an extension is trusted, as PostgreSQL trusts it.
 */

import type { Rows } from '../backend/internal-query.ts';
import { PosternError } from '../base/errors.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import { visibleSource } from './dynamic-statements.ts';

/** Words of a body after which the session may differ. `set` alone is not one of them: every UPDATE has it. */
const LEAVES_STATE =
  /\bset_config\b|\bset\s+(session|time\s+zone|role|names|local)\b|(^|;|>>|\bbegin\b|\bthen\b|\belse\b|\bloop\b)\s*(set|reset|discard|listen|unlisten|load|prepare|deallocate)\s|\bexecute\b|\btemp(orary)?\b|\bpg_temp|advisory_lock|\bdblink|\bsetseed\b|\bcurrval\b|\blastval\b|_to_xml|\bts_(stat|rewrite)\b|\breplication_origin_|\bwith\s+hold\b|\bupdate\s+(only\s+)?(pg_catalog\s*\.\s*)?pg_settings\b/i;

/**
 * What ends with its transaction, and means nothing to the router: set_config('a.b', …, true) and SET LOCAL a.b = …, of a
 * parameter with a dot in its name.
 */
const LOCAL_SETTINGS = new RegExp(
  String.raw`\bset_config\s*\(\s*'(?!postern\.)[a-z_][\w$]*\.[\w$.]+'\s*,(?:[^(),;']|'[^']*'|\([^()]*\))*,\s*true\s*\)` +
    String.raw`|\bset\s+local\s+(?!postern\.)[a-z_][\w$]*\.[\w$.]+\s*(?:=|\bto\b)`,
  'gi',
);

const COMMENTS = /--[^\n]*|\/\*[\s\S]*?\*\//g;

/** How long a judgement holds: a function may be replaced behind the router's back. */
const FRESH_MS = 5_000;
/** Names come from clients: more than this are forgotten. */
const FACTS_MAX = 10_000;

interface Fact {
  readonly mayLeaveState: boolean;
  /** Also what is gone with its transaction. */
  readonly mayLeaveLocalState: boolean;
  readonly calls: readonly string[];
  readonly freshUntilMs: number;
}

/** What a function must not name, see stateful-relations.ts. */
export interface LeavingNames {
  readonly names: ReadonlySet<string>;
  /** There are relations among them. */
  readonly anyRelation: boolean;
}

export class FunctionFacts {
  readonly #ask: (text: string) => Promise<Rows>;
  readonly #now: () => number;
  #known = new Map<string, Fact>();
  #leaving: LeavingNames = { names: new Set(), anyRelation: false };

  /**
   * @param ask runs a query on the home node and gives its rows
   * @param now monotonic milliseconds
   */
  constructor(ask: (text: string) => Promise<Rows>, now: () => number = () => performance.now()) {
    this.#ask = ask;
    this.#now = now;
  }

  /** After DDL. */
  invalidate(): void {
    this.#known = new Map();
  }

  /** Relations that lead to a function which may leave state behind: one that names them does so too. */
  set namesThatLeaveState(leaving: LeavingNames) {
    const { names, anyRelation } = this.#leaving;
    const same = leaving.names.size === names.size && [...leaving.names].every((name) => names.has(name));
    if (same && leaving.anyRelation === anyRelation) return;
    this.#leaving = leaving;
    this.invalidate();
  }

  /** Is all known, and of late, that mayLeaveState() needs? If not: load(). */
  areKnown(names: readonly string[]): boolean {
    const now = this.#now();
    return this.#walk(names, (fact) => fact !== undefined && fact.freshUntilMs > now);
  }

  /** Also true for what is not known. A DO block ("do") may do anything. */
  mayLeaveState(names: readonly string[]): boolean {
    return !this.#walk(names, (fact) => fact !== undefined && !fact.mayLeaveState);
  }

  /** The same for what a transaction would find that has several callers' statements in it. */
  mayLeaveLocalState(names: readonly string[]): boolean {
    return !this.#walk(names, (fact) => fact !== undefined && !fact.mayLeaveLocalState);
  }

  /** Loads the names, down through the functions that they call. While the home node is away, what was known goes on holding. */
  async load(names: readonly string[]): Promise<void> {
    try {
      await this.#load([...new Set(names)]);
    } catch (error) {
      const away = error instanceof PosternError && error.sqlState.startsWith('08');
      if (!away || !this.#walk(names, (fact) => fact !== undefined)) throw error;
    }
  }

  /** Does `holds` hold for all of them, and for all that they call? */
  #walk(names: readonly string[], holds: (fact: Fact | undefined) => boolean): boolean {
    const seen = new Set<string>(names);
    for (const name of seen) {
      const fact = name === 'do' ? DO_BLOCK : this.#known.get(name);
      if (!holds(fact)) return false;
      for (const call of fact?.calls ?? []) seen.add(call);
    }
    return true;
  }

  async #load(names: readonly string[]): Promise<void> {
    let missing = names.filter((name) => name !== 'do');
    if (missing.length === 0) return;
    if (this.#known.size > FACTS_MAX) this.invalidate();
    const known = this.#known;
    const rows = await this.#ask(
      `SELECT DISTINCT p.proname, CASE WHEN l.lanname NOT IN ('internal', 'c') THEN 'source' ELSE 'compiled' END
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
        WHERE p.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace`,
    );
    const users = new Set(rows.filter((row) => row[1] === 'source').map((row) => row[0]!));
    const compiled = new Set(rows.filter((row) => row[1] === 'compiled').map((row) => row[0]!));
    const taken = new Set([...users, ...compiled]);
    // A name of PostgreSQL's own, not qualified, is here only because it is not among the harmless ones.
    const builtIn = new Set(await this.#builtIn(missing.filter((name) => !name.includes('.'))));
    const freshUntilMs = this.#now() + FRESH_MS;
    const loaded = new Set<string>();
    while (missing.length > 0) {
      const next = new Set<string>();
      const bodies = await this.#bodies(missing);
      for (const name of missing) {
        loaded.add(name);
        // An unqualified name of PostgreSQL's own is here only because it is not among the harmless ones.
        const ofName = bodies.filter((body) => body.name === bareName(name));
        const suspect = builtIn.has(name) || this.#leaving.names.has(bareName(name));
        const fact = judge(ofName, { users, taken }, { suspect, leaving: this.#leaving });
        // One that is not there is looked for again at its next call: it may have been made by then.
        const isThere = ofName.length > 0 || compiled.has(bareName(name)) || builtIn.has(name);
        known.set(name, { ...fact, freshUntilMs: isThere ? freshUntilMs : 0 });
        for (const call of fact.calls) if (!loaded.has(call)) next.add(call);
      }
      missing = [...next];
    }
    // DDL came between: what was read may be of before it.
    if (this.#known !== known) await this.#load(names);
  }

  /** Which of the names are functions of PostgreSQL's own. */
  async #builtIn(names: readonly string[]): Promise<string[]> {
    if (names.length === 0) return [];
    const rows = await this.#ask(
      `SELECT DISTINCT p.proname FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
          AND p.proname IN (${names.map(quoteLiteral).join(',')})`,
    );
    return rows.map(([name]) => name!);
  }

  async #bodies(names: readonly string[]): Promise<Body[]> {
    const bare = [...new Set(names.map(bareName))];
    const rows = await this.#ask(
      `SELECT p.proname, l.lanname, pg_catalog.concat_ws(' ', p.prosrc, pg_catalog.pg_get_function_sqlbody(p.oid))
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
        WHERE p.proname IN (${bare.map(quoteLiteral).join(',')}) AND l.lanname NOT IN ('internal', 'c')
          AND p.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace`,
    );
    return rows.map(([name, language, text]) => ({ name: name!, language: language!, text: text ?? '' }));
  }
}

function judge(
  bodies: readonly Body[],
  { users, taken }: { users: ReadonlySet<string>; taken: ReadonlySet<string> },
  { suspect, leaving }: { suspect: boolean; leaving: LeavingNames },
) {
  const sources = bodies.map(({ language, text }) =>
    language === 'plpgsql' ? visibleSource(text, taken) : { text, usesAnyRelation: false },
  );
  const text = sources.map((source) => source.text).join('\n;\n');
  const opaque = bodies.some(({ language }) => language !== 'sql' && language !== 'plpgsql');
  const lower = text.toLowerCase();
  const words = new Set(lower.match(/[a-z_\u0080-\uffff][a-z0-9_$\u0080-\uffff]*/g) ?? []);
  const mayLeave = (source: string) =>
    LEAVES_STATE.test(source) || LEAVES_STATE.test(source.replaceAll(COMMENTS, ' '));
  // A relation whose name is not known may be one of those.
  const mayName = leaving.anyRelation && sources.some(({ usesAnyRelation }) => usesAnyRelation);
  const uses = suspect || opaque || mayName || namesAny(leaving.names, lower, words);
  return {
    mayLeaveState: uses || mayLeave(text.replaceAll(LOCAL_SETTINGS, ' ')),
    mayLeaveLocalState: uses || mayLeave(text),
    calls: [...words].filter((word) => users.has(word)),
  };
}

function namesAny(names: ReadonlySet<string>, text: string, words: ReadonlySet<string>): boolean {
  for (const name of names) {
    const lower = name.toLowerCase();
    // A name with other characters than a word's is in quotes; operators and types are told by more than their name.
    if (
      words.has(lower) ||
      (!/^[\w$\u0080-\uffff]+$/.test(lower) && text.includes(lower.replace(/^type /, '')))
    )
      return true;
  }
  return false;
}

interface Body {
  readonly name: string;
  readonly language: string;
  readonly text: string;
}

const DO_BLOCK: Fact = {
  mayLeaveState: true,
  mayLeaveLocalState: true,
  calls: [],
  freshUntilMs: Number.POSITIVE_INFINITY,
};

/** `schema.f` → f: functions of one name are judged together, in whichever schema they are. */
function bareName(name: string): string {
  return name.slice(name.lastIndexOf('.') + 1);
}

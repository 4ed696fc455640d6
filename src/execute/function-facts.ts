/**
 * Which user-defined functions may leave state in a session: they set a configuration parameter, take a session-level
 * advisory lock, make a temporary table, listen, prepare, or run text that the router can't see. A session that calls one
 * gets a backend of its own, so that nothing leaks to another client.
 *
 * The judgement reads the function's source on the home node. It errs on the side of "may": the cost of that is a
 * backend, never a wrong answer. A function in C of an extension is trusted, as PostgreSQL trusts it.
 */
import { quoteLiteral } from '../pg/identifier.ts';
import type { Rows } from './internal-query.ts';

/** Words of a body after which the session may differ. `set` alone is not one of them: every UPDATE has it. */
const LEAVES_STATE =
  /\bset_config\b|\bset\s+(session|time\s+zone|role|names|local)\b|(^|;|\bbegin\b|\bthen\b|\bloop\b)\s*(set|reset|discard|listen|unlisten|load|prepare|deallocate)\s|\bexecute\b|\btemp(orary)?\b|\bpg_temp\b|\badvisory_lock|\bdblink|\bsetseed\b|\bcurrval\b|\blastval\b/i;

interface Fact {
  readonly mayLeaveState: boolean;
  readonly calls: readonly string[];
}

export class FunctionFacts {
  readonly #ask: (text: string) => Promise<Rows>;
  #known = new Map<string, Fact>();

  /** @param ask runs a query on the home node and gives its rows */
  constructor(ask: (text: string) => Promise<Rows>) {
    this.#ask = ask;
  }

  /** After DDL. */
  invalidate(): void {
    this.#known = new Map();
  }

  /** true, false, or undefined: unknown yet, load() first. A DO block ("do") may do anything. */
  mayLeaveState(names: readonly string[]): boolean | undefined {
    if (names.includes('do')) return true;
    const seen = new Set<string>();
    const stack = names.map(bareName);
    while (stack.length > 0) {
      const name = stack.pop()!;
      if (seen.has(name)) continue;
      seen.add(name);
      const fact = this.#known.get(name);
      if (!fact) return undefined;
      if (fact.mayLeaveState) return true;
      stack.push(...fact.calls);
    }
    return false;
  }

  /** Loads what is missing, down through the functions that the functions call. */
  async load(names: readonly string[]): Promise<void> {
    let missing = names.map(bareName).filter((name) => !this.#known.has(name));
    while (missing.length > 0) {
      const wanted = [...new Set(missing)];
      const rows = await this.#ask(
        `SELECT p.proname, l.lanname, coalesce(p.prosrc,''), coalesce(pg_catalog.pg_get_function_sqlbody(p.oid),''), p.proconfig IS NOT NULL
           FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
          WHERE p.proname IN (${wanted.map(quoteLiteral).join(',')})
            AND p.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace`,
      );
      const userNames = new Set(
        (
          await this.#ask(
            `SELECT DISTINCT proname FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
            WHERE l.lanname NOT IN ('internal','c')`,
          )
        ).map((row) => row[0]!),
      );
      const next: string[] = [];
      for (const name of wanted) {
        const bodies = rows.filter((row) => row[0] === name && row[1] !== 'c' && row[1] !== 'internal');
        const text = bodies.map((row) => `${row[2]} ${row[3]}`).join('\n');
        const opaque = bodies.some((row) => row[1] !== 'sql' && row[1] !== 'plpgsql');
        const calls = [...new Set(text.toLowerCase().match(/[a-z_][a-z0-9_$]*/g) ?? [])].filter(
          (word) => userNames.has(word) && word !== name,
        );
        this.#known.set(name, { mayLeaveState: opaque || LEAVES_STATE.test(text), calls });
        for (const call of calls) if (!this.#known.has(call)) next.push(call);
      }
      missing = next.filter((name) => !this.#known.has(name));
    }
  }
}

/** `schema.f` → f: functions of one name are judged together, in whichever schema they are. */
function bareName(name: string): string {
  return name.slice(name.lastIndexOf('.') + 1);
}

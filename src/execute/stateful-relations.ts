/**
 * Which relations lead to functions that may leave state in a session: through triggers, rules, views, policies, defaults,
 * checks, domains, index expressions and the actions of foreign keys. A session that uses one gets a backend of its own, as one
 * that calls such a function by its name does (function-facts.ts, which judges the functions for this file too).
 *
 * The set is asked for as a whole, since it is nearly always empty; a statement then costs the look at a boolean. Relations,
 * operators and types are matched by name alone, whatever their schema: the cost of a mistake is a backend.
 *
 * Invariant: a function that names a relation of the set is judged like one that leaves state behind; so the set is made
 * again until it no longer grows.
 */

import type { Rows } from '../backend/internal-query.ts';
import { PosternError } from '../base/errors.ts';
import type { QueryPlan, StatementPlan } from '../plan/plan.ts';
import { FunctionFacts, type LeavingNames } from './function-facts.ts';
import {
  ATTACHED_FUNCTIONS_QUERY,
  OWN_CALLS_QUERY,
  RULED_RELATIONS_QUERY,
  STATE_MARK_QUERY,
  type StatefulObject,
  stateReachQuery,
} from './state-reach.ts';

interface Known {
  /** The catalogs that it was read from; '': to be read again. */
  mark: string;
  /** Those that leave state when they are read. */
  readonly read: ReadonlySet<string>;
  /** Those that do when they are written to, and those of `read`. */
  readonly written: ReadonlySet<string>;
  /** Those whose writes are rewritten by rules. */
  readonly ruled: ReadonlySet<string>;
  readonly byPlan: WeakMap<QueryPlan, boolean>;
}

/** Each round adds a function that writes to what the round before has found; nobody nests them so deep. */
const ROUNDS_MAX = 10;

export class StatefulRelations {
  readonly #ask: (text: string) => Promise<Rows>;
  readonly #functions: FunctionFacts;
  #known: Known | undefined;
  /** How often something has happened that makes it stale, and how often it had when what is known was asked for. */
  #changes = 0;
  #knownSince = -1;
  #isEmpty = false;
  #loading: Promise<void> | undefined;

  /**
   * @param ask runs a query on the home node and gives its rows
   * @param functions is told which relations a function must not name
   */
  constructor(ask: (text: string) => Promise<Rows>, functions: FunctionFacts) {
    this.#ask = ask;
    this.#functions = functions;
  }

  /** After DDL, and with a new map. */
  invalidate(): void {
    this.#changes++;
  }

  /** Can leavesState() be asked? If not: load(). */
  get areKnown(): boolean {
    return this.#known !== undefined && this.#knownSince === this.#changes;
  }

  /** Does a statement of the plan use any of them? */
  leavesState(plan: QueryPlan): boolean {
    if (this.#isEmpty) return false;
    const known = this.#known;
    if (!known) return true;
    let leaves = known.byPlan.get(plan);
    if (leaves === undefined) {
      leaves = plan.statements.some((statement) => usesAny(statement, known));
      known.byPlan.set(plan, leaves);
    }
    return leaves;
  }

  /** Does a rule decide what a write of the plan does? One may add rows to its answer, which the simple protocol alone tells. */
  hasRules(plan: QueryPlan): boolean {
    const ruled = this.#known?.ruled;
    return plan.statements.some(
      ({ uses }) => uses.writes && (!ruled || uses.names.some((name) => ruled.has(name))),
    );
  }

  /** While the home node is away, what was known goes on holding. Else rejects as `ask` does. */
  load(): Promise<void> {
    this.#loading ??= this.#load().finally(() => {
      this.#loading = undefined;
    });
    return this.#loading;
  }

  /** Asks again, so that DDL which has not come through this router is seen too. */
  async refresh(): Promise<void> {
    if (this.#known) await this.load();
  }

  async #load(): Promise<void> {
    // DDL that comes meanwhile makes it stale again; and until it is there, what was known before the DDL is not enough.
    const since = this.#changes;
    try {
      const mark = String((await this.#ask(STATE_MARK_QUERY))[0]?.[0]);
      if (this.#known?.mark !== mark) this.#set({ mark, ...(await this.#read()), byPlan: new WeakMap() });
    } catch (error) {
      const away = error instanceof PosternError && error.sqlState.startsWith('08');
      if (!away || !this.#known) throw error;
      this.#known.mark = '';
    }
    this.#knownSince = since;
  }

  #set(known: Known & { readonly leaving: LeavingNames }): void {
    this.#known = known;
    this.#isEmpty = known.written.size === 0;
    this.#functions.namesThatLeaveState = known.leaving;
  }

  async #read() {
    const ownCalls = (await this.#ask(OWN_CALLS_QUERY)).map(objectOf);
    const attached = await this.#ask(ATTACHED_FUNCTIONS_QUERY);
    const ruled = new Set((await this.#ask(RULED_RELATIONS_QUERY)).map(([name]) => name!));
    const judge = new FunctionFacts(this.#ask);
    let read = new Set<string>();
    let written = new Set<string>();
    let leaving: LeavingNames = { names: new Set(), anyRelation: false };
    for (let round = 0; round < ROUNDS_MAX; round++) {
      const names = [...new Set(attached.map(([name]) => name!))];
      await judge.load(names);
      const seeds = new Set(names.filter((name) => judge.mayLeaveState([name])));
      const from = [...ownCalls];
      for (const [name, oid] of attached) if (seeds.has(name!)) from.push(objectOf(['pg_proc', oid!]));
      if (from.length === 0) break;
      const before = leaving;
      const rows = await this.#ask(stateReachQuery(from));
      const named = (...kinds: string[]) =>
        new Set(rows.filter(([kind]) => kinds.includes(kind!)).map(([, name]) => name!));
      read = named('read', 'other');
      written = named('read', 'written', 'other');
      const anyRelation = rows.some(([kind]) => kind === 'read' || kind === 'written');
      leaving = { names: named('read', 'written', 'other', 'function'), anyRelation };
      if (leaving.names.size === before.names.size && anyRelation === before.anyRelation) break;
      judge.namesThatLeaveState = leaving;
    }
    return { read, written, leaving, ruled };
  }
}

function usesAny({ uses }: StatementPlan, { read, written }: Known): boolean {
  const names = uses.writes ? written : read;
  return uses.names.some((name) => names.has(name));
}

function objectOf([catalog, oid]: readonly (string | null)[]): StatefulObject {
  return { catalog: catalog!, oid: Number(oid) };
}

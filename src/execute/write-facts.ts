/**
 * May the writes to a table share a transaction with others (coalesce/SPEC.md, "Who may be a member")? Read from the catalogs of
 * the home node, and kept until DDL.
 *
 * The judgement errs on the side of "no": the cost of that is a commit of one's own, never a wrong answer. A name without a
 * schema is judged by all the relations that it may mean along the search_path, since which of them a role sees depends on its rights.
 */

import type { Rows } from '../backend/internal-query.ts';
import { BOUNDS } from '../base/bounds.ts';
import { inspectCalls } from '../plan/calls.ts';
import type { WriteFacts } from '../plan/plan.ts';
import { isHarmlessCall } from '../plan/write-facts.ts';
import { collectFacts, stringsOf } from '../sql/facts.ts';
import { parseSql } from '../sql/parser.ts';
import type { FunctionFacts } from './function-facts.ts';
import { NO_SWITCHES, type ReachKind, reachQuery, USER_NAMES_QUERY } from './write-reach.ts';

interface Verdict {
  /** Why not; undefined: yes. */
  readonly reason: string | undefined;
  /**
   * One statement of several rows may come to something else than several statements, so these rows keep theirs: user triggers
   * and a user's functions tell them apart, and a foreign key to its own table is checked when a statement ends.
   */
  readonly oneByOne: boolean;
  /** A write changes only the columns that it names. */
  readonly contained: boolean;
  /** All that speaks against it is sharing a transaction: it may still share a backend (coalesce/SPEC.md, "Pipelined writes"). */
  readonly apart: boolean;
}

export interface WriteFactsOptions {
  /** Judges the functions of tables whose owners have agreed to merging. Without it, all leave something behind. */
  readonly functions?: Pick<FunctionFacts, 'load' | 'mayLeaveLocalState'> | undefined;
  /** A query for the tables that have a switch of their own (write-reach.ts); default: none have. */
  readonly switches?: string | undefined;
}

/** What is known since the last DDL. */
interface Known {
  readonly byTable: Map<string, Verdict>;
  /** Of one statement, by the search_path that it was planned with: spares the data path the building of keys. */
  readonly byWrite: WeakMap<
    WriteFacts,
    { readonly searchPath: readonly string[]; readonly verdict: Verdict; readonly member: WriteFacts }
  >;
  readonly loading: Map<string, Promise<void>>;
  /** What was asked, by the same key, to ask it again. */
  readonly queries: Map<string, string>;
  userNames: ReadonlySet<string> | undefined;
}

function nothingKnown(): Known {
  return {
    byTable: new Map(),
    byWrite: new WeakMap(),
    loading: new Map(),
    queries: new Map(),
    userNames: undefined,
  };
}

export class WriteFactsCache {
  readonly #ask: (text: string) => Promise<Rows>;
  readonly #functions: WriteFactsOptions['functions'];
  readonly #switches: string;
  #known = nothingKnown();

  /** @param ask runs a query on the home node and gives its rows */
  constructor(ask: (text: string) => Promise<Rows>, options: WriteFactsOptions = {}) {
    this.#ask = ask;
    this.#functions = options.functions;
    this.#switches = options.switches ?? NO_SWITCHES;
  }

  /** After DDL, and with a new map. */
  invalidate(): void {
    this.#known = nothingKnown();
  }

  /**
   * Asks again for all that is known, so that DDL which has not come through this router is seen too. What is known stays in
   * force until the answers are there. Rejects as `ask` does.
   */
  async refresh(): Promise<void> {
    const before = this.#known;
    if (before.queries.size === 0) return;
    const fresh = nothingKnown();
    fresh.userNames = await this.#askUserNames();
    for (const [key, query] of [...before.queries]) {
      fresh.byTable.set(key, await this.#judge(await this.#ask(query)));
      fresh.queries.set(key, query);
    }
    if (this.#known === before) this.#known = fresh;
  }

  /** undefined: not known yet, load() first. `searchPath`: the schemas that the statement was planned with. */
  lookup(write: WriteFacts, searchPath: readonly string[]): 'yes' | 'no' | undefined {
    const known = this.#verdict(write, searchPath);
    if (!known) return undefined;
    return known.verdict.reason === undefined ? 'yes' : 'no';
  }

  /** The write as a batch or (if `apart`) a pipeline may have it; undefined if neither may, or if that is not known. */
  memberOf(write: WriteFacts, searchPath: readonly string[]): WriteFacts | undefined {
    const known = this.#verdict(write, searchPath);
    return known && (known.verdict.reason === undefined || known.verdict.apart) ? known.member : undefined;
  }

  /** What to tell a user who asks why a write is not merged with others; undefined if it is, or if nothing is known yet. */
  reason(write: WriteFacts, searchPath: readonly string[]): string | undefined {
    return this.#verdict(write, searchPath)?.verdict.reason;
  }

  /**
   * Asks for what is missing. Rejects as `ask` does. If invalidate() came in between, the statement still is unknown
   * afterwards: it then goes alone, like one that is not known yet.
   */
  async load(write: WriteFacts, searchPath: readonly string[]): Promise<void> {
    const known = this.#known;
    const key = keyOf(write, searchPath);
    if (known.userNames && known.byTable.has(key)) return;
    let loading = known.loading.get(key);
    if (!loading) {
      loading = this.#loadInto(known, key, this.#reachOf(write, searchPath)).finally(() =>
        known.loading.delete(key),
      );
      known.loading.set(key, loading);
    }
    await loading;
  }

  async #loadInto(known: Known, key: string, query: string): Promise<void> {
    known.userNames ??= await this.#askUserNames();
    const verdict = await this.#judge(await this.#ask(query));
    if (known.byTable.size >= BOUNDS.writeFactsTablesMax) {
      known.byTable.clear();
      known.queries.clear();
    }
    known.byTable.set(key, verdict);
    known.queries.set(key, query);
  }

  async #askUserNames(): Promise<ReadonlySet<string>> {
    const rows = await this.#ask(USER_NAMES_QUERY);
    return new Set(rows.map((row) => row[0]!));
  }

  #verdict(write: WriteFacts, searchPath: readonly string[]) {
    const { byWrite, byTable, userNames } = this.#known;
    const hit = byWrite.get(write);
    if (hit?.searchPath === searchPath) return hit;
    const ofTable = byTable.get(keyOf(write, searchPath));
    if (!ofTable || !userNames) return undefined;
    const used =
      ofTable.reason === undefined || ofTable.apart
        ? write.names.find((name) => userNames.has(name))
        : undefined;
    const verdict = used === undefined ? ofTable : no(`"${used}" may mean what a user has defined`);
    const member =
      verdict.oneByOne || verdict.apart || (write.updatesByKey && !verdict.contained)
        ? {
            ...write,
            valuesOnly: !verdict.oneByOne && write.valuesOnly,
            updatesByKey: !verdict.oneByOne && verdict.contained && write.updatesByKey,
            apart: verdict.apart,
          }
        : write;
    const known = { searchPath, verdict, member };
    byWrite.set(write, known);
    return known;
  }

  #reachOf(write: WriteFacts, searchPath: readonly string[]): string {
    return reachQuery(schemasOf(write, searchPath), write.name, this.#switches);
  }

  async #judge(rows: Rows): Promise<Verdict> {
    const texts: Record<ReachKind, string[]> = {
      table: [],
      reason: [],
      apart: [],
      spreading: [],
      linking: [],
      harmless: [],
      expression: [],
      agreedExpression: [],
      agreedFunction: [],
      agreedTrigger: [],
    };
    for (const [kind, text] of rows) {
      if (text === null || text === undefined) return no('its definition has just changed');
      texts[kind as ReachKind].push(text);
    }
    const reason = objectionTo(texts);
    if (reason !== undefined) return no(reason);
    const agreed = agreedCalls([...texts.agreedExpression, ...texts.agreedTrigger]);
    if ('objection' in agreed) return no(agreed.objection);
    const functions = [...new Set([...texts.agreedFunction, ...agreed.functions])].sort();
    if (functions.length > 0) {
      // One that can't be read leaves something behind, for all that is known.
      await this.#functions?.load(functions);
      const leaving = functions.find((name) => this.#functions?.mayLeaveLocalState([name]) !== false);
      if (leaving !== undefined) return no(`a write may call ${leaving}(), which may leave session state`);
    }
    const [apart] = texts.apart.sort();
    return {
      reason: apart,
      oneByOne: texts.agreedTrigger.length > 0 || functions.length > 0 || texts.linking.length > 0,
      contained: texts.spreading.length === 0,
      apart: apart !== undefined,
    };
  }
}

function keyOf(write: WriteFacts, searchPath: readonly string[]): string {
  return [write.name, ...schemasOf(write, searchPath)].join('\0');
}

/** The schemas in which the target may be. Temporary ones are not seen: a session that has one keeps its own backend. */
function schemasOf({ table, schema }: WriteFacts, searchPath: readonly string[]): readonly string[] {
  if (table) return [table.schema];
  return schema === undefined ? ['pg_catalog', ...searchPath] : [schema];
}

function no(reason: string): Verdict {
  return { reason, oneByOne: false, contained: false, apart: false };
}

/** Why the writes to a table may not be merged, as far as their owners have not agreed to it; undefined if they may. */
function objectionTo(texts: Readonly<Record<ReachKind, readonly string[]>>): string | undefined {
  if (texts.table.length === 0) return 'there is no such table';
  const [reason] = [...texts.reason].sort();
  if (reason !== undefined) return reason;
  const harmless = new Set(texts.harmless);
  for (const expression of texts.expression) {
    const objection = judgeExpression(expression, harmless);
    if (objection !== undefined) return `${objection}: ${expression}`;
  }
  return undefined;
}

/**
 * What the expressions and triggers of tables call whose owners have agreed to merging: those that PostgreSQL itself doesn't
 * have are still to be judged. What changes the session, or reads what it has left there, is not merged all the same.
 */
function agreedCalls(
  texts: readonly string[],
): { readonly functions: readonly string[] } | { readonly objection: string } {
  const functions = new Set<string>();
  for (const text of texts) {
    const isTrigger = /^CREATE (CONSTRAINT )?TRIGGER /.test(text);
    const parsed = parseSql(isTrigger ? text : `SELECT ${text}`);
    const [statement] = parsed.kind === 'parsed' ? parsed.statements : [];
    if (!statement) return { objection: `an expression is not understood: ${text}` };
    const facts = collectFacts(statement.node);
    if (!isTrigger && facts.rangeVars.length > 0) {
      return { objection: `an expression reads other tables: ${text}` };
    }
    const { effects, needsPinBefore, unknownFunctions } = inspectCalls(facts.functionCalls);
    if (effects.length > 0 || needsPinBefore) {
      return { objection: `an expression may leave session state: ${text}` };
    }
    for (const name of unknownFunctions) functions.add(name);
  }
  return { functions: [...functions] };
}

/** `harmless`: names of extensions' functions that the catalogs have led to, and so may be meant. */
function judgeExpression(expression: string, harmless: ReadonlySet<string>): string | undefined {
  const parsed = parseSql(`SELECT ${expression}`);
  const [statement] = parsed.kind === 'parsed' ? parsed.statements : [];
  if (!statement) return 'an expression is not understood';
  const facts = collectFacts(statement.node);
  if (facts.rangeVars.length > 0) return 'an expression reads other tables';
  for (const call of facts.functionCalls) {
    const name = stringsOf(call.funcname)?.at(-1) ?? '';
    if (!isHarmlessCall(call) && !harmless.has(name)) return `an expression calls ${name}()`;
  }
  return undefined;
}

/**
 * May the writes to a table share a transaction with others (coalesce/SPEC.md, "Who may be a member")? Read from the catalogs of
 * the home node, and kept until DDL.
 *
 * The judgement errs on the side of "no": the cost of that is a commit of one's own, never a wrong answer. A name without a
 * schema is judged by all the relations that it may mean along the search_path, since which of them a role sees depends on its rights.
 */

import type { Rows } from '../backend/internal-query.ts';
import { BOUNDS } from '../base/bounds.ts';
import type { WriteFacts } from '../plan/plan.ts';
import { isHarmlessCall } from '../plan/write-facts.ts';
import { collectFacts, stringsOf } from '../sql/facts.ts';
import { parseSql } from '../sql/parser.ts';
import { type ReachKind, reachQuery, USER_NAMES_QUERY } from './write-reach.ts';

/** Why not; undefined: yes. */
type Verdict = { readonly reason: string | undefined };

/** What is known since the last DDL. */
interface Known {
  readonly byTable: Map<string, Verdict>;
  /** Of one statement, by the search_path that it was planned with: spares the data path the building of keys. */
  readonly byWrite: WeakMap<
    WriteFacts,
    { readonly searchPath: readonly string[]; readonly verdict: Verdict }
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
  #known = nothingKnown();

  /** @param ask runs a query on the home node and gives its rows */
  constructor(ask: (text: string) => Promise<Rows>) {
    this.#ask = ask;
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
      fresh.byTable.set(key, { reason: judge(await this.#ask(query)) });
      fresh.queries.set(key, query);
    }
    if (this.#known === before) this.#known = fresh;
  }

  /** undefined: not known yet, load() first. `searchPath`: the schemas that the statement was planned with. */
  lookup(write: WriteFacts, searchPath: readonly string[]): 'yes' | 'no' | undefined {
    const verdict = this.#verdict(write, searchPath);
    if (!verdict) return undefined;
    return verdict.reason === undefined ? 'yes' : 'no';
  }

  /** What to tell a user who asks why a write is not merged with others; undefined if it is, or if nothing is known yet. */
  reason(write: WriteFacts, searchPath: readonly string[]): string | undefined {
    return this.#verdict(write, searchPath)?.reason;
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
      loading = this.#loadInto(known, key, reachOf(write, searchPath)).finally(() =>
        known.loading.delete(key),
      );
      known.loading.set(key, loading);
    }
    await loading;
  }

  async #loadInto(known: Known, key: string, query: string): Promise<void> {
    known.userNames ??= await this.#askUserNames();
    const reason = judge(await this.#ask(query));
    if (known.byTable.size >= BOUNDS.writeFactsTablesMax) {
      known.byTable.clear();
      known.queries.clear();
    }
    known.byTable.set(key, { reason });
    known.queries.set(key, query);
  }

  async #askUserNames(): Promise<ReadonlySet<string>> {
    const rows = await this.#ask(USER_NAMES_QUERY);
    return new Set(rows.map((row) => row[0]!));
  }

  #verdict(write: WriteFacts, searchPath: readonly string[]): Verdict | undefined {
    const { byWrite, byTable, userNames } = this.#known;
    const hit = byWrite.get(write);
    if (hit?.searchPath === searchPath) return hit.verdict;
    const ofTable = byTable.get(keyOf(write, searchPath));
    if (!ofTable || !userNames) return undefined;
    const used = ofTable.reason === undefined ? write.names.find((name) => userNames.has(name)) : undefined;
    const verdict = used === undefined ? ofTable : { reason: `"${used}" may mean what a user has defined` };
    byWrite.set(write, { searchPath, verdict });
    return verdict;
  }
}

function keyOf(write: WriteFacts, searchPath: readonly string[]): string {
  return [write.name, ...schemasOf(write, searchPath)].join('\0');
}

function reachOf(write: WriteFacts, searchPath: readonly string[]): string {
  return reachQuery(schemasOf(write, searchPath), write.name);
}

/** The schemas in which the target may be. Temporary ones are not seen: a session that has one keeps its own backend. */
function schemasOf({ table, schema }: WriteFacts, searchPath: readonly string[]): readonly string[] {
  if (table) return [table.schema];
  return schema === undefined ? ['pg_catalog', ...searchPath] : [schema];
}

/** Why the writes to a table may not be merged; undefined if they may. */
function judge(rows: Rows): string | undefined {
  const texts: Record<ReachKind, string[]> = { table: [], reason: [], harmless: [], expression: [] };
  for (const [kind, text] of rows) {
    if (text === null || text === undefined) return 'its definition has just changed';
    texts[kind as ReachKind].push(text);
  }
  if (texts.table.length === 0) return 'there is no such table';
  const [reason] = texts.reason.sort();
  if (reason !== undefined) return reason;
  const harmless = new Set(texts.harmless);
  for (const expression of texts.expression) {
    const objection = judgeExpression(expression, harmless);
    if (objection !== undefined) return `${objection}: ${expression}`;
  }
  return undefined;
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

/**
 * What the home node knows of a role that logs in: whether it may, until when, of what it is a member and, if that is asked for, its
 * verifier. Asked over a control connection of its own, for all names together that wait at one moment: a flood of made-up names
 * costs home one query at a time.
 *
 *   fresh ──FRESH_MS, or doubt()──▶ known (home is asked again; while it is away: used)──KEPT_MS──▶ forgotten
 *
 * Invariant: each wait is bounded, and so is what is kept. What is known grants nothing when home says otherwise.
 */
import { BOUNDS } from '../base/bounds.ts';
import { PosternError, tooManyConnections } from '../base/errors.ts';
import type { MetricSamples } from '../observe/metric-samples.ts';
import { ServerError } from '../platform/control-connection.ts';

export interface RoleFacts {
  /** Its OID on home: a role of the same name that is made later, or renamed to it, has another one. */
  readonly id: string;
  readonly canLogIn: boolean;
  /** On the clock of `now`, in ms; Infinity: for ever. */
  readonly validUntilMs: number;
  /** Roles that it is a member of, at any distance. */
  readonly groups: ReadonlySet<string>;
  /** As pg_authid has it; undefined: it has none, or nobody was asked for it. */
  readonly storedPassword: string | undefined;
}

/** undefined: there is no such role. */
export type RoleAnswer = RoleFacts | undefined;

export interface RoleLookupOptions {
  /** Rows of a query on home, each a list of values. Rejects in a bounded time. */
  readonly ask: (text: string, values: readonly unknown[]) => Promise<readonly (readonly unknown[])[]>;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  readonly after: (ms: number, then: () => void) => { cancel(): void };
}

/** Where verifiers come from: nowhere, pg_authid, or PgBouncer's auth_query (a name and a password, by $1). */
export type VerifierSource = 'none' | 'pg_authid' | { readonly query: string };

interface Known {
  readonly answer: RoleAnswer;
  readonly atMs: number;
  /** It may have changed since: home is asked again, and only if it is away this is better than nothing. */
  isStale: boolean;
}

interface Waiter {
  readonly resolve: (answer: RoleAnswer) => void;
  readonly reject: (error: unknown) => void;
}

/** Logins that follow one another in this time are decided by one answer. */
const FRESH_MS = 1_000;
/** With home away, an answer decides for so long. */
const KEPT_MS = 300_000;
/** Whoever is known does not wait longer than this for a home that does not answer. */
const PATIENCE_MS = 1_000;

const FACTS = `SELECT r.rolname::text, r.rolcanlogin::text,
  CASE WHEN r.rolvaliduntil IS NULL OR r.rolvaliduntil = 'infinity' THEN NULL WHEN r.rolvaliduntil <= pg_catalog.now() THEN 0
    ELSE pg_catalog.date_part('epoch', r.rolvaliduntil - pg_catalog.now()) END::text,
  pg_catalog.to_json(ARRAY(WITH RECURSIVE above AS (SELECT roleid FROM pg_catalog.pg_auth_members WHERE member = r.oid
    UNION SELECT m.roleid FROM above JOIN pg_catalog.pg_auth_members m ON m.member = above.roleid)
    SELECT g.rolname::text FROM above JOIN pg_catalog.pg_roles g ON g.oid = above.roleid))::text`;
const OF_ROLES = `${FACTS}, NULL AS rolpassword, r.oid::text AS id FROM pg_catalog.pg_roles r WHERE r.rolname = ANY ($1::name[])`;
const WITH_VERIFIERS = `${FACTS}, r.rolpassword, r.oid::text AS id FROM pg_catalog.pg_authid r WHERE r.rolname = ANY ($1::name[])`;

export class RoleLookup {
  readonly #options: RoleLookupOptions;
  #source: VerifierSource;
  readonly #known = new Map<string, Known>();
  /** Apart, so that made-up names push no role out. */
  readonly #missing = new Map<string, Known>();
  readonly #waiting = new Map<string, Waiter[]>();
  #asking = false;
  #failedAtMs = Number.NEGATIVE_INFINITY;
  /** Names that were doubted while home was being asked: what it says may be from before. */
  #doubtedMeanwhile = new Set<string | undefined>();
  #queries = 0;
  #failures = 0;

  constructor(source: VerifierSource, options: RoleLookupOptions) {
    this.#source = source;
    this.#options = options;
  }

  /** From now on verifiers come from there. */
  set source(source: VerifierSource) {
    this.#source = source;
    this.doubt();
  }

  /** Rejects with 57P03 when home can't be asked and nothing is known that is young enough. */
  async find(name: string): Promise<RoleAnswer> {
    const now = this.#options.now();
    const known = this.#known.get(name) ?? this.#missing.get(name);
    if (known && !known.isStale && now - known.atMs < FRESH_MS) return known.answer;
    const usable = known && now - known.atMs < KEPT_MS ? known : undefined;
    if (usable && now - this.#failedAtMs < FRESH_MS) return usable.answer;
    const asked = this.#ask(name);
    if (!usable) return await asked;
    return await this.#patiently(asked, usable.answer);
  }

  /** Throws what the server says when verifiers can't be read there; a home that is away is none of its concern. */
  async check(source = this.#source): Promise<void> {
    if (source === 'none') return;
    const isQuery = typeof source !== 'string';
    try {
      await (isQuery ? this.#options.ask(source.query, ['']) : this.#options.ask(WITH_VERIFIERS, [[]]));
    } catch (error) {
      if (!(error instanceof ServerError)) return;
      throw new PosternError({
        sqlState: error.sqlState,
        message: `${isQuery ? 'authentication.auth_query' : 'verifiers of roles'} on the home node: ${error.message}`,
        hint: isQuery
          ? 'It is run by the role of the DSN, with the name of a role as $1, and gives a name and a password.'
          : 'Have the role of the DSN be a superuser, or give authentication.auth_query.',
      });
    }
  }

  /** Home is asked anew, for one or for all: they may have been changed, or have failed to fit. */
  doubt(name?: string): void {
    this.#doubtedMeanwhile.add(name);
    for (const kept of [this.#known, this.#missing]) {
      const doubted = name === undefined ? kept.values() : [kept.get(name)];
      for (const known of doubted) if (known) known.isStale = true;
    }
  }

  addMetrics(samples: MetricSamples): void {
    samples.set('postern_role_lookups_total', this.#queries);
    samples.set('postern_role_lookup_failures_total', this.#failures);
  }

  #patiently(asked: Promise<RoleAnswer>, otherwise: RoleAnswer): Promise<RoleAnswer> {
    return new Promise((resolve) => {
      const patience = this.#options.after(PATIENCE_MS, () => {
        this.#failedAtMs = this.#options.now();
        resolve(otherwise);
      });
      asked.then(
        (answer) => {
          patience.cancel();
          resolve(answer);
        },
        () => {
          patience.cancel();
          resolve(otherwise);
        },
      );
    });
  }

  #ask(name: string): Promise<RoleAnswer> {
    const inLine = this.#waiting.get(name);
    if (!inLine && this.#waiting.size >= BOUNDS.roleLookupsWaitingMax)
      return Promise.reject(tooManyConnections('too many logins wait for the home node'));
    return new Promise((resolve, reject) => {
      if (inLine) inLine.push({ resolve, reject });
      else this.#waiting.set(name, [{ resolve, reject }]);
      if (!this.#asking) void this.#askForAll();
    });
  }

  async #askForAll(): Promise<void> {
    this.#asking = true;
    while (this.#waiting.size > 0) {
      const batch = [...this.#waiting];
      this.#waiting.clear();
      this.#doubtedMeanwhile.clear();
      this.#queries++;
      try {
        const found = await this.#factsOf(batch.map(([name]) => name));
        const atMs = this.#options.now();
        for (const [name, waiters] of batch) {
          const answer = found.get(name);
          const isStale = this.#doubtedMeanwhile.has(name) || this.#doubtedMeanwhile.has(undefined);
          this.#keep(name, { answer, atMs, isStale });
          for (const { resolve } of waiters) resolve(answer);
        }
        this.#failedAtMs = Number.NEGATIVE_INFINITY;
      } catch (error) {
        this.#failures++;
        this.#failedAtMs = this.#options.now();
        const failure = homeAway(error);
        for (const [, waiters] of batch) for (const { reject } of waiters) reject(failure);
      }
    }
    this.#asking = false;
  }

  #keep(name: string, known: Known): void {
    this.#known.delete(name);
    this.#missing.delete(name);
    const kept = known.answer ? this.#known : this.#missing;
    if (kept.size >= (known.answer ? BOUNDS.rolesKnownMax : BOUNDS.rolesMissingMax)) {
      const [oldest] = kept.keys();
      kept.delete(oldest!);
    }
    kept.set(name, known);
  }

  async #factsOf(names: readonly string[]): Promise<Map<string, RoleFacts>> {
    const source = this.#source;
    const rows = await this.#options.ask(source === 'pg_authid' ? WITH_VERIFIERS : OF_ROLES, [names]);
    const found = new Map<string, RoleFacts>();
    for (const [name, canLogIn, validForS, groups, storedPassword, id] of rows) {
      found.set(String(name), {
        id: String(id),
        canLogIn: canLogIn === 'true',
        validUntilMs:
          validForS === null ? Number.POSITIVE_INFINITY : this.#options.now() + Number(validForS) * 1_000,
        groups: new Set(JSON.parse(String(groups)) as string[]),
        storedPassword: typeof storedPassword === 'string' ? storedPassword : undefined,
      });
    }
    if (typeof source === 'string') return found;
    for (const [name, facts] of found) {
      // PgBouncer's: a row of the name and the password.
      const [row] = await this.#options.ask(source.query, [name]);
      if (typeof row?.[1] === 'string') found.set(name, { ...facts, storedPassword: row[1] });
    }
    return found;
  }
}

/** 42501 and the like are the configuration's fault; whoever logs in can only try again later either way. */
function homeAway(error: unknown): PosternError {
  return new PosternError({
    sqlState: '57P03',
    message: 'the home node cannot be asked for the role',
    detail: error instanceof Error ? error.message : undefined,
    hint: 'Roles that have logged in within the last five minutes still can.',
  });
}

/**
 * What the router knows of one client, beside its socket: who it is, its settings, and the transaction that it has begun
 * but that no node knows of yet. lease.ts, responses.ts and the two protocols share it.
 */
import type { Settings } from '../backend/settings.ts';
import type { CommandSession, RouterContext } from '../execute/context.ts';
import type { ClientLog } from '../observe/client-log.ts';
import type { MapOverlay } from './ddl-overlay.ts';
import type { ClientOutput } from './output.ts';

/**
 * The client's transaction as far as no backend keeps it:
 * - `none`: it has none, or a backend has it (its status is the backend's).
 * - `virtual`: BEGIN was answered here; the first statement that needs a node begins it there.
 * - `failed`: it failed here (refused, or its backend was lost): nothing but ROLLBACK or COMMIT is taken.
 */
export type OwnTransaction = 'none' | 'virtual' | 'failed';

/** A read over several nodes sees each transaction over several nodes wholly or not at all. */
export const CONSISTENT_READS = 'postern.consistent_reads';

/** As PostgreSQL reads a boolean setting. */
export function isOn(value: string | null | undefined): boolean {
  return /^(on|t(r(ue?)?)?|y(es?)?|1)$/i.test(value ?? '');
}

export class ClientState {
  readonly context: RouterContext;
  readonly user: string;
  readonly output: ClientOutput;
  readonly log: ClientLog;
  /** What RESET goes back to: the start-up packet's settings. */
  readonly defaults: Settings;
  transaction: OwnTransaction = 'none';
  /** The client's own BEGIN, options included, of the transaction that began last. */
  beginText = '';
  /** The open transaction has run DDL, and plans by it. */
  overlay: MapOverlay | undefined;
  /** ParameterStatus values that the client has been told. */
  readonly told = new Map<string, string>();
  /** Sent and not begun yet: so many COPY FROM STDIN. */
  copiesAhead = 0;
  /** The server reads COPY data, as far as is known, and the client has not ended them. */
  copyIn = false;
  /** A Sync came while copyIn, and no row yet: the server ignores it, unless the COPY has failed before it reads any. */
  syncHeld = false;
  #settings: Settings;
  #searchPath: { readonly key: string; readonly schemas: readonly string[] };
  #searchPathText: string;
  #scope: string | undefined;
  /** The value of search_path after login. */
  readonly loginSearchPath: string;
  /** As its start-up packet names it. */
  readonly tenant: string | undefined;

  constructor(options: {
    context: RouterContext;
    user: string;
    output: ClientOutput;
    log: ClientLog;
    defaults: Settings;
    searchPathText: string;
    tenant?: string | undefined;
  }) {
    this.context = options.context;
    this.user = options.user;
    this.tenant = options.tenant;
    this.output = options.output;
    this.log = options.log;
    this.defaults = options.defaults;
    this.#settings = options.defaults;
    this.loginSearchPath = options.searchPathText;
    this.#searchPathText = options.searchPathText;
    this.#searchPath = this.#resolve(options.searchPathText);
  }

  get settings(): Settings {
    return this.#settings;
  }

  set settings(settings: Settings) {
    const pathChanged =
      settings.values.get('search_path') !== this.#settings.values.get('search_path') ||
      settings.values.get('role') !== this.#settings.values.get('role');
    this.#settings = settings;
    this.#scope = undefined;
    if (pathChanged) this.setSearchPath(settings.values.get('search_path') ?? this.loginSearchPath);
  }

  /** The transaction that no backend has is over; with AND CHAIN the next one of its kind begins. */
  endTransaction(chain: boolean): void {
    this.transaction = chain && this.beginText !== '' ? 'virtual' : 'none';
  }

  /** What decides the meaning of a text that is prepared, outside of a transaction that has changed settings. */
  get scope(): string {
    this.#scope ??= `${this.#settings.readingKey}\0${this.#searchPath.key}`;
    return this.#scope;
  }

  /** As it resolves now, SET LOCAL included. `key` tells search paths apart in the plan cache. */
  get searchPath(): { readonly key: string; readonly schemas: readonly string[] } {
    return this.#searchPath;
  }

  setSearchPath(text: string): void {
    this.#searchPathText = text;
    this.#searchPath = this.#resolve(text);
    this.#scope = undefined;
  }

  /** postern.consistent_reads, as the session has it. */
  get wantsConsistentReads(): boolean {
    return isOn(this.settings.values.get(CONSISTENT_READS));
  }

  get role(): string {
    const role = this.#settings.values.get('role');
    return role === undefined || role === 'none' ? this.user : role;
  }

  get commandSession(): CommandSession {
    return { role: this.role, searchPath: this.#searchPathText };
  }

  #resolve(text: string): { key: string; schemas: readonly string[] } {
    const schemas = splitIdentifierList(text).map((name) => (name === '$user' ? this.role : name));
    return interned(schemas.join('\0'), schemas);
  }
}

/** One object for all clients with the same path, so that caches can go by identity. */
const searchPaths = new Map<string, { readonly key: string; readonly schemas: readonly string[] }>();
const SEARCH_PATHS_MAX = 10_000;

function interned(key: string, schemas: readonly string[]) {
  let path = searchPaths.get(key);
  if (!path) {
    if (searchPaths.size >= SEARCH_PATHS_MAX) searchPaths.clear();
    path = { key, schemas };
    searchPaths.set(key, path);
  }
  return path;
}

/** The names of a list GUC as current_setting() prints it: `"$user", public`. */
function splitIdentifierList(text: string): string[] {
  const names: string[] = [];
  const pattern = /\s*(?:"((?:[^"]|"")*)"|([^",\s][^",]*?))\s*(?:,|$)/gy;
  for (let match = pattern.exec(text); match && match[0] !== ''; match = pattern.exec(text)) {
    const [, quoted, plain] = match;
    names.push(quoted === undefined ? plain!.toLowerCase() : quoted.replaceAll('""', '"'));
  }
  return names;
}

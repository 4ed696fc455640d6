/**
 * The lines about clients. Each has `connection`, by which all lines of one client are found, as PostgreSQL's %c: the second in which
 * the client came, in hexadecimal, a point, and the process that took it with a number. It stays when a session is handed to another
 * process (identity(), ClientLogs.adopt()).
 *
 *   client comes ──▶ "client logged in" ──▶ "client left"
 *        └─────────▶ "login refused"    └────▶ "session ended": not by the client        any time: what goes wrong, slow statements
 *
 * Invariant: no password, verifier, key or value of a statement is ever given to it; a statement's text is the normalized one.
 * Invariant: whatever clients do, lines of each kind are bounded (LINES).
 */
import { LineLimit } from './line-limit.ts';
import type { Log, LogFields, LogLevel } from './log.ts';

export interface ClientLogOptions {
  /** Lines when clients log in and leave. */
  readonly connections: boolean;
  /** Statements that take as long as this are written; Infinity: none. */
  readonly statementsSlowerThanMs: number;
}

/** As it goes to another process with its session. */
export interface ClientIdentity {
  readonly connection: string;
  readonly address: string | undefined;
  /** Wall clock. */
  readonly openedAtMs: number;
  readonly role: string | undefined;
  readonly database: string | undefined;
  readonly applicationName: string | undefined;
}

/** Of one kind. */
const LINES = { burst: 200, perSecond: 50 };
const TEXT_CHARACTERS_MAX = 2_000;
/** Of whoever has not logged in yet, too; the server's own names have 63 bytes. */
const NAME_CHARACTERS_MAX = 128;
/** JSON escapes what is below a space. A terminal obeys these as well, or shows a line as if it were another. */
const CONTROLS = /[\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g;
const NUMBER_SPAN = 2 ** 24;
/** Of one counter: servers may have SQLSTATEs of their own. */
const KEYS_MAX = 100;

/** All clients of one process. */
export class ClientLogs {
  readonly #log: Log;
  readonly #limit: LineLimit;
  readonly #wallMs: () => number;
  readonly #processHex: string;
  #options: ClientLogOptions;
  #number = 0;
  /** Logins by method; refusals and ends of sessions by SQLSTATE (00000: the client has ended it). */
  readonly counters = {
    loggedIn: new Map<string, number>(),
    refused: new Map<string, number>(),
    left: new Map<string, number>(),
  };

  constructor(options: {
    readonly log: Log;
    readonly options: ClientLogOptions;
    readonly processId: number;
    /** A clock that never goes back, and that of the wall; both in ms. */
    readonly now: () => number;
    readonly wallMs: () => number;
  }) {
    this.#log = options.log;
    this.#options = options.options;
    this.#processHex = options.processId.toString(16);
    this.#wallMs = options.wallMs;
    this.#limit = new LineLimit({ rate: LINES, now: options.now });
  }

  /** Statements that take as long as this, in ms, are given to ClientLog.slowStatement(). */
  get statementsSlowerThanMs(): number {
    return this.#options.statementsSlowerThanMs;
  }

  /** Are there lines when clients log in and leave? */
  get connections(): boolean {
    return this.#options.connections;
  }

  reload(options: ClientLogOptions): void {
    this.#options = options;
  }

  /** Whoever has just been let through the port. */
  open(address: string | undefined): ClientLog {
    const openedAtMs = this.#wallMs();
    this.#number = (this.#number + 1) % NUMBER_SPAN;
    const number = this.#number.toString(16).padStart(6, '0');
    const second = Math.floor(openedAtMs / 1_000).toString(16);
    return this.adopt({
      connection: `${second}.${this.#processHex}${number}`,
      ...{ address, openedAtMs, role: undefined, database: undefined, applicationName: undefined },
    });
  }

  /** A client that another process has served until now. */
  adopt(identity: ClientIdentity): ClientLog {
    return new ClientLog(this, identity);
  }

  /** For ClientLog. */
  count(what: keyof ClientLogs['counters'], key: string): void {
    const counts = this.counters[what];
    const name = counts.has(key) || counts.size < KEYS_MAX ? key : 'other';
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }

  /** For ClientLog: `kind` bounds how many such lines there are. */
  write(level: LogLevel, kind: string, line: { message: string; fields: LogFields }): void {
    const leftOut = this.#limit.admit(kind);
    if (leftOut === undefined) return;
    const fields = Object.fromEntries(
      Object.entries(line.fields).map(([name, value]) => [
        name,
        typeof value === 'string' ? harmless(value) : value,
      ]),
    );
    this.#log[level](line.message, leftOut === 0 ? fields : { ...fields, lines_left_out_before: leftOut });
  }

  now(): number {
    return this.#wallMs();
  }

  /** To be called every few seconds: says what was left out, if nothing else has. */
  tick(): void {
    for (const { kind, leftOut } of this.#limit.take())
      this.#log.warn(`lines left out: ${kind}`, { lines_left_out: leftOut });
  }
}

/** One client. */
export class ClientLog {
  readonly #logs: ClientLogs;
  #identity: ClientIdentity;
  #hasLeft = false;
  #isIn: boolean;

  constructor(logs: ClientLogs, identity: ClientIdentity) {
    this.#logs = logs;
    this.#identity = identity;
    this.#isIn = identity.role !== undefined;
  }

  identity(): ClientIdentity {
    return this.#identity;
  }

  /** What its start-up packet says; nothing of it is proven yet. */
  identify(who: { role: string; database: string; applicationName?: string | undefined }): void {
    const { role, database, applicationName } = who;
    this.#identity = {
      ...this.#identity,
      role: role.slice(0, NAME_CHARACTERS_MAX),
      database: database.slice(0, NAME_CHARACTERS_MAX),
      applicationName: applicationName?.slice(0, NAME_CHARACTERS_MAX),
    };
  }

  /** `method`: as in pg_hba.conf. `encryption`: the version of TLS. */
  loggedIn(how: { method: string; encryption?: string | undefined }): void {
    this.#isIn = true;
    this.#logs.count('loggedIn', how.method);
    if (!this.#logs.connections) return;
    const tookMs = this.#logs.now() - this.#identity.openedAtMs;
    this.#write('info', 'client logged in', {
      ...{ method: how.method, encryption: how.encryption, duration_ms: Math.round(tookMs) },
    });
  }

  /** `detail` is for the log alone: what the client must not be told. */
  refused(error: { sqlState: string; message: string }, detail?: string): void {
    this.#hasLeft = true;
    this.#logs.count('refused', error.sqlState);
    this.#write('warn', 'login refused', { sql_state: error.sqlState, reason: error.message, detail });
  }

  /** Once; later calls are nothing. `error`: what it was told; undefined: it has ended the session itself. */
  left(error?: { sqlState: string; message: string }): void {
    if (this.#hasLeft || !this.#isIn) return;
    this.#hasLeft = true;
    this.#logs.count('left', error?.sqlState ?? '00000');
    const { connections } = this.#logs;
    if (!connections && error === undefined) return;
    const durationMs = Math.round(this.#logs.now() - this.#identity.openedAtMs);
    if (error === undefined) this.#write('info', 'client left', { duration_ms: durationMs });
    else
      this.#write('warn', 'session ended', {
        ...{ sql_state: error.sqlState, reason: error.message, duration_ms: durationMs },
      });
  }

  /** Its session goes on in another process: nothing more is written of it here. */
  handedOver(): void {
    this.#hasLeft = true;
  }

  /** `query`: normalized, without values. */
  slowStatement(statement: {
    readonly query: string;
    readonly durationMs: number;
    readonly rows: number;
    readonly failed: boolean;
  }): void {
    const { query, durationMs, rows, failed } = statement;
    this.#write('warn', 'slow statement', {
      ...{ query: query.slice(0, TEXT_CHARACTERS_MAX), duration_ms: Math.round(durationMs), rows, failed },
    });
  }

  /** `message` is one of a few constants, and values are fields. */
  error(message: string, fields: LogFields = {}): void {
    this.#write('error', message, fields);
  }

  #write(level: LogLevel, message: string, fields: LogFields): void {
    const { connection, role, database, address, applicationName } = this.#identity;
    this.#logs.write(level, message, {
      message,
      fields: { connection, role, database, address, application_name: applicationName, ...fields },
    });
  }
}

/** As it may stand in a log that somebody looks at. */
function harmless(text: string): string {
  return text.slice(0, TEXT_CHARACTERS_MAX).replace(CONTROLS, '\ufffd');
}

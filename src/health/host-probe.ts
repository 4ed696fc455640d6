/**
 * Asks one host of a node how it is, over a connection of its own: one question at a time, and another connection when that one
 * is lost or has brought nothing for some seconds.
 *
 * Invariant: an answer that is late is waited for: a slow server is told from one that answers nothing.
 */
import { PosternError } from '../base/errors.ts';
import type { Dsn, Host } from '../pg/dsn.ts';
import { ControlConnection, ServerError } from '../platform/control-connection.ts';
import type { HostAnswer } from './choose-primary.ts';

/**
 * For one try to connect. Each other one is given longer: a server that takes its time for every login (a slow directory, a full
 * CPU) is there all the same, and one that comes back to a lossy network answers a new attempt sooner than an old one.
 */
const CONNECT_TIMEOUT_MS = 3_000;
const LONG_CONNECT_TIMEOUT_MS = 10_000;
/** The server's own bound; the connection is given up some seconds later, if not even that comes back. */
const STATEMENT_TIMEOUT_MS = 1_000;

/** The timeline stands in the name of the WAL file; what the control file says follows with the next checkpoint alone. */
const PING = `SELECT pg_is_in_recovery() AS "isStandby", current_setting('default_transaction_read_only') = 'on' AS "isReadOnly",
  CASE WHEN NOT pg_is_in_recovery() THEN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END AS timeline,
  pg_postmaster_start_time()::text AS "startedAt"`;
const IDENTITY = 'SELECT system_identifier::text AS id FROM pg_control_system()';

export class HostProbe {
  readonly #nodeName: string;
  readonly #dsn: Dsn;
  /** The newest, whether it is of use yet or not. */
  #opening: ControlConnection | undefined;
  #connection: ControlConnection | undefined;
  #systemId = '';
  #isAsking = false;
  #isPatient = false;
  #stopped = false;
  /** The last answer, and when it came (monotonic ms). */
  answer: HostAnswer | undefined;
  answeredAtMs = Number.NEGATIVE_INFINITY;
  /** Since when a definite answer has been awaited; undefined: none is. */
  owedSinceMs: number | undefined;
  /** Told at once when the connection is lost between two questions. */
  onLost: (() => void) | undefined;

  constructor(options: { readonly nodeName: string; readonly dsn: Dsn; readonly host: Host }) {
    this.#nodeName = options.nodeName;
    this.#dsn = { ...options.dsn, ...options.host };
  }

  get isAsking(): boolean {
    return this.#isAsking;
  }

  /** Resolves when the answer, or that there is none, stands in `answer`. Never rejects. */
  async ask(now: () => number): Promise<void> {
    if (this.#isAsking || this.#stopped) return;
    this.#isAsking = true;
    this.owedSinceMs ??= now();
    const answer = await this.#ask().catch(answerOf);
    this.#isAsking = false;
    if (this.#stopped) return;
    this.answer = answer;
    this.answeredAtMs = now();
    if (answer.kind !== 'silent') this.owedSinceMs = undefined;
  }

  stop(): void {
    this.#stopped = true;
    this.#opening?.destroy();
  }

  async #ask(): Promise<HostAnswer> {
    const connection = await this.#connected();
    const [row] = await connection.query<{
      readonly isStandby: boolean;
      readonly isReadOnly: boolean;
      readonly timeline: number;
      readonly startedAt: string;
    }>(PING);
    if (row!.isStandby) return { kind: 'standby' };
    const { isReadOnly, timeline, startedAt } = row!;
    return { kind: 'primary', timeline, systemId: this.#systemId, isReadOnly, startedAt };
  }

  async #connected(): Promise<ControlConnection> {
    if (this.#connection && !this.#connection.lost) return this.#connection;
    const connectTimeoutMs = this.#isPatient ? LONG_CONNECT_TIMEOUT_MS : CONNECT_TIMEOUT_MS;
    this.#isPatient = !this.#isPatient;
    const connection = await ControlConnection.openOn(this.#dsn, {
      ...{ nodeName: this.#nodeName, applicationName: 'postern health', connectTimeoutMs },
      statementTimeoutMs: STATEMENT_TIMEOUT_MS,
    });
    this.#isPatient = false;
    this.#opening = connection;
    if (this.#stopped) connection.destroy();
    const [row] = await connection.query<{ id: string }>(IDENTITY);
    this.#systemId = row!.id;
    this.#connection = connection;
    connection.onLost(() => {
      if (this.#stopped || this.#connection !== connection) return;
      this.#connection = undefined;
      this.onLost?.();
    });
    return connection;
  }
}

/** What an error says of the server: whether one runs, and whether it said so at once. */
export function answerOf(error: unknown): HostAnswer {
  const cause = error instanceof PosternError ? error.cause : error;
  const message =
    cause instanceof Error ? cause.message : String(error instanceof Error ? error.message : error);
  const code =
    error instanceof ServerError ? error.sqlState : (cause as { code?: unknown } | undefined)?.code;
  if (typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code)) {
    // Starting, stopping, recovering from a crash: not there yet, or not for long.
    return code.startsWith('57P') ? { kind: 'away', cause: message } : { kind: 'refusing', cause: message };
  }
  if (code === 'ETIMEDOUT' || (code === undefined && /time-?out|within \d+ ms/i.test(message)))
    return { kind: 'silent' };
  return { kind: 'away', cause: message };
}

/**
 * One connection of the control path (catalog, DDL, checks) to one node, over npm `pg`. Rows of users never pass here.
 *
 * Invariant: every wait is bounded. Connecting, each statement and each lock have a limit on the server; a server that
 * answers nothing at all is given up a little later by the client, and then the connection is closed, not used again.
 * Invariant: an error of the server arrives as ServerError with all its fields, so that a client can be told the same.
 */
import pg from 'pg';
import { cannotConnect, connectionLost, type PosternError } from '../base/errors.ts';
import { type Dsn, parseDsn } from '../pg/dsn.ts';
import { nodeTlsOf } from '../pg/dsn-tls.ts';
import { clientOver, requireBinding } from './control-socket.ts';
import { closeWhenOutdated, tryHosts } from './hosts.ts';
import { connectToNode, type NodeSocket, TlsFailed, tryEncryptions } from './node-tls.ts';
import { socketReason } from './tls-reason.ts';

export interface ControlConnectionOptions {
  readonly nodeName: string;
  readonly dsn: string;
  readonly applicationName?: string;
  readonly connectTimeoutMs?: number;
  readonly statementTimeoutMs?: number;
  readonly lockTimeoutMs?: number;
}

const CONNECT_TIMEOUT_MS = 5_000;
const STATEMENT_TIMEOUT_MS = 60_000;
const LOCK_TIMEOUT_MS = 10_000;
/** The server does not let in whoever comes like this (no line of its pg_hba.conf): it may without TLS, or with it. */
const REFUSED_BY_RULE = '28000';
/** How much longer than the server's own limit the client waits before it gives the connection up. */
const ANSWER_GRACE_MS = 5_000;
/** A session that holds locks and whose router is gone without a word is ended by its server after this. */
const IDLE_IN_TRANSACTION_TIMEOUT_MS = 120_000;

/**
 * Nothing in a user's schema is called by accident; a server sees a vanished router soon, and lets go of the locks by
 * which others know that it lives; what the catalog has handed out (ids, generations) is durable whatever the default.
 * The catalog's queries have many expressions and few rows: compiling them takes 100 ms, and running them one.
 */
const SESSION_SETTINGS = `
SET search_path = pg_catalog; SET jit = off;
SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')`;

/** One-letter field codes of ErrorResponse (documentation: "Error and Notice Message Fields") by pg's property. */
const FIELD_CODES = [
  ['S', 'severity'],
  ['V', 'severity'],
  ['C', 'code'],
  ['D', 'detail'],
  ['H', 'hint'],
  ['P', 'position'],
  ['p', 'internalPosition'],
  ['q', 'internalQuery'],
  ['W', 'where'],
  ['s', 'schema'],
  ['t', 'table'],
  ['c', 'column'],
  ['d', 'dataType'],
  ['n', 'constraint'],
  ['F', 'file'],
  ['L', 'line'],
  ['R', 'routine'],
] as const;

/** An error that a node's server gave, to be passed to the client as it is. */
export class ServerError extends Error {
  readonly nodeName: string;
  readonly sqlState: string;
  /** ErrorResponse fields by their one-letter code. */
  readonly fields: ReadonlyMap<string, string>;

  constructor(nodeName: string, fields: ReadonlyMap<string, string>) {
    super(fields.get('M') ?? 'error without a message');
    this.name = 'ServerError';
    this.nodeName = nodeName;
    this.sqlState = fields.get('C') ?? 'XX000';
    this.fields = fields;
  }

  /** The same error with a hint, if the server gave none. */
  withHint(hint: string): ServerError {
    if (this.fields.has('H')) return this;
    return new ServerError(this.nodeName, new Map(this.fields).set('H', hint));
  }
}

export class ControlConnection {
  readonly nodeName: string;
  readonly #client: pg.Client;
  readonly #lostListeners: (() => void)[] = [];
  #lost = false;

  private constructor(nodeName: string, client: pg.Client) {
    this.nodeName = nodeName;
    this.#client = client;
    const lost = () => {
      if (this.#lost) return;
      this.#lost = true;
      for (const listener of this.#lostListeners) listener();
    };
    client.on('error', lost);
    client.on('end', lost);
  }

  /** To the primary among the hosts of the DSN. Rejects with 08001. */
  static async open(options: ControlConnectionOptions): Promise<ControlConnection> {
    const dsn = parseDsn(options.dsn);
    const isOneOfSeveral = dsn.hosts.length > 1;
    return tryHosts({
      nodeName: options.nodeName,
      hosts: dsn.hosts,
      open: async (host) => {
        const connection = await ControlConnection.openOn({ ...dsn, ...host }, options);
        if (isOneOfSeveral) connection.onLost(closeWhenOutdated(dsn.hosts, host, () => connection.destroy()));
        return connection;
      },
      isPrimary: async (connection) => {
        const [row] = await connection.query<{ isPrimary: boolean }>(
          'SELECT NOT pg_is_in_recovery() AS "isPrimary"',
        );
        return row?.isPrimary === true;
      },
      close: (connection) => connection.destroy(),
    });
  }

  /** To this host, whether it is a primary or not. */
  static async openOn(dsn: Dsn, options: Omit<ControlConnectionOptions, 'dsn'>): Promise<ControlConnection> {
    const timeoutMs = options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS;
    const reach = { host: dsn.host, port: dsn.port, tls: nodeTlsOf(dsn), timeoutMs };
    return tryEncryptions(
      reach,
      async (encryption) => {
        const startedMs = performance.now();
        let opened: NodeSocket;
        try {
          opened = await connectToNode(reach, encryption);
        } catch (error) {
          throw failed(options.nodeName, error);
        }
        const remainingMs = Math.max(timeoutMs - (performance.now() - startedMs), 1);
        return ControlConnection.#logIn(dsn, { ...options, connectTimeoutMs: remainingMs }, opened);
      },
      (error) => {
        const cause = error instanceof Error ? error.cause : undefined;
        return (
          cause instanceof TlsFailed || (cause instanceof pg.DatabaseError && cause.code === REFUSED_BY_RULE)
        );
      },
    );
  }

  static async #logIn(
    dsn: Dsn,
    options: Omit<ControlConnectionOptions, 'dsn'>,
    opened: NodeSocket,
  ): Promise<ControlConnection> {
    const statementTimeoutMs = options.statementTimeoutMs ?? STATEMENT_TIMEOUT_MS;
    const client = new pg.Client({
      host: dsn.host,
      port: dsn.port,
      user: dsn.user,
      database: dsn.database,
      ...(dsn.password === undefined ? {} : { password: dsn.password }),
      ...clientOver(opened),
      application_name: options.applicationName ?? 'postern control',
      connectionTimeoutMillis: options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
      statement_timeout: statementTimeoutMs,
      query_timeout: statementTimeoutMs + ANSWER_GRACE_MS,
      lock_timeout: options.lockTimeoutMs ?? LOCK_TIMEOUT_MS,
      idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_TIMEOUT_MS,
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
    });
    const connection = new ControlConnection(options.nodeName, client);
    const binding = requireBinding(client, nodeTlsOf(dsn), dsn.password);
    try {
      await client.connect();
      binding.check();
      await client.query(SESSION_SETTINGS);
    } catch (error) {
      connection.destroy();
      throw failed(options.nodeName, error);
    }
    return connection;
  }

  get lost(): boolean {
    return this.#lost;
  }

  onLost(listener: () => void): void {
    this.#lostListeners.push(listener);
  }

  /** `processId`: of the backend that has notified. */
  onNotification(listener: (channel: string, payload: string, processId: number) => void): void {
    this.#client.on('notification', ({ channel, payload = '', processId }) =>
      listener(channel, payload, processId),
    );
  }

  /** The rows of one statement; of the last one, if `text` holds several (then without values). */
  async query<Row extends object = Record<string, unknown>>(
    text: string,
    values?: readonly unknown[],
  ): Promise<Row[]> {
    if (this.#lost) throw connectionLost(this.nodeName);
    try {
      const result = values ? await this.#client.query(text, [...values]) : await this.#client.query(text);
      const last: pg.QueryResult = Array.isArray(result) ? result[result.length - 1] : result;
      return (last?.rows ?? []) as Row[];
    } catch (error) {
      throw translateError(this, error);
    }
  }

  /** Runs `work` in a transaction: committed if it returns, rolled back if it throws. */
  async transaction<T>(work: () => Promise<T>, begin = 'BEGIN'): Promise<T> {
    await this.query(begin);
    let result: T;
    try {
      result = await work();
    } catch (error) {
      await this.rollback();
      throw error;
    }
    await this.query('COMMIT');
    return result;
  }

  /** Never throws: a rollback that fails ends the connection, which undoes as much. */
  async rollback(): Promise<void> {
    if (this.#lost) return;
    try {
      await this.#client.query('ROLLBACK');
    } catch {
      this.destroy();
    }
  }

  async close(): Promise<void> {
    if (this.#lost) return;
    this.#lost = true;
    // `end` waits for the server to hang up; one that doesn't is left to the operating system.
    let timer: NodeJS.Timeout | undefined;
    const gaveUp = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, ANSWER_GRACE_MS);
    });
    await Promise.race([this.#client.end().catch(() => undefined), gaveUp]);
    clearTimeout(timer);
    this.#socket()?.destroy();
  }

  /** Cuts the connection without a word, as a crash would. */
  destroy(): void {
    this.#socket()?.destroy();
  }

  #socket(): { destroy(): void } | undefined {
    const holder = this.#client as unknown as { connection?: { stream?: { destroy(): void } } };
    return holder.connection?.stream;
  }

  /** For copy-rows.ts alone, which speaks COPY over it. */
  rawClient(): pg.Client {
    return this.#client;
  }
}

function failed(nodeName: string, cause: unknown): PosternError {
  const failure = cannotConnect(nodeName, cause instanceof Error ? socketReason(cause) : String(cause));
  failure.cause = cause;
  return failure;
}

/** What pg throws, as what Postern throws: the server's own error with all its fields, or a lost connection. */
export function translateError(connection: ControlConnection, error: unknown): Error {
  if (!(error instanceof pg.DatabaseError)) {
    // pg's own errors are all about the connection: closed, ended, or an answer that never came.
    connection.destroy();
    const lost = connectionLost(connection.nodeName);
    lost.cause = error;
    return lost;
  }
  const fields = new Map<string, string>();
  for (const [letter, property] of FIELD_CODES) {
    const value = error[property];
    if (value !== undefined && value !== null) fields.set(letter, String(value));
  }
  fields.set('M', error.message);
  return new ServerError(connection.nodeName, fields);
}

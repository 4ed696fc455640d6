/**
 * The control path to the server that is measured: one ordinary connection beside the load, for what is done before and
 * after it: the schema of the workload's tables, and the server's own facts.
 *
 * Invariant: the schema is only ever dropped if its comment says that this program made it, and while this session holds
 * the advisory lock of measurements; so two measurements of one database exclude each other, and what a killed one has
 * left behind is cleared away by the next.
 */
import { readFileSync } from 'node:fs';
import { Client, type ClientConfig, type QueryConfig } from 'pg';
import { assert } from '../../base/assert.ts';
import { type Dsn, describeDsn } from '../../pg/dsn.ts';
import type { Target, TlsOptions } from '../load/generator-messages.ts';
import { type Workload, withSchema } from '../workload/workload.ts';
import { postmasterOf } from './machine.ts';

const MEASURE_SCHEMA = 'postern_wall';
const SCHEMA_COMMENT = 'made by postern wall measure, which drops it again when it ends';
/** The first 31 bits of the SHA-256 of "postern_wall": any number will do that nobody else uses. */
const ADVISORY_LOCK_KEY = 1_094_796_486;
const CONNECT_TIMEOUT_MS = 10_000;
const LOCK_TIMEOUT_MS = 10_000;
const QUERY_TIMEOUT_MS = 60_000;
/** Whether a connection still answers at all. */
const PROBE_TIMEOUT_MS = 5_000;
const END_TIMEOUT_MS = 2_000;

/** A measurement that could not begin, or could not go on; says what to do in words for the user. */
export class MeasureError extends Error {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'MeasureError';
  }
}

/** What a figure has to be read with. What could not be read is in `unread`, by name. */
export interface ServerFacts {
  readonly version: string | undefined;
  /** As SHOW prints them: fsync, synchronous_commit, shared_buffers, … */
  readonly settings: Readonly<Record<string, string>>;
  /** Standbys that stream from it now. */
  readonly replicas: number | undefined;
  readonly unread: readonly string[];
}

const SETTINGS_READ = [
  'fsync',
  'synchronous_commit',
  'wal_sync_method',
  'full_page_writes',
  'wal_level',
  'commit_delay',
  'commit_siblings',
  'synchronous_standby_names',
  'max_connections',
  'shared_buffers',
  'wal_buffers',
  'wal_compression',
  'max_wal_size',
  'checkpoint_timeout',
  'checkpoint_completion_target',
  'autovacuum',
];

export class MeasuredServer {
  private readonly dsn: Dsn;
  private client: Client;
  private readonly usesTls: boolean;
  private ownsSchema = false;
  private isLocked = false;

  private constructor(dsn: Dsn, client: Client, usesTls: boolean) {
    this.dsn = dsn;
    this.client = client;
    this.usesTls = usesTls;
  }

  static async connect(dsn: Dsn): Promise<MeasuredServer> {
    const wanted = dsn.sslmode ?? 'prefer';
    const mayBePlain = wanted === 'disable' || wanted === 'allow' || wanted === 'prefer';
    const tryTls = wanted !== 'disable' && wanted !== 'allow' && !dsn.host.startsWith('/');
    if (tryTls) {
      try {
        return new MeasuredServer(dsn, await connectClient(dsn, true), true);
      } catch (error) {
        const lacksTls = error instanceof Error && /does not support SSL/.test(error.message);
        if (!mayBePlain || !lacksTls) throw explainConnect(dsn, error);
      }
    }
    try {
      return new MeasuredServer(dsn, await connectClient(dsn, false), false);
    } catch (error) {
      throw explainConnect(dsn, error);
    }
  }

  /** Without the password. */
  get description(): string {
    return describeDsn(this.dsn);
  }

  /** Where the generator's clients are to connect to, in the way that has just worked. */
  get target(): Target {
    const { host, port, user, password, database, options } = this.dsn;
    const timeoutSeconds = Number(options.get('connect_timeout') ?? 0);
    const startupOptions = options.get('options');
    return {
      host,
      port,
      user,
      password,
      database,
      parameters: [
        ['application_name', options.get('application_name') ?? 'postern wall'],
        ...(startupOptions === undefined ? [] : ([['options', startupOptions]] as const)),
      ],
      tls: this.usesTls ? tlsOptions(this.dsn) : undefined,
      connectTimeoutMs: timeoutSeconds > 0 ? timeoutSeconds * 1000 : CONNECT_TIMEOUT_MS,
    };
  }

  /** Makes the schema and the workload's tables in it. Gives the prefix that stands for `{schema}`. */
  async makeSchema(workload: Workload, signal: AbortSignal | undefined): Promise<string> {
    await this.lock();
    await this.dropSchema();
    this.ownsSchema = true;
    try {
      await this.client.query(
        `BEGIN; CREATE SCHEMA ${MEASURE_SCHEMA}; COMMENT ON SCHEMA ${MEASURE_SCHEMA} IS '${SCHEMA_COMMENT}'; COMMIT`,
      );
      for (const statement of workload.setup) {
        signal?.throwIfAborted();
        await this.client.query(withSchema(statement, `${MEASURE_SCHEMA}.`));
      }
    } catch (error) {
      signal?.throwIfAborted();
      throw explainSchema(this.dsn, error);
    }
    return `${MEASURE_SCHEMA}.`;
  }

  /**
   * Drops the schema if this object has made it, on a new connection if the old one has died, and ends. Never throws:
   * it gives what to tell the user when the schema could not be dropped.
   */
  async clean(): Promise<string | undefined> {
    try {
      if (!this.ownsSchema) return undefined;
      // The transaction of a failed makeSchema may be open still; without one this is only a warning.
      await this.client.query({ text: 'ROLLBACK', query_timeout: PROBE_TIMEOUT_MS } as QueryConfig).then(
        () => this.dropSchema(),
        () => this.dropSchemaAnew(),
      );
      return undefined;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      return `schema ${MEASURE_SCHEMA} could not be dropped (${reason}); the next measurement of this database drops it`;
    } finally {
      await this.end();
    }
  }

  private async dropSchemaAnew(): Promise<void> {
    await this.end();
    this.client = await connectClient(this.dsn, this.usesTls);
    this.isLocked = false;
    await this.lock();
    await this.dropSchema();
  }

  /** Rejects if another measurement of this database is running; from here on none can begin. */
  async lock(): Promise<void> {
    if (this.isLocked) return;
    const { locked } = await this.row('SELECT pg_try_advisory_lock($1) AS locked', [ADVISORY_LOCK_KEY]);
    if (locked !== true) {
      throw new MeasureError(`another measurement is running in database "${this.dsn.database}"`);
    }
    this.isLocked = true;
  }

  /** Only under the lock. Refuses a schema that somebody else has made. */
  private async dropSchema(): Promise<void> {
    const { rows } = await this.client.query(
      `SELECT obj_description(oid, 'pg_namespace') AS comment FROM pg_namespace WHERE nspname = $1`,
      [MEASURE_SCHEMA],
    );
    if (rows.length === 0) return;
    if (rows[0].comment !== SCHEMA_COMMENT) {
      throw new MeasureError(
        `there is a schema "${MEASURE_SCHEMA}" in database "${this.dsn.database}" that this program did not make: rename it, or measure in another database`,
      );
    }
    await this.client.query(`SET lock_timeout = ${LOCK_TIMEOUT_MS}`);
    await this.client.query(`DROP SCHEMA ${MEASURE_SCHEMA} CASCADE`);
  }

  /** How many more connections the server has for this user; undefined when it doesn't tell. */
  async freeConnections(): Promise<number | undefined> {
    try {
      const row = await this.row(
        `SELECT current_setting('max_connections')::int
              - CASE WHEN (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN 0
                     ELSE current_setting('superuser_reserved_connections')::int
                        + coalesce(current_setting('reserved_connections', true)::int, 0) END
              - (SELECT sum(numbackends)::int FROM pg_stat_database) AS free`,
      );
      return typeof row.free === 'number' ? Math.max(0, row.free) : undefined;
    } catch {
      return undefined;
    }
  }

  async facts(): Promise<ServerFacts> {
    const settings: Record<string, string> = {};
    const unread: string[] = [];
    const show = async (name: string): Promise<string | undefined> => {
      try {
        return String((await this.row(`SHOW ${name}`))[name]);
      } catch {
        unread.push(name);
        return undefined;
      }
    };
    const version = await show('server_version');
    for (const name of SETTINGS_READ) {
      const value = await show(name);
      if (value !== undefined) settings[name] = value;
    }
    let replicas: number | undefined;
    try {
      replicas = Number((await this.row('SELECT count(*) AS replicas FROM pg_stat_replication')).replicas);
    } catch {
      unread.push('pg_stat_replication');
    }
    return { version, settings, replicas, unread };
  }

  /** The process id of this object's own session; undefined where it can't be had (behind some poolers). */
  async backendPid(): Promise<number | undefined> {
    const { pid } = await this.row('SELECT pg_backend_pid() AS pid');
    return typeof pid === 'number' ? pid : undefined;
  }

  /** In bytes; what can't be read is undefined. `data`: the tables and indexes of the workload, if they are in its schema. */
  async sizes(): Promise<{ data: number | undefined; sharedBuffers: number | undefined }> {
    const bytes = async (text: string, values: unknown[] = []): Promise<number | undefined> => {
      try {
        const { bytes: value } = await this.row(text, values);
        return typeof value === 'number' ? value : undefined;
      } catch {
        return undefined;
      }
    };
    return {
      data: this.ownsSchema
        ? await bytes(
            `SELECT sum(pg_total_relation_size(oid))::float8 AS bytes FROM pg_class
             WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'm')`,
            [MEASURE_SCHEMA],
          )
        : undefined,
      sharedBuffers: await bytes(`SELECT pg_size_bytes(current_setting('shared_buffers'))::float8 AS bytes`),
    };
  }

  /** The postmaster's pid if the server runs on this machine and its processes can be seen. */
  async localPostmaster(): Promise<number | undefined> {
    if (!isThisMachine(this.dsn.host)) return undefined;
    return postmasterOf(Number((await this.row('SELECT pg_backend_pid() AS pid')).pid));
  }

  private async end(): Promise<void> {
    const { client } = this;
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<void>((resolve) => (timer = setTimeout(resolve, END_TIMEOUT_MS)));
    await Promise.race([client.end().catch(() => {}), timeout]);
    clearTimeout(timer);
  }

  private async row(text: string, values: unknown[] = []): Promise<Record<string, unknown>> {
    const { rows } = await this.client.query(text, values);
    const row: unknown = rows[0];
    assert(typeof row === 'object' && row !== null, 'a control query gave no row');
    return row as Record<string, unknown>;
  }
}

/** Whether the client shares the machine with the server, as far as the address tells. */
export function isThisMachine(host: string): boolean {
  return host.startsWith('/') || host === 'localhost' || host === '::1' || /^127\./.test(host);
}

async function connectClient(dsn: Dsn, tls: boolean): Promise<Client> {
  const { host, port, user, password, database, options } = dsn;
  const startupOptions = options.get('options');
  const config: ClientConfig = {
    host,
    port,
    user,
    database,
    // pg would look for a password of its own if this were undefined.
    password: password ?? '',
    ssl: tls ? nodeTls(tlsOptions(dsn)) : false,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    query_timeout: QUERY_TIMEOUT_MS,
    application_name: 'postern wall control',
    ...(startupOptions === undefined ? {} : { options: startupOptions }),
  };
  const client = new Client(config);
  // A server that goes away between two queries is noticed by the next query; without a listener it would end the process.
  client.on('error', () => {});
  await client.connect();
  return client;
}

function tlsOptions(dsn: Dsn): TlsOptions {
  const file = dsn.options.get('sslrootcert');
  const verify = dsn.sslmode === 'verify-full' ? 'full' : dsn.sslmode === 'verify-ca' ? 'ca' : 'none';
  if (file === undefined || file === 'system') return { verify, ca: undefined };
  try {
    return { verify, ca: readFileSync(file, 'utf8') };
  } catch {
    throw new MeasureError(`the file of root certificates "${file}" (sslrootcert) can't be read`);
  }
}

function nodeTls(tls: TlsOptions): NonNullable<ClientConfig['ssl']> {
  return {
    rejectUnauthorized: tls.verify !== 'none',
    ...(tls.verify === 'full' ? {} : { checkServerIdentity: () => undefined }),
    ...(tls.ca === undefined ? {} : { ca: tls.ca }),
  };
}

/** Errors of Node, of pg and of the server, in words that say what to do. */
function explainConnect(dsn: Dsn, error: unknown): MeasureError {
  if (error instanceof MeasureError) return error;
  const { code = '', message = String(error) } = error as { code?: string; message?: string };
  const where = describeDsn(dsn);
  const because = (text: string): MeasureError => new MeasureError(text, { cause: error });
  switch (code) {
    case 'ECONNREFUSED':
    case 'ENOENT':
      return because(`no server listens at ${where}: is it running, and are host and port right?`);
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return because(`the host name "${dsn.host}" can't be resolved`);
    case '28P01':
    case '28000':
      return because(`the server refused the login as ${where}: ${message}`);
    case '3D000':
      return because(`there is no database "${dsn.database}" on the server: ${message}`);
    default:
      return because(`can't connect to ${where}: ${message || code}`);
  }
}

function explainSchema(dsn: Dsn, error: unknown): MeasureError {
  const { code, message = String(error) } = error as { code?: string; message?: string };
  if (code === '42501') {
    return new MeasureError(
      `user "${dsn.user}" may not create a schema in database "${dsn.database}": GRANT CREATE ON DATABASE … TO it, or measure as another user`,
      { cause: error },
    );
  }
  if (code === '25006') {
    return new MeasureError(`the server takes no writes (a standby?): ${message}`, { cause: error });
  }
  return new MeasureError(`the schema of the measurement can't be made: ${message}`, { cause: error });
}

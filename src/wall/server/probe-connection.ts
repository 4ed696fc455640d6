/**
 * One connection beside the load, for what is read of the server while it works. It knows what its looking costs: the time
 * its queries took, and its backend's CPU where that process can be seen.
 *
 * Invariant: every query is bounded in time by the client and by the server; it reads, and changes nothing.
 */
import { readFileSync } from 'node:fs';
import { Client, type ClientConfig, type QueryConfig } from 'pg';
import { assert } from '../../base/assert.ts';
import type { Target } from '../load/generator-messages.ts';

const QUERY_TIMEOUT_MS = 10_000;
const END_TIMEOUT_MS = 2_000;
const PROBE_APPLICATION_NAME = 'postern wall probe';

export interface ProbeCost {
  readonly queries: number;
  /** From the asking to the answer, summed: an upper bound of what the server spent. */
  readonly milliseconds: number;
  /** Of the backend; undefined where its process can't be seen. */
  readonly cpuSeconds: number | undefined;
}

export class ProbeConnection {
  readonly backendPid: number;
  private readonly client: Client;
  private queries = 0;
  private milliseconds = 0;

  private constructor(client: Client, backendPid: number) {
    this.client = client;
    this.backendPid = backendPid;
  }

  static async open(target: Target): Promise<ProbeConnection> {
    const client = new Client(clientConfig(target));
    // A server that goes away is noticed by the next query; without a listener it would end the process.
    client.on('error', () => {});
    await client.connect();
    const { rows } = await client.query('SELECT pg_backend_pid() AS pid');
    return new ProbeConnection(client, Number(rows[0]?.pid));
  }

  /** With a name, the statement is prepared once. */
  async rows(
    text: string,
    values: readonly unknown[] = [],
    name?: string,
  ): Promise<Record<string, unknown>[]> {
    const askedAt = performance.now();
    const config: QueryConfig = { text, values: [...values], ...(name === undefined ? {} : { name }) };
    const { rows } = await this.client.query(config);
    this.queries++;
    this.milliseconds += performance.now() - askedAt;
    return rows as Record<string, unknown>[];
  }

  async row(text: string, values: readonly unknown[] = [], name?: string): Promise<Record<string, unknown>> {
    const [row] = await this.rows(text, values, name);
    assert(row !== undefined, 'a probe gave no row');
    return row;
  }

  /** The columns of a system view; empty if there is no such view. */
  async columnsOf(view: string): Promise<ReadonlySet<string>> {
    const rows = await this.rows(
      `SELECT attname::text AS name FROM pg_catalog.pg_attribute
       WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped`,
      [`pg_catalog.${view}`],
    );
    return new Set(rows.map(({ name }) => String(name)));
  }

  /** A setting as SHOW prints it; undefined if it doesn't exist or isn't told. */
  async setting(name: string): Promise<string | undefined> {
    try {
      const { value } = await this.row('SELECT current_setting($1, true) AS value', [name]);
      return typeof value === 'string' ? value : undefined;
    } catch {
      return undefined;
    }
  }

  cost(): ProbeCost {
    return {
      queries: this.queries,
      milliseconds: this.milliseconds,
      cpuSeconds: scheduledSeconds(this.backendPid),
    };
  }

  async end(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<void>((resolve) => (timer = setTimeout(resolve, END_TIMEOUT_MS)));
    await Promise.race([this.client.end().catch(() => {}), timeout]);
    clearTimeout(timer);
  }
}

function clientConfig(target: Target): ClientConfig {
  const { host, port, user, password, database, parameters, tls, connectTimeoutMs } = target;
  const options = parameters.find(([name]) => name === 'options')?.[1];
  return {
    ...{ host, port, user, database },
    // pg would look for a password of its own if this were undefined.
    password: password ?? '',
    ssl:
      tls === undefined
        ? false
        : {
            rejectUnauthorized: tls.verify !== 'none',
            ...(tls.verify === 'full' ? {} : { checkServerIdentity: () => undefined }),
            ...(tls.ca === undefined ? {} : { ca: tls.ca }),
          },
    connectionTimeoutMillis: connectTimeoutMs,
    query_timeout: QUERY_TIMEOUT_MS,
    application_name: PROBE_APPLICATION_NAME,
    ...(options === undefined ? {} : { options }),
  };
}

/** Only of a process of this machine that is a PostgreSQL: the same number may be anybody's here. */
function scheduledSeconds(pid: number): number | undefined {
  try {
    if (!readFileSync(`/proc/${pid}/comm`, 'latin1').startsWith('postgres')) return undefined;
    return Number(readFileSync(`/proc/${pid}/schedstat`, 'latin1').split(' ', 1)[0]) / 1e9;
  } catch {
    return undefined;
  }
}

/**
 * The clients that people use, each logging in once as it is asked: psql, npm pg, Postgres.js, JDBC and psycopg. JDBC and psycopg
 * run in one process of their own each, which answers line by line.
 */
import { type ChildProcessWithoutNullStreams, execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import pg from 'pg';
import postgres from 'postgres';

export interface LoginRequest {
  readonly port: number;
  readonly user: string;
  readonly password?: string;
  /** Default: localhost, which test certificates name. */
  readonly host?: string;
  readonly sslmode?: 'disable' | 'require' | 'verify-full';
  /** Files; with verify-full the root has to be there. */
  readonly sslrootcert?: string;
  readonly sslcert?: string;
  readonly sslkey?: string;
}

export type LoginOutcome =
  | { readonly ok: true; readonly user: string }
  /** `sqlState` where the client tells it. */
  | { readonly ok: false; readonly sqlState: string | undefined; readonly message: string };

export interface LoginClient {
  readonly name: string;
  /** Why this machine can't have it. */
  readonly missing: string | undefined;
  login(request: LoginRequest): Promise<LoginOutcome>;
  stop(): Promise<void>;
}

const DATABASE = 'app';
const TIMEOUT_S = 20;
const PSQL = '/usr/lib/postgresql/15/bin/psql';
const JDBC = '/usr/share/java/postgresql.jar';
const PYTHON = '/usr/bin/python3';
const PROBES = join(import.meta.dirname, 'probes');

export function loginClients(): readonly LoginClient[] {
  return [psql(), nodePostgres(), postgresJs(), new Jdbc(), new Psycopg()];
}

function failed(error: unknown): LoginOutcome {
  const { code, message } = error as { code?: string; message?: string };
  return { ok: false, sqlState: code, message: message ?? String(error) };
}

/** libpq's parameters. No file of the home directory is taken in the place of one that is not named. */
function libpqParameters(request: LoginRequest): Record<string, string> {
  return {
    host: request.host ?? 'localhost',
    port: String(request.port),
    user: request.user,
    dbname: DATABASE,
    connect_timeout: String(TIMEOUT_S),
    sslmode: request.sslmode ?? 'disable',
    sslcert: request.sslcert ?? '/nonexistent',
    sslkey: request.sslkey ?? '/nonexistent',
    sslrootcert: request.sslrootcert ?? '/nonexistent',
    passfile: '/nonexistent',
    ...(request.password !== undefined && { password: request.password }),
  };
}

function psql(): LoginClient {
  return {
    name: 'psql',
    missing: existsSync(PSQL) ? undefined : 'psql 15 is not installed',
    stop: async () => {},
    login: (request) =>
      new Promise((resolve) => {
        const { password, ...parameters } = libpqParameters(request);
        const dsn = Object.entries(parameters).map(([name, value]) => `${name}='${value}'`);
        const child = execFile(
          PSQL,
          ['-XAtqw', '-d', dsn.join(' '), '-c', 'SELECT session_user'],
          { env: { PGPASSWORD: password ?? '' }, timeout: TIMEOUT_S * 1_000 },
          (error, stdout, stderr) => {
            const state = undefined;
            resolve(
              error
                ? { ok: false, sqlState: state, message: stderr || error.message }
                : { ok: true, user: stdout.trim() },
            );
          },
        );
        child.stdin?.end();
      }),
  };
}

/** For drivers on Node's TLS. */
function nodeTls(request: LoginRequest): Record<string, unknown> | false {
  if ((request.sslmode ?? 'disable') === 'disable') return false;
  const read = (file: string | undefined) => (file === undefined ? undefined : readFileSync(file, 'utf8'));
  return {
    rejectUnauthorized: request.sslmode === 'verify-full',
    ca: read(request.sslrootcert),
    cert: read(request.sslcert),
    key: read(request.sslkey),
  };
}

function nodePostgres(): LoginClient {
  return {
    name: 'pg',
    missing: undefined,
    stop: async () => {},
    async login(request) {
      const client = new pg.Client({
        host: request.host ?? 'localhost',
        port: request.port,
        user: request.user,
        // Without one, pg would look for a file of passwords.
        password: request.password ?? '',
        database: DATABASE,
        ssl: nodeTls(request),
        connectionTimeoutMillis: TIMEOUT_S * 1_000,
      });
      client.on('error', () => {});
      try {
        await client.connect();
        const { rows } = await client.query('SELECT session_user::text AS name WHERE $1 = 1', [1]);
        await client.end();
        return { ok: true, user: rows[0].name };
      } catch (error) {
        // Its end() waits for ever where the handshake of TLS was broken off.
        const { connection } = client as unknown as { connection?: { stream?: { destroy(): void } } };
        connection?.stream?.destroy();
        return failed(error);
      }
    },
  };
}

function postgresJs(): LoginClient {
  return {
    name: 'Postgres.js',
    missing: undefined,
    stop: async () => {},
    async login(request) {
      const sql = postgres({
        host: request.host ?? 'localhost',
        port: request.port,
        user: request.user,
        ...(request.password !== undefined && { password: request.password }),
        database: DATABASE,
        ssl: nodeTls(request),
        connect_timeout: TIMEOUT_S,
        max: 1,
        onnotice: () => {},
      });
      try {
        const [row] = await sql`SELECT session_user::text AS name WHERE ${1} = 1`;
        return { ok: true, user: row!.name };
      } catch (error) {
        return failed(error);
      } finally {
        await sql.end({ timeout: 0 });
      }
    },
  };
}

/** A process that answers each line with one. */
class LineProcess {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: Interface;
  #last: Promise<unknown> = Promise.resolve();

  constructor(command: string, parameters: readonly string[]) {
    this.#child = spawn(command, parameters, { env: { PATH: process.env.PATH ?? '', HOME: '/nonexistent' } });
    this.#child.stderr.pipe(process.stderr);
    this.#lines = createInterface({ input: this.#child.stdout });
  }

  ask(line: string): Promise<string> {
    const answer = this.#last.then(async () => {
      const received = once(this.#lines, 'line', { signal: AbortSignal.timeout(2 * TIMEOUT_S * 1_000) });
      this.#child.stdin.write(`${line}\n`);
      return String((await received)[0]);
    });
    this.#last = answer.catch(() => {});
    return answer;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.stdin.end();
    await exited;
  }
}

class Psycopg implements LoginClient {
  readonly name = 'psycopg';
  readonly missing = hasPsycopg() ? undefined : 'python3-psycopg2 is not installed';
  #process: LineProcess | undefined;

  async login(request: LoginRequest): Promise<LoginOutcome> {
    this.#process ??= new LineProcess(PYTHON, [join(PROBES, 'probe.py')]);
    const answer = JSON.parse(await this.#process.ask(JSON.stringify(libpqParameters(request))));
    return answer.ok ? answer : { ...answer, sqlState: answer.sqlState ?? undefined };
  }

  async stop(): Promise<void> {
    await this.#process?.stop();
  }
}

function hasPsycopg(): boolean {
  try {
    execFileSync(PYTHON, ['-c', 'import psycopg2'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

function hasJava(): boolean {
  try {
    execFileSync('javac', ['-version'], { stdio: 'ignore' });
    return existsSync(JDBC);
  } catch {
    return false;
  }
}

class Jdbc implements LoginClient {
  readonly name = 'JDBC';
  readonly missing = hasJava() ? undefined : 'libpostgresql-jdbc-java or a JDK is not installed';
  #directory: string | undefined;
  #process: LineProcess | undefined;

  async login(request: LoginRequest): Promise<LoginOutcome> {
    const directory = this.#compiled();
    this.#process ??= new LineProcess('java', [
      '-Xshare:auto',
      '-XX:TieredStopAtLevel=1',
      '-cp',
      `${JDBC}:${directory}`,
      'Probe',
    ]);
    const { host, port, sslmode, sslrootcert, sslcert, sslkey } = { host: 'localhost', ...request };
    const properties: Record<string, string> = {
      url: `jdbc:postgresql://${host}:${port}/${DATABASE}`,
      user: request.user,
      password: request.password ?? '',
      sslmode: sslmode ?? 'disable',
      loginTimeout: String(TIMEOUT_S),
      ...(sslrootcert !== undefined && { sslrootcert }),
      ...(sslcert !== undefined && { sslcert }),
      ...(sslkey !== undefined && { sslkey: this.#asPkcs8(sslkey) }),
    };
    const line = Object.entries(properties).flat().join('\0');
    const answer = await this.#process.ask(Buffer.from(line).toString('base64'));
    const [outcome, first, message] = Buffer.from(answer, 'base64').toString().split('\0');
    if (outcome === 'ok') return { ok: true, user: first! };
    return { ok: false, sqlState: first === 'null' ? undefined : first, message: message ?? '' };
  }

  async stop(): Promise<void> {
    await this.#process?.stop();
    if (this.#directory) rmSync(this.#directory, { recursive: true, force: true });
  }

  #compiled(): string {
    if (!this.#directory) {
      this.#directory = mkdtempSync(join(tmpdir(), 'postern-jdbc-'));
      execFileSync('javac', ['-d', this.#directory, join(PROBES, 'Probe.java')]);
    }
    return this.#directory;
  }

  /** The only form in which this driver takes a key in a file. */
  #asPkcs8(keyFile: string): string {
    const file = join(this.#directory!, `${Buffer.from(keyFile).toString('hex').slice(-40)}.pk8`);
    execFileSync('openssl', ['pkcs8', '-topk8', '-nocrypt', '-outform', 'DER', '-in', keyFile, '-out', file]);
    return file;
  }
}

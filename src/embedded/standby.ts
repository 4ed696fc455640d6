/**
 * A streaming standby of an embedded server, of the same installation: a base backup by file copy, a replication slot, and
 * a start in recovery. The npm packages of PostgreSQL hold no pg_basebackup, and the data are on this machine anyway.
 *
 *   slot at the upstream → pg_backup_start → copy → pg_backup_stop → backup_label, standby.signal → start
 *
 * Invariant: the slot is there before the backup begins, so the WAL that the copy needs is kept until it is streamed. A
 * standby that goes away for good leaves its slot behind, and the upstream keeps WAL for it: drop the slot, or the server.
 * Source: PostgreSQL, "Making a Base Backup Using the Low Level API" and "Standby Server Operation".
 */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import pg from 'pg';
import { EmbeddedServer, type StartOptions } from './server.ts';

const CONNECT_TIMEOUT_MS = 10_000;
const BACKUP_TIMEOUT_MS = 120_000;

/** Directories whose contents belong to the run of the source, and are made anew by the standby. */
const LEFT_EMPTY = new Set(
  'pg_wal pg_replslot pg_dynshmem pg_notify pg_serial pg_snapshots pg_stat_tmp pg_subtrans'.split(' '),
);
const LEFT_OUT = new Set(['postmaster.pid', 'postmaster.opts', 'standby.signal', 'backup_label.old']);

export interface StandbyOptions extends Omit<StartOptions, 'settings'> {
  /** The server on this machine that is copied; its superuser is `postgres`. */
  readonly primary: {
    readonly dataDirectory: string;
    readonly port: number;
    readonly password?: string | undefined;
  };
  /** The port on 127.0.0.1 to stream from: another standby, or what forwards to the primary. Default: the primary's. */
  readonly upstreamPort?: number;
  /** Its application_name at the upstream, for synchronous_standby_names, and its slot's name: letters, digits, _. */
  readonly name: string;
  /** What the primary has for max_connections, max_prepared_transactions and their like must be here too. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** Gives the standby when it accepts reading connections. Its data directory must not exist. */
export async function startStandby(options: StandbyOptions): Promise<EmbeddedServer> {
  const { primary, name, dataDirectory, account } = options;
  const upstreamPort = options.upstreamPort ?? primary.port;
  await withClient(upstreamPort, primary.password, (client) =>
    client.query('SELECT pg_create_physical_replication_slot($1, true)', [name]),
  );
  await withClient(primary.port, primary.password, async (client) => {
    await client.query('SELECT pg_backup_start($1, true)', [name]);
    await copyData(primary.dataDirectory, dataDirectory);
    const { rows } = await client.query('SELECT labelfile FROM pg_backup_stop(false)');
    await fs.writeFile(path.join(dataDirectory, 'backup_label'), String(rows[0]?.labelfile), { mode: 0o600 });
  });
  await fs.writeFile(path.join(dataDirectory, 'standby.signal'), '', { mode: 0o600 });
  if (account !== undefined) await chownTree(dataDirectory, account.uid, account.gid);
  const conninfo = Object.entries({
    host: '127.0.0.1',
    port: String(upstreamPort),
    user: 'postgres',
    application_name: name,
    ...(primary.password === undefined ? {} : { password: primary.password }),
  }).map(([key, value]) => `${key}='${value.replaceAll(/(['\\])/g, '\\$1')}'`);
  return EmbeddedServer.start({
    ...options,
    settings: {
      hot_standby: 'on',
      // The default of five seconds is long for servers that are stopped and started for a measurement.
      wal_retrieve_retry_interval: '500ms',
      ...options.settings,
      primary_conninfo: conninfo.join(' '),
      primary_slot_name: name,
    },
  });
}

async function withClient<T>(
  port: number,
  password: string | undefined,
  act: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = new pg.Client({
    host: '127.0.0.1',
    port,
    user: 'postgres',
    database: 'postgres',
    password: password ?? '',
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    query_timeout: BACKUP_TIMEOUT_MS,
  });
  // A server that goes away is noticed by the next query.
  client.on('error', () => {});
  await client.connect();
  try {
    return await act(client);
  } finally {
    await client.end();
  }
}

/** Files may vanish or change while they are copied: the WAL since the backup's start makes up for that. */
async function copyData(from: string, to: string): Promise<void> {
  await fs.mkdir(to, { mode: 0o700 });
  for (const entry of await fs.readdir(from, { withFileTypes: true })) {
    if (LEFT_OUT.has(entry.name)) continue;
    if (LEFT_EMPTY.has(entry.name)) await fs.mkdir(path.join(to, entry.name), { mode: 0o700 });
    else await copyEntry(path.join(from, entry.name), path.join(to, entry.name), entry.isDirectory());
  }
}

async function copyEntry(from: string, to: string, isDirectory: boolean): Promise<void> {
  try {
    if (!isDirectory) {
      await fs.copyFile(from, to);
      return;
    }
    await fs.mkdir(to, { mode: 0o700 });
    for (const entry of await fs.readdir(from, { withFileTypes: true })) {
      if (entry.name.startsWith('pgsql_tmp')) continue;
      await copyEntry(path.join(from, entry.name), path.join(to, entry.name), entry.isDirectory());
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

async function chownTree(directory: string, uid: number, gid: number): Promise<void> {
  await fs.chown(directory, uid, gid);
  for (const entry of await fs.readdir(directory, { withFileTypes: true })) {
    const each = path.join(directory, entry.name);
    if (entry.isDirectory()) await chownTree(each, uid, gid);
    else await fs.chown(each, uid, gid);
  }
}

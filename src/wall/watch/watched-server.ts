/**
 * One look at a live server: which of its sessions write, how old their statements are and what they wait for, how far its
 * standbys are behind, how busy its processors are. Three short queries over one connection, and some files of /proc or one
 * request to a node_exporter. It changes nothing.
 */
import type { Dsn } from '../../pg/dsn.ts';
import { MeasuredServer, MeasureError } from '../server/measured-server.ts';
import { NodeExporter } from '../server/node-exporter.ts';
import { ProbeConnection, type ProbeCost } from '../server/probe-connection.ts';
import { readReplication, type Standby } from '../server/replication.ts';
import { LocalSystem, type SystemProbe, type SystemSample, systemUse } from '../server/system.ts';
import type { StandbyLag, WatchSample } from './symptoms.ts';

/** A transaction has an id of its own once it has written; with its commit it is gone. */
const WRITERS = `SELECT lower(wait_event_type || ':' || wait_event) AS wait,
  (extract(epoch FROM clock_timestamp() - query_start) * 1000)::float8 AS age_ms
FROM pg_catalog.pg_stat_activity
WHERE backend_type = 'client backend' AND state = 'active' AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()`;

/** Ids are handed out to transactions that write, and to savepoints within them. */
const NEXT_XID = 'SELECT pg_snapshot_xmax(pg_current_snapshot())::text AS next';

const WAL_WAITS = new Set(['lwlock:walwrite', 'io:walwrite', 'io:walsync', 'ipc:syncrep', 'lwlock:syncrep']);

export class WatchedServer {
  /** What can't be seen here, and what would change that. */
  readonly unread: readonly string[];
  readonly description: string;
  private readonly connection: ProbeConnection;
  private readonly system: SystemProbe | undefined;
  private readonly seesAllSessions: boolean;
  private lastSystem: SystemSample | undefined;
  private lastXid: { readonly next: bigint; readonly atMs: number } | undefined;

  private constructor(options: {
    connection: ProbeConnection;
    system: SystemProbe | undefined;
    description: string;
    unread: readonly string[];
    seesAllSessions: boolean;
  }) {
    this.connection = options.connection;
    this.system = options.system;
    this.description = options.description;
    this.unread = options.unread;
    this.seesAllSessions = options.seesAllSessions;
  }

  /** Rejects with MeasureError: unreachable, or no primary. */
  static async open(dsn: Dsn, nodeExporterUrl: string | undefined): Promise<WatchedServer> {
    const server = await MeasuredServer.connect(dsn);
    let postmasterPid: number | undefined;
    try {
      postmasterPid = await server.localPostmaster();
    } finally {
      await server.clean();
    }
    const connection = await ProbeConnection.open(server.target);
    try {
      const { recovering, sees } = await connection.row(
        `SELECT pg_is_in_recovery() AS recovering, pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees`,
      );
      if (recovering === true)
        throw new MeasureError(`${server.description} is a standby: watch its primary`);
      const system = await systemOf(connection, postmasterPid, nodeExporterUrl);
      return new WatchedServer({
        ...{ connection, system, description: server.description, seesAllSessions: sees === true },
        unread: [
          ...(sees === true ? [] : ['other roles’ sessions (GRANT pg_monitor shows them)']),
          ...(system === undefined ? ['the processors of the server (--node-exporter URL shows them)'] : []),
        ],
      });
    } catch (error) {
      await connection.end();
      throw error;
    }
  }

  /** The first look has no rates yet. */
  async look(): Promise<WatchSample> {
    const atMs = performance.now();
    const writers = await this.connection.rows(WRITERS, [], 'postern_writers');
    const writesPerSecond = await this.writesSince(atMs);
    const { standbys } = await readReplication(this.connection);
    return {
      atMs,
      cpuShare: await this.cpuShare(),
      writesPerSecond,
      writeAgesMs: writers.map(({ age_ms }) => Math.max(0, Number(age_ms))),
      walWaiters: writers.filter(({ wait }) => typeof wait === 'string' && WAL_WAITS.has(wait)).length,
      standbys: standbys.flatMap(lagOf),
      seesAllSessions: this.seesAllSessions,
    };
  }

  cost(): ProbeCost {
    return this.connection.cost();
  }

  close(): Promise<void> {
    return this.connection.end();
  }

  private async writesSince(atMs: number): Promise<number | undefined> {
    const next = BigInt(String((await this.connection.row(NEXT_XID, [], 'postern_next_xid')).next));
    const last = this.lastXid;
    this.lastXid = { next, atMs };
    return last === undefined ? undefined : Number(next - last.next) / ((atMs - last.atMs) / 1000);
  }

  /** Of what the server may use: its control group's limit, or all cores but for what the hypervisor takes. */
  private async cpuShare(): Promise<number | undefined> {
    if (this.system === undefined) return undefined;
    const sample = await this.system.sample();
    const use = this.lastSystem === undefined ? undefined : systemUse(this.lastSystem, sample);
    this.lastSystem = sample;
    if (use === undefined) return undefined;
    if (use.coreLimit !== undefined && use.serverCores !== undefined) {
      return Math.min(1, use.serverCores / use.coreLimit);
    }
    return Math.min(1, use.busyCores / Math.max(0.01, use.cores - use.stealCores));
  }
}

async function systemOf(
  connection: ProbeConnection,
  postmasterPid: number | undefined,
  nodeExporterUrl: string | undefined,
): Promise<SystemProbe | undefined> {
  if (nodeExporterUrl !== undefined) return NodeExporter.open(nodeExporterUrl);
  if (postmasterPid === undefined) return undefined;
  return new LocalSystem({ postmasterPid, dataDirectory: await connection.setting('data_directory') });
}

/** Written but not flushed counts as flushing; a standby whose positions aren't told is left out. */
function lagOf(standby: Standby): StandbyLag[] {
  const { name, unsentBytes, unwrittenBytes, unflushedBytes, unreplayedBytes } = standby;
  if (unsentBytes === null || unreplayedBytes === null) return [];
  return [
    {
      name,
      // What is on its way counts as sending: the link, or the receiver, holds it up.
      sendBytes: unsentBytes + (unwrittenBytes ?? 0),
      flushBytes: unflushedBytes ?? 0,
      replayBytes: unreplayedBytes,
    },
  ];
}

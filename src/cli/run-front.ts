/** Front mode: a router without a catalog, before one server, with nothing but its role's own rights. */
import { notSupported } from '../base/errors.ts';
import { buildMap } from '../catalog/map.ts';
import type { RouterLog } from '../execute/context.ts';
import { describeDsn, parseDsn } from '../pg/dsn.ts';
import { ControlConnection } from '../platform/control-connection.ts';
import { loadParser } from '../sql/parser.ts';
import { CONTROL_LIMITS, startTransactions } from '../txn/transactions.ts';
import { missingTablesQuery, switchesQuery } from './coalesce-tables.ts';
import type { FrontOptions } from './front.ts';
import { HomeControl, type Router, serveClients } from './router.ts';
import { runServing } from './serving.ts';
import { workerPlace } from './worker-side.ts';

const NODE = { id: 1, name: 'primary' };

/** The exit status: 0 after a signal, 1 when it can't start. */
export function runFront(dsnText: string, options: FrontOptions): Promise<number> {
  return runServing({
    workers: options.workers,
    listen: { host: options.host, port: options.port },
    connections: options.connections,
    merges: options.coalesce,
    announce: (port) =>
      `listening on ${options.host}:${port}, before ${describeDsn(parseDsn(dsnText, process.env))}`,
    start: async ({ logger, first }) => {
      const router = await startFront(dsnText, options, logger);
      if (first && parseDsn(dsnText, process.env).password === undefined)
        logger.warn('the DSN has no password: every client that names its role is let in without one');
      return router;
    },
  });
}

export async function startFront(dsnText: string, options: FrontOptions, log: RouterLog): Promise<Router> {
  await loadParser();
  const dsn = parseDsn(dsnText, process.env);
  const control = new HomeControl(() => ControlConnection.open({ nodeName: NODE.name, dsn: dsnText }));
  const [[version, encoding, recovering] = []] = await control.rows(
    `SELECT current_setting('server_version_num')::int / 10000, pg_catalog.getdatabaseencoding(), pg_catalog.pg_is_in_recovery()`,
  );
  if (Number(version) < 14)
    throw notSupported(`the server is PostgreSQL ${version}`, 'Postern works with PostgreSQL 14 to 18.');
  if (encoding !== 'UTF8')
    throw notSupported(`the database has encoding ${encoding}`, 'Postern works with UTF8 databases.');
  if (recovering === 'true') throw notSupported('the server is a standby', 'Name the primary.');
  const tables = options.coalesceTable ?? [];
  if (tables.length > 0 && (workerPlace()?.index ?? 0) === 0) {
    for (const [name] of await control.rows(missingTablesQuery(tables)))
      log.warn(`no table is named ${name} yet; the option for it holds from when there is one`);
  }
  const map = buildMap({ epoch: 0, nodes: [NODE], homeNodeId: NODE.id, tables: [], references: [] });
  // With one node there is nothing to prepare, and so nothing to recover.
  const transactions = startTransactions({
    clusterId: 'front',
    tokenKey: Buffer.alloc(0),
    nodes: [NODE],
    homeNodeId: NODE.id,
    connect: () => ControlConnection.open({ nodeName: NODE.name, dsn: dsnText, ...CONTROL_LIMITS }),
    log,
    recovers: false,
    now: () => performance.now(),
  });
  return serveClients({
    listen: { host: options.host, port: options.port },
    database: dsn.database,
    users: [{ name: dsn.user, password: dsn.password }],
    connectionsPerNode: options.connections,
    coalesce: options.coalesce,
    coalescingSwitches: switchesQuery(tables),
    log,
    nodes: [{ node: NODE, dsn: dsnText }],
    catalog: { current: map, refresh: async () => map },
    onNewMap: () => {},
    ids: {
      next: () => undefined,
      take: async () => {
        throw notSupported('front mode supplies no ids', 'Use postern serve.');
      },
    },
    control,
    transactions: transactions.coordinator,
    runCommand: async ({ kind }) => {
      if (kind === 'setCoalescing' || kind === 'createCoalescing') {
        throw notSupported(
          'front mode keeps nothing on the server, so no option of a table either',
          'Start "postern front" with --no-coalesce-table or --coalesce-table and the name of the table.',
        );
      }
      throw notSupported(
        'front mode has no sharded tables',
        'Use "postern serve" with a configuration that names the nodes.',
      );
    },
    onClose: () => transactions.stop(),
  });
}

/** Front mode: a router without a catalog, before one server, with nothing but its role's own rights. */
import { createHash } from 'node:crypto';
import { notSupported } from '../base/errors.ts';
import { buildMap } from '../catalog/map.ts';
import type { Log } from '../observe/log.ts';
import { formatDsn, parseDsn } from '../pg/dsn.ts';
import type { ClientTlsOptions } from '../platform/client-tls.ts';
import { ControlConnection } from '../platform/control-connection.ts';
import { loadParser } from '../sql/parser.ts';
import { CONTROL_LIMITS, startTransactions } from '../txn/transactions.ts';
import { missingTablesQuery, switchesQuery } from './coalesce-tables.ts';
import type { ConfigPlace } from './config-secrets.ts';
import { tlsOptions, withTlsSpelledOut } from './config-tls.ts';
import type { FrontOptions } from './front.ts';
import { HomeControl } from './home-control.ts';
import { type Router, serveClients } from './router.ts';
import { ROUTER_ID_VARIABLE, workerPlace } from './worker-side.ts';

const NODE = { id: 1, name: 'primary' };

export async function startFront(given: string, options: FrontOptions, log: Log): Promise<Router> {
  await loadParser();
  const place = { directory: process.cwd(), environment: process.env };
  // With all that libpq's variables say, and absolute names of files: nothing below reads the environment again.
  const dsn = withTlsSpelledOut(parseDsn(given, process.env), NODE.name, place);
  const dsnText = formatDsn(dsn);
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
    authentication: { fromNodes: options.passThrough, authQuery: options.authQuery },
    // Nothing is kept from one start to the next; all processes of this one have the same.
    secret: createHash('sha256').update(`${process.env[ROUTER_ID_VARIABLE]} ${dsnText}`).digest(),
    tls: tlsOf(options, place),
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

function tlsOf(options: FrontOptions, place: ConfigPlace): ClientTlsOptions | undefined {
  const { tlsCert, tlsKey, tlsClientCa } = options;
  if (tlsCert === undefined || tlsKey === undefined) return undefined;
  return tlsOptions({ certificate_file: tlsCert, key_file: tlsKey, client_ca_file: tlsClientCa }, place);
}

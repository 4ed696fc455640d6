/** postern.yaml: one file, one schema, parsed once, frozen, passed in. Secrets come from files or the environment. */
import { accessSync, constants, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { parse, YAMLParseError } from 'yaml';
import { z } from 'zod';
import { invalidParameter, PosternError } from '../base/errors.ts';
import { type Dsn, formatDsn, parseDsn } from '../pg/dsn.ts';
import { TLS_FILE_PARAMETERS } from '../pg/dsn-tls.ts';
import { authOptions, authShape } from './config-auth.ts';
import { bypassOptions, bypassSchema } from './config-bypass.ts';
import { drainOptions, drainSchema } from './config-drain.ts';
import { healthOptions, healthSchema } from './config-health.ts';
import { httpSchema, routerSchema } from './config-http.ts';
import { limitsOptions, limitsSchema, timeoutsOptions, timeoutsSchema } from './config-limits.ts';
import { logOptions, logSchema } from './config-log.ts';
import { type ConfigPlace, readSecret } from './config-secrets.ts';
import { tlsOptions, tlsSchema, withTlsSpelledOut } from './config-tls.ts';
import type { RouterOptions } from './router-options.ts';
import { WORKERS_MAX } from './worker-count.ts';

const name = z.string().min(1).max(63);

const nodeSchema = z.strictObject({
  name,
  /** Without a password here: password_file, password_env, or PGPASSWORD. */
  dsn: z.string().min(1),
  password_file: z.string().optional(),
  password_env: z.string().optional(),
  /** How the servers of the other nodes reach it. Default: as the dsn says. */
  mesh: z.strictObject({ host: z.string().min(1), port: z.number().int().min(1).max(65535) }).optional(),
});

const schema = z
  .strictObject({
    listen: z
      .strictObject({
        host: z.string().default('127.0.0.1'),
        port: z.number().int().min(0).max(65535).default(6432),
      })
      .default({ host: '127.0.0.1', port: 6432 }),
    /** Where /metrics, /healthz and /readyz are. Default: nowhere. */
    http: httpSchema,
    /** An earlier name of http. */
    metrics: httpSchema,
    router: routerSchema,
    database: name,
    /** The node of the catalog and of tables without a door. Default: the first. */
    home: name.optional(),
    nodes: z.array(nodeSchema).min(1).max(512),
    ...authShape,
    connections_per_node: z.number().int().min(2).max(1000).optional(),
    /** Merge the commits of writes that arrive together. */
    coalesce: z.boolean().optional(),
    /** Processes that share the port. Default: one for four cores. */
    workers: z.number().int().min(1).max(WORKERS_MAX).optional(),
    health: healthSchema,
    bypass: bypassSchema,
    log: logSchema,
    limits: limitsSchema,
    timeouts: timeoutsSchema,
    drain: drainSchema,
    tls: tlsSchema,
  })
  .refine((config) => new Set(config.nodes.map((node) => node.name)).size === config.nodes.length, {
    message: 'two nodes have the same name',
    path: ['nodes'],
  })
  .refine((config) => config.http === undefined || config.metrics === undefined, {
    message: 'http and metrics are the same: give one of them',
    path: ['metrics'],
  });

/** Throws a PosternError (22023) that names the file and the place in it. */
export function readConfig(path: string, environment: NodeJS.ProcessEnv): Readonly<RouterOptions> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw invalidParameter(
      `cannot read ${path}: ${(error as NodeJS.ErrnoException).code === 'ENOENT' ? 'there is no such file' : (error as Error).message}`,
      'Name the configuration with -c FILE. docs/reference/configuration.md has an example.',
    );
  }
  let raw: unknown;
  try {
    raw = parse(text);
  } catch (error) {
    const line = error instanceof YAMLParseError ? error.linePos?.[0]?.line : undefined;
    throw invalidParameter(`${path}${line === undefined ? '' : `, line ${line}`}: not valid YAML`);
  }
  const parsed = schema.safeParse(raw);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const where = issue && issue.path.length > 0 ? `${issue.path.join('.')}: ` : '';
    throw invalidParameter(
      `${path}: ${where}${issue?.message ?? 'not a valid configuration'}`,
      'docs/reference/configuration.md lists what a configuration may hold.',
    );
  }
  const config = parsed.data;
  const place = { directory: dirname(path), environment };
  return Object.freeze({
    listen: config.listen,
    http: config.http ?? config.metrics,
    name: config.router?.name,
    database: config.database,
    home: config.home ?? config.nodes[0]!.name,
    nodes: config.nodes.map((node) => ({
      name: node.name,
      dsn: spelledOut(node, readSecret(place, `node "${node.name}"`, node), place),
      mesh: node.mesh,
    })),
    ...authOptions(config, place),
    connectionsPerNode: config.connections_per_node,
    coalesce: config.coalesce,
    workers: config.workers,
    health: healthOptions(config.health),
    bypass: bypassOptions(config.bypass),
    logging: logOptions(config.log),
    limits: limitsOptions(config.limits),
    timeouts: timeoutsOptions(config.timeouts),
    drain: drainOptions(config.drain),
    tls: tlsOptions(config.tls, place),
  });
}

/** The DSN with everything spelled out, so that nothing below reads the environment again. */
function spelledOut(
  node: { readonly name: string; readonly dsn: string },
  password: string | undefined,
  place: ConfigPlace,
): string {
  const given = readDsn(node, place);
  const dsn = withTlsSpelledOut({ ...given, password: password ?? given.password }, node.name, place);
  // A file that is not there is told now: later it would look like a server that is away.
  for (const parameter of TLS_FILE_PARAMETERS) {
    const file = dsn.options.get(parameter);
    if (file && file !== 'system')
      refuseUnreadable(file, `node "${node.name}": cannot read its ${parameter}`);
  }
  return formatDsn(dsn);
}

function readDsn(node: { readonly name: string; readonly dsn: string }, place: ConfigPlace): Dsn {
  try {
    return parseDsn(node.dsn, place.environment);
  } catch (error) {
    if (!(error instanceof PosternError)) throw error;
    const { sqlState, message, hint } = error;
    throw new PosternError({ sqlState, message: `node "${node.name}": ${message}`, hint });
  }
}

function refuseUnreadable(file: string, what: string): void {
  try {
    accessSync(file, constants.R_OK);
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw invalidParameter(`${what} ${file}: ${isMissing ? 'there is no such file' : 'it may not be read'}`);
  }
}

/** postern.yaml: one file, one schema, parsed once, frozen, passed in. Secrets come from files or the environment. */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parse, YAMLParseError } from 'yaml';
import { z } from 'zod';
import { invalidParameter } from '../base/errors.ts';
import { parseDsn } from '../pg/dsn.ts';
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

const userSchema = z
  .strictObject({
    name,
    password_file: z.string().optional(),
    password_env: z.string().optional(),
    /** No password is asked for. For loopback and sealed networks only. */
    trust: z.boolean().optional(),
  })
  .refine(
    (user) =>
      [user.password_file, user.password_env, user.trust].filter(
        (given) => given !== undefined && given !== false,
      ).length === 1,
    { message: 'give exactly one of password_file, password_env, trust: true' },
  );

const schema = z
  .strictObject({
    listen: z
      .strictObject({
        host: z.string().default('127.0.0.1'),
        port: z.number().int().min(0).max(65535).default(6432),
      })
      .default({ host: '127.0.0.1', port: 6432 }),
    /** Where Prometheus finds /metrics; with workers, each process on the next port. Default: nowhere. */
    metrics: z
      .strictObject({
        host: z.string().default('127.0.0.1'),
        port: z.number().int().min(0).max(65535),
      })
      .optional(),
    database: name,
    /** The node of the catalog and of tables without a door. Default: the first. */
    home: name.optional(),
    nodes: z.array(nodeSchema).min(1).max(512),
    users: z.array(userSchema).min(1),
    connections_per_node: z.number().int().min(2).max(1000).optional(),
    /** Merge the commits of writes that arrive together. */
    coalesce: z.boolean().optional(),
    /** Processes that share the port. Default: one for four cores. */
    workers: z.number().int().min(1).max(WORKERS_MAX).optional(),
  })
  .refine((config) => new Set(config.nodes.map((node) => node.name)).size === config.nodes.length, {
    message: 'two nodes have the same name',
    path: ['nodes'],
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
  const secret = (
    owner: string,
    from: { password_file?: string | undefined; password_env?: string | undefined },
  ) => readSecret({ owner, from, directory: dirname(path), environment });
  return Object.freeze({
    listen: config.listen,
    metrics: config.metrics,
    database: config.database,
    home: config.home ?? config.nodes[0]!.name,
    nodes: config.nodes.map((node) => ({
      name: node.name,
      dsn: withPassword(node.dsn, secret(`node "${node.name}"`, node), environment),
      mesh: node.mesh,
    })),
    users: config.users.map((user) => ({
      name: user.name,
      password: user.trust ? undefined : secret(`user "${user.name}"`, user),
    })),
    connectionsPerNode: config.connections_per_node,
    coalesce: config.coalesce,
    workers: config.workers,
  });
}

function readSecret(options: {
  owner: string;
  from: { password_file?: string | undefined; password_env?: string | undefined };
  directory: string;
  environment: NodeJS.ProcessEnv;
}): string | undefined {
  const { owner, from, directory, environment } = options;
  if (from.password_file !== undefined) {
    try {
      return readFileSync(resolve(directory, from.password_file), 'utf8').replace(/\r?\n$/, '');
    } catch {
      throw invalidParameter(`cannot read the password file of ${owner}: ${from.password_file}`);
    }
  }
  if (from.password_env === undefined) return undefined;
  const value = environment[from.password_env];
  if (value === undefined)
    throw invalidParameter(`the environment has no ${from.password_env}, the password of ${owner}`);
  return value;
}

/** The DSN with everything spelled out, so that nothing below reads the environment again. */
function withPassword(text: string, password: string | undefined, environment: NodeJS.ProcessEnv): string {
  const dsn = parseDsn(text, environment);
  const secret = password ?? dsn.password;
  const host = dsn.host.includes(':') ? `[${dsn.host}]` : encodeURIComponent(dsn.host);
  const login = `${encodeURIComponent(dsn.user)}${secret === undefined ? '' : `:${encodeURIComponent(secret)}`}`;
  const query = dsn.sslmode === undefined ? '' : `?sslmode=${dsn.sslmode}`;
  return `postgres://${login}@${host}:${dsn.port}/${encodeURIComponent(dsn.database)}${query}`;
}

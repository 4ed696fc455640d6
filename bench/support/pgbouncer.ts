/** PgBouncer in transaction pooling, with a configuration of its own in a temporary directory. bench/setup.sh installs it. */
import { execFileSync, spawn } from 'node:child_process';
import { chownSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { serverAccount, spawnIdentity } from '../../src/embedded/account.ts';
import { freePort } from '../../src/embedded/free-port.ts';
import { endWithBench, outputMatching, type RunningProcess, stopChild } from './child.ts';

export interface RunningPgBouncer extends RunningProcess {
  readonly version: string;
}

/** Its own default, and the router's. */
const POOL_SIZE = 20;

/** undefined: this machine has none. */
export async function startPgBouncer(server: {
  port: number;
  user: string;
  database: string;
  clientsMax: number;
}): Promise<RunningPgBouncer | undefined> {
  const program = findPgBouncer();
  if (program === undefined) return undefined;
  const [version = 'PgBouncer'] = execFileSync(program, ['--version'], { encoding: 'utf8' }).split('\n');
  const account = serverAccount();
  const directory = mkdtempSync(path.join(tmpdir(), 'postern-bench-pgbouncer-'));
  const port = await freePort();
  const users = path.join(directory, 'users.txt');
  const configuration = path.join(directory, 'pgbouncer.ini');
  writeFileSync(users, `"${server.user}" ""\n`);
  writeFileSync(
    configuration,
    `[databases]
${server.database} = host=127.0.0.1 port=${server.port} dbname=${server.database} user=${server.user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = trust
auth_file = ${users}
pool_mode = transaction
default_pool_size = ${POOL_SIZE}
max_client_conn = ${server.clientsMax}
log_connections = 0
log_disconnections = 0
log_stats = 0
`,
  );
  if (account !== undefined) {
    for (const each of [directory, users, configuration]) chownSync(each, account.uid, account.gid);
  }
  const child = spawn(program, [configuration], {
    ...spawnIdentity(account),
    cwd: directory,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  endWithBench(child);
  const removeDirectory = (): void => rmSync(directory, { recursive: true, force: true });
  process.on('exit', removeDirectory);
  try {
    await outputMatching(child, /process up/, 'PgBouncer');
  } catch (error) {
    removeDirectory();
    throw error;
  }
  return {
    port,
    pid: child.pid!,
    version,
    stop: async () => {
      await stopChild(child);
      removeDirectory();
    },
  };
}

/** Debian has it in /usr/sbin, which an ordinary user's PATH lacks. */
function findPgBouncer(): string | undefined {
  const directories = [...(process.env.PATH ?? '').split(path.delimiter), '/usr/sbin'];
  return directories.map((directory) => path.join(directory, 'pgbouncer')).find((file) => existsSync(file));
}

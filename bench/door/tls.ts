/**
 * What TLS costs the router: its CPU time per transaction (a read by key, prepared, 16 clients) and per login, with TLS by that without,
 * one right after the other; and the same for TLS with the node, under clients without it.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { makeCertificates } from '../../test/support/certificates.ts';
import { RouterProcess } from '../../test/support/router-process.ts';
import { startTestServer } from '../../test/support/servers.ts';
import { serveTls } from '../../test/support/tls-server.ts';

const PGBENCH = '/usr/lib/postgresql/15/bin/pgbench';
const CLIENTS = 16;
const ROWS = 10_000;
/** Of /proc/PID/stat, on every Linux that Node.js runs on. */
const TICKS_PER_SECOND = 100;

export async function run(quick: boolean): Promise<Record<string, number>> {
  const seconds = quick ? 3 : 10;
  const directory = mkdtempSync(join(tmpdir(), 'postern-bench-tls-'));
  const server = await startTestServer();
  const routers: RouterProcess[] = [];
  try {
    const { server: certificate } = makeCertificates(directory);
    await server.query('CREATE ROLE app LOGIN');
    await server.query('CREATE DATABASE app OWNER app');
    await serveTls(server, { certificate });
    const script = join(directory, 'read.sql');
    writeFileSync(script, `\\set id random(1, ${ROWS})\nSELECT note FROM events WHERE id = :id;\n`);
    for (const sslmode of ['disable', 'require']) {
      const dsn = `${server.dsn({ database: 'app' })}?sslmode=${sslmode}`;
      const tls = { certificate_file: certificate.certificate, key_file: certificate.key };
      routers.push(await RouterProcess.start([{ name: 'n1', dsn }], { tls, workers: 1 }));
    }
    const [plainNode, tlsNode] = routers as [RouterProcess, RouterProcess];
    await prepare(plainNode.port);
    const measure = (router: RouterProcess, sslmode: string, more: readonly string[] = []) =>
      cpuPerTransaction({ router, sslmode, seconds, script, more });
    await measure(plainNode, 'disable');
    await measure(tlsNode, 'disable');
    const plain = await measure(plainNode, 'disable');
    const withClients = await measure(plainNode, 'require');
    const withNode = await measure(tlsNode, 'disable');
    const plainLogin = await measure(plainNode, 'disable', ['-C']);
    const tlsLogin = await measure(plainNode, 'require', ['-C']);
    return {
      tls_clients_cpu: withClients / plain,
      tls_node_cpu: withNode / plain,
      tls_login_cpu: tlsLogin / plainLogin,
    };
  } finally {
    for (const router of routers) await router.stop();
    await server.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

async function prepare(port: number): Promise<void> {
  const client = new pg.Client(`postgres://app@127.0.0.1:${port}/app`);
  await client.connect();
  await client.query(
    `CREATE TABLE events (id bigint PRIMARY KEY, note text) WITH (postern.door = 'sharded', postern.key = 'id')`,
  );
  await client.query(`INSERT INTO events SELECT id, repeat('x', 100) FROM generate_series(1, ${ROWS}) AS id`);
  await client.end();
}

async function cpuPerTransaction(options: {
  readonly router: RouterProcess;
  readonly sslmode: string;
  readonly seconds: number;
  readonly script: string;
  readonly more: readonly string[];
}): Promise<number> {
  const { router, sslmode, seconds, script, more } = options;
  const before = cpuSeconds(router.workerPids);
  const { stdout } = await promisify(execFile)(
    PGBENCH,
    [
      ...['-n', '-M', 'prepared', '-c', String(CLIENTS), '-T', String(seconds), '-f', script, ...more],
      ...['-h', '127.0.0.1', '-p', String(router.port), '-U', 'app', 'app'],
    ],
    { env: { PGSSLMODE: sslmode } },
  );
  const transactions = Number(/transactions actually processed: (\d+)/.exec(stdout)![1]);
  return (cpuSeconds(router.workerPids) - before) / transactions;
}

function cpuSeconds(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of pids) {
    // Behind the name, which may hold anything: fields 14 and 15 of proc(5), user and system time.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks / TICKS_PER_SECOND;
}

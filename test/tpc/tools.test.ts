/** The benchmark tools that everybody has, unchanged, on sharded tables: pgbench's built-in scripts, sysbench's oltp_read_write. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { isVersionInstalled } from '../support/servers.ts';

const BIN = '/usr/lib/postgresql/15/bin';
const SYSBENCH = '/usr/bin/sysbench';
const hasPgbench = await isVersionInstalled(15);
const hasSysbench = await access(SYSBENCH).then(
  () => true,
  () => false,
);

let cluster: TestCluster;
let client: pg.Client;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 3 });
  client = new pg.Client(cluster.dsn('app'));
  await client.connect();
});
afterAll(async () => {
  await client?.end();
  await cluster?.stop();
});

async function run(
  command: string,
  args: readonly string[],
): Promise<{ status: number; out: string; err: string }> {
  const env = {
    PATH: process.env.PATH,
    ...{ PGHOST: '127.0.0.1', PGPORT: String(cluster.port), PGUSER: 'app', PGDATABASE: 'app' },
  };
  const child = spawn(command, args, { env });
  let out = '';
  let err = '';
  child.stdout.on('data', (chunk: Buffer) => {
    out += chunk;
  });
  child.stderr.on('data', (chunk: Buffer) => {
    err += chunk;
  });
  const [status] = await once(child, 'close');
  return { status, out, err: err.trim() };
}

async function value(text: string): Promise<unknown> {
  const { rows } = await client.query({ text, rowMode: 'array' });
  return rows[0]?.[0];
}

describe.skipIf(!hasPgbench)('pgbench on sharded tables', () => {
  const pgbench = (args: readonly string[]) => run(join(BIN, 'pgbench'), args);

  it('fills its tables, which are sharded then', async () => {
    expect((await pgbench(['-i', '-q', '-s', '2'])).status).toBe(0);
    for (const [table, key] of [
      ['pgbench_accounts', 'aid'],
      ['pgbench_tellers', 'tid'],
      ['pgbench_branches', 'bid'],
      ['pgbench_history', 'aid'],
    ])
      await client.query(`SELECT create_distributed_table('${table}', '${key}', colocate_with := 'none')`);
    expect(await value('SELECT count(*)::int FROM pgbench_accounts')).toBe(200_000);
  });

  let transactions = 0;
  it.each(['simple', 'extended', 'prepared'])('runs its built-in scripts, -M %s', async (mode) => {
    for (const script of ['tpcb-like', 'simple-update', 'select-only']) {
      const outcome = await pgbench(['-n', '-M', mode, '-b', script, '-c', '4', '-t', '25']);
      expect(outcome.err).toBe('');
      expect(outcome.out).toContain('number of transactions actually processed: 100/100');
      expect(outcome.out).toContain('number of failed transactions: 0 ');
    }
    transactions += 200;
    expect(await value('SELECT count(*)::int FROM pgbench_history')).toBe(transactions);
    expect(await value('SELECT sum(abalance) FROM pgbench_accounts')).toBe(
      await value('SELECT sum(delta) FROM pgbench_history'),
    );
    expect(await value('SELECT sum(tbalance) FROM pgbench_tellers')).toBe(
      await value('SELECT sum(bbalance) FROM pgbench_branches'),
    );
  });
});

describe.skipIf(!hasSysbench)('sysbench on sharded tables', () => {
  const sysbench = (args: readonly string[]) =>
    run(SYSBENCH, [
      'oltp_read_write',
      '--db-driver=pgsql',
      ...['--pgsql-host=127.0.0.1', `--pgsql-port=${cluster.port}`, '--pgsql-user=app', '--pgsql-db=app'],
      ...['--tables=2', '--table-size=1000'],
      ...args,
    ]);

  it('prepares its tables, which are sharded then', async () => {
    const prepared = await sysbench(['prepare']);
    expect(prepared.err).toBe('');
    expect(prepared.status).toBe(0);
    for (const table of ['sbtest1', 'sbtest2'])
      await client.query(`SELECT create_distributed_table('${table}', 'id')`);
    expect(await value('SELECT count(*)::int FROM sbtest2')).toBe(1000);
  });

  it.each(['auto', 'disable'])('runs oltp_read_write, --db-ps-mode=%s', async (mode) => {
    const outcome = await sysbench([
      '--threads=4',
      '--events=60',
      '--time=60',
      `--db-ps-mode=${mode}`,
      'run',
    ]);
    expect(outcome.out).not.toContain('FATAL');
    expect(outcome.err).toBe('');
    expect(outcome.status).toBe(0);
    expect(outcome.out).toMatch(/transactions: +60 /);
    // Each transaction deletes a row and inserts it again.
    expect(await value('SELECT count(*)::int FROM sbtest1')).toBe(1000);
    expect(await value('SELECT count(*)::int FROM sbtest2')).toBe(1000);
  });
});

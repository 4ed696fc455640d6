/**
 * Roles that are made, changed and dropped through the router, and that log in with what the nodes have of them: one verifier on all
 * nodes, no password anywhere else, and the next login goes by what has changed.
 */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseScramVerifier } from '../../src/wire/scram.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';

const SECRETS = ['tops3cret-one', 'tops3cret-two', 'tops3cret-md5', 'tops3cret-extended'];
let cluster: TestCluster;
let admin: pg.Client;
const log: string[] = [];

beforeAll(async () => {
  const write = (message: string, fields?: unknown) => void log.push(`${message} ${JSON.stringify(fields)}`);
  cluster = await startTestCluster({
    nodeAuth: 'scram-sha-256',
    users: [
      { name: 'postgres', password: 'postgres' },
      { name: 'app', password: 'app' },
    ],
    settings: { log_statement: 'all', log_min_duration_statement: '0' },
    statementsEveryMs: 100,
    router: {
      authentication: { fromNodes: true },
      log: { info: write, warn: write, error: write },
    },
  });
  admin = new pg.Client(cluster.dsn('postgres'));
  await admin.connect();
  await admin.query(
    `CREATE TABLE keyed (id bigint PRIMARY KEY) WITH (postern.door = 'sharded', postern.key = 'id');
     GRANT ALL ON keyed TO public`,
  );
});
afterAll(async () => {
  await admin?.end();
  await cluster?.stop();
});

async function stored(role: string): Promise<(string | null)[]> {
  const rows = await Promise.all(
    cluster.servers.map((server) =>
      server.query(`SELECT rolpassword FROM pg_authid WHERE rolname = '${role}'`),
    ),
  );
  return rows.map(([row]) => (row?.rolpassword ?? null) as string | null);
}

/** Writes on both nodes as this role. */
async function use(role: string, password: string): Promise<void> {
  const client = new pg.Client(cluster.dsn(role, password));
  await client.connect();
  try {
    await client.query('BEGIN');
    for (let id = 0; id < 12; id++) await client.query('INSERT INTO keyed VALUES ($1)', [id]);
    await client.query('ROLLBACK');
  } finally {
    await client.end();
  }
}

const wrong = (role: string) => ({
  code: '28P01',
  message: `password authentication failed for user "${role}"`,
});

describe('a password that is given through the router', () => {
  it('is stored alike on all nodes, and logs in on all of them', async () => {
    await admin.query(`CREATE ROLE ann LOGIN PASSWORD '${SECRETS[0]}' CONNECTION LIMIT 100`);
    const [first, second] = await stored('ann');
    expect(first).toMatch(/^SCRAM-SHA-256\$4096:/);
    expect(second).toBe(first);
    await use('ann', SECRETS[0]!);
    await expect(use('ann', 'wrong')).rejects.toMatchObject(wrong('ann'));
    const [limit] = await cluster.servers[1]!.query(
      `SELECT rolconnlimit FROM pg_roles WHERE rolname = 'ann'`,
    );
    expect(limit!.rolconnlimit).toBe(100);
  });

  it('holds from the next login on when it is changed', async () => {
    await use('ann', SECRETS[0]!);
    await admin.query(`ALTER ROLE ann PASSWORD '${SECRETS[1]}'`);
    await use('ann', SECRETS[1]!);
    await expect(use('ann', SECRETS[0]!)).rejects.toMatchObject(wrong('ann'));
    await use('ann', SECRETS[1]!);
  });

  it('is hashed by the settings of the session', async () => {
    await admin.query('SET scram_iterations = 1000');
    await admin.query(`ALTER ROLE ann PASSWORD $$${SECRETS[1]}$$ VALID UNTIL 'infinity'`);
    await admin.query('RESET scram_iterations');
    const verifiers = await stored('ann');
    expect(verifiers.map((text) => parseScramVerifier(text!).iterations)).toEqual([1000, 1000]);
    await use('ann', SECRETS[1]!);
    await admin.query("SET password_encryption = 'md5'");
    await admin.query(`ALTER ROLE ann PASSWORD '${SECRETS[2]}'`);
    await expect(admin.query(`ALTER ROLE current_user PASSWORD '${SECRETS[2]}'`)).rejects.toMatchObject({
      code: '0A000',
    });
    await admin.query('RESET password_encryption');
    const [first, second] = await stored('ann');
    expect(first).toMatch(/^md5/);
    expect(second).toBe(first);
  });

  it('passes as it is when the client has hashed it, or takes it away', async () => {
    await admin.query(`CREATE ROLE bob LOGIN ENCRYPTED PASSWORD U&'\\0061b' IN ROLE app`);
    const [verifier] = await stored('bob');
    await admin.query(`ALTER ROLE ann PASSWORD '${verifier}' -- the same`);
    expect(await stored('ann')).toEqual([verifier, verifier]);
    await use('ann', 'ab');
    await admin.query('ALTER ROLE ann PASSWORD NULL; ALTER ROLE bob PASSWORD NULL');
    expect([...(await stored('ann')), ...(await stored('bob'))]).toEqual([null, null, null, null]);
    await expect(use('ann', 'ab')).rejects.toMatchObject(wrong('ann'));
  });

  it('is hashed in scripts, transactions and the extended protocol as well', async () => {
    await admin.query(
      `BEGIN; ALTER ROLE ann PASSWORD '${SECRETS[0]}'; /* é */ ALTER ROLE bob LOGIN PASSWORD '${SECRETS[1]}'; COMMIT`,
    );
    await use('ann', SECRETS[0]!);
    await use('bob', SECRETS[1]!);
    await admin.query({ text: `ALTER USER bob PASSWORD '${SECRETS[3]}'`, values: [], name: 'change' });
    await use('bob', SECRETS[3]!);
    const [first, second] = await stored('bob');
    expect(second).toBe(first);
  });

  it('is nowhere but where it is hashed', async () => {
    await expect(admin.query(`ALTER ROLE nobody PASSWORD '${SECRETS[0]}'`)).rejects.toMatchObject({
      code: '42704',
    });
    await expect
      .poll(async () => {
        const { rows } = await admin.query(`SELECT query FROM postern.statements WHERE query ~* 'password'`);
        return rows.length;
      })
      .toBeGreaterThan(3);
    const { rows } = await admin.query('SELECT * FROM postern.statements');
    const texts = [JSON.stringify(rows), ...log];
    for (const server of cluster.servers) {
      texts.push(readFileSync(join(dirname(server.dataDir), 'log'), 'utf8'));
      texts.push(JSON.stringify(await server.query('SELECT * FROM pg_stat_activity')));
    }
    const found = texts.flatMap((text) => SECRETS.filter((secret) => text.includes(secret)));
    expect(found).toEqual([]);
    // It would have been found there.
    expect(texts.some((text) => text.includes('ALTER ROLE ann PASSWORD'))).toBe(true);
  });
});

describe('a role that has changed', () => {
  it.each([
    ['may not log in', 'NOLOGIN', { code: '28000', message: 'role "carl" is not permitted to log in' }],
    ['has expired', `LOGIN VALID UNTIL '2020-01-01'`, wrong('carl')],
  ])('and %s is refused, though backends of it are open', async (_, change, expected) => {
    await admin.query(`DROP ROLE IF EXISTS carl`);
    await admin.query(`CREATE ROLE carl LOGIN PASSWORD '${SECRETS[0]}'`);
    await use('carl', SECRETS[0]!);
    await admin.query(`ALTER ROLE carl ${change}`);
    await expect(use('carl', SECRETS[0]!)).rejects.toMatchObject(expected);
    await admin.query(`DROP ROLE carl`);
    await expect(use('carl', SECRETS[0]!)).rejects.toMatchObject(wrong('carl'));
  });

  it('on one node alone is told which node that is, and what to run', async () => {
    await admin.query(`CREATE ROLE dora LOGIN PASSWORD '${SECRETS[0]}'`);
    await cluster.servers[1]!.query(`ALTER ROLE dora PASSWORD '${SECRETS[0]}'`);
    await expect(use('dora', SECRETS[0]!)).rejects.toMatchObject({
      code: '28P01',
      message: 'node "n2": password authentication failed for user "dora"',
      hint: expect.stringContaining('ALTER ROLE … PASSWORD through the router'),
    });
    await admin.query(`ALTER ROLE dora PASSWORD '${SECRETS[1]}'`);
    await use('dora', SECRETS[1]!);
  });
});

/**
 * Each method of authentication, through the clients that people use, against PostgreSQL itself: a server with the same rules, roles
 * and certificates has to let in the same, and refuse the rest with the same SQLSTATE and words.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readConfig } from '../../src/cli/config.ts';
import { type Router, startRouter } from '../../src/cli/router.ts';
import { makeCertificates } from '../support/certificates.ts';
import { type LoginOutcome, type LoginRequest, loginClients } from '../support/login-probes.ts';
import { startTestServer, type TestServer } from '../support/servers.ts';
import { admitBy, serveTls } from '../support/tls-server.ts';

const PASSWORD = 'open "sesame", \u00e9';
const directory = mkdtempSync(join(tmpdir(), 'postern-login-methods-'));
const certificates = makeCertificates(join(directory, 'certificates'));

/** Of PostgreSQL and of the router, word by word. */
const RULES = `
host      all app,passed,listed,expired,nologin,nobody all scram-sha-256
hostssl   all sslonly   all       scram-sha-256
hostnossl all plainonly all       scram-sha-256
hostssl   all clear,clear_expired all password
hostssl   all certified all       cert
hostssl   all twofold      all       scram-sha-256 clientcert=verify-full
hostssl   all mapped    all       cert map=people clientname=DN
host      all rejected  all       reject
host      all trusted   127.0.0.1/32 trust
host      all +crowd    all       trust
host      app elsewhere 192.0.2.0/24 trust
host      other dbonly  all       trust
`;
const IDENT = 'people "CN=Ann,O=Shop" mapped\n';

const ROLES = `
CREATE ROLE app LOGIN PASSWORD '${PASSWORD}'; CREATE ROLE passed LOGIN PASSWORD '${PASSWORD}';
CREATE ROLE listed LOGIN PASSWORD '${PASSWORD}'; CREATE ROLE sslonly LOGIN PASSWORD '${PASSWORD}';
CREATE ROLE plainonly LOGIN PASSWORD '${PASSWORD}'; CREATE ROLE clear LOGIN PASSWORD '${PASSWORD}';
CREATE ROLE expired LOGIN PASSWORD '${PASSWORD}' VALID UNTIL '2020-01-01';
CREATE ROLE clear_expired LOGIN PASSWORD '${PASSWORD}' VALID UNTIL '2020-01-01';
CREATE ROLE nologin PASSWORD '${PASSWORD}'; CREATE ROLE twofold LOGIN PASSWORD '${PASSWORD}';
CREATE ROLE certified LOGIN; CREATE ROLE mapped LOGIN; CREATE ROLE rejected LOGIN; CREATE ROLE trusted LOGIN;
CREATE ROLE crowd NOLOGIN; CREATE ROLE member LOGIN IN ROLE crowd; CREATE ROLE elsewhere LOGIN; CREATE ROLE dbonly LOGIN`;

type Case = readonly [what: string, request: Omit<LoginRequest, 'port'>];

const encrypted = { sslmode: 'require' } as const;
const verified = { sslmode: 'verify-full', sslrootcert: certificates.ca } as const;

function certificateOf(name: string, options: { by?: 'otherCa'; expired?: true; subject?: string } = {}) {
  const { certificate, key } = certificates.issue({
    name: `client-${name}-${options.by ?? ''}${options.expired ?? ''}`,
    subject: `/CN=${name}`,
    ...options,
  });
  return { ...verified, sslcert: certificate, sslkey: key };
}

const CASES: readonly Case[] = [
  ['scram, the right password', { user: 'app', password: PASSWORD }],
  ['scram, a wrong password', { user: 'app', password: 'wrong' }],
  ['scram, no password', { user: 'app' }],
  ['scram over TLS', { user: 'app', password: PASSWORD, ...encrypted }],
  ['scram over TLS, a wrong password', { user: 'app', password: 'wrong', ...verified }],
  ['scram, a verifier of the nodes', { user: 'passed', password: PASSWORD }],
  ['scram, a verifier of the nodes, a wrong password', { user: 'passed', password: 'wrong' }],
  ['scram, a verifier of the users’ file', { user: 'listed', password: PASSWORD, ...verified }],
  ['scram, a verifier of the users’ file, a wrong password', { user: 'listed', password: 'wrong' }],
  ['scram, a role that is not there', { user: 'nobody', password: PASSWORD }],
  ['scram, an expired role', { user: 'expired', password: PASSWORD }],
  ['scram, an expired role, a wrong password', { user: 'expired', password: 'wrong' }],
  ['scram, a role that may not log in', { user: 'nologin', password: PASSWORD }],
  ['hostssl with TLS', { user: 'sslonly', password: PASSWORD, ...encrypted }],
  ['hostssl without', { user: 'sslonly', password: PASSWORD }],
  ['hostnossl with TLS', { user: 'plainonly', password: PASSWORD, ...encrypted }],
  ['hostnossl without', { user: 'plainonly', password: PASSWORD }],
  ['password, the right one', { user: 'clear', password: PASSWORD, ...verified }],
  ['password, a wrong one', { user: 'clear', password: 'wrong', ...verified }],
  ['password, an expired role', { user: 'clear_expired', password: PASSWORD, ...encrypted }],
  ['password, without TLS', { user: 'clear', password: PASSWORD }],
  ['cert, its own', { user: 'certified', ...certificateOf('certified') }],
  ['cert, somebody else’s', { user: 'certified', ...certificateOf('app') }],
  ['cert, none', { user: 'certified', ...verified }],
  ['cert, mapped by its DN', { user: 'mapped', ...certificateOf('ann', { subject: '/O=Shop/CN=Ann' }) }],
  [
    'cert, a DN that is not in the map',
    { user: 'mapped', ...certificateOf('bob', { subject: '/O=Shop/CN=Bob' }) },
  ],
  ['scram and cert', { user: 'twofold', password: PASSWORD, ...certificateOf('twofold') }],
  ['scram and cert, a wrong password', { user: 'twofold', password: 'wrong', ...certificateOf('twofold') }],
  ['scram and cert, somebody else’s', { user: 'twofold', password: PASSWORD, ...certificateOf('app') }],
  ['scram and cert, none', { user: 'twofold', password: PASSWORD, ...verified }],
  ['reject', { user: 'rejected' }],
  ['trust', { user: 'trusted' }],
  ['trust, with TLS', { user: 'trusted', ...encrypted }],
  ['trust of a group, a member', { user: 'member' }],
  ['an address that the rule is not for', { user: 'elsewhere' }],
  ['a database that the rule is not for', { user: 'dbonly' }],
  ['no rule', { user: 'unruled' }],
  [
    'a server certificate that the client does not trust',
    { user: 'trusted', sslmode: 'verify-full', sslrootcert: certificates.otherCa },
  ],
];

/** PostgreSQL breaks off the handshake, whatever the rule; the router says what is wrong with it, over TLS. */
const UNVERIFIED: readonly Case[] = [
  [
    'of an authority that nobody trusts',
    { user: 'certified', ...certificateOf('certified', { by: 'otherCa' }) },
  ],
  ['out of date', { user: 'certified', ...certificateOf('certified', { expired: true }) }],
  ['out of date, of one who needs none', { user: 'trusted', ...certificateOf('trusted', { expired: true }) }],
];

let oracle: TestServer;
let nodes: TestServer[] = [];
let router: Router;
const log: string[] = [];
const clients = loginClients();

beforeAll(async () => {
  [oracle, ...nodes] = (await Promise.all(
    [1, 2, 3].map(() => startTestServer({ auth: 'scram-sha-256' })),
  )) as [TestServer, ...TestServer[]];
  for (const server of [oracle, ...nodes]) {
    await server.query(ROLES);
    await server.query('CREATE DATABASE app OWNER app');
  }
  // As they are once roles are made through the router: one verifier each on all nodes.
  const verifiers = await oracle.query(
    'SELECT rolname, rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL',
  );
  const same = verifiers.map(({ rolname, rolpassword }) => `ALTER ROLE ${rolname} PASSWORD '${rolpassword}'`);
  for (const node of nodes) {
    await node.query(same.filter((text) => !text.includes('ROLE postgres ')).join(';'));
    // Roles without a password: a node has to trust the router for them.
    await admitBy(
      node,
      'host all app,passed,listed,sslonly,plainonly,clear,clear_expired,twofold,expired,nologin all scram-sha-256\nhost all all all trust',
    );
  }
  await serveTls(oracle, { certificate: certificates.server, clientCa: certificates.ca });
  writeFileSync(join(oracle.dataDir, 'pg_ident.conf'), IDENT);
  await admitBy(oracle, RULES);

  const secret = (name: string, text: string) => {
    writeFileSync(join(directory, name), text, { mode: 0o600 });
    return name;
  };
  const listed = verifiers.find(({ rolname }) => rolname === 'listed')!.rolpassword;
  const config = {
    listen: { host: '127.0.0.1', port: 0 },
    database: 'app',
    nodes: nodes.map((node, i) => ({ name: `n${i + 1}`, dsn: node.dsn({ database: 'app' }) })),
    users: [{ name: 'app', password_file: secret('app.password', PASSWORD) }],
    users_file: secret('users.txt', `"listed" "${listed}"\n`),
    hba_file: secret('pg_hba.conf', RULES),
    ident_file: secret('pg_ident.conf', IDENT),
    authentication: { from_nodes: true },
    tls: {
      certificate_file: certificates.server.certificate,
      key_file: certificates.server.key,
      client_ca_file: certificates.ca,
    },
  };
  // JSON is YAML.
  writeFileSync(join(directory, 'postern.yaml'), JSON.stringify(config));
  const write = (text: string, fields?: unknown) => void log.push(`${text} ${JSON.stringify(fields)}`);
  router = await startRouter({
    ...readConfig(join(directory, 'postern.yaml'), {}),
    log: { info: write, warn: write, error: write },
  });
});

afterAll(async () => {
  await Promise.all(clients.map((client) => client.stop()));
  await router?.close();
  await Promise.all([oracle, ...nodes].map((server) => server?.stop()));
  rmSync(directory, { recursive: true, force: true });
});

/** What a client says of where it was is its own; what the server has said is the same from twofold. */
function comparable(outcome: LoginOutcome): LoginOutcome {
  if (outcome.ok) return outcome;
  const message = outcome.message
    .replaceAll(/port \d+/g, 'port')
    .replaceAll(/localhost:\d+|127\.0\.0\.\d:\d+/g, 'server')
    .trim();
  return { ...outcome, message };
}

describe.each(clients)('$name', (client) => {
  it.skipIf(client.missing !== undefined).each(CASES)(
    `%s${client.missing ? ` (${client.missing})` : ''}`,
    async (_, request) => {
      const expected = comparable(await client.login({ port: oracle.port, ...request }));
      expect(comparable(await client.login({ port: router.port, ...request }))).toEqual(expected);
    },
  );

  it.skipIf(client.missing !== undefined).each(UNVERIFIED)('a certificate %s', async (_, request) => {
    expect(await client.login({ port: oracle.port, ...request })).toMatchObject({ ok: false });
    const told = await client.login({ port: router.port, ...request });
    expect(told).toMatchObject({
      ok: false,
      message: expect.stringContaining('requires a valid client certificate'),
    });
  });
});

describe('secrets', () => {
  it('are in no line of the log', () => {
    expect(log.length).toBeGreaterThan(10);
    expect(log.filter((line) => line.includes(PASSWORD) || line.includes('SCRAM-SHA-256$'))).toEqual([]);
  });
});

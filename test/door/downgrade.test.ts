/**
 * Somebody in the middle who would have a client do with less than it could have: without TLS, without channel binding, with a
 * certificate of his own. What comes of it is what comes of it before PostgreSQL with the same rules.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { makeCertificates } from '../support/certificates.ts';
import { loginClients } from '../support/login-probes.ts';
import { ManInTheMiddle, type MiddleOptions } from '../support/man-in-the-middle.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { startTestServer, type TestServer } from '../support/servers.ts';
import { admitBy, serveTls } from '../support/tls-server.ts';

const PSQL = '/usr/lib/postgresql/15/bin/psql';
const PASSWORD = 'secret';
const RULES = 'hostssl all app all scram-sha-256';

const directory = mkdtempSync(join(tmpdir(), 'postern-downgrade-'));
const certificates = makeCertificates(directory);
const clients = loginClients();
let oracle: TestServer;
let cluster: TestCluster;
let middle: ManInTheMiddle | undefined;

beforeAll(async () => {
  oracle = await startTestServer();
  await oracle.query(`CREATE ROLE app LOGIN PASSWORD '${PASSWORD}'`);
  await oracle.query('CREATE DATABASE app OWNER app');
  await serveTls(oracle, { certificate: certificates.server });
  await admitBy(oracle, RULES);
  cluster = await startTestCluster({
    nodes: 1,
    users: [{ name: 'app', password: PASSWORD }],
    router: {
      authentication: { rules: RULES },
      tls: { certificateFile: certificates.server.certificate, keyFile: certificates.server.key },
    },
  });
});
afterEach(async () => {
  await middle?.stop();
  middle = undefined;
});
afterAll(async () => {
  await Promise.all(clients.map((client) => client.stop()));
  await cluster?.stop();
  await oracle?.stop();
  rmSync(directory, { recursive: true, force: true });
});

/** What psql answers or is told, through somebody in the middle. */
async function psql(
  targetPort: number,
  options: Omit<MiddleOptions, 'targetPort'> | undefined,
  parameters: string,
): Promise<string> {
  middle = options && (await ManInTheMiddle.start({ ...options, targetPort }));
  const dsn = `host=localhost port=${middle?.port ?? targetPort} user=app dbname=app connect_timeout=10 sslrootcert=${certificates.ca} ${parameters}`;
  return await new Promise((resolve) => {
    const environment = { PGPASSWORD: PASSWORD, PGSSLCERT: '/nonexistent' };
    execFile(
      PSQL,
      ['-XAtqw', '-d', dsn, '-c', 'SELECT session_user'],
      { env: environment },
      (error, stdout, stderr) => resolve((error ? stderr : stdout).replaceAll(/port \d+/g, 'port').trim()),
    );
  });
}

const untrusted = { certificate: certificates.untrustedServer, upstream: 'tls' } as const;
const PLUS = Buffer.from('SCRAM-SHA-256-PLUS\0');

/** AuthenticationSASL without its first mechanism. */
function withoutPlus(chunk: Buffer): Buffer {
  const at = chunk.indexOf(PLUS);
  if (at < 0) return chunk;
  const rest = Buffer.concat([chunk.subarray(0, at), chunk.subarray(at + PLUS.length)]);
  rest.writeInt32BE(rest.readInt32BE(1) - PLUS.length, 1);
  return rest;
}

const CASES: readonly (readonly [
  what: string,
  middle: Omit<MiddleOptions, 'targetPort'> | undefined,
  parameters: string,
  outcome: RegExp,
])[] = [
  ['nobody, with channel binding', undefined, 'sslmode=verify-full channel_binding=require', /^app$/],
  [
    'says that there is no TLS, to one who insists',
    { certificate: undefined, upstream: 'plain' },
    'sslmode=require',
    /does not support SSL/,
  ],
  [
    'says that there is no TLS, to one who would rather',
    { certificate: undefined, upstream: 'plain' },
    'sslmode=prefer',
    /no pg_hba.conf entry .* no encryption/,
  ],
  [
    'says so, and uses TLS towards the server himself',
    { certificate: undefined, upstream: 'tls' },
    'sslmode=prefer channel_binding=require',
    /channel binding (is )?required/,
  ],
  [
    'shows a certificate of his own, to one who looks',
    untrusted,
    'sslmode=verify-full',
    /certificate verify failed/,
  ],
  [
    'shows a certificate of his own, and passes on the binding to it',
    untrusted,
    'sslmode=require sslrootcert=/nonexistent',
    /channel binding check failed/,
  ],
  [
    'takes the binding out of what is offered',
    { ...untrusted, change: withoutPlus },
    'sslmode=require sslrootcert=/nonexistent',
    /client supports SCRAM channel binding|channel binding/i,
  ],
  [
    'takes it out, to one who insists',
    { ...untrusted, change: withoutPlus },
    'sslmode=require sslrootcert=/nonexistent channel_binding=require',
    /channel binding/,
  ],
];

describe.skipIf(!existsSync(PSQL))('somebody in the middle', () => {
  it.each(CASES)('%s', async (_, options, parameters, outcome) => {
    const expected = await psql(oracle.port, options, parameters);
    await middle?.stop();
    expect(expected).toMatch(outcome);
    expect(await psql(cluster.port, options, parameters)).toBe(expected);
    expect(middle?.heard ?? '').not.toContain(PASSWORD);
  });
});

describe.each(clients)('$name, which insists', (client) => {
  const insisting = { user: 'app', password: PASSWORD, sslrootcert: certificates.ca } as const;
  const attempts = [
    ['on TLS, and is told that there is none', { certificate: undefined, upstream: 'plain' }, 'require'],
    ['on the right certificate, and is shown another', untrusted, 'verify-full'],
  ] as const;

  // Postgres.js begins with TLS whatever it is told, and tries for ever where that fails.
  const told = client.name === 'Postgres.js' ? attempts.slice(1) : attempts;

  it.skipIf(client.missing !== undefined).each(told)('%s', async (_, options, sslmode) => {
    middle = await ManInTheMiddle.start({ ...options, targetPort: cluster.port });
    const outcome = await client.login({ ...insisting, port: middle.port, sslmode });
    expect(outcome).toMatchObject({ ok: false });
    expect(middle.heard).toBe('');
  });

  it.skipIf(client.missing !== undefined)('comes in where nobody is in between', async () => {
    const outcome = await client.login({ ...insisting, port: cluster.port, sslmode: 'verify-full' });
    expect(outcome).toEqual({ ok: true, user: 'app' });
  });
});

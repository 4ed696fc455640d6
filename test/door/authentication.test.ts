/**
 * Where passwords come from and how they change while clients come and go: the users' file and a reload, auth_query, md5 hashes,
 * passwords in the clear that home checks, and the front before one server.
 */
import { connect } from 'node:net';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseStoredSecret, type UserEntry } from '../../src/auth/user-entry.ts';
import { type Router, startRouter } from '../../src/cli/router.ts';
import type { AuthenticationConfig } from '../../src/cli/router-auth.ts';
import { startFront } from '../../src/cli/run-front.ts';
import { FrameWriter } from '../../src/wire/frame-writer.ts';
import { encodePassword, encodeQuery, encodeSaslInitial, encodeTerminate } from '../../src/wire/frontend.ts';
import { md5Hash } from '../../src/wire/md5-password.ts';
import { encodeStartup } from '../../src/wire/startup.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { admitBy } from '../support/tls-server.ts';

let cluster: TestCluster;
const routers: Router[] = [];

beforeAll(async () => {
  cluster = await startTestCluster({
    nodeAuth: 'scram-sha-256',
    users: [
      { name: 'app', password: 'app' },
      { name: 'rotated', password: 'before' },
    ],
  });
  const [home, other] = cluster.servers;
  await home!.query(`
    CREATE ROLE own LOGIN PASSWORD 'own'; CREATE ROLE legacy LOGIN PASSWORD '${md5Hash('legacy', 'old')}';
    CREATE ROLE watcher LOGIN PASSWORD 'watcher' NOSUPERUSER`);
  const rows = await home!.query(
    `SELECT rolname, rolpassword FROM pg_authid WHERE rolname IN ('own', 'legacy', 'rotated')`,
  );
  for (const { rolname, rolpassword } of rows)
    await other!.query(
      `DROP ROLE IF EXISTS ${rolname}; CREATE ROLE ${rolname} LOGIN PASSWORD '${rolpassword}'`,
    );
  // Which means SCRAM for all but those whose stored password is an md5 hash.
  await Promise.all(cluster.servers.map((server) => admitBy(server, 'host all all all md5')));
});
afterAll(async () => {
  await Promise.all(routers.map((router) => router.close()));
  await cluster?.stop();
});

async function router(users: readonly UserEntry[], authentication?: AuthenticationConfig): Promise<Router> {
  const started = await startRouter({ ...cluster.routerOptions, users, authentication });
  routers.push(started);
  return started;
}

/** The role as the node sees it. */
async function logIn(port: number, user: string, password: string): Promise<string> {
  const client = new pg.Client({ host: '127.0.0.1', port, user, password, database: 'app' });
  await client.connect();
  try {
    const { rows } = await client.query('SELECT session_user');
    return rows[0].session_user;
  } finally {
    await client.end();
  }
}

const wrong = (role: string) => ({
  code: '28P01',
  message: `password authentication failed for user "${role}"`,
});
const listed = (name: string, ...secrets: string[]): UserEntry => ({
  name,
  password: undefined,
  secrets: secrets.map(parseStoredSecret),
});

describe('a users’ file', () => {
  it('changes passwords by reloads, without a moment in which neither is right', async () => {
    const home = cluster.servers[0]!;
    const { port, reload } = await router([listed('rotated', 'before')]);
    await logIn(port, 'rotated', 'before');
    const { routerOptions } = cluster;
    await reload({ ...routerOptions, users: [listed('rotated', 'before', 'after')] });
    await logIn(port, 'rotated', 'before');
    await logIn(port, 'rotated', 'after');
    for (const server of cluster.servers) await server.query(`ALTER ROLE rotated PASSWORD 'after'`);
    await reload({ ...routerOptions, users: [listed('rotated', 'after', 'before')] });
    await home.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotated'`);
    await logIn(port, 'rotated', 'before');
    await reload({ ...routerOptions, users: [listed('rotated', 'after')] });
    await logIn(port, 'rotated', 'after');
    await expect(logIn(port, 'rotated', 'before')).rejects.toMatchObject(wrong('rotated'));
  });

  it('that is broken changes nothing, and says where', async () => {
    const { port, reload } = await router([listed('app', 'app')]);
    const { failures } = await reload({
      ...cluster.routerOptions,
      users: [],
      authentication: { rules: 'host all', rulesName: 'pg_hba.conf' },
    });
    expect(failures).toEqual(['users, authentication: pg_hba.conf, line 1: the line ends before the role']);
    await logIn(port, 'app', 'app');
  });

  it('may hold md5 hashes, for nodes that have them too', async () => {
    const { port } = await router([listed('legacy', md5Hash('legacy', 'old'))]);
    expect(await logIn(port, 'legacy', 'old')).toBe('legacy');
    await expect(logIn(port, 'legacy', 'wrong')).rejects.toMatchObject(wrong('legacy'));
  });
});

describe('roles of the nodes', () => {
  it('have their passwords read by auth_query, if that is how', async () => {
    const authQuery = 'SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1';
    const { port } = await router([], { fromNodes: true, authQuery });
    expect(await logIn(port, 'own', 'own')).toBe('own');
    expect(await logIn(port, 'legacy', 'old')).toBe('legacy');
    await expect(logIn(port, 'own', 'wrong')).rejects.toMatchObject(wrong('own'));
  });

  it('can’t be read by a query that is none', async () => {
    await expect(router([], { fromNodes: true, authQuery: 'SELECT $1 FROM nowhere' })).rejects.toMatchObject({
      message: 'authentication.auth_query on the home node: relation "nowhere" does not exist',
    });
  });

  it('are checked by home when their password comes in the clear', async () => {
    const { port } = await router([], { fromNodes: true, rules: 'host all all all password' });
    expect(await logIn(port, 'own', 'own')).toBe('own');
    expect(await logIn(port, 'legacy', 'old')).toBe('legacy');
    await expect(logIn(port, 'own', 'wrong')).rejects.toMatchObject(wrong('own'));
    await expect(logIn(port, 'nobody', 'x')).rejects.toMatchObject(wrong('nobody'));
  });

  it('are not let in by a home that trusts this router', async () => {
    const trusting = await startTestCluster({
      nodes: 1,
      router: { users: [], authentication: { fromNodes: true, rules: 'host all all all password' } },
    });
    try {
      await expect(logIn(trusting.port, 'app', 'anything')).rejects.toMatchObject({
        code: '28000',
        message: 'the home node asks for no password of role "app", and so cannot check one',
      });
    } finally {
      await trusting.stop();
    }
  });
});

describe('the front', () => {
  const log = { info() {}, warn() {}, error() {} };
  const options = { host: '127.0.0.1', port: 0, connections: undefined, coalesce: true, workers: undefined };
  const start = async (user: string, password: string, more: object): Promise<Router> => {
    const dsn = cluster.servers[0]!.dsn({ user, password, database: 'app' });
    const front = await startFront(dsn, { ...options, ...more }, log);
    routers.push(front);
    return front;
  };

  it('lets in its own role alone, or all of them', async () => {
    const alone = await start('app', 'app', {});
    expect(await logIn(alone.port, 'app', 'app')).toBe('app');
    await expect(logIn(alone.port, 'own', 'own')).rejects.toMatchObject(wrong('own'));
    const all = await start('postgres', 'postgres', { passThrough: true });
    expect(await logIn(all.port, 'own', 'own')).toBe('own');
    await expect(logIn(all.port, 'own', 'wrong')).rejects.toMatchObject(wrong('own'));
  });

  it('says at the start that its role may not read passwords', async () => {
    await expect(start('watcher', 'watcher', { passThrough: true })).rejects.toMatchObject({
      sqlState: '42501',
      message: 'verifiers of roles on the home node: permission denied for table pg_authid',
    });
  });
});

/** All that the router says until it closes. */
function talk(port: number, chunks: readonly Buffer[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true });
    const said: Buffer[] = [];
    socket.on('data', (chunk) => said.push(chunk));
    socket.on('close', () => resolve(Buffer.concat(said).toString('latin1')));
    socket.on('error', reject);
    for (const chunk of chunks) socket.write(chunk);
  });
}

function bytes(write: (writer: FrameWriter) => void): Buffer {
  const writer = new FrameWriter();
  write(writer);
  return Buffer.from(writer.take());
}

const request = (code: number) =>
  Buffer.from([0, 0, 0, 8, code >> 24, code >> 16, code >> 8, code].map((x) => x & 255));
const SSL_REQUEST = request(80877103);
const GSSENC_REQUEST = request(80877104);

describe('what a client sends ahead of its turn', () => {
  const startup = (user: string) =>
    bytes((writer) => encodeStartup(writer, Object.entries({ user, database: 'app' })));
  const query = bytes((writer) => encodeQuery(writer, "SELECT 'x' || 42 || 'y'"));
  const bye = bytes((writer) => encodeTerminate(writer));
  let port: number;
  beforeAll(async () => {
    ({ port } = await router([listed('app', 'app'), listed('own', 'own')], {
      rules: 'host all app all trust\nhost all own all scram-sha-256',
    }));
  });

  it.each<[string, (user: string) => Buffer[]]>([
    ['in one go', (user) => [Buffer.concat([startup(user), query, query, bye])]],
    [
      'byte by byte',
      (user) => [...Buffer.concat([startup(user), query, query, bye])].map((byte) => Buffer.of(byte)),
    ],
    [
      'with requests for encryption',
      (user) => [GSSENC_REQUEST, SSL_REQUEST, startup(user), query, query, bye],
    ],
  ])('is read in its turn (%s)', async (what, chunks) => {
    const answer = talk(port, what.startsWith('with') ? [] : chunks('app'));
    if (what.startsWith('with')) {
      const socket = connect({ host: '127.0.0.1', port });
      const said: Buffer[] = [];
      socket.on('data', (chunk) => {
        said.push(chunk);
        if (Buffer.concat(said).toString() === 'N') socket.write(SSL_REQUEST);
        if (Buffer.concat(said).toString() === 'NN')
          socket.write(Buffer.concat([startup('app'), query, query, bye]));
      });
      socket.write(GSSENC_REQUEST);
      await new Promise((resolve) => socket.on('close', resolve));
      expect(Buffer.concat(said).toString('latin1').split('x42y')).toHaveLength(3);
      return;
    }
    expect((await answer).split('x42y')).toHaveLength(3);
  });

  it.each<[string, Buffer[], string]>([
    ['a query in place of a proof', [startup('own'), query], 'expected SASL response, got message type 81'],
    [
      'a mechanism that was not offered',
      [startup('own'), bytes((writer) => encodeSaslInitial(writer, 'SCRAM-SHA-256-PLUS', 'p=x,,n=,r=a'))],
      'client selected an invalid SASL authentication mechanism',
    ],
    [
      'a password in place of SCRAM',
      [startup('own'), bytes((writer) => encodePassword(writer, 'own'))],
      'FATAL',
    ],
    [
      'bytes behind a request for encryption',
      [Buffer.concat([SSL_REQUEST, startup('app')])],
      'received unencrypted data after SSL request',
    ],
    [
      'a second start-up packet',
      [startup('own'), startup('own')],
      'expected SASL response, got message type 0',
    ],
    ['TLS where there is none', [Buffer.from([0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0])], ''],
  ])('ends the login: %s', async (_, chunks, message) => {
    const answer = await talk(port, chunks);
    expect(answer).toContain(message);
    expect(answer).not.toContain('x42y');
    if (message === '') expect(answer).toBe('');
  });

  it('is refused when encryption is asked for again and again', async () => {
    const socket = connect({ host: '127.0.0.1', port });
    let said = '';
    socket.on('data', (chunk) => {
      said += chunk.toString('latin1');
      if (said === 'N') socket.write(SSL_REQUEST);
    });
    socket.write(SSL_REQUEST);
    await new Promise((resolve) => socket.on('close', resolve));
    expect(said).toContain('unsupported frontend protocol 1234.5679: server supports 3.0 to 3.2');
  });
});

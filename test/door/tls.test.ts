/**
 * TLS on both sides of a router, with real servers: who asks for encryption has it, whoever is not who he says he is gets no
 * password and no row, and certificates change under way. The handshakes themselves: src/platform/{client,node}-tls.test.ts.
 */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer, connect as netConnect, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as tlsConnect } from 'node:tls';
import { promisify } from 'node:util';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Router, startRouter } from '../../src/cli/router.ts';
import type { RouterOptions } from '../../src/cli/router-options.ts';
import { startFront } from '../../src/cli/run-front.ts';
import { parseDsn } from '../../src/pg/dsn.ts';
import { nodeTlsOf } from '../../src/pg/dsn-tls.ts';
import { ControlConnection } from '../../src/platform/control-connection.ts';
import { connectToNode } from '../../src/platform/node-tls.ts';
import { FrameWriter } from '../../src/wire/frame-writer.ts';
import { encodeStartup } from '../../src/wire/startup.ts';
import { type CertificateFiles, makeCertificates } from '../support/certificates.ts';
import { ManInTheMiddle } from '../support/man-in-the-middle.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import type { TestServer } from '../support/servers.ts';
import { admitBy, serveTls } from '../support/tls-server.ts';

const PSQL = '/usr/lib/postgresql/15/bin/psql';
const PASSWORD = 'secret';
const directory = mkdtempSync(join(tmpdir(), 'postern-tls-'));
const certificates = makeCertificates(directory);
/** What the router shows its clients; the tests put others in its place. */
const shown: CertificateFiles = {
  certificate: join(directory, 'shown.crt'),
  key: join(directory, 'shown.key'),
};

function show(files: CertificateFiles): void {
  copyFileSync(files.certificate, shown.certificate);
  copyFileSync(files.key, shown.key);
  chmodSync(shown.key, 0o600);
}

let cluster: TestCluster;
const ended: (() => unknown)[] = [];

beforeAll(async () => {
  show(certificates.server);
  cluster = await startTestCluster({
    users: [
      { name: 'app', password: PASSWORD },
      { name: 'operator', password: PASSWORD },
    ],
  });
  for (const server of cluster.servers) {
    await server.query('ALTER ROLE operator SUPERUSER');
    await serveTls(server, { certificate: certificates.server, clientCa: certificates.ca });
    // The certificate that the router shows is the condition, the password the proof.
    await admitBy(server, 'hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca');
  }
});
afterEach(async () => {
  for (const end of ended.splice(0).reverse()) await end();
});
afterAll(async () => {
  await cluster?.stop();
  rmSync(directory, { recursive: true, force: true });
});

const ROUTER = certificates.client('router');
const TRUSTING = `sslrootcert=${certificates.ca}`;
const NODE_TLS = `sslmode=verify-full&${TRUSTING}&sslcert=${ROUTER.certificate}&sslkey=${ROUTER.key}&channel_binding=require`;

const dsnOf = (server: TestServer, query: string): string =>
  `postgres://operator:${PASSWORD}@127.0.0.1:${server.port}/app?${query}`;

/** Over the servers of the cluster, reached as `query` says. */
async function routerOver(query: string, more: Partial<RouterOptions> = {}): Promise<Router> {
  const router = await startRouter({
    ...cluster.routerOptions,
    tls: { certificateFile: shown.certificate, keyFile: shown.key, clientCaFile: certificates.ca },
    nodes: cluster.servers.map((server, i) => ({ name: `n${i + 1}`, dsn: dsnOf(server, query) })),
    ...more,
  });
  ended.push(() => router.close());
  return router;
}

async function client(port: number, more: pg.ClientConfig = {}): Promise<pg.Client> {
  const one = new pg.Client({
    ...{ host: 'localhost', port, user: 'app', password: PASSWORD, database: 'app' },
    ...{ ssl: { ca: readFileSync(certificates.ca) }, enableChannelBinding: true },
    ...more,
  });
  one.on('error', () => {});
  await one.connect();
  ended.push(() => one.end().catch(() => {}));
  return one;
}

describe('towards nodes', () => {
  it('every connection is encrypted and checked, with a certificate of the router, bound to the channel', async () => {
    const router = await routerOver(NODE_TLS);
    const app = await client(router.port);
    await app.query(
      `CREATE TABLE pairs (id bigint PRIMARY KEY, v int) WITH (postern.door = 'sharded', postern.key = 'id')`,
    );
    await app.query('INSERT INTO pairs SELECT i, i FROM generate_series(1, 50) AS i');
    expect((await app.query('SELECT sum(v)::int AS sum FROM pairs')).rows).toEqual([{ sum: 1275 }]);
    for (const server of cluster.servers) {
      const sessions = await server.query(
        `SELECT a.application_name, s.ssl, s.client_dn FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid)
         WHERE a.datname = 'app' AND a.usename <> 'postgres'`,
      );
      expect(sessions.length).toBeGreaterThan(2);
      for (const session of sessions) expect(session).toMatchObject({ ssl: true, client_dn: '/CN=router' });
    }
    await app.query('DROP TABLE pairs');
  });

  it('a cancel request is encrypted too, and strikes', async () => {
    const [server] = cluster.servers;
    const router = await routerOver(NODE_TLS);
    const app = await client(router.port);
    const waits = app.query('SELECT pg_sleep(30)');
    const failed = expect(waits).rejects.toMatchObject({ code: '57014' });
    await expect
      .poll(() =>
        server!.query(
          `SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)' AND state = 'active'`,
        ),
      )
      .toHaveLength(1);
    const { processID, secretKey } = app as unknown as { processID: number; secretKey: number };
    const request = Buffer.alloc(16);
    for (const [at, value] of [16, 80877102, processID, secretKey].entries())
      request.writeInt32BE(value, 4 * at);
    const opened = await connectToNode(
      {
        ...{ host: 'localhost', port: router.port, timeoutMs: 5_000 },
        tls: nodeTlsOf(parseDsn(`postgres://h/d?sslmode=verify-full&${TRUSTING}`)),
      },
      'tls',
    );
    opened.socket.resume().end(request);
    await failed;
  });

  it.each<[string, string, RegExp]>([
    [
      'an authority that did not sign',
      `sslmode=verify-full&sslrootcert=${certificates.otherCa}`,
      /not to be trusted/,
    ],
    ['no encryption', 'sslmode=disable', /no pg_hba.conf entry|no encryption/],
    [
      'no certificate of the router',
      `sslmode=verify-full&${TRUSTING}`,
      /requires a valid client certificate/,
    ],
    ['a file that is not there', 'sslmode=verify-full&sslrootcert=/nonexistent', /no such file/],
  ])('%s: the router does not start, and says why', async (_, query, message) => {
    await expect(routerOver(query)).rejects.toMatchObject({ message: expect.stringMatching(message) });
  });

  it('somebody in between gets no proof of a password that he could use', async () => {
    const [server] = cluster.servers;
    const middle = await ManInTheMiddle.start({
      ...{ targetPort: server!.port, upstream: 'tls' },
      certificate: certificates.untrustedServer,
    });
    ended.push(() => middle.stop());
    await admitBy(
      server!,
      'hostssl all ann 127.0.0.1/32 scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca',
    );
    await server!.query(`CREATE ROLE ann LOGIN PASSWORD '${PASSWORD}'`);
    const open = (query: string): Promise<ControlConnection> =>
      ControlConnection.open({
        nodeName: 'n1',
        dsn: `postgres://ann:${PASSWORD}@127.0.0.1:${middle.port}/app?${query}`,
      });
    // A check of the certificate would find him as well; here it is SCRAM alone.
    await expect(open('sslmode=require')).rejects.toThrow(/SCRAM channel binding check failed/);
    await expect(open(`sslmode=verify-ca&${TRUSTING}`)).rejects.toThrow(/not to be trusted/);
    // What he can have is a login that is not bound.
    const unbound = await open('sslmode=require&channel_binding=disable');
    await unbound.close();
    expect(middle.heard).not.toContain(PASSWORD);
  });

  it('what has to be bound is refused before a password is sent in clear', async () => {
    const [server] = cluster.servers;
    await admitBy(
      server!,
      'hostssl all ann 127.0.0.1/32 password\nhostssl all bob 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca',
    );
    await server!.query(`CREATE ROLE bob LOGIN; CREATE ROLE nat LOGIN`);
    for (const user of ['ann', 'bob']) {
      const opening = ControlConnection.open({
        nodeName: 'n1',
        dsn: `postgres://${user}:${PASSWORD}@127.0.0.1:${server!.port}/app?sslmode=require&channel_binding=require`,
      });
      await expect(opening).rejects.toThrow(
        /did not offer an authentication method that supports channel binding/,
      );
    }
  });

  it('prefer and allow come in as the server’s rules want it, and a direct start is taken', async () => {
    const [server] = cluster.servers;
    await admitBy(
      server!,
      'hostnossl all bob 127.0.0.1/32 trust\nhostssl all nat 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca',
    );
    const isEncrypted = async (user: string, query: string): Promise<unknown> => {
      const connection = await ControlConnection.open({
        nodeName: 'n1',
        dsn: `postgres://${user}@127.0.0.1:${server!.port}/app?${query}`,
      });
      const [row] = await connection.query('SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()');
      await connection.close();
      return row?.ssl;
    };
    for (const mode of ['prefer', 'allow', 'disable'])
      expect(await isEncrypted('bob', `sslmode=${mode}`)).toBe(false);
    for (const mode of ['prefer', 'allow', 'require'])
      expect(await isEncrypted('nat', `sslmode=${mode}`)).toBe(true);
    expect(await isEncrypted('nat', '')).toBe(true);
    expect(await isEncrypted('nat', 'sslmode=require&sslnegotiation=direct')).toBe(true);
    await expect(isEncrypted('bob', 'sslmode=require')).rejects.toThrow(/valid client certificate/);
    await expect(isEncrypted('nat', 'sslmode=disable')).rejects.toThrow(/no pg_hba.conf entry/);
  });
});

describe('with clients', () => {
  let router: Router;
  let options: RouterOptions;
  let stop: () => unknown;
  beforeAll(async () => {
    for (const server of cluster.servers) await admitBy(server, 'host all all 127.0.0.1/32 trust');
    options = {
      ...cluster.routerOptions,
      tls: { certificateFile: shown.certificate, keyFile: shown.key, clientCaFile: certificates.ca },
    };
    router = await startRouter(options);
    stop = () => router.close();
  });
  afterAll(() => stop?.());

  const psql = async (parameters: string, text = 'SELECT 1'): Promise<string> => {
    const dsn = `host=localhost port=${router.port} user=app dbname=app connect_timeout=10 ${parameters}`;
    const env = { PGPASSWORD: PASSWORD };
    const { stdout, stderr } = await promisify(execFile)(
      PSQL,
      ['-XAt', dsn, '-c', '\\conninfo', '-c', text],
      { env },
    ).catch((error: { stdout: string; stderr: string }) => error);
    return stdout + stderr;
  };

  it.runIf(existsSync(PSQL))('psql checks who it talks to', async () => {
    expect(await psql(`sslmode=verify-full sslrootcert=${certificates.ca}`)).toMatch(
      /protocol: TLSv1.3[\s\S]*\n1\n/,
    );
    expect(await psql('sslmode=prefer')).toMatch(/protocol: TLSv1.3/);
    expect(await psql('sslmode=require channel_binding=require')).toMatch(/\n1\n/);
    expect(await psql('sslmode=disable')).toMatch(/^(?!.*TLS)[\s\S]*\n1\n/);
    expect(await psql(`sslmode=verify-full sslrootcert=${certificates.otherCa}`)).toMatch(
      /certificate verify failed/,
    );
    const copied = join(directory, 'copied.txt');
    const copy = (text: string) => psql(`sslmode=require`, text);
    const out = `\\copy (SELECT i, repeat('x', 90) FROM generate_series(1, 30000) AS i) TO '${copied}'`;
    expect(await copy(out)).toMatch(/COPY 30000/);
    expect(await copy('CREATE TABLE copied (i int, v text)')).toMatch(/CREATE TABLE/);
    expect(await copy(`\\copy copied FROM '${copied}'`)).toMatch(/COPY 30000/);
    expect(await copy('SELECT sum(i), sum(length(v)) FROM copied')).toMatch(/450015000\|2700000/);
    const stranger = certificates.issue({ name: 'stranger', by: 'otherCa' });
    expect(await psql(`sslmode=require sslcert=${stranger.certificate} sslkey=${stranger.key}`)).toMatch(
      /FATAL: {2}connection requires a valid client certificate\nDETAIL: {2}unable to/,
    );
  });

  it('rows and parameters pass in any size, both ways', async () => {
    const app = await client(router.port);
    await app.query(
      `CREATE TABLE things (id bigint PRIMARY KEY, v text) WITH (postern.door = 'sharded', postern.key = 'id')`,
    );
    const big = 'ü'.repeat(3_000_000);
    await app.query('INSERT INTO things VALUES ($1, $2)', [1, big]);
    const { rows } = await app.query('SELECT v FROM things WHERE id = $1', [1]);
    expect(rows[0].v === big).toBe(true);
    const many = await app.query("SELECT i, repeat('x', 500) AS v FROM generate_series(1, 20000) AS i");
    expect(many.rows.length).toBe(20_000);
    expect(many.rows.every(({ i }, at) => i === at + 1)).toBe(true);
    // Pipelined by the client, answered in order.
    const answers = await Promise.all(
      Array.from({ length: 200 }, (_, i) => app.query('SELECT $1::int AS i', [i])),
    );
    expect(answers.map((answer) => answer.rows[0].i)).toEqual(Array.from({ length: 200 }, (_, i) => i));
    await app.query('DROP TABLE things');
  });

  it('a client that reads nothing holds up itself alone', async () => {
    const [slow, quick] = [await client(router.port), await client(router.port)];
    const stream = (slow as unknown as { connection: { stream: NodeJS.ReadableStream } }).connection.stream;
    const waits = slow.query("SELECT repeat('x', 1000) FROM generate_series(1, 30000)");
    stream.pause();
    for (let i = 0; i < 20; i++) expect((await quick.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    stream.resume();
    expect((await waits).rows.length).toBe(30_000);
  });

  it('a direct start logs in, and needs the protocol’s name', async () => {
    const start = async (protocols: string[]): Promise<string> => {
      const socket = tlsConnect({
        ...{ host: 'localhost', port: router.port, ca: readFileSync(certificates.ca) },
        ALPNProtocols: protocols,
      });
      const writer = new FrameWriter();
      encodeStartup(
        writer,
        new Map([
          ['user', 'app'],
          ['database', 'app'],
        ]),
      );
      socket.once('secureConnect', () => socket.write(writer.take()));
      return await new Promise((resolve) => {
        socket.once('data', (chunk: Buffer) => {
          resolve(chunk.toString('latin1'));
          socket.destroy();
        });
        socket.once('error', (error) => resolve(error.message));
        socket.once('close', () => resolve('closed'));
      });
    };
    // AuthenticationSASL, and the one with channel binding first.
    expect(await start(['postgresql'])).toMatch(/^R\0{3}.\0{3}\nSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0$/s);
    expect(await start([])).toMatch(/closed|ECONNRESET/);
    expect(await start(['h2'])).toMatch(/no application protocol/);
  });

  it.each<[string, Buffer, string]>([
    ['bytes behind the request', Buffer.from('0000000804d2162f00', 'hex'), 'unencrypted data'],
    ['a second request', Buffer.from('0000000804d21630', 'hex'), 'N'],
  ])('%s', async (_, bytes, answer) => {
    const socket = netConnect(router.port, '127.0.0.1');
    ended.push(() => socket.destroy());
    socket.write(bytes);
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    expect(chunk.toString('latin1')).toContain(answer);
  });

  it('one answer is one record of TLS', async () => {
    const counted = await RecordCounter.start(router.port);
    ended.push(() => counted.stop());
    const app = await client(counted.port);
    const values = ['x'];
    const ask = () =>
      app.query({ name: 'rows', text: 'SELECT i, $1::text AS v FROM generate_series(1, 50) AS i', values });
    await ask();
    const before = counted.records;
    for (let i = 0; i < 5; i++) expect((await ask()).rows.length).toBe(50);
    // Bind, Describe, Execute and Sync come together, and are answered by one write.
    expect(counted.records - before).toBe(5);
  });

  it('a certificate that has changed is shown to the next client, and a broken one to nobody', async () => {
    const before = await client(router.port);
    show(certificates.misnamedServer);
    await router.reload(options);
    await expect(client(router.port)).rejects.toThrow(/altnames/);
    expect((await before.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    show(certificates.server);
    await router.reload(options);
    // The key of another certificate.
    copyFileSync(certificates.client('ann').key, shown.key);
    expect((await router.reload(options)).failures).toEqual([
      expect.stringMatching(/^tls: .*is not the key/),
    ]);
    await client(router.port);
    show(certificates.server);
  });
});

describe('a client that takes its time', () => {
  it('in the handshake has as long as for a login', async () => {
    const router = await routerOver('', { loginTimeoutMs: 300 });
    const request = Buffer.from('0000000804d2162f', 'hex');
    // The S is there, and nothing comes behind it; or the first bytes of TLS, and no more.
    for (const bytes of [request, Buffer.from('1603010200', 'hex')]) {
      const socket = netConnect(router.port, '127.0.0.1');
      ended.push(() => socket.destroy());
      socket.on('error', () => {}).resume();
      socket.write(bytes);
      await once(socket, 'close');
    }
    expect(router.clientCount).toBe(0);
  });
});

describe('front mode', () => {
  it('speaks TLS on both sides', async () => {
    const [server] = cluster.servers;
    await admitBy(server!, 'hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca');
    const front = await startFront(
      dsnOf(server!, NODE_TLS),
      {
        ...{ host: '127.0.0.1', port: 0, connections: 4, coalesce: true, workers: 1 },
        ...{ tlsCert: certificates.server.certificate, tlsKey: certificates.server.key },
      },
      { info() {}, warn() {}, error() {} },
    );
    ended.push(() => front.close());
    const app = await client(front.port, { user: 'operator' });
    const { rows } = await app.query('SELECT ssl, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()');
    expect(rows).toEqual([{ ssl: true, client_dn: '/CN=router' }]);
  });
});

/** Passes bytes on, and counts the records of application data that the server sends. */
class RecordCounter {
  records = 0;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(target: number): Promise<RecordCounter> {
    const server = createServer();
    const counter = new RecordCounter(server);
    server.on('connection', (client) => {
      const upstream = netConnect(target, '127.0.0.1');
      client
        .on('error', () => {})
        .pipe(upstream)
        .on('error', () => {});
      let early = Buffer.alloc(0);
      let hasAnswered = false;
      upstream.on('data', (chunk: Buffer) => {
        client.write(chunk);
        early = Buffer.concat([early, chunk]);
        // The S that comes before TLS.
        if (!hasAnswered) early = early.subarray(1);
        hasAnswered = true;
        for (let length = 0; early.length >= 5; early = early.subarray(length)) {
          length = 5 + early.readUInt16BE(3);
          if (early.length < length) return;
          if (early[0] === 0x17) counter.records++;
        }
      });
      upstream.on('close', () => client.destroy());
    });
    server.listen(0, 'localhost');
    await once(server, 'listening');
    return counter;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  stop(): void {
    this.#server.close();
  }
}

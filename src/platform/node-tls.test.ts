/** Against servers of the test's own that answer as it wants; PostgreSQL itself is asked in test/door/tls.test.ts. */
import { once } from 'node:events';
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TLSSocket, type TLSSocketOptions } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  type CertificateFiles,
  type Certificates,
  makeCertificates,
} from '../../test/support/certificates.ts';
import { parseDsn } from '../pg/dsn.ts';
import { type Encryption, nodeTlsOf } from '../pg/dsn-tls.ts';
import { tlsServerEndPoint } from './certificate.ts';
import { connectToNode, type NodeSocket, TlsFailed, tryEncryptions } from './node-tls.ts';

let directory: string;
let certificates: Certificates;
const servers: Server[] = [];
const sockets = new Set<Socket>();

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'postern-node-tls-'));
  certificates = makeCertificates(directory);
});
afterEach(() => {
  for (const socket of sockets) socket.destroy();
  sockets.clear();
  for (const server of servers.splice(0)) server.close();
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** A server that does this with each connection; gives its port. */
async function serve(onClient: (socket: Socket) => void): Promise<number> {
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    onClient(socket);
  });
  servers.push(server);
  server.listen(0, 'localhost');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

/** Says S and speaks TLS with this certificate, and then says who it thinks the client is. */
function serveTls(
  files: CertificateFiles,
  options: TLSSocketOptions & { direct?: boolean } = {},
): Promise<number> {
  const encrypt = (socket: Socket): void => {
    const secure = new TLSSocket(socket, {
      isServer: true,
      cert: readFileSync(files.certificate),
      key: readFileSync(files.key),
      ...options,
    });
    secure.on('error', () => {}).on('_tlsError', () => {});
    secure.once('secure', () => secure.write(String(secure.getPeerCertificate()?.subject?.CN ?? 'nobody')));
  };
  return serve((socket) => {
    if (options.direct) encrypt(socket);
    else
      socket.once('data', (request: Buffer) => {
        expect(request.toString('hex')).toBe('0000000804d2162f');
        socket.write('S');
        encrypt(socket);
      });
  });
}

interface Reach {
  readonly host?: string;
  readonly encryption?: Encryption;
  readonly timeoutMs?: number;
}

async function reach(port: number, query: string, options: Reach = {}): Promise<NodeSocket> {
  const { host = 'localhost', encryption = 'tls', timeoutMs = 5_000 } = options;
  const tls = nodeTlsOf(parseDsn(`postgres://h/d?${query}`));
  const opened = await connectToNode({ host, port, tls, timeoutMs }, encryption);
  sockets.add(opened.socket);
  opened.socket.on('error', () => {});
  return opened;
}

async function hear({ socket }: NodeSocket): Promise<string> {
  const [chunk] = (await once(socket, 'data')) as [Buffer];
  return chunk.toString();
}

describe('a server without TLS', () => {
  it('is gone on with as it is for prefer alone', async () => {
    const port = await serve((socket) =>
      socket.once('data', () => {
        socket.write('N');
        socket.once('data', (next: Buffer) => socket.write(`plain ${next}`));
      }),
    );
    const opened = await reach(port, 'sslmode=prefer');
    expect(opened).toMatchObject({ encrypted: false, serverEndPoint: undefined });
    opened.socket.write('hello');
    expect(await hear(opened)).toBe('plain hello');
    for (const mode of ['allow', 'require'])
      await expect(reach(port, `sslmode=${mode}`)).rejects.toThrow(/does not do TLS, and sslmode=/);
    await expect(reach(port, `sslrootcert=${certificates.ca}&sslmode=verify-full`)).rejects.toThrow(
      TlsFailed,
    );
  });
});

describe('somebody in between', () => {
  it.each<[string, string, RegExp]>([
    ['who sends bytes behind the answer', 'SE', /unencrypted data/],
    ['who sends bytes behind an N', 'NR', /unencrypted data/],
    ['who answers with an error', 'E', /sent an error, or no answer/],
    ['who answers with what is nothing', '?', /sent an error, or no answer/],
  ])('%s is refused', async (_, answer, message) => {
    const port = await serve((socket) => socket.once('data', () => socket.write(answer)));
    for (const mode of ['prefer', 'require'])
      await expect(reach(port, `sslmode=${mode}`)).rejects.toThrow(message);
  });

  it('who says S and speaks no TLS, or closes, is refused', async () => {
    const speaks = await serve((socket) => {
      socket.once('data', () => {
        socket.write('S');
        socket.once('data', () => socket.write('ERROR: come in'));
      });
    });
    await expect(reach(speaks, 'sslmode=require')).rejects.toThrow(
      /^no TLS with the server: wrong version number$/,
    );
    const closes = await serve((socket) => socket.once('data', () => socket.destroy()));
    await expect(reach(closes, 'sslmode=require')).rejects.toThrow(/closed the connection|ECONNRESET/);
  });

  it('who says nothing is waited for so long and no longer', async () => {
    const silent = await serve(() => {});
    await expect(reach(silent, 'sslmode=require', { timeoutMs: 150 })).rejects.toThrow(/no TLS within/);
    const halfWay = await serve((socket) => socket.once('data', () => socket.write('S')));
    await expect(reach(halfWay, 'sslmode=require', { timeoutMs: 150 })).rejects.toThrow(/no TLS within/);
  });
});

describe('a certificate', () => {
  it.each<[string, string, () => CertificateFiles, RegExp | undefined]>([
    ['right', 'verify-full', () => certificates.server, undefined],
    ['right', 'verify-ca', () => certificates.server, undefined],
    ['for another host', 'verify-full', () => certificates.misnamedServer, /for another host/],
    ['for another host', 'verify-ca', () => certificates.misnamedServer, undefined],
    ['of another authority', 'verify-full', () => certificates.untrustedServer, /not to be trusted/],
    ['of another authority', 'verify-ca', () => certificates.untrustedServer, /not to be trusted/],
    ['of another authority', 'require', () => certificates.untrustedServer, /not to be trusted/],
    ['that has run out', 'verify-ca', () => certificates.expiredServer, /not to be trusted: .*expired/],
    ['of a client', 'verify-ca', () => certificates.client('ann'), /not to be trusted: .*purpose/],
  ])('%s, with %s', async (_, mode, files, refusal) => {
    const port = await serveTls(files());
    const attempt = reach(port, `sslmode=${mode}&sslrootcert=${certificates.ca}`);
    if (refusal) await expect(attempt).rejects.toThrow(refusal);
    else expect(await attempt).toMatchObject({ encrypted: true });
  });

  it('is looked at by nobody with require and prefer', async () => {
    const port = await serveTls(certificates.untrustedServer);
    for (const mode of ['require', 'prefer', 'allow'])
      expect(await reach(port, `sslmode=${mode}`)).toMatchObject({ encrypted: true });
  });

  it('names an address as it names a host', async () => {
    const port = await serveTls(certificates.server);
    const onlyName = certificates.issue({ name: 'only-name', names: 'DNS:localhost' });
    const otherPort = await serveTls(onlyName);
    const query = `sslmode=verify-full&sslrootcert=${certificates.ca}`;
    const host = (servers[0]!.address() as AddressInfo).address;
    expect(await reach(port, query, { host })).toMatchObject({ encrypted: true });
    await expect(reach(otherPort, query, { host })).rejects.toThrow(/for another host/);
  });

  it('is not trusted by the public roots, nor by a list that revokes it', async () => {
    const port = await serveTls(certificates.server);
    await expect(reach(port, 'sslrootcert=system')).rejects.toThrow(/not to be trusted/);
    const list = certificates.revocationList([certificates.server]);
    const query = `sslmode=verify-ca&sslrootcert=${certificates.ca}&sslcrl=${list}`;
    await expect(reach(port, query)).rejects.toThrow(/revoked/);
  });

  it('gives its hash for channel binding, unless that is not wanted', async () => {
    const port = await serveTls(certificates.server);
    const { socket, serverEndPoint } = await reach(port, 'sslmode=require');
    expect(serverEndPoint).toEqual(tlsServerEndPoint((socket as TLSSocket).getPeerCertificate().raw));
    expect((await reach(port, 'sslmode=require&channel_binding=disable')).serverEndPoint).toBeUndefined();
  });

  it('of the router is shown', async () => {
    const ann = certificates.client('ann');
    const port = await serveTls(certificates.server, { requestCert: true, rejectUnauthorized: false });
    expect(await hear(await reach(port, 'sslmode=require'))).toBe('nobody');
    const query = `sslmode=require&sslcert=${ann.certificate}&sslkey=${ann.key}`;
    expect(await hear(await reach(port, query))).toBe('ann');
    const locked = certificates.issue({ name: 'locked', passphrase: 'hush' });
    const lockedQuery = `sslmode=require&sslcert=${locked.certificate}&sslkey=${locked.key}`;
    expect(await hear(await reach(port, `${lockedQuery}&sslpassword=hush`))).toBe('locked');
    const refused = await reach(port, `${lockedQuery}&sslpassword=hash`).catch(
      (error: Error) => error.message,
    );
    expect(refused).toMatch(/^the files of sslrootcert, sslcert, sslkey or sslcrl can't be used/);
    expect(refused).not.toContain('hash');
  });

  it('is checked with the file of roots as it is now', async () => {
    const port = await serveTls(certificates.server);
    const roots = join(directory, 'roots.crt');
    const query = `sslmode=verify-full&sslrootcert=${roots}`;
    await expect(reach(port, query)).rejects.toThrow(/cannot read the root certificates of sslrootcert/);
    copyFileSync(certificates.otherCa, roots);
    await expect(reach(port, query)).rejects.toThrow(/not to be trusted/);
    copyFileSync(certificates.ca, roots);
    expect(await reach(port, query)).toMatchObject({ encrypted: true });
  });
});

describe('a direct start', () => {
  it('needs a server that knows the protocol by name', async () => {
    const query = 'sslmode=require&sslnegotiation=direct';
    const knows = await serveTls(certificates.server, { direct: true, ALPNProtocols: ['postgresql'] });
    expect(await reach(knows, query)).toMatchObject({ encrypted: true });
    const other = await serveTls(certificates.server, { direct: true });
    await expect(reach(other, query)).rejects.toThrow(/\(ALPN\): it is another kind of server/);
  });
});

describe('tryEncryptions', () => {
  const refusal = new Error('no entry');
  const isRefusal = (error: unknown): boolean => error === refusal;
  const lost = new Error('lost');
  it.each<[string, (Error | 'ok')[], string[], string]>([
    ['prefer', ['ok'], ['tls'], 'tls'],
    ['prefer', [refusal, 'ok'], ['tls', 'plain'], 'plain'],
    ['prefer', [new TlsFailed('no'), 'ok'], ['tls', 'plain'], 'plain'],
    ['prefer', [lost], ['tls'], 'lost'],
    ['prefer', [refusal, lost], ['tls', 'plain'], 'no entry'],
    ['allow', ['ok'], ['plain'], 'plain'],
    ['allow', [refusal, 'ok'], ['plain', 'tls'], 'tls'],
    ['require', [refusal], ['tls'], 'no entry'],
    ['disable', [refusal], ['plain'], 'no entry'],
  ])('%s: %j', async (mode, outcomes, tried, result) => {
    const tls = nodeTlsOf(parseDsn(`postgres://h/d?sslmode=${mode}`));
    const seen: string[] = [];
    const attempt = (encryption: Encryption): Promise<string> => {
      const outcome = outcomes[seen.length]!;
      seen.push(encryption);
      return outcome === 'ok' ? Promise.resolve(encryption) : Promise.reject(outcome);
    };
    const got = await tryEncryptions({ tls, host: 'h' }, attempt, isRefusal).catch(
      (error: Error) => error.message,
    );
    expect({ got, seen }).toEqual({ got: result, seen: tried });
  });
});

/** Real handshakes with Node's own client, over loopback. */
import { once } from 'node:events';
import { chmodSync, copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, connect as netConnect, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ConnectionOptions, type TLSSocket, connect as tlsConnect } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import {
  type CertificateFiles,
  type Certificates,
  makeCertificates,
} from '../../test/support/certificates.ts';
import { tlsServerEndPoint } from './certificate.ts';
import {
  type AcceptedTls,
  ClientTls,
  type ClientTlsOptions,
  startsTls,
  type TlsStart,
} from './client-tls.ts';

let directory: string;
let certificates: Certificates;
let server: Server;
const opened: (Socket | ClientTls)[] = [];

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'postern-client-tls-'));
  certificates = makeCertificates(directory);
  server = createServer({ pauseOnConnect: true });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
});
afterEach(() => {
  for (const one of opened.splice(0)) 'close' in one ? one.close() : one.destroy();
});
afterAll(() => {
  server?.close();
  rmSync(directory, { recursive: true, force: true });
});

const optionsOf = (files: CertificateFiles, more: Partial<ClientTlsOptions> = {}): ClientTlsOptions => ({
  certificateFile: files.certificate,
  keyFile: files.key,
  ...more,
});

function start(options: ClientTlsOptions, log?: ConstructorParameters<typeof ClientTls>[1]): ClientTls {
  const tls = new ClientTls(options, log);
  opened.push(tls);
  return tls;
}

/** Both ends of a TCP connection. */
async function pair(): Promise<{ client: Socket; accepted: Socket }> {
  const client = netConnect((server.address() as AddressInfo).port, '127.0.0.1');
  const [accepted] = (await once(server, 'connection')) as [Socket];
  for (const socket of [client, accepted]) {
    socket.on('error', () => {});
    opened.push(socket);
  }
  return { client, accepted };
}

interface Handshake {
  readonly client: TLSSocket;
  readonly accepted: AcceptedTls;
}

async function handshake(
  tls: ClientTls,
  options: ConnectionOptions = {},
  kind: TlsStart = 'negotiated',
): Promise<Handshake> {
  const { client: socket, accepted: plain } = await pair();
  const client = tlsConnect({
    ...{ socket, host: 'localhost', ca: readFileSync(certificates.ca), ALPNProtocols: ['postgresql'] },
    ...options,
  });
  opened.push(client);
  // Of both sides, the one that fails is told.
  const [, accepted] = await Promise.all([
    new Promise<void>((resolve, reject) => {
      client.once('secureConnect', resolve).on('error', reject);
      client.on('close', () => reject(new Error('closed')));
    }),
    acceptAfterFirst(tls, plain, kind),
  ]);
  accepted.socket.on('error', () => {});
  opened.push(accepted.socket);
  return { client, accepted };
}

/** As a login does: a direct start is known by what has been read already. */
async function acceptAfterFirst(tls: ClientTls, plain: Socket, kind: TlsStart): Promise<AcceptedTls> {
  if (kind === 'negotiated') return tls.accept(plain, Buffer.alloc(0), kind);
  plain.resume();
  const first = await new Promise<Buffer>((resolve) => plain.once('data', resolve));
  plain.pause();
  expect(startsTls(first)).toBe(true);
  return tls.accept(plain, first, kind);
}

const withCertificate = ({ certificate, key }: CertificateFiles): ConnectionOptions => ({
  cert: readFileSync(certificate),
  key: readFileSync(key),
});

async function echoes({ client, accepted }: Handshake): Promise<void> {
  accepted.socket.on('data', (chunk: Buffer) => accepted.socket.write(chunk));
  client.write('hello');
  const [answer] = (await once(client, 'data')) as [Buffer];
  expect(answer.toString()).toBe('hello');
}

describe('a handshake', () => {
  it.each<TlsStart>(['negotiated', 'direct'])('%s', async (kind) => {
    const tls = start(optionsOf(certificates.server));
    const both = await handshake(tls, {}, kind);
    const { accepted, client } = both;
    expect(accepted.refusal).toBeUndefined();
    expect(accepted.security).toEqual({
      encrypted: true,
      protocol: 'TLSv1.3',
      serverEndPoint: tlsServerEndPoint(client.getPeerCertificate().raw),
      certificate: undefined,
    });
    await echoes(both);
    expect(tls.counters).toMatchObject({ handshakes: 1, failedHandshakes: 0 });
  });

  it('needs no ALPN when it was asked for, and no other protocol either', async () => {
    const tls = start(optionsOf(certificates.server));
    await echoes(await handshake(tls, { ALPNProtocols: [] }));
    await expect(handshake(tls, { ALPNProtocols: ['http/1.1'] })).rejects.toThrow(/no application protocol/i);
    await expect(handshake(tls, { ALPNProtocols: [] }, 'direct')).rejects.toThrow(/without ALPN|closed/);
    await vi.waitFor(() => expect(tls.counters.failedHandshakes).toBe(2));
  });

  it('ends a client that sends what is no TLS', async () => {
    const tls = start(optionsOf(certificates.server));
    const { client, accepted } = await pair();
    const refused = expect(tls.accept(accepted, Buffer.alloc(0), 'negotiated')).rejects.toThrow(
      /no TLS with the client/,
    );
    // A start-up packet in the clear, behind an S.
    client.write(Buffer.from([0, 0, 0, 8, 0, 3, 0, 0]));
    await refused;
    client.resume();
    await once(client, 'close');
    expect(accepted.destroyed).toBe(true);
  });

  it('ends with a client that goes away, or is cut off', async () => {
    const tls = start(optionsOf(certificates.server));
    for (const end of ['client', 'accepted'] as const) {
      const both = await pair();
      const refused = expect(tls.accept(both.accepted, Buffer.alloc(0), 'negotiated')).rejects.toThrow();
      both[end].destroy();
      await refused;
    }
  });

  it('may be undone at once, in any order', async () => {
    const tls = start(optionsOf(certificates.server, { clientCaFile: certificates.ca }));
    for (let i = 0; i < 20; i++) {
      const { client: socket, accepted: plain } = await pair();
      const client = tlsConnect({ socket, rejectUnauthorized: false });
      client.on('error', () => {});
      const { socket: secure } = await tls.accept(plain, Buffer.alloc(0), 'negotiated');
      for (const one of i % 2 === 0 ? [plain, secure] : [secure, plain]) one.destroy();
      client.destroy();
    }
    expect(tls.counters).toMatchObject({ handshakes: 20, failedHandshakes: 0 });
  });

  it('ends a connection whose bytes somebody has changed', async () => {
    const tls = start(optionsOf(certificates.server));
    const { accepted, client } = await handshake(tls);
    accepted.socket.resume();
    const closed = once(accepted.socket, 'close');
    // Beneath TLS: a record that is none of the client's.
    const parent = (client as unknown as { _parent: Socket })._parent;
    const handle = (parent as unknown as { _handle: { writeLatin1String(req: object, text: string): void } })
      ._handle;
    const { WriteWrap } = (
      process as unknown as { binding(name: string): Record<string, new () => object> }
    ).binding('stream_wrap');
    handle.writeLatin1String(new WriteWrap!(), `\x17\x03\x03\x00\x20${'x'.repeat(32)}`);
    await closed;
    expect(accepted.socket.destroyed).toBe(true);
  });

  it('keeps to the least version', async () => {
    const old = { maxVersion: 'TLSv1.2' } as const;
    const usual = await handshake(start(optionsOf(certificates.server)), old);
    expect(usual.accepted.security.protocol).toBe('TLSv1.2');
    const strict = start(optionsOf(certificates.server, { minimumVersion: 'TLSv1.3' }));
    await expect(handshake(strict, old)).rejects.toThrow(/protocol version|unsupported protocol/i);
    const older = { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const;
    await expect(handshake(start(optionsOf(certificates.server)), older)).rejects.toThrow(
      /protocol version|unsupported protocol/i,
    );
  });

  it('is refused while TLS is off', async () => {
    const tls = new ClientTls(undefined);
    opened.push(tls);
    expect(tls.enabled).toBe(false);
    const { accepted } = await pair();
    await expect(tls.accept(accepted, Buffer.alloc(0), 'direct')).rejects.toThrow('TLS is off');
    expect(accepted.destroyed).toBe(true);
  });
});

describe('a client’s certificate', () => {
  const ask = (more: Partial<ClientTlsOptions> = {}) =>
    start(optionsOf(certificates.server, { clientCaFile: certificates.ca, ...more }));

  it('is known when it is valid, and is not needed', async () => {
    const tls = ask();
    const shop = certificates.issue({ name: 'shop', subject: '/O=Shop/OU=Till/CN=ann', usage: 'clientAuth' });
    const { accepted } = await handshake(tls, withCertificate(shop));
    expect(accepted.refusal).toBeUndefined();
    expect(accepted.security.certificate).toEqual({
      commonName: 'ann',
      distinguishedName: 'CN=ann,OU=Till,O=Shop',
    });
    const without = await handshake(tls);
    expect(without.accepted.refusal).toBeUndefined();
    expect(without.accepted.security.certificate).toBeUndefined();
  });

  it.each<[string, () => CertificateFiles, RegExp]>([
    ['of another authority', () => certificates.issue({ name: 'stranger', by: 'otherCa' }), /unable to/],
    ['that has run out', () => certificates.issue({ name: 'late', expired: true }), /expired/],
    ['of a server', () => certificates.server, /purpose/],
  ])('%s is refused, and says nothing', async (_, files, detail) => {
    const tls = ask();
    const { accepted } = await handshake(tls, withCertificate(files()));
    expect(accepted.refusal).toMatchObject({
      sqlState: '28000',
      message: 'connection requires a valid client certificate',
      detail: expect.stringMatching(detail),
    });
    expect(accepted.security.certificate).toBeUndefined();
    expect(tls.counters.refusedCertificates).toBe(1);
  });

  it('that is revoked is refused', async () => {
    const [kept, revoked] = [certificates.client('kept'), certificates.client('revoked')];
    const tls = ask({ clientCrlFile: certificates.revocationList([revoked]) });
    expect((await handshake(tls, withCertificate(kept))).accepted.refusal).toBeUndefined();
    expect((await handshake(tls, withCertificate(revoked))).accepted.refusal?.detail).toMatch(/revoked/);
  });

  it('is shown again by each connection: no session is resumed', async () => {
    const tls = ask();
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      const first = await handshake(tls, { maxVersion, ...withCertificate(certificates.client('ann')) });
      let session: Buffer | undefined = first.client.getSession();
      first.client.on('session', (ticket: Buffer) => (session = ticket));
      await echoes(first);
      const { client } = await handshake(tls, { maxVersion, session });
      expect(client.isSessionReused()).toBe(false);
    }
  });

  it('is not asked for without an authority', async () => {
    const tls = start(optionsOf(certificates.server));
    const { accepted } = await handshake(tls, withCertificate(certificates.client('ann')));
    expect(accepted.security.certificate).toBeUndefined();
  });
});

describe('files', () => {
  const place = (name: string, source: string | Buffer): string => {
    const file = join(directory, name);
    if (typeof source === 'string') copyFileSync(source, file);
    else writeFileSync(file, source);
    chmodSync(file, 0o600);
    return file;
  };

  it.each<[string, (files: CertificateFiles) => ClientTlsOptions, RegExp]>([
    [
      'a certificate that is not there',
      (files) => optionsOf({ ...files, certificate: '/nonexistent/a.crt' }),
      /^cannot read tls.certificate_file "\/nonexistent\/a.crt": there is no such file$/,
    ],
    ['a directory', (files) => optionsOf({ ...files, certificate: directory }), /is not a file/],
    ['no certificate', (files) => optionsOf({ ...files, certificate: files.key }), /holds no certificate/],
    [
      'no key',
      (files) => optionsOf({ ...files, key: place('none.key', Buffer.from('key')) }),
      /no private key/,
    ],
    [
      'the key of another',
      (files) => optionsOf({ ...files, key: certificates.client('ann').key }),
      /is not the key of tls.certificate_file/,
    ],
    [
      'a key that others may read',
      (files) => {
        const key = place('open.key', files.key);
        chmodSync(key, 0o644);
        return optionsOf({ ...files, key });
      },
      /may be read by others/,
    ],
    [
      'an encrypted key without its passphrase',
      () => optionsOf(certificates.issue({ name: 'locked', passphrase: 'hush' })),
      /is encrypted/,
    ],
    [
      'an encrypted key with another passphrase',
      () => optionsOf(certificates.issue({ name: 'locked', passphrase: 'hush' }), { keyPassphrase: 'hash' }),
      /its passphrase is another/,
    ],
    [
      'an authority that is none',
      (files) => optionsOf(files, { clientCaFile: files.key }),
      /tls.client_ca_file ".*" holds no certificate/,
    ],
    ['a list of no authority', (files) => optionsOf(files, { clientCrlFile: certificates.ca }), /needs/],
    [
      'a list that is none',
      (files) => optionsOf(files, { clientCaFile: certificates.ca, clientCrlFile: files.key }),
      /client_crl_file can't be used/,
    ],
    ['ciphers that there are not', (files) => optionsOf(files, { ciphers: 'NONE-OF-THESE' }), /tls.ciphers/],
  ])('%s: refused', (_, options, message) => {
    let text = '';
    try {
      start(options(certificates.server));
    } catch (error) {
      expect(error).toMatchObject({ sqlState: '22023' });
      text = (error as Error).message;
    }
    expect(text).toMatch(message);
    expect(text).not.toMatch(/hush|hash|BEGIN/);
  });

  it('of a key with a passphrase are used', async () => {
    const files = certificates.issue({ name: 'locked', passphrase: 'hush' });
    await echoes(
      await handshake(start(optionsOf(files, { keyPassphrase: 'hush' })), { rejectUnauthorized: false }),
    );
  });

  const subjectOfServer = async (tls: ClientTls): Promise<string> => {
    const { client, accepted } = await handshake(tls, { rejectUnauthorized: false });
    const { raw, subject } = client.getPeerCertificate();
    expect(accepted.security.serverEndPoint).toEqual(tlsServerEndPoint(raw));
    return `CN=${subject.CN}`;
  };

  it('that change are loaded, and ones that can’t be used are not', async () => {
    const lines: string[] = [];
    const log = {
      info: (line: string) => void lines.push(`info ${line}`),
      warn: (line: string) => void lines.push(`warn ${line}`),
    };
    const files = {
      certificate: place('turning.crt', certificates.server.certificate),
      key: place('turning.key', certificates.server.key),
    };
    const tls = start(optionsOf(files), log);
    tls.look();
    expect(tls.counters.reloads).toBe(0);
    const before = await handshake(tls);
    expect(await subjectOfServer(tls)).toBe('CN=localhost');

    // The first half of an exchange of both.
    place('turning.crt', certificates.misnamedServer.certificate);
    tls.look();
    tls.look();
    expect(await subjectOfServer(tls)).toBe('CN=localhost');
    expect(lines).toEqual([
      expect.stringMatching(/^warn the changed TLS files are not used: .*is not the key/),
    ]);

    place('turning.key', certificates.misnamedServer.key);
    tls.look();
    expect(await subjectOfServer(tls)).toBe('CN=elsewhere.example');
    expect(lines.slice(1)).toEqual([expect.stringMatching(/^info TLS with clients: .*elsewhere/)]);
    expect(tls.counters).toMatchObject({ reloads: 1, failedReloads: 1 });
    // Who was there before stays.
    await echoes(before);

    rmSync(files.key);
    tls.look();
    expect(lines[2]).toMatch(/^warn .*no such file/);
    expect(await subjectOfServer(tls)).toBe('CN=elsewhere.example');
  });

  it('are others after a reload, which can also turn TLS off and on', async () => {
    const tls = start(optionsOf(certificates.server));
    tls.reload(optionsOf(certificates.misnamedServer));
    expect(await subjectOfServer(tls)).toBe('CN=elsewhere.example');
    expect(() => tls.reload(optionsOf({ ...certificates.server, key: '/nonexistent' }))).toThrow(
      /no such file/,
    );
    expect(await subjectOfServer(tls)).toBe('CN=elsewhere.example');
    tls.reload(undefined);
    expect(tls.enabled).toBe(false);
    tls.reload(optionsOf(certificates.server));
    expect(await subjectOfServer(tls)).toBe('CN=localhost');
  });

  it('of a certificate that has run out are used, with a warning', () => {
    const lines: string[] = [];
    const log = { info() {}, warn: (line: string) => void lines.push(line) };
    const tls = start(optionsOf(certificates.expiredServer), log);
    expect(lines).toEqual([expect.stringMatching(/has run out: .*2020-02-01T00:00:00/)]);
    expect(tls.certificateExpiresAtMs).toBe(Date.parse('2020-02-01T00:00:00Z'));
  });
});

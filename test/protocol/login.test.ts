/** The way in: encryption requests, start-up parameters, SCRAM on both sides, and what is refused, in which words. */
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FrameWriter } from '../../src/wire/frame-writer.ts';
import { encodeSslRequest } from '../../src/wire/startup.ts';
import { RawClient } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await startTestCluster({
    nodeAuth: 'scram-sha-256',
    users: [
      { name: 'app', password: 'secret of app' },
      { name: 'other', password: 'pässwörd ✓' },
      { name: 'trusted', password: undefined },
      { name: 'postgres', password: 'postgres' },
    ],
  });
});
afterAll(() => cluster?.stop());

async function login(config: pg.ClientConfig): Promise<string> {
  const client = new pg.Client({ host: '127.0.0.1', port: cluster.port, database: 'app', ...config });
  client.on('error', () => {});
  try {
    await client.connect();
    const { rows } = await client.query('SELECT current_user AS u, session_user AS s');
    return `${rows[0].u} ${rows[0].s}`;
  } catch (error) {
    const { severity, code, message } = error as pg.DatabaseError;
    return `${severity} ${code} ${message}`;
  } finally {
    await client.end().catch(() => {});
  }
}

describe('a password', () => {
  it('that is right lets in, to the nodes as well', async () => {
    expect(await login({ user: 'app', password: 'secret of app' })).toBe('app app');
    expect(await login({ user: 'other', password: 'pässwörd ✓' })).toBe('other other');
  });

  it('that is wrong is refused like a user that does not exist', async () => {
    expect(await login({ user: 'app', password: 'wrong' })).toBe(
      'FATAL 28P01 password authentication failed for user "app"',
    );
    expect(await login({ user: 'nobody', password: 'wrong' })).toBe(
      'FATAL 28P01 password authentication failed for user "nobody"',
    );
  });

  it('that the router lacks for a node is said plainly', async () => {
    expect(await login({ user: 'trusted' })).toMatch(/FATAL 08001 .*password of role "trusted"/);
  });
});

describe('a start-up packet', () => {
  const start = (parameters: Record<string, string>, database = 'app'): Promise<RawClient> =>
    RawClient.connect({ port: trusting!.port, database, parameters });
  let trusting: TestCluster | undefined;

  beforeAll(async () => {
    trusting = await startTestCluster({ nodes: 1 });
  });
  afterAll(() => trusting?.stop());

  it('brings settings that RESET goes back to', async () => {
    const client = await start({
      options: '-c TimeZone=Asia/Tokyo --statement-timeout=12345 -c application_name=a\\ b',
      DateStyle: 'German',
      client_encoding: 'UTF8',
    });
    expect(client.parameters.get('TimeZone')).toBe('Asia/Tokyo');
    expect(client.parameters.get('application_name')).toBe('a b');
    expect(await client.query('SHOW statement_timeout')).toContain('Row 12345ms');
    await client.query("SET TimeZone = 'UTC'");
    expect(await client.query('RESET TimeZone')).toEqual(
      ['Complete RESET', 'Parameter TimeZone=Asia/Tokyo', 'Ready I'].filter(
        (line) => !line.startsWith('Parameter'),
      ),
    );
    expect(await client.query('SHOW TimeZone')).toContain('Row Asia/Tokyo');
    expect(await client.query('SHOW DateStyle')).toContain('Row German, DMY');
    client.end();
  });

  it('with what is wrong is refused', async () => {
    await expect(start({}, 'elsewhere')).rejects.toThrow(
      'FATAL C=3D000 M=database "elsewhere" does not exist',
    );
    await expect(start({ client_encoding: 'LATIN1' })).rejects.toThrow('FATAL C=0A000');
    await expect(start({ options: '-c nonsense_setting=1' })).rejects.toThrow('FATAL C=42704');
    await expect(start({ options: '-c statement_timeout=soon' })).rejects.toThrow('FATAL C=22023');
    await expect(start({ replication: 'database' })).rejects.toThrow('FATAL C=0A000');
    // Who is not known has to go through the motions of a password.
    await expect(RawClient.connect({ port: trusting!.port, user: 'unheard of' })).rejects.toThrow(
      'Authentication sasl',
    );
  });

  it('of a later minor version is answered with the one that is spoken', async () => {
    const client = await RawClient.connect({ port: trusting!.port, minorVersion: 2 });
    expect(client.secretKey.length).toBe(32);
    client.end();
    const older = await RawClient.connect({ port: trusting!.port });
    expect(older.secretKey.length).toBe(4);
    older.end();
  });
});

describe('a request for encryption', () => {
  it('is answered with N, and the login goes on', async () => {
    const socket = connectTcp({ host: '127.0.0.1', port: cluster.port });
    const writer = new FrameWriter();
    encodeSslRequest(writer);
    socket.write(writer.take());
    expect(String((await once(socket, 'data'))[0])).toBe('N');
    // GSSENCRequest
    socket.write(Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30]));
    expect(String((await once(socket, 'data'))[0])).toBe('N');
    socket.destroy();
  });

  it('that insists ends cleanly', async () => {
    expect(await login({ user: 'app', password: 'secret of app', ssl: true })).toContain(
      'The server does not support SSL connections',
    );
  });
});

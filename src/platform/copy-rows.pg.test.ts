import { afterAll, beforeAll, expect, test } from 'vitest';
import { startTestServer, type TestServer } from '../../test/support/servers.ts';
import { ControlConnection } from './control-connection.ts';
import { copyRows } from './copy-rows.ts';

let server: TestServer;
let source: ControlConnection;
let target: ControlConnection;

beforeAll(async () => {
  server = await startTestServer();
  source = await ControlConnection.open({ nodeName: 'source', dsn: server.dsn() });
});

afterAll(async () => {
  await Promise.all([source?.close(), target?.close()]);
  await server?.stop();
});

async function copy(select: string, table = 'public.t'): Promise<void> {
  if (!target || target.lost)
    target = await ControlConnection.open({ nodeName: 'target', dsn: server.dsn() });
  await target.query('CREATE TABLE IF NOT EXISTS public.t (id int PRIMARY KEY, v text); TRUNCATE public.t');
  await copyRows({
    source,
    sourceText: `COPY (${select}) TO STDOUT`,
    target,
    targetText: `COPY ${table} FROM STDIN`,
    timeoutMs: 60_000,
  });
}

async function counted(): Promise<unknown> {
  const rows = await target.query<{ count: number }>('SELECT count(*)::int FROM public.t');
  return rows[0]?.count;
}

test('copies more than fits into a socket, and nothing', async () => {
  await copy(`SELECT g, repeat('x', 1000) FROM generate_series(1, 40000) g`);
  expect(await counted()).toBe(40_000);
  await copy('SELECT 1, NULL WHERE false');
  expect(await counted()).toBe(0);
});

test('the source fails in the middle: its error, and no rows', async () => {
  const select = `SELECT 10 / (20000 - g), repeat('x', 100) FROM generate_series(1, 30000) g`;
  await expect(copy(select)).rejects.toMatchObject({ sqlState: '22012', nodeName: 'source' });
  expect(await counted()).toBe(0);
  await copy(`SELECT 1, 'again'`);
  expect(await counted()).toBe(1);
});

test('the target refuses a row, or the whole statement: its error, and both can be used again', async () => {
  const twice = `SELECT g % 20000, repeat('x', 1000) FROM generate_series(1, 30000) g`;
  await expect(copy(twice)).rejects.toMatchObject({ sqlState: '23505', nodeName: 'target' });
  await expect(copy('SELECT 1', 'public.nowhere')).rejects.toMatchObject({
    sqlState: '42P01',
    nodeName: 'target',
  });
  await expect(copy('SELECT 1, 2, 3')).rejects.toMatchObject({ sqlState: '22P04', nodeName: 'target' });
  await copy(`SELECT 1, 'again'`);
  expect(await counted()).toBe(1);
});

test('the target goes away in the middle: an error soon, and the source can be used again', async () => {
  await server.query(`CREATE FUNCTION leave(text) RETURNS bool LANGUAGE plpgsql AS
    $$ BEGIN IF $1 = 'go' THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN true; END $$;
    CREATE TABLE trap (id int, v text CHECK (leave(v)))`);
  const select = `SELECT g, CASE WHEN g = 1000 THEN 'go' ELSE repeat('x', 1000) END FROM generate_series(1, 60000) g`;
  await expect(copy(select, 'public.trap')).rejects.toMatchObject({
    sqlState: expect.stringMatching(/^(57P01|08006)$/),
  });
  expect(await source.query('SELECT 1 AS one')).toEqual([{ one: 1 }]);
  await copy(`SELECT 1, 'again'`);
  expect(await counted()).toBe(1);
});

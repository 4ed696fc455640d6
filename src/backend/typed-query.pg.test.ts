import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startTestServer, type TestServer } from '../../test/support/servers.ts';
import { NO_TLS } from '../pg/dsn-tls.ts';
import { FlushQueue } from '../platform/flush-queue.ts';
import type { BackendConnection } from './connection.ts';
import { NO_CREDENTIAL } from './credential.ts';
import { openBackend } from './login.ts';
import { queryRows } from './typed-query.ts';

let server: TestServer;
let connection: BackendConnection;
let oracle: pg.Client;

beforeAll(async () => {
  server = await startTestServer();
  connection = await openBackend({
    address: { nodeId: 1, nodeName: 'n1', host: '127.0.0.1', port: server.port, tls: NO_TLS },
    database: 'postgres',
    user: 'postgres',
    credential: NO_CREDENTIAL,
    flushQueue: new FlushQueue(),
    keepalives: false,
  });
  oracle = new pg.Client({ connectionString: server.dsn() });
  await oracle.connect();
});
afterAll(async () => {
  connection.destroy();
  await oracle.end();
  await server.stop();
});

/** What reads PostgreSQL's catalogs is the same on the control path, over npm pg, and on a branch. */
test.each<[string, unknown[]]>([
  [`SELECT true AS a, false AS b, NULL::bool AS c`, []],
  [`SELECT 1::int2 AS a, 2::int4 AS b, 9007199254740993::int8 AS c, 16384::oid AS d, 1.50::numeric AS e`, []],
  [`SELECT 'pg_class'::regclass AS a, 'x'::name AS b, 'r'::"char" AS c`, []],
  [`SELECT '{"a": [1, null]}'::json AS a, '[{"b": "x"}]'::jsonb AS b`, []],
  [
    `SELECT ARRAY['a', 'b,c', 'd"e\\f', NULL, 'NULL', ''] AS a, ARRAY[]::text[] AS b, ARRAY['x y']::name[] AS c`,
    [],
  ],
  [`SELECT ARRAY[1, -2]::int4[] AS a, '{3}'::oid[] AS b`, []],
  [
    `SELECT $1::text AS a, $2::int4 AS b, $3::bool AS c, $4::text[] AS d, $5::text AS e`,
    ['a"b', 5, true, ['x,y', null, '"\\'], null],
  ],
  [`SELECT relname FROM pg_class WHERE relname = ANY ($1) ORDER BY 1`, [['pg_class', 'pg_type']]],
  [`SELECT 1 AS nothing WHERE false`, []],
  [`CREATE TEMP TABLE made ()`, []],
])('%s', async (text, values) => {
  expect(await queryRows(connection, text, values)).toEqual((await oracle.query(text, values)).rows);
});

test('an error has its fields, and the connection goes on', async () => {
  await expect(queryRows(connection, 'SELECT 1 / 0')).rejects.toMatchObject({
    sqlState: '22012',
    nodeName: 'n1',
  });
  expect(await queryRows(connection, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
});

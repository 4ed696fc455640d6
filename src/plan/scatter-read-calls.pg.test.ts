/** The lists of functions against what a server says of its own. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startTestServer, type TestServer } from '../../test/support/servers.ts';
import { BUILTIN_FUNCTIONS } from '../sql/builtin-functions.ts';
import { inspectCalls } from './calls.ts';
import { isAggregateCall, VOLATILE_FUNCTIONS } from './scatter-read-calls.ts';

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(() => server?.stop());

const call = (name: string) => ({ funcname: [{ String: { sval: name } }] });

async function namesWhere(condition: string): Promise<string[]> {
  const rows = await server.query(
    `SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND ${condition} ORDER BY 1`,
  );
  return rows.map((row) => String(row.proname));
}

it('knows every aggregate', async () => {
  // Those of ordered sets are known by WITHIN GROUP.
  const names = await namesWhere(
    "EXISTS (SELECT FROM pg_aggregate a WHERE a.aggfnoid = pg_proc.oid AND a.aggkind = 'n')",
  );
  expect(names.filter((name) => !isAggregateCall(call(name)))).toEqual([]);
});

it('knows every volatile function that a SELECT of tables may call', async () => {
  const missing = (await namesWhere("provolatile = 'v'")).filter((name) => {
    const { unknownFunctions, writes, needsHome, effects } = inspectCalls([call(name)]);
    const isRefused = unknownFunctions.length > 0 || writes || needsHome || effects.length > 0;
    return BUILTIN_FUNCTIONS.has(name) && !isRefused && !VOLATILE_FUNCTIONS.has(name);
  });
  // plan/scatter-read.ts refuses these by name.
  expect(missing).toEqual(['amvalidate', 'current_query', 'currtid2']);
});

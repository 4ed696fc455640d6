import { describe, expect, test } from 'vitest';
import {
  APP,
  createCommand,
  type TestRouter,
  useShardedCluster,
} from '../../../test/support/sharded-cluster.ts';
import { createShardedTable } from './create.ts';
import { grantOnShardedTables } from './grant.ts';

// The control path's role is no superuser here: what is granted is granted by the client's role.
const cluster = useShardedCluster(2, 'postern_admin');

async function make(name: string) {
  await createShardedTable(cluster.router(), createCommand(name, 'id int8 PRIMARY KEY, v text'), APP);
  return await cluster.table(name);
}

/** `before` and `after` with the names of the tables between, as the client's text has them. */
async function run(text: string, names: readonly string[], router = cluster.router(), session = APP) {
  const [before, after] = text.split('…') as [string, string];
  const tables = await Promise.all(names.map((name) => cluster.table(name)));
  const isGrant = text.startsWith('GRANT');
  return await grantOnShardedTables(
    router,
    { kind: 'grantOnTables', tables, isGrant, before, after },
    session,
  );
}

/** The different privileges of `reader` that leaves (or faces) have, with how many have them, over all nodes. */
async function privileges(name: string, role = 'reader'): Promise<Record<string, number>> {
  const found: Record<string, number> = {};
  for (const server of cluster.servers) {
    const rows = await server.query(
      `SELECT c.relname ~ '_b[0-9]+_g[0-9]+$' AS leaf, (SELECT string_agg(p || CASE WHEN has_table_privilege('${role}', c.oid, p || ' WITH GRANT OPTION') THEN '*' ELSE '' END, ' ' ORDER BY p)
         FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p WHERE has_table_privilege('${role}', c.oid, p)) AS held,
         has_column_privilege('${role}', c.oid, 'v', 'SELECT') AS v, has_column_privilege('${role}', c.oid, 'id', 'SELECT') AS id
       FROM pg_class c WHERE c.relname ~ '^${name}(_b[0-9]+_g[0-9]+)?$' AND c.relkind IN ('r', 'p')`,
    );
    for (const row of rows) {
      const columns = row.v !== row.id ? ' v' : '';
      const key = `${row.leaf ? 'leaf' : 'face'}: ${row.held ?? 'nothing'}${columns}`;
      found[key] = (found[key] ?? 0) + 1;
    }
  }
  return found;
}

describe('GRANT and REVOKE on a sharded table', () => {
  test('are carried out on every leaf of every node, and never on a face', async () => {
    await make('granted');
    await make('another');
    expect(await privileges('granted')).toEqual({ 'face: nothing': 2, 'leaf: nothing': 6 });
    await run('GRANT SELECT, INSERT ON … TO reader', ['granted', 'another']);
    for (const name of ['granted', 'another'])
      expect(await privileges(name)).toEqual({ 'face: nothing': 2, 'leaf: INSERT SELECT': 6 });
    await run('REVOKE INSERT ON … FROM reader', ['granted']);
    expect(await privileges('granted')).toEqual({ 'face: nothing': 2, 'leaf: SELECT': 6 });
    await run('REVOKE ALL ON … FROM reader', ['granted']);
    await run('GRANT SELECT (v) ON TABLE … TO reader', ['granted']);
    expect(await privileges('granted')).toEqual({ 'face: nothing': 2, 'leaf: nothing v': 6 });
    expect(await privileges('another')).toEqual({ 'face: nothing': 2, 'leaf: INSERT SELECT': 6 });
  });

  test('by whom PostgreSQL lets, in the names of the user', async () => {
    await make('owned');
    for (const server of cluster.servers)
      await server.query('CREATE ROLE third; GRANT reader, third TO postern_admin');
    const reader = { ...APP, role: 'reader' };
    await expect(run('GRANT SELECT ON … TO third', ['owned'], undefined, reader)).rejects.toMatchObject({
      sqlState: '42501',
      message: 'permission denied for table owned',
    });
    await run('GRANT SELECT ON … TO reader WITH GRANT OPTION', ['owned']);
    expect(await privileges('owned')).toEqual({ 'face: nothing': 2, 'leaf: SELECT*': 6 });
    await run('GRANT SELECT ON … TO third', ['owned'], undefined, reader);
    expect(await privileges('owned', 'third')).toEqual({ 'face: nothing': 2, 'leaf: SELECT': 6 });
    await run('REVOKE SELECT ON … FROM reader CASCADE', ['owned']);
    expect(await privileges('owned', 'third')).toEqual({ 'face: nothing': 2, 'leaf: nothing': 6 });
  });

  test('all nodes or none, when a node refuses', async () => {
    await make('partly');
    await cluster.servers[0]!.query('CREATE ROLE only_on_home');
    await expect(run('GRANT SELECT ON … TO only_on_home', ['partly'])).rejects.toMatchObject({
      sqlState: '42704',
      hint: expect.stringContaining('node "n2"'),
    });
    const [row] = await cluster.servers[0]!.query(
      "SELECT count(*)::int FROM pg_class WHERE relname LIKE 'partly_b%' AND relacl::text LIKE '%only_on_home%'",
    );
    expect(row).toEqual({ count: 0 });
  });

  test('a router that dies between two commits leaves what the same statement completes', async () => {
    await make('halfway');
    const router = cluster.router((step: string, self: TestRouter) => {
      if (step === 'granted on n1') self.crash();
    });
    await expect(run('GRANT SELECT ON … TO reader', ['halfway'], router)).rejects.toMatchObject({
      sqlState: '08007',
    });
    await run('GRANT SELECT ON … TO reader', ['halfway']);
    expect(await privileges('halfway')).toEqual({ 'face: nothing': 2, 'leaf: SELECT': 6 });
  });
});

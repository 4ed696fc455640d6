/** A tenant gets a bucket of its own with the rows that it has, on a node that is named. */
import { describe, expect, test } from 'vitest';
import { APP, createCommand, type TestRouter } from '../../../test/support/sharded-cluster.ts';
import { useTransactionCluster } from '../../../test/support/transaction-cluster.ts';
import { leafName, type ShardedTable } from '../../catalog/map.ts';
import { findDoorTable } from '../../ddl/door-table.ts';
import { createReferenceTable } from '../reference/create.ts';
import { createShardedTable } from './create.ts';
import { pinTenant } from './pin-tenant.ts';

const cluster = useTransactionCluster(3, { admin: 'manager' });
const TENANTS = ['acme', 'globex', 'initech', 'umbrella', 'hooli'];

async function make(
  name: string,
  columns: string,
  options: Parameters<typeof createCommand>[2] = {},
): Promise<ShardedTable> {
  await createShardedTable(
    cluster.router(),
    createCommand(name, columns, { key: 'tenant', ...options }),
    APP,
  );
  return await cluster.table(name);
}

async function pin(name: string, tenant: string, node: string, router = cluster.router()): Promise<boolean> {
  return await pinTenant(router, await findDoorTable(router, name, APP), { tenant, node }, APP);
}

/** Into whichever leaf takes it, as PostgreSQL says. */
async function insert(table: ShardedTable, tenant: string, values: string): Promise<number> {
  for (const [bucket, { nodeId, generation }] of table.buckets.entries()) {
    const leaf = `postern_leaves.${leafName(table.name, bucket, generation)}`;
    const done = await cluster.servers[nodeId - 1]!.query(
      `INSERT INTO ${leaf} VALUES ('${tenant}', ${values})`,
    ).then(
      () => true,
      (error: { code: string; constraint: string }) => {
        expect(`${error.code} ${error.constraint}`).toBe('23514 postern_bucket');
        return false;
      },
    );
    if (done) return bucket;
  }
  return -1;
}

/** The tenants in each bucket, by what is stored. */
async function tenantsOf(table: ShardedTable): Promise<string[]> {
  const found: string[] = [];
  for (const [bucket, { nodeId, generation }] of table.buckets.entries()) {
    const rows = await cluster.servers[nodeId - 1]!.query(
      `SELECT DISTINCT tenant FROM postern_leaves.${leafName(table.name, bucket, generation)} ORDER BY 1`,
    );
    for (const row of rows) found.push(`${String(row.tenant)} ${bucket} n${nodeId}`);
  }
  return found.sort();
}

test('of a hash, with its rows in all colocated tables, their keys, policies and privileges', async () => {
  await createReferenceTable(
    cluster.router(),
    {
      ...{ kind: 'createReferenceTable', schema: undefined, name: 'kinds', ifNotExists: false },
      createText: 'CREATE TABLE kinds (kind text PRIMARY KEY)',
    },
    APP,
  );
  const parents = await make(
    'parents',
    'tenant text, id int, kind text REFERENCES kinds, PRIMARY KEY (tenant, id)',
  );
  const children = await make(
    'children',
    'tenant text, id int, n int GENERATED ALWAYS AS (id + 1) STORED, PRIMARY KEY (tenant, id), FOREIGN KEY (tenant, id) REFERENCES parents ON DELETE CASCADE',
  );
  expect(children.colocationId).toBe(parents.colocationId);
  for (const { nodeId, generation } of parents.buckets.slice(0, 1))
    await cluster.servers[nodeId - 1]!.query(
      `GRANT SELECT ON postern_leaves.${leafName('parents', 0, generation)} TO reader`,
    );
  for (const tenant of TENANTS)
    for (const id of [1, 2, 3]) {
      await insert(parents, tenant, `${id}, NULL`);
      await insert(children, tenant, `${id}`);
    }
  const before = await tenantsOf(parents);
  const bucketBefore = Number(before.find((one) => one.startsWith('acme'))!.split(' ')[1]);
  expect(await pin('children', 'acme', 'n3')).toBe(true);
  const [pinned, pinnedChildren] = [await cluster.table('parents'), await cluster.table('children')];
  expect(pinned.placement).toMatchObject({ method: 'hash', hashBuckets: 6, lists: [['acme']] });
  expect(pinned.buckets[6]).toMatchObject({ nodeId: 3 });
  expect(await tenantsOf(pinned)).toEqual(
    [...before.filter((one) => !one.startsWith('acme')), 'acme 6 n3'].sort(),
  );
  expect(await tenantsOf(pinnedChildren)).toEqual(await tenantsOf(pinned));
  // The bucket that it was in has a new generation, and no other has.
  for (const [bucket, { generation }] of parents.buckets.entries())
    expect(pinned.buckets[bucket]!.generation === generation).toBe(bucket !== bucketBefore);
  // Neither bucket takes the other's rows.
  expect(await insert(pinned, 'acme', '9, NULL')).toBe(6);
  const old = pinned.buckets[bucketBefore]!;
  await expect(
    cluster.servers[old.nodeId - 1]!.query(
      `INSERT INTO postern_leaves.${leafName('parents', bucketBefore, old.generation)} VALUES ('acme', 10)`,
    ),
  ).rejects.toMatchObject({ constraint: 'postern_bucket' });
  // Foreign keys are leaf to leaf still, and to the reference table.
  const n3 = cluster.servers[2]!;
  const leaf = (name: string) => `postern_leaves.${leafName(name, 6, pinned.buckets[6]!.generation)}`;
  await expect(n3.query(`INSERT INTO ${leaf('children')} VALUES ('acme', 77)`)).rejects.toMatchObject({
    code: '23503',
  });
  await expect(n3.query(`UPDATE ${leaf('parents')} SET kind = 'none'`)).rejects.toMatchObject({
    code: '23503',
  });
  await n3.query(`DELETE FROM ${leaf('parents')} WHERE id = 1`);
  expect(await n3.query(`SELECT id FROM ${leaf('children')} ORDER BY id`)).toEqual([{ id: 2 }, { id: 3 }]);
  // All objects have the names that a router looks for.
  const names = await cluster.servers[old.nodeId - 1]!.query(
    `SELECT conname FROM pg_constraint WHERE conrelid = 'postern_leaves.${leafName('parents', bucketBefore, old.generation)}'::regclass
       AND contype IN ('p', 'f') ORDER BY 1`,
  );
  expect(names.map(({ conname }) => conname)).toEqual(
    ['parents_kind_fkey', 'parents_pkey'].map((name) => leafName(name, bucketBefore, old.generation)),
  );
  // A table that comes later has the bucket too.
  const later = await make('later', 'tenant text PRIMARY KEY');
  expect(later.colocationId).toBe(parents.colocationId);
  expect(later.buckets).toHaveLength(7);
  expect(await insert(later, 'acme', 'DEFAULT').catch(() => 6)).toBe(6);
});

test('again is no change, and to another node is refused', async () => {
  expect(await pin('parents', 'acme', 'n3')).toBe(false);
  await expect(pin('parents', 'acme', 'n1')).rejects.toMatchObject({ sqlState: '0A000' });
  expect(await pin('parents', 'nobody yet', 'n1')).toBe(true);
  expect((await cluster.table('parents')).placement.lists).toEqual([['acme'], ['nobody yet']]);
});

test('of a list: out of one that it shares, and one that was not listed', async () => {
  const shared = await make('shared_list', 'tenant text PRIMARY KEY, v int', {
    placement: { method: 'list', lists: ['{acme,globex}', '{initech}'], bucketCount: undefined },
  });
  for (const tenant of ['acme', 'globex', 'initech']) await insert(shared, tenant, '1');
  expect(await insert(shared, 'hooli', '1')).toBe(-1);
  await pin('shared_list', 'globex', 'n2');
  await pin('shared_list', 'hooli', 'n3');
  const table = await cluster.table('shared_list');
  expect(table.placement.lists).toEqual([['acme'], ['initech'], ['globex'], ['hooli']]);
  // A router that does not know the new value looks in the first bucket, which has gone for it.
  expect(table.buckets[0]!.generation).not.toBe(shared.buckets[0]!.generation);
  expect(await insert(table, 'hooli', '1')).toBe(3);
  expect(await tenantsOf(table)).toEqual(['acme 0 n1', 'globex 2 n2', 'hooli 3 n3', 'initech 1 n2']);
});

test('foreign keys to a younger table go along, and are enforced; in a ring they are refused', async () => {
  const older = await make('older', 'tenant text, id int, y int, PRIMARY KEY (tenant, id)', {
    colocateWith: 'none',
    placement: { method: 'hash', bucketCount: 2 },
  });
  const younger = await make('younger', 'tenant text, id int, o int, PRIMARY KEY (tenant, id)', {
    colocateWith: 'older',
    placement: undefined,
  });
  const reference = async (from: ShardedTable, column: string, to: ShardedTable) => {
    for (const [bucket, { nodeId, generation }] of from.buckets.entries()) {
      const leaf = (name: string, of: number) => `postern_leaves.${leafName(name, bucket, of)}`;
      await cluster.servers[nodeId - 1]!.query(
        `ALTER TABLE ${leaf(from.name, generation)} ADD CONSTRAINT ${leafName(`${from.name}_${column}_fkey`, bucket, generation)}
           FOREIGN KEY (tenant, ${column}) REFERENCES ${leaf(to.name, to.buckets[bucket]!.generation)} (tenant, id) ON DELETE CASCADE`,
      );
    }
  };
  await reference(older, 'y', younger);
  for (const tenant of TENANTS) {
    await insert(younger, tenant, '1, NULL');
    await insert(older, tenant, '1, 1');
  }
  await pin('younger', 'acme', 'n3');
  const [pinned, pinnedYounger] = [await cluster.table('older'), await cluster.table('younger')];
  expect((await tenantsOf(pinned)).map((one) => one.split(' ')[0])).toEqual([...TENANTS].sort());
  expect(await tenantsOf(pinnedYounger)).toEqual(await tenantsOf(pinned));
  await expect(insert(pinned, 'acme', '2, 77')).rejects.toThrow('23503 older_y_fkey');
  await reference(pinnedYounger, 'o', pinned);
  await expect(pin('older', 'hooli', 'n1')).rejects.toMatchObject({ sqlState: '0A000' });
});

test('a trigger does not see rows move, and row-level security does not hide them', async () => {
  const table = await make('guarded', 'tenant text PRIMARY KEY, v int', {
    colocateWith: 'none',
    placement: { method: 'hash', bucketCount: 1 },
  });
  await insert(table, 'acme', '1');
  const { nodeId, generation } = table.buckets[0]!;
  const leaf = `postern_leaves.${leafName('guarded', 0, generation)}`;
  for (const server of cluster.servers)
    await server.query(
      `CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''seen''; END'`,
    );
  await cluster.servers[nodeId - 1]!.query(`SET ROLE app;
    CREATE TRIGGER never AFTER DELETE OR INSERT ON ${leaf} FOR EACH ROW EXECUTE FUNCTION never();
    ALTER TABLE ${leaf} ENABLE ROW LEVEL SECURITY; ALTER TABLE ${leaf} FORCE ROW LEVEL SECURITY; RESET ROLE`);
  await pin('guarded', 'acme', 'n2');
  const pinned = await cluster.table('guarded');
  expect(await tenantsOf(pinned)).toEqual(['acme 1 n2']);
  for (const [bucket, place] of pinned.buckets.entries()) {
    const [row] = await cluster.servers[place.nodeId - 1]!.query(
      `SELECT relforcerowsecurity AS forced, (SELECT array_agg(tgenabled::text) FROM pg_trigger WHERE tgrelid = c.oid) AS triggers
       FROM pg_class c WHERE oid = 'postern_leaves.${leafName('guarded', bucket, place.generation)}'::regclass`,
    );
    expect(row).toEqual({ forced: true, triggers: ['O'] });
  }
});

describe('refused', () => {
  test.each([
    ['a node that is not there', 'parents', 'x', 'n9', '22023'],
    ['a range', 'ranged', '5', 'n1', '0A000'],
    ['a reference table', 'kinds', 'x', 'n1', '0A000'],
    ['a value of another type', 'numbered', 'x', 'n1', '22P02'],
  ])('%s', async (_, name, tenant, node, sqlState) => {
    if (name === 'ranged') await make(name, 'tenant int', { placement: { method: 'range', bounds: '{9}' } });
    if (name === 'numbered') await make(name, 'tenant int');
    await expect(pin(name, tenant, node)).rejects.toMatchObject({ sqlState });
  });
});

test.each([
  ['pinned, not committed', false],
  ['prepared', false],
  ['decided', true],
])('a router that dies after "%s": the tenant is pinned: %s', async (step, expected) => {
  const name = `dying_${step.length}`;
  const table = await make(name, 'tenant text PRIMARY KEY, v int', { colocateWith: 'none' });
  for (const tenant of TENANTS) await insert(table, tenant, '1');
  const dying = cluster.router((at: string, router: TestRouter) => {
    if (at === step) router.crash();
  });
  await expect(pin(name, 'initech', 'n2', dying)).rejects.toThrow();
  const router = await cluster.transactions({ times: { leftAloneMs: 0, recoveryAfterMs: 200 } });
  await expect
    .poll(
      async () => {
        await router.recovery.round();
        return (await cluster.leftovers()).filter((one) => one.includes('prepared'));
      },
      { timeout: 20_000 },
    )
    .toEqual([]);
  const after = await cluster.table(name);
  expect(after.buckets.length === 7).toBe(expected);
  expect((await tenantsOf(after)).map((one) => one.split(' ')[0])).toEqual([...TENANTS].sort());
  if (!expected) expect(await pin(name, 'initech', 'n2')).toBe(true);
});

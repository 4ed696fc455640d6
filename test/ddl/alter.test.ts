/** DDL through the router and on one plain PostgreSQL side by side: what they leave in the catalogs is the same, on each node and leaf. */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { type Described, describeRelations, leavesOf } from './described.ts';
import { generatedStatements } from './generated.ts';

let cluster: TestCluster;
let router: pg.Client;
let plain: pg.Client;
/** Of a superuser, on each node. */
let nodes: pg.Client[];

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 2, settings: { max_prepared_transactions: '20' } });
  const [home] = cluster.servers;
  await home!.query('CREATE DATABASE plain OWNER app');
  router = new pg.Client({ connectionString: cluster.dsn() });
  plain = new pg.Client({ connectionString: home!.dsn({ database: 'plain', user: 'app' }) });
  nodes = cluster.servers.map(
    (server) => new pg.Client({ connectionString: server.dsn({ database: 'app' }) }),
  );
  await Promise.all([router, plain, ...nodes].map((client) => client.connect()));
});
afterAll(async () => {
  await Promise.all([router, plain, ...nodes].map((client) => client.end()));
  await cluster?.stop();
});

/** The command of its tag, or `!SQLSTATE message`. */
async function outcomeOf(client: pg.Client, text: string): Promise<string> {
  try {
    const { command } = await client.query(text);
    return command;
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    return `!${code} ${message}`;
  }
}

/** Runs it on both, which have to answer the same. */
async function onBoth(text: string): Promise<void> {
  const expected = await outcomeOf(plain, text);
  expect(await outcomeOf(router, text), text).toBe(expected);
}

const COLUMNS =
  'tenant bigint NOT NULL, id bigint NOT NULL, note text, amount numeric(10,2) DEFAULT 0, PRIMARY KEY (tenant, id)';

async function createOnBoth(name: string): Promise<void> {
  const door = "WITH (postern.door = 'sharded', postern.key = 'tenant', postern.buckets = 4)";
  await router.query(`CREATE TABLE ${name} (${COLUMNS}) ${door}`);
  await plain.query(`CREATE TABLE ${name} (${COLUMNS})`);
  for (let tenant = 1; tenant <= 6; tenant++)
    await onBoth(`INSERT INTO ${name} VALUES (${tenant}, 1, 'n', 3)`);
}

/** Both have the same of the table: the faces on all nodes, and each leaf. */
async function expectSame(table: string, after: string): Promise<void> {
  const [expected] = await describeRelations(plain, [`public.${table}`]);
  const compare = async (node: pg.Client, index: number) => {
    const leaves = await leavesOf(node, table);
    expect(leaves.length, `leaves on n${index + 1}`).toBeGreaterThan(0);
    const relations = [`public.${table}`, ...leaves.map((leaf) => `postern_leaves.${leaf}`)];
    const [face, ...ofLeaves] = await describeRelations(node, relations);
    expect(ofFace(face!), `face on n${index + 1} after ${after}`).toEqual(ofFace(expected!));
    for (const [at, found] of ofLeaves.entries()) {
      expect({ ...found, comments: expected!.comments }, `${leaves[at]} after ${after}`).toEqual(expected);
    }
  };
  await Promise.all(nodes.map(compare));
}

/** A face has no foreign keys, no privileges and no storage: that is its leaves'. */
function ofFace({ foreignKeys: _, grants: _grants, storage: _storage, ...rest }: Described) {
  return { ...rest, indexes: rest.indexes.map((line) => line.replace(/ WITH \([^)]*\)/, '')) };
}

const STEPS = [
  "ALTER TABLE orders ADD COLUMN state text DEFAULT 'new' CHECK (length(state) < 20)",
  'CREATE INDEX ON orders (note)',
  'CREATE UNIQUE INDEX orders_u ON orders (tenant, note) WHERE orders.note IS NOT NULL',
  'ALTER TABLE orders ADD COLUMN IF NOT EXISTS state text',
  'ALTER TABLE orders ALTER amount TYPE numeric(12, 3) USING orders.amount * 2, ALTER amount SET NOT NULL',
  "ALTER TABLE orders ALTER note SET DEFAULT 'none'",
  'ALTER TABLE orders ADD CHECK (amount >= 0), ADD CHECK (amount < 1000)',
  'ALTER TABLE orders ADD CONSTRAINT long CHECK (length(orders.note) < 100) NOT VALID',
  'ALTER TABLE orders VALIDATE CONSTRAINT long',
  'ALTER TABLE orders RENAME CONSTRAINT long TO longer',
  'ALTER TABLE orders ADD UNIQUE (tenant, state, id)',
  'ALTER TABLE orders ALTER note SET STATISTICS 300, ALTER note SET STORAGE EXTERNAL, ALTER note SET (n_distinct = 5)',
  'ALTER TABLE orders SET (fillfactor = 80)',
  'ALTER TABLE orders ENABLE ROW LEVEL SECURITY',
  "CREATE POLICY own ON orders USING (orders.note <> 'x') WITH CHECK (true)",
  'CREATE POLICY r ON orders AS RESTRICTIVE FOR SELECT TO app USING (tenant > 0)',
  "ALTER POLICY own ON orders USING (note <> 'y')",
  'ALTER POLICY r ON orders RENAME TO r2',
  'ALTER TABLE orders FORCE ROW LEVEL SECURITY',
  'CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := NEW.note; RETURN NEW; END $$',
  'CREATE TRIGGER stamped BEFORE INSERT OR UPDATE OF note ON orders FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION stamp()',
  'ALTER TABLE orders DISABLE TRIGGER stamped',
  'ALTER TRIGGER stamped ON orders RENAME TO stamped2',
  'ALTER TABLE orders ENABLE ALWAYS TRIGGER stamped2',
  'GRANT SELECT, INSERT (note, id) ON orders TO PUBLIC',
  'REVOKE SELECT ON orders FROM PUBLIC',
  'GRANT UPDATE ON ALL TABLES IN SCHEMA public TO PUBLIC',
  "COMMENT ON TABLE orders IS 'all of them'",
  "COMMENT ON COLUMN orders.note IS 'what was said'",
  'ALTER TABLE orders REPLICA IDENTITY USING INDEX orders_pkey',
  'ALTER TABLE orders CLUSTER ON orders_note_idx',
  'CLUSTER orders',
  'ALTER INDEX orders_note_idx RENAME TO notes',
  'REINDEX INDEX notes',
  'REINDEX TABLE orders',
  'ALTER INDEX notes SET (fillfactor = 80)',
  'CREATE STATISTICS st ON note, state FROM orders',
  'ANALYZE orders',
  'VACUUM (ANALYZE) orders',
  "CREATE TYPE mood AS ENUM ('sad', 'ok')",
  "ALTER TABLE orders ADD COLUMN m mood DEFAULT 'ok'",
  "ALTER TYPE mood ADD VALUE 'happy'",
  'CREATE DOMAIN positive AS int CHECK (VALUE > 0)',
  'ALTER TABLE orders ADD COLUMN p positive, ADD COLUMN twice int GENERATED ALWAYS AS (length(note) * 2) STORED',
  'ALTER TABLE orders RENAME note TO remark',
  'ALTER TABLE orders RENAME tenant TO customer',
  'CREATE INDEX CONCURRENTLY later ON orders (state, remark)',
  'DROP INDEX CONCURRENTLY later',
  'DROP INDEX orders_u, notes',
  'ALTER TABLE orders DROP CONSTRAINT longer, DROP CONSTRAINT orders_customer_state_id_key',
  'ALTER TABLE orders DROP CONSTRAINT orders_tenant_state_id_key',
  'DROP TYPE mood',
  'DROP TYPE mood CASCADE',
  'ALTER TABLE orders DROP COLUMN nothing',
  'DROP POLICY own ON orders',
  'DROP TRIGGER stamped2 ON orders',
  'DROP FUNCTION stamp',
  'ALTER TABLE orders DROP COLUMN remark CASCADE',
  'UPDATE orders SET amount = 5 WHERE customer = 3',
];

describe('a table and what belongs to it', () => {
  test('step by step, each as on one server', async () => {
    await createOnBoth('orders');
    await expectSame('orders', 'CREATE TABLE');
    for (const text of STEPS) {
      await onBoth(text);
      await expectSame('orders', text);
    }
  });

  test('a new name, in another schema', async () => {
    await createOnBoth('moved');
    await onBoth('CREATE SCHEMA elsewhere');
    await onBoth('ALTER TABLE moved RENAME TO renamed');
    await expectSame('renamed', 'RENAME');
    await onBoth('SELECT * FROM moved');
    await onBoth('UPDATE renamed SET amount = 9 WHERE tenant = 4');
    await onBoth('ALTER TABLE renamed SET SCHEMA elsewhere');
    await onBoth('INSERT INTO elsewhere.renamed VALUES (4, 2)');
    await onBoth('ALTER SCHEMA elsewhere RENAME TO there');
    const sum = 'SELECT sum(amount) FROM there.renamed WHERE tenant = 4';
    expect((await router.query(sum)).rows).toEqual((await plain.query(sum)).rows);
    await onBoth('DROP SCHEMA there');
    await onBoth('DROP SCHEMA there CASCADE');
    await onBoth('SELECT * FROM there.renamed');
    for (const node of nodes) expect(await leavesOf(node, 'renamed')).toEqual([]);
  });

  test('hundreds of generated statements', async () => {
    await createOnBoth('generated');
    const refused = new Map<string, number>();
    for (const [index, text] of generatedStatements({
      table: 'generated',
      count: 150,
      seed: 20260,
    }).entries()) {
      const expected = await outcomeOf(plain, text);
      const found = await outcomeOf(router, text);
      if (found.startsWith('!0A000') && !expected.startsWith('!')) {
        throw new Error(`${text} was refused: ${found}`);
      }
      // Of two errors, leaves may tell the one about their rows first.
      const ofRows = /^!23/.test(found) && expected.startsWith('!');
      if (!ofRows) expect(found, `${index}: ${text}`).toBe(expected);
      if (found.startsWith('!')) refused.set(found.slice(1, 6), (refused.get(found.slice(1, 6)) ?? 0) + 1);
      if (index % 10 === 9) await expectSame('generated', `${index}: ${text}`);
    }
    await expectSame('generated', 'all');
    // Most of them did something.
    expect([...refused.values()].reduce((sum, count) => sum + count, 0)).toBeLessThan(75);
  });
});

/** DO blocks of migration tools: on all nodes, once or many times, in a transaction and outside of it. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient, value } from '../support/router-clients.ts';

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 2 });
});
afterAll(() => cluster?.stop());

/** On each node, directly. */
async function everywhere(sql: string): Promise<unknown[]> {
  return await Promise.all(
    cluster.servers.map(async (server) =>
      value(await connectClient({ dsn: () => server.dsn({ database: 'app' }) }), sql),
    ),
  );
}

it('makes a type on all nodes, and does nothing where it is there', async () => {
  const client = await connectClient(cluster);
  const make = `DO $$ BEGIN CREATE TYPE mood AS ENUM ('sad', 'happy'); EXCEPTION WHEN duplicate_object THEN null; END $$`;
  const types = "SELECT count(*)::int FROM pg_type WHERE typname = 'mood'";
  for (let i = 0; i < 2; i++) expect((await client.query(make)).command).toBe('DO');
  expect(await everywhere(types)).toEqual([1, 1]);
  await client.query('BEGIN');
  await client.query('CREATE TABLE kept (id int)');
  await client.query(make);
  await client.query('COMMIT');
  expect(await value(client, 'SELECT count(*)::int FROM kept')).toBe(0);
  await client.query('DROP TYPE mood');
  await client.query(
    `DO $$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_type WHERE typname = 'mood') THEN CREATE TYPE mood AS ENUM ('x'); END IF; END $$`,
  );
  expect(await everywhere(types)).toEqual([1, 1]);
});

it('adds a foreign key to all leaves, once', async () => {
  const client = await connectClient(cluster);
  for (const [table, columns] of [
    ['owners', 'id bigint PRIMARY KEY'],
    ['things', 'owner_id bigint, id bigint, PRIMARY KEY (owner_id, id)'],
  ])
    await client.query(
      `CREATE TABLE ${table} (${columns}) WITH (postern.door = 'sharded', postern.key = '${table === 'owners' ? 'id' : 'owner_id'}')`,
    );
  const add = `DO $$ BEGIN
    ALTER TABLE "things" ADD CONSTRAINT "things_owner_fk" FOREIGN KEY ("owner_id") REFERENCES "public"."owners"("id");
  EXCEPTION WHEN duplicate_object THEN null; END $$`;
  await client.query(add);
  await client.query(add);
  expect(await value(client, 'INSERT INTO things VALUES (1, 1)')).toBe('!23503');
  await client.query('INSERT INTO owners VALUES (1)');
  await client.query('INSERT INTO things VALUES (1, 1)');
});

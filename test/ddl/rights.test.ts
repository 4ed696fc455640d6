/**
 * An application's role gains nothing by what Postern's role does for it: code of a user that a table leads to never runs in a
 * session of Postern's own, where it could take the role of Postern (RESET ROLE).
 */
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';

let cluster: TestCluster;
let app: pg.Client;

beforeAll(async () => {
  cluster = await startTestCluster();
  app = new pg.Client({ connectionString: cluster.dsn() });
  await app.connect();
  // An immutable function may call one that is not.
  await app.query(`CREATE FUNCTION seize() RETURNS void LANGUAGE plpgsql AS $$
    BEGIN IF session_user <> 'app' THEN EXECUTE 'RESET ROLE'; EXECUTE 'ALTER ROLE app SUPERUSER'; EXECUTE 'SET ROLE app'; END IF; END $$`);
  await app.query(`CREATE FUNCTION greedy(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN PERFORM public.seize(); RETURN 1; EXCEPTION WHEN insufficient_privilege THEN RETURN 1; END $$`);
});

afterAll(async () => {
  await app.end();
  await cluster.stop();
});

beforeEach(async () => {
  for (const server of cluster.servers) await server.query('ALTER ROLE app NOSUPERUSER');
});

async function expectNothingGained(): Promise<void> {
  for (const server of cluster.servers)
    expect(await server.query("SELECT rolsuper FROM pg_roles WHERE rolname = 'app'")).toEqual([
      { rolsuper: false },
    ]);
}

const REFUSED: object = { code: '0A000', message: expect.stringMatching(/uses (function|type) public\./) };

it('CREATE TABLE with a door, whose text the server may evaluate', async () => {
  const columns = 'id bigint PRIMARY KEY, v int, w int GENERATED ALWAYS AS (v + greedy(1)) STORED';
  await app.query(`CREATE TABLE made (${columns}) WITH (postern.door = 'sharded', postern.key = 'id')`);
  await app.query(`CREATE TABLE copied (${columns}) WITH (postern.door = 'reference')`);
  await app.query(`CREATE TABLE merged (${columns}) WITH (postern.coalesce = 'on')`);
  await expectNothingGained();
  await expect(app.query("SELECT postern.unshard_table('made')")).rejects.toMatchObject(REFUSED);
  await expectNothingGained();
});

it.each([
  ['sharded', "create_distributed_table('filled', 'id')"],
  ['a reference table', "create_reference_table('filled')"],
])('a table with rows becomes %s', async (_, call) => {
  await app.query('CREATE TABLE filled (id bigint PRIMARY KEY, v int CHECK (greedy(v) > 0))');
  await app.query('INSERT INTO filled SELECT i, i FROM generate_series(1, 20) i');
  await expect(app.query(`SELECT ${call}`)).rejects.toMatchObject(REFUSED);
  await expectNothingGained();
  await app.query('DROP TABLE filled');
});

it('a domain, to which a check may be added at any time', async () => {
  await app.query('CREATE DOMAIN amount AS int');
  await app.query('CREATE TABLE filled (id bigint PRIMARY KEY, v amount[])');
  await app.query("INSERT INTO filled VALUES (1, '{1}')");
  await expect(app.query("SELECT create_distributed_table('filled', 'id')")).rejects.toMatchObject(REFUSED);
  await app.query('DELETE FROM filled');
  await app.query("SELECT create_distributed_table('filled', 'id')");
  await app.query('DROP TABLE filled');
});

it('a schema, a tenant', async () => {
  await app.query('CREATE SCHEMA tenant');
  await app.query('CREATE TABLE tenant.own (id bigint PRIMARY KEY, v int CHECK (public.greedy(v) > 0))');
  await app.query('INSERT INTO tenant.own VALUES (1, 1)');
  await expect(app.query("SELECT postern.distribute_schema('tenant', 'n2')")).rejects.toMatchObject(REFUSED);
  await app.query(`CREATE TABLE tenants (id bigint PRIMARY KEY, v int CHECK (greedy(v) > 0))
    WITH (postern.door = 'sharded', postern.key = 'id', postern.colocate_with = 'none')`);
  await app.query('INSERT INTO tenants VALUES (1, 1)');
  await expect(app.query("SELECT postern.pin_tenant('tenants', '1', 'n2')")).rejects.toMatchObject(REFUSED);
  await expectNothingGained();
});

it('triggers and policies of a table go along with a tenant', async () => {
  await app.query(`CREATE TABLE guarded (id bigint PRIMARY KEY, v int)
    WITH (postern.door = 'sharded', postern.key = 'id', postern.colocate_with = 'none')`);
  await app.query('INSERT INTO guarded VALUES (1, 1), (2, 2)');
  await app.query(`CREATE TRIGGER same BEFORE UPDATE ON guarded FOR EACH ROW
    EXECUTE FUNCTION suppress_redundant_updates_trigger()`);
  await app.query('CREATE POLICY few ON guarded USING (v < 2)');
  await app.query('ALTER TABLE guarded ENABLE ROW LEVEL SECURITY');
  await app.query('ALTER TABLE guarded FORCE ROW LEVEL SECURITY');
  await app.query("SELECT postern.pin_tenant('guarded', '1', 'n2')");
  await app.query("SELECT postern.pin_tenant('guarded', '2', 'n1')");
  const { rows } = await app.query('SELECT id FROM guarded');
  expect(rows).toEqual([{ id: '1' }]);
  expect((await app.query('UPDATE guarded SET v = 1 WHERE id = 1')).rowCount).toBe(0);
});

it('what the owner of a leaf has hung on it fires for nobody', async () => {
  await app.query(`CREATE TABLE ruled (id bigint PRIMARY KEY, v int)
    WITH (postern.door = 'sharded', postern.key = 'id', postern.colocate_with = 'none')`);
  await app.query('INSERT INTO ruled VALUES (1, 1)');
  for (const server of cluster.servers) {
    const direct = new pg.Client({ connectionString: server.dsn({ user: 'app', database: 'app' }) });
    await direct.connect();
    const { rows } = await direct.query(
      "SELECT relname FROM pg_class WHERE relnamespace = 'postern_leaves'::regnamespace AND relname ~ '^ruled_b[0-9]+_g[0-9]+$'",
    );
    for (const { relname } of rows)
      await direct.query(
        `CREATE RULE seized AS ON DELETE TO postern_leaves.${relname} DO ALSO SELECT public.greedy(1)`,
      );
    await direct.end();
  }
  await expect(app.query("SELECT postern.pin_tenant('ruled', '1', 'n2')")).rejects.toMatchObject({
    code: '0A000',
    message: expect.stringContaining('rule seized'),
  });
  await expectNothingGained();
});

it('a search_path that is no list of names, in the settings of the mesh', async () => {
  await app.query(
    "CREATE TABLE wide (id bigint PRIMARY KEY, v int) WITH (postern.door = 'sharded', postern.key = 'id')",
  );
  const direct = new pg.Client({
    connectionString: cluster.servers[0]!.dsn({ user: 'app', database: 'app' }),
  });
  await direct.connect();
  await direct.query("SELECT set_config('search_path', 'public;ALTER/**/ROLE/**/app/**/SUPERUSER--', false)");
  await direct.query('ALTER ROLE app IN DATABASE app SET search_path FROM CURRENT');
  await direct.end();
  await app.query('SELECT count(*) FROM public.wide a JOIN public.wide b ON a.v = b.v + 1');
  await expectNothingGained();
});

it('who may not have an index on a table gets no right to make leaves', async () => {
  for (const server of cluster.servers) await server.query('CREATE ROLE stranger LOGIN');
  const stranger = new pg.Client({ connectionString: cluster.dsn('postgres') });
  await stranger.connect();
  await stranger.query('SET ROLE stranger');
  for (const text of ['ALTER TABLE wide ADD UNIQUE (v)', 'CREATE INDEX CONCURRENTLY ON wide (v)'])
    await expect(stranger.query(text)).rejects.toMatchObject({ code: '42501' });
  const { rows } = await stranger.query(
    "SELECT has_schema_privilege('stranger', 'postern_leaves', 'CREATE') AS may",
  );
  await stranger.end();
  expect(rows).toEqual([{ may: false }]);
});

/**
 * The same small application in one PostgreSQL and behind a router over several nodes: sharded, reference and plain tables, with
 * roles, policies, functions, views, triggers and cascades. What the differential test sends its statements to.
 */
import pg from 'pg';
import { startRouter } from '../../src/cli/router.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { startTestServer, type TestServer } from '../support/servers.ts';

/** Said to both; the router's own part, which tables have which door, is DOORS. */
const BEFORE_DOORS = [
  "CREATE TYPE tone AS ENUM ('low', 'mid', 'high')",
  'CREATE DOMAIN amount AS numeric(12,2) CHECK (VALUE > -100000)',
  'CREATE FUNCTION twice(n numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$ SELECT n * 2 $$',
  `CREATE FUNCTION taxed(n numeric, rate numeric DEFAULT 0.2) RETURNS numeric LANGUAGE plpgsql IMMUTABLE AS
   $$ BEGIN IF rate < 0 THEN RAISE EXCEPTION 'a rate of % is none', rate USING ERRCODE = '22003'; END IF; RETURN round(n * (1 + rate), 2); END $$`,
  `CREATE FUNCTION tidy() RETURNS trigger LANGUAGE plpgsql AS
   $$ BEGIN NEW.label := upper(trim(NEW.label)); IF NEW.label = 'BAD' THEN RAISE EXCEPTION 'a bad label' USING ERRCODE = 'P0042'; END IF; RETURN NEW; END $$`,
  `CREATE FUNCTION logged() RETURNS trigger LANGUAGE plpgsql AS
   $$ BEGIN INSERT INTO changes (op, what) VALUES (TG_OP, coalesce(NEW.name, OLD.name)); RETURN NULL; END $$`,
  'CREATE TABLE currencies (code char(3) PRIMARY KEY, name text NOT NULL UNIQUE, rate numeric NOT NULL CHECK (rate > 0))',
  "INSERT INTO currencies VALUES ('EUR', 'Euro', 1), ('USD', 'Dollar', 1.1), ('JPY', 'Yen', 160.25)",
  `CREATE TABLE accounts (id bigint PRIMARY KEY, name text NOT NULL, balance amount NOT NULL DEFAULT 0, tier tone,
     currency char(3) NOT NULL DEFAULT 'EUR', opened date, CHECK (length(name) < 40))`,
  `CREATE TABLE orders (account_id bigint NOT NULL, no int NOT NULL, label text, total numeric(10,2), at timestamptz,
     tags text[], doc jsonb, PRIMARY KEY (account_id, no))`,
  'CREATE TABLE notes (account_id bigint, no int, author name NOT NULL DEFAULT current_user, body text, PRIMARY KEY (account_id, no))',
  'CREATE TABLE readings (sensor text, n int, value float8, PRIMARY KEY (sensor, n))',
  'CREATE TABLE ledger (day date, seq int, amount numeric(12,2), ok bool, PRIMARY KEY (day, seq))',
  'CREATE TABLE plots (tenant text, n int, body text, PRIMARY KEY (tenant, n))',
  'CREATE TABLE people (id bigint PRIMARY KEY, email text, boss bigint)',
  'CREATE TABLE tickets (id bigserial PRIMARY KEY, title text, owner bigint DEFAULT 3)',
  'CREATE TABLE loose (k int, v text)',
  `CREATE TABLE edges (k int, num numeric, f float8, f4 real, ts timestamptz, d date, iv interval, arr int[], tx text[], j jsonb,
     b bytea, u uuid, v5 varchar(5))`,
  'CREATE TABLE settings (key text PRIMARY KEY, value text)',
  'CREATE TABLE regions (id serial PRIMARY KEY, name text UNIQUE)',
  'CREATE TABLE towns (id serial PRIMARY KEY, region_id int REFERENCES regions ON DELETE CASCADE, name text)',
  'CREATE TABLE changes (id serial, op text, what text)',
];

const DOORS = [
  "SELECT create_reference_table('currencies')",
  "SELECT create_distributed_table('accounts', 'id')",
  "SELECT create_distributed_table('orders', 'account_id', colocate_with := 'accounts')",
  "SELECT create_distributed_table('notes', 'account_id', colocate_with := 'accounts')",
  "SELECT create_distributed_table('readings', 'sensor')",
  "SELECT postern.shard_table('ledger', 'day', method => 'range', bounds => '{2026-01-01,2026-06-01}')",
  "SELECT postern.shard_table('plots', 'tenant', method => 'list', \"values\" => '{acme,{globex,initech}}', buckets => 2)",
  "SELECT create_distributed_table('people', 'id', colocate_with := 'none')",
  "SELECT create_distributed_table('tickets', 'id', colocate_with := 'none')",
  "SELECT create_distributed_table('loose', 'k')",
  "SELECT create_distributed_table('edges', 'k', colocate_with := 'loose')",
];

const AFTER_DOORS = [
  'ALTER TABLE accounts ADD CONSTRAINT accounts_currency FOREIGN KEY (currency) REFERENCES currencies (code)',
  'ALTER TABLE orders ADD CONSTRAINT orders_account FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE CASCADE',
  'ALTER TABLE people ADD UNIQUE (email)',
  'CREATE INDEX orders_by_total ON orders (total)',
  'CREATE TRIGGER tidy BEFORE INSERT OR UPDATE OF label ON orders FOR EACH ROW EXECUTE FUNCTION tidy()',
  'CREATE TRIGGER logged AFTER INSERT OR UPDATE OR DELETE ON regions FOR EACH ROW EXECUTE FUNCTION logged()',
  'ALTER TABLE accounts ADD COLUMN rank int DEFAULT 7',
  'CREATE VIEW rich AS SELECT id, name, balance, twice(balance) AS double FROM accounts WHERE balance > 100',
  'CREATE VIEW order_totals AS SELECT account_id, count(*) AS n, sum(total) AS total FROM orders GROUP BY account_id',
  'CREATE VIEW places AS SELECT r.name AS region, t.name AS town FROM regions r LEFT JOIN towns t ON t.region_id = r.id',
  'ALTER TABLE notes ENABLE ROW LEVEL SECURITY',
  'CREATE POLICY own_notes ON notes TO clerk USING (author = current_user) WITH CHECK (author = current_user)',
  "CREATE POLICY public_notes ON notes FOR SELECT TO clerk USING (body LIKE 'public%')",
  'GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO clerk',
  'GRANT SELECT ON accounts, currencies, settings, rich TO clerk',
  'GRANT SELECT (account_id, no, total) ON orders TO clerk',
  'GRANT UPDATE (body) ON notes TO clerk',
];

/** Rows to begin with. */
const ROWS = [
  "INSERT INTO accounts (id, name, balance, tier) SELECT i, 'n' || i % 7, i * 37 % 500, (ARRAY['low', 'mid', 'high', NULL]::tone[])[1 + i % 4] FROM generate_series(1, 24, 2) i",
  'INSERT INTO orders (account_id, no, label, total) SELECT i, j, chr(96 + j), i * j FROM generate_series(1, 24, 2) i, generate_series(1, 1 + i % 5) j',
  "INSERT INTO readings SELECT s, i, i / 4.0 FROM unnest('{a,b,kitchen}'::text[]) s, generate_series(1, 9) i",
  "INSERT INTO ledger SELECT d, i, i * 3, i = 2 FROM unnest('{2025-12-31,2026-02-14,2026-06-01}'::date[]) d, generate_series(1, 3) i",
  "INSERT INTO plots SELECT t, i, 'p' FROM unnest('{acme,globex,hooli}'::text[]) t, generate_series(1, 3) i",
  "INSERT INTO people SELECT i, 'p' || i || '@x', nullif(i / 2, 0) FROM generate_series(1, 7) i",
  "INSERT INTO settings SELECT 'k' || i, 'v' || i FROM generate_series(1, 5) i",
  "INSERT INTO loose VALUES (1, 'n'), (NULL, 'm'), (2, NULL)",
];

/** The tables whose rows are compared in the end, each with the columns to compare. */
export const COMPARED: Readonly<Record<string, string>> = {
  currencies: '*',
  accounts: '*',
  orders: '*',
  notes: '*',
  readings: '*',
  ledger: '*',
  plots: '*',
  people: '*',
  tickets: 'title, owner',
  loose: '*',
  edges: '*',
  settings: '*',
  regions: 'name',
  towns: 'name',
  changes: 'op, what',
};

const USERS = ['app', 'clerk', 'postgres'].map((name) => ({ name, password: undefined }));

export type Side = 'plain' | 'routed' | 'other';

export interface World {
  readonly cluster: TestCluster;
  readonly plain: TestServer;
  readonly users: readonly string[];
  /** `other` is a second router over the same nodes, whose map is older after each change. */
  client(side: Side, user: string): Promise<pg.Client>;
  port(side: Side): number;
  stop(): Promise<void>;
}

export async function startWorld(nodes = 3): Promise<World> {
  const [plain, cluster] = await Promise.all([startTestServer(), startTestCluster({ nodes, users: USERS })]);
  await plain.query('CREATE ROLE app LOGIN; CREATE ROLE clerk LOGIN; GRANT ALL ON SCHEMA public TO app');
  const second = await startRouter(cluster.routerOptions);
  const clients: pg.Client[] = [];
  const port = (side: Side) => ({ plain: plain.port, routed: cluster.port, other: second.port })[side];
  const client = async (side: Side, user: string): Promise<pg.Client> => {
    const connectionString =
      side === 'plain'
        ? plain.dsn({ user })
        : cluster.dsn(user).replace(`:${cluster.port}/`, `:${port(side)}/`);
    // What hangs is told with its text, long before the test's end.
    const made = new pg.Client({ connectionString, query_timeout: 40_000 });
    made.on('error', () => {});
    clients.push(made);
    await made.connect();
    await made.query("SET timezone = 'UTC'");
    return made;
  };
  const [direct, routed] = [await client('plain', 'app'), await client('routed', 'app')];
  for (const [target, texts] of [
    [direct, [...BEFORE_DOORS, ...AFTER_DOORS, ...ROWS]],
    [routed, [...BEFORE_DOORS, ...DOORS, ...AFTER_DOORS, ...ROWS]],
  ] as const)
    for (const text of texts) {
      try {
        await target.query(text);
      } catch (error) {
        throw new Error(`${target === direct ? 'plain' : 'routed'}: ${text}: ${String(error)}`, {
          cause: error,
        });
      }
    }
  return {
    cluster,
    plain,
    users: ['app', 'clerk'],
    client,
    port,
    stop: async () => {
      await Promise.all(clients.map((one) => one.end().catch(() => {})));
      await second.close();
      await cluster.stop();
      await plain.stop();
    },
  };
}

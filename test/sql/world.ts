/**
 * The same small application in one PostgreSQL and behind a router over several nodes: sharded, reference and plain tables, with
 * roles, policies, functions, views, triggers and cascades. What the differential test sends its statements to.
 */
import pg from 'pg';
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
];

const AFTER_DOORS = [
  'ALTER TABLE accounts ADD CONSTRAINT accounts_currency FOREIGN KEY (currency) REFERENCES currencies (code)',
  'ALTER TABLE orders ADD CONSTRAINT orders_account FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE CASCADE',
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

/** The tables whose rows are compared in the end, each with the columns to compare. */
export const COMPARED: Readonly<Record<string, string>> = {
  currencies: '*',
  accounts: '*',
  orders: '*',
  notes: '*',
  readings: '*',
  settings: '*',
  regions: 'name',
  towns: 'name',
  changes: 'op, what',
};

const USERS = ['app', 'clerk', 'postgres'].map((name) => ({ name, password: undefined }));

export interface World {
  readonly cluster: TestCluster;
  readonly plain: TestServer;
  readonly users: readonly string[];
  client(side: 'plain' | 'routed', user: string): Promise<pg.Client>;
  stop(): Promise<void>;
}

export async function startWorld(nodes = 3): Promise<World> {
  const [plain, cluster] = await Promise.all([startTestServer(), startTestCluster({ nodes, users: USERS })]);
  await plain.query('CREATE ROLE app LOGIN; CREATE ROLE clerk LOGIN; GRANT ALL ON SCHEMA public TO app');
  const clients: pg.Client[] = [];
  const client = async (side: 'plain' | 'routed', user: string): Promise<pg.Client> => {
    const made = new pg.Client(side === 'plain' ? plain.dsn({ user }) : cluster.dsn(user));
    made.on('error', () => {});
    clients.push(made);
    await made.connect();
    await made.query("SET timezone = 'UTC'");
    return made;
  };
  const [direct, routed] = [await client('plain', 'app'), await client('routed', 'app')];
  for (const [target, texts] of [
    [direct, [...BEFORE_DOORS, ...AFTER_DOORS]],
    [routed, [...BEFORE_DOORS, ...DOORS, ...AFTER_DOORS]],
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
    stop: async () => {
      await Promise.all(clients.map((one) => one.end().catch(() => {})));
      await cluster.stop();
      await plain.stop();
    },
  };
}

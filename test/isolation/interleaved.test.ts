/**
 * Clients with different logins, roles, search paths, time zones and tenants, interleaved at random through one small pool.
 * Each has a model of what it alone must see, and every answer is compared with it. ISOLATION_SEED repeats a run (as far as
 * the timing of several clients can be repeated).
 */
import pg from 'pg';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../src/wall/load/seeded-random.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';

const CLIENTS = 10;
const STEPS = 450;
const ZONES = ['UTC', 'Asia/Tokyo', 'America/New_York', 'Europe/Berlin'];
const TENANTS = ['t1', 't2', 't3', 't4'];
const SCHEMAS = ['one', 'two'];
const ROLES = ['bob', 'carol'];
const KEYS = Array.from({ length: 24 }, (_, i) => i + 1);

/** What the tests need of a client beside its public face. */
type ClientInside = pg.Client & {
  connection: { parsedStatements: Record<string, string>; stream: { destroy(): void } };
};

interface View {
  readonly tenant: string;
  readonly zone: string;
  readonly schema: string;
  readonly role: string;
}

describe.each([1, 2])('%i connections a node', (connectionsPerNode) => {
  it('nobody sees anything of the others', { timeout: 120_000 }, async () => {
    const seed = Number(process.env.ISOLATION_SEED ?? 20_261_122);
    console.log(`ISOLATION_SEED=${seed}`);
    const cluster = await startTestCluster({
      nodes: 2,
      connectionsPerNode,
      users: ['app', 'postgres', 'other'].map((name) => ({ name, password: undefined })),
    });
    try {
      await prepare(cluster);
      const clients = Array.from(
        { length: CLIENTS },
        (_, i) => new ModelClient(cluster, seed + i, i % 3 === 2 ? 'other' : 'app'),
      );
      await Promise.all(clients.map((client) => client.run(STEPS)));
      const checked = clients.reduce((sum, client) => sum + client.checked, 0);
      console.log(`${checked} answers checked`);
      expect(checked).toBeGreaterThan(CLIENTS * STEPS * 0.3);
    } finally {
      await cluster.stop();
    }
  });
});

async function prepare(cluster: TestCluster): Promise<void> {
  for (const server of cluster.servers) {
    const admin = new pg.Client({ connectionString: server.dsn({ database: 'app' }) });
    await admin.connect();
    await admin.query(`
      CREATE ROLE bob; CREATE ROLE carol; GRANT bob, carol TO app, other;
      CREATE SCHEMA one AUTHORIZATION app; CREATE SCHEMA two AUTHORIZATION app;
      GRANT USAGE ON SCHEMA one, two TO bob, carol, other;
      ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT ALL ON TABLES TO bob, carol, other;
    `);
    await admin.end();
  }
  const client = new pg.Client({ connectionString: cluster.dsn() });
  await client.connect();
  await client.query('CREATE TABLE public.docs (tenant text NOT NULL, body text)');
  await client.query('ALTER TABLE docs ENABLE ROW LEVEL SECURITY');
  await client.query('ALTER TABLE docs FORCE ROW LEVEL SECURITY');
  await client.query(`CREATE POLICY own ON docs USING (tenant = current_setting('app.tenant', true))`);
  for (const tenant of TENANTS) {
    await client.query(`SELECT set_config('app.tenant', $1, false)`, [tenant]);
    await client.query(`INSERT INTO docs VALUES ($1, 'body of ' || $1), ($1, 'more')`, [tenant]);
  }
  for (const schema of SCHEMAS) {
    await client.query(`CREATE TABLE ${schema}.marker (name text)`);
    await client.query(`INSERT INTO ${schema}.marker VALUES ('${schema}')`);
    await client.query(
      `CREATE TABLE ${schema}.events (id int PRIMARY KEY, note text) WITH (postern.door = 'sharded', postern.key = 'id')`,
    );
    for (const key of KEYS)
      await client.query(`INSERT INTO ${schema}.events VALUES ($1, $2)`, [key, `${schema} ${key}`]);
  }
  await client.end();
}

/** What a session alone sees of its own statements. */
class Model {
  readonly defaults: View;
  session: View;
  /** SET LOCAL in the open transaction. */
  local: Partial<View> = {};
  state: 'idle' | 'open' | 'failed' = 'idle';
  #before: View;

  constructor(defaults: View) {
    this.defaults = defaults;
    this.session = defaults;
    this.#before = defaults;
  }

  get now(): View {
    return { ...this.session, ...this.local };
  }

  begin(): void {
    this.state = 'open';
    this.#before = this.session;
  }

  end(commit: boolean): void {
    if (!commit || this.state === 'failed') this.session = this.#before;
    this.state = 'idle';
    this.local = {};
  }

  set(change: Partial<View>): void {
    this.session = { ...this.session, ...change };
    for (const name of Object.keys(change)) delete this.local[name as keyof View];
  }
}

class ModelClient {
  checked = 0;
  readonly #cluster: TestCluster;
  readonly #random: () => number;
  readonly #user: string;
  #client!: ClientInside;
  /** Of prepared statements, as this connection has them. */
  #names = new Map<string, string>();
  readonly #history: string[] = [];
  #model!: Model;

  constructor(cluster: TestCluster, seed: number, user: string) {
    this.#cluster = cluster;
    this.#random = seededRandom(seed);
    this.#user = user;
  }

  async run(steps: number): Promise<void> {
    await this.#connect();
    try {
      for (let step = 0; step < steps; step++) await this.#step();
    } catch (error) {
      console.log(`${(error as Error).message}\n${this.#history.slice(-15).join('\n')}`);
      throw error;
    }
    await this.#client.end();
  }

  #pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.#random() * from.length)]!;
  }

  async #connect(): Promise<void> {
    this.#names = new Map();
    const defaults: View = {
      tenant: this.#pick(TENANTS),
      zone: this.#pick(ZONES),
      schema: this.#pick(SCHEMAS),
      role: this.#user,
    };
    this.#model = new Model(defaults);
    const client = new pg.Client({
      connectionString: this.#cluster.dsn(this.#user),
      options: `-c app.tenant=${defaults.tenant} -c TimeZone=${defaults.zone} -c search_path=${defaults.schema},public`,
    });
    client.on('error', () => {});
    await client.connect();
    this.#client = client as ClientInside;
  }

  /** Simple or extended, named or not; gives the SQLSTATE of an error. */
  async #ask(text: string, parameters: string[] = []): Promise<unknown[][] | string> {
    const dice = this.#random();
    const config =
      parameters.length === 0 && dice < 0.5
        ? { text }
        : { text, values: parameters, ...(dice > 0.8 && { name: this.#nameOf(text) }) };
    const answer = await this.#client.query({ ...config, rowMode: 'array' }).then(
      ({ rows }) => rows as unknown[][],
      (error: { code?: string; message: string }) => error.code ?? error.message,
    );
    const how = 'name' in config ? 'named' : 'values' in config ? 'extended' : 'simple';
    this.#history.push(`${how} ${text} [${parameters.join()}] -> ${JSON.stringify(answer)}`);
    return answer;
  }

  #nameOf(text: string): string {
    const known = this.#names.get(text);
    if (known !== undefined) return known;
    const name = `statement ${this.#names.size}`;
    this.#names.set(text, name);
    return name;
  }

  async #must(text: string, parameters: string[] = []): Promise<void> {
    const answer = await this.#ask(text, parameters);
    if (typeof answer === 'string') throw new Error(`${text}: ${answer}`);
  }

  async #step(): Promise<void> {
    const model = this.#model;
    if (model.state === 'failed') {
      expect(await this.#ask('SELECT 1')).toBe('25P02');
      const commit = this.#random() < 0.5;
      await this.#must(commit ? 'COMMIT' : 'ROLLBACK');
      model.end(false);
      return;
    }
    const dice = this.#random();
    if (dice < 0.5) return this.#check();
    if (dice < 0.72) return this.#change();
    if (dice < 0.76) return this.#fail();
    if (dice < 0.78) return this.#leave();
    if (model.state === 'idle') {
      await this.#must(this.#pick(['BEGIN', 'START TRANSACTION', 'BEGIN ISOLATION LEVEL REPEATABLE READ']));
      model.begin();
      return;
    }
    const commit = this.#random() < 0.5;
    await this.#must(commit ? 'COMMIT' : 'ROLLBACK');
    model.end(commit);
  }

  async #check(): Promise<void> {
    const { now } = this.#model;
    const key = this.#pick(KEYS);
    const settings = `current_setting('app.tenant', true), current_setting('TimeZone'), current_user::text`;
    const own = [now.tenant, now.zone, now.role];
    switch (Math.floor(this.#random() * 4)) {
      case 0:
        return this.#expect(
          'SELECT tenant, body FROM docs ORDER BY body',
          [],
          [
            [now.tenant, `body of ${now.tenant}`],
            [now.tenant, 'more'],
          ],
        );
      case 1:
        return this.#expect(`SELECT name, ${settings} FROM marker`, [], [[now.schema, ...own]]);
      case 2:
        return this.#expect(
          `SELECT note, ${settings} FROM events WHERE id = $1`,
          [String(key)],
          [[`${now.schema} ${key}`, ...own]],
        );
      default: {
        const offset = { UTC: '00', 'Asia/Tokyo': '09', 'America/New_York': '-05', 'Europe/Berlin': '01' }[
          now.zone
        ];
        return this.#expect(
          `SELECT note, to_char('2020-01-01 00:00Z'::timestamptz, 'TZH') FROM events WHERE id = ${key}`,
          [],
          [[`${now.schema} ${key}`, offset!.startsWith('-') ? offset : `+${offset}`]],
        );
      }
    }
  }

  async #expect(text: string, parameters: string[], rows: unknown[][]): Promise<void> {
    const answer = await this.#ask(text, parameters);
    const model = this.#model;
    if (answer === '0A000' && model.state === 'open') {
      // The transaction is on one node and this statement belongs to another.
      model.state = 'failed';
      return;
    }
    expect(answer, `${text} [${parameters.join()}]`).toEqual(rows);
    this.checked++;
  }

  async #change(): Promise<void> {
    const model = this.#model;
    const local = model.state === 'open' && this.#random() < 0.5;
    const word = local ? 'LOCAL ' : '';
    const apply = (change: Partial<View>) => {
      if (local) Object.assign(model.local, change);
      else model.set(change);
    };
    switch (Math.floor(this.#random() * 8)) {
      case 0:
      case 1: {
        const tenant = this.#pick(TENANTS);
        if (this.#random() < 0.5) await this.#must(`SET ${word}app.tenant = '${tenant}'`);
        else await this.#must(`SELECT set_config('app.tenant', $1, ${local})`, [tenant]);
        return apply({ tenant });
      }
      case 2: {
        const zone = this.#pick(ZONES);
        await this.#must(`SET ${word}TimeZone = '${zone}'`);
        return apply({ zone });
      }
      case 3: {
        const schema = this.#pick(SCHEMAS);
        await this.#must(`SET ${word}search_path = ${schema}, public`);
        return apply({ schema });
      }
      case 4: {
        const role = this.#pick(ROLES);
        await this.#must(`SET ${word}ROLE ${role}`);
        return apply({ role });
      }
      case 5:
        await this.#must(this.#pick(['RESET ROLE', 'SET ROLE NONE']));
        return model.set({ role: this.#user });
      case 6: {
        const [name, key] = this.#pick([
          ['app.tenant', 'tenant'],
          ['TimeZone', 'zone'],
        ] as const);
        await this.#must(this.#pick([`RESET ${name}`, `SET ${name} TO DEFAULT`]));
        return model.set({ [key]: model.defaults[key] });
      }
      default: {
        if (model.state === 'idle' && this.#random() < 0.5) {
          await this.#client.query('DISCARD ALL');
          // It takes the prepared statements along, of which the driver does not hear.
          this.#client.connection.parsedStatements = {};
          return model.set(model.defaults);
        }
        await this.#must('RESET ALL');
        const { role: _role, ...others } = model.defaults;
        return model.set(others);
      }
    }
  }

  async #fail(): Promise<void> {
    const model = this.#model;
    // A setting that is made and undone by the error behind it.
    const text = this.#pick([
      'SELECT 1/0',
      `SET app.tenant = 'undone'; SELECT 1/0`,
      `SELECT set_config('app.tenant', 'undone', false), 1/(SELECT 0)`,
      'SELEC',
    ]);
    const answer = await this.#ask(text);
    expect(['22012', '42601']).toContain(answer);
    if (model.state === 'open') model.state = 'failed';
  }

  /** Goes away, in the middle of something perhaps, and somebody else comes. */
  async #leave(): Promise<void> {
    if (this.#random() < 0.5) {
      this.#client.query(`SELECT set_config('app.tenant', 'gone', false), pg_sleep(0.01)`).catch(() => {});
      this.#client.connection.stream.destroy();
    } else await this.#client.end();
    await this.#connect();
  }
}

/** A router with what the fuzzer needs, a well-behaved client beside it, and the questions that are asked of it afterwards. */
import pg from 'pg';
import { startTestCluster, type TestCluster, TRUSTED_USERS } from '../support/router.ts';
import { type FuzzOptions, type FuzzResult, fuzz } from './fuzzer.ts';

const CONNECTIONS_PER_NODE = 24;

interface FuzzReport extends FuzzResult {
  /** What the well-behaved client got that it should not have. */
  readonly wrongAnswers: string[];
  readonly rightAnswers: number;
  readonly rssBytesBefore: number;
  readonly rssBytesAfter: number;
  /** What is left when all rubbish has gone: clients, transactions, session locks; and backends that can't be had again. */
  readonly left: Record<string, number>;
}

export async function fuzzRouter(
  options: Pick<FuzzOptions, 'seed' | 'isDone' | 'connectionsAtOnce'>,
): Promise<FuzzReport> {
  const cluster = await startTestCluster({
    nodes: 2,
    users: [...TRUSTED_USERS, { name: 'secretive', password: 'not told' }],
    connectionsPerNode: CONNECTIONS_PER_NODE,
  });
  try {
    await prepare(cluster);
    const fuzzOptions: FuzzOptions = {
      port: cluster.port,
      database: 'app',
      trustedUser: 'app',
      secretUser: 'secretive',
      endTimeoutMs: 30_000,
      ...options,
      isDone: () => true,
    };
    // What is loaded and compiled once is not a leak.
    let warm = 0;
    await fuzz({ ...fuzzOptions, seed: options.seed + 1_000_000_000, isDone: () => warm++ > 200 });
    const rssBytesBefore = settledRss();
    const beside = new BesideClient(cluster.dsn());
    await beside.start();
    const result = await fuzz({ ...fuzzOptions, isDone: options.isDone });
    await beside.stop();
    const left = await leftBehind(cluster);
    return {
      ...result,
      wrongAnswers: beside.wrong,
      rightAnswers: beside.right,
      rssBytesBefore,
      rssBytesAfter: settledRss(),
      left,
    };
  } finally {
    await cluster.stop();
  }
}

async function prepare(cluster: TestCluster): Promise<void> {
  const client = new pg.Client({ connectionString: cluster.dsn() });
  await client.connect();
  await client.query('CREATE TABLE plain (id bigint GENERATED ALWAYS AS IDENTITY, note text)');
  await client.query('CREATE TABLE beside (id int PRIMARY KEY, n int NOT NULL)');
  await client.query(
    `CREATE TABLE events (id bigserial PRIMARY KEY, note text) WITH (postern.door = 'sharded', postern.key = 'id')`,
  );
  await client.end();
}

function settledRss(): number {
  globalThis.gc?.();
  return process.memoryUsage().rss;
}

/** Does the same round over and over, and knows what must come back. */
class BesideClient {
  readonly wrong: string[] = [];
  right = 0;
  readonly #client: pg.Client;
  #stopped = false;
  #loop: Promise<void> | undefined;

  constructor(dsn: string) {
    this.#client = new pg.Client({
      connectionString: dsn,
      options: '-c app.tenant=beside',
      query_timeout: 20_000,
    });
    this.#client.on('error', (error) => this.wrong.push(`connection: ${error.message}`));
  }

  async start(): Promise<void> {
    await this.#client.connect();
    this.#loop = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#loop;
    await this.#client.end();
  }

  async #run(): Promise<void> {
    for (let round = 0; !this.#stopped && this.wrong.length < 10; round++) {
      try {
        await this.#round(round);
        this.right++;
      } catch (error) {
        this.wrong.push(`round ${round}: ${(error as Error).message}`);
      }
    }
  }

  async #round(round: number): Promise<void> {
    const key = 1_000_000_000 + (round % 50);
    const ask = async (text: string, parameters: unknown[] = []) =>
      (await this.#client.query({ text, values: parameters, rowMode: 'array' })).rows;
    const expect = (what: string, rows: unknown, expected: unknown) => {
      if (JSON.stringify(rows) !== JSON.stringify(expected))
        throw new Error(`${what}: ${JSON.stringify(rows)} instead of ${JSON.stringify(expected)}`);
    };
    expect('tenant', await ask(`SELECT current_setting('app.tenant'), $1::int`, [round]), [
      ['beside', round],
    ]);
    await this.#client.query('BEGIN');
    await ask(
      'INSERT INTO events (id, note) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET note = excluded.note',
      [key, `n${round}`],
    );
    expect('keyed', await ask('SELECT note FROM events WHERE id = $1', [key]), [[`n${round}`]]);
    await this.#client.query(round % 2 === 0 ? 'COMMIT' : 'ROLLBACK');
    expect(
      'home',
      await ask(
        'INSERT INTO beside VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET n = beside.n + 1 RETURNING n',
        [1],
      ),
      [[round + 1]],
    );
  }
}

async function leftBehind(cluster: TestCluster): Promise<Record<string, number>> {
  const left = async (): Promise<Record<string, number>> => {
    const count = async (sql: string) => {
      let sum = 0;
      for (const server of cluster.servers) sum += Number((await server.query(sql))[0]!.n);
      return sum;
    };
    return {
      clients: cluster.router.clientCount,
      transactions: await count(
        `SELECT count(*) AS n FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'`,
      ),
      locks: await count(
        `SELECT count(*) AS n FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.usename = 'app' AND l.locktype IN ('advisory', 'relation')`,
      ),
    };
  };
  const deadlineMs = performance.now() + 15_000;
  let state = await left();
  while (Object.values(state).some((count) => count > 0) && performance.now() < deadlineMs) {
    await new Promise((resolve) => setTimeout(resolve, 200));
    state = await left();
  }
  return { ...state, backendsMissing: await backendsMissing(cluster) };
}

/** Can all of a node's connections still be had at the same time? */
async function backendsMissing(cluster: TestCluster): Promise<number> {
  const clients = Array.from(
    { length: CONNECTIONS_PER_NODE },
    () => new pg.Client({ connectionString: cluster.dsn(), query_timeout: 10_000 }),
  );
  for (const client of clients) client.on('error', () => {});
  const held = await Promise.all(
    clients.map(async (client) => {
      try {
        await client.connect();
        await client.query('BEGIN');
        await client.query('SELECT count(*) FROM beside');
        return 1;
      } catch {
        return 0;
      }
    }),
  );
  await Promise.all(clients.map((client) => client.end().catch(() => {})));
  return CONNECTIONS_PER_NODE - held.reduce<number>((sum, one) => sum + one, 0);
}

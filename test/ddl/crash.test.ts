/**
 * Routers that are killed (SIGKILL) at each step of a DDL statement, and another one that finds what is left: all nodes have all of
 * it or nothing, what was told is true, and the tables work.
 */
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import type { TestServer } from '../support/servers.ts';
import { BankRouter } from '../txn/bank-processes.ts';

let cluster: TestCluster;
/** The one that is killed. */
let dying: BankRouter;

const STEP_TIMEOUT_MS = 10_000;
const TIMES = {
  ...{ prepareMs: 2_000, decideMs: 2_000, resolveMs: 2_000, phaseTwoMs: 2_000, rollbackMs: 2_000 },
  ...{
    retryMs: 50,
    cleaningDelayMs: 300,
    recoveryAfterMs: 500,
    recoveryIntervalMs: 200,
    sweepIntervalMs: 400,
    leftAloneMs: 200,
  },
};

beforeAll(async () => {
  cluster = await startTestCluster({
    nodes: 2,
    settings: { max_prepared_transactions: '20' },
    transactions: { times: TIMES },
  });
  dying = new BankRouter(0);
});
afterAll(async () => {
  await dying.kill();
  await cluster.stop();
});

beforeEach(async () => {
  if (!dying.isAlive) await dying.start({ nodes: cluster.routerOptions.nodes, faults: {}, times: TIMES });
  await onRouter(cluster.port, [
    'DROP TABLE IF EXISTS crashed',
    `CREATE TABLE crashed (id bigint PRIMARY KEY, n int) WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = 4)`,
    'INSERT INTO crashed SELECT g, g FROM generate_series(1, 20) g',
  ]);
});

async function onRouter(port: number, statements: readonly string[]): Promise<pg.QueryResult> {
  const client = new pg.Client({ host: '127.0.0.1', port, user: 'app', database: 'app' });
  client.on('error', () => {});
  await client.connect();
  try {
    let result: pg.QueryResult | undefined;
    for (const statement of statements) result = await client.query(statement);
    return result!;
  } finally {
    await client.end().catch(() => {});
  }
}

async function onNode(server: TestServer, text: string): Promise<string[]> {
  const client = new pg.Client({ connectionString: server.dsn({ database: 'app' }) });
  await client.connect();
  try {
    const { rows } = await client.query({ text, rowMode: 'array' });
    return rows.map((row) => String(row[0]));
  } finally {
    await client.end();
  }
}

/** Nothing is prepared, and no lock of the dead router's is held. */
async function settled(): Promise<void> {
  const open = `SELECT gid FROM pg_prepared_xacts UNION ALL
    SELECT 'lock of ' || l.pid FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid IN (1886352244, 1886352245, 1886352246)`;
  await expect
    .poll(async () => (await Promise.all(cluster.servers.map((server) => onNode(server, open)))).flat(), {
      timeout: 20_000,
    })
    .toEqual([]);
}

/** Kills the router at the step; gives what its client heard. */
async function killAt(step: string, statements: readonly string[], count = 1): Promise<string> {
  const reached = dying.atStep({ effect: step, count, action: 'kill' }, STEP_TIMEOUT_MS);
  const told = onRouter(dying.port, statements).then(
    () => 'ok',
    () => 'failed',
  );
  expect(await reached, `the step "${step}" was not reached`).toBeDefined();
  await dying.kill();
  const heard = await told;
  await settled();
  return heard;
}

/** What leaves and faces look like, by node: the same everywhere. */
const COLUMNS = `SELECT DISTINCT string_agg(a.attname, ',' ORDER BY a.attnum) FROM pg_class c
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  WHERE c.relkind IN ('r', 'p') AND c.relname ~ '^crashed(_b\\d+_g\\d+)?$' GROUP BY c.oid`;

const COMMIT_STEPS = ['prepare', 'decide', 'commitPrepared', 'answer', 'clean'];

test.each(['ddl leaves', 'ddl release', ...COMMIT_STEPS])('ALTER TABLE, killed before %s', async (step) => {
  const heard = await killAt(step, ['ALTER TABLE crashed ADD COLUMN added int DEFAULT 7']);
  const columns = await Promise.all(cluster.servers.map((server) => onNode(server, COLUMNS)));
  const isThere = columns[0]![0] === 'id,n,added';
  expect(columns).toEqual(cluster.servers.map(() => [isThere ? 'id,n,added' : 'id,n']));
  if (heard === 'ok') expect(isThere).toBe(true);
  const order = [...COMMIT_STEPS];
  if (step === 'prepare' || step.startsWith('ddl')) expect(isThere).toBe(false);
  if (order.indexOf(step) > order.indexOf('decide')) expect(isThere).toBe(true);
  // The other router plans by what is there.
  const sum = isThere ? 'sum(added)' : 'count(*) * 7';
  const { rows } = await onRouter(cluster.port, [
    'INSERT INTO crashed VALUES (21, 21)',
    `SELECT (${sum})::int AS sum FROM crashed`,
  ]);
  expect(rows).toEqual([{ sum: 147 }]);
});

const MIGRATION = [
  'BEGIN',
  `CREATE TABLE crashed_new (id bigserial PRIMARY KEY, n int) WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = 4)`,
  'CREATE INDEX crashed_new_n ON crashed_new (n)',
  'INSERT INTO crashed_new (n) VALUES (1), (2), (3)',
  'DROP TABLE crashed',
  'COMMIT',
];

test.each(['ddl reserved', 'ddl release', 'prepare', 'decide', 'commitPrepared'])(
  'a migration that makes and drops tables, killed before %s',
  async (step) => {
    // The release of its last statement: all of it is there, and nothing is committed.
    const heard = await killAt(step, MIGRATION, step === 'ddl release' ? 3 : 1);
    const tables = `SELECT DISTINCT regexp_replace(relname, '_b\\d+_g\\d+$', '') FROM pg_class
      WHERE relkind IN ('r', 'p') AND relname ~ '^crashed' ORDER BY 1`;
    const found = await Promise.all(cluster.servers.map((server) => onNode(server, tables)));
    const isDone = found[0]!.includes('crashed_new');
    expect(found).toEqual(cluster.servers.map(() => [isDone ? 'crashed_new' : 'crashed']));
    if (heard === 'ok') expect(isDone).toBe(true);
    const records = await onNode(
      cluster.servers[1]!,
      'SELECT table_id FROM postern_internal.local_tables WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = face)',
    );
    expect(records).toEqual([]);
    const { rows } = await onRouter(cluster.port, [
      `SELECT count(*)::int AS count FROM ${isDone ? 'crashed_new' : 'crashed'}`,
    ]);
    expect(rows).toEqual([{ count: isDone ? 3 : 20 }]);
    if (isDone) await onRouter(cluster.port, ['DROP TABLE crashed_new']);
  },
);

/** Indexes of leaves, with whether they are valid; and of the face. */
const INDEXES = `SELECT regexp_replace(x.relname, '_b\\d+_g\\d+$', '') || ' ' || i.indisvalid || ' ' || c.relkind::text
  FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
  WHERE x.relname ~ '^crashed_ci' ORDER BY 1`;

test.each(['ddl unit 0', 'ddl unit 2', 'ddl unit 5', 'ddl end'])(
  'CREATE INDEX CONCURRENTLY, killed before %s: completed by the same statement, or resume_ddl',
  async (step) => {
    const statement = 'CREATE INDEX CONCURRENTLY crashed_ci ON crashed (n)';
    await killAt(step, [statement]);
    const faces = (await Promise.all(cluster.servers.map((server) => onNode(server, INDEXES)))).flat();
    // Users see it on the face: not before each leaf has it.
    if (!['ddl unit 5', 'ddl end'].includes(step))
      expect(faces.filter((index) => index.endsWith(' p'))).toEqual([]);
    const left = await onRouter(cluster.port, ['SELECT statement FROM postern.unfinished_ddl']);
    expect(left.rows).toEqual([{ statement }]);
    const again = step === 'ddl unit 2' ? 'SELECT postern.resume_ddl()' : statement;
    await onRouter(cluster.port, [again]);
    const found = await Promise.all(cluster.servers.map((server) => onNode(server, INDEXES)));
    const leaf = 'crashed_ci true r';
    expect(found).toEqual(cluster.servers.map(() => ['crashed_ci true p', leaf, leaf]));
    expect((await onRouter(cluster.port, ['SELECT * FROM postern.unfinished_ddl'])).rows).toEqual([]);
  },
);

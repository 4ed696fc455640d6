/**
 * What a transaction over several nodes answers in the corners that applications find: compared, message by message, with one
 * PostgreSQL. Each script is there because it once answered differently, or could.
 */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Message, RawClient, run } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';

const S: Message = ['sync'];
const q = (text: string): Message => ['query', text];

let cluster: TestCluster;
let direct: RawClient;
let routed: RawClient;
/** Keys on home, and on the two other nodes. */
const here: number[] = [];
const there: number[] = [];
const elsewhere: number[] = [];

const TOUCHED =
  "CREATE FUNCTION touched(int8) RETURNS int8 LANGUAGE plpgsql VOLATILE AS 'BEGIN RETURN $1; END'";
const SCHEMA = [
  'CREATE TABLE h (id int8 PRIMARY KEY, n int, v text)',
  'CREATE TABLE parent (id int8 PRIMARY KEY)',
  'CREATE TABLE child (id int8 REFERENCES parent DEFERRABLE INITIALLY DEFERRED)',
  'CREATE TABLE lazy (id int8 REFERENCES parent DEFERRABLE INITIALLY IMMEDIATE)',
  TOUCHED,
];

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 3, settings: { max_prepared_transactions: '20' } });
  await cluster.servers[0]!.query('CREATE DATABASE plain OWNER app');
  for (const server of cluster.servers) await server.query('CREATE ROLE other; GRANT other TO app');
  await connect();
  for (const client of [direct, routed]) for (const text of SCHEMA) await mustWork(client, text);
  const columns = '(id int8 PRIMARY KEY, n int CHECK (n < 1000), v text)';
  await mustWork(direct, `CREATE TABLE k ${columns}`);
  await mustWork(routed, `CREATE TABLE k ${columns} WITH (postern.door = 'sharded', postern.key = 'id')`);
  for (let id = 0; id < 32; id++) await mustWork(routed, `INSERT INTO k VALUES (${id}, ${id}, 'row')`);
  for (const [i, keys] of [here, there, elsewhere].entries()) {
    const node = new pg.Client({ connectionString: cluster.servers[i]!.dsn({ database: 'app' }) });
    await node.connect();
    const { rows } = await node.query(
      "SELECT relname FROM pg_class WHERE relname ~ '^k_b' AND relkind = 'r'",
    );
    for (const { relname } of rows) {
      const found = await node.query(`SELECT id FROM postern_leaves."${relname}"`);
      keys.push(...found.rows.map(({ id }) => Number(id)));
    }
    await node.end();
  }
  expect(Math.min(here.length, there.length, elsewhere.length)).toBeGreaterThan(1);
}, 60_000);

afterAll(async () => {
  direct?.end();
  routed?.end();
  await cluster?.stop();
});

async function mustWork(client: RawClient, text: string): Promise<void> {
  const lines = await client.query(text);
  expect(lines.filter((line) => line.startsWith('Error'))).toEqual([]);
}

async function connect(): Promise<void> {
  direct?.end();
  routed?.end();
  direct = await RawClient.connect({ port: cluster.servers[0]!.port, database: 'plain' });
  routed = await RawClient.connect({ port: cluster.port });
}

async function play(client: RawClient, script: readonly Message[]): Promise<string[]> {
  const rows = [here[0], here[1], there[0], there[1], elsewhere[0]];
  for (const table of ['child', 'lazy', 'parent', 'h']) await client.query(`DELETE FROM ${table}`);
  for (const id of rows) {
    await client.query(`DELETE FROM k WHERE id = ${id}`);
    await client.query(`INSERT INTO k VALUES (${id}, ${id}, 'row ${id}')`);
  }
  const lines = await client.play(script);
  for (const id of rows) lines.push(...(await client.query(`SELECT * FROM k WHERE id = ${id}`)));
  lines.push(...(await client.query('SELECT * FROM h ORDER BY id')));
  // A message of NOTIFY may come at any time.
  const isMessage = (line: string) => line.startsWith('Notification');
  return [...lines.filter((line) => !isMessage(line)), ...lines.filter(isMessage)];
}

async function compare(script: readonly Message[]): Promise<void> {
  try {
    const expected = await play(direct, script);
    const lines = await play(routed, script);
    if (process.env.REVIEW_SHOW) console.log(JSON.stringify(script), `\n${expected.join('\n')}`);
    expect(lines, JSON.stringify(script)).toEqual(expected);
    for (const server of cluster.servers) {
      expect(await server.query('SELECT gid FROM pg_prepared_xacts')).toEqual([]);
      const open = await server.query(
        "SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND state LIKE 'idle in%'",
      );
      expect(open).toEqual([]);
    }
  } finally {
    await connect();
  }
}

const onHome = (n = 1): Message => q(`UPDATE k SET n = n + ${n} WHERE id = ${here[0]}`);
const away = (n = 1): Message => q(`UPDATE k SET n = n + ${n} WHERE id = ${there[0]}`);
const runHome = (n = 1): Message[] => run(`UPDATE k SET n = n + ${n} WHERE id = $1`, [String(here[0])]);
const runAway = (n = 1): Message[] => run(`UPDATE k SET n = n + ${n} WHERE id = $1`, [String(there[0])]);

describe('a transaction over several nodes answers as one PostgreSQL', () => {
  const scripts: Record<string, () => readonly Message[]> = {
    'COMMIT behind a statement of another node, in one text': () => [
      q('BEGIN'),
      onHome(),
      q(`UPDATE k SET n = n + 1 WHERE id = ${there[0]}; COMMIT`),
    ],
    'COMMIT before a statement of another node, in one text': () => [
      q('BEGIN'),
      onHome(),
      q(`COMMIT; UPDATE k SET n = n + 1 WHERE id = ${there[0]}`),
    ],
    'SAVEPOINT before a statement of another node, in one text': () => [
      q('BEGIN'),
      onHome(),
      q(`SAVEPOINT a; UPDATE k SET n = n + 1 WHERE id = ${there[0]}`),
      q('ROLLBACK TO a'),
      q('COMMIT'),
    ],
    'a COMMIT that was bound when there was one node': () => [
      ...run('BEGIN'),
      ...runHome(),
      ['parse', 'c', 'COMMIT'],
      ['bind', 'p', 'c'],
      ...runAway(),
      ['execute', 'p'],
      S,
    ],
    'SET ROLE behind the writes': () => [
      q('BEGIN'),
      onHome(),
      away(),
      q('SET LOCAL ROLE other'),
      q('COMMIT'),
    ],
    'a role that another branch has not': () => [
      q('BEGIN'),
      away(),
      onHome(),
      q('SET ROLE other'),
      q('SELECT current_user'),
      q('COMMIT'),
      q('SELECT current_user'),
      q('RESET ROLE'),
    ],
    'READ ONLY with functions on three nodes, again and again': () =>
      [1, 2, 3].flatMap(() => [
        q('BEGIN READ ONLY'),
        ...[here, there, elsewhere].map(([id]) => q(`SELECT touched(id) FROM k WHERE id = ${id}`)),
        q('COMMIT'),
      ]),
    'writes of a session that has backends of its own on both nodes': () => [
      q(`SELECT pg_advisory_lock(7) FROM k WHERE id = ${here[0]}`),
      q(`SELECT pg_advisory_lock(8) FROM k WHERE id = ${there[0]}`),
      q('BEGIN'),
      onHome(),
      away(),
      q('COMMIT'),
    ],
    'READ ONLY by default, with functions on both': () => [
      q('SET default_transaction_read_only = on'),
      q('BEGIN'),
      q(`SELECT touched(id) FROM k WHERE id = ${here[0]}`),
      q(`SELECT touched(id) FROM k WHERE id = ${there[0]}`),
      q('COMMIT'),
      q('RESET default_transaction_read_only'),
    ],
    'READ ONLY in a transaction that has written on one node': () => [
      q('BEGIN'),
      away(),
      q(`SELECT touched(id) FROM k WHERE id = ${here[0]}`),
      q('SET TRANSACTION READ ONLY'),
      q(`SELECT touched(id) FROM k WHERE id = ${here[0]}`),
      q('COMMIT'),
    ],
    'READ ONLY with functions on both': () => [
      q('BEGIN READ ONLY'),
      q(`SELECT touched(id) FROM k WHERE id = ${here[0]}`),
      q(`SELECT touched(id) FROM k WHERE id = ${there[0]}`),
      q('COMMIT'),
    ],
    'NOTIFY first': () => [q('BEGIN'), q("NOTIFY c, 'x'"), onHome(), away(), q('COMMIT')],
    'NOTIFY and nothing else on home': () => [q('BEGIN'), q("NOTIFY c, 'x'"), away(), q('COMMIT')],
    'pg_notify() and nothing else on home': () => [
      q('BEGIN'),
      q("SELECT pg_notify('c', 'x')"),
      away(),
      away(),
      q('COMMIT'),
    ],
    'NOTIFY last': () => [q('BEGIN'), onHome(), away(), q("NOTIFY c, 'x'"), q('COMMIT')],
    'pg_notify()': () => [q('BEGIN'), q("SELECT pg_notify('c', 'x')"), away(), onHome(), away(), q('COMMIT')],
    'its own notification': () => [
      q('BEGIN'),
      q('LISTEN c'),
      q('COMMIT'),
      q('BEGIN'),
      onHome(),
      q("NOTIFY c, 'x'"),
      away(),
      q('COMMIT'),
      q('SELECT 1'),
    ],
    'a temporary table': () => [
      q('BEGIN'),
      q('CREATE TEMP TABLE tt (a int) ON COMMIT DROP'),
      q('INSERT INTO tt VALUES (1)'),
      away(),
      q('SELECT * FROM tt'),
      onHome(),
      q('COMMIT'),
      q('BEGIN'),
      onHome(),
      away(),
      q('COMMIT'),
    ],
    'FETCH while another branch is current': () => [
      q('BEGIN'),
      q(`DECLARE c CURSOR FOR SELECT id FROM k WHERE id = ${here[0]}`),
      away(),
      q('FETCH c'),
      q('CLOSE c'),
      q('COMMIT'),
    ],
    'cursors on both nodes': () => [
      q('BEGIN'),
      q(`DECLARE c CURSOR FOR SELECT id FROM k WHERE id = ${there[0]}`),
      q(`DECLARE d CURSOR FOR SELECT id FROM k WHERE id = ${here[0]}`),
      q('FETCH c'),
      q('FETCH d'),
      q('MOVE BACKWARD ALL FROM c'),
      q('FETCH c'),
      q('CLOSE c'),
      q('FETCH d'),
      q('COMMIT'),
    ],
    'a cursor’s name twice': () => [
      q('BEGIN'),
      q(`DECLARE c CURSOR FOR SELECT id FROM k WHERE id = ${there[0]}`),
      q(`DECLARE c CURSOR FOR SELECT id FROM k WHERE id = ${here[0]}`),
      q('COMMIT'),
    ],
    'a cursor that a rollback has closed': () => [
      q('BEGIN'),
      away(),
      q('SAVEPOINT a'),
      q(`DECLARE c CURSOR FOR SELECT id FROM k WHERE id = ${there[0]}`),
      onHome(),
      q('ROLLBACK TO a'),
      q(`DECLARE c CURSOR FOR SELECT id FROM k WHERE id = ${here[0]}`),
      away(),
      q('FETCH c'),
      q('CLOSE ALL'),
      q('FETCH c'),
      q('COMMIT'),
    ],
    'cursors in a pipeline': () => [
      ...run('BEGIN'),
      ...run(`DECLARE c CURSOR FOR SELECT id FROM k WHERE id = ${there[0]}`),
      ...runHome(),
      ...run('FETCH c'),
      ...run('CLOSE c'),
      ...run('COMMIT'),
      S,
    ],
    'a cursor WITH HOLD on the other node': () => [
      q('BEGIN'),
      q(`DECLARE c CURSOR WITH HOLD FOR SELECT id FROM k WHERE id = ${there[0]}`),
      onHome(),
      q('COMMIT'),
      q('SELECT count(*) FROM h'),
      q('FETCH c'),
      q('CLOSE c'),
    ],
    'SET CONSTRAINTS, and a savepoint around it': () => [
      q('BEGIN'),
      q('SAVEPOINT a'),
      q('SET CONSTRAINTS ALL DEFERRED'),
      away(),
      q('INSERT INTO lazy VALUES (78)'),
      q('ROLLBACK TO a'),
      q('INSERT INTO lazy VALUES (78)'),
      q('COMMIT'),
    ],
    'a cursor WITH HOLD': () => [
      q('BEGIN'),
      q('DECLARE c CURSOR WITH HOLD FOR SELECT 1'),
      away(),
      onHome(),
      q('COMMIT'),
      q('FETCH c'),
      q('CLOSE c'),
    ],
    'a deferred constraint that fails on home': () => [
      q('BEGIN'),
      away(),
      q('INSERT INTO child VALUES (77)'),
      q('COMMIT'),
    ],
    'a deferred constraint that fails on home, prepared': () => [
      q('BEGIN'),
      q('INSERT INTO child VALUES (77)'),
      away(),
      away(),
      q('COMMIT'),
    ],
    'a deferred constraint that fails at COMMIT AND CHAIN': () => [
      q('BEGIN'),
      q('INSERT INTO child VALUES (77)'),
      away(),
      q('COMMIT AND CHAIN'),
      away(),
    ],
    'a deferred constraint at Sync': () => [
      ...run('INSERT INTO child VALUES (77)'),
      ...runAway(),
      S,
      q('SELECT 1'),
    ],
    'SET CONSTRAINTS ahead of the node': () => [
      q('BEGIN'),
      away(),
      q('SET CONSTRAINTS ALL DEFERRED'),
      q('INSERT INTO lazy VALUES (78)'),
      q('INSERT INTO parent VALUES (78)'),
      q('COMMIT'),
      q('DELETE FROM lazy'),
    ],
    'SET CONSTRAINTS IMMEDIATE on another branch': () => [
      q('BEGIN'),
      q('INSERT INTO child VALUES (79)'),
      away(),
      q('SET CONSTRAINTS ALL IMMEDIATE'),
      q('COMMIT'),
    ],
    'DDL on home and a write elsewhere': () => [
      q('BEGIN'),
      away(),
      q('CREATE TABLE fresh (a int)'),
      q('INSERT INTO fresh VALUES (1)'),
      away(),
      q('COMMIT'),
      q('SELECT * FROM fresh'),
      q('BEGIN'),
      q('DROP TABLE fresh'),
      away(),
      q('ROLLBACK'),
      q('DROP TABLE fresh'),
    ],
    'COPY in it': () => [
      q('BEGIN'),
      away(),
      q('COPY h FROM STDIN'),
      ['copyData', '1\t2\tx\n'],
      ['copyDone'],
      away(),
      q('COPY h TO STDOUT'),
      q('COMMIT'),
    ],
    'COPY that fails in it': () => [
      q('BEGIN'),
      away(),
      q('COPY h FROM STDIN'),
      ['copyData', 'x\t2\tx\n'],
      ['copyDone'],
      away(),
      q('COMMIT'),
    ],
    'statement_timeout on a branch, and ROLLBACK TO': () => [
      q('BEGIN'),
      onHome(),
      q("SET LOCAL statement_timeout = '50ms'"),
      q('SAVEPOINT a'),
      q(`SELECT pg_sleep(5) FROM k WHERE id = ${there[0]}`),
      q('ROLLBACK TO a'),
      away(),
      q('COMMIT'),
    ],
    'errors and savepoints on each branch in turn': () => [
      q('BEGIN'),
      onHome(),
      q('SAVEPOINT a'),
      away(5000),
      q('ROLLBACK TO a'),
      away(),
      q('SAVEPOINT b'),
      onHome(5000),
      away(),
      q('ROLLBACK TO b'),
      onHome(),
      q('SAVEPOINT a'),
      away(5000),
      q('ROLLBACK TO a'),
      q('RELEASE a'),
      q('ROLLBACK TO a'),
      q('COMMIT'),
    ],
    'savepoints of odd names': () => [
      q('BEGIN'),
      q('SAVEPOINT "A b"'),
      away(),
      q('SAVEPOINT "x""y"'),
      onHome(),
      onHome(5000),
      q('ROLLBACK TO "x""y"'),
      q('RELEASE "A b"'),
      q('COMMIT'),
    ],
    'text that no parser knows': () => [q('BEGIN'), onHome(), away(), q('SELEC 1'), q('COMMIT')],
    'COMMIT of a failed one': () => [
      q('BEGIN'),
      onHome(),
      away(),
      q('SELECT 1/0'),
      q('COMMIT AND CHAIN'),
      away(),
    ],
    'a pipeline whose first part fails': () => [...runHome(5000), ...runAway(), S, ...runAway(), S],
    'a pipeline whose second part fails': () => [
      ...runHome(),
      ...runAway(5000),
      ...runHome(),
      S,
      ...runAway(),
      S,
    ],
    'a pipeline with ROLLBACK in the middle': () => [
      ...runHome(),
      ...runAway(),
      ...run('ROLLBACK'),
      ...runAway(),
      S,
    ],
    'a pipeline with COMMIT in the middle': () => [
      ...runHome(),
      ...runAway(),
      ...run('COMMIT'),
      ...runAway(5000),
      S,
    ],
    'a pipeline with SAVEPOINT': () => [...runHome(), ...runAway(), ...run('SAVEPOINT a'), ...runAway(), S],
    'a pipeline with Flush between nodes': () => [
      ...runHome(),
      ['flush'],
      ...runAway(),
      ['flush'],
      ...runHome(),
      S,
    ],
    'SET in a pipeline between nodes': () => [
      ...runHome(),
      ...run("SET work_mem = '1MB'"),
      ...runAway(),
      ...run('SHOW work_mem'),
      S,
      q('SHOW work_mem'),
      q('RESET work_mem'),
    ],
    'set_config in it, rolled back': () => [
      q('BEGIN'),
      onHome(),
      q("SELECT set_config('app.who', 'me', false)"),
      q(`UPDATE k SET v = current_setting('app.who', true) WHERE id = ${there[0]}`),
      q('ROLLBACK'),
      q("SELECT coalesce(current_setting('app.who', true), '')"),
      q(`SELECT coalesce(current_setting('app.who', true), '') FROM k WHERE id = ${there[0]}`),
      q(`SELECT coalesce(current_setting('app.who', true), '') FROM k WHERE id = ${here[0]}`),
    ],
    'RESET ALL in it': () => [
      q('BEGIN'),
      q("SET LOCAL work_mem = '1MB'"),
      onHome(),
      q('SET LOCAL work_mem TO DEFAULT'),
      q(`UPDATE k SET v = current_setting('work_mem') WHERE id = ${there[0]}`),
      q('COMMIT'),
    ],
    'DISCARD ALL in it': () => [
      q('BEGIN'),
      onHome(),
      away(),
      q('DISCARD ALL'),
      q('COMMIT'),
      q('DISCARD ALL'),
    ],
    'a function that writes, on home, and its constraint': () => [
      q('BEGIN'),
      q('WITH w AS (INSERT INTO child VALUES (80) RETURNING id) SELECT * FROM w'),
      away(),
      q('COMMIT'),
    ],
    'RETURNING, and the error at COMMIT': () => [
      q('BEGIN'),
      q(`UPDATE k SET n = n + 1 WHERE id = ${there[0]} RETURNING n`),
      q('INSERT INTO child VALUES (81) RETURNING id'),
      q('COMMIT'),
    ],
    'BEGIN in BEGIN': () => [q('BEGIN'), onHome(), away(), q('BEGIN'), away(), q('COMMIT'), q('COMMIT')],
    'prepared statements of both nodes': () => [
      ['parse', 'u', 'UPDATE k SET n = n + 1 WHERE id = $1'],
      S,
      q('BEGIN'),
      ['bind', '', 'u', [String(here[0])]],
      ['execute', ''],
      ['bind', '', 'u', [String(there[0])]],
      ['execute', ''],
      S,
      ['bind', '', 'u', [String(here[0])]],
      ['execute', ''],
      ['close', 'S', 'u'],
      S,
      q('COMMIT'),
    ],
    'LOCK and SELECT FOR UPDATE': () => [
      q('BEGIN'),
      q(`SELECT n FROM k WHERE id = ${here[0]} FOR UPDATE`),
      q(`SELECT n FROM k WHERE id = ${there[0]} FOR UPDATE`),
      q('LOCK TABLE h'),
      away(),
      q('COMMIT'),
    ],
    'notices at the commit': () => [q('BEGIN'), onHome(), away(), q('COMMIT'), q('COMMIT')],
  };
  for (const [name, script] of Object.entries(scripts)) it(name, () => compare(script()));
});

/** EXPLAIN through the router: where a query goes, why, and each node's own plan with the user's names. */
import type pg from 'pg';
import Cursor from 'pg-cursor';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient, value } from '../support/router-clients.ts';

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 2 });
});
afterAll(() => cluster?.stop());

async function connect(): Promise<pg.Client> {
  const client = await connectClient(cluster);
  await client.query("SET client_min_messages = 'warning'");
  return client;
}

async function plan(client: pg.Client, sql: string, parameters?: unknown[]): Promise<string> {
  const { rows } = await client.query<{ 'QUERY PLAN': string }>({
    text: sql,
    ...(parameters && { values: parameters }),
  });
  return rows.map((row) => row['QUERY PLAN']).join('\n');
}

async function prepare(client: pg.Client, name: string): Promise<void> {
  await client.query(
    `CREATE TABLE ${name} (account_id int8 NOT NULL, id int8 NOT NULL, body text, PRIMARY KEY (account_id, id))
     WITH (postern.door = 'sharded', postern.key = 'account_id', postern.buckets = 4)`,
  );
  await client
    .query(`INSERT INTO ${name} SELECT i, i, 'b' || i FROM generate_series(1, 40) i`)
    .catch(async () => {
      for (let i = 1; i <= 40; i++) await client.query(`INSERT INTO ${name} VALUES (${i}, ${i}, 'b${i}')`);
    });
}

describe('EXPLAIN', () => {
  it('names the bucket and the node of a keyed query, and tells its plan in the user’s names', async () => {
    const client = await connect();
    await prepare(client, 'keyed');
    const bucket = await plan(client, 'EXPLAIN SELECT * FROM keyed WHERE account_id = 7');
    expect(bucket).toMatch(/^Postern: bucket \d of keyed, on node n[12]\n/);
    expect(bucket).toMatch(/ on keyed {2}\(cost=/);
    expect(bucket).toContain('keyed_pkey');
    expect(bucket).not.toMatch(/_b\d+_g\d+|postern_leaves/);
    const bound = await plan(client, 'EXPLAIN SELECT * FROM keyed WHERE account_id = $1', [7]);
    expect(bound.replaceAll("'7'::bigint", '7')).toBe(bucket);
    const verbose = await plan(
      client,
      'EXPLAIN (VERBOSE, COSTS OFF) SELECT k.id FROM keyed k WHERE account_id = 7',
    );
    expect(verbose).toMatch(/ on public\.keyed k\n/);
    expect(verbose).toContain('Output: id');
  });

  it('shows one plan for each node of a query over all buckets, and the merge', async () => {
    const client = await connect();
    await prepare(client, 'wide');
    const plain = await plan(client, 'EXPLAIN (COSTS OFF) SELECT * FROM wide WHERE body = $1', ['b3']);
    expect(plain).toMatch(/^Postern: all 4 buckets of wide, on 2 nodes; rows pass as they come\n/);
    expect(plain).toContain('Reason: the shard key account_id is not bound to a value');
    expect(plain).toMatch(/Node n1, buckets \d, \d:\n/);
    expect(plain).toMatch(/Node n2, buckets \d, \d:\n/);
    expect(plain).toMatch(/Seq Scan on wide_b\d/);
    const merged = await plan(
      client,
      'EXPLAIN SELECT body, count(*) FROM wide GROUP BY body ORDER BY 1 LIMIT 3',
    );
    expect(merged).toMatch(/; merged on node n1\n/);
    expect(merged).toMatch(/Merge on node n1:\n/);
    const write = await plan(client, "EXPLAIN UPDATE wide SET body = 'x'");
    expect(write).toMatch(/Node n1, bucket \d \(alike, and not shown: \d\):/);
    const all = await plan(client, "EXPLAIN (VERBOSE) UPDATE wide SET body = 'x'");
    expect(all.match(/Update on public\.wide {2}\(/g)).toHaveLength(4);
    expect(await value(client, "SELECT count(*)::int FROM wide WHERE body = 'x'")).toBe(0);
  });

  it('is read in portions by clients with a limit of rows', async () => {
    const client = await connect();
    await prepare(client, 'portions');
    const cursor = client.query(
      new Cursor<{ 'QUERY PLAN': string }>('EXPLAIN (VERBOSE) DELETE FROM portions'),
    );
    const first = await cursor.read(2);
    expect(first).toHaveLength(2);
    const rest: unknown[] = [];
    for (let rows = await cursor.read(3); rows.length > 0; rows = await cursor.read(3)) rest.push(...rows);
    const whole = await plan(client, 'EXPLAIN (VERBOSE) DELETE FROM portions');
    expect([...first, ...rest].map((row) => (row as { 'QUERY PLAN': string })['QUERY PLAN']).join('\n')).toBe(
      whole,
    );
    await cursor.close();
  });

  it('tells reference, home and other tables apart', async () => {
    const client = await connect();
    await client.query(
      "CREATE TABLE currencies (code text PRIMARY KEY, name text) WITH (postern.door = 'reference')",
    );
    await client.query('CREATE TABLE plain (id int PRIMARY KEY)');
    expect(await plan(client, 'EXPLAIN SELECT * FROM currencies')).toMatch(
      /^Postern: on node n[12], as on any\n {2}Reason: it reads nothing but reference tables\n/,
    );
    expect(await plan(client, "EXPLAIN INSERT INTO currencies VALUES ('EUR', 'Euro')")).toMatch(
      /^Postern: on the home node, n1; its rows are then written on node n2\n/,
    );
    expect(await plan(client, 'EXPLAIN SELECT * FROM plain')).toMatch(
      /^Postern: on the home node, n1\n.*on plain {2}\(/,
    );
    expect(await plan(client, 'EXPLAIN SELECT 1')).toMatch(/it names no table\nResult/);
    expect(await value(client, 'SELECT count(*)::int FROM currencies')).toBe(0);
    await client.query('CREATE TEMP TABLE own (id int)');
    expect(await plan(client, 'EXPLAIN SELECT * FROM own')).toContain('Seq Scan on own');
    await client.query('PREPARE p AS SELECT * FROM plain');
    expect(await plan(client, 'EXPLAIN EXECUTE p')).toContain('on plain');
  });

  it('gives one JSON document with the plans of all nodes, also in YAML and XML', async () => {
    const client = await connect();
    await prepare(client, 'documents');
    const { rows } = await client.query(
      'EXPLAIN (FORMAT JSON, VERBOSE) SELECT * FROM documents WHERE account_id = 7',
    );
    const [document] = rows[0]['QUERY PLAN'];
    expect(document.Postern).toMatchObject({ Placement: 'keyed', Nodes: [expect.stringMatching(/^n[12]$/)] });
    expect(document.Plan).toMatchObject({
      'Relation Name': 'documents',
      Schema: 'public',
      Alias: 'documents',
    });
    expect(document.Plans).toHaveLength(1);
    expect(document.Plans[0]).toMatchObject({ Buckets: [expect.any(Number)], Plan: document.Plan });
    const wide = await client.query('EXPLAIN (ANALYZE, FORMAT JSON) SELECT count(*) FROM documents');
    const [whole] = wide.rows[0]['QUERY PLAN'];
    expect(whole.Plan).toMatchObject({ 'Custom Plan Provider': 'Postern', 'Actual Rows': 2 });
    expect(whole.Plans.map((one: { Node: string }) => one.Node)).toEqual(['n1', 'n2', 'n1']);
    expect(whole.Plans[2].Merge).toBe(true);
    const yaml = await plan(client, 'EXPLAIN (FORMAT YAML) SELECT * FROM documents');
    expect(yaml).toMatch(/^- Postern: \n {4}Placement: "scattered"\n/);
    expect(yaml).toMatch(/\n {4}Plans: |\n {2}Plans: \n/);
    const xml = await plan(client, 'EXPLAIN (FORMAT XML) SELECT * FROM documents WHERE account_id < 5');
    expect(xml).toMatch(
      /^<explain xmlns="http:\/\/www\.postgresql\.org\/2009\/explain">\n {2}<Query>\n {4}<Postern>/,
    );
    expect(xml).toContain('account_id &lt; ');
  });

  it('says why a query goes through the mesh, and shows what its server makes of it', async () => {
    const client = await connect();
    await prepare(client, 'meshed');
    const sql = 'SELECT avg(n) FROM (SELECT account_id, count(*) AS n FROM meshed GROUP BY account_id) AS q';
    const read = await plan(client, `EXPLAIN ${sql}`);
    expect(read).toMatch(/^Postern: read through the mesh of node n\d\n {2}Reason: .+\nAggregate/);
    expect(read).toMatch(/Foreign Scan|Async Foreign Scan/);
    expect(await plan(client, `EXPLAIN (ANALYZE) ${sql}`)).toMatch(/actual time/);
    const [document] = (await client.query(`EXPLAIN (FORMAT JSON) ${sql}`)).rows[0]['QUERY PLAN'];
    expect(document).toMatchObject({ Postern: { Placement: 'mesh' }, Plan: { 'Node Type': 'Aggregate' } });
  });

  it('explains views over sharded tables, and what schemas and settings decide', async () => {
    const client = await connect();
    await prepare(client, 'viewed');
    await client.query('CREATE VIEW some_of_it AS SELECT account_id, body FROM viewed WHERE id > 3');
    expect(await plan(client, 'EXPLAIN SELECT * FROM some_of_it WHERE account_id = 7')).toMatch(
      /^Postern: bucket \d of viewed, on node n\d\n/,
    );
    await client.query('BEGIN');
    await client.query('SET LOCAL enable_bitmapscan = off');
    await client.query('SET LOCAL enable_indexscan = off');
    expect(await plan(client, 'EXPLAIN SELECT * FROM viewed WHERE account_id = 7')).toContain(
      'Seq Scan on viewed',
    );
    await client.query('ALTER TABLE viewed ADD COLUMN more int');
    expect(await plan(client, 'EXPLAIN (VERBOSE) SELECT more FROM viewed WHERE account_id = 7')).toContain(
      'Output: more',
    );
    await client.query('ROLLBACK');
    const error = await client
      .query('EXPLAIN SELECT more FROM viewed')
      .catch((caught: pg.DatabaseError) => caught);
    expect(error).toMatchObject({ code: '42703' });
  });

  it('explains writes to a unique constraint off the shard key, and does not carry them out', async () => {
    const client = await connect();
    await client.query(
      `CREATE TABLE people (id int8 PRIMARY KEY, email text UNIQUE) WITH (postern.door = 'sharded', postern.key = 'id')`,
    );
    const insert = "INSERT INTO people VALUES (1, 'a@b.c')";
    expect(await plan(client, `EXPLAIN ${insert}`)).toMatch(
      /^Postern: bucket \d+ of people, on node n\d\n {2}Note: values of unique/,
    );
    expect(await value(client, `EXPLAIN ANALYZE ${insert}`)).toBe('!0A000');
    await client.query(insert);
    expect(await value(client, "INSERT INTO people VALUES (2, 'a@b.c')")).toBe('!23505');
  });

  it('carries out what it analyzes once, in the transaction of the client', async () => {
    const client = await connect();
    await prepare(client, 'analyzed');
    await client.query('BEGIN');
    const analyzed = await plan(
      client,
      "EXPLAIN (ANALYZE, COSTS OFF) UPDATE analyzed SET body = body || '!'",
    );
    expect(analyzed.match(/Update on analyzed/g)).toHaveLength(4);
    expect(analyzed).toMatch(/actual time/);
    expect(await value(client, "SELECT count(*)::int FROM analyzed WHERE body LIKE '%!'")).toBe(40);
    await client.query('ROLLBACK');
    expect(await value(client, "SELECT count(*)::int FROM analyzed WHERE body LIKE '%!'")).toBe(0);
    await plan(client, 'EXPLAIN ANALYZE DELETE FROM analyzed WHERE account_id = 7');
    await plan(client, 'EXPLAIN ANALYZE INSERT INTO analyzed VALUES (101, 1), (102, 1), (103, 1), (104, 1)');
    expect(await value(client, 'SELECT count(*)::int FROM analyzed')).toBe(43);
    await plan(client, 'EXPLAIN (ANALYZE false) DELETE FROM analyzed');
    expect(await value(client, 'SELECT count(*)::int FROM analyzed')).toBe(43);
  });

  it('tells what it can’t explain, and where a text is wrong', async () => {
    const client = await connect();
    await prepare(client, 'refused');
    expect(await value(client, 'EXPLAIN ANALYZE UPDATE refused SET account_id = account_id + 1')).toBe(
      '!0A000',
    );
    expect(await plan(client, 'EXPLAIN UPDATE refused SET account_id = account_id + 1')).toMatch(
      /the shard key account_id is set/,
    );
    const sql = 'EXPLAIN SELECT nothing FROM refused WHERE account_id = 7';
    const error = await client.query(sql).catch((caught: pg.DatabaseError) => caught);
    expect(error).toMatchObject({ code: '42703', position: String(sql.indexOf('nothing') + 1) });
    expect(await value(client, 'SELECT count(*)::int FROM refused')).toBe(40);
  });
});

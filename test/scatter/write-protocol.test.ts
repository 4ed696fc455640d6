/** Writes over several buckets, message by message: a server and the router answer alike. */
import pg from 'pg';
import { beforeEach, describe, expect, it } from 'vitest';
import { type Message, RawClient, run, sendCancel } from '../support/raw-client.ts';
import { answersTo, cluster, compareTables, fill, startWritePair } from './write-pair.ts';

startWritePair();

const S: Message = ['sync'];
const q = (text: string): Message => ['query', text];

beforeEach(fill);

describe('a server and the router answer alike', () => {
  it.each<[string, Message[]]>([
    ['a Query with RETURNING', [q('UPDATE t SET n = n + 1 RETURNING k, v')]],
    [
      'a Query without rows',
      [q('DELETE FROM t WHERE n < 10'), q('UPDATE t SET n = 1 WHERE false RETURNING k')],
    ],
    [
      'prepared',
      [...run('UPDATE t SET n = $1 WHERE k IN ($2, $3, $4) RETURNING k', ['5', '1', '2', '3']), S],
    ],
    [
      'by name, more than once',
      [
        ['parse', 's1', 'INSERT INTO t VALUES ($1, $2, $3), ($4, $2, $3) RETURNING k'],
        ['describe', 'S', 's1'],
        S,
        ['bind', 'p1', 's1', ['100', '1', 'x', '101']],
        ['describe', 'P', 'p1'],
        ['execute', 'p1'],
        ['close', 'P', 'p1'],
        S,
        ['bind', '', 's1', ['102', '1', 'x', '103']],
        ['execute', ''],
        S,
      ],
    ],
    [
      'a pipeline of several is one transaction',
      [
        ...run('UPDATE t SET n = 1 WHERE n < 5'),
        ...run('DELETE FROM t WHERE n > 15 RETURNING k'),
        ...run('UPDATE t SET n = 1 / (n - 7) WHERE n = 7'),
        ...run('DELETE FROM t'),
        S,
        q('SELECT k, n FROM t WHERE k = 1'),
      ],
    ],
    [
      'a pipeline of several and one of one bucket',
      [
        ...run('UPDATE t SET n = 1 WHERE n < 5'),
        ...run('DELETE FROM t WHERE k = 8'),
        ...run("INSERT INTO h VALUES (500, 'h', 1)"),
        S,
      ],
    ],
    [
      'BEGIN and COMMIT in one pipeline',
      [
        ...run('BEGIN'),
        ...run('UPDATE t SET n = 1 WHERE n < 5'),
        ...run('DELETE FROM t WHERE k = 8'),
        ...run('COMMIT'),
        S,
      ],
    ],
    [
      'a failed transaction',
      [
        q('BEGIN'),
        q('UPDATE t SET n = 1'),
        q('INSERT INTO t VALUES (1, 1), (2, 1), (3, 1)'),
        ...run('UPDATE t SET n = 2'),
        S,
        q('COMMIT'),
        q('SELECT n FROM t WHERE k = 2'),
      ],
    ],
    [
      'errors with positions',
      [
        q('UPDATE t SET nope = 1'),
        q("UPDATE t SET v = 'é', n = 'x'"),
        q("INSERT INTO t VALUES (1, 2, 'é'), (2, 'x', 'y')"),
        q('DELETE FROM t WHERE é = 1'),
        ...run('DELETE FROM t WHERE v = 1 AND n = $1'),
        S,
      ],
    ],
    [
      'errors of rows in the user’s names',
      [
        q('INSERT INTO t VALUES (3, 1), (100, 1)'),
        q('UPDATE t SET n = 5000 WHERE n = 3 OR n = 3'),
        q('UPDATE t SET k = 4 WHERE k = 3'),
        q('UPDATE t SET id = NULL WHERE n = 3 OR n = 3'),
      ],
    ],
    [
      'a limit where there are no rows',
      [['parse', '', 'DELETE FROM t WHERE n < $1'], ['bind', '', '', ['7']], ['execute', '', 1], S],
    ],
    [
      'an Execute too many',
      [['parse', '', 'DELETE FROM t'], ['bind', '', ''], ['execute', ''], ['execute', ''], S],
    ],
    [
      'Describe after Bind, in binary and text',
      [
        ['parse', '', 'UPDATE t SET n = 1 WHERE k > $1 RETURNING k, v, n'],
        ['bind', '', '', ['15']],
        ['describe', 'P', ''],
        ['describe', 'S', ''],
        ['execute', ''],
        S,
      ],
    ],
    [
      'a move',
      [
        ...run('UPDATE t SET k = $1, v = upper(v) WHERE k = $2 RETURNING *', ['600', '4']),
        S,
        ...run('INSERT INTO t (k, id) SELECT n, $1 FROM h WHERE n < $2 RETURNING k', ['77', '9']),
        S,
        q('UPDATE t SET k = k + 900 WHERE k > 5 RETURNING k'),
      ],
    ],
  ])('%s', async (_, messages) => {
    const { expected, actual } = await answersTo(messages);
    expect(actual).toEqual(expected);
    await compareTables();
  });
});

it('binary values and binary results', async () => {
  const client = new pg.Client({ connectionString: cluster.dsn() });
  await client.connect();
  const { rows } = await client.query({
    text: 'INSERT INTO t (k, id) VALUES ($1, 1), (102, $2) RETURNING k, id',
    values: [Buffer.from([0, 0, 0, 0, 0, 0, 0, 101]), 5],
    binary: true,
    types: { getTypeParser: () => (value: unknown) => value },
  } as unknown as pg.QueryConfig);
  const int8 = (last: number) => Buffer.from([0, 0, 0, 0, 0, 0, 0, last]);
  const int4 = (last: number) => Buffer.from([0, 0, 0, last]);
  expect(rows).toEqual([
    { k: int8(101), id: int4(1) },
    { k: int8(102), id: int4(5) },
  ]);
  await client.end();
});

it('a limit of rows is refused', async () => {
  const client = await RawClient.connect({ port: cluster.port });
  const lines = await client.exchange([
    ['parse', '', 'DELETE FROM t RETURNING k'],
    ['bind', '', ''],
    ['execute', '', 1],
    S,
  ]);
  expect(lines[2]).toMatch(/^Error ERROR C=0A000/);
  client.end();
});

it('a cancel request stops it on every node', async () => {
  const client = await RawClient.connect({ port: cluster.port });
  client.send(q('UPDATE t SET n = n WHERE pg_sleep(30) IS NULL'));
  const home = cluster.servers[0]!;
  const other = cluster.servers[2]!;
  for (const server of [home, other]) {
    for (;;) {
      const [row] = await server.query(
        "SELECT count(*)::int AS n FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%' AND wait_event = 'PgSleep'",
      );
      if (row?.n === 1) break;
    }
  }
  await sendCancel(cluster.port, client.processId, client.secretKey);
  const lines = await client.readUntil(/^Ready/);
  expect(lines[0]).toMatch(/C=57014/);
  expect(await client.query('SELECT 1 AS one')).toContain('Row 1');
  client.end();
});

it('much RETURNING to a slow reader', async () => {
  const client = await RawClient.connect({ port: cluster.port });
  await client.query(
    "INSERT INTO t (k, id, v) SELECT g, 8, repeat('x', 2000) FROM generate_series(1, 6000) g",
  );
  client.socket.pause();
  client.send(q('DELETE FROM t WHERE id = 8 RETURNING v'));
  await new Promise((resolve) => setImmediate(resolve));
  client.socket.resume();
  const lines = await client.readUntil(/^Ready/);
  expect(lines.filter((line) => line.startsWith('Row ')).length).toBe(6000);
  client.end();
});

describe('a backend that is lost while the pieces run', () => {
  it.each([false, true])('takes the statement with it, in a transaction block: %s', async (inBlock) => {
    const client = await RawClient.connect({ port: cluster.port });
    if (inBlock) await client.query('BEGIN');
    client.send(q('UPDATE t SET n = n WHERE pg_sleep(30) IS NULL'));
    const other = cluster.servers[2]!;
    const ended = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE query LIKE '%pg_sleep(30)%' AND wait_event = 'PgSleep'`;
    while ((await other.query(ended)).length === 0);
    // The other nodes would sleep on.
    const lines = await client.readUntil(/^Ready/);
    expect(lines.at(-2)).toMatch(/^Error ERROR C=08006/);
    expect(lines.at(-1)).toBe(inBlock ? 'Ready E' : 'Ready I');
    if (inBlock) expect(await client.query('COMMIT')).toEqual(['Complete ROLLBACK', 'Ready I']);
    expect(await client.query('DELETE FROM t WHERE n < 5')).toEqual(['Complete DELETE 5', 'Ready I']);
    client.end();
  });
});

/** COPY … FROM STDIN through a router and on one PostgreSQL: the same rows, and the same errors with the same lines. */
import { describe, expect, test } from 'vitest';
import {
  cluster,
  connect,
  copyIn,
  copyOut,
  copyToBoth,
  direct,
  routed,
  rowsOf,
  startCopyPair,
} from './copy-pair.ts';

startCopyPair();

async function expectSame(
  text: string,
  data: string | readonly (string | Buffer)[],
  table = 't',
): Promise<unknown> {
  for (const client of [direct, routed]) await client.query(`DELETE FROM ${table}`);
  const { expected, actual } = await copyToBoth(text, typeof data === 'string' ? [data] : data, table);
  expect(actual).toEqual(expected);
  return actual.result;
}

const lines = (count: number, line: (i: number) => string) =>
  Array.from({ length: count }, (_, i) => line(i)).join('');

describe('rows', () => {
  test.each<[string, string, string, string?]>([
    ['text', 'COPY t FROM STDIN', '1\t1\ta\\tb\t1.5\n-2\t2\t\\N\t\\N\n003\t3\t\\\\N\\x41\\101\t1e2\n'],
    ['columns in another order', 'COPY t (v, id, k) FROM STDIN', 'a\t1\t7\nb\t2\t8\n'],
    ['lines of Windows', 'COPY t (k, id, v) FROM STDIN', '1\t1\ta\r\n2\t2\tb\r\n'],
    ['lines of old Macintoshes', 'COPY t (k, id, v) FROM STDIN', '1\t1\ta\r2\t2\tb\r'],
    ['no end of the last line', 'COPY t (k, id, v) FROM STDIN', '1\t1\ta\n2\t2\tb'],
    ['a last line that ends in a backslash', 'COPY t (k, id, v) FROM STDIN', '1\t1\ta\n2\t2\tb\\'],
    ['an end marker', 'COPY t (k, id, v) FROM STDIN', '1\t1\ta\n2\t2\tb\n\\.\n'],
    ['rows behind the end marker', 'COPY t (k, id, v) FROM STDIN', '1\t1\ta\n\\.\nnonsense\n'],
    ['nothing', 'COPY t FROM STDIN', ''],
    ['a newline behind a backslash', 'COPY t (k, id, v) FROM STDIN', '1\t1\ta\\\nb\n2\t2\tc\n'],
    ['CSV', 'COPY t FROM STDIN CSV', '1,1,"a ""b""",1\n"2",2,"x\ny",\n3,3,"",4\n'],
    ['CSV with a header', 'COPY t FROM STDIN (FORMAT csv, HEADER)', 'k,id,v,n\n1,1,a,1\n'],
    ['CSV whose header matches', 'COPY t (id, k) FROM STDIN (FORMAT csv, HEADER match)', 'id,k\n1,1\n2,7\n'],
    [
      'CSV of other characters',
      `COPY t (k, id, v) FROM STDIN (FORMAT csv, DELIMITER ';', QUOTE '''', ESCAPE '\\', NULL 'nil')`,
      "'1';1;'a\\'b'\n2;2;nil\n3;3;'nil'\n",
    ],
    [
      'forced nulls',
      'COPY words (w, note) FROM STDIN (FORMAT csv, FORCE_NOT_NULL (w), FORCE_NULL (note))',
      ',""\na,x\n',
      'words',
    ],
    [
      'a condition',
      'COPY t (k, id, v) FROM STDIN WHERE k % 2 = 0 AND v <> $$x$$',
      '1\t1\ta\n2\t2\tb\n4\t4\tx\n',
    ],
    ['words', 'COPY words (w, n) FROM STDIN', 'Grüße\t1\n\\x41\\\\\t2\n\\tb\t3\n\t4\n', 'words'],
    ['null keys', 'COPY nullable FROM STDIN', '\\N\ta\n1\tb\n\\N\tc\n', 'nullable'],
    [
      'times in other forms',
      'COPY times FROM STDIN',
      '2024-01-01 10:00:00+00\ta\n01/02/2003 4 pm\tb\ninfinity\tc\n2024-06-01 10:00:00 Europe/Paris\td\n',
      'times',
    ],
    ['days in other forms', 'COPY days FROM STDIN', '2024-02-29\ta\n20240301\tb\nepoch\tc\n', 'days'],
    [
      'other types',
      'COPY types FROM STDIN',
      'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\t\\\\x00ff\t{a,"b c",NULL}\t{"a": [1, "\\\\n"]}\tNaN\t2024-01-01\tt\t1 day\n',
      'types',
    ],
  ])('%s', async (_, text, data, table) => {
    await expectSame(text, data, table);
  });

  test('many, cut anywhere', async () => {
    const data = Buffer.from(
      lines(3000, (i) => `${i * 37}\t${i}\trow ${i} ${'x'.repeat(i % 90)}\t${i % 1000}\n`),
    );
    const pieces: Buffer[] = [];
    for (let at = 0, size = 1; at < data.length; at += size, size = (size * 7 + 3) % 1013)
      pieces.push(data.subarray(at, at + size));
    expect(await expectSame('COPY t FROM STDIN', pieces)).toEqual({ rows: 3000 });
  });

  test('one that is larger than what is sent at once', async () => {
    const long = 'long '.repeat(400_000);
    await expectSame('COPY t (k, id, v) FROM STDIN', `1\t1\t${long}\n2\t2\tb\n`);
    await expectSame('COPY t (k, id, v) FROM STDIN CSV', `11,1,"${long}\n"\n12,2,b\n`);
  });

  test('in binary', async () => {
    for (const client of [direct, routed]) await client.query('DELETE FROM t');
    await copyIn(direct, 'COPY t FROM STDIN', [lines(500, (i) => `${i}\t${i}\trow ${i}\t${i}.25\n`)]);
    const { rows } = await direct.query('SELECT count(*)::int FROM t');
    const binary = await copyOut(direct, 'COPY t TO STDOUT BINARY');
    const result = await copyIn(routed, 'COPY t FROM STDIN (FORMAT binary)', [binary as Buffer]);
    expect(result).toEqual({ rows: rows[0].count });
    expect(await rowsOf(routed, 't')).toEqual(await rowsOf(direct, 't'));
    const cut = (binary as Buffer).subarray(0, 5000);
    await expectSame('COPY t FROM STDIN (FORMAT binary)', [cut]);
    await expectSame('COPY t (k, id) FROM STDIN (FORMAT binary)', [binary as Buffer]);
    await expectSame('COPY t FROM STDIN (FORMAT binary)', ['1\ta\n']);
  });
});

describe('keys that go by a directory', () => {
  const DIRECTORIES: readonly (readonly [string, string, string, string])[] = [
    ['ranged', 'int8', "postern.method = range, postern.bounds = '{-10,0,10,100}'", ''],
    ['ranged_text', 'text', "postern.method = range, postern.bounds = '{1,3,7}'", ''],
    ['ranged_days', 'date', "postern.method = range, postern.bounds = '{2024-01-01,2024-02-01}'", ''],
    ['listed', 'int4', "postern.method = list, postern.values = '{{1,2},3}', postern.buckets = 3", ''],
    ['pinned', 'int8', 'postern.buckets = 4', "SELECT postern.pin_tenant('pinned', '5', 'n2')"],
  ];
  test.each(DIRECTORIES)('%s by %s, in all formats', async (name, type, options, afterwards) => {
    await direct.query(`CREATE TABLE ${name} (k ${type}, id int)`);
    await routed.query(
      `CREATE TABLE ${name} (k ${type}, id int) WITH (postern.door = sharded, postern.key = k, ${options})`,
    );
    if (afterwards !== '') {
      const admin = await connect(cluster.dsn('postgres'));
      await admin.query(afterwards);
      await admin.end();
    }
    const key = (i: number) => (type === 'date' ? `2024-0${1 + (i % 3)}-0${1 + (i % 9)}` : String(i - 20));
    const data = lines(140, (i) => `${key(i)}\t${i}\n`);
    await expectSame(`COPY ${name} FROM STDIN`, data, name);
    await expectSame(`COPY ${name} FROM STDIN (FORMAT csv, DELIMITER '\t')`, data, name);
    const binary = await copyOut(direct, `COPY ${name} TO STDOUT BINARY`);
    expect(await expectSame(`COPY ${name} FROM STDIN BINARY`, [binary as Buffer], name)).toEqual({
      rows: 140,
    });
    // Each is where a statement with its key looks for it.
    for (const i of [0, 9, 10, 20, 21, 22, 23, 25, 31, 119, 121]) {
      const texts = [direct, routed].map(async (client) => {
        const { rows } = await client.query(`SELECT id FROM ${name} WHERE k = $1 ORDER BY id`, [key(i)]);
        return rows;
      });
      const [expected, actual] = await Promise.all(texts);
      expect(actual).toEqual(expected);
    }
  });
});

describe('errors', () => {
  const good = (count: number) => lines(count, (i) => `${i}\t${i}\ta\t1\n`);
  test.each<[string, string, string]>([
    ['a value', 'COPY t FROM STDIN', `${good(100)}100\t1\ta\tx\n200\t1\ta\t1\n`],
    ['a key', 'COPY t FROM STDIN', `${good(3)}abc\t1\ta\t1\n`],
    ['a key that is out of range', 'COPY t FROM STDIN', `${good(3)}99999999999999999999\t1\ta\t1\n`],
    ['a null', 'COPY t FROM STDIN', `${good(3)}5\t\\N\ta\t1\n`],
    ['a null key', 'COPY t FROM STDIN', `${good(3)}\\N\t1\ta\t1\n`],
    ['a check', 'COPY t FROM STDIN', `${good(3)}5\t9\ta\t1000\n`],
    ['a duplicate', 'COPY t FROM STDIN', `${good(50)}7\t7\tagain\t1\n`],
    ['a missing column', 'COPY t FROM STDIN', `${good(3)}5\n`],
    ['no column at all', 'COPY t (v, k) FROM STDIN', 'a\t1\nb\n'],
    ['an extra column', 'COPY t FROM STDIN', `${good(3)}5\t9\ta\t1\tx\n`],
    ['a byte that is no character', 'COPY t (k, id, v) FROM STDIN', '1\t1\ta\n2\t2\t\\xff\n'],
    ['a carriage return', 'COPY t (k, id, v) FROM STDIN', '1\t1\ta\n2\t2\ta\rb\n'],
    ['a newline among other ends', 'COPY t (k, id, v) FROM STDIN', '1\t1\ta\r\n2\t2\tb\n'],
    ['a quote that is not closed', 'COPY t (k, id, v) FROM STDIN CSV', '1,1,a\n2,2,"b\n3,3,c\n'],
    ['lines within quotes', 'COPY t (k, id, v, n) FROM STDIN CSV', '1,1,"a\n\nb",1\n2,2,"c\nd",x\n3,3,e,1\n'],
    ['a header that does not match', 'COPY t (k, id) FROM STDIN (FORMAT csv, HEADER match)', 'k,di\n1,1\n'],
    ['no header where one must be', 'COPY t (k, id) FROM STDIN (FORMAT csv, HEADER match)', ''],
    ['an unknown column', 'COPY t (k, nothing) FROM STDIN', ''],
    ['a column twice', 'COPY t (k, k) FROM STDIN', ''],
    ['an unknown option', 'COPY t FROM STDIN (FORMAT csv, NONSENSE)', ''],
    ['a delimiter of two characters', "COPY t FROM STDIN (DELIMITER 'ab')", ''],
    ['a generated column', 'COPY words (w, total) FROM STDIN', ''],
  ])('%s', async (_, text, data) => {
    const result = (await expectSame(text, data)) as { code?: string };
    expect(result.code).toBeDefined();
    expect(await rowsOf(routed, 't')).toEqual([]);
  });

  test('an error does not depend on where the data are cut', async () => {
    const data = Buffer.from('1,1,"a\n\nb",1\n2,2,"c\nd",x\n3,3,e,1\n');
    const whole = await copyIn(direct, 'COPY t FROM STDIN CSV', [data]);
    for (let cut = 0; cut <= data.length; cut += 3) {
      const pieces = [data.subarray(0, cut), data.subarray(cut)];
      expect(await copyIn(routed, 'COPY t FROM STDIN CSV', pieces)).toEqual(whole);
    }
  });

  test('a row far behind is told by its line', async () => {
    await routed.query('DELETE FROM t');
    const data = lines(60_000, (i) => `${i}\t${i}\t${'x'.repeat(100)}\t${i === 55_554 ? 'bad' : 1}\n`);
    const result = await copyIn(routed, 'COPY t FROM STDIN', [data]);
    expect(result).toMatchObject({ code: '22P02', where: 'COPY t, line 55555, column n: "bad"' });
    expect(await rowsOf(routed, 't')).toEqual([]);
  });

  test('rows that are ignored are counted once', async () => {
    for (const client of [direct, routed]) await client.query('DELETE FROM t');
    const data = lines(100, (i) => `${i}\t${i}\ta\t${i % 10 === 3 ? 'x' : 1}\n`);
    const notices: unknown[] = [];
    for (const client of [direct, routed]) {
      const heard: unknown[] = [];
      const listen = ({ message, where }: { message?: string | undefined; where?: string | undefined }) =>
        void heard.push({ message, where });
      client.on('notice', listen);
      const result = await copyIn(client, 'COPY t FROM STDIN (ON_ERROR ignore)', [data]);
      client.off('notice', listen);
      notices.push({ result, heard });
    }
    expect(notices[1]).toEqual(notices[0]);
    expect(await rowsOf(routed, 't')).toHaveLength(90);
  });
});

describe('ids', () => {
  test('of a key that is left out are given by the router, each once', async () => {
    const data = lines(3000, (i) => `note ${i}\t${i}\n`);
    expect(
      await copyIn(routed, 'COPY serials (note, n) FROM STDIN', [data.slice(0, 777), data.slice(777)]),
    ).toEqual({ rows: 3000 });
    expect(await copyIn(routed, 'COPY serials (note, n) FROM STDIN CSV', ['"a,b",1\nb,2'])).toEqual({
      rows: 2,
    });
    const { rows } = await routed.query(
      'SELECT count(*)::int, count(DISTINCT id)::int AS ids, min(id) > 0 AS positive FROM serials',
    );
    expect(rows).toEqual([{ count: 3002, ids: 3002, positive: true }]);
    const inserted = await routed.query(`INSERT INTO serials (note) VALUES ('last') RETURNING id`);
    const { rows: found } = await routed.query('SELECT note FROM serials WHERE id = $1', [
      inserted.rows[0].id,
    ]);
    expect(found).toEqual([{ note: 'last' }]);
  });

  test('of another column', async () => {
    expect(
      await copyIn(routed, 'COPY noted (k, note) FROM STDIN', [lines(100, (i) => `${i}\tn${i}\n`)]),
    ).toEqual({ rows: 100 });
    const { rows } = await routed.query('SELECT count(DISTINCT id)::int AS ids FROM noted');
    expect(rows).toEqual([{ ids: 100 }]);
  });

  test('errors are told in the client’s columns', async () => {
    for (const [data, where] of [
      ['a\t1\nb\n', 'COPY serials, line 2: "b"'],
      ['a\t1\nb\t2\t3\n', 'COPY serials, line 2: "b\t2\t3"'],
      ['a\tx\n', 'COPY serials, line 1, column n: "x"'],
    ] as const) {
      expect(await copyIn(routed, 'COPY serials (note, n) FROM STDIN', [data])).toMatchObject({ where });
      expect(await copyIn(direct, 'COPY serials (note, n) FROM STDIN', [data])).toMatchObject({ where });
    }
  });
});

describe('what is refused', () => {
  test.each<[string, RegExp]>([
    ['COPY t FROM STDIN (FREEZE)', /FREEZE/],
    ["COPY t FROM STDIN (ENCODING 'LATIN1')", /ENCODING/],
    ['COPY t FROM STDIN (ON_ERROR ignore, REJECT_LIMIT 3)', /REJECT_LIMIT/],
    ["COPY t FROM '/tmp/x'", /file of a server/],
    ['COPY t FROM STDIN WHERE t.k = 1', /qualified/],
  ])('%s', async (text, message) => {
    expect(await copyIn(routed, text, [''])).toMatchObject({
      code: '0A000',
      message: expect.stringMatching(message),
    });
  });

  test('a key whose meaning depends on what the transaction has set', async () => {
    await routed.query("BEGIN; SET LOCAL datestyle = 'German'");
    expect(await copyIn(routed, 'COPY days FROM STDIN', ['2024-01-01\ta\n'])).toEqual({ rows: 1 });
    expect(await copyIn(routed, 'COPY days FROM STDIN', ['03.04.2024\tb\n'])).toMatchObject({
      code: '0A000',
    });
    await routed.query('ROLLBACK');
    await routed.query("SET datestyle = 'German'");
    expect(await copyIn(routed, 'COPY days FROM STDIN', ['03.04.2024\tb\n'])).toEqual({ rows: 1 });
    await routed.query('RESET datestyle');
    expect(await routed.query("SELECT v FROM days WHERE day = '2024-04-03'")).toMatchObject({
      rows: [{ v: 'b' }],
    });
  });
});

describe('rights', () => {
  test('are those of the leaves, told with the name of the table', async () => {
    for (const server of cluster.servers) await server.query('CREATE ROLE stranger LOGIN').catch(() => {});
    const client = await connect(cluster.dsn('postgres'));
    try {
      await client.query('SET ROLE stranger');
      const result = await copyIn(client, 'COPY t FROM STDIN', ['1\t1\ta\t1\n']);
      expect(result).toMatchObject({ code: '42501', message: 'permission denied for table t' });
    } finally {
      await client.end();
    }
  });
});

import { beforeAll, describe, expect, test } from 'vitest';
import { rewrittenOf, routeOf, statementOf } from '../../test/support/example-map.ts';
import { loadParser } from '../sql/parser.ts';

beforeAll(loadParser);

describe('CREATE TABLE with a door', () => {
  test.each([
    [
      "CREATE TABLE t (id int8, v text) WITH (postern.door = 'sharded', postern.key = 'id')",
      { name: 't', schema: undefined, key: 'id', createText: 'CREATE TABLE t (id int8, v text)' },
    ],
    [
      ' /* é */ create table if not exists "S"."T" ("Id" int /* with (x) */ default (1), check ("Id" > 0)) -- é\n with (postern.key="Id", postern.door=sharded, postern.buckets=64, postern.colocate_with=accounts) -- end\n',
      {
        schema: 'S',
        name: 'T',
        key: 'Id',
        ifNotExists: true,
        placement: { method: 'hash', bucketCount: 64 },
        colocateWith: 'accounts',
        createText:
          'create table if not exists "S"."T" ("Id" int /* with (x) */ default (1), check ("Id" > 0))',
      },
    ],
    [
      "SELECT 1; CREATE TABLE t (d timestamp with time zone) WITH (postern.door=sharded, postern.key=d, postern.buckets='8'); SELECT 2",
      {
        key: 'd',
        placement: { method: 'hash', bucketCount: 8 },
        createText: 'CREATE TABLE t (d timestamp with time zone)',
      },
    ],
  ])('%s', (text, expected) => {
    const commands = text.startsWith('SELECT') ? text.split('; ').slice(1, 2) : [text];
    expect(statementOf(commands[0]!).command).toMatchObject({ kind: 'createShardedTable', ...expected });
  });

  test.each([
    ['t (id int) WITH (postern.door = sharded)', '22023'],
    ['t (id int) WITH (postern.key = id)', '22023'],
    ["t (id int) WITH (postern.door = 'sharded', postern.key = '')", '22023'],
    ['t (id int) WITH (postern.door = shard, postern.key = id)', '22023'],
    ['t (id int) WITH (postern.door = sharded, postern.key = id, postern.bucket = 3)', '22023'],
    ['t (id int) WITH (postern.door = sharded, postern.key = id, postern.key = id)', '22023'],
    ['t (id int) WITH (postern.door = sharded, postern.key = id, postern.buckets = 0)', '22023'],
    ['t (id int) WITH (postern.door = sharded, postern.key = id, postern.buckets = many)', '22023'],
    ['t (id int) WITH (postern.door)', '22023'],
    ["t (id int) WITH (postern.door = sharded, postern.key = id, postern.bounds = '{1}')", '22023'],
    ["t (id int) WITH (postern.door = sharded, postern.key = id, postern.values = '{1}')", '22023'],
    ['t (id int) WITH (postern.door = sharded, postern.key = id, postern.method = range)', '22023'],
    ['t (id int) WITH (postern.door = sharded, postern.key = id, postern.method = modulo)', '22023'],
    [
      "t (id int) WITH (postern.door = sharded, postern.key = id, postern.method = range, postern.bounds = '{1')",
      '22023',
    ],
    [
      "t (id int) WITH (postern.door = sharded, postern.key = id, postern.method = range, postern.bounds = '1},{2')",
      '22023',
    ],
    [
      "t (id int) WITH (postern.door = sharded, postern.key = id, postern.method = range, postern.bounds = '{1}', postern.buckets = 4)",
      '22023',
    ],
    [
      "t (id int) WITH (postern.door = sharded, postern.key = id, postern.method = list, postern.bounds = '{1}')",
      '22023',
    ],
    ["t (id int) WITH (postern.door = sharded, postern.key = id, postern.nodes = '{n1}')", '22023'],
    ['t (id int) WITH (postern.door = single, postern.method = range)', '22023'],
    ['t (id int) WITH (postern.door = single, postern.key = id)', '22023'],
    ['t (id int) WITH (postern.door = leaderless)', '0A000'],
    ['t (id int) WITH (postern.door = sharded, postern.key = id, fillfactor = 70)', '0A000'],
    ['t (id int REFERENCES x) WITH (postern.door = sharded, postern.key = id)', '0A000'],
    ['t (id int, LIKE x) WITH (postern.door = sharded, postern.key = id)', '0A000'],
    ['t (id int) INHERITS (x) WITH (postern.door = sharded, postern.key = id)', '0A000'],
    ['t (id int) PARTITION BY HASH (id) WITH (postern.door = sharded, postern.key = id)', '0A000'],
    ['t (id int) USING heap WITH (postern.door = sharded, postern.key = id)', '0A000'],
    ['t (id int) WITH (postern.door = sharded, postern.key = id) TABLESPACE x', '0A000'],
  ])('CREATE TABLE %s → %s', (rest, sqlState) => {
    expect(routeOf(`CREATE TABLE ${rest}`)).toBe(sqlState);
  });

  test.each(['TEMP', 'UNLOGGED'])('CREATE %s TABLE is refused', (word) => {
    const text = `CREATE ${word} TABLE t (id int) WITH (postern.door = sharded, postern.key = id)`;
    expect(routeOf(text)).toBe('0A000');
  });

  test.each([
    [
      'CREATE TABLE s.t (id int) WITH (postern.coalesce = off)',
      {
        kind: 'createCoalescing',
        schema: 's',
        name: 't',
        createText: 'CREATE TABLE s.t (id int) ',
        coalesce: 'off',
      },
    ],
    [
      "CREATE UNLOGGED TABLE IF NOT EXISTS t (é int) WITH (fillfactor=70, postern.coalesce='ON', postern.door=single) TABLESPACE x",
      {
        kind: 'createCoalescing',
        ifNotExists: true,
        createText: 'CREATE UNLOGGED TABLE IF NOT EXISTS t (é int) WITH (fillfactor=70) TABLESPACE x',
        coalesce: 'on',
      },
    ],
    [
      'CREATE TABLE t PARTITION OF p FOR VALUES IN (1) WITH (postern.coalesce = default)',
      {
        kind: 'createCoalescing',
        createText: 'CREATE TABLE t PARTITION OF p FOR VALUES IN (1) ',
        coalesce: 'default',
      },
    ],
    [
      'CREATE TABLE t (id int) WITH (postern.door = sharded, postern.coalesce = true, postern.key = id)',
      { kind: 'createShardedTable', key: 'id', coalesce: 'on', createText: 'CREATE TABLE t (id int)' },
    ],
  ])('%s', (text, expected) => {
    expect(statementOf(text).command).toMatchObject(expected);
  });

  test.each([
    ['TABLE t (id int) WITH (postern.coalesce = maybe)', '22023'],
    ['TABLE t (id int) WITH (postern.coalesce)', '22023'],
    ['TABLE t (id int) WITH (postern.coalesce = on, postern.coalesce = on)', '22023'],
    ['TABLE t (id int) WITH (postern.coalesce = on, postern.key = id)', '22023'],
    ['TEMP TABLE t (id int) WITH (postern.coalesce = on)', '0A000'],
    ['TABLE archive.accounts (id int) WITH (postern.coalesce = on)', '0A000'],
    ['TABLE t AS SELECT 1', 'home'],
  ])('CREATE %s → %s', (rest, expected) => {
    expect(routeOf(`CREATE ${rest}`)).toBe(expected);
  });

  test('door "single" is taken out of the text', () => {
    expect(rewrittenOf('CREATE TABLE t (id int) WITH (postern.door = single)')).toBe(
      'CREATE TABLE t (id int) ',
    );
    expect(
      rewrittenOf(
        "CREATE TABLE t (é int) WITH (fillfactor=70 , postern.door='single', autovacuum_enabled)  TABLESPACE x",
      ),
    ).toBe('CREATE TABLE t (é int) WITH (fillfactor=70 , autovacuum_enabled)  TABLESPACE x');
  });
});

test('the outcome of a transaction is told by the router', () => {
  expect(statementOf("SELECT postern.outcome('pt1_x')").command).toEqual({
    kind: 'tellOutcome',
    token: 'pt1_x',
    functionName: 'outcome',
  });
  expect(statementOf("SELECT outcome('pt1_x')").command).toBeUndefined();
  expect(statementOf('SELECT postern.outcome($1)').refusal?.sqlState).toBe('0A000');
  expect(statementOf('SELECT postern.outcome()').refusal?.sqlState).toBe('22023');
});

describe('tables that exist', () => {
  test.each([
    [
      "SELECT create_distributed_table('s.t', 'id')",
      { relation: 's.t', key: 'id', functionName: 'create_distributed_table', placement: undefined },
    ],
    [
      "SELECT pg_catalog.create_distributed_table('t'::regclass, 'id', 'hash', colocate_with => 'accounts', shard_count := 8) AS x",
      {
        relation: 't',
        colocateWith: 'accounts',
        placement: { method: 'hash', bucketCount: 8 },
        functionName: 'x',
      },
    ],
    [
      "SELECT create_distributed_table('t', 'id', colocate_with => 'none', shard_count => NULL)",
      { colocateWith: 'none', placement: undefined },
    ],
    [
      "SELECT postern.shard_table('t', 'id', buckets => 16)",
      {
        relation: 't',
        key: 'id',
        placement: { method: 'hash', bucketCount: 16 },
        functionName: 'shard_table',
      },
    ],
    [
      "SELECT postern.shard_table('t', 'k', method => 'range', bounds => '{100,200}', nodes => '{n1,n2,n1}')",
      { placement: { method: 'range', bounds: '{100,200}' }, nodes: ['n1', 'n2', 'n1'] },
    ],
    [
      'ALTER TABLE t SET (postern.door = sharded, postern.key = k, postern.method = list, postern.values = \'{{acme, "a,b"},globex}\', postern.buckets = 1)',
      { placement: { method: 'list', lists: ['{acme,"a,b"}', '{globex}'], bucketCount: 1 } },
    ],
    [
      'ALTER TABLE "S".t SET (postern.door = sharded, postern.key = "Id", postern.buckets = 4)',
      {
        relation: '"S".t',
        key: 'Id',
        placement: { method: 'hash', bucketCount: 4 },
        functionName: undefined,
      },
    ],
  ])('%s', (text, expected) => {
    expect(statementOf(text).command).toMatchObject({ kind: 'distributeTable', ...expected });
  });

  test.each([
    [
      'ALTER TABLE "S".t SET (postern.coalesce = \'off\')',
      { relation: '"S".t', coalesce: 'off', ifExists: false },
    ],
    [
      'ALTER TABLE IF EXISTS t SET (postern.coalesce = on)',
      { relation: 't', coalesce: 'on', ifExists: true },
    ],
    ['ALTER TABLE accounts RESET (postern.coalesce)', { relation: 'accounts', coalesce: 'default' }],
    ["SELECT postern.set_coalescing('s.t', 'off')", { relation: 's.t', functionName: 'set_coalescing' }],
    [
      "SELECT postern.set_coalescing('t', value => 'default') AS x",
      { coalesce: 'default', functionName: 'x' },
    ],
  ])('%s', (text, expected) => {
    expect(statementOf(text).command).toMatchObject({ kind: 'setCoalescing', ...expected });
  });

  test('a door and the switch at once', () => {
    const text = 'ALTER TABLE t SET (postern.door = sharded, postern.key = id, postern.coalesce = off)';
    expect(statementOf(text).command).toMatchObject({ kind: 'distributeTable', coalesce: 'off' });
  });

  test.each([
    ['ALTER TABLE t SET (postern.coalesce = 1)', '22023'],
    ['ALTER TABLE t SET (postern.coalesce = on, fillfactor = 70)', '0A000'],
    ['ALTER TABLE t SET (postern.coalesce = on), ADD COLUMN x int', '0A000'],
    ['ALTER TABLE t RESET (postern.coalesce, postern.door)', '0A000'],
    ['ALTER INDEX t SET (postern.coalesce = on)', '0A000'],
    ["SELECT postern.set_coalescing('t')", '22023'],
    ["SELECT postern.set_coalescing('t', 'x')", '22023'],
    ["SELECT postern.set_coalescing('t', $1)", '0A000'],
    ["SELECT set_coalescing('t', 'on')", 'home'],
    ["SELECT create_distributed_table('t', 'id'), 1", '0A000'],
    ["SELECT create_distributed_table('t', 'id') FROM x", '0A000'],
    ["SELECT * FROM create_distributed_table('t', 'id')", '0A000'],
    ["SELECT upper(create_distributed_table('t', 'id'))", '0A000'],
    ["INSERT INTO notes VALUES (create_distributed_table('t', 'id'))", '0A000'],
    ["EXPLAIN SELECT create_distributed_table('t', 'id')", '0A000'],
    ['SELECT create_distributed_table($1, $2)', '0A000'],
    ["SELECT create_distributed_table('t')", '22023'],
    ["SELECT create_distributed_table('t', 'id', 'range')", '0A000'],
    ["SELECT create_distributed_table('t', 'id', nonsense => 1)", '22023'],
    ["SELECT create_reference_table('t')", 'makeReferenceTable'],
    ["SELECT postern.create_reference_table('t') AS done", 'makeReferenceTable'],
    ['SELECT create_reference_table($1)', '0A000'],
    ['SELECT create_reference_table()', '22023'],
    ["ALTER TABLE s.t SET (postern.door = 'reference')", 'makeReferenceTable'],
    ["ALTER TABLE t SET (postern.door = 'reference', postern.key = 'id')", '22023'],
    ["ALTER TABLE countries SET (postern.door = 'reference')", '0A000'],
    ["ALTER TABLE countries SET (postern.door = 'sharded', postern.key = 'code')", '0A000'],
    ["SELECT shard_table('t', 'id')", 'home'],
    ['ALTER TABLE accounts SET (postern.door = sharded, postern.key = name)', '0A000'],
    ['ALTER TABLE t SET (postern.door = sharded)', '22023'],
    ['ALTER TABLE t SET (postern.door = single)', '0A000'],
    ['ALTER TABLE t RESET (postern.door)', '0A000'],
    ['ALTER TABLE t SET (postern.door = sharded, postern.key = id, fillfactor = 70)', '0A000'],
    ['ALTER TABLE t SET (postern.door = sharded, postern.key = id), ADD COLUMN x int', '0A000'],
    ['ALTER TABLE t SET (fillfactor = 70)', 'home'],
  ])('%s → %s', (text, expected) => {
    expect(routeOf(text)).toBe(expected);
  });
});

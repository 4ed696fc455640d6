import { describe, expect, it } from 'vitest';
import { EXAMPLE_MAP, planOf } from '../../test/support/example-map.ts';
import { OID } from '../pg/oid.ts';
import { loadParser } from '../sql/parser.ts';
import { BindView, readBind, textBindFrame } from '../wire/frontend.ts';
import { piecesOfBatch, RowShape } from './row-batch.ts';

await loadParser();

const accounts = EXAMPLE_MAP.tables.get('public')!.get('accounts')!;
const users = EXAMPLE_MAP.tables.get('public')!.get('users')!;
const JSONB = 3802;

describe('the shape of rows on their way', () => {
  it('has the types that they were read with, and common ones in binary, but for the key', () => {
    const shape = new RowShape({
      ...{ table: accounts, given: undefined, typeOids: [OID.int4, JSONB, OID.float8] },
      untyped: new Set(),
    });
    expect(shape.columns).toEqual(['account_id', 'name', 'plan']);
    expect(shape.oids).toEqual([OID.int4, JSONB, OID.float8]);
    expect(shape.formats).toEqual([0, 0, 1]);
    expect(shape.keyOf([Buffer.from('7'), null, null])).toEqual({ kind: 'literal', text: '7' });
    expect(shape.keyOf([null, null, null])).toEqual({ kind: 'literal', text: null });
  });

  it('leaves the type of a bare literal to the target, and adds ids', () => {
    const shape = new RowShape({
      ...{ table: users, given: ['name'], typeOids: [OID.text], untyped: new Set([0]) },
    });
    expect(shape.columns).toEqual(['name', 'id', 'serial']);
    expect(shape.oids).toEqual([0, 20, 20]);
    expect(shape.formats).toEqual([0]);
    expect(shape.keyOf([null, Buffer.from('5'), Buffer.from('6')])).toEqual({ kind: 'literal', text: '5' });
  });

  it('is refused where the key would be converted, and where columns are too many or too few', () => {
    const shapeOf = (given: string[] | undefined, typeOids: number[]) => () =>
      new RowShape({ table: accounts, given, typeOids, untyped: new Set() });
    expect(shapeOf(undefined, [OID.numeric])).toThrow(/value of another type/);
    expect(shapeOf(['account_id'], [20, 20])).toThrow(/more expressions/);
    expect(shapeOf(['account_id', 'name'], [20])).toThrow(/more target columns/);
    expect(shapeOf(undefined, [20, 20, 20, 20])).toThrow(/more expressions/);
  });
});

it('a batch is one INSERT for each bucket, with the client’s parameters behind the values', () => {
  const plan = planOf('INSERT INTO accounts SELECT $1, $2, 3 RETURNING $2');
  const frame = textBindFrame(['first', 'second']);
  const client = { view: readBind(frame), buffer: frame.buffer, oids: [OID.int8, OID.text] };
  const shape = new RowShape({
    ...{ table: accounts, given: ['account_id', 'name'], typeOids: [OID.int8, OID.int4] },
    untyped: new Set(),
  });
  const row = (key: string, n: number) => [Buffer.from(key), Buffer.from([0, 0, 0, n])];
  const pieces = piecesOfBatch({
    ...{ shape, plan, client, rows: [row('1', 1), row('2', 2), row('3', 3)], buckets: [2, 0, 2] },
    target: {
      atOnce: false,
      ...{ table: accounts, alias: 'a' },
      tail: [
        { kind: 'text', text: 'RETURNING ', at: 38 },
        { kind: 'parameter', index: 1, at: 48 },
      ],
    },
  });
  const insert = (bucket: number) => `INSERT INTO "postern_leaves"."accounts_b${bucket}_g7" AS "a"`;
  expect(pieces.map(({ text, parameterOids }) => [text, parameterOids])).toEqual([
    [`${insert(0)} ("account_id", "name") VALUES ($1, $2) RETURNING $3`, [20, 23, 25]],
    [`${insert(2)} ("account_id", "name") VALUES ($1, $2), ($3, $4) RETURNING $5`, [20, 23, 20, 23, 25]],
  ]);
  const { tail } = pieces[1]!;
  const bytes = Buffer.concat([Buffer.alloc(2), tail]);
  const view = new BindView().read({ buffer: bytes, bodyStart: 0, end: bytes.length });
  const values = [0, 1, 2, 3, 4].map((index) => [
    view.parameterFormat(index),
    bytes.toString(
      'latin1',
      view.parameterStart(index),
      view.parameterStart(index) + view.parameterLength(index),
    ),
  ]);
  expect(values).toEqual([
    [0, '1'],
    [1, '\0\0\0\x01'],
    [0, '3'],
    [1, '\0\0\0\x03'],
    [0, 'second'],
  ]);
});

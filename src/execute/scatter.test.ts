import { beforeAll, describe, expect, it } from 'vitest';
import { planOf } from '../../test/support/example-map.ts';
import type { ScatterRows } from '../plan/scatter.ts';
import { loadParser } from '../sql/parser.ts';
import { piecesOfLeaves, piecesOfRows } from './scatter.ts';

beforeAll(loadParser);

describe('pieces', () => {
  it('of rows have the parameters that they use, and the way back', () => {
    const text =
      'INSERT INTO accounts AS a (name, account_id) VALUES ($4, 1), /* é */ ($2, 2), ($4, 3) RETURNING $1 || a.name';
    const plan = planOf(text);
    const { placement } = plan.statements[0]!;
    if (placement.kind !== 'keyed') throw new Error('not keyed');
    const pieces = piecesOfRows(plan, placement.several as ScatterRows, {
      ...{ table: placement.table, buckets: [3, 0, 3], ids: [] },
    });
    expect(pieces.map((piece) => [piece.nodeId, piece.text, piece.parameters, piece.rows])).toEqual([
      [
        1,
        'INSERT INTO "postern_leaves"."accounts_b0_g7" AS a (name, account_id) VALUES ($1, 2) RETURNING $2 || a.name',
        [1, 0],
        [1],
      ],
      [
        2,
        'INSERT INTO "postern_leaves"."accounts_b3_g7" AS a (name, account_id) VALUES ($1, 1), ($1, 3) RETURNING $2 || a.name',
        [3, 0],
        [0, 2],
      ],
    ]);
    for (const { text: sent, mapPosition } of pieces)
      for (const word of ['name, account', 'RETURNING', 'a.name'])
        expect(mapPosition([...sent.split(word)[0]!].length + 1)).toBe([...text.split(word)[0]!].length + 1);
  });

  it('of all buckets go node by node', () => {
    const plan = planOf('DELETE FROM accounts');
    const { placement } = plan.statements[0]!;
    const table = placement.kind === 'scattered' ? placement.table : undefined;
    const pieces = piecesOfLeaves(plan, table!, [3, 2, 1, 0]);
    expect(pieces.map(({ nodeId, bucket }) => [nodeId, bucket])).toEqual([
      [1, 0],
      [1, 2],
      [2, 1],
      [2, 3],
    ]);
  });
});

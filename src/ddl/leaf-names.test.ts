import { expect, test } from 'vitest';
import { ServerError } from '../platform/control-connection.ts';
import { inTableNames } from './leaf-names.ts';

const told = (fields: Record<string, string>) =>
  Object.fromEntries(
    (inTableNames(new ServerError('n1', new Map(Object.entries(fields)))) as ServerError).fields,
  );

test('what is said of each leaf is said once of the table', () => {
  const detail = [0, 2].map(
    (b) =>
      `constraint items_fk_b${b}_g3 on table postern_leaves.items_b${b}_g3 depends on table postern_leaves.orders_b${b}_g12`,
  );
  expect(told({ C: '2BP01', D: detail.join('\n'), s: 'postern_leaves' })).toEqual({
    C: '2BP01',
    D: 'constraint items_fk on table items depends on table orders',
  });
  expect(told({ M: 'must be owner of table "T"_b1_g1' })).toEqual({ M: 'must be owner of table "T"' });
});

test('other errors pass as they are', () => {
  const error = new ServerError('n1', new Map([['M', 'relation "b_g1" does not exist']]));
  expect(inTableNames(error)).toBe(error);
  const own = new Error('x_b1_g1');
  expect(inTableNames(own)).toBe(own);
});

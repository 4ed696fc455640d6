import { expect, test } from 'vitest';
import { definitionOnLeaf, type ForeignKey } from './foreign-keys.ts';

const KEY: ForeignKey = {
  name: 'items_fk',
  definition: 'FOREIGN KEY (cust, o) REFERENCES public."Or(ders"(cust, id) ON DELETE CASCADE',
  schema: 'public',
  table: 'Or(ders',
  relation: 'public."Or(ders"',
  columns: ['cust', 'o'],
  referencedColumns: ['cust', 'id'],
  cascades: true,
};

test('a foreign key to a sharded table goes to the leaf of the same bucket, with its generation', () => {
  const targets = new Map([[KEY.relation, [4, 7]]]);
  expect(definitionOnLeaf(KEY, targets, 1)).toBe(
    'FOREIGN KEY (cust, o) REFERENCES "postern_leaves"."Or(ders_b1_g7"(cust, id) ON DELETE CASCADE',
  );
});

test('one to a reference table stays as it is', () => {
  expect(definitionOnLeaf(KEY, new Map(), 1)).toBe(KEY.definition);
});

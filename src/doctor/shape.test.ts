import { expect, test } from 'vitest';
import { leafName } from '../catalog/map.ts';
import { majority } from './compare-leaves.ts';
import { compareShapes } from './compare-shapes.ts';
import type { ColumnFacts, RelationFacts } from './relation-facts.ts';
import { leafNaming, OWN_NAMES, type Part, type Shape, shapeOf } from './shape.ts';

const EMPTY: RelationFacts = {
  ...{ oid: 1, schema: 'public', name: 't', printed: 'public.t', kind: 'r', persistence: 'p', owner: 'app' },
  ...{ rowSecurity: false, forcedRowSecurity: false, partitionKey: null, children: 0, bytes: 0, options: [] },
  ...{ columns: [], constraints: [], indexes: [], triggers: [], policies: [], grants: [] },
};

const TARGET = { schema: 'public', name: 't', naming: OWN_NAMES, isPartitioned: false };

const COLUMN: ColumnFacts = {
  ...{ name: 'a', type: 'integer', collation: null, notNull: false, expression: null },
  ...{ generated: '', identity: '' },
};

function run(found: Partial<RelationFacts>, expected: Partial<RelationFacts>): readonly string[] {
  return compareShapes({
    ...{ topic: 'tables', node: 'n1', object: 't', against: 'others', target: TARGET },
    found: shapeOf({ ...EMPTY, ...found }, OWN_NAMES),
    expected: shapeOf({ ...EMPTY, ...expected }, OWN_NAMES),
  }).flatMap(({ remedies }) => remedies.map(({ text }) => text));
}

test.each<[string, Partial<RelationFacts>, Partial<RelationFacts>, readonly string[]]>([
  ['equal', { columns: [COLUMN] }, { columns: [COLUMN] }, []],
  ['a column missing', {}, { columns: [COLUMN] }, ['ALTER TABLE "public"."t" ADD COLUMN "a" integer']],
  ['a column too many', { columns: [COLUMN] }, {}, ['ALTER TABLE "public"."t" DROP COLUMN "a"']],
  [
    'a type, with its default',
    { columns: [{ ...COLUMN, expression: '1' }] },
    { columns: [{ ...COLUMN, type: 'bigint', expression: '1', notNull: true }] },
    [
      'ALTER TABLE "public"."t" ALTER COLUMN "a" DROP DEFAULT',
      'ALTER TABLE "public"."t" ALTER COLUMN "a" TYPE bigint USING "a"::bigint',
      'ALTER TABLE "public"."t" ALTER COLUMN "a" SET NOT NULL',
      'ALTER TABLE "public"."t" ALTER COLUMN "a" SET DEFAULT 1',
    ],
  ],
  [
    'a constraint that is not validated',
    { constraints: [{ name: 'c', kind: 'c', definition: 'CHECK ((a > 0))', valid: false }] },
    { constraints: [{ name: 'c', kind: 'c', definition: 'CHECK ((a > 0))', valid: true }] },
    ['ALTER TABLE "public"."t" VALIDATE CONSTRAINT "c"'],
  ],
  [
    'a trigger that is disabled',
    {
      triggers: [
        { name: 'g', definition: 'CREATE TRIGGER g AFTER INSERT ON public.t FOR EACH ROW', enabled: 'D' },
      ],
    },
    {
      triggers: [
        { name: 'g', definition: 'CREATE TRIGGER g AFTER INSERT ON public.t FOR EACH ROW', enabled: 'O' },
      ],
    },
    ['ALTER TABLE "public"."t" ENABLE TRIGGER "g"'],
  ],
  [
    'a trigger that is missing',
    {},
    {
      triggers: [
        { name: 'g', definition: 'CREATE TRIGGER g AFTER INSERT ON public.t FOR EACH ROW', enabled: 'A' },
      ],
    },
    [
      'CREATE TRIGGER g AFTER INSERT ON "public"."t" FOR EACH ROW',
      'ALTER TABLE "public"."t" ENABLE ALWAYS TRIGGER "g"',
    ],
  ],
  [
    'a policy, and what switches it on',
    {},
    {
      policies: [{ name: 'p q', definition: ' AS PERMISSIVE FOR ALL TO PUBLIC USING (true)' }],
      rowSecurity: true,
    },
    [
      'CREATE POLICY "p q" ON "public"."t" AS PERMISSIVE FOR ALL TO PUBLIC USING (true)',
      'ALTER TABLE "public"."t" ENABLE ROW LEVEL SECURITY',
    ],
  ],
  [
    'privileges',
    { grants: [{ grantee: null, privilege: 'SELECT', grantable: false, column: 'a' }] },
    { grants: [{ grantee: 'x"y', privilege: 'SELECT', grantable: true, column: null }] },
    [
      'GRANT SELECT ON "public"."t" TO "x""y" WITH GRANT OPTION',
      'REVOKE SELECT ("a") ON "public"."t" FROM PUBLIC',
    ],
  ],
  ['the owner', { owner: 'postgres' }, {}, ['ALTER TABLE "public"."t" OWNER TO "app"']],
  ['unlogged', { persistence: 'u' }, {}, ['ALTER TABLE "public"."t" SET LOGGED']],
  [
    'storage',
    { options: [{ name: 'fillfactor', value: '70' }] },
    {},
    ['ALTER TABLE "public"."t" RESET ("fillfactor")'],
  ],
])('%s', (_, found, expected, statements) => {
  expect(run(found, expected)).toEqual(statements);
});

test('names of a leaf are those of its table, cut or not, and back', () => {
  const long = 'a_very_long_name_of_an_index_that_has_to_be_cut_for_the_suffix';
  const naming = leafNaming({ bucket: 3, generation: 14 }, [long, 'short'], {
    tableOfLeaf: (leaf) => (leaf === 'parents_b3_g9' ? 7 : undefined),
    leafOfTable: (tableId, bucket) => `table ${tableId} of ${bucket}`,
  });
  for (const name of [long, 'short', 'unknown']) expect(naming.plainName(leafName(name, 3, 14))).toBe(name);
  expect(naming.realName(long)).toBe(leafName(long, 3, 14));
  const key = 'FOREIGN KEY (a) REFERENCES postern_leaves.parents_b3_g9(id)';
  expect(naming.plainText(key)).toBe('FOREIGN KEY (a) REFERENCES postern_leaves.[7](id)');
  expect(naming.realText(naming.plainText(key))).toBe(
    'FOREIGN KEY (a) REFERENCES "postern_leaves"."table 7 of 3"(id)',
  );
  expect(naming.plainText('REFERENCES postern_leaves.other_b1_g1(id)')).toContain('other_b1_g1');
});

test('what most leaves have is right; the face decides on what it has', () => {
  const part = (name: string, text: string): Part => ({ kind: 'index', name, real: name, text });
  const shape = (...parts: readonly Part[]): Shape => new Map(parts.map((one) => [`index ${one.name}`, one]));
  const textsOf = (expected: Shape) => [...expected.values()].map(({ name, text }) => `${name} ${text}`);
  const three = [shape(part('a', '1')), shape(part('a', '1'), part('b', '2')), shape(part('a', '3'))];
  expect(textsOf(majority(three, undefined))).toEqual(['a 1']);
  expect(textsOf(majority(three, shape(part('a', '3'), part('b', '2'))))).toEqual(['a 3', 'b 2']);
  // As many have it as have not: to add is safer than to drop.
  expect(textsOf(majority([shape(part('a', '1')), shape()], undefined))).toEqual(['a 1']);
  expect(textsOf(majority([], shape(part('a', '1'))))).toEqual(['a 1']);
  // NOT VALID is meant where all have it so; an index that is not valid never is.
  const invalid = (one: Part): Part => ({ ...one, isInvalid: true });
  const check: Part = { kind: 'constraint', name: 'a', real: 'a', text: 'CHECK ((a > 0))' };
  const validity = (...parts: readonly Part[]) =>
    [
      ...majority(
        parts.map((one) => new Map([['a', one]])),
        undefined,
      ).values(),
    ].map(({ isInvalid }) => isInvalid);
  expect(validity(invalid(check), invalid(check))).toEqual([true]);
  expect(validity(invalid(check), check)).toEqual([false]);
  expect(validity(invalid(part('a', 'INDEX')), invalid(part('a', 'INDEX')))).toEqual([false]);
});

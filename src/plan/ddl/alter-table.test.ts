import { beforeAll, describe, expect, test } from 'vitest';
import { stepsOf } from '../../../test/support/ddl-steps.ts';
import { statementOf } from '../../../test/support/example-map.ts';
import { loadParser } from '../../sql/parser.ts';

beforeAll(loadParser);

const TOUCH = 'catalog: touch';

describe('ALTER TABLE of a sharded table', () => {
  test.each<[string, string, string]>([
    [
      'ALTER TABLE IF EXISTS public.accounts * ADD COLUMN x int DEFAULT 3',
      'ADD COLUMN x int DEFAULT 3',
      'ADD COLUMN x int DEFAULT 3',
    ],
    [
      'ALTER TABLE accounts ADD x numeric(10, 2) NOT NULL, DROP COLUMN IF EXISTS plan CASCADE -- é',
      'ADD x numeric(10, 2) NOT NULL, DROP COLUMN IF EXISTS plan CASCADE',
      '',
    ],
    [
      'ALTER TABLE accounts ALTER name TYPE text[] USING ARRAY[name, accounts.plan]',
      'ALTER name TYPE text[] USING ARRAY[name, accounts.plan]',
      'ALTER name TYPE text[] USING ARRAY[name, <accounts>.plan]',
    ],
    [
      'ALTER TABLE accounts ALTER name SET NOT NULL, ALTER plan DROP NOT NULL',
      'ALTER name SET NOT NULL, ALTER plan DROP NOT NULL',
      '',
    ],
    ["ALTER TABLE accounts ALTER name SET DEFAULT 'a'", "ALTER name SET DEFAULT 'a'", ''],
    ['ALTER TABLE accounts ENABLE ROW LEVEL SECURITY', 'ENABLE ROW LEVEL SECURITY', ''],
    ['ALTER TABLE accounts DISABLE TRIGGER ALL', 'DISABLE TRIGGER ALL', ''],
    ['ALTER TABLE accounts OWNER TO x', 'OWNER TO x', ''],
    [
      'ALTER TABLE accounts ADD CONSTRAINT c CHECK (name > public.accounts.plan)',
      'ADD CONSTRAINT c CHECK (name > public.accounts.plan)',
      'ADD CONSTRAINT c CHECK (name > <accounts>.plan)',
    ],
    [
      'ALTER TABLE accounts ADD CHECK (name > 0) NOT VALID',
      'ADD CONSTRAINT "accounts_name_check" CHECK (name > 0) NOT VALID',
      '',
    ],
    [
      'ALTER TABLE accounts ADD CHECK (name > plan)',
      'ADD CONSTRAINT "accounts_check" CHECK (name > plan)',
      '',
    ],
    [
      'ALTER TABLE accounts ADD CHECK (name > 0), ADD CHECK (name < 9)',
      'ADD CONSTRAINT "accounts_name_check" CHECK (name > 0), ADD CONSTRAINT "accounts_name_check1" CHECK (name < 9)',
      '',
    ],
    [
      'ALTER TABLE accounts ADD UNIQUE (name, account_id)',
      'ADD CONSTRAINT "accounts_name_account_id_key" UNIQUE (name, account_id)',
      'ADD CONSTRAINT <accounts_name_account_id_key> UNIQUE (name, account_id)',
    ],
    [
      'ALTER TABLE accounts ADD CONSTRAINT pk PRIMARY KEY (account_id)',
      'ADD CONSTRAINT pk PRIMARY KEY (account_id)',
      'ADD CONSTRAINT <pk> PRIMARY KEY (account_id)',
    ],
    ['ALTER TABLE accounts REPLICA IDENTITY FULL', 'REPLICA IDENTITY FULL', ''],
    [
      'ALTER TABLE accounts REPLICA IDENTITY USING INDEX "I"',
      'REPLICA IDENTITY USING INDEX "I"',
      'REPLICA IDENTITY USING INDEX <I>',
    ],
    [
      'ALTER TABLE accounts ALTER name SET STATISTICS 500, ALTER name SET STORAGE external',
      'ALTER name SET STATISTICS 500, ALTER name SET STORAGE external',
      '',
    ],
  ])('%s', (text, face, leaf) => {
    expect(stepsOf(text)).toEqual([
      `all: ALTER TABLE "public"."accounts" ${face}`,
      `leaves: ALTER TABLE <leaf accounts> ${leaf || face}`,
      TOUCH,
    ]);
  });

  test.each<[string, string]>([
    ['SET (fillfactor = 70)', 'SET (fillfactor = 70)'],
    ['CLUSTER ON i', 'CLUSTER ON <i>'],
    ['SET WITHOUT CLUSTER', 'SET WITHOUT CLUSTER'],
    [
      'ADD CONSTRAINT fk FOREIGN KEY (plan) REFERENCES countries ON DELETE CASCADE',
      'ADD CONSTRAINT <fk> FOREIGN KEY (plan) REFERENCES countries ON DELETE CASCADE',
    ],
    [
      'ADD FOREIGN KEY (plan) REFERENCES rates (id) NOT VALID',
      'ADD CONSTRAINT <accounts_plan_fkey> FOREIGN KEY (plan) REFERENCES rates (id) NOT VALID',
    ],
    [
      'ADD FOREIGN KEY (account_id, plan) REFERENCES events (account_id, id)',
      'ADD CONSTRAINT <accounts_account_id_plan_fkey> FOREIGN KEY (account_id, plan) REFERENCES <leaf events> (account_id, id)',
    ],
  ])('… %s: of the leaves alone', (command, leaf) => {
    expect(stepsOf(`ALTER TABLE accounts ${command}`)).toEqual([
      `leaves: ALTER TABLE <leaf accounts> ${leaf}`,
      TOUCH,
    ]);
  });

  test('a column with a foreign key, checks and a default', () => {
    const text =
      'ALTER TABLE accounts ADD c int CONSTRAINT x CHECK (c > 0) REFERENCES countries DEFERRABLE INITIALLY DEFERRED DEFAULT 3 CHECK (accounts.c < 9)';
    expect(stepsOf(text)).toEqual([
      'all: ALTER TABLE "public"."accounts" ADD c int CONSTRAINT x CHECK (c > 0)  DEFAULT 3 CONSTRAINT "accounts_c_check" CHECK (accounts.c < 9)',
      'leaves: ALTER TABLE <leaf accounts> ADD c int CONSTRAINT x CHECK (c > 0) CONSTRAINT <accounts_c_fkey> REFERENCES countries DEFERRABLE INITIALLY DEFERRED DEFAULT 3 CONSTRAINT "accounts_c_check" CHECK (<accounts>.c < 9)',
      TOUCH,
    ]);
  });

  test('a foreign key between leaves that deletes with its row keeps that row in its bucket', () => {
    const text = 'ALTER TABLE events ADD FOREIGN KEY (account_id) REFERENCES accounts ON DELETE CASCADE';
    const [leaves, catalog] = stepsOf(text, [[], [], [['account_id']]]);
    expect(leaves).toContain('REFERENCES <leaf accounts> ON DELETE CASCADE');
    expect(catalog).toBe('catalog: noteCascade 2');
    expect(() => stepsOf(text, [[], [], [['name']]])).toThrow('without both shard keys');
  });

  test('a name that is taken is not chosen', () => {
    const text = 'ALTER TABLE accounts ADD CHECK (name > 0), ADD CHECK (plan > 0)';
    const taken = [[['accounts_name_check'], ['accounts_name_check1']], []];
    expect(stepsOf(text, taken)[0]).toContain(
      '"accounts_name_check2" CHECK (name > 0), ADD CONSTRAINT "accounts_plan_check"',
    );
    const all = Array.from({ length: 40 }, (_, i) => [`accounts_name_check${i || ''}`]);
    expect(() => stepsOf(text, [all])).toThrow('no free name');
  });

  test.each<[string, (string | null)[][][], string[]]>([
    [
      'DROP CONSTRAINT IF EXISTS c',
      [[['c']], []],
      [
        'all: ALTER TABLE "public"."accounts" DROP CONSTRAINT IF EXISTS c',
        'leaves: ALTER TABLE <leaf accounts> DROP CONSTRAINT IF EXISTS c',
      ],
    ],
    [
      'DROP CONSTRAINT c CASCADE',
      [[['u']], []],
      [
        'all: ALTER TABLE "public"."accounts" DROP CONSTRAINT c CASCADE',
        'leaves: ALTER TABLE <leaf accounts> DROP CONSTRAINT <c> CASCADE',
      ],
    ],
    ['DROP CONSTRAINT c', [[], [['f']]], ['leaves: ALTER TABLE <leaf accounts> DROP CONSTRAINT <c>']],
    ['DROP CONSTRAINT c', [[], []], ['all: ALTER TABLE "public"."accounts" DROP CONSTRAINT c']],
    ['VALIDATE CONSTRAINT c', [[], [['f']]], ['leaves: ALTER TABLE <leaf accounts> VALIDATE CONSTRAINT <c>']],
    [
      'ALTER CONSTRAINT c DEFERRABLE',
      [[], [['f']]],
      ['leaves: ALTER TABLE <leaf accounts> ALTER CONSTRAINT <c> DEFERRABLE'],
    ],
    [
      'RENAME CONSTRAINT c TO d',
      [[], [['f']]],
      ['leaves: ALTER TABLE <leaf accounts> RENAME CONSTRAINT <c> TO <d>'],
    ],
    [
      'RENAME CONSTRAINT c TO d',
      [[['c']], []],
      [
        'all: ALTER TABLE "public"."accounts" RENAME CONSTRAINT "c" TO "d"',
        'leaves: ALTER TABLE <leaf accounts> RENAME CONSTRAINT "c" TO "d"',
      ],
    ],
    [
      'RENAME CONSTRAINT c TO d',
      [[['p']], []],
      [
        'all: ALTER TABLE "public"."accounts" RENAME CONSTRAINT "c" TO "d"',
        'leaves: ALTER TABLE <leaf accounts> RENAME CONSTRAINT <c> TO <d>',
      ],
    ],
  ])('… %s, by its kind', (command, answers, steps) => {
    expect(stepsOf(`ALTER TABLE accounts ${command}`, answers)).toEqual([...steps, TOUCH]);
  });

  test.each<[string, string[]]>([
    [
      'ALTER TABLE accounts RENAME TO people',
      [
        'all: ALTER TABLE "public"."accounts" RENAME TO "people"',
        'leaves: ALTER TABLE <leaf accounts> RENAME TO <people>',
        'catalog: renameTable 2 public people',
      ],
    ],
    [
      'ALTER TABLE accounts RENAME account_id TO id',
      [
        'all: ALTER TABLE "public"."accounts" RENAME COLUMN "account_id" TO "id"',
        'leaves: ALTER TABLE <leaf accounts> RENAME COLUMN "account_id" TO "id"',
        'catalog: renameColumn 2 account_id id',
      ],
    ],
    [
      'ALTER TABLE accounts SET SCHEMA app',
      ['all: ALTER TABLE "public"."accounts" SET SCHEMA "app"', 'catalog: renameTable 2 app accounts'],
    ],
    [
      'ALTER TABLE users DROP serial',
      [
        'all: ALTER TABLE "public"."users" DROP serial',
        'leaves: ALTER TABLE <leaf users> DROP serial',
        'catalog: dropColumn 3 serial',
      ],
    ],
  ])('%s', (text, steps) => {
    expect(stepsOf(text)).toEqual(steps);
  });

  test.each([
    'ALTER TABLE accounts DROP COLUMN account_id',
    'ALTER TABLE accounts ALTER account_id TYPE text',
    'ALTER TABLE accounts ADD x bigserial',
    'ALTER TABLE accounts ADD x int GENERATED ALWAYS AS IDENTITY',
    "ALTER TABLE accounts ADD x int DEFAULT nextval('s')",
    'ALTER TABLE users ALTER id DROP DEFAULT',
    'ALTER TABLE accounts ADD x int UNIQUE',
    'ALTER TABLE accounts ADD PRIMARY KEY (name)',
    'ALTER TABLE accounts ADD PRIMARY KEY USING INDEX i',
    'ALTER TABLE accounts ADD x int REFERENCES notes',
    'ALTER TABLE accounts ADD FOREIGN KEY (account_id) REFERENCES docs (slug)',
    'ALTER TABLE accounts ADD FOREIGN KEY (name) REFERENCES events (account_id)',
    'ALTER TABLE accounts ADD FOREIGN KEY (account_id) REFERENCES events (id)',
    'ALTER TABLE accounts SET UNLOGGED',
    'ALTER TABLE accounts SET TABLESPACE x',
    'ALTER TABLE accounts INHERIT notes',
    'ALTER TABLE accounts ATTACH PARTITION notes DEFAULT',
    'ALTER TABLE accounts RENAME TO countries',
    'ALTER TABLE accounts SET SCHEMA postern_leaves',
  ])('%s is refused', (text) => {
    const { refusal } = statementOf(text);
    expect(refusal?.sqlState).toBe('0A000');
    expect(refusal?.hint).toBeTruthy();
  });
});

describe('ALTER TABLE of a reference table', () => {
  test.each<[string, string]>([
    [
      'ALTER TABLE ONLY countries ADD x int DEFAULT 1 CHECK (x > 0)',
      'ADD x int DEFAULT 1 CONSTRAINT "countries_x_check" CHECK (x > 0)',
    ],
    ['ALTER TABLE countries ADD UNIQUE (name)', 'ADD CONSTRAINT "countries_name_key" UNIQUE (name)'],
    [
      'ALTER TABLE countries ADD FOREIGN KEY (name) REFERENCES rates',
      'ADD CONSTRAINT "countries_name_fkey" FOREIGN KEY (name) REFERENCES rates',
    ],
    ['ALTER TABLE countries DROP CONSTRAINT c', 'DROP CONSTRAINT c'],
    ['ALTER TABLE countries SET (fillfactor = 70)', 'SET (fillfactor = 70)'],
    ['ALTER TABLE countries ALTER name SET DEFAULT now()', 'ALTER name SET DEFAULT now()'],
  ])('%s', (text, all) => {
    expect(stepsOf(text)).toEqual([`all: ALTER TABLE "public"."countries" ${all}`, TOUCH]);
  });

  test('a new name', () => {
    expect(stepsOf('ALTER TABLE countries RENAME TO lands')).toEqual([
      'all: ALTER TABLE "public"."countries" RENAME TO "lands"',
      'catalog: renameTable 109 public lands',
    ]);
  });

  test.each([
    'ALTER TABLE countries ADD x timestamptz DEFAULT now()',
    "ALTER TABLE countries ADD x timestamptz DEFAULT 'now'",
    'ALTER TABLE countries ADD x uuid DEFAULT gen_random_uuid()',
    'ALTER TABLE countries ADD x serial',
    'ALTER TABLE countries ALTER name TYPE text USING my.f(name)',
    'ALTER TABLE countries ADD FOREIGN KEY (name) REFERENCES accounts',
    'ALTER TABLE countries ADD FOREIGN KEY (name) REFERENCES single',
    'ALTER TABLE countries DISABLE TRIGGER USER',
    'ALTER TABLE countries INHERIT rates',
    'ALTER TABLE countries SET UNLOGGED',
  ])('%s is refused', (text) => {
    expect(statementOf(text).refusal?.sqlState).toBe('0A000');
  });
});

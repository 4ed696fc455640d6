/** One table for each reason, yes and no, on real servers of two versions. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EXAMPLE_MAP, statementOf } from '../../test/support/example-map.ts';
import { isVersionInstalled, startTestServer, type TestServer } from '../../test/support/servers.ts';
import { loadParser } from '../sql/parser.ts';
import { FunctionFacts } from './function-facts.ts';
import { WriteFactsCache } from './write-facts.ts';

/** What the tables are made of. */
const FURNITURE = `
  CREATE EXTENSION pgcrypto; CREATE EXTENSION "uuid-ossp"; CREATE EXTENSION citext; CREATE EXTENSION hstore;
  CREATE EXTENSION btree_gist; CREATE EXTENSION pg_trgm; CREATE EXTENSION tablefunc; CREATE EXTENSION dblink;
  CREATE EXTENSION file_fdw;
  CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
  CREATE FUNCTION users_own(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
  CREATE FUNCTION truth(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN true; END';
  CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
  CREATE FUNCTION setting() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('a.b', 'c', false); RETURN NEW; END $$;
  CREATE FUNCTION locally() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('a.b', 'c', true); RETURN NEW; END $$;
  CREATE OPERATOR === (leftarg = int, rightarg = int, function = int4eq);
  CREATE FUNCTION odd_eq(int, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 % 2 = $2 % 2';
  CREATE OPERATOR =~= (leftarg = int, rightarg = int, function = odd_eq);
  CREATE FUNCTION odd_cmp(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 % 2 - $2 % 2';
  CREATE OPERATOR CLASS odd_ops FOR TYPE int USING btree AS OPERATOR 3 =, FUNCTION 1 odd_cmp(int, int);
  CREATE TYPE mood AS ENUM ('sad', 'ok');
  CREATE DOMAIN plain_domain AS int DEFAULT 1 CHECK (VALUE > 0);
  CREATE DOMAIN checked_domain AS int CHECK (truth(VALUE));
  CREATE DOMAIN outer_domain AS checked_domain;
  CREATE DOMAIN defaulted_domain AS int DEFAULT users_own(1);
  CREATE DOMAIN notifying_domain AS int CHECK (pg_notify('a', VALUE::text) IS NOT NULL);
  CREATE TYPE plain_composite AS (a int, b text);
  CREATE TYPE composite AS (a int, b outer_domain);
  CREATE TYPE plain_range AS RANGE (subtype = int);
  CREATE FUNCTION distance(int, int) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT 1.0::float8';
  CREATE TYPE odd_range AS RANGE (subtype = int, subtype_diff = distance);
  CREATE TYPE source_type AS (a int);
  CREATE FUNCTION to_source(int) RETURNS source_type LANGUAGE sql IMMUTABLE AS 'SELECT row($1)::source_type';
  CREATE CAST (int AS source_type) WITH FUNCTION to_source(int) AS ASSIGNMENT;
  CREATE SEQUENCE numbers;
  CREATE TABLE parent (id int PRIMARY KEY);
  CREATE TABLE elsewhere (id int);
`;

const YES: [what: string, setup: string][] = [
  [
    'nothing special',
    'CREATE TABLE t (a int PRIMARY KEY, b text NOT NULL UNIQUE, c timestamptz, d numeric(10, 2)[])',
  ],
  ['a serial', 'CREATE TABLE t (a bigserial PRIMARY KEY)'],
  ['an identity column', 'CREATE TABLE t (a int GENERATED ALWAYS AS IDENTITY)'],
  [
    'built-in defaults',
    `CREATE TABLE t (a timestamptz DEFAULT now(), b uuid DEFAULT gen_random_uuid(), c bigint DEFAULT txid_current(),
      d int DEFAULT nextval('numbers'), e text DEFAULT current_setting('a.b', true), f date DEFAULT CURRENT_DATE)`,
  ],
  ['a generated column', 'CREATE TABLE t (a int, b int GENERATED ALWAYS AS (abs(a) * 2) STORED)'],
  ['checks', "CREATE TABLE t (a text CHECK (length(a) > 1 AND a ~ '^x' AND lower(a) IN ('xa', 'xb')))"],
  [
    'an enum, a domain, a range and composites',
    'CREATE TABLE t (a mood, b plain_domain[], c plain_composite, d plain_range)',
  ],
  [
    'indexes',
    `CREATE TABLE t (a text, b int); CREATE INDEX ON t (lower(a), (b + 1)) WHERE b > 0; CREATE INDEX ON t USING gin (to_tsvector('english', a))`,
  ],
  ['a foreign key', 'CREATE TABLE t (a int REFERENCES parent)'],
  [
    'a referencing table',
    'CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE child (a int REFERENCES t ON DELETE CASCADE ON UPDATE SET NULL)',
  ],
  [
    'a trigger that is off',
    'CREATE TABLE t (a int); CREATE TRIGGER x BEFORE INSERT ON t EXECUTE FUNCTION fire(); ALTER TABLE t DISABLE TRIGGER x',
  ],
  [
    'a row-level security policy',
    `CREATE TABLE t (a int, tenant text); ALTER TABLE t ENABLE ROW LEVEL SECURITY;
     CREATE POLICY p ON t USING (tenant = current_setting('app.tenant')) WITH CHECK (tenant = CURRENT_USER)`,
  ],
  ['a policy that is off', 'CREATE TABLE t (a int); CREATE POLICY p ON t USING (truth(a))'],
  [
    'an exclusion constraint',
    'CREATE TABLE t (a int, b tstzrange, EXCLUDE USING gist (a WITH =, b WITH &&))',
  ],
  [
    'types of extensions',
    'CREATE TABLE t (a citext UNIQUE CHECK (a = lower(a)), b hstore, c text); CREATE INDEX ON t USING gin (c gin_trgm_ops)',
  ],
  [
    'functions of extensions',
    'CREATE TABLE t (a uuid DEFAULT uuid_generate_v4(), b bytea DEFAULT gen_random_bytes(4), c text CHECK (similarity(c, c) > 0))',
  ],
  [
    'partitions',
    `CREATE TABLE t (a int, b int) PARTITION BY LIST (a); CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1) PARTITION BY HASH (b);
     CREATE TABLE t11 PARTITION OF t1 FOR VALUES WITH (modulus 1, remainder 0)`,
  ],
  ['no partitions, as a face', 'CREATE TABLE t (a int PRIMARY KEY, b text) PARTITION BY HASH (a)'],
  [
    'a partition itself',
    'CREATE TABLE p (a int) PARTITION BY HASH (a); CREATE TABLE t PARTITION OF p FOR VALUES WITH (modulus 1, remainder 0)',
  ],
  ["an operator of the user's on a built-in function", 'CREATE TABLE t (a int CHECK (a === 1))'],
  ['an unlogged table', 'CREATE UNLOGGED TABLE t (a int)'],
  ['an odd name', 'CREATE TABLE "t" ("a ""\\b" int CHECK ("a ""\\b" > 0))'],
];

const NO: [what: string, setup: string, reason: RegExp][] = [
  ['no table', '', /no such table/],
  ['a view', 'CREATE VIEW t AS SELECT * FROM elsewhere', /not a table/],
  ['a materialized view', 'CREATE MATERIALIZED VIEW t AS SELECT * FROM elsewhere', /not a table/],
  [
    'a foreign table',
    "CREATE FOREIGN TABLE t (a int) SERVER files OPTIONS (filename '/dev/null')",
    /foreign table/,
  ],
  [
    'a foreign partition',
    `CREATE TABLE t (a int) PARTITION BY LIST (a);
     CREATE FOREIGN TABLE t1 PARTITION OF t FOR VALUES IN (1) SERVER files OPTIONS (filename '/dev/null')`,
    /t1 is a foreign table/,
  ],
  [
    'a row trigger',
    'CREATE TABLE t (a int); CREATE TRIGGER x AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION fire()',
    /trigger x/,
  ],
  [
    'a statement trigger',
    'CREATE TABLE t (a int); CREATE TRIGGER x BEFORE DELETE ON t EXECUTE FUNCTION fire()',
    /trigger x/,
  ],
  [
    'a constraint trigger',
    'CREATE TABLE t (a int); CREATE CONSTRAINT TRIGGER x AFTER INSERT ON t DEFERRABLE FOR EACH ROW EXECUTE FUNCTION fire()',
    /x/,
  ],
  [
    'a trigger that is always on',
    'CREATE TABLE t (a int); CREATE TRIGGER x BEFORE INSERT ON t EXECUTE FUNCTION fire(); ALTER TABLE t ENABLE ALWAYS TRIGGER x',
    /trigger x/,
  ],
  [
    'a trigger on a partition',
    `CREATE TABLE t (a int) PARTITION BY LIST (a); CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
     CREATE TRIGGER x BEFORE INSERT ON t1 FOR EACH ROW EXECUTE FUNCTION fire()`,
    /t1 has the trigger x/,
  ],
  [
    'a trigger on a child',
    'CREATE TABLE t (a int); CREATE TABLE c () INHERITS (t); CREATE TRIGGER x BEFORE UPDATE ON c EXECUTE FUNCTION fire()',
    /c has the trigger x/,
  ],
  ['a rule', 'CREATE TABLE t (a int); CREATE RULE r AS ON INSERT TO t DO ALSO NOTIFY x', /rule r/],
  ['a deferrable foreign key', 'CREATE TABLE t (a int REFERENCES parent DEFERRABLE)', /deferrable/],
  ['a deferrable unique key', 'CREATE TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)', /deferrable/],
  [
    'a deferrable reference to it',
    'CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE child (a int REFERENCES t INITIALLY DEFERRED)',
    /deferrable/,
  ],
  [
    'a cascade to a table with a trigger',
    `CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE child (a int PRIMARY KEY REFERENCES t ON DELETE CASCADE);
     CREATE TABLE grandchild (a int REFERENCES child ON UPDATE SET NULL);
     CREATE TRIGGER x BEFORE UPDATE ON grandchild EXECUTE FUNCTION fire()`,
    /grandchild has the trigger x/,
  ],
  [
    'a cascade to a table with a check',
    'CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE child (a int CHECK (truth(a)) REFERENCES t ON DELETE SET NULL)',
    /truth/,
  ],
  ["a default that calls a user's function", 'CREATE TABLE t (a int DEFAULT users_own(1))', /users_own/],
  [
    "a generated column that calls a user's function",
    'CREATE TABLE t (a int, b int GENERATED ALWAYS AS (users_own(a)) STORED)',
    /users_own/,
  ],
  ["a check that calls a user's function", 'CREATE TABLE t (a int CHECK (truth(a)))', /truth/],
  ["a check with a user's operator", 'CREATE TABLE t (a int CHECK (a =~= 1))', /odd_eq/],
  ['a domain', 'CREATE TABLE t (a checked_domain)', /truth/],
  ['a domain of a domain', 'CREATE TABLE t (a outer_domain)', /truth/],
  ['an array of a domain', 'CREATE TABLE t (a outer_domain[])', /truth/],
  ['a composite with a domain', 'CREATE TABLE t (a composite)', /truth/],
  ['an array of a composite with a domain', 'CREATE TABLE t (a composite[])', /truth/],
  ["a domain's default", 'CREATE TABLE t (a defaulted_domain)', /users_own/],
  ["a built-in function in a domain's check", 'CREATE TABLE t (a notifying_domain)', /pg_notify/],
  ['a range', 'CREATE TABLE t (a odd_range)', /distance/],
  ['a cast on assignment', 'CREATE TABLE t (a source_type)', /to_source/],
  ['an index expression', 'CREATE TABLE t (a int); CREATE INDEX ON t (users_own(a))', /users_own/],
  ['an index predicate', 'CREATE TABLE t (a int); CREATE INDEX ON t (a) WHERE truth(a)', /truth/],
  ["a user's operator class", 'CREATE TABLE t (a int); CREATE INDEX ON t (a odd_ops)', /odd_cmp/],
  [
    'an exclusion constraint',
    'CREATE TABLE t (a int, EXCLUDE USING gist (users_own(a) WITH =))',
    /users_own/,
  ],
  [
    'a policy',
    'CREATE TABLE t (a int); ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (truth(a))',
    /truth/,
  ],
  [
    "a policy's check",
    'CREATE TABLE t (a int); ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t WITH CHECK (truth(a))',
    /truth/,
  ],
  [
    'a policy that reads',
    'CREATE TABLE t (a int); ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (a IN (SELECT id FROM elsewhere))',
    /other tables/,
  ],
  ['pg_notify', "CREATE TABLE t (a text CHECK (pg_notify('x', a) IS NOT NULL))", /pg_notify/],
  ['set_config', "CREATE TABLE t (a text DEFAULT set_config('x.y', '1', false))", /set_config/],
  [
    'an advisory lock',
    'CREATE TABLE t (a int CHECK (pg_try_advisory_xact_lock(a)))',
    /pg_try_advisory_xact_lock/,
  ],
  ['pg_sleep', "CREATE TABLE t (a int CHECK (pg_sleep(a)::text = ''))", /pg_sleep/],
  ['dblink', "CREATE TABLE t (a text DEFAULT dblink_exec('', ''))", /dblink_exec/],
  ['a volatile function of an extension', 'CREATE TABLE t (a float8 DEFAULT set_limit(0.5))', /set_limit/],
  [
    "a partition key that calls a user's function",
    'CREATE TABLE p (a int) PARTITION BY LIST (users_own(a)); CREATE TABLE t PARTITION OF p FOR VALUES IN (1)',
    /users_own/,
  ],
  [
    'another schema before it',
    'CREATE TABLE t (a int); CREATE SCHEMA first; CREATE VIEW first.t AS SELECT * FROM elsewhere',
    /not a table/,
  ],
];

const TRIGGERED =
  'CREATE TABLE t (a int); CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION fire()';
const PARTITIONED = `CREATE TABLE t (a int) PARTITION BY LIST (a); CREATE TABLE c PARTITION OF t DEFAULT;
  CREATE TRIGGER x AFTER UPDATE ON c FOR EACH ROW EXECUTE FUNCTION fire()`;
const CASCADING = `CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE child (a int REFERENCES t ON DELETE CASCADE DEFERRABLE);
  CREATE TRIGGER x AFTER DELETE ON child FOR EACH ROW EXECUTE FUNCTION fire()`;

/** Switches by table; the reason why not, or undefined: yes. */
const SWITCHED: [
  what: string,
  setup: string,
  switches: Record<string, boolean>,
  reason: RegExp | undefined,
][] = [
  ['off', 'CREATE TABLE t (a int)', { t: false }, /t is left out by its postern.coalesce/],
  ['another one off', 'CREATE TABLE t (a int)', { elsewhere: false }, undefined],
  ['a trigger', TRIGGERED, { t: true }, undefined],
  ['a trigger of another one', TRIGGERED, { elsewhere: true }, /trigger x/],
  [
    'deferrable constraints',
    'CREATE TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED, b int REFERENCES parent DEFERRABLE)',
    { t: true },
    undefined,
  ],
  ['a partition by its parent', PARTITIONED, { t: true }, undefined],
  [
    'a partition by itself',
    'CREATE TABLE t (a int) PARTITION BY LIST (a); CREATE TABLE c PARTITION OF t DEFAULT',
    { t: true, c: false },
    /c is left out/,
  ],
  ['a partition alone', PARTITIONED, { c: true }, undefined],
  ['a cascade to one that has not agreed', CASCADING, { t: true }, /child has the/],
  ['a cascade to one that has', CASCADING, { t: true, child: true }, undefined],
  [
    'a cascade to one that is off',
    'CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE child (a int REFERENCES t ON DELETE CASCADE)',
    { child: false },
    /child is left out/,
  ],
  ['a cascade from one that has not agreed', CASCADING, { child: true }, /t has the deferrable/],
  [
    "users' functions in defaults, checks, domains and policies",
    `CREATE TABLE t (a outer_domain DEFAULT users_own(1) CHECK (truth(a))); ALTER TABLE t ENABLE ROW LEVEL SECURITY;
     CREATE POLICY p ON t USING (truth(a))`,
    { t: true },
    undefined,
  ],
  ['pg_notify', "CREATE TABLE t (a text CHECK (pg_notify('x', a) IS NOT NULL))", { t: true }, undefined],
  [
    'a trigger that sets',
    'CREATE TABLE t (a int); CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION setting()',
    { t: true },
    /setting\(\), which may leave session state/,
  ],
  [
    'a trigger that sets for its transaction, where others are in it',
    'CREATE TABLE t (a int); CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION locally()',
    { t: true },
    /locally\(\), which may/,
  ],
  [
    'a trigger whose condition sets',
    `CREATE TABLE t (a int); CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW WHEN (set_config('a.b', 'c', true) = 'c') EXECUTE FUNCTION fire()`,
    { t: true },
    /may leave session state: CREATE TRIGGER/,
  ],
  [
    'a trigger whose condition calls',
    'CREATE TABLE t (a int); CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW WHEN (truth(NEW.a)) EXECUTE FUNCTION fire()',
    { t: true },
    undefined,
  ],
  [
    'a default that sets',
    "CREATE TABLE t (a text DEFAULT set_config('x.y', '1', false))",
    { t: true },
    /may leave session state/,
  ],
  [
    'a rule',
    'CREATE TABLE t (a int); CREATE RULE r AS ON INSERT TO t DO ALSO NOTIFY x',
    { t: true },
    /rule r/,
  ],
  ['a view', 'CREATE VIEW t AS SELECT * FROM elsewhere', { t: true }, /not a table/],
];

for (const version of [15, 18] as const) {
  describe.skipIf(!(await isVersionInstalled(version)))(`PostgreSQL ${version}`, () => {
    let server: TestServer;
    let questions = 0;

    beforeAll(async () => {
      await loadParser();
      server = await startTestServer({ version });
      await server.query(FURNITURE);
    });
    afterAll(() => server?.stop());

    const ask = async (text: string) => {
      questions++;
      return (await server.query(text)).map((row) => Object.values(row) as (string | null)[]);
    };

    function newCache(switches: Record<string, boolean> = {}): WriteFactsCache {
      const rows = Object.entries(switches).map(
        ([name, merges]) => `(to_regclass('${name}')::oid, ${merges})`,
      );
      return new WriteFactsCache(ask, {
        functions: new FunctionFacts(ask),
        ...(rows.length > 0 && { switches: `VALUES ${rows.join(', ')}` }),
      });
    }

    const PATH = ['first', 'public'];

    async function reasonOf(text: string, cache = newCache()): Promise<string | undefined> {
      const { write } = statementOf(text);
      if (!write) throw new Error(`not a write: ${text}`);
      expect(cache.lookup(write, PATH)).toBeUndefined();
      await cache.load(write, PATH);
      const reason = cache.reason(write, PATH);
      expect(cache.lookup(write, PATH)).toBe(reason === undefined ? 'yes' : 'no');
      return reason;
    }

    /** Leaves nothing of `setup` behind. */
    async function having(setup: string, work: () => Promise<void>): Promise<void> {
      await server.query(setup);
      try {
        await work();
      } finally {
        await server.query(
          `DO $$ DECLARE name text; BEGIN
             DROP SCHEMA IF EXISTS first CASCADE;
             FOR name IN SELECT format('%s %s', CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, oid::regclass)
                 FROM pg_class WHERE relname IN ('t', 'p', 'c', 'child', 'grandchild') AND relnamespace = 'public'::regnamespace
                 ORDER BY relname = 't'
             LOOP EXECUTE 'DROP ' || replace(name, 'TABLE ', 'TABLE IF EXISTS ') || ' CASCADE'; END LOOP; END $$`,
        );
      }
    }

    test.each(YES)('yes: %s', async (_what, setup) => {
      await having(setup, async () => {
        expect(await reasonOf('INSERT INTO t VALUES ($1)')).toBeUndefined();
        expect(await reasonOf('DELETE FROM public.t')).toBeUndefined();
      });
    });

    test.each(NO)('no: %s', async (_what, setup, reason) => {
      await having(setup, async () => {
        expect(await reasonOf('UPDATE t SET a = $1')).toMatch(reason);
      });
    });

    test.each(SWITCHED)('switched: %s', async (_what, setup, switches, reason) => {
      await having(setup, async () => {
        const found = await reasonOf('DELETE FROM t WHERE a = $1', newCache(switches));
        if (reason === undefined) expect(found).toBeUndefined();
        else expect(found).toMatch(reason);
      });
    });

    test('rows of a table with triggers stay in statements of their own', async () => {
      for (const [setup, merged] of [
        [TRIGGERED, false],
        ['CREATE TABLE t (a int UNIQUE DEFERRABLE)', true],
        // Checked when the statement ends: two rows that refer to one another would both be right.
        ['CREATE TABLE t (a int PRIMARY KEY, b int REFERENCES t)', false],
        // What a function of a user's own finds in the table depends on the statement that has put it there.
        [
          `CREATE FUNCTION few() RETURNS boolean STABLE LANGUAGE sql AS 'SELECT true';
           CREATE TABLE t (a int CHECK (few()))`,
          false,
        ],
      ] as const) {
        await having(setup, async () => {
          const cache = newCache({ t: true });
          const { write } = statementOf('INSERT INTO t VALUES ($1)');
          expect(cache.memberOf(write!, PATH)).toBeUndefined();
          await cache.load(write!, PATH);
          expect(cache.memberOf(write!, PATH)).toMatchObject({ ...write, valuesOnly: merged });
        });
      }
    });

    test('updates of keys that are checked when the statement ends stay in statements of their own', async () => {
      await having('CREATE TABLE t (a int UNIQUE DEFERRABLE, b int)', async () => {
        const cache = newCache({ t: true });
        const { write } = statementOf('UPDATE t SET a = $1 WHERE b = $2');
        await cache.load(write!, PATH);
        expect(cache.memberOf(write!, PATH)).toMatchObject({ kind: 'update', updatesByKey: false });
      });
    });

    test.each([
      ['CREATE TABLE t (a int, b int)', true],
      ['CREATE TABLE t (a int, b int, c int GENERATED ALWAYS AS (a + 1) STORED)', false],
      ['CREATE TABLE t (a int UNIQUE, b int REFERENCES t (a) ON UPDATE CASCADE)', false],
      ['CREATE TABLE t (a int UNIQUE, b int REFERENCES t (a))', false],
      [
        'CREATE TABLE t (a int UNIQUE, b int); CREATE TABLE u (a int REFERENCES t (a) ON DELETE CASCADE)',
        true,
      ],
    ])(
      'an update may be one with others where it changes nothing but what it names: %s',
      async (setup, together) => {
        await having(setup, async () => {
          const cache = newCache();
          const { write } = statementOf('UPDATE t SET a = $1 WHERE b = $2');
          await cache.load(write!, PATH);
          expect(cache.memberOf(write!, PATH)).toMatchObject({ kind: 'update', updatesByKey: together });
        });
      },
    );

    test('what PostgreSQL itself has is no', async () => {
      expect(await reasonOf("DELETE FROM pg_class WHERE relname = 'x'")).toMatch(/system table/);
      expect(await reasonOf("DELETE FROM information_schema.sql_features WHERE feature_id = 'x'")).toMatch(
        /system/,
      );
    });

    test.each([
      ['UPDATE t SET a = a =~= 1 WHERE a = 1', '=~='],
      ['UPDATE t SET a = t.mine', '.mine'],
      ['UPDATE t SET a = abs($1)', 'abs'],
      ['UPDATE t SET a = ($1::checked_domain)', 'type checked_domain'],
    ])('a name that a user has defined: %s', async (text, name) => {
      const setup = `CREATE TABLE t (a int);
        CREATE FUNCTION public.abs(t) RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE FUNCTION mine(t) RETURNS int LANGUAGE sql AS 'SELECT 1'`;
      await having(setup, async () => {
        expect(await reasonOf(text)).toContain(`"${name}"`);
        expect(await reasonOf('UPDATE t SET a = lower(t.a::text)::int')).toBeUndefined();
      });
    });

    test('a sharded table is its face, whatever the search_path says', async () => {
      const setup =
        'CREATE TABLE t (a int) PARTITION BY HASH (a); CREATE SCHEMA first; CREATE VIEW first.t AS SELECT 1';
      await having(setup, async () => {
        const table = { ...EXAMPLE_MAP.tables.get('public')!.get('accounts')!, name: 't' };
        const write = { ...statementOf('INSERT INTO t VALUES (1)').write!, table };
        const cache = newCache();
        await cache.load(write, PATH);
        expect(cache.lookup(write, PATH)).toBe('yes');
      });
    });

    test('is kept until invalidated, and asked for once', async () => {
      await having('CREATE TABLE t (a int)', async () => {
        const cache = newCache();
        const { write } = statementOf('INSERT INTO t VALUES ($1)');
        questions = 0;
        await Promise.all([cache.load(write!, PATH), cache.load(write!, PATH)]);
        await cache.load(statementOf('DELETE FROM t').write!, PATH);
        expect(questions).toBe(2);
        expect(cache.lookup(write!, PATH)).toBe('yes');
        // The same statement under another search_path is another table.
        expect(cache.lookup(write!, ['elsewhere'])).toBeUndefined();
        expect(cache.lookup(write!, [...PATH])).toBe('yes');
        await server.query('CREATE TRIGGER x BEFORE INSERT ON t EXECUTE FUNCTION fire()');
        expect(cache.lookup(write!, PATH)).toBe('yes');
        cache.invalidate();
        expect(cache.lookup(write!, PATH)).toBeUndefined();
        await cache.load(write!, PATH);
        expect(cache.lookup(write!, PATH)).toBe('no');
        const late = cache.load(statementOf('DELETE FROM public.t').write!, PATH);
        cache.invalidate();
        await late;
        expect(cache.lookup(statementOf('DELETE FROM public.t').write!, PATH)).toBeUndefined();
      });
    });
  });
}

/** Each way to a function that leaves state behind, found and not found, on real servers of two versions. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EXAMPLE_MAP } from '../../test/support/example-map.ts';
import { isVersionInstalled, startTestServer, type TestServer } from '../../test/support/servers.ts';
import { cannotConnect } from '../base/errors.ts';
import { planQuery } from '../plan/planner.ts';
import { loadParser } from '../sql/parser.ts';
import { FunctionFacts } from './function-facts.ts';
import { StatefulRelations } from './stateful-relations.ts';

const FURNITURE = `
  CREATE FUNCTION sets(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('a.b', 'c', false); RETURN $1; END $$;
  CREATE FUNCTION immutable_sets(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM set_config('a.b', 'c', false); RETURN $1; END $$;
  CREATE FUNCTION calls_it(int) RETURNS boolean LANGUAGE sql AS 'SELECT sets($1) > 0';
  CREATE FUNCTION harmless(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
  CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock(1); RETURN NEW; END $$;
  CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
  CREATE FUNCTION locally() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.who', coalesce(NEW.a::text, 'x,y'), true); SET LOCAL app.x = 1; RETURN NEW; END $$;
  CREATE FUNCTION clause() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$ BEGIN RETURN NEW; END $$;
  CREATE FUNCTION sets_path() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('search_path', 'x', true); RETURN NEW; END $$;
  CREATE FUNCTION executes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('INSERT INTO %I SELECT $1', TG_TABLE_NAME || '_log') USING NEW.a; RETURN NEW; END $$;
  CREATE DOMAIN stateful AS int CHECK (calls_it(VALUE));
  CREATE DOMAIN over_it AS stateful;
  CREATE DOMAIN fine AS int CHECK (harmless(VALUE) > 0);
  CREATE TYPE composite AS (a int, b over_it);
  CREATE FUNCTION leaving(int, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN LISTEN x; RETURN true; END $$;
  CREATE OPERATOR =~= (leftarg = int, rightarg = int, function = leaving);
  CREATE TABLE elsewhere (a int)`;

/** What is there, and which statements leave state behind (true) or not. */
const CASES: [what: string, setup: string, statements: Record<string, boolean>][] = [
  [
    'nothing',
    'CREATE TABLE t (a int DEFAULT harmless(1))',
    { 'INSERT INTO t VALUES (1)': false, 'SELECT * FROM t': false },
  ],
  [
    'a trigger',
    'CREATE TABLE t (a int); CREATE TRIGGER x AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION fire()',
    {
      'INSERT INTO t VALUES (1)': true,
      'DELETE FROM public.t': true,
      'COPY t FROM STDIN': true,
      'WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT * FROM x': true,
      'SELECT * FROM t': false,
      'SELECT 1': false,
      'INSERT INTO elsewhere VALUES (1)': false,
    },
  ],
  [
    'a trigger that leaves nothing',
    `CREATE TABLE t (a int); CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION nothing();
     CREATE TRIGGER y BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION locally();
     CREATE TRIGGER z BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION clause()`,
    { 'INSERT INTO t VALUES (1)': false },
  ],
  [
    'a trigger that sets what the router goes by, for the transaction alone',
    'CREATE TABLE t (a int); CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION sets_path()',
    { 'INSERT INTO t VALUES (1)': true },
  ],
  [
    "a trigger's condition",
    `CREATE TABLE t (a int); CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW WHEN (set_config('a.b', 'c', false) = 'c') EXECUTE FUNCTION nothing()`,
    { 'INSERT INTO t VALUES (1)': true, 'SELECT * FROM t': false },
  ],
  [
    'a default',
    'CREATE TABLE t (a int DEFAULT sets(1))',
    { 'INSERT INTO t DEFAULT VALUES': true, 'TABLE t': false },
  ],
  [
    "a default of PostgreSQL's own",
    "CREATE TABLE t (a text DEFAULT set_config('a.b', 'c', false), b text DEFAULT current_setting('a.b', true))",
    { 'INSERT INTO t DEFAULT VALUES': true, 'TABLE t': false },
  ],
  [
    'defaults without it',
    "CREATE TABLE t (a text DEFAULT current_setting('a.b', true), b timestamptz DEFAULT now())",
    { 'INSERT INTO t DEFAULT VALUES': false },
  ],
  [
    'a check',
    'CREATE TABLE t (a int CHECK (calls_it(a)))',
    { 'UPDATE t SET a = 1': true, 'SELECT * FROM t': false },
  ],
  [
    'a domain',
    'CREATE TABLE t (a over_it); CREATE TABLE c (a composite[])',
    {
      'INSERT INTO t VALUES (1)': true,
      'INSERT INTO c VALUES (NULL)': true,
      'SELECT 1::over_it': true,
      'SELECT $1::stateful': true,
      'SELECT 1::fine': false,
      'SELECT * FROM t': false,
    },
  ],
  [
    'an operator',
    'CREATE TABLE t (a int)',
    { 'SELECT 1 =~= 2': true, 'DELETE FROM t WHERE a =~= 2': true, 'SELECT 1 = 2': false },
  ],
  [
    'a view',
    'CREATE VIEW v AS SELECT sets(1) AS a; CREATE VIEW w AS SELECT * FROM v; CREATE TABLE t (a int)',
    { 'SELECT * FROM v': true, 'SELECT count(*) FROM t, w': true, 'SELECT * FROM t': false },
  ],
  [
    "a view with a function of PostgreSQL's own",
    'CREATE VIEW v AS SELECT pg_advisory_lock(1) IS NULL AS a; CREATE VIEW w AS SELECT pg_advisory_xact_lock(1) IS NULL AS a',
    { 'SELECT * FROM v': true, 'SELECT * FROM w': false },
  ],
  [
    'a view of a table with a trigger',
    'CREATE TABLE t (a int); CREATE TRIGGER x AFTER INSERT ON t EXECUTE FUNCTION fire(); CREATE VIEW v AS SELECT * FROM t',
    { 'INSERT INTO v VALUES (1)': true, 'SELECT * FROM v': false },
  ],
  [
    'a materialized view',
    'CREATE MATERIALIZED VIEW v AS SELECT sets(1) AS a',
    { 'SELECT * FROM v': false, 'REFRESH MATERIALIZED VIEW v': true },
  ],
  [
    'a rule',
    'CREATE TABLE t (a int); CREATE RULE r AS ON INSERT TO t DO ALSO SELECT sets(1)',
    { 'INSERT INTO t VALUES (1)': true, 'SELECT * FROM t': false },
  ],
  [
    'policies',
    `CREATE TABLE t (a int); CREATE POLICY p ON t USING (calls_it(a)); CREATE TABLE c (a int); CREATE POLICY p ON c FOR INSERT WITH CHECK (calls_it(a))`,
    { 'SELECT * FROM t': true, 'SELECT * FROM c': false, 'INSERT INTO c VALUES (1)': true },
  ],
  [
    'an index expression',
    'CREATE TABLE t (a int); CREATE INDEX ON t (immutable_sets(a))',
    { 'INSERT INTO t VALUES (1)': true, 'SELECT * FROM t': false },
  ],
  [
    'a partition, and a cascade to it',
    `CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE p (a int REFERENCES t ON DELETE CASCADE) PARTITION BY LIST (a);
     CREATE TABLE c PARTITION OF p DEFAULT; CREATE TRIGGER x AFTER DELETE ON c FOR EACH ROW EXECUTE FUNCTION fire()`,
    { 'DELETE FROM t': true, 'DELETE FROM p': true, 'DELETE FROM c': true, 'SELECT * FROM p': false },
  ],
  [
    'a trigger that writes to a table with such a trigger, and a function that does',
    `CREATE TABLE t (a int); CREATE TRIGGER x AFTER INSERT ON t EXECUTE FUNCTION fire();
     CREATE FUNCTION writes_t() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.t VALUES (1); RETURN NEW; END $$;
     CREATE TABLE c (a int); CREATE TRIGGER x BEFORE UPDATE ON c FOR EACH ROW EXECUTE FUNCTION writes_t();
     CREATE FUNCTION writes_c() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE c SET a = 1; RETURN NEW; END $$;
     CREATE TABLE p (a int); CREATE TRIGGER x BEFORE UPDATE ON p FOR EACH ROW EXECUTE FUNCTION writes_c()`,
    { 'UPDATE c SET a = 1': true, 'UPDATE p SET a = 1': true, 'UPDATE elsewhere SET a = 1': false },
  ],
  [
    'a trigger that executes a text which leaves nothing',
    `CREATE TABLE t (a int); CREATE TRIGGER x AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION executes()`,
    { 'INSERT INTO t VALUES (1)': false },
  ],
  [
    'a trigger that executes a text on some table, where there is one that leads to such a function',
    `CREATE TABLE t (a int); CREATE TRIGGER x AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION executes();
     CREATE TABLE c (a int); CREATE TRIGGER x AFTER INSERT ON c EXECUTE FUNCTION fire()`,
    { 'INSERT INTO t VALUES (1)': true, 'INSERT INTO c VALUES (1)': true, 'INSERT INTO p VALUES (1)': false },
  ],
];

for (const version of [15, 18] as const) {
  describe.skipIf(!(await isVersionInstalled(version)))(`PostgreSQL ${version}`, () => {
    let server: TestServer;
    const questions: string[] = [];

    const ask = async (text: string) => {
      questions.push(text);
      return (await server.query(text)).map((row) =>
        Object.values(row).map((value) => (value === null ? null : String(value))),
      );
    };

    beforeAll(async () => {
      await loadParser();
      server = await startTestServer({ version });
      await server.query(FURNITURE);
    });
    afterAll(() => server?.stop());

    const plan = (text: string) => planQuery(text, { map: EXAMPLE_MAP, searchPath: ['public'] });

    async function having(setup: string, work: () => Promise<void>): Promise<void> {
      await server.query(setup);
      try {
        await work();
      } finally {
        await server.query(
          `DO $$ DECLARE made record; BEGIN
             FOR made IN SELECT relname, CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END AS kind
                 FROM pg_class WHERE relname IN ('t', 'p', 'c', 'v', 'w', 'T t') AND relnamespace = 'public'::regnamespace
             LOOP EXECUTE format('DROP %s IF EXISTS %I CASCADE', made.kind, made.relname); END LOOP; END $$;
           DROP FUNCTION IF EXISTS writes_t, writes_c CASCADE`,
        );
      }
    }

    test.each(CASES)('%s', async (_what, setup, statements) => {
      await having(setup, async () => {
        const functions = new FunctionFacts(ask);
        const relations = new StatefulRelations(ask, functions);
        await relations.load();
        const found = Object.keys(statements).map((text) => [text, relations.leavesState(plan(text))]);
        expect(Object.fromEntries(found)).toEqual(statements);
      });
    });

    test('a function that is called by its name and writes to such a table', async () => {
      await having(
        `CREATE TABLE "T t" (a int); CREATE TRIGGER x AFTER INSERT ON "T t" EXECUTE FUNCTION fire();
         CREATE FUNCTION writes_t() RETURNS void LANGUAGE sql AS 'INSERT INTO "T t" VALUES (1)'`,
        async () => {
          const functions = new FunctionFacts(ask);
          await functions.load(['writes_t']);
          expect(functions.mayLeaveState(['writes_t'])).toBe(false);
          await new StatefulRelations(ask, functions).load();
          expect(functions.areKnown(['writes_t'])).toBe(false);
          await functions.load(['writes_t', 'harmless']);
          expect(functions.mayLeaveState(['writes_t'])).toBe(true);
          expect(functions.mayLeaveState(['harmless'])).toBe(false);
        },
      );
    });

    test('is asked for again only when the catalogs have changed', async () => {
      await having('CREATE TABLE t (a int)', async () => {
        const relations = new StatefulRelations(ask, new FunctionFacts(ask));
        expect(relations.areKnown).toBe(false);
        const insert = plan('INSERT INTO t VALUES (1)');
        expect(relations.leavesState(insert)).toBe(true);
        await Promise.all([relations.load(), relations.load()]);
        expect([relations.areKnown, relations.leavesState(insert)]).toEqual([true, false]);
        questions.length = 0;
        relations.invalidate();
        expect(relations.areKnown).toBe(false);
        await relations.load();
        await relations.refresh();
        expect(questions).toHaveLength(2);
        await server.query('CREATE TRIGGER x AFTER INSERT ON t EXECUTE FUNCTION nothing()');
        await relations.refresh();
        expect(relations.leavesState(insert)).toBe(false);
        await server.query(
          'CREATE OR REPLACE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN LISTEN x; RETURN NEW; END $$',
        );
        await relations.refresh();
        expect(relations.leavesState(insert)).toBe(true);
        await server.query(
          'CREATE OR REPLACE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$',
        );
      });
    });

    test('after DDL, what was known before it is not enough, also while the answer is under way', async () => {
      await having('CREATE TABLE t (a int)', async () => {
        const relations = new StatefulRelations(ask, new FunctionFacts(ask));
        await relations.load();
        // In the background, all goes on with what is known.
        const refreshed = relations.refresh();
        expect(relations.areKnown).toBe(true);
        await refreshed;
        await server.query('CREATE TRIGGER x AFTER INSERT ON t EXECUTE FUNCTION fire()');
        relations.invalidate();
        const loaded = relations.load();
        expect(relations.areKnown).toBe(false);
        relations.invalidate();
        await loaded;
        expect(relations.areKnown).toBe(false);
        await relations.load();
        expect([relations.areKnown, relations.leavesState(plan('INSERT INTO t VALUES (1)'))]).toEqual([
          true,
          true,
        ]);
      });
    });

    test('which writes a rule rewrites', async () => {
      await having(
        `CREATE TABLE t (a int); CREATE RULE x AS ON INSERT TO t DO ALSO SELECT NEW.a; CREATE VIEW v AS SELECT * FROM t;
         CREATE VIEW w AS SELECT * FROM v; CREATE TABLE p (a int)`,
        async () => {
          const relations = new StatefulRelations(ask, new FunctionFacts(ask));
          await relations.load();
          const ruled = (text: string) => relations.hasRules(plan(text));
          for (const name of ['t', 'v', 'w']) expect(ruled(`INSERT INTO ${name} VALUES (1)`)).toBe(true);
          expect(ruled('INSERT INTO p VALUES (1)')).toBe(false);
          expect(ruled('SELECT * FROM t')).toBe(false);
        },
      );
    });

    test('while the home node is away, what was known goes on holding', async () => {
      let away = false;
      const relations = new StatefulRelations(async (text) => {
        if (away) throw cannotConnect('n1', 'refused');
        return ask(text);
      }, new FunctionFacts(ask));
      away = true;
      await expect(relations.load()).rejects.toMatchObject({ sqlState: '08001' });
      expect(relations.areKnown).toBe(false);
      away = false;
      await relations.load();
      away = true;
      relations.invalidate();
      await relations.load();
      expect([relations.areKnown, relations.leavesState(plan('SELECT 1'))]).toEqual([true, false]);
    });
  });
}

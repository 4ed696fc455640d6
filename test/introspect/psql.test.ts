/** What psql's \d and its kin say of a sharded database: the same as of one PostgreSQL. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { comparable, type Pair, run, startPair } from './pair.ts';
import { programsAreThere, psql } from './programs.ts';

const there = await programsAreThere();

describe.skipIf(!there)('psql', () => {
  let pair: Pair;
  beforeAll(async () => {
    pair = await startPair(15);
  });
  afterAll(() => pair?.stop());

  /** Sizes differ, the schema of Postern's own views is there, and \d+ says what the door is. */
  function lines(text: string): string[] {
    return text
      .split('\n')
      .filter((line) => !/^(postern\||pg_toast\||Options: postern\.|\(\d+ rows?\)$)/.test(line))
      .map((line) => line.replace(/\b\d+ (bytes|kB|MB)\b/, 'size'));
  }

  async function same(...commands: string[]): Promise<string> {
    const sharded = await psql(pair.sharded, ...commands);
    expect(lines(sharded)).toEqual(lines(await psql(pair.plain, ...commands)));
    return sharded;
  }

  test('lists', async () => {
    const said = await same(
      ...['\\d', '\\dt', '\\dt+', '\\di', '\\di+', '\\dv', '\\ds', '\\dp', '\\dn', '\\df', '\\dT', '\\dD'],
      ...['\\dt *.*', '\\dS pg_class', '\\do', '\\dx', '\\dy', '\\ddp', '\\dX', '\\dP', '\\d *'],
    );
    expect(said).not.toMatch(/_b\d+_g\d+|postern_(leaves|internal|commit|shown)/);
  });

  test('tables', async () => {
    const tables = ['accounts', 'orders', 'countries', '"Odd Names"', 'logged', 'notes', 'bodies'];
    await same(...tables.flatMap((table) => [`\\d ${table}`, `\\d+ ${table}`, `\\dp ${table}`]));
    expect(await psql(pair.sharded, '\\d+ orders')).toContain(
      'Options: postern.door=sharded, postern.key=account_id, postern.buckets=4',
    );
    expect(await psql(pair.sharded, '\\d countries')).toContain(
      'TABLE "accounts" CONSTRAINT "accounts_country_fkey" FOREIGN KEY (country) REFERENCES countries(code)',
    );
  });

  test('what other roles may see and do', async () => {
    const reader = (dsn: string) => dsn.replace('//app@', '//reader@');
    const texts = [
      `SELECT table_name, privilege_type, grantee FROM information_schema.table_privileges WHERE table_schema = 'public'`,
      `SELECT table_name, privilege_type FROM information_schema.role_table_grants WHERE table_schema = 'public'`,
      `SELECT table_name, column_name, privilege_type FROM information_schema.column_privileges WHERE table_schema = 'public'`,
      `SELECT table_name, table_type, is_insertable_into FROM information_schema.tables WHERE table_schema = 'public'`,
      `SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'`,
      `SELECT has_table_privilege('accounts', 'SELECT'), has_table_privilege('accounts', 'INSERT'), has_table_privilege('orders', 'SELECT'),
         has_column_privilege('accounts', 'id', 'SELECT'), has_any_column_privilege('app', 'orders', 'UPDATE')`,
      `SELECT count(*) FROM pg_stats WHERE schemaname LIKE 'postern%'`,
    ];
    for (const text of texts) {
      for (const role of [(dsn: string) => dsn, reader]) {
        const rows = await run(role(pair.sharded), text);
        expect(comparable(rows), text).toEqual(comparable(await run(role(pair.plain), text)));
      }
    }
    await expect(
      run(reader(pair.sharded), 'SELECT * FROM postern_internal.local_tables'),
    ).rejects.toMatchObject({
      code: '42501',
    });
  });

  test('information_schema and the catalogs', async () => {
    const own = "NOT IN ('postern', 'pg_catalog', 'information_schema')";
    const texts = [
      `SELECT * FROM information_schema.tables WHERE table_schema ${own}`,
      `SELECT * FROM information_schema.columns WHERE table_schema ${own}`,
      `SELECT * FROM information_schema.table_constraints WHERE table_schema ${own}`,
      `SELECT * FROM information_schema.key_column_usage WHERE table_schema ${own}`,
      `SELECT * FROM information_schema.constraint_column_usage WHERE table_schema ${own}`,
      `SELECT * FROM information_schema.referential_constraints WHERE constraint_schema ${own}`,
      `SELECT * FROM information_schema.check_constraints WHERE constraint_schema ${own} AND constraint_name !~ '^[0-9]'`,
      `SELECT * FROM information_schema.sequences`,
      `SELECT * FROM information_schema.views WHERE table_schema ${own}`,
      `SELECT * FROM information_schema.schemata WHERE schema_name ${own}`,
      `SELECT * FROM information_schema.domains WHERE domain_schema ${own}`,
      `SELECT * FROM information_schema.routines WHERE routine_schema ${own}`,
      `SELECT * FROM pg_tables WHERE schemaname ${own}`,
      `SELECT * FROM pg_indexes WHERE schemaname ${own}`,
      `SELECT relname, relkind, relhasindex, relnatts, relchecks, relispartition, relacl::text FROM pg_class
         WHERE relnamespace = 'public'::regnamespace`,
      `SELECT conname, contype, conrelid::regclass::text, confrelid::regclass::text, conkey, confkey, pg_get_constraintdef(oid)
         FROM pg_constraint WHERE connamespace = 'public'::regnamespace`,
      `SELECT indexrelid::regclass::text AS name, indisprimary, indisvalid, pg_get_indexdef(indexrelid) FROM pg_index
         WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)`,
      `SELECT count(*) FROM pg_partitioned_table`,
      `SELECT count(*) FROM pg_inherits`,
      `SELECT typname FROM pg_type WHERE typnamespace >= 16384 AND typnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname = 'postern')`,
      `SELECT relname FROM pg_stat_user_tables WHERE schemaname ${own}`,
      `SELECT relname, indexrelname FROM pg_statio_user_indexes WHERE schemaname ${own}`,
      `SELECT pg_get_serial_sequence('orders', 'id'), pg_get_serial_sequence('notes', 'id'), pg_get_partkeydef('orders'::regclass)`,
      `SELECT max(age(relfrozenxid)) < 1000000 AS young FROM pg_class WHERE relkind = 'r'`,
    ];
    for (const text of texts) {
      const rows = await run(pair.sharded, text);
      expect(comparable(rows), text).toEqual(comparable(await run(pair.plain, text)));
    }
  });

  test('figures are those of all nodes', async () => {
    const figures = `SELECT c.reltuples, pg_relation_size(c.oid) AS bytes, pg_total_relation_size(c.oid) > pg_table_size(c.oid) AS indexed,
      (SELECT n_live_tup::int FROM pg_stat_user_tables s WHERE s.relid = c.oid) AS live FROM pg_class c WHERE relname = 'accounts'`;
    await run(
      pair.sharded,
      "INSERT INTO accounts (id, email) SELECT i, repeat('x', 300) FROM generate_series(1, 2000) i",
    );
    for (const server of pair.cluster.servers) {
      const database = server.dsn({ database: 'app', user: 'postgres' });
      await run(database, 'ANALYZE');
      await run(database, 'SELECT pg_stat_clear_snapshot()');
    }
    await expect
      .poll(async () => {
        await run(pair.sharded, 'SELECT postern.refresh_statistics()');
        return (await run(pair.sharded, figures))[0];
      })
      .toMatchObject({ reltuples: 2000, indexed: true, live: 2000 });
    const [sizes] = await run(
      pair.sharded,
      `SELECT sum(table_bytes)::int AS all, count(DISTINCT node)::int AS nodes, max(age) < '1 min' AS fresh,
         sum(estimated_rows)::int AS rows FROM postern.table_statistics WHERE table_name = 'accounts'`,
    );
    expect(sizes).toMatchObject({ nodes: 2, fresh: true, rows: 2000 });
    expect(sizes!.all).toBeGreaterThan(2000 * 300);
  });

  test('an error’s position is that of the text as it came', async () => {
    const text = 'SELECT relname FROM pg_class WHERE nothing = 1';
    const at = String(text.indexOf('nothing') + 1);
    await expect(run(pair.sharded, text)).rejects.toMatchObject({ code: '42703', position: at });
    await expect(run(pair.sharded, `${text} AND $1`)).rejects.toMatchObject({ code: '42703', position: at });
  });

  test('no session is given a backend of its own for reading them', async () => {
    const backends = `SELECT count(*)::int AS count FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = 'app'`;
    const [before] = await run(pair.sharded, backends);
    for (let i = 0; i < 5; i++)
      await run(pair.sharded, 'SELECT * FROM information_schema.columns, pg_class LIMIT 1');
    expect((await run(pair.sharded, backends))[0]).toEqual(before);
  });
});

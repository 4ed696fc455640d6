/** Knex: its migrations (latest and rollback), its queries, streams and errors, on sharded tables as on one PostgreSQL. */
import knexFactory, { type Knex } from 'knex';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { columnsOf, execute, type OrmTarget, startTarget, TARGETS } from './stage.ts';

interface NamedMigration extends Knex.Migration {
  readonly name: string;
}

const MIGRATIONS: readonly NamedMigration[] = [
  {
    name: '001_tables',
    async up(knex) {
      await knex.schema.createTable('plans', (table) => {
        table.text('code').primary();
        table.text('title').notNullable();
      });
      await knex.raw(`SELECT create_reference_table('plans')`);
      await knex.schema.createTable('accounts', (table) => {
        table.bigIncrements('id');
        table.string('name').notNullable();
        table.text('plan_code').notNullable().references('code').inTable('plans');
        table
          .enu('status', ['trial', 'active'], { useNative: true, enumName: 'account_status' })
          .notNullable()
          .defaultTo('trial');
        table.jsonb('settings').notNullable().defaultTo('{}');
        table.timestamps(true, true);
      });
      await knex.raw(`SELECT create_distributed_table('accounts', 'id')`);
      await knex.schema.createTable('posts', (table) => {
        table.bigInteger('account_id').notNullable();
        table.bigIncrements('id', { primaryKey: false });
        table.text('title').notNullable();
        table.integer('views').notNullable().defaultTo(0);
        table.primary(['account_id', 'id']);
        table.unique(['account_id', 'title']);
      });
      await knex.raw(`SELECT create_distributed_table('posts', 'account_id', colocate_with => 'accounts')`);
      await knex.schema.alterTable('posts', (table) => {
        table.foreign('account_id').references('accounts.id').onDelete('CASCADE');
        table.index(['views']);
      });
    },
    async down(knex) {
      await knex.schema.dropTable('posts');
      await knex.schema.dropTable('accounts');
      await knex.schema.dropTable('plans');
      await knex.raw('DROP TYPE account_status');
    },
  },
  {
    name: '002_published',
    async up(knex) {
      await knex.schema.alterTable('posts', (table) => {
        table.boolean('published').notNullable().defaultTo(false);
        table.renameColumn('views', 'view_count');
        table.index(['published']);
      });
      await knex('plans').insert([
        { code: 'free', title: 'Free' },
        { code: 'pro', title: 'Pro' },
      ]);
    },
    async down(knex) {
      await knex('accounts').delete();
      await knex('plans').delete();
      await knex.schema.alterTable('posts', (table) => {
        table.dropIndex(['published']);
        table.renameColumn('view_count', 'views');
        table.dropColumn('published');
      });
    },
  },
];

const migrationSource: Knex.MigrationSource<NamedMigration> = {
  getMigrations: () => Promise.resolve([...MIGRATIONS]),
  getMigrationName: (migration) => migration.name,
  getMigration: (migration) => Promise.resolve(migration),
};

describe.each(TARGETS)('Knex on %s', (name) => {
  let target: OrmTarget;
  let knex: Knex;

  beforeAll(async () => {
    target = await startTarget(name);
    knex = knexFactory({ client: 'pg', connection: target.dsn, migrations: { migrationSource } });
    const [batch, done] = await knex.migrate.latest();
    expect([batch, done]).toEqual([1, ['001_tables', '002_published']]);
  });
  afterAll(async () => {
    await knex?.destroy();
    await target?.stop();
  });

  async function newAccount(name: string): Promise<string> {
    const [row] = await knex('accounts').insert({ name, plan_code: 'free' }).returning('id');
    return row.id;
  }

  it('migrates, rolls back and migrates again', async () => {
    const columns = ['account_id', 'id', 'title', 'view_count', 'published'];
    expect(await columnsOf(target.dsn, 'posts')).toEqual(columns);
    await knex.migrate.down();
    expect(await columnsOf(target.dsn, 'posts')).toEqual(['account_id', 'id', 'title', 'views']);
    expect(await knex('plans').count()).toEqual([{ count: '0' }]);
    await knex.migrate.up();
    expect(await columnsOf(target.dsn, 'posts')).toEqual(columns);
    expect(await knex.schema.hasTable('posts')).toBe(true);
    expect(await knex.schema.hasColumn('posts', 'view_count')).toBe(true);
    expect(await knex('accounts').columnInfo('name')).toMatchObject({
      type: 'character varying',
      maxLength: 255,
      nullable: false,
    });
  });

  it('creates, reads, updates and deletes', async () => {
    const id = await newAccount('Ada');
    expect(await knex('accounts').where({ id }).first()).toMatchObject({
      ...{ id, name: 'Ada', plan_code: 'free', status: 'trial', settings: {}, created_at: expect.any(Date) },
    });
    expect(
      await knex('accounts')
        .where({ id })
        .update({ status: 'active', settings: { theme: 'dark' } }, ['status', 'settings']),
    ).toEqual([{ status: 'active', settings: { theme: 'dark' } }]);
    await knex('accounts')
      .where({ id })
      .update({ name: knex.raw('upper(name)') });
    expect(await knex('accounts').where({ id }).pluck('name')).toEqual(['ADA']);
    expect(await knex('accounts').where({ id }).delete()).toBe(1);
    expect(await knex('accounts').where({ id })).toEqual([]);
  });

  it('inserts in bulk, also in chunks, and upserts', async () => {
    const names = Array.from({ length: 30 }, (_, i) => `bulk ${String(i).padStart(2, '0')}`);
    const rows: { id: string; name: string }[] = await knex
      .batchInsert<{ id: string; name: string; plan_code: string }>(
        'accounts',
        names.map((name) => ({ name, plan_code: 'pro' })),
        8,
      )
      .returning(['id', 'name']);
    expect(rows.map((row) => row.name)).toEqual(names);
    await knex('posts').insert(rows.map(({ id }, i) => ({ account_id: id, title: 'bulk', view_count: i })));
    const merged = await knex('posts')
      .insert(rows.slice(0, 4).map(({ id }) => ({ account_id: id, title: 'bulk', view_count: 50 })))
      .onConflict(['account_id', 'title'])
      .merge({ view_count: knex.raw('posts.view_count + excluded.view_count') })
      .returning('view_count');
    expect(merged.map((row: { view_count: number }) => row.view_count)).toEqual([50, 51, 52, 53]);
    const ignored = await knex('posts')
      .insert({ account_id: rows[0]!.id, title: 'bulk' })
      .onConflict()
      .ignore();
    expect(ignored).toMatchObject({ rowCount: 0 });
    await knex('plans').insert({ code: 'pro', title: 'Professional' }).onConflict('code').merge();
    expect(await knex('plans').where('code', 'pro').first()).toEqual({ code: 'pro', title: 'Professional' });
  });

  it('joins, pages and aggregates', async () => {
    const id = await knex('accounts').where('name', 'bulk 07').pluck('id');
    expect(
      await knex('accounts')
        .join('posts', 'posts.account_id', 'accounts.id')
        .where('accounts.id', id[0])
        .select('name', 'title'),
    ).toEqual([{ name: 'bulk 07', title: 'bulk' }]);
    expect(
      await knex('accounts as a')
        .join('posts as p', 'p.account_id', 'a.id')
        .leftJoin('plans', 'plans.code', 'a.plan_code')
        .where('a.name', 'like', 'bulk%')
        .orderBy('a.name', 'desc')
        .limit(2)
        .offset(3)
        .select('a.name', 'plans.title', 'p.view_count'),
    ).toEqual([
      { name: 'bulk 26', title: 'Professional', view_count: 26 },
      { name: 'bulk 25', title: 'Professional', view_count: 25 },
    ]);
    expect(
      await knex('posts').where('title', 'bulk').count('* as posts').sum('view_count as views').first(),
    ).toEqual({ posts: '30', views: '635' });
    expect(
      await knex('posts')
        .where('title', 'bulk')
        .groupByRaw('view_count / 20')
        .orderByRaw('view_count / 20')
        .select(knex.raw('view_count / 20 AS twenty'), knex.raw('count(*)::int AS posts')),
    ).toEqual([
      { twenty: 0, posts: 16 },
      { twenty: 1, posts: 10 },
      { twenty: 2, posts: 4 },
    ]);
    expect(
      await knex('accounts')
        .whereIn('id', knex('posts').select('account_id').where('view_count', '>', 51))
        .orderBy('name')
        .pluck('name'),
    ).toEqual(['bulk 02', 'bulk 03']);
    expect(
      await knex('accounts')
        .where('name', 'like', 'bulk 0%')
        .union([knex('accounts').where('name', 'bulk 29').select('name')])
        .orderBy('name', 'desc')
        .limit(2)
        .pluck('name'),
    ).toEqual(['bulk 29', 'bulk 09']);
  });

  it('streams', async () => {
    let sum = 0;
    for await (const row of knex('posts').where('title', 'bulk').select('view_count').stream())
      sum += row.view_count;
    expect(sum).toBe(635);
  });

  it('commits, rolls back, and nests transactions', async () => {
    const [first = '', second = ''] = await Promise.all(['Transaction 1', 'Transaction 2'].map(newAccount));
    await knex.transaction(async (tx) => {
      await tx('posts').insert({ account_id: first, title: 'kept' });
      await tx
        .transaction(async (nested) => {
          await nested('posts').insert({ account_id: second, title: 'undone' });
          throw new Error('undone');
        })
        .catch(() => {});
      await tx('posts').insert({ account_id: second, title: 'kept too' });
    });
    await expect(
      knex.transaction(async (tx) => {
        await tx('posts').whereIn('account_id', [first, second]).update({ view_count: 99 });
        throw new Error('no');
      }),
    ).rejects.toThrow('no');
    expect(
      await knex('posts')
        .whereIn('account_id', [first, second])
        .orderBy('title')
        .select('title', 'view_count'),
    ).toEqual([
      { title: 'kept', view_count: 0 },
      { title: 'kept too', view_count: 0 },
    ]);
    const locked = await knex.transaction((tx) =>
      tx('posts').where({ account_id: first }).forUpdate().select('title'),
    );
    expect(locked).toEqual([{ title: 'kept' }]);
  });

  it('passes violations on as the driver tells them', async () => {
    const account_id = await newAccount('Unique');
    await knex('posts').insert({ account_id, title: 'once' });
    await expect(knex('posts').insert({ account_id, title: 'once' })).rejects.toMatchObject({
      ...{ code: '23505', constraint: 'posts_account_id_title_unique', table: 'posts' },
    });
    await expect(knex('posts').insert({ account_id: 999_999_999, title: 'x' })).rejects.toMatchObject({
      ...{ code: '23503', constraint: 'posts_account_id_foreign' },
    });
    await expect(
      knex('accounts').insert({ name: 'x', plan_code: 'free', status: 'none' }),
    ).rejects.toMatchObject({ code: '22P02' });
  });

  it('rolls everything back', async () => {
    const [, undone] = await knex.migrate.rollback(undefined, true);
    expect(undone).toEqual(['002_published', '001_tables']);
    const left = await execute(
      target.dsn,
      `SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1`,
    );
    expect(left).toEqual([['knex_migrations'], ['knex_migrations_lock']]);
  });
});

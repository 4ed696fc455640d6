/** Kysely: its migrator (up and down), its queries, streams and errors, on sharded tables as on one PostgreSQL. */
import { type Generated, Kysely, type Migration, Migrator, PostgresDialect, sql } from 'kysely';
import pg from 'pg';
import Cursor from 'pg-cursor';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { columnsOf, execute, type OrmTarget, startTarget, TARGETS } from './stage.ts';

interface Database {
  plans: { code: string; title: string };
  accounts: {
    id: Generated<string>;
    name: string;
    plan_code: string;
    status: Generated<'trial' | 'active'>;
    created_at: Generated<Date>;
  };
  posts: {
    account_id: string;
    id: Generated<string>;
    title: string;
    views: Generated<number>;
    published: Generated<boolean>;
  };
}

const MIGRATIONS: Record<string, Migration> = {
  '001_tables': {
    async up(db: Kysely<unknown>) {
      await db.schema.createType('account_status').asEnum(['trial', 'active']).execute();
      await db.schema
        .createTable('plans')
        .addColumn('code', 'text', (column) => column.primaryKey())
        .addColumn('title', 'text', (column) => column.notNull())
        .execute();
      await sql`SELECT create_reference_table('plans')`.execute(db);
      await db.schema
        .createTable('accounts')
        .addColumn('id', 'bigint', (column) => column.primaryKey().generatedByDefaultAsIdentity())
        .addColumn('name', 'varchar(100)', (column) => column.notNull())
        .addColumn('plan_code', 'text', (column) => column.notNull().references('plans.code'))
        .addColumn('status', sql`account_status`, (column) => column.notNull().defaultTo('trial'))
        .addColumn('created_at', 'timestamptz', (column) => column.notNull().defaultTo(sql`now()`))
        .execute();
      await sql`SELECT create_distributed_table('accounts', 'id')`.execute(db);
      await db.schema
        .createTable('posts')
        .addColumn('account_id', 'bigint', (column) => column.notNull())
        .addColumn('id', 'uuid', (column) => column.notNull().defaultTo(sql`gen_random_uuid()`))
        .addColumn('title', 'text', (column) => column.notNull())
        .addColumn('views', 'integer', (column) => column.notNull().defaultTo(0))
        .addPrimaryKeyConstraint('posts_pkey', ['account_id', 'id'])
        .addUniqueConstraint('posts_title_key', ['account_id', 'title'])
        .execute();
      await sql`SELECT create_distributed_table('posts', 'account_id', colocate_with => 'accounts')`.execute(
        db,
      );
      await db.schema
        .alterTable('posts')
        .addForeignKeyConstraint('posts_account_fkey', ['account_id'], 'accounts', ['id'])
        .onDelete('cascade')
        .execute();
      await db.schema.createIndex('posts_views_index').on('posts').column('views').execute();
    },
    async down(db: Kysely<unknown>) {
      await db.schema.dropTable('posts').execute();
      await db.schema.dropTable('accounts').execute();
      await db.schema.dropTable('plans').execute();
      await db.schema.dropType('account_status').execute();
    },
  },
  '002_published': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .alterTable('posts')
        .addColumn('published', 'boolean', (column) => column.notNull().defaultTo(false))
        .execute();
      await db.schema
        .createIndex('posts_published_index')
        .on('posts')
        .column('published')
        .where('published', '=', true)
        .execute();
    },
    async down(db: Kysely<unknown>) {
      await db.schema.dropIndex('posts_published_index').execute();
      await db.schema.alterTable('posts').dropColumn('published').execute();
    },
  },
};

describe.each(TARGETS)('Kysely on %s', (name) => {
  let target: OrmTarget;
  let db: Kysely<Database>;
  let migrator: Migrator;

  beforeAll(async () => {
    target = await startTarget(name);
    const pool = new pg.Pool({ connectionString: target.dsn });
    db = new Kysely<Database>({ dialect: new PostgresDialect({ pool, cursor: Cursor }) });
    migrator = new Migrator({ db, provider: { getMigrations: () => Promise.resolve(MIGRATIONS) } });
    const { error, results } = await migrator.migrateToLatest();
    if (error) throw error;
    expect(results?.map((result) => result.status)).toEqual(['Success', 'Success']);
    await db
      .insertInto('plans')
      .values([
        { code: 'free', title: 'Free' },
        { code: 'pro', title: 'Pro' },
      ])
      .execute();
  });
  afterAll(async () => {
    await db?.destroy();
    await target?.stop();
  });

  async function newAccount(name: string): Promise<string> {
    const row = await db
      .insertInto('accounts')
      .values({ name, plan_code: 'free' })
      .returning('id')
      .executeTakeFirstOrThrow();
    return row.id;
  }

  it('migrates down and up again', async () => {
    const columns = ['account_id', 'id', 'title', 'views', 'published'];
    expect(await columnsOf(target.dsn, 'posts')).toEqual(columns);
    expect((await migrator.migrateDown()).error).toBeUndefined();
    expect(await columnsOf(target.dsn, 'posts')).toEqual(columns.slice(0, 4));
    expect((await migrator.migrateTo('002_published')).error).toBeUndefined();
    expect(await columnsOf(target.dsn, 'posts')).toEqual(columns);
    const done = (await migrator.getMigrations()).map(({ name, executedAt }) => [
      name,
      executedAt !== undefined,
    ]);
    expect(done).toEqual([
      ['001_tables', true],
      ['002_published', true],
    ]);
  });

  it('tells tables and columns', async () => {
    const tables = await db.introspection.getTables();
    const own = tables.filter(({ name }) => ['accounts', 'plans', 'posts'].includes(name));
    expect(own.map(({ name, isView }) => [name, isView])).toEqual([
      ['accounts', false],
      ['plans', false],
      ['posts', false],
    ]);
    const status = own[0]?.columns.find((column) => column.name === 'status');
    expect(status).toMatchObject({ dataType: 'account_status', isNullable: false, hasDefaultValue: true });
    expect(tables.filter(({ name }) => /_b\d+_g\d+$/.test(name))).toEqual([]);
  });

  it('creates, reads, updates and deletes', async () => {
    const id = await newAccount('Ada');
    expect(await db.selectFrom('accounts').selectAll().where('id', '=', id).executeTakeFirst()).toEqual({
      ...{ id, name: 'Ada', plan_code: 'free', status: 'trial', created_at: expect.any(Date) },
    });
    const updated = await db
      .updateTable('accounts')
      .set({ status: 'active' })
      .where('id', '=', id)
      .returning(['status'])
      .execute();
    expect(updated).toEqual([{ status: 'active' }]);
    const deleted = await db.deleteFrom('accounts').where('id', '=', id).executeTakeFirst();
    expect(deleted.numDeletedRows).toBe(1n);
    expect(await db.selectFrom('accounts').selectAll().where('id', '=', id).execute()).toEqual([]);
  });

  it('inserts in bulk, upserts, and updates rows of all nodes', async () => {
    const names = Array.from({ length: 30 }, (_, i) => `bulk ${String(i).padStart(2, '0')}`);
    const rows = await db
      .insertInto('accounts')
      .values(names.map((name) => ({ name, plan_code: 'pro' })))
      .returning(['id', 'name'])
      .execute();
    expect(rows.map((row) => row.name)).toEqual(names);
    await db
      .insertInto('posts')
      .values(rows.map(({ id }, i) => ({ account_id: id, title: 'bulk', views: i })))
      .execute();
    const upserted = await db
      .insertInto('posts')
      .values(rows.slice(0, 5).map(({ id }) => ({ account_id: id, title: 'bulk', views: 100 })))
      .onConflict((oc) =>
        oc.columns(['account_id', 'title']).doUpdateSet((eb) => ({
          views: eb('posts.views', '+', eb.ref('excluded.views')),
        })),
      )
      .returning('views')
      .execute();
    expect(upserted.map((row) => row.views)).toEqual([100, 101, 102, 103, 104]);
    const updated = await db
      .updateTable('posts')
      .set({ published: true })
      .where('views', '>=', 20)
      .executeTakeFirst();
    expect(updated.numUpdatedRows).toBe(15n);
  });

  it('joins, pages, groups, and reads what only a planner over all nodes can', async () => {
    const byKey = await db
      .selectFrom('accounts')
      .innerJoin('posts', 'posts.account_id', 'accounts.id')
      .select(['accounts.name', 'posts.title'])
      .where('accounts.id', '=', await idOf('bulk 07'))
      .execute();
    expect(byKey).toEqual([{ name: 'bulk 07', title: 'bulk' }]);
    const page = await db
      .selectFrom('accounts')
      .innerJoin('posts', 'posts.account_id', 'accounts.id')
      .innerJoin('plans', 'plans.code', 'accounts.plan_code')
      .select(['accounts.name', 'plans.title', 'posts.views'])
      .where('accounts.name', 'like', 'bulk%')
      .orderBy('accounts.name')
      .limit(2)
      .offset(10)
      .execute();
    expect(page).toEqual([
      { name: 'bulk 10', title: 'Pro', views: 10 },
      { name: 'bulk 11', title: 'Pro', views: 11 },
    ]);
    const grouped = await db
      .selectFrom('posts')
      .select([
        'published',
        ({ fn }) => fn.countAll<string>().as('posts'),
        ({ fn }) => fn.max('views').as('most'),
      ])
      .where('title', '=', 'bulk')
      .groupBy('published')
      .orderBy('published')
      .execute();
    expect(grouped).toEqual([
      { published: false, posts: '15', most: 19 },
      { published: true, posts: '15', most: 104 },
    ]);
    const ranked = await db
      .with('ranked', (cte) =>
        cte
          .selectFrom('posts')
          .select(['account_id', 'views', sql<string>`rank() OVER (ORDER BY views DESC)`.as('place')])
          .where('title', '=', 'bulk'),
      )
      .selectFrom('ranked')
      .innerJoin('accounts', 'accounts.id', 'ranked.account_id')
      .select(['accounts.name', 'ranked.place'])
      .where('ranked.place', '<=', '2')
      .orderBy('ranked.place')
      .execute();
    expect(ranked).toEqual([
      { name: 'bulk 04', place: '1' },
      { name: 'bulk 03', place: '2' },
    ]);
  });

  async function idOf(name: string): Promise<string> {
    const row = await db
      .selectFrom('accounts')
      .select('id')
      .where('name', '=', name)
      .executeTakeFirstOrThrow();
    return row.id;
  }

  it('streams', async () => {
    const views: number[] = [];
    const query = db
      .selectFrom('posts')
      .select('views')
      .where('title', '=', 'bulk')
      .where('account_id', '=', await idOf('bulk 09'));
    for await (const row of query.stream()) views.push(row.views);
    expect(views).toEqual([9]);
    let count = 0;
    for await (const _row of db.selectFrom('posts').select('views').where('title', '=', 'bulk').stream(7))
      count++;
    expect(count).toBe(30);
  });

  it('commits, rolls back, and goes back to savepoints', async () => {
    const [first, second] = await Promise.all(['Transaction 1', 'Transaction 2'].map(newAccount));
    const transaction = await db.startTransaction().execute();
    await transaction.insertInto('posts').values({ account_id: first!, title: 'kept' }).execute();
    const inside = await transaction.savepoint('inside').execute();
    await inside.insertInto('posts').values({ account_id: second!, title: 'undone' }).execute();
    const back = await inside.rollbackToSavepoint('inside').execute();
    await back.insertInto('posts').values({ account_id: second!, title: 'kept too' }).execute();
    await back.commit().execute();
    await expect(
      db.transaction().execute(async (tx) => {
        await tx.deleteFrom('posts').where('account_id', '=', first!).execute();
        await tx.deleteFrom('posts').where('account_id', '=', second!).execute();
        throw new Error('no');
      }),
    ).rejects.toThrow('no');
    const left = await db
      .selectFrom('posts')
      .select('title')
      .where('account_id', 'in', [first!, second!])
      .orderBy('title')
      .execute();
    expect(left).toEqual([{ title: 'kept' }, { title: 'kept too' }]);
  });

  it('passes violations on as the driver tells them', async () => {
    const account_id = await newAccount('Unique');
    const insert = () => db.insertInto('posts').values({ account_id, title: 'once' }).execute();
    await insert();
    await expect(insert()).rejects.toMatchObject({
      code: '23505',
      constraint: 'posts_title_key',
      table: 'posts',
    });
    await expect(insert()).rejects.toBeInstanceOf(pg.DatabaseError);
    const orphan = db.insertInto('posts').values({ account_id: '999999999', title: 'x' }).execute();
    await expect(orphan).rejects.toMatchObject({ code: '23503', constraint: 'posts_account_fkey' });
  });

  it('migrates all the way down', async () => {
    expect((await migrator.migrateDown()).error).toBeUndefined();
    expect((await migrator.migrateDown()).error).toBeUndefined();
    const left = await execute(
      target.dsn,
      `SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1`,
    );
    expect(left).toEqual([['kysely_migration'], ['kysely_migration_lock']]);
  });
});

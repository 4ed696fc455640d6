/** Drizzle: its migrator, its queries, and its errors, on sharded tables as on one PostgreSQL. */
import { fileURLToPath } from 'node:url';
import { and, asc, count, desc, eq, gt, inArray, relations, sql, sum } from 'drizzle-orm';
import { drizzle, type NodePgDatabase } from 'drizzle-orm/node-postgres';
import { migrate } from 'drizzle-orm/node-postgres/migrator';
import {
  bigint,
  bigserial,
  boolean,
  integer,
  jsonb,
  pgEnum,
  pgTable,
  primaryKey,
  text,
  timestamp,
  unique,
  varchar,
} from 'drizzle-orm/pg-core';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { columnsOf, execute, type OrmTarget, startTarget, TARGETS } from './stage.ts';

const status = pgEnum('account_status', ['trial', 'active', 'closed']);
const plans = pgTable('plans', { code: text().primaryKey(), title: text().notNull() });
const accounts = pgTable('accounts', {
  id: bigserial({ mode: 'number' }).primaryKey(),
  name: varchar({ length: 200 }).notNull(),
  planCode: text('plan_code')
    .notNull()
    .references(() => plans.code),
  status: status().notNull().default('trial'),
  settings: jsonb().$type<{ theme?: string }>().notNull().default({}),
  createdAt: timestamp('created_at', { withTimezone: true }).notNull().defaultNow(),
});
const posts = pgTable(
  'posts',
  {
    accountId: bigint('account_id', { mode: 'number' })
      .notNull()
      .references(() => accounts.id, { onDelete: 'cascade' }),
    id: bigserial({ mode: 'number' }).notNull(),
    title: text().notNull(),
    views: integer().notNull().default(0),
    published: boolean().notNull().default(false),
    body: text(),
  },
  (table) => [
    primaryKey({ columns: [table.accountId, table.id] }),
    unique('posts_title_unique').on(table.accountId, table.title),
  ],
);
const accountRelations = relations(accounts, ({ many, one }) => ({
  posts: many(posts),
  plan: one(plans, { fields: [accounts.planCode], references: [plans.code] }),
}));
const postRelations = relations(posts, ({ one }) => ({
  account: one(accounts, { fields: [posts.accountId], references: [accounts.id] }),
}));
const schema = { plans, accounts, posts, accountRelations, postRelations };
const migrationsFolder = fileURLToPath(new URL('drizzle-migrations', import.meta.url));

describe.each(TARGETS)('Drizzle on %s', (name) => {
  let target: OrmTarget;
  let pool: pg.Pool;
  let db: NodePgDatabase<typeof schema>;

  beforeAll(async () => {
    target = await startTarget(name);
    pool = new pg.Pool({ connectionString: target.dsn });
    db = drizzle(pool, { schema });
    await migrate(db, { migrationsFolder });
    await db.insert(plans).values([
      { code: 'free', title: 'Free' },
      { code: 'pro', title: 'Professional' },
    ]);
  });
  afterAll(async () => {
    await pool?.end();
    await target?.stop();
  });

  async function newAccount(name: string): Promise<number> {
    const [row] = await db.insert(accounts).values({ name, planCode: 'free' }).returning({ id: accounts.id });
    return row!.id;
  }

  it('migrates, and does nothing the second time', async () => {
    await migrate(db, { migrationsFolder });
    expect(await columnsOf(target.dsn, 'posts')).toEqual([
      'account_id',
      'id',
      'title',
      'views',
      'published',
      'body',
    ]);
    expect(await execute(target.dsn, 'SELECT count(*)::int FROM drizzle.__drizzle_migrations')).toEqual([
      [2],
    ]);
  });

  it('creates, reads, updates and deletes', async () => {
    const id = await newAccount('Ada');
    expect(await db.select().from(accounts).where(eq(accounts.id, id))).toEqual([
      { id, name: 'Ada', planCode: 'free', status: 'trial', settings: {}, createdAt: expect.any(Date) },
    ]);
    const updated = await db
      .update(accounts)
      .set({ status: 'active', settings: { theme: 'dark' } })
      .where(eq(accounts.id, id))
      .returning({ status: accounts.status, settings: accounts.settings });
    expect(updated).toEqual([{ status: 'active', settings: { theme: 'dark' } }]);
    expect((await db.delete(accounts).where(eq(accounts.id, id))).rowCount).toBe(1);
    expect(await db.select().from(accounts).where(eq(accounts.id, id))).toEqual([]);
  });

  it('inserts in bulk, and returns rows in the order of the values', async () => {
    const names = Array.from({ length: 40 }, (_, i) => `bulk ${i}`);
    const rows = await db
      .insert(accounts)
      .values(names.map((name) => ({ name, planCode: 'pro' })))
      .returning({ id: accounts.id, name: accounts.name });
    expect(rows.map((row) => row.name)).toEqual(names);
    expect(new Set(rows.map((row) => row.id)).size).toBe(40);
    const found = await db
      .select({ name: accounts.name })
      .from(accounts)
      .where(
        inArray(
          accounts.id,
          rows.slice(0, 3).map((row) => row.id),
        ),
      )
      .orderBy(asc(accounts.name));
    expect(found.map((row) => row.name)).toEqual(['bulk 0', 'bulk 1', 'bulk 2']);
  });

  it('upserts', async () => {
    const accountId = await newAccount('Upsert');
    const upsert = (views: number) =>
      db
        .insert(posts)
        .values({ accountId, title: 'Same', views })
        .onConflictDoUpdate({
          target: [posts.accountId, posts.title],
          set: { views: sql`${posts.views} + excluded.views` },
        })
        .returning({ views: posts.views });
    expect(await upsert(2)).toEqual([{ views: 2 }]);
    expect(await upsert(3)).toEqual([{ views: 5 }]);
    const nothing = await db.insert(posts).values({ accountId, title: 'Same' }).onConflictDoNothing();
    expect(nothing.rowCount).toBe(0);
    await db
      .insert(plans)
      .values({ code: 'pro', title: 'Pro' })
      .onConflictDoUpdate({ target: plans.code, set: { title: 'Pro' } });
    expect(await db.select().from(plans).where(eq(plans.code, 'pro'))).toEqual([
      { code: 'pro', title: 'Pro' },
    ]);
  });

  it('joins by key and over all nodes, and reads relations', async () => {
    const ids = await Promise.all(['Joined 1', 'Joined 2', 'Joined 3'].map(newAccount));
    await db
      .insert(posts)
      .values(
        ids.flatMap((accountId, i) =>
          [1, 2].map((n) => ({ accountId, title: `post ${n}`, views: 10 * i + n })),
        ),
      );
    const byKey = await db
      .select({ name: accounts.name, title: posts.title })
      .from(accounts)
      .innerJoin(posts, eq(posts.accountId, accounts.id))
      .where(eq(accounts.id, ids[1]!))
      .orderBy(posts.title);
    expect(byKey).toEqual([
      { name: 'Joined 2', title: 'post 1' },
      { name: 'Joined 2', title: 'post 2' },
    ]);
    const overAll = await db
      .select({ name: accounts.name, plan: plans.title, views: posts.views })
      .from(accounts)
      .innerJoin(posts, eq(posts.accountId, accounts.id))
      .innerJoin(plans, eq(plans.code, accounts.planCode))
      .where(and(sql`${accounts.name} LIKE 'Joined%'`, gt(posts.views, 1)))
      .orderBy(desc(posts.views))
      .limit(3);
    expect(overAll).toEqual([
      { name: 'Joined 3', plan: 'Free', views: 22 },
      { name: 'Joined 3', plan: 'Free', views: 21 },
      { name: 'Joined 2', plan: 'Free', views: 12 },
    ]);
    const one = await db.query.accounts.findFirst({
      where: eq(accounts.id, ids[0]!),
      with: { posts: { columns: { title: true }, orderBy: asc(posts.title) }, plan: true },
    });
    expect(one).toMatchObject({
      name: 'Joined 1',
      plan: { code: 'free', title: 'Free' },
      posts: [{ title: 'post 1' }, { title: 'post 2' }],
    });
    const many = await db.query.accounts.findMany({
      where: inArray(accounts.id, ids),
      with: { posts: { orderBy: asc(posts.id) } },
      orderBy: asc(accounts.name),
    });
    expect(many.map((account) => account.posts.map((post) => post.views))).toEqual([
      [1, 2],
      [11, 12],
      [21, 22],
    ]);
  });

  it('pages and aggregates over all nodes', async () => {
    const rows = Array.from({ length: 30 }, (_, i) => ({
      name: `page ${String(i).padStart(2, '0')}`,
      planCode: 'free',
    }));
    const made = await db.insert(accounts).values(rows).returning({ id: accounts.id });
    await db.insert(posts).values(made.map(({ id }, i) => ({ accountId: id, title: 'paged', views: i })));
    const page = await db
      .select({ name: accounts.name })
      .from(accounts)
      .where(sql`${accounts.name} LIKE 'page%'`)
      .orderBy(asc(accounts.name))
      .limit(5)
      .offset(10);
    expect(page.map((row) => row.name)).toEqual(['page 10', 'page 11', 'page 12', 'page 13', 'page 14']);
    expect(await db.$count(posts, eq(posts.title, 'paged'))).toBe(30);
    const grouped = await db
      .select({ odd: sql<number>`${posts.views} % 2`, posts: count(), views: sum(posts.views) })
      .from(posts)
      .where(eq(posts.title, 'paged'))
      .groupBy(sql`${posts.views} % 2`)
      .orderBy(sql`${posts.views} % 2`);
    expect(grouped).toEqual([
      { odd: 0, posts: 15, views: '210' },
      { odd: 1, posts: 15, views: '225' },
    ]);
  });

  it('commits, rolls back, and nests transactions', async () => {
    const [first, second] = await Promise.all(['Transaction 1', 'Transaction 2'].map(newAccount));
    await db.transaction(async (tx) => {
      await tx.insert(posts).values({ accountId: first!, title: 'kept' });
      await tx
        .transaction(async (nested) => {
          await nested.insert(posts).values({ accountId: second!, title: 'undone' });
          nested.rollback();
        })
        .catch(() => {});
      await tx.insert(posts).values({ accountId: second!, title: 'kept too' });
    });
    await expect(
      db.transaction(async (tx) => {
        await tx.update(posts).set({ views: 99 }).where(eq(posts.accountId, first!));
        throw new Error('no');
      }),
    ).rejects.toThrow('no');
    const left = await db
      .select({ title: posts.title, views: posts.views })
      .from(posts)
      .where(inArray(posts.accountId, [first!, second!]))
      .orderBy(posts.title);
    expect(left).toEqual([
      { title: 'kept', views: 0 },
      { title: 'kept too', views: 0 },
    ]);
  });

  it('tells violations by their constraints', async () => {
    const accountId = await newAccount('Unique');
    await db.insert(posts).values({ accountId, title: 'once' });
    const twice = await db
      .insert(posts)
      .values({ accountId, title: 'once' })
      .catch((error: unknown) => error);
    expect(twice).toMatchObject({
      cause: { code: '23505', constraint: 'posts_title_unique', table: 'posts' },
    });
    const noPlan = await db
      .insert(accounts)
      .values({ name: 'x', planCode: 'none' })
      .catch((error: unknown) => error);
    expect(noPlan).toMatchObject({
      cause: { code: '23503', constraint: 'accounts_plan_code_plans_code_fk' },
    });
    const nobody = await db
      .insert(posts)
      .values({ accountId: 1e12, title: 'x' })
      .catch((error: unknown) => error);
    expect(nobody).toMatchObject({ cause: { code: '23503', constraint: 'posts_account_id_accounts_id_fk' } });
    await db.delete(accounts).where(eq(accounts.id, accountId));
    expect(await db.select().from(posts).where(eq(posts.accountId, accountId))).toEqual([]);
  });
});

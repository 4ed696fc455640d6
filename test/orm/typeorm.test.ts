/** TypeORM: its migrations (run and revert), repositories, query builder and errors, on sharded tables as on one PostgreSQL. */
import 'reflect-metadata';
import {
  DataSource,
  EntitySchema,
  In,
  Like,
  type MigrationInterface,
  MoreThan,
  QueryFailedError,
  type QueryRunner,
  Table,
  TableColumn,
  TableForeignKey,
  TableIndex,
} from 'typeorm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { columnsOf, execute, type OrmTarget, startTarget, TARGETS } from './stage.ts';

interface Plan {
  code: string;
  title: string;
}

interface Account {
  id: string;
  name: string;
  plan?: Plan;
  planCode: string;
  status: 'trial' | 'active';
  settings: Record<string, unknown>;
  createdAt: Date;
  posts?: Post[];
}

interface Post {
  accountId: string;
  id: string;
  title: string;
  views: number;
  published: boolean;
  account?: Account;
}

const PlanEntity = new EntitySchema<Plan>({
  name: 'Plan',
  tableName: 'plans',
  columns: { code: { type: 'text', primary: true }, title: { type: 'text' } },
});

const AccountEntity = new EntitySchema<Account>({
  name: 'Account',
  tableName: 'accounts',
  columns: {
    id: { type: 'bigint', primary: true, generated: 'increment' },
    name: { type: 'varchar', length: 100 },
    planCode: { type: 'text', name: 'plan_code' },
    status: { type: 'enum', enum: ['trial', 'active'], enumName: 'account_status', default: 'trial' },
    settings: { type: 'jsonb', default: {} },
    createdAt: { type: 'timestamptz', name: 'created_at', createDate: true },
  },
  relations: {
    plan: { type: 'many-to-one', target: 'Plan', joinColumn: { name: 'plan_code' } },
    posts: { type: 'one-to-many', target: 'Post', inverseSide: 'account' },
  },
});

const PostEntity = new EntitySchema<Post>({
  name: 'Post',
  tableName: 'posts',
  columns: {
    accountId: { type: 'bigint', primary: true, name: 'account_id' },
    id: { type: 'uuid', primary: true, default: () => 'gen_random_uuid()' },
    title: { type: 'text' },
    views: { type: 'int', default: 0 },
    published: { type: 'boolean', default: false },
  },
  relations: {
    account: {
      type: 'many-to-one',
      target: 'Account',
      joinColumn: { name: 'account_id' },
      inverseSide: 'posts',
      onDelete: 'CASCADE',
    },
  },
});

class Tables1760000000000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.createTable(
      new Table({
        name: 'plans',
        columns: [
          { name: 'code', type: 'text', isPrimary: true },
          { name: 'title', type: 'text' },
        ],
      }),
    );
    await runner.query(`SELECT create_reference_table('plans')`);
    await runner.createTable(
      new Table({
        name: 'accounts',
        columns: [
          { name: 'id', type: 'bigint', isPrimary: true, isGenerated: true, generationStrategy: 'increment' },
          { name: 'name', type: 'varchar', length: '100' },
          { name: 'plan_code', type: 'text' },
          {
            name: 'status',
            type: 'enum',
            enum: ['trial', 'active'],
            enumName: 'account_status',
            default: `'trial'`,
          },
          { name: 'settings', type: 'jsonb', default: `'{}'` },
          { name: 'created_at', type: 'timestamptz', default: 'now()' },
        ],
      }),
    );
    await runner.query(`SELECT create_distributed_table('accounts', 'id')`);
    await runner.createTable(
      new Table({
        name: 'posts',
        columns: [
          { name: 'account_id', type: 'bigint', isPrimary: true },
          { name: 'id', type: 'uuid', isPrimary: true, default: 'gen_random_uuid()' },
          { name: 'title', type: 'text' },
          { name: 'views', type: 'int', default: '0' },
        ],
        uniques: [{ name: 'posts_title_unique', columnNames: ['account_id', 'title'] }],
      }),
    );
    await runner.query(`SELECT create_distributed_table('posts', 'account_id', colocate_with => 'accounts')`);
    await runner.createForeignKey(
      'accounts',
      new TableForeignKey({
        ...{ name: 'accounts_plan_fkey', columnNames: ['plan_code'] },
        ...{ referencedTableName: 'plans', referencedColumnNames: ['code'] },
      }),
    );
    await runner.createForeignKey(
      'posts',
      new TableForeignKey({
        ...{ name: 'posts_account_fkey', columnNames: ['account_id'], onDelete: 'CASCADE' },
        ...{ referencedTableName: 'accounts', referencedColumnNames: ['id'] },
      }),
    );
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.dropTable('posts');
    await runner.dropTable('accounts');
    await runner.dropTable('plans');
    await runner.query('DROP TYPE account_status');
  }
}

class Published1760000001000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.addColumn('posts', new TableColumn({ name: 'published', type: 'boolean', default: false }));
    await runner.createIndex('posts', new TableIndex({ name: 'posts_views_index', columnNames: ['views'] }));
    await runner.changeColumn(
      'accounts',
      'name',
      new TableColumn({ name: 'name', type: 'varchar', length: '100', isNullable: false }),
    );
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.dropIndex('posts', 'posts_views_index');
    await runner.dropColumn('posts', 'published');
  }
}

describe.each(TARGETS)('TypeORM on %s', (name) => {
  let target: OrmTarget;
  let source: DataSource;

  beforeAll(async () => {
    target = await startTarget(name);
    source = new DataSource({
      ...{ type: 'postgres', url: target.dsn, installExtensions: false, migrationsTransactionMode: 'all' },
      entities: [PlanEntity, AccountEntity, PostEntity],
      migrations: [Tables1760000000000, Published1760000001000],
    });
    await source.initialize();
    const done = await source.runMigrations();
    expect(done.map((migration) => migration.name)).toEqual([
      'Tables1760000000000',
      'Published1760000001000',
    ]);
    await source.getRepository(PlanEntity).insert([
      { code: 'free', title: 'Free' },
      { code: 'pro', title: 'Pro' },
    ]);
  });
  afterAll(async () => {
    if (source?.isInitialized) await source.destroy();
    await target?.stop();
  });

  const accounts = () => source.getRepository(AccountEntity);
  const posts = () => source.getRepository(PostEntity);

  async function newAccount(name: string): Promise<string> {
    const account = await accounts().save({ name, planCode: 'free' });
    return account.id;
  }

  it('reverts its last migration and runs it again', async () => {
    const columns = ['account_id', 'id', 'title', 'views', 'published'];
    expect(await columnsOf(target.dsn, 'posts')).toEqual(columns);
    await source.undoLastMigration();
    expect(await columnsOf(target.dsn, 'posts')).toEqual(columns.slice(0, 4));
    expect(await source.showMigrations()).toBe(true);
    await source.runMigrations();
    expect(await columnsOf(target.dsn, 'posts')).toEqual(columns);
  });

  it('reads back the tables that it has made', async () => {
    const runner = source.createQueryRunner();
    try {
      const table = await runner.getTable('posts');
      expect(table?.columns.map((column) => [column.name, column.type, column.isPrimary])).toEqual([
        ['account_id', 'bigint', true],
        ['id', 'uuid', true],
        ['title', 'text', false],
        ['views', 'integer', false],
        ['published', 'boolean', false],
      ]);
      expect(table?.foreignKeys.map((key) => [key.name, key.referencedTableName, key.onDelete])).toEqual([
        ['posts_account_fkey', 'accounts', 'CASCADE'],
      ]);
      expect(table?.indices.map((index) => index.name)).toEqual(['posts_views_index']);
      expect(table?.uniques.map((unique) => unique.name)).toEqual(['posts_title_unique']);
    } finally {
      await runner.release();
    }
  });

  it('creates, reads, updates and deletes', async () => {
    const id = await newAccount('Ada');
    const found = await accounts().findOneByOrFail({ id });
    expect(found).toEqual({
      ...{ id, name: 'Ada', planCode: 'free', status: 'trial', settings: {}, createdAt: expect.any(Date) },
    });
    await accounts().save({ ...found, status: 'active', settings: { theme: 'dark' } });
    expect(await accounts().findOneBy({ id })).toMatchObject({
      status: 'active',
      settings: { theme: 'dark' },
    });
    await accounts().update({ id }, { name: 'Ada L.' });
    await posts().insert({ accountId: id, title: 'gone with its account' });
    expect((await accounts().delete({ id })).affected).toBe(1);
    expect(await posts().countBy({ accountId: id })).toBe(0);
  });

  it('inserts in bulk, and upserts', async () => {
    const names = Array.from({ length: 30 }, (_, i) => `bulk ${String(i).padStart(2, '0')}`);
    const made = await accounts().insert(names.map((name) => ({ name, planCode: 'pro' })));
    const ids = made.identifiers.map((identifier) => String(identifier.id));
    expect(new Set(ids).size).toBe(30);
    expect((await accounts().findBy({ id: In(ids) })).length).toBe(30);
    expect(await accounts().findOneBy({ id: ids[7]! })).toMatchObject({ name: 'bulk 07' });
    await posts().save(
      ids.map((accountId, views) => ({ accountId, title: 'bulk', views })),
      { chunk: 10 },
    );
    await posts().upsert([{ accountId: ids[0]!, title: 'bulk', views: 70 }], ['accountId', 'title']);
    await posts().increment({ accountId: ids[1]! }, 'views', 5);
    expect((await posts().findBy({ views: MoreThan(69) })).map((post) => post.accountId)).toEqual([ids[0]]);
    expect(await posts().findOneBy({ accountId: ids[1]! })).toMatchObject({ views: 6, published: false });
  });

  it('joins, pages and aggregates', async () => {
    const [one] = await accounts().find({
      where: { name: 'bulk 07' },
      relations: { plan: true, posts: true },
    });
    expect(one).toMatchObject({
      name: 'bulk 07',
      plan: { title: 'Pro' },
      posts: [{ title: 'bulk', views: 7 }],
    });
    const [page, total] = await accounts().findAndCount({
      ...{ where: { name: Like('bulk%') }, order: { name: 'ASC' }, skip: 10, take: 3 },
      relations: { posts: true },
    });
    expect(total).toBe(30);
    expect(page.map(({ name, posts }) => [name, posts?.[0]?.views])).toEqual([
      ['bulk 10', 10],
      ['bulk 11', 11],
      ['bulk 12', 12],
    ]);
    const grouped = await posts()
      .createQueryBuilder('post')
      .innerJoin('post.account', 'account')
      .select('account.planCode', 'plan')
      .addSelect('count(*)::int', 'posts')
      .addSelect('max(post.views)', 'most')
      .where('post.title = :title', { title: 'bulk' })
      .groupBy('account.planCode')
      .getRawMany();
    expect(grouped).toEqual([{ plan: 'pro', posts: 30, most: 70 }]);
    expect(await posts().sum('views', { title: 'bulk' })).toBe(510);
    const sub = await accounts()
      .createQueryBuilder('account')
      .where(
        (query) =>
          `account.id IN ${query.subQuery().select('post.accountId').from(PostEntity, 'post').where('post.views > 28').getQuery()}`,
      )
      .orderBy('account.name')
      .getMany();
    expect(sub.map((account) => account.name)).toEqual(['bulk 00', 'bulk 29']);
  });

  it('streams', async () => {
    const stream = await posts().createQueryBuilder('post').where("post.title = 'bulk'").stream();
    let count = 0;
    for await (const _row of stream) count++;
    expect(count).toBe(30);
  });

  it('commits, rolls back, and nests transactions', async () => {
    const [first, second] = await Promise.all(['Transaction 1', 'Transaction 2'].map(newAccount));
    await source.transaction(async (manager) => {
      await manager.insert(PostEntity, { accountId: first!, title: 'kept' });
      await manager
        .transaction(async (nested) => {
          await nested.insert(PostEntity, { accountId: second!, title: 'undone' });
          throw new Error('undone');
        })
        .catch(() => {});
      await manager.insert(PostEntity, { accountId: second!, title: 'kept too' });
      const locked = await manager.findOne(PostEntity, {
        where: { accountId: first! },
        lock: { mode: 'pessimistic_write' },
      });
      expect(locked).toMatchObject({ title: 'kept' });
    });
    await expect(
      source.transaction(async (manager) => {
        await manager.delete(PostEntity, { accountId: In([first!, second!]) });
        throw new Error('no');
      }),
    ).rejects.toThrow('no');
    const left = await posts().find({ where: { accountId: In([first!, second!]) }, order: { title: 'ASC' } });
    expect(left.map((post) => post.title)).toEqual(['kept', 'kept too']);
  });

  it('tells violations as QueryFailedError', async () => {
    const accountId = await newAccount('Unique');
    await posts().insert({ accountId, title: 'once' });
    const twice = await posts()
      .insert({ accountId, title: 'once' })
      .catch((error: unknown) => error);
    expect(twice).toBeInstanceOf(QueryFailedError);
    expect(twice).toMatchObject({ driverError: { code: '23505', constraint: 'posts_title_unique' } });
    const orphan = await posts()
      .insert({ accountId: '999999999', title: 'x' })
      .catch((error: unknown) => error);
    expect(orphan).toMatchObject({ driverError: { code: '23503', constraint: 'posts_account_fkey' } });
  });

  it('reverts everything', async () => {
    await source.undoLastMigration();
    await source.undoLastMigration();
    const left = await execute(
      target.dsn,
      `SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1`,
    );
    expect(left).toEqual([['migrations']]);
    expect(
      await execute(target.dsn, `SELECT typname::text FROM pg_type WHERE typname = 'account_status'`),
    ).toEqual([]);
  });
});

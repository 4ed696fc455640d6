/**
 * Sequelize: migrations with its query interface in a transaction each, as umzug runs them; its models, transactions and
 * errors, on sharded tables as on one PostgreSQL.
 */
import {
  type CreationOptional,
  DataTypes,
  ForeignKeyConstraintError,
  type InferAttributes,
  type InferCreationAttributes,
  type Model,
  Op,
  type QueryInterface,
  Sequelize,
  type Transaction,
  UniqueConstraintError,
} from 'sequelize';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { columnsOf, execute, type OrmTarget, startTarget, TARGETS } from './stage.ts';

interface Account extends Model<InferAttributes<Account>, InferCreationAttributes<Account>> {
  id: CreationOptional<string>;
  name: string;
  planCode: string;
  status: CreationOptional<'trial' | 'active'>;
  settings: CreationOptional<Record<string, unknown>>;
  createdAt: CreationOptional<Date>;
  updatedAt: CreationOptional<Date>;
}

interface Post extends Model<InferAttributes<Post>, InferCreationAttributes<Post>> {
  accountId: string;
  id: CreationOptional<string>;
  title: string;
  views: CreationOptional<number>;
  published: CreationOptional<boolean>;
}

interface Migration {
  readonly name: string;
  readonly up: (queries: QueryInterface, transaction: Transaction) => Promise<void>;
  readonly down: (queries: QueryInterface, transaction: Transaction) => Promise<void>;
}

const MIGRATIONS: readonly Migration[] = [
  {
    name: '001-tables',
    async up(queries, transaction) {
      const { sequelize } = queries;
      await queries.createTable(
        'plans',
        {
          code: { type: DataTypes.TEXT, primaryKey: true },
          title: { type: DataTypes.TEXT, allowNull: false },
        },
        { transaction },
      );
      await sequelize.query(`SELECT create_reference_table('plans')`, { transaction });
      await queries.createTable(
        'accounts',
        {
          id: { type: DataTypes.BIGINT, primaryKey: true, autoIncrement: true },
          name: { type: DataTypes.STRING(100), allowNull: false },
          plan_code: { type: DataTypes.TEXT, allowNull: false, references: { model: 'plans', key: 'code' } },
          status: { type: DataTypes.ENUM('trial', 'active'), allowNull: false, defaultValue: 'trial' },
          settings: { type: DataTypes.JSONB, allowNull: false, defaultValue: {} },
          created_at: { type: DataTypes.DATE, allowNull: false },
          updated_at: { type: DataTypes.DATE, allowNull: false },
        },
        { transaction },
      );
      await sequelize.query(`SELECT create_distributed_table('accounts', 'id')`, { transaction });
      await queries.createTable(
        'posts',
        {
          account_id: { type: DataTypes.BIGINT, primaryKey: true },
          id: { type: DataTypes.UUID, primaryKey: true, defaultValue: DataTypes.UUIDV4 },
          title: { type: DataTypes.TEXT, allowNull: false },
          views: { type: DataTypes.INTEGER, allowNull: false, defaultValue: 0 },
        },
        { transaction },
      );
      await sequelize.query(
        `SELECT create_distributed_table('posts', 'account_id', colocate_with => 'accounts')`,
        {
          transaction,
        },
      );
      await queries.addConstraint('posts', {
        ...{ type: 'foreign key', name: 'posts_account_fkey', fields: ['account_id'] },
        ...{
          references: { table: 'accounts', field: 'id' },
          onDelete: 'CASCADE',
          onUpdate: 'CASCADE',
          transaction,
        },
      });
      await queries.addIndex('posts', ['account_id', 'title'], {
        name: 'posts_title_unique',
        unique: true,
        transaction,
      });
    },
    async down(queries, transaction) {
      await queries.dropTable('posts', { transaction });
      await queries.dropTable('accounts', { transaction });
      await queries.dropTable('plans', { transaction });
      await queries.sequelize.query('DROP TYPE IF EXISTS enum_accounts_status', { transaction });
    },
  },
  {
    name: '002-published',
    async up(queries, transaction) {
      await queries.addColumn(
        'posts',
        'published',
        { type: DataTypes.BOOLEAN, allowNull: false, defaultValue: false },
        { transaction },
      );
      await queries.changeColumn(
        'accounts',
        'name',
        { type: DataTypes.STRING(200), allowNull: false },
        { transaction },
      );
      await queries.addIndex('posts', ['views'], { transaction });
    },
    async down(queries, transaction) {
      await queries.removeIndex('posts', ['views'], { transaction });
      await queries.removeColumn('posts', 'published', { transaction });
    },
  },
];

function modelsOf(sequelize: Sequelize) {
  const options = { underscored: true, timestamps: false } as const;
  const plans = sequelize.define(
    'Plan',
    { code: { type: DataTypes.TEXT, primaryKey: true }, title: DataTypes.TEXT },
    { ...options, tableName: 'plans' },
  );
  const accounts = sequelize.define<Account>(
    'Account',
    {
      id: { type: DataTypes.BIGINT, primaryKey: true, autoIncrement: true },
      name: { type: DataTypes.STRING(200), allowNull: false },
      planCode: { type: DataTypes.TEXT, allowNull: false },
      status: { type: DataTypes.ENUM('trial', 'active'), allowNull: false, defaultValue: 'trial' },
      settings: { type: DataTypes.JSONB, allowNull: false, defaultValue: {} },
      createdAt: DataTypes.DATE,
      updatedAt: DataTypes.DATE,
    },
    { underscored: true, timestamps: true, tableName: 'accounts' },
  );
  const posts = sequelize.define<Post>(
    'Post',
    {
      accountId: { type: DataTypes.BIGINT, primaryKey: true },
      id: { type: DataTypes.UUID, primaryKey: true, defaultValue: DataTypes.UUIDV4 },
      title: { type: DataTypes.TEXT, allowNull: false },
      views: { type: DataTypes.INTEGER, allowNull: false, defaultValue: 0 },
      published: { type: DataTypes.BOOLEAN, allowNull: false, defaultValue: false },
    },
    { ...options, tableName: 'posts' },
  );
  accounts.belongsTo(plans, { foreignKey: 'planCode', as: 'plan' });
  accounts.hasMany(posts, { foreignKey: 'accountId', as: 'posts' });
  posts.belongsTo(accounts, { foreignKey: 'accountId', as: 'account' });
  return { plans, accounts, posts };
}

describe.each(TARGETS)('Sequelize on %s', (name) => {
  let target: OrmTarget;
  let sequelize: Sequelize;
  let models: ReturnType<typeof modelsOf>;

  beforeAll(async () => {
    target = await startTarget(name);
    sequelize = new Sequelize(target.dsn, { dialect: 'postgres', logging: false });
    await sequelize.authenticate();
    for (const migration of MIGRATIONS) await migrate(migration, 'up');
    models = modelsOf(sequelize);
    await models.plans.bulkCreate([
      { code: 'free', title: 'Free' },
      { code: 'pro', title: 'Pro' },
    ]);
  });
  afterAll(async () => {
    await sequelize?.close();
    await target?.stop();
  });

  function migrate(migration: Migration, direction: 'up' | 'down'): Promise<void> {
    return sequelize.transaction((transaction) =>
      migration[direction](sequelize.getQueryInterface(), transaction),
    );
  }

  async function newAccount(name: string): Promise<string> {
    return (await models.accounts.create({ name, planCode: 'free' })).id;
  }

  it('migrates down and up again', async () => {
    const columns = ['account_id', 'id', 'title', 'views', 'published'];
    expect(await columnsOf(target.dsn, 'posts')).toEqual(columns);
    await migrate(MIGRATIONS[1]!, 'down');
    expect(await columnsOf(target.dsn, 'posts')).toEqual(columns.slice(0, 4));
    await migrate(MIGRATIONS[1]!, 'up');
    expect(await columnsOf(target.dsn, 'posts')).toEqual(columns);
    const described = await sequelize.getQueryInterface().describeTable('accounts');
    expect(described).toMatchObject({
      id: { type: 'BIGINT', primaryKey: true },
      name: { type: 'CHARACTER VARYING(200)', allowNull: false },
      status: { type: 'USER-DEFINED', special: ['trial', 'active'] },
    });
    expect((await sequelize.getQueryInterface().showAllTables()).sort()).toEqual([
      'accounts',
      'plans',
      'posts',
    ]);
  });

  it('creates, reads, updates and deletes', async () => {
    const account = await models.accounts.create({ name: 'Ada', planCode: 'free' });
    expect((await models.accounts.findByPk(account.id))?.get()).toMatchObject({
      ...{
        id: account.id,
        name: 'Ada',
        planCode: 'free',
        status: 'trial',
        settings: {},
        createdAt: expect.any(Date),
      },
    });
    await account.update({ status: 'active', settings: { theme: 'dark' } });
    await account.reload();
    expect(account).toMatchObject({ status: 'active', settings: { theme: 'dark' } });
    await models.posts.create({ accountId: account.id, title: 'gone with its account' });
    await account.destroy();
    expect(await models.posts.count({ where: { accountId: account.id } })).toBe(0);
    // findOrCreate makes a function in pg_temp that inserts: no server can do that for a sharded table.
    const [found, isNew] = await models.accounts.findCreateFind({
      ...{ where: { name: 'Found' }, defaults: { name: 'Found', planCode: 'pro' } },
    });
    expect([found.name, isNew]).toEqual(['Found', true]);
  });

  it('creates in bulk, and upserts', async () => {
    const names = Array.from({ length: 30 }, (_, i) => `bulk ${String(i).padStart(2, '0')}`);
    const made = await models.accounts.bulkCreate(names.map((name) => ({ name, planCode: 'pro' })));
    expect(made.map((account) => account.name)).toEqual(names);
    expect((await models.accounts.findByPk(made[7]!.id))?.name).toBe('bulk 07');
    await models.posts.bulkCreate(made.map(({ id }, views) => ({ accountId: id, title: 'bulk', views })));
    await models.posts.bulkCreate([{ accountId: made[0]!.id, title: 'bulk', views: 70 }], {
      ...{ updateOnDuplicate: ['views'], conflictAttributes: ['accountId', 'title'] },
    });
    await models.posts.increment('views', { by: 5, where: { accountId: made[1]!.id } });
    const [changed] = await models.posts.update({ published: true }, { where: { views: { [Op.gte]: 20 } } });
    expect(changed).toBe(11);
    expect(await models.posts.max('views')).toBe(70);
    await models.plans.upsert({ code: 'pro', title: 'Professional' });
    expect(await models.plans.findByPk('pro')).toMatchObject({ title: 'Professional' });
  });

  it('joins, pages and aggregates', async () => {
    const one = await models.accounts.findOne({ where: { name: 'bulk 07' }, include: ['plan', 'posts'] });
    expect(one?.toJSON()).toMatchObject({
      plan: { title: 'Professional' },
      posts: [{ title: 'bulk', views: 7 }],
    });
    const { rows, count } = await models.accounts.findAndCountAll({
      where: { name: { [Op.like]: 'bulk%' } },
      ...{ include: ['posts'], order: [['name', 'ASC']], limit: 3, offset: 10, distinct: true },
    });
    expect(count).toBe(30);
    expect(rows.map((row) => row.name)).toEqual(['bulk 10', 'bulk 11', 'bulk 12']);
    const grouped = await models.posts.findAll({
      attributes: [
        'published',
        [sequelize.fn('count', sequelize.col('Post.id')), 'posts'],
        [sequelize.fn('sum', sequelize.col('views')), 'sum'],
      ],
      ...{ where: { title: 'bulk' }, group: ['published'], order: [['published', 'ASC']], raw: true },
    });
    expect(grouped).toEqual([
      { published: false, posts: '19', sum: '195' },
      { published: true, posts: '11', sum: '315' },
    ]);
    const byPlan = await models.posts.findAll({
      attributes: [[sequelize.fn('count', sequelize.col('Post.id')), 'posts']],
      include: [{ association: 'account', attributes: ['planCode'], required: true }],
      ...{ where: { title: 'bulk' }, group: ['account.id', 'account.plan_code'], raw: true, limit: 2 },
    });
    expect(byPlan).toHaveLength(2);
  });

  it('commits, rolls back, and nests transactions', async () => {
    const [first, second] = await Promise.all(['Transaction 1', 'Transaction 2'].map(newAccount));
    await sequelize.transaction(async (transaction) => {
      await models.posts.create({ accountId: first!, title: 'kept' }, { transaction });
      await sequelize
        .transaction({ transaction }, async (nested) => {
          await models.posts.create({ accountId: second!, title: 'undone' }, { transaction: nested });
          throw new Error('undone');
        })
        .catch(() => {});
      await models.posts.create({ accountId: second!, title: 'kept too' }, { transaction });
      const locked = await models.posts.findAll({
        where: { accountId: first! },
        transaction,
        lock: transaction.LOCK.UPDATE,
      });
      expect(locked.map((post) => post.title)).toEqual(['kept']);
    });
    await expect(
      sequelize.transaction(async (transaction) => {
        await models.posts.destroy({ where: { accountId: [first!, second!] }, transaction });
        throw new Error('no');
      }),
    ).rejects.toThrow('no');
    const left = await models.posts.findAll({ where: { accountId: [first!, second!] }, order: ['title'] });
    expect(left.map((post) => post.title)).toEqual(['kept', 'kept too']);
  });

  it('tells violations as errors of its own', async () => {
    const accountId = await newAccount('Unique');
    await models.posts.create({ accountId, title: 'once' });
    const twice = await models.posts.create({ accountId, title: 'once' }).catch((error: unknown) => error);
    expect(twice).toBeInstanceOf(UniqueConstraintError);
    expect((twice as UniqueConstraintError).fields).toEqual({ account_id: accountId, title: 'once' });
    const orphan = await models.posts
      .create({ accountId: '999999999', title: 'x' })
      .catch((error: unknown) => error);
    expect(orphan).toBeInstanceOf(ForeignKeyConstraintError);
    expect(orphan).toMatchObject({ index: 'posts_account_fkey' });
  });

  it('migrates all the way down', async () => {
    for (const migration of [...MIGRATIONS].reverse()) await migrate(migration, 'down');
    const left = await execute(
      target.dsn,
      `SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1`,
    );
    expect(left).toEqual([]);
  });
});

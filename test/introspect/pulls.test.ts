/** What schema tools read of a sharded database: the same as of one PostgreSQL. */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { promisify } from 'node:util';
import knexOf from 'knex';
import { Kysely, PostgresDialect } from 'kysely';
import pg from 'pg';
import { type QueryInterface, Sequelize } from 'sequelize';
import { DataSource, EntitySchema } from 'typeorm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { comparable, type Pair, startPair } from './pair.ts';

const TABLES = ['countries', 'accounts', 'orders', 'Odd Names', 'logged', 'notes'];

let pair: Pair;
beforeAll(async () => {
  pair = await startPair(18);
});
afterAll(() => pair?.stop());

/** Of a generated file whose tables, and columns of keys, stand in no order that was asked for. */
function words(text: string): string[] {
  return text.split(/[\s,[\]().]+/).sort();
}

/** Which its declarations lack. */
function constraintsOf(queries: QueryInterface, table: string): Promise<unknown> {
  return (queries as unknown as { showConstraint(table: string): Promise<unknown> }).showConstraint(table);
}

/** The same is read of both; gives it. */
async function same<T>(read: (dsn: string) => Promise<T>): Promise<T> {
  const plain = await read(pair.plain);
  const sharded = await read(pair.sharded);
  expect(comparable(sharded)).toEqual(comparable(plain));
  return sharded;
}

test('drizzle-kit pull', async () => {
  const schema = await same(async (dsn) => {
    const directory = await mkdtemp(path.join(tmpdir(), 'postern-drizzle-'));
    try {
      const cli = path.resolve('node_modules/drizzle-kit/bin.cjs');
      const options = [
        'pull',
        '--dialect=postgresql',
        `--url=${dsn}`,
        `--out=${path.relative(process.cwd(), directory)}`,
      ];
      await promisify(execFile)(process.execPath, [cli, ...options], { timeout: 50_000 });
      return words(await readFile(path.join(directory, 'schema.ts'), 'utf8'));
    } finally {
      await rm(directory, { recursive: true });
    }
  });
  expect(schema).toContain('"orders"');
  expect(schema.filter((word) => /postern|_b\d+_g\d+/.test(word))).toEqual([]);
});

test('Kysely', async () => {
  const tables = await same(async (dsn) => {
    const db = new Kysely<unknown>({
      dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: dsn, max: 1 }) }),
    });
    try {
      const found = await db.introspection.getTables({ withInternalKyselyTables: true });
      return found.filter(({ schema }) => schema !== 'postern');
    } finally {
      await db.destroy();
    }
  });
  expect(
    tables
      .filter(({ isView }) => !isView)
      .map(({ name }) => name)
      .sort(),
  ).toEqual([...TABLES, 'typeorm_metadata'].sort());
});

test('Knex', async () => {
  const columns = await same(async (dsn) => {
    const knex = knexOf({ client: 'pg', connection: dsn });
    try {
      const read: unknown[] = [];
      for (const table of [...TABLES, 'orders_b0_g1']) {
        read.push(await knex.schema.hasTable(table), await knex.schema.hasColumn(table, 'id'));
        read.push(await knex(table).columnInfo());
      }
      return read;
    } finally {
      await knex.destroy();
    }
  });
  expect(columns[6]).toBe(true);
  expect(columns.slice(-3)).toEqual([false, false, {}]);
});

test('TypeORM', async () => {
  const accounts = new EntitySchema({
    name: 'accounts',
    columns: {
      id: { type: 'bigint', primary: true },
      email: { type: 'text' },
      feeling: { type: 'enum', enum: ['sad', 'ok', 'happy'], enumName: 'mood', default: 'ok' },
      name: { type: 'text', nullable: true },
    },
  });
  const read = await same(async (dsn) => {
    const source = new DataSource({ type: 'postgres', url: dsn, entities: [accounts] });
    await source.initialize();
    try {
      const runner = source.createQueryRunner();
      const tables = await runner.getTables(TABLES);
      const changes = await source.driver.createSchemaBuilder().log();
      await runner.release();
      return { tables, changes: changes.upQueries };
    } finally {
      await source.destroy();
    }
  });
  expect(read.tables).toHaveLength(TABLES.length);
  expect(read.changes.some(({ query }: { query: string }) => query.includes('ADD "name" text'))).toBe(true);
});

test('Sequelize', async () => {
  const read = await same(async (dsn) => {
    const sequelize = new Sequelize(dsn, { logging: false });
    const queries = sequelize.getQueryInterface();
    try {
      const tables = (await queries.showAllTables()) as unknown[];
      const described: unknown[] = [];
      for (const table of TABLES) {
        described.push(await queries.describeTable(table), await queries.showIndex(table));
        described.push(
          await queries.getForeignKeyReferencesForTable(table),
          await constraintsOf(queries, table),
        );
      }
      return {
        tables: tables.filter((table) => !JSON.stringify(table).includes('postern')).sort(),
        described,
      };
    } finally {
      await sequelize.close();
    }
  });
  expect(JSON.stringify(read.tables)).toContain('Odd Names');
});

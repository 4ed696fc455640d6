import { beforeAll, describe, expect, test } from 'vitest';
import { APP, createCommand, useShardedCluster } from '../../test/support/sharded-cluster.ts';
import { createShardedTable } from '../doors/sharded/create.ts';
import { loadParser } from '../sql/parser.ts';
import { ensureShown } from './ensure-shown.ts';
import { measureFigures } from './figures.ts';

beforeAll(() => loadParser());

/** The second one's version is an older one, where the machine has it. */
const cluster = useShardedCluster(2);
const restricted = useShardedCluster(1, 'router');

async function shownOn(index: number, of = cluster) {
  const connection = await of.open(index);
  try {
    return await ensureShown(connection);
  } finally {
    await connection.close();
  }
}

/** Names and types of columns. */
function columns(schema: string, names: readonly string[]): string {
  return `SELECT c.relname AS relation, a.attname AS name,
      CASE a.atttypid WHEN 'anyarray'::regtype THEN 'text'::regtype ELSE a.atttypid::regtype END::text AS type
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = '${schema}'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
      AND c.relname IN (${names.map((name) => `'${name}'`).join(', ')}) ORDER BY c.relname, a.attnum`;
}

describe('postern_shown', () => {
  test('has each catalog’s own columns, and lets everybody read', async () => {
    const { relations, information, tables } = await shownOn(0);
    const [server] = cluster.servers;
    const of = async (schema: string, names: ReadonlySet<string>) =>
      await server!.query(columns(schema, [...names]));
    expect(await of('postern_shown', relations)).toEqual(await of('pg_catalog', relations));
    expect(await of('postern_shown', information)).toEqual(await of('information_schema', information));
    for (const name of [...relations, ...information]) {
      await server!.query(`SET LOCAL ROLE reader; SELECT * FROM postern_shown.${name} LIMIT 1`);
    }
    for (const [name, { shown, dumpedWithSystemColumns }] of tables) {
      await server!.query(
        `SET LOCAL ROLE reader; SELECT tableoid, xmin, * FROM (SELECT * FROM postern_shown.${name}_with_tableoid) t LIMIT 1`,
      );
      await server!.query(`SET LOCAL ROLE reader; SELECT * FROM (${shown}) t LIMIT 1`);
      await server!.query(
        `SET LOCAL ROLE reader; SET LOCAL search_path = ''; SELECT tableoid FROM (${dumpedWithSystemColumns}) t LIMIT 1`,
      );
    }
  });

  test('shows of a catalog without tables with a door what it has, but for Postern’s own', async () => {
    await shownOn(0);
    const rows = (schema: string, own: string) =>
      cluster.servers[0]!.query(
        `SELECT relname, relkind, relnatts, relpages FROM ${schema}.pg_class WHERE relnamespace NOT IN (
           SELECT oid FROM pg_catalog.pg_namespace WHERE nspname IN ('pg_toast'${own})) ORDER BY oid`,
      );
    const hidden = ", 'postern_shown', 'postern_internal', 'postern_leaves', 'postern_commit'";
    expect(await rows('postern_shown', '')).toEqual(await rows('pg_catalog', hidden));
  });

  test('stays as it is while it is what would be made, and is made again else', async () => {
    await shownOn(0);
    const oid = async () => {
      const rows = await cluster.servers[0]!.query(
        "SELECT 'postern_shown.pg_class'::regclass::oid::int AS oid",
      );
      return rows[0]!.oid;
    };
    const before = await oid();
    await Promise.all([shownOn(0), shownOn(0)]);
    expect(await oid()).toBe(before);
    await cluster.servers[0]!.query("COMMENT ON SCHEMA postern_shown IS 'of another version'");
    await shownOn(0);
    expect(await oid()).not.toBe(before);
  });

  test('needs no superuser', async () => {
    const { relations } = await shownOn(0, restricted);
    expect(relations.has('pg_class')).toBe(true);
    for (const name of ['pg_class', 'tables', 'role_table_grants', 'schemata', 'pg_stats']) {
      await restricted.servers[0]!.query(`SET LOCAL ROLE reader; SELECT * FROM postern_shown.${name}`);
    }
  });

  test('figures take the place of those before; those of a node that is away stay', async () => {
    await shownOn(0);
    const name = `measured_with_a_name_that_is_as_long_as_it_may_be_for_a_table`;
    await createShardedTable(cluster.router(), createCommand(name, 'id int8 PRIMARY KEY, v text'), APP);
    const map = await cluster.map();
    const { nodes, homeNodeId } = cluster.identity!;
    const opened: number[] = [];
    const context = {
      nodes,
      homeNodeId,
      map: () => map,
      connect: async (nodeId: number) => {
        opened.push(nodeId);
        return await cluster.open(nodes.findIndex(({ id }) => id === nodeId));
      },
    };
    expect(await measureFigures(context, undefined)).toEqual([]);
    const figures = `SELECT node_id, index_name, main_bytes::int FROM postern_internal.table_figures ORDER BY 1, 2`;
    const measured = await cluster.servers[0]!.query(figures);
    // The index of each leaf has a name that was cut, and is found all the same.
    expect(measured.map((row) => row.index_name)).toEqual(
      nodes.flatMap(() => ['', expect.stringMatching(/^measured_.*pkey$/)]),
    );
    opened.length = 0;
    expect(await measureFigures(context, 60_000)).toEqual([]);
    expect(opened).toEqual([homeNodeId]);
    cluster.servers[1]!.kill();
    const failed = await measureFigures(context, undefined);
    expect(failed).toMatchObject([{ node: 'n2' }]);
    expect(await cluster.servers[0]!.query(figures)).toEqual(measured);
    await cluster.servers[1]!.restart();
  });
});

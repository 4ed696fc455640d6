import { afterEach, describe, expect, test } from 'vitest';
import { APP, type TestRouter, useShardedCluster } from '../../../test/support/sharded-cluster.ts';
import type { ReferenceTable } from '../../catalog/map.ts';
import { dropTables } from '../../ddl/drop.ts';
import { sweep } from '../../ddl/sweep.ts';
import { makeReferenceTable } from './create.ts';
import { completeReferenceTables } from './join.ts';

/** A router that dies after each step of making and dropping a reference table, and another one that finds what is left. */

// A control role with no more rights than the documentation asks for.
const cluster = useShardedCluster(3, 'manager');

function crashAt(name: string): (step: string, router: TestRouter) => void {
  return (step, router) => {
    if (step === name) router.crash();
  };
}

/** A server notices a cut connection on its own time; until then the dead router's locks are held. */
async function sweepUntilClean(): Promise<void> {
  await expect
    .poll(async () => {
      await sweep(cluster.router());
      return await cluster.servers[0]!.query(
        `SELECT table_name FROM postern_internal.tables WHERE state <> 'ready'`,
      );
    })
    .toEqual([]);
}

async function plainTable(name: string): Promise<void> {
  await cluster.servers[0]!.query(
    `CREATE TABLE ${name} (id int PRIMARY KEY, t text); INSERT INTO ${name} SELECT g, g FROM generate_series(1, 100) g;
     ALTER TABLE ${name} OWNER TO app`,
  );
}

function make(router: TestRouter, relation: string) {
  return makeReferenceTable(router, { kind: 'makeReferenceTable', relation, functionName: undefined }, APP);
}

async function reference(name: string): Promise<ReferenceTable> {
  const table = (await cluster.map()).references.get('public')?.get(name);
  if (!table) throw new Error(`no reference table ${name} in the map`);
  return table;
}

async function countsOf(name: string): Promise<unknown[]> {
  const counts = cluster.servers.map((server) => server.query(`SELECT count(*)::int AS n FROM ${name}`));
  return (await Promise.all(counts)).map((rows) => rows[0]?.n);
}

afterEach(async () => {
  await expect
    .poll(
      async () => await cluster.servers[0]!.query(`SELECT objid FROM pg_locks WHERE locktype = 'advisory'`),
    )
    .toEqual([]);
});

describe('a router that dies while it makes one', () => {
  test.each(['creating', 'home prepared', 'made on n2', 'made on n3', 'ready'])(
    'after "%s": the plain table is as it was, and no copy is left',
    async (step) => {
      const name = `made_${step.replace(/\W/g, '_')}`;
      await plainTable(name);
      await expect(make(cluster.router(crashAt(step)), name)).rejects.toThrow();
      expect((await cluster.map()).references.size).toBe(0);
      await sweepUntilClean();
      expect(await cluster.traces(name)).toEqual([`n1: ${name}`, `n1: ${name}_pkey`]);
      await cluster.servers[0]!.query(`INSERT INTO ${name} VALUES (0, 'it can be written to')`);
      await cluster.servers[0]!.query(`DROP TABLE ${name}`);
    },
  );
});

describe('a router that dies while it drops one', () => {
  test.each([
    ['dropped, not committed', true],
    ['dropping', false],
    ['dropped on n2', false],
    ['dropped on n3', false],
  ])('after "%s"', async (step, stays) => {
    await plainTable('t_drop');
    await make(cluster.router(), 't_drop');
    expect(await countsOf('t_drop')).toEqual([100, 100, 100]);
    const command = { kind: 'dropTables', tables: [await reference('t_drop')], cascade: false } as const;
    await expect(dropTables(cluster.router(crashAt(step)), command, APP)).rejects.toThrow();
    expect((await cluster.map()).references.size).toBe(stays ? 1 : 0);
    await sweepUntilClean();
    if (stays) {
      expect(await countsOf('t_drop')).toEqual([100, 100, 100]);
      await expect
        .poll(() => dropTables(cluster.router(), command, APP).then(() => 'dropped', String))
        .toBe('dropped');
    }
    expect(await cluster.traces('t_drop')).toEqual([]);
  });
});

describe('a node that has joined', () => {
  test('gets each table again if the router died before home knew of its copy', async () => {
    await plainTable('parents');
    await make(cluster.router(), 'parents');
    await cluster.servers[0]!.query(
      'CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents); ALTER TABLE children OWNER TO app',
    );
    await make(cluster.router(), 'children');
    // As if n3 had joined a cluster of two, and what was copied to it were of before the last writes.
    const { nodes } = cluster.identity!;
    await cluster.servers[0]!.query(
      `UPDATE postern_internal.tables SET copies = '{${nodes[0]!.id},${nodes[1]!.id}}' WHERE door = 'reference'`,
    );
    await cluster.servers[2]!.query(`DROP TABLE children; DELETE FROM postern_internal.local_tables l
      WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = l.face);
      BEGIN; SET LOCAL postern.reference_write = 'x'; DELETE FROM parents WHERE id > 5; COMMIT`);
    expect(await completeReferenceTables(cluster.router())).toEqual([
      'public.parents on n3',
      'public.children on n3',
    ]);
    expect(await countsOf('parents')).toEqual([100, 100, 100]);
    expect(await countsOf('children')).toEqual([0, 0, 0]);
    expect(await completeReferenceTables(cluster.router())).toEqual([]);
    const tables = [await reference('parents'), await reference('children')];
    await dropTables(cluster.router(), { kind: 'dropTables', tables, cascade: false }, APP);
    expect(await cluster.traces('parents')).toEqual([]);
  });
});

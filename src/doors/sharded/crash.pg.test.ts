import { afterEach, describe, expect, test } from 'vitest';
import {
  APP,
  createCommand,
  type TestRouter,
  useShardedCluster,
} from '../../../test/support/sharded-cluster.ts';
import { dropTables } from '../../ddl/drop.ts';
import { dropRecorded } from '../../ddl/recorded.ts';
import { sweep } from '../../ddl/sweep.ts';
import { createShardedTable } from './create.ts';

/** A router that dies after each step of SPEC.md, and another one that finds what is left. */

// A control role with no more rights than the documentation asks for.
const cluster = useShardedCluster(3, 'manager');
const COLUMNS = 'id bigserial PRIMARY KEY, n int';

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

afterEach(async () => {
  // The next test starts from nothing, and no lock or record is left by any of them.
  await expect
    .poll(
      async () => await cluster.servers[0]!.query(`SELECT objid FROM pg_locks WHERE locktype = 'advisory'`),
    )
    .toEqual([]);
});

describe('a router that dies while it creates', () => {
  test.each(['creating', 'home prepared', 'made on n2', 'made on n3', 'ready'])(
    'after "%s"',
    async (step) => {
      const dying = cluster.router(crashAt(step));
      await expect(createShardedTable(dying, createCommand('t_create', COLUMNS), APP)).rejects.toThrow();
      expect((await cluster.map()).tables.size).toBe(0);
      expect(await cluster.traces('t_create')).not.toEqual([]);
      await sweepUntilClean();
      expect(await cluster.traces('t_create')).toEqual([]);
    },
  );

  test('the next CREATE cleans up by itself', async () => {
    const dying = cluster.router(crashAt('made on n3'));
    await expect(createShardedTable(dying, createCommand('t_again', COLUMNS), APP)).rejects.toThrow();
    await expect
      .poll(() =>
        createShardedTable(cluster.router(), createCommand('t_again', COLUMNS), APP).then(
          () => 'made',
          String,
        ),
      )
      .toBe('made');
    const table = await cluster.table('t_again');
    await dropTables(cluster.router(), { kind: 'dropTables', tables: [table], cascade: false }, APP);
    expect(await cluster.traces('t_again')).toEqual([]);
  });

  test('a record without a row is rubbish, for a sweep and for a CREATE of that name', async () => {
    for (const clean of ['sweep', 'create'] as const) {
      const dying = cluster.router(crashAt('ready'));
      await expect(createShardedTable(dying, createCommand('t_zombie', COLUMNS), APP)).rejects.toThrow();
      // What a sweep would leave if the creator's nodes committed after it: the records, and no row.
      await expect
        .poll(() => cluster.servers[0]!.query(`SELECT objid FROM pg_locks WHERE locktype = 'advisory'`))
        .toEqual([]);
      await cluster.servers[0]!.query(`DELETE FROM postern_internal.tables WHERE table_name = 't_zombie'`);
      if (clean === 'sweep') {
        expect(await sweep(cluster.router())).toHaveLength(2);
      } else {
        await createShardedTable(cluster.router(), createCommand('t_zombie', COLUMNS), APP);
        const table = await cluster.table('t_zombie');
        await dropTables(cluster.router(), { kind: 'dropTables', tables: [table], cascade: false }, APP);
      }
      expect(await cluster.traces('t_zombie')).toEqual([]);
    }
  });

  test('rows of a table that the catalog has lost are not dropped, and told once', async () => {
    await createShardedTable(cluster.router(), createCommand('t_lost', COLUMNS), APP);
    const table = await cluster.table('t_lost');
    const [leaf] = await cluster.servers[1]!.query(
      `SELECT leaf::regclass::text AS name FROM postern_internal.local_leaves WHERE table_id = ${table.id} LIMIT 1`,
    );
    // Some id that belongs there.
    await cluster.servers[1]!.query(`DO $$ BEGIN
      FOR i IN 1..1000 LOOP
        BEGIN INSERT INTO ${leaf!.name} (id) VALUES (i); EXIT; EXCEPTION WHEN check_violation THEN END;
      END LOOP; END $$`);
    const lines: string[] = [];
    const router = Object.assign(cluster.router(), { warn: (line: string) => void lines.push(line) });
    // As after a failover of home to a standby that was behind.
    const home = await router.connect(router.homeNodeId);
    await home.transaction(() => dropRecorded(home, table.id, { cascade: true }));
    await home.query(`DELETE FROM postern_internal.tables WHERE table_id = ${table.id}`);
    await home.close();
    for (let i = 0; i < 2; i++) await sweep(router);
    expect(await cluster.servers[1]!.query(`SELECT FROM ${leaf!.name}`)).toHaveLength(1);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain(`node "n2" has rows of tables that the catalog does not know`);
    await expect(
      createShardedTable(cluster.router(), createCommand('t_lost', COLUMNS), APP),
    ).rejects.toMatchObject({ sqlState: '42P07' });
    await cluster.servers[1]!.query(`TRUNCATE ${leaf!.name}`);
    expect(await sweep(router)).toContain(table.id);
  });

  test('a node that is away leaves a row for the sweep', async () => {
    const router = cluster.router((step) => {
      if (step === 'made on n2') cluster.servers[1]!.kill();
    });
    cluster.servers[2]!.kill();
    await expect(createShardedTable(router, createCommand('t_away', COLUMNS), APP)).rejects.toThrow('n3');
    await Promise.all([cluster.servers[1]!.restart(), cluster.servers[2]!.restart()]);
    expect((await cluster.map()).tables.size).toBe(0);
    await sweepUntilClean();
    expect(await cluster.traces('t_away')).toEqual([]);
  });

  test('what a living router makes is left alone', async () => {
    let swept: readonly number[] | undefined;
    let work: Promise<void> | undefined;
    const router = cluster.router((step) => {
      if (step !== 'home prepared') return;
      work = sweep(cluster.router()).then((ids) => {
        swept = ids;
      });
    });
    await createShardedTable(router, createCommand('t_alive', COLUMNS), APP);
    await work;
    expect(swept).toEqual([]);
    const table = await cluster.table('t_alive');
    await dropTables(cluster.router(), { kind: 'dropTables', tables: [table], cascade: false }, APP);
  });
});

describe('a router that dies while it drops', () => {
  test.each(['dropped, not committed', 'dropping', 'dropped on n2', 'dropped on n3'])(
    'after "%s"',
    async (step) => {
      await createShardedTable(cluster.router(), createCommand('t_drop', COLUMNS), APP);
      const table = await cluster.table('t_drop');
      const before = await cluster.traces('t_drop');
      const command = { kind: 'dropTables', tables: [table], cascade: false } as const;
      await expect(dropTables(cluster.router(crashAt(step)), command, APP)).rejects.toThrow();
      const undone = step === 'dropped, not committed';
      expect((await cluster.map()).tablesByName.has('t_drop')).toBe(undone);
      await sweepUntilClean();
      if (undone) {
        expect(await cluster.traces('t_drop')).toEqual(before);
        await expect
          .poll(() => dropTables(cluster.router(), command, APP).then(() => 'dropped', String))
          .toBe('dropped');
      }
      expect(await cluster.traces('t_drop')).toEqual([]);
    },
  );
});

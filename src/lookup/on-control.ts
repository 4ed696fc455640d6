/**
 * Unique constraints off the shard key of a table that is made over the control path (doors/sharded/make.ts): nobody sees it yet, so the
 * other nodes commit theirs before home commits the table. If home does not, a sweep drops them with the table's leaves.
 */
import { all, asAdmin, asClient, type DdlContext, otherNodes, type SqlConnection } from '../ddl/context.ts';
import { ROW_COPY_SETTINGS, ROW_COPY_TIMEOUT_MS } from '../ddl/row-copy.ts';
import type { DdlBranch } from '../ddl/world.ts';
import type { UniqueSpec } from '../plan/lookups.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import { makeLookup, type TableOfLookup } from './ddl.ts';

/** `home` has the table's transaction open, as the admin; `role` owns the table, and may make leaves on all nodes. */
export async function makeLookupsOnControl(
  context: DdlContext,
  home: ControlConnection,
  request: {
    readonly role: string;
    readonly table: TableOfLookup;
    readonly uniques: readonly UniqueSpec[];
  },
): Promise<void> {
  const { role, table, uniques } = request;
  if (uniques.length === 0) return;
  const limits = { statementTimeoutMs: ROW_COPY_TIMEOUT_MS };
  const opened = await Promise.allSettled(
    otherNodes(context).map(async ({ id }) => ({ id, connection: await context.connect(id, limits) })),
  );
  const others = opened.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  try {
    for (const one of opened) if (one.status === 'rejected') throw one.reason;
    await all(
      others.map(({ connection }) =>
        connection.query(`BEGIN; ${ROW_COPY_SETTINGS}; SET LOCAL search_path = pg_catalog`),
      ),
    );
    await home.query(ROW_COPY_SETTINGS);
    const world = {
      home: branchOf(home, context.homeNodeId, role),
      others: others.map(({ id, connection }) => branchOf(connection, id, role)),
    };
    for (const spec of uniques) await makeLookup(world, table, spec);
    await all(others.map(({ connection }) => connection.query('COMMIT')));
  } finally {
    await all(others.map(({ connection }) => connection.close()));
  }
}

function branchOf(connection: ControlConnection, nodeId: number, role: string): DdlBranch {
  const { nodeName } = connection;
  const query: SqlConnection['query'] = (text, values) => connection.query(text, values);
  return {
    nodeId,
    nodeName,
    query,
    postern: { nodeName, query },
    run: async (texts, searchPath = 'pg_catalog') => {
      await asClient(connection, { role, searchPath });
      for (const text of texts) await connection.query(text);
      await asAdmin(connection);
    },
    texts: async (text) =>
      (await connection.query<Record<string, unknown>>(text)).map((row) =>
        Object.values(row).map((value) =>
          value === null ? null : typeof value === 'object' ? JSON.stringify(value) : String(value),
        ),
      ),
    signed: async (statement, values) => {
      await connection.query(statement, values);
    },
    signedValue: async <T>(statement: string) => {
      const [row] = await connection.query<Record<string, T>>(statement);
      return Object.values(row!)[0]!;
    },
  };
}

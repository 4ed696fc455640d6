/** Where the nodes are, as the routers reach them: told to applications that connect to them directly (postern.node_addresses). */
import { parseDsn } from '../pg/dsn.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import type { NodeInfo } from './map.ts';
import { bumpEpoch, INTERNAL_SCHEMA } from './schema.ts';

/** Users and passwords stay out of the catalog. */
export async function storeNodeAddresses(
  home: ControlConnection,
  nodes: readonly { readonly node: NodeInfo; readonly dsn: string }[],
): Promise<void> {
  const addresses = nodes.map(({ node, dsn }) => ({ id: node.id, ...parseDsn(dsn) }));
  await home.transaction(async () => {
    const changed = await home.query(
      `INSERT INTO ${INTERNAL_SCHEMA}.node_addresses AS a (node_id, host, port, database)
       SELECT * FROM unnest($1::int4[], $2::text[], $3::int4[], $4::text[])
       ON CONFLICT (node_id) DO UPDATE SET host = excluded.host, port = excluded.port, database = excluded.database
       WHERE (a.host, a.port, a.database) IS DISTINCT FROM (excluded.host, excluded.port, excluded.database) RETURNING a.node_id`,
      [
        addresses.map(({ id }) => id),
        addresses.map(({ host }) => host),
        addresses.map(({ port }) => port),
        addresses.map(({ database }) => database),
      ],
    );
    if (changed.length > 0) await bumpEpoch(home);
  });
}

/** Names of the nodes that have been part of the cluster: none where there is no catalog yet. */
export async function joinedNodes(home: ControlConnection): Promise<ReadonlySet<string>> {
  const [found] = await home.query<{ there: boolean }>(
    `SELECT to_regclass('${INTERNAL_SCHEMA}.node_addresses') IS NOT NULL AS there`,
  );
  if (!found?.there) return new Set();
  const rows = await home.query<{ name: string }>(
    `SELECT node_name AS name FROM ${INTERNAL_SCHEMA}.nodes JOIN ${INTERNAL_SCHEMA}.node_addresses USING (node_id)`,
  );
  return new Set(rows.map(({ name }) => name));
}

/**
 * DROP TABLE of tables with a door inside the client's transaction (SPEC.md): faces, leaves and copies as the client, so that
 * PostgreSQL judges its rights; then their records.
 */
import {
  CATALOG_BUCKET,
  LEAF_SCHEMA,
  leafName,
  type ReferenceTable,
  type ShardedTable,
} from '../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { quoteQualified } from '../pg/identifier.ts';
import { deleteTableStatement } from './catalog-change.ts';
import { type DdlBranch, type DdlWorld, everywhere } from './world.ts';

export async function dropOnBranches(
  world: DdlWorld,
  tables: readonly (ShardedTable | ReferenceTable)[],
  { cascade }: { readonly cascade: boolean },
): Promise<void> {
  await everywhere(world, async (branch) => {
    const names = tables.flatMap((table) => namesOn(table, branch, world.homeNodeId));
    await branch.run([`DROP TABLE ${names.join(', ')}${cascade ? ' CASCADE' : ''}`]);
    const ids = tables.map(({ id }) => id).join(', ');
    await branch.signed(`DELETE FROM ${INTERNAL_SCHEMA}.local_tables WHERE table_id IN (${ids})`);
  });
  for (const { id } of tables) await world.home.signed(deleteTableStatement(id));
  world.noteCatalogChange();
}

/** Locked in this order: a write to a leaf locks the face behind it. */
function namesOn(table: ShardedTable | ReferenceTable, { nodeId }: DdlBranch, homeNodeId: number): string[] {
  const face = quoteQualified(table.schema, table.name);
  if (!('buckets' in table)) return [face];
  const names: string[] = [];
  if (table.catalogLeaf && nodeId === homeNodeId) {
    const { generation } = table.buckets[CATALOG_BUCKET]!;
    names.push(quoteQualified(LEAF_SCHEMA, leafName(table.name, CATALOG_BUCKET, generation)));
  }
  for (const [bucket, place] of table.buckets.entries()) {
    if (place.nodeId === nodeId)
      for (const name of [table.name, ...(table.lookups ?? []).map((lookup) => lookup.table.name)])
        names.push(quoteQualified(LEAF_SCHEMA, leafName(name, bucket, place.generation)));
  }
  return [...names, face];
}

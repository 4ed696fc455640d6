/**
 * What a transaction that has run DDL plans by until it ends: the map as its own branch on home sees it, with plans and ids of
 * its own. Nobody else can see what it has made yet.
 *
 * Invariant: nothing that is known by this map reaches a cache that others use.
 */
import { blocksOf, type DrawnIds, drawText } from '../catalog/id-sequences.ts';
import type { ClusterMap, ShardedTable } from '../catalog/map.ts';
import { MAP_QUERY, type MapRow, mapOf } from '../catalog/store.ts';
import { IdChooser, type IdSource, type IdSupply } from '../execute/id-chooser.ts';
import type { PlanCache } from '../execute/plan-cache.ts';
import type { BranchOfDdl } from './ddl-branch.ts';
import type { Lease } from './lease.ts';

export interface MapOverlay {
  readonly map: ClusterMap;
  readonly plans: PlanCache;
  readonly ids: IdSupply;
  readonly home: BranchOfDdl;
}

/** Ids that are taken at once at least, so that not each row asks for its own. */
const IDS_AT_LEAST = 100;

export async function readOverlay(lease: Lease, home: BranchOfDdl): Promise<MapOverlay> {
  const { context } = lease.state;
  const map = mapOf(await home.signedValue<MapRow>(`SELECT to_json(m) FROM (${MAP_QUERY}) m`));
  return { map, plans: context.plans.beside(), ids: new OverlayIds(lease, home), home };
}

/** Ids of columns that others know come from where all come from; those of others out of the transaction's own rows. */
class OverlayIds implements IdSupply {
  readonly #lease: Lease;
  readonly #own: IdChooser;

  constructor(lease: Lease, home: BranchOfDdl) {
    this.#lease = lease;
    this.#own = new IdChooser(new OwnIds(lease, home), {
      afterTurn: setImmediate,
      underWay: () => new Map(),
    });
  }

  next(table: ShardedTable, column: string): number | undefined {
    return this.#sourceOf(table, column).next(table, column);
  }

  take(table: ShardedTable, column: string, count: number): Promise<number[]> {
    return this.#sourceOf(table, column).take(table, column, count);
  }

  takeOfOneBucket(table: ShardedTable, count: number): Promise<number[]> {
    return this.#sourceOf(table, table.keyColumn).takeOfOneBucket(table, count);
  }

  #sourceOf(table: ShardedTable, column: string): IdSupply {
    const { catalog, ids } = this.#lease.state.context;
    for (const tables of catalog.current.tables.values())
      for (const known of tables.values())
        if (known.id === table.id && isSameSupply(known, table, column)) return ids;
    return this.#own;
  }
}

/** Has the transaction neither made nor restarted its sequence? */
function isSameSupply(known: ShardedTable, table: ShardedTable, column: string): boolean {
  const [before, now] = [known, table].map(({ columns }) => columns.find(({ name }) => name === column));
  return before?.sequence === true && before.idSequence?.restarts === now?.idSequence?.restarts;
}

class OwnIds implements IdSource {
  readonly #lease: Lease;
  readonly #home: BranchOfDdl;
  readonly #blocks = new Map<string, { first: number; last: number }>();

  constructor(lease: Lease, home: BranchOfDdl) {
    this.#lease = lease;
    this.#home = home;
  }

  next(tableId: number, column: string): number | undefined {
    const block = this.#blocks.get(`${tableId} ${column}`);
    return block && block.first <= block.last ? block.first++ : undefined;
  }

  async take(tableId: number, column: string, count: number): Promise<number[]> {
    const ids: number[] = [];
    while (ids.length < count) {
      const id = this.next(tableId, column);
      if (id === undefined) await this.#leaseBlock(tableId, column, count - ids.length);
      else ids.push(id);
    }
    return ids;
  }

  async #leaseBlock(tableId: number, column: string, count: number): Promise<void> {
    await this.#lease.branches.enlist([this.#home.nodeId]);
    const text = drawText({ tableId, column, count: Math.max(count, IDS_AT_LEAST) });
    const [block] = blocksOf(await this.#home.signedValue<DrawnIds | null>(text));
    this.#blocks.set(`${tableId} ${column}`, { ...block! });
  }
}

/**
 * Ids for columns that an INSERT leaves out. Where the id is the key, the choice of the id is the choice of the bucket, and
 * it is made so that rows meet: INSERTs that arrive together get ids of one bucket, so that they go to one node as one
 * batch, and that node is the one with the fewest writes under way: a slow or stalled node gets less. And the rows of one INSERT have to fall into one
 * bucket anyway.
 *
 * Invariant: ids that were leased before a sequence was set are not given out after this router has heard of it: at once if it was set
 * through this router, else with the new map.
 * Invariant: an id is given out once. Ids wait by bucket until their bucket's turn comes; what is never used leaves a gap, as
 * a PostgreSQL sequence's cache does.
 */
import { assert } from '../base/assert.ts';
import type { ShardedTable } from '../catalog/map.ts';
import { bucketOfId } from './route.ts';

export interface IdSource {
  next(tableId: number, column: string): number | undefined;
  take(tableId: number, column: string, count: number): Promise<number[]>;
  /** What is held of the column's ids is of no more use. Absent: nothing is held. */
  forget?(tableId: number, column: string): void;
}

/** Where a statement's ids come from. */
export type IdSupply = Pick<IdChooser, 'next' | 'take' | 'takeOfOneBucket'>;

/** So many ids of one bucket in a row at most: a full batch. */
const RUN_MAX = 64;
/** Batches that a node has under way. */
const LANES_PER_NODE = 2;
/** Ids that wait, for one table, over all its buckets. */
const WAITING_MAX = 65_536;

interface Waiting {
  /** The table's places when this was made. */
  places: ShardedTable['buckets'];
  readonly byBucket: number[][];
  /** The buckets of each node, and which of them is next. */
  readonly nodes: { readonly nodeId: number; readonly buckets: number[]; next: number }[];
  /** Where looking for the least busy node starts, so that equally busy ones take turns. */
  firstNode: number;
  count: number;
  /** The bucket of this turn, and how many it has had in a row. */
  bucket: number;
  run: number;
  runMax: number;
  /** By the turn that it belongs to. */
  turn: number;
}

export class IdChooser {
  readonly #source: IdSource;
  readonly #afterTurn: (callback: () => void) => void;
  readonly #underWay: () => ReadonlyMap<number, number>;
  readonly #tables = new Map<number, Waiting>();
  /** Tables, as maps have them, whose sequences are known to have been set no more often than this router has heard of. */
  readonly #heard = new WeakSet<ShardedTable>();
  /** How often sequences were set, by table and column. */
  readonly #restarts = new Map<string, number>();
  #turn = 0;
  #turnEnds = false;
  readonly #endTurn = (): void => {
    this.#turn++;
    this.#turnEnds = false;
  };

  /**
   * @param options.afterTurn calls back when all that has arrived together has been handled
   * @param options.underWay how many writes wait for an answer, by node
   */
  constructor(
    source: IdSource,
    options: {
      readonly afterTurn: (callback: () => void) => void;
      readonly underWay: () => ReadonlyMap<number, number>;
    },
  ) {
    this.#source = source;
    this.#afterTurn = options.afterTurn;
    this.#underWay = options.underWay;
  }

  /** An id that is at hand; undefined when a block has to be waited for. */
  next(table: ShardedTable, column: string): number | undefined {
    this.#hear(table);
    if (column !== table.keyColumn || !choosesBucket(table)) return this.#source.next(table.id, column);
    const waiting = this.#waitingOf(table);
    this.#chooseBucket(waiting);
    const chosen = waiting.byBucket[waiting.bucket]!.pop();
    if (chosen !== undefined) {
      waiting.count--;
      return chosen;
    }
    // Far more than it takes on average: then any will do.
    for (let draws = 16 * table.placement.hashBuckets; draws > 0 && waiting.count < WAITING_MAX; draws--) {
      const id = this.#source.next(table.id, column);
      if (id === undefined) break;
      const bucket = bucketOfId(table, id);
      if (bucket === waiting.bucket) return id;
      waiting.byBucket[bucket]!.push(id);
      waiting.count++;
    }
    return this.#anyWaiting(waiting) ?? this.#source.next(table.id, column);
  }

  async take(table: ShardedTable, column: string, count: number): Promise<number[]> {
    this.#hear(table);
    return this.#source.take(table.id, column, count);
  }

  /** The sequence of the column was set. */
  restart(tableId: number, column: string): void {
    this.#source.forget?.(tableId, column);
    this.#tables.delete(tableId);
  }

  /** `count` ids of the key column that all hash to one bucket; of ranges and lists, those that come. */
  async takeOfOneBucket(table: ShardedTable, count: number): Promise<number[]> {
    if (!choosesBucket(table)) return await this.take(table, table.keyColumn, count);
    this.#hear(table);
    const waiting = this.#waitingOf(table);
    this.#chooseBucket(waiting);
    const { bucket } = waiting;
    const chosen: number[] = [];
    while (chosen.length < count) {
      const id = waiting.byBucket[bucket]!.pop();
      if (id !== undefined) {
        waiting.count--;
        chosen.push(id);
        continue;
      }
      const drawn = await this.#draw(table);
      const at = bucketOfId(table, drawn);
      if (at === bucket) chosen.push(drawn);
      else if (waiting.count < WAITING_MAX) {
        waiting.byBucket[at]!.push(drawn);
        waiting.count++;
      }
    }
    return chosen;
  }

  #hear(table: ShardedTable): void {
    if (this.#heard.has(table)) return;
    this.#heard.add(table);
    for (const { name, idSequence } of table.columns) {
      if (!idSequence) continue;
      const key = `${table.id} ${name}`;
      const known = this.#restarts.get(key);
      if (known !== undefined && known >= idSequence.restarts) continue;
      this.#restarts.set(key, idSequence.restarts);
      if (known !== undefined) this.restart(table.id, name);
    }
  }

  #chooseBucket(waiting: Waiting): void {
    if (!this.#turnEnds) {
      this.#turnEnds = true;
      this.#afterTurn(this.#endTurn);
    }
    if (waiting.turn === this.#turn && waiting.run < waiting.runMax) {
      waiting.run++;
      return;
    }
    const load = this.#underWay();
    let total = 0;
    let least = Number.POSITIVE_INFINITY;
    let chosen = waiting.nodes[0]!;
    for (let i = 0; i < waiting.nodes.length; i++) {
      const node = waiting.nodes[(waiting.firstNode + i) % waiting.nodes.length]!;
      const underWay = load.get(node.nodeId) ?? 0;
      total += underWay;
      if (underWay >= least) continue;
      least = underWay;
      chosen = node;
    }
    waiting.firstNode = (waiting.firstNode + 1) % waiting.nodes.length;
    waiting.bucket = chosen.buckets[chosen.next]!;
    chosen.next = (chosen.next + 1) % chosen.buckets.length;
    // As long as each lane of each node gets its share: longer runs would leave nodes idle.
    waiting.runMax = Math.max(
      1,
      Math.min(RUN_MAX, Math.ceil(total / (LANES_PER_NODE * waiting.nodes.length))),
    );
    waiting.turn = this.#turn;
    waiting.run = 1;
  }

  #anyWaiting(waiting: Waiting): number | undefined {
    if (waiting.count === 0) return undefined;
    for (const ids of waiting.byBucket) {
      const id = ids.pop();
      if (id === undefined) continue;
      waiting.count--;
      return id;
    }
    return undefined;
  }

  async #draw(table: ShardedTable): Promise<number> {
    const id = this.#source.next(table.id, table.keyColumn);
    if (id !== undefined) return id;
    const [taken] = await this.#source.take(table.id, table.keyColumn, 1);
    assert(taken !== undefined, 'take gives as many as asked for');
    return taken;
  }

  #waitingOf(table: ShardedTable): Waiting {
    let waiting = this.#tables.get(table.id);
    if (waiting && waiting.places !== table.buckets && placesDiffer(waiting.places, table.buckets)) {
      // Buckets have come or gone: an id may be of another one now.
      waiting = rearranged(waiting, table);
      this.#tables.set(table.id, waiting);
    }
    if (!waiting) {
      waiting = emptyWaiting(table);
      this.#tables.set(table.id, waiting);
    }
    waiting.places = table.buckets;
    return waiting;
  }
}

/** Ids come in order, and hash to any bucket: that of a range is known, and one of a list is seldom any. */
function choosesBucket({ placement }: ShardedTable): boolean {
  return placement.hashBuckets > 1;
}

function emptyWaiting(table: ShardedTable): Waiting {
  return {
    places: table.buckets,
    byBucket: table.buckets.map(() => []),
    nodes: nodesOf(table),
    firstNode: 0,
    count: 0,
    bucket: 0,
    run: 0,
    runMax: 1,
    turn: -1,
  };
}

function rearranged(before: Waiting, table: ShardedTable): Waiting {
  const waiting = emptyWaiting(table);
  for (const id of before.byBucket.flat()) waiting.byBucket[bucketOfId(table, id)]!.push(id);
  waiting.count = before.count;
  return waiting;
}

function placesDiffer(one: ShardedTable['buckets'], other: ShardedTable['buckets']): boolean {
  return one.length !== other.length || one.some(({ nodeId }, bucket) => nodeId !== other[bucket]!.nodeId);
}

/** The nodes of the buckets that any id may be of. */
function nodesOf(table: ShardedTable): Waiting['nodes'] {
  const byId = new Map<number, number[]>();
  for (const [bucket, { nodeId }] of table.buckets.entries()) {
    if (bucket >= table.placement.hashBuckets) break;
    const buckets = byId.get(nodeId);
    if (buckets) buckets.push(bucket);
    else byId.set(nodeId, [bucket]);
  }
  return [...byId].map(([nodeId, buckets]) => ({ nodeId, buckets, next: 0 }));
}

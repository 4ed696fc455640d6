/**
 * Ids for sequence columns, handed out from blocks that the catalog has leased to this router.
 *
 *   no block ──take()──► leased ──half used──► next block fetched behind ──first used up──► leased …
 *      ▲                    │
 *      └─────forget()───────┘
 *
 * Invariant: a block belongs to one router from the commit of its lease on, so ids are unique over all routers; what a
 * router that ends has not used is a gap, as with PostgreSQL's own sequences (CACHE).
 * Invariant: no id is above 2^53 − 1 or the column type's maximum (`max_id` of the catalog sees to both).
 */
import { assert } from '../base/assert.ts';
import { PosternError } from '../base/errors.ts';
import type { IdBlock } from './id-sequences.ts';

const BLOCK_IDS_MIN = 1_000;
const BLOCK_IDS_MAX = 100_000;
/** A block that lasts less asks for a larger one, one that lasts longer than the second for a smaller one. */
const BLOCK_DURATION_MS_MIN = 5_000;
const BLOCK_DURATION_MS_MAX = 60_000;
/** How long a statement waits for the catalog before it is told that there are no ids. */
const LEASE_TIMEOUT_MS = 5_000;

/** At least one block; several if others have drawn from the sequence meanwhile. */
export type LeaseIds = (request: {
  tableId: number;
  column: string;
  count: number;
}) => Promise<readonly IdBlock[]>;

export interface IdLeasesOptions {
  readonly lease: LeaseIds;
  readonly nowMs?: () => number;
  readonly timeoutMs?: number;
}

interface Column {
  readonly tableId: number;
  readonly name: string;
  /** The next id to hand out, and the last one of the block; above it when the block is used up. */
  next: number;
  last: number;
  /** The other blocks of the lease. */
  readonly rest: IdBlock[];
  /** Ids of the lease that are left. */
  left: number;
  /** Below this many left, the next lease is taken. */
  prefetchBelow: number;
  reserve: readonly IdBlock[] | undefined;
  blockIds: number;
  blockStartedMs: number;
  fetching: Promise<void> | undefined;
}

export class IdLeases {
  readonly #lease: LeaseIds;
  readonly #nowMs: () => number;
  readonly #timeoutMs: number;
  readonly #tables = new Map<number, Map<string, Column>>();

  constructor(options: IdLeasesOptions) {
    this.#lease = options.lease;
    this.#nowMs = options.nowMs ?? (() => performance.now());
    this.#timeoutMs = options.timeoutMs ?? LEASE_TIMEOUT_MS;
  }

  /** The next id if this router has one; else undefined, and take() waits for a block. */
  next(tableId: number, column: string): number | undefined {
    const entry = this.#tables.get(tableId)?.get(column);
    if (!entry) return undefined;
    if (entry.left === 0 && !this.#useReserve(entry)) return undefined;
    if (entry.next > entry.last) useBlock(entry, entry.rest.shift());
    entry.left--;
    if (entry.left < entry.prefetchBelow && !entry.reserve && !entry.fetching) this.#prefetch(entry);
    return entry.next++;
  }

  /**
   * `count` ids; not always consecutive. Rejects with 53000 when the catalog gives none in time (a retry is right once it
   * is back), and with 2200H when the column's type has no more.
   */
  async take(tableId: number, column: string, count: number): Promise<number[]> {
    const ids: number[] = [];
    const deadlineMs = this.#nowMs() + this.#timeoutMs;
    while (ids.length < count) {
      const id = this.next(tableId, column);
      if (id === undefined) await this.#wait(this.#column(tableId, column), count - ids.length, deadlineMs);
      else ids.push(id);
    }
    return ids;
  }

  /** Drops what is held of a column's ids, and what is on its way: its sequence was set, or it is no more. */
  forget(tableId: number, column: string): void {
    this.#tables.get(tableId)?.delete(column);
  }

  #column(tableId: number, name: string): Column {
    let columns = this.#tables.get(tableId);
    if (!columns) {
      columns = new Map();
      this.#tables.set(tableId, columns);
    }
    let column = columns.get(name);
    if (!column) {
      column = {
        tableId,
        name,
        next: 1,
        last: 0,
        rest: [],
        left: 0,
        prefetchBelow: 0,
        reserve: undefined,
        blockIds: BLOCK_IDS_MIN,
        blockStartedMs: Number.NEGATIVE_INFINITY,
        fetching: undefined,
      };
      columns.set(name, column);
    }
    return column;
  }

  #useReserve(column: Column): boolean {
    const blocks = column.reserve;
    if (!blocks) return false;
    const nowMs = this.#nowMs();
    const lastedMs = nowMs - column.blockStartedMs;
    if (lastedMs < BLOCK_DURATION_MS_MIN) column.blockIds = Math.min(column.blockIds * 4, BLOCK_IDS_MAX);
    else if (lastedMs > BLOCK_DURATION_MS_MAX) {
      column.blockIds = Math.max(Math.floor(column.blockIds / 4), BLOCK_IDS_MIN);
    }
    column.reserve = undefined;
    column.blockStartedMs = nowMs;
    column.rest.push(...blocks);
    column.left = blocks.reduce((sum, { first, last }) => sum + last - first + 1, 0);
    column.prefetchBelow = Math.floor(column.left / 2);
    useBlock(column, column.rest.shift());
    return true;
  }

  #prefetch(column: Column): void {
    // What goes wrong here is met again, and told, by the take() that finds no block.
    this.#fetch(column, 0).catch(() => undefined);
  }

  #fetch(column: Column, needed: number): Promise<void> {
    const count = Math.min(Math.max(column.blockIds, needed), BLOCK_IDS_MAX);
    column.fetching ??= this.#lease({ tableId: column.tableId, column: column.name, count })
      .then((blocks) => {
        column.reserve = blocks;
      })
      .finally(() => {
        column.fetching = undefined;
      });
    return column.fetching;
  }

  async #wait(column: Column, needed: number, deadlineMs: number): Promise<void> {
    const remainingMs = deadlineMs - this.#nowMs();
    if (remainingMs <= 0) throw noIds('it did not answer in time');
    let timer: NodeJS.Timeout | undefined;
    const overdue = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(noIds('it did not answer in time')), remainingMs);
    });
    try {
      await Promise.race([this.#fetch(column, needed), overdue]);
    } catch (error) {
      if (error instanceof PosternError && error.sqlState.startsWith('08')) throw noIds(error.message);
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }
}

function useBlock(column: Column, block: IdBlock | undefined): void {
  assert(
    block && block.first <= block.last && Number.isSafeInteger(block.last),
    'a block of ids is empty or too high',
  );
  column.next = block.first;
  column.last = block.last;
}

/** The catalog is away and the leased block is used up. Nothing was written; retry when it is back. */
function noIds(cause: string): PosternError {
  return new PosternError({
    sqlState: '53000',
    message: 'no ids are left: the catalog is away',
    detail: cause,
    hint: 'Retry when the home node is back, or give the column a value of your own.',
  });
}

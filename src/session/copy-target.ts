/**
 * Where the rows of a COPY … FROM belong: a row of a sharded table to the bucket of its key, one of a reference table to all
 * nodes. And what the router puts in front of each row: ids of columns that the client has left out.
 */
import type { BackendConnection } from '../backend/connection.ts';
import type { RowView } from '../copy/line-rows.ts';
import type { LeafTarget } from './leaf-errors.ts';

/** A slot of rows that are gathered together: a bucket, or all rows of a reference table. */
export interface Slot {
  /** What the table is called on its nodes. */
  readonly name: string;
  readonly quoted: string;
  readonly leaf: LeafTarget | undefined;
  /** The node that gets the rows first, and those that get the same when it has taken them. */
  readonly nodeIds: readonly number[];
}

export interface PlacedRow {
  readonly slot: number;
  readonly row: RowView;
  readonly prefix: Buffer | undefined;
}

/** What place() gives for a row whose bucket a server has to be asked for. */
export const UNSURE = -1;

export interface CopyTarget {
  readonly slotCount: number;
  /** Columns whose values are put in front of the client's, and how they look there in text and CSV. */
  readonly prefixColumns: readonly string[];
  readonly prefixPattern: RegExp | undefined;
  /** Bytes of a row that its prefix replaces. */
  readonly replacedBytes: number;
  slot(index: number): Slot;
  /** Fetches what so many rows need, before they are placed. */
  provide(rowsMax: number): Promise<void>;
  /** Does it need anything for so many rows? */
  lacks(rowsMax: number): boolean;
  /** What is said if a node has taken other rows than the first one. */
  differs(nodeId: number): Error;
  /** The row's slot, or UNSURE. */
  place(row: RowView): number;
  /** What stands before the row that was placed last. */
  readonly prefix: Buffer | undefined;
  /** Index of the field that place() looks at; −1: none. */
  readonly keyIndex: number;
  /** Before the first part goes to a node, and behind the last. */
  open?(connection: BackendConnection): Promise<void>;
  close?(connection: BackendConnection): Promise<void>;
  /** Are there rows that place() was not sure of? */
  readonly hasUnsure: boolean;
  /** Those, with their slots. */
  placeUnsure(): Promise<readonly PlacedRow[]>;
}

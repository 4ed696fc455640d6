/**
 * COPY … FROM of a reference table: all rows to the home node, and what it has taken to all others. What the client leaves out
 * and the table has a default for is computed once, on the home node, and put in front of each row: a sequence, now() or
 * random() would give each node a value of its own.
 */
import type { BackendConnection } from '../backend/connection.ts';
import { ask } from '../backend/internal-query.ts';
import { queryRows } from '../backend/typed-query.ts';
import { assert } from '../base/assert.ts';
import { notSupported } from '../base/errors.ts';
import type { ReferenceTable } from '../catalog/map.ts';
import { LOWER_GUARD, liftGuard } from '../catalog/reference-guard.ts';
import type { CopyFormat } from '../copy/format.ts';
import type { RowView } from '../copy/line-rows.ts';
import { RowOutput } from '../copy/row-output.ts';
import { quoteQualified } from '../pg/identifier.ts';
import type { Conversation } from './conversation.ts';
import type { CopyColumn } from './copy-facts.ts';
import type { CopyTarget, PlacedRow, Slot } from './copy-target.ts';
import { copiesDiffer, unknownNode } from './reference-writes.ts';

export class ReferenceCopy implements CopyTarget {
  readonly slotCount = 1;
  readonly prefixColumns: readonly string[];
  readonly prefixPattern = undefined;
  readonly replacedBytes = 0;
  readonly keyIndex = -1;
  prefix: Buffer | undefined;
  readonly hasUnsure = false;
  readonly #c: Conversation;
  readonly #table: ReferenceTable;
  readonly #slot: Slot;
  readonly #computed: readonly CopyColumn[];
  readonly #output: RowOutput;
  #home: BackendConnection | undefined;
  /** Prefixes to be given out, from the end. */
  #prefixes: Buffer[] = [];

  constructor(
    conversation: Conversation,
    options: {
      readonly table: ReferenceTable;
      readonly format: CopyFormat;
      /** The client's. */
      readonly columns: readonly string[];
      readonly facts: readonly CopyColumn[];
    },
  ) {
    const { table, format, columns, facts } = options;
    this.#c = conversation;
    this.#table = table;
    const { nodes, homeNodeId } = conversation.map;
    const { pools } = conversation.state.context;
    const unknown = nodes.find((node) => !pools.has(node.id));
    if (unknown) throw unknownNode(unknown);
    const others = nodes.filter(({ id }) => id !== homeNodeId).map(({ id }) => id);
    const quoted = quoteQualified(table.schema, table.name);
    this.#slot = { name: table.name, quoted, leaf: undefined, nodeIds: [homeNodeId, ...others] };
    this.#computed = facts.filter(
      ({ name, defaultText }) => defaultText !== undefined && !columns.includes(name),
    );
    this.prefixColumns = this.#computed.map(({ name }) => name);
    this.#output = new RowOutput(format, this.prefixColumns);
    if (this.#computed.length > 0 && format.kind === 'binary')
      throw computedInBinary(table, this.prefixColumns);
    if (format.defaultText) throw noDefaults(table);
  }

  slot(): Slot {
    return this.#slot;
  }

  lacks(rowsMax: number): boolean {
    return this.#prefixes.length < rowsMax;
  }

  async provide(rowsMax: number): Promise<void> {
    const count = rowsMax - this.#prefixes.length;
    if (count <= 0) return;
    assert(this.#home, 'the home node is the first that rows go to');
    const values = this.#computed.map(({ defaultText }, i) => `(${defaultText})::text AS c${i}`);
    const text = `SELECT ${values.join(', ')} FROM pg_catalog.generate_series(1, ${count})`;
    const rows = await queryRows<Record<string, string | null>>(this.#home, text);
    const prefixes = rows.map((row) =>
      this.#output.prefix(
        this.#computed.map((_, i) => {
          const value = row[`c${i}`];
          return value === null || value === undefined ? null : Buffer.from(value);
        }),
      ),
    );
    this.#prefixes = [...prefixes.reverse(), ...this.#prefixes];
  }

  place(_row: RowView): number {
    this.prefix = this.#computed.length > 0 ? this.#prefixes.pop() : undefined;
    return 0;
  }

  async placeUnsure(): Promise<readonly PlacedRow[]> {
    return [];
  }

  async open(connection: BackendConnection): Promise<void> {
    const { nodes, homeNodeId } = this.#c.map;
    if (connection.address.nodeId === homeNodeId) this.#home = connection;
    await ask(connection, liftGuard(nodes.map(({ id }) => id)));
  }

  async close(connection: BackendConnection): Promise<void> {
    await ask(connection, LOWER_GUARD);
  }

  differs(nodeId: number): Error {
    const node = this.#c.map.nodes.find(({ id }) => id === nodeId);
    assert(node, 'rows go to nodes of the map');
    return copiesDiffer(this.#table.name, node);
  }
}

function computedInBinary(table: ReferenceTable, columns: readonly string[]) {
  return notSupported(
    `COPY in binary format that leaves out columns with defaults of reference table "${table.schema}.${table.name}"`,
    `Use text or CSV format, or give the columns: ${columns.join(', ')}.`,
  );
}

function noDefaults(table: ReferenceTable) {
  return notSupported(
    `COPY with the option DEFAULT on reference table "${table.schema}.${table.name}"`,
    'Leave columns that are to have their defaults out of the list of columns.',
  );
}

/**
 * A statement that writes to a reference table, in both protocols: carried out on the home node, and then on all others, in one
 * transaction of the client's (branches.ts).
 *
 *   home: [lock the table] guard lifted, the statement, guard lowered ──its rows and tag──▶ all others side by side: the same
 *   with the rows (or the statement itself) ──the same counts──▶ done ──otherwise──▶ the transaction has failed
 *
 * Invariant: whoever writes to a table is on the home node first, and so waits there, and not in a ring over nodes.
 * Invariant: each node's command tag says as many rows as home's, or the transaction fails.
 */
import type { BackendConnection } from '../backend/connection.ts';
import { rowFrames } from '../backend/row-frames.ts';
import { BOUNDS } from '../base/bounds.ts';
import { notSupported, objectError, PosternError } from '../base/errors.ts';
import type { NodeInfo } from '../catalog/map.ts';
import { LOWER_GUARD, liftGuard } from '../catalog/reference-guard.ts';
import { batchesOf, formatOf, ReturnedRows } from '../execute/reference-rows.ts';
import { quoteQualified } from '../pg/identifier.ts';
import { portableOids } from '../pg/oid.ts';
import type { StatementPlan } from '../plan/plan.ts';
import type { ReferenceRows, ReferenceWritePlacement } from '../plan/reference-write.ts';
import { BindView, bindTailOf, bindTailOfValues, textBindFrame } from '../wire/frontend.ts';
import { Backend } from '../wire/message-types.ts';
import type { Conversation } from './conversation.ts';
import { type BoundPiece, RunningPieces } from './pieces.ts';
import type { RowsListener } from './rows-in-order.ts';
import { countOf, type ScatteredPortal } from './scattered-run.ts';

/** Nobody else may write to the table, and whoever has is done on this node, too. */
const LOCK_MODE = 'SHARE ROW EXCLUSIVE';

const NO_VALUES = textBindFrame([]);
const NO_VALUES_VIEW = new BindView().read(NO_VALUES);
const NO_VALUES_TAIL = bindTailOf(NO_VALUES_VIEW, NO_VALUES.buffer, []);

/** Gives the command tag. The rows that the client has asked for go to `output` as they come. */
export async function runReferenceWrite(
  conversation: Conversation,
  portal: ScatteredPortal,
  output: RowsListener,
): Promise<string> {
  const [statement] = portal.statement.cached.plan.statements;
  const placement = statement!.placement as ReferenceWritePlacement;
  return await new ReferenceWrite({ conversation, portal, output, statement: statement!, placement }).run();
}

interface WriteOptions {
  readonly conversation: Conversation;
  readonly portal: ScatteredPortal;
  readonly output: RowsListener;
  readonly statement: StatementPlan;
  readonly placement: ReferenceWritePlacement;
}

class ReferenceWrite {
  readonly #o: WriteOptions;
  readonly #nodes: readonly NodeInfo[];
  readonly #homeNodeId: number;
  readonly #before: readonly string[];
  #connections!: ReadonlyMap<number, BackendConnection>;

  constructor(options: WriteOptions) {
    this.#o = options;
    const { map } = options.portal.statement.cached;
    this.#nodes = map.nodes;
    this.#homeNodeId = map.homeNodeId;
    const lift = liftGuard(map.nodes.map((node) => node.id));
    const { tables, locks } = options.placement;
    const locked = locks ? tables : [];
    this.#before = [
      ...locked.map(({ schema, name }) => `LOCK TABLE ${quoteQualified(schema, name)} IN ${LOCK_MODE} MODE`),
      lift,
    ];
  }

  async run(): Promise<string> {
    const { conversation, placement, statement } = this.#o;
    const { branches } = conversation.lease;
    const { pools } = conversation.state.context;
    const unknown = this.#nodes.find((node) => !pools.has(node.id));
    if (unknown) throw unknownNode(unknown);
    if (statement.effects.length > 0) throw leavesState();
    const others = this.#nodes.filter((node) => node.id !== this.#homeNodeId);
    this.#connections = await branches.enlist([this.#homeNodeId, ...others.map((node) => node.id)]);
    return await branches.run(() =>
      placement.rows ? this.#byRows(placement.rows, others) : this.#byStatement(others),
    );
  }

  async #byRows(rows: ReferenceRows, others: readonly NodeInfo[]): Promise<string> {
    const { placement, portal, output } = this.#o;
    const [table] = placement.tables;
    const clientCount = rows.returning ? columnCountOf(portal) : 0;
    const returned = new ReturnedRows({ rows, clientCount, tableName: table!.name });
    let tooMuch: unknown;
    const [tag = ''] = await this.#onNodes([this.#homeNodeId], [this.#homeStatement(rows, clientCount)], {
      onRows: (index, buffer, start, end) => {
        if (tooMuch) return;
        try {
          for (const frame of rowFrames(buffer, start, end)) {
            const client = returned.take(frame);
            if (rows.returning) output.onRows(index, client, 0, client.length);
          }
        } catch (error) {
          tooMuch = error;
        }
      },
    });
    if (tooMuch) throw tooMuch;
    const batches = batchesOf(table!, rows, returned.rows);
    if (batches.length === 0) return tag;
    const pieces = batches.map(({ text, values, rowCount }): Statement => {
      const client = { view: NO_VALUES_VIEW, buffer: NO_VALUES.buffer, indexes: [] };
      return { text, parameterOids: [], tail: bindTailOfValues(values, client), recurs: rowCount === 1 };
    });
    const nodeIds = others.map((node) => node.id);
    const tags = await this.#onNodes(nodeIds, pieces, { onRows() {} });
    for (const [nodeAt, node] of others.entries()) {
      for (const [at, { rowCount }] of batches.entries()) {
        const count = countOf(tags[nodeAt * batches.length + at]!);
        if (count !== rowCount) throw copiesDiffer(table!.name, node);
      }
    }
    return tag;
  }

  async #byStatement(others: readonly NodeInfo[]): Promise<string> {
    const { portal, output, placement, statement } = this.#o;
    const { cached } = portal.statement;
    const own: Statement = {
      text: cached.plan.text,
      parameterOids: portableOids(portal.statement.described!.parameterOids),
      tail: Buffer.from(portal.buffer.subarray(portal.view.tailStart, portal.view.tailEnd)),
      recurs: statement.parameterCount > 0,
    };
    const [tag = ''] = await this.#onNodes([this.#homeNodeId], [own], output);
    const nodeIds = others.map((node) => node.id);
    const tags = await this.#onNodes(nodeIds, [own], { onRows() {} });
    for (const [at, node] of others.entries()) {
      if (tags[at] !== tag) throw copiesDiffer(placement.tables[0]!.name, node);
    }
    return tag;
  }

  /** The client's statement with its values, which returns what the others need behind what the client gets. */
  #homeStatement(rows: ReferenceRows, clientCount: number): Statement {
    const { portal, statement } = this.#o;
    const { view, buffer } = portal;
    const formats = [...clientFormats(portal, clientCount), ...rows.columns.map(formatOf)];
    const indexes = Array.from({ length: view.parameterCount }, (_, index) => index);
    return {
      text: rows.homeText,
      parameterOids: portal.statement.described!.parameterOids,
      tail: bindTailOf(view, buffer, indexes, formats),
      recurs: statement.parameterCount > 0,
    };
  }

  /**
   * Runs the statements, one after the other, on each of the nodes, with the guard lifted; the nodes side by side. Gives their
   * tags: all of the first node, then all of the second, ….
   */
  async #onNodes(
    nodeIds: readonly number[],
    statements: readonly Statement[],
    rows: RowsListener,
  ): Promise<readonly string[]> {
    const { conversation } = this.#o;
    const { lease, responses, state } = conversation;
    const { scope } = lease;
    const registry = state.context.statements;
    const own = (nodeId: number, text: string): BoundPiece => {
      const shared = registry.get(text, [], '');
      return { nodeId, text, shared, parameterOids: [], tail: NO_VALUES_TAIL, leaf: undefined };
    };
    const pieces: BoundPiece[] = [];
    const at: number[] = [];
    for (const nodeId of nodeIds) {
      for (const text of this.#before) pieces.push(own(nodeId, text));
      for (const { text, parameterOids, tail, recurs } of statements) {
        const kept = recurs && scope === state.scope;
        const shared = kept ? registry.get(text, parameterOids, scope) : undefined;
        at.push(pieces.length);
        pieces.push({ nodeId, text, shared, parameterOids, tail, leaf: undefined });
      }
      pieces.push(own(nodeId, LOWER_GUARD));
    }
    const wanted = new Set(at);
    const running = new RunningPieces(this.#connections, pieces, {
      onRows: (index, buffer, start, end) => {
        if (!wanted.has(index)) return;
        rows.onRows(index, buffer, start, end);
        if (state.output.unsentBytes > BOUNDS.clientUnsentBytesMax) running.pause();
      },
      onNotice: (reader) => {
        if (nodeIds[0] === this.#homeNodeId) responses.onNotice(reader);
      },
      onMissingLeaf() {},
    });
    conversation.runningPieces = running;
    // Until it has ended, it may have written.
    for (const nodeId of nodeIds) lease.branches.noteWrite(nodeId, 0);
    let tags: readonly string[];
    try {
      tags = await running.done;
    } finally {
      conversation.runningPieces = undefined;
    }
    for (const index of at) lease.branches.noteWrite(pieces[index]!.nodeId, countOf(tags[index]!));
    return at.map((index) => tags[index]!);
  }
}

interface Statement {
  readonly text: string;
  readonly parameterOids: readonly number[];
  /** A Bind message behind its two names. */
  readonly tail: Buffer;
  /** It is worth being kept prepared. */
  readonly recurs: boolean;
}

function columnCountOf(portal: ScatteredPortal): number {
  const { rows } = portal.statement.described!;
  return rows[0] === Backend.RowDescription ? rows.readUInt16BE(5) : 0;
}

/** One for each column, as the client's Bind wants them. */
function clientFormats({ view, buffer }: ScatteredPortal, count: number): (0 | 1)[] {
  const given = buffer.readUInt16BE(view.resultFormatsStart);
  return Array.from({ length: count }, (_, column) => {
    if (given === 0) return 0;
    const index = given === 1 ? 0 : Math.min(column, given - 1);
    return buffer.readInt16BE(view.resultFormatsStart + 2 + 2 * index) === 1 ? 1 : 0;
  });
}

/** A bug in Postern, or somebody has written to one copy by itself. Nothing of this statement stays. */
export function copiesDiffer(tableName: string, node: NodeInfo): PosternError {
  return new PosternError({
    sqlState: 'XX001',
    message: `the copy of reference table "${tableName}" on node "${node.name}" differs from that of the home node`,
    detail: 'A statement has changed another number of rows there. It was undone on all nodes.',
    hint: 'Compare the copies, and write the missing rows on that node directly, with the trigger postern_guard disabled.',
  });
}

/** Retry is right on another router, or on this one with its new configuration. */
export function unknownNode(node: NodeInfo): PosternError {
  return objectError(
    '55000',
    `this router does not know node "${node.name}", which has joined the cluster`,
    'Restart the router with the configuration that has all nodes: a reference table is written to on each of them.',
  );
}

function leavesState(): PosternError {
  return notSupported(
    'a statement that writes to a reference table and changes the session is not supported',
    'Call the function in a statement of its own.',
  );
}

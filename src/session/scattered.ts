/**
 * A statement over several buckets, in both protocols: taken apart (execute/scatter.ts), run on a branch of the client's
 * transaction on each node that it concerns (branches.ts, pieces.ts), and answered as one statement.
 *
 * Invariant: outside of a transaction, an answer to the simple protocol says that it is done only when it has committed on
 * all nodes; in the extended protocol the transaction ends with the pipeline's Sync, as PostgreSQL's own does.
 */
import { assert } from '../base/assert.ts';
import { BOUNDS } from '../base/bounds.ts';
import { notSupported, objectError, PosternError, queryCanceled } from '../base/errors.ts';
import type { ShardedTable } from '../catalog/map.ts';
import { bucketsOf } from '../execute/route.ts';
import { inOrder, type Piece, piecesOfLeaves, piecesOfRead, piecesOfRows } from '../execute/scatter.ts';
import { portableOids } from '../pg/oid.ts';
import type { KeySource, Placement, QueryPlan, SuppliedId } from '../plan/plan.ts';
import type { Scatter } from '../plan/scatter.ts';
import type { ScatterRead } from '../plan/scatter-read.ts';
import { encodeCommandComplete } from '../wire/backend.ts';
import { BindView, bindTail, bindTailOf, textBindFrame } from '../wire/frontend.ts';
import { Backend } from '../wire/message-types.ts';
import type { Conversation } from './conversation.ts';
import { MergedRead } from './merged-read.ts';
import { type BoundPiece, RunningPieces } from './pieces.ts';
import type { ClientStatement, PreparedExecution } from './prepared-execution.ts';
import { runReferenceWrite } from './reference-writes.ts';
import { RowTransfer, type SourcePiece } from './row-transfer.ts';
import { RowsInOrder, type RowsListener } from './rows-in-order.ts';
import { countOf, type ScatteredPortal, type ScatteredRun, summedTag } from './scattered-run.ts';

export class ScatteredStatements {
  readonly #c: Conversation;
  readonly #execution: PreparedExecution;

  constructor(conversation: Conversation, execution: PreparedExecution) {
    this.#c = conversation;
    this.#execution = execution;
  }

  /** A Query of this one statement: all of its answer but ReadyForQuery. */
  async query(statement: ClientStatement): Promise<void> {
    if (statement.cached.plan.statements[0]!.parameterCount > 0) throw noParameter();
    await this.#execution.describeKeyed(statement);
    const frame = textBindFrame([]);
    const view = new BindView().read(frame);
    const { rows } = statement.described!;
    const hasRows = rows[0] === Backend.RowDescription;
    const portal = { statement, view, buffer: frame.buffer, done: false };
    const { branches } = this.#c.lease;
    let tag: string;
    try {
      tag = await this.#run(portal, hasRows ? rows : undefined);
    } catch (error) {
      // What fails between its pieces leaves the transaction open.
      if (branches.implicit) await branches.rollback();
      throw error;
    }
    if (branches.implicit) await this.#c.control.endImplicit();
    encodeCommandComplete(this.#c.state.output.writer, tag);
  }

  /** Keeps the values of a Bind. */
  bind(statement: ClientStatement, view: BindView, buffer: Buffer): ScatteredPortal {
    const start = view.tailStart - 2;
    const kept = Buffer.alloc(view.tailEnd - start);
    buffer.copy(kept, 2, view.tailStart, view.tailEnd);
    return {
      statement,
      // Behind two empty names.
      view: new BindView().read({ buffer: kept, bodyStart: 0, end: kept.length }),
      buffer: kept,
      done: false,
    };
  }

  /** An Execute: all of its answer. */
  async execute(portal: ScatteredPortal, name: string, maxRows: number): Promise<void> {
    if (portal.done) throw objectError('55000', `portal "${name}" cannot be run`);
    const { rows } = portal.statement.described!;
    if (maxRows > 0 && rows[0] === Backend.RowDescription) {
      throw notSupported(
        'a statement over several buckets cannot be executed with a limit of rows',
        'Set no fetch size for it, or use LIMIT.',
      );
    }
    portal.done = true;
    const tag = await this.#run(portal, undefined);
    encodeCommandComplete(this.#c.state.output.writer, tag);
  }

  /** `columns`: a RowDescription to be sent before the first row, or the end. Gives the command tag. */
  async #run(portal: ScatteredPortal, columns: Buffer | undefined): Promise<string> {
    const { statement } = portal;
    const { plan } = statement.cached;
    const [only] = plan.statements;
    this.#refuseState(plan);
    this.#c.isCanceled = false;
    if (only!.placement.kind === 'referenceWrite') return await this.#referenceWrite(portal, columns);
    const { scatter, table, suppliedIds } = scatterOf(only!.placement);
    const described = statement.described!;
    const run: ScatteredRun = { plan, statement: only!, table, described, portal, suppliedIds };
    const output = new ScatteredOutput(this.#c, columns);
    const tag = await this.#carryOut(scatter, run, output);
    output.end();
    return tag;
  }

  async #referenceWrite(portal: ScatteredPortal, columns: Buffer | undefined): Promise<string> {
    const output = new ScatteredOutput(this.#c, columns);
    const tag = await runReferenceWrite(this.#c, portal, output);
    output.end();
    return tag;
  }

  async #carryOut(scatter: Scatter, run: ScatteredRun, output: ScatteredOutput): Promise<string> {
    switch (scatter.kind) {
      case 'leaves': {
        const buckets = await this.bucketsOfKeys(run, scatter.keys);
        const pieces = piecesOfLeaves(run.plan, run.table, buckets);
        return summedTag(await this.runPieces(run, pieces, output));
      }
      case 'rows': {
        const ids = await this.#takeIds(run.suppliedIds);
        const keys = scatter.rows.map(({ key }) => key);
        const buckets = await this.#bucketsOf(run, keys, ids);
        const pieces = piecesOfRows(run.plan, scatter, { table: run.table, buckets, ids });
        const inOrder = new RowsInOrder(
          pieces.map(({ rows }) => rows!),
          output,
        );
        const tags = await this.runPieces(run, pieces, inOrder);
        inOrder.end();
        return summedTag(tags);
      }
      case 'read': {
        const buckets = await this.bucketsOfKeys(run, scatter.keys);
        return new MergedRead(this.#c, scatter, run).answer(buckets, output);
      }
      case 'copy':
        return new RowTransfer(this.#c, this.#execution, this).copy(scatter, run, output);
      case 'move':
        return new RowTransfer(this.#c, this.#execution, this).move(scatter, run, output);
    }
  }

  /** The buckets of these keys, or all, in the order in which they are worked on. */
  async bucketsOfKeys(run: ScatteredRun, keys: readonly KeySource[] | undefined): Promise<number[]> {
    return inOrder(run.table, keys && (await this.#bucketsOf(run, keys, [])));
  }

  async answerMerged(run: ScatteredRun, read: ScatterRead, rows: RowsListener): Promise<void> {
    await new MergedRead(this.#c, read, run).answer(await this.bucketsOfKeys(run, read.keys), rows);
  }

  /** The parts of a query whose rows together are those of the query, as they are. */
  async piecesOfQuery(run: ScatteredRun): Promise<readonly SourcePiece[]> {
    const { scatter, table } = scatterOf(run.statement.placement);
    assert(scatter.kind === 'read' && !scatter.merge, 'a query is read');
    return piecesOfRead(run.plan, scatter, { table, buckets: await this.bucketsOfKeys(run, scatter.keys) });
  }

  #bucketsOf(run: ScatteredRun, keys: readonly KeySource[], ids: readonly number[]): Promise<number[]> {
    const { portal, described, table } = run;
    const bind = { view: portal.view, buffer: portal.buffer, oids: described.parameterOids };
    return bucketsOf(table, keys, { bind, ids }, (text) => this.#c.askAnyNode(text));
  }

  async #takeIds(suppliedIds: readonly SuppliedId[]): Promise<number[]> {
    const ids: number[] = new Array(suppliedIds.length).fill(0);
    const byColumn = new Map<string, { readonly table: ShardedTable; readonly at: number[] }>();
    for (const [index, { table, column }] of suppliedIds.entries()) {
      const known = byColumn.get(column);
      if (known) known.at.push(index);
      else byColumn.set(column, { table, at: [index] });
    }
    for (const [column, { table, at }] of byColumn) {
      const taken = await this.#c.state.context.ids.take(table, column, at.length);
      for (const [i, index] of at.entries()) ids[index] = taken[i]!;
    }
    return ids;
  }

  /** Runs pieces on branches of the client's transaction. Gives their command tags. */
  async runPieces(
    run: ScatteredRun,
    pieces: readonly Piece[],
    rows: RowsListener,
  ): Promise<readonly string[]> {
    const bound = pieces.map((piece) => this.bindPiece(run, piece));
    return this.runBound(bound, { writes: !run.statement.readOnly }, rows);
  }

  /** The same for pieces with their values. `writes`: they may. */
  async runBound(
    bound: readonly BoundPiece[],
    { writes }: { readonly writes: boolean },
    rows: RowsListener,
  ): Promise<readonly string[]> {
    if (this.#c.isCanceled) throw queryCanceled();
    const { branches } = this.#c.lease;
    const nodeIds = [...new Set(bound.map(({ nodeId }) => nodeId))];
    const connections = await branches.enlist(nodeIds);
    const { catalog } = this.#c.state.context;
    const tags = await branches.run(() => {
      const running = new RunningPieces(connections, bound, {
        onRows: (index, buffer, start, end) => {
          rows.onRows(index, buffer, start, end);
          if (this.#c.state.output.unsentBytes > BOUNDS.clientUnsentBytesMax) running.pause();
        },
        onNotice: (reader) => this.#c.responses.onNotice(reader),
        onMissingLeaf: () => void catalog.refresh().catch(() => {}),
      });
      this.#c.runningPieces = running;
      // Until it has ended, it may have written.
      if (writes) for (const nodeId of nodeIds) branches.noteWrite(nodeId, 0);
      return running.done.finally(() => {
        this.#c.runningPieces = undefined;
      });
    });
    if (writes)
      for (const [index, { nodeId }] of bound.entries()) branches.noteWrite(nodeId, countOf(tags[index]!));
    return tags;
  }

  bindPiece(run: ScatteredRun, piece: Piece): BoundPiece {
    const { view, buffer } = run.portal;
    const oids = portableOids(run.described.parameterOids);
    const { parameters, table, bucket, text, mapPosition, nodeId } = piece;
    const parameterOids = parameters ? parameters.map((index) => oids[index] ?? 0) : oids;
    const { statements } = this.#c.state.context;
    // A scope of one transaction, and a text of the simple protocol, are not worth remembering.
    const { scope } = this.#c.lease;
    const recurs = piece.recurs && oids.length > 0 && scope === this.#c.state.scope;
    return {
      ...{ nodeId, text, parameterOids, leaf: bucket < 0 ? undefined : { table, bucket, mapPosition } },
      shared: recurs ? statements.get(text, parameterOids, scope) : undefined,
      tail: parameters ? bindTailOf(view, buffer, parameters) : bindTail(view, buffer, undefined).bytes,
    };
  }

  /** What stays in a session can't stay on several nodes. */
  #refuseState(plan: QueryPlan): void {
    const { context } = this.#c.state;
    const functions = plan.statements.flatMap(({ unknownFunctions }) => unknownFunctions);
    const unsure = functions.length > 0 && this.#c.lease.ddlUncommitted;
    if (!unsure && !context.relations.leavesState(plan) && !context.functions.mayLeaveState(functions))
      return;
    throw notSupported(
      'a statement over several buckets calls functions that may leave state in the session',
      'Send it for one bucket at a time.',
      functions.length > 0 ? `Functions: ${functions.join(', ')}.` : undefined,
    );
  }
}

/** Rows to the client as they come. */
export class ScatteredOutput implements RowsListener {
  readonly #c: Conversation;
  #columns: Buffer | undefined;

  constructor(conversation: Conversation, columns: Buffer | undefined) {
    this.#c = conversation;
    this.#columns = columns;
  }

  onRows(_index: number, buffer: Buffer, start: number, end: number): void {
    this.#tellColumns();
    this.#c.state.output.writer.raw(buffer, start, end);
  }

  /** Without rows, the columns are told all the same. */
  end(): void {
    this.#tellColumns();
  }

  #tellColumns(): void {
    if (!this.#columns) return;
    this.#c.state.output.writer.raw(this.#columns, 0, this.#columns.length);
    this.#columns = undefined;
  }
}

/** A RowDescription of a statement with the formats that a Bind asks for. Gives a NoData as it is. */
export function columnsOfPortal({ view, buffer, statement }: ScatteredPortal): Buffer {
  const { rows } = statement.described!;
  if (rows[0] !== Backend.RowDescription) return rows;
  const told = Buffer.from(rows);
  const formatCount = buffer.readUInt16BE(view.resultFormatsStart);
  const count = told.readUInt16BE(5);
  let at = 7;
  for (let column = 0; column < count; column++) {
    at = told.indexOf(0, at) + 1 + FIELD_BYTES;
    if (formatCount === 0) continue;
    const index = formatCount === 1 ? 0 : Math.min(column, formatCount - 1);
    told.writeInt16BE(buffer.readInt16BE(view.resultFormatsStart + 2 + 2 * index), at - 2);
  }
  return told;
}

/** Of a field in RowDescription behind its name; the last two are the format. */
const FIELD_BYTES = 18;

function scatterOf(placement: Placement): {
  scatter: Scatter;
  table: ShardedTable;
  suppliedIds: readonly SuppliedId[];
} {
  if (placement.kind === 'scattered') return placement;
  if (placement.kind !== 'keyed' || !placement.several)
    throw notSupported('the statement is of one bucket', 'This is a bug in Postern.');
  const { several, table, suppliedIds } = placement;
  return { scatter: several, table, suppliedIds };
}

function noParameter(): PosternError {
  return new PosternError({ sqlState: '42P02', message: 'there is no parameter $1' });
}

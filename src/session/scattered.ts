/**
 * A statement over several buckets, in both protocols: taken apart (execute/scatter.ts), run on a branch of the client's
 * transaction on each node that it concerns (branches.ts, pieces.ts), and answered as one statement.
 *
 * Invariant: outside of a transaction, an answer to the simple protocol says that it is done only when it has committed on
 * all nodes; in the extended protocol the transaction ends with the pipeline's Sync, as PostgreSQL's own does.
 */
import { rowFrames } from '../backend/row-frames.ts';
import { assert } from '../base/assert.ts';
import { BOUNDS } from '../base/bounds.ts';
import { notSupported, objectError, PosternError, queryCanceled } from '../base/errors.ts';
import { chooseBucket } from '../execute/choose.ts';
import { bucketsOf, bucketsWithin, type KeyValues, SEVERAL } from '../execute/route.ts';
import {
  inOrder,
  nodeOf,
  type Piece,
  piecesOfLeaves,
  piecesOfRead,
  piecesOfRows,
} from '../execute/scatter.ts';
import { portableOids } from '../pg/oid.ts';
import type { CopyPlacement } from '../plan/copy.ts';
import type { ExplainPlacement } from '../plan/explain.ts';
import type { KeyScope } from '../plan/key-limits.ts';
import type { KeySource, QueryPlan, SuppliedId } from '../plan/plan.ts';
import { rewriteQuery } from '../plan/rewrite.ts';
import type { Scatter, ScatterRows } from '../plan/scatter.ts';
import type { ScatterRead } from '../plan/scatter-read.ts';
import { encodeCommandComplete, encodePortalSuspended } from '../wire/backend.ts';
import { BindView, bindTail, bindTailOf, textBindFrame } from '../wire/frontend.ts';
import { Backend } from '../wire/message-types.ts';
import type { Conversation } from './conversation.ts';
import { runCopy } from './copy.ts';
import { CarriedQueries } from './copy-query.ts';
import { ExplainRun } from './explain-run.ts';
import { LookupWrites } from './lookup-writes.ts';
import { type Measurement, measure } from './measurement.ts';
import { MergedRead } from './merged-read.ts';
import { type BoundPiece, RunningPieces } from './pieces.ts';
import type { ClientStatement, PreparedExecution } from './prepared-execution.ts';
import { runReferenceWrite } from './reference-writes.ts';
import { RowTransfer, type SourcePiece } from './row-transfer.ts';
import { RowsInOrder, type RowsListener } from './rows-in-order.ts';
import {
  countOf,
  runInPortions,
  type ScatteredPortal,
  type ScatteredRun,
  scatterOf,
  summedTag,
} from './scattered-run.ts';

export class ScatteredStatements {
  readonly #c: Conversation;
  readonly #execution: PreparedExecution;
  /** Of the statement that is being carried out, if it may change unique values off the key. */
  #lookups: LookupWrites | undefined;
  /** Of the statement that is being carried out. */
  #measurement: Measurement | undefined;

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
    const portal: ScatteredPortal = { statement, view, buffer: frame.buffer, done: false };
    const { branches } = this.#c.lease;
    let tag: string;
    try {
      tag = await this.#measured(portal, hasRows ? rows : undefined);
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
    const { rows } = portal.statement.described!;
    if (portal.done !== false) return this.#executeAgain(portal.done, name, rows);
    const [only] = portal.statement.cached.plan.statements;
    if (only?.placement.kind === 'explain' && (maxRows > 0 || portal.rowsLeft))
      return await this.#explainPortion(only.placement, portal, maxRows);
    if (this.#c.mesh.holds(portal) || (maxRows > 0 && rows[0] === Backend.RowDescription))
      return await this.#portion(portal, maxRows);
    portal.done = '';
    const tag = await this.#measured(portal, undefined);
    portal.done = tag;
    encodeCommandComplete(this.#c.state.output.writer, tag);
  }

  /** Its rows have all been told: a SELECT has none left, RETURNING says again what was written (PostgreSQL: PortalRun). */
  #executeAgain(tag: string, name: string, rows: Buffer): void {
    if (tag === '' || rows[0] !== Backend.RowDescription)
      throw objectError('55000', `portal "${name}" cannot be run`);
    encodeCommandComplete(this.#c.state.output.writer, /^SELECT /.test(tag) ? 'SELECT 0' : tag);
  }

  /** An Execute with a limit of rows: the mesh has portals that can be gone on with. */
  async #portion(portal: ScatteredPortal, maxRows: number): Promise<void> {
    const { statement } = portal;
    const [only] = statement.cached.plan.statements;
    this.#refuseState(statement.cached.plan);
    this.#c.isCanceled = false;
    const run = runInPortions(only!, portal);
    const output = new ScatteredOutput(this.#c, undefined);
    const tag = await this.#c.mesh.portion(run, maxRows, output);
    const { writer } = this.#c.state.output;
    if (tag === undefined) encodePortalSuspended(writer);
    else {
      portal.done = tag;
      encodeCommandComplete(writer, tag);
    }
  }

  /** The rows of an EXPLAIN are made at once, and kept. */
  async #explainPortion(
    placement: ExplainPlacement,
    portal: ScatteredPortal,
    maxRows: number,
  ): Promise<void> {
    if (!portal.rowsLeft) {
      const rows: Buffer[] = [];
      this.#refuseState(portal.statement.cached.plan);
      this.#c.isCanceled = false;
      await this.#explained(placement, portal, {
        onRows: (_index, buffer, start, end) => {
          for (const frame of rowFrames(buffer, start, end))
            rows.push(Buffer.from(buffer.subarray(frame.bodyStart - 5, frame.end)));
        },
      });
      portal.rowsLeft = rows;
    }
    const { writer } = this.#c.state.output;
    const told = portal.rowsLeft.splice(0, maxRows > 0 ? maxRows : portal.rowsLeft.length);
    for (const frame of told) writer.raw(frame, 0, frame.length);
    if (maxRows > 0 && told.length === maxRows) encodePortalSuspended(writer);
    else {
      portal.done = 'EXPLAIN';
      encodeCommandComplete(writer, 'EXPLAIN');
    }
  }

  #explained(placement: ExplainPlacement, portal: ScatteredPortal, rows: RowsListener): Promise<string> {
    const parts = { conversation: this.#c, execution: this.#execution, scattered: this };
    return new ExplainRun({ ...parts, placement, portal }).answer(rows);
  }

  /** `columns`: a RowDescription to be sent before the first row, or the end. Gives the command tag. */
  async #measured(portal: ScatteredPortal, columns: Buffer | undefined): Promise<string> {
    const measurement = measure(this.#c.state, portal.statement.cached, undefined);
    this.#measurement = measurement;
    try {
      const tag = await this.#run(portal, columns);
      measurement?.addCount(countOf(tag));
      measurement?.end();
      return tag;
    } catch (error) {
      measurement?.fail();
      throw error;
    }
  }

  async #run(portal: ScatteredPortal, columns: Buffer | undefined): Promise<string> {
    const { statement } = portal;
    const { plan } = statement.cached;
    const [only] = plan.statements;
    this.#refuseState(plan);
    this.#c.isCanceled = false;
    if (only!.placement.kind === 'referenceWrite') return await this.#referenceWrite(portal, columns);
    if (only!.placement.kind === 'copy') return await this.#copy(only!.placement, portal);
    if (only!.placement.kind === 'explain') return await this.#explain(only!.placement, portal, columns);
    if (!only!.keepsLookups) return await this.#runParts(portal, columns);
    const lookups = new LookupWrites(this.#c);
    this.#lookups = lookups;
    let tag: string;
    try {
      tag = await this.#runParts(portal, columns);
    } finally {
      this.#lookups = undefined;
    }
    await lookups.keep(this);
    return tag;
  }

  async #runParts(portal: ScatteredPortal, columns: Buffer | undefined): Promise<string> {
    const { statement } = portal;
    const { plan } = statement.cached;
    const [only] = plan.statements;
    const one = only!.keepsLookups ? await this.#oneBucket(portal) : undefined;
    if (one) {
      const output = new ScatteredOutput(this.#c, columns);
      const tag = summedTag(await this.runPieces(one.run, [one.piece], output));
      output.end();
      return tag;
    }
    const { scatter, table, suppliedIds } = scatterOf(only!.placement);
    const described = statement.described!;
    const run: ScatteredRun = { plan, statement: only!, table, described, portal, suppliedIds };
    this.#measurement?.notePlace(scatter.kind === 'mesh' ? 'mesh' : 'scattered');
    const output = new ScatteredOutput(this.#c, columns);
    const tag = await this.carryOut(scatter, run, output);
    output.end();
    return tag;
  }

  async #copy(placement: CopyPlacement, portal: ScatteredPortal): Promise<string> {
    const lookups = new LookupWrites(this.#c);
    this.#c.copiedLookups = lookups;
    let tag: string;
    try {
      const queries = new CarriedQueries(this.#c, this.#execution, this);
      tag = await runCopy(this.#c, placement, { portal, queries });
    } finally {
      this.#c.copiedLookups = undefined;
    }
    await lookups.keep(this);
    return tag;
  }

  /** A statement of one bucket, which goes this way for its unique values alone. */
  async #oneBucket(portal: ScatteredPortal): Promise<{ run: ScatteredRun; piece: Piece } | undefined> {
    const { statement, view, buffer } = portal;
    const { plan } = statement.cached;
    const [only] = plan.statements;
    const { placement } = only!;
    if (placement.kind !== 'keyed') return undefined;
    const described = statement.described!;
    const { table, suppliedIds } = placement;
    const bind = { view, buffer, oids: described.parameterOids };
    const { bucket, ids } = await chooseBucket(placement, bind, this.#c.chooseContext);
    if (bucket === SEVERAL) return undefined;
    const { text, mapPosition } = rewriteQuery(plan, [{ bucket, ids }], 'literal');
    const piece = {
      ...{ nodeId: nodeOf(table, bucket), table, bucket, text, mapPosition },
      ...{ parameters: undefined, recurs: ids.length === 0, rows: undefined },
    };
    return { run: { plan, statement: only!, table, described, portal, suppliedIds }, piece };
  }

  async #referenceWrite(portal: ScatteredPortal, columns: Buffer | undefined): Promise<string> {
    this.#measurement?.noteNodes(this.#c.map.nodes.map(({ id }) => id));
    const output = new ScatteredOutput(this.#c, columns);
    const tag = await runReferenceWrite(this.#c, portal, output);
    output.end();
    return tag;
  }

  async #explain(
    placement: ExplainPlacement,
    portal: ScatteredPortal,
    columns: Buffer | undefined,
  ): Promise<string> {
    const output = new ScatteredOutput(this.#c, columns);
    const tag = await this.#explained(placement, portal, output);
    output.end();
    return tag;
  }

  /** Gives the command tag. */
  async carryOut(scatter: Scatter, run: ScatteredRun, output: RowsListener): Promise<string> {
    switch (scatter.kind) {
      case 'leaves': {
        const buckets = await this.bucketsOfKeys(run, scatter.keys);
        const pieces = piecesOfLeaves(run.plan, run.table, buckets);
        return summedTag(await this.runPieces(run, pieces, output));
      }
      case 'rows': {
        const pieces = await this.piecesOfValues(run, scatter);
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
        this.#measurement?.noteNodes(buckets.map((bucket) => nodeOf(run.table, bucket)));
        return new MergedRead(this.#c, scatter, run).answer(buckets, output);
      }
      case 'mesh':
        return this.#c.mesh.answer(run, output);
      case 'copy':
        return new RowTransfer(this.#c, this.#execution, this).copy(scatter, run, output);
      case 'move':
        return new RowTransfer(this.#c, this.#execution, this).move(scatter, run, output);
    }
  }

  async piecesOfValues(run: ScatteredRun, scatter: ScatterRows): Promise<Piece[]> {
    const ids = await this.#takeIds(run.suppliedIds);
    const keys = scatter.rows.map(({ key }) => key);
    const buckets = await this.#bucketsOf(run, keys, ids);
    return piecesOfRows(run.plan, scatter, { table: run.table, buckets, ids });
  }

  /** The buckets of these keys, or all, in the order in which they are worked on. */
  async bucketsOfKeys(run: ScatteredRun, keys: KeyScope): Promise<number[]> {
    if (keys && 'limits' in keys)
      return inOrder(run.table, bucketsWithin(run.table, keys.limits, valuesOf(run, [])));

    return inOrder(run.table, keys && (await this.#bucketsOf(run, keys, [])));
  }

  async answerMerged(run: ScatteredRun, read: ScatterRead, rows: RowsListener): Promise<string> {
    return await new MergedRead(this.#c, read, run).answer(await this.bucketsOfKeys(run, read.keys), rows);
  }

  /** The parts of a query whose rows together are those of the query, as they are. */
  async piecesOfQuery(run: ScatteredRun): Promise<readonly SourcePiece[]> {
    const { scatter, table } = scatterOf(run.statement.placement);
    assert(scatter.kind === 'read' && !scatter.merge, 'a query is read');
    return piecesOfRead(run.plan, scatter, { table, buckets: await this.bucketsOfKeys(run, scatter.keys) });
  }

  #bucketsOf(run: ScatteredRun, keys: readonly KeySource[], ids: readonly number[]): Promise<number[]> {
    return bucketsOf(run.table, keys, valuesOf(run, ids), (text) => this.#c.askAnyNode(text));
  }

  async #takeIds(suppliedIds: readonly SuppliedId[]): Promise<number[]> {
    const { sequences, ids: source } = this.#c;
    const ids: number[] = new Array(suppliedIds.length).fill(0);
    const byColumn = new Map<string, { readonly supplied: SuppliedId; readonly at: number[] }>();
    for (const [index, supplied] of suppliedIds.entries()) {
      if (supplied.call === 'currval' || supplied.call === 'lastval') continue;
      const key = `${supplied.table.id} ${supplied.column}`;
      const known = byColumn.get(key);
      if (known) known.at.push(index);
      else byColumn.set(key, { supplied, at: [index] });
    }
    for (const { supplied, at } of byColumn.values()) {
      const taken = await source.take(supplied.table, supplied.column, at.length);
      for (const [i, index] of at.entries()) ids[index] = taken[i]!;
    }
    for (const [index, supplied] of suppliedIds.entries()) {
      if (supplied.call === 'currval' || supplied.call === 'lastval')
        ids[index] = sequences.valueOf(supplied);
      else sequences.noteSupplied(supplied, ids[index]!);
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
    const run = (pieces: readonly BoundPiece[], listener: RowsListener) =>
      this.#runOnBranches(pieces, writes, listener);
    return writes && this.#lookups ? await this.#lookups.around(bound, rows, run) : await run(bound, rows);
  }

  async #runOnBranches(
    bound: readonly BoundPiece[],
    writes: boolean,
    rows: RowsListener,
  ): Promise<readonly string[]> {
    if (this.#c.isCanceled) throw queryCanceled();
    const { branches } = this.#c.lease;
    const nodeIds = [...new Set(bound.map(({ nodeId }) => nodeId))];
    this.#measurement?.noteNodes(nodeIds);
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
class ScatteredOutput implements RowsListener {
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

function valuesOf({ portal, described }: ScatteredRun, ids: readonly number[]): KeyValues {
  return { bind: { view: portal.view, buffer: portal.buffer, oids: described.parameterOids }, ids };
}

function noParameter(): PosternError {
  return new PosternError({ sqlState: '42P02', message: 'there is no parameter $1' });
}

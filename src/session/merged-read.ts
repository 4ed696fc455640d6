/**
 * A SELECT over several buckets: its pieces on all nodes at once, and where rows have to be put together, a final query on
 * one of them. In a transaction it runs on the transaction's own branches, and sees what it has written; outside, on borrowed
 * connections without a transaction, as each statement of READ COMMITTED sees its own snapshot.
 *
 * Rows that need no merge pass as they come, whole frames. Those that do are kept as bytes, within a bound.
 *
 * Previous hop: scattered.ts. Texts: execute/merge.ts.
 */
import type { BackendConnection } from '../backend/connection.ts';
import { ask, borrow, switchSettings } from '../backend/internal-query.ts';
import { assert } from '../base/assert.ts';
import { BOUNDS } from '../base/bounds.ts';
import { PosternError } from '../base/errors.ts';
import type { ShardedTable } from '../catalog/map.ts';
import { collationQuestion } from '../execute/collations.ts';
import { type DescribedMerge, describeMerge, unionOfLeaves } from '../execute/merge.ts';
import { GatheredColumns } from '../execute/merge-columns.ts';
import type { Described } from '../execute/plan-cache.ts';
import { nodeOf, positionMapper } from '../execute/scatter.ts';
import { portableOids } from '../pg/oid.ts';
import { textOfReplacement } from '../plan/rewrite.ts';
import type { ScatterRead } from '../plan/scatter-read.ts';
import type { ReadMerge } from '../plan/scatter-read-merge.ts';
import { type AssembledText, assemble, type TextPart } from '../plan/scatter-text.ts';
import { FrameWriter } from '../wire/frame-writer.ts';
import { type BindView, bindTailOf } from '../wire/frontend.ts';
import type { Conversation } from './conversation.ts';
import { type BoundPiece, type PiecesListener, type Portion, RunningPieces } from './pieces.ts';
import type { RowsListener } from './rows-in-order.ts';
import { type ScatteredRun, summedTag } from './scattered-run.ts';
import { CONSISTENT_READS, isOn } from './state.ts';

type Connections = ReadonlyMap<number, BackendConnection>;

/** A text for one node, and the buckets whose leaves it names. */
interface Assembled extends AssembledText {
  readonly nodeId: number;
  readonly buckets: readonly number[];
}

/** What has been made of a statement for all buckets; it is the same at each execution. */
interface KnownRead {
  merge: DescribedMerge | undefined;
  texts: readonly Assembled[] | undefined;
  /** On the node of the first text. */
  final: AssembledText | undefined;
}

const known = new WeakMap<Described, KnownRead>();

export class MergedRead {
  readonly #c: Conversation;
  readonly #read: ScatterRead;
  readonly #run: ScatteredRun;
  readonly #known: KnownRead;

  constructor(conversation: Conversation, read: ScatterRead, run: ScatteredRun) {
    this.#c = conversation;
    this.#read = read;
    this.#run = run;
    this.#known = known.get(run.described) ?? { merge: undefined, texts: undefined, final: undefined };
    known.set(run.described, this.#known);
  }

  /** Gives the command tag. `buckets`: those that are read, by node. */
  async answer(buckets: readonly number[], output: RowsListener): Promise<string> {
    const { merge } = this.#read;
    if (!merge) {
      const pieces = this.#texts(this.#read.text, buckets).map((text) => this.#piece(text, undefined));
      return await this.#withConnections(pieces, async (connections, opened) => {
        const tags = await this.#runPieces(connections, opened, output);
        await this.#close(connections, opened);
        return summedTag(tags);
      });
    }
    const described = await this.#describe(merge);
    const texts = this.#texts(described.partial, buckets);
    const formats = described.columns.map(({ format }) => format);
    const pieces = texts.map((text) => this.#piece(text, formats));
    return await this.#withConnections(pieces, async (connections, opened) => {
      const gathered = new GatheredColumns(described.columns);
      await this.#gather(connections, opened, gathered);
      await this.#close(connections, opened);
      const final = this.#finalPiece(described, texts[0]!, gathered);
      return summedTag(await this.#runPieces(connections, [final], output));
    });
  }

  /** What would be sent: to each node or bucket, for results of one column of text; and to put their rows together. */
  async parts(
    buckets: readonly number[],
  ): Promise<{ readonly pieces: readonly BoundPiece[]; readonly final: BoundPiece | undefined }> {
    const described = this.#read.merge && (await this.#describe(this.#read.merge));
    const texts = this.#texts(described?.partial ?? this.#read.text, buckets);
    const pieces = texts.map((text) => this.#piece(text, [0]));
    const final = described && this.#finalPiece(described, texts[0]!, new GatheredColumns(described.columns));
    return { pieces, final };
  }

  async #describe(merge: ReadMerge): Promise<DescribedMerge> {
    this.#known.merge ??= await this.#c.onHome((home) =>
      describeMerge(home, merge, this.#run.described, () => this.#sortsAlike()),
    );
    return this.#known.merge;
  }

  /** Do all nodes of the table sort text alike? */
  async #sortsAlike(): Promise<boolean> {
    const nodeIds = new Set(this.#run.table.buckets.map((bucket) => bucket.nodeId));
    const { context, user, settings } = this.#c.state;
    const question = collationQuestion(this.#read.tables, this.#read.namesCollation);
    const answers = new Set<string | null | undefined>();
    for (const nodeId of nodeIds) {
      const pool = context.pools.get(nodeId);
      assert(pool, 'each node has a pool');
      const [row] = await borrow(pool, { user, settings }, (connection) => ask(connection, question));
      answers.add(row?.[0]);
    }
    return answers.size === 1;
  }

  /** The same text for each node, or for each bucket. */
  #texts(parts: readonly TextPart[], buckets: readonly number[]): readonly Assembled[] {
    const { table } = this.#run;
    const isWhole = buckets.length === table.buckets.length;
    if (isWhole && this.#known.texts) return this.#known.texts;
    const texts =
      this.#read.unit === 'node'
        ? [...byNode(table, buckets)].map(([nodeId, own]) => ({
            ...assemble(parts, (replacement) => unionOfLeaves(replacement, own, this.#read.columnNames)),
            ...{ nodeId, buckets: own },
          }))
        : buckets.map((bucket) => ({
            ...assemble(parts, (replacement) => textOfReplacement(replacement, { bucket, ids: [] })),
            ...{ nodeId: nodeOf(table, bucket), buckets: [bucket] },
          }));
    if (isWhole) this.#known.texts = texts;
    return texts;
  }

  /** `formats`: of the columns asked for; undefined: as the client asks. */
  #piece(assembled: Assembled, formats: readonly (0 | 1)[] | undefined): BoundPiece {
    const { view, buffer } = this.#run.portal;
    const { parameters } = assembled;
    const tail = formats
      ? tailWithFormats(view, buffer, { parameters, formats })
      : bindTailOf(view, buffer, parameters);
    return this.#bound(assembled, this.#oidsOf(parameters), tail);
  }

  #finalPiece(merge: DescribedMerge, first: Assembled, gathered: GatheredColumns): BoundPiece {
    const { view, buffer } = this.#run.portal;
    const [bucket] = first.buckets;
    assert(bucket !== undefined, 'a piece reads a bucket');
    const arrays = gathered.arrays();
    const isWhole = this.#known.texts?.[0] === first;
    const assembled =
      (isWhole ? this.#known.final : undefined) ??
      assemble(
        merge.final,
        (replacement) => textOfReplacement(replacement, { bucket, ids: [] }),
        arrays.length + 1,
      );
    if (isWhole) this.#known.final = assembled;
    const { parameters } = assembled;
    const oids = [...new Array<number>(arrays.length).fill(0), ...this.#oidsOf(parameters)];
    const tail = tailWithArrays(view, buffer, { parameters, arrays });
    return this.#bound({ ...assembled, nodeId: first.nodeId, buckets: [bucket] }, oids, tail);
  }

  #oidsOf(parameters: readonly number[]): number[] {
    const oids = portableOids(this.#run.described.parameterOids);
    return parameters.map((index) => oids[index] ?? 0);
  }

  #bound(assembled: Assembled, parameterOids: readonly number[], tail: Buffer): BoundPiece {
    const { text, nodeId, buckets } = assembled;
    const { lease, state } = this.#c;
    const { plan, table, described } = this.#run;
    // A scope of one transaction, a text of the simple protocol, and one for some of the buckets are not worth remembering.
    const recurs =
      described.parameterOids.length > 0 && lease.scope === state.scope && this.#read.keys === undefined;
    const shared = recurs ? state.context.statements.get(text, parameterOids, lease.scope) : undefined;
    const leaf = { table, bucket: buckets[0]!, buckets, mapPosition: positionMapper(plan, assembled) };
    return { nodeId, shared, text, parameterOids, tail, leaf };
  }

  async #gather(
    connections: Connections,
    pieces: readonly BoundPiece[],
    gathered: GatheredColumns,
  ): Promise<void> {
    const isFull = () => gathered.bytes > BOUNDS.gatheredBytesMax;
    const running = this.#start(connections, pieces, {
      onRows: (_index, buffer, start, end) => {
        if (isFull()) return;
        gathered.append(buffer, start, end);
        if (isFull()) running.cancel();
      },
    });
    await this.#finished(running).catch((error) => {
      throw isFull() ? tooMuchToMerge() : error;
    });
    if (isFull()) throw tooMuchToMerge();
  }

  async #runPieces(
    connections: Connections,
    pieces: readonly BoundPiece[],
    rows: RowsListener,
  ): Promise<readonly string[]> {
    const { output } = this.#c.state;
    const running = this.#start(connections, pieces, {
      onRows: (index, buffer, start, end) => {
        rows.onRows(index, buffer, start, end);
        if (output.unsentBytes > BOUNDS.clientUnsentBytesMax) running.pause();
      },
    });
    return await this.#finished(running);
  }

  #start(
    connections: Connections,
    pieces: readonly BoundPiece[],
    listener: Pick<PiecesListener, 'onRows'>,
  ): RunningPieces {
    const { catalog } = this.#c.state.context;
    const running = new RunningPieces(connections, pieces, {
      ...listener,
      onNotice: (reader) => this.#c.responses.onNotice(reader),
      onMissingLeaf: () => void catalog.refresh().catch(() => {}),
    });
    this.#c.runningPieces = running;
    return running;
  }

  async #finished(running: RunningPieces): Promise<readonly string[]> {
    return await running.done.finally(() => {
      this.#c.runningPieces = undefined;
    });
  }

  /** `opened`: the pieces as they are to be run; their snapshots may have been taken already, so that they agree. */
  async #withConnections<T>(
    pieces: readonly BoundPiece[],
    work: (connections: Connections, opened: readonly BoundPiece[]) => Promise<T>,
  ): Promise<T> {
    const nodeIds = [...new Set(pieces.map(({ nodeId }) => nodeId))];
    const { branches } = this.#c.lease;
    const agree = nodeIds.length > 1 && (await this.#wantsAgreement());
    if (this.#needsNoTransaction()) {
      if (!agree) return await this.#withBorrowed(nodeIds, (connections) => work(connections, pieces));
      const connections = await branches.enlistToRead(nodeIds);
      const result = await branches.run(() => work(connections, pieces));
      await this.#c.control.endImplicit();
      return result;
    }
    const connections = await branches.enlist(nodeIds);
    return await branches.run(async () =>
      work(connections, agree ? await this.#open(connections, pieces) : pieces),
    );
  }

  /** postern.consistent_reads, as it is now. */
  async #wantsAgreement(): Promise<boolean> {
    const { state, lease } = this.#c;
    if (!state.context.decisionGate) return false;
    // What a SET just before has made of it may still be being read back.
    if (!lease.unsynced) await lease.drained();
    if (!lease.steps.hasSet(CONSISTENT_READS)) return state.wantsConsistentReads;
    if (!(await lease.settle()) || !lease.connection) return state.wantsConsistentReads;
    const [row] = await ask(
      lease.connection,
      `SELECT pg_catalog.current_setting('${CONSISTENT_READS}', true)`,
    );
    return isOn(row?.[0]);
  }

  /** A portal for each piece, all bound while no transaction over several nodes is decided: a query's snapshot is taken at its Bind. */
  async #open(connections: Connections, pieces: readonly BoundPiece[]): Promise<readonly BoundPiece[]> {
    const step = (step: Portion['step']) =>
      pieces.map((piece, i) => ({ ...piece, portion: { portal: `postern_read_${i}`, step, maxRows: 0 } }));
    await this.#c.state.context.decisionGate!.held(() =>
      this.#finished(this.#start(connections, step('open'), { onRows() {} })),
    );
    return step('go on');
  }

  async #close(connections: Connections, pieces: readonly BoundPiece[]): Promise<void> {
    const portals = pieces.flatMap((piece) =>
      piece.portion ? [{ ...piece, portion: { ...piece.portion, step: 'close' as const } }] : [],
    );
    if (portals.length > 0) await this.#finished(this.#start(connections, portals, { onRows() {} }));
  }

  /** Outside of a transaction, with each node's own snapshot. */
  #needsNoTransaction(): boolean {
    const level = this.#c.state.settings.values.get('default_transaction_isolation') ?? 'read committed';
    return this.#c.mayShareBackend && level.toLowerCase().startsWith('read');
  }

  async #withBorrowed<T>(
    nodeIds: readonly number[],
    work: (connections: Connections) => Promise<T>,
  ): Promise<T> {
    const { context, user, settings } = this.#c.state;
    const connections = new Map<number, BackendConnection>();
    try {
      for (const nodeId of nodeIds) {
        const pool = context.pools.get(nodeId);
        assert(pool, 'each node has a pool');
        connections.set(nodeId, pool.tryAcquire(user, settings) ?? (await pool.acquire(user, settings)));
      }
      const others = [...connections.values()].filter((one) => one.settings.key !== settings.key);
      if (others.length > 0) await Promise.all(others.map((one) => switchSettings(one, settings)));
      return await work(connections);
    } finally {
      for (const [nodeId, connection] of connections) {
        const pool = context.pools.get(nodeId)!;
        if (connection.quiet) pool.release(connection);
        else pool.discard(connection);
      }
    }
  }
}

function byNode(table: ShardedTable, buckets: readonly number[]): ReadonlyMap<number, readonly number[]> {
  const nodes = new Map<number, number[]>();
  for (const bucket of buckets) {
    const nodeId = nodeOf(table, bucket);
    const own = nodes.get(nodeId);
    if (own) own.push(bucket);
    else nodes.set(nodeId, [bucket]);
  }
  return nodes;
}

function tooMuchToMerge(): PosternError {
  return new PosternError({
    sqlState: '54000',
    message: `more than ${BOUNDS.gatheredBytesMax / 1024 / 1024} MiB of rows would have to be merged`,
    hint: 'Add WHERE or LIMIT; without ORDER BY, DISTINCT and groups, rows pass without being merged.',
  });
}

/** The client's values, with other result formats. */
function tailWithFormats(
  view: BindView,
  buffer: Buffer,
  what: { readonly parameters: readonly number[]; readonly formats: readonly number[] },
): Buffer {
  const whole = bindTailOf(view, buffer, what.parameters);
  const writer = new FrameWriter(whole.length + 2 + 2 * what.formats.length);
  writer.bytes(whole, 0, whole.length - (view.resultFormatsEnd - view.resultFormatsStart));
  writer.int16(what.formats.length);
  for (const format of what.formats) writer.int16(format);
  return writer.take();
}

/** Arrays in binary, and the client's values behind them; results as the client asks. */
function tailWithArrays(
  view: BindView,
  buffer: Buffer,
  what: { readonly parameters: readonly number[]; readonly arrays: readonly (readonly Buffer[])[] },
): Buffer {
  const { parameters, arrays } = what;
  const writer = new FrameWriter(1024);
  writer.int16(arrays.length + parameters.length);
  for (const _array of arrays) writer.int16(1);
  for (const index of parameters) writer.int16(view.parameterFormat(index));
  writer.int16(arrays.length + parameters.length);
  for (const array of arrays) {
    writer.int32(array.reduce((bytes, part) => bytes + part.length, 0));
    for (const part of array) writer.bytes(part, 0, part.length);
  }
  for (const index of parameters) {
    const length = view.parameterLength(index);
    const start = view.parameterStart(index);
    writer.int32(length);
    if (length > 0) writer.bytes(buffer, start, start + length);
  }
  writer.bytes(buffer, view.resultFormatsStart, view.resultFormatsEnd);
  return writer.take();
}

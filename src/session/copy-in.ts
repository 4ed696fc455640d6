/**
 * COPY … FROM STDIN of a sharded or reference table. The router answers as a server does, cuts the client's data into rows
 * (copy/), gathers them by bucket, and sends what has gathered to its node as a COPY of the bucket's leaf, on a branch of the
 * client's transaction (copy-lane.ts). Nodes work side by side.
 *
 *   checking ──a server has taken an empty COPY──▶ taking ──CopyDone──▶ flushing ──all parts done──▶ done: COPY n
 *                                                    │ ▲ rows for a node that the transaction is not on: all parts done, a branch there
 *                                                    └─┴──a row fails, CopyFail, cancel, loss──▶ settling ──▶ failed
 *
 * settling: rows before the one that has failed may fail as well, and then the first of them is what the client hears of.
 *
 * Invariant: rows that wait in the router are bounded (BOUNDS.copyBufferBytesMax): a client is not read while nodes are behind.
 * Invariant: an error is told with the client's table, line and column, and nothing of the COPY stays.
 */
import type { BackendConnection } from '../backend/connection.ts';
import { ask } from '../backend/internal-query.ts';
import { assert } from '../base/assert.ts';
import { BOUNDS } from '../base/bounds.ts';
import { connectionLost, type PosternError, queryCanceled } from '../base/errors.ts';
import { BINARY_TRAILER, BinaryRows } from '../copy/binary-rows.ts';
import { guarded, looksLikeEnd } from '../copy/end-marker.ts';
import { type CopyFormat, formatOf } from '../copy/format.ts';
import { CopyDataError, LineRows, type RowListener, type RowView } from '../copy/line-rows.ts';
import { forgetSpareMemory, type RowChunk } from '../copy/row-chunk.ts';
import type { CopyIn } from '../plan/copy.ts';
import { ServerError } from '../platform/control-connection.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import type { Conversation } from './conversation.ts';
import { copyError, errorOfData, inClientsTerms, type PartOrigin } from './copy-errors.ts';
import { columnList, withOptions, withoutHeader } from './copy-facts.ts';
import { CopyGathering } from './copy-gathering.ts';
import type { CopyIntake } from './copy-intake.ts';
import { CopyLane, type CopyPart, type LaneListener } from './copy-lane.ts';
import { CopyNotices } from './copy-notices.ts';
import { type CopyTarget, UNSURE } from './copy-target.ts';
import type { EndMarkerReading } from './copy-versions.ts';
import { isMissingLeaf } from './leaf-errors.ts';

interface Part extends CopyPart {
  readonly origin: PartOrigin;
  readonly chunk: RowChunk;
  /** Nodes that get the same when the first has taken it, and how many of them have yet to. */
  readonly copies: readonly number[];
  copiesLeft: number;
  /** As the first has counted them. */
  rows: number | undefined;
}

interface Failure {
  readonly error: Error;
  /** Of the client's data; 0: it comes before all that lines may say. */
  readonly line: number;
}

type PhaseEnd = 'done' | 'enlist';

/** Over all sessions. */
let runsUnderWay = 0;

/** Values and ids for rows are fetched for so many at once, when there are many. */
const PROVIDED_MAX = 4096;
const NEWLINE = 0x0a;
const RETURN = 0x0d;

export class CopyInRun implements CopyIntake, RowListener, LaneListener<Part> {
  onRoom: (() => void) | undefined;
  readonly #c: Conversation;
  readonly #placement: CopyIn;
  readonly #target: CopyTarget;
  readonly #format: CopyFormat;
  /** The client's. */
  readonly #columns: readonly string[];
  readonly #rows: LineRows | BinaryRows;
  /** To some node a row may look like the end of the data. */
  readonly #guardsMarker: boolean;
  readonly #gathering: CopyGathering;
  readonly #lanes = new Map<number, CopyLane<Part>>();
  readonly #notices: CopyNotices;
  #state: 'taking' | 'flushing' | 'settling' = 'taking';
  #failure: Failure | undefined;
  /** Memory of parts that are not done. */
  #sentBytes = 0;
  /** What the client has sent while something is asked for. */
  #early: Buffer[] = [];
  #isAsking = false;
  #hasEnded = false;
  #hasHeader = false;
  #rowsSeen = 0;
  #count = 0;
  /** Of the node that looks at the statement, and at the header. */
  #firstSlot = 0;
  readonly #needed = new Set<number>();
  #phase: { readonly resolve: (end: PhaseEnd) => void; readonly reject: (error: Error) => void } | undefined;
  #settleTimer: NodeJS.Timeout | undefined;
  readonly #cancels: Promise<void>[] = [];
  readonly #canceled: BackendConnection[] = [];
  /** The empty COPY is under way that shows the statement to a server. */
  #isChecking = false;

  constructor(
    conversation: Conversation,
    options: {
      readonly placement: CopyIn;
      readonly target: CopyTarget;
      readonly columns: readonly string[];
      readonly endMarker: EndMarkerReading;
    },
  ) {
    const { placement, target, columns, endMarker } = options;
    this.#c = conversation;
    this.#placement = placement;
    this.#target = target;
    this.#format = formatOf(placement.options);
    this.#columns = columns;
    this.#guardsMarker = endMarker.someEnd;
    const isBinary = this.#format.kind === 'binary';
    this.#gathering = new CopyGathering(target.slotCount, { isBinary });
    this.#notices = new CopyNotices(placement.table);
    const rowBytesMax = BOUNDS.copyRowBytesMax;
    const { keyIndex: fieldIndex } = target;
    this.#rows = isBinary
      ? new BinaryRows(this, { columnCount: columns.length, fieldIndex, rowBytesMax })
      : new LineRows(this.#format, this, { markerEnds: endMarker.ends, rowBytesMax });
  }

  /** Gives the command tag. */
  async run(firstSlot: number): Promise<string> {
    const { branches } = this.#c.lease;
    runsUnderWay++;
    try {
      this.#firstSlot = firstSlot;
      await this.#enlist([this.#target.slot(firstSlot).nodeIds[0]!]);
      await branches.run(() => this.#checkStatement());
      if (this.#c.isCanceled) this.cancel();
      const response = this.#firstLane.copyInResponse!;
      this.#c.state.output.writer.raw(response, 0, response.length);
      this.#c.copyIntake = this;
      this.#c.runningPieces = this;
      this.#c.onIntake();
      while ((await branches.run(() => this.#untilPhaseEnds())) !== 'done') {
        await this.#enlist([...this.#needed]);
        this.#needed.clear();
        for (const slot of this.#gathering.filled())
          if (this.#state === 'flushing' || this.#isWorthSending(slot)) this.#send(slot);
        this.#makeRoom();
      }
      for (const { connection } of this.#lanes.values()) await this.#target.close?.(connection);
      this.#notices.end(this.#c.state.output.writer);
      return `COPY ${this.#count}`;
    } finally {
      clearTimeout(this.#settleTimer);
      this.#stopTaking();
      if (this.#c.runningPieces === this) this.#c.runningPieces = undefined;
      this.#gathering.drop();
      if (--runsUnderWay === 0) forgetSpareMemory();
    }
  }

  // What the session calls.

  get isFull(): boolean {
    return this.#isAsking || this.#needed.size > 0 || this.#heldBytes > BOUNDS.copyBufferBytesMax;
  }

  onData(buffer: Buffer, start: number, end: number): void {
    if (this.#state !== 'taking') return;
    if (this.#isAsking) this.#early.push(Buffer.from(buffer.subarray(start, end)));
    else this.#take(buffer, start, end);
  }

  onEnd(): void {
    this.#hasEnded = true;
    this.#stopTaking();
    if (!this.#isAsking) this.#finish();
  }

  onFail(message: string): void {
    const where = `COPY ${this.#placement.table.name}, line ${this.#rows.line + 1}`;
    this.#fail(copyError('57014', `COPY from stdin failed: ${message}`, { where }), 0);
  }

  /** The client's cancel request, or its end. */
  cancel(): void {
    this.#fail(queryCanceled(), 0);
  }

  pause(): void {}
  resume(): void {}

  // From the client's data to slots.

  #take(buffer: Buffer, start: number, end: number): void {
    const provided = this.#provide(buffer, start, end);
    if (provided) {
      this.#early.unshift(Buffer.from(buffer.subarray(start, end)));
      this.#ask(provided);
      return;
    }
    this.#reading(() => this.#rows.push(buffer, start, end));
    if (this.#target.hasUnsure) this.#ask(this.#placeUnsure());
    else {
      this.#relieve();
      this.#check();
    }
  }

  /** Has the target what it needs for the rows of these bytes? */
  #provide(buffer: Buffer, start: number, end: number): Promise<void> | undefined {
    if (this.#target.prefixColumns.length === 0) return undefined;
    const rowsMax = this.#rowsIn(buffer, start, end) + 1;
    if (!this.#target.lacks(rowsMax)) return undefined;
    return this.#target.provide(Math.max(rowsMax, Math.min(this.#rowsSeen, PROVIDED_MAX)));
  }

  #rowsIn(buffer: Buffer, start: number, end: number): number {
    if (this.#format.kind === 'binary')
      return Math.ceil((end - start + this.#rows.carriedBytes) / (2 + 4 * this.#columns.length));
    let count = 0;
    for (let at = start; at < end; at++) if (buffer[at] === NEWLINE || buffer[at] === RETURN) count++;
    return count;
  }

  onRow(row: RowView): void {
    this.#rowsSeen++;
    const slot = this.#target.place(row);
    if (slot !== UNSURE) this.#gather(slot, row, this.#target.prefix);
  }

  #gather(slot: number, told: RowView, prefix: Buffer | undefined): void {
    const row = prefix ? told : this.#guarded(told);
    const { replacedBytes: replaced } = this.#target;
    const rows = this.#rows;
    // The last row of the data may lack its end of line, which those of another part need.
    const isOpen = rows instanceof LineRows && row.end === row.contentEnd && !rows.endsInQuotes;
    const behind = isOpen ? Buffer.from(rows.lineEnd) : undefined;
    if (this.#gathering.add(slot, row, { prefix, replaced, behind })) this.#send(slot);
  }

  /** As every node reads it. */
  #guarded(row: RowView): RowView {
    return this.#guardsMarker && looksLikeEnd(row) ? guarded(row, this.#format) : row;
  }

  /** It is checked where the client's columns are known. */
  onHeader(row: RowView): void {
    this.#hasHeader = true;
    if (this.#format.header === 'match') this.#checkHeader(row);
  }

  #checkHeader(row: RowView | undefined): void {
    const chunk = this.#gathering.newChunk();
    if (row) chunk.add(this.#guarded(row), undefined);
    const slot = this.#firstSlot;
    const text = this.#textOf(slot, { prefixed: false, options: this.#placement.options });
    this.#firstLane.add(this.#partOf(slot, chunk, { text, copies: [] }));
  }

  async #placeUnsure(): Promise<void> {
    for (const { slot, row, prefix } of await this.#target.placeUnsure()) this.#gather(slot, row, prefix);
  }

  /** Nothing is taken before this is done; then all that has come meanwhile. */
  #ask(question: Promise<void>): void {
    this.#isAsking = true;
    question.then(
      () => {
        this.#isAsking = false;
        while (!this.#isAsking && this.#early.length > 0 && this.#state === 'taking') {
          const data = this.#early.shift()!;
          this.#take(data, 0, data.length);
        }
        if (this.#isAsking) return;
        if (this.#hasEnded) this.#finish();
        else {
          this.#check();
          this.#makeRoom();
        }
      },
      (error: Error) => {
        this.#isAsking = false;
        this.#failOn(error);
      },
    );
  }

  /** The client has sent all. */
  #finish(): void {
    if (this.#state !== 'taking') return;
    const lacks = this.#target.prefixColumns.length > 0 && this.#target.lacks(1);
    if (lacks) {
      this.#ask(this.#target.provide(1));
      return;
    }
    this.#reading(() => this.#rows.finish());
    if (this.#target.hasUnsure) {
      this.#ask(this.#placeUnsure());
      return;
    }
    if (this.#state !== 'taking') return;
    if (this.#format.header === 'match' && !this.#hasHeader) this.#checkHeader(undefined);
    this.#state = 'flushing';
    for (const slot of this.#gathering.filled()) this.#send(slot);
    this.#check();
  }

  #reading(read: () => void): void {
    try {
      read();
    } catch (error) {
      this.#failOn(error as Error);
    }
  }

  #failOn(error: Error): void {
    if (error instanceof CopyDataError)
      this.#fail(errorOfData(error, this.#placement.table, this.#columns), error.line);
    else this.#fail(error, 0);
  }

  // From slots to nodes.

  #send(slot: number): void {
    const { nodeIds } = this.#target.slot(slot);
    const [first, ...copies] = nodeIds as [number, ...number[]];
    const lane = this.#lanes.get(first);
    const missing = nodeIds.filter((nodeId) => !this.#lanes.has(nodeId));
    for (const nodeId of missing) this.#needed.add(nodeId);
    // Whoever has sent all that there is looks whether they can be had.
    if (!lane || missing.length > 0) return;
    const chunk = this.#gathering.take(slot);
    if (!chunk) return;
    const text = this.#textOf(slot, { prefixed: true, options: withoutHeader(this.#placement.options) });
    for (const nodeId of nodeIds) this.#c.lease.branches.noteWrite(nodeId, 0);
    lane.add(this.#partOf(slot, chunk, { text, copies }));
  }

  #textOf(slot: number, how: { readonly prefixed: boolean; readonly options: CopyIn['options'] }): string {
    const { where } = this.#placement;
    const columns = how.prefixed ? [...this.#target.prefixColumns, ...this.#columns] : this.#columns;
    const condition = where === undefined ? '' : `\nWHERE ${where}`;
    return `COPY ${this.#target.slot(slot).quoted} (${columnList(columns)}) FROM STDIN${withOptions(how.options)}${condition}`;
  }

  #partOf(
    slot: number,
    chunk: RowChunk,
    { text, copies }: { readonly text: string; readonly copies: readonly number[] },
  ): Part {
    const { name, leaf } = this.#target.slot(slot);
    const { firstLine, bytes } = chunk;
    if (this.#format.kind === 'binary') chunk.put(BINARY_TRAILER, 0, BINARY_TRAILER.length);
    const origin = {
      ...{ relation: name, leaf, prefix: this.#target.prefixPattern },
      lineOf: (line: number) => (firstLine > 0 ? chunk.lineOf(line) : line),
    };
    this.#sentBytes += chunk.reservedBytes;
    const frames = chunk.takeFrames();
    return {
      text,
      frames,
      bytes,
      firstLine,
      origin,
      chunk,
      copies,
      copiesLeft: copies.length,
      rows: undefined,
    };
  }

  #isWorthSending(slot: number): boolean {
    return this.#gathering.bytesOf(slot) >= this.#gathering.chunkBytes;
  }

  get #heldBytes(): number {
    return this.#gathering.bytes + this.#sentBytes + this.#rows.carriedBytes;
  }

  /** Many slots with a little each may hold more than may wait, without one that is worth a COPY. */
  #relieve(): void {
    if (this.#heldBytes <= BOUNDS.copyBufferBytesMax || this.#state !== 'taking') return;
    for (const slot of this.#gathering.filled()) {
      if (this.#sentBytes > BOUNDS.copyBufferBytesMax / 2) return;
      this.#send(slot);
    }
  }

  #makeRoom(): void {
    if (!this.isFull) this.onRoom?.();
  }

  // What nodes answer.

  onAnswered(lane: CopyLane<Part>, part: Part, rows: number): void {
    if (!this.#failure) {
      this.#c.lease.branches.noteWrite(lane.nodeId, rows);
      if (part.rows === undefined) {
        part.rows = rows;
        this.#count += rows;
        for (const nodeId of part.copies) this.#lanes.get(nodeId)!.add(part);
      } else {
        part.copiesLeft--;
        if (part.rows !== rows) this.#fail(this.#target.differs(lane.nodeId), 0);
      }
      if (part.copiesLeft > 0) return;
      part.chunk.giveBack(part.frames);
    }
    this.#sentBytes -= part.chunk.reservedBytes;
    if (this.#state === 'taking' && lane.isHungry) this.#feed(lane);
    this.#check();
    this.#makeRoom();
  }

  /** A node with nothing to do gets what there is, if it is not too little. */
  #feed(lane: CopyLane<Part>): void {
    const { bytes } = this.#gathering;
    if (bytes === 0) return;
    const own = this.#gathering.filled().find((slot) => this.#target.slot(slot).nodeIds[0] === lane.nodeId);
    if (own !== undefined && this.#gathering.bytesOf(own) >= this.#gathering.chunkBytes / 4) this.#send(own);
  }

  onRefused(part: Part, serverFields: Map<string, string>): void {
    const { table } = this.#placement;
    const { fields, line } = inClientsTerms(serverFields, table, part.origin);
    const { leaf } = part.origin;
    if (leaf && isMissingLeaf(serverFields, leaf))
      void this.#c.state.context.catalog.refresh().catch(() => {});
    const [lane] = this.#lanes.values();
    const error = new ServerError(lane?.connection.address.nodeName ?? '', fields);
    this.#fail(error, line ?? (part.firstLine > 0 ? Number.POSITIVE_INFINITY : 0));
  }

  onNotice(part: Part, frame: FrameReader): void {
    this.#notices.pass(frame, part.origin, this.#c.state.output.writer);
  }

  onLost(cause: PosternError): void {
    this.#fail(cause, 0);
  }

  #fail(error: Error, line: number): void {
    const isFirst = !this.#failure;
    if (!this.#failure || line < this.#failure.line) this.#failure = { error, line };
    if (!isFirst) {
      this.#check();
      return;
    }
    this.#state = 'settling';
    this.#early = [];
    this.#stopTaking();
    this.#needed.clear();
    for (const slot of this.#gathering.filled()) {
      const isBefore = this.#gathering.firstLineOf(slot) < line;
      if (isBefore && this.#lanes.has(this.#target.slot(slot).nodeIds[0]!)) this.#send(slot);
      else this.#gathering.dropSlot(slot);
    }
    for (const lane of this.#lanes.values()) lane.dropFrom(line);
    const settleMs = line > 0 ? BOUNDS.copySettleMs : 0;
    this.#settleTimer = setTimeout(() => this.#cancelAll(), settleMs);
    this.#check();
  }

  /** What is still carried out is not wanted any more. A node that doesn't even take that in is given up. */
  #cancelAll(): void {
    const busy = [...this.#lanes.values()].filter((lane) => !lane.isIdle);
    for (const lane of busy) {
      lane.dropFrom(0);
      this.#canceled.push(lane.connection);
      this.#cancels.push(lane.connection.cancel());
    }
    this.#settleTimer = setTimeout(() => {
      for (const { connection, isIdle } of busy)
        if (!isIdle) connection.destroy(connectionLost(connection.address.nodeName));
    }, BOUNDS.abandonedStatementMs);
  }

  // The ends of its phases.

  async #enlist(nodeIds: readonly number[]): Promise<void> {
    const connections = await this.#c.lease.branches.enlist(nodeIds);
    for (const [nodeId, connection] of connections) {
      if (this.#lanes.has(nodeId)) continue;
      await this.#target.open?.(connection);
      this.#lanes.set(nodeId, new CopyLane<Part>(connection, this));
    }
  }

  /** A server looks at the statement before the client is asked for its rows. */
  async #checkStatement(): Promise<void> {
    const { options } = this.#placement;
    const slot = this.#firstSlot;
    const checked = options.map((option) =>
      option.name === 'header' && this.#format.header === 'match' ? { ...option, value: 'true' } : option,
    );
    const text = this.#textOf(slot, { prefixed: false, options: checked });
    this.#isChecking = true;
    const part = this.#partOf(slot, this.#gathering.newChunk(), { text, copies: [] });
    this.#firstLane.add(part);
    await this.#untilPhaseEnds();
    this.#isChecking = false;
  }

  get #firstLane(): CopyLane<Part> {
    const lane = this.#lanes.get(this.#target.slot(this.#firstSlot).nodeIds[0]!);
    assert(lane, 'the first node is the first that has a lane');
    return lane;
  }

  #untilPhaseEnds(): Promise<PhaseEnd> {
    return new Promise((resolve, reject) => {
      this.#phase = { resolve, reject };
      this.#check();
    });
  }

  get #isIdle(): boolean {
    for (const lane of this.#lanes.values()) if (!lane.isIdle) return false;
    return true;
  }

  #check(): void {
    const phase = this.#phase;
    if (!phase || !this.#isIdle) return;
    if (this.#failure) {
      this.#phase = undefined;
      void this.#settled().then(() => phase.reject(this.#failure!.error));
      return;
    }
    const isFlushed = this.#state === 'flushing' && this.#gathering.bytes === 0;
    if (this.#needed.size === 0 && !isFlushed && !this.#isChecking) return;
    this.#phase = undefined;
    phase.resolve(this.#needed.size > 0 ? 'enlist' : 'done');
  }

  /** No cancel request is on its way any more that could strike what is sent next. */
  async #settled(): Promise<void> {
    clearTimeout(this.#settleTimer);
    await Promise.allSettled(this.#cancels);
    for (const connection of this.#canceled)
      if (!connection.closed) await ask(connection, '').catch(() => {});
  }

  #stopTaking(): void {
    if (this.#c.copyIntake === this) this.#c.copyIntake = undefined;
  }
}

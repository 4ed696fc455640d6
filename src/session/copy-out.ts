/**
 * COPY … TO STDOUT over several buckets. Where the rows of the nodes together are those of the result, each node writes its own
 * part of the data, and the parts are told as one: one header, one trailer. Where they have to be put together first, the query
 * is read as by itself, and the router writes its rows as a server would.
 */
import type { BackendConnection } from '../backend/connection.ts';
import type { ResponseSink } from '../backend/pending.ts';
import { rowFrames } from '../backend/row-frames.ts';
import { connectionLost, notSupported, objectError, PosternError } from '../base/errors.ts';
import type { ShardedTable } from '../catalog/map.ts';
import { BINARY_HEADER, BINARY_TRAILER } from '../copy/binary-rows.ts';
import { type CopyOption, formatOf } from '../copy/format.ts';
import { RowOutput } from '../copy/row-output.ts';
import { quoteIdentifier, quoteQualified } from '../pg/identifier.ts';
import type { CopyOut, CopyQuery } from '../plan/copy.ts';
import type { ScatterRead } from '../plan/scatter-read.ts';
import { textPart } from '../plan/scatter-text.ts';
import { ServerError } from '../platform/control-connection.ts';
import { readDataRow, readErrorFields, readRowDescription } from '../wire/backend.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import type { FrameWriter } from '../wire/frame-writer.ts';
import { Backend } from '../wire/message-types.ts';
import type { Conversation } from './conversation.ts';
import type { CopyContext } from './copy.ts';
import { type CopyColumn, columnList, withOptions, withoutHeader } from './copy-facts.ts';
import type { RowsListener } from './rows-in-order.ts';
import type { ScatteredRun } from './scattered-run.ts';
import { CONSISTENT_READS } from './state.ts';

/** COPY table [(columns)] TO STDOUT. Gives the command tag. */
export async function copyTable(
  conversation: Conversation,
  placement: CopyOut,
  context: CopyContext & { readonly facts: readonly CopyColumn[] },
): Promise<string> {
  const { table, options } = placement;
  const columns = columnsOfTable(placement, context.facts);
  const names = columnList(columns);
  const alias = quoteIdentifier(table.name);
  if (seesAgreement(conversation)) {
    const query = `SELECT ${names} FROM ${quoteQualified(table.schema, table.name)} AS ${alias}`;
    return await copyRows(conversation, query, options, context);
  }
  const text = [
    textPart(`SELECT ${names} FROM `),
    { kind: 'edit', replacement: { kind: 'leaf', table, alias: table.name }, at: -1 } as const,
  ];
  const read: ScatterRead = {
    ...{ kind: 'read', keys: undefined, unit: 'node', text, merge: undefined, tables: [table] },
    ...{ columnNames: new Set(columns), namesCollation: false },
  };
  return await copyParts(conversation, { read, table, columns, options }, context);
}

/** COPY (query) TO STDOUT. */
export async function copyQuery(
  conversation: Conversation,
  { query, read, table, options }: CopyQuery,
  context: CopyContext,
): Promise<string> {
  if (!read || seesAgreement(conversation)) return await copyRows(conversation, query, options, context);
  const described = await context.queries.describe(query);
  const columns = columnNames(described);
  return await copyParts(conversation, { read, table, columns, options }, context);
}

/** A COPY that is carried out later than the others would have a snapshot of its own; a portal of a query has that of its Bind. */
function seesAgreement({ state, lease }: Conversation): boolean {
  return state.wantsConsistentReads || lease.steps.hasSet(CONSISTENT_READS);
}

/** Each node writes its part of the data. */
async function copyParts(
  conversation: Conversation,
  what: {
    readonly read: ScatterRead;
    readonly table: ShardedTable;
    readonly columns: readonly string[];
    readonly options: readonly CopyOption[];
  },
  { portal, queries }: CopyContext,
): Promise<string> {
  const { table, columns, options } = what;
  const text = [
    textPart('COPY ('),
    ...what.read.text,
    textPart(`\n) TO STDOUT${withOptions(withoutHeader(options))}`),
  ];
  const { plan } = portal.statement.cached;
  const run: ScatteredRun = {
    ...{ plan, statement: plan.statements[0]!, table, portal, suppliedIds: [] },
    // Texts are remembered by this.
    described: { parameterOids: [], rows: portal.statement.described!.rows, leaves: new Map() },
  };
  const output = new CopyOutput(conversation, columns, options);
  const parts: RowsListener = formatOf(options).kind === 'binary' ? new BinaryParts(output) : output;
  const tag = await queries.readParts(run, { ...what.read, text }, parts);
  output.end();
  return tag;
}

/** The router writes the rows of a query. */
async function copyRows(
  conversation: Conversation,
  query: string,
  options: readonly CopyOption[],
  { queries }: CopyContext,
): Promise<string> {
  const format = formatOf(options);
  const isBinary = format.kind === 'binary';
  const described = await queries.describe(query);
  const columns = columnNames(described);
  await checkOptions(conversation, columns.length, options);
  const output = new CopyOutput(conversation, columns, options);
  const written = new RowOutput(format, columns);
  const tag = await queries.read(query, isBinary, {
    onRows: (_index, buffer, start, end) => {
      for (const frame of rowFrames(buffer, start, end)) output.row(written.row(readDataRow(frame)));
    },
  });
  output.end();
  return tag.replace(/^\D+/, 'COPY ');
}

/** A server looks at options that the router carries out by itself. */
async function checkOptions(
  conversation: Conversation,
  columnCount: number,
  options: readonly CopyOption[],
): Promise<void> {
  const nothing = `SELECT ${new Array(Math.max(columnCount, 1)).fill('1').join(', ')} WHERE false`;
  const text = `COPY (${nothing}) TO STDOUT${withOptions(options.filter(({ name }) => name !== 'force_quote'))}`;
  await conversation.onHome(
    (connection) =>
      new Promise<void>((resolve, reject) => new CopyUnheard(connection, resolve, reject).send(text)),
  );
}

/** A COPY whose data nobody wants. */
class CopyUnheard implements ResponseSink {
  readonly #connection: BackendConnection;
  readonly #resolve: () => void;
  readonly #reject: (error: Error) => void;
  #error: ServerError | undefined;

  constructor(connection: BackendConnection, resolve: () => void, reject: (error: Error) => void) {
    this.#connection = connection;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  send(text: string): void {
    if (this.#connection.closed) this.#reject(connectionLost(this.#connection.address.nodeName));
    else this.#connection.query(text, this, undefined);
  }

  onMessage(type: number, reader: FrameReader): void {
    if (type === Backend.ErrorResponse)
      this.#error = new ServerError(this.#connection.address.nodeName, readErrorFields(reader));
    if (type !== Backend.ReadyForQuery) return;
    if (this.#error) this.#reject(this.#error);
    else this.#resolve();
  }

  onRows(): void {}
  onNotice(): void {}
  onLocal(): void {}
  onDiscarded(): void {}

  onLost(_connection: BackendConnection, cause: PosternError): void {
    this.#reject(cause);
  }
}

/** The data of a COPY as the client gets them. */
class CopyOutput implements RowsListener {
  readonly #c: Conversation;
  readonly #columns: readonly string[];
  readonly #options: readonly CopyOption[];
  #hasBegun = false;

  constructor(conversation: Conversation, columns: readonly string[], options: readonly CopyOption[]) {
    this.#c = conversation;
    this.#columns = columns;
    this.#options = options;
  }

  /** CopyData messages as they are. */
  onRows(_index: number, buffer: Buffer, start: number, end: number): void {
    this.#begin();
    this.#c.state.output.writer.raw(buffer, start, end);
  }

  /** The body of one. */
  row(bytes: Buffer): void {
    this.#begin();
    copyData(this.#c.state.output.writer, bytes);
  }

  end(): void {
    this.#begin();
    const { writer } = this.#c.state.output;
    if (formatOf(this.#options).kind === 'binary') copyData(writer, BINARY_TRAILER);
    writer.begin(Backend.CopyDone);
    writer.end();
  }

  #begin(): void {
    if (this.#hasBegun) return;
    this.#hasBegun = true;
    const format = formatOf(this.#options);
    const { writer } = this.#c.state.output;
    const code = format.kind === 'binary' ? 1 : 0;
    writer.begin(Backend.CopyOutResponse);
    writer.uint8(code);
    writer.int16(this.#columns.length);
    for (const _ of this.#columns) writer.int16(code);
    writer.end();
    for (const head of new RowOutput(format, this.#columns).head) copyData(writer, head);
  }
}

function copyData(writer: FrameWriter, bytes: Buffer): void {
  writer.begin(Backend.CopyData);
  writer.bytes(bytes, 0, bytes.length);
  writer.end();
}

/** Parts in binary: each has a header in front of its first row, and a trailer in a message of its own. */
class BinaryParts implements RowsListener {
  readonly #output: CopyOutput;
  readonly #begun = new Set<number>();

  constructor(output: CopyOutput) {
    this.#output = output;
  }

  onRows(index: number, buffer: Buffer, start: number, end: number): void {
    // Rows between a header and a trailer pass in one go.
    let from = start;
    for (let at = start; at < end; ) {
      const frameEnd = at + 1 + buffer.readInt32BE(at + 1);
      if (!this.#begun.has(index)) {
        this.#begun.add(index);
        this.#pass(index, buffer, from, at);
        const row = at + 5 + BINARY_HEADER.length;
        if (frameEnd - row > BINARY_TRAILER.length) this.#output.row(buffer.subarray(row, frameEnd));
        from = frameEnd;
      } else if (isTrailer(buffer, at, frameEnd)) {
        this.#pass(index, buffer, from, at);
        from = frameEnd;
      }
      at = frameEnd;
    }
    this.#pass(index, buffer, from, end);
  }

  #pass(index: number, buffer: Buffer, start: number, end: number): void {
    if (end > start) this.#output.onRows(index, buffer, start, end);
  }
}

/** A row has at least its count of fields, which is not −1. */
function isTrailer(buffer: Buffer, start: number, end: number): boolean {
  return end - start === 5 + BINARY_TRAILER.length && buffer.readInt16BE(start + 5) === -1;
}

function columnsOfTable({ table, columns }: CopyOut, facts: readonly CopyColumn[]): readonly string[] {
  if (!columns) return facts.filter(({ isGenerated }) => !isGenerated).map(({ name }) => name);
  for (const [index, name] of columns.entries()) {
    const column = facts.find((candidate) => candidate.name === name);
    if (!column) throw objectError('42703', `column "${name}" of relation "${table.name}" does not exist`);
    if (column.isGenerated) {
      throw new PosternError({
        sqlState: '42P10',
        message: `column "${name}" is a generated column`,
        detail: 'Generated columns cannot be used in COPY.',
      });
    }
    if (columns.indexOf(name) < index)
      throw objectError('42701', `column "${name}" specified more than once`);
  }
  return columns;
}

function columnNames(rows: Buffer): string[] {
  if (rows[0] !== Backend.RowDescription)
    throw notSupported('COPY of a query without rows', 'Send the query by itself.');
  return readRowDescription({ buffer: rows, bodyStart: 5, end: rows.length }).map(({ name }) => name);
}

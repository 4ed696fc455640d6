/**
 * Statements that carry rows from bucket to bucket, in one transaction and in bounded memory: INSERT … SELECT across
 * buckets, and an UPDATE that sets the shard key.
 *
 *   source opened on all its nodes ──▶ a portion of rows ──▶ INSERTs by bucket ──▶ the next portion … ──▶ done
 *
 * Invariant: the source does not see what is inserted: a query's snapshots are all taken, and a DELETE is carried out
 * everywhere, before the first row is inserted.
 */
import { rowFrames } from '../backend/row-frames.ts';
import { BOUNDS } from '../base/bounds.ts';
import { notSupported, PosternError } from '../base/errors.ts';
import type { ShardedTable } from '../catalog/map.ts';
import { describeStatement } from '../execute/describe.ts';
import { bucketsOf } from '../execute/route.ts';
import { piecesOfBatch, RowShape } from '../execute/row-batch.ts';
import { nodeOf } from '../execute/scatter.ts';
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../pg/identifier.ts';
import { portableOids } from '../pg/oid.ts';
import type { KeyScope } from '../plan/key-limits.ts';
import { textOfReplacement } from '../plan/rewrite.ts';
import type { RowTarget, ScatterCopy, ScatterMove } from '../plan/scatter.ts';
import type { ScatterRead } from '../plan/scatter-read.ts';
import { assemble, characterAt, type TextPart, textPart } from '../plan/scatter-text.ts';
import { readDataRow, readRowDescription } from '../wire/backend.ts';
import { BindView, bindTailOf } from '../wire/frontend.ts';
import { Backend } from '../wire/message-types.ts';
import type { Conversation } from './conversation.ts';
import type { BoundPiece } from './pieces.ts';
import type { ClientStatement, PreparedExecution } from './prepared-execution.ts';
import type { RowsListener } from './rows-in-order.ts';
import { countOf, type ScatteredRun } from './scattered-run.ts';

type Row = readonly (Buffer | null)[];

/** Runs pieces on branches of the client's transaction. */
export interface PieceRunner {
  runBound(
    bound: readonly BoundPiece[],
    options: { readonly writes: boolean },
    rows: RowsListener,
  ): Promise<readonly string[]>;
  bucketsOfKeys(run: ScatteredRun, keys: KeyScope): Promise<number[]>;
  /** Runs a query that may have to be merged. Gives its command tag. */
  answerMerged(run: ScatteredRun, read: ScatterRead, rows: RowsListener): Promise<string>;
  /** The pieces of a query whose rows are those of its pieces, as they are. */
  piecesOfQuery(run: ScatteredRun): Promise<readonly SourcePiece[]>;
}

/** One part of the source. */
export interface SourcePiece {
  readonly nodeId: number;
  readonly text: string;
  /** The client's parameters that it uses; undefined: all of them. */
  readonly parameters: readonly number[] | undefined;
  readonly leaf: BoundPiece['leaf'];
}

export class RowTransfer {
  readonly #c: Conversation;
  readonly #execution: PreparedExecution;
  readonly #runner: PieceRunner;

  constructor(conversation: Conversation, execution: PreparedExecution, runner: PieceRunner) {
    this.#c = conversation;
    this.#execution = execution;
    this.#runner = runner;
  }

  /** Gives the command tag. */
  async copy(scatter: ScatterCopy, run: ScatteredRun, output: RowsListener): Promise<string> {
    const { target, columns, untyped } = scatter;
    const source = await this.#describeSource(scatter, run);
    const shape = new RowShape({
      ...{ table: target.table, given: columns, typeOids: source.typeOids },
      untyped: new Set(untyped.filter((index) => !source.typed.has(index))),
    });
    const merged = await this.#mergedRows(run, source.statement, shape);
    if (merged) {
      let count = 0;
      const size = target.atOnce ? shape.rowsMax : nextPortion(merged, shape);
      if (target.atOnce && merged.length > size) throw tooManyAtOnce(shape);
      for (let at = 0; at < merged.length; at += size)
        count += await this.#insert(merged.slice(at, at + size), { run, shape, target, output });
      if (merged.length === 0) await this.#insert([], { run, shape, target, output });
      return `INSERT 0 ${count}`;
    }
    const pieces = await this.#sourcePieces(scatter, run, source.statement);
    const writes = !source.statement.cached.plan.statements[0]!.readOnly;
    const count = await this.#transfer({ ...{ run, pieces, shape, target, output, writes }, deletes: false });
    if (count === 0) await this.#insert([], { run, shape, target, output });
    return `INSERT 0 ${count}`;
  }

  /** Gives the command tag. */
  async move(scatter: ScatterMove, run: ScatteredRun, output: RowsListener): Promise<string> {
    const { target, assigned } = scatter;
    const { table } = target;
    const generated = await this.#generatedColumns(table);
    const columns = table.columns
      .map(({ name }) => name)
      .filter((name) => !generated.has(name) && !(assigned.has(name) && assigned.get(name) === undefined));
    const parts = [...scatter.source, textPart('\nRETURNING '), ...returningOf(scatter, columns)];
    const typeOids = await this.#describeMove(parts, run);
    const untyped = new Set(columns.flatMap((name, index) => (scatter.untyped.has(name) ? [index] : [])));
    const shape = new RowShape({ table, given: columns, typeOids, untyped });
    const buckets = await this.#runner.bucketsOfKeys(run, scatter.keys);
    const pieces = buckets.map((bucket) => {
      const { text, parameters, offsetOf } = assemble(parts, (replacement) =>
        textOfReplacement(replacement, { bucket, ids: [] }),
      );
      const mapPosition = (position: number) => characterAt(run.plan.text, offsetOf(position) ?? 0);
      return { nodeId: nodeOf(table, bucket), text, parameters, leaf: { table, bucket, mapPosition } };
    });
    const count = await this.#transfer({
      ...{ run, pieces, shape, target, output, writes: true },
      deletes: true,
    });
    return `UPDATE ${count}`;
  }

  /** All rows of a query that has to be merged, or read through the mesh; undefined: of any other. */
  async #mergedRows(
    run: ScatteredRun,
    statement: ClientStatement,
    shape: RowShape,
  ): Promise<readonly Row[] | undefined> {
    const [only] = statement.cached.plan.statements;
    const { placement } = only!;
    if (placement.kind !== 'scattered') return undefined;
    const { scatter } = placement;
    if (scatter.kind !== 'mesh' && !(scatter.kind === 'read' && scatter.merge)) return undefined;
    const { view, buffer } = run.portal;
    const all = run.described.parameterOids.map((_, index) => index);
    // Behind two empty names.
    const bytes = Buffer.concat([Buffer.alloc(2), bindTailOf(view, buffer, all, shape.formats)]);
    const own = new BindView().read({ buffer: bytes, bodyStart: 0, end: bytes.length });
    const source: ScatteredRun = {
      ...{ plan: statement.cached.plan, statement: only!, table: placement.table, suppliedIds: [] },
      described: statement.described!,
      portal: { statement, view: own, buffer: bytes, done: false },
    };
    const rows: Row[] = [];
    let size = 0;
    const listener: RowsListener = {
      onRows: (_, received, start, end) => {
        size += end - start;
        if (size > BOUNDS.gatheredBytesMax) return;
        for (const frame of rowFrames(received, start, end)) rows.push(readDataRow(frame));
      },
    };
    if (scatter.kind === 'mesh') await this.#c.mesh.answer(source, listener);
    else await this.#runner.answerMerged(source, scatter, listener);
    if (size > BOUNDS.gatheredBytesMax) throw tooLarge();
    return rows;
  }

  /** Reads all rows of the source and inserts them. Gives how many were. */
  async #transfer(options: {
    run: ScatteredRun;
    pieces: readonly SourcePiece[];
    shape: RowShape;
    target: RowTarget;
    /** The source may write. */
    writes: boolean;
    /** It deletes what it gives. */
    deletes: boolean;
    output: RowsListener;
  }): Promise<number> {
    const { run, pieces, shape, target, writes, deletes, output } = options;
    const { view, buffer } = run.portal;
    const oids = portableOids(run.described.parameterOids);
    const all = oids.map((_, index) => index);
    let size = deletes ? 1 : 0;
    const waiting: Row[][] = pieces.map(() => []);
    const rows: RowsListener = {
      onRows: (index, bytes, start, end) => {
        for (const frame of rowFrames(bytes, start, end)) waiting[index]!.push(readDataRow(frame));
      },
    };
    const opened = pieces.map(({ nodeId, text, parameters, leaf }): BoundPiece => {
      const used = parameters ?? all;
      return {
        ...{ nodeId, text, leaf, shared: undefined, parameterOids: used.map((one) => oids[one] ?? 0) },
        tail: bindTailOf(view, buffer, used, shape.formats),
        portion: { portal: `postern_rows_${++portalsMade}`, step: 'open', maxRows: size },
      };
    });
    // A part whose tag has come has given all its rows.
    const done = (await this.#runner.runBound(opened, { writes }, rows)).map((tag) => tag !== '');
    let count = 0;
    const kept: Row[] = [];
    size = target.atOnce ? shape.rowsMax : Math.min(FIRST_PORTION, shape.rowsMax);
    for (const [index, piece] of opened.entries()) {
      for (;;) {
        const [first] = waiting[index]!.length > 0 ? [waiting[index]!] : [];
        if (first) {
          waiting[index] = [];
          if (target.atOnce) keepAll(kept, first, shape);
          else {
            count += await this.#insert(first, { run, shape, target, output });
            size = nextPortion(first, shape);
          }
        }
        if (done[index]) break;
        const portion = { portal: piece.portion!.portal, step: 'go on', maxRows: size } as const;
        const only = { onRows: (_: number, b: Buffer, s: number, e: number) => rows.onRows(index, b, s, e) };
        const [tag] = await this.#runner.runBound([{ ...piece, portion }], { writes }, only);
        done[index] = tag !== '';
      }
    }
    if (kept.length > 0) count += await this.#insert(kept, { run, shape, target, output });
    if (!this.#c.lease.branches.implicit) {
      const closed = opened.map(
        (piece): BoundPiece => ({
          ...piece,
          portion: { portal: piece.portion!.portal, step: 'close', maxRows: 0 },
        }),
      );
      await this.#runner.runBound(closed, { writes: false }, rows);
    }
    return count;
  }

  /** Of no rows: one INSERT of none, for what a server says of the table, the rights to it before all. */
  async #insert(
    given: readonly Row[],
    options: { run: ScatteredRun; shape: RowShape; target: RowTarget; output: RowsListener },
  ): Promise<number> {
    const { run, shape, target, output } = options;
    const { plan, portal, described } = run;
    const rows = await this.#withIds(given, shape);
    const keys = rows.map((row) => shape.keyOf(row));
    const buckets =
      rows.length === 0
        ? [0]
        : await bucketsOf(shape.table, keys, { bind: undefined, ids: [] }, (text) =>
            this.#c.askAnyNode(text),
          );
    const client = { view: portal.view, buffer: portal.buffer, oids: portableOids(described.parameterOids) };
    const pieces = piecesOfBatch({ shape, rows, buckets, target, plan, client });
    const bound = pieces.map(
      ({ nodeId, bucket, text, parameterOids, tail, mapPosition }): BoundPiece => ({
        ...{ nodeId, text, parameterOids, tail, shared: undefined },
        leaf: { table: shape.table, bucket, mapPosition },
      }),
    );
    const tags = await this.#runner.runBound(bound, { writes: true }, output);
    return tags.reduce((sum, tag) => sum + countOf(tag), 0);
  }

  async #withIds(rows: readonly Row[], { supplied, table }: RowShape): Promise<readonly Row[]> {
    if (supplied.length === 0) return rows;
    const columns: number[][] = [];
    for (const { name } of supplied) {
      const ids = await this.#c.ids.take(table, name, rows.length);
      this.#c.sequences.noteSupplied({ table, column: name }, ids.at(-1)!);
      columns.push(ids);
    }
    return rows.map((row, i) => [...row, ...columns.map((ids) => Buffer.from(String(ids[i])))]);
  }

  /** What the query gives. `typed`: columns that have a type after all. */
  async #describeSource(
    { sourceText }: ScatterCopy,
    run: ScatteredRun,
  ): Promise<{ statement: ClientStatement; typeOids: readonly number[]; typed: ReadonlySet<number> }> {
    const cached = this.#c.plan(sourceText);
    const [only, another] = cached.plan.statements;
    if (!only || another)
      throw new PosternError({ sqlState: '42601', message: 'the query is not one statement' });
    if (only.refusal) throw only.refusal;
    const oids = run.described.parameterOids;
    const statement: ClientStatement = { name: '', text: sourceText, oids, cached, described: undefined };
    const described = await this.#c.onHome((connection) => describeStatement(connection, sourceText, oids));
    statement.described = described;
    const typeOids = typesOf(described.rows);
    // A parameter that is used elsewhere as well may have another type than the target's.
    const typed = new Set(typeOids.flatMap((oid, index) => (oid === OID_TEXT ? [] : [index])));
    return { statement, typeOids, typed };
  }

  async #sourcePieces(
    { sourceAt }: ScatterCopy,
    run: ScatteredRun,
    statement: ClientStatement,
  ): Promise<readonly SourcePiece[]> {
    const { plan } = statement.cached;
    const only = plan.statements[0]!;
    const { view, buffer } = run.portal;
    const fromSource = (position: number) => (sourceAt === undefined ? 1 : sourceAt + position);
    const inTarget = (piece: SourcePiece): SourcePiece => ({
      ...piece,
      leaf: piece.leaf && {
        ...piece.leaf,
        mapPosition: (position) => fromSource(piece.leaf!.mapPosition(position)),
      },
    });
    const { placement } = only;
    if (placement.kind !== 'keyed' && placement.kind !== 'scattered')
      return [{ nodeId: this.#c.homeNodeId, text: statement.text, parameters: undefined, leaf: undefined }];
    const bound = await this.#execution.bind(statement, view, buffer);
    if (bound) {
      const { nodeId, shared, tag } = bound;
      const piece = { nodeId: nodeId!, text: shared.text, parameters: undefined, leaf: tag.leaf };
      return [inTarget(piece)];
    }
    const { table } = placement;
    const source: ScatteredRun = { ...run, plan, statement: only, table, described: statement.described! };
    return (await this.#runner.piecesOfQuery(source)).map(inTarget);
  }

  /** What DELETE … RETURNING gives, by the face. */
  async #describeMove(parts: readonly TextPart[], run: ScatteredRun): Promise<readonly number[]> {
    const { text, parameters } = assemble(parts, (replacement) =>
      replacement.kind === 'leaf'
        ? `${quoteQualified(replacement.table.schema, replacement.table.name)}${
            replacement.alias === undefined ? '' : ` AS ${quoteIdentifier(replacement.alias)}`
          }`
        : textOfReplacement(replacement, undefined),
    );
    const oids = parameters.map((index) => run.described.parameterOids[index] ?? 0);
    const { rows } = await this.#c.onHome((connection) => describeStatement(connection, text, oids));
    return typesOf(rows);
  }

  /** The columns that the server computes. Throws where a DELETE and an INSERT would not be what an UPDATE is. */
  async #generatedColumns(table: ShardedTable): Promise<ReadonlySet<string>> {
    const oid = `${quoteLiteral(quoteQualified(table.schema, table.name))}::pg_catalog.regclass`;
    const facts = await this.#c.askAnyNode(
      `SELECT 'generated', attname FROM pg_catalog.pg_attribute WHERE attrelid = ${oid} AND attgenerated <> ''
       UNION ALL SELECT 'a trigger', tgname FROM pg_catalog.pg_trigger WHERE tgrelid = ${oid} AND NOT tgisinternal
       UNION ALL SELECT 'row-level security', relname FROM pg_catalog.pg_class WHERE oid = ${oid} AND relrowsecurity
       UNION ALL SELECT 'a foreign key to it with an action', conname FROM pg_catalog.pg_constraint
         WHERE confrelid = ${oid} AND contype = 'f' AND (confupdtype NOT IN ('a', 'r') OR confdeltype NOT IN ('a', 'r'))`,
    );
    const obstacle = facts.find(([kind]) => kind !== 'generated');
    if (obstacle) {
      throw notSupported(
        `the shard key "${table.keyColumn}" of table "${table.schema}.${table.name}" cannot be updated: the table has ${obstacle[0]}`,
        'DELETE the row and INSERT it with its new key.',
      );
    }
    return new Set(facts.map(([, name]) => name ?? ''));
  }
}

/** No name is used twice, wherever a portal was left behind by a statement that failed. */
let portalsMade = 0;
const OID_TEXT = 25;
/** Rows that are read before it is known how large they are. */
const FIRST_PORTION = 50;

/** As many as are about as large together as may be held. */
function nextPortion(rows: readonly Row[], shape: RowShape): number {
  const fit = Math.floor((BOUNDS.transferBytes * rows.length) / Math.max(sizeOf(rows), 1));
  return Math.max(1, Math.min(fit, BOUNDS.transferRowsMax, shape.rowsMax));
}

/** As far as one batch may go. */
function keepAll(kept: Row[], rows: readonly Row[], shape: RowShape): void {
  for (const row of rows) kept.push(row);
  if (kept.length > shape.rowsMax) throw tooManyAtOnce(shape);
  if (sizeOf(kept) > BOUNDS.gatheredBytesMax) throw tooLarge();
}

function sizeOf(rows: readonly Row[]): number {
  let bytes = 0;
  for (const row of rows) for (const value of row) bytes += value?.length ?? 0;
  return bytes;
}

function tooManyAtOnce({ rowsMax }: RowShape): PosternError {
  return notSupported(
    `INSERT … SELECT … ON CONFLICT DO UPDATE of more than ${rowsMax} rows across buckets is not supported`,
    'Insert them in portions.',
  );
}

function tooLarge(): PosternError {
  return new PosternError({
    sqlState: '54000',
    message: 'the rows of the query, which have to be merged over several nodes, are too large',
    hint: `Have the query give less than ${BOUNDS.gatheredBytesMax / 1024 / 1024} MiB.`,
  });
}

function typesOf(rows: Buffer): number[] {
  if (rows[0] !== Backend.RowDescription)
    throw new PosternError({ sqlState: '42601', message: 'the query gives no rows' });
  return readRowDescription({ buffer: rows, bodyStart: 5, end: rows.length }).map(({ typeOid }) => typeOid);
}

function returningOf({ alias, assigned }: ScatterMove, columns: readonly string[]): TextPart[] {
  return columns.flatMap((name, index): TextPart[] => {
    const value = assigned.get(name);
    const comma = index > 0 ? [textPart(', ')] : [];
    if (!value) return [...comma, textPart(`${quoteIdentifier(alias)}.${quoteIdentifier(name)}`)];
    return [...comma, textPart('('), ...value, textPart('\n)')];
  });
}

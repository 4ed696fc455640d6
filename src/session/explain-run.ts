/**
 * EXPLAIN of a query, in both protocols: the query is planned as if it had come by itself, what each node would be sent for it
 * is sent with the client's EXPLAIN ahead, on branches of the client's transaction, and the answers are put into one.
 *
 * Invariant: with ANALYZE each part of a query is carried out once, in the client's transaction, or the whole is refused; what
 * the parts give goes to nobody, so that a query whose second part needs the rows of the first is refused.
 *
 * Previous hop: scattered.ts. What it says: execute/explain-report.ts.
 */
import { rowFrames } from '../backend/row-frames.ts';
import { assert } from '../base/assert.ts';
import { notSupported, type PosternError } from '../base/errors.ts';
import type { ShardedTable } from '../catalog/map.ts';
import { choose, SCATTERED } from '../execute/choose.ts';
import type { LeavesOfPlan } from '../execute/explain-names.ts';
import { type ExplainedPart, type ExplainReport, explainRows } from '../execute/explain-report.ts';
import { nodeOf, type Piece, piecesOfLeaves } from '../execute/scatter.ts';
import { portableOids } from '../pg/oid.ts';
import type { ExplainPlacement } from '../plan/explain.ts';
import type { Placement, QueryPlan, StatementPlan } from '../plan/plan.ts';
import { rewriteQuery, textOfReplacement } from '../plan/rewrite.ts';
import type { Scatter } from '../plan/scatter.ts';
import type { ScatterRead } from '../plan/scatter-read.ts';
import { assemble, characterAt } from '../plan/scatter-text.ts';
import { encodeDataRow, readDataRowText } from '../wire/backend.ts';
import { FrameWriter } from '../wire/frame-writer.ts';
import { bindTailOf } from '../wire/frontend.ts';
import type { Conversation } from './conversation.ts';
import { MergedRead } from './merged-read.ts';
import type { BoundPiece } from './pieces.ts';
import type { ClientStatement, PreparedExecution } from './prepared-execution.ts';
import type { RowsListener } from './rows-in-order.ts';
import type { ScatteredStatements } from './scattered.ts';
import { type ScatteredPortal, type ScatteredRun, scatterOf } from './scattered-run.ts';

/** A part of the answer and what is sent for it: on a branch of the client's transaction, or to a mesh. */
type AskedPart = ExplainedPart &
  ({ readonly piece: BoundPiece } | { readonly ofMesh: (rows: RowsListener) => Promise<string> });

type Explained = Omit<ExplainReport, 'parts'> & { readonly parts: readonly AskedPart[] };

export class ExplainRun {
  readonly #c: Conversation;
  readonly #execution: PreparedExecution;
  readonly #scattered: ScatteredStatements;
  readonly #placement: ExplainPlacement;
  readonly #portal: ScatteredPortal;

  constructor(options: {
    conversation: Conversation;
    execution: PreparedExecution;
    scattered: ScatteredStatements;
    placement: ExplainPlacement;
    portal: ScatteredPortal;
  }) {
    this.#c = options.conversation;
    this.#execution = options.execution;
    this.#scattered = options.scattered;
    this.#placement = options.placement;
    this.#portal = options.portal;
  }

  /** Gives the command tag; the rows go to `output`. */
  async answer(output: RowsListener): Promise<string> {
    const { query, analyzes, format } = this.#placement;
    const statement = this.#statementOf(query);
    const [only] = statement.cached.plan.statements;
    assert(only, 'a query was planned before');
    if (only.refusal) throw only.refusal;
    const explained = await this.#explain(statement, only);
    const { parts } = explained;
    const rows: string[][] = parts.map(() => []);
    const collect: RowsListener = {
      onRows: (index, buffer, start, end) => {
        for (const frame of rowFrames(buffer, start, end)) rows[index]!.push(readDataRowText(frame)[0] ?? '');
      },
    };
    const [first] = parts;
    if (first && 'ofMesh' in first) await first.ofMesh(collect);
    else {
      const pieces = parts.flatMap((part) => ('piece' in part ? part.piece : []));
      await this.#scattered.runBound(pieces, { writes: analyzes && !only.readOnly }, collect);
    }
    const writer = new FrameWriter(1024);
    for (const row of explainRows(explained, rows, format)) encodeDataRow(writer, [row]);
    const frames = writer.take();
    output.onRows(0, frames, 0, frames.length);
    return 'EXPLAIN';
  }

  /** A text of the same parameters as the client's. */
  #statementOf(text: string): ClientStatement {
    const { oids, described } = this.#portal.statement;
    const cached = this.#c.plan(text);
    return { name: '', text, oids, cached, described };
  }

  async #explain(statement: ClientStatement, only: StatementPlan): Promise<Explained> {
    const { placement } = only;
    if (placement.kind === 'referenceWrite') return this.#referenceWrite(placement);
    const { view, buffer } = this.#portal;
    const oids = this.#portal.statement.described!.parameterOids;
    const plan = this.#planToExplain(statement.cached.plan, only);
    const { keepsLookups = false } = only;
    if (keepsLookups && this.#placement.analyzes)
      throw cannotAnalyze(
        'a write to a unique constraint off the shard key',
        'its values are kept elsewhere',
      );
    const asPlaced = keepsLookups ? { ...plan, statements: [{ ...only, keepsLookups: false }] } : plan;
    const choice = await choose(asPlaced, { view, buffer, oids }, this.#c.chooseContext);
    if (choice === SCATTERED) return await this.#scatteredQuery(statement, only);
    const [{ bucket = -1 } = {}] = choice.statements;
    const nodeId = choice.nodeId ?? this.#c.readingNodeId();
    if (placement.kind === 'keyed') {
      const { text, mapPosition } = rewriteQuery(plan, choice.statements, 'literal');
      const { table } = placement;
      const leaves = leavesOf(only, table, [bucket], false);
      const piece = this.#piece({ nodeId, text, mapPosition, table, bucket });
      return {
        placement: 'keyed',
        summary: `bucket ${bucket} of ${table.name}, on node ${this.#nodeName(nodeId)}`,
        reason: undefined,
        notes: keepsLookups ? ['values of unique constraints off the shard key are kept elsewhere'] : [],
        parts: [{ ...this.#part(nodeId, leaves), piece }],
      };
    }
    const piece = this.#piece({ nodeId, text: statement.cached.text, mapPosition: (position) => position });
    return {
      ...{ placement: placement.kind, ...this.#ofWholeQuery(placement, nodeId), notes: [] },
      parts: [{ ...this.#part(nodeId, undefined), piece }],
    };
  }

  /** Without what follows a write that has unique values off the shard key: that is not explained, and so not carried out. */
  #planToExplain(plan: QueryPlan, only: StatementPlan): QueryPlan {
    if (!only.keepsLookups) return plan;
    if (this.#placement.analyzes)
      throw notSupported(
        'EXPLAIN ANALYZE of a write to a table with a unique constraint off the shard key',
        'Leave ANALYZE out.',
      );
    return { ...plan, statements: [{ ...only, keepsLookups: false }] };
  }

  /** A query that goes to one node as it is. */
  #ofWholeQuery(placement: Placement, nodeId: number): Pick<ExplainReport, 'summary' | 'reason'> {
    const node = this.#nodeName(nodeId);
    switch (placement.kind) {
      case 'anywhere':
        return { summary: `on node ${node}, as on any`, reason: 'it names no table' };
      case 'reference':
        return { summary: `on node ${node}, as on any`, reason: 'it reads nothing but reference tables' };
      case 'node':
        return { summary: `on node ${node}`, reason: 'its schema is there' };
      default:
        return { summary: `on the home node, ${node}`, reason: undefined };
    }
  }

  #referenceWrite(placement: Extract<Placement, { kind: 'referenceWrite' }>): Explained {
    if (this.#placement.analyzes)
      throw cannotAnalyze('a statement that writes to a reference table', 'it is carried out on all nodes');
    const { homeNodeId } = this.#c;
    const { nodes } = this.#c.state.context.catalog.current;
    const others = nodes.filter(({ id }) => id !== homeNodeId).map(({ name }) => name);
    const then = placement.rows ? 'its rows are then written on' : 'and then on';
    const { query } = this.#placement;
    const piece = this.#piece({ nodeId: homeNodeId, text: query, mapPosition: (position) => position });
    return {
      placement: 'referenceWrite',
      summary: `on the home node, ${this.#nodeName(homeNodeId)}; ${then} ${others.length === 1 ? 'node' : 'nodes'} ${others.join(', ')}`,
      reason: `${placement.tables.map(({ name }) => name).join(', ')} is a reference table: whole on every node`,
      notes: placement.locks ? ['it waits until nobody else writes to the table'] : [],
      parts: [{ ...this.#part(homeNodeId, undefined), piece }],
    };
  }

  async #scatteredQuery(statement: ClientStatement, only: StatementPlan): Promise<Explained> {
    const { scatter, table, suppliedIds } = scatterOf(only.placement);
    const { plan } = statement.cached;
    const described = this.#portal.statement.described!;
    const portal: ScatteredPortal = { ...this.#portal, statement };
    const run: ScatteredRun = { plan, statement: only, table, described, portal, suppliedIds };
    switch (scatter.kind) {
      case 'leaves': {
        const buckets = await this.#scattered.bucketsOfKeys(run, scatter.keys);
        const pieces = piecesOfLeaves(plan, table, buckets);
        return this.#ofBuckets(run, pieces, { ...this.#whyKeys(table, scatter), notes: [] });
      }
      case 'rows': {
        const pieces = await this.#scattered.piecesOfValues(run, scatter);
        const reason = `its ${scatter.rows.length} rows are of several buckets`;
        return this.#ofBuckets(run, pieces, { reason, notes: [] });
      }
      case 'read':
        return await this.#read(run, scatter);
      case 'mesh':
        return await this.#mesh(run, scatter.reason);
      case 'copy': {
        if (this.#placement.analyzes)
          throw cannotAnalyze('INSERT … SELECT between buckets', 'its rows go through the router');
        const source = this.#statementOf(scatter.sourceText);
        const [query] = source.cached.plan.statements;
        if (query?.refusal) throw query.refusal;
        const explained = await this.#explain(source, query!);
        return {
          ...explained,
          placement: 'scattered',
          summary: `rows of a query are inserted where they belong among ${bucketCount(table)} buckets of ${table.name}; the query: ${explained.summary}`,
          notes: [...explained.notes, 'the plans are those of the query'],
        };
      }
      case 'move': {
        if (this.#placement.analyzes)
          throw cannotAnalyze('an UPDATE of the shard key', 'its rows go through the router');
        const buckets = await this.#scattered.bucketsOfKeys(run, scatter.keys);
        const pieces = buckets.map((bucket): Piece => {
          const { text, parameters, offsetOf } = assemble(scatter.source, (replacement) =>
            textOfReplacement(replacement, { bucket, ids: [] }),
          );
          const mapPosition = (position: number) => characterAt(plan.text, offsetOf(position) ?? 0);
          return {
            ...{ nodeId: nodeOf(table, bucket), table, bucket, text, parameters, mapPosition },
            ...{ recurs: false, rows: undefined },
          };
        });
        const reason = `the shard key ${table.keyColumn} is set: rows are deleted where they are, and inserted where they belong`;
        return this.#ofBuckets(run, pieces, { reason, notes: ['the plans are those of the DELETE'] });
      }
    }
  }

  /** The same statement for each bucket: one for each node is shown, unless all are asked for. */
  #ofBuckets(
    run: ScatteredRun,
    pieces: readonly Piece[],
    why: Pick<ExplainReport, 'reason' | 'notes'>,
  ): Explained {
    const { table, statement } = run;
    const showsAll = this.#placement.analyzes || this.#placement.verbose;
    const parts: AskedPart[] = [];
    for (const [nodeId, own] of byNode(pieces)) {
      const shown = showsAll ? own : own.slice(0, 1);
      for (const { bucket, text, mapPosition, parameters } of shown) {
        const piece = this.#piece({ nodeId, text, mapPosition, table, bucket, parameters });
        const alike = own.slice(shown.length).map((other) => other.bucket);
        parts.push({ ...this.#part(nodeId, leavesOf(statement, table, [bucket], false), alike), piece });
      }
    }
    const summary = this.#whereabouts(
      table,
      pieces.map(({ bucket }) => bucket),
    );
    return { placement: 'scattered', summary, ...why, parts };
  }

  async #read(run: ScatteredRun, read: ScatterRead): Promise<Explained> {
    const { table, statement } = run;
    const { analyzes, verbose } = this.#placement;
    if (read.merge) {
      // Its result columns decide how rows are put together.
      run.portal.statement.described = undefined;
      await this.#execution.describeKeyed(run.portal.statement);
    }
    const own: ScatteredRun = { ...run, described: run.portal.statement.described! };
    const buckets = await this.#scattered.bucketsOfKeys(own, read.keys);
    const { pieces, final } = await new MergedRead(this.#c, read, own).parts(buckets);
    const isByNode = read.unit === 'node';
    const shown = new Map<number, number>();
    const parts: AskedPart[] = [];
    for (const [index, piece] of pieces.entries()) {
      const { nodeId, leaf } = piece;
      if (!isByNode && !analyzes && !verbose && shown.has(nodeId)) continue;
      shown.set(nodeId, index);
      const of = leavesOf(statement, table, leaf?.buckets ?? [leaf!.bucket], isByNode, read.tables);
      const alike =
        isByNode || analyzes || verbose
          ? []
          : pieces
              .filter((other) => other !== piece && other.nodeId === nodeId)
              .map((other) => other.leaf!.bucket);
      parts.push({ ...this.#part(nodeId, of, alike), piece: this.#explaining(piece) });
    }
    const notes: string[] = [];
    if (final) {
      parts.push({
        ...this.#part(final.nodeId, undefined),
        role: 'merge',
        piece: this.#explaining(final, true),
      });
      notes.push('the merge is planned without the rows that it will get');
    }
    const how = final ? `; merged on node ${this.#nodeName(final.nodeId)}` : '; rows pass as they come';
    return {
      placement: 'scattered',
      summary: `${this.#whereabouts(table, buckets)}${how}`,
      ...this.#whyKeys(table, read),
      notes,
      parts,
    };
  }

  /** The mesh's server explains the query as it came. */
  async #mesh(run: ScatteredRun, reason: string): Promise<Explained> {
    const ready = await this.#c.state.context.mesh?.ready();
    const node = ready?.pool.address.nodeName ?? '';
    const { statement } = run.portal;
    const { prefix } = this.#placement;
    const cached = { ...statement.cached, text: prefix + statement.cached.text };
    const own: ScatteredRun = { ...run, portal: { ...run.portal, statement: { ...statement, cached } } };
    const ofMesh = (rows: RowsListener) => this.#c.mesh.answer(own, rows);
    return {
      placement: 'mesh',
      summary: `read through the mesh of node ${node}`,
      reason,
      notes: [],
      parts: [{ node, leaves: undefined, role: 'part', alike: [], ofMesh }],
    };
  }

  #whyKeys(table: ShardedTable, { keys }: Extract<Scatter, { keys: unknown }>): { reason: string } {
    const { keyColumn } = table;
    return keys
      ? { reason: `the values of the shard key ${keyColumn} are of several buckets` }
      : { reason: `the shard key ${keyColumn} is not bound to a value` };
  }

  #whereabouts(table: ShardedTable, buckets: readonly number[]): string {
    const nodes = new Set(buckets.map((bucket) => nodeOf(table, bucket))).size;
    const distinct = new Set(buckets).size;
    const all = distinct === bucketCount(table) ? 'all ' : '';
    return `${all}${distinct} buckets of ${table.name}, on ${nodes === 1 ? 'one node' : `${nodes} nodes`}`;
  }

  #part(nodeId: number, leaves: LeavesOfPlan | undefined, alike: readonly number[] = []): ExplainedPart {
    return { node: this.#nodeName(nodeId), leaves, role: 'part', alike };
  }

  #nodeName(nodeId: number): string {
    const { nodes } = this.#c.state.context.catalog.current;
    return nodes.find(({ id }) => id === nodeId)?.name ?? String(nodeId);
  }

  /** A text of the client's parameters, or of these. */
  #piece(options: {
    nodeId: number;
    text: string;
    mapPosition: (position: number) => number;
    table?: ShardedTable;
    bucket?: number;
    parameters?: readonly number[] | undefined;
  }): BoundPiece {
    const { nodeId, text, mapPosition, table, bucket } = options;
    const { view, buffer, statement } = this.#portal;
    const all = statement.described!.parameterOids;
    const oids = nodeId === this.#c.homeNodeId ? all : portableOids(all);
    const parameters = options.parameters ?? all.map((_, index) => index);
    return this.#explaining({
      ...{ nodeId, text, shared: undefined },
      parameterOids: parameters.map((index) => oids[index] ?? 0),
      tail: bindTailOf(view, buffer, parameters, [0]),
      leaf: table && bucket !== undefined ? { table, bucket, mapPosition } : undefined,
    });
  }

  /** `planOnly`: it is not carried out, whatever the client has asked for. */
  #explaining(piece: BoundPiece, planOnly = false): BoundPiece {
    const { prefix, charactersBefore, verbose, format } = this.#placement;
    const plain = `EXPLAIN (VERBOSE ${verbose}, FORMAT ${format === 'text' ? 'TEXT' : 'JSON'}) `;
    const ahead = planOnly ? plain : prefix;
    const aheadLength = [...ahead].length;
    const { leaf } = piece;
    return {
      ...{ nodeId: piece.nodeId, shared: undefined, parameterOids: piece.parameterOids, tail: piece.tail },
      text: ahead + piece.text,
      leaf: leaf && {
        ...leaf,
        mapPosition: (position) => charactersBefore + leaf.mapPosition(Math.max(1, position - aheadLength)),
      },
    };
  }
}

function leavesOf(
  statement: StatementPlan,
  table: ShardedTable,
  buckets: readonly number[],
  together: boolean,
  more: readonly ShardedTable[] = [],
): LeavesOfPlan {
  const tables = new Set([table, ...more]);
  for (const { replacement } of statement.edits)
    if (replacement.kind === 'leaf' || replacement.kind === 'leafObject') tables.add(replacement.table);
  return { tables: [...tables], buckets, together };
}

function byNode(pieces: readonly Piece[]): ReadonlyMap<number, readonly Piece[]> {
  const nodes = new Map<number, Piece[]>();
  for (const piece of pieces) {
    const own = nodes.get(piece.nodeId);
    if (own) own.push(piece);
    else nodes.set(piece.nodeId, [piece]);
  }
  return nodes;
}

function bucketCount(table: ShardedTable): number {
  return table.buckets.length;
}

function cannotAnalyze(what: string, because: string): PosternError {
  return notSupported(`EXPLAIN ANALYZE of ${what}: ${because}`, 'Leave ANALYZE out.');
}

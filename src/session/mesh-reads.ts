/**
 * What one client reads through a mesh (src/mesh/SPEC.md): whole answers, answers in portions, and cursors. A mesh's connection
 * is no branch of the client's transaction: it never writes, and sees what has been committed before the statement began.
 *
 *   whole:    taken ──rows──▶ given back
 *   portions: taken, BEGIN ──rows up to the limit──▶ held ──Execute, FETCH──▶ held ──the last row, Close, CLOSE,
 *             end of the client's transaction──▶ ROLLBACK, given back
 *
 * Each portal and each cursor holds a connection of its own: the nodes' snapshots are those of its first row, and another's
 * must not be.
 *
 * Invariant: no statement is read there in a transaction that has written, or whose snapshot has to be another one than now's.
 * Invariant: what fails before its first row has been told, because a table is not as the mesh knew it, is tried once more when
 * the mesh has been brought up to date; nothing else is.
 */
import { type BackendConnection, TransactionStatus } from '../backend/connection.ts';
import { ask, switchSettings } from '../backend/internal-query.ts';
import { BOUNDS } from '../base/bounds.ts';
import { inFailedTransaction, notSupported, objectError, queryCanceled } from '../base/errors.ts';
import { describeStatement } from '../execute/describe.ts';
import { isMesh, MESH_NODE_BASE, type ReadyMesh } from '../execute/mesh.ts';
import type { CachedQuery, Described } from '../execute/plan-cache.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import { portableOids } from '../pg/oid.ts';
import type { StatementPlan } from '../plan/plan.ts';
import { bindTail } from '../wire/frontend.ts';
import { asksForRepeatableRead } from './branch-opening.ts';
import { PipelineFailed } from './branches.ts';
import type { Conversation } from './conversation.ts';
import { isOfStaleMesh, isWithoutDatabase, refuseUserValues, toldOfMesh } from './mesh-errors.ts';
import { boundToNodes, nodesReadBy, refuseSilent } from './mesh-nodes.ts';
import { mayBeOfJoinedText, textForMesh } from './mesh-text.ts';
import { type BoundPiece, type Portion, RunningPieces } from './pieces.ts';
import type { RowsListener } from './rows-in-order.ts';
import type { ScatteredPortal, ScatteredRun } from './scattered-run.ts';
import { CONSISTENT_READS, isOn } from './state.ts';

/** A connection that is read from in portions. */
interface Holding {
  readonly connection: BackendConnection;
  readonly mesh: ReadyMesh;
  /** The nodes whose rows are read. */
  readonly nodeIds: ReadonlySet<number>;
}

interface Cursor extends Holding {
  /** The columns of its query. */
  readonly described: Described;
  /** What FETCH, MOVE and CLOSE of it are planned as, by the plan that the text has by itself. */
  readonly plans: WeakMap<CachedQuery, CachedQuery>;
}

/** The only portal of a held connection. */
const PORTAL = 'postern_portion';

export class MeshReads {
  readonly #c: Conversation;
  readonly #portals = new Map<ScatteredPortal, Holding>();
  readonly #cursors = new Map<string, Cursor>();
  #ended = false;

  constructor(conversation: Conversation) {
    this.#c = conversation;
  }

  /** A whole answer. Gives the command tag. */
  async answer(run: ScatteredRun, output: RowsListener): Promise<string> {
    const [effect] = run.statement.effects.filter(({ kind }) => kind === 'declareCursor');
    if (effect?.kind === 'declareCursor') return await this.#declare(run, effect.name);
    const name = cursorOf(run);
    if (name !== undefined) return await this.#ofCursor(run, name, output);
    await this.#check(run);
    return await this.#attempt(run, output, async (holding, listener, text) => {
      const replay = await this.#settings();
      if (replay !== '') await ask(holding.connection, `BEGIN;${replay}`);
      try {
        return await this.#runPiece(holding, this.#pieceOf(holding, run, undefined, text), listener);
      } finally {
        await this.#giveBack(holding);
      }
    });
  }

  /** Up to `maxRows` rows more. undefined: there may be others behind them. */
  async portion(run: ScatteredRun, maxRows: number, output: RowsListener): Promise<string | undefined> {
    const held = this.#portals.get(run.portal);
    if (held) return await this.#goOn(run, held, { maxRows, output });
    this.#refuseTooMany();
    await this.#check(run);
    const tag = await this.#attempt(run, output, async (holding, listener, text) => {
      await this.#open(holding);
      this.#portals.set(run.portal, holding);
      run.portal.release = () => this.#release(run.portal);
      const piece = this.#pieceOf(holding, run, { portal: PORTAL, step: 'open', maxRows }, text);
      return await this.#runPiece(holding, piece, listener).catch(async (error) => {
        await this.#release(run.portal);
        throw error;
      });
    });
    if (tag !== '') await this.#release(run.portal);
    return tag === '' ? undefined : tag;
  }

  /** Is the portal being read in portions? */
  holds(portal: ScatteredPortal): boolean {
    return this.#portals.has(portal);
  }

  /** What a FETCH, MOVE or CLOSE means if its cursor is one of these; undefined: it is not. */
  planOf(cached: CachedQuery): CachedQuery | undefined {
    if (this.#cursors.size === 0) return undefined;
    const [only, second] = cached.plan.statements;
    if (only?.placement.kind !== 'cursor' || second) return undefined;
    const { name } = only.placement;
    const cursor = this.#cursors.get(name);
    if (!cursor || !this.#isDeclared(name)) return undefined;
    const known = cursor.plans.get(cached);
    if (known) return known;
    const planned = planOfCursor(cached, only, cursor.described);
    cursor.plans.set(cached, planned);
    return planned;
  }

  /** The client's transaction is over, or what it was has been undone: nothing that it held is needed any more. */
  onFree(): void {
    for (const portal of [...this.#portals.keys()]) void this.#release(portal);
    for (const name of [...this.#cursors.keys()]) this.#forgetCursor(name);
  }

  /** The client has gone. */
  end(): void {
    this.#ended = true;
    this.onFree();
  }

  async #declare(run: ScatteredRun, name: string): Promise<string> {
    const { lease, state } = this.#c;
    if (state.transaction !== 'virtual' && !lease.clientInBlock)
      throw objectError('25P01', 'DECLARE CURSOR can only be used in transaction blocks');
    await this.#check(run);
    if (lease.steps.cursorNodeId(name) !== undefined)
      throw objectError('42P03', `cursor "${name}" already exists`);
    this.#refuseTooMany();
    const described = await this.#describeQuery(run);
    // It lives as long as the client's transaction, whose savepoints a node has to keep.
    const connection = await lease.ensure(lease.connection ? undefined : this.#c.homeNodeId);
    await ask(connection, '');
    const tag = await this.#attempt(run, { onRows() {} }, async (holding, listener, text) => {
      await this.#open(holding);
      try {
        const piece = this.#pieceOf(holding, run, undefined, text);
        const declared = await this.#runPiece(holding, piece, listener);
        this.#cursors.set(name, { ...holding, described, plans: new WeakMap() });
        return declared;
      } catch (error) {
        await this.#giveBack(holding);
        throw error;
      }
    });
    lease.isFloating = false;
    lease.steps.note({ kind: 'declareCursor', name, hold: false }, MESH_NODE_BASE + this.#c.homeNodeId);
    return tag;
  }

  /** FETCH, MOVE, CLOSE. */
  async #ofCursor(run: ScatteredRun, name: string, output: RowsListener): Promise<string> {
    await this.#quiet();
    const cursor = this.#cursors.get(name);
    if (!cursor) throw objectError('34000', `cursor "${name}" does not exist`);
    const closes = run.statement.effects.some(({ kind }) => kind === 'closeCursor');
    const running = this.#runPiece(cursor, this.#pieceOf(cursor, run, undefined), output);
    const tag = await running.catch((error) => {
      this.#forgetCursor(name);
      throw toldOfMesh(error, this.#c.map.nodes);
    });
    if (closes) {
      this.#forgetCursor(name);
      this.#c.lease.steps.note({ kind: 'closeCursor', name }, 0);
    }
    return tag;
  }

  async #goOn(
    run: ScatteredRun,
    held: Holding,
    { maxRows, output }: { readonly maxRows: number; readonly output: RowsListener },
  ): Promise<string | undefined> {
    await this.#quiet();
    const piece = this.#pieceOf(held, run, { portal: PORTAL, step: 'go on', maxRows });
    const tag = await this.#runPiece(held, piece, output).catch(async (error) => {
      await this.#release(run.portal);
      throw toldOfMesh(error, this.#c.map.nodes);
    });
    if (tag === '') return undefined;
    await this.#release(run.portal);
    return tag;
  }

  /** The columns that the cursor's query gives, as home knows them. */
  #describeQuery(run: ScatteredRun): Promise<Described> {
    const oids = run.described.parameterOids;
    const text = queryOfDeclare(run.portal.statement.cached.text);
    return this.#c.onHome((home) => describeStatement(home, text, oids));
  }

  /** Throws what this read can't be, as things stand. */
  async #check({ plan, statement, described, portal }: ScatteredRun): Promise<void> {
    const { lease, state } = this.#c;
    await this.#quiet();
    if (lease.wrote || lease.branches.hasWritten || lease.ddlUncommitted)
      throw notSupported(
        'a read over several nodes at once would not see what its transaction has written',
        'Read it before the first write (locking rows counts as one), after COMMIT, or bucket by bucket: WHERE with the shard key.',
      );
    await this.#refuseSnapshots();
    await this.#refuseTemporary(statement);
    await refuseUserValues(this.#c, described, portal);
    if (state.context.mesh === undefined)
      throw notSupported(
        'this statement reads several nodes at once, and there is no mesh',
        'Start the router with postern serve.',
      );
    if (plan.statements.length !== 1)
      throw notSupported('a read over several nodes among others', 'Send it by itself.');
  }

  /** Answers to what was sent before come first. */
  async #quiet(): Promise<void> {
    const { lease } = this.#c;
    if (lease.connection && !(await lease.settle())) throw new PipelineFailed();
    if (lease.failed) throw inFailedTransaction();
    if (this.#c.isCanceled) throw queryCanceled();
  }

  async #refuseSnapshots(): Promise<void> {
    const { lease, state } = this.#c;
    let agrees = state.wantsConsistentReads;
    let isolation = asksForRepeatableRead(state) ? 'repeatable read' : 'read committed';
    if (state.transaction === 'none' && !lease.connection) isolation = 'read committed';
    else if (/serializable/i.test(state.beginText) && state.transaction === 'virtual')
      isolation = 'serializable';
    const { connection } = lease;
    if (connection?.transactionStatus === TransactionStatus.inBlock) {
      const [row] = await ask(
        connection,
        `SELECT pg_catalog.current_setting('transaction_isolation'), pg_catalog.current_setting('${CONSISTENT_READS}', true)`,
      );
      isolation = row?.[0] ?? isolation;
      agrees = isOn(row?.[1]);
    }
    if (agrees)
      throw notSupported(
        'postern.consistent_reads is on, and this statement can only be read by each node at its own moment',
        'SET postern.consistent_reads = off, or read the tables one by one.',
      );
    if (isolation === 'repeatable read' || isolation === 'serializable')
      throw notSupported(
        `a read over several nodes at once has its own snapshots, and the transaction is ${isolation.toUpperCase()}`,
        'Use READ COMMITTED for it.',
      );
  }

  /** A name may mean a temporary table of the session's, of which the mesh knows nothing. */
  async #refuseTemporary(statement: StatementPlan): Promise<void> {
    const { lease } = this.#c;
    const own = lease.backends.ownOf(this.#c.homeNodeId);
    if (!own || own.closed || statement.uses.names.length === 0) return;
    const names = statement.uses.names.map(quoteLiteral).join(', ');
    const [row] = await ask(
      own,
      `SELECT relname FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema() AND relname IN (${names}) LIMIT 1`,
    );
    if (!row) return;
    throw notSupported(
      `"${row[0]}" is a temporary table of this session, and can't be read together with rows of several nodes`,
      'Make it an ordinary table.',
    );
  }

  /** Settings that the open transaction has made, as statements; they are undone when the connection is given back. */
  async #settings(): Promise<string> {
    const { lease } = this.#c;
    const { steps, connection } = lease;
    const question = steps.question();
    if (question === undefined || !connection) return '';
    const [values = []] = await ask(connection, question);
    return steps
      .replay(values)
      .filter((text) => text.startsWith('SELECT pg_catalog.set_config('))
      .join(';');
  }

  /**
   * Runs `work` with a mesh as it is now and what is sent to it; once more if the mesh was too old, or with the client's own text
   * if that was not what was sent.
   */
  async #attempt(
    run: ScatteredRun,
    output: RowsListener,
    work: (holding: Holding, listener: RowsListener, text: string) => Promise<string>,
  ): Promise<string> {
    const mesh = this.#c.state.context.mesh!;
    const { nodes } = this.#c.map;
    const nodeIds = nodesReadBy(this.#c.map, run.statement.uses.names);
    let hasTold = false;
    const listener: RowsListener = {
      onRows: (index, buffer, start, end) => {
        hasTold = true;
        output.onRows(index, buffer, start, end);
      },
    };
    const own = run.portal.statement.cached.text;
    let isOwn = true;
    const once = async (fresh: boolean, text?: string): Promise<string> => {
      const ready = await mesh.ready({ fresh });
      const refusal = ready.refusalOf({ names: run.statement.uses.names, ...asksOf(run) });
      if (refusal) throw refusal;
      refuseSilent(this.#c.state.context.pools, nodeIds);
      const sent = text ?? textForMesh(ready, own);
      isOwn = sent === own;
      return await work(await this.#take(ready, nodeIds), listener, sent);
    };
    try {
      return await once(false);
    } catch (error) {
      const isWorthIt = isOfStaleMesh(error) || (!isOwn && mayBeOfJoinedText(error));
      if (hasTold || this.#c.isCanceled || !isWorthIt) throw toldOfMesh(error, nodes);
      if (isWithoutDatabase(error)) mesh.forget();
    }
    return await once(true, own).catch((error) => {
      throw toldOfMesh(error, nodes);
    });
  }

  async #take(mesh: ReadyMesh, nodeIds: ReadonlySet<number>): Promise<Holding> {
    const { user, settings } = this.#c.state;
    const connection = mesh.pool.tryAcquire(user, settings) ?? (await mesh.pool.acquire(user, settings));
    const holding = { connection, mesh, nodeIds };
    try {
      if (connection.settings.key !== settings.key) await switchSettings(connection, settings);
      if (this.#ended) throw objectError('57P01', 'the client has gone');
      if (this.#c.isCanceled) throw queryCanceled();
      return holding;
    } catch (error) {
      await this.#giveBack(holding);
      throw error;
    }
  }

  /** A transaction of its own, which ends when the connection is given back. */
  async #open(holding: Holding): Promise<void> {
    try {
      await ask(holding.connection, `BEGIN READ ONLY;${await this.#settings()}`);
    } catch (error) {
      await this.#giveBack(holding);
      throw error;
    }
  }

  async #giveBack({ connection, mesh }: Holding): Promise<void> {
    if (!connection.closed && connection.transactionStatus !== TransactionStatus.idle)
      await ask(connection, 'ROLLBACK').catch(() => {});
    if (connection.quiet) mesh.pool.release(connection);
    else mesh.pool.discard(connection);
  }

  async #release(portal: ScatteredPortal): Promise<void> {
    const holding = this.#portals.get(portal);
    this.#portals.delete(portal);
    if (holding) await this.#giveBack(holding);
  }

  #forgetCursor(name: string): void {
    const cursor = this.#cursors.get(name);
    this.#cursors.delete(name);
    if (cursor) void this.#giveBack(cursor);
  }

  /** Not if a ROLLBACK TO has undone it. */
  #isDeclared(name: string): boolean {
    const nodeId = this.#c.lease.steps.cursorNodeId(name);
    if (isMesh(nodeId)) return true;
    this.#forgetCursor(name);
    return false;
  }

  #refuseTooMany(): void {
    for (const name of [...this.#cursors.keys()]) this.#isDeclared(name);
    if (this.#portals.size + this.#cursors.size < BOUNDS.meshHoldingsMax) return;
    throw objectError(
      '53400',
      `a session may read at most ${BOUNDS.meshHoldingsMax} statements over several nodes in portions at once`,
    );
  }

  #pieceOf(
    { connection }: Holding,
    run: ScatteredRun,
    portion: Portion | undefined,
    text = run.portal.statement.cached.text,
  ): BoundPiece {
    const { view, buffer } = run.portal;
    const { lease, state } = this.#c;
    const parameterOids = portableOids(run.described.parameterOids);
    const recurs = parameterOids.length > 0 && lease.scope === state.scope;
    return {
      ...{ nodeId: connection.address.nodeId, text, parameterOids, leaf: undefined },
      shared: recurs ? state.context.statements.get(text, parameterOids, lease.scope) : undefined,
      tail: bindTail(view, buffer, undefined).bytes,
      ...(portion && { portion }),
    };
  }

  async #runPiece({ connection, nodeIds }: Holding, piece: BoundPiece, rows: RowsListener): Promise<string> {
    const { output, context } = this.#c.state;
    const running = new RunningPieces(new Map([[piece.nodeId, connection]]), [piece], {
      onRows: (index, buffer, start, end) => {
        rows.onRows(index, buffer, start, end);
        if (output.unsentBytes > BOUNDS.clientUnsentBytesMax) running.pause();
      },
      onNotice: (reader) => this.#c.responses.onNotice(reader),
      onMissingLeaf: () => {},
    });
    this.#c.runningPieces = running;
    const [tag = ''] = await boundToNodes(context.pools, nodeIds, connection, () => running.done).finally(
      () => {
        this.#c.runningPieces = undefined;
      },
    );
    return tag;
  }
}

/** What has to be there for it, beside its relations. */
function asksOf({ statement: { placement, unknownFunctions } }: ScatteredRun) {
  const of =
    placement.kind === 'keyed'
      ? placement.several
      : placement.kind === 'scattered'
        ? placement.scatter
        : undefined;
  if (of?.kind === 'mesh') return { functions: of.functions, namesCollation: of.namesCollation };
  return { functions: unknownFunctions, namesCollation: of?.kind === 'read' && of.namesCollation };
}

function cursorOf({ statement: { placement } }: ScatteredRun): string | undefined {
  return placement.kind === 'scattered' && placement.scatter.kind === 'mesh'
    ? placement.scatter.cursor
    : undefined;
}

/** As if it were a query of the mesh's: FETCH gives the columns of the cursor's query, MOVE and CLOSE none. */
function planOfCursor(cached: CachedQuery, only: StatementPlan, described: Described): CachedQuery {
  const gives = /^\W*fetch\b/i.test(cached.text.replaceAll(/\/\*[\s\S]*?\*\/|--[^\n]*/g, ' '));
  const rows = gives ? described.rows : NO_DATA;
  const name = only.placement.kind === 'cursor' ? only.placement.name : '';
  const placement: StatementPlan['placement'] = {
    ...{ kind: 'scattered', table: undefined as never, suppliedIds: [] },
    scatter: {
      kind: 'mesh',
      reason: 'a cursor over several nodes',
      functions: [],
      namesCollation: false,
      cursor: name,
    },
  };
  return {
    ...cached,
    plan: { ...cached.plan, statements: [{ ...only, placement, readOnly: true }] },
    described: new Map([['', { parameterOids: [], rows, leaves: new Map() }]]),
  };
}

/** NoData, whole. */
const NO_DATA = Buffer.from([0x6e, 0, 0, 0, 4]);

/** What stands behind DECLARE … CURSOR … FOR. */
function queryOfDeclare(text: string): string {
  const bare = text.replaceAll(/\/\*[\s\S]*?\*\/|--[^\n]*/g, ' ');
  const head =
    /^\s*declare\s+(?:"(?:[^"]|"")*"|[^\s"]+)\s+(?:(?:insensitive|asensitive|no|scroll|binary)\s+)*cursor\s+(?:with(?:out)?\s+hold\s+)?for\s/i;
  return bare.replace(head, '');
}

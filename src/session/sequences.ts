/**
 * currval() and lastval() of one session. Where the router remembers the value (sequence-memory.ts), it is put into the text in the
 * place of the call. Where only a backend knows it, that backend has to be the one that advanced the sequence:
 *
 *   remembered ──▶ put into the text, on any backend
 *   advanced in the open transaction, on the branch that it has on home ──▶ as it is, there (pg_locks says so: nextval() keeps a lock)
 *   the session has had its own backend of home all along ──▶ as it is, there
 *   else ──▶ 0A000; from then on, sessions of this role keep their backend of home as soon as they may advance a sequence there
 *
 * Invariant: no session ever sees what another one has drawn from a sequence.
 */
import { type BackendConnection, TransactionStatus } from '../backend/connection.ts';
import { ask, askUnsynced, type Rows } from '../backend/internal-query.ts';
import { rowFrames } from '../backend/row-frames.ts';
import { notSupported, objectError, type PosternError } from '../base/errors.ts';
import type { IdColumnOfTable } from '../catalog/map.ts';
import type { RouterContext } from '../execute/context.ts';
import type { QueryPlan, StatementPlan, SuppliedId } from '../plan/plan.ts';
import { keyOf, type SequenceRead } from '../plan/sequences.ts';
import { readDataRow } from '../wire/backend.ts';
import type { Conversation } from './conversation.ts';
import { SequenceMemory, type Where } from './sequence-memory.ts';
import { isOn } from './state.ts';

/** The values to be put in, one for each read; or: as it is, on the home node. */
export type ReadValues = readonly string[] | 'asItIs';

const plansWithReads = new WeakMap<QueryPlan, QueryPlan>();

/** The plan of one statement with its reads as ids to be put in. */
export function withReads(plan: QueryPlan): QueryPlan {
  let made = plansWithReads.get(plan);
  if (!made) {
    const [only] = plan.statements;
    const edits = [...only!.edits, ...only!.sequences!.edits].sort((one, other) => one.start - other.start);
    made = { ...plan, statements: [{ ...only!, edits }] };
    plansWithReads.set(plan, made);
  }
  return made;
}

/** Roles whose sessions keep their backend of home, and when they were last seen to need it. */
const readers = new WeakMap<RouterContext, Map<string, number>>();
/** Without a read for so long, a role's sessions share backends again. */
const READER_FOR_MS = 600_000;
const SETTING = 'postern.keep_sequences';
/** Which sequences the transaction has called nextval() of, or asked for. */
const LOCKED_SEQUENCES = `SELECT l.relation FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation AND c.relkind = 'S'
  WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted AND l.pid = pg_catalog.pg_backend_pid()`;

export class SessionSequences {
  readonly #c: Conversation;
  /** Also for a session that goes on in another process (handover.ts). */
  readonly memory = new SequenceMemory();
  /** The session's own backend of home, which has forgotten what others have drawn. */
  #cleaned: BackendConnection | undefined;

  /** In the open transaction. */
  readonly #restarted: IdColumnOfTable[] = [];

  constructor(conversation: Conversation) {
    this.#c = conversation;
  }

  /** The router has supplied an id. */
  noteSupplied({ table, column, call }: SuppliedId, id: number | string): void {
    if (call === 'currval' || call === 'lastval') return;
    const sequence = table.columns.find(({ name }) => name === column)?.idSequence;
    if (sequence) this.memory.note(keyOf({ sequence }), String(id));
  }

  /** In VALUES of a sharded table: a call of currval() or lastval(). `ids`: those before it in its statement. */
  valueOf(supplied: SuppliedId): number {
    const sequence = supplied.table.columns.find(({ name }) => name === supplied.column)?.idSequence;
    const found = sequence ? this.memory.current(keyOf({ sequence }), true) : this.memory.last();
    if (typeof found === 'object') return Number(found.value);
    if (found === 'doubtful') throw notKept();
    throw sequence ? notYetDefined(`currval of sequence "${sequence.name}"`) : notYetDefined('lastval');
  }

  /** Sequences of sharded tables were set: ids leased before are of no more use, here at once and elsewhere with the next map. */
  restart(columns: readonly IdColumnOfTable[]): void {
    if (this.#c.lease.inBlock) this.#restarted.push(...columns);
    this.#tellRestart(columns);
  }

  #tellRestart(columns: readonly IdColumnOfTable[]): void {
    const { context } = this.#c.state;
    for (const { table, column } of columns) context.ids.restart(table.id, column);
    const told = columns.map(({ table, column }) => ({ tableId: table.id, column }));
    void context.announceRestart?.(told).catch((error: Error) => {
      context.log.warn(`a sequence was set, and other routers hear of it later: ${error.message}`);
    });
  }

  forget(): void {
    this.memory.clear();
    this.#cleaned = undefined;
  }

  /** Has this session to keep the backend on which it writes to home? */
  get keepsBackend(): boolean {
    const { context, role, settings } = this.#c.state;
    const setting = settings.values.get(SETTING);
    if (setting !== undefined && setting !== '') return isOn(setting);
    const at = readers.get(context)?.get(role);
    return at !== undefined && performance.now() - at < READER_FOR_MS;
  }

  /**
   * To be called before a statement is bound, or sent as text. A backend that becomes the session's own may remember what others
   * have drawn; it forgets that before the session draws anything.
   */
  beforeSending(plan: QueryPlan): void {
    const { lease, homeNodeId } = this.#c;
    const { connection } = lease;
    if (connection?.address.nodeId !== homeNodeId || !plan.statements.some(mayAdvance)) return;
    if (this.keepsBackend) lease.pin('currval and lastval');
    if (!lease.backends.isOwn(connection) || this.#cleaned === connection) return;
    this.#cleaned = connection;
    const text = 'DISCARD SEQUENCES';
    const answered = lease.unsynced ? askUnsynced(connection, text) : ask(connection, text);
    void answered.catch(() => {});
  }

  /** To be called when it is sent. */
  noteSending(plan: QueryPlan, connection: BackendConnection): void {
    const isHome = connection.address.nodeId === this.#c.homeNodeId;
    const where: Where = this.#cleaned === connection ? 'own' : 'shared';
    for (const statement of plan.statements) {
      if (isHome && mayAdvance(statement)) this.memory.mayHaveAdvanced(undefined, where);
      const { advanced = [], given = [] } = statement.sequences ?? {};
      for (const sequence of advanced) this.memory.mayHaveAdvanced(sequence?.key, where);
      // Until its rows are seen.
      for (const { sequence } of given) this.memory.mayHaveAdvanced(sequence.key, where);
    }
  }

  /** A write of home goes out beside those of others. */
  noteShared(): void {
    this.memory.mayHaveAdvanced(undefined, 'shared');
  }

  /** What listens to the rows of a query; undefined: they don't tell of sequences. */
  listenerOf({ statements }: QueryPlan): ((buffer: Buffer, start: number, end: number) => void) | undefined {
    const [only, another] = statements;
    if (!only?.sequences || only.sequences.given.length === 0 || another) return undefined;
    return (buffer, start, end) => this.#noteRows(only, buffer, start, end);
  }

  onTransactionEnd(): void {
    // ALTER SEQUENCE … RESTART takes place now, or never.
    if (this.#restarted.length > 0) this.#tellRestart(this.#restarted.splice(0));
    this.memory.onTransactionEnd();
  }

  #noteRows({ sequences }: StatementPlan, buffer: Buffer, start: number, end: number): void {
    let row: readonly (Buffer | null)[] | undefined;
    for (const frame of rowFrames(buffer, start, end)) row = readDataRow(frame);
    if (!row) return;
    for (const { column, sequence } of sequences!.given) {
      const value = row[column];
      if (value) this.memory.note(sequence.key, integerOf(value));
    }
  }

  /** The values of a statement's reads. Throws or rejects where they can't be told. */
  read(statement: StatementPlan): ReadValues | Promise<ReadValues> {
    const { reads, given, advanced } = statement.sequences!;
    if (given.length > 0 || advanced.length > 0) return this.#readBeside(statement);
    const values: string[] = [];
    for (const one of reads) {
      const found = this.#remembered(one);
      if (found === 'undefined') throw undefinedOf(one);
      if (found === 'doubtful') return this.#onBackend(reads);
      values.push(found.value);
    }
    return values;
  }

  /** The statement itself advances what it reads, or something else. */
  #readBeside(statement: StatementPlan): ReadValues | Promise<ReadValues> {
    const { reads, given, advanced } = statement.sequences!;
    const own = new Set([...given.map(({ sequence }) => sequence.key), ...advanced.map((one) => one?.key)]);
    if (reads.every(({ kind, sequence }) => kind === 'lastval' || (sequence && own.has(sequence.key))))
      return 'asItIs';
    return this.#onBackend(reads);
  }

  #remembered({ kind, sequence }: SequenceRead) {
    if (kind === 'lastval') return this.memory.last();
    if (!sequence) return 'doubtful';
    return this.memory.current(sequence.key, sequence.idColumn !== undefined);
  }

  /** Only the backend that has advanced it knows. */
  #onBackend(reads: readonly SequenceRead[]): ReadValues | Promise<ReadValues> {
    const { lease, homeNodeId } = this.#c;
    const own = lease.backends.ownOf(homeNodeId);
    const isOwn = reads.every(({ kind, sequence }) =>
      kind === 'lastval' ? this.memory.lastIsOwn : this.memory.isOwn(sequence?.key),
    );
    if (own !== undefined && own === this.#cleaned && isOwn) return 'asItIs';
    const inBlock = lease.connection !== undefined && (lease.inBlock || lease.unsynced || lease.beginSent);
    if (!inBlock || reads.length !== 1) throw this.#refused();
    return this.#inTransaction(reads[0]!);
  }

  async #inTransaction(read: SequenceRead): Promise<ReadValues> {
    const { lease, homeNodeId } = this.#c;
    const connection = await lease.ensure(homeNodeId);
    const locked = new Set((await this.#ask(connection, LOCKED_SEQUENCES)).map(([oid]) => oid));
    if (read.kind === 'lastval') {
      const found = this.memory.lastInTransaction(locked.size > 0);
      if (found === 'thatBranch') return 'asItIs';
      if (found === 'undefined') throw undefinedOf(read);
      if (found === 'doubtful') throw this.#refused();
      return [found.value];
    }
    if (!read.sequence) throw this.#refused();
    const [row] = await this.#ask(
      connection,
      `SELECT pg_catalog.to_regclass((${read.sequence.argument})::pg_catalog.text)::pg_catalog.oid`,
    );
    if (!locked.has(row?.[0] ?? null)) throw this.#refused();
    return 'asItIs';
  }

  async #ask(connection: BackendConnection, text: string): Promise<Rows> {
    const { lease } = this.#c;
    if (lease.unsynced) return await askUnsynced(connection, text);
    await lease.drained();
    if (connection.transactionStatus !== TransactionStatus.inBlock) return [];
    return await ask(connection, text);
  }

  #refused(): PosternError {
    const { context, role } = this.#c.state;
    let ofRouter = readers.get(context);
    if (!ofRouter) {
      ofRouter = new Map();
      readers.set(context, ofRouter);
    }
    ofRouter.set(role, performance.now());
    return notKept();
  }
}

/** May it have advanced sequences on home that it does not name? */
function mayAdvance({ readOnly, placement, unknownFunctions, effects, sequences }: StatementPlan): boolean {
  if (unknownFunctions.length > 0) return true;
  if (readOnly || sequences || effects.length > 0) return false;
  return placement.kind === 'home' || placement.kind === 'referenceWrite';
}

/** An int8 as PostgreSQL prints it, or in binary, which begins with a byte that no text has. */
function integerOf(value: Buffer): string {
  const isBinary = value.length === 8 && (value[0] === 0 || value[0] === 0xff);
  if (isBinary) return String(value.readBigInt64BE());
  if (value.length === 4 && (value[0] === 0 || value[0] === 0xff)) return String(value.readInt32BE());
  return value.toString('latin1');
}

/** As PostgreSQL says it. */
function notYetDefined(what: string): PosternError {
  return objectError('55000', `${what} is not yet defined in this session`);
}

function undefinedOf({ kind, sequence }: SequenceRead): PosternError {
  const name = sequence?.idColumn?.sequence.name ?? sequence?.argument.replaceAll(/^'|'$/g, '') ?? '';
  return notYetDefined(kind === 'lastval' ? 'lastval' : `currval of sequence "${name}"`);
}

/** The session goes on, and the next INSERT has its lastval(). */
function notKept(): PosternError {
  return notSupported(
    'what this session last drew from a sequence is known to a backend that others use by now',
    `Use INSERT … RETURNING; or ask in the transaction that has inserted; or SET ${SETTING} = on, so that the session keeps its backend on the home node. Sessions of this role do from now on, for ten minutes.`,
  );
}

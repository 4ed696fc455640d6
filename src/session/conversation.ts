/**
 * What both protocols of one client have in common: its plans, the router's own answers in their turn, statements that
 * the router answers without a backend, and the notes to take when a statement is sent.
 */

import { type BackendConnection, TransactionStatus } from '../backend/connection.ts';
import { ask, askUnsynced, borrow, type Rows } from '../backend/internal-query.ts';
import { notSupported, objectError } from '../base/errors.ts';
import type { ClusterMap } from '../catalog/map.ts';
import type { ChooseContext } from '../execute/choose.ts';
import type { CommandResult } from '../execute/context.ts';
import type { IdSupply } from '../execute/id-chooser.ts';
import type { CachedQuery } from '../execute/plan-cache.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import { OID } from '../pg/oid.ts';
import type { QueryPlan, RouterCommand, StatementPlan, WriteFacts } from '../plan/plan.ts';
import {
  encodeCommandComplete,
  encodeDataRow,
  encodeNoticeResponse,
  encodeRowDescription,
} from '../wire/backend.ts';
import type { FrameWriter } from '../wire/frame-writer.ts';
import type { CoalescedWrite } from './coalesced-write.ts';
import type { CopyIntake } from './copy-intake.ts';
import { resumeDdl } from './ddl-outside.ts';
import { runDdl } from './ddl-run.ts';
import type { Lease } from './lease.ts';
import { bucketByLookup } from './lookup-reads.ts';
import type { LookupWrites } from './lookup-writes.ts';
import { MeshReads } from './mesh-reads.ts';
import { SessionNotifications } from './notifications.ts';
import type { RunningPieces } from './pieces.ts';
import type { LocalAnswer, Responses } from './responses.ts';
import { SessionSequences } from './sequences.ts';
import type { ClientState } from './state.ts';
import { TransactionControl } from './transaction-control.ts';
import { beginWithModes } from './transaction-modes.ts';
import { isStep } from './transaction-steps.ts';

const ALL = Symbol('all');

/** DEALLOCATE [PREPARE] { name | ALL }, which drivers also send for statements of the extended protocol. */
const DEALLOCATE = /^\s*deallocate\s+(?:prepare\s+)?(?:(all)|"((?:[^"]|"")+)"|([a-z_][\w$]*))\s*;?\s*$/i;

/** In a text that a server of a newer version may understand. */
const COPY = /\bcopy\b/i;

/** Statements that any node could have answered, over all sessions. */
let readingTurns = 0;

const DEALLOCATES_ALL = /\bdeallocate\b[^;]*\ball\b/is;

export interface Deallocation {
  /** To be called when it has been answered; or undo, when it was skipped. */
  done(): void;
  undo(): void;
}

/** What a command tag needs before it is final. */
export interface LocalResult {
  readonly tag: string;
  readonly deallocation?: Deallocation | undefined;
}

/** A handler's result: nothing more is read from this client until unpark(). */
export const PARKED = Symbol('parked');

export class Conversation {
  readonly state: ClientState;
  readonly lease: Lease;
  readonly responses: Responses;
  /** After an error of the router's own in the extended protocol, up to Sync: no message is carried out. */
  skipping = false;
  /**
   * Statements of the extended protocol: forget one (or, undefined, all), until `undo` is called; undefined if there is none
   * of that name.
   */
  deallocate!: (name: string | undefined) => Deallocation | undefined;
  /** Reads what the client sends for `copyIntake`, although a statement is under way. */
  onIntake!: () => void;
  /** Goes on reading after PARKED. */
  unpark!: () => void;
  /** Of a transaction over several nodes. */
  readonly control: TransactionControl = new TransactionControl(this);
  /** What is read through the mesh. */
  readonly mesh: MeshReads = new MeshReads(this);
  readonly sequences: SessionSequences = new SessionSequences(this);
  readonly notifications: SessionNotifications = new SessionNotifications(this);
  /** A statement over several buckets, while its pieces run. */
  runningPieces: Pick<RunningPieces, 'cancel' | 'pause' | 'resume'> | undefined;
  /** What such a COPY changes of unique values off the shard key. */
  copiedLookups: LookupWrites | undefined;
  /** Takes the rows of a COPY … FROM STDIN, while it is carried out here. */
  copyIntake: CopyIntake | undefined;
  /** A cancel request has come since that statement began: its next pieces are not run. */
  isCanceled = false;
  #write: CoalescedWrite | undefined;

  constructor(state: ClientState, lease: Lease, responses: Responses) {
    this.state = state;
    this.lease = lease;
    this.responses = responses;
    responses.isToldElsewhere = (channel) => this.notifications.isListeningTo(channel);
  }

  get homeNodeId(): number {
    return this.state.context.catalog.current.homeNodeId;
  }

  /** What statements are planned by now. */
  get map(): ClusterMap {
    return this.state.overlay?.map ?? this.state.context.catalog.current;
  }

  /** Where ids of rows come from now. */
  get ids(): IdSupply {
    return this.state.overlay?.ids ?? this.state.context.ids;
  }

  get chooseContext(): ChooseContext {
    return {
      map: this.map,
      ids: this.ids,
      sequences: this.sequences,
      readingNodeId: () => this.readingNodeId(),
      cursorNodeId: (name) => this.lease.steps.cursorNodeId(name),
      findByLookup: (read, values) => bucketByLookup(this, read, values),
      ask: (text) => this.askAnyNode(text),
    };
  }

  /**
   * The node for a statement that any node can answer alike: the one whose backend the session holds, or has to itself; home for
   * the first one of a transaction; else each in its turn.
   */
  readingNodeId(): number {
    const { connection, pinReason } = this.lease;
    if (connection) return connection.address.nodeId;
    const { nodes, homeNodeId } = this.state.context.catalog.current;
    // A transaction that begins somewhere by chance would be one over two nodes by chance.
    if (pinReason !== undefined || this.state.transaction !== 'none' || nodes.length === 0) return homeNodeId;
    const { pools } = this.state.context;
    for (let tries = 0; tries < nodes.length; tries++) {
      readingTurns = (readingTurns + 1) % nodes.length;
      const { id } = nodes[readingTurns]!;
      if (pools.get(id)?.isDoubtful === false) return id;
    }
    return homeNodeId;
  }

  /** Could the next statement go out beside those of others, as far as this session is concerned? */
  get mayShareBackend(): boolean {
    const { state, lease } = this;
    return state.transaction === 'none' && lease.connection === undefined && lease.pinReason === undefined;
  }

  /** Are this session's commits merged with others'? If not, its writes are pipelined. */
  get #merges(): boolean {
    const { context, settings } = this.state;
    return context.coalescer.merges && settings.values.get('postern.coalesce') !== 'off';
  }

  /**
   * The write as it may share a backend with others', and a transaction; undefined: it may not. A table that is not known yet
   * is looked up, for the next one.
   */
  memberOf(write: WriteFacts): WriteFacts | undefined {
    const { writeFacts } = this.state.context;
    const { schemas } = this.state.searchPath;
    const member = writeFacts.memberOf(write, schemas);
    if (!write.table && member) {
      if (this.sequences.keepsBackend) return undefined;
      this.sequences.noteShared();
    }
    if (!member && writeFacts.lookup(write, schemas) === undefined)
      void writeFacts.load(write, schemas).catch(() => {});
    return member;
  }

  /** Gives a write to the coalescer, and parks the client until its answer. */
  submit(nodeId: number, write: CoalescedWrite): typeof PARKED {
    const { context, user, settings } = this.state;
    this.#write = write;
    const kind = this.#merges && !write.apart ? 'batch' : 'pipeline';
    write.submitTo(context.coalescer.group(kind, { nodeId, user, settings }), () => {
      this.#write = undefined;
    });
    return PARKED;
  }

  /** Takes back a write that is under way; false: there is none. */
  cancelWrite(): boolean {
    this.#write?.cancel();
    return this.#write !== undefined;
  }

  /** Is a write of its own with the coalescer? */
  get awaitsBatch(): boolean {
    return this.#write !== undefined;
  }

  plan(text: string): CachedQuery {
    const { context, searchPath, overlay } = this.state;
    const cached = (overlay?.plans ?? context.plans).get(text, this.map, searchPath);
    return this.mesh.planOf(cached) ?? cached;
  }

  /** A question of the router's that any node can answer, with the client's role and settings as they are now. */
  async askAnyNode(text: string): Promise<Rows> {
    const { lease } = this;
    if (lease.unsynced && lease.changed.inTransaction) {
      throw notSupported(
        'the place of this statement depends on settings that the pipeline has changed before it',
        'Send a Sync between the two.',
      );
    }
    if (!lease.unsynced) await lease.drained();
    const { connection } = lease;
    if (connection && !lease.unsynced && connection.transactionStatus === TransactionStatus.inBlock)
      return ask(connection, text);
    return this.#borrowHome((borrowed) => ask(borrowed, text));
  }

  /** Work that leaves nothing behind, on the home node: in the client's transaction if that is there, else beside it. */
  onHome<T>(work: (connection: BackendConnection) => Promise<T>): Promise<T> {
    const { connection, unsynced } = this.lease;
    if (this.state.overlay)
      return this.lease.branches
        .enlist([this.homeNodeId])
        .then((connections) => work(connections.get(this.homeNodeId)!));
    const inside =
      connection?.address.nodeId === this.homeNodeId &&
      !unsynced &&
      connection.transactionStatus === TransactionStatus.inBlock;
    return inside ? work(connection) : this.#borrowHome(work);
  }

  #borrowHome<T>(work: (connection: BackendConnection) => Promise<T>): Promise<T> {
    const { context, user, settings } = this.state;
    return borrow(context.pools.get(this.homeNodeId)!, { user, settings }, work);
  }

  /** Writes an answer of the router's own: now, or after what is still to come from the backend. */
  inTurn(answer: LocalAnswer): void {
    const { connection } = this.lease;
    if (connection && !connection.closed) connection.local(this.responses, answer);
    else this.responses.onLocal(answer);
  }

  /** What ReadyForQuery says if it is the router that says it. */
  currentStatus(): 'I' | 'T' | 'E' {
    const { connection } = this.lease;
    if (this.state.transaction === 'none' && connection)
      return String.fromCharCode(connection.transactionStatus) as 'I' | 'T' | 'E';
    return this.responses.ownStatus();
  }

  /** Sees to it that what the plan's functions may leave in a session is known. A promise while that is being looked up. */
  checkFunctions(plan: QueryPlan): Promise<void> | undefined {
    const { functions, relations } = this.state.context;
    if (!relations.areKnown) return relations.load().then(() => this.checkFunctions(plan));
    for (const { unknownFunctions } of plan.statements) {
      if (unknownFunctions.length > 0 && !functions.areKnown(unknownFunctions))
        return functions.load(plan.statements.flatMap((statement) => statement.unknownFunctions));
    }
    return undefined;
  }

  /** To be called when something is about to be sent that calls the plan's functions, to the backend that is held. */
  noteFunctions(plan: QueryPlan): void {
    const { lease, state } = this;
    this.sequences.beforeSending(plan);
    if (state.context.relations.leavesState(plan))
      lease.pin('a trigger, view, policy or default that may leave state in the session');
    for (const { unknownFunctions, effects } of plan.statements) {
      if (effects.some(({ kind }) => kind === 'ddl')) {
        lease.ddlUncommitted = true;
        // Without the word, too, what is made now is temporary.
        if (state.searchPath.schemas[0]?.startsWith('pg_temp')) lease.pin('temporary schema');
      }
      if (unknownFunctions.length === 0) continue;
      // What this transaction has made or replaced, nobody else can look at yet.
      if (lease.ddlUncommitted || state.context.functions.mayLeaveState(unknownFunctions))
        lease.pin(`a function that may leave state in the session (${unknownFunctions.join(', ')})`);
    }
  }

  /** The command tag, if the statement needs no backend; it has then been carried out. */
  answerLocally(statement: StatementPlan, text: string): LocalResult | undefined | Promise<LocalResult> {
    const [effect] = statement.effects;
    if (!effect) return undefined;
    const { state, lease } = this;
    const outside = state.transaction === 'none' && !lease.inBlock && !lease.unsynced;
    switch (effect.kind) {
      case 'discardAll':
        if (!outside) throw objectError('25001', 'DISCARD ALL cannot run inside a transaction block');
        return lease
          .drained()
          .then(() => this.notifications.caughtUp())
          .then(() => {
            state.settings = state.defaults;
            lease.unpin();
            this.deallocate(undefined)?.done();
            this.sequences.forget();
            this.notifications.unlisten(undefined);
            return { tag: 'DISCARD ALL' };
          });
      case 'resetAll': {
        // A session's own backend may hold settings that the router does not know.
        if (!outside || lease.pinReason !== undefined) return undefined;
        return lease.drained().then(() => {
          // RESET ALL leaves them alone, as PostgreSQL's own does.
          const kept = ['role', 'session_authorization'].map(
            (name) => [name, state.settings.values.get(name)] as const,
          );
          state.settings = state.defaults.with(new Map(kept));
          return { tag: 'RESET' };
        });
      }
      case 'set': {
        const begin = lease.connection ? undefined : beginWithModes(state, effect, text);
        if (begin !== undefined) {
          state.beginText = begin;
          return { tag: 'SET' };
        }
        const [name] = effect.names;
        if (!outside || !effect.reset || effect.local || name === undefined) return undefined;
        // What RESET goes back to is the client's own start-up value, of which the backend knows nothing.
        const value = state.defaults.values.get(name);
        if (value === undefined) return undefined;
        return lease.drained().then(() => {
          state.settings = state.settings.with(new Map([[name, value]]));
          return { tag: statement.effects.length === 1 && /^\s*reset/i.test(text) ? 'RESET' : 'SET' };
        });
      }
      case 'listen':
        if (!outside || !this.notifications.takesListen) return undefined;
        return lease
          .drained()
          .then(() => this.notifications.listen(effect.channel))
          .then(() => ({ tag: 'LISTEN' }));
      case 'unlisten':
        if (!outside) return undefined;
        if (!this.notifications.takesUnlisten) {
          this.notifications.unlisten(effect.channel);
          return undefined;
        }
        if (!this.notifications.isListening) return { tag: 'UNLISTEN' };
        return lease
          .drained()
          .then(() => this.notifications.unlistenAtEnd(effect.channel))
          .then(() => ({ tag: 'UNLISTEN' }));
      case 'sqlPrepare': {
        const name = deallocated(text);
        if (name === undefined || lease.failed || state.transaction === 'failed') return undefined;
        if (name === ALL) {
          const deallocation = this.deallocate(undefined);
          if (lease.pinReason === undefined) return { tag: 'DEALLOCATE ALL', deallocation };
          deallocation?.done();
          return undefined;
        }
        const deallocation = this.deallocate(name);
        return deallocation && { tag: 'DEALLOCATE', deallocation };
      }
      default:
        return undefined;
    }
  }

  /** What is to be done when the server has carried the plan out: what it does to the transaction is noted then. */
  stepsOf(plan: QueryPlan): (() => void) | undefined {
    if (!plan.statements.some(({ effects }) => effects.some(isStep))) return undefined;
    const { lease } = this;
    const nodeId = lease.connection?.address.nodeId ?? this.homeNodeId;
    return () => {
      for (const effect of plan.statements.flatMap(({ effects }) => effects)) {
        // Under a SET LOCAL, the session's own new value can't be read: such a transaction stays where it is.
        if (
          effect.kind === 'set' &&
          effect.local &&
          effect.names.some((name) => lease.steps.hasSessionSet(name))
        )
          lease.isFloating = false;
        lease.steps.note(effect, nodeId);
      }
    };
  }

  /** A cursor's name is the transaction's, whatever the node. */
  #refuseSecondCursor(effects: StatementPlan['effects'], connection: BackendConnection): void {
    for (const effect of effects) {
      if (effect.kind !== 'declareCursor') continue;
      const nodeId = this.lease.steps.cursorNodeId(effect.name);
      if (nodeId !== undefined && nodeId !== connection.address.nodeId)
        throw objectError('42P03', `cursor "${effect.name}" already exists`);
    }
  }

  /** To be called when a query is about to be sent. Gives what is to be done when it has been carried out, if anything. */
  noteSending(plan: QueryPlan, connection: BackendConnection): (() => void) | undefined {
    let afterwards: (() => void) | undefined;
    this.noteFunctions(plan);
    this.sequences.noteSending(plan, connection);
    if (plan.unparsed && COPY.test(plan.text)) this.state.copiesAhead++;
    if (plan.unparsed) this.lease.wrote = true;
    if (this.lease.branches.areMany) this.lease.branches.waits.noteAsked();
    for (const statement of plan.statements) {
      if (mayWrite(statement)) this.lease.wrote = true;
      if (statement.copy === 'in') this.state.copiesAhead++;
      if (!statement.readOnly && !this.lease.isProvisional) this.lease.outcomeAtStake = true;
      if (statement.effects.length === 0) continue;
      this.#refuseSecondCursor(statement.effects, connection);
      this.lease.noteEffects(statement.effects);
      if (statement.effects[0]?.kind === 'begin' && this.state.beginText === '')
        this.state.beginText = Buffer.from(plan.text).toString('utf8', statement.start, statement.end);
      for (const effect of statement.effects) {
        const { kind } = effect;
        if (kind === 'unlisten')
          afterwards = together(afterwards, this.notifications.noteUnlisten(effect.channel));
        else if (kind === 'commit') {
          this.lease.outcomeAtStake = true;
          afterwards = this.notifications.noteCommit();
          if (this.lease.ddlUncommitted) afterwards = together(afterwards, () => this.onDdl());
        } else if (kind === 'ddl') afterwards = together(afterwards, () => this.onDdl());
        else if (kind === 'discardAll' || (kind === 'sqlPrepare' && DEALLOCATES_ALL.test(plan.text))) {
          // They drop the router's own prepared statements as well, which what follows in the pipeline must not use.
          connection.prepared.clear();
        }
      }
    }
    const set = plan.statements.flatMap(({ sequences }) => sequences?.set ?? []);
    return set.length > 0 ? together(afterwards, () => this.sequences.restart(set)) : afterwards;
  }

  /**
   * To be called when it has been sent: a RESET that a backend carries out goes back to the client's own start-up value, of
   * which the backend knows nothing.
   */
  noteSent(plan: QueryPlan, connection: BackendConnection): void {
    const { values } = this.state.defaults;
    if (values.size === 0) return;
    for (const { effects } of plan.statements) {
      for (const effect of effects) {
        if (effect.kind === 'resetAll') {
          for (const name of values.keys()) if (name !== 'role') this.#startUpValue(connection, name);
        } else if (effect.kind === 'set' && effect.reset && !effect.local) {
          for (const name of effect.names) if (values.has(name)) this.#startUpValue(connection, name);
        }
      }
    }
  }

  /** Where the RESET has taken place, and was not rolled back, the setting no longer comes from the session. */
  #startUpValue(connection: BackendConnection, name: string): void {
    const quoted = quoteLiteral(name);
    const text = `SELECT pg_catalog.set_config(${quoted}, ${quoteLiteral(this.state.defaults.values.get(name)!)}, false)
       WHERE coalesce(pg_catalog.current_setting(${quoted}, true), '') IN ('', 'none')
          OR EXISTS (SELECT FROM pg_catalog.pg_settings s WHERE lower(s.name) = ${quoted} AND s.source <> 'session')`;
    const answered = this.lease.unsynced ? askUnsynced(connection, text) : ask(connection, text);
    void answered.catch(() => {}).finally(() => this.lease.onReady());
  }

  /** Carries out a command of the router's, on all nodes. Resolves with what to write, in its turn. */
  async runCommand(statement: StatementPlan): Promise<(writer: FrameWriter) => void> {
    const { lease, state } = this;
    const inTransaction = () => lease.inBlock || lease.unsynced || state.transaction !== 'none';
    if (!inTransaction()) await lease.drained();
    const { context } = state;
    const command = statement.command!;
    let result: CommandResult;
    const { ddl } = context;
    if (command.kind === 'resumeDdl') {
      result = await resumeDdl(this, command.functionName);
    } else if (ddl && (isOverNodes(command) || (inTransaction() && ddl.runs(command)))) {
      result = await runDdl(this, (world) => ddl.runCommand(command, world));
    } else if (inTransaction()) {
      throw objectError(
        '25001',
        'this statement is carried out by the router and cannot run inside a transaction block',
        'Send it outside of a transaction.',
      );
    } else {
      result = await context.runCommand(command, state.commandSession);
      this.onDdl();
    }
    return (writer) => {
      for (const notice of result.notices)
        encodeNoticeResponse(writer, 'NOTICE', notice.sqlState, notice.message);
      if (result.row) encodeDataRow(writer, [result.row.value]);
      encodeCommandComplete(writer, result.tag);
    };
  }

  /** The columns of a command's result: the only one is of a function's name. False: it has none. */
  describeCommand(writer: FrameWriter, command: RouterCommand): boolean {
    const functionName = 'functionName' in command ? command.functionName : undefined;
    if (functionName === undefined) return false;
    encodeRowDescription(writer, [{ name: functionName, typeOid: OID.text }]);
    return true;
  }

  /** DDL has been committed. `changesCatalog`: this router knows of it before its client does. */
  async afterDdl(changesCatalog: boolean): Promise<void> {
    this.onDdl();
    if (changesCatalog) await this.state.context.catalog.refresh().catch(() => {});
  }

  /** What names mean may have changed: plans, prepared statements and what is known of functions are made afresh. */
  onDdl(): void {
    const { context } = this.state;
    context.statements.invalidate();
    context.functions.invalidate();
    context.relations.invalidate();
    context.writeFacts.invalidate();
    context.mesh?.invalidate();
    context.afterDdl?.();
    void context.catalog.refresh().catch(() => {});
  }
}

/** Whose texts may call a user's functions, which must not run with Postern's rights (ddl/users-code.ts); and what needs no control path. */
const OVER_NODES: ReadonlySet<RouterCommand['kind']> = new Set([
  'createShardedTable',
  'createReferenceTable',
  'createCoalescing',
  'addLookup',
  'dropLookup',
]);

/** Is it one transaction over all nodes, even outside of the client's? */
function isOverNodes(command: RouterCommand): boolean {
  return OVER_NODES.has(command.kind);
}

/** The statement that a DEALLOCATE names; undefined: the text is something else. */
export function deallocated(text: string): string | typeof ALL | undefined {
  const match = DEALLOCATE.exec(text);
  if (!match) return undefined;
  const [, all, quoted, plain] = match;
  if (all !== undefined) return ALL;
  return quoted?.replaceAll('""', '"') ?? plain!.toLowerCase();
}

const WITHOUT_WRITES = new Set([
  'begin',
  'commit',
  'rollback',
  'savepoint',
  'releaseSavepoint',
  'rollbackToSavepoint',
]);

/** May it have written something by its end, so that its node has a part in the commit? */
function mayWrite({ readOnly, placement, unknownFunctions, effects }: StatementPlan): boolean {
  if (readOnly || (effects[0] && WITHOUT_WRITES.has(effects[0].kind))) return false;
  return (placement.kind !== 'anywhere' && placement.kind !== 'cursor') || unknownFunctions.length > 0;
}

export function together(first: (() => void) | undefined, second: (() => void) | undefined): () => void {
  return () => {
    first?.();
    second?.();
  };
}

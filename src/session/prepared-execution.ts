/**
 * From a statement and its values to what is sent: the shared statement (for a keyed one that of the leaf), the node, and
 * the ids that the router supplies. Both protocols come through here: the extended one with a client's Bind, the simple
 * one with the literals lifted out of its text.
 */
import type { BackendConnection } from '../backend/connection.ts';
import type { ResponseSink } from '../backend/pending.ts';
import type { SharedStatement } from '../backend/prepared.ts';
import { notSupported, objectError, type PosternError } from '../base/errors.ts';
import { type Choice, choose, chooseNow, SCATTERED } from '../execute/choose.ts';
import { describeStatement } from '../execute/describe.ts';
import { describeExplain } from '../execute/explain-report.ts';
import type { CachedQuery, Described } from '../execute/plan-cache.ts';
import { OID, portableOids } from '../pg/oid.ts';
import type { Placement, StatementPlan, WriteFacts } from '../plan/plan.ts';
import { positionsWithoutLeaves, rewriteQuery } from '../plan/rewrite.ts';
import type { BindView } from '../wire/frontend.ts';
import { Backend } from '../wire/message-types.ts';
import type { Conversation } from './conversation.ts';
import { InjectedParse, type RequestTag } from './responses.ts';
import { type ReadValues, withReads } from './sequences.ts';
import { checkColumns } from './stale-columns.ts';

/** A text that a client has prepared, or that was lifted from one that it has sent. */
export interface ClientStatement {
  readonly name: string;
  readonly text: string;
  readonly oids: readonly number[];
  /** Made again when the map has changed. */
  cached: CachedQuery;
  described: Described | undefined;
  /** RowDescription or NoData that the client may know, if the map has changed since. */
  shown?: Buffer | undefined;
}

/** A statement with its values, ready to be sent. */
export interface BoundStatement {
  readonly shared: SharedStatement;
  /** undefined: any node. */
  readonly nodeId: number | undefined;
  readonly tag: RequestTag;
  /** Values behind the client's own. */
  readonly extra: readonly string[] | undefined;
}

export class PreparedExecution {
  readonly #c: Conversation;
  readonly #injected: InjectedParse;

  constructor(conversation: Conversation) {
    this.#c = conversation;
    this.#injected = new InjectedParse(conversation.responses);
  }

  /** Chooses where it goes; undefined: to several buckets. A promise when a server has to be asked first. */
  bind(
    statement: ClientStatement,
    view: BindView,
    buffer: Buffer,
  ): BoundStatement | undefined | Promise<BoundStatement | undefined> {
    const { plan } = statement.cached;
    const [only] = plan.statements;
    if (!isOfLeaves(only)) {
      if (only?.needsPinBefore) return this.#bindReading(statement, only);
      const shared = this.sharedOf(statement);
      const mapPosition = positionsWithoutLeaves(plan);
      const tag = { statement: shared, name: statement.name, mapPosition };
      return { shared, nodeId: this.nodeOf(only), tag, extra: undefined };
    }
    const described = this.describeKeyed(statement);
    if (described) return described.then(() => this.bind(statement, view, buffer));
    const values = { view, buffer, oids: statement.described!.parameterOids };
    if (view.parameterCount !== values.oids.length) {
      throw objectError(
        '08P01',
        `bind message supplies ${view.parameterCount} parameters, but prepared statement "${statement.name}" requires ${values.oids.length}`,
      );
    }
    const choice = chooseNow(plan, values, this.#c.chooseContext);
    if (choice) return this.#bindKeyed(statement, choice);
    return choose(plan, values, this.#c.chooseContext).then((chosen) => this.#bindKeyed(statement, chosen));
  }

  /** The values of currval() and lastval() go behind the client's own, or the statement goes as it is. */
  #bindReading(statement: ClientStatement, only: StatementPlan): BoundStatement | Promise<BoundStatement> {
    const bind = (values: ReadValues): BoundStatement => {
      const nodeId = this.nodeOf(only);
      if (values === 'asItIs') {
        const shared = this.sharedOf(statement);
        return { shared, nodeId, tag: { statement: shared, name: statement.name }, extra: undefined };
      }
      const { parameterCount } = only;
      if (statement.oids.length > parameterCount) throw tooManyTypes();
      const oids = [...statement.oids, ...Array<number>(parameterCount - statement.oids.length).fill(0)];
      const { text } = rewriteQuery(
        withReads(statement.cached.plan),
        [{ bucket: -1, ids: values }],
        'parameter',
      );
      const shared = this.#c.state.context.statements.get(
        text,
        [...portableOids(oids), ...values.map(() => OID.int8)],
        this.#c.lease.scope,
      );
      return { shared, nodeId, tag: { statement: shared, name: statement.name }, extra: values };
    };
    const values = this.#c.sequences.read(only);
    return values instanceof Promise ? values.then(bind) : bind(values);
  }

  /** What is sent for a statement without a leaf. */
  sharedOf(statement: ClientStatement): SharedStatement {
    const { statements } = this.#c.state.context;
    // One that is not of the home node alone may go to any.
    const kind = statement.cached.plan.statements[0]?.placement.kind;
    const oids = kind === 'home' ? statement.oids : portableOids(statement.oids);
    return statements.get(statement.cached.text, oids, this.#c.lease.scope);
  }

  /** Binds the unnamed portal, without parameters and without the client hearing of it. */
  bindUnheard(connection: BackendConnection, request: RequestTag & { statement: SharedStatement }): void {
    const name = this.prepareOn(connection, request.statement, request);
    connection.bindText(name, [], this.#injected, request);
  }

  /** The statement's name on this backend; it is prepared there first if it is not yet. */
  prepareOn(connection: BackendConnection, shared: SharedStatement, request: RequestTag): string {
    return (
      connection.prepared.nameOf(shared) ??
      connection.parse(shared, this.#injected, { ...request, onFailed: undefined })
    );
  }

  /** The same for a sink that hears of the Parse itself. */
  prepareUnheard(connection: BackendConnection, shared: SharedStatement, sink: ResponseSink): string {
    return connection.prepared.nameOf(shared) ?? connection.parse(shared, sink, undefined);
  }

  /** Has the home node check and describe a keyed statement, once per text and map. undefined: it is known. */
  describeKeyed(statement: ClientStatement): Promise<void> | undefined {
    const described = this.#describe(statement);
    if (described) return described.then(() => checkShown(statement));
    checkShown(statement);
    return undefined;
  }

  #describe(statement: ClientStatement): Promise<void> | undefined {
    if (statement.described) return undefined;
    const [only] = statement.cached.plan.statements;
    // What it names may be on another node, or in the session alone.
    if (only?.placement.kind === 'explain' && only.parameterCount === 0 && statement.oids.length === 0) {
      statement.described = describeExplain(only.placement.format);
      return undefined;
    }
    // It has neither parameters nor rows.
    if (only?.placement.kind === 'copy') {
      statement.described = NOTHING_DESCRIBED;
      return undefined;
    }
    const key = statement.oids.join(',');
    const known = statement.cached.described.get(key);
    if (known) {
      statement.described = known;
      return undefined;
    }
    const { cached } = statement;
    return this.#c
      .onHome((connection) => describeStatement(connection, statement.text, statement.oids))
      .then((described) => {
        cached.described.set(key, described);
        statement.described = described;
      });
  }

  /** undefined: any node. */
  nodeOf(statement: StatementPlan | undefined): number | undefined {
    if (!statement) return this.#c.lease.connection ? undefined : this.#c.homeNodeId;
    switch (statement.placement.kind) {
      case 'anywhere':
        return undefined;
      case 'cursor':
        return this.#c.lease.steps.cursorNodeId(statement.placement.name);
      case 'reference':
        return this.#c.readingNodeId();
      case 'node':
        return statement.placement.nodeId;
      default:
        return this.#c.homeNodeId;
    }
  }

  /** The facts of a write that may be merged with others, if this one may, as things stand. */
  mergeable(statement: ClientStatement, bound: BoundStatement): WriteFacts | undefined {
    const [only] = statement.cached.plan.statements;
    const write = only?.write;
    if (!write || bound.nodeId === undefined || !this.#c.mayShareBackend) return undefined;
    // A text that no server has accepted yet goes alone: its errors are told on the usual path.
    if (!bound.shared.validated && only.placement.kind !== 'keyed') return undefined;
    if (this.#c.state.context.coalescer.isSlow(bound.shared)) return undefined;
    return this.#c.memberOf(write);
  }

  #bindKeyed(statement: ClientStatement, choice: Choice): BoundStatement | undefined {
    if (choice === SCATTERED) return undefined;
    const [{ bucket, ids }] = choice.statements as [Choice['statements'][0]];
    const { plan } = statement.cached;
    const { placement } = plan.statements[0]! as { placement: { kind: 'keyed' } & LeafPlacement };
    const described = statement.described!;
    const { scope } = this.#c.lease;
    const shared =
      described.leaves.get(scope)?.[bucket] ?? this.#leafStatement(statement, described, choice, scope);
    return {
      shared,
      nodeId: choice.nodeId,
      tag: {
        statement: shared,
        leaf: {
          table: placement.table,
          bucket,
          mapPosition: (position) => rewriteQuery(plan, choice.statements, 'parameter').mapPosition(position),
        },
      },
      extra: ids.length === 0 ? undefined : ids.map(String),
    };
  }

  #leafStatement(
    statement: ClientStatement,
    described: Described,
    choice: Choice,
    scope: string,
  ): SharedStatement {
    const { plan } = statement.cached;
    const [only] = plan.statements;
    const { text } = rewriteQuery(plan, choice.statements, 'parameter');
    const oids = [...portableOids(described.parameterOids)];
    const { suppliedIds } = only!.placement as LeafPlacement;
    if (suppliedIds.length > 0 && oids.length !== only!.parameterCount) {
      throw tooManyTypes();
    }
    for (const { table, column, call } of suppliedIds)
      if (call) oids.push(OID.int8);
      else oids.push(table.columns.find(({ name }) => name === column)?.typeOid ?? OID.int8);
    const shared = this.#c.state.context.statements.get(text, oids, scope);
    // A scope of one transaction is not worth remembering.
    if (scope !== this.#c.state.scope) return shared;
    let leaves = described.leaves.get(scope);
    if (!leaves) {
      leaves = [];
      described.leaves.set(scope, leaves);
    }
    leaves[choice.statements[0]!.bucket] = shared;
    return shared;
  }
}

function tooManyTypes(): PosternError {
  return notSupported(
    'the statement declares more parameters than it uses',
    'Declare as many types as there are parameters, or none.',
  );
}

/** Does the statement go to leaves, or to all copies of a table, and is so described on the home node? */
export function isOfLeaves(statement: StatementPlan | undefined): boolean {
  const kind = statement?.placement.kind;
  return kind !== undefined && OF_LEAVES.has(kind);
}

const OF_LEAVES = new Set<Placement['kind']>(['keyed', 'scattered', 'referenceWrite', 'explain', 'copy']);

const NOTHING_DESCRIBED: Described = {
  parameterOids: [],
  rows: Buffer.from([Backend.NoData, 0, 0, 0, 4]),
  leaves: new Map(),
};

type LeafPlacement = Extract<StatementPlan['placement'], { kind: 'keyed' }>;

/** Equal for writes that name the same row by the same parameters; −1 if none do. */
export function rowAffinity(parameters: readonly number[], view: BindView, buffer: Buffer): number {
  if (parameters.length === 0) return -1;
  let hash = 0x811c9dc5;
  for (const index of parameters) {
    if (index >= view.parameterCount) return -1;
    const start = view.parameterStart(index);
    const end = start + Math.max(0, view.parameterLength(index));
    for (let at = start; at < end; at++) hash = Math.imul(hash ^ buffer[at]!, 0x01000193);
  }
  return (hash ^ (hash >>> 15)) >>> 1;
}

function checkShown(statement: ClientStatement): void {
  if (!statement.shown || !statement.described) return;
  checkColumns(statement.shown, statement.described.rows);
  statement.shown = undefined;
}

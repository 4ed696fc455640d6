/**
 * Carries out one DDL statement on branches of the client's transaction on all nodes (src/ddl/SPEC.md): in a savepoint of the
 * router's on each, with a short lock_timeout, and again after a pause while others hold what it needs.
 *
 *   enlisted ──begin──▶ attempt ──done──▶ released ──▶ (the transaction goes on, with its own map)
 *                         │ ▲ 55P03, 40P01, and time is left
 *                         ▼ │
 *                       undone ──a pause, in which others go on──
 *   attempt ──anything else──▶ the transaction has failed
 *
 * Invariant: an attempt that waits lets go of all that it has locked before it waits again.
 * Invariant: home first, so that two statements on the same table wait for one another there, and not in a ring over nodes.
 */
import { BOUNDS } from '../base/bounds.ts';
import { connectionLost, notSupported, objectError, queryCanceled } from '../base/errors.ts';
import type { ClusterMap } from '../catalog/map.ts';
import { bumpEpochStatements } from '../catalog/schema.ts';
import { inTableNames } from '../ddl/leaf-names.ts';
import type { DdlWorld } from '../ddl/world.ts';
import { settledAll } from '../ddl/world.ts';
import { ServerError } from '../platform/control-connection.ts';
import { encodeNoticeResponse } from '../wire/backend.ts';
import type { Conversation } from './conversation.ts';
import { BranchOfDdl } from './ddl-branch.ts';
import { readOverlay } from './ddl-overlay.ts';
import type { RunningPieces } from './pieces.ts';

/** Somebody else holds what it needs. */
const RETRIED: ReadonlySet<string> = new Set(['55P03', '40P01']);

/** What work is done with: as the doors see it, and with the branches as they are. */
export interface DdlRunWorld extends DdlWorld {
  readonly home: BranchOfDdl;
  readonly others: readonly BranchOfDdl[];
}

/** Runs `work` on all nodes. Rejects with what the client hears; the transaction has failed then. */
export async function runDdl<T>(
  conversation: Conversation,
  work: (world: DdlRunWorld) => Promise<T>,
  forgiven?: Forgiven<T>,
): Promise<T> {
  return await new DdlRun(conversation).run(work, forgiven);
}

/** An error with one of these SQLSTATEs undoes the attempt, and is a success with this result. */
interface Forgiven<T> {
  readonly states: readonly string[];
  readonly result: T;
}

class DdlRun {
  readonly #c: Conversation;
  readonly #running = new Set<RunningPieces>();
  #canceled = false;
  #wake: (() => void) | undefined;
  #catalogChanged = false;
  #blockers: string | undefined;

  constructor(conversation: Conversation) {
    this.#c = conversation;
  }

  async run<T>(work: (world: DdlRunWorld) => Promise<T>, forgiven: Forgiven<T> | undefined): Promise<T> {
    const conversation = this.#c;
    const { lease, state } = conversation;
    const { branches } = lease;
    const { map } = conversation;
    const nodeIds = [map.homeNodeId, ...map.nodes.map(({ id }) => id).filter((id) => id !== map.homeNodeId)];
    this.#refuseUnknownNodes(map);
    const connections = await branches.enlist(nodeIds);
    branches.takeOver();
    lease.ddlUncommitted = true;
    const services = state.context.ddl;
    if (!services) throw noServices();
    const all = nodeIds.map((nodeId) => {
      const connection = connections.get(nodeId);
      if (!connection) throw connectionLost(String(nodeId));
      return new BranchOfDdl({
        connection,
        signer: services.signer,
        lockTimeoutMs: BOUNDS.ddlLockTimeoutMs,
        onRunning: (pieces) => this.#track(pieces),
        onNotice: (reader) => {
          // The same on all nodes: told once.
          if (nodeId === map.homeNodeId) conversation.responses.onNotice(reader);
        },
      });
    });
    const [home, ...others] = all;
    const world: DdlRunWorld = {
      nodes: map.nodes,
      homeNodeId: map.homeNodeId,
      map,
      session: state.commandSession,
      services,
      home: home!,
      others,
      noteCatalogChange: () => {
        this.#catalogChanged = true;
      },
      notice: (sqlState, message) => encodeNoticeResponse(state.output.writer, 'NOTICE', sqlState, message),
    };
    conversation.isCanceled = false;
    conversation.runningPieces = {
      cancel: () => this.#cancel(),
      pause: () => {},
      resume: () => {},
    };
    // Until it has ended, it may have written.
    for (const nodeId of nodeIds) branches.noteWrite(nodeId, 0);
    const result = await branches
      .run(() => this.#attempts(all, () => work(world), forgiven))
      .finally(() => {
        conversation.runningPieces = undefined;
      });
    // begin() has asked for a transaction id.
    for (const nodeId of nodeIds) branches.noteWrite(nodeId, 1);
    if (this.#catalogChanged || state.overlay) await this.#goOn(world);
    return result;
  }

  async #attempts<T>(
    branches: readonly BranchOfDdl[],
    work: () => Promise<T>,
    forgiven: Forgiven<T> | undefined,
  ): Promise<T> {
    const startedMs = performance.now();
    let pauseMs: number = BOUNDS.ddlPauseMsMin;
    for (;;) {
      this.#catalogChanged = false;
      await settledAll(branches.map((branch) => branch.begin()));
      const watch = this.#watchBlockers(branches);
      try {
        const result = await work();
        await this.#c.state.context.ddl?.beforeStep?.('release');
        await settledAll(branches.map((branch) => branch.release()));
        return result;
      } catch (caught) {
        if (this.#canceled) throw caught;
        // Ended for a deadlock over nodes: all that it has locked is this attempt's, if the transaction is.
        const error = this.#c.lease.branches.waits.toldError(caught);
        const isVictim = error !== caught && this.#c.lease.branches.implicit;
        if (error instanceof ServerError && forgiven?.states.includes(error.sqlState)) {
          await settledAll(branches.map((branch) => branch.undo()));
          this.#catalogChanged = false;
          return forgiven.result;
        }
        const isBusy = error instanceof ServerError && RETRIED.has(error.sqlState);
        if (!isBusy && !isVictim) throw inTableNames(error);
        // A client that has set its own bound wants to hear when that is over.
        const ownMs = Math.min(
          ...branches.map((branch) => branch.clientLockTimeoutMs || Number.POSITIVE_INFINITY),
        );
        const leftMs = startedMs + Math.min(BOUNDS.ddlRetryMs, ownMs) - performance.now() - pauseMs;
        if (leftMs <= 0) throw isBusy ? this.#blocked(error) : error;
        if (branches.some(({ connection }) => connection.closed)) throw error;
        await settledAll(branches.map((branch) => branch.undo()));
        await this.#pause(pauseMs * (0.5 + Math.random()));
        pauseMs = Math.min(2 * pauseMs, BOUNDS.ddlPauseMsMax);
        if (this.#canceled) throw queryCanceled();
      } finally {
        clearTimeout(watch);
      }
    }
  }

  /** What it leaves to the rest of its transaction: the map as it is now, and what the commit has to do. */
  async #goOn(world: DdlRunWorld): Promise<void> {
    const { lease, state } = this.#c;
    const { home } = world;
    state.overlay = await readOverlay(lease, home);
    lease.changed.ownScope();
    lease.beforeCommit ??= async () => {
      lease.steps.note({ kind: 'notify' }, world.homeNodeId);
      for (const statement of bumpEpochStatements) await home.signed(statement);
    };
  }

  #track(pieces: RunningPieces): void {
    if (this.#canceled) pieces.cancel();
    this.#running.add(pieces);
    void pieces.done
      .catch(() => {})
      .finally(() => {
        this.#running.delete(pieces);
      });
  }

  #cancel(): void {
    this.#canceled = true;
    for (const pieces of this.#running) pieces.cancel();
    this.#wake?.();
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, delayMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Looks who is in the way while the attempt waits, since nobody can tell afterwards. */
  #watchBlockers(branches: readonly BranchOfDdl[]): NodeJS.Timeout {
    const { ddl } = this.#c.state.context;
    return setTimeout(() => {
      for (const { connection, nodeId } of branches) {
        if (connection.pendingCount === 0) continue;
        void ddl!
          .blockersOf(nodeId, connection.processId)
          .then((found) => {
            this.#blockers = found ?? this.#blockers;
          })
          .catch(() => {});
      }
    }, BOUNDS.ddlLockTimeoutMs / 2).unref();
  }

  #blocked(error: ServerError): ServerError {
    const who = this.#blockers === undefined ? '' : ` It waited for ${this.#blockers}.`;
    return error.withHint(
      `This comes from node "${error.nodeName}".${who} Try again when what holds the lock has ended.`,
    );
  }

  #refuseUnknownNodes(map: ClusterMap): void {
    const { pools } = this.#c.state.context;
    const unknown = map.nodes.find(({ id }) => !pools.has(id));
    if (!unknown) return;
    throw objectError(
      '55000',
      `this router does not know node "${unknown.name}", which has joined the cluster`,
      'Restart the router with the configuration that has all nodes: DDL is carried out on each of them.',
    );
  }
}

function noServices() {
  return notSupported('DDL over several nodes is not supported here', 'Send it through postern serve.');
}

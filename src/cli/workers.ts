/**
 * Several processes behind one port, each a whole router of its own: they share nothing on the data path. The first process
 * accepts clients and reads nothing of them; it hands each socket to the worker that worker-fill.ts chooses (worker-door.ts), shares
 * out the connections to the nodes (worker-shares.ts), restarts a worker that dies and replaces all of them on demand
 * (worker-places.ts), and passes on sessions that change their worker, questions, and cancel requests that reached the wrong one.
 *
 *   first:   forks ──all ready──▶ listening ──drain()──▶ draining (no more clients; workers drain, then it ends)
 *   worker:  runs the same command line with its place in the environment (worker-side.ts); ends when it is told, or when the
 *            first process is gone
 *
 * Next hop of a client: worker-side.ts.
 */
import cluster, { type Worker } from 'node:cluster';
import { availableParallelism } from 'node:os';
import type { ClientLimits } from '../admission/client-admission.ts';
import { type AcceptedClient, openDoor } from '../session/door.ts';
import type { DrainOptions } from './config-drain.ts';
import { IdleCores } from './cpu-times.ts';
import { WorkerAdmission } from './worker-admission.ts';
import { WorkerAsks } from './worker-asks.ts';
import { WorkerDoor, WorkerQueue } from './worker-door.ts';
import {
  chooseWorker,
  clientsOf,
  type FillEvent,
  type FillState,
  fillStart,
  fillStep,
} from './worker-fill.ts';
import { TICK_MS } from './worker-load.ts';
import type { FromWorker, ToWorker, WorkerAnswers, WorkerQuestion } from './worker-messages.ts';
import {
  type PlacesEffect,
  type PlacesEvent,
  type PlacesState,
  placesStart,
  placesStep,
  processesOf,
} from './worker-places.ts';
import {
  type ShareState,
  shareAwaited,
  shareEnded,
  shareGone,
  shareOut,
  shareReady,
  shareReported,
  sharesStart,
} from './worker-shares.ts';
import { COUNT_VARIABLE, GENERATION_VARIABLE, INDEX_VARIABLE } from './worker-side.ts';

export interface WorkersOptions {
  readonly count: number;
  /** `fileDescriptor`: of a socket that somebody else listens on. */
  readonly listen: {
    readonly host: string;
    readonly port: number;
    readonly fileDescriptor?: number | undefined;
  };
  /** Connections to one node, of all workers. */
  readonly connections: number;
  /** Whether commits are merged: else there is no reason to keep clients together. */
  readonly merges: boolean;
  readonly clients: ClientLimits;
  /** Asked when they are needed. */
  readonly drain: () => DrainOptions;
  readonly onListening: (port: number) => void;
  /** It can't start: the text says why. */
  readonly onFailed: (text: string) => void;
  readonly describeListenFailure: (error: Error) => string;
  readonly onRestart: (index: number, status: string) => void;
  /** Asked to replace all workers: why that is not done; undefined: it is. */
  readonly onRolling: (why: string | undefined) => void;
  readonly onRolled: (failure: string | undefined) => void;
  readonly onDoorError: (error: Error) => void;
}

const RESTART_DELAY_MS = 500;
/** After the time for transactions: for what is left to be told and closed. */
const STOP_GRACE_MS = 10_000;

interface Member {
  readonly id: number;
  readonly place: number;
  /** Index in the shares. */
  readonly share: number;
  readonly worker: Worker;
  readonly queue: WorkerQueue;
  /** As it reported last. */
  clients: number;
  leaves: boolean;
  /** Of its sessions, when it began to leave. */
  leavingIds: readonly number[];
  /** Why it can't start. */
  failure: string | undefined;
}

export class Workers {
  readonly #options: WorkersOptions;
  readonly #members = new Map<number, Member>();
  /** Who takes the clients of a place. */
  readonly #serving: (Member | undefined)[];
  readonly #asks = new WorkerAsks();
  readonly #idleCores = new IdleCores();
  readonly #queues: WorkerDoor;
  readonly #admission: WorkerAdmission;
  #places: PlacesState;
  #fill: FillState;
  #shares: ShareState;
  #door: { port: number; close(): void } | undefined;
  #isDraining = false;
  #hasFailed = false;
  #end: (status: number) => void = () => {};
  readonly #ended = new Promise<number>((resolve) => {
    this.#end = resolve;
  });

  constructor(options: WorkersOptions) {
    this.#options = options;
    const { count, merges, connections } = options;
    this.#places = placesStart(count);
    this.#serving = Array.from({ length: count }, () => undefined);
    this.#fill = fillStart({ workers: count, merges, cores: availableParallelism() });
    this.#shares = sharesStart({ workers: count, connections });
    this.#queues = new WorkerDoor((place) => this.#chooseQueue(place));
    this.#admission = new WorkerAdmission(options.clients, (worker, effect) => {
      const member = this.#members.get(worker);
      if (member) this.#tell(member, { kind: 'admission', effect });
    });
  }

  /** The first process's whole life. Gives the exit status: that of the first worker that could not start, else 0. */
  async run(): Promise<number> {
    const { count } = this.#options;
    for (let place = 0; place < count; place++) this.#step({ kind: 'due', place, atMs: performance.now() });
    const ticker = setInterval(() => this.#tick(), TICK_MS);
    const status = await this.#ended;
    clearInterval(ticker);
    this.#close();
    await this.#endAll('stop', 0);
    return status;
  }

  get state(): 'starting' | 'serving' | 'draining' {
    if (this.#isDraining) return 'draining';
    return this.#door ? 'serving' : 'starting';
  }

  /** How many workers there should be. */
  get expected(): number {
    return this.#options.count;
  }

  /** The answers of those who take clients, of those that come in time. */
  ask<K extends WorkerQuestion>(what: K, timeoutMs?: number): Promise<WorkerAnswers[K][]> {
    const serving = this.#serving.filter((member) => member !== undefined);
    return this.#asks.ask(
      what,
      serving.map((member) => (message) => this.#tell(member, message)),
      timeoutMs,
    );
  }

  /** For clients that come from now on. */
  limit(clients: ClientLimits): void {
    this.#admission.reload(clients);
  }

  /** Replaces each worker by a new process, one after the other. */
  roll(): void {
    this.#step({ kind: 'roll', atMs: performance.now() });
  }

  /** Ends it all; run() resolves then. `atOnce` aborted: nothing is waited for. */
  async drain(atOnce: AbortSignal): Promise<void> {
    if (this.#isDraining) return;
    this.#isDraining = true;
    const { delayMs, timeoutMs } = this.#options.drain();
    this.#step({ kind: 'stop' });
    await pause(delayMs, atOnce);
    this.#close();
    const stop = (): void => {
      for (const member of this.#members.values()) this.#tell(member, { kind: 'stop' });
    };
    atOnce.addEventListener('abort', stop, { once: true });
    await this.#endAll(atOnce.aborted ? 'stop' : 'drain', timeoutMs);
    this.#end(0);
  }

  /** No client comes in any more. */
  #close(): void {
    this.#isDraining = true;
    this.#step({ kind: 'stop' });
    this.#door?.close();
    this.#queues.stop([...this.#members.values()].map(({ queue }) => queue));
  }

  async #endAll(how: 'drain' | 'stop', timeoutMs: number): Promise<void> {
    await Promise.all(
      [...this.#members.values()].map(
        (member) =>
          new Promise<void>((resolve) => {
            const { worker } = member;
            if (worker.isDead()) {
              resolve();
              return;
            }
            const kill = (): void => void worker.process.kill('SIGKILL');
            const timer = setTimeout(kill, timeoutMs + STOP_GRACE_MS);
            worker.once('exit', () => {
              clearTimeout(timer);
              resolve();
            });
            // It listens to nobody while it starts, and has no client.
            if (!this.#isReady(member)) kill();
            this.#tell(member, how === 'drain' ? { kind: 'drain', timeoutMs } : { kind: 'stop' });
          }),
      ),
    );
  }

  #isReady({ id, place }: Member): boolean {
    return processesOf(this.#places.places[place]!).some((one) => one.id === id && one.ready);
  }

  #step(event: PlacesEvent): void {
    const { state, effects } = placesStep(this.#places, event);
    this.#places = state;
    for (const effect of effects) this.#carryOut(effect);
  }

  #carryOut(effect: PlacesEffect): void {
    switch (effect.kind) {
      case 'start':
        this.#start(effect);
        break;
      case 'startLater': {
        const { place, status } = effect;
        this.#options.onRestart(place, status);
        setTimeout(() => this.#step({ kind: 'due', place, atMs: performance.now() }), RESTART_DELAY_MS);
        break;
      }
      case 'open':
        void this.#open();
        break;
      case 'fail':
        this.#end(Number(/^status (\d+)$/.exec(effect.status)?.[1] ?? 1) || 1);
        break;
      case 'handOver': {
        const member = this.#members.get(effect.from);
        if (!member) break;
        member.leaves = true;
        const { timeoutMs } = this.#options.drain();
        this.#tell(member, { kind: 'handOver', moves: effect.moves, timeoutMs });
        // It ends by itself, but for a defect.
        const timer = setTimeout(() => member.worker.process.kill('SIGKILL'), timeoutMs + 2 * STOP_GRACE_MS);
        member.worker.once('exit', () => clearTimeout(timer));
        break;
      }
      case 'switch':
        this.#switch(effect.place, effect.to);
        break;
      case 'kill':
        this.#members.get(effect.process)?.worker.process.kill('SIGKILL');
        break;
      case 'rolling':
        this.#options.onRolling(undefined);
        break;
      case 'rolled':
        // One that is cut short by the router's own end has not failed.
        if (!this.#isDraining) this.#options.onRolled(effect.failure);
        break;
      case 'notNow':
        this.#options.onRolling(effect.why);
        break;
      default:
        effect satisfies never;
    }
  }

  #start({ place, process: id, generation, replaces }: Extract<PlacesEffect, { kind: 'start' }>): void {
    const worker = cluster.fork({
      [INDEX_VARIABLE]: String(place),
      [COUNT_VARIABLE]: String(this.#options.count),
      [GENERATION_VARIABLE]: String(generation),
    });
    const recipient = {
      get isConnected() {
        return worker.isConnected();
      },
      send: (message: ToWorker, client: AcceptedClient) => void worker.send(message, client, () => {}),
    };
    const queue = new WorkerQueue(recipient);
    const share = replaces ? this.#awaitShare() : this.#freeShare();
    this.#members.set(id, {
      ...{ id, place, share, worker, queue, clients: 0, leaves: false, leavingIds: [], failure: undefined },
    });
    worker.on('message', (message: FromWorker, client: AcceptedClient | undefined) =>
      this.#onMessage(id, message, client),
    );
    worker.on('exit', (code, signal) => this.#onExit(id, signal ?? `status ${code}`));
    // Told to one that has just ended: its exit says the rest.
    worker.on('error', () => {});
  }

  /** Of one that died, which is kept for the one that is started in its place. */
  #freeShare(): number {
    const used = new Set([...this.#members.values()].map(({ share }) => share));
    const free = this.#shares.workers.findIndex(({ awaited }, index) => awaited && !used.has(index));
    return free >= 0 ? free : this.#awaitShare();
  }

  #awaitShare(): number {
    const { state, index } = shareAwaited(this.#shares);
    this.#shares = state;
    this.#shareOut();
    return index;
  }

  /** Clients of the place go to this one from now on. */
  #switch(place: number, to: number): void {
    const before = this.#serving[place];
    const member = this.#members.get(to)!;
    this.#serving[place] = member;
    this.#fillBy({ kind: 'ended', worker: place });
    this.#fillBy({ kind: 'ready', worker: place, atMs: performance.now() });
    if (before && before !== member) this.#queues.empty(before.queue);
    this.#shareOut();
    this.#queues.offerHeld();
  }

  #onMessage(id: number, message: FromWorker, client: AcceptedClient | undefined): void {
    const member = this.#members.get(id);
    if (!member) return;
    const atMs = performance.now();
    switch (message?.kind) {
      case 'ready':
        this.#shares = shareReady(this.#shares, member.share);
        // In place of a replacement that has ended while it took over.
        for (const { place, leavingIds: ids } of this.#members.values())
          if (place === member.place && ids.length > 0) this.#tell(member, { kind: 'expect', ids });
        this.#step({ kind: 'ready', process: id, form: message.form, atMs });
        this.#shareOut();
        break;
      case 'failed':
        if (this.#door) member.failure = message.text;
        else this.#sayFailure(message.text);
        break;
      case 'cancel':
        // Its place says where it was begun: it may have gone on elsewhere.
        for (const other of this.#members.values()) if (other !== member) this.#tell(other, message);
        break;
      case 'taken':
        this.#queues.onTaken(member.queue);
        break;
      case 'report':
        member.clients = message.fill.clients;
        if (this.#serving[member.place] === member)
          this.#fillBy({ kind: 'reported', worker: member.place, report: message.fill, atMs });
        this.#shares = shareReported(this.#shares, member.share, message.share);
        this.#shareOut();
        break;
      case 'admission':
        this.#admission.onEvent(id, message.event);
        break;
      case 'leaving':
        this.#onLeaving(member, message.ids);
        break;
      case 'moved':
        this.#tell(member, { kind: 'received' });
        // It may have gone on the way.
        if (client) this.#queues.acceptSession(client, message.session, member.place);
        break;
      case 'answer':
        this.#asks.onAnswer(message.question, message.value);
        break;
      default:
        message satisfies never;
    }
  }

  #onLeaving(member: Member, ids: readonly number[]): void {
    member.leavingIds = ids;
    const next = this.#places.places[member.place]?.next;
    const replacement = next && this.#members.get(next.id);
    if (replacement) this.#tell(replacement, { kind: 'expect', ids });
    this.#step({ kind: 'leaving', process: member.id, atMs: performance.now() });
  }

  #onExit(id: number, status: string): void {
    const member = this.#members.get(id);
    if (!member) return;
    this.#members.delete(id);
    this.#admission.onWorkerEnded(id);
    const { place, share, queue, leaves } = member;
    const isServing = this.#serving[place] === member;
    if (isServing) {
      this.#serving[place] = undefined;
      this.#fillBy({ kind: 'ended', worker: place });
    }
    // One that is started again keeps its share; of two in a place, one goes.
    const others = [...this.#members.values()].some((other) => other.place === place);
    this.#shares = leaves || others ? shareGone(this.#shares, share) : shareEnded(this.#shares, share);
    const why = member.failure === undefined ? status : `${status}: ${member.failure}`;
    this.#step({ kind: 'ended', process: id, status: why, atMs: performance.now() });
    if (!this.#isDraining) this.#queues.empty(queue);
  }

  /** Once all workers are ready for the first time. */
  async #open(): Promise<void> {
    try {
      this.#door = await openDoor({
        address: this.#options.listen,
        onClient: (client) => this.#queues.accept(client),
        onError: this.#options.onDoorError,
      });
    } catch (error) {
      this.#sayFailure(this.#options.describeListenFailure(error as Error));
      this.#end(1);
      return;
    }
    if (this.#isDraining) this.#door.close();
    else this.#options.onListening(this.#door.port);
  }

  /** A session stays in the place that it is from, whose processes give out ids unlike one another's, if anybody is there. */
  #chooseQueue(from: number | undefined): WorkerQueue | undefined {
    const isThere = from !== undefined && this.#serving[from] && !this.#fill.workers[from]!.silent;
    const place = isThere ? from : chooseWorker(this.#fill);
    const member = place === undefined ? undefined : this.#serving[place];
    if (place === undefined || !member) return undefined;
    this.#fillBy({ kind: 'given', worker: place });
    return member.queue;
  }

  #tick(): void {
    const nowMs = performance.now();
    this.#fillBy({ kind: 'tick', idleCores: this.#idleCores.tick(), atMs: nowMs });
    const { workers } = this.#fill;
    if (workers.some(({ ready, silent }) => ready && !silent))
      for (const [place, member] of this.#serving.entries()) {
        if (!member || !workers[place]!.silent) continue;
        const { length } = member.queue.waiting;
        for (let i = 0; i < length; i++) this.#fillBy({ kind: 'returned', worker: place });
        this.#queues.empty(member.queue);
      }
    this.#step({ kind: 'tick', atMs: nowMs });
    this.#shareOut();
    this.#queues.tick(nowMs);
  }

  #shareOut(): void {
    const clients = this.#shares.workers.map(() => 0);
    for (const member of this.#members.values()) {
      const { place, share } = member;
      clients[share]! +=
        this.#serving[place] === member ? clientsOf(this.#fill.workers[place]!) : member.clients;
      // Those that are about to come need connections when they are there.
      const next = member.leaves ? this.#serving[place] : undefined;
      if (next && next !== member) clients[next.share]! += member.clients;
    }
    const { state, orders } = shareOut(this.#shares, clients, performance.now());
    this.#shares = state;
    for (const { worker, share } of orders)
      for (const member of this.#members.values())
        if (member.share === worker) this.#tell(member, { kind: 'share', connections: share });
  }

  #tell({ worker }: Member, message: ToWorker): void {
    if (worker.isConnected()) worker.send(message, () => {});
  }

  #fillBy(event: FillEvent): void {
    this.#fill = fillStep(this.#fill, event);
  }

  /** One says it for all. */
  #sayFailure(text: string): void {
    if (!this.#hasFailed) this.#options.onFailed(text);
    this.#hasFailed = true;
  }
}

function pause(ms: number, ended: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done(): void {
      clearTimeout(timer);
      ended.removeEventListener('abort', done);
      resolve();
    }
    if (ended.aborted) done();
    else ended.addEventListener('abort', done, { once: true });
  });
}

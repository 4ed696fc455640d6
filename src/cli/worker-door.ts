/**
 * Clients on their way to a worker: those who have just come, and sessions that another worker has handed over.
 *
 *   come ──a worker chosen──▶ in its queue ──the one before has arrived──▶ the worker's
 *     └─none ready─▶ held ──one is ready──▶ …      └─ the worker ends or is silent: chosen again
 *                      └─HELD_MS─▶ refused (57P03)
 *
 * A worker is sent one client at a time, so that with its end no more than that one is lost on the way. What waits here is
 * bounded by WAITING_MAX. Nothing is read of a client; what was read of one by the worker that it comes from goes along.
 */
import { PosternError, shuttingDown, tooManyConnections } from '../base/errors.ts';
import { stopAndDrain } from '../platform/socket-transfer.ts';
import { type AcceptedClient, refuseClient } from '../session/door.ts';
import type { HandedSession } from '../session/handover-form.ts';
import type { ToWorker } from './worker-messages.ts';

/** How long a client waits while no worker is ready. */
const HELD_MS = 10_000;
/** Clients that have no worker yet. */
const WAITING_MAX = 4_096;

interface Comer {
  readonly client: AcceptedClient;
  readonly session: HandedSession | undefined;
  /** Of the worker that a session comes from. */
  readonly place: number | undefined;
}

/** A worker that clients are sent to. */
export interface Recipient {
  readonly isConnected: boolean;
  send(message: ToWorker, client: AcceptedClient): void;
}

export class WorkerQueue {
  readonly recipient: Recipient;
  readonly waiting: Comer[] = [];
  /** One is on its way. */
  sending = false;

  constructor(recipient: Recipient) {
    this.recipient = recipient;
  }
}

export class WorkerDoor {
  readonly #choose: (place: number | undefined) => WorkerQueue | undefined;
  readonly #held: { readonly comer: Comer; readonly untilMs: number }[] = [];
  #waiting = 0;
  #stopped = false;

  /** `choose`: for one more client, in this place if that is given and can be; undefined: none is ready. */
  constructor(choose: (place: number | undefined) => WorkerQueue | undefined) {
    this.#choose = choose;
  }

  /** Whoever has come through the port. */
  accept(client: AcceptedClient): void {
    client.on('error', () => client.destroy());
    if (this.#stopped) refuseClient(client, shuttingDown());
    else if (this.#waiting >= WAITING_MAX)
      refuseClient(client, tooManyConnections('sorry, too many clients are waiting to be let in'));
    else this.#admit({ client, session: undefined, place: undefined });
  }

  /** A session that the worker of this place hands over. */
  acceptSession(client: AcceptedClient, session: HandedSession, place: number): void {
    // It has been reading since it arrived here, for as long as this turn lasts.
    const buffered = stopAndDrain(client);
    client.on('error', () => client.destroy());
    if (this.#stopped || !buffered) {
      refuseClient(client, shuttingDown());
      return;
    }
    const whole = buffered.length === 0 ? session : withUnread(session, buffered);
    this.#admit({ client, session: whole, place });
  }

  /** A worker is ready: those that waited for one. */
  offerHeld(): void {
    for (const { comer, untilMs } of this.#held.splice(0)) this.#offer(comer, untilMs);
  }

  /** Its worker has ended, gives way to another, or says nothing: others are chosen. */
  empty(queue: WorkerQueue): number {
    const left = queue.waiting.splice(0);
    for (const comer of left) this.#offer(comer, performance.now() + HELD_MS);
    return left.length;
  }

  /** The last one has arrived. */
  onTaken(queue: WorkerQueue): void {
    queue.sending = false;
    this.#sendNext(queue);
  }

  tick(nowMs: number): void {
    for (const { comer, untilMs } of this.#held.splice(0)) {
      if (untilMs > nowMs) this.#held.push({ comer, untilMs });
      else {
        this.#waiting--;
        refuseClient(comer.client, nobodyReady());
      }
    }
  }

  /** Refuses all that wait, and whoever comes. */
  stop(queues: readonly WorkerQueue[]): void {
    this.#stopped = true;
    for (const { comer } of this.#held.splice(0)) refuseClient(comer.client, shuttingDown());
    for (const { waiting } of queues)
      for (const { client } of waiting.splice(0)) refuseClient(client, shuttingDown());
  }

  #admit(comer: Comer): void {
    this.#waiting++;
    this.#offer(comer, performance.now() + HELD_MS);
  }

  #offer(comer: Comer, untilMs: number): void {
    const queue = this.#choose(comer.place);
    if (!queue) {
      this.#held.push({ comer, untilMs });
      return;
    }
    queue.waiting.push(comer);
    this.#sendNext(queue);
  }

  #sendNext(queue: WorkerQueue): void {
    if (queue.sending || !queue.recipient.isConnected) return;
    const comer = queue.waiting.shift();
    if (!comer) return;
    queue.sending = true;
    this.#waiting--;
    const { client, session } = comer;
    queue.recipient.send(session ? { kind: 'session', session } : { kind: 'client' }, client);
  }
}

function withUnread(session: HandedSession, more: Buffer): HandedSession {
  const unread = Buffer.concat([Buffer.from(session.state.unread, 'base64'), more]);
  return { ...session, state: { ...session.state, unread: unread.toString('base64') } };
}

function nobodyReady(): PosternError {
  return new PosternError({
    sqlState: '57P03',
    message: 'no worker of the router is ready',
    hint: 'They are being restarted; the log says why. Try again.',
  });
}

/**
 * What one session listens to by the hub (backend/notification-hub.ts), and what it still has to be told: notifications go out between
 * its transactions, in their order, at once when it is idle.
 *
 * LISTEN and UNLISTEN outside of a transaction come here. Inside of one they are the backend's, since they take place at its COMMIT:
 * LISTEN then pins the session, as it must. What both hear of a channel, the hub tells.
 *
 * Invariant: nothing is told inside a transaction, or while a statement is under way.
 * Invariant: what waits is bounded; a session that doesn't take it is ended, rather than told a part.
 */
import type { Notification, NotificationHub, NotificationListener } from '../backend/notification-hub.ts';
import { BOUNDS } from '../base/bounds.ts';
import { objectError, type PosternError, tooManyNotifications } from '../base/errors.ts';
import { encodeNotificationResponse } from '../wire/backend.ts';
import type { Conversation } from './conversation.ts';

export class SessionNotifications implements NotificationListener {
  /** Whether it is between two transactions, with nothing under way. The session knows. */
  isIdle: () => boolean = () => false;
  readonly #c: Conversation;
  readonly #channels = new Set<string>();
  #waiting: Notification[] = [];
  #waitingBytes = 0;
  /** It can't go on. */
  #ending: PosternError | undefined;
  /** Of the open transaction; undefined in it: all channels. */
  #unlistened: (string | undefined)[] = [];

  constructor(conversation: Conversation) {
    this.#c = conversation;
  }

  isListeningTo(channel: string): boolean {
    return this.#channels.has(channel);
  }

  get isListening(): boolean {
    return this.#channels.size > 0;
  }

  get #hub(): NotificationHub | undefined {
    return this.#c.state.context.notifications;
  }

  /** Is LISTEN outside of a transaction for the hub? */
  get takesListen(): boolean {
    return this.#hub !== undefined;
  }

  /** Is UNLISTEN outside of a transaction done when unlisten() is? */
  get takesUnlisten(): boolean {
    return this.#hub !== undefined && this.#c.lease.pinReason === undefined;
  }

  /** Resolves when the servers have confirmed. */
  async listen(channel: string): Promise<void> {
    if (this.#channels.has(channel)) return;
    if (this.#channels.size >= BOUNDS.notificationChannelsOfSessionMax) throw tooManyChannels();
    this.#channels.add(channel);
    try {
      await this.#hub!.listen(channel, this);
    } catch (error) {
      this.#channels.delete(channel);
      throw error;
    }
    // The client may have gone meanwhile.
    if (this.#c.lease.ended) this.end();
  }

  /** undefined: all channels. What was notified before is still told. */
  unlisten(channel: string | undefined): void {
    for (const name of channel === undefined ? [...this.#channels] : [channel])
      if (this.#channels.delete(name)) this.#hub!.unlisten(name, this);
  }

  /** The client is gone. */
  end(): void {
    this.unlisten(undefined);
    this.#waiting = [];
  }

  /**
   * An UNLISTEN goes to a backend. Gives what is to be done when it has been carried out: it counts from the commit of its
   * transaction, which is that of its own Query unless a transaction is open then.
   */
  noteUnlisten(channel: string | undefined): (() => void) | undefined {
    if (!this.isListening) return undefined;
    this.#unlistened.push(channel);
    return this.#atCommit(() => !this.#c.lease.inBlock && !this.#c.lease.unsynced);
  }

  /** A COMMIT goes to a backend. As noteUnlisten(). */
  noteCommit(): (() => void) | undefined {
    if (this.#unlistened.length === 0 || this.#c.lease.failed) return undefined;
    return this.#atCommit(() => true);
  }

  /** Gives what is to be done once the open transaction is known to have been committed. */
  committing(): () => void {
    const channels = this.#unlistened;
    return () => {
      for (const channel of channels) this.unlisten(channel);
    };
  }

  #atCommit(isCommitted: () => boolean): () => void {
    const { responses } = this.#c;
    const { errorsTold } = responses;
    return () => {
      if (responses.errorsTold !== errorsTold || !isCommitted()) return;
      for (const channel of this.#unlistened) this.unlisten(channel);
      this.#unlistened = [];
    };
  }

  /** No transaction is open any more. Its answer is still to be written. */
  onFree(): void {
    if (this.#unlistened.length > 0) this.#unlistened = [];
    if (this.#waiting.length > 0 || this.#ending) setImmediate(() => this.deliver());
  }

  onNotification(notification: Notification): void {
    this.#waiting.push(notification);
    this.#waitingBytes += notification.channel.length + notification.payload.length;
    const unsentBytes = this.#waitingBytes + this.#c.state.output.unsentBytes;
    if (unsentBytes > BOUNDS.notificationBytesMax) {
      this.end();
      this.#ending = tooManyNotifications();
    }
    this.deliver();
  }

  onGap(error: PosternError): void {
    this.#channels.clear();
    this.#ending = error;
    this.deliver();
  }

  /** Tells what waits, if this is the time for it. */
  deliver(): void {
    if (this.#waiting.length === 0 && !this.#ending) return;
    if (!this.isIdle()) return;
    const { writer } = this.#c.state.output;
    for (const notification of this.#waiting) encodeNotificationResponse(writer, notification);
    this.#waiting = [];
    this.#waitingBytes = 0;
    const ending = this.#ending;
    this.#ending = undefined;
    if (ending) this.#c.responses.onFatal(ending);
  }
}

function tooManyChannels(): PosternError {
  return objectError(
    '53400',
    `a session may listen to ${BOUNDS.notificationChannelsOfSessionMax} channels at most`,
    'Put what tells them apart into the payload.',
  );
}

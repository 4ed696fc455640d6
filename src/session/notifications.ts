/**
 * What one session listens to by the hub (backend/notification-hub.ts), and what it still has to be told: notifications go out between
 * its transactions, in their order, at once when it is idle.
 *
 * LISTEN and UNLISTEN outside of a transaction come here. Inside of one they are the backend's, since they take place at its COMMIT:
 * LISTEN then pins the session, as it must. What both hear of a channel, the hub tells.
 *
 * A pipeline is a transaction as well, to its Sync: what it has asked for is taken back if it fails.
 *
 * Invariant: nothing is told inside a transaction, or while a statement is under way (but before the answer to UNLISTEN, what was
 * notified before it).
 * Invariant: what waits is bounded; a session that doesn't take it is ended, rather than told a part.
 */
import type { Notification, NotificationHub, NotificationListener } from '../backend/notification-hub.ts';
import { BOUNDS } from '../base/bounds.ts';
import { objectError, type PosternError, tooManyNotifications } from '../base/errors.ts';
import { encodeNotificationResponse } from '../wire/backend.ts';
import type { Conversation } from './conversation.ts';

/** What was asked for since the last Sync, or Query. */
interface Pipeline {
  readonly listened: Set<string>;
  /** These are listened to up to its end. */
  readonly unlistened: Set<string>;
  /** As the pipeline began. */
  readonly errorsTold: number;
}

/** What a notification takes up beside its text. */
const NOTIFICATION_BYTES = 100;

export class SessionNotifications implements NotificationListener {
  /** Whether it is between two transactions, with nothing under way. The session knows. */
  isIdle: () => boolean = () => false;
  readonly #c: Conversation;
  readonly #channels = new Set<string>();
  /** One of them, that the servers have not confirmed yet. */
  #joining: string | undefined;
  #waiting: Notification[] = [];
  #waitingBytes = 0;
  /** It can't go on. */
  #ending: PosternError | undefined;
  #pipeline: Pipeline | undefined;
  /** Of the open transaction; undefined in it: all channels. */
  #unlistened: (string | undefined)[] = [];

  constructor(conversation: Conversation) {
    this.#c = conversation;
  }

  /** Does the hub tell what is notified there? */
  isListeningTo(channel: string): boolean {
    return this.#channels.has(channel) && this.#joining !== channel;
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

  /** Resolves when the servers have confirmed. Is taken back if what follows up to settle() fails. */
  async listen(channel: string): Promise<void> {
    const pipeline = this.#inPipeline();
    pipeline.unlistened.delete(channel);
    if (this.#channels.has(channel)) return;
    if (this.#channels.size >= BOUNDS.notificationChannelsOfSessionMax) throw tooManyChannels();
    this.#channels.add(channel);
    this.#joining = channel;
    try {
      await this.#hub!.listen(channel, this);
    } catch (error) {
      this.#channels.delete(channel);
      throw error;
    } finally {
      this.#joining = undefined;
    }
    pipeline.listened.add(channel);
    // After a gap its channels are forgotten, of which this one may be the only one that the hub has begun anew.
    if (!this.#channels.has(channel)) this.#hub!.unlisten(channel, this);
    // The client may have gone meanwhile.
    if (this.#c.lease.ended) this.end();
  }

  /** undefined: all channels. At settle(), unless what follows up to that fails. What was notified before is told by then. */
  async unlistenAtEnd(channel: string | undefined): Promise<void> {
    const pipeline = this.#inPipeline();
    await this.caughtUp();
    for (const name of channel === undefined ? this.#channels : [channel]) pipeline.unlistened.add(name);
  }

  /** undefined: all channels. */
  unlisten(channel: string | undefined): void {
    for (const name of channel === undefined ? [...this.#channels] : [channel])
      if (this.#channels.delete(name)) this.#hub!.unlisten(name, this);
  }

  /** What was notified before is told by then. Outside of a transaction alone, and with nothing under way. */
  async caughtUp(): Promise<void> {
    if (!this.isListening) return;
    await this.#hub!.caughtUp();
    if (!this.#c.lease.ended) this.#tell();
  }

  #inPipeline(): Pipeline {
    const { errorsTold } = this.#c.responses;
    this.#pipeline ??= { listened: new Set(), unlistened: new Set(), errorsTold };
    return this.#pipeline;
  }

  /** A Query or a Sync ends the pipeline. Gives what is to be done when it is answered, if anything. */
  settle(): (() => void) | undefined {
    const pipeline = this.#pipeline;
    if (!pipeline) return undefined;
    return () => {
      if (this.#pipeline !== pipeline) return;
      this.#pipeline = undefined;
      const hasFailed = this.#c.responses.errorsTold !== pipeline.errorsTold;
      for (const name of hasFailed ? pipeline.listened : pipeline.unlistened) this.unlisten(name);
    };
  }

  /** The client is gone. */
  end(): void {
    this.unlisten(undefined);
    this.#waiting = [];
    this.#waitingBytes = 0;
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
    this.#waitingBytes += NOTIFICATION_BYTES + notification.channel.length + notification.payload.length;
    if (this.#waitingBytes > BOUNDS.notificationBytesMax) {
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

  /** Tells what waits, if this is the time for it: what its client has not read yet may be rows that it asked for, of any size. */
  deliver(): void {
    if (this.#waiting.length === 0 && !this.#ending) return;
    if (!this.isIdle() || this.#pipeline) return;
    if (!this.#ending && this.#c.state.output.unsentBytes > BOUNDS.clientUnsentBytesMax) return;
    this.#tell();
    const ending = this.#ending;
    this.#ending = undefined;
    if (ending) this.#c.responses.onFatal(ending);
  }

  #tell(): void {
    const { writer } = this.#c.state.output;
    for (const notification of this.#waiting) encodeNotificationResponse(writer, notification);
    this.#waiting = [];
    this.#waitingBytes = 0;
  }
}

function tooManyChannels(): PosternError {
  return objectError(
    '53400',
    `a session may listen to ${BOUNDS.notificationChannelsOfSessionMax} channels at most`,
    'Put what tells them apart into the payload.',
  );
}

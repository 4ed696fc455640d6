/**
 * LISTEN for all sessions of a process: one connection to each node listens to every channel that any session wants, so that a
 * session that listens needs no backend of its own, and hears what is notified on any node (by a trigger of a leaf, say).
 *
 *   closed ──the first channel──▶ opening ──home is there, and each node that can be reached──▶ open
 *      ▲                                                                                         │
 *      └── no channel for a while; or a gap: a connection was lost, or a node that was away is back ┘
 *
 * Invariant: listen() resolves when the servers have confirmed, on each connection; and whoever listens hears nothing that was
 * notified before it asked to. What the servers have notified before they are asked something, they tell before they answer: so each
 * listen() asks them, if others listen to the channel already, too.
 * Invariant: nobody listens across a gap. What was notified in it is lost, so whoever listens then is told (onGap), and the hub
 * starts afresh: PostgreSQL's promise is that a connection hears everything from its LISTEN to its end.
 */
import { assert } from '../base/assert.ts';
import { BOUNDS } from '../base/bounds.ts';
import { connectionLost, listeningInterrupted, objectError, type PosternError } from '../base/errors.ts';
import type { Log } from '../observe/log.ts';
import type { MetricSamples } from '../observe/metric-samples.ts';
import { quoteIdentifier } from '../pg/identifier.ts';
import type { ControlConnection } from '../platform/control-connection.ts';

export interface Notification {
  readonly channel: string;
  readonly payload: string;
  /** Of the backend that has notified, on its node. */
  readonly processId: number;
}

/** A session. */
export interface NotificationListener {
  onNotification(notification: Notification): void;
  /** It listens to nothing any more, and may have missed something. */
  onGap(error: PosternError): void;
}

export interface HubOptions {
  readonly nodes: readonly { readonly id: number; readonly name: string }[];
  readonly homeNodeId: number;
  /** Bounded. */
  readonly connect: (nodeId: number) => Promise<ControlConnection>;
  /** Known not to answer: it is not even tried. */
  readonly isAway: (nodeId: number) => boolean;
  readonly log: Log;
}

interface Channel {
  /** The servers have confirmed it to them. */
  readonly listeners: Set<NotificationListener>;
  /** How many wait for that. */
  joining: number;
  /** The LISTEN that was sent last. */
  asked: Promise<void>;
  /** One that will be sent after it, for all who come until then. */
  next: Promise<void> | undefined;
}

/** A connection may turn out to be lost when it is used; the second try has others. */
const TRIES = 2;

export class NotificationHub {
  readonly #options: HubOptions;
  readonly #channels = new Map<string, Channel>();
  /** By node. Empty while `#opening` is not settled. */
  #connections: ReadonlyMap<number, ControlConnection> = new Map();
  #opening: Promise<void> | undefined;
  /** Nothing that began before a gap goes on after it. */
  #epoch = 0;
  #retry: NodeJS.Timeout | undefined;
  #idle: NodeJS.Timeout | undefined;
  #delivered = 0;
  #gaps = 0;

  constructor(options: HubOptions) {
    this.#options = options;
  }

  /** Rejects if home can't be reached; the listener then does not listen. */
  async listen(name: string, listener: NotificationListener): Promise<void> {
    clearTimeout(this.#idle);
    for (let tries = 1; ; tries++) {
      const channel = this.#channels.get(name) ?? this.#newChannel(name);
      channel.joining++;
      try {
        await this.#ask(name, channel);
        if (!this.#isKnown(name, channel)) throw this.#lost();
        channel.listeners.add(listener);
        channel.joining--;
        return;
      } catch (error) {
        channel.joining--;
        this.#forgetUnused(name, channel);
        if (tries === TRIES) throw error;
      }
    }
  }

  unlisten(name: string, listener: NotificationListener): void {
    const channel = this.#channels.get(name);
    if (!channel?.listeners.delete(listener)) return;
    this.#forgetUnused(name, channel);
  }

  /** Who listens has heard by then what was notified before, but on nodes that are away. Never rejects. */
  async caughtUp(): Promise<void> {
    const present = [...this.#connections].filter(([nodeId]) => !this.#options.isAway(nodeId));
    await Promise.all(present.map(([, connection]) => connection.query('SELECT').catch(() => {})));
  }

  addMetrics(samples: MetricSamples): void {
    samples.set('postern_notification_channels', this.#channels.size);
    samples.set('postern_notifications_total', this.#delivered);
    samples.set('postern_notification_gaps_total', this.#gaps);
  }

  async close(): Promise<void> {
    this.#channels.clear();
    await this.#reset();
  }

  #newChannel(name: string): Channel {
    if (this.#channels.size >= BOUNDS.notificationChannelsMax) throw tooManyChannels();
    const channel: Channel = { listeners: new Set(), joining: 0, asked: Promise.resolve(), next: undefined };
    this.#channels.set(name, channel);
    return channel;
  }

  /** What is under way may have been sent before the caller came: it answers for those alone who came before it. */
  #ask(name: string, channel: Channel): Promise<void> {
    channel.next ??= channel.asked
      .catch(() => {})
      .then(() => {
        channel.next = undefined;
        channel.asked = this.#isKnown(name, channel)
          ? this.#onAll(`LISTEN ${quoteIdentifier(name)}`)
          : Promise.reject(this.#lost());
        return channel.asked;
      });
    return channel.next;
  }

  /** No gap has come since it was made. */
  #isKnown(name: string, channel: Channel): boolean {
    return this.#channels.get(name) === channel;
  }

  #forgetUnused(name: string, channel: Channel): void {
    if (channel.listeners.size > 0 || channel.joining > 0 || !this.#isKnown(name, channel)) return;
    this.#channels.delete(name);
    for (const connection of this.#connections.values())
      void connection.query(`UNLISTEN ${quoteIdentifier(name)}`).catch(() => {});
    if (this.#channels.size > 0) return;
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => void this.#reset(), BOUNDS.notificationIdleMs).unref();
  }

  async #onAll(statement: string): Promise<void> {
    for (const nodeId of this.#connections.keys())
      if (this.#options.isAway(nodeId)) this.#gap(nodeId, 'does not answer');
    this.#opening ??= this.#open();
    const epoch = this.#epoch;
    await this.#opening;
    if (epoch !== this.#epoch) throw this.#lost();
    await Promise.all(
      [...this.#connections].map(([nodeId, connection]) =>
        connection.query(statement).catch((error) => {
          // One that doesn't answer holds nobody else up: the rest begins anew without it.
          if (epoch === this.#epoch) this.#gap(nodeId, 'did not answer');
          throw error;
        }),
      ),
    );
  }

  async #open(): Promise<void> {
    const { nodes, homeNodeId, connect, isAway } = this.#options;
    const epoch = this.#epoch;
    const opened = new Map<number, ControlConnection>();
    const tries = nodes.map(async ({ id }) => {
      if (id !== homeNodeId && isAway(id)) return;
      const connection = await connect(id);
      connection.onLost(() => {
        if (this.#connections.get(id) === connection) this.#gap(id, 'was lost');
      });
      connection.onNotification((channel, payload, processId) =>
        this.#deliver({ channel, payload, processId }),
      );
      opened.set(id, connection);
    });
    const results = await Promise.allSettled(tries);
    const home = results[nodes.findIndex(({ id }) => id === homeNodeId)];
    assert(home, 'home is one of the nodes');
    const isLost = [...opened.values()].some(({ lost }) => lost);
    if (home.status === 'rejected' || isLost || epoch !== this.#epoch) {
      if (epoch === this.#epoch) this.#opening = undefined;
      await Promise.all([...opened.values()].map((connection) => connection.close()));
      throw home.status === 'rejected' ? home.reason : this.#lost();
    }
    this.#connections = opened;
    if (opened.size < nodes.length) this.#awaitOthers();
  }

  /** Looks for the nodes that were away. */
  #awaitOthers(): void {
    const epoch = this.#epoch;
    const { nodes, connect, isAway } = this.#options;
    this.#retry = setTimeout(async () => {
      for (const { id } of nodes) {
        if (this.#connections.has(id) || isAway(id)) continue;
        const found = await connect(id).catch(() => undefined);
        await found?.close();
        if (epoch !== this.#epoch) return;
        if (found) {
          this.#gap(id, 'is there again');
          return;
        }
      }
      this.#awaitOthers();
    }, BOUNDS.notificationRetryMs).unref();
  }

  #deliver(notification: Notification): void {
    const listeners = this.#channels.get(notification.channel)?.listeners;
    if (!listeners) return;
    this.#delivered += listeners.size;
    for (const listener of [...listeners]) listener.onNotification(notification);
  }

  #gap(nodeId: number, what: string): void {
    const nodeName = this.#nodeName(nodeId);
    const told = new Set([...this.#channels.values()].flatMap(({ listeners }) => [...listeners]));
    this.#channels.clear();
    void this.#reset();
    if (told.size === 0) return;
    this.#gaps++;
    this.#options.log.warn(
      `sessions that LISTEN are ended: the connection for it to node "${nodeName}" ${what}`,
      { node: nodeName, sessions: told.size },
    );
    const error = listeningInterrupted(nodeName);
    for (const listener of told) listener.onGap(error);
  }

  /** What is under way fails, since its connection is closed. */
  async #reset(): Promise<void> {
    this.#epoch++;
    clearTimeout(this.#retry);
    clearTimeout(this.#idle);
    const connections = this.#connections;
    this.#connections = new Map();
    this.#opening = undefined;
    await Promise.all([...connections.values()].map((connection) => connection.close()));
  }

  #lost(): PosternError {
    return connectionLost(this.#nodeName(this.#options.homeNodeId));
  }

  #nodeName(nodeId: number): string {
    return this.#options.nodes.find(({ id }) => id === nodeId)?.name ?? String(nodeId);
  }
}

function tooManyChannels(): PosternError {
  return objectError(
    '53400',
    `sessions of this router listen to ${BOUNDS.notificationChannelsMax} channels, which is the most`,
    'UNLISTEN what is not needed, or put what tells channels apart into the payload.',
  );
}

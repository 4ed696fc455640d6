/**
 * Keeps one router's map of the cluster up to date: it listens for changes of the catalog, asks for the epoch twice a
 * second in case a notification got lost, and connects again when the home node was away.
 *
 *   start ─► connected ──(connection lost, an answer overdue)──► away ──(backoff)──► connected
 *                └─(notification, poll, refresh())─► loads the map if it has changed
 *
 * Invariant: `current` is always a whole map that was true at some time; while the catalog
 * is away it goes on serving. A stale map does no harm: it names leaves by generations that are never used again.
 */
import type { PosternError } from '../base/errors.ts';
import { cannotConnect } from '../base/errors.ts';
import { ControlConnection } from '../platform/control-connection.ts';
import { type ClusterMap, emptyMap, type NodeInfo } from './map.ts';
import { CATALOG_CHANNEL } from './schema.ts';
import { loadMap, loadMark } from './store.ts';

const POLL_INTERVAL_MS = 500;
/** Between two loads of the map, so that a storm of 42P01 does not become a storm on the home node. */
const LOAD_INTERVAL_MS_MIN = 20;
const STATEMENT_TIMEOUT_MS = 5_000;
const RECONNECT_DELAY_MS_FIRST = 100;
const RECONNECT_DELAY_MS_MAX = 2_000;

interface WatcherLog {
  info(message: string): void;
  warn(message: string): void;
}

export interface CatalogWatcherOptions {
  /** The home node's connection string for the control path. */
  readonly dsn: string;
  readonly homeNode: NodeInfo;
  readonly nodes: readonly NodeInfo[];
  /** Called with each new map, also when only `shadowSchemas` changed and the epoch is the same. */
  readonly onMap: (map: ClusterMap) => void;
  readonly log: WatcherLog;
}

export class CatalogWatcher {
  readonly #options: CatalogWatcherOptions;
  #current: ClusterMap;
  #mark = '';
  #connection: ControlConnection | undefined;
  #stopped = false;
  #timer: NodeJS.Timeout | undefined;
  #reconnectDelayMs = RECONNECT_DELAY_MS_FIRST;
  #loadedAtMs = Number.NEGATIVE_INFINITY;
  /** The load that runs now, and the one that starts after it for those who asked in the meantime. */
  #running: Promise<ClusterMap> | undefined;
  #queued: Promise<ClusterMap> | undefined;

  constructor(options: CatalogWatcherOptions) {
    this.#options = options;
    this.#current = emptyMap(options.nodes, options.homeNode.id);
  }

  get current(): ClusterMap {
    return this.#current;
  }

  /** False while the home node can't be asked: `current` may be out of date. */
  get available(): boolean {
    return this.#connection !== undefined;
  }

  /** Resolves with the first map loaded; rejects if the catalog can't be reached now. */
  async start(): Promise<void> {
    await this.#connect();
    await this.refresh();
    this.#schedulePoll();
  }

  /**
   * Loads the map as it is after this call; calls at the same time share a load. Rejects with 08001 while the catalog is
   * away: the old map is still there in `current`.
   */
  refresh(): Promise<ClusterMap> {
    if (!this.#running) {
      this.#running = this.#load().finally(() => {
        this.#running = undefined;
      });
      return this.#running;
    }
    // The load under way may have taken its snapshot before the caller's reason to ask: one more, for all who ask now.
    this.#queued ??= this.#running
      .catch(() => undefined)
      .then(() => {
        this.#queued = undefined;
        return this.refresh();
      });
    return this.#queued;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    const connection = this.#connection;
    this.#connection = undefined;
    await connection?.close();
  }

  async #connect(): Promise<void> {
    const connection = await ControlConnection.open({
      nodeName: this.#options.homeNode.name,
      dsn: this.#options.dsn,
      applicationName: 'postern catalog',
      statementTimeoutMs: STATEMENT_TIMEOUT_MS,
    });
    connection.onNotification(() => this.#refreshQuietly());
    try {
      await connection.query(`LISTEN ${CATALOG_CHANNEL}`);
    } catch (error) {
      connection.destroy();
      throw error;
    }
    if (this.#stopped || connection.lost) {
      connection.destroy();
      throw this.#away('the connection was closed');
    }
    connection.onLost(() => this.#onLost(connection));
    this.#connection = connection;
    this.#reconnectDelayMs = RECONNECT_DELAY_MS_FIRST;
  }

  #onLost(connection: ControlConnection): void {
    if (this.#connection !== connection) return;
    this.#connection = undefined;
    if (this.#stopped) return;
    this.#options.log.warn('the catalog is away; the map that is known goes on serving');
    this.#scheduleReconnect();
  }

  #scheduleReconnect(): void {
    clearTimeout(this.#timer);
    if (this.#stopped) return;
    const delayMs = this.#reconnectDelayMs;
    this.#reconnectDelayMs = Math.min(delayMs * 2, RECONNECT_DELAY_MS_MAX);
    this.#timer = setTimeout(() => void this.#reconnect(), delayMs);
  }

  async #reconnect(): Promise<void> {
    try {
      await this.#connect();
    } catch {
      this.#scheduleReconnect();
      return;
    }
    this.#options.log.info('the catalog is back');
    this.#refreshQuietly();
    this.#schedulePoll();
  }

  #schedulePoll(): void {
    clearTimeout(this.#timer);
    if (this.#stopped || !this.#connection) return;
    this.#timer = setTimeout(() => void this.#poll(), POLL_INTERVAL_MS);
  }

  async #poll(): Promise<void> {
    const connection = this.#connection;
    if (!connection) return;
    try {
      const mark = await loadMark(connection);
      if (mark !== this.#mark) await this.refresh();
    } catch (error) {
      this.#failed(connection, error);
    }
    // A lost connection has set the reconnect timer meanwhile, or a new connection its own poll.
    if (this.#connection === connection) this.#schedulePoll();
  }

  #refreshQuietly(): void {
    this.refresh().catch(() => undefined);
  }

  async #load(): Promise<ClusterMap> {
    const waitMs = this.#loadedAtMs + LOAD_INTERVAL_MS_MIN - performance.now();
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    const connection = this.#connection;
    if (!connection) throw this.#away('no connection to the catalog');
    this.#loadedAtMs = performance.now();
    try {
      // The mark first: a change between the two makes the next poll load once more, and never once too few.
      const mark = await loadMark(connection);
      const map = await loadMap(connection);
      const changed = mark !== this.#mark;
      if (map.epoch < this.#current.epoch) {
        // A catalog that went back in time (a failover that lost commits): its map is the truth that the nodes enforce.
        this.#options.log.warn(`the catalog went back from epoch ${this.#current.epoch} to ${map.epoch}`);
      }
      this.#mark = mark;
      if (changed || map.epoch !== this.#current.epoch) {
        this.#current = map;
        this.#options.onMap(map);
      }
      return this.#current;
    } catch (error) {
      this.#failed(connection, error);
      throw error;
    }
  }

  /** A catalog that answers with errors (shutting down, damaged, overdue) is as good as away: start anew. */
  #failed(connection: ControlConnection, error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    this.#options.log.warn(`the catalog could not be read: ${message}`);
    connection.destroy();
    this.#onLost(connection);
  }

  #away(cause: string): PosternError {
    return cannotConnect(this.#options.homeNode.name, cause);
  }
}

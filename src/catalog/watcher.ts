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
import { Reconnecting } from '../platform/reconnecting.ts';
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
  readonly #link: Reconnecting;
  #stopped = false;
  #timer: NodeJS.Timeout | undefined;
  #loadedAtMs = Number.NEGATIVE_INFINITY;
  #heardAtMs = Number.NEGATIVE_INFINITY;
  /** The load that runs now, and the one that starts after it for those who asked in the meantime. */
  #running: Promise<ClusterMap> | undefined;
  #queued: Promise<ClusterMap> | undefined;

  constructor(options: CatalogWatcherOptions) {
    this.#options = options;
    this.#current = emptyMap(options.nodes, options.homeNode.id);
    this.#link = new Reconnecting({
      open: () => this.#open(),
      firstMs: RECONNECT_DELAY_MS_FIRST,
      maxMs: RECONNECT_DELAY_MS_MAX,
      onAway: () => options.log.warn('the catalog is away; the map that is known goes on serving'),
      onBack: () => {
        options.log.info('the catalog is back');
        this.#refreshQuietly();
        this.#schedulePoll();
      },
    });
  }

  get current(): ClusterMap {
    return this.#current;
  }

  /** False while the home node can't be asked: `current` may be out of date. */
  get available(): boolean {
    return this.#link.current !== undefined;
  }

  /** How long ago the map was known to be the catalog's, in ms; Infinity: never. */
  get silentMs(): number {
    return performance.now() - this.#heardAtMs;
  }

  /** Resolves with the first map loaded; rejects if the catalog can't be reached now. */
  async start(): Promise<void> {
    await this.#link.start();
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
    await this.#link.stop();
  }

  async #open(): Promise<ControlConnection> {
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
    return connection;
  }

  #schedulePoll(): void {
    clearTimeout(this.#timer);
    if (this.#stopped || !this.#link.current) return;
    this.#timer = setTimeout(() => void this.#poll(), POLL_INTERVAL_MS);
  }

  async #poll(): Promise<void> {
    const connection = this.#link.current;
    if (!connection) return;
    try {
      const mark = await loadMark(connection);
      if (mark !== this.#mark) await this.refresh();
      this.#heardAtMs = performance.now();
    } catch (error) {
      this.#failed(connection, error);
    }
    // A new connection has its own poll.
    if (this.#link.current === connection) this.#schedulePoll();
  }

  #refreshQuietly(): void {
    this.refresh().catch(() => undefined);
  }

  async #load(): Promise<ClusterMap> {
    const waitMs = this.#loadedAtMs + LOAD_INTERVAL_MS_MIN - performance.now();
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    const connection = this.#link.current;
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
      this.#heardAtMs = performance.now();
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
    this.#link.giveUp(connection, message);
  }

  #away(cause: string): PosternError {
    return cannotConnect(this.#options.homeNode.name, cause);
  }
}

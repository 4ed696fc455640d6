/**
 * `postern/client`: for an application that connects to the nodes itself, without a router in between. It says on which node the rows of
 * a key or of a tenant's schema are, and follows the catalog.
 *
 *   start ─► following ──(connection lost, an answer overdue)──► away ──(backoff)──► following
 *               └─(notification, poll, refresh())─► loads what is known if the epoch has changed
 *
 * Invariant: what `dsnFor` says was true at some time, as a whole; while the catalog is away it stays as it was. Whoever uses a stale
 * place names a leaf that has gone, and hears 42P01: then refresh(), and ask again.
 * Invariant: a key's bucket is PostgreSQL's own, or there is an error; there is no guess.
 */
import { EventEmitter } from 'node:events';
import { invalidParameter, objectError } from '../base/errors.ts';
import { LEAF_SCHEMA } from '../catalog/map.ts';
import { CATALOG_CHANNEL } from '../catalog/schema.ts';
import { formatDsn, parseDsn } from '../pg/dsn.ts';
import { ControlConnection } from '../platform/control-connection.ts';
import { Reconnecting } from '../platform/reconnecting.ts';
import { bucketOfKey, type KeyInput } from './key.ts';
import { type PlacesMap, readPlaces, type TablePlaces } from './places-map.ts';

const POLL_INTERVAL_MS = 1_000;
const STATEMENT_TIMEOUT_MS = 5_000;
const RECONNECT_DELAY_MS_FIRST = 100;
const RECONNECT_DELAY_MS_MAX = 5_000;

export interface ConnectPlacesOptions {
  /** Of a router, or of the home node. Any role that may log in will do: it only reads the views of schema `postern`. */
  readonly dsn: string;
  /**
   * The nodes' connection strings, by their names. Default: the addresses that the routers were told (view
   * postern.node_addresses), with the user and the password of `dsn`.
   */
  readonly nodes?: Readonly<Record<string, string>> | ((node: string) => string | undefined) | undefined;
  /** How often it asks whether something has changed, beside being notified. Default 1000. */
  readonly pollIntervalMs?: number | undefined;
}

/** Where the rows of one key are. */
export interface KeyPlace {
  readonly node: string;
  readonly dsn: string;
  readonly bucket: number;
  /** The table on that node that has the rows, quoted and qualified. It changes with each move of the bucket. */
  readonly leaf: string;
}

/** Where a schema is. */
export interface TenantPlace {
  readonly node: string;
  readonly dsn: string;
}

export interface PlacesEvents {
  /** The catalog has changed, and what is known with it. */
  change: [epoch: number];
  /** The catalog is away: what is known stays as it was. */
  away: [reason: string];
  /** It is back. */
  back: [];
}

/** Rejects with an error that says what to do if the catalog can't be read now. */
export async function connectPlaces(options: ConnectPlacesOptions): Promise<Places> {
  const places = new Places(options);
  await places.open();
  return places;
}

export class Places extends EventEmitter<PlacesEvents> {
  readonly #options: ConnectPlacesOptions;
  #map: PlacesMap | undefined;
  readonly #link: Reconnecting;
  #closed = false;
  #timer: NodeJS.Timeout | undefined;
  #loading: Promise<void> | undefined;

  /** Use connectPlaces(). */
  constructor(options: ConnectPlacesOptions) {
    super();
    this.#options = options;
    this.#link = new Reconnecting({
      open: () => this.#open(),
      firstMs: RECONNECT_DELAY_MS_FIRST,
      maxMs: RECONNECT_DELAY_MS_MAX,
      onAway: (reason) => this.emit('away', reason),
      onBack: () => {
        this.emit('back');
        this.#load(true)
          .catch(() => {})
          .finally(() => this.#schedulePoll());
      },
    });
  }

  /** Goes up with each change of the catalog. */
  get epoch(): number {
    return this.#known.epoch;
  }

  /** False while the catalog can't be asked: what is known may be out of date. */
  get isCurrent(): boolean {
    return this.#link.current !== undefined;
  }

  /** Names of the sharded tables, as schema.table. */
  get tables(): readonly string[] {
    return [...this.#known.tables.keys()];
  }

  /**
   * The place of the rows with this key. `table`: `name` (then of schema public) or `schema.name`. Throws if the table is not
   * sharded, or the key's value is not certain: give it as PostgreSQL prints it.
   */
  dsnFor({ table, key }: { readonly table: string; readonly key: KeyInput }): KeyPlace {
    const found = this.#table(table);
    const bucket = bucketOfKey(found, key);
    return this.#placeOf(found, bucket);
  }

  /** All buckets of a table, in order: to work on each of them, or to dump a table node by node. */
  placesOf(table: string): readonly KeyPlace[] {
    const found = this.#table(table);
    return found.buckets.map((_, bucket) => this.#placeOf(found, bucket));
  }

  /** The node of a schema that was distributed (postern.distribute_schema). */
  dsnForTenant(schema: string): TenantPlace {
    const node = this.#known.schemas.get(schema);
    if (node === undefined)
      throw objectError('3F000', `schema "${schema}" does not live on a node of its own`, undefined);
    return { node, dsn: this.#dsnOf(node) };
  }

  /** Loads what is known anew. Rejects while the catalog is away: what was known is still there. */
  async refresh(): Promise<void> {
    await this.#load(true);
  }

  /** Ends it. What is known can still be asked for, and doesn't change any more. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#link.stop();
  }

  /** Called by connectPlaces(). */
  async open(): Promise<void> {
    await this.#link.start();
    await this.#load(true);
    this.#schedulePoll();
  }

  get #known(): PlacesMap {
    if (!this.#map)
      throw invalidParameter('the places are not known yet', 'Use connectPlaces(), which waits for them.');
    return this.#map;
  }

  #table(name: string): TablePlaces {
    const { tables } = this.#known;
    const found = tables.get(name) ?? tables.get(`public.${name}`);
    if (found) return found;
    throw objectError('42P01', `there is no sharded table "${name}"`, 'Name it as schema.table.');
  }

  #placeOf(table: TablePlaces, bucket: number): KeyPlace {
    const place = table.buckets[bucket];
    if (!place) throw objectError('XX001', `bucket ${bucket} of table "${table.name}" has no place`);
    const leaf = `"${LEAF_SCHEMA}"."${place.leaf.replaceAll('"', '""')}"`;
    return { node: place.node, dsn: this.#dsnOf(place.node), bucket, leaf };
  }

  #dsnOf(node: string): string {
    const { nodes, dsn } = this.#options;
    const given = typeof nodes === 'function' ? nodes(node) : nodes?.[node];
    if (given !== undefined) return given;
    const address = this.#known.addresses.get(node);
    if (!address)
      throw invalidParameter(
        `the address of node "${node}" is not known`,
        'Give its connection string in `nodes`.',
      );
    const own = parseDsn(dsn);
    const hosts = [{ host: address.host, port: address.port }];
    const options = new Map([...own.options].filter(([name]) => /^ssl|^channel_binding$/.test(name)));
    return formatDsn({ ...own, hosts, database: address.database, options });
  }

  async #open(): Promise<ControlConnection> {
    const connection = await ControlConnection.open({
      nodeName: 'of the catalog',
      dsn: this.#options.dsn,
      applicationName: 'postern client',
      statementTimeoutMs: STATEMENT_TIMEOUT_MS,
    });
    connection.onNotification(() => void this.#load(false).catch(() => {}));
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
    if (this.#closed || !this.#link.current) return;
    const delayMs = this.#options.pollIntervalMs ?? POLL_INTERVAL_MS;
    this.#timer = setTimeout(() => {
      this.#load(false)
        .catch(() => {})
        .finally(() => this.#schedulePoll());
    }, delayMs);
  }

  /** `always`: also if the epoch is the same. One load at a time; who asks meanwhile waits for the one after it. */
  async #load(always: boolean): Promise<void> {
    while (this.#loading) await this.#loading.catch(() => {});
    this.#loading = this.#loadNow(always).finally(() => {
      this.#loading = undefined;
    });
    await this.#loading;
  }

  async #loadNow(always: boolean): Promise<void> {
    const connection = this.#link.current;
    if (!connection) throw objectError('08006', 'the catalog is away');
    try {
      if (!always && this.#map) {
        const [row] = await connection.query<{ epoch: string }>(
          'SELECT epoch::text AS epoch FROM postern.cluster',
        );
        if (Number(row?.epoch) === this.#map.epoch) return;
      }
      const before = this.#map?.epoch;
      const map = await readPlaces(connection);
      this.#map = map;
      if (before !== undefined && before !== map.epoch) this.emit('change', map.epoch);
    } catch (error) {
      this.#link.giveUp(connection, error instanceof Error ? error.message : String(error));
      throw error;
    }
  }
}

/** Questions that the router itself asks a server, on a connection that it holds or borrows. All bounded in time. */

import { BOUNDS } from '../base/bounds.ts';
import { connectionLost, PosternError } from '../base/errors.ts';
import { ServerError } from '../platform/control-connection.ts';
import { readDataRowText, readErrorFields } from '../wire/backend.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { Backend } from '../wire/message-types.ts';
import type { BackendConnection } from './connection.ts';
import type { PendingKind, ResponseSink } from './pending.ts';
import type { NodePool } from './pool.ts';
import { rowFrames } from './row-frames.ts';
import { type Settings, settingsSwitchText } from './settings.ts';

export type Rows = (string | null)[][];

/** Collects one query's rows. */
class Collector implements ResponseSink {
  readonly rows: Rows = [];
  readonly #nodeName: string;
  readonly #resolve: (rows: Rows) => void;
  readonly #reject: (error: Error) => void;
  /** The message after which the rows are complete. */
  readonly #endsWith: number;
  #error: ServerError | undefined;

  constructor(
    nodeName: string,
    endsWith: number,
    resolve: (rows: Rows) => void,
    reject: (error: Error) => void,
  ) {
    this.#nodeName = nodeName;
    this.#endsWith = endsWith;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  onMessage(type: number, reader: FrameReader, _kind: PendingKind): void {
    if (type === Backend.ErrorResponse)
      this.#error = new ServerError(this.#nodeName, readErrorFields(reader));
    if (type !== this.#endsWith) {
      if (this.#error && type === Backend.ErrorResponse && this.#endsWith !== Backend.ReadyForQuery)
        this.#reject(this.#error);
      return;
    }
    if (this.#error) this.#reject(this.#error);
    else this.#resolve(this.rows);
  }

  onRows(buffer: Buffer, start: number, end: number): void {
    for (const frame of rowFrames(buffer, start, end)) this.rows.push(readDataRowText(frame));
  }

  onNotice(): void {}
  onLocal(): void {}

  /** Skipped by the server after an earlier error in the same pipeline. */
  onDiscarded(): void {
    this.#reject(new PosternError({ sqlState: '25P02', message: 'skipped after an error' }));
  }

  onLost(_connection: BackendConnection, cause: PosternError): void {
    this.#reject(cause);
  }
}

/** Runs `text` in the simple protocol on a connection that the caller holds. Rejects with ServerError or PosternError. */
export function ask(connection: BackendConnection, text: string): Promise<Rows> {
  return collect(connection, Backend.ReadyForQuery, (collector) =>
    connection.query(text, collector, undefined),
  );
}

/**
 * As ask(), in the extended protocol and without a Sync: in the middle of a client's pipeline, whose implicit transaction
 * stays open. After an error in the pipeline the server skips it, and it rejects.
 */
export function askUnsynced(connection: BackendConnection, text: string): Promise<Rows> {
  return collect(connection, Backend.CommandComplete, (collector) => {
    const portal = 'postern_question';
    connection.parseUnnamed(text, collector, undefined);
    connection.bindText('', [], collector, undefined, portal);
    connection.execute(portal, 0, collector, undefined);
    connection.close('P', portal, collector, undefined);
    connection.flushMessage();
  });
}

function collect(
  connection: BackendConnection,
  endsWith: number,
  send: (collector: ResponseSink) => void,
): Promise<Rows> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => connection.destroy(), BOUNDS.internalQueryTimeoutMs);
    const collector = new Collector(
      connection.address.nodeName,
      endsWith,
      (rows) => {
        clearTimeout(timer);
        resolve(rows);
      },
      (error) => {
        clearTimeout(timer);
        reject(error);
      },
    );
    if (connection.closed) collector.onLost(connection, connectionLost(connection.address.nodeName));
    else send(collector);
  });
}

/** Brings the connection to `settings`; on a failure nothing has changed there, and nothing else was sent. */
export async function switchSettings(connection: BackendConnection, settings: Settings): Promise<void> {
  const text = settingsSwitchText(connection.settings, settings);
  if (text !== '') await ask(connection, text);
  connection.settings = settings;
}

/** Borrows a connection of `user` with `settings` for `work`, which is brief and waits for nobody's locks. */
export async function borrow<T>(
  pool: NodePool,
  options: { user: string; settings: Settings },
  work: (connection: BackendConnection) => Promise<T>,
): Promise<T> {
  const connection = await pool.acquire(options.user, options.settings, { brief: true });
  try {
    if (connection.settings.key !== options.settings.key) await switchSettings(connection, options.settings);
    const result = await work(connection);
    return result;
  } finally {
    if (connection.quiet) pool.release(connection);
    else pool.discard(connection);
  }
}

/**
 * The name of a prepared transaction: `postern:<cluster>:<transaction>:<commit point's node>:<its backend's pid>:<that
 * backend's start in µs since 1970>`. It holds all that any router needs to end it, when the one that made it is gone.
 *
 * Invariant: what is not exactly of this form, or of another cluster, is not ours and is never touched.
 */
import { assert } from '../base/assert.ts';

/** A server process, as no other one is: pids come again, with another start. */
export interface BackendIdentity {
  readonly processId: number;
  /** µs since 1970, by that server's clock; 0: it was not to be seen. */
  readonly startedAtUs: number;
}

export interface Gid {
  readonly transactionId: string;
  readonly commitPointNodeId: number;
  readonly commitPointBackend: BackendIdentity;
}

/** PostgreSQL's GIDSIZE, with the final zero. */
const GID_BYTES_MAX = 199;
const UUID = '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}';
const FORM = new RegExp(
  `^postern:([0-9a-zA-Z-]{1,64}):(${UUID}):([1-9]\\d{0,9}):([1-9]\\d{0,9}):(\\d{1,16})$`,
);

export function formatGid(clusterId: string, gid: Gid): string {
  const { processId, startedAtUs } = gid.commitPointBackend;
  const text = `postern:${clusterId}:${gid.transactionId}:${gid.commitPointNodeId}:${processId}:${startedAtUs}`;
  assert(text.length <= GID_BYTES_MAX, 'a GID fits into what PostgreSQL has for it');
  return text;
}

/** undefined: not a GID of this cluster. */
export function parseGid(clusterId: string, text: string): Gid | undefined {
  const match = FORM.exec(text);
  if (!match || match[1] !== clusterId) return undefined;
  const [, , transactionId = '', node, processId, startedAtUs] = match;
  const gid = {
    transactionId,
    commitPointNodeId: Number(node),
    commitPointBackend: { processId: Number(processId), startedAtUs: Number(startedAtUs) },
  };
  return Number.isSafeInteger(gid.commitPointBackend.startedAtUs) ? gid : undefined;
}

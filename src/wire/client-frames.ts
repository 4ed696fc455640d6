/** What a client's message may be, told from its head alone: PostgreSQL looks at that before it reads on (SocketBackend, postgres.c). */
import { protocolViolation } from '../base/errors.ts';
import { Frontend } from './message-types.ts';

/** Those that carry a client's own texts and values; others are short (PQ_SMALL_MESSAGE_LIMIT). */
const LARGE: ReadonlySet<number> = new Set([
  Frontend.Query,
  Frontend.FunctionCall,
  Frontend.Parse,
  Frontend.Bind,
  Frontend.CopyData,
]);
const SMALL: ReadonlySet<number> = new Set([
  Frontend.Close,
  Frontend.CopyDone,
  Frontend.CopyFail,
  Frontend.Describe,
  Frontend.Execute,
  Frontend.Flush,
  Frontend.Sync,
  Frontend.Terminate,
]);
const SMALL_BYTES_MAX = 10_000;

/** Throws for a message of a client that is logged in, and that isn't worth waiting for. */
export function checkUnfinished(type: number, length: number): void {
  if (LARGE.has(type)) return;
  if (!SMALL.has(type)) throw protocolViolation(`invalid frontend message type ${type}`);
  if (length > SMALL_BYTES_MAX) throw protocolViolation('invalid message length');
}

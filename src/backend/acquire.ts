/** What whoever wants a connection of a pool says, and what the pool keeps of it while it waits. */
import { PosternError } from '../base/errors.ts';
import type { BackendConnection } from './connection.ts';
import type { Settings } from './settings.ts';
import { NEED, type Need, type Tenant } from './waiting-line.ts';

export interface AcquireOptions {
  readonly beside?: boolean | undefined;
  readonly brief?: boolean | undefined;
  /** For whom, if it is known: only to be fair. */
  readonly tenant?: Tenant;
}

/** How a waiter leaves the line: a client that cancels or goes away. */
export interface AcquireTicket {
  giveUp: (() => void) | undefined;
}

export interface Waiter {
  readonly user: string;
  readonly settings: Settings;
  readonly resolve: (connection: BackendConnection) => void;
  readonly reject: (error: PosternError) => void;
  readonly tenant: Tenant;
  readonly sinceMs: number;
  readonly deadlineMs: number;
  readonly need: Need;
  waits: boolean;
}

/** What those hear for whom none could be opened. */
export function openingFailure(error: unknown): PosternError {
  if (error instanceof PosternError) return error;
  return new PosternError({
    sqlState: '08001',
    message: error instanceof Error ? error.message : String(error),
  });
}

export function needOf(options: AcquireOptions = {}): Need {
  if (options.brief) return NEED.brief;
  return options.beside ? NEED.beside : NEED.ordinary;
}

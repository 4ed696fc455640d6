/** What the first process and its workers tell each other. */
import type { WorkerReport } from './worker-fill.ts';
import type { ShareReport } from './worker-shares.ts';

/** A cancel request that reached the wrong worker; the first byte of the session's id says which is the right one. */
export interface CancelMessage {
  readonly kind: 'cancel';
  readonly processId: number;
  readonly secretKey: string;
}

export type ToWorker =
  | CancelMessage
  /** With it comes the client's socket. */
  | { readonly kind: 'client' }
  /** Connections to one node at most, from now on. */
  | { readonly kind: 'share'; readonly connections: number };

export type FromWorker =
  | CancelMessage
  /** Clients can be given to it. */
  | { readonly kind: 'ready' }
  /** It can't start. */
  | { readonly kind: 'failed'; readonly text: string }
  /** The last client has arrived (or had gone on the way): the next one may be sent. */
  | { readonly kind: 'taken' }
  | { readonly kind: 'report'; readonly fill: WorkerReport; readonly share: ShareReport };

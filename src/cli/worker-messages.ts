/** What the first process and its workers tell each other. */
import type { AdmissionEffect, AdmissionEvent } from '../admission/client-admission.ts';
import type { HandedSession } from '../session/handover-form.ts';
import type { ReloadResult } from './router-reload.ts';
import type { Answers } from './router-status.ts';
import type { WorkerReport } from './worker-fill.ts';
import type { ShareReport } from './worker-shares.ts';

/** A cancel request that reached the wrong process; the session's id says which worker's it is. */
export interface CancelMessage {
  readonly kind: 'cancel';
  readonly processId: number;
  readonly secretKey: string;
}

/** What a worker can be asked, and what it answers. */
export interface WorkerAnswers extends Answers {
  /** To read the configuration again, and go by it. */
  readonly reload: ReloadResult;
}

export type WorkerQuestion = keyof WorkerAnswers;

export type ToWorker =
  | CancelMessage
  /** With it comes the client's socket. */
  | { readonly kind: 'client' }
  /** The same, of a client that another worker has served until now. */
  | { readonly kind: 'session'; readonly session: HandedSession }
  /** Ids of sessions that may yet come: they are not given out. */
  | { readonly kind: 'expect'; readonly ids: readonly number[] }
  /** Connections to one node at most, from now on. */
  | { readonly kind: 'share'; readonly connections: number }
  /** All its sessions leave, and then it ends: to another worker, if `moves`; what can't move is told 57P01. */
  | { readonly kind: 'handOver'; readonly moves: boolean; readonly timeoutMs: number }
  /** The session that it has sent last has been received: the next one may be sent. */
  | { readonly kind: 'received' }
  /** Each client is told 57P01 when its transaction is over, and then it ends. */
  | { readonly kind: 'drain'; readonly timeoutMs: number }
  /** The same, without waiting. */
  | { readonly kind: 'stop' }
  /** What becomes of a client that asked for a place. */
  | { readonly kind: 'admission'; readonly effect: AdmissionEffect }
  | { readonly kind: 'ask'; readonly question: number; readonly what: WorkerQuestion };

export type FromWorker =
  | CancelMessage
  /** Clients can be given to it. `form`: which form of sessions it gives and takes. */
  | { readonly kind: 'ready'; readonly form: number }
  /** It can't start. */
  | { readonly kind: 'failed'; readonly text: string }
  /** The last client has arrived (or had gone on the way): the next one may be sent. */
  | { readonly kind: 'taken' }
  | { readonly kind: 'report'; readonly fill: WorkerReport; readonly share: ShareReport }
  /** Of places for clients (session/client-admission.ts). */
  | {
      readonly kind: 'admission';
      readonly event: Extract<AdmissionEvent, { kind: 'arrive' | 'adopt' | 'leave' }>;
    }
  /** It has begun to hand over its sessions, of which these are there now. */
  | { readonly kind: 'leaving'; readonly ids: readonly number[] }
  /** With it comes the client's socket. */
  | { readonly kind: 'moved'; readonly session: HandedSession }
  /** `value` undefined: it can't answer. */
  | { readonly kind: 'answer'; readonly question: number; readonly value?: unknown };

/** What the load generator (generator.ts) and its worker threads (generator.worker.ts) say to each other. */

import type { Workload } from '../workload/workload.ts';
import type { ServerError } from './answer-scanner.ts';
import type { OpenLoopCounts } from './open-loop.ts';
import type { Protocol } from './transaction-template.ts';
import type { WindowRecord } from './window-recorder.ts';

/** Where the clients connect to. What had to be found out (TLS or not) is already decided. */
export interface Target {
  /** Begins with '/': the directory of a Unix socket. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string | undefined;
  readonly database: string;
  /** Further parameters of the start-up packet. */
  readonly parameters: readonly (readonly [name: string, value: string])[];
  readonly tls: TlsOptions | undefined;
  readonly connectTimeoutMs: number;
}

export interface TlsOptions {
  /** 'none': encrypted, to whoever answers; 'ca': the certificate's chain is checked; 'full': its name, too. */
  readonly verify: 'none' | 'ca' | 'full';
  /** PEM text; undefined: the certificates that Node trusts. */
  readonly ca: string | undefined;
}

export interface WorkerSetup {
  readonly target: Target;
  readonly workload: Workload;
  readonly protocol: Protocol;
  readonly schema: string;
  readonly seed: number;
}

/** In this order for each point: connect → connected; run; close → finished. */
export type ToWorker =
  | {
      readonly kind: 'connect';
      readonly clients: number;
      readonly firstClientId: number;
      /** Undefined: a closed loop. */
      readonly openLoop: OpenLoopSetup | undefined;
    }
  | ({ readonly kind: 'run' } & Timeline)
  /** Each client stops at the end of its transaction, and all connections are closed. */
  | { readonly kind: 'close'; readonly drainTimeoutMs: number };

/** This thread's part of the arrivals. */
export interface OpenLoopSetup {
  readonly ratePerSecond: number;
  readonly seed: number;
  /** An arrival that has waited longer for a free client is missed. */
  readonly waitMsMax: number;
  /** One that begins more than this after its intended start is late. */
  readonly lateMs: number;
}

/** The same for all threads, on the shared clock (shared-clock.ts). */
export interface Timeline {
  readonly startsAtMs: number;
  /** The window: what completes in it is counted. */
  readonly opensAtMs: number;
  readonly closesAtMs: number;
  /** How many equal parts of the window completions are counted in. */
  readonly bins: number;
}

export type FromWorker =
  | { readonly kind: 'connected' }
  /** `acknowledged`: transactions since 'run'. Sent a few times a second. */
  | { readonly kind: 'progress'; readonly acknowledged: number }
  | { readonly kind: 'finished'; readonly result: WorkerResult }
  /** The point can't go on. */
  | { readonly kind: 'failed'; readonly message: string; readonly serverError: ServerError | undefined };

export interface WorkerResult {
  readonly record: WindowRecord;
  readonly openLoop: OpenLoopCounts | undefined;
  /** Succeeded since 'run', before, within and after the window. */
  readonly acknowledged: number;
  /** Sent and not answered when the time to drain was over. */
  readonly unanswered: number;
  readonly load: ThreadLoad;
}

/** What a thread of the generator spent, from about the window's beginning to about its end. */
export interface ThreadLoad {
  /** Its CPU time over the time that went by; undefined where the system doesn't tell. */
  readonly cpuShare: number | undefined;
  /** Share of the time in which the event loop was not waiting for anything, from 0 to 1. */
  readonly loopUtilization: number;
  /** How much later than asked for the loop's timers fired, 99th percentile. */
  readonly loopLagP99Ms: number;
}

/** What the load generator (generator.ts) and its worker threads (generator.worker.ts) say to each other. */

import type { Workload } from '../workload/workload.ts';
import type { ServerError } from './answer-scanner.ts';
import type { LatencySnapshot } from './latency-histogram.ts';
import type { Protocol } from './transaction-template.ts';

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

/** In this order for each point: connect → connected; run; open; close → finished. */
export type ToWorker =
  | { readonly kind: 'connect'; readonly clients: number }
  /** Every client begins; nothing is recorded yet. */
  | { readonly kind: 'run' }
  /** The window opens: what completes from now on is recorded. */
  | { readonly kind: 'open' }
  /** The window closes: each client stops at the end of its transaction, and all connections are closed. */
  | { readonly kind: 'close'; readonly drainTimeoutMs: number };

export type FromWorker =
  | { readonly kind: 'connected' }
  /** `acknowledged`: transactions since 'run'. Sent a few times a second. */
  | { readonly kind: 'progress'; readonly acknowledged: number }
  | { readonly kind: 'finished'; readonly result: WorkerResult }
  /** The point can't go on. */
  | { readonly kind: 'failed'; readonly message: string; readonly serverError: ServerError | undefined };

export interface WorkerResult {
  /** Of the transactions that succeeded within the window. */
  readonly latencies: LatencySnapshot;
  /** Within the window, by SQLSTATE. */
  readonly errors: ReadonlyMap<string, number>;
  /** One server message to each SQLSTATE. */
  readonly errorMessages: ReadonlyMap<string, string>;
  /** Succeeded since 'run', before, within and after the window. */
  readonly acknowledged: number;
  /** Sent and not answered when the time to drain was over. */
  readonly unanswered: number;
  readonly windowSeconds: number;
  /** The thread's own CPU time in the window; undefined where the system doesn't tell. */
  readonly cpuSeconds: number | undefined;
  /** Share of the window in which the event loop was not waiting for anything, from 0 to 1. */
  readonly loopUtilization: number;
}

/**
 * One client of the closed loop: it sends its transaction, statement by statement, and the next one when the answer to
 * the last is complete. The hot path (`onBytes`) runs once for each answer and allocates nothing.
 *
 *     idle ──start──> sending ──ReadyForQuery of the last step──> (recorded) ──> sending …
 *                        │ error inside a transaction block                         │ stop asked for
 *                        └──> rolling back ──ReadyForQuery──> sending …              └──> idle
 *
 * Invariant: one message group is under way at most; its bytes are not touched until its ReadyForQuery has come.
 */
import { AnswerScanner, type ServerError } from './answer-scanner.ts';
import type { LoadConnection } from './load-connection.ts';
import { drawValues, type TransactionTemplate } from './transaction-template.ts';

/** What all clients of a worker share. */
export interface ClientHost {
  readonly stopping: boolean;
  readonly random: () => number;
  /** Milliseconds, monotonic. */
  now(): number;
  succeeded(latencyMs: number): void;
  failed(error: ServerError): void;
  /** The client has stopped as asked. */
  idle(): void;
  /** The client can't go on, and neither can the point. */
  lost(message: string, serverError: ServerError | undefined): void;
}

const IDLE_STATUS = 'I'.charCodeAt(0);

export class LoadClient {
  private readonly connection: LoadConnection;
  private readonly template: TransactionTemplate;
  private readonly host: ClientHost;
  private readonly rollback: Buffer;
  private readonly scanner = new AnswerScanner();
  private readonly values: Float64Array;
  private readonly stepCount: number;
  private step = 0;
  private startedAt = 0;
  private rollingBack = false;
  private busy = false;

  constructor(options: {
    connection: LoadConnection;
    /** This client's own copy. */
    template: TransactionTemplate;
    /** A simple query of ROLLBACK. */
    rollback: Buffer;
    host: ClientHost;
  }) {
    this.connection = options.connection;
    this.template = options.template;
    this.rollback = options.rollback;
    this.host = options.host;
    this.values = new Float64Array(options.template.variables.length);
    this.stepCount = options.template.steps.length;
    this.connection.onBytes = (buffer, length) => this.onBytes(buffer, length);
    this.connection.onLost = (message) => this.host.lost(message, this.scanner.error);
  }

  /** A transaction is under way. */
  get isBusy(): boolean {
    return this.busy;
  }

  start(): void {
    this.busy = true;
    this.begin(this.host.now());
  }

  private begin(now: number): void {
    this.startedAt = now;
    this.step = 0;
    if (this.values.length > 0) drawValues(this.template, this.host.random, this.values);
    this.connection.write(this.template.steps[0]!);
  }

  private onBytes(buffer: Buffer, length: number): void {
    const scanner = this.scanner;
    try {
      scanner.scan(buffer, length);
    } catch (error) {
      this.host.lost(error instanceof Error ? error.message : String(error), undefined);
      return;
    }
    if (scanner.readyCount === 0) return;
    if (scanner.readyCount > 1 || !this.busy) {
      this.host.lost('the server answered more often than it was asked', undefined);
      return;
    }
    if (scanner.error !== undefined || this.rollingBack) {
      this.afterError();
      return;
    }
    if (++this.step < this.stepCount) {
      this.connection.write(this.template.steps[this.step]!);
      return;
    }
    const now = this.host.now();
    this.host.succeeded(now - this.startedAt);
    this.next(now);
  }

  private afterError(): void {
    const error = this.scanner.error;
    this.scanner.error = undefined;
    if (error !== undefined && !this.rollingBack) this.host.failed(error);
    if (error !== undefined && this.rollingBack) {
      this.host.lost(`ROLLBACK failed: ${error.message}`, error);
      return;
    }
    this.rollingBack = false;
    if (this.scanner.status !== IDLE_STATUS) {
      this.rollingBack = true;
      this.connection.write(this.rollback);
      return;
    }
    this.next(this.host.now());
  }

  private next(now: number): void {
    if (this.host.stopping) {
      this.busy = false;
      this.host.idle();
      return;
    }
    this.begin(now);
  }
}

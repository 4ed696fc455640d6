/**
 * One client: it runs a transaction's instructions when its host says so, and tells the host when it is over. The hot
 * path (`onBytes`, `run`) is gone through once for each answer.
 *
 *     idle ──begin──> running ──send──> waiting ──all its ReadyForQuery──> running … ──end──> idle, host.finished
 *                        │ \sleep          │ error: the rest of the script is left out
 *                        ▼                 ├── in a transaction block ──> rolling back ──ReadyForQuery──> idle, host.finished
 *                     sleeping ──> running └── outside of one ──> idle, host.finished
 *
 * Invariant: what was sent is answered before anything else is sent, and its bytes are not touched until then.
 */
import { PosternError } from '../../base/errors.ts';
import { FrameWriter } from '../../wire/frame-writer.ts';
import { encodeQuery } from '../../wire/frontend.ts';
import type { Frame } from '../workload/expression-compiler.ts';
import type { ResultTarget } from '../workload/pgbench-script.ts';
import { isTrue, toDouble } from '../workload/script-value.ts';
import { AnswerScanner, type ServerError } from './answer-scanner.ts';
import type { LoadConnection } from './load-connection.ts';
import { MessageBuffer } from './message-template.ts';
import { readResults, valuesOfResults } from './script-result.ts';
import type { TransactionTemplate, WorkloadTemplate } from './transaction-template.ts';

/** What all clients of a worker share. */
export interface ClientHost {
  readonly random: () => number;
  /** Milliseconds, monotonic. */
  now(): number;
  /** `latencyMs` is from the intended start; `transaction` is its place in the workload's list. */
  succeeded(latencyMs: number, transaction: number, now: number): void;
  failed(error: ServerError, transaction: number, intendedStartAt: number): void;
  /** Its transaction is over, well or not. The host may call `begin` at once, later, or never again. */
  finished(client: LoadClient, now: number): void;
  /** The client can't go on, and neither can the point. */
  lost(message: string, serverError: ServerError | undefined): void;
}

const IDLE_STATUS = 'I'.charCodeAt(0);
const ROLLBACK = encodeRollback();
/** setTimeout takes no more. */
const SLEEP_MS_MAX = 2 ** 31 - 1;

export class LoadClient {
  private readonly connection: LoadConnection;
  private readonly template: WorkloadTemplate;
  private readonly host: ClientHost;
  private readonly scanner = new AnswerScanner();
  private readonly output = new MessageBuffer();
  private readonly frame: Frame;
  private readonly slots: Map<string, number>;
  private current: TransactionTemplate;
  private transaction = 0;
  /** The next instruction. */
  private position = 0;
  /** How many ReadyForQuery are still to come. */
  private due = 0;
  private into: ResultTarget | undefined;
  private intendedStartAt = 0;
  private hasWaited = false;
  private rollingBack = false;
  private busy = false;

  constructor(options: {
    connection: LoadConnection;
    template: WorkloadTemplate;
    /** The script's :client_id: from 0, and each client of a point has another. */
    clientId: number;
    host: ClientHost;
  }) {
    const { connection, template, clientId, host } = options;
    this.connection = connection;
    this.template = template;
    this.host = host;
    this.current = template.transactions[0]!;
    this.slots = new Map(template.slots);
    this.frame = { values: new Array(this.slots.size).fill(undefined), random: host.random };
    for (const [name, value] of template.initial) this.frame.values[this.slots.get(name)!] = value;
    this.frame.values[this.slots.get('client_id')!] = clientId;
    connection.onBytes = (buffer, length) => this.onBytes(buffer, length);
    connection.onLost = (message) => host.lost(message, this.scanner.error);
  }

  /** A transaction is under way. */
  get isBusy(): boolean {
    return this.busy;
  }

  /** Only when it is idle. `intendedStartAt` is when it should have begun: now, or before in an open loop that is behind. */
  begin(intendedStartAt: number): void {
    this.busy = true;
    this.intendedStartAt = intendedStartAt;
    this.position = 0;
    this.hasWaited = false;
    const { shares, transactions } = this.template;
    if (shares.length > 1) {
      const drawn = this.host.random();
      this.transaction = 0;
      while (drawn >= shares[this.transaction]!) this.transaction++;
      this.current = transactions[this.transaction]!;
    }
    this.run();
  }

  /** Up to where there is something to wait for. */
  private run(): void {
    const { instructions } = this.current;
    try {
      while (this.position < instructions.length) {
        const instruction = instructions[this.position++]!;
        switch (instruction.kind) {
          case 'send':
            this.output.append(instruction.message, this.frame.values);
            this.due += instruction.syncs;
            if (!instruction.writes) break;
            this.into = instruction.into;
            this.scanner.keepsResults = this.into !== undefined;
            this.hasWaited = true;
            this.connection.write(this.output.take());
            return;
          case 'set':
            this.frame.values[instruction.slot] = instruction.evaluate(this.frame);
            break;
          case 'branch':
            if (!isTrue(instruction.condition(this.frame))) this.position = instruction.target;
            break;
          case 'jump':
            this.position = instruction.target;
            break;
          case 'sleep': {
            const ms = toDouble(instruction.amount(this.frame)) * instruction.unitMs;
            this.hasWaited = true;
            setTimeout(() => this.run(), Math.max(0, Math.min(SLEEP_MS_MAX, ms)));
            return;
          }
        }
      }
    } catch (error) {
      this.giveUp(error);
      return;
    }
    this.end();
  }

  private end(): void {
    if (!this.hasWaited) {
      // Nothing was sent, so nothing would ever let the thread do anything else.
      this.hasWaited = true;
      setImmediate(() => this.end());
      return;
    }
    if (this.scanner.status !== IDLE_STATUS && this.scanner.status !== 0) {
      this.host.lost(`${this.current.name}: the script ended inside a transaction block`, undefined);
      return;
    }
    const now = this.host.now();
    this.host.succeeded(now - this.intendedStartAt, this.transaction, now);
    this.finish(now);
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
    this.due -= scanner.readyCount;
    if (this.due > 0) return;
    if (this.due < 0 || !this.busy) {
      this.host.lost('the server answered more often than it was asked', undefined);
      return;
    }
    if (scanner.error !== undefined || this.rollingBack) {
      this.afterError();
      return;
    }
    if (this.into !== undefined) {
      const wrong = this.takeResult(this.into);
      if (wrong !== undefined) {
        this.scanner.error = wrong;
        this.afterError();
        return;
      }
    }
    this.run();
  }

  /** Sets the variables of \gset or \aset; gives the error if the result is not what the script says. */
  private takeResult(into: ResultTarget): ServerError | undefined {
    const outcome = valuesOfResults(readResults(this.scanner.results), into);
    this.scanner.results = [];
    if ('sqlState' in outcome) return outcome;
    for (const [name, value] of outcome) {
      const slot = this.slots.get(name);
      // A column that the workload names nowhere is wanted by nobody.
      if (slot !== undefined) this.frame.values[slot] = value;
    }
    return undefined;
  }

  private afterError(): void {
    const error = this.scanner.error;
    this.scanner.error = undefined;
    this.scanner.results = [];
    if (error !== undefined && !this.rollingBack)
      this.host.failed(error, this.transaction, this.intendedStartAt);
    if (error !== undefined && this.rollingBack) {
      this.host.lost(`ROLLBACK failed: ${error.message}`, error);
      return;
    }
    this.rollingBack = false;
    if (this.scanner.status !== IDLE_STATUS) {
      this.rollingBack = true;
      this.due = 1;
      this.connection.write(ROLLBACK);
      return;
    }
    this.finish(this.host.now());
  }

  private finish(now: number): void {
    this.busy = false;
    this.host.finished(this, now);
  }

  private giveUp(error: unknown): void {
    if (!(error instanceof PosternError)) throw error;
    const { line } = this.current.instructions[this.position - 1]!;
    this.host.lost(`${this.current.name}:${line}: ${error.message}`, undefined);
  }
}

function encodeRollback(): Buffer {
  const writer = new FrameWriter();
  encodeQuery(writer, 'ROLLBACK');
  return Buffer.from(writer.take());
}

/**
 * COPY … TO STDOUT of one control connection into COPY … FROM STDIN of another, chunk by chunk, for tables that change
 * their place. npm `pg` has the protocol messages of COPY but no way to wait for them; this is that way.
 *
 * Invariant: what is in memory is bounded: while the target's socket is full, the source is not read.
 */
import type { Socket } from 'node:net';
import { type ControlConnection, translateError } from './control-connection.ts';

/** pg's Connection, as far as a query object of one's own may use it. */
interface Wire {
  readonly stream: Socket;
  query(text: string): void;
  sync(): void;
  sendCopyFromChunk(chunk: Buffer): void;
  endCopyFrom(): void;
  sendCopyFail(message: string): void;
}

/** What pg's Client calls on the query object that is active. */
abstract class CopyStatement {
  readonly text: string;
  readonly query_timeout: number;
  callback: (error?: unknown) => void = () => undefined;

  constructor(text: string, timeoutMs: number) {
    this.text = text;
    this.query_timeout = timeoutMs;
  }

  submit(wire: Wire): void {
    wire.query(this.text);
  }

  handleError(error: unknown): void {
    this.callback(error);
  }

  handleCommandComplete(): void {}

  handleReadyForQuery(): void {
    this.callback();
  }
}

class CopyOut extends CopyStatement {
  readonly #onChunk: (chunk: Buffer, wire: Wire) => void;

  constructor(text: string, timeoutMs: number, onChunk: (chunk: Buffer, wire: Wire) => void) {
    super(text, timeoutMs);
    this.#onChunk = onChunk;
  }

  handleCopyData(message: { chunk: Buffer }, wire: Wire): void {
    this.#onChunk(message.chunk, wire);
  }
}

class CopyIn extends CopyStatement {
  readonly #onReady: (wire: Wire) => void;

  constructor(text: string, timeoutMs: number, onReady: (wire: Wire) => void) {
    super(text, timeoutMs);
    this.#onReady = onReady;
  }

  handleCopyInResponse(wire: Wire): void {
    this.#onReady(wire);
  }
}

/** Both statements run in whatever transaction their connection has open. Throws the first error of either side. */
export async function copyRows(options: {
  readonly source: ControlConnection;
  readonly sourceText: string;
  readonly target: ControlConnection;
  readonly targetText: string;
  readonly timeoutMs: number;
}): Promise<void> {
  const { source, target, timeoutMs } = options;
  let sink: Wire | undefined;
  let targetFailed = false;
  let copyingIn: Promise<void> = Promise.resolve();
  await new Promise<void>((resolve, reject) => {
    const statement = new CopyIn(options.targetText, timeoutMs, (wire) => {
      sink = wire;
      resolve();
    });
    copyingIn = run(target, statement);
    copyingIn.catch((error) => {
      targetFailed = true;
      reject(error);
    });
  });
  const copyOut = new CopyOut(options.sourceText, timeoutMs, (chunk, from) => {
    // A target that has refused the rows ends nothing at the source: the rest of it is read and thrown away.
    if (!sink || targetFailed) return;
    sink.sendCopyFromChunk(chunk);
    if (sink.stream.writableNeedDrain && !from.stream.isPaused()) {
      from.stream.pause();
      const resume = () => {
        sink?.stream.off('drain', resume).off('close', resume);
        from.stream.resume();
      };
      sink.stream.on('drain', resume).on('close', resume);
    }
  });
  try {
    await run(source, copyOut);
  } catch (error) {
    if (!targetFailed) sink?.sendCopyFail('the source failed');
    await copyingIn.catch(() => undefined);
    throw error;
  }
  if (!targetFailed) sink?.endCopyFrom();
  await copyingIn;
}

async function run(connection: ControlConnection, statement: CopyStatement): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      statement.callback = (error) => (error ? reject(error) : resolve());
      connection.rawClient().query(statement as never);
    });
  } catch (error) {
    throw translateError(connection, error);
  }
}

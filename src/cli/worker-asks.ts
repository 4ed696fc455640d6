/** Questions of the first process to its workers, each with a bound on the wait for the answers. */
import type { ToWorker, WorkerAnswers, WorkerQuestion } from './worker-messages.ts';

const ANSWER_MAX_MS = 2_000;

interface Open {
  readonly resolve: (value: unknown) => void;
  readonly timer: NodeJS.Timeout;
}

export class WorkerAsks {
  readonly #open = new Map<number, Open>();
  #last = 0;

  /** The answers of those who give one in time, in no order. `tell`: one for each worker. */
  async ask<K extends WorkerQuestion>(
    what: K,
    tell: readonly ((message: ToWorker) => void)[],
    timeoutMs = ANSWER_MAX_MS,
  ): Promise<WorkerAnswers[K][]> {
    const answers = await Promise.all(
      tell.map(
        (tellOne) =>
          new Promise<unknown>((resolve) => {
            const question = ++this.#last;
            const timer = setTimeout(() => this.onAnswer(question, undefined), timeoutMs);
            this.#open.set(question, { resolve, timer });
            tellOne({ kind: 'ask', question, what });
          }),
      ),
    );
    return answers.filter((answer) => answer !== undefined) as WorkerAnswers[K][];
  }

  /** One that comes too late is nothing. */
  onAnswer(question: number, value: unknown): void {
    const open = this.#open.get(question);
    if (!open) return;
    this.#open.delete(question);
    clearTimeout(open.timer);
    open.resolve(value);
  }
}

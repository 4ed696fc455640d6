/**
 * One control connection to the home node for short questions, opened when needed and again after a loss.
 *
 * Invariant: nobody waits for a home that answers nothing: who is in line then, and who comes, hears so.
 */
import type { PosternError } from '../base/errors.ts';
import type { ControlConnection } from '../platform/control-connection.ts';

export class HomeControl {
  readonly #open: () => Promise<ControlConnection>;
  #connection: ControlConnection | undefined;
  #line: Promise<unknown> = Promise.resolve();
  #shut: PosternError | undefined;

  constructor(open: () => Promise<ControlConnection>) {
    this.#open = open;
  }

  /** One at a time, in order. */
  use<T>(work: (home: ControlConnection) => Promise<T>): Promise<T> {
    if (this.#shut) return Promise.reject(this.#shut);
    const result = this.#line.then(async () => {
      if (this.#shut) throw this.#shut;
      if (!this.#connection || this.#connection.lost) this.#connection = await this.#open();
      return work(this.#connection);
    });
    this.#line = result.catch(() => {});
    return result;
  }

  /** The rows of a query, as texts. */
  rows(text: string): Promise<(string | null)[][]> {
    return this.use(async (home) => {
      const rows = await home.query<Record<string, unknown>>(text);
      return rows.map((row) => Object.values(row).map((value) => (value === null ? null : String(value))));
    });
  }

  /** Home answers nothing: what waits for it is given up. */
  shut(why: PosternError): void {
    this.#shut = why;
    this.#connection?.destroy();
  }

  reopen(): void {
    this.#shut = undefined;
  }

  async close(): Promise<void> {
    await this.#connection?.close();
  }
}

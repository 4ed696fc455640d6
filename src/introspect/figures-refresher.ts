/** Has the figures of all nodes measured (figures.ts) every half minute, soon after a change of the map, and when a client asks. */
import { PosternError } from '../base/errors.ts';
import { type FiguresContext, measureFigures } from './figures.ts';

const INTERVAL_MS = 30_000;
/** A router that comes a little later than another one finds it done. */
const SLACK_MS = 5_000;
/** DDL comes in bursts, and each of its maps would be a reason to measure. */
const AFTER_MAP_MS = 1_000;

interface RefresherLog {
  warn(message: string): void;
}

export class FiguresRefresher {
  readonly #context: FiguresContext;
  readonly #log: RefresherLog;
  readonly #timer: NodeJS.Timeout;
  #afterMap: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  /** The reasons that were told last: each is told once. */
  #told = '';

  constructor(context: FiguresContext, log: RefresherLog) {
    this.#context = context;
    this.#log = log;
    this.#timer = setInterval(() => this.#refresh(INTERVAL_MS - SLACK_MS), INTERVAL_MS);
    this.#timer.unref();
    this.#refresh(INTERVAL_MS - SLACK_MS);
  }

  onMap(): void {
    this.#afterMap ??= setTimeout(() => {
      this.#afterMap = undefined;
      this.#refresh(AFTER_MAP_MS);
    }, AFTER_MAP_MS);
    this.#afterMap.unref();
  }

  /** Now, whatever was measured before. Rejects with 08001 if there is a node that can't be asked. */
  async now(): Promise<void> {
    const [failed] = await measureFigures(this.#context, undefined);
    if (!failed) return;
    throw new PosternError({
      sqlState: '08001',
      message: `the tables of node "${failed.node}" could not be measured: ${failed.reason}`,
      hint: 'The other nodes were measured. postern.table_statistics shows the age of each figure.',
    });
  }

  /** Resolves when nothing is under way any more. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    clearTimeout(this.#afterMap);
    await this.#running;
  }

  #refresh(olderThanMs: number): void {
    if (this.#running) return;
    this.#running = measureFigures(this.#context, olderThanMs)
      .then((failed) => failed.map(({ node, reason }) => `${node}: ${reason}`).join('; '))
      .catch((error: Error) => error.message)
      .then((told) => {
        if (told !== '' && told !== this.#told) this.#log.warn(`figures of sharded tables: ${told}`);
        this.#told = told;
        this.#running = undefined;
      });
  }
}

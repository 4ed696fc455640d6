/**
 * Nodes that were away when the router started, and that the catalog knows from before: they are joined when they are back, and
 * nothing is sent to them until then.
 *
 *   away ──(backoff)──► checked and joined: its objects are there, its copies are whole ──► served
 *     ▲                     │ it can't be reached, or lacks what Postern needs
 *     └─────────────────────┘
 */
import { PosternError } from '../base/errors.ts';
import type { NodeInfo } from '../catalog/map.ts';
import type { HealthLog } from '../health/node-prober.ts';
import { backoffMs } from '../platform/reconnecting.ts';

const PAUSE_MS_FIRST = 500;
const PAUSE_MS_MAX = 5_000;

export interface LateNode {
  readonly node: NodeInfo;
  /** Why it was not joined. */
  readonly why: string;
}

export class LateNodes {
  readonly #log: HealthLog;
  readonly #join: (node: NodeInfo) => Promise<void>;
  readonly #onJoined: (node: NodeInfo) => void;
  readonly #timers = new Set<NodeJS.Timeout>();
  #stopped = false;

  constructor(options: {
    readonly log: HealthLog;
    /** Rejects while it can't be joined. */
    readonly join: (node: NodeInfo) => Promise<void>;
    readonly onJoined: (node: NodeInfo) => void;
  }) {
    this.#log = options.log;
    this.#join = options.join;
    this.#onJoined = options.onJoined;
  }

  start(nodes: readonly LateNode[]): void {
    for (const { node, why } of nodes) {
      this.#log.warn(`node "${node.name}" is not there; it is joined when it is: ${why}`);
      this.#schedule(node, 0, why);
    }
  }

  stop(): void {
    this.#stopped = true;
    for (const timer of this.#timers) clearTimeout(timer);
  }

  #schedule(node: NodeInfo, tries: number, said: string): void {
    if (this.#stopped) return;
    const timer = setTimeout(
      () => {
        this.#timers.delete(timer);
        void this.#try(node, tries, said);
      },
      backoffMs({ tries, firstMs: PAUSE_MS_FIRST, maxMs: PAUSE_MS_MAX, random: Math.random }),
    );
    timer.unref();
    this.#timers.add(timer);
  }

  async #try(node: NodeInfo, tries: number, said: string): Promise<void> {
    try {
      await this.#join(node);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      if (why !== said) this.#log.warn(`node "${node.name}" can't be joined yet: ${why}`);
      this.#schedule(node, tries + 1, why);
      return;
    }
    if (this.#stopped) return;
    this.#log.info(`node "${node.name}" is there, and was joined`);
    this.#onJoined(node);
  }
}

/** What a statement hears that needs such a node. */
export function notJoined({ node, why }: LateNode): PosternError {
  return new PosternError({
    sqlState: '08001',
    message: `node "${node.name}" has not been there since this router started`,
    detail: why,
    hint: 'Tables on other nodes are not affected. Postern joins the node when it is back.',
  });
}

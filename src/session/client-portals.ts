/** The portals of one client's extended protocol, by name, and how they come and go with messages that may be skipped. */
import { NamedChanges } from './named-changes.ts';
import type { ClientStatement } from './prepared-execution.ts';
import type { RequestTag } from './responses.ts';
import type { ScatteredPortal } from './scattered-run.ts';

export interface ClientPortal {
  readonly statement: ClientStatement;
  /** The node whose backend has it. */
  readonly nodeId?: number;
  /** Answered without a backend (BEGIN, COMMIT of a transaction that no node knows of, …). */
  readonly local: boolean;
  /** Of several buckets: no backend has a portal of it. */
  readonly scattered?: ScatteredPortal;
  readonly tag: RequestTag | undefined;
  /** Answered here, once: it has no rows that a second Execute could go on with. */
  done?: boolean;
}

export class ClientPortals extends NamedChanges<ClientPortal> {
  override clear(): void {
    for (const name of this.names()) void this.get(name)?.scattered?.release?.();
    super.clear();
  }

  override put(name: string, portal: ClientPortal | undefined): void {
    const before = this.get(name)?.scattered;
    if (before && before !== portal?.scattered) void before.release?.();
    super.put(name, portal);
  }

  /**
   * A portal is made or closed by a message that may be skipped. Gives the message's tag. Outside of a transaction block
   * there is nothing to take back: no portal outlives the pipeline that an error ends.
   */
  change(
    name: string,
    portal: ClientPortal | undefined,
    options: { tag: RequestTag | undefined; mayBeInBlock: boolean },
  ): RequestTag | undefined {
    const { tag, mayBeInBlock } = options;
    if (!mayBeInBlock) {
      this.put(name, portal);
      return tag;
    }
    const change = this.set(name, portal);
    // Field by field, since this is done for every statement of a transaction.
    return {
      leaf: tag?.leaf,
      statement: tag?.statement,
      name: tag?.name,
      onDone: () => this.done(change),
      onFailed: () => this.undo(change),
    };
  }

  /** Does a backend know nothing of it? */
  isOwn(name: string): boolean {
    const portal = this.get(name);
    return portal !== undefined && (portal.local || portal.scattered !== undefined);
  }
}

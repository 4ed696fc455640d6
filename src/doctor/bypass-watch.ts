/**
 * Looks every ten seconds who is logged in at each node, and tells of those who have not come through a router (bypass.ts).
 *
 * One process of a router does so. A node that can't be asked is asked again at the next look; nothing waits for this.
 */

import { meshRoleOf } from '../mesh/nodes.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import { type BypassLogin, NOTHING_SEEN, step, unclaimed } from './bypass.ts';
import { type Claims, readClaims } from './claims.ts';
import { readSessions } from './server-facts.ts';

export interface BypassWatchOptions {
  readonly clusterId: string;
  readonly homeNodeId: number;
  readonly nodes: readonly { readonly id: number; readonly name: string; readonly controlRole: string }[];
  readonly allowed: readonly string[];
  /** A fresh connection of the control path. */
  open(nodeId: number): Promise<ControlConnection>;
  tell(login: BypassLogin): void;
  /** Default 10 s. */
  readonly everyMs?: number | undefined;
}

const EVERY_MS = 10_000;

export class BypassWatch {
  readonly counters = { logins: 0, looks: 0 };
  readonly #options: BypassWatchOptions;
  #allowed: ReadonlySet<string>;
  #state = NOTHING_SEEN;
  #timer: NodeJS.Timeout | undefined;
  #look: Promise<void> | undefined;

  constructor(options: BypassWatchOptions) {
    this.#options = options;
    this.#allowed = new Set(options.allowed);
  }

  start(): void {
    this.#timer = setInterval(() => {
      // One that takes longer than the pause between two is not overtaken.
      this.#look ??= this.look().finally(() => {
        this.#look = undefined;
      });
    }, this.#options.everyMs ?? EVERY_MS);
    this.#timer.unref();
  }

  reload(allowed: readonly string[]): void {
    this.#allowed = new Set(allowed);
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#look;
  }

  /** Never throws: what can't be asked is unknown, and nothing is told of it. */
  async look(): Promise<void> {
    const { nodes, homeNodeId } = this.#options;
    // The sessions first: what a router has opened by then, it has claimed, or claims by the next look.
    const seen = await Promise.all(
      nodes.map(async (node) => ({ node, found: await this.#ask(node.id, readSessions) })),
    );
    const claims: Claims | undefined = await this.#ask(homeNodeId, readClaims);
    if (!claims || claims.areStale || claims.processes === 0) return;
    this.counters.looks++;
    const meshRole = meshRoleOf(this.#options.clusterId);
    for (const { node, found } of seen) {
      if (!found?.seesSessions) continue;
      const claimed = claims.backends.get(node.name) ?? new Set<number>();
      const rules = { controlRole: node.controlRole, meshRole, allowed: this.#allowed, claimed };
      const result = step(this.#state, { node: node.name, unknown: unclaimed(found.sessions, rules) });
      this.#state = result.state;
      this.counters.logins += result.newSessions;
      for (const login of result.tell) this.#options.tell(login);
    }
  }

  async #ask<T>(nodeId: number, ask: (connection: ControlConnection) => Promise<T>): Promise<T | undefined> {
    try {
      const connection = await this.#options.open(nodeId);
      try {
        return await ask(connection);
      } finally {
        await connection.close();
      }
    } catch {
      return undefined;
    }
  }
}

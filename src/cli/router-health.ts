/**
 * The health of all nodes of a router: a prober for each, and what each does to pools and to the control path of home. Nodes that
 * were away when the router started stay shut until they have been joined (late-nodes.ts).
 */
import type { NodePool } from '../backend/pool.ts';
import { BOUNDS } from '../base/bounds.ts';
import type { PosternError } from '../base/errors.ts';
import type { NodeInfo } from '../catalog/map.ts';
import { type HealthLog, NodeProber } from '../health/node-prober.ts';
import { parseDsn } from '../pg/dsn.ts';
import type { HomeControl } from './home-control.ts';
import { type LateNode, LateNodes, notJoined } from './late-nodes.ts';
import type { NodeStatus } from './router-status.ts';

export interface HealthOptions {
  readonly intervalMs?: number | undefined;
  readonly unresponsiveAfterMs?: number | undefined;
  readonly cutAfterMs?: number | undefined;
  /** How long a router that starts waits for its home node; default: it doesn't. */
  readonly startupMs?: number | undefined;
}

interface Watched {
  readonly node: NodeInfo;
  readonly prober: NodeProber;
  readonly pools: NodePool[];
  /** It answers nothing. */
  silence: PosternError | undefined;
  /** It has not been joined yet. */
  absence: PosternError | undefined;
}

export class RouterHealth {
  readonly #watched = new Map<number, Watched>();
  readonly #homeNodeId: number;
  readonly #controls: HomeControl[];
  readonly #late: readonly LateNode[];
  readonly #lateNodes: LateNodes;

  constructor(options: {
    readonly nodes: readonly { readonly node: NodeInfo; readonly dsn: string }[];
    readonly homeNodeId: number;
    readonly control: HomeControl;
    readonly health?: HealthOptions | undefined;
    readonly log: HealthLog;
    readonly late?: readonly LateNode[] | undefined;
    /** Joins one of these; rejects while it can't be. */
    readonly joinLate?: ((node: NodeInfo) => Promise<void>) | undefined;
  }) {
    const { health, log } = options;
    this.#homeNodeId = options.homeNodeId;
    this.#controls = [options.control];
    const times = {
      intervalMs: health?.intervalMs ?? BOUNDS.healthIntervalMs,
      unresponsiveAfterMs: health?.unresponsiveAfterMs ?? BOUNDS.unresponsiveAfterMs,
      cutAfterMs: health?.cutAfterMs ?? BOUNDS.cutAfterMs,
    };
    for (const { node, dsn } of options.nodes) {
      const pools: NodePool[] = [];
      const change = (silence: PosternError | undefined): void => {
        const watched = this.#watched.get(node.id)!;
        watched.silence = silence;
        this.#apply(watched);
      };
      const prober = new NodeProber({
        nodeName: node.name,
        dsn: parseDsn(dsn),
        times,
        log,
        now: () => performance.now(),
        wallClock: () => Date.now(),
        random: Math.random,
        use: {
          shut: (why) => change(why),
          open: () => change(undefined),
          cut: (keep) => {
            for (const pool of pools) pool.cut(keep);
          },
          keepOnly: (host) => {
            for (const pool of pools) pool.keepOnly(host);
          },
          change: (kind) => {
            for (const pool of pools) pool.isLate = kind !== 'up';
          },
        },
      });
      const late = options.late?.find((one) => one.node.id === node.id);
      const absence = late && notJoined(late);
      this.#watched.set(node.id, { node, prober, pools, silence: undefined, absence });
    }
    this.#late = options.late ?? [];
    this.#lateNodes = new LateNodes({
      log,
      join: async (node) => options.joinLate?.(node),
      onJoined: (node) => {
        const watched = this.#watched.get(node.id)!;
        watched.absence = undefined;
        this.#apply(watched);
      },
    });
  }

  /** A pool of connections to that node, for this or another database. */
  adopt(nodeId: number, pool: NodePool): NodePool {
    const watched = this.#watched.get(nodeId)!;
    watched.pools.push(pool);
    const why = watched.absence ?? watched.silence;
    if (why) pool.shut(why);
    return pool;
  }

  /** Another one to home. */
  adoptControl(control: HomeControl): void {
    this.#controls.push(control);
  }

  start(): void {
    for (const { prober } of this.#watched.values()) prober.start();
    this.#lateNodes.start(this.#late);
  }

  stop(): void {
    this.#lateNodes.stop();
    for (const { prober } of this.#watched.values()) prober.stop();
  }

  noteFull(nodeId: number): void {
    this.#watched.get(nodeId)?.prober.noteFull();
  }

  /** By node, for metrics. */
  *probers(): Iterable<{ readonly node: NodeInfo; readonly prober: NodeProber }> {
    yield* this.#watched.values();
  }

  nodes(): NodeStatus[] {
    return [...this.#watched.values()].map(({ node, prober, absence }) => ({
      node: node.name,
      isHome: node.id === this.#homeNodeId,
      state: absence ? 'absent' : prober.state.kind,
      usable: !absence && ['up', 'doubtful'].includes(prober.state.kind),
      since: new Date(prober.since).toISOString(),
      notes: prober.notes,
    }));
  }

  #apply({ node, pools, silence, absence }: Watched): void {
    const why = absence ?? silence;
    for (const pool of pools) {
      if (why) pool.shut(why);
      else pool.reopen();
    }
    if (node.id !== this.#homeNodeId) return;
    for (const control of this.#controls) {
      if (why) control.shut(why);
      else control.reopen();
    }
  }
}

/**
 * Parts of transactions that had been decided to commit and are not there any more: said loudly in the log, counted, and kept
 * in postern.prepared until an operator deletes them there.
 */
import { BOUNDS } from '../base/bounds.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import type { TransactionMetrics } from './metrics.ts';
import type { NodeControls } from './node-controls.ts';
import type { TransactionKey } from './settle.ts';

export interface LostPart extends TransactionKey {
  readonly nodeId: number;
  readonly commitPoint: number;
  /** '' if it is not known. */
  readonly gid: string;
}

export interface TransactionLog {
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}

/** How many are remembered as said, so that each is said once by one process. */
const REMEMBERED_MAX = 10_000;

export class Losses {
  readonly #controls: NodeControls;
  readonly #homeNodeId: number;
  readonly #nodeName: (nodeId: number) => string;
  readonly #metrics: TransactionMetrics;
  readonly #log: TransactionLog;
  readonly #said = new Set<string>();
  #unwritten: LostPart[] = [];

  constructor(options: {
    controls: NodeControls;
    homeNodeId: number;
    nodeName: (nodeId: number) => string;
    metrics: TransactionMetrics;
    log: TransactionLog;
  }) {
    this.#controls = options.controls;
    this.#homeNodeId = options.homeNodeId;
    this.#nodeName = options.nodeName;
    this.#metrics = options.metrics;
    this.#log = options.log;
  }

  report(loss: LostPart): void {
    const key = `${loss.nodeId}:${loss.transactionId}:${loss.owner}`;
    if (this.#said.has(key)) return;
    if (this.#said.size >= REMEMBERED_MAX) this.#said.clear();
    this.#said.add(key);
    this.#metrics.lostParts++;
    this.#log.error(
      `node "${this.#nodeName(loss.nodeId)}" has LOST its part of transaction ${loss.transactionId} of role "${loss.owner}", which was decided to commit (commit point: node "${this.#nodeName(loss.commitPoint)}"). See docs/guide/prepared-transactions.md`,
    );
    if (this.#unwritten.length < BOUNDS.lossesKeptMax) this.#unwritten.push(loss);
    void this.write();
  }

  /** What home could not take yet. Never rejects. */
  async write(): Promise<void> {
    const losses = this.#unwritten;
    if (losses.length === 0) return;
    this.#unwritten = [];
    try {
      await this.#controls.use(this.#homeNodeId, async (home) => {
        for (const loss of losses) {
          const gid = loss.gid === '' ? `${loss.transactionId}` : loss.gid;
          await home.query(
            `INSERT INTO ${INTERNAL_SCHEMA}.prepared_transactions (node_id, gid, transaction_id, owner, commit_point, prepared_at, state)
             VALUES ($1, $2, $3, $4, $5, clock_timestamp(), 'lost') ON CONFLICT (node_id, gid) DO UPDATE SET state = 'lost'`,
            [loss.nodeId, gid, loss.transactionId, loss.owner, loss.commitPoint],
          );
        }
        await home.query(
          `DELETE FROM ${INTERNAL_SCHEMA}.prepared_transactions WHERE state = 'lost' AND prepared_at <
             (SELECT prepared_at FROM ${INTERNAL_SCHEMA}.prepared_transactions WHERE state = 'lost'
              ORDER BY prepared_at DESC OFFSET ${BOUNDS.lossesKeptMax} LIMIT 1)`,
        );
      });
    } catch {
      this.#unwritten = [...losses, ...this.#unwritten].slice(0, BOUNDS.lossesKeptMax);
    }
  }
}

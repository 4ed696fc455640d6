/**
 * The server's counters around a point: checkpoints begun, WAL a transaction, and the share of full-page images in it. Read
 * before the point's clients connect and after they have gone, as a session hands in its counts at its end.
 *
 * Invariant: reading never fails a measurement; what can't be read is in `unread`, and left out of the points.
 */
import { CheckpointProbe } from '../server/checkpoints.ts';
import type { ProbeConnection } from '../server/probe-connection.ts';
import { WalCounterProbe, type WalCounters, walDifference } from '../server/wal-counters.ts';
import type { SweepPoint } from './sweep.ts';

interface Reading {
  readonly wal: WalCounters;
  readonly checkpoints: number | undefined;
}

export class WindowCounters {
  readonly unread: readonly string[];
  private readonly wal: WalCounterProbe;
  private readonly checkpoints: CheckpointProbe;

  private constructor(wal: WalCounterProbe, checkpoints: CheckpointProbe) {
    this.wal = wal;
    this.checkpoints = checkpoints;
    this.unread = [...wal.unread, ...checkpoints.unread];
  }

  static async open(connection: ProbeConnection): Promise<WindowCounters> {
    return new WindowCounters(await WalCounterProbe.open(connection), await CheckpointProbe.open(connection));
  }

  async read(): Promise<Reading | undefined> {
    try {
      const wal = await this.wal.read();
      const checkpoints = await this.checkpoints.read();
      return {
        wal,
        checkpoints: checkpoints === undefined ? undefined : checkpoints.timed + checkpoints.requested,
      };
    } catch {
      return undefined;
    }
  }

  /** `transactions`: all between the readings. */
  between(
    before: Reading | undefined,
    after: Reading | undefined,
    transactions: number,
  ): Pick<SweepPoint, 'checkpoints' | 'walBytesPerTransaction' | 'fullPageImageShare'> {
    if (before === undefined || after === undefined) return {};
    const { insertLsn, fullPageImages, records } = walDifference(before.wal, after.wal);
    const checkpoints =
      before.checkpoints === undefined || after.checkpoints === undefined
        ? undefined
        : after.checkpoints - before.checkpoints;
    return {
      ...(checkpoints === undefined ? {} : { checkpoints }),
      ...(insertLsn === undefined || transactions === 0
        ? {}
        : { walBytesPerTransaction: insertLsn / transactions }),
      ...(fullPageImages === undefined || records === undefined || records === 0
        ? {}
        : { fullPageImageShare: fullPageImages / records }),
    };
  }
}

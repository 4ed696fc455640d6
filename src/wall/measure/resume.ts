/**
 * Going on with a measurement that was interrupted: the points of its file stand for those that are asked for again. The
 * search is a pure function of its points (search.ts), so it takes the same way up to where it was.
 *
 * Invariant: a point is taken over only if everything that its figure depends on is as it was (`settings`).
 */
import { createHash } from 'node:crypto';
import { MeasureError } from '../server/measured-server.ts';
import type { Workload } from '../workload/workload.ts';
import type { SweepPoint, SweepResult } from './sweep.ts';

export type MeasureSettings = Readonly<Record<string, string | number>>;

/** A short name for all of a workload, tables and texts. */
export function workloadHash(workload: Workload): string {
  return createHash('sha256').update(JSON.stringify(workload)).digest('hex').slice(0, 16);
}

export class EarlierPoints {
  private readonly left: SweepPoint[];

  /** Throws MeasureError if the earlier measurement was of something else. */
  constructor(earlier: SweepResult | undefined, settings: MeasureSettings) {
    this.left = [...(earlier?.points ?? [])];
    if (earlier === undefined) return;
    const before = earlier.settings ?? {};
    const names = new Set([...Object.keys(before), ...Object.keys(settings)]);
    const different = [...names].filter((name) => before[name] !== settings[name]);
    if (different.length === 0) return;
    const said = different.map(
      (name) => `${name} was ${before[name] ?? 'not recorded'}, is ${settings[name] ?? 'not set'}`,
    );
    throw new MeasureError(`the earlier measurement can't be resumed: ${said.join('; ')}`);
  }

  /** The first that is left of those measured for the same purpose. */
  take(
    wanted: Pick<SweepPoint, 'clients' | 'purpose'> & { rate?: number | undefined },
  ): SweepPoint | undefined {
    const index = this.left.findIndex(
      (point) =>
        point.clients === wanted.clients &&
        point.purpose === wanted.purpose &&
        point.openLoop?.rate === wanted.rate,
    );
    return index < 0 ? undefined : this.left.splice(index, 1)[0];
  }
}

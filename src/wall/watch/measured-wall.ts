/** The wall in a report of `postern wall measure --json`, for the distance to it. Pure. */
import { reportSchema } from '../report/report-schema.ts';

export interface MeasuredWall {
  /** Transactions a second. */
  readonly rate: number;
  /** The measurement ended before the rate did: the wall is at least there. */
  readonly isLowerBound: boolean;
}

/** The first curve's. `wrong`: why there is none, as the end of a sentence about the file. */
export function wallOfReport(document: unknown): MeasuredWall | { readonly wrong: string } {
  const parsed = reportSchema.safeParse(document);
  const curve = parsed.success ? parsed.data.curves[0] : undefined;
  if (curve === undefined) return { wrong: 'is no report of this version of postern wall measure' };
  const { wall, best, finished } = curve;
  if (finished === false)
    return { wrong: 'is of a measurement that was interrupted: finish it with --resume' };
  if (wall?.kind === 'void') return { wrong: 'holds no wall: every point was void' };
  if (wall !== undefined) return { rate: wall.rate.tps, isLowerBound: wall.kind === 'not-reached' };
  // A list of counts was measured, and nothing searched for.
  if (best === undefined || best.openLoop !== undefined || best.tps <= 0)
    return { wrong: 'holds no wall: measure without --clients, --rate and --slo' };
  return { rate: best.tps, isLowerBound: true };
}

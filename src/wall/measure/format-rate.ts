/** Rates as text: no more digits than the interval leaves. */
import type { Rate } from './search.ts';

export function formatTps(tps: number): string {
  return (tps < 10 ? Number(tps.toPrecision(2)) : Math.round(tps)).toLocaleString('en-US');
}

/** "15,320 ± 210"; without an interval the rate alone. */
export function formatRate(rate: { readonly tps: number; readonly plusMinus?: Rate['plusMinus'] }): string {
  return rate.plusMinus === undefined
    ? `about ${formatTps(rate.tps)}`
    : `${formatTps(rate.tps)} ± ${formatTps(rate.plusMinus)}`;
}

import { describe, expect, it } from 'vitest';
import { historyLine, parseHistory, RateHistory } from './rate-history.ts';

const MINUTE = 60_000;
const DAY = 1_440 * MINUTE;
const START = Date.parse('2026-01-05T00:00:00Z');

/** A day has its peak at noon; the peaks grow by `perDay`. */
function days(count: number, perDay: number): RateHistory {
  const history = new RateHistory();
  for (let day = 0; day < count; day++) {
    for (let hour = 0; hour < 24; hour++) {
      const shape = 0.3 + 0.7 * Math.max(0, Math.sin((Math.PI * hour) / 24));
      history.add(START + day * DAY + hour * 60 * MINUTE, (10_000 + perDay * day) * shape);
    }
  }
  return history;
}

describe('the rates of a watched server', () => {
  it('say when the wall is reached, by the peaks of the days', () => {
    const nowMs = START + 20 * DAY;
    const arrival = days(20, 500).arrival(40_000, nowMs)!;
    expect(arrival.grain).toBe('day');
    expect(arrival.perDay.slope).toBeCloseTo(500, 0);
    // 19,500 are reached; the 20,500 that are missing take 41 days.
    expect((arrival.earliestMs! - nowMs) / DAY).toBeCloseTo(41, 0);
    expect((arrival.latestMs! - nowMs) / DAY).toBeCloseTo(41, 0);
  });

  it('name no date without growth', () => {
    const arrival = days(20, 0).arrival(40_000, START + 20 * DAY)!;
    expect(arrival).toMatchObject({ earliestMs: undefined, latestMs: undefined });
  });

  it('take hours or minutes while there are no days yet', () => {
    const history = new RateHistory();
    for (let minute = 0; minute < 30; minute++) history.add(START + minute * MINUTE, 100 + minute);
    expect(history.arrival(1_000, START)!.grain).toBe('minute');
    expect(new RateHistory().arrival(1_000, START)).toBeUndefined();
  });

  it('keep the peak of each minute, and tell it when the minute is over', () => {
    const history = new RateHistory();
    expect(history.add(START, 5)).toBeUndefined();
    expect(history.add(START + 20_000, 9)).toBeUndefined();
    expect(history.add(START + 40_000, 7)).toBeUndefined();
    expect(history.add(START + MINUTE, 1)).toEqual({ atMs: START, writesPerSecond: 9 });
  });

  it('go through a file and back, past lines that a crash cut off', () => {
    const peaks = [0, 1, 2].map((minute) => ({
      atMs: START + minute * MINUTE,
      writesPerSecond: minute + 0.5,
    }));
    const text = peaks.map(historyLine).join('');
    expect(parseHistory(text)).toEqual(peaks);
    expect(parseHistory(`${text}2026-01-05T00:0\nx,y\n,\n`)).toEqual(peaks);
    expect(parseHistory(text.slice(0, text.length - 3))).toHaveLength(3);
  });
});

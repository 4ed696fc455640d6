import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LatencyHistogram } from './latency-histogram.ts';
import { MeasuredWindow, WindowRecorder } from './window-recorder.ts';

/** Evenly, since doubles would mostly be next to 0, and so that sums and bin edges are exact. */
const sixteenths = (max: number) => fc.integer({ min: 0, max: max * 16 }).map((value) => value / 16);

const ended = fc.record({
  startAtMs: sixteenths(400),
  tookMs: sixteenths(100),
  transaction: fc.integer({ min: 0, max: 1 }),
  sqlState: fc.option(fc.constantFrom('23505', '40001'), { nil: undefined }),
});

describe('WindowRecorder', () => {
  it('counts what a filter over all transactions counts', () => {
    fc.assert(
      fc.property(fc.array(ended), fc.boolean(), (all, isOpenLoop) => {
        const [opensAtMs, closesAtMs, bins] = [100, 300, 4];
        const recorder = new WindowRecorder({ window: new MeasuredWindow(), transactions: 2, isOpenLoop });
        recorder.open({ opensAtMs, closesAtMs, bins });
        const within = (ms: number): boolean => ms >= opensAtMs && ms < closesAtMs;
        for (const { startAtMs, tookMs, transaction, sqlState } of all) {
          const now = startAtMs + tookMs;
          if (sqlState === undefined) recorder.succeeded(transaction, startAtMs, now);
          else recorder.failed({ sqlState, severity: 'ERROR', message: `not ${sqlState}` }, startAtMs, now);
        }
        const record = recorder.record();
        const good = all.filter(({ sqlState }) => sqlState === undefined);
        const judgedAt = isOpenLoop
          ? (one: (typeof all)[number]) => one.startAtMs
          : (one: (typeof all)[number]) => one.startAtMs + one.tookMs;
        const endedWithin = (some: typeof all) => some.filter((one) => within(one.startAtMs + one.tookMs));
        expect([...record.bins]).toEqual(
          [100, 150, 200, 250].map(
            (from) =>
              endedWithin(good).filter(
                (one) => one.startAtMs + one.tookMs >= from && one.startAtMs + one.tookMs < from + 50,
              ).length,
          ),
        );
        record.latencies.forEach((snapshot, transaction) => {
          const recorded = good.filter((one) => one.transaction === transaction && within(judgedAt(one)));
          expect(new LatencyHistogram(snapshot).count).toBe(recorded.length);
        });
        for (const sqlState of ['23505', '40001']) {
          const count = all.filter((one) => one.sqlState === sqlState && within(judgedAt(one))).length;
          expect(record.errors.get(sqlState) ?? 0).toBe(count);
          expect(record.errorMessages.get(sqlState)).toBe(count === 0 ? undefined : `not ${sqlState}`);
        }
        const busyMs = endedWithin(all).reduce((sum, { tookMs }) => sum + tookMs, 0);
        expect(record.busyMs).toBeCloseTo(busyMs, 6);
      }),
    );
  });

  it('records nothing before it is opened', () => {
    const recorder = new WindowRecorder({ window: new MeasuredWindow(), transactions: 1, isOpenLoop: false });
    recorder.succeeded(0, 1, 2);
    expect(recorder.record()).toMatchObject({ busyMs: 0, latencies: [{ total: 0 }] });
  });
});

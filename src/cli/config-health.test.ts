import { describe, expect, it } from 'vitest';
import { healthOptions, healthSchema } from './config-health.ts';

describe('health:', () => {
  it('has defaults, also where nothing is said', () => {
    expect(healthOptions(healthSchema.parse(undefined))).toEqual({
      intervalMs: undefined,
      unresponsiveAfterMs: undefined,
      cutAfterMs: undefined,
      startupMs: 30_000,
    });
  });

  it('takes times in PostgreSQL’s units', () => {
    const given = { interval: '500ms', unresponsive_after: '2s', cut_after: '1min', startup: 0 };
    expect(healthOptions(healthSchema.parse(given))).toEqual({
      intervalMs: 500,
      unresponsiveAfterMs: 2_000,
      cutAfterMs: 60_000,
      startupMs: 0,
    });
  });

  it.each([
    [{ interval: '50ms' }, /100ms to 1min/],
    [{ interval: '5s' }, /not be less than interval/],
    [{ unresponsive_after: '20s' }, /not be less than unresponsive_after/],
    [{ cut_after: '2h' }, /1s to 1h/],
    [{ interval: 'soon' }, /with its unit/],
    [{ pings: 3 }, /pings/],
  ])('refuses %j', (given, why) => {
    const parsed = healthSchema.safeParse(given);
    expect(parsed.success).toBe(false);
    expect(parsed.error?.issues.map(({ message }) => message).join()).toMatch(why);
  });
});

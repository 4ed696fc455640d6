/** `health:` of postern.yaml: how often nodes are asked, and what their silence means. */
import { z } from 'zod';
import { BOUNDS } from '../base/bounds.ts';
import { duration } from './config-values.ts';
import type { HealthOptions } from './router-health.ts';

const within = (leastMs: number, mostMs: number, words: string) =>
  duration().refine((ms) => ms >= leastMs && ms <= mostMs, { message: `must be from ${words}` });

export const healthSchema = z
  .strictObject({
    interval: within(100, 60_000, '100ms to 1min').optional(),
    unresponsive_after: within(500, 600_000, '500ms to 10min').optional(),
    cut_after: within(1_000, 3_600_000, '1s to 1h').optional(),
    /** How long a router that starts waits for its home node. */
    startup: within(0, 3_600_000, '0 to 1h').optional(),
  })
  .superRefine((given, context) => {
    const interval = given.interval ?? BOUNDS.healthIntervalMs;
    const unresponsive = given.unresponsive_after ?? BOUNDS.unresponsiveAfterMs;
    const cut = given.cut_after ?? BOUNDS.cutAfterMs;
    if (unresponsive < interval)
      context.addIssue({
        code: 'custom',
        path: ['unresponsive_after'],
        message: 'must not be less than interval',
      });
    if (cut < unresponsive)
      context.addIssue({
        code: 'custom',
        path: ['cut_after'],
        message: 'must not be less than unresponsive_after',
      });
  })
  .optional();

export function healthOptions(given: z.infer<typeof healthSchema>): HealthOptions {
  return {
    intervalMs: given?.interval,
    unresponsiveAfterMs: given?.unresponsive_after,
    cutAfterMs: given?.cut_after,
    startupMs: given?.startup ?? BOUNDS.startupMs,
  };
}

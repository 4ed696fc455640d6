/** `log` of postern.yaml. */
import { z } from 'zod';
import { duration } from './config-values.ts';
import { LOG_DEFAULTS, type LogOptions } from './log.ts';

export const logSchema = z
  .strictObject({
    level: z.enum(['info', 'warn', 'error']).default(LOG_DEFAULTS.level),
    /** A line when a client logs in, and when it leaves. */
    connections: z.boolean().default(LOG_DEFAULTS.connections),
    /** Without their values. 0: none. */
    statements_slower_than: duration().default(0),
  })
  .optional();

export function logOptions(given: z.infer<typeof logSchema>): LogOptions {
  if (!given) return LOG_DEFAULTS;
  const { level, connections, statements_slower_than: slowerThanMs } = given;
  return { level, connections, statementsSlowerThanMs: slowerThanMs || Number.POSITIVE_INFINITY };
}

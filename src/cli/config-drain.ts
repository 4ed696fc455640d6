/** `drain:` of postern.yaml: how clients leave when the router stops, or one of its workers is replaced. */
import { z } from 'zod';
import { BOUNDS } from '../base/bounds.ts';
import { duration } from './config-values.ts';

export interface DrainOptions {
  /** How long clients have to end their transactions. */
  readonly timeoutMs: number;
  /** Between `draining` and the port's closing, so that load balancers see the one before the other. */
  readonly delayMs: number;
}

export const drainSchema = z
  .strictObject({
    /** For transactions to end. */
    timeout: duration().optional(),
    /** Between "not ready" and the port's closing. */
    delay: duration().optional(),
  })
  .optional();

export const DRAIN_DEFAULTS: DrainOptions = { timeoutMs: BOUNDS.drainTimeoutMs, delayMs: 0 };

export function drainOptions(given: z.output<typeof drainSchema>): DrainOptions {
  return {
    timeoutMs: given?.timeout ?? DRAIN_DEFAULTS.timeoutMs,
    delayMs: given?.delay ?? DRAIN_DEFAULTS.delayMs,
  };
}

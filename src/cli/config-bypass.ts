/** `bypass:` of postern.yaml: who may log in at the nodes without a router. */
import { z } from 'zod';

export interface BypassOptions {
  /** Roles whose logins are not told of: monitoring, backups. */
  readonly allowed: readonly string[];
  /** For tests: default 10 s. */
  readonly everyMs?: number | undefined;
}

export const bypassSchema = z
  .strictObject({ allow: z.array(z.string().min(1).max(63)).default([]) })
  .optional();

export function bypassOptions(given: z.infer<typeof bypassSchema>): BypassOptions {
  return { allowed: given?.allow ?? [] };
}

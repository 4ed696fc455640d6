/** Values of postern.yaml that several of its parts take. */
import { z } from 'zod';

const UNIT_MS = { ms: 1, s: 1_000, min: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const DURATION_MAX_MS = 2 ** 31 - 1;
const WORDS = 'must be a time with its unit, as 500ms, 30s, 15min, 2h or 1d, or 0';
const TOO_LONG = 'must be less than 25d, or 0';

/** A time in PostgreSQL's units, as milliseconds; 0 needs no unit. */
export function duration() {
  return z.union([z.string(), z.number()], WORDS).transform((given, context): number => {
    const match = /^(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)$/.exec(String(given).trim());
    const ms = match ? Number(match[1]) * UNIT_MS[match[2] as keyof typeof UNIT_MS] : Number.NaN;
    if (String(given) === '0') return 0;
    if (ms >= 0 && ms <= DURATION_MAX_MS) return Math.round(ms);
    context.addIssue({ code: 'custom', message: ms > DURATION_MAX_MS ? TOO_LONG : WORDS });
    return z.NEVER;
  });
}

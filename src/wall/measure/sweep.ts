/**
 * What a measurement gives, as plain data: points, the wall, and all that they have to be read with. Defined once, as zod
 * schemas: the types here, the check of a file that is resumed, and docs/reference/wall-report.schema.json come of them.
 *
 * Units: times in ms where a name says so, rates a second, shares from 0 to 1. What could not be had is left out, never 0.
 */
import { z } from 'zod';

const count = z.number().int().min(0);
const share = z.number();

const voidReasonSchema = z.enum(['client-bound', 'steal', 'unsteady', 'littles-law']);
const PURPOSES = ['sweep', 'ramp', 'bisect', 'confirm', 'scale', 'rate', 'slo'] as const;

const pointSchema = z
  .object({
    clients: count,
    /** Why it was measured; 'scale': a closed loop before an open one, to know what to expect. */
    purpose: z.enum(PURPOSES).optional(),
    /**
     * Transactions that succeeded within the window, a second; without the window's beginning where that still rose
     * (warmupBins).
     */
    tps: z.number(),
    /** Half of the 95% interval of tps, from this window alone; left out where the window was too short to know. */
    tpsPlusMinus: z.number().optional(),
    /** What that was computed with: the block bootstrap's error and its degrees of freedom. */
    standardError: z.number().optional(),
    degrees: z.number().optional(),
    blockBins: count.optional(),
    warmupBins: count.optional(),
    /** The trend over the window, as a share of its mean. */
    driftShare: z.number().optional(),
    /** Not empty: the figure says nothing of the server. */
    voidReasons: z.array(voidReasonSchema).readonly().optional(),
    /** The generator's own reasons, a sentence each. */
    voidNotes: z.array(z.string()).readonly().optional(),
    p50Ms: z.number(),
    p95Ms: z.number(),
    p99Ms: z.number(),
    maxMs: z.number(),
    meanMs: z.number().optional(),
    /** Failed transactions within the window by SQLSTATE; they don't count in tps. */
    errors: z.record(z.string(), count),
    /** One message to each SQLSTATE. */
    errorMessages: z.record(z.string(), z.string()),
    transactions: count,
    seconds: z.number(),
    /** All that the server confirmed, also during warm-up and after the window: with an empty table before, its rows. */
    acknowledged: count,
    /** Of one core: 1.5 is one core and a half. */
    generatorCpuShare: z.number(),
    /** How late the generator's threads came to what was due. */
    loopLagP99Ms: z.number().optional(),
    /** The generator was the bottleneck: the server could have done more than this figure. */
    clientBound: z.boolean(),
    /** Of all cores of the machine that the generator runs on. */
    machineBusyShare: share.optional(),
    stealShare: share.optional(),
    /** Of the same: taken by programs that are neither the server nor the generator; only where both run here. */
    othersShare: share.optional(),
    /** CPU time of each known process tree to each transaction; 'server' is the local postmaster's. */
    cpuMsPerTransaction: z.record(z.string(), z.number()),
    /** Of a workload of several transactions, by name. */
    byTransaction: z.record(z.string(), z.object({ count, p50Ms: z.number(), p99Ms: z.number() })).optional(),
    /** Checkpoints begun from before the warm-up until after the window. */
    checkpoints: count.optional(),
    walBytesPerTransaction: z.number().optional(),
    /** Full-page images over WAL records. */
    fullPageImageShare: share.optional(),
    /** Of an open loop. */
    openLoop: z
      .object({
        /** Arrivals a second that were intended. */
        rate: z.number(),
        offered: count,
        completed: count,
        failed: count,
        /** Begun more than lateMs after the intended start. */
        late: count,
        lateMs: z.number(),
        /** Never begun. */
        missed: count,
        /** From the intended start to the real one. */
        latenessP99Ms: z.number(),
        /** The same where a client was free: what the generator itself adds. */
        timingP99Ms: z.number(),
      })
      .optional(),
    keepsSlo: z.boolean().optional(),
  })
  .readonly();

const rateSchema = z.object({ tps: z.number(), plusMinus: z.number().optional() }).readonly();

const wallSchema = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('reached'),
    rate: rateSchema,
    /** The fewest clients within 5% of the rate. */
    clients: count,
    /** Where the rate was measured afresh. */
    chosenClients: count,
    flatTo: count,
    /** More clients than flatTo were measured and gave less. */
    fallsAfter: z.boolean(),
    /** False: there was no time to measure the chosen point again, so its figure is biased upwards. */
    afresh: z.boolean(),
  }),
  z.object({
    kind: z.literal('not-reached'),
    rate: rateSchema,
    clients: count,
    because: z.enum(['max-clients', 'connections', 'client-bound', 'budget', 'void-points']),
    afresh: z.boolean(),
  }),
  z.object({ kind: z.literal('void'), reasons: z.array(voidReasonSchema).readonly() }),
]);

const uslSchema = z.object({
  perClient: z.number(),
  contention: z.number(),
  coherency: z.number(),
  peakClients: z.number().nullable(),
  deviationShare: z.number(),
});

const sloSchema = z.object({
  /** As p99=50ms. */
  objective: z.string(),
  kind: z.enum(['found', 'never', 'always']),
  rate: z.number().optional(),
  low: z.number().optional(),
  high: z.number().optional(),
  points: count,
  exhausted: z.boolean(),
});

const serverSchema = z.object({
  version: z.string().optional(),
  /** As SHOW prints them. */
  settings: z.record(z.string(), z.string()),
  /** Standbys that stream from it. */
  replicas: count.optional(),
  unread: z.array(z.string()).readonly(),
});

const machineSchema = z.object({
  cores: count,
  memoryBytes: z.number(),
  cpuModel: z.string(),
  platform: z.string(),
  nodeVersion: z.string(),
});

export const sweepResultSchema = z
  .object({
    /** Where it was measured, without the password. */
    target: z.string(),
    workload: z.string(),
    protocol: z.enum(['simple', 'extended', 'prepared']),
    /** The connections were encrypted, which costs both sides CPU. */
    tls: z.boolean(),
    startedAt: z.string(),
    /** False: the file was written before the measurement had ended; --resume goes on from it. */
    finished: z.boolean().optional(),
    /** What two measurements must share for the one to go on with the other's points. */
    settings: z.record(z.string(), z.union([z.string(), z.number()])).optional(),
    /** In the order in which they were measured. */
    points: z.array(pointSchema).readonly(),
    skipped: z.array(z.object({ clients: count, reason: z.string() }).readonly()).readonly(),
    /** The point of most transactions a second that is not void. */
    best: pointSchema.optional(),
    wall: wallSchema.optional(),
    /** A diagnosis; not used for the wall. */
    usl: uslSchema.optional(),
    slo: sloSchema.optional(),
    server: serverSchema,
    machine: machineSchema,
    /** Client and server are on one machine, and take its cores from each other. */
    sharesMachine: z.boolean(),
    /** What else went on on the server before the measurement; left out if nobody looked. */
    traffic: z.string().optional(),
    /** The workload's tables and indexes at the end. */
    dataBytes: z.number().optional(),
    sharedBuffersBytes: z.number().optional(),
  })
  .readonly();

export type SweepPoint = z.infer<typeof pointSchema>;
export type SweepResult = z.infer<typeof sweepResultSchema>;
export type SkippedPoint = SweepResult['skipped'][number];
export type Wall = z.infer<typeof wallSchema>;
export type SloFinding = z.infer<typeof sloSchema>;

export function isVoid(point: Pick<SweepPoint, 'voidReasons'>): boolean {
  return (point.voidReasons?.length ?? 0) > 0;
}

/** The most transactions a second of those that are not void. */
export function bestOf(points: readonly SweepPoint[]): SweepPoint | undefined {
  return points.reduce<SweepPoint | undefined>(
    (best, point) => (isVoid(point) || (best !== undefined && best.tps >= point.tps) ? best : point),
    undefined,
  );
}

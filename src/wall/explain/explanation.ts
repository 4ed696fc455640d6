/**
 * What `postern wall explain` found, as plain data: it goes into reports and JSON files as it is. A number that could not
 * be had is null, never 0, and the reason stands in `unread`.
 *
 * Invariant: `verdict` is one of the four ceilings, lock contention or the client only where an observation of its own
 * supports it; where observations disagree it is `mixed`, and where they say nothing it is `unknown`.
 */
import { z } from 'zod';

const number = z.number();
const count = z.number().min(0);
const share = z.number().min(0);

/** The causes that are told apart; the first four are the ceilings of src/wall/model/ceilings.ts. */
export const HYPOTHESES = [
  'wal_fsync',
  'wal_write',
  'cpu',
  'network',
  'lock_contention',
  'client_bound',
  'other',
] as const;
export type Hypothesis = (typeof HYPOTHESES)[number];

const hypothesis = z.enum(HYPOTHESES);
const confidence = z.enum(['low', 'medium', 'high']);
export type Confidence = z.infer<typeof confidence>;

/** One window's worth of many: the mean and its 95% interval. */
const interval = z.object({ value: number, low: number, high: number });
export type Interval = z.infer<typeof interval>;

export const INTERVENTION_NAMES = [
  'async_commit',
  'local_commit',
  'remote_write',
  'unlogged',
  'commit_only',
  'more_clients',
] as const;
export type InterventionName = (typeof INTERVENTION_NAMES)[number];

const interventionSchema = z.object({
  name: z.enum(INTERVENTION_NAMES),
  /** What was changed, in words. */
  change: z.string(),
  /** What each cause would make of it, in words. */
  predictions: z.partialRecord(hypothesis, z.string()),
  tps: number,
  /** Throughput over that of the unchanged load, measured in turns with it. */
  ratio: interval,
  /** The server's CPU time a transaction, over that of the unchanged load. */
  cpuRatio: number.nullable(),
  /** Of the cores that the server has. */
  cpuUtilization: share.nullable(),
});
export type Intervention = z.infer<typeof interventionSchema>;

const observationSchema = z.object({
  name: z.string(),
  /** What was seen, with its numbers. */
  text: z.string(),
  kind: z.enum(['intervention', 'waits', 'counters', 'system', 'client']),
  /** Logarithmic weights, for (above 0) and against; a cause that is not named has none. */
  weights: z.partialRecord(hypothesis, number),
});
export type Observation = z.infer<typeof observationSchema>;

const waitSchema = z.object({
  /** 'LWLock:WALWrite'; 'CPU': active and waiting for nothing that the server knows; 'Client:idle'. */
  event: z.string(),
  /** As folded for comparison between versions. */
  key: z.string(),
  /** Of all samples of the load's sessions. */
  share,
});
export type WaitShare = z.infer<typeof waitSchema>;

const ceilingSchema = z.object({
  name: z.enum(['wal_fsync', 'wal_write', 'cpu', 'network']),
  /** Transactions a second; null: could not be had. */
  perSecond: number.nullable(),
  /** 'at_least': more than that was seen or is implied, and where it ends was not. 'none': there is no such limit here. */
  bound: z.enum(['about', 'at_least', 'none', 'unknown']),
  /** The arithmetic, or why there is none. */
  because: z.string(),
});
export type MeasuredCeiling = z.infer<typeof ceilingSchema>;

/** The measured inputs of the model; the names are those of ModelInputs. */
const inputsSchema = z.object({
  syncMs: number.nullable(),
  commitsPerSync: number.nullable(),
  walInsertUs: number.nullable(),
  walRecordsPerTransaction: number.nullable(),
  cores: number.nullable(),
  cpuMsPerTransaction: number.nullable(),
  linkBitsPerSecond: number.nullable(),
  walBytesPerTransaction: number.nullable(),
  replicas: count.nullable(),
});
export type MeasuredInputs = z.infer<typeof inputsSchema>;

export const explanationSchema = z.object({
  kind: z.literal('postern wall explanation'),
  version: z.literal(1),
  target: z.string(),
  workload: z.string(),
  startedAt: z.string(),
  seconds: number,
  clients: count,
  verdict: z.enum([...HYPOTHESES, 'mixed', 'unknown']),
  /** Of `mixed`: which; of `other`: its name, as 'DataFileRead'. */
  causes: z.array(z.string()),
  confidence,
  /** One sentence. */
  sentence: z.string(),
  /** What else a reader has to know, a sentence each. */
  remarks: z.array(z.string()),
  scores: z.record(hypothesis, number),
  observations: z.array(observationSchema),
  tps: interval,
  interventions: z.array(interventionSchema),
  waits: z.array(waitSchema),
  ceilings: z.array(ceilingSchema),
  /** The smallest of the known ones. */
  lowestCeiling: z.enum(['wal_fsync', 'wal_write', 'cpu', 'network']).nullable(),
  inputs: inputsSchema,
  counters: z.object({
    walBytesPerTransaction: number.nullable(),
    fullPageImagesPerTransaction: number.nullable(),
    fullPageImageShare: share.nullable(),
    walBuffersFullPerTransaction: number.nullable(),
    commitsPerSync: number.nullable(),
    syncMs: number.nullable(),
    /** Time spent in flushes over elapsed time: near 1, one flush follows another. */
    syncBusyShare: share.nullable(),
    writeBusyShare: share.nullable(),
    checkpoints: count.nullable(),
    replicasWaitedFor: count.nullable(),
    cpuUtilization: share.nullable(),
    linkUtilization: share.nullable(),
  }),
  /** What the looking itself took. */
  probeCost: z.object({ samples: count, milliseconds: number, cpuShare: number.nullable() }),
  settings: z.record(z.string(), z.string()),
  unread: z.array(z.string()),
});
export type Explanation = z.infer<typeof explanationSchema>;

/**
 * The model of four ceilings: the commits a second that a primary's WAL flush, WAL insertion, CPU and network to replicas
 * each allow, and the smallest of them, which binds. Pure arithmetic over typed inputs, the same for measured numbers and
 * for assumed ones.
 *
 * What it leaves out: the four take from one another (a flush costs CPU too), so a server reaches less than the smallest;
 * and locks, buffers and checkpoints aren't in it. PostgreSQL has no single writer of WAL: each backend inserts its own
 * records, under insertion locks, and whichever flushes takes along what others have written.
 */
import { assert, unreachable } from '../../base/assert.ts';

export const CEILING_NAMES = ['wal_fsync', 'wal_write', 'cpu', 'network'] as const;
export type CeilingName = (typeof CEILING_NAMES)[number];

export const CEILING_TITLES: Readonly<Record<CeilingName, string>> = {
  wal_fsync: 'WAL fsync',
  wal_write: 'WAL insertion and writing',
  cpu: 'CPU',
  network: 'network to replicas',
};

/** All above 0, but for replicas and wireOverheadBytes, which may be 0. */
export interface ModelInputs {
  /** One flush of the WAL to durable storage. */
  readonly syncMs: number;
  /** How many commits one flush makes durable: group commit. */
  readonly commitsPerSync: number;
  /** What one WAL record takes of what only one can do at a time: reserving its place, and writing it out. */
  readonly walInsertUs: number;
  readonly walRecordsPerTransaction: number;
  readonly cores: number;
  /** CPU time of the server for one transaction, on one core. */
  readonly cpuMsPerTransaction: number;
  /** The link out of the primary. */
  readonly linkBitsPerSecond: number;
  readonly walBytesPerTransaction: number;
  /** What a transaction's WAL costs on the wire beyond its bytes, to each replica. */
  readonly wireOverheadBytes: number;
  /** That stream from the primary itself; cascaded ones don't count. */
  readonly replicas: number;
}

export interface Ceiling {
  readonly name: CeilingName;
  /** Transactions a second; Infinity where nothing limits them. */
  readonly perSecond: number;
  /** The arithmetic, in words and numbers. */
  readonly because: string;
}

export interface Ceilings {
  /** In the order of CEILING_NAMES. */
  readonly all: readonly Ceiling[];
  readonly binding: Ceiling;
}

export function ceilingsOf(inputs: ModelInputs): Ceilings {
  const all = CEILING_NAMES.map((name) => ceilingOf(name, inputs));
  return { all, binding: all.reduce((least, each) => (each.perSecond < least.perSecond ? each : least)) };
}

function ceilingOf(name: CeilingName, inputs: ModelInputs): Ceiling {
  switch (name) {
    case 'wal_fsync': {
      const { syncMs, commitsPerSync } = inputs;
      return {
        name,
        perSecond: (1000 / syncMs) * commitsPerSync,
        because: `${formatCount(1000 / syncMs)} flushes/s of ${formatNumber(syncMs)} ms × ${formatNumber(commitsPerSync)} commits each`,
      };
    }
    case 'wal_write': {
      const { walInsertUs, walRecordsPerTransaction } = inputs;
      return {
        name,
        perSecond: 1e6 / (walInsertUs * walRecordsPerTransaction),
        because: `${formatNumber(walInsertUs)} µs a record, one at a time × ${formatNumber(walRecordsPerTransaction)} a transaction`,
      };
    }
    case 'cpu': {
      const { cores, cpuMsPerTransaction } = inputs;
      return {
        name,
        perSecond: (cores * 1000) / cpuMsPerTransaction,
        because: `${formatNumber(cores)} cores / ${formatNumber(cpuMsPerTransaction)} ms of CPU a transaction`,
      };
    }
    case 'network': {
      const { linkBitsPerSecond, walBytesPerTransaction, wireOverheadBytes, replicas } = inputs;
      const bytes = walBytesPerTransaction + wireOverheadBytes;
      return {
        name,
        perSecond: replicas === 0 ? Number.POSITIVE_INFINITY : linkBitsPerSecond / 8 / (bytes * replicas),
        because:
          replicas === 0
            ? 'no replica'
            : `${formatCount(linkBitsPerSecond / 1e6)} Mbit/s / (${formatNumber(bytes)} bytes × ${formatNumber(replicas)} replicas)`,
      };
    }
    default:
      return unreachable(name);
  }
}

/**
 * A large server as it is commonly described: NVMe that flushes in 0.1 ms with ten commits to a flush, 64 cores,
 * transactions of 0.64 ms, four replicas behind 1 Gbit/s, 100 bytes of WAL and 56 of packets' and messages' heads.
 */
export const EXAMPLE: ModelInputs = {
  syncMs: 0.1,
  commitsPerSync: 10,
  walInsertUs: 2,
  walRecordsPerTransaction: 1,
  cores: 64,
  cpuMsPerTransaction: 0.64,
  linkBitsPerSecond: 1e9,
  walBytesPerTransaction: 100,
  wireOverheadBytes: 56,
  replicas: 4,
};

export interface Shape {
  readonly name: string;
  readonly change: string;
  readonly inputs: ModelInputs;
}

/** A one-row insert needs about this much of the CPU that a usual transaction does. */
const SMALL_CPU_SHARE = 0.15;
/** A transaction with joins and foreign keys takes some twenty times the CPU of a one-row write. */
const COMPLEX_CPU_FACTOR = SMALL_CPU_SHARE * 20;
const COMPLEX_WAL_FACTOR = 3;
const MORE_REPLICAS_FACTOR = 4;

/** What the shape of a workload does to the four: the same server, other transactions. */
export function shapesOf(inputs: ModelInputs): readonly Shape[] {
  const { cpuMsPerTransaction, walRecordsPerTransaction, walBytesPerTransaction, replicas } = inputs;
  const smallCpuMs = cpuMsPerTransaction * SMALL_CPU_SHARE;
  return [
    { name: 'as given', change: '', inputs },
    {
      name: 'small inserts',
      change: `CPU × ${SMALL_CPU_SHARE}`,
      inputs: { ...inputs, cpuMsPerTransaction: smallCpuMs },
    },
    {
      name: 'joins and foreign keys',
      change: `CPU × ${COMPLEX_CPU_FACTOR}, WAL × ${COMPLEX_WAL_FACTOR}`,
      inputs: {
        ...inputs,
        cpuMsPerTransaction: cpuMsPerTransaction * COMPLEX_CPU_FACTOR,
        walRecordsPerTransaction: walRecordsPerTransaction * COMPLEX_WAL_FACTOR,
        walBytesPerTransaction: walBytesPerTransaction * COMPLEX_WAL_FACTOR,
      },
    },
    {
      name: 'many replicas, skinny records',
      change: `CPU × ${SMALL_CPU_SHARE}, replicas × ${MORE_REPLICAS_FACTOR}`,
      inputs: { ...inputs, cpuMsPerTransaction: smallCpuMs, replicas: replicas * MORE_REPLICAS_FACTOR },
    },
  ];
}

export type Standing = 'far' | 'in sight' | 'at the wall' | 'beyond';

/** Above this share of the ceiling a rate is no longer far from it: its peaks and its growth have to be watched. */
const IN_SIGHT_SHARE = 0.2;
/** The four take from one another, so that a server tips over before the smallest; and latency rises before that. */
const USABLE_SHARE = 0.7;

export interface Place {
  readonly rate: number;
  readonly shareOfCeiling: number;
  readonly standing: Standing;
  /** Primaries of this kind that the rate needs, each filled to USABLE_SHARE. */
  readonly primaries: number;
}

export function placeOf(rate: number, ceilings: Ceilings): Place {
  assert(rate > 0, 'a rate is above 0');
  const shareOfCeiling = rate / ceilings.binding.perSecond;
  return {
    rate,
    shareOfCeiling,
    standing: standingOf(shareOfCeiling),
    primaries: Math.max(1, Math.ceil(shareOfCeiling / USABLE_SHARE)),
  };
}

function standingOf(share: number): Standing {
  if (share > 1) return 'beyond';
  if (share > USABLE_SHARE) return 'at the wall';
  return share > IN_SIGHT_SHARE ? 'in sight' : 'far';
}

/** Two or three digits that count. */
export function formatNumber(value: number): string {
  return String(Number(value.toPrecision(3)));
}

/** Three digits that count, in thousands. */
export function formatCount(value: number): string {
  return Math.round(Number(value.toPrecision(3))).toLocaleString('en-US');
}

/** One measured point: throughput, latency, and CPU time per transaction of each process that took part. */
import { LoadGenerator } from '../../src/wall/generator.ts';
import { machineShares, processTreeCpuSeconds, sampleMachine } from '../../src/wall/machine.ts';
import type { Workload } from '../../src/wall/workload.ts';

export interface Endpoint {
  readonly name: string;
  readonly port: number;
  readonly user: string;
  readonly password: string | undefined;
  readonly database: string;
  /** Processes whose CPU is counted, by what they are called in the result. A postmaster's includes its children's. */
  readonly pids: Readonly<Record<string, number>>;
}

export interface Point {
  readonly endpoint: string;
  readonly workload: string;
  readonly protocol: string;
  readonly clients: number;
  readonly tps: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly errors: Readonly<Record<string, number>>;
  /** Microseconds of CPU per transaction. */
  readonly cpuUs: Readonly<Record<string, number>>;
  /** Share of the machine's time that the hypervisor gave to others. */
  readonly steal: number;
  readonly clientBound: boolean;
}

/** Points with more steal than this say nothing and are measured again, or left out. */
export const STEAL_MAX = 0.06;

export async function measurePoint(options: {
  endpoint: Endpoint;
  workload: Workload;
  protocol: 'simple' | 'extended' | 'prepared';
  clients: number;
  warmupMs: number;
  windowMs: number;
}): Promise<Point> {
  const { endpoint, workload, protocol, clients } = options;
  const generator = new LoadGenerator({
    target: {
      host: '127.0.0.1',
      port: endpoint.port,
      user: endpoint.user,
      password: endpoint.password,
      database: endpoint.database,
      parameters: [],
      tls: undefined,
      connectTimeoutMs: 10_000,
    },
    workload,
    protocol,
    schema: '',
    workers: 1,
  });
  const cpu = (): Record<string, number> =>
    Object.fromEntries(
      Object.entries(endpoint.pids).map(([name, pid]) => [name, processTreeCpuSeconds(pid) ?? 0]),
    );
  let before: Record<string, number> = {};
  let after: Record<string, number> = {};
  let machineBefore: ReturnType<typeof sampleMachine>;
  let machineAfter: ReturnType<typeof sampleMachine>;
  try {
    const result = await generator.measurePoint({
      clients,
      warmupMs: options.warmupMs,
      windowMs: options.windowMs,
      onOpen: () => {
        before = cpu();
        machineBefore = sampleMachine();
      },
      onClose: () => {
        after = cpu();
        machineAfter = sampleMachine();
      },
    });
    const transactions = result.transactionsPerSecond * result.seconds;
    const cpuUs: Record<string, number> = {
      generator: (result.cpuShare * result.seconds * 1e6) / transactions,
    };
    for (const name of Object.keys(after))
      cpuUs[name] = ((after[name]! - before[name]!) * 1e6) / transactions;
    return {
      endpoint: endpoint.name,
      workload: workload.name,
      protocol,
      clients,
      tps: result.transactionsPerSecond,
      p50Ms: result.latencies.percentileMs(0.5),
      p99Ms: result.latencies.percentileMs(0.99),
      errors: Object.fromEntries(result.errors),
      cpuUs,
      steal: machineShares(machineBefore, machineAfter)?.stealShare ?? 0,
      clientBound: result.clientBound,
    };
  } finally {
    await generator.close();
  }
}

/** The median; NaN of nothing. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export function describePoint(point: Point): string {
  const cpu = Object.entries(point.cpuUs)
    .map(([name, us]) => `${name} ${us.toFixed(1)}`)
    .join(', ');
  const errors = Object.entries(point.errors).map(([code, count]) => `${code}×${count}`);
  return [
    `${point.endpoint.padEnd(14)} ${point.workload} ${point.protocol.padEnd(8)} clients=${String(point.clients).padStart(4)}`,
    `tps=${point.tps.toFixed(0).padStart(7)}  p50=${point.p50Ms.toFixed(2).padStart(7)} ms  p99=${point.p99Ms.toFixed(2).padStart(7)} ms`,
    `CPU µs: ${cpu}  steal ${(point.steal * 100).toFixed(1)}%`,
    ...(point.clientBound ? ['(client-bound)'] : []),
    ...(errors.length > 0 ? [errors.join(' ')] : []),
  ].join('  ');
}

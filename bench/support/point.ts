/** One measured point: throughput, latency, and CPU time per transaction of each process that took part. */
import { LoadGenerator } from '../../src/wall/load/generator.ts';
import type { Protocol } from '../../src/wall/load/transaction-template.ts';
import type { Workload } from '../../src/wall/workload/workload.ts';
import { type CountedPids, ObservedWindow } from './window.ts';

/** Where clients connect. Everybody is trusted there: a bench measures statements, not logins. */
export interface Endpoint {
  readonly name: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  /** A postmaster's includes its children's. */
  readonly pids: CountedPids;
}

export interface Figures {
  readonly tool: 'generator' | 'pgbench' | 'client';
  readonly workload: string;
  readonly protocol: Protocol;
  readonly clients: number;
  /** Transactions a second that succeeded. */
  readonly tps: number;
  readonly failedPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** How many failed, by SQLSTATE. */
  readonly errors: Readonly<Record<string, number>>;
  /** Microseconds of CPU per transaction answered, by process. */
  readonly cpuUs: Readonly<Record<string, number>>;
  readonly steal: number;
  readonly others: number;
  readonly clientBound: boolean;
  /** What `tps` counts if it is no transactions; then `cpuUs` is for one of these. */
  readonly unit?: string;
  /** Resident memory of the router for each of the idle clients that are connected to it beside. */
  readonly idleClientBytes?: number;
}

/** Figures with their place in the run. */
export interface Point extends Figures {
  readonly cell: string;
  readonly endpoint: string;
  readonly round: number;
}

export interface Load {
  readonly workload: Workload;
  readonly protocol: Protocol;
  readonly clients: number;
  readonly warmupMs: number;
  readonly windowMs: number;
}

const CONNECT_TIMEOUT_MS = 15_000;

/**
 * Keeps one generator, which is one thread, for each endpoint, workload and protocol: its code stays warm from round to
 * round, and no round measures the start of a thread.
 */
export class Generators {
  private readonly kept = new Map<string, LoadGenerator>();

  async measure(endpoint: Endpoint, load: Load, onOpen?: () => void): Promise<Figures> {
    const { workload, protocol, clients, warmupMs, windowMs } = load;
    const window = new ObservedWindow(endpoint.pids);
    const result = await this.generator(endpoint, load).measurePoint({
      clients,
      warmupMs,
      windowMs,
      onOpen: () => {
        window.open();
        onOpen?.();
      },
      onClose: () => window.close(),
    });
    const { cpuSeconds, steal, others } = window.circumstances();
    const failed = [...result.errors.values()].reduce((sum, count) => sum + count, 0);
    const answered = result.transactionsPerSecond * result.seconds + failed;
    const spent = { ...cpuSeconds, client: result.cpuShare * result.seconds };
    return {
      tool: 'generator',
      workload: workload.name,
      protocol,
      clients,
      tps: result.transactionsPerSecond,
      failedPerSecond: failed / result.seconds,
      p50Ms: result.latencies.percentileMs(0.5),
      p99Ms: result.latencies.percentileMs(0.99),
      errors: Object.fromEntries(result.errors),
      cpuUs: perTransaction(spent, answered),
      steal,
      others,
      clientBound: result.clientBound,
    };
  }

  async close(): Promise<void> {
    await Promise.all([...this.kept.values()].map((generator) => generator.close()));
    this.kept.clear();
  }

  private generator(endpoint: Endpoint, { workload, protocol }: Load): LoadGenerator {
    const key = `${endpoint.port} ${workload.name} ${protocol}`;
    let found = this.kept.get(key);
    if (found === undefined) {
      found = new LoadGenerator({
        target: {
          host: '127.0.0.1',
          port: endpoint.port,
          user: endpoint.user,
          password: undefined,
          database: endpoint.database,
          parameters: [],
          tls: undefined,
          connectTimeoutMs: CONNECT_TIMEOUT_MS,
        },
        workload,
        protocol,
        schema: '',
        workers: 1,
      });
      this.kept.set(key, found);
    }
    return found;
  }
}

/** Microseconds each, from seconds in all. */
export function perTransaction(
  cpuSeconds: Readonly<Record<string, number>>,
  transactions: number,
): Record<string, number> {
  return Object.fromEntries(
    Object.entries(cpuSeconds).map(([name, seconds]) => [name, (seconds * 1e6) / Math.max(1, transactions)]),
  );
}

export function describePoint(point: Point): string {
  const cpu = Object.entries(point.cpuUs)
    .map(([name, us]) => `${name} ${us.toFixed(0)}`)
    .join(', ');
  const errors = Object.entries(point.errors).map(([code, count]) => `${code}×${count}`);
  return [
    `${point.cell.padEnd(22)} ${point.endpoint.padEnd(18)} ${point.unit ?? 'tps'}=${point.tps.toFixed(0).padStart(6)}`,
    `p50=${point.p50Ms.toFixed(2).padStart(6)}  p99=${point.p99Ms.toFixed(2).padStart(7)} ms`,
    `CPU µs: ${cpu}`,
    `steal ${percent(point.steal)}, others ${percent(point.others)}`,
    ...(point.clientBound ? ['(client-bound)'] : []),
    ...(errors.length > 0 ? [errors.join(' ')] : []),
  ].join('  ');
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)}%`;
}

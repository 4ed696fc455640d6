/** The points as CSV (RFC 4180), a line each in the order in which they were measured. Pure. */
import type { SweepPoint } from '../measure/sweep.ts';
import type { ReportCurve } from './report.ts';

const COLUMNS: readonly (readonly [string, (point: SweepPoint) => string | number | undefined])[] = [
  ['purpose', (point) => point.purpose],
  ['clients', (point) => point.clients],
  ['arrivals_per_second', (point) => point.openLoop?.rate],
  ['tps', (point) => point.tps],
  ['tps_plus_minus', (point) => point.tpsPlusMinus],
  ['void', (point) => point.voidReasons?.join(' ')],
  ['p50_ms', (point) => point.p50Ms],
  ['p95_ms', (point) => point.p95Ms],
  ['p99_ms', (point) => point.p99Ms],
  ['max_ms', (point) => point.maxMs],
  ['mean_ms', (point) => point.meanMs],
  ['transactions', (point) => point.transactions],
  ['seconds', (point) => point.seconds],
  ['errors', (point) => Object.values(point.errors).reduce((sum, count) => sum + count, 0)],
  ['late', (point) => point.openLoop?.late],
  ['missed', (point) => point.openLoop?.missed],
  ['generator_cores', (point) => point.generatorCpuShare],
  ['loop_lag_p99_ms', (point) => point.loopLagP99Ms],
  ['machine_busy_share', (point) => point.machineBusyShare],
  ['steal_share', (point) => point.stealShare],
  ['server_cpu_ms_per_transaction', (point) => point.cpuMsPerTransaction.server],
  ['checkpoints', (point) => point.checkpoints],
  ['wal_bytes_per_transaction', (point) => point.walBytesPerTransaction],
  ['full_page_image_share', (point) => point.fullPageImageShare],
];

export function reportCsv(curves: readonly ReportCurve[]): string {
  const head = ['curve', ...COLUMNS.map(([name]) => name)];
  const lines = curves.flatMap(({ label, result }) =>
    result.points.map((point) => [label, ...COLUMNS.map(([, of]) => of(point))]),
  );
  return [head, ...lines].map((fields) => `${fields.map(field).join(',')}\r\n`).join('');
}

function field(value: string | number | undefined): string {
  const text = value === undefined ? '' : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** What a watch sees, for Prometheus: one registry, and an HTTP server with /metrics alone. */
import { Gauge, Registry } from 'prom-client';
import { HttpEndpoints } from '../../platform/http-endpoints.ts';
import { type Ages, type Reading, SYMPTOM_NAMES } from './symptoms.ts';

export class WatchMetrics {
  private readonly registry = new Registry();
  private readonly server = new HttpEndpoints({
    '/metrics': async () => ({
      ...{ status: 200, contentType: this.registry.contentType, body: await this.registry.metrics() },
    }),
  });
  private readonly up = this.gauge('postern_wall_up', 'Whether the last look at the server succeeded.');
  private readonly symptom = this.gauge(
    'postern_wall_symptom',
    'Whether a symptom is present; absent from the list while it is unknown.',
    ['symptom'],
  );
  private readonly atWall = this.gauge('postern_wall_at_wall', 'Whether all four symptoms are present.');
  private readonly writes = this.gauge(
    'postern_wall_writes_per_second',
    'Transactions that write, a second.',
  );
  private readonly distance = this.gauge('postern_wall_distance', 'Writes a second over the measured wall.');
  private readonly cpu = this.gauge('postern_wall_cpu_share', 'Use of the processors, from 0 to 1.');
  private readonly age: Gauge<'quantile'> = this.gauge(
    'postern_wall_write_age_seconds',
    'Ages of write statements under way.',
    ['quantile'],
  );
  private readonly calmAge: Gauge<'quantile'> = this.gauge(
    'postern_wall_calm_write_age_seconds',
    'What the ages are held against: how old they were, or at most were, when it was calm.',
    ['quantile'],
  );
  private readonly waiters = this.gauge(
    'postern_wall_wal_waiter_share',
    'Write statements that wait for WAL to be written, flushed or confirmed.',
  );
  private readonly lag = this.gauge('postern_wall_lag_bytes', 'Of the standby that is furthest behind.', [
    'standby',
  ]);
  private readonly cost = this.gauge('postern_wall_probe_seconds', 'What one look took, on average.');

  /** `reading` undefined: the server could not be asked. */
  show(reading: Reading | undefined, extra: { distance: number | undefined; lookSeconds: number }): void {
    this.up.set(reading === undefined ? 0 : 1);
    for (const each of [this.symptom, this.age, this.calmAge, this.lag]) each.reset();
    if (reading === undefined) return;
    for (const name of SYMPTOM_NAMES) {
      const { unknown, present } = reading.symptoms[name];
      if (unknown === undefined) this.symptom.set({ symptom: name }, present ? 1 : 0);
    }
    this.atWall.set(reading.verdict === 'wall' ? 1 : 0);
    setKnown(this.writes, reading.writesPerSecond);
    setKnown(this.distance, extra.distance);
    setKnown(this.cpu, reading.cpuShare);
    setKnown(this.waiters, reading.walWaiterShare);
    this.cost.set(extra.lookSeconds);
    setAges(this.age, reading.ages);
    setAges(this.calmAge, reading.calmAges);
    if (reading.worstLag !== undefined)
      this.lag.set({ standby: reading.worstLag.standby }, reading.worstLag.bytes);
  }

  /** Gives the port; rejects when it can't be listened on. */
  listen(host: string, port: number): Promise<number> {
    return this.server.listen(host, port);
  }

  close(): void {
    this.server.close();
  }

  private gauge<L extends string = never>(name: string, help: string, labelNames: L[] = []): Gauge<L> {
    return new Gauge({ name, help, labelNames, registers: [this.registry] });
  }
}

function setAges(gauge: Gauge<'quantile'>, ages: Ages | undefined): void {
  if (ages === undefined) return;
  gauge.set({ quantile: '0.5' }, ages.p50Ms / 1000);
  gauge.set({ quantile: '0.99' }, ages.p99Ms / 1000);
}

/** A gauge without labels keeps its last value otherwise; NaN is how Prometheus writes "not known". */
function setKnown(gauge: Gauge, value: number | undefined): void {
  gauge.set(value ?? Number.NaN);
}

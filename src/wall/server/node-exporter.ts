/**
 * The machine of a server elsewhere, as its Prometheus node_exporter tells it: CPU by core, disks, network interfaces. It
 * knows no processes, so the server's own share of the CPU isn't in it. Each sample is one HTTP request, bounded in time
 * and size; node_exporter takes some tens of milliseconds for it.
 * Source: node_exporter's metrics node_cpu_seconds_total, node_disk_*, node_network_*.
 */
import { MeasureError } from './measured-server.ts';
import type { CoreTimes, DiskCounters, InterfaceCounters, SystemProbe, SystemSample } from './system.ts';

const TIMEOUT_MS = 5_000;
const ANSWER_BYTES_MAX = 16 * 1024 * 1024;

export class NodeExporter implements SystemProbe {
  readonly unread = ['CPU of the server’s own processes (node_exporter counts the whole machine)'];
  private readonly url: string;

  private constructor(url: string) {
    this.url = url;
  }

  /** Asks once, so that a wrong address is told at the start. */
  static async open(url: string): Promise<NodeExporter> {
    let parsed: URL;
    try {
      parsed = new URL(url);
    } catch {
      throw new MeasureError(`"${url}" is no address of a node_exporter: it begins with http:// or https://`);
    }
    if (parsed.pathname === '/') parsed.pathname = '/metrics';
    const exporter = new NodeExporter(parsed.href);
    const { cores } = await exporter.sample();
    if (cores.length === 0) throw new MeasureError(`${url} tells nothing of CPUs (node_cpu_seconds_total)`);
    return exporter;
  }

  async sample(): Promise<SystemSample> {
    let text: string;
    try {
      const response = await fetch(this.url, { signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (!response.ok) throw new Error(`status ${response.status}`);
      text = await response.text();
    } catch (error) {
      const reason =
        error instanceof Error ? (error.cause instanceof Error ? error.cause.message : error.message) : '';
      throw new MeasureError(`the node_exporter at ${this.url} does not answer: ${reason}`, { cause: error });
    }
    if (text.length > ANSWER_BYTES_MAX) throw new MeasureError(`the answer of ${this.url} is too long`);
    return { atMs: performance.now(), ...parseNodeMetrics(text) };
  }
}

interface Metric {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** The text format of Prometheus, as far as it is needed here. */
function parseNodeMetrics(text: string): Omit<SystemSample, 'atMs'> {
  const metrics = new Map<string, Metric[]>();
  for (const [, name, labelText, value] of text.matchAll(/^(node_\w+)(?:\{([^}\n]*)\})? (\S+)/gm)) {
    const labels = Object.fromEntries(
      [...(labelText ?? '').matchAll(/(\w+)="([^"]*)"/g)].map(([, label, content]) => [label!, content!]),
    );
    const known = metrics.get(name!);
    if (known) known.push({ labels, value: Number(value) });
    else metrics.set(name!, [{ labels, value: Number(value) }]);
  }
  return {
    cores: coresOf(metrics.get('node_cpu_seconds_total') ?? []),
    serverCpuSeconds: undefined,
    processCpuSeconds: {},
    coreLimit: undefined,
    throttledSeconds: undefined,
    disk: busiestDisk(metrics),
    interfaces: interfacesOf(metrics),
  };
}

function coresOf(metrics: readonly Metric[]): CoreTimes[] {
  const cores = new Map<string, { busySeconds: number; stealSeconds: number; idleSeconds: number }>();
  for (const { labels, value } of metrics) {
    const cpu = labels.cpu ?? '';
    const core = cores.get(cpu) ?? { busySeconds: 0, stealSeconds: 0, idleSeconds: 0 };
    cores.set(cpu, core);
    if (labels.mode === 'idle' || labels.mode === 'iowait') core.idleSeconds += value;
    else if (labels.mode === 'steal') core.stealSeconds += value;
    else core.busySeconds += value;
  }
  return [...cores.values()];
}

/** Which disk holds the WAL isn't known from here: the one that has written most. */
function busiestDisk(metrics: ReadonlyMap<string, readonly Metric[]>): DiskCounters | undefined {
  const of = (name: string, device: string): number =>
    metrics.get(name)?.find(({ labels }) => labels.device === device)?.value ?? 0;
  const written = [...(metrics.get('node_disk_written_bytes_total') ?? [])].sort(
    (a, b) => b.value - a.value,
  )[0];
  const device = written?.labels.device;
  if (written === undefined || device === undefined) return undefined;
  return {
    name: device,
    writes: of('node_disk_writes_completed_total', device),
    writtenBytes: written.value,
    busySeconds: of('node_disk_io_time_seconds_total', device),
  };
}

function interfacesOf(metrics: ReadonlyMap<string, readonly Metric[]>): InterfaceCounters[] {
  return (metrics.get('node_network_transmit_bytes_total') ?? []).map(({ labels, value }) => {
    const speed = metrics
      .get('node_network_speed_bytes')
      ?.find((each) => each.labels.device === labels.device)?.value;
    return {
      name: labels.device ?? '',
      sentBytes: value,
      linkBitsPerSecond: speed !== undefined && speed > 0 ? speed * 8 : undefined,
    };
  });
}

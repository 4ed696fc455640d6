import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NodeExporter } from './node-exporter.ts';
import { systemUse } from './system.ts';

/** As node_exporter 1.8 writes it, cut to what is read here and some that is not. */
const metrics = (
  seconds: number,
): string => `# HELP node_cpu_seconds_total Seconds the CPUs spent in each mode.
# TYPE node_cpu_seconds_total counter
node_cpu_seconds_total{cpu="0",mode="idle"} ${100 + seconds * 0.25}
node_cpu_seconds_total{cpu="0",mode="iowait"} 1
node_cpu_seconds_total{cpu="0",mode="user"} ${50 + seconds * 0.5}
node_cpu_seconds_total{cpu="0",mode="steal"} ${seconds * 0.25}
node_disk_written_bytes_total{device="sda"} 1.5e+06
node_disk_written_bytes_total{device="sdb"} 12
node_disk_writes_completed_total{device="sda"} 100
node_disk_io_time_seconds_total{device="sda"} 3.5
node_network_speed_bytes{device="eth0"} 1.25e+08
node_network_speed_bytes{device="veth1"} -125000
node_network_transmit_bytes_total{device="eth0"} ${seconds * 1000}
node_network_transmit_bytes_total{device="veth1"} 5
node_uname_info{machine="x86_64",sysname="Linux"} 1
`;

describe('NodeExporter', () => {
  let server: Server;
  let seconds = 0;
  beforeAll(async () => {
    server = createServer((request, response) => {
      response.statusCode = request.url === '/metrics' ? 200 : 404;
      response.end(request.url === '/metrics' ? metrics(seconds) : '');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  });
  afterAll(() => {
    server.close();
  });
  const url = (path = ''): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`;

  it('tells what a machine did between two samples', async () => {
    const exporter = await NodeExporter.open(url());
    const before = await exporter.sample();
    seconds = 8;
    const use = systemUse({ ...before, atMs: 0 }, { ...(await exporter.sample()), atMs: 8000 })!;
    expect(use).toMatchObject({ cores: 1, busyCores: 0.5, stealCores: 0.25, serverCores: undefined });
    expect(use.disk).toMatchObject({ name: 'sda', writesPerSecond: 0 });
    expect(use.interfaces).toEqual([
      { name: 'eth0', sentBytesPerSecond: 1000, linkBitsPerSecond: 1e9 },
      { name: 'veth1', sentBytesPerSecond: 0, linkBitsPerSecond: undefined },
    ]);
  });

  it.each([
    ['nonsense', /begins with http/],
    ['http://127.0.0.1:1/metrics', /does not answer/],
  ])('refuses %s', async (address, message) => {
    await expect(NodeExporter.open(address)).rejects.toThrow(message);
  });

  it('refuses an address with something else behind it', async () => {
    await expect(NodeExporter.open(url('/other'))).rejects.toThrow(/status 404/);
  });
});

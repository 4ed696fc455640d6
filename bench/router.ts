/**
 * Direct against the router, before one server: durable one-row inserts by 1, 8 and 64 clients, prepared. The router once
 * as it comes (commits merged) and once passing every write on by itself. Interleaved, medians of the rounds' ratios.
 *
 *   npm run bench:router -- [--quick] [--json FILE]
 */
import { startTestServer } from '../test/support/servers.ts';
import { eventsWorkload, withSchema } from '../src/wall/workload.ts';
import { benchArguments } from './support/arguments.ts';
import { startPostern } from './support/child.ts';
import { describePoint, type Endpoint, measurePoint, median, type Point, STEAL_MAX } from './support/point.ts';
import { printRatios, writeResult } from './support/result.ts';

const { quick, json } = benchArguments();
const rounds = quick ? 3 : 7;
const windowMs = quick ? 2_000 : 5_000;
const clientCounts = [1, 8, 64];

const server = await startTestServer({ durable: true, settings: { shared_buffers: '256MB' } });
const workload = eventsWorkload();
for (const statement of workload.setup) await server.query(withSchema(statement, ''));
const merging = await startPostern({ args: ['front', server.dsn()] });
const passing = await startPostern({ args: ['front', server.dsn(), '--no-coalesce'] });
const points: Point[] = [];
try {
  const login = { user: 'postgres', password: undefined, database: 'postgres' };
  const endpoints: readonly Endpoint[] = [
    { name: 'direct', port: server.port, ...login, pids: { server: server.pid } },
    { name: 'router', port: merging.port, ...login, pids: { server: server.pid, router: merging.pid } },
    { name: 'router, alone', port: passing.port, ...login, pids: { server: server.pid, router: passing.pid } },
  ];
  for (let round = 0; round < rounds; round++) {
    for (const clients of clientCounts) {
      // A-B-C, then C-B-A: a drift of the machine weighs on all alike.
      for (const endpoint of round % 2 === 0 ? endpoints : [...endpoints].reverse()) {
        const point = await measurePoint({
          endpoint,
          workload,
          protocol: 'prepared',
          clients,
          warmupMs: 500,
          windowMs,
        });
        console.log(describePoint(point));
        points.push(point);
      }
    }
  }
} finally {
  await merging.stop();
  await passing.stop();
  await server.stop();
}

const valid = points.filter((point) => point.steal <= STEAL_MAX);
const of = (endpoint: string, clients: number, figure: (point: Point) => number): number =>
  median(valid.filter((p) => p.endpoint === endpoint && p.clients === clients).map(figure));
const ratios: Record<string, number> = {};
for (const clients of clientCounts) {
  const direct = of('direct', clients, (p) => p.tps);
  ratios[`tps_${clients}`] = of('router', clients, (p) => p.tps) / direct;
  ratios[`tps_alone_${clients}`] = of('router, alone', clients, (p) => p.tps) / direct;
  ratios[`router_cpu_us_${clients}`] = of('router', clients, (p) => p.cpuUs.router!);
  ratios[`router_alone_cpu_us_${clients}`] = of('router, alone', clients, (p) => p.cpuUs.router!);
}
ratios.added_us_1 =
  (of('router', 1, (p) => p.p50Ms) - of('direct', 1, (p) => p.p50Ms)) * 1000;
ratios.added_us_1_alone =
  (of('router, alone', 1, (p) => p.p50Ms) - of('direct', 1, (p) => p.p50Ms)) * 1000;
printRatios(ratios);
const left = points.length - valid.length;
writeResult(json, {
  bench: 'router',
  ratios,
  points,
  notes: left > 0 ? [`${left} points left out: more than ${STEAL_MAX * 100}% of the machine was taken by others`] : [],
});

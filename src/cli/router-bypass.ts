/** Has one process of the router tell of logins at its nodes that go round the routers (doctor/bypass-watch.ts). */
import { BypassWatch } from '../doctor/bypass-watch.ts';
import type { Log } from '../observe/log.ts';
import type { MetricSamples } from '../observe/metric-samples.ts';
import { parseDsn } from '../pg/dsn.ts';
import type { ControlConnection, ControlConnectionOptions } from '../platform/control-connection.ts';
import type { BypassOptions } from './config-bypass.ts';
import type { ReloadPart } from './router-reload.ts';
import { workerPlace } from './worker-side.ts';

const LIMITS = {
  ...{ applicationName: 'postern bypass', connectTimeoutMs: 3_000 },
  ...{ statementTimeoutMs: 5_000, lockTimeoutMs: 1_000 },
};

export interface RouterBypass extends ReloadPart {
  addMetrics(samples: MetricSamples): void;
  stop(): Promise<void>;
}

export function watchBypass(parts: {
  readonly options: BypassOptions | undefined;
  readonly clusterId: string;
  readonly homeNodeId: number;
  readonly nodes: readonly { readonly id: number; readonly name: string; readonly dsn: string }[];
  readonly connect: (nodeId: number, limits: Partial<ControlConnectionOptions>) => Promise<ControlConnection>;
  readonly log: Log;
}): RouterBypass {
  const { options, clusterId, homeNodeId, log } = parts;
  const watch = new BypassWatch({
    ...{ clusterId, homeNodeId, allowed: options?.allowed ?? [], everyMs: options?.everyMs },
    nodes: parts.nodes.map(({ id, name, dsn }) => ({ id, name, controlRole: parseDsn(dsn).user })),
    open: (nodeId) => parts.connect(nodeId, LIMITS),
    tell: ({ node, role, address, applicationName }) =>
      log.warn(`role "${role}" has logged in at node "${node}" round the routers`, {
        ...{ node, role, address: address ?? 'a Unix socket', application_name: applicationName },
        hint: 'Have it connect to a router; or, if it belongs there, name its role in bypass.allow.',
      }),
  });
  // One process for the router, whatever the number of its workers.
  const watches = (workerPlace()?.index ?? 0) === 0;
  if (watches) watch.start();
  return {
    keys: ['bypass'],
    reload: ({ bypass }) => watch.reload(bypass?.allowed ?? []),
    addMetrics: (samples) => {
      if (watches) samples.set('postern_bypass_logins_total', watch.counters.logins);
    },
    stop: () => watch.stop(),
  };
}

/**
 * /metrics, /healthz and /readyz of a router, whatever the number of its processes: served by the first one, which asks the others
 * (Workers.ask), or by the router itself where there is one process alone. docs/reference/http.md
 */
import { AggregatorRegistry, Registry } from 'prom-client';
import { CounterMemory } from '../observe/counter-memory.ts';
import { MetricSamples } from '../observe/metric-samples.ts';
import { HttpEndpoints } from '../platform/http-endpoints.ts';
import { cannotListen } from './cannot-listen.ts';
import { addProcessMetrics } from './process-metrics.ts';
import { readiness, type ServingState } from './readiness.ts';
import type { Answers, Question } from './router-status.ts';

export interface HttpSource {
  state(): ServingState;
  /** So many workers there should be. */
  readonly expected: number;
  /** Of each process that answers in time. */
  ask<K extends Question>(what: K): Promise<readonly Answers[K][]>;
}

/** Rejects with a PosternError when the port can't be had. `isFirst`: the process that serves this is no worker. */
export async function startHttp(options: {
  readonly address: { readonly host: string; readonly port: number };
  readonly source: HttpSource;
  readonly isFirst: boolean;
}): Promise<{ readonly port: number; close(): void }> {
  const { address, source, isFirst } = options;
  const memory = new CounterMemory();
  const endpoints = new HttpEndpoints({
    '/healthz': async () => json(200, { alive: true }),
    '/readyz': async () => {
      const body = readiness(source.state(), source.expected, await source.ask('status'));
      return json(body.ready ? 200 : 503, body);
    },
    '/metrics': async () => ({
      ...{ status: 200, contentType: Registry.PROMETHEUS_CONTENT_TYPE },
      body: await metricsText(source, { isFirst, memory }),
    }),
  });
  try {
    const port = await endpoints.listen(address.host, address.port);
    return { port, close: () => endpoints.close() };
  } catch (error) {
    throw cannotListen(address, error as NodeJS.ErrnoException, 'http.port or --metrics');
  }
}

async function metricsText(
  source: HttpSource,
  { isFirst, memory }: { readonly isFirst: boolean; readonly memory: CounterMemory },
): Promise<string> {
  const answers = await source.ask('metrics');
  const own = new MetricSamples();
  if (isFirst) addProcessMetrics(own, 'first');
  own.set('postern_workers', source.expected, { state: 'expected' });
  own.set('postern_workers', answers.length, { state: 'serving' });
  const all = [own.families(), ...memory.complete(answers)];
  return await AggregatorRegistry.aggregate(all as object[]).metrics();
}

function json(status: number, body: object) {
  return { status, contentType: 'application/json; charset=utf-8', body: `${JSON.stringify(body)}\n` };
}

/** What one process of a router answers when it is asked of itself (router-status.ts), from its parts. */
import { startHttp } from './http.ts';
import { type MeteredParts, routerMetrics } from './router-metrics.ts';
import type { Answers, NodeStatus, Question } from './router-status.ts';
import { version } from './version.ts';
import { workerPlace } from './worker-side.ts';

export interface AnsweringParts extends Omit<MeteredParts, 'worker' | 'map'> {
  readonly nodes: () => readonly NodeStatus[];
  readonly map: () => MeteredParts['map'];
}

export type Answer = <K extends Question>(what: K) => Answers[K];

export function routerAnswers(parts: AnsweringParts): Answer {
  const worker = workerPlace()?.index ?? 0;
  const startedAt = new Date().toISOString();
  const answers: { readonly [K in Question]: () => Answers[K] } = {
    status: () => {
      const map = parts.map();
      return {
        ...{ worker, processId: process.pid, version: version(), startedAt },
        isDraining: parts.listener.isLeaving,
        clients: parts.listener.sessionCount,
        ...{ epoch: map?.epoch, mapAgeMs: map?.ageMs },
        slot: parts.register?.registration.slot ?? 0,
        nodes: parts.nodes(),
      };
    },
    metrics: () => ({
      process: `${process.pid} ${performance.timeOrigin}`,
      families: routerMetrics({ ...parts, worker, map: parts.map() }),
    }),
  };
  return (what) => answers[what]();
}

/** Of a router of one process, which has no first one that would do it. undefined: it is not asked for, or is the first one's. */
export async function ownHttp(
  address: { readonly host: string; readonly port: number } | undefined,
  answer: Answer,
): Promise<{ readonly port: number; close(): void } | undefined> {
  if (!address || workerPlace()) return undefined;
  return await startHttp({
    address,
    isFirst: false,
    source: { state: () => 'serving', expected: 1, ask: async (what) => [answer(what)] },
  });
}

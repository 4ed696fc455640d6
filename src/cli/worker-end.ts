/**
 * How a worker ends, as the first process tells it:
 *
 *   serving ──drain──▶ draining ──all clients have left, or the time is up──▶ ended
 *      │                 ▲ └─stop─▶ nothing is waited for any more
 *      │                 │ drain, or stop, while it hands over
 *      └──handOver──▶ handing over ──all sessions have gone, or the time is up──▶ ended
 *
 * Without the first process there is nobody to serve with: it ends at once.
 */

import type { AcceptedClient } from '../session/door.ts';
import type { HandedSession } from '../session/handover-form.ts';
import type { Router } from './router.ts';
import type { FromWorker, ToWorker } from './worker-messages.ts';
import { tell } from './worker-side.ts';

/** Resolves when all clients have left; the router is not closed yet. */
export function untilToldToEnd(router: Router): Promise<void> {
  const atOnce = new AbortController();
  let received: () => void = () => {};
  /** Resolves when the first process has it. */
  const send = (client: AcceptedClient, session: HandedSession): Promise<void> =>
    new Promise((resolve) => {
      const message: FromWorker = { kind: 'moved', session };
      received = resolve;
      process.send!(message, client, undefined, () => {
        // Sent, and no longer this process's: for whoever keeps count of it here, it is closed.
        client.destroy();
      });
    });
  return new Promise((resolve) => {
    const leaving: Promise<void>[] = [];
    const leave = (how: Parameters<Router['depart']>[0]): void => {
      leaving.push(router.depart({ ...how, atOnce: atOnce.signal }));
      const { length } = leaving;
      void Promise.all(leaving).then(() => length === leaving.length && resolve());
    };
    process.on('message', (message: ToWorker) => {
      switch (message?.kind) {
        case 'received':
          received();
          break;
        case 'stop':
          atOnce.abort();
          leave({ timeoutMs: 0 });
          break;
        case 'drain':
          leave({ timeoutMs: message.timeoutMs });
          break;
        case 'handOver': {
          const { moves, timeoutMs } = message;
          tell({ kind: 'leaving', ids: router.sessionIds() });
          leave({ timeoutMs, spareMs: timeoutMs / 2, send: moves ? send : undefined });
          break;
        }
      }
    });
  });
}

/**
 * In the first process: the places of the clients of all workers, so that limits are those of the router and not of each worker. A worker
 * asks for each client that has logged in, and says when it leaves; with a worker all of its clients leave.
 */
import type { AdmissionEffect, ClientLimits } from '../admission/client-admission.ts';
import { LocalOffice } from '../admission/office.ts';
import { BOUNDS } from '../base/bounds.ts';
import type { FromWorker } from './worker-messages.ts';

type Event = Extract<FromWorker, { kind: 'admission' }>['event'];

export class WorkerAdmission {
  readonly #office: LocalOffice;
  readonly #timer: NodeJS.Timeout;

  constructor(limits: ClientLimits, toWorker: (worker: number, effect: AdmissionEffect) => void) {
    this.#office = new LocalOffice(limits, () => performance.now());
    this.#office.onEffect = (effect) => {
      const at = effect.id.indexOf('/');
      toWorker(Number(effect.id.slice(0, at)), { ...effect, id: effect.id.slice(at + 1) });
    };
    this.#timer = setInterval(() => this.#office.tick(), BOUNDS.timeoutLookMs);
    this.#timer.unref();
  }

  onEvent(worker: number, event: Event): void {
    if (event.kind === 'leave') this.#office.tell({ kind: 'leave', id: `${worker}/${event.id}` });
    else {
      const client = { ...event.client, id: `${worker}/${event.client.id}` };
      // The clock is this process's.
      if (event.kind === 'arrive') this.#office.tell({ kind: 'arrive', client, atMs: performance.now() });
      else this.#office.tell({ kind: 'adopt', client });
    }
  }

  onWorkerEnded(worker: number): void {
    this.#office.leaveAll(`${worker}/`);
  }

  reload(limits: ClientLimits): void {
    this.#office.reload(limits);
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

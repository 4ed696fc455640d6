/** The decisions about clients, with a clock: for one process, or for all of them in the first. */
import {
  type AdmissionEffect,
  type AdmissionEvent,
  type AdmissionState,
  admissionStart,
  admissionStep,
  type ClientLimits,
} from './client-admission.ts';

export class LocalOffice {
  onEffect: (effect: AdmissionEffect) => void = () => {};
  readonly #state: AdmissionState;
  readonly #now: () => number;

  constructor(limits: ClientLimits, now: () => number) {
    this.#state = admissionStart(limits);
    this.#now = now;
  }

  get insideCount(): number {
    return this.#state.inside.size;
  }

  get waitingCount(): number {
    return this.#state.waiting.size;
  }

  tell(event: AdmissionEvent): void {
    for (const effect of admissionStep(this.#state, event)) this.onEffect(effect);
  }

  reload(limits: ClientLimits): void {
    this.tell({ kind: 'reload', limits });
  }

  /** To be called some times a second. */
  tick(): void {
    if (this.#state.waiting.size > 0) this.tell({ kind: 'tick', atMs: this.#now() });
  }

  /** Those whose ids begin so are gone, all at once: their process has ended. */
  leaveAll(prefix: string): void {
    for (const id of [...this.#state.inside.keys(), ...this.#state.waiting.keys()])
      if (id.startsWith(prefix)) this.tell({ kind: 'leave', id });
  }
}

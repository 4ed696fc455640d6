/**
 * How a client that has logged in gets its place: it asks, and waits for the answer. The decisions are admission/client-admission.ts;
 * where they are made, here or in the first of several processes, is the office's business.
 *
 * Invariant: each place that was given is given back once.
 */
import type { AdmissionEffect, AdmissionEvent, Applicant, Refusal } from '../admission/client-admission.ts';
import { clientLimitReached } from '../base/errors.ts';

/** Where the decisions are made. */
export interface AdmissionOffice {
  tell(event: Extract<AdmissionEvent, { kind: 'arrive' | 'adopt' | 'leave' }>): void;
  /** Set by whoever asks: hears what becomes of those that have arrived. */
  onEffect: (effect: AdmissionEffect) => void;
}

/** A place among the clients. */
export interface Admitted {
  leave(): void;
}

type Who = Omit<Applicant, 'id'>;

interface Waiter {
  resolve(): void;
  reject(error: Error): void;
}

export class ClientAdmission {
  readonly counters = {
    admitted: 0,
    refusedForClients: 0,
    refusedForRole: 0,
    refusedForDatabase: 0,
    refusedForTenant: 0,
  };
  readonly #office: AdmissionOffice;
  readonly #now: () => number;
  readonly #waiting = new Map<string, Waiter>();
  #lastId = 0;

  constructor(office: AdmissionOffice, now: () => number) {
    this.#office = office;
    this.#now = now;
    office.onEffect = (effect) => this.#onEffect(effect);
  }

  /** Clients that wait for a place. */
  get waitingCount(): number {
    return this.#waiting.size;
  }

  /** Rejects with a PosternError (53300) when there is no place, or with `gone`'s reason when that is aborted. */
  async enter(who: Who, gone: AbortSignal): Promise<Admitted> {
    gone.throwIfAborted();
    const id = this.#newId();
    const answer = new Promise<void>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    this.#office.tell({ kind: 'arrive', client: { ...who, id }, atMs: this.#now() });
    const giveUp = (): void => {
      const waiter = this.#waiting.get(id);
      this.#waiting.delete(id);
      this.#office.tell({ kind: 'leave', id });
      waiter?.reject(gone.reason);
    };
    gone.addEventListener('abort', giveUp);
    try {
      await answer;
    } finally {
      gone.removeEventListener('abort', giveUp);
    }
    return this.#placeOf(id);
  }

  /** A client that was in already, in another process: it is counted and not asked. */
  adopt(who: Who): Admitted {
    const id = this.#newId();
    this.#office.tell({ kind: 'adopt', client: { ...who, id } });
    return this.#placeOf(id);
  }

  #newId(): string {
    return String(++this.#lastId);
  }

  #placeOf(id: string): Admitted {
    let isGivenBack = false;
    return {
      leave: () => {
        if (isGivenBack) return;
        isGivenBack = true;
        this.#office.tell({ kind: 'leave', id });
      },
    };
  }

  #onEffect(effect: AdmissionEffect): void {
    const waiter = this.#waiting.get(effect.id);
    // It has gone away while the answer was on its way, and has said so.
    if (!waiter) return;
    this.#waiting.delete(effect.id);
    if (effect.kind === 'admit') {
      this.counters.admitted++;
      waiter.resolve();
    } else {
      this.counters[COUNTERS[effect.refusal.limit]]++;
      waiter.reject(clientLimitReached(effect.refusal));
    }
  }
}

const COUNTERS = {
  clients: 'refusedForClients',
  role: 'refusedForRole',
  database: 'refusedForDatabase',
  tenant: 'refusedForTenant',
} as const satisfies Record<Refusal['limit'], keyof ClientAdmission['counters']>;

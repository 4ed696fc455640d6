/**
 * What bounds the clients of this process: places, which are counted here or, with several processes, in the first; time-outs; and the
 * limits of the pools. All of it can be changed while the router serves.
 */
import type { AdmissionEffect } from '../admission/client-admission.ts';
import { clientLimits, LIMITS, TIMEOUTS } from '../admission/limits.ts';
import { LocalOffice } from '../admission/office.ts';
import type { NodePool } from '../backend/pool.ts';
import { type AdmissionOffice, ClientAdmission } from '../session/client-admission.ts';
import type { DoorBounds, Listener } from '../session/listener.ts';
import { SessionTimeouts } from '../session/timeouts.ts';
import type { RouterOptions } from './router-options.ts';
import type { FromWorker, ToWorker } from './worker-messages.ts';
import { tell, type WorkerPlace } from './worker-side.ts';

type Given = Pick<RouterOptions, 'limits' | 'timeouts' | 'loginTimeoutMs' | 'acquireTimeoutMs'>;

export class RouterDoor {
  readonly bounds: DoorBounds;
  readonly #place: WorkerPlace | undefined;
  readonly #reservedRole: string | undefined;
  readonly #given: Given;
  /** undefined: places are counted in the first process. */
  readonly #office: LocalOffice | undefined;

  /** `reservedRole`: of the control path. */
  constructor(given: Given, options: { place: WorkerPlace | undefined; reservedRole: string | undefined }) {
    this.#given = given;
    this.#place = options.place;
    this.#reservedRole = options.reservedRole;
    const now = (): number => performance.now();
    const limits = given.limits ?? LIMITS;
    this.#office = options.place
      ? undefined
      : new LocalOffice(clientLimits(limits, options.reservedRole), now);
    this.bounds = {
      admission: new ClientAdmission(this.#office ?? new OfficeOfFirstProcess(), now),
      timeouts: new SessionTimeouts(given.timeouts ?? TIMEOUTS, now),
      ...this.#loginBounds(given),
      onLook: () => this.#office?.tick(),
    };
  }

  /** For a pool of the data path. */
  poolLimits(given: Given = this.#given): Parameters<NodePool['reload']>[0] {
    const timeouts = given.timeouts ?? TIMEOUTS;
    return {
      acquireTimeoutMs: this.#given.acquireTimeoutMs ?? timeouts.queue,
      limits: (given.limits ?? LIMITS).backends,
    };
  }

  reload(given: Given, of: { listener: Listener; pools: Iterable<NodePool> }): void {
    this.#office?.reload(clientLimits(given.limits ?? LIMITS, this.#reservedRole));
    this.bounds.timeouts.reload(given.timeouts ?? TIMEOUTS);
    of.listener.reload(this.#loginBounds(given));
    for (const pool of of.pools) pool.reload(this.poolLimits(given));
  }

  #loginBounds({ limits = LIMITS, timeouts = TIMEOUTS }: Given) {
    return {
      logins: {
        logins: Math.ceil(limits.logins / (this.#place?.count ?? 1)),
        loginsPerAddress: limits.loginsPerAddress,
      },
      loginTimeoutMs: this.#given.loginTimeoutMs ?? timeouts.login,
      keepAliveMs: timeouts.keepAlive,
    };
  }
}

/** In a worker: the decisions are the first process's, which counts for all. */
class OfficeOfFirstProcess implements AdmissionOffice {
  onEffect: (effect: AdmissionEffect) => void = () => {};

  constructor() {
    process.on('message', (message: ToWorker) => {
      if (message?.kind === 'admission') this.onEffect(message.effect);
    });
  }

  tell(event: Extract<FromWorker, { kind: 'admission' }>['event']): void {
    tell({ kind: 'admission', event });
  }
}

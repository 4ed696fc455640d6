/** What a measurement tells while it runs. */
import type { SkippedPoint, SweepPoint } from './sweep.ts';

export type ProgressEvent =
  | { readonly kind: 'preparing' | 'cleaning' }
  | { readonly kind: 'connecting'; readonly clients: number }
  | {
      readonly kind: 'running';
      readonly clients: number;
      readonly phase: 'warmup' | 'window';
      /** Since the phase began; `tps` is over this time. */
      readonly elapsedSeconds: number;
      readonly phaseSeconds: number;
      readonly tps: number;
    }
  /** `resumed`: taken over from an earlier measurement. */
  | { readonly kind: 'point'; readonly point: SweepPoint; readonly resumed?: boolean }
  | { readonly kind: 'skipped'; readonly skipped: SkippedPoint }
  /** A sentence for the log: what is done next, and why. */
  | { readonly kind: 'note'; readonly text: string };

/** Turns the count of confirmed transactions into 'running' events of the phase that is on. */
export class LiveRate {
  private readonly options: {
    clients: number;
    warmupSeconds: number;
    windowSeconds: number;
    tell: ((event: ProgressEvent) => void) | undefined;
  };
  private phase: 'warmup' | 'window' | undefined;
  private enteredAt = 0;
  private acknowledged = 0;
  private acknowledgedAtEntry = 0;

  constructor(options: LiveRate['options']) {
    this.options = options;
  }

  enter(phase: 'warmup' | 'window'): void {
    this.phase = phase;
    this.enteredAt = performance.now();
    this.acknowledgedAtEntry = this.acknowledged;
  }

  update(acknowledged: number): void {
    this.acknowledged = acknowledged;
    const { clients, warmupSeconds, windowSeconds, tell } = this.options;
    const elapsedSeconds = (performance.now() - this.enteredAt) / 1000;
    if (this.phase === undefined || elapsedSeconds <= 0) return;
    tell?.({
      kind: 'running',
      clients,
      phase: this.phase,
      elapsedSeconds,
      phaseSeconds: this.phase === 'warmup' ? warmupSeconds : windowSeconds,
      tps: (acknowledged - this.acknowledgedAtEntry) / elapsedSeconds,
    });
  }
}

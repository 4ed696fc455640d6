/**
 * The sweep as the terminal shows it: one line to each point, and in a terminal, below them, one line that is written
 * over and over while a point is measured. In a pipe or a log only whole lines appear.
 */
import { unreachable } from '../../base/assert.ts';
import type { ProgressEvent } from '../measure/progress.ts';
import type { SkippedPoint, SweepPoint } from '../measure/sweep.ts';

const ERASE_LINE = '\r\x1b[2K';

export function formatPoint(point: SweepPoint): string {
  return [formatRate(point), formatLatency('p50', point.p50Ms), formatLatency('p99', point.p99Ms)]
    .concat(interval(point), remarks(point))
    .join('  ');
}

function formatSkipped(skipped: SkippedPoint): string {
  return `clients=${pad(skipped.clients, 4)}  skipped: ${skipped.reason}`;
}

/** Writes a sweep's events to a terminal, or to whatever else takes text. */
export class WallTable {
  private readonly write: (text: string) => void;
  private readonly isTerminal: boolean;
  private liveLine = '';

  constructor(options: { write: (text: string) => void; isTerminal: boolean }) {
    this.write = options.write;
    this.isTerminal = options.isTerminal;
  }

  tell(event: ProgressEvent): void {
    switch (event.kind) {
      case 'preparing':
        this.live('preparing …');
        return;
      case 'connecting':
        this.live(`clients=${pad(event.clients, 4)}  connecting …`);
        return;
      case 'running':
        this.live(runningLine(event));
        return;
      case 'point':
        this.line(`${formatPoint(event.point)}${event.resumed === true ? '  (measured before)' : ''}`);
        return;
      case 'note':
        this.line(event.text);
        return;
      case 'skipped':
        this.line(formatSkipped(event.skipped));
        return;
      case 'cleaning':
        this.live('');
        return;
      default:
        unreachable(event);
    }
  }

  /** Takes the live line away, for whoever writes next: after an error or an interruption. */
  end(): void {
    this.live('');
  }

  private line(text: string): void {
    this.live('');
    this.write(`${text}\n`);
  }

  /** Shows what goes on until the next line. */
  live(text: string): void {
    if (!this.isTerminal || text === this.liveLine) return;
    this.liveLine = text;
    this.write(ERASE_LINE + text);
  }
}

function runningLine(event: ProgressEvent & { kind: 'running' }): string {
  const rate = formatRate(event);
  if (event.phase === 'warmup') return `${rate}  warming up …`;
  const done = Math.min(1, event.elapsedSeconds / event.phaseSeconds);
  return `${rate}  ${pad(Math.round(done * 100), 3)}% of ${event.phaseSeconds} s …`;
}

function formatRate(point: { clients: number; tps: number }): string {
  return `clients=${pad(point.clients, 4)}  tps=${pad(Math.round(point.tps), 10)}`;
}

/** Two decimals below 100 ms; from there on whole milliseconds, which are as telling and keep the column's width. */
function formatLatency(name: string, ms: number): string {
  return `${name}=${(ms < 100 ? ms.toFixed(2) : ms.toFixed(0)).padStart(5)} ms`;
}

/** Half of the 95% interval, as a share. */
function interval({ tps, tpsPlusMinus }: SweepPoint): string[] {
  return tpsPlusMinus === undefined || tps === 0 ? [] : [`±${((100 * tpsPlusMinus) / tps).toFixed(1)}%`];
}

const PURPOSE_TEXTS: Readonly<Partial<Record<NonNullable<SweepPoint['purpose']>, string>>> = {
  bisect: 'towards the knee',
  confirm: 'afresh',
  scale: 'closed loop, for scale',
};

function remarks(point: SweepPoint): string[] {
  const notes: string[] = [];
  const purpose = point.purpose === undefined ? undefined : PURPOSE_TEXTS[point.purpose];
  if (purpose !== undefined) notes.push(purpose);
  if (point.openLoop !== undefined) {
    const { rate, late, missed, offered } = point.openLoop;
    const share = (count: number): string => `${((100 * count) / Math.max(1, offered)).toFixed(1)}%`;
    const kept = point.keepsSlo === undefined ? '' : point.keepsSlo ? ', kept' : ', broken';
    notes.push(
      `at ${Math.round(rate)} arrivals a second: ${share(late)} late, ${share(missed)} missed${kept}`,
    );
  }
  const errors = Object.entries(point.errors);
  if (errors.length > 0)
    notes.push(`errors: ${errors.map(([state, count]) => `${count} × ${state}`).join(', ')}`);
  if (point.clientBound) {
    notes.push(
      `client-bound: the generator used ${point.generatorCpuShare.toFixed(1)} cores, the server could do more`,
    );
  }
  const voids = point.voidReasons?.filter((reason) => reason !== 'client-bound') ?? [];
  if (voids.length > 0) notes.push(`void: ${voids.join(', ')}`);
  return notes;
}

function pad(value: number, width: number): string {
  return String(value).padStart(width);
}

/**
 * Two sweeps side by side: the table that `postern up` prints, and what bound each curve, in sentences that say no more
 * than was measured. Pure.
 */
import type { SweepPoint } from '../wall/measure/sweep.ts';

/** From here on a machine's cores count as the limit: the rest is lost to switching between so many processes. */
const CORES_FULL_SHARE = 0.85;
/** Time that the host gave to other machines; below this it changes nothing that matters. */
const STEAL_NOTABLE_SHARE = 0.05;

/** When other programs take this much of a machine, the figures are as much theirs as ours. */
const OTHERS_NOTABLE_SHARE = 0.15;
/** Under this name a point's CPU times hold those of all processes that belong to `postern up`. */
export const ALL_PROCESSES = 'all';

export interface Machine {
  readonly cores: number;
  /** How many primaries the second sweep was spread over. */
  readonly primaries: number;
}

interface Row {
  readonly clients: number;
  readonly direct: SweepPoint | undefined;
  readonly routed: SweepPoint | undefined;
}

export function renderComparison(direct: readonly SweepPoint[], routed: readonly SweepPoint[]): string {
  const clients = [...new Set([...direct, ...routed].map((point) => point.clients))].sort((a, b) => a - b);
  const rows = clients.map(
    (count): Row => ({
      clients: count,
      direct: direct.find((point) => point.clients === count),
      routed: routed.find((point) => point.clients === count),
    }),
  );
  const lines = rows.map(
    (row) =>
      `clients=${String(row.clients).padStart(4)}  ${cell(row.direct)}  ${cell(row.routed)}  ${ratioCell(row.direct, row.routed)}`,
  );
  const best = `best          ${cell(bestPoint(direct))}  ${cell(bestPoint(routed))}  ${ratioCell(bestPoint(direct), bestPoint(routed))}`;
  const head = `              ${'one primary'.padStart(14)}  ${'Postern'.padStart(14)}  ${'ratio'.padStart(6)}`;
  return [head, ...lines, best].join('\n');
}

function cell(point: SweepPoint | undefined): string {
  return point === undefined ? ' '.repeat(14) : `tps=${Math.round(point.tps).toString().padStart(10)}`;
}

function ratioCell(direct: SweepPoint | undefined, routed: SweepPoint | undefined): string {
  if (direct === undefined || routed === undefined || direct.tps === 0) return ' '.repeat(6);
  return (routed.tps / direct.tps).toFixed(2).padStart(6);
}

function bestPoint(points: readonly SweepPoint[]): SweepPoint | undefined {
  return points.reduce<SweepPoint | undefined>(
    (best, point) => (best === undefined || point.tps > best.tps ? point : best),
    undefined,
  );
}

/** What bound each curve at its best point, and what to conclude. One paragraph. */
export function verdict(
  direct: readonly SweepPoint[],
  routed: readonly SweepPoint[],
  machine: Machine,
): string {
  const one = bestPoint(direct);
  const many = bestPoint(routed);
  if (one === undefined || many === undefined) return 'Too few points were measured to tell what bound them.';
  const sentences = [
    `One primary is best at ${one.clients} clients with ${count(one.tps)} durable writes a second: ${bound(one, machine)}.`,
    `Through Postern, over ${countOf(machine.primaries, 'primary', 'primaries')}, the best is ${count(many.tps)} at ${many.clients} clients, ${(many.tps / one.tps).toFixed(2)} times as many: ${bound(many, machine)}.`,
  ];
  if (isCoreBound(many)) {
    sentences.push(
      `All parts share this machine: the load generator, the router and all primaries. The nodes of a real cluster have cores of their own.`,
    );
  }
  const others = Math.max(othersShare(one, machine), othersShare(many, machine));
  if (others >= OTHERS_NOTABLE_SHARE) {
    sentences.push(
      `Other programs took ${percent(others)} of this machine meanwhile: the figures and their ratio are good only after a run with the machine at rest.`,
    );
  }
  return sentences.join(' ');
}

/** The part of the machine that was busy with none of our processes; 0 if unknown. */
function othersShare(point: SweepPoint, machine: Machine): number {
  const ownMs = point.cpuMsPerTransaction[ALL_PROCESSES];
  if (ownMs === undefined || point.machineBusyShare === undefined) return 0;
  return Math.max(0, point.machineBusyShare - (ownMs * point.tps) / 1000 / machine.cores);
}

/** Stolen time counts: it is only taken from a machine that wants to run. */
function isCoreBound(point: SweepPoint): boolean {
  return (point.machineBusyShare ?? 0) + (point.stealShare ?? 0) >= CORES_FULL_SHARE;
}

function bound(point: SweepPoint, machine: Machine): string {
  const generator = 'the load generator was the limit, so the servers can do more';
  if (point.machineBusyShare === undefined) {
    return point.clientBound ? generator : 'how busy the cores were is not known on this system';
  }
  const steal = point.stealShare ?? 0;
  const stolen =
    steal < STEAL_NOTABLE_SHARE ? '' : ` (and ${percent(steal)} taken by other machines of its host)`;
  const cores =
    machine.cores === 1
      ? 'the one core of this machine was'
      : `the ${machine.cores} cores of this machine were`;
  if (isCoreBound(point))
    return `${cores} ${percent(point.machineBusyShare)} busy${stolen}, which is the limit`;
  if (point.clientBound) return generator;
  return `${cores} only ${percent(point.machineBusyShare)} busy${stolen}, so the limit is a wait, not the processor`;
}

function percent(share: number): string {
  return `${Math.round(share * 100)}%`;
}

function count(tps: number): string {
  return Math.round(tps).toString();
}

export function countOf(many: number, one: string, more: string): string {
  return many === 1 ? `1 ${one}` : `${many} ${more}`;
}

/**
 * What one sweep says in a sentence, and no more than it can: where the figures stopped growing, or that they did not, and
 * whether client or machine were at their end. Naming the server's own bottleneck takes interventions, not a sweep.
 */
import type { SweepPoint, SweepResult } from './measure.ts';

/** A later point has to be this much above an earlier one to count as growth; below it is taken for noise. */
const GROWTH_SHARE = 0.05;
const MACHINE_BUSY_SHARE = 0.85;
const STEAL_SHARE = 0.05;

export function verdictOf(result: SweepResult): string {
  const { best, points } = result;
  if (best === undefined) return 'Nothing was measured.';
  const rate = `${formatTps(best.tps)} transactions a second`;
  const sentences: string[] = [];
  // The fewest clients that reach the best figure but for noise: from there on more clients only wait longer.
  const knee = points.find((point) => point.tps >= best.tps * (1 - GROWTH_SHARE)) ?? best;
  const most = points.reduce((a, b) => (b.clients > a.clients ? b : a));
  if (points.length > 1 && most.clients > knee.clients && !knee.clientBound) {
    sentences.push(
      `The wall is at about ${rate}, reached with ${counted(knee.clients)}; ${counted(most.clients)} gave ${formatTps(most.tps)}.`,
    );
  } else {
    sentences.push(`The wall was not reached: at least ${rate}, with ${counted(best.clients)}.`);
  }
  return sentences.concat(reasons(result, best)).join(' ');
}

function reasons(result: SweepResult, best: SweepPoint): string[] {
  const said: string[] = [];
  if (best.clientBound) said.push('The load generator itself was at its limit there.');
  if ((best.machineBusyShare ?? 0) >= MACHINE_BUSY_SHARE) {
    const cores = `${result.machine.cores} cores`;
    said.push(
      result.sharesMachine
        ? `The machine's ${cores} were ${percent(best.machineBusyShare)} busy, and the load generator took ${best.generatorCpuShare.toFixed(2)} of them: CPU is what ends it here.`
        : `The ${cores} of the generator's machine were ${percent(best.machineBusyShare)} busy: measure from a larger one.`,
    );
  }
  if ((best.stealShare ?? 0) >= STEAL_SHARE) {
    said.push(`The hypervisor took ${percent(best.stealShare)} of the CPU for others meanwhile.`);
  }
  const failed = Object.values(best.errors).reduce((sum, count) => sum + count, 0);
  if (failed > 0) said.push(`${failed} transactions failed in the best window.`);
  return said;
}

function formatTps(tps: number): string {
  return Math.round(tps).toLocaleString('en-US');
}

function percent(share: number | undefined): string {
  return `${Math.round((share ?? 0) * 100)}%`;
}

function counted(clients: number): string {
  return clients === 1 ? '1 client' : `${clients} clients`;
}

/**
 * The Universal Scalability Law, X(N) = λN / (1 + σ(N − 1) + κN(N − 1)), fitted to measured points (Gunther 2007): λ is what
 * one client does alone, σ the share that queues (contention), κ what clients cost each other (coherency).
 *
 * A diagnosis, and only within the points it was fitted to: fitted to the lower counts of published sweeps it foretells
 * plateaus that are half as high again as those measured. So nothing here is ever used to say where the wall is. Pure.
 */

export interface UslFit {
  /** λ: transactions a second of one client. */
  readonly perClient: number;
  /** σ */
  readonly contention: number;
  /** κ */
  readonly coherency: number;
  /** Where the fitted curve is highest; null: it has no peak (κ = 0). */
  readonly peakClients: number | null;
  /** The typical deviation of the points from the curve, as a share (root mean square). */
  readonly deviationShare: number;
}

interface UslPoint {
  readonly clients: number;
  readonly tps: number;
}

/** Three unknowns, and a point to contradict them. */
const POINTS_MIN = 4;

/**
 * Least squares of the relative deviation. N/X is linear in 1/λ, σ/λ and κ/λ, so each choice of which of σ and κ are zero has
 * a solution in closed form, and the best of those without a negative coefficient is the constrained optimum. Undefined
 * with fewer than four counts of clients.
 */
export function fitUsl(points: readonly UslPoint[]): UslFit | undefined {
  const usable = points.filter(({ tps }) => tps > 0);
  if (new Set(usable.map(({ clients }) => clients)).size < POINTS_MIN) return undefined;
  const fits = [[0], [0, 1], [0, 2], [0, 1, 2]].flatMap((terms) => {
    const fit = fitTerms(usable, terms);
    return fit === undefined ? [] : [fit];
  });
  return fits.sort((one, other) => one.squares - other.squares)[0]?.fit;
}

export function uslTps(fit: UslFit, clients: number): number {
  const { perClient, contention, coherency } = fit;
  return (perClient * clients) / (1 + contention * (clients - 1) + coherency * clients * (clients - 1));
}

const TERMS: readonly ((clients: number) => number)[] = [() => 1, (n) => n - 1, (n) => n * (n - 1)];

/** `squares`: what is minimized, the squared relative deviations of N/X. */
function fitTerms(
  points: readonly UslPoint[],
  terms: readonly number[],
): { fit: UslFit; squares: number } | undefined {
  // Each row is divided by N/X, so that all points weigh alike, as shares.
  const rows = points.map(({ clients, tps }) => terms.map((term) => (TERMS[term]!(clients) * tps) / clients));
  const normal = terms.map((_, i) => terms.map((__, j) => sumOf(rows.map((row) => row[i]! * row[j]!))));
  const right = terms.map((_, i) => sumOf(rows.map((row) => row[i]!)));
  const solved = solve(normal, right);
  if (solved === undefined || solved.some((value) => value < 0) || solved[0]! <= 0) return undefined;
  const coefficient = (term: number): number => solved[terms.indexOf(term)] ?? 0;
  const contention = coefficient(1) / coefficient(0);
  const coherency = coefficient(2) / coefficient(0);
  const fit = { perClient: 1 / coefficient(0), contention, coherency };
  const peakClients =
    coherency > 0 && contention < 1 ? Math.max(1, Math.sqrt((1 - contention) / coherency)) : null;
  const curve = { ...fit, peakClients, deviationShare: 0 };
  const deviations = points.map(({ clients, tps }) => (uslTps(curve, clients) / tps - 1) ** 2);
  const fitted = rows.map((row) => sumOf(row.map((value, index) => value * solved[index]!)));
  return {
    fit: { ...curve, deviationShare: Math.sqrt(sumOf(deviations) / points.length) },
    squares: sumOf(fitted.map((value) => (value - 1) ** 2)),
  };
}

/** Gaussian elimination with pivoting; undefined if the matrix is singular. */
function solve(matrix: readonly (readonly number[])[], right: readonly number[]): number[] | undefined {
  const size = right.length;
  const rows = matrix.map((row, index) => [...row, right[index]!]);
  for (let column = 0; column < size; column++) {
    let pivot = column;
    for (let row = column; row < size; row++) {
      if (Math.abs(rows[row]![column]!) > Math.abs(rows[pivot]![column]!)) pivot = row;
    }
    [rows[column], rows[pivot]] = [rows[pivot]!, rows[column]!];
    const head = rows[column]![column]!;
    if (Math.abs(head) < Number.EPSILON) return undefined;
    for (let row = column + 1; row < size; row++) {
      const factor = rows[row]![column]! / head;
      for (let index = column; index <= size; index++) rows[row]![index]! -= factor * rows[column]![index]!;
    }
  }
  const solution = new Array<number>(size).fill(0);
  for (let row = size - 1; row >= 0; row--) {
    let rest = rows[row]![size]!;
    for (let column = row + 1; column < size; column++) rest -= rows[row]![column]! * solution[column]!;
    solution[row] = rest / rows[row]![row]!;
  }
  return solution;
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

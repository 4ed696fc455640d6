/**
 * The report of one or more measurements: one HTML file that needs nothing but itself (uPlot and the style stand in it,
 * nothing is fetched), and the same as JSON. Tables and facts are plain HTML; only the two charts need the script.
 *
 * Invariant: every text from outside (titles, versions, settings, error messages) is escaped where it enters the page.
 */
import type { Explanation } from '../explain/explanation.ts';
import { formatRate } from '../measure/format-rate.ts';
import type { SweepPoint, SweepResult } from '../measure/sweep.ts';
import { oneForEachCount } from './curve-points.ts';
import { explanationSection } from './explanation-section.ts';
import { escapeHtml, milliseconds, wholeNumber } from './html.ts';
import { htmlPage } from './page.ts';
import { CHART_SCRIPT } from './report-page.ts';
import { FORMAT_VERSION } from './report-schema.ts';
import {
  allClients,
  circumstancesTable,
  factsTable,
  figuresTable,
  openLoopTable,
  pointAt,
  uslSection,
  windowsTable,
} from './report-tables.ts';

export interface ReportInput {
  readonly title: string;
  readonly curves: readonly ReportCurve[];
  /** What the figures say, in a sentence or a few. */
  readonly verdict: string;
  /** Further remarks, one to a line. */
  readonly notes?: readonly string[];
}

export interface ReportCurve {
  readonly label: string;
  readonly result: SweepResult;
  readonly explanation?: Explanation | undefined;
}

/** As report-schema.ts defines it. */
export function reportJson(input: ReportInput): string {
  const { title, verdict, notes = [], curves } = input;
  const document = {
    format: 'postern-wall',
    formatVersion: FORMAT_VERSION,
    title,
    verdict,
    notes,
    curves: curves.map(({ label, result, explanation }) => ({ label, ...result, explanation })),
  };
  return `${JSON.stringify(document, undefined, 2)}\n`;
}

export function renderReport(input: ReportInput): string {
  const { title, verdict, notes = [] } = input;
  // Charts and tables have one figure for each count of clients, however many windows it took.
  const curves = input.curves.map((curve) => ({
    ...curve,
    result: { ...curve.result, points: oneForEachCount(curve.result.points) },
  }));
  return htmlPage({
    title: title,
    main: `<header>
<h1>${escapeHtml(title)}</h1>
<p class="verdict">${escapeHtml(verdict)}</p>
${notes.map((note) => `<p class="note">${escapeHtml(note)}</p>`).join('\n')}
</header>
<div class="best">${curves.map(bestCard).join('')}</div>
${openLoopSections(input.curves)}
<section><h2>Transactions a second, by clients</h2><div class="chart" id="rate"></div></section>
<section><h2>Latency, p50 solid and p99 dashed</h2><div class="chart" id="latency"></div></section>
${curves.map(({ explanation }) => (explanation === undefined ? '' : explanationSection(explanation))).join('')}
<section><h2>Figures</h2><div class="scroll">${figuresTable(curves)}</div></section>
<section><h2>Beside the figures</h2><div class="scroll">${circumstancesTable(curves)}</div></section>
${input.curves.map(windowsSection).join('')}
${curves.map(scalabilitySection).join('')}
<section><h2>Measured on</h2><div class="scroll">${factsTable(input.curves)}</div></section>`,
    charts: { data: chartData(curves), script: CHART_SCRIPT },
  });
}

function openLoopSections(curves: readonly ReportCurve[]): string {
  return curves
    .map(({ label, result }) => {
      const points = result.points.filter((point) => point.openLoop !== undefined);
      if (points.length === 0) return '';
      return `<section><h2>Open loop, latency from the intended start: ${escapeHtml(label)}</h2><div class="scroll">${openLoopTable(points)}</div></section>`;
    })
    .join('');
}

function windowsSection({ label, result }: ReportCurve): string {
  return `<section><h2>Every window: ${escapeHtml(label)}</h2><div class="scroll">${windowsTable(result)}</div></section>`;
}

function scalabilitySection({ label, result }: ReportCurve): string {
  const section = uslSection(result, result.points);
  return section === ''
    ? ''
    : `<section><h2>Universal Scalability Law, as a diagnosis: ${escapeHtml(label)}</h2><div class="scroll">${section}</div></section>`;
}

/** Columns for uPlot: all client counts of all curves, and null where a curve has no point. */
function chartData(curves: readonly ReportCurve[]): object {
  const clients = allClients(curves);
  const column = (curve: ReportCurve, of: (point: SweepPoint) => number | undefined): (number | null)[] =>
    clients.map((count) => {
      const point = pointAt(curve, count);
      return (point === undefined ? undefined : of(point)) ?? null;
    });
  return {
    clients,
    curves: curves.map((curve) => ({
      label: curve.label,
      tps: column(curve, (point) => point.tps),
      low: column(curve, ({ tps, tpsPlusMinus: e }) => (e === undefined ? undefined : Math.max(0, tps - e))),
      high: column(curve, ({ tps, tpsPlusMinus: e }) => (e === undefined ? undefined : tps + e)),
      p50Ms: column(curve, (point) => point.p50Ms),
      p99Ms: column(curve, (point) => point.p99Ms),
    })),
  };
}

function bestCard(curve: ReportCurve, index: number): string {
  const { best, wall, points } = curve.result;
  const rate = wall === undefined || wall.kind === 'void' ? undefined : wall.rate;
  const shown =
    wall?.kind === 'reached' ? points.find(({ clients }) => clients === wall.chosenClients) : best;
  const bound = wall?.kind === 'not-reached' ? 'at least ' : '';
  const figure =
    rate !== undefined ? `${bound}${formatRate(rate)}` : best === undefined ? '–' : wholeNumber(best.tps);
  const detail =
    shown === undefined
      ? 'nothing measured'
      : `a second at ${shown.clients} clients, p50 ${milliseconds(shown.p50Ms)}, p99 ${milliseconds(shown.p99Ms)}`;
  return `<div class="card curve-${index % 4}"><h3>${escapeHtml(curve.label)}</h3><strong>${figure}</strong><span>${detail}</span></div>`;
}

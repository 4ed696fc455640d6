/**
 * The report of one or more sweeps: one HTML file that needs nothing but itself (uPlot and the style stand in it, nothing
 * is fetched), and the same as JSON. The table and the facts are plain HTML; only the two charts need the script.
 *
 * Invariant: every text from outside (titles, versions, settings, error messages) is escaped where it enters the page.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { SweepPoint, SweepResult } from '../measure/measure.ts';
import { CHART_SCRIPT, PAGE_STYLE } from './report-page.ts';

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
}

/** Raised when a field changes its meaning or goes away; new fields don't raise it. */
const FORMAT_VERSION = 1;

export function reportJson(input: ReportInput): string {
  const { title, verdict, notes = [], curves } = input;
  const document = {
    format: 'postern-wall',
    formatVersion: FORMAT_VERSION,
    title,
    verdict,
    notes,
    curves: curves.map(({ label, result }) => ({ label, ...result })),
  };
  return `${JSON.stringify(document, undefined, 2)}\n`;
}

export function renderReport(input: ReportInput): string {
  const { title, curves, verdict, notes = [] } = input;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escapeHtml(title)}</title>
<style>${uplotFile('uPlot.min.css')}${PAGE_STYLE}</style>
</head>
<body>
<main>
<header>
<h1>${escapeHtml(title)}</h1>
<p class="verdict">${escapeHtml(verdict)}</p>
${notes.map((note) => `<p class="note">${escapeHtml(note)}</p>`).join('\n')}
</header>
<div class="best">${curves.map(bestCard).join('')}</div>
<section><h2>Transactions a second</h2><div class="chart" id="rate"></div></section>
<section><h2>Latency, p50 solid and p99 dashed</h2><div class="chart" id="latency"></div></section>
<section><h2>Figures</h2><div class="scroll">${figuresTable(curves)}</div></section>
<section><h2>Beside the figures</h2><div class="scroll">${circumstancesTable(curves)}</div></section>
<section><h2>Measured on</h2><div class="scroll">${factsTable(curves)}</div></section>
</main>
<script type="application/json" id="data">${scriptJson(chartData(curves))}</script>
<script>${uplotFile('uPlot.iife.min.js')}</script>
<script>${CHART_SCRIPT}</script>
</body>
</html>
`;
}

/** Columns for uPlot: all client counts of all curves, and null where a curve has no point. */
function chartData(curves: readonly ReportCurve[]): object {
  const clients = allClients(curves);
  const column = (curve: ReportCurve, of: (point: SweepPoint) => number): (number | null)[] =>
    clients.map((count) => {
      const point = pointAt(curve, count);
      return point === undefined ? null : of(point);
    });
  return {
    clients,
    curves: curves.map((curve) => ({
      label: curve.label,
      tps: column(curve, (point) => point.tps),
      p50Ms: column(curve, (point) => point.p50Ms),
      p99Ms: column(curve, (point) => point.p99Ms),
    })),
  };
}

function bestCard(curve: ReportCurve, index: number): string {
  const { best } = curve.result;
  const figure = best === undefined ? '–' : wholeNumber(best.tps);
  const detail =
    best === undefined
      ? 'nothing measured'
      : `a second at ${best.clients} clients, p50 ${milliseconds(best.p50Ms)}, p99 ${milliseconds(best.p99Ms)}`;
  return `<div class="card curve-${index % 4}"><h3>${escapeHtml(curve.label)}</h3><strong>${figure}</strong><span>${detail}</span></div>`;
}

/** One row to each count of clients, the curves side by side; with two curves also the second over the first. */
function figuresTable(curves: readonly ReportCurve[]): string {
  const head = curves.map((curve, index) => groupHead(curve, index, 3)).join('');
  const columns = curves.map(() => '<th class="group">tps</th><th>p50</th><th>p99</th>').join('');
  const ratioHead = curves.length === 2 ? '<th class="group">ratio</th>' : '';
  const rows = allClients(curves).map((clients) => {
    const cells = curves.map((curve) => rateCells(curve, clients)).join('');
    const remarks = curves.flatMap((curve) => remarksOf(curve, clients, curves.length > 1));
    const ratio =
      curves.length === 2 ? ratioCell(pointAt(curves[0]!, clients), pointAt(curves[1]!, clients)) : '';
    return `<tr><th>${clients}</th>${cells}${ratio}<td class="left">${remarks.join('<br>')}</td></tr>`;
  });
  return `<table><thead><tr><th></th>${head}${ratioHead && '<th class="group"></th>'}<th></th></tr>
<tr><th>clients</th>${columns}${ratioHead}<th></th></tr></thead>
<tbody>${rows.join('\n')}</tbody></table>`;
}

function rateCells(curve: ReportCurve, clients: number): string {
  const point = pointAt(curve, clients);
  if (point === undefined) return '<td class="group">–</td><td>–</td><td>–</td>';
  const emphasis = curve.result.best?.clients === clients ? ' best-cell' : '';
  const latencies = [point.p50Ms, point.p99Ms].map((ms) => `<td>${milliseconds(ms)}</td>`).join('');
  return `<td class="group${emphasis}">${wholeNumber(point.tps)}</td>${latencies}`;
}

function ratioCell(first: SweepPoint | undefined, second: SweepPoint | undefined): string {
  const known = first !== undefined && second !== undefined && first.tps > 0;
  return `<td class="group">${known ? (second.tps / first.tps).toFixed(2) : '–'}</td>`;
}

/** What makes a figure less than it seems. */
function remarksOf(curve: ReportCurve, clients: number, named: boolean): string[] {
  const prefix = named ? `${escapeHtml(curve.label)}: ` : '';
  const point = pointAt(curve, clients);
  if (point === undefined) {
    const skipped = curve.result.skipped.find((candidate) => candidate.clients === clients);
    return skipped === undefined ? [] : [`${prefix}skipped: ${escapeHtml(skipped.reason)}`];
  }
  const said = Object.entries(point.errors).map(([sqlState, count]) => {
    const message = escapeHtml(point.errorMessages[sqlState] ?? '');
    return `${prefix}<em>${count} failed</em> with ${escapeHtml(sqlState)}, ${message}`;
  });
  if (point.clientBound) said.push(`${prefix}<em>client-bound</em>: the server could do more`);
  return said;
}

/** What each figure has to be read with. */
function circumstancesTable(curves: readonly ReportCurve[]): string {
  const processes = curves.map(({ result }) => [
    ...new Set(result.points.flatMap((point) => Object.keys(point.cpuMsPerTransaction))),
  ]);
  const head = curves.map((curve, index) => groupHead(curve, index, 5 + processes[index]!.length)).join('');
  const columns = curves.map((_, index) => {
    const cpu = processes[index]!.map((name) => `<th>${escapeHtml(name)} CPU each</th>`).join('');
    return `<th class="group">p95</th><th>max</th><th>cores busy</th><th>stolen</th><th>generator</th>${cpu}`;
  });
  const rows = allClients(curves).map((clients) => {
    const cells = curves.map((curve, index) => circumstanceCells(pointAt(curve, clients), processes[index]!));
    return `<tr><th>${clients}</th>${cells.join('')}</tr>`;
  });
  return `<table><thead><tr><th></th>${head}</tr><tr><th>clients</th>${columns.join('')}</tr></thead>
<tbody>${rows.join('\n')}</tbody></table>`;
}

function circumstanceCells(point: SweepPoint | undefined, processes: readonly string[]): string {
  const cells =
    point === undefined
      ? ['–', '–', '–', '–', '–', ...processes.map(() => '–')]
      : [
          milliseconds(point.p95Ms),
          milliseconds(point.maxMs),
          percent(point.machineBusyShare),
          percent(point.stealShare),
          `${point.generatorCpuShare.toFixed(2)} cores`,
          ...processes.map((name) => {
            const ms = point.cpuMsPerTransaction[name];
            return ms === undefined ? '–' : `${ms.toFixed(3)} ms`;
          }),
        ];
  return cells.map((cell, index) => `<td${index === 0 ? ' class="group"' : ''}>${cell}</td>`).join('');
}

function groupHead(curve: ReportCurve, index: number, columns: number): string {
  return `<th colspan="${columns}" class="group curve-${index % 4}">${escapeHtml(curve.label)}</th>`;
}

function factsTable(curves: readonly ReportCurve[]): string {
  const facts: [name: string, of: (result: SweepResult) => string][] = [
    ['target', (result) => result.target],
    ['workload', (result) => `${result.workload}, ${result.protocol} protocol`],
    ['encrypted', (result) => (result.tls ? 'yes' : 'no')],
    ['started', (result) => result.startedAt],
    ['PostgreSQL', (result) => result.server.version ?? 'unknown'],
    ['streaming standbys', (result) => String(result.server.replicas ?? 'unknown')],
  ];
  for (const name of new Set(curves.flatMap(({ result }) => Object.keys(result.server.settings)))) {
    facts.push([name, (result) => result.server.settings[name] || '–']);
  }
  facts.push(
    ['not readable', (result) => result.server.unread.join(', ') || '–'],
    [
      'generator on',
      ({ machine }) => `${machine.cores} × ${machine.cpuModel}, ${gibibytes(machine.memoryBytes)}`,
    ],
    ['system', ({ machine }) => `${machine.platform}, Node ${machine.nodeVersion}`],
    ['generator and server', (result) => (result.sharesMachine ? 'on one machine' : 'on different machines')],
  );
  const head = curves.map(({ label }) => `<th class="left">${escapeHtml(label)}</th>`).join('');
  const rows = facts.map(([name, of]) => {
    const cells = curves.map(({ result }) => `<td class="left">${escapeHtml(of(result))}</td>`).join('');
    return `<tr><th class="left">${escapeHtml(name)}</th>${cells}</tr>`;
  });
  return `<table><thead><tr><th></th>${head}</tr></thead><tbody>${rows.join('\n')}</tbody></table>`;
}

function allClients(curves: readonly ReportCurve[]): number[] {
  const counts = curves.flatMap(({ result }) =>
    [...result.points, ...result.skipped].map(({ clients }) => clients),
  );
  return [...new Set(counts)].sort((a, b) => a - b);
}

function pointAt(curve: ReportCurve, clients: number): SweepPoint | undefined {
  return curve.result.points.find((point) => point.clients === clients);
}

export function uplotFile(name: string): string {
  return readFileSync(createRequire(import.meta.url).resolve(`uplot/dist/${name}`), 'utf8');
}

/** JSON that can't end the script element it stands in. */
export function scriptJson(value: object): string {
  return JSON.stringify(value).replaceAll('<', '\\u003c');
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => ENTITIES[character]!);
}

function wholeNumber(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

function milliseconds(value: number): string {
  return `${value < 100 ? value.toFixed(2) : value.toFixed(0)} ms`;
}

function percent(share: number | undefined): string {
  return share === undefined ? '–' : `${Math.round(share * 100)}%`;
}

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}

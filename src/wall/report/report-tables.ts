/** The tables of the report's page, as HTML. Texts from outside are escaped where they enter. */
import type { SweepPoint, SweepResult } from '../measure/sweep.ts';
import { isVoid } from '../measure/sweep.ts';
import { uslTps } from '../measure/usl.ts';
import { allFacts } from './facts.ts';
import { escapeHtml, milliseconds, percent, wholeNumber } from './html.ts';
import type { ReportCurve } from './report.ts';

/** One row to each count of clients, the curves side by side; with two curves also the second over the first. */
export function figuresTable(curves: readonly ReportCurve[]): string {
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
  const interval =
    point.tpsPlusMinus === undefined ? '' : ` <small>± ${wholeNumber(point.tpsPlusMinus)}</small>`;
  return `<td class="group${emphasis}">${wholeNumber(point.tps)}${interval}</td>${latencies}`;
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
  if (isVoid(point)) said.push(`${prefix}<em>void</em>: ${point.voidReasons!.join(', ')}`);
  if (point.clientBound) said.push(`${prefix}<em>client-bound</em>: the server could do more`);
  return said;
}

/** What each figure has to be read with. */
export function circumstancesTable(curves: readonly ReportCurve[]): string {
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

export function factsTable(curves: readonly ReportCurve[]): string {
  const facts = curves.map(({ result }) => new Map(allFacts(result)));
  const names = [...new Set(facts.flatMap((of) => [...of.keys()]))];
  const head = curves.map(({ label }) => `<th class="left">${escapeHtml(label)}</th>`).join('');
  const rows = names.map((name) => {
    const cells = facts.map((of) => `<td class="left">${escapeHtml(of.get(name) ?? '–')}</td>`).join('');
    return `<tr><th class="left">${escapeHtml(name)}</th>${cells}</tr>`;
  });
  return `<table><thead><tr><th></th>${head}</tr></thead><tbody>${rows.join('\n')}</tbody></table>`;
}

/** Every window in the order in which it was measured. */
export function windowsTable(result: SweepResult): string {
  const rows = result.points.map((point) => {
    const cells = [
      point.purpose ?? '–',
      point.clients,
      `${wholeNumber(point.tps)}${point.tpsPlusMinus === undefined ? '' : ` ± ${wholeNumber(point.tpsPlusMinus)}`}`,
      milliseconds(point.p50Ms),
      milliseconds(point.p99Ms),
      percent(point.driftShare, 1),
      point.checkpoints ?? '–',
      point.walBytesPerTransaction === undefined ? '–' : wholeNumber(point.walBytesPerTransaction),
      percent(point.fullPageImageShare, 1),
    ];
    const remarks = isVoid(point) ? `<em>void</em>: ${point.voidReasons!.join(', ')}` : '';
    const notes = (point.voidNotes ?? []).map(escapeHtml).join('; ');
    const all = cells.map((cell) => `<td>${cell}</td>`).join('');
    return `<tr>${all}<td class="left">${[remarks, notes].filter(Boolean).join('; ')}</td></tr>`;
  });
  return `<table><thead><tr><th>for</th><th>clients</th><th>tps, 95%</th><th>p50</th><th>p99</th><th>drift</th>
<th>checkpoints</th><th>WAL bytes each</th><th>full pages</th><th></th></tr></thead><tbody>${rows.join('\n')}</tbody></table>`;
}

/** The points of open loops, by rate. */
export function openLoopTable(points: readonly SweepPoint[]): string {
  const sorted = [...points].sort((a, b) => a.openLoop!.rate - b.openLoop!.rate);
  const rows = sorted.map((point) => {
    const { rate, offered, late, missed, latenessP99Ms } = point.openLoop!;
    const cells = [
      wholeNumber(rate),
      wholeNumber(point.tps),
      ...[point.p50Ms, point.p95Ms, point.p99Ms, point.maxMs].map(milliseconds),
      percent(late / Math.max(1, offered), 1),
      percent(missed / Math.max(1, offered), 1),
      milliseconds(latenessP99Ms),
      point.keepsSlo === undefined ? '–' : point.keepsSlo ? 'kept' : '<em>broken</em>',
    ];
    return `<tr>${cells.map((cell) => `<td>${cell}</td>`).join('')}</tr>`;
  });
  return `<table><thead><tr><th>arrivals a second</th><th>done</th><th>p50</th><th>p95</th><th>p99</th><th>max</th>
<th>late</th><th>missed</th><th>lateness p99</th><th>objective</th></tr></thead><tbody>${rows.join('\n')}</tbody></table>`;
}

/** The fit beside the points, for who wants to see how far it may be trusted. */
export function uslSection(result: SweepResult, points: readonly SweepPoint[]): string {
  const { usl } = result;
  if (usl === undefined) return '';
  const peak = usl.peakClients === null ? 'no peak' : `a peak at ${wholeNumber(usl.peakClients)} clients`;
  const rows = points.map(
    (point) =>
      `<tr><td>${point.clients}</td><td>${wholeNumber(point.tps)}</td><td>${wholeNumber(uslTps(usl, point.clients))}</td></tr>`,
  );
  return `<p class="note">X(N) = λN / (1 + σ(N − 1) + κN(N − 1)) with λ = ${wholeNumber(usl.perClient)} a second,
σ = ${usl.contention.toPrecision(3)} (queueing), κ = ${usl.coherency.toPrecision(3)} (what clients cost each other): ${peak}. The points deviate
from it by ${percent(usl.deviationShare, 1)}. A diagnosis of the points it was fitted to: the wall above is measured, and nothing here foretells one.</p>
<table><thead><tr><th>clients</th><th>measured</th><th>fitted</th></tr></thead><tbody>${rows.join('\n')}</tbody></table>`;
}

export function allClients(curves: readonly ReportCurve[]): number[] {
  const counts = curves.flatMap(({ result }) =>
    [...result.points, ...result.skipped].map(({ clients }) => clients),
  );
  return [...new Set(counts)].sort((a, b) => a - b);
}

export function pointAt(curve: ReportCurve, clients: number): SweepPoint | undefined {
  return curve.result.points.find((point) => point.clients === clients);
}

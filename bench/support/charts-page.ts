/**
 * A bench's result as one HTML file that needs nothing but itself: throughput by the number of clients for each workload,
 * protocol and client program, latency under it, and the ratios as a table. The style and the charts
 * are those of the wall's report.
 */

import { escapeHtml, percent } from '../../src/wall/report/html.ts';
import { htmlPage } from '../../src/wall/report/page.ts';
import { DRAW_CHARTS_FUNCTION } from '../../src/wall/report/report-page.ts';
import type { Point } from './point.ts';
import { median } from './ratios.ts';
import type { BenchResult } from './result.ts';

interface Chart {
  readonly title: string;
  readonly clients: readonly number[];
  readonly curves: readonly Curve[];
}

/** Medians over the rounds; null where there is no point. */
interface Curve {
  readonly label: string;
  readonly tps: readonly (number | null)[];
  readonly p50Ms: readonly (number | null)[];
  readonly p99Ms: readonly (number | null)[];
}

export function renderCharts(result: BenchResult): string {
  const charts = chartsOf(curvePoints(result));
  const title = `Postern, npm run ${result.bench === 'bench' ? 'bench' : `bench:${result.bench}`}`;
  const { cores, cpuModel, memoryBytes, nodeVersion } = result.machine;
  const facts = [
    `${result.at}${result.finished === false ? ' (not finished)' : ''}, commit ${result.commit}`,
    `${cores} × ${cpuModel}, ${(memoryBytes / 2 ** 30).toFixed(1)} GiB, Node ${nodeVersion}, load average ${result.loadAverage.start.toFixed(1)} to ${result.loadAverage.end.toFixed(1)}`,
    Object.entries(result.setting)
      .map(([name, value]) => `${name}: ${value}`)
      .join(', '),
    ...result.notes,
  ];
  return htmlPage({
    title: title,
    main: `<header>
<h1>${escapeHtml(title)}</h1>
${facts.map((fact) => `<p class="note">${escapeHtml(fact)}</p>`).join('\n')}
</header>
<section><h2>Ratios: the median, and each round</h2><div class="scroll">${ratiosTable(result)}</div></section>
${charts.map(chartSection).join('\n')}
<section><h2>CPU, in microseconds a transaction</h2><div class="scroll">${cpuTable(result.points)}</div></section>`,
    charts: { data: charts, script: SCRIPT },
  });
}

/** In the scale model the clients tell the primaries: all its points are one curve. */
function curvePoints({ bench, points }: BenchResult): readonly Point[] {
  return bench === 'scale'
    ? points.map((point) => ({ ...point, endpoint: 'sharded, as many clients to each primary' }))
    : points;
}

/**
 * One chart for the cells that differ in nothing but their clients, in the order in which they were measured. One point
 * to a curve is no chart: the ratios and the table of CPU have it.
 */
function chartsOf(points: readonly Point[]): Chart[] {
  const groups = grouped(points, ({ cell }) => cell.replace(/ \d+$/, ''));
  return [...groups].flatMap(([title, members]) => {
    const clients = [...new Set(members.map((point) => point.clients))].sort((a, b) => a - b);
    if (clients.length === 1) return [];
    const labels = [...new Set(members.map((point) => point.endpoint))].sort();
    const column = (label: string, of: (point: Point) => number): (number | null)[] =>
      clients.map((count) => {
        const rounds = members.filter((point) => point.endpoint === label && point.clients === count);
        return rounds.length === 0 ? null : median(rounds.map(of));
      });
    const curves = labels.map((label) => ({
      label,
      tps: column(label, (point) => point.tps),
      p50Ms: column(label, (point) => point.p50Ms),
      p99Ms: column(label, (point) => point.p99Ms),
    }));
    return [{ title, clients, curves }];
  });
}

function chartSection({ title }: Chart, index: number): string {
  return `<section><h2>${escapeHtml(title)}: transactions a second; latency, p50 solid and p99 dashed</h2>
<div class="chart" id="rate-${index}"></div><div class="chart" id="latency-${index}"></div></section>`;
}

function ratiosTable({ ratios, ratiosByRound, ratiosSteal }: BenchResult): string {
  const rows = Object.entries(ratios).map(([name, value]) => {
    const steal = ratiosSteal?.[name];
    const rounds = (ratiosByRound[name] ?? []).map((round) => round.toFixed(2)).join(', ');
    return `<tr><td class="left">${escapeHtml(name)}</td><td><strong>${value.toFixed(2)}</strong></td><td>${rounds}</td><td>${percent(steal, 1)}</td></tr>`;
  });
  return `<table><thead><tr><th class="left">ratio</th><th>median</th><th>rounds</th><th>steal, most</th></tr></thead><tbody>${rows.join('\n')}</tbody></table>`;
}

function cpuTable(points: readonly Point[]): string {
  const processes = [...new Set(points.flatMap((point) => Object.keys(point.cpuUs)))];
  const groups = grouped(points, ({ cell, endpoint }) => `${cell}\n${endpoint}`);
  const rows = [...groups.values()].map((rounds) => {
    const { cell, endpoint } = rounds[0]!;
    const cells = processes.map((name) => {
      const values = rounds.flatMap(({ cpuUs }) => cpuUs[name] ?? []);
      return `<td>${values.length === 0 ? '–' : median(values).toFixed(1)}</td>`;
    });
    const steal = Math.max(...rounds.map((point) => point.steal));
    const others = Math.max(...rounds.map((point) => point.others));
    return `<tr><td class="left">${escapeHtml(cell)}</td><td class="left">${escapeHtml(endpoint)}</td>${cells.join('')}<td>${percent(steal, 1)}</td><td>${percent(others, 1)}</td></tr>`;
  });
  const head = processes.map((name) => `<th>${escapeHtml(name)}</th>`).join('');
  return `<table><thead><tr><th class="left">cell</th><th class="left">through</th>${head}<th>steal, most</th><th>others, most</th></tr></thead>
<tbody>${rows.join('\n')}</tbody></table>`;
}

function grouped<T>(values: readonly T[], keyOf: (value: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const value of values) {
    const key = keyOf(value);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [value]);
    else group.push(value);
  }
  return groups;
}

const SCRIPT = `${DRAW_CHARTS_FUNCTION}
JSON.parse(document.getElementById('data').textContent).forEach(function (chart, number) {
  drawCharts(chart, 'rate-' + number, 'latency-' + number);
});
`;

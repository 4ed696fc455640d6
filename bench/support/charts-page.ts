/**
 * A bench's result as one HTML file that needs nothing but itself: throughput by the number of clients for each workload,
 * protocol and client program, latency under it, and the ratios as a table. uPlot and the style are those of the wall's report.
 */

import { escapeHtml, scriptJson, uplotFile } from '../../src/wall/report/report.ts';
import { PAGE_STYLE } from '../../src/wall/report/report-page.ts';
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
    `${result.at}, commit ${result.commit}`,
    `${cores} × ${cpuModel}, ${(memoryBytes / 2 ** 30).toFixed(1)} GiB, Node ${nodeVersion}, load average ${result.loadAverage.start.toFixed(1)} to ${result.loadAverage.end.toFixed(1)}`,
    Object.entries(result.setting)
      .map(([name, value]) => `${name}: ${value}`)
      .join(', '),
    ...result.notes,
  ];
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
${facts.map((fact) => `<p class="note">${escapeHtml(fact)}</p>`).join('\n')}
</header>
<section><h2>Ratios: the median, and each round</h2><div class="scroll">${ratiosTable(result)}</div></section>
${charts.map(chartSection).join('\n')}
<section><h2>CPU, in microseconds a transaction</h2><div class="scroll">${cpuTable(result.points)}</div></section>
</main>
<script type="application/json" id="data">${scriptJson(charts)}</script>
<script>${uplotFile('uPlot.iife.min.js')}</script>
<script>${SCRIPT}</script>
</body>
</html>
`;
}

/** In the scale model the clients tell the primaries: all its points are one curve. */
function curvePoints({ bench, points }: BenchResult): readonly Point[] {
  return bench === 'scale'
    ? points.map((point) => ({ ...point, endpoint: 'sharded, as many clients to each primary' }))
    : points;
}

/** One chart for the cells that differ in nothing but their clients, in the order in which they were measured. */
function chartsOf(points: readonly Point[]): Chart[] {
  const groups = grouped(points, ({ tool, workload, protocol }) =>
    [workload, protocol, ...(tool === 'pgbench' ? ['by pgbench'] : [])].join(', '),
  );
  return [...groups].map(([title, members]) => {
    const clients = [...new Set(members.map((point) => point.clients))].sort((a, b) => a - b);
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
    return { title, clients, curves };
  });
}

function chartSection({ title }: Chart, index: number): string {
  return `<section><h2>${escapeHtml(title)}: transactions a second; latency, p50 solid and p99 dashed</h2>
<div class="chart" id="rate-${index}"></div><div class="chart" id="latency-${index}"></div></section>`;
}

function ratiosTable({ ratios, ratiosByRound }: BenchResult): string {
  const rows = Object.entries(ratios).map(([name, value]) => {
    const rounds = (ratiosByRound[name] ?? []).map((round) => round.toFixed(2)).join(', ');
    return `<tr><td class="left">${escapeHtml(name)}</td><td><strong>${value.toFixed(2)}</strong></td><td>${rounds}</td></tr>`;
  });
  return `<table><tbody>${rows.join('\n')}</tbody></table>`;
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
    return `<tr><td class="left">${escapeHtml(cell)}</td><td class="left">${escapeHtml(endpoint)}</td>${cells.join('')}<td>${percent(steal)}</td><td>${percent(others)}</td></tr>`;
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

function percent(share: number): string {
  return `${(share * 100).toFixed(1)}%`;
}

/** Plain script of the browser. Draws again when the window's width or the colour scheme changes. */
const SCRIPT = `
(function () {
  var charts = JSON.parse(document.getElementById('data').textContent);
  var drawn = [];
  function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim(); }
  function rate(value) { return Math.round(value).toLocaleString('en-US'); }
  function milliseconds(value) { return Number(value.toPrecision(3)) + ' ms'; }
  function shown(format) {
    return function (u, value) { return value === null || value === undefined ? '–' : format(value); };
  }
  function line(label, index, format, dash) {
    return { label: label, stroke: colour('curve-' + (index % 4)), width: 2, dash: dash, value: shown(format) };
  }
  function draw(place, clients, columns, series, scale, label, format) {
    place.textContent = '';
    var common = { stroke: colour('faint'), font: '12px system-ui, sans-serif', labelFont: '12px system-ui, sans-serif',
      grid: { stroke: colour('line'), width: 1 }, ticks: { stroke: colour('line'), width: 1 } };
    drawn.push(new uPlot({
      width: place.clientWidth, height: 280, cursor: { drag: { x: false, y: false } },
      scales: { x: { time: false, distr: 3, log: 2, range: [clients[0] / 1.15, clients[clients.length - 1] * 1.15] }, y: scale },
      axes: [
        Object.assign({ label: 'clients', splits: function () { return clients; },
          filter: function (u, splits) { return splits; },
          values: function (u, splits) { return splits.map(String); } }, common),
        Object.assign({ label: label, size: 76, values: function (u, splits) {
          return splits.map(function (value) { return value === null ? '' : format(value); }); } }, common),
      ],
      series: [{ label: 'clients', value: shown(String) }].concat(series),
    }, [clients].concat(columns), place));
  }
  function drawAll() {
    drawn.forEach(function (one) { one.destroy(); });
    drawn = [];
    charts.forEach(function (chart, number) {
      var top = 1, columns = [], series = [];
      chart.curves.forEach(function (curve, index) {
        curve.tps.forEach(function (tps) { top = Math.max(top, tps || 0); });
        columns.push(curve.p50Ms, curve.p99Ms);
        series.push(line(curve.label + ' p50', index, milliseconds), line(curve.label + ' p99', index, milliseconds, [6, 4]));
      });
      draw(document.getElementById('rate-' + number), chart.clients,
        chart.curves.map(function (curve) { return curve.tps; }),
        chart.curves.map(function (curve, index) { return line(curve.label, index, rate); }),
        { range: [0, top * 1.08] }, 'transactions a second', rate);
      draw(document.getElementById('latency-' + number), chart.clients, columns, series,
        { distr: 3, log: 10 }, 'latency', milliseconds);
    });
  }
  var pending;
  addEventListener('resize', function () { clearTimeout(pending); pending = setTimeout(drawAll, 150); });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawAll);
  drawAll();
})();
`;

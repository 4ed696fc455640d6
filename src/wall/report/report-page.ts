/** The style and the script of the report's page (report.ts), as text that is put into it. */

export const PAGE_STYLE = `
:root {
  --ground: #ffffff; --text: #1c2430; --faint: #5c6878; --line: #dde3ea; --card: #f5f7fa; --warn: #b42318;
  --curve-0: #1d5fd6; --curve-1: #c2570c; --curve-2: #14804a; --curve-3: #8a3ffc;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #12161c; --text: #e6eaf0; --faint: #9aa6b5; --line: #2b333e; --card: #1a2029; --warn: #ff9c8f;
    --curve-0: #6ea8ff; --curve-1: #ffb057; --curve-2: #5fd39a; --curve-3: #c4a1ff;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 24px; margin: 0 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 36px 0 10px; }
.verdict { font-size: 17px; margin: 0; max-width: 75ch; }
.note { color: var(--faint); margin: 8px 0 0; max-width: 75ch; }
.best { display: flex; flex-wrap: wrap; gap: 14px; margin-top: 22px; }
.card { flex: 1 1 260px; background: var(--card); border-left: 4px solid var(--accent); border-radius: 6px; padding: 12px 16px; }
.card h3 { margin: 0; font-size: 13px; font-weight: 600; color: var(--faint); }
.card strong { display: block; font-size: 30px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card span { color: var(--faint); font-size: 13px; }
.curve-0 { --accent: var(--curve-0); } .curve-1 { --accent: var(--curve-1); }
.curve-2 { --accent: var(--curve-2); } .curve-3 { --accent: var(--curve-3); }
.scroll { overflow-x: auto; }
.note + .scroll { margin-top: 14px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; vertical-align: top; }
th { font-weight: 600; color: var(--faint); }
thead th.group[colspan] { color: var(--accent); text-align: left; }
.group { border-left: 1px solid var(--line); }
.left { text-align: left; white-space: normal; }
td.left { color: var(--faint); min-width: 160px; }
.dense td.left { min-width: 0; }
.best-cell { font-weight: 700; }
.bar { display: inline-block; height: 9px; background: var(--curve-0); border-radius: 2px; min-width: 1px; }
em { color: var(--warn); font-style: normal; font-weight: 600; }
.chart { width: 100%; }
.uplot, .uplot .u-legend { font-family: inherit; color: var(--text); }
.uplot .u-legend { font-size: 13px; text-align: left; }
.uplot .u-legend th, .uplot .u-legend td { border: 0; padding: 2px 4px; color: var(--text); }
`;

/**
 * Draws both charts of some curves into the elements with these ids, again when the window's width or the colour scheme
 * changes. Plain script of the browser.
 */
export const DRAW_CHARTS_FUNCTION = `
function drawCharts(data, rateId, latencyId) {
  var drawn = [];
  function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim(); }
  /** Counts that lie too close together would overlap: of those only the first has its label. */
  function apart(u, splits) {
    var last = 0;
    return splits.map(function (value) {
      if (last !== 0 && value / last < 1.2) return null;
      last = value;
      return value;
    });
  }
  function axes(label, format) {
    var common = {
      stroke: colour('faint'), font: '12px system-ui, sans-serif', labelFont: '12px system-ui, sans-serif',
      grid: { stroke: colour('line'), width: 1 }, ticks: { stroke: colour('line'), width: 1 },
    };
    return [
      Object.assign({ label: 'clients', splits: function () { return data.clients; },
        filter: apart,
        values: function (u, splits) { return splits.map(function (value) { return value === null ? '' : String(value); }); } }, common),
      Object.assign({ label: label, size: 76, values: function (u, splits) {
        return splits.map(function (value) { return value === null ? '' : format(value); }); } }, common),
    ];
  }
  function clientsScale() {
    var first = data.clients[0] || 1, last = data.clients[data.clients.length - 1] || 1;
    return { time: false, distr: 3, log: 2, range: [first / 1.15, last * 1.15] };
  }
  function line(name, index, format, dash) {
    var stroke = colour('curve-' + (index % 4));
    return { label: name, stroke: stroke, width: 2, dash: dash, spanGaps: false,
      points: { show: true, size: 6, fill: dash ? colour('ground') : stroke },
      value: function (u, value) { return value === null || value === undefined ? '–' : format(value); } };
  }
  function chart(id, columns, series, valueScale, valueAxes) {
    var place = document.getElementById(id);
    place.textContent = '';
    drawn.push(new uPlot({
      width: place.clientWidth, height: 340, scales: { x: clientsScale(), y: valueScale }, axes: valueAxes,
      cursor: { drag: { x: false, y: false } },
      series: [{ label: 'clients', value: function (u, value) { return value === null ? '–' : String(value); } }].concat(series),
      hooks: { draw: [function (u) { if (id === rateId) intervals(u); }] },
    }, [data.clients].concat(columns), place));
  }
  /** A curve with low and high has a whisker at each point: the 95% interval. */
  function intervals(u) {
    var ratio = devicePixelRatio || 1, arm = 4 * ratio;
    u.ctx.save();
    u.ctx.lineWidth = ratio;
    data.curves.forEach(function (curve, index) {
      if (!curve.low) return;
      u.ctx.strokeStyle = colour('curve-' + (index % 4));
      data.clients.forEach(function (clients, place) {
        if (curve.low[place] === null) return;
        var x = u.valToPos(clients, 'x', true);
        var top = u.valToPos(curve.high[place], 'y', true), bottom = u.valToPos(curve.low[place], 'y', true);
        u.ctx.beginPath();
        u.ctx.moveTo(x, top); u.ctx.lineTo(x, bottom);
        u.ctx.moveTo(x - arm, top); u.ctx.lineTo(x + arm, top);
        u.ctx.moveTo(x - arm, bottom); u.ctx.lineTo(x + arm, bottom);
        u.ctx.stroke();
      });
    });
    u.ctx.restore();
  }
  function rate(value) { return Math.round(value).toLocaleString('en-US'); }
  function milliseconds(value) { return Number(value.toPrecision(3)) + ' ms'; }
  function draw() {
    drawn.forEach(function (one) { one.destroy(); });
    drawn = [];
    var top = 1;
    data.curves.forEach(function (curve) { curve.tps.concat(curve.high || []).forEach(function (tps) { top = Math.max(top, tps || 0); }); });
    chart(rateId, data.curves.map(function (curve) { return curve.tps; }),
      data.curves.map(function (curve, index) { return line(curve.label, index, rate); }),
      { range: [0, top * 1.08] }, axes('transactions a second', rate));
    var columns = [], series = [];
    data.curves.forEach(function (curve, index) {
      columns.push(curve.p50Ms, curve.p99Ms);
      series.push(line(curve.label + ' p50', index, milliseconds), line(curve.label + ' p99', index, milliseconds, [6, 4]));
    });
    chart(latencyId, columns, series, { distr: 3, log: 10 }, axes('latency', milliseconds));
  }
  var pending;
  addEventListener('resize', function () { clearTimeout(pending); pending = setTimeout(draw, 150); });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  draw();
}
`;

export const CHART_SCRIPT = `${DRAW_CHARTS_FUNCTION}
drawCharts(JSON.parse(document.getElementById('data').textContent), 'rate', 'latency');
`;

/** The exits as a table in a terminal, as JSON, and as one HTML page. */
import { escapeHtml } from '../report/html.ts';
import { htmlPage } from '../report/page.ts';
import { descriptionOf, type ExitOutcome, type ExitsReport, type MeasuredExit } from './exit.ts';
import { findingOf, type Ratio } from './pairs.ts';

/** What articles about scaling promise of all settings and a larger machine together. */
const COMBINED_PROMISE = 5;

const TITLE_WIDTH = 56;
const GAIN_WIDTH = 30;
const TPS_WIDTH = 14;

export const EXITS_HEADER = `${'exit'.padEnd(TITLE_WIDTH)}  ${'gain'.padEnd(GAIN_WIDTH)}  ${'tps'.padEnd(TPS_WIDTH)}  p50`;

/** One line, once the exit is measured. */
export function exitLine(outcome: ExitOutcome): string {
  const { title } = descriptionOf(outcome.id);
  if ('skipped' in outcome) return `${title.padEnd(TITLE_WIDTH)}  skipped: ${outcome.skipped}`;
  const { without, with: changed } = outcome.pairs;
  const tps = `${count(without.tps)} → ${count(changed.tps)}`;
  const p50 = `${milliseconds(without.p50Ms)} → ${milliseconds(changed.p50Ms)} ms`;
  return `${title.padEnd(TITLE_WIDTH)}  ${gainText(outcome).padEnd(GAIN_WIDTH)}  ${tps.padEnd(TPS_WIDTH)}  ${p50}`;
}

/** What follows the lines: costs and risks, and what it all says. */
export function exitsSummary(report: ExitsReport): string {
  const lines = ['What each costs, and what it risks:'];
  for (const { id } of report.outcomes) {
    const { title, costs, risks } = descriptionOf(id);
    lines.push(`  ${title}: costs ${costs}; risks ${risks}.`);
  }
  lines.push('', ...conclusions(report), '', report.model);
  return `${lines.join('\n')}\n`;
}

function conclusions(report: ExitsReport): string[] {
  const measured = report.outcomes.filter((outcome) => 'pairs' in outcome);
  const find = (id: string): MeasuredExit | undefined => measured.find((outcome) => outcome.id === id);
  const said: string[] = [];
  const replicas = measured.filter(({ id }) => id.startsWith('replicas_'));
  if (replicas.length > 0) {
    const gains = replicas.filter(({ pairs }) => findingOf(pairs.ratio) === 'gain').length;
    said.push(
      gains === 0
        ? 'No arrangement of replicas gave more writes.'
        : `${gains} of ${replicas.length} arrangements of replicas measured a gain in writes, which is not to be expected: measure again, longer.`,
    );
  }
  const reads = find('reads_on_replicas');
  if (reads !== undefined) said.push(`Reads over the replicas: ${gainText(reads)}.`);
  const combined = find('all_combined');
  if (combined !== undefined) {
    const { ratio } = combined.pairs;
    const compared =
      ratio.low > COMBINED_PROMISE ? 'more than' : ratio.high < COMBINED_PROMISE ? 'less than' : 'about';
    said.push(
      `All settings and twice the CPU together: ${factor(ratio.value)}, ${compared} the ${COMBINED_PROMISE} times that is often promised, and nothing of it is durable.`,
    );
  }
  for (const id of ['coalescing', 'primaries_8']) {
    const exit = find(id);
    if (exit !== undefined) said.push(`${descriptionOf(id).title}: ${gainText(exit)}, durable.`);
  }
  return said;
}

export function exitsJson(report: ExitsReport): string {
  const outcomes = report.outcomes.map((outcome) => {
    const { title, costs, risks } = descriptionOf(outcome.id);
    const found = 'pairs' in outcome ? { finding: findingOf(outcome.pairs.ratio) } : {};
    return { ...outcome, ...found, title, costs, risks };
  });
  return `${JSON.stringify({ kind: 'postern wall exits', version: 1, ...report, outcomes }, null, 2)}\n`;
}

export function exitsHtml(report: ExitsReport): string {
  const rows = report.outcomes.map((outcome) => {
    const { title, costs, risks } = descriptionOf(outcome.id);
    const figures =
      'skipped' in outcome
        ? [`skipped: ${outcome.skipped}`, '', '', '']
        : [
            gainText(outcome),
            `${count(outcome.pairs.without.tps)} → ${count(outcome.pairs.with.tps)}`,
            `${milliseconds(outcome.pairs.without.p50Ms)} → ${milliseconds(outcome.pairs.with.p50Ms)}`,
            outcome.place,
          ];
    const cells = [title, ...figures, costs, risks];
    return `<tr>${cells.map((cell) => `<td class="left">${escapeHtml(cell)}</td>`).join('')}</tr>`;
  });
  const heads = ['exit', 'gain (95%)', 'tps', 'p50, ms', 'measured on', 'costs', 'risks'];
  return htmlPage({
    title: 'Exits from the wall',
    main: `<h1>Exits from the wall${report.target === undefined ? '' : ` of ${escapeHtml(report.target)}`}</h1>
${conclusions(report)
  .map((sentence) => `<p class="verdict">${escapeHtml(sentence)}</p>`)
  .join('\n')}
${gainChart(report)}
<div class="scroll"><table class="dense"><thead><tr>${heads.map((head) => `<th class="left">${head}</th>`).join('')}</tr></thead>
<tbody>
${rows.join('\n')}
</tbody></table></div>
<p class="note">${escapeHtml(`${report.clients} clients, windows of ${report.windowSeconds} s in turns, begun ${report.startedAt}. ${report.model}`)}</p>`,
  });
}

const CHART_WIDTH = 900;
const CHART_ROW_HEIGHT = 26;
const CHART_LABEL_WIDTH = 380;
const CHART_VALUE_WIDTH = 70;
/** The axis holds these at least; it is logarithmic, so that a half is as far from 1 as twice. */
const CHART_LOW_MAX = 0.5;
const CHART_HIGH_MIN = 4;

/** Each gain as a point with its interval; the line is where nothing changes. Empty without a measured exit. */
function gainChart(report: ExitsReport): string {
  const measured = report.outcomes.filter((outcome) => 'pairs' in outcome);
  if (measured.length === 0) return '';
  const values = measured.map(({ pairs }) => pairs.ratio.value);
  const low = Math.log(Math.min(CHART_LOW_MAX, ...values) / 1.2);
  const high = Math.log(Math.max(CHART_HIGH_MIN, ...values) * 1.2);
  const room = CHART_WIDTH - CHART_LABEL_WIDTH - CHART_VALUE_WIDTH;
  const at = (ratio: number): string => {
    const share = ratio <= 0 ? 0 : (Math.log(ratio) - low) / (high - low);
    return (CHART_LABEL_WIDTH + Math.min(1, Math.max(0, share)) * room).toFixed(1);
  };
  const height = CHART_ROW_HEIGHT * measured.length;
  const rows = measured.map(({ id, pairs: { ratio } }, row) => {
    const y = row * CHART_ROW_HEIGHT + CHART_ROW_HEIGHT / 2;
    const colour = findingOf(ratio) === 'no measurable gain' ? 'var(--faint)' : 'var(--curve-0)';
    return `<text x="0" y="${y + 5}" fill="currentColor">${escapeHtml(descriptionOf(id).title)}</text>
<line x1="${at(ratio.low)}" x2="${at(ratio.high)}" y1="${y}" y2="${y}" stroke="${colour}" stroke-width="2"/>
<circle cx="${at(ratio.value)}" cy="${y}" r="5" fill="${colour}"/>
<text x="${CHART_WIDTH}" y="${y + 5}" fill="currentColor" text-anchor="end">${factor(ratio.value)}</text>`;
  });
  return `<svg role="img" aria-label="The gain of each exit with its 95% interval" viewBox="0 0 ${CHART_WIDTH} ${height}" width="100%" font-size="14" style="margin: 20px 0">
<line x1="${at(1)}" x2="${at(1)}" y1="0" y2="${height}" stroke="currentColor" stroke-dasharray="4 4"/>
${rows.join('\n')}
</svg>`;
}

function gainText({ pairs }: MeasuredExit): string {
  const finding = findingOf(pairs.ratio);
  const interval = intervalText(pairs.ratio);
  return finding === 'no measurable gain'
    ? `none measurable ${interval}`
    : `${factor(pairs.ratio.value)} ${interval}`;
}

function intervalText({ low, high }: Ratio): string {
  return Number.isFinite(high) ? `(${low.toFixed(2)} to ${high.toFixed(2)})` : '(one pair)';
}

function factor(value: number): string {
  return `${value.toFixed(2)}×`;
}

function count(tps: number): string {
  return Math.round(tps).toString();
}

function milliseconds(ms: number): string {
  return ms < 100 ? ms.toFixed(2) : ms.toFixed(0);
}

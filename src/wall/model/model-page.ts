/** The model of four ceilings as text with bars, as JSON, and as one HTML file with its chart. */
import { escapeHtml } from '../report/html.ts';
import { htmlPage } from '../report/page.ts';
import {
  CEILING_TITLES,
  type Ceiling,
  type Ceilings,
  ceilingsOf,
  formatCount,
  formatNumber,
  type ModelInputs,
  type Place,
  placeOf,
  shapesOf,
} from './ceilings.ts';

const BAR_WIDTH = 30;
const TITLE_WIDTH = Math.max(...Object.values(CEILING_TITLES).map((title) => title.length));
const NOTE =
  'A server reaches less than the smallest: the four take from one another, and locks and checkpoints are not in the model.';

export interface ModelPage {
  readonly inputs: ModelInputs;
  /** Transactions a second that are to be placed. */
  readonly rates: readonly number[];
}

export function modelText({ inputs, rates }: ModelPage): string {
  const ceilings = ceilingsOf(inputs);
  const lines = [...barLines(ceilings), '', `${bindingSentence(ceilings)} ${NOTE}`, ''];
  lines.push('What the shape of the workload does to it:');
  const shapes = shapesOf(inputs);
  const nameWidth = Math.max(...shapes.map(({ name }) => name.length));
  for (const { name, change, inputs: shaped } of shapes) {
    const { binding } = ceilingsOf(shaped);
    const bound = `${CEILING_TITLES[binding.name]} binds`;
    lines.push(`  ${name.padEnd(nameWidth)}  ${pad(binding.perSecond)}  ${bound}${change && ` (${change})`}`);
  }
  lines.push('', 'Where a rate stands:');
  for (const rate of rates) lines.push(`  ${pad(rate)}  ${placeSentence(placeOf(rate, ceilings))}`);
  return `${lines.join('\n')}\n`;
}

/** One line to each ceiling. */
function barLines(ceilings: Ceilings): string[] {
  const most = longest(ceilings);
  return ceilings.all.map((each) => {
    const share = Math.min(1, each.perSecond / most);
    const bar = '█'.repeat(Math.max(1, Math.round(share * BAR_WIDTH))).padEnd(BAR_WIDTH);
    const mark = each === ceilings.binding ? '  ← binds' : '';
    return `${CEILING_TITLES[each.name].padEnd(TITLE_WIDTH)}  ${bar}  ${pad(each.perSecond)}  ${each.because}${mark}`;
  });
}

export function modelJson({ inputs, rates }: ModelPage): string {
  const ceilings = ceilingsOf(inputs);
  const finite = ({ name, perSecond, because }: Ceiling): object => ({
    name,
    perSecond: Number.isFinite(perSecond) ? perSecond : null,
    because,
  });
  const document = {
    inputs,
    ceilings: ceilings.all.map(finite),
    binding: ceilings.binding.name,
    perSecond: ceilings.binding.perSecond,
    shapes: shapesOf(inputs).map((shape) => {
      const { binding } = ceilingsOf(shape.inputs);
      return { ...shape, binding: binding.name, perSecond: binding.perSecond };
    }),
    rates: rates.map((rate) => placeOf(rate, ceilings)),
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}

export function modelHtml(page: ModelPage): string {
  const ceilings = ceilingsOf(page.inputs);
  const rows = page.rates
    .map((rate) => {
      const place = placeSentence(placeOf(rate, ceilings));
      return `<tr><td>${rateText(rate)}</td><td class="left">${escapeHtml(place)}</td></tr>`;
    })
    .join('');
  const shapes = shapesOf(page.inputs)
    .map(({ name, change, inputs }) => {
      const { binding } = ceilingsOf(inputs);
      const cells = [name, change, rateText(binding.perSecond), CEILING_TITLES[binding.name]];
      return `<tr>${cells.map((cell) => `<td class="left">${escapeHtml(cell)}</td>`).join('')}</tr>`;
    })
    .join('');
  return htmlPage({
    title: 'Four ceilings of one primary',
    main: `<h1>Four ceilings of one primary</h1>
<p>${escapeHtml(`${bindingSentence(ceilings)} ${NOTE}`)}</p>
${barChart(ceilings)}
<h2>What the shape of the workload does to it</h2>
<div class="scroll"><table><thead><tr>${['shape', 'change', 'ceiling', 'binds'].map((head) => `<th class="left">${head}</th>`).join('')}</tr></thead><tbody>${shapes}</tbody></table></div>
<h2>Where a rate stands</h2>
<div class="scroll"><table><tbody>${rows}</tbody></table></div>`,
  });
}

const CHART_WIDTH = 720;
const CHART_ROW_HEIGHT = 44;
const CHART_LABEL_WIDTH = 220;
const CHART_VALUE_WIDTH = 110;

/** Four bars, and a dashed line where the smallest ends. */
function barChart(ceilings: Ceilings): string {
  const most = longest(ceilings);
  const room = CHART_WIDTH - CHART_LABEL_WIDTH - CHART_VALUE_WIDTH;
  const height = CHART_ROW_HEIGHT * ceilings.all.length;
  const bars = ceilings.all.map((each, row) => {
    const width = Math.max(2, Math.min(1, each.perSecond / most) * room);
    const y = row * CHART_ROW_HEIGHT;
    const fill = each === ceilings.binding ? 'var(--curve-1)' : 'var(--curve-0)';
    return `<g><title>${escapeHtml(each.because)}</title>
<text x="0" y="${y + 26}" fill="currentColor">${escapeHtml(CEILING_TITLES[each.name])}</text>
<rect x="${CHART_LABEL_WIDTH}" y="${y + 8}" width="${width.toFixed(1)}" height="26" fill="${fill}"/>
<text x="${(CHART_LABEL_WIDTH + width + 8).toFixed(1)}" y="${y + 26}" fill="currentColor">${rateText(each.perSecond)}</text></g>`;
  });
  const at = CHART_LABEL_WIDTH + (ceilings.binding.perSecond / most) * room;
  return `<svg role="img" aria-label="Transactions a second that each of the four allows" viewBox="0 0 ${CHART_WIDTH} ${height}" width="100%" font-size="14">
${bars.join('\n')}
<line x1="${at.toFixed(1)}" x2="${at.toFixed(1)}" y1="0" y2="${height}" stroke="currentColor" stroke-dasharray="4 4"/>
</svg>`;
}

function longest(ceilings: Ceilings): number {
  return Math.max(...ceilings.all.map((each) => each.perSecond).filter(Number.isFinite));
}

function bindingSentence({ binding }: Ceilings): string {
  return `${CEILING_TITLES[binding.name]} binds first, at ${formatCount(binding.perSecond)} transactions a second.`;
}

function placeSentence({ shareOfCeiling, standing, primaries }: Place): string {
  const share = `${formatNumber(shareOfCeiling * 100)}% of the ceiling`;
  switch (standing) {
    case 'far':
      return `far from the wall (${share})`;
    case 'in sight':
      return `the wall is in sight (${share}): tuning matters, and so do peaks`;
    case 'at the wall':
      return `at the wall (${share}): latency rises before the rate stops; ${primaries} primaries would hold it`;
    case 'beyond':
      return `beyond any single primary of this kind (${share}): ${primaries} primaries would hold it`;
  }
}

function rateText(perSecond: number): string {
  return Number.isFinite(perSecond) ? `${formatCount(perSecond)}/s` : 'unlimited';
}

function pad(perSecond: number): string {
  return rateText(perSecond).padStart(11);
}

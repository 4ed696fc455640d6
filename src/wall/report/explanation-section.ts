/** What binds the server, as a section of the report's page: the verdict, its evidence, the waits, the ceilings. */
import type { Explanation } from '../explain/explanation.ts';
import { CEILING_TITLES } from '../model/ceilings.ts';
import { escapeHtml, percent, wholeNumber } from './html.ts';

const BAR_PIXELS = 220;

export function explanationSection(explanation: Explanation): string {
  const { sentence, confidence, remarks, unread } = explanation;
  const notes = [...remarks, ...(unread.length === 0 ? [] : [`Not readable: ${unread.join(', ')}.`])];
  return `<section><h2>What binds it</h2>
<p class="verdict">${escapeHtml(sentence)} <span class="note">(confidence: ${escapeHtml(confidence)})</span></p>
${notes.map((note) => `<p class="note">${escapeHtml(note)}</p>`).join('\n')}
<div class="scroll">${interventionsTable(explanation)}</div>
<h2>What the sessions waited for</h2><div class="scroll">${waitsTable(explanation)}</div>
<h2>The four ceilings, from this server's own numbers</h2><div class="scroll">${ceilingsTable(explanation)}</div>
<h2>Evidence</h2><div class="scroll">${observationsTable(explanation)}</div></section>`;
}

function interventionsTable({ interventions }: Explanation): string {
  const rows = interventions.map(({ change, tps, ratio }) => {
    const interval = `${ratio.low.toFixed(2)} to ${ratio.high.toFixed(2)}`;
    return row([escapeHtml(change), wholeNumber(tps), ratio.value.toFixed(2), interval]);
  });
  return table(['changed', 'tps', 'times', '95% interval'], rows);
}

function waitsTable({ waits }: Explanation): string {
  const rows = waits.map(({ event, share }) => {
    const width = Math.round(Math.min(1, share) * BAR_PIXELS);
    return row([escapeHtml(event), percent(share, 1), `<span class="bar" style="width:${width}px"></span>`]);
  });
  return table(['event', 'of the samples', ''], rows);
}

function ceilingsTable({ ceilings, lowestCeiling }: Explanation): string {
  const rows = ceilings.map(({ name, perSecond, bound, because }) => {
    const figure =
      perSecond === null
        ? bound === 'none'
          ? 'none'
          : 'unknown'
        : `${bound === 'at_least' ? 'at least ' : ''}${wholeNumber(perSecond)}`;
    const shown = name === lowestCeiling ? `<strong>${figure}</strong>` : figure;
    return row([CEILING_TITLES[name], shown, escapeHtml(because)]);
  });
  return table(['ceiling', 'a second', 'because'], rows);
}

function observationsTable({ observations }: Explanation): string {
  return table(
    ['kind', 'seen'],
    observations.map(({ kind, text }) => row([kind, escapeHtml(text)])),
  );
}

function row(cells: readonly string[]): string {
  return `<tr>${cells.map((cell) => `<td class="left">${cell}</td>`).join('')}</tr>`;
}

function table(head: readonly string[], rows: readonly string[]): string {
  const cells = head.map((name) => `<th class="left">${name}</th>`).join('');
  return `<table><thead><tr>${cells}</tr></thead><tbody>${rows.join('\n')}</tbody></table>`;
}

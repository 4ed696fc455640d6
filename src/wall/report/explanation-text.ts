/** What binds the server, as the terminal shows it. Pure. */
import type { Explanation } from '../explain/explanation.ts';
import { CEILING_TITLES } from '../model/ceilings.ts';
import { percent, wholeNumber } from './html.ts';

const WAITS_SHOWN = 5;
const TITLE_WIDTH = Math.max(...Object.values(CEILING_TITLES).map((title) => title.length));

export function explanationText(explanation: Explanation): string {
  const { sentence, confidence, interventions, waits, ceilings, lowestCeiling, remarks, unread } =
    explanation;
  const lines = [`${sentence} (confidence: ${confidence})`, ...remarks];
  for (const { change, ratio } of interventions) {
    lines.push(
      `  ${change}: ${ratio.value.toFixed(2)} times (${ratio.low.toFixed(2)} to ${ratio.high.toFixed(2)})`,
    );
  }
  const waited = waits.slice(0, WAITS_SHOWN).map(({ event, share }) => `${event} ${percent(share)}`);
  if (waited.length > 0) lines.push(`  waits: ${waited.join(', ')}`);
  for (const { name, perSecond, bound } of ceilings) {
    const figure = perSecond === null ? (bound === 'none' ? 'none' : 'unknown') : wholeNumber(perSecond);
    const lowest = name === lowestCeiling ? '  ← lowest' : '';
    lines.push(
      `  ceiling ${CEILING_TITLES[name].padEnd(TITLE_WIDTH)}  ${bound === 'at_least' ? 'at least ' : ''}${figure}${lowest}`,
    );
  }
  if (unread.length > 0) lines.push(`  not readable: ${unread.join(', ')}`);
  return `${lines.join('\n')}\n`;
}

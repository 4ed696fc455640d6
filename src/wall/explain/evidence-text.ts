/** The whole of an explanation as text for a terminal: verdict, the four ceilings, the evidence, what could not be read. Pure. */
import { CEILING_TITLES } from '../model/ceilings.ts';
import { type Explanation, HYPOTHESES, type MeasuredCeiling, type Observation } from './explanation.ts';

const BAR_CHARACTERS = 24;
const TITLE_WIDTH = Math.max(...Object.values(CEILING_TITLES).map((title) => title.length));
const WAITS_SHOWN = 6;

export function evidenceText(explanation: Explanation): string {
  const { sentence, confidence, remarks, tps, clients, workload, unread, probeCost, seconds } = explanation;
  const load = `${workload}, ${clients} ${clients === 1 ? 'client' : 'clients'}: ${count(tps.value)} transactions/s (${count(tps.low)} to ${count(tps.high)})`;
  const cpu = probeCost.cpuShare === null ? '' : `, ${(probeCost.cpuShare * 100).toFixed(1)}% of a core`;
  return `${[
    sentence,
    `Confidence: ${confidence}.`,
    ...remarks,
    '',
    load,
    '',
    'The four ceilings, by this server’s own numbers (transactions/s)',
    ...ceilingLines(explanation),
    '',
    'Evidence (what it says for and against each cause, in logarithmic weights)',
    ...explanation.observations.flatMap(observationLines),
    `  ${'sum'.padEnd(20)} ${weightsText(explanation.scores)}`,
    '',
    'What the sessions waited for',
    ...waitLines(explanation),
    '',
    ...(unread.length > 0 ? ['Not read', ...unread.map((each) => `  ${each}`), ''] : []),
    `It took ${Math.round(seconds)} s; its looks at the server were ${probeCost.samples} queries${cpu}.`,
  ].join('\n')}\n`;
}

function ceilingLines({ ceilings, lowestCeiling }: Explanation): string[] {
  const most = Math.max(1, ...ceilings.map(({ perSecond }) => perSecond ?? 0));
  return ceilings.map(({ name, perSecond, bound, because }) => {
    const figure =
      perSecond === null ? (bound === 'none' ? 'none' : 'unknown') : figureText(perSecond, bound);
    const bar =
      perSecond === null ? '' : '█'.repeat(Math.max(1, Math.round((perSecond / most) * BAR_CHARACTERS)));
    const mark = name === lowestCeiling ? '  ← lowest' : '';
    return `  ${CEILING_TITLES[name].padEnd(TITLE_WIDTH)} ${figure.padStart(12)}  ${bar.padEnd(BAR_CHARACTERS)}  ${because}${mark}`;
  });
}

function figureText(perSecond: number, bound: MeasuredCeiling['bound']): string {
  return `${bound === 'at_least' ? '≥ ' : ''}${count(perSecond)}`;
}

function observationLines({ name, text, weights }: Observation): string[] {
  const weighed = weightsText(weights);
  return [`  ${name.padEnd(20)} ${text}`, ...(weighed === '' ? [] : [`  ${''.padEnd(20)} → ${weighed}`])];
}

function weightsText(weights: Observation['weights']): string {
  return HYPOTHESES.flatMap((hypothesis) => {
    const weight = weights[hypothesis] ?? 0;
    return weight === 0 ? [] : [`${hypothesis} ${weight > 0 ? '+' : '−'}${Math.abs(weight)}`];
  }).join(', ');
}

function waitLines({ waits }: Explanation): string[] {
  if (waits.length === 0) return ['  nothing was seen'];
  return waits
    .slice(0, WAITS_SHOWN)
    .map(({ event, share }) => `  ${`${Math.round(share * 100)}%`.padStart(4)}  ${event}`);
}

function count(perSecond: number): string {
  return Math.round(Number(perSecond.toPrecision(3))).toLocaleString('en-US');
}

/** What a watch sees, in words: a block that is written over in a terminal, one line for each change, and one a minute, in a log. */
import type { ProbeCost } from '../server/probe-connection.ts';
import type { MeasuredWall } from './measured-wall.ts';
import type { Arrival } from './rate-history.ts';
import { formatMs, type Reading, SYMPTOM_NAMES, type SymptomName } from './symptoms.ts';

const TITLES: Readonly<Record<SymptomName, string>> = {
  cpu: 'processors at their end',
  lag: 'replica lag without bound',
  latency: 'commit latency rising',
  slo: 'objective broken',
};

export interface Distance {
  readonly wall: MeasuredWall;
  readonly share: number | undefined;
  readonly arrival: Arrival | undefined;
}

export function readingBlock(options: {
  reading: Reading;
  distance: Distance | undefined;
  cost: ProbeCost;
  looks: number;
  startedMs: number;
}): string[] {
  const { reading, distance, cost, looks, startedMs } = options;
  const lines = SYMPTOM_NAMES.map((name) => {
    const { present, unknown, text, firstPresentMs } = reading.symptoms[name];
    const mark = unknown !== undefined ? '?' : present ? '●' : '○';
    const since =
      present && firstPresentMs !== undefined ? `, first seen ${elapsed(firstPresentMs - startedMs)}` : '';
    return ` ${mark} ${TITLES[name].padEnd(26)} ${text}${since}`;
  });
  lines.push(`   ${loadText(reading, distance)}`);
  lines.push(`   ${verdictText(reading)}`, `   ${costText(cost, looks)}`);
  return lines;
}

/** The rate of writes, and how far it is from the wall. */
export function loadText({ writesPerSecond, meanWriteMs }: Reading, distance: Distance | undefined): string {
  const rate = writesPerSecond === undefined ? 'no rate yet' : `${Math.round(writesPerSecond)} writes/s`;
  // None was met under way: that says nothing of their time.
  const mean =
    meanWriteMs === undefined || meanWriteMs === 0 ? '' : `, ${formatMs(meanWriteMs)} each on average`;
  return `${rate}${mean}${distance === undefined ? '' : `; ${distanceText(distance)}`}`;
}

export function verdictText({ verdict, symptoms }: Reading): string {
  const unknown = SYMPTOM_NAMES.filter((name) => symptoms[name].unknown !== undefined);
  const present = SYMPTOM_NAMES.filter((name) => symptoms[name].present);
  switch (verdict) {
    case 'wall':
      return 'AT THE WALL: all four symptoms stand.';
    case 'wall as far as seen':
      return `AT THE WALL as far as can be seen: ${present.length} symptoms stand, and ${listed(unknown)} can't be seen.`;
    case 'symptoms':
      return `${present.length} of four symptoms: ${listed(present)}.`;
    case 'calm':
      return 'No symptom.';
  }
}

function distanceText({ wall, share, arrival }: Distance): string {
  const at = share === undefined ? '' : `${Math.round(share * 100)}% of `;
  const bound = wall.isLowerBound ? 'at least ' : '';
  return `${at}the wall of ${bound}${Math.round(wall.rate)}; ${arrivalText(arrival)}`;
}

function arrivalText(arrival: Arrival | undefined): string {
  if (arrival === undefined) return 'no trend yet';
  const { perDay, earliestMs, latestMs, grain } = arrival;
  if (perDay.low <= 0 && perDay.high >= 0) return `no growth that can be told from noise (peaks by ${grain})`;
  if (perDay.high < 0) return `falling (peaks by ${grain})`;
  if (earliestMs === undefined) return `growing, but not there within five years (peaks by ${grain})`;
  const latest = latestMs === undefined ? 'or later' : `to ${moment(latestMs, grain)}`;
  return `there between ${moment(earliestMs, grain)} ${latest} if it goes on so (peaks by ${grain})`;
}

function moment(ms: number, grain: Arrival['grain']): string {
  const text = new Date(ms).toISOString();
  return grain === 'minute' ? text.slice(0, 16).replace('T', ' ') : text.slice(0, 10);
}

export function costText({ queries, milliseconds, cpuSeconds }: ProbeCost, looks: number): string {
  const each = looks === 0 ? 0 : milliseconds / looks;
  const cpu =
    cpuSeconds === undefined || looks === 0 ? '' : `, ${((cpuSeconds * 1000) / looks).toFixed(2)} ms of CPU`;
  return `watching costs the server ${queries} queries so far: ${each.toFixed(1)} ms a look${cpu}`;
}

/** Since the watch began. */
function elapsed(ms: number): string {
  return `after ${Math.round(ms / 1000)} s`;
}

function listed(names: readonly SymptomName[]): string {
  return names.map((name) => TITLES[name]).join(', ');
}

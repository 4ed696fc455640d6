/** Values of command-line options that several commands take; each throws commander's error with what would be right. */
import { readFileSync } from 'node:fs';
import { InvalidArgumentError } from 'commander';
import { PosternError } from '../base/errors.ts';
import { parseSlo, type Slo } from '../wall/measure/slo.ts';
import { parseLinkSpeed } from '../wall/model/link-speed.ts';
import { WORKLOAD_NAMES } from '../wall/workload/built-in-workloads.ts';

export const PROTOCOLS = ['simple', 'extended', 'prepared'] as const;

export function wholeUpTo(max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= 1 && value <= max) return value;
    throw new InvalidArgumentError(`It must be a whole number from 1 to ${max}.`);
  };
}

export function numberUpTo(max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== '' && value > 0 && value <= max) return value;
    throw new InvalidArgumentError(`It must be a number above 0, up to ${max}.`);
  };
}

export function protocolName(text: string): string {
  if (PROTOCOLS.some((name) => name === text)) return text;
  throw new InvalidArgumentError(`It must be one of ${PROTOCOLS.join(', ')}.`);
}

export function workloadName(text: string): string {
  if (WORKLOAD_NAMES.includes(text)) return text;
  throw new InvalidArgumentError(`It must be one of ${WORKLOAD_NAMES.join(', ')}.`);
}

export function scriptFile(path: string): { text: string; name: string } {
  try {
    return { text: readFileSync(path, 'utf8'), name: path };
  } catch (error) {
    throw new InvalidArgumentError(`The file can't be read: ${(error as Error).message}.`);
  }
}

/** A service level objective, as p99=50ms. */
export function objective(text: string): Slo {
  try {
    return parseSlo(text);
  } catch (error) {
    if (!(error instanceof PosternError)) throw error;
    throw new InvalidArgumentError(`${error.message}. ${error.hint ?? ''}`);
  }
}

/** Bits a second. */
export function linkSpeed(text: string): number {
  const speed = parseLinkSpeed(text);
  if (speed !== undefined) return speed;
  throw new InvalidArgumentError('It must be a speed, as 1gbps or 100mbps.');
}

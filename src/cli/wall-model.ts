/**
 * `postern wall model`: the four ceilings from typed numbers. What is not given is the example's; it measures nothing and
 * connects to nothing.
 */
import { writeFileSync } from 'node:fs';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { EXAMPLE, type ModelInputs } from '../wall/model/ceilings.ts';
import { linkSpeed } from './option-values.ts';

const STATUS_FAILED = 1;
const RATES_DEFAULT: readonly number[] = [3_000, 30_000, 300_000];

interface ModelArguments {
  readonly syncMs: number;
  readonly commitsPerSync: number;
  readonly walInsertUs: number;
  readonly records: number;
  readonly cores: number;
  readonly cpuMs: number;
  readonly link: number;
  readonly recordBytes: number;
  readonly overheadBytes: number;
  readonly replicas: number;
  readonly rates: readonly number[];
  readonly json?: string;
  readonly html?: string;
}

export function registerWallModel(wall: Command): void {
  wall
    .command('model')
    .summary('compute the four ceilings from typed numbers')
    .description(
      'Computes how many transactions a second WAL fsync, WAL insertion, CPU and the network to replicas each allow, and which binds. Measures nothing; without options it shows its example.',
    )
    .option('--sync-ms <ms>', 'one flush of the WAL', positive, EXAMPLE.syncMs)
    .option(
      '--commits-per-sync <n>',
      'commits that one flush makes durable',
      positive,
      EXAMPLE.commitsPerSync,
    )
    .option('--wal-insert-us <us>', 'serial part of one WAL record', positive, EXAMPLE.walInsertUs)
    .option('--records <n>', 'WAL records a transaction', positive, EXAMPLE.walRecordsPerTransaction)
    .option('--cores <n>', 'cores of the primary', positive, EXAMPLE.cores)
    .option('--cpu-ms <ms>', 'CPU time of the server a transaction', positive, EXAMPLE.cpuMsPerTransaction)
    .addOption(
      new Option('--link <speed>', 'the link to the replicas')
        .argParser(linkSpeed)
        .default(EXAMPLE.linkBitsPerSecond, '1gbps'),
    )
    .option('--record-bytes <n>', 'WAL bytes a transaction', positive, EXAMPLE.walBytesPerTransaction)
    .option('--overhead-bytes <n>', 'further bytes of it on the wire', notNegative, EXAMPLE.wireOverheadBytes)
    .option('--replicas <n>', 'replicas that stream from the primary', notNegative, EXAMPLE.replicas)
    .addOption(
      new Option('--rates <list>', 'transactions a second to place')
        .argParser(rateList)
        .default(RATES_DEFAULT, RATES_DEFAULT.join(',')),
    )
    .option('--json <file>', 'write the figures as JSON')
    .option('--html <file>', 'write the chart as one HTML file')
    .action(async (options: ModelArguments) => {
      const { modelHtml, modelJson, modelText } = await import('../wall/model/model-page.ts');
      const page = { inputs: inputsOf(options), rates: options.rates };
      process.stdout.write(modelText(page));
      try {
        if (options.json !== undefined) writeFileSync(options.json, modelJson(page));
        if (options.html !== undefined) writeFileSync(options.html, modelHtml(page));
      } catch (error) {
        process.stderr.write(`postern: ${(error as Error).message}\n`);
        process.exitCode = STATUS_FAILED;
      }
    });
}

function inputsOf(options: ModelArguments): ModelInputs {
  return {
    syncMs: options.syncMs,
    commitsPerSync: options.commitsPerSync,
    walInsertUs: options.walInsertUs,
    walRecordsPerTransaction: options.records,
    cores: options.cores,
    cpuMsPerTransaction: options.cpuMs,
    linkBitsPerSecond: options.link,
    walBytesPerTransaction: options.recordBytes,
    wireOverheadBytes: options.overheadBytes,
    replicas: options.replicas,
  };
}

function positive(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isFinite(value) && value > 0) return value;
  throw new InvalidArgumentError('It must be a number above 0.');
}

function notNegative(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isFinite(value) && value >= 0) return value;
  throw new InvalidArgumentError('It must be a number, 0 or more.');
}

function rateList(text: string): number[] {
  return text.split(',').map(positive);
}

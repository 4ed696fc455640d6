/**
 * A bench's JSON as one self-contained HTML page of charts, beside it.
 *
 *   npm run bench:charts                     of the newest result in bench/results
 *   npm run bench:charts -- FILE.json        writes FILE.html
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { renderCharts } from './support/charts-page.ts';
import { type BenchResult, newestResult } from './support/result.ts';

const file = process.argv[2] ?? newestResult();
if (file === undefined) {
  console.error('There is no result in bench/results: npm run bench writes one.');
  process.exit(1);
}
if (!file.endsWith('.json')) {
  console.error('Usage: npm run bench:charts -- [FILE.json]');
  process.exit(2);
}
const page = file.replace(/\.json$/, '.html');
writeFileSync(page, renderCharts(JSON.parse(readFileSync(file, 'utf8')) as BenchResult));
console.log(`written to ${page}`);

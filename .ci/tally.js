/** Prints "N passed, N failed[, N skipped]" from vitest's JSON report; `node tally.js REPORT EXIT-STATUS`. */
import { readFileSync } from 'node:fs';

const [, , reportFile, exitStatus] = process.argv;

/** A run that ended before its report counts as one failure, and so does one that failed outside of any test. */
function counts() {
  let report;
  try {
    report = JSON.parse(readFileSync(reportFile, 'utf8'));
  } catch {
    return { passed: 0, failed: 1, skipped: 0 };
  }
  const failed = exitStatus === '0' ? report.numFailedTests : Math.max(1, report.numFailedTests);
  const skipped = report.numPendingTests + report.numTodoTests;
  return { passed: report.numPassedTests, failed, skipped };
}

const { passed, failed, skipped } = counts();
console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);

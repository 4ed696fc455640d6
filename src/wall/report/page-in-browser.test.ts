/** The page as a browser draws it; only where a Chromium is installed. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { sampleSearch } from '../../../test/support/sample-sweep.ts';
import { renderReport } from './report.ts';

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((file) =>
  existsSync(file),
);
const scratch = mkdtempSync(path.join(tmpdir(), 'postern-page-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe.skipIf(CHROMIUM === undefined)('the report in a browser', () => {
  it('draws both charts, with a whisker at each interval, and nothing fails', () => {
    // What is drawn on a canvas can't be read from the document: count the whiskers as they are drawn.
    const counting = `<script>
      var strokes = 0, stroke = CanvasRenderingContext2D.prototype.stroke;
      CanvasRenderingContext2D.prototype.stroke = function () {
        if (arguments.length === 0) strokes++;
        document.documentElement.dataset.strokes = strokes;
        return stroke.apply(this, arguments);
      };
      addEventListener('error', function (event) { document.documentElement.dataset.failed = event.message; });
    </script>`;
    const curves = [{ label: 'events, direct', result: sampleSearch() }];
    const page = renderReport({ title: 'The wall', verdict: 'It is there.', curves });
    const file = path.join(scratch, 'page.html');
    writeFileSync(file, page.replace('<head>', `<head>${counting}`));
    const args = ['--headless', '--no-sandbox', '--disable-gpu', '--virtual-time-budget=3000', '--dump-dom'];
    const { stdout, status } = spawnSync(
      CHROMIUM!,
      [...args, `--user-data-dir=${scratch}`, `file://${file}`],
      { encoding: 'utf8', timeout: 50_000 },
    );
    expect(status).toBe(0);
    expect(stdout).not.toMatch(/data-failed=/);
    expect(stdout.match(/<canvas/g)).toHaveLength(2);
    const strokes = Number(/data-strokes="(\d+)"/.exec(stdout)?.[1]);
    expect(strokes).toBeGreaterThanOrEqual(6);
  });
});

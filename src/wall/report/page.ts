/** The frame of every page: one file that needs no network, in light and dark, with uPlot inside where it has charts. */
import { escapeHtml, scriptJson, uplotFile } from './html.ts';
import { PAGE_STYLE } from './report-page.ts';

export function htmlPage(page: {
  /** As text. */
  readonly title: string;
  /** As HTML. */
  readonly main: string;
  /** What `script` finds in the element `data`, and draws with uPlot. */
  readonly charts?: { readonly data: object; readonly script: string };
}): string {
  const { title, main, charts } = page;
  const style = charts === undefined ? PAGE_STYLE : uplotFile('uPlot.min.css') + PAGE_STYLE;
  const scripts =
    charts === undefined
      ? ''
      : `<script type="application/json" id="data">${scriptJson(charts.data)}</script>
<script>${uplotFile('uPlot.iife.min.js')}</script>
<script>${charts.script}</script>
`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escapeHtml(title)}</title>
<style>${style}</style>
</head>
<body>
<main>
${main}
</main>
${scripts}</body>
</html>
`;
}

/** An examination as text for people, and as JSON for programs. */
import { docsOf, type Examination, type Finding, type Remedy, type Severity } from './finding.ts';

/** More lines of a definition are in the JSON. */
const LINES_MAX = 12;

export function reportText({ findings, unread, looked }: Examination): string {
  const blocks = findings.map(findingText);
  blocks.push(
    ['Looked at:', ...looked.map((one) => `  ${one}`)].join('\n'),
    [
      'Not looked at:',
      ...unread.map(
        ({ what, node, why }) => `  ${what}${node === undefined ? '' : ` of node ${node}`} (${oneLine(why)})`,
      ),
    ].join('\n'),
    summary(findings),
  );
  return `${blocks.join('\n\n')}\n`;
}

function findingText(finding: Finding): string {
  const { severity, node, object, message, found, expected, advice, remedies, topic } = finding;
  const lines = [`${severity.toUpperCase()}  ${node === undefined ? '' : `${node}: `}${object}: ${message}`];
  if (found !== undefined) lines.push(`  there:     ${shortened(found)}`);
  if (expected !== undefined) lines.push(`  should be: ${shortened(expected)}`);
  if (advice !== undefined) lines.push(`  ${advice}`);
  let at: string | undefined;
  for (const remedy of remedies) {
    const place = placeOf(remedy);
    if (place !== at) lines.push(`  ${place}`);
    at = place;
    const text = remedy.at === 'machine' ? remedy.text : `${remedy.text};`;
    lines.push(...text.split('\n').map((line) => `    ${line}`));
  }
  lines.push(`  ${docsOf(topic)}`);
  return lines.join('\n');
}

function placeOf({ at, node }: Remedy): string {
  if (at === 'router') return 'run through a router:';
  const where = node === undefined ? '' : ` on ${at === 'node' ? 'node' : 'the machine of node'} ${node}`;
  return `${at === 'node' ? 'run' : 'do'}${where}:`;
}

function shortened(text: string): string {
  const lines = text.split('\n');
  return lines.length <= LINES_MAX ? text : [...lines.slice(0, LINES_MAX), '…'].join('\n');
}

function oneLine(text: string): string {
  return text.replace(/\s*\n\s*/g, ' ');
}

function summary(findings: readonly Finding[]): string {
  if (findings.length === 0) return 'Nothing found.';
  const parts = (['error', 'warning', 'note'] as const satisfies readonly Severity[]).flatMap((severity) => {
    const number = findings.filter((finding) => finding.severity === severity).length;
    return number === 0 ? [] : [`${number} ${severity}${number === 1 ? '' : 's'}`];
  });
  return `Found: ${parts.join(', ')}.`;
}

/** Fields are added, and never change their meaning. */
export function reportJson({ findings, unread, looked }: Examination): string {
  const told = findings.map(({ topic, ...finding }) => ({ topic, ...finding, docs: docsOf(topic) }));
  return `${JSON.stringify({ format: 1, findings: told, notLookedAt: unread, lookedAt: looked }, null, 2)}\n`;
}

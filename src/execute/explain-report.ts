/**
 * What EXPLAIN answers: where the query goes, why, and the plans of its nodes, in PostgreSQL's formats. The text format has
 * lines of Postern's ahead of PostgreSQL's own; the others are an object with the keys "Postern", "Plan" (what tools draw) and
 * "Plans", one for each node or bucket.
 */
import { OID } from '../pg/oid.ts';
import type { ExplainFormat } from '../plan/explain.ts';
import { encodeRowDescription } from '../wire/backend.ts';
import { FrameWriter } from '../wire/frame-writer.ts';
import { type LeavesOfPlan, lineInUsersNames, planInUsersNames } from './explain-names.ts';
import type { Described } from './plan-cache.ts';

const JSON_OID = 114;
const XML_OID = 142;

/** What a client is told of the answer's only column. */
export function describeExplain(format: ExplainFormat): Described {
  const writer = new FrameWriter(64);
  const typeOid = format === 'json' ? JSON_OID : format === 'xml' ? XML_OID : OID.text;
  encodeRowDescription(writer, [{ name: 'QUERY PLAN', typeOid }]);
  return { parameterOids: [], rows: writer.take(), leaves: new Map() };
}

export interface ExplainedPart {
  readonly node: string;
  /** Whose leaves it names; undefined: none. */
  readonly leaves: LeavesOfPlan | undefined;
  /** `merge`: puts together what the others give. */
  readonly role: 'part' | 'merge';
  /** Buckets whose plan is not shown, as they are sent the same statement. */
  readonly alike: readonly number[];
}

export interface ExplainReport {
  /** As in Placement: keyed, scattered, home, … */
  readonly placement: string;
  readonly summary: string;
  readonly reason: string | undefined;
  readonly notes: readonly string[];
  readonly parts: readonly ExplainedPart[];
}

/** `rows`: what each part has answered, in order. Gives the rows of the answer. */
export function explainRows(
  report: ExplainReport,
  rows: readonly (readonly string[])[],
  format: ExplainFormat,
): string[] {
  if (format === 'text') return textRows(report, rows);
  const whole = objectOf(report, rows);
  switch (format) {
    case 'json':
      return [numbersRestored(JSON.stringify([whole], undefined, 2))];
    case 'yaml':
      return [numbersRestored(yamlOf(whole))];
    case 'xml':
      return [numbersRestored(xmlOf(whole))];
  }
}

function textRows(report: ExplainReport, rows: readonly (readonly string[])[]): string[] {
  const { summary, reason, notes, parts } = report;
  const lines = [`Postern: ${summary}`];
  if (reason !== undefined) lines.push(`  Reason: ${reason}`);
  for (const note of notes) lines.push(`  Note: ${note}`);
  const isPlain = parts.length === 1 && parts[0]!.role === 'part' && parts[0]!.alike.length === 0;
  for (const [index, part] of parts.entries()) {
    const plan = (rows[index] ?? []).map((line) => renamedLine(line, part));
    if (isPlain) lines.push(...plan);
    else lines.push(`  ${titleOf(part)}`, ...plan.map((line) => `    ${line}`));
  }
  return lines;
}

function renamedLine(line: string, { leaves }: ExplainedPart): string {
  return leaves ? lineInUsersNames(line, leaves) : line;
}

function titleOf({ node, leaves, role, alike }: ExplainedPart): string {
  if (role === 'merge') return `Merge on node ${node}:`;
  if (!leaves) return `Node ${node}:`;
  const buckets = `${leaves.buckets.length === 1 ? 'bucket' : 'buckets'} ${leaves.buckets.join(', ')}`;
  return alike.length === 0
    ? `Node ${node}, ${buckets}:`
    : `Node ${node}, ${buckets} (alike, and not shown: ${alike.join(', ')}):`;
}

type Json = Record<string, unknown>;

function objectOf(report: ExplainReport, rows: readonly (readonly string[])[]): Json {
  const { placement, summary, reason, notes, parts } = report;
  const plans = parts.map((part, index): Json => {
    const [own] = JSON.parse(numbersKept((rows[index] ?? []).join('\n'))) as [Json];
    const renamed = (part.leaves ? planInUsersNames(own, part.leaves) : own) as Json;
    const { leaves, alike, role, node } = part;
    return {
      Node: node,
      ...(leaves && { Buckets: leaves.buckets }),
      ...(alike.length > 0 && { 'Buckets Alike': alike }),
      ...(role === 'merge' && { Merge: true }),
      ...renamed,
    };
  });
  const postern = {
    Placement: placement,
    Summary: summary,
    ...(reason !== undefined && { Reason: reason }),
    ...(notes.length > 0 && { Notes: notes }),
    Nodes: [...new Set(parts.map(({ node }) => node))],
  };
  return { Postern: postern, ...planOfTools(plans), Plans: plans };
}

/** The whole as one plan: the only one, or a node over all of them. */
function planOfTools(plans: readonly Json[]): Json {
  const [first, ...more] = plans;
  if (more.length === 0) {
    const { Node: _node, Buckets: _buckets, 'Buckets Alike': _alike, ...own } = first ?? {};
    return own;
  }
  const merge = plans.find(({ Merge }) => Merge === true);
  const parts = plans.filter((plan) => plan !== merge).map(({ Plan }) => Plan as Json);
  const sum = (key: string) => parts.reduce((total, plan) => total + Number(plan[key] ?? 0), 0);
  const most = (key: string) => Math.max(...parts.map((plan) => Number(plan[key] ?? 0)));
  return {
    Plan: {
      'Node Type': 'Custom Scan',
      'Custom Plan Provider': 'Postern',
      'Parallel Aware': false,
      'Startup Cost': Math.min(...parts.map((plan) => Number(plan['Startup Cost'] ?? 0))),
      'Total Cost': most('Total Cost'),
      'Plan Rows': sum('Plan Rows'),
      'Plan Width': most('Plan Width'),
      ...(parts.some((plan) => 'Actual Rows' in plan) && {
        'Actual Startup Time': 0,
        'Actual Total Time': most('Actual Total Time'),
        'Actual Rows': sum('Actual Rows'),
        'Actual Loops': 1,
      }),
      Plans: parts.map((plan) => ({ 'Parent Relationship': 'Member', ...plan })),
    },
  };
}

/** A 64-bit number that JavaScript would round. */
const BIG_NUMBER = /("[^"\n]+": )(-?\d{16,})(?=\s*[,}\n])/g;
const KEPT = /"postern number (-?\d+)"/g;

function numbersKept(json: string): string {
  return json.replaceAll(BIG_NUMBER, '$1"postern number $2"');
}

function numbersRestored(text: string): string {
  return text.replaceAll(KEPT, '$1').replaceAll(/postern number (-?\d+)/g, '$1');
}

function yamlOf(value: Json): string {
  return `- ${yamlLines(value, 1).join('\n').trimStart()}`;
}

function yamlLines(value: Json, depth: number): string[] {
  const indent = '  '.repeat(depth);
  return Object.entries(value).flatMap(([key, child]) => {
    if (Array.isArray(child)) {
      const items = child.flatMap((item: unknown) =>
        isObject(item)
          ? [
              `${indent}  - ${yamlLines(item, depth + 2)
                .join('\n')
                .trimStart()}`,
            ]
          : [`${indent}  - ${yamlScalar(item)}`],
      );
      return [`${indent}${key}: `, ...items];
    }
    if (isObject(child)) return [`${indent}${key}: `, ...yamlLines(child, depth + 1)];
    return [`${indent}${key}: ${yamlScalar(child)}`];
  });
}

function yamlScalar(value: unknown): string {
  return JSON.stringify(value ?? null);
}

/** PostgreSQL's names of the elements of its lists. */
const ITEMS: Readonly<Record<string, string>> = {
  Plans: 'Plan',
  Workers: 'Worker',
  Triggers: 'Trigger',
  Settings: 'Setting',
};

function xmlOf(value: Json): string {
  const lines = ['<explain xmlns="http://www.postgresql.org/2009/explain">', '  <Query>'];
  const { Plans: plans, ...rest } = value;
  lines.push(...xmlLines(rest, 2), '    <Plans>');
  for (const plan of plans as readonly Json[])
    lines.push('      <Query>', ...xmlLines(plan, 4), '      </Query>');
  lines.push('    </Plans>', '  </Query>', '</explain>');
  return lines.join('\n');
}

function xmlLines(value: Json, depth: number): string[] {
  const indent = '  '.repeat(depth);
  return Object.entries(value).flatMap(([key, child]) => {
    const tag = tagOf(key);
    if (Array.isArray(child)) {
      const item = ITEMS[key] ?? 'Item';
      const items = child.flatMap((one: unknown) =>
        isObject(one)
          ? [`${indent}  <${item}>`, ...xmlLines(one, depth + 2), `${indent}  </${item}>`]
          : [`${indent}  <${item}>${xmlText(one)}</${item}>`],
      );
      return [`${indent}<${tag}>`, ...items, `${indent}</${tag}>`];
    }
    if (isObject(child)) return [`${indent}<${tag}>`, ...xmlLines(child, depth + 1), `${indent}</${tag}>`];
    return [`${indent}<${tag}>${xmlText(child)}</${tag}>`];
  });
}

function tagOf(key: string): string {
  return key.replaceAll(/[^A-Za-z0-9_.-]/g, '-');
}

function xmlText(value: unknown): string {
  return String(value ?? '')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;');
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

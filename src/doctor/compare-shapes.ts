/** What differs between two shapes, as findings: parts that are missing, that are too many, that are other ones, that are not valid. */
import { type Finding, onNode, type Severity, type Topic } from './finding.ts';
import {
  changePart,
  createPart,
  dropPart,
  type Part,
  qualified,
  type Shape,
  type Target,
  validatePart,
} from './shape.ts';

export interface ShapeComparison {
  readonly topic: Topic;
  readonly node: string;
  /** `leaf of bucket 3 of public.events`. */
  readonly object: string;
  /** What it is held against: `the other leaves`. */
  readonly against: string;
  readonly target: Target;
  readonly found: Shape;
  readonly expected: Shape;
  /** Parts that are not looked at. */
  readonly ignores?: (part: Part) => boolean;
}

/** A property of storage has no bearing on answers. */
function severityOf(kind: Part['kind'], isMissing: boolean): Severity {
  if (kind === 'storage parameter') return 'note';
  if (kind === 'column' || kind === 'constraint' || kind === 'policy') return 'error';
  if (kind === 'index' && !isMissing) return 'note';
  return 'warning';
}

export function compareShapes(comparison: ShapeComparison): readonly Finding[] {
  const { found, expected, against, target, ignores = () => false } = comparison;
  const findings: Finding[] = [];
  const add = (
    part: Part,
    isMissing: boolean,
    rest: Pick<Finding, 'message'> & Partial<Finding>,
    run: readonly string[],
  ) => {
    findings.push({
      topic: comparison.topic,
      severity: severityOf(part.kind, isMissing),
      node: comparison.node,
      object: comparison.object,
      remedies: onNode(comparison.node, ...run),
      ...rest,
    });
  };
  for (const [key, wanted] of expected) {
    if (ignores(wanted)) continue;
    const is = found.get(key);
    if (!is) {
      const message = `${wanted.kind} ${wanted.name} is missing`;
      add(
        wanted,
        true,
        { message, expected: wanted.text, ...adviceToAdd(wanted, target) },
        createPart(wanted, target),
      );
    } else if (differs(is, wanted)) {
      const message = `${wanted.kind} ${wanted.name} is not as ${against} have it`;
      add(
        wanted,
        true,
        { message, found: shown(is), expected: shown(wanted) },
        changePart(is, wanted, target),
      );
    } else if (is.isInvalid && !wanted.isInvalid) {
      const isIndex = is.kind === 'index' || /^(PRIMARY KEY|UNIQUE|EXCLUDE)/.test(is.text);
      const message = isIndex
        ? `${is.kind} ${is.name} is not valid, and not used`
        : `${is.kind} ${is.name} is not validated: rows from before it may break it`;
      add(wanted, true, { message }, validatePart(is, target, isIndex));
    }
  }
  for (const [key, is] of found) {
    if (expected.has(key) || ignores(is) || is.kind === 'property') continue;
    const advice =
      is.kind === 'column' ? 'Look first whether it holds anything that is needed elsewhere.' : undefined;
    const message = `${is.kind} ${is.name} is there, and ${against} don't have it`;
    add(is, false, { message, found: is.text, advice }, dropPart(is, target));
  }
  return findings;
}

function differs(a: Part, b: Part): boolean {
  return a.text !== b.text || (a.kind === 'trigger' && a.enabled !== b.enabled);
}

function shown({ text, kind, enabled }: Part): string {
  return kind === 'trigger' && enabled !== 'O'
    ? `${text} (${enabled === 'D' ? 'disabled' : `enabled ${enabled}`})`
    : text;
}

function adviceToAdd(part: Part, target: Target): { readonly advice?: string } {
  if (part.kind === 'column')
    return {
      advice: 'Its values are gone; the statement adds it with its default. Restore them from a backup.',
    };
  if (part.kind === 'constraint' || part.kind === 'foreign key')
    return { advice: `Rows of ${qualified(target)} that break it have to be found and mended first.` };
  return {};
}

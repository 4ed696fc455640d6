/** Which SELECTs may be answered by any node, since all they read is on each of them. */
import type { Node } from '@pgsql/types';
import type { StatementFacts } from '../sql/facts.ts';
import { type PlanContext, resolveReferenceVar } from './resolve.ts';

/**
 * Does each name mean a reference table, or a CTE of the statement's own? A name that both have means the home node's, to be on
 * the safe side. So do operators that are not PostgreSQL's usual ones: somebody has made them, maybe on the home node alone.
 */
export function readsReferencesOnly(node: Node, facts: StatementFacts, context: PlanContext): boolean {
  if (context.map.referencesByName.size === 0) return false;
  const ctes = new Set<string>();
  collectCtes(node, ctes);
  let reads = false;
  for (const rangeVar of facts.rangeVars) {
    const isReference = resolveReferenceVar(context, rangeVar) !== undefined;
    const isCte = rangeVar.schemaname === undefined && ctes.has(rangeVar.relname ?? '');
    if (isReference === isCte) return false;
    reads ||= isReference;
  }
  return reads && [...facts.operators].every((operator) => USUAL_OPERATORS.has(operator));
}

const USUAL_OPERATORS = new Set(
  (
    '= <> != < > <= >= + - * / % ^ || ~~ !~~ ~~* !~~* ~ ~* !~ !~* -> ->> #> #>> @> <@ && ? ?| ?& @? @@ & | # << >> ' +
    '|/ ||/ @ -|- &< &>'
  ).split(' '),
);

function collectCtes(tree: unknown, names: Set<string>): void {
  if (typeof tree !== 'object' || tree === null) return;
  for (const [key, value] of Object.entries(tree)) {
    if (key === 'ctename' && typeof value === 'string') names.add(value);
    else collectCtes(value, names);
  }
}

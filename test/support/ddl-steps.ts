/** For tests of plan/ddl: the steps of a DDL statement as lines of text. */
import type { DdlAnswer, DdlStep } from '../../src/plan/ddl/change.ts';
import { textOfReplacement } from '../../src/plan/rewrite.ts';
import { statementOf } from './example-map.ts';

/**
 * `all: …` and the like for texts, `leaves: …` as for bucket 3, where a leaf's name is `<name>`; or the SQLSTATE of the refusal. Answers that
 * are not given are empty: nothing is taken, nothing is found.
 */
export function stepsOf(
  text: string,
  answers: readonly DdlAnswer[] = [],
  path = ['app', 'public'],
): string[] {
  const { placement, refusal } = statementOf(text, path);
  if (refusal) return [refusal.sqlState];
  if (placement.kind !== 'everywhere') return [placement.kind];
  const { change } = placement;
  const given = change.questions.map((_, index) => answers[index] ?? []);
  return change.steps(given).map(lineOf);
}

function lineOf(step: DdlStep): string {
  switch (step.kind) {
    case 'text':
      return `${step.nodes}: ${step.text}`;
    case 'leaves': {
      const binding = { bucket: 3, ids: [] };
      const parts = step.parts.map((part) =>
        typeof part === 'string' ? part : textOfReplacement(part, binding),
      );
      return `leaves: ${parts.join('')}`.replaceAll(
        /"postern_leaves"\."((?:[^"]|"")*)_b3_g7"|"((?:[^"]|"")*)_b3_g7"/g,
        (_, leaf, object) => (leaf === undefined ? `<${object}>` : `<leaf ${leaf}>`),
      );
    }
    case 'leafList': {
      const leaves = step.tables.map((table) => `<leaves ${table.name}>`);
      const home = step.homeOnly.map((name) => `home ${name}`);
      const names = [...leaves, ...step.others, ...home].map((name) => name + step.suffix);
      return `list: ${step.before}${names.join(', ')}${step.after}`;
    }
    case 'dropTables':
      return `drop: ${step.tables.map(({ name }) => name).join(', ')}${step.cascade ? ' CASCADE' : ''}`;
    case 'catalog': {
      const { kind, ...rest } = step.change;
      return `catalog: ${[kind, ...Object.values(rest)].join(' ')}`;
    }
  }
}

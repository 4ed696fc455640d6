/** The plan of a statement that is carried out over the nodes. */
import type { PlanParts } from '../query.ts';
import type { DdlChange } from './change.ts';

export function everywhere(change: DdlChange): PlanParts {
  return {
    placement: { kind: 'everywhere', change },
    effects: [{ kind: 'ddl' }],
    outsideTransaction: change.mode === 'outside',
  };
}

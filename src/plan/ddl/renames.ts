/** ALTER TABLE … RENAME and SET SCHEMA of a table with a door, and of what belongs to it. */
import type { AlterObjectSchemaStmt, RenameStmt } from '@pgsql/types';
import type { ReferenceTable, ShardedTable } from '../../catalog/map.ts';
import { quoteIdentifier } from '../../pg/identifier.ts';
import type { PlanParts, Request } from '../query.ts';
import { notOnReference } from '../reference-refusal.ts';
import { notUnderstood } from '../refusal.ts';
import { resolveRangeVar, resolveReferenceVar } from '../resolve.ts';
import { refuseName } from '../utility.ts';
import { changeAfter, changeOf, type DdlAnswer, type DdlStep } from './change.ts';
import { constraintQuestions, constraintType } from './constraints.ts';
import { onTable } from './on-table.ts';
import { everywhere } from './placement.ts';
import { joined, leafOf, onLeaf, quotedName } from './statement-text.ts';

type DoorTable = ShardedTable | ReferenceTable;

/** Undefined: it is of a table without a door. */
export function planRenameOnTable(statement: RenameStmt, request: Request): PlanParts | undefined {
  const { context } = request;
  const { relation, renameType, relationType } = statement;
  if (!relation) return undefined;
  const table = resolveRangeVar(context, relation) ?? resolveReferenceVar(context, relation);
  if (!table) return undefined;
  switch (renameType) {
    case 'OBJECT_TABLE':
      return renameTable(table, statement, request);
    case 'OBJECT_COLUMN':
      return relationType === 'OBJECT_TABLE' ? renameColumn(table, statement) : undefined;
    case 'OBJECT_TABCONSTRAINT':
      return renameConstraint(table, statement);
    case 'OBJECT_POLICY':
      return onTable(request, table, relation, { tag: 'ALTER POLICY' });
    case 'OBJECT_TRIGGER':
      if (!('keyColumn' in table))
        throw notOnReference('ALTER TRIGGER', table, 'One of them keeps its copies equal.');
      return onTable(request, table, relation, { tag: 'ALTER TRIGGER' });
    default:
      return undefined;
  }
}

function renameTable(table: DoorTable, statement: RenameStmt, { context }: Request): PlanParts {
  const name = statement.newname ?? '';
  refuseName(name, context);
  const steps: DdlStep[] = [
    {
      kind: 'text',
      nodes: 'all',
      text: `ALTER TABLE ${quotedName(table)} RENAME TO ${quoteIdentifier(name)}`,
    },
  ];
  if ('keyColumn' in table) {
    const parts = joined(['ALTER TABLE ', leafOf(table), ' RENAME TO ', onLeaf(table, name)]);
    steps.push({ kind: 'leaves', table, parts });
  }
  steps.push({
    kind: 'catalog',
    change: { kind: 'renameTable', tableId: table.id, schema: table.schema, name },
  });
  return everywhere(changeOf(steps, { tag: 'ALTER TABLE' }));
}

function renameColumn(table: DoorTable, statement: RenameStmt): PlanParts {
  const { subname: from = '', newname: to = '' } = statement;
  const rename = ` RENAME COLUMN ${quoteIdentifier(from)} TO ${quoteIdentifier(to)}`;
  const steps: DdlStep[] = [
    { kind: 'text', nodes: 'all', text: `ALTER TABLE ${quotedName(table)}${rename}` },
  ];
  if ('keyColumn' in table) {
    steps.push({ kind: 'leaves', table, parts: joined(['ALTER TABLE ', leafOf(table), rename]) });
    steps.push({ kind: 'catalog', change: { kind: 'renameColumn', tableId: table.id, from, to } });
  } else steps.push({ kind: 'catalog', change: { kind: 'touch' } });
  return everywhere(changeOf(steps, { tag: 'ALTER TABLE' }));
}

function renameConstraint(table: DoorTable, statement: RenameStmt): PlanParts {
  const { subname: from = '', newname: to = '' } = statement;
  const face = `ALTER TABLE ${quotedName(table)} RENAME CONSTRAINT ${quoteIdentifier(from)} TO ${quoteIdentifier(to)}`;
  const all: DdlStep = { kind: 'text', nodes: 'all', text: face };
  const touch: DdlStep = { kind: 'catalog', change: { kind: 'touch' } };
  const options = { tag: 'ALTER TABLE' };
  if (!('keyColumn' in table)) return everywhere(changeOf([all, touch], options));
  const steps = (answers: readonly DdlAnswer[]): DdlStep[] => {
    const type = constraintType(answers);
    if (type === undefined || type === 'n') return [all, touch];
    const named = (name: string) => (type === 'c' ? quoteIdentifier(name) : onLeaf(table, name));
    const rename = ['ALTER TABLE ', leafOf(table), ' RENAME CONSTRAINT ', named(from), ' TO ', named(to)];
    const leaves: DdlStep = { kind: 'leaves', table, parts: joined(rename) };
    return type === 'f' ? [leaves, touch] : [all, leaves, touch];
  };
  return everywhere(changeAfter(constraintQuestions(table, from), steps, options));
}

/** The leaves stay where they are. */
export function planSetSchema(statement: AlterObjectSchemaStmt, { context }: Request): PlanParts | undefined {
  const { relation, newschema: schema = '', objectType } = statement;
  if (!relation || objectType !== 'OBJECT_TABLE') return undefined;
  const table = resolveRangeVar(context, relation) ?? resolveReferenceVar(context, relation);
  if (!table) return undefined;
  if (/^(pg_|postern($|_))/.test(schema)) {
    const what = `SET SCHEMA ${schema}`;
    const hint = 'Name a schema of your own.';
    throw 'keyColumn' in table ? notUnderstood(what, table, hint) : notOnReference(what, table, hint);
  }
  return everywhere(
    changeOf(
      [
        {
          kind: 'text',
          nodes: 'all',
          text: `ALTER TABLE ${quotedName(table)} SET SCHEMA ${quoteIdentifier(schema)}`,
        },
        { kind: 'catalog', change: { kind: 'renameTable', tableId: table.id, schema, name: table.name } },
      ],
      { tag: 'ALTER TABLE' },
    ),
  );
}

/** Schemas are the same on all nodes; what is done to one is done to the tables with a door in it. */
import type { CreateSchemaStmt, DropStmt, RenameStmt } from '@pgsql/types';
import type { ReferenceTable, ShardedTable } from '../../catalog/map.ts';
import { quoteIdentifier } from '../../pg/identifier.ts';
import { collectFacts } from '../../sql/facts.ts';
import type { PlanParts, Request } from '../query.ts';
import type { PlanContext } from '../resolve.ts';
import { refuseName } from '../utility.ts';
import { changeOf, type DdlStep } from './change.ts';
import { everywhere } from './placement.ts';
import { MISSING } from './shared-objects.ts';
import { StatementText } from './statement-text.ts';

const DUPLICATE_SCHEMA = '42P06';

export function planCreateSchema(statement: CreateSchemaStmt, request: Request): PlanParts | undefined {
  const { context } = request;
  const elements = statement.schemaElts ?? [];
  for (const element of elements) {
    for (const rangeVar of collectFacts(element).rangeVars) refuseName(rangeVar.relname ?? '', context);
  }
  if (context.map.nodes.length < 2) return undefined;
  const { whole } = new StatementText(request);
  const { authrole, schemaname = authrole?.rolename } = statement;
  // CREATE SCHEMA AUTHORIZATION CURRENT_USER: the name is known to the server only, and the same on each node.
  const bare = elements.length === 0 || schemaname === undefined;
  // What is made in it lives on home.
  const owner =
    authrole?.rolename === undefined ? '' : ` AUTHORIZATION ${quoteIdentifier(authrole.rolename)}`;
  const others = bare ? whole : `CREATE SCHEMA ${quoteIdentifier(schemaname)}${owner}`;
  return everywhere(
    changeOf([
      { kind: 'text', nodes: 'home', text: whole },
      { kind: 'text', nodes: 'others', text: others, toleratedStates: [DUPLICATE_SCHEMA] },
    ]),
  );
}

export function planDropSchema(statement: DropStmt, request: Request): PlanParts | undefined {
  const { context } = request;
  const names = (statement.objects ?? []).flatMap((node) =>
    'String' in node ? [node.String.sval ?? ''] : [],
  );
  const tables = names.flatMap((name) => tablesIn(name, context));
  if (tables.length === 0 && context.map.nodes.length < 2) return undefined;
  const cascade = statement.behavior === 'DROP_CASCADE';
  const { whole } = new StatementText(request);
  const ifExists = `DROP SCHEMA IF EXISTS ${names.map(quoteIdentifier).join(', ')}${cascade ? ' CASCADE' : ''}`;
  const drop: DdlStep[] = [
    { kind: 'text', nodes: 'home', text: whole },
    { kind: 'text', nodes: 'others', text: ifExists },
  ];
  // Without CASCADE home says what is in the way.
  const before: DdlStep[] = tables.length > 0 && cascade ? [{ kind: 'dropTables', tables, cascade }] : [];
  return everywhere(changeOf([...before, ...drop, TOUCH], { tag: 'DROP SCHEMA' }));
}

const TOUCH: DdlStep = { kind: 'catalog', change: { kind: 'touch' } };

export function planRenameSchema(statement: RenameStmt, request: Request): PlanParts | undefined {
  const { context } = request;
  const { subname: from = '', newname: to = '' } = statement;
  if (context.map.nodes.length < 2 && tablesIn(from, context).length === 0) return undefined;
  const text = new StatementText(request).whole;
  return everywhere(
    changeOf([
      { kind: 'text', nodes: 'home', text },
      { kind: 'text', nodes: 'others', text, toleratedStates: MISSING },
      { kind: 'catalog', change: { kind: 'renameSchema', from, to } },
    ]),
  );
}

function tablesIn(schema: string, { map }: PlanContext): (ShardedTable | ReferenceTable)[] {
  return [...(map.tables.get(schema)?.values() ?? []), ...(map.references.get(schema)?.values() ?? [])];
}

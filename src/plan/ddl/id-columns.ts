/**
 * Ids for a column of a sharded table that had none: as pg_dump writes a serial or identity column, in statements of their own
 * behind CREATE TABLE. The sequence is on the home node, and routers lease blocks from it (catalog/id-sequences.ts); leaves have
 * no default, since routers supply the values.
 */
import type { AlterSeqStmt, AlterTableCmd, AlterTableStmt, Node } from '@pgsql/types';
import type { ShardedTable } from '../../catalog/map.ts';
import { OID } from '../../pg/oid.ts';
import { stringsOf } from '../../sql/facts.ts';
import { functionName, stringLiteral } from '../calls.ts';
import type { PlanParts, Request } from '../query.ts';
import { resolveRangeVar, resolveTable } from '../resolve.ts';
import { changeOf } from './change.ts';
import { everywhere } from './placement.ts';
import { StatementText } from './statement-text.ts';

/** The largest id that a client in JavaScript reads without loss. */
const ID_MAX_BY_TYPE: ReadonlyMap<number, number> = new Map([
  [OID.int2, 32_767],
  [OID.int4, 2_147_483_647],
  [OID.int8, Number.MAX_SAFE_INTEGER],
]);

/** ALTER TABLE … ALTER COLUMN … SET DEFAULT nextval('…'), or ADD GENERATED … AS IDENTITY; undefined: it is neither. */
export function planIdColumn(statement: AlterTableStmt, request: Request): PlanParts | undefined {
  const { relation, cmds, objtype } = statement;
  const [only] = cmds ?? [];
  const table = relation && resolveRangeVar(request.context, relation);
  if (!table || cmds?.length !== 1 || objtype !== 'OBJECT_TABLE' || !only || !('AlterTableCmd' in only))
    return undefined;
  const command = only.AlterTableCmd;
  const isIdentity = command.subtype === 'AT_AddIdentity';
  if (!isIdentity && !(command.subtype === 'AT_ColumnDefault' && isNextval(command.def))) return undefined;
  const maxId = maxIdOf(table, command);
  if (maxId === undefined) return undefined;
  const text = new StatementText(request).whole;
  const column = command.name ?? '';
  return everywhere(
    changeOf(
      [
        // A sequence that was made by itself is on the home node alone; one of an identity column comes with it.
        { kind: 'text', nodes: isIdentity ? 'all' : 'home', text },
        { kind: 'catalog', change: { kind: 'addIdColumn', tableId: table.id, column, maxId } },
      ],
      { tag: 'ALTER TABLE' },
    ),
  );
}

/** Undefined: no ids, or ids already. */
function maxIdOf({ columns }: ShardedTable, { name }: AlterTableCmd): number | undefined {
  const column = columns.find((one) => one.name === name);
  return column && !column.sequence ? ID_MAX_BY_TYPE.get(column.typeOid) : undefined;
}

function isNextval(node: Node | undefined): boolean {
  if (!node || !('FuncCall' in node)) return false;
  const { schema, name } = functionName(node.FuncCall);
  const [sequence, ...others] = node.FuncCall.args ?? [];
  return (
    schema === undefined && name === 'nextval' && others.length === 0 && stringLiteral(sequence) !== undefined
  );
}

/** ALTER SEQUENCE … OWNED BY a column of a sharded table: the face's, on the home node, where the sequence is. */
export function planOwnedBy(statement: AlterSeqStmt, request: Request): PlanParts | undefined {
  const options = (statement.options ?? []).flatMap((node) => ('DefElem' in node ? [node.DefElem] : []));
  const [option] = options;
  if (options.length !== 1 || option?.defname !== 'owned_by') return undefined;
  const names = option.arg && 'List' in option.arg ? stringsOf(option.arg.List.items) : undefined;
  if (!names || names.length < 2) return undefined;
  const [schema] = names.slice(0, -2);
  if (!resolveTable(request.context, schema, names.at(-2)!)) return undefined;
  const text = new StatementText(request).whole;
  return everywhere(changeOf([{ kind: 'text', nodes: 'home', text }], { tag: 'ALTER SEQUENCE' }));
}

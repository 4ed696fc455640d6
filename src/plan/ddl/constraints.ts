/**
 * Constraints that ALTER TABLE adds to tables with a door: what of them the face gets and what the leaves, under which names.
 *
 * A check has the same name on face and leaf, as it is a table's own. A constraint with an index has the leaf's suffix. A foreign key is
 * on the leaves alone (doors/sharded/leaf.ts, closeFaceSql), and goes from leaf to leaf if the tables are colocated.
 */
import type { Constraint } from '@pgsql/types';
import { notSupported, type PosternError } from '../../base/errors.ts';
import { leafName, type ReferenceTable, type ShardedTable } from '../../catalog/map.ts';
import { quoteIdentifier, quoteLiteral } from '../../pg/identifier.ts';
import { stringsOf } from '../../sql/facts.ts';
import { notOnReference } from '../reference-refusal.ts';
import { nameOf, notUnderstood } from '../refusal.ts';
import { type PlanContext, resolveRangeVar, resolveReferenceVar } from '../resolve.ts';
import type { CatalogChange, DdlAnswer, DdlQuestion } from './change.ts';
import { indexColumnNames, type NameKind, type WantedName, wantedName } from './names.ts';
import {
  columnsReadBy,
  leafOf,
  onLeaf,
  type Range,
  type StatementText,
  type TextEdit,
} from './statement-text.ts';

/** A constraint in the text of a statement. */
export interface AddedConstraint {
  /** Undefined: the statement names it, or it has no name that matters. */
  readonly wanted: WantedName | undefined;
  readonly questions: readonly DdlQuestion[];
  /** The face has it. */
  readonly onFace: boolean;
  /** `name`: what was chosen, if one was wanted. */
  readonly edits: (name: string | undefined) => { readonly face: TextEdit[]; readonly leaf: TextEdit[] };
  /** Throws the refusal that only the answers tell. */
  readonly check: (answers: readonly DdlAnswer[]) => void;
  readonly catalog: readonly CatalogChange[];
}

interface ConstraintOptions {
  readonly text: StatementText;
  readonly table: ShardedTable | ReferenceTable;
  readonly context: PlanContext;
  readonly constraint: Constraint;
  /** Of a column: its name. */
  readonly column: string | undefined;
  /** The constraint's text, with what belongs to it. */
  readonly range: Range;
}

const NOTHING: AddedConstraint = {
  wanted: undefined,
  questions: [],
  onFace: true,
  edits: () => ({ face: [], leaf: [] }),
  check() {},
  catalog: [],
};

/** Undefined: it is part of the column's definition, and the same everywhere. */
export function addedConstraint(options: ConstraintOptions): AddedConstraint | undefined {
  const { constraint, table, column, text } = options;
  const columns = column === undefined ? stringsOf(constraint.keys) : [column];
  switch (constraint.contype) {
    case 'CONSTR_CHECK': {
      const read = columnsReadBy(constraint.raw_expr);
      const own = read.length === 1 && read[0] !== '*' ? read : [];
      const inner = 'keyColumn' in table ? text.columnEdits(constraint.raw_expr, table) : [];
      return named(options, { kind: 'check', columns: own, sameOnLeaf: true, inner });
    }
    case 'CONSTR_PRIMARY':
    case 'CONSTR_UNIQUE':
      if ('keyColumn' in table) {
        if (constraint.indexname !== undefined)
          throw notUnderstood('a constraint USING INDEX', table, 'Name the columns of the constraint.');
        if (!columns?.includes(table.keyColumn)) throw uniqueWithoutKey(table);
      }
      return named(options, {
        kind: constraint.contype === 'CONSTR_PRIMARY' ? 'primaryKey' : 'unique',
        columns: [...(columns ?? []), ...(stringsOf(constraint.including) ?? [])],
        sameOnLeaf: false,
        inner: [],
      });
    case 'CONSTR_EXCLUSION': {
      const elements = (constraint.exclusions ?? []).flatMap((node) =>
        'List' in node ? (node.List.items ?? []).slice(0, 1) : [],
      );
      const inner = 'keyColumn' in table ? text.columnEdits(constraint, table) : [];
      const names = indexColumnNames(elements);
      return named(options, { kind: 'exclusion', columns: names, sameOnLeaf: false, inner });
    }
    case 'CONSTR_FOREIGN':
      return foreignKey(options);
    case 'CONSTR_IDENTITY':
      throw idsOfTheirOwn(table, 'an identity column that is added later');
    default:
      return undefined;
  }
}

/** A constraint with the name that it has, or is given. */
function named(
  { constraint, text, table }: ConstraintOptions,
  options: {
    readonly kind: NameKind;
    readonly columns: readonly string[];
    readonly sameOnLeaf: boolean;
    readonly inner: readonly TextEdit[];
  },
): AddedConstraint {
  const wanted =
    constraint.conname === undefined ? wantedName(options.kind, table, options.columns) : undefined;
  const at = constraint.location ?? text.end;
  return {
    ...NOTHING,
    wanted,
    edits(chosen) {
      const name = constraint.conname ?? chosen ?? '';
      const leafPart =
        options.sameOnLeaf || !('keyColumn' in table) ? quoteIdentifier(name) : onLeaf(table, name);
      if (chosen === undefined) {
        const token = text.after(at, 'constraint');
        const face: TextEdit[] = [];
        const own = token && !options.sameOnLeaf ? [{ ...rangeOf(token), parts: [leafPart] }] : [];
        return { face, leaf: [...own, ...options.inner] };
      }
      const insert = (part: typeof leafPart): TextEdit => ({
        start: at,
        end: at,
        parts: ['CONSTRAINT ', part, ' '],
      });
      return { face: [insert(quoteIdentifier(name))], leaf: [insert(leafPart), ...options.inner] };
    },
  };
}

function rangeOf({ start, end }: Range): Range {
  return { start, end };
}

function foreignKey(options: ConstraintOptions): AddedConstraint {
  const { constraint, table, context, text, column, range } = options;
  const target = constraint.pktable!;
  const columns = column === undefined ? (stringsOf(constraint.fk_attrs) ?? []) : [column];
  const own = named(options, { kind: 'foreignKey', columns, sameOnLeaf: false, inner: [] });
  if (resolveReferenceVar(context, target)) {
    if (!('keyColumn' in table)) return own;
    return {
      ...own,
      onFace: false,
      edits: (name) => ({ face: [without(range)], leaf: own.edits(name).leaf }),
    };
  }
  const referenced = resolveRangeVar(context, target);
  if (!('keyColumn' in table)) {
    throw notOnReference(
      `a foreign key to a table that is not a reference table ("${target.relname}")`,
      table,
      `Its rows are on every node: make "${target.relname}" a reference table first, if it is not sharded.`,
    );
  }
  if (!referenced) throw foreignKeyToSingle(table, target.relname ?? '');
  if (referenced.colocationId !== table.colocationId) throw foreignKeyToOthers(table, referenced);
  const keyAt = columns.indexOf(table.keyColumn);
  if (keyAt < 0) throw foreignKeyWithoutKey(table, referenced);
  const referencedColumns = stringsOf(constraint.pk_attrs);
  const check = (names: readonly (string | null)[]) => {
    if (names[keyAt] !== referenced.keyColumn) throw foreignKeyWithoutKey(table, referenced);
  };
  if (referencedColumns) check(referencedColumns);
  const cascades = [constraint.fk_del_action, constraint.fk_upd_action].some(
    (action) => action !== undefined && action !== 'a' && action !== 'r',
  );
  return {
    ...own,
    onFace: false,
    questions: referencedColumns ? [] : [{ text: primaryKeyOf(referenced), nodeId: undefined }],
    check([answer]) {
      if (!referencedColumns) check((answer ?? []).map(([name]) => name ?? null));
    },
    edits: (name) => ({
      face: [without(range)],
      leaf: [...own.edits(name).leaf, { ...text.nameOf(target), parts: [leafOf(referenced)] }],
    }),
    catalog: cascades ? [{ kind: 'noteCascade', tableId: referenced.id }] : [],
  };
}

function without(range: Range): TextEdit {
  return { ...rangeOf(range), parts: [' '] };
}

/** A subquery for the OID of a relation. */
export function oidOf(schema: string, name: string): string {
  return (
    '(SELECT o.oid FROM pg_catalog.pg_class o JOIN pg_catalog.pg_namespace s ON s.oid = o.relnamespace ' +
    `WHERE s.nspname = ${quoteLiteral(schema)} AND o.relname = ${quoteLiteral(name)})`
  );
}

function primaryKeyOf({ schema, name }: ShardedTable): string {
  return (
    'SELECT a.attname::text FROM pg_catalog.pg_constraint c ' +
    'CROSS JOIN pg_catalog.unnest(c.conkey) WITH ORDINALITY AS k (attnum, place) ' +
    'JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.attnum ' +
    `WHERE c.contype = 'p' AND c.conrelid = ${oidOf(schema, name)} ORDER BY k.place`
  );
}

/** pg_constraint.contype. */
export type ConstraintType = 'c' | 'f' | 'n' | 'p' | 'u' | 'x' | 't' | undefined;

/** Which kind a constraint of a sharded table is: the face knows all but foreign keys, which its first leaf has. */
export function constraintQuestions(table: ShardedTable, name: string): DdlQuestion[] {
  const { generation, nodeId } = table.buckets[0]!;
  const kind = (relation: string, constraint: string) =>
    'SELECT c.contype::text FROM pg_catalog.pg_constraint c ' +
    `WHERE c.conname = ${quoteLiteral(constraint)} AND c.conrelid = ${relation}`;
  const leaf = oidOf('postern_leaves', leafName(table.name, 0, generation));
  return [
    { text: kind(oidOf(table.schema, table.name), name), nodeId: undefined },
    { text: `${kind(leaf, leafName(name, 0, generation))} AND c.contype = 'f'`, nodeId },
  ];
}

/** From the answers to `constraintQuestions`. */
export function constraintType(answers: readonly DdlAnswer[]): ConstraintType {
  return (answers[0]?.[0]?.[0] ?? answers[1]?.[0]?.[0] ?? undefined) as ConstraintType;
}

export function uniqueWithoutKey(table: ShardedTable): PosternError {
  return notUnderstood(
    'a unique constraint or index without the shard key',
    table,
    `Rows with different keys live on different nodes: add "${table.keyColumn}" to it.`,
  );
}

function foreignKeyToSingle(table: ShardedTable, name: string): PosternError {
  return notUnderstood(
    `a foreign key to "${name}", which is no reference table`,
    table,
    `It lives on the home node alone: make it a reference table first, with SELECT create_reference_table('${name}').`,
  );
}

function foreignKeyToOthers(table: ShardedTable, referenced: ShardedTable): PosternError {
  return notUnderstood(
    `a foreign key to ${nameOf(referenced)}, which is not colocated with it`,
    table,
    'Rows of both would be on different nodes: shard the two by the same key, or make the other a reference table.',
  );
}

function foreignKeyWithoutKey(table: ShardedTable, referenced: ShardedTable): PosternError {
  return notUnderstood(
    `a foreign key to ${nameOf(referenced)} without both shard keys`,
    table,
    `Have "${table.keyColumn}" reference "${referenced.keyColumn}" in it, beside the other columns.`,
  );
}

/** Ids of sharded tables come from the router, those of reference tables are made on home. */
export function idsOfTheirOwn(table: ShardedTable | ReferenceTable, what: string): PosternError {
  const kind = 'keyColumn' in table ? 'sharded' : 'reference';
  return notSupported(
    `${what} is not supported on ${kind} table ${nameOf(table)}`,
    'Declare it in CREATE TABLE, or add a plain column and fill it.',
  );
}

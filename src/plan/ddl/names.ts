/**
 * The names that PostgreSQL would give to an index or a constraint for which the statement has none. They have to be written into the
 * texts, since the server would choose another one for each leaf and node. The rules are makeObjectName(), ChooseIndexName(),
 * ChooseConstraintName() of commands/indexcmds.c and catalog/pg_constraint.c, and FigureColname() of parser/parse_target.c.
 *
 * Which of the candidates is free is asked of the home node.
 */
import type { IndexElem, Node } from '@pgsql/types';
import { notSupported } from '../../base/errors.ts';
import { leafName, type ReferenceTable, type ShardedTable } from '../../catalog/map.ts';
import { IDENTIFIER_BYTES_MAX, quoteLiteral } from '../../pg/identifier.ts';
import { stringsOf } from '../../sql/facts.ts';
import type { DdlAnswer, DdlQuestion } from './change.ts';

export type NameKind =
  | 'index'
  | 'check'
  | 'foreignKey'
  | 'unique'
  | 'primaryKey'
  | 'exclusion'
  | 'statistics';

const LABELS: Readonly<Record<NameKind, string>> = {
  index: 'idx',
  check: 'check',
  foreignKey: 'fkey',
  unique: 'key',
  primaryKey: 'pkey',
  exclusion: 'excl',
  statistics: 'stat',
};

/** How many names are tried before it is given up. */
const CANDIDATES = 40;

/** A name to be chosen. */
export interface WantedName {
  readonly kind: NameKind;
  readonly table: ShardedTable | ReferenceTable;
  /** As PostgreSQL would try them, the first free one is it. */
  readonly candidates: readonly string[];
}

export function wantedName(
  kind: NameKind,
  table: ShardedTable | ReferenceTable,
  columns: readonly string[],
): WantedName {
  const middle = kind === 'primaryKey' || columns.length === 0 ? undefined : additionOf(columns);
  const candidates = Array.from({ length: CANDIDATES }, (_, pass) =>
    objectName(table.name, middle, LABELS[kind] + (pass === 0 ? '' : String(pass))),
  );
  return { kind, table, candidates };
}

/** makeObjectName(): both names are cut until all fits, the longer one first. */
function objectName(name1: string, name2: string | undefined, label: string): string {
  let chars1 = Buffer.byteLength(name1);
  let chars2 = name2 === undefined ? 0 : Buffer.byteLength(name2);
  const overhead = (name2 === undefined ? 0 : 1) + Buffer.byteLength(label) + 1;
  while (chars1 + chars2 > IDENTIFIER_BYTES_MAX - overhead) {
    if (chars1 > chars2) chars1--;
    else chars2--;
  }
  const parts = [clipped(name1, chars1)];
  if (name2 !== undefined) parts.push(clipped(name2, chars2));
  return [...parts, label].join('_');
}

/** pg_mbcliplen(): as many whole characters as fit. */
function clipped(name: string, bytes: number): string {
  let text = '';
  let length = 0;
  for (const character of name) {
    length += Buffer.byteLength(character);
    if (length > bytes) break;
    text += character;
  }
  return text;
}

/** ChooseIndexNameAddition(). */
function additionOf(columns: readonly string[]): string {
  let addition = '';
  for (const column of columns) {
    addition += (addition === '' ? '' : '_') + column;
    if (Buffer.byteLength(addition) > IDENTIFIER_BYTES_MAX) break;
  }
  return clipped(addition, 2 * IDENTIFIER_BYTES_MAX);
}

/** ChooseIndexColumnNames(), INCLUDE's columns among them. */
export function indexColumnNames(elements: readonly Node[]): string[] {
  const names: string[] = [];
  for (const node of elements) {
    if (!('IndexElem' in node)) continue;
    const original = elementName(node.IndexElem);
    let name = original;
    for (let i = 1; names.includes(name); i++) {
      name = clipped(original, IDENTIFIER_BYTES_MAX - String(i).length) + i;
    }
    names.push(name);
  }
  return names;
}

function elementName(element: IndexElem): string {
  if (element.expr) return figured(element.expr)?.name ?? 'expr';
  return element.name ?? 'expr';
}

interface Figured {
  readonly name: string;
  /** A better name inside may take its place. */
  readonly weak: boolean;
}

function strong(name: string | undefined): Figured | undefined {
  return name === undefined ? undefined : { name, weak: false };
}

const FIXED: Readonly<Record<string, string>> = {
  GroupingFunc: 'grouping',
  A_ArrayExpr: 'array',
  RowExpr: 'row',
  CoalesceExpr: 'coalesce',
  XmlSerialize: 'xmlserialize',
  JsonParseExpr: 'json',
  JsonScalarExpr: 'json_scalar',
  JsonSerializeExpr: 'json_serialize',
  JsonObjectConstructor: 'json_object',
  JsonArrayConstructor: 'json_array',
};

/** FigureColnameInternal(). */
function figured(node: Node): Figured | undefined {
  if ('ColumnRef' in node) {
    const last = (node.ColumnRef.fields ?? []).flatMap((field) =>
      'String' in field ? [field.String.sval] : [],
    );
    return strong(last.at(-1));
  }
  if ('A_Indirection' in node) {
    const { indirection, arg } = node.A_Indirection;
    const last = (indirection ?? []).flatMap((item) => ('String' in item ? [item.String.sval] : [])).at(-1);
    return strong(last) ?? (arg ? figured(arg) : undefined);
  }
  if ('FuncCall' in node) return strong(stringsOf(node.FuncCall.funcname)?.at(-1));
  if ('A_Expr' in node) return node.A_Expr.kind === 'AEXPR_NULLIF' ? strong('nullif') : undefined;
  if ('TypeCast' in node) {
    const { arg, typeName } = node.TypeCast;
    const inner = arg ? figured(arg) : undefined;
    if (inner && !inner.weak) return inner;
    const type = stringsOf(typeName?.names)?.at(-1);
    return type === undefined ? inner : { name: type, weak: true };
  }
  if ('CollateClause' in node) return node.CollateClause.arg ? figured(node.CollateClause.arg) : undefined;
  if ('CaseExpr' in node) {
    const inner = node.CaseExpr.defresult ? figured(node.CaseExpr.defresult) : undefined;
    return inner && !inner.weak ? inner : { name: 'case', weak: true };
  }
  if ('MinMaxExpr' in node) return strong(node.MinMaxExpr.op === 'IS_LEAST' ? 'least' : 'greatest');
  if ('SQLValueFunction' in node) {
    return strong(
      node.SQLValueFunction.op
        ?.replace(/^SVFOP_/, '')
        .replace(/_N$/, '')
        .toLowerCase(),
    );
  }
  return strong(FIXED[Object.keys(node)[0] ?? '']);
}

/** Which of the candidates are taken; one question for each wanted name, and two for a foreign key. */
export function questionsFor(wanted: readonly WantedName[]): DdlQuestion[] {
  return wanted.flatMap((name) => {
    const own = { text: takenOnHome(name), nodeId: undefined };
    const { table } = name;
    if (name.kind !== 'foreignKey' || !('keyColumn' in table)) return [own];
    return [own, { text: takenOnLeaf(name, table), nodeId: table.buckets[0]!.nodeId }];
  });
}

/** The names, in the order of those wanted, from the answers to the questions, in their order. */
export function chosenNames(wanted: readonly WantedName[], answers: readonly DdlAnswer[]): string[] {
  const names: string[] = [];
  let at = 0;
  for (const want of wanted) {
    const count = want.kind === 'foreignKey' && 'keyColumn' in want.table ? 2 : 1;
    const taken = new Set(answers.slice(at, at + count).flatMap((rows) => rows.map(([name]) => name)));
    at += count;
    const name = want.candidates.find((candidate) => !taken.has(candidate) && !names.includes(candidate));
    if (name === undefined) {
      throw notSupported(
        `no free name was found for this ${want.kind}: "${want.candidates[0]}" and those after it are taken`,
        'Give it a name.',
      );
    }
    names.push(name);
  }
  return names;
}

function arrayOf(names: readonly string[]): string {
  return `ARRAY[${names.map(quoteLiteral).join(', ')}]::pg_catalog.text[]`;
}

function takenOnHome({ kind, table, candidates }: WantedName): string {
  const schema = quoteLiteral(table.schema);
  const relation = `EXISTS (SELECT FROM pg_catalog.pg_class r WHERE r.relname = c.name AND r.relnamespace = n.oid)`;
  const constraint = `EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conname = c.name AND k.connamespace = n.oid)`;
  const statistics = `EXISTS (SELECT FROM pg_catalog.pg_statistic_ext s WHERE s.stxname = c.name AND s.stxnamespace = n.oid)`;
  const taken = {
    index: relation,
    statistics,
    check: constraint,
    foreignKey: constraint,
    unique: `(${relation} OR ${constraint})`,
    primaryKey: `(${relation} OR ${constraint})`,
    exclusion: `(${relation} OR ${constraint})`,
  }[kind];
  return (
    `SELECT c.name FROM pg_catalog.pg_namespace n CROSS JOIN pg_catalog.unnest(${arrayOf(candidates)}) AS c (name) ` +
    `WHERE n.nspname = ${schema} AND ${taken}`
  );
}

/** The face has no foreign keys: they are on the leaves. */
function takenOnLeaf({ candidates }: WantedName, table: ShardedTable): string {
  const { generation } = table.buckets[0]!;
  const onLeaf = candidates.map((name) => leafName(name, 0, generation));
  return (
    `SELECT c.name FROM ROWS FROM (pg_catalog.unnest(${arrayOf(candidates)}), pg_catalog.unnest(${arrayOf(onLeaf)})) AS c (name, leaf) ` +
    `JOIN pg_catalog.pg_constraint k ON k.conname = c.leaf ` +
    `JOIN pg_catalog.pg_class t ON t.oid = k.conrelid AND t.relname = ${quoteLiteral(leafName(table.name, 0, generation))}`
  );
}

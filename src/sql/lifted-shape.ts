/**
 * Whether a text that lift.ts has turned into one with parameters means the same. Both texts are parsed, and the trees must be equal but for
 * literals that became parameters, each in a place where PostgreSQL resolves a parameter as it does the literal (by its type
 * alone: see its coerce_type and func_get_detail) and where the result shows no difference.
 *
 * The verdict depends on the lifted text alone, not on values or their kinds, so that it can be kept by that text.
 *
 * What remains different, also in a safe shape, and is the caller's to know:
 * - Errors about a value come at Bind, with another CONTEXT and no position; of two errors in one statement it may be the other one;
 *   and a domain's CHECK is tried although no row is touched. The answer is exact if a statement that fails is sent again as it came.
 * - A constant that doesn't fit its column (22001, 22003) fails an UPDATE that touches no row; the same as a parameter need not.
 * - current_query(), pg_stat_activity and logs show the lifted text.
 */
import type { A_Const, A_Expr, Node, SelectStmt, TypeName } from '@pgsql/types';
import { BOUNDS } from '../base/bounds.ts';
import { OID } from '../pg/oid.ts';
import { stringsOf } from './facts.ts';
import type { Lifted } from './lift.ts';
import { parseSql } from './parser.ts';

const COMPARISONS = new Set(['=', '<>', '<', '>', '<=', '>=']);
const ARITHMETIC = new Set(['+', '-', '*', '/', '%', '||']);
const LIST_KINDS = new Set(['AEXPR_IN', 'AEXPR_BETWEEN', 'AEXPR_NOT_BETWEEN']);

/** Casts to these leave a parameter what the literal is; to a domain or with a length they need not (tried: varchar domains). */
const CAST_TYPES = new Set(
  (
    'bool int2 int4 int8 float4 float8 numeric text varchar bpchar date time timetz timestamp timestamptz ' +
    'interval uuid json jsonb bytea inet cidr'
  ).split(' '),
);

/** An INSERT's VALUES with anything else (ORDER BY, LIMIT, …) is a query, and resolves its types without the columns'. */
const PLAIN_VALUES_FIELDS = new Set(['valuesLists', 'limitOption', 'op']);

/** For a text that isn't known yet: it parses both. `original` is the one that `lifted` was made from. */
export function shapeIsSafe(original: string, lifted: Lifted): boolean {
  const before = oneStatement(original);
  const after = before && oneStatement(lifted.text);
  if (!before || !after) return false;
  const trees = new TreePair(lifted);
  return trees.statement(before, after) && trees.found === lifted.values.length;
}

function oneStatement(text: string): Node | undefined {
  const outcome = parseSql(text);
  return outcome.kind === 'parsed' && outcome.statements.length === 1
    ? outcome.statements[0]!.node
    : undefined;
}

/**
 * The last condition, which only a server can tell, from its ParameterDescription for the lifted text: a literal in a column
 * `interval minute` means minutes, and a parameter seconds, since only literals are read with the column's fields in mind.
 */
export function parametersKeepMeaning(lifted: Lifted, resolvedOids: readonly number[]): boolean {
  return !resolvedOids.some((oid, index) => oid === OID.interval && lifted.oids[index] === OID.unspecified);
}

type Tree = { readonly [key: string]: unknown };
type Compare = (before: Tree, after: Tree) => boolean;

/** The original's tree and the lifted text's, side by side. Each method says whether two of their nodes mean the same. */
class TreePair {
  /** Literals met that have become parameters. */
  found = 0;
  readonly #lifted: Lifted;

  constructor(lifted: Lifted) {
    this.#lifted = lifted;
  }

  statement(before: Node, after: Node): boolean {
    const condition: Compare = (a, b) => this.#condition(a as Node, b as Node);
    const assignments: Compare = (a, b) => this.#list(a, b, this.#resultTarget);
    if ('InsertStmt' in before && 'InsertStmt' in after) {
      return this.#fields(before.InsertStmt as Tree, after.InsertStmt as Tree, {
        selectStmt: (a, b) => this.#values(a, b),
        onConflictClause: (a, b) => this.#fields(a, b, { targetList: assignments, whereClause: condition }),
      });
    }
    if ('UpdateStmt' in before && 'UpdateStmt' in after) {
      return this.#fields(before.UpdateStmt as Tree, after.UpdateStmt as Tree, {
        targetList: assignments,
        whereClause: condition,
      });
    }
    if ('DeleteStmt' in before && 'DeleteStmt' in after) {
      return this.#fields(before.DeleteStmt as Tree, after.DeleteStmt as Tree, { whereClause: condition });
    }
    if ('SelectStmt' in before && 'SelectStmt' in after && !before.SelectStmt.intoClause) {
      return this.#fields(before.SelectStmt as Tree, after.SelectStmt as Tree, { whereClause: condition });
    }
    return false;
  }

  /** Equal in all fields, by the comparison given for a field, or else in every detail. */
  #fields(before: Tree, after: Tree, special: Readonly<Record<string, Compare>>): boolean {
    return equalKeys(before, after, (key) => {
      const compare = special[key] ?? isEqual;
      return compare(before[key] as Tree, after[key] as Tree);
    });
  }

  #list(before: unknown, after: unknown, compare: (before: Node, after: Node) => boolean): boolean {
    const a = before as readonly Node[];
    const b = after as readonly Node[];
    return a.length === b.length && a.every((item, index) => compare.call(this, item, b[index]!));
  }

  /** The source of an INSERT. */
  #values(before: Tree, after: Tree): boolean {
    const a = before.SelectStmt as SelectStmt | undefined;
    const b = after.SelectStmt as SelectStmt | undefined;
    if (!a?.valuesLists || !b?.valuesLists) return isEqual(before, after);
    if (Object.keys(a).some((key) => !PLAIN_VALUES_FIELDS.has(key))) return false;
    return this.#list(a.valuesLists, b.valuesLists, (rowBefore, rowAfter) => {
      if (!('List' in rowBefore) || !('List' in rowAfter)) return false;
      return this.#list(rowBefore.List.items ?? [], rowAfter.List.items ?? [], this.#value);
    });
  }

  /** `column = …` of an UPDATE. */
  #resultTarget(before: Node, after: Node): boolean {
    if (!('ResTarget' in before) || !('ResTarget' in after)) return false;
    return this.#fields(before.ResTarget as Tree, after.ResTarget as Tree, {
      val: (a, b) => this.#assigned(a as Node, b as Node),
    });
  }

  #assigned(before: Node, after: Node): boolean {
    return this.#operation(before, after, ARITHMETIC) ?? this.#value(before, after);
  }

  #condition(before: Node, after: Node): boolean {
    if ('BoolExpr' in before && 'BoolExpr' in after) {
      return this.#fields(before.BoolExpr as Tree, after.BoolExpr as Tree, {
        args: (a, b) => this.#list(a, b, this.#condition),
      });
    }
    if ('A_Expr' in before && 'A_Expr' in after && LIST_KINDS.has(before.A_Expr.kind!)) {
      return this.#inList(before.A_Expr, after.A_Expr);
    }
    return this.#operation(before, after, COMPARISONS) ?? isEqual(before, after);
  }

  /** A column IN (…), or BETWEEN two values. */
  #inList(before: A_Expr, after: A_Expr): boolean {
    if (!isColumn(before.lexpr)) return isEqual(before, after);
    return this.#fields(before as Tree, after as Tree, {
      rexpr: (a, b) => {
        const itemsBefore = (a as { List?: { items?: Node[] } }).List?.items;
        const itemsAfter = (b as { List?: { items?: Node[] } }).List?.items;
        if (!itemsBefore || !itemsAfter) return isEqual(a, b);
        if (itemsBefore.length > BOUNDS.liftedListElementsMax) return false;
        return this.#list(itemsBefore, itemsAfter, this.#value);
      },
    });
  }

  /** An operator of `names` between a column and a value; undefined if it isn't that. */
  #operation(before: Node, after: Node, names: ReadonlySet<string>): boolean | undefined {
    if (!('A_Expr' in before) || !('A_Expr' in after) || before.A_Expr.kind !== 'AEXPR_OP') return undefined;
    const { lexpr, rexpr } = before.A_Expr;
    const name = stringsOf(before.A_Expr.name);
    if (name?.length !== 1 || !names.has(name[0]!) || !lexpr || !rexpr) return undefined;
    const value: Compare = (a, b) => this.#value(a as Node, b as Node);
    if (isColumn(lexpr)) return this.#fields(before.A_Expr as Tree, after.A_Expr as Tree, { rexpr: value });
    if (isColumn(rexpr)) return this.#fields(before.A_Expr as Tree, after.A_Expr as Tree, { lexpr: value });
    return undefined;
  }

  /** A literal that has become a parameter, maybe with a cast around it; or anything that is the same in both. */
  #value(before: Node, after: Node): boolean {
    if ('A_Const' in before && 'ParamRef' in after) {
      this.found++;
      return this.#isLiteral(before.A_Const, (after.ParamRef.number ?? 0) - 1);
    }
    if ('TypeCast' in before && 'TypeCast' in after && isPlainType(before.TypeCast.typeName)) {
      return this.#fields(before.TypeCast as Tree, after.TypeCast as Tree, {
        arg: (a, b) => this.#value(a as Node, b as Node),
      });
    }
    return isEqual(before, after);
  }

  /** That the lexer has read the literal as the parser does. */
  #isLiteral(literal: A_Const, index: number): boolean {
    const value = this.#lifted.values[index];
    const oid = this.#lifted.oids[index];
    if (value === undefined || value === null) return false;
    if (literal.sval) return oid === OID.unspecified && (literal.sval.sval ?? '') === value;
    if (literal.ival) return oid === OID.int4 && (literal.ival.ival ?? 0) === Number(value);
    return oid !== OID.unspecified && literal.fval?.fval === value;
  }
}

/** A column, maybe qualified, maybe with casts around it. */
function isColumn(node: Node | undefined): boolean {
  if (!node) return false;
  if ('TypeCast' in node) return isColumn(node.TypeCast.arg);
  return 'ColumnRef' in node && stringsOf(node.ColumnRef.fields) !== undefined;
}

/** A built-in type, or an array of it, without a length or precision. */
function isPlainType(type: TypeName | undefined): boolean {
  if (!type || type.setof || type.pct_type || type.typmods) return false;
  const names = stringsOf(type.names);
  if (names?.length === 2 && names[0] !== 'pg_catalog') return false;
  return names !== undefined && names.length <= 2 && CAST_TYPES.has(names.at(-1)!);
}

/** Where a node stands in the text. */
function isPlace(key: string): boolean {
  return key === 'location' || key === 'rexpr_list_start' || key === 'rexpr_list_end';
}

function equalKeys(before: Tree, after: Tree, compare: (key: string) => boolean): boolean {
  for (const key in after) if (!(key in before) && !isPlace(key)) return false;
  for (const key in before) {
    if (isPlace(key)) continue;
    if (!(key in after) || !compare(key)) return false;
  }
  return true;
}

function isEqual(before: unknown, after: unknown): boolean {
  if (typeof before !== 'object' || before === null) return before === after;
  if (typeof after !== 'object' || after === null) return false;
  if (Array.isArray(before) !== Array.isArray(after)) return false;
  return equalKeys(before as Tree, after as Tree, (key) =>
    isEqual((before as Tree)[key], (after as Tree)[key]),
  );
}

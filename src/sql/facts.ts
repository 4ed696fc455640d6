/**
 * Facts about a parse tree that need no understanding of the statement: every relation named anywhere in it, every
 * function called, every type and parameter. They are complete by construction (the whole tree is walked, whatever its
 * shape), and so the planner can tell when something holds a sharded table in a place that it does not understand.
 */
import type { FuncCall, Node, RangeVar, TypeName } from '@pgsql/types';

export interface StatementFacts {
  /** Every RangeVar, also those that name a CTE, an alias (FOR UPDATE OF x) or the table that is created. */
  readonly rangeVars: RangeVar[];
  readonly functionCalls: FuncCall[];
  readonly typeNames: TypeName[];
  /** Lists of names that are not RangeVars: DROP TABLE a.b, COMMENT ON COLUMN a.b.c, OWNED BY a.b.c. */
  readonly nameLists: string[][];
  /** Single names in identifier position: schemas, parts of names of functions and types. */
  readonly names: Set<string>;
  /** Last names of operators, as written. */
  readonly operators: Set<string>;
  /** Kinds of nodes that occur, such as 'LockingClause', 'InsertStmt', 'CurrentOfExpr'. */
  readonly kinds: Set<string>;
  /** Highest $n. */
  parameterCount: number;
}

export function collectFacts(node: Node): StatementFacts {
  const facts: StatementFacts = {
    rangeVars: [],
    functionCalls: [],
    typeNames: [],
    nameLists: [],
    names: new Set(),
    operators: new Set(),
    kinds: new Set(),
    parameterCount: 0,
  };
  collect(node as Tree, facts);
  return facts;
}

type Tree = { readonly [key: string]: unknown };

/** Fields that hold a message without its wrapper: `relation: {relname: …}` and not `relation: {RangeVar: …}`. */
function collect(tree: Tree, facts: StatementFacts): void {
  if (typeof tree.relname === 'string') facts.rangeVars.push(tree as RangeVar);
  for (const key in tree) {
    const value = tree[key];
    if (typeof value !== 'object' || value === null) continue;
    if (Array.isArray(value)) {
      noteNames(value, facts, key);
      for (const item of value) collect(item as Tree, facts);
      continue;
    }
    noteNode(key, value as Tree, facts);
    collect(value as Tree, facts);
  }
}

function noteNode(key: string, value: Tree, facts: StatementFacts): void {
  switch (key) {
    case 'FuncCall':
    case 'funccall':
      facts.functionCalls.push(value as FuncCall);
      break;
    case 'TypeName':
    case 'typeName':
    case 'returnType':
      facts.typeNames.push(value as TypeName);
      break;
    case 'A_Expr': {
      const operator = Array.isArray(value.name) ? stringsOf(value.name)?.at(-1) : undefined;
      if (operator !== undefined) facts.operators.add(operator);
      break;
    }
    case 'ParamRef':
      if (typeof value.number === 'number' && value.number > facts.parameterCount) {
        facts.parameterCount = value.number;
      }
      break;
    case 'intoClause':
      facts.kinds.add('IntoClause');
      break;
    case 'String':
      if (typeof value.sval === 'string') facts.names.add(value.sval);
      break;
  }
  const initial = key.charCodeAt(0);
  if (initial >= 65 && initial <= 90) facts.kinds.add(key);
}

function noteNames(items: readonly unknown[], facts: StatementFacts, key: string): void {
  if (key !== 'items') return;
  const names = stringsOf(items);
  if (names) facts.nameLists.push(names);
}

/** The strings of a list of String nodes; undefined if anything else is in it. */
export function stringsOf(items: readonly unknown[] | undefined): string[] | undefined {
  if (!items) return undefined;
  const strings: string[] = [];
  for (const item of items) {
    const string = (item as { String?: { sval?: string } }).String;
    if (!string) return undefined;
    strings.push(string.sval ?? '');
  }
  return strings;
}

/**
 * Expressions that can be a shard key's value at planning time: literals, parameters, and casts of them within the key
 * type's own family. A cast out of the family is not one, since the comparison then happens in the other type
 * ('7.0'::numeric equals the bigint 7, 'a'::char(2) equals the text 'a ').
 */
import type { A_Const, Node, TypeName } from '@pgsql/types';
import type { KeyTypeName } from '../pg/hash/key-type.ts';
import { stringsOf } from '../sql/facts.ts';
import type { KeySource } from './plan.ts';

const INTEGERS = ['int2', 'int4', 'int8'];
const STRINGS = ['text', 'varchar'];

const FAMILY: Readonly<Record<KeyTypeName, readonly string[]>> = {
  int2: INTEGERS,
  int4: INTEGERS,
  int8: INTEGERS,
  numeric: [...INTEGERS, 'numeric'],
  text: STRINGS,
  varchar: STRINGS,
  bpchar: ['bpchar'],
  uuid: ['uuid'],
  date: ['date'],
  timestamp: ['timestamp'],
  timestamptz: ['timestamptz'],
};

/** The key source that `node` is for a key of type `keyType`; undefined if it is not one. */
export function keySourceOf(node: Node | undefined, keyType: KeyTypeName): KeySource | undefined {
  if (!node) return undefined;
  if ('A_Const' in node) return literalOf(node.A_Const, keyType);
  if ('ParamRef' in node) return parameterOf(node.ParamRef.number, undefined);
  if (!('TypeCast' in node)) return undefined;
  const { arg, typeName } = node.TypeCast;
  const castTo = plainTypeName(typeName);
  if (!arg || castTo === undefined || !FAMILY[keyType].includes(castTo)) return undefined;
  if ('ParamRef' in arg) return parameterOf(arg.ParamRef.number, castTo);
  const inner = keySourceOf(arg, keyType);
  return inner?.kind === 'literal' ? inner : undefined;
}

function parameterOf(number: number | undefined, castTo: string | undefined): KeySource | undefined {
  return number ? { kind: 'parameter', index: number - 1, castTo } : undefined;
}

function literalOf(constant: A_Const, keyType: KeyTypeName): KeySource | undefined {
  if (constant.isnull) return { kind: 'literal', text: null };
  if (constant.sval) return { kind: 'literal', text: constant.sval.sval ?? '' };
  const text = constant.ival ? String(constant.ival.ival ?? 0) : numberText(constant.fval?.fval);
  if (text === undefined) return undefined;
  const integer = /^-?\d+$/.test(text);
  switch (keyType) {
    case 'numeric':
      return { kind: 'literal', text };
    case 'int2':
    case 'int4':
    case 'int8':
      // One beyond bigint is a numeric, and so is the comparison.
      return integer && BigInt.asIntN(64, BigInt(text)) === BigInt(text)
        ? { kind: 'literal', text }
        : undefined;
    case 'text':
    case 'varchar':
    case 'bpchar':
      // 7.5 would be rounded on its way into an integer column, and 1e3 is written differently as text.
      return integer ? { kind: 'literal', text } : undefined;
    default:
      return undefined;
  }
}

/** A number as PostgreSQL would print it, if it is an integer: underscores, leading zeros and other bases are undone. */
function numberText(source: string | undefined): string | undefined {
  if (source === undefined) return undefined;
  const plain = source.replaceAll('_', '');
  const negative = plain.startsWith('-');
  const digits = negative ? plain.slice(1) : plain;
  if (!/^(\d+|0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+)$/.test(digits)) return plain;
  const value = BigInt(digits);
  return String(negative ? -value : value);
}

/** The bare name of a built-in type without modifier, array or SETOF; undefined for anything else. */
export function plainTypeName(type: TypeName | undefined): string | undefined {
  if (!type || type.setof || type.pct_type || type.arrayBounds || type.typmods) return undefined;
  const names = stringsOf(type.names);
  if (names?.length === 1) return names[0];
  return names?.length === 2 && names[0] === 'pg_catalog' ? names[1] : undefined;
}

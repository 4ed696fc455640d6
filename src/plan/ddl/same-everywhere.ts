/** Expressions that give the same on every node, at whatever moment. */

import type { FuncCall } from '@pgsql/types';
import { functionName } from '../calls.ts';

/** PostgreSQL's own functions that give the same for the same arguments. */
const IMMUTABLE = new Set(
  (
    'abs ceil ceiling floor round trunc mod power sqrt sign length char_length octet_length substr substring left right ' +
    'replace overlay position strpos split_part btrim ltrim rtrim lpad rpad reverse repeat translate upper lower md5 ' +
    'encode decode ascii chr jsonb_build_object jsonb_build_array json_build_object json_build_array int4range int8range ' +
    'numrange daterange point box make_date make_interval array_append array_cat array_length coalesce'
  ).split(' '),
);

/** Words that mean the present in a literal of a date or time. */
const PRESENT = new Set(['now', 'today', 'tomorrow', 'yesterday']);

/** May the expression give another value on another node, or a moment later? */
export function mayDiffer(tree: unknown): boolean {
  if (typeof tree !== 'object' || tree === null) return false;
  if (Array.isArray(tree)) return tree.some(mayDiffer);
  return Object.entries(tree).some(([key, value]) => {
    if (key === 'FuncCall') {
      const { schema, name } = functionName(value as FuncCall);
      if ((schema !== undefined && schema !== 'pg_catalog') || !IMMUTABLE.has(name)) return true;
    }
    if (key === 'SQLValueFunction' || key === 'SubLink' || key === 'SetToDefault') return true;
    if (key === 'sval' && typeof value === 'object') {
      const text = (value as { sval?: string }).sval ?? '';
      if (PRESENT.has(text.trim().toLowerCase())) return true;
    }
    return mayDiffer(value);
  });
}

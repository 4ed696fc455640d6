/**
 * Aggregates, and functions that may not be called where a statement is carried out in several parts: by name, from
 * pg_catalog. Names of users' functions are refused before (plan/scatter-read.ts).
 */
import type { FuncCall } from '@pgsql/types';
import { functionName } from './calls.ts';
import type { MergedAggregate } from './scatter-read-merge.ts';

/** pg_proc.prokind 'a' of PostgreSQL 18, without those that are called WITHIN GROUP. */
const AGGREGATES = new Set(
  (
    'any_value array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp every json_agg ' +
    'json_agg_strict json_object_agg json_object_agg_strict json_object_agg_unique json_object_agg_unique_strict ' +
    'jsonb_agg jsonb_agg_strict jsonb_object_agg jsonb_object_agg_strict jsonb_object_agg_unique ' +
    'jsonb_object_agg_unique_strict max min range_agg range_intersect_agg regr_avgx regr_avgy regr_count ' +
    'regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy stddev stddev_pop stddev_samp string_agg sum ' +
    'var_pop var_samp variance xmlagg'
  ).split(' '),
);

/** Volatile functions whose value may be another at each call; those that depend on the node are refused anyway. */
export const VOLATILE_FUNCTIONS = new Set(
  (
    'array_sample array_shuffle clock_timestamp gen_random_uuid pg_sleep pg_sleep_for pg_sleep_until random ' +
    'random_normal timeofday uuidv4 uuidv7'
  ).split(' '),
);

const MERGED: Readonly<Record<string, MergedAggregate | 'average'>> = {
  count: 'count',
  sum: 'sum',
  min: 'min',
  max: 'max',
  avg: 'average',
  bool_and: 'bool_and',
  every: 'bool_and',
  bool_or: 'bool_or',
};

/** Not of a window. */
export function isAggregateCall(call: FuncCall): boolean {
  if (call.over) return false;
  const { schema, name } = functionName(call);
  return call.agg_within_group === true || (schema === undefined && AGGREGATES.has(name));
}

/** How its partial results are put together; undefined: they can't be. */
export function aggregateKind(call: FuncCall): MergedAggregate | 'average' | undefined {
  const { name } = functionName(call);
  const special = call.agg_distinct || call.agg_within_group || call.agg_order || call.func_variadic;
  const kind = Object.hasOwn(MERGED, name) ? MERGED[name] : undefined;
  if (special || !kind) return undefined;
  if (call.agg_star) return kind === 'count' ? kind : undefined;
  return call.args?.length === 1 ? kind : undefined;
}

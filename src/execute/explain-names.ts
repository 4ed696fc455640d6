/**
 * Plans of leaves in the user's names: `events_b17_g4` of schema postern_leaves is the user's `events`; where one plan reads
 * the leaves of several buckets, `events_b17`, so that they can be told apart.
 */
import { LEAF_SCHEMA, leafName, leafSuffix, type ShardedTable } from '../catalog/map.ts';

export interface LeavesOfPlan {
  /** Their leaves of these buckets are what the plan may name. */
  readonly tables: readonly ShardedTable[];
  readonly buckets: readonly number[];
  /** One plan reads all of the buckets. */
  readonly together: boolean;
}

interface Renamed {
  readonly leaf: string;
  readonly schema: string;
  readonly name: string;
}

/** A line of the text format. */
export function lineInUsersNames(
  line: string,
  leaves: LeavesOfPlan,
  renamed = renamedLeaves(leaves),
): string {
  if (!line.includes('_g')) return line;
  let told = line;
  for (const { leaf, schema, name } of renamed) {
    if (!told.includes(leaf)) continue;
    told = told.replaceAll(`${LEAF_SCHEMA}.${leaf}`, `${schema}.${name}`);
    told = told.replaceAll(`${LEAF_SCHEMA}."${leaf}"`, `${schema}."${name}"`);
    told = told.replaceAll(new RegExp(`${escaped(leaf)}(?![0-9])`, 'g'), () => name);
    // PostgreSQL writes an alias where it is another name than the table's.
    told = told.replace(
      new RegExp(` on (\\S+\\.)?("?)${escaped(name)}\\2 \\2${escaped(name)}\\2(?=\\s|$)`),
      (all) => all.slice(0, all.lastIndexOf(' ')),
    );
  }
  return withoutSuffixes(told, leaves);
}

/** A plan of the JSON format, all of its values. */
export function planInUsersNames(plan: unknown, leaves: LeavesOfPlan): unknown {
  const renamed = renamedLeaves(leaves);
  const byLeaf = new Map(renamed.map((one) => [one.leaf, one]));
  const walk = (value: unknown): unknown => {
    if (typeof value === 'string') return lineInUsersNames(value, leaves, renamed);
    if (Array.isArray(value)) return value.map(walk);
    if (typeof value !== 'object' || value === null) return value;
    const own = byLeaf.get(String((value as Record<string, unknown>)['Relation Name']));
    return Object.fromEntries(
      Object.entries(value).map(([key, child]) => [
        key,
        key === 'Schema' && child === LEAF_SCHEMA ? (own?.schema ?? child) : walk(child),
      ]),
    );
  };
  return walk(plan);
}

function renamedLeaves({ tables, buckets, together }: LeavesOfPlan): Renamed[] {
  return tables.flatMap((table) =>
    buckets.map((bucket) => ({
      leaf: leafName(table.name, bucket, table.buckets[bucket]!.generation),
      schema: table.schema,
      name: together ? `${table.name}_b${bucket}` : table.name,
    })),
  );
}

/** Of indexes and constraints. */
function withoutSuffixes(text: string, { tables, buckets, together }: LeavesOfPlan): string {
  const known = new Set(
    tables.flatMap((table) => buckets.map((bucket) => leafSuffix(bucket, table.buckets[bucket]!.generation))),
  );
  return text.replaceAll(/_b(\d+)_g\d+(?![0-9])/g, (suffix, bucket: string) => {
    if (!known.has(suffix)) return suffix;
    return together ? `_b${bucket}` : '';
  });
}

function escaped(name: string): string {
  return name.replaceAll(/[$()*+.?[\\\]^{|}]/g, '\\$&');
}

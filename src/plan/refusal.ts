/**
 * What the planner answers where PostgreSQL would take a statement and Postern does not. Thrown inside the planner, caught in
 * planner.ts, and carried in the plan: a text that is refused once is refused from the cache too. None is retryable.
 */
import { notSupported, PosternError } from '../base/errors.ts';
import type { ReferenceTable, ShardedTable } from '../catalog/map.ts';
import { quoteLiteral } from '../pg/identifier.ts';

export function nameOf(table: ShardedTable | ReferenceTable): string {
  return `"${table.schema}.${table.name}"`;
}

export function noKey(table: ShardedTable, comparedWithExpression: boolean): PosternError {
  const key = table.keyColumn;
  return notSupported(
    `this statement does not say which bucket of sharded table ${nameOf(table)} it is about`,
    `Add WHERE ${key} = … (a literal or a parameter) for each use of the table, or send its parts by themselves.`,
    comparedWithExpression
      ? `"${key}" is compared with an expression, a value of another type, or a list that is not known in advance.`
      : undefined,
  );
}

export function mixedWithHome(table: ShardedTable, other: string): PosternError {
  return notSupported(
    `sharded table ${nameOf(table)} cannot be used together with table "${other}", which lives on the home node`,
    `Query them separately, make "${other}" a reference table, or shard it by the same key, colocated with ${nameOf(table)}.`,
  );
}

export function notColocated(one: ShardedTable, other: ShardedTable): PosternError {
  return notSupported(
    `sharded tables ${nameOf(one)} and ${nameOf(other)} are not colocated`,
    "Create the second one with postern.colocate_with = 'first table', or query them separately.",
  );
}

/** One statement over several buckets, in which a use of a sharded table can't be confined to the bucket at hand. */
export function notLinked(root: ShardedTable, other: ShardedTable, otherKey: string): PosternError {
  return notSupported(
    `in a statement over several buckets of table ${nameOf(root)}, this use of table ${nameOf(other)} needs rows of other buckets`,
    `Compare "${otherKey}" there with the shard key of ${nameOf(root)}, or read the rows first.`,
  );
}

export function keyIsFixed(table: ShardedTable): PosternError {
  return notSupported(
    `the shard key "${table.keyColumn}" of table ${nameOf(table)} cannot be updated`,
    'DELETE the row and INSERT it with its new key.',
  );
}

export function notUnderstood(what: string, table: ShardedTable, hint: string): PosternError {
  return notSupported(`${what} is not supported on sharded table ${nameOf(table)}`, hint);
}

/** It would be that of a bucket, and another one on each node. */
export function refuseTableoid(table: ShardedTable | undefined): void {
  if (table) throw notUnderstood('tableoid', table, `Write ${quoteLiteral(table.name)}::regclass instead.`);
}

/** A snapshot that one transaction gives to others: pg_dump with more than one job. */
export function snapshotOfOneNode(): PosternError {
  return notSupported(
    'a snapshot of sharded tables cannot be given to another transaction',
    'A snapshot is of one node. Let pg_dump run with one job (without -j).',
  );
}

/** What lives as a whole on another node is not read through the router. */
export function dumpWouldLack(schema: string): PosternError {
  return notSupported(
    `a dump would lack the tables of schema "${schema}", which lives on a node of its own`,
    'Dump such schemas from their nodes (postern.schemas says which): pg_dump -n. Dump the rest when they are back on the home node.',
  );
}

/** Its functions write what decides on transactions over several nodes. */
export function commitSchemaIsPrivate(schema: string): PosternError {
  return new PosternError({
    sqlState: '42501',
    message: `permission denied for schema ${schema}`,
    hint: 'Postern itself calls what is there, when a transaction over several nodes commits.',
  });
}

/** The schema of the leaves is Postern's own: what is there is reached through the tables' own names. */
export function leafSchemaIsPrivate(schema: string): PosternError {
  return new PosternError({
    sqlState: '42501',
    message: `permission denied for schema ${schema}`,
    hint: "The buckets of sharded tables are there; use the tables' own names.",
  });
}

/** LOCK TABLE: of a sharded table all leaves, of a reference table all copies, on all nodes; of another table on the home node. */
import type { LockStmt, RangeVar } from '@pgsql/types';
import { notSupported } from '../base/errors.ts';
import { quoteQualified } from '../pg/identifier.ts';
import { endOfName } from '../sql/scanner.ts';
import { changeOf } from './ddl/change.ts';
import type { PlanParts, Request } from './query.ts';
import { nameOf } from './refusal.ts';
import { resolveRangeVar, resolveReferenceVar } from './resolve.ts';

/** Undefined: none of the tables has a door. */
export function planLock(statement: LockStmt, { sql, end, context }: Request): PlanParts | undefined {
  const relations = (statement.relations ?? []).flatMap((node) =>
    'RangeVar' in node ? [node.RangeVar] : [],
  );
  const tables = relations.flatMap((relation) => resolveRangeVar(context, relation) ?? []);
  const references = relations.flatMap((relation) => resolveReferenceVar(context, relation) ?? []);
  const [first] = [...tables, ...references];
  if (!first) return undefined;
  const hasDoor = (relation: RangeVar) =>
    resolveRangeVar(context, relation) ?? resolveReferenceVar(context, relation);
  const singles = relations.filter((relation) => !hasDoor(relation));
  const nameEnds = relations.map((relation) => endOfNameOf(relation, sql));
  const last = nameEnds.at(-1);
  if (last === undefined || nameEnds.includes(undefined)) {
    throw notSupported(
      `LOCK TABLE of table ${nameOf(first)} by a name with escapes`,
      'Write the names of the tables without escapes.',
    );
  }
  const text = (from: number, to: number) =>
    Buffer.from(sql.buffer, sql.byteOffset + from, to - from).toString('utf8');
  const change = changeOf(
    [
      {
        kind: 'leafList',
        tables,
        others: references.map(({ schema, name }) => quoteQualified(schema, name)),
        homeOnly: singles.map((relation) => {
          const only = relation.inh === true ? '' : 'ONLY ';
          return only + text(relation.location ?? 0, endOfNameOf(relation, sql)!);
        }),
        before: 'LOCK TABLE ',
        after: text(last, end).replace(/^\s*\*/, ''),
        suffix: '',
      },
    ],
    { mode: 'locks', tag: 'LOCK TABLE' },
  );
  return { placement: { kind: 'everywhere', change } };
}

function endOfNameOf({ location, schemaname, catalogname }: RangeVar, sql: Uint8Array): number | undefined {
  const parts = 1 + (schemaname ? 1 : 0) + (catalogname ? 1 : 0);
  return location === undefined ? undefined : endOfName(sql, location, parts);
}

/**
 * Functions of schema `postern_shown` with the names of PostgreSQL's own: the planner has them called instead, so that what is
 * asked about a face is answered for the table.
 *
 * Invariant: bodies are parsed when they are made (BEGIN ATOMIC), so that no caller's search_path decides what they run with
 * Postern's rights. What names relations to the caller is printed under the caller's own search_path.
 */
import { SHOWN_SCHEMA } from '../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { DEFINER, HELPER_FUNCTIONS } from './helper-functions.ts';
import { isFace } from './shown-catalogs.ts';

/** Sizes: of a face or its index the sum over the nodes. */
function sizeFunctions(): string[] {
  const sized = (name: string, sum: string) =>
    `CREATE FUNCTION ${SHOWN_SCHEMA}.${name}(relation regclass) RETURNS bigint ${DEFINER}
     SELECT coalesce((SELECT ${sum} FROM ${SHOWN_SCHEMA}.figures_of($1::oid) g), pg_catalog.${name}($1)); END`;
  return [
    sized('pg_relation_size', 'g.main_bytes'),
    `CREATE FUNCTION ${SHOWN_SCHEMA}.pg_relation_size(relation regclass, fork text) RETURNS bigint ${DEFINER}
     SELECT CASE WHEN $2 = 'main' THEN ${SHOWN_SCHEMA}.pg_relation_size($1) ELSE pg_catalog.pg_relation_size($1, $2) END; END`,
    sized('pg_table_size', 'coalesce(g.table_bytes, g.main_bytes)'),
    sized('pg_indexes_size', 'coalesce(g.index_bytes, 0)'),
    sized('pg_total_relation_size', 'coalesce(g.table_bytes, g.main_bytes) + coalesce(g.index_bytes, 0)'),
  ];
}

/** What PostgreSQL says of the definition of a face's parts, without what makes it a face. */
function definitionFunctions(): string[] {
  const indexDefinition = (parameters: string, call: string, isWhole: string) =>
    `CREATE FUNCTION ${SHOWN_SCHEMA}.pg_get_indexdef(${parameters}) RETURNS text ${DEFINER}
     SELECT CASE WHEN ${isWhole} AND x.relkind = 'I' AND ${isFace('i.indrelid')}
       THEN regexp_replace(CASE WHEN ${SHOWN_SCHEMA}.is_unique_off_key(x.oid)
           THEN regexp_replace(${call}, '^CREATE INDEX ', 'CREATE UNIQUE INDEX ') ELSE ${call} END,
         '^(CREATE (?:UNIQUE )?INDEX (?:"(?:[^"]|"")*"|[^ "]+) ON )ONLY ', '\\1') ELSE ${call} END
     FROM (SELECT $1 AS oid) a LEFT JOIN pg_index i ON i.indexrelid = a.oid LEFT JOIN pg_class x ON x.oid = a.oid; END`;
  const constraintDefinition = (parameters: string, call: string) =>
    `CREATE FUNCTION ${SHOWN_SCHEMA}.pg_get_constraintdef(${parameters}) RETURNS text ${DEFINER}
     SELECT CASE WHEN t.face IS NULL THEN coalesce(${call}, (SELECT 'UNIQUE (' || string_agg(quote_ident(k.attname), ', ' ORDER BY p.place) || ')'
         FROM ${SHOWN_SCHEMA}.uniques_off_key() u CROSS JOIN LATERAL unnest(u.conkey) WITH ORDINALITY p (number, place)
         JOIN pg_attribute k ON k.attrelid = u.conrelid AND k.attnum = p.number WHERE u.is_constraint AND u.index = $1))
       ELSE replace(${call}, ' REFERENCES ' || c.confrelid::regclass::text || '(', ' REFERENCES ' || t.face::text || '(') END
     FROM (SELECT $1 AS oid) a LEFT JOIN pg_constraint c ON c.oid = a.oid AND c.contype = 'f'
       LEFT JOIN ${INTERNAL_SCHEMA}.local_leaves b ON b.leaf::oid = c.confrelid
       LEFT JOIN ${INTERNAL_SCHEMA}.local_tables t ON t.table_id = b.table_id; END`;
  return [
    indexDefinition('"index" oid', 'pg_catalog.pg_get_indexdef($1)', 'true'),
    indexDefinition(
      '"index" oid, "column" integer, pretty boolean',
      'pg_catalog.pg_get_indexdef($1, $2, $3)',
      '$2 = 0',
    ),
    constraintDefinition('"constraint" oid', 'pg_catalog.pg_get_constraintdef($1)'),
    constraintDefinition('"constraint" oid, pretty boolean', 'pg_catalog.pg_get_constraintdef($1, $2)'),
    `CREATE FUNCTION ${SHOWN_SCHEMA}.pg_get_partkeydef(relation oid) RETURNS text ${DEFINER}
     SELECT CASE WHEN NOT ${isFace('$1')} THEN pg_catalog.pg_get_partkeydef($1) END; END`,
  ];
}

/** The relation on which the privileges of a table are: nobody has one on a face. */
const PRIVILEGES_OF = `CREATE FUNCTION ${SHOWN_SCHEMA}.privileges_of(relation oid) RETURNS oid ${DEFINER}
SELECT coalesce(${SHOWN_SCHEMA}.leaf_of($1), $1); END`;

/** By how many arguments from the last the relation is given. */
const RELATION_FROM_LAST: Readonly<Record<string, number>> = {
  has_table_privilege: 2,
  has_any_column_privilege: 2,
  has_column_privilege: 3,
  has_sequence_privilege: 2,
};

export const PRIVILEGE_FUNCTIONS: readonly string[] = Object.keys(RELATION_FROM_LAST);

/** A function of PostgreSQL's own, as pg_proc has it. */
export interface OwnFunction {
  readonly name: string;
  /** Names of its arguments' types. */
  readonly types: readonly string[];
}

/** With the caller's own rights: it is the caller's that are asked for, or of a role that is named. */
function privilegeFunction({ name, types }: OwnFunction): string {
  const place = types.length - RELATION_FROM_LAST[name]!;
  const values = types.map((type, i) => {
    if (i !== place) return `$${i + 1}`;
    if (type === 'text') return `${SHOWN_SCHEMA}.privileges_of($${i + 1}::regclass::oid)`;
    // PostgreSQL's own relations, of which there are most, need no look.
    return `CASE WHEN $${i + 1} < 16384 THEN $${i + 1} ELSE ${SHOWN_SCHEMA}.privileges_of($${i + 1}) END`;
  });
  if (name === 'has_sequence_privilege') return sequencePrivilegeFunction(types, place);
  return `CREATE FUNCTION ${SHOWN_SCHEMA}.${name}(${types.join(', ')}) RETURNS boolean LANGUAGE sql STABLE
RETURN pg_catalog.${name}(${values.join(', ')})`;
}

/** PostgreSQL's own fails for what is no sequence, and a condition that keeps those away may be evaluated behind it. */
function sequencePrivilegeFunction(types: readonly string[], place: number): string {
  const relation = `$${place + 1}${types[place] === 'text' ? '::regclass::oid' : ''}`;
  return `CREATE FUNCTION ${SHOWN_SCHEMA}.has_sequence_privilege(${types.join(', ')}) RETURNS boolean LANGUAGE sql STABLE COST 10
BEGIN ATOMIC SELECT CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(${types.map((_, i) => `$${i + 1}`).join(', ')}) END
FROM pg_class c WHERE c.oid = ${relation}; END`;
}

/** Statements that make all of them; `own` are the server's PRIVILEGE_FUNCTIONS. */
export function functionDefinitions(own: readonly OwnFunction[]): readonly string[] {
  return [
    ...HELPER_FUNCTIONS,
    ...sizeFunctions(),
    ...definitionFunctions(),
    PRIVILEGES_OF,
    ...own.map(privilegeFunction),
  ];
}

export const SHOWN_FUNCTIONS: readonly string[] = [
  ...['pg_relation_size', 'pg_table_size', 'pg_indexes_size', 'pg_total_relation_size'],
  ...['pg_get_indexdef', 'pg_get_constraintdef', 'pg_get_partkeydef'],
  ...PRIVILEGE_FUNCTIONS,
];

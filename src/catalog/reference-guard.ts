/**
 * What keeps the copies of a reference table equal: on each node it has a trigger that lets no statement write to it but those
 * that Postern sends to all nodes. A function, a view, a rule or a client of one node alone would write to one copy only.
 *
 * It guards against accidents, not against owners: who may disable triggers can write to a copy.
 */
import { quoteLiteral } from '../pg/identifier.ts';
import { LEAF_SCHEMA } from './map.ts';

/** The trigger function, of each node. Everybody may use the schema that it is in, and nobody make anything there. */
const GUARD_FUNCTION = `${LEAF_SCHEMA}.refuse_local_write`;
export const GUARD_TRIGGER = 'postern_guard';
const WRITE_SETTING = 'postern.reference_write';

/**
 * Around a statement that is sent to all nodes, in the same transaction. The guard of the home node, where each such statement
 * goes first, asks for the very nodes that have a copy: a router that doesn't know of a node that has joined writes nothing.
 */
export function liftGuard(nodeIds: readonly number[]): string {
  return `SELECT pg_catalog.set_config('${WRITE_SETTING}', '${nodesText(nodeIds)}', true)`;
}

export const LOWER_GUARD = `SELECT pg_catalog.set_config('${WRITE_SETTING}', '', true)`;

function nodesText(nodeIds: readonly number[]): string {
  return [...nodeIds].sort((a, b) => a - b).join(',');
}

const HINT =
  'It has a copy on each node. Send INSERT, UPDATE or DELETE of the table itself through Postern: not in a function, a trigger or a view, and not to a node by itself.';

export const GUARD_OBJECTS = `
CREATE OR REPLACE FUNCTION ${GUARD_FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS $guard$
DECLARE nodes text := coalesce(pg_catalog.current_setting('${WRITE_SETTING}', true), '');
BEGIN
  IF nodes OPERATOR(pg_catalog.=) '' THEN
    RAISE EXCEPTION USING ERRCODE = '0A000',
      MESSAGE = pg_catalog.format('reference table "%s" cannot be written to from here', TG_TABLE_NAME),
      HINT = ${quoteLiteral(HINT)};
  ELSIF TG_NARGS OPERATOR(pg_catalog.>) 0 AND nodes OPERATOR(pg_catalog.<>) TG_ARGV[0] THEN
    RAISE EXCEPTION USING ERRCODE = '40001',
      MESSAGE = pg_catalog.format('reference table "%s" has copies on other nodes than this router knows', TG_TABLE_NAME),
      HINT = 'A node has joined. Try again; if that goes on, restart this router with the configuration that has all nodes.';
  END IF;
  RETURN NULL;
END $guard$;`;

/** Is it there? A node that an earlier version has prepared lacks it. */
export const GUARD_IS_THERE = `to_regprocedure('${GUARD_FUNCTION}()') IS NOT NULL`;

/** Puts the guard on a table, by its quoted name, or changes it there. Run as the table's owner. */
export function guardSql(table: string, nodeIds: readonly number[] | undefined): string {
  const argument = nodeIds ? quoteLiteral(nodesText(nodeIds)) : '';
  return `CREATE OR REPLACE TRIGGER ${GUARD_TRIGGER} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON ${table}
    FOR EACH STATEMENT EXECUTE FUNCTION ${GUARD_FUNCTION}(${argument})`;
}

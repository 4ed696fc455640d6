/**
 * What keeps UNIQUE constraints off the shard key (src/lookup/SPEC.md) on the servers: the records of their tables, the trigger on
 * leaves that notes which values a statement has put in and taken out, and the function that carries that over to the lookup's own
 * tables.
 *
 * Invariant: a leaf with such a constraint takes no change of its values but in a statement around which a router has said that it
 * carries them: what is noted is read before anything else is sent on that backend.
 * Invariant: what is noted is undone with the subtransaction that noted it: it is kept in settings of the transaction.
 * Invariant: a lookup's table is written by signed changes alone (signed-statements.ts): the role of the client need not have a right to it.
 */
import { COMMIT_SCHEMA } from './map.ts';

/** A node has all of this if it has this. */
export const NEWEST_LOOKUP_OBJECT = `${COMMIT_SCHEMA}.find_unique(text,text)`;

/** What stands for the transaction in a signature: a change is good for one backend. */
export const KEEP_UNIQUE_SCOPE = 'keep_unique';
export const FIND_UNIQUE_SCOPE = 'find_unique';

/** Before a statement: the trigger may note. */
export const CARRY_LOOKUPS = `SELECT pg_catalog.set_config('postern_lookup.at', '0', true), pg_catalog.set_config('postern_lookup.q0', '', true)`;
/** Behind it: what it has noted, in portions; and nothing more may be noted. */
export const DRAIN_LOOKUPS = `SELECT n.noted FROM ${COMMIT_SCHEMA}.drain_lookups() AS n (noted)`;

/** The column of a lookup's table that has the shard key. */
export const LOOKUP_KEY = 'postern_key';

/** Characters of one portion: to add to a longer one would take longer each time. */
const PORTION = 8_000;

export function localLookups(internalSchema: string): string {
  return `
CREATE TABLE IF NOT EXISTS ${internalSchema}.local_lookups (
  table_id int NOT NULL REFERENCES ${internalSchema}.local_tables ON DELETE CASCADE,
  lookup_id int NOT NULL,
  bucket int NOT NULL,
  generation bigint NOT NULL,
  leaf regclass NOT NULL,
  PRIMARY KEY (lookup_id, bucket, generation)
);
CREATE SCHEMA IF NOT EXISTS ${COMMIT_SCHEMA};
GRANT USAGE ON SCHEMA ${COMMIT_SCHEMA} TO PUBLIC;
CREATE OR REPLACE FUNCTION ${COMMIT_SCHEMA}.lookup_values(entry jsonb, columns text[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $body$
  -- The last one is the shard key, which may be NULL.
  SELECT CASE WHEN pg_catalog.count(entry ->> c) FILTER (WHERE o < pg_catalog.cardinality(columns)) = pg_catalog.cardinality(columns) - 1
    THEN pg_catalog.jsonb_agg(entry ->> c ORDER BY o) END
  FROM pg_catalog.unnest(columns) WITH ORDINALITY AS u (c, o)
$body$;
CREATE OR REPLACE FUNCTION ${COMMIT_SCHEMA}.record_lookup() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
  at text := pg_catalog.current_setting('postern_lookup.at', true);
  columns text[] := TG_ARGV[1:];
  removed jsonb;
  added jsonb;
  noted text;
BEGIN
  IF at IS NULL OR at = '' THEN
    RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = pg_catalog.format('the rows of "%s" can be changed by a statement through Postern that names their table only', TG_TABLE_NAME),
      DETAIL = 'A unique constraint of the table is kept on other nodes, and this statement does not reach them.',
      HINT = 'Send it through a Postern router; if it came from one, send it again. An UPDATE in which a trigger changes such a column has to name it.';
  END IF;
  IF TG_OP <> 'INSERT' THEN removed := ${COMMIT_SCHEMA}.lookup_values(pg_catalog.to_jsonb(OLD), columns); END IF;
  IF TG_OP <> 'DELETE' THEN added := ${COMMIT_SCHEMA}.lookup_values(pg_catalog.to_jsonb(NEW), columns); END IF;
  IF removed IS NULL AND added IS NULL OR removed = added THEN RETURN NULL; END IF;
  noted := pg_catalog.current_setting('postern_lookup.q' || at, true);
  IF pg_catalog.length(noted) > ${PORTION} THEN
    at := (at::int + 1)::text;
    noted := '';
    PERFORM pg_catalog.set_config('postern_lookup.at', at, true);
  END IF;
  PERFORM pg_catalog.set_config('postern_lookup.q' || at,
    noted || CASE noted WHEN '' THEN '' ELSE ',' END || pg_catalog.jsonb_build_array(TG_ARGV[0]::int, removed, added)::text, true);
  RETURN NULL;
END $body$;
CREATE OR REPLACE FUNCTION ${COMMIT_SCHEMA}.drain_lookups() RETURNS SETOF text LANGUAGE plpgsql AS $body$
BEGIN
  FOR i IN 0 .. pg_catalog.current_setting('postern_lookup.at')::int LOOP
    RETURN NEXT '[' || pg_catalog.current_setting('postern_lookup.q' || i, true) || ']';
    PERFORM pg_catalog.set_config('postern_lookup.q' || i, '', true);
  END LOOP;
  PERFORM pg_catalog.set_config('postern_lookup.at', '', true);
END $body$;
CREATE OR REPLACE FUNCTION ${COMMIT_SCHEMA}.keep_unique(change text, signature text) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
  parsed json := keep_unique.change::json;
  leaf text := parsed ->> 'leaf';
  expected text;
  pairs text;
  wanted int := json_array_length(parsed -> 'removed');
  found int := 0;
BEGIN
  SELECT encode(sha256(k.outer_pad || sha256(k.inner_pad || convert_to(concat_ws(E'\\n', n.cluster_id, n.node_id,
      pg_backend_pid(), '${KEEP_UNIQUE_SCOPE}', keep_unique.change), 'UTF8'))), 'hex')
    INTO expected FROM ${internalSchema}.local_key k, ${internalSchema}.local_node n;
  IF expected IS NULL OR expected <> keep_unique.signature THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'this change is not signed by a router of this cluster';
  END IF;
  IF wanted > 0 THEN
    SELECT string_agg(format('l.%1$I = r.%1$I', c), ' AND ') INTO pairs FROM json_array_elements_text(parsed -> 'columns') c;
    EXECUTE format('DELETE FROM %1$s l USING json_populate_recordset(NULL::%1$s, $1) r WHERE %2$s AND l.${LOOKUP_KEY} IS NOT DISTINCT FROM r.${LOOKUP_KEY}', leaf, pairs)
      USING parsed -> 'removed';
    GET DIAGNOSTICS found = ROW_COUNT;
    IF found <> wanted THEN
      RAISE EXCEPTION USING ERRCODE = CASE current_setting('transaction_isolation') WHEN 'read committed' THEN 'XX001' ELSE '40001' END,
        MESSAGE = CASE current_setting('transaction_isolation') WHEN 'read committed' THEN 'a unique value is not where it should be kept'
          ELSE 'could not serialize access due to concurrent update' END,
        DETAIL = format('%s of %s values were found.', found, wanted);
    END IF;
  END IF;
  EXECUTE format('INSERT INTO %1$s SELECT * FROM json_populate_recordset(NULL::%1$s, $1)', leaf) USING parsed -> 'added';
  RETURN found;
END $body$;
CREATE OR REPLACE FUNCTION ${COMMIT_SCHEMA}.find_unique(request text, signature text) RETURNS json
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
-- The shard key of the row with these values, in an array; NULL: there is none.
DECLARE
  parsed json := find_unique.request::json;
  expected text;
  pairs text;
  found json;
BEGIN
  SELECT encode(sha256(k.outer_pad || sha256(k.inner_pad || convert_to(concat_ws(E'\\n', n.cluster_id, n.node_id,
      pg_backend_pid(), '${FIND_UNIQUE_SCOPE}', find_unique.request), 'UTF8'))), 'hex')
    INTO expected FROM ${internalSchema}.local_key k, ${internalSchema}.local_node n;
  IF expected IS NULL OR expected <> find_unique.signature THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'this question is not signed by a router of this cluster';
  END IF;
  SELECT string_agg(format('l.%I = %L', c.name, v.value), ' AND ') INTO pairs
    FROM json_array_elements_text(parsed -> 'columns') WITH ORDINALITY AS c (name, at)
    JOIN json_array_elements_text(parsed -> 'values') WITH ORDINALITY AS v (value, at) USING (at);
  EXECUTE format('SELECT json_build_array(l.${LOOKUP_KEY}::text) FROM %s l WHERE %s', parsed ->> 'leaf', pairs) INTO found;
  RETURN found;
END $body$;
GRANT EXECUTE ON FUNCTION ${COMMIT_SCHEMA}.find_unique(text, text), ${COMMIT_SCHEMA}.keep_unique(text, text), ${COMMIT_SCHEMA}.drain_lookups(),
  ${COMMIT_SCHEMA}.record_lookup(), ${COMMIT_SCHEMA}.lookup_values(jsonb, text[]) TO PUBLIC;`;
}

/** On home: the constraints. */
export function lookupsTable(internalSchema: string): string {
  return `
CREATE TABLE IF NOT EXISTS ${internalSchema}.lookups (
  lookup_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  table_id int NOT NULL REFERENCES ${internalSchema}.tables ON DELETE CASCADE,
  constraint_name text NOT NULL,
  is_constraint bool NOT NULL,
  columns text[] NOT NULL,
  key_type text NOT NULL,
  hash_function text NOT NULL
);`;
}

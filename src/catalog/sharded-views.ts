/**
 * The views of the home node that read sharded tables, directly or through other views: found by PostgreSQL's own record of what depends
 * on what, so that nothing of Postern's has to follow a DROP … CASCADE or a rename. plan/views.ts puts their queries into statements.
 */
import { INTERNAL_SCHEMA } from './schema.ts';

/** One value of JSON. Names in the queries are qualified, as search_path is pg_catalog. */
export const SHARDED_VIEWS = `
  WITH RECURSIVE reading (oid) AS (
    SELECT f.face::oid FROM ${INTERNAL_SCHEMA}.tables t JOIN ${INTERNAL_SCHEMA}.local_tables f USING (table_id)
    WHERE t.state = 'ready' AND t.door = 'sharded'
    UNION
    SELECT w.ev_class FROM reading r
    JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = r.oid AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_rewrite w ON w.oid = d.objid AND w.ev_type = '1' AND w.ev_class <> r.oid
  )
  SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'name', c.relname, 'query', pg_get_viewdef(c.oid),
    'shadowSchemas', (SELECT coalesce(json_agg(sn.nspname), '[]') FROM pg_class s JOIN pg_namespace sn ON sn.oid = s.relnamespace
      WHERE s.relname = c.relname AND s.oid <> c.oid AND sn.nspname !~ '^pg_(temp|toast)')
    ) ORDER BY n.nspname, c.relname), '[]')
  FROM reading r JOIN pg_class c ON c.oid = r.oid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'v' AND n.nspname !~ '^pg_temp'`;

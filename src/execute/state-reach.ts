/**
 * The questions to PostgreSQL's catalogs behind stateful-relations.ts: which functions are reached otherwise than by their
 * names, and what can be used in a statement that leads to them.
 *
 * It goes upwards: from functions that leave state behind to what uses them, along pg_depend, which knows of everything
 * but PostgreSQL's own functions and what stands in the source of functions. The former are looked for in the stored
 * expressions; the latter is stateful-relations.ts's part. Runs on PostgreSQL 14 to 18, as any role.
 */
import { SHOWN_SCHEMA } from '../catalog/map.ts';

/** PostgreSQL's own functions that leave something in the session, or read what was left there. */
const OWN_FUNCTIONS = `SELECT p.oid FROM pg_catalog.pg_proc p
 WHERE p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace::pg_catalog.oid AND p.proname ~
   '^(set_config|setseed|currval|lastval|pg_(try_)?advisory_lock(_shared)?|ts_stat|ts_rewrite|(query|cursor|table|schema|database)_to_xml.*|pg_replication_origin_.*)$'`;

/** Changes with whatever the answers to the other questions depend on; cheap enough to be asked for again and again. */
export const STATE_MARK_QUERY = `
SELECT pg_catalog.count(*) || ':' || coalesce(pg_catalog.sum(pg_catalog.hashint8extended((o.oid::bigint << 32) | o.xmin::text::bigint, 0)), 0)
  FROM (
    SELECT oid, xmin FROM pg_catalog.pg_proc WHERE oid >= 16384
    UNION ALL SELECT oid, xmin FROM pg_catalog.pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT oid, xmin FROM pg_catalog.pg_rewrite WHERE oid >= 16384
    UNION ALL SELECT oid, xmin FROM pg_catalog.pg_attrdef
    UNION ALL SELECT oid, xmin FROM pg_catalog.pg_policy
    UNION ALL SELECT oid, xmin FROM pg_catalog.pg_constraint WHERE oid >= 16384
    UNION ALL SELECT oid, xmin FROM pg_catalog.pg_operator WHERE oid >= 16384
    UNION ALL SELECT oid, xmin FROM pg_catalog.pg_cast WHERE oid >= 16384
    UNION ALL SELECT inhrelid, xmin FROM pg_catalog.pg_inherits
    UNION ALL SELECT oid, xmin FROM pg_catalog.pg_type WHERE oid >= 16384 AND typtype IN ('d', 'r')
    UNION ALL SELECT oid, xmin FROM pg_catalog.pg_class
     WHERE oid >= 16384 AND relpersistence <> 't' AND relkind IN ('r', 'p', 'v', 'm', 'f', 'i', 'I', 'c')
  ) o`;

/** Rows of (qualified name, oid): functions with a source that something but a call by name leads to. */
export const ATTACHED_FUNCTIONS_QUERY = `
SELECT DISTINCT n.nspname || '.' || p.proname, p.oid
  FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND l.lanname NOT IN ('internal', 'c')
   AND n.nspname <> '${SHOWN_SCHEMA}'`;

/** Rows of (catalog, oid): what has a call of one of PostgreSQL's own functions in its stored expression. */
export const OWN_CALLS_QUERY = `
WITH pattern AS (
  SELECT ':(funcid|opfuncid|aggfnoid|winfnoid) (' || pg_catalog.string_agg(own.oid::text, '|') || ') ' AS calls FROM (${OWN_FUNCTIONS}) own
), stored(catalog, oid, tree) AS (
  SELECT 'pg_attrdef', d.oid, d.adbin::text FROM pg_catalog.pg_attrdef d
  UNION ALL SELECT 'pg_constraint', c.oid, c.conbin::text FROM pg_catalog.pg_constraint c WHERE c.oid >= 16384
  UNION ALL SELECT 'pg_policy', p.oid, pg_catalog.concat(p.polqual::text, p.polwithcheck::text) FROM pg_catalog.pg_policy p
  UNION ALL SELECT 'pg_trigger', t.oid, t.tgqual::text FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal
  UNION ALL SELECT 'pg_class', i.indexrelid, pg_catalog.concat(i.indexprs::text, i.indpred::text)
    FROM pg_catalog.pg_index i WHERE i.indexrelid >= 16384
  UNION ALL SELECT 'pg_type', t.oid, t.typdefaultbin::text FROM pg_catalog.pg_type t WHERE t.oid >= 16384
  UNION ALL SELECT 'pg_rewrite', w.oid, pg_catalog.concat(w.ev_qual::text, w.ev_action::text)
    FROM pg_catalog.pg_rewrite w WHERE w.oid >= 16384
)
SELECT stored.catalog, stored.oid FROM stored CROSS JOIN pattern WHERE stored.tree ~ pattern.calls`;

/** Names of relations that have a rule for what is written to them, and of the views over those. */
export const RULED_RELATIONS_QUERY = `
WITH RECURSIVE ruled(oid) AS (
  SELECT w.ev_class FROM pg_catalog.pg_rewrite w WHERE w.ev_type <> '1'
  UNION
  SELECT w.ev_class FROM ruled JOIN pg_catalog.pg_depend d ON d.refobjid = ruled.oid
    JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid
   WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
)
SELECT DISTINCT c.relname::text FROM ruled JOIN pg_catalog.pg_class c ON c.oid = ruled.oid`;

export interface StatefulObject {
  /** `pg_proc`, `pg_rewrite`, … */
  readonly catalog: string;
  readonly oid: number;
}

/**
 * Rows of (kind, name): `read` is a relation that leaves state behind whatever is done with it, `written` one that does when
 * it is written to, `other` an operator or type (`type x`) that does, `function` a function whose definition leads there.
 */
export function stateReachQuery(from: readonly StatefulObject[]): string {
  const seeds = from.map(
    ({ catalog, oid }) =>
      `('pg_catalog.${catalog}'::pg_catalog.regclass::pg_catalog.oid, ${oid}::pg_catalog.oid)`,
  );
  return `SET LOCAL jit = off;
WITH RECURSIVE class AS (
  SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid AS relation,
         'pg_catalog.pg_attrdef'::pg_catalog.regclass::pg_catalog.oid AS default_value,
         'pg_catalog.pg_constraint'::pg_catalog.regclass::pg_catalog.oid AS constr,
         'pg_catalog.pg_policy'::pg_catalog.regclass::pg_catalog.oid AS policy,
         'pg_catalog.pg_rewrite'::pg_catalog.regclass::pg_catalog.oid AS rewrite,
         'pg_catalog.pg_trigger'::pg_catalog.regclass::pg_catalog.oid AS trigger,
         'pg_catalog.pg_cast'::pg_catalog.regclass::pg_catalog.oid AS type_cast,
         'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid AS type,
         'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid AS function,
         'pg_catalog.pg_operator'::pg_catalog.regclass::pg_catalog.oid AS operator
), reach(classid, objid, written) AS (
  SELECT seed.classid, seed.objid, false FROM (VALUES ${seeds.join(', ')}) seed(classid, objid)
  UNION
  SELECT up.classid, up.objid, up.written FROM reach r CROSS JOIN class CROSS JOIN LATERAL (
    -- What uses it. Of a relation: views and functions; its own parts are no users of it, and its row type does nothing.
    SELECT d.classid, d.objid, r.written OR d.classid = class.relation AS written FROM pg_catalog.pg_depend d
     WHERE d.refclassid = r.classid AND d.refobjid = r.objid AND d.deptype IN ('n', 'a', 'i')
       AND (d.classid IN (class.rewrite, class.function)
            OR r.classid <> class.relation AND d.classid IN (class.trigger, class.default_value, class.constr, class.policy,
                 class.relation, class.type, class.operator, class.type_cast))
       AND NOT (r.classid = class.type AND d.classid = class.function)
    UNION ALL
    -- What it is a part of.
    SELECT class.relation, t.tgrelid, true FROM pg_catalog.pg_trigger t WHERE r.classid = class.trigger AND t.oid = r.objid
    UNION ALL
    SELECT class.relation, d.adrelid, r.written OR a.attgenerated <> 'v'
      FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
     WHERE r.classid = class.default_value AND d.oid = r.objid
    UNION ALL
    SELECT class.relation, c.conrelid, true FROM pg_catalog.pg_constraint c
     WHERE r.classid = class.constr AND c.oid = r.objid AND c.conrelid <> 0
    UNION ALL
    SELECT class.type, c.contypid, r.written FROM pg_catalog.pg_constraint c
     WHERE r.classid = class.constr AND c.oid = r.objid AND c.contypid <> 0
    UNION ALL
    SELECT class.relation, w.ev_class, r.written OR w.ev_type <> '1' OR v.relkind = 'm'
      FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_class v ON v.oid = w.ev_class
     WHERE r.classid = class.rewrite AND w.oid = r.objid
    UNION ALL
    SELECT class.relation, p.polrelid, r.written OR p.polcmd NOT IN ('r', '*') FROM pg_catalog.pg_policy p
     WHERE r.classid = class.policy AND p.oid = r.objid
    UNION ALL
    SELECT class.type, t.oid, r.written FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_type t ON t.oid IN (c.castsource, c.casttarget)
     WHERE r.classid = class.type_cast AND c.oid = r.objid AND t.oid >= 16384
    UNION ALL
    -- Composite types; the tables above a partition, or a child; those whose foreign keys' actions write to it.
    SELECT class.type, t.oid, r.written FROM pg_catalog.pg_type t JOIN pg_catalog.pg_class k ON k.oid = t.typrelid AND k.relkind = 'c'
     WHERE r.classid = class.relation AND t.typrelid = r.objid
    UNION ALL
    SELECT class.relation, i.indrelid, true FROM pg_catalog.pg_index i WHERE r.classid = class.relation AND i.indexrelid = r.objid
    UNION ALL
    SELECT class.relation, h.inhparent, r.written FROM pg_catalog.pg_inherits h
     WHERE r.classid = class.relation AND h.inhrelid = r.objid
    UNION ALL
    SELECT class.relation, c.confrelid, true FROM pg_catalog.pg_constraint c
     WHERE r.classid = class.relation AND r.written AND c.contype = 'f' AND c.conrelid = r.objid
       AND (c.confdeltype IN ('c', 'n', 'd') OR c.confupdtype IN ('c', 'n', 'd'))
  ) up(classid, objid, written)
)
SELECT DISTINCT CASE WHEN r.written THEN 'written' ELSE 'read' END, k.relname::text
  FROM reach r JOIN class ON r.classid = class.relation
  JOIN pg_catalog.pg_class k ON k.oid = r.objid AND k.relkind IN ('r', 'p', 'v', 'm', 'f')
UNION
SELECT 'other', o.oprname::text FROM reach r JOIN class ON r.classid = class.operator JOIN pg_catalog.pg_operator o ON o.oid = r.objid
UNION
SELECT 'other', 'type ' || t.typname FROM reach r JOIN class ON r.classid = class.type JOIN pg_catalog.pg_type t ON t.oid = r.objid
UNION
SELECT 'function', p.proname::text FROM reach r JOIN class ON r.classid = class.function JOIN pg_catalog.pg_proc p ON p.oid = r.objid`;
}

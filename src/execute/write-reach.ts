/**
 * The questions to PostgreSQL's catalogs behind write-facts.ts: everything that a write to a table can set off, and what users
 * have defined under names that a statement may use.
 *
 * What makes it cheap: pg_depend has no rows for PostgreSQL's own functions, operators and types (they are pinned), so that
 * what it does lead to is a user's or an extension's. The same reason makes it incomplete: calls of built-in functions are
 * found in the text of the expressions instead. Runs on PostgreSQL 14 to 18, as any role.
 */
import { quoteLiteral } from '../pg/identifier.ts';

/** One row of the answer to reachQuery: what it is, of what, and a text. */
export type ReachKind =
  /** A table of that name exists. */
  | 'table'
  /** `text` says why writes to the table may not be merged. */
  | 'reason'
  /** `text` says why they may not share a transaction with others, though they may share a backend. */
  | 'apart'
  /** `text` says why an update may change more columns than it names, or be judged together with others. */
  | 'spreading'
  /** `text` says why one statement of several rows may be taken where a statement for each of them is not. */
  | 'linking'
  /** `text` is the name of a harmless function of an extension, which expressions may call. */
  | 'harmless'
  /** `text` is an SQL expression, or several with commas between, that a write may evaluate. */
  | 'expression'
  /** The same of a table whose owner has said that its writes may be merged. */
  | 'agreedExpression'
  /** `text` is the qualified name of a function that a write may call, of such a table. */
  | 'agreedFunction'
  /** `text` is the CREATE TRIGGER of a trigger of such a table. */
  | 'agreedTrigger';

/** Extensions all of whose functions only compute, whatever their declared volatility and language. */
const COMPUTING_EXTENSIONS = ['citext', 'earthdistance', 'hstore', 'pgcrypto', 'uuid-ossp'];

/**
 * Of a pg_proc `p`. Compiled code of an extension is trusted where it is declared to change nothing. 16384 is the first oid
 * that initdb does not use itself. Each range type comes with constructors of its own.
 */
const IS_HARMLESS = `(p.oid < 16384 AND p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace::pg_catalog.oid OR EXISTS (
  SELECT FROM pg_catalog.pg_language l
   WHERE l.oid = p.prolang AND l.lanname = 'internal' AND p.prosrc ~ '^(multi)?range_constructor[0-9]$') OR EXISTS (
  SELECT FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_extension e ON d.refobjid = e.oid JOIN pg_catalog.pg_language l ON l.oid = p.prolang
   WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e'
     AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
     AND (e.extname IN (${COMPUTING_EXTENSIONS.map(quoteLiteral).join(', ')})
          OR l.lanname IN ('c', 'internal') AND p.provolatile <> 'v')))`;

/**
 * Names of users' functions, operators and types that may do more than compute, in the form of WriteFacts.names. A function with
 * one argument of a row type can be written like an attribute.
 */
export const USER_NAMES_QUERY = `
WITH harmful AS (
  SELECT p.* FROM pg_catalog.pg_proc p
   WHERE p.oid >= 12000 AND p.pronamespace <> 'information_schema'::pg_catalog.regnamespace::pg_catalog.oid
     AND p.prorettype NOT IN ('pg_catalog.trigger'::pg_catalog.regtype, 'pg_catalog.event_trigger'::pg_catalog.regtype)
     AND NOT ${IS_HARMLESS})
SELECT proname::pg_catalog.text AS name FROM harmful
UNION
SELECT '.' || f.proname::pg_catalog.text FROM harmful f JOIN pg_catalog.pg_type t ON t.oid = f.proargtypes[0]
 WHERE f.pronargs - f.pronargdefaults <= 1 AND t.typtype IN ('c', 'd', 'p')
UNION
SELECT o.oprname::pg_catalog.text FROM pg_catalog.pg_operator o JOIN harmful f ON f.oid = o.oprcode
UNION
SELECT 'type ' || t.typname::pg_catalog.text FROM pg_catalog.pg_type t WHERE t.oid >= 16384 AND t.typtype IN ('c', 'd', 'm', 'r')`;

/** Where no table has a switch of its own: rows of (relation oid, merges bool). */
export const NO_SWITCHES = 'SELECT NULL::pg_catalog.oid, NULL::boolean WHERE false';

/**
 * Rows of (kind: ReachKind, text). `schemas` are all those in which the name may be meant. PostgreSQL can't guess how little
 * the recursion finds, and compiling the plan would take it seconds.
 *
 * `switches` is a query for the tables whose owners have said whether writes may be merged. A partition goes by its parent,
 * unless it has a switch itself; a table that a foreign key's action writes to has to agree by itself.
 */
export function reachQuery(schemas: readonly string[], name: string, switches = NO_SWITCHES): string {
  return `SET LOCAL jit = off;
WITH RECURSIVE class AS (
  SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid AS relation,
         'pg_catalog.pg_attrdef'::pg_catalog.regclass::pg_catalog.oid AS default_value,
         'pg_catalog.pg_constraint'::pg_catalog.regclass::pg_catalog.oid AS constr,
         'pg_catalog.pg_policy'::pg_catalog.regclass::pg_catalog.oid AS policy,
         'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid AS type,
         'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid AS function,
         'pg_catalog.pg_operator'::pg_catalog.regclass::pg_catalog.oid AS operator,
         'pg_catalog.pg_opclass'::pg_catalog.regclass::pg_catalog.oid AS operator_class,
         'pg_catalog.pg_trigger'::pg_catalog.regclass::pg_catalog.oid AS trigger
), target AS (
  SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relname = ${quoteLiteral(name)} AND n.nspname IN (${schemas.map(quoteLiteral).join(', ')})
), downward(oid) AS (
  -- Partitions and other children, and tables that a foreign key's action writes to.
  SELECT oid FROM target
  UNION
  SELECT edge.target FROM downward JOIN (
    SELECT inhparent AS source, inhrelid AS target FROM pg_catalog.pg_inherits
    UNION ALL
    SELECT confrelid, conrelid FROM pg_catalog.pg_constraint
     WHERE contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
  ) edge ON edge.source = downward.oid
), reached AS (
  -- A partition checks the keys of the tables above it.
  SELECT oid FROM downward
  UNION
  SELECT above.relid::pg_catalog.oid FROM downward CROSS JOIN LATERAL pg_catalog.pg_partition_ancestors(downward.oid::pg_catalog.regclass) above
), switch(oid, merges) AS (
  ${switches}
), agreement(oid, merges) AS (
  -- The nearest switch, from the table itself up. Without one: NULL.
  SELECT reached.oid, (
      SELECT switch.merges FROM switch JOIN (
          SELECT reached.oid AS oid, 0::bigint AS distance
          UNION ALL
          SELECT above.relid::pg_catalog.oid, above.distance
            FROM pg_catalog.pg_partition_ancestors(reached.oid::pg_catalog.regclass) WITH ORDINALITY above(relid, distance)
        ) line ON line.oid = switch.oid ORDER BY line.distance LIMIT 1)
    FROM reached
), object(classid, objid, agreed) AS (
  SELECT class.relation, a.oid, a.merges IS TRUE FROM agreement a, class
  UNION
  -- Casts between PostgreSQL's own types, which any expression may use.
  SELECT class.function, c.castfunc, false FROM pg_catalog.pg_cast c, class
   WHERE c.castfunc >= 16384 AND c.castsource < 16384 AND c.casttarget < 16384
  UNION
  SELECT part.classid, part.objid, o.agreed FROM object o CROSS JOIN class CROSS JOIN LATERAL (
    SELECT class.default_value, d.oid FROM pg_catalog.pg_attrdef d
     WHERE o.classid = class.relation AND d.adrelid = o.objid
    UNION ALL
    SELECT class.constr, c.oid FROM pg_catalog.pg_constraint c WHERE o.classid = class.relation AND c.conrelid = o.objid
    UNION ALL
    SELECT class.constr, c.oid FROM pg_catalog.pg_constraint c WHERE o.classid = class.type AND c.contypid = o.objid
    UNION ALL
    SELECT class.relation, i.indexrelid FROM pg_catalog.pg_index i WHERE o.classid = class.relation AND i.indrelid = o.objid
    UNION ALL
    SELECT class.policy, p.oid FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class r ON r.oid = p.polrelid AND r.relrowsecurity
     WHERE o.classid = class.relation AND p.polrelid = o.objid
    UNION ALL
    SELECT class.trigger, t.oid FROM pg_catalog.pg_trigger t
     WHERE o.agreed AND o.classid = class.relation AND t.tgrelid = o.objid AND NOT t.tgisinternal AND t.tgenabled <> 'D'
    UNION ALL
    -- The columns of a composite type.
    SELECT class.relation, t.typrelid FROM pg_catalog.pg_type t
     WHERE o.classid = class.type AND t.oid = o.objid AND t.typrelid <> 0
    UNION ALL
    SELECT class.function, c.castfunc FROM pg_catalog.pg_cast c
     WHERE o.classid = class.type AND o.objid IN (c.castsource, c.casttarget) AND c.castfunc <> 0
    UNION ALL
    SELECT class.function, p.amproc::pg_catalog.oid FROM pg_catalog.pg_opclass k JOIN pg_catalog.pg_amproc p ON p.amprocfamily = k.opcfamily
     WHERE o.classid = class.operator_class AND k.oid = o.objid
    UNION ALL
    SELECT class.operator, p.amopopr FROM pg_catalog.pg_opclass k JOIN pg_catalog.pg_amop p ON p.amopfamily = k.opcfamily
     WHERE o.classid = class.operator_class AND k.oid = o.objid
    UNION ALL
    -- A base type's own functions are compiled code, whatever they are declared as.
    SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_depend d
     WHERE d.classid = o.classid AND d.objid = o.objid AND o.classid <> class.function
       AND d.refclassid IN (class.type, class.function, class.operator, class.operator_class)
       AND NOT (o.classid = class.type AND d.refclassid = class.function AND EXISTS (
             SELECT FROM pg_catalog.pg_type t WHERE t.oid = o.objid AND t.typtype = 'b'))
  ) part(classid, objid)
), relation AS (
  SELECT r.*, pg_catalog.quote_ident(r.relname) AS label, a.merges IS TRUE AS agreed, a.merges
    FROM agreement a JOIN pg_catalog.pg_class r ON r.oid = a.oid
), function AS (
  SELECT p.proname, p.pronamespace, o.agreed, ${IS_HARMLESS} AS harmless
    FROM object o JOIN class ON o.classid = class.function
    JOIN pg_catalog.pg_proc p ON p.oid = o.objid AND (p.oid >= 16384 OR p.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace::pg_catalog.oid)
)
SELECT 'table' AS kind, '' AS text FROM target
UNION ALL
SELECT 'reason', CASE
    WHEN oid < 16384 THEN label || ' is a system table'
    WHEN relkind = 'f' THEN label || ' is a foreign table'
    WHEN relkind NOT IN ('r', 'p') THEN label || ' is not a table'
    WHEN relpersistence = 't' THEN label || ' is temporary'
    ELSE label || ' has a table access method of its own' END
  FROM relation
 WHERE oid < 16384 OR relkind NOT IN ('r', 'p') OR relpersistence = 't'
    OR relkind = 'r' AND relam <> (SELECT oid FROM pg_catalog.pg_am WHERE amname = 'heap')
UNION ALL
SELECT 'apart', label || ' is left out by its postern.coalesce'
  FROM relation WHERE merges IS FALSE AND oid IN (SELECT oid FROM downward)
UNION ALL
SELECT CASE WHEN r.agreed THEN 'agreedTrigger' ELSE 'reason' END,
       CASE WHEN r.agreed THEN pg_catalog.pg_get_triggerdef(t.oid)
            ELSE r.label || ' has the trigger ' || pg_catalog.quote_ident(t.tgname) END
  FROM relation r JOIN pg_catalog.pg_trigger t ON t.tgrelid = r.oid WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
UNION ALL
SELECT 'reason', r.label || ' has the rule ' || pg_catalog.quote_ident(w.rulename)
  FROM relation r JOIN pg_catalog.pg_rewrite w ON w.ev_class = r.oid WHERE r.relkind IN ('r', 'p')
UNION ALL
SELECT 'apart', r.label || ' has the deferrable constraint ' || pg_catalog.quote_ident(c.conname)
  FROM relation r JOIN pg_catalog.pg_constraint c ON r.oid IN (c.conrelid, c.confrelid)
 WHERE c.condeferrable AND NOT r.agreed
UNION ALL
SELECT DISTINCT 'spreading', r.label || ' has a generated column'
  FROM relation r JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attgenerated <> ''
UNION ALL
SELECT DISTINCT 'spreading', r.label || ' has a unique constraint that is checked when a statement ends'
  FROM relation r JOIN pg_catalog.pg_constraint c ON c.conrelid = r.oid AND c.condeferrable AND c.contype IN ('u', 'p', 'x')
UNION ALL
SELECT DISTINCT 'linking', r.label || ' has a foreign key to itself'
  FROM relation r JOIN pg_catalog.pg_constraint c ON c.conrelid = r.oid AND c.confrelid = r.oid AND c.contype = 'f'
UNION ALL
SELECT DISTINCT 'spreading', r.label || ' is reached by the action of a foreign key'
  FROM relation r JOIN pg_catalog.pg_constraint c ON c.conrelid = r.oid AND c.contype = 'f' AND c.confupdtype IN ('c', 'n', 'd')
   AND c.confrelid IN (SELECT oid FROM downward)
UNION ALL
SELECT DISTINCT CASE WHEN f.harmless THEN 'harmless' WHEN f.agreed THEN 'agreedFunction' ELSE 'reason' END,
       CASE WHEN f.harmless THEN f.proname::pg_catalog.text
            WHEN f.agreed THEN (SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.oid = f.pronamespace) || '.' || f.proname
            ELSE 'a write may call the function ' || pg_catalog.quote_ident(f.proname) || '()' END
  FROM function f
UNION ALL
SELECT DISTINCT CASE WHEN o.agreed THEN 'agreedExpression' ELSE 'expression' END, text.expression FROM object o CROSS JOIN class CROSS JOIN LATERAL (
    SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d
     WHERE o.classid = class.default_value AND d.oid = o.objid
    UNION ALL
    SELECT pg_catalog.pg_get_expr(c.conbin, c.conrelid) FROM pg_catalog.pg_constraint c
     WHERE o.classid = class.constr AND c.oid = o.objid AND c.conbin IS NOT NULL
    UNION ALL
    SELECT pg_catalog.pg_get_expr(t.typdefaultbin, 0) FROM pg_catalog.pg_type t
     WHERE o.classid = class.type AND t.oid = o.objid AND t.typdefaultbin IS NOT NULL
    UNION ALL
    SELECT pg_catalog.pg_get_expr(e.tree, i.indrelid)
      FROM pg_catalog.pg_index i CROSS JOIN LATERAL (VALUES (i.indexprs), (i.indpred)) e(tree)
     WHERE o.classid = class.relation AND i.indexrelid = o.objid AND e.tree IS NOT NULL
    UNION ALL
    SELECT pg_catalog.pg_get_expr(p.partexprs, p.partrelid) FROM pg_catalog.pg_partitioned_table p
     WHERE o.classid = class.relation AND p.partrelid = o.objid AND p.partexprs IS NOT NULL
    UNION ALL
    SELECT pg_catalog.pg_get_expr(e.tree, p.polrelid)
      FROM pg_catalog.pg_policy p CROSS JOIN LATERAL (VALUES (p.polqual), (p.polwithcheck)) e(tree)
     WHERE o.classid = class.policy AND p.oid = o.objid AND e.tree IS NOT NULL
  ) text(expression)`;
}

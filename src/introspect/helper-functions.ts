/**
 * What the views and functions of schema `postern_shown` ask about faces, as functions with Postern's own rights: what they read
 * is in schema postern_internal. They are functions, and no views, because pg_dump forbids its session all views but PostgreSQL's
 * own (restrict_nonsystem_relation_kind).
 *
 * Invariant: bodies are parsed when they are made (BEGIN ATOMIC), so that no caller's search_path decides what runs with
 * Postern's rights.
 */
import { SHOWN_SCHEMA } from '../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { FIGURES_TABLE } from './shown-catalogs.ts';

/** Cheap, since they are called for few rows: with a higher cost PostgreSQL would compile (JIT) what takes milliseconds, for seconds. */
export const DEFINER = 'LANGUAGE sql STABLE SECURITY DEFINER COST 1 BEGIN ATOMIC';

/** A face is the only partitioned table that is recorded. */
const FACES = `${INTERNAL_SCHEMA}.local_tables l JOIN pg_class fc ON fc.oid = l.face AND fc.relkind = 'p'`;
const LEAVES = `${INTERNAL_SCHEMA}.local_leaves b JOIN pg_class v ON v.oid = b.leaf`;

/** A leaf's index is the face's with the leaf's suffix, and its head and a digest if that is too long (catalog/map.ts, leafName). */
export function isIndexOfFace(faceIndex: string, stem: string): string {
  const digest = `substr(encode(sha256(convert_to(${faceIndex}::text, 'UTF8')), 'hex'), 1, 8)`;
  return `(${faceIndex}::text = ${stem} OR right(${stem}, 9) = '_' || ${digest} AND starts_with(${faceIndex}::text, left(${stem}, -9)))`;
}

/** Column numbers of one table as those of another one; by name, since columns may have been dropped of either. */
function columnNumbers(numbers: string, from: string, to: string): string {
  return `ARRAY(SELECT ta.attnum FROM unnest(${numbers}) WITH ORDINALITY u (number, place)
    JOIN pg_attribute fa ON fa.attrelid = ${from} AND fa.attnum = u.number
    JOIN pg_attribute ta ON ta.attrelid = ${to} AND ta.attname = fa.attname ORDER BY u.place)`;
}

/** The oldest of a face's leaves here, whose age is what matters; a number of its own a face has none. */
function oldest(name: string, column: string, age: string): string {
  return `CREATE FUNCTION ${SHOWN_SCHEMA}.${name}(face oid) RETURNS xid ${DEFINER}
    SELECT coalesce((SELECT v.${column} FROM ${INTERNAL_SCHEMA}.local_tables l JOIN ${LEAVES} ON b.table_id = l.table_id
        WHERE l.face::oid = $1 ORDER BY ${age}(v.${column}) DESC LIMIT 1),
      (SELECT c.${column} FROM pg_class c WHERE c.oid = 'pg_catalog.pg_class'::regclass)); END`;
}

const SUFFIX = `'_b[0-9]+_g[0-9]+$'`;

/** Of a group that others don't join by themselves: the name of its first table in a dump, whose options the others take. */
const COLOCATED_WITH = `CASE WHEN NOT g.shared THEN (SELECT CASE WHEN first.table_id = t.table_id THEN 'none'
    ELSE quote_ident(first.table_schema) || '.' || quote_ident(first.table_name) END
  FROM ${INTERNAL_SCHEMA}.tables first WHERE first.colocation_id = t.colocation_id AND first.state = 'ready'
  ORDER BY first.table_schema, first.table_name LIMIT 1) END`;

/** The lists of keys, by bucket; keys that are pinned to a node are not of the table's own making. */
const LISTS = `(SELECT string_agg(l.keys::text, ',' ORDER BY l.bucket) FROM (SELECT k.bucket, array_agg(k.key ORDER BY k.key COLLATE "C") AS keys
  FROM ${INTERNAL_SCHEMA}.listed_keys k WHERE k.colocation_id = g.colocation_id AND NOT k.pinned GROUP BY k.bucket) l)`;

/** What WITH (…) of CREATE TABLE says of the door: a dump makes the table again by it. Not which node has what: nodes differ. */
const DOOR_OPTIONS = `CREATE FUNCTION ${SHOWN_SCHEMA}.door_options(relation oid) RETURNS text[] ${DEFINER}
  SELECT array_agg(o.option) FROM (
    SELECT CASE t.door WHEN 'sharded' THEN ARRAY['postern.door=sharded', 'postern.key=' || t.key_column] ||
        CASE WHEN c.colocate_with <> 'none' THEN '{}' ELSE CASE g.method
          WHEN 'range' THEN ARRAY['postern.method=range', 'postern.bounds=' || g.bounds::text]
          WHEN 'list' THEN ARRAY['postern.method=list', 'postern.values={' || ${LISTS} || '}', 'postern.buckets=' || g.hash_buckets]
          ELSE ARRAY['postern.buckets=' || coalesce(g.hash_buckets, g.bucket_count)] END END || ARRAY['postern.colocate_with=' || c.colocate_with]
      ELSE ARRAY['postern.door=reference'] END AS options
    FROM ${INTERNAL_SCHEMA}.local_tables l JOIN ${INTERNAL_SCHEMA}.tables t USING (table_id)
      LEFT JOIN ${INTERNAL_SCHEMA}.colocation_groups g USING (colocation_id)
      CROSS JOIN LATERAL (SELECT ${COLOCATED_WITH} AS colocate_with) c WHERE l.face::oid = $1
    UNION ALL
    SELECT ARRAY['postern.coalesce=' || CASE WHEN m.merges THEN 'on' ELSE 'off' END]
    FROM ${INTERNAL_SCHEMA}.coalescing m WHERE m.relation::oid = $1
  ) d CROSS JOIN unnest(d.options) AS o (option) WHERE o.option IS NOT NULL; END`;

/** The foreign keys of sharded tables, which their leaves have and their faces don't. */
const LEAF_FOREIGN_KEYS = `CREATE FUNCTION ${SHOWN_SCHEMA}.leaf_foreign_keys() RETURNS TABLE (oid oid, conname name, connamespace oid,
    conrelid oid, confrelid oid, conkey int2[], confkey int2[], conindid oid, references_leaf boolean) LANGUAGE sql STABLE SECURITY DEFINER COST 1 ROWS 20 BEGIN ATOMIC
  SELECT c.oid, n.conname, f.relnamespace, f.face, coalesce(rt.face::oid, c.confrelid), ${columnNumbers('c.conkey', 'f.leaf', 'f.face')},
    CASE WHEN rt.face IS NULL THEN c.confkey ELSE ${columnNumbers('c.confkey', 'c.confrelid', 'rt.face')} END,
    CASE WHEN rt.face IS NULL THEN c.conindid ELSE (SELECT i.indexrelid FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
      WHERE i.indrelid = rt.face AND ${isIndexOfFace(
        'x.relname',
        `regexp_replace((SELECT y.relname::text FROM pg_class y WHERE y.oid = c.conindid), ${SUFFIX}, '')`,
      )} LIMIT 1) END, rt.face IS NOT NULL
  FROM (SELECT l.table_id, l.face::oid AS face, fc.relnamespace, ${SHOWN_SCHEMA}.leaf_of(l.face::oid) AS leaf FROM ${FACES}) f
  JOIN pg_constraint c ON c.conrelid = f.leaf AND c.contype = 'f'
  CROSS JOIN LATERAL (SELECT regexp_replace(c.conname::text, ${SUFFIX}, '') AS stem) s
  CROSS JOIN LATERAL (SELECT coalesce((SELECT d.name FROM ${INTERNAL_SCHEMA}.cut_names d
    WHERE d.table_id = f.table_id AND ${isIndexOfFace('d.name', 's.stem')} LIMIT 1), s.stem)::name AS conname) n
  LEFT JOIN ${INTERNAL_SCHEMA}.local_leaves rb ON rb.leaf::oid = c.confrelid
  LEFT JOIN ${INTERNAL_SCHEMA}.local_tables rt ON rt.table_id = rb.table_id
  WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = f.face AND k.conname = n.conname); END`;

/** What is unique without the shard key (src/lookup/SPEC.md), by the face's index of the same name. */
const UNIQUES_OFF_KEY = `CREATE FUNCTION ${SHOWN_SCHEMA}.uniques_off_key() RETURNS TABLE (index oid, conname name, connamespace oid,
    conrelid oid, conkey int2[], is_constraint boolean) LANGUAGE sql STABLE SECURITY DEFINER COST 1 ROWS 20 BEGIN ATOMIC
  SELECT x.oid, x.relname, fc.relnamespace, fc.oid, ARRAY(SELECT unnest(i.indkey)), u.is_constraint
  FROM ${FACES} JOIN ${INTERNAL_SCHEMA}.lookups u ON u.table_id = l.table_id JOIN pg_index i ON i.indrelid = fc.oid
    JOIN pg_class x ON x.oid = i.indexrelid AND x.relname = u.constraint_name::name; END`;

const IS_UNIQUE_OFF_KEY = `CREATE FUNCTION ${SHOWN_SCHEMA}.is_unique_off_key(index oid) RETURNS boolean ${DEFINER}
  SELECT EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN ${INTERNAL_SCHEMA}.local_tables l ON l.face::oid = i.indrelid
    JOIN ${INTERNAL_SCHEMA}.lookups u ON u.table_id = l.table_id AND u.constraint_name = x.relname::text WHERE i.indexrelid = $1); END`;

/** Sums over the nodes, of a face or one of its indexes that has been measured. */
const FIGURES_OF = `CREATE FUNCTION ${SHOWN_SCHEMA}.figures_of(relation oid) RETURNS TABLE (reltuples float4, relpages int4, relallvisible int4,
    main_bytes int8, table_bytes int8, index_bytes int8, acl jsonb) LANGUAGE sql STABLE SECURITY DEFINER COST 1 ROWS 1 BEGIN ATOMIC
  SELECT CASE WHEN bool_and(t.reltuples < 0) THEN -1 ELSE sum(greatest(t.reltuples, 0)) END::float4,
    sum(t.relpages)::int4, sum(t.relallvisible)::int4, sum(t.main_bytes)::int8, sum(t.table_bytes)::int8, sum(t.index_bytes)::int8,
    jsonb_agg(t.acl) FILTER (WHERE t.acl <> 'null') -> 0
  FROM (
    SELECT l.table_id, '' AS index_name FROM ${INTERNAL_SCHEMA}.local_tables l WHERE l.face::oid = $1
    UNION ALL
    SELECT l.table_id, x.relname FROM pg_index i JOIN ${INTERNAL_SCHEMA}.local_tables l ON l.face::oid = i.indrelid
      JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indexrelid = $1
  ) m JOIN ${FIGURES_TABLE} t ON t.table_id = m.table_id AND t.index_name = m.index_name HAVING count(*) > 0; END`;

export const HELPER_FUNCTIONS: readonly string[] = [
  `CREATE FUNCTION ${SHOWN_SCHEMA}.is_face(relation oid) RETURNS boolean ${DEFINER}
   SELECT EXISTS (SELECT FROM ${FACES} WHERE l.face::oid = $1); END`,
  `CREATE FUNCTION ${SHOWN_SCHEMA}.leaf_of(face oid) RETURNS oid ${DEFINER}
   SELECT v.oid FROM ${FACES} JOIN ${LEAVES} ON b.table_id = l.table_id WHERE l.face::oid = $1
   ORDER BY b.bucket, b.generation DESC LIMIT 1; END`,
  `CREATE FUNCTION ${SHOWN_SCHEMA}.shown_relkind(relation oid, kind "char") RETURNS "char" LANGUAGE sql STABLE SECURITY DEFINER COST 0.0001
   BEGIN ATOMIC SELECT CASE WHEN $2 = 'p' AND ${SHOWN_SCHEMA}.is_face($1) THEN 'r'::"char"
     WHEN $2 = 'I' AND (SELECT ${SHOWN_SCHEMA}.is_face(i.indrelid) FROM pg_index i WHERE i.indexrelid = $1) THEN 'i'::"char" ELSE $2 END; END`,
  `CREATE FUNCTION ${SHOWN_SCHEMA}.faces() RETURNS TABLE (table_id int, face oid) LANGUAGE sql STABLE SECURITY DEFINER COST 1 ROWS 50 BEGIN ATOMIC
   SELECT l.table_id, l.face::oid FROM ${FACES}; END`,
  `CREATE FUNCTION ${SHOWN_SCHEMA}.acl_of(acl jsonb) RETURNS aclitem[] LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $body$
   BEGIN
     RETURN CASE WHEN acl IS NOT NULL THEN ARRAY(SELECT jsonb_array_elements_text(acl))::aclitem[] END;
   EXCEPTION WHEN undefined_object THEN
     RAISE WARNING 'privileges cannot be shown: %', SQLERRM;
     RETURN NULL;
   END $body$`,
  oldest('oldest_xid', 'relfrozenxid', 'age'),
  oldest('oldest_multixact', 'relminmxid', 'mxid_age'),
  DOOR_OPTIONS,
  LEAF_FOREIGN_KEYS,
  UNIQUES_OFF_KEY,
  IS_UNIQUE_OFF_KEY,
  FIGURES_OF,
  // Where home has no leaf, those of another node, as they were when it was measured.
  `CREATE FUNCTION ${SHOWN_SCHEMA}.face_acl(face oid) RETURNS aclitem[] ${DEFINER}
   SELECT CASE WHEN l.leaf IS NULL THEN (SELECT ${SHOWN_SCHEMA}.acl_of(g.acl) FROM ${SHOWN_SCHEMA}.figures_of($1) g)
     ELSE (SELECT v.relacl FROM pg_class v WHERE v.oid = l.leaf) END FROM (SELECT ${SHOWN_SCHEMA}.leaf_of($1) AS leaf) l; END`,
  `CREATE FUNCTION ${SHOWN_SCHEMA}.face_column_acl(face oid, "column" name) RETURNS aclitem[] ${DEFINER}
   SELECT a.attacl FROM pg_attribute a WHERE a.attrelid = ${SHOWN_SCHEMA}.leaf_of($1) AND a.attname = $2; END`,
];

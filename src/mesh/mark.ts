/**
 * The mark of the home node: it changes whenever what the meshes have to show may have changed. Cheap enough to be asked for
 * with each read: no definitions are made, only the numbers of the transactions that wrote them are added up.
 */
import { CATALOG_SCHEMA, COMMIT_SCHEMA, LEAF_SCHEMA, SHOWN_SCHEMA } from '../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';

/** Those that hold users' own objects. */
export const USER_SCHEMAS = `SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_'
  AND nspname NOT IN ('information_schema', '${CATALOG_SCHEMA}', '${INTERNAL_SCHEMA}', '${COMMIT_SCHEMA}', '${LEAF_SCHEMA}', '${SHOWN_SCHEMA}')`;

/** VACUUM and ANALYZE write their figures in place, and change none of it. */
function written(from: string): string {
  return `(SELECT count(*) || ' ' || coalesce(bit_xor(hashint8extended(x.xmin::text::int8, x.n::int8)), 0) FROM ${from})`;
}

const CLASSES = `SELECT c.oid FROM pg_class c WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'm', 'f', 'v') AND c.relpersistence <> 't'`;

export const MARK_QUERY = `SELECT concat_ws('/', (SELECT epoch FROM ${INTERNAL_SCHEMA}.cluster),
  ${written(`(SELECT c.xmin, c.oid::int8 AS n FROM pg_class c WHERE c.oid IN (${CLASSES})) x`)},
  ${written(`(SELECT a.xmin, a.attrelid::int8 * 1700 + a.attnum AS n FROM pg_attribute a WHERE a.attrelid >= 16384 AND a.attnum > 0
     AND a.attrelid IN (${CLASSES} AND (c.relnamespace <> '${LEAF_SCHEMA}'::regnamespace))) x`)},
  ${written(`(SELECT t.xmin, t.oid::int8 AS n FROM pg_type t WHERE t.oid >= 16384 AND t.typtype IN ('e', 'd', 'r')) x`)},
  ${written(`(SELECT e.xmin, e.oid::int8 AS n FROM pg_enum e) x`)},
  ${written(`(SELECT o.xmin, o.oid::int8 AS n FROM pg_constraint o WHERE o.contypid <> 0) x`)},
  ${written(`(SELECT a.xmin, a.attrelid::int8 * 1700 + a.attnum AS n FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     WHERE c.oid >= 16384 AND c.relkind = 'c') x`)},
  ${written(`(SELECT p.xmin, p.oid::int8 AS n FROM pg_proc p WHERE p.oid >= 16384) x`)},
  ${written(`(SELECT n.xmin, n.oid::int8 AS n FROM pg_namespace n WHERE n.nspname !~ '^pg_') x`)},
  ${written(`(SELECT l.xmin, l.oid::int8 AS n FROM pg_collation l WHERE l.oid >= 16384) x`)},
  ${written(`(SELECT e.xmin, e.oid::int8 AS n FROM pg_extension e) x`)},
  ${written(`(SELECT c.xmin, c.oid::int8 AS n FROM pg_cast c WHERE c.oid >= 16384) x`)},
  ${written(`(SELECT o.xmin, o.oid::int8 AS n FROM pg_operator o WHERE o.oid >= 16384) x`)},
  ${written(`(SELECT r.xmin, r.ev_class::int8 AS n FROM pg_rewrite r WHERE r.oid >= 16384) x`)},
  ${written(`(SELECT s.xmin, s.setrole::int8 AS n FROM pg_db_role_setting s WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())) x`)}
) AS mark`;

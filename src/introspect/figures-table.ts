/** Where the figures of all nodes stand on the home node, once a router has measured them (figures.ts), and the view of them. */
import { CATALOG_SCHEMA } from '../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { FIGURES_TABLE } from './shown-catalogs.ts';

/** When each node was measured last. */
export const MEASURED_TABLE = `${INTERNAL_SCHEMA}.nodes_measured`;

export const FIGURES_TABLE_DEFINITION = `
CREATE TABLE IF NOT EXISTS ${FIGURES_TABLE} (
  node_id int NOT NULL REFERENCES ${INTERNAL_SCHEMA}.nodes ON DELETE CASCADE,
  table_id int NOT NULL,
  index_name name NOT NULL,
  reltuples float8 NOT NULL,
  relpages bigint NOT NULL,
  relallvisible bigint NOT NULL,
  main_bytes bigint NOT NULL,
  table_bytes bigint,
  index_bytes bigint,
  acl jsonb,
  stats jsonb NOT NULL,
  PRIMARY KEY (table_id, index_name, node_id)
);
CREATE TABLE IF NOT EXISTS ${MEASURED_TABLE} (
  node_id int PRIMARY KEY REFERENCES ${INTERNAL_SCHEMA}.nodes ON DELETE CASCADE,
  measured_at timestamptz NOT NULL
)`;

const VIEW = `${CATALOG_SCHEMA}.table_statistics`;

export const TABLE_STATISTICS_VIEW = `
CREATE VIEW ${VIEW} AS
SELECT t.table_schema, t.table_name, n.node_name AS node, nullif(f.reltuples, -1)::bigint AS estimated_rows,
  f.table_bytes, f.index_bytes, m.measured_at, pg_catalog.clock_timestamp() - m.measured_at AS age
FROM ${INTERNAL_SCHEMA}.tables t JOIN ${FIGURES_TABLE} f ON f.table_id = t.table_id AND f.index_name = ''
JOIN ${INTERNAL_SCHEMA}.nodes n USING (node_id) LEFT JOIN ${MEASURED_TABLE} m USING (node_id)
ORDER BY t.table_schema, t.table_name, n.node_id;
REVOKE ALL ON ${VIEW} FROM PUBLIC; GRANT SELECT ON ${VIEW} TO PUBLIC;
COMMENT ON VIEW ${VIEW} IS 'What the catalogs say of the rows and sizes of sharded tables, node by node, and how old that is.';
COMMENT ON COLUMN ${VIEW}.table_schema IS 'Schema of the table.';
COMMENT ON COLUMN ${VIEW}.table_name IS 'Name of the table.';
COMMENT ON COLUMN ${VIEW}.node IS 'Node that holds these buckets.';
COMMENT ON COLUMN ${VIEW}.estimated_rows IS 'Rows there, as of the last VACUUM or ANALYZE; null: never analyzed.';
COMMENT ON COLUMN ${VIEW}.table_bytes IS 'Size of the rows there, with what is stored out of line.';
COMMENT ON COLUMN ${VIEW}.index_bytes IS 'Size of the indexes there.';
COMMENT ON COLUMN ${VIEW}.measured_at IS 'When a router asked that node.';
COMMENT ON COLUMN ${VIEW}.age IS 'Time since then. SELECT postern.refresh_statistics() asks all nodes now.'`;

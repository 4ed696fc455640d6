/**
 * The catalog's tables, on home, of where keys and schemas are placed: beside the buckets of a hash, there are ranges, keys that
 * are listed or pinned, and schemas that live on a node as a whole.
 *
 * Invariant: bounds and listed keys are texts as PostgreSQL prints them with DateStyle ISO and TimeZone UTC, and such that a
 * router is sure of their value (pg/key/key-value.ts).
 */

export function placementObjects(internal: string): string {
  return `
ALTER TABLE ${internal}.colocation_groups ADD COLUMN IF NOT EXISTS method text NOT NULL DEFAULT 'hash'
  CHECK (method IN ('hash', 'range', 'list'));
ALTER TABLE ${internal}.colocation_groups ADD COLUMN IF NOT EXISTS hash_buckets int;
ALTER TABLE ${internal}.colocation_groups ADD COLUMN IF NOT EXISTS bounds text[] NOT NULL DEFAULT '{}';
CREATE TABLE IF NOT EXISTS ${internal}.listed_keys (
  colocation_id int NOT NULL REFERENCES ${internal}.colocation_groups ON DELETE CASCADE,
  bucket int NOT NULL,
  key text NOT NULL,
  pinned bool NOT NULL DEFAULT false,
  PRIMARY KEY (colocation_id, key)
);
CREATE TABLE IF NOT EXISTS ${internal}.schemas (
  schema_name text PRIMARY KEY,
  node_id int NOT NULL REFERENCES ${internal}.nodes,
  plain bool NOT NULL DEFAULT true
);
CREATE TABLE IF NOT EXISTS ${internal}.schema_relations (
  schema_name text NOT NULL REFERENCES ${internal}.schemas ON DELETE CASCADE,
  relation_name text NOT NULL,
  PRIMARY KEY (schema_name, relation_name)
);
CREATE TABLE IF NOT EXISTS ${internal}.node_addresses (
  node_id int PRIMARY KEY REFERENCES ${internal}.nodes ON DELETE CASCADE,
  host text NOT NULL,
  port int NOT NULL,
  database text NOT NULL
);`;
}

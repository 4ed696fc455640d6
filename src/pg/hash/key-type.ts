/**
 * The types that a sharded table's key may have. Each hashes by value alone, equally on every node and version
 * (enums hash by OID, which differs between nodes; so they, OID-like types and containers are refused as keys).
 */
export type KeyTypeName =
  | 'int2'
  | 'int4'
  | 'int8'
  | 'text'
  | 'varchar'
  | 'bpchar'
  | 'uuid'
  | 'date'
  | 'timestamp'
  | 'timestamptz'
  | 'numeric';

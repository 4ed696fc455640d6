/** OIDs of built-in types, fixed in every PostgreSQL (src/include/catalog/pg_type.dat). 0 means "not stated". */
export const OID = {
  unspecified: 0,
  bool: 16,
  bytea: 17,
  int8: 20,
  int2: 21,
  int4: 23,
  text: 25,
  oid: 26,
  float4: 700,
  float8: 701,
  unknown: 705,
  bpchar: 1042,
  varchar: 1043,
  date: 1082,
  timestamp: 1114,
  timestamptz: 1184,
  interval: 1186,
  numeric: 1700,
  uuid: 2950,
} as const;

/** Types that users and extensions have made have numbers from here on, and others on each node. */
const FIRST_USER_OID = 16384;

/** Types of parameters as every node understands them: one that a user has made is left to the node to infer. */
export function portableOids(oids: readonly number[]): readonly number[] {
  if (!oids.some(isOfUser)) return oids;
  return oids.map((oid) => (isOfUser(oid) ? OID.unspecified : oid));
}

export function isOfUser(oid: number): boolean {
  return oid >= FIRST_USER_OID;
}

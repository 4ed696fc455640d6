/** What the views of schema `postern` say of places, read by one statement, so that no two epochs are mixed. */
import { objectError } from '../base/errors.ts';
import type { KeyTypeName } from '../pg/hash/key-type.ts';
import { KeyDirectory } from '../pg/key/directory.ts';
import type { ControlConnection } from '../platform/control-connection.ts';

export interface TablePlaces {
  readonly name: string;
  readonly keyColumn: string;
  readonly keyType: KeyTypeName;
  readonly keyTypeModifier: number;
  readonly hashBuckets: number;
  /** undefined: all keys go by hash. */
  readonly directory: KeyDirectory | undefined;
  /** Index = bucket. */
  readonly buckets: readonly { readonly node: string; readonly leaf: string }[];
}

export interface PlacesMap {
  readonly epoch: number;
  /** By schema.table. */
  readonly tables: ReadonlyMap<string, TablePlaces>;
  /** Schemas that live on a node of their own, and its name. */
  readonly schemas: ReadonlyMap<string, string>;
  readonly addresses: ReadonlyMap<string, { host: string; port: number; database: string }>;
}

const PLACES_QUERY = `
SELECT (SELECT c.epoch::text FROM postern.cluster c) AS epoch,
  (SELECT coalesce(json_agg(json_build_object('schema', t.table_schema, 'table', t.table_name, 'keyColumn', t.key_column,
     'keyType', t.key_type, 'keyTypeModifier', t.key_type_modifier, 'method', t.method, 'bounds', coalesce(t.bounds, '{}'),
     'hashBuckets', g.hash_buckets, 'buckets', (
       SELECT json_agg(json_build_object('node', b.node, 'leaf', b.leaf, 'keys', b.keys) ORDER BY b.bucket)
       FROM postern.buckets b WHERE b.table_schema = t.table_schema AND b.table_name = t.table_name))), '[]')
   FROM postern.tables t JOIN postern.colocation_groups g USING (colocation_group)
   WHERE t.state = 'ready' AND t.door = 'sharded') AS tables,
  (SELECT coalesce(json_object_agg(s.schema_name, s.node), '{}') FROM postern.schemas s) AS schemas,
  (SELECT coalesce(json_object_agg(a.node, json_build_object('host', a.host, 'port', a.port, 'database', a.database)), '{}')
   FROM postern.node_addresses a) AS addresses`;

interface TableJson {
  readonly schema: string;
  readonly table: string;
  readonly keyColumn: string;
  readonly keyType: KeyTypeName;
  readonly keyTypeModifier: number | null;
  readonly method: 'hash' | 'range' | 'list';
  readonly bounds: readonly string[];
  readonly hashBuckets: number;
  readonly buckets: readonly {
    readonly node: string;
    readonly leaf: string;
    readonly keys: readonly string[] | null;
  }[];
}

export async function readPlaces(connection: ControlConnection): Promise<PlacesMap> {
  const [row] = await connection.query<{
    epoch: string | null;
    tables: readonly TableJson[];
    schemas: Readonly<Record<string, string>>;
    addresses: Readonly<Record<string, { host: string; port: number; database: string }>>;
  }>(PLACES_QUERY);
  if (!row || row.epoch === null)
    throw objectError(
      '3F000',
      'there is no catalog of Postern here',
      'Connect to a router, or to the home node.',
    );
  return {
    epoch: Number(row.epoch),
    tables: new Map(row.tables.map((table) => [`${table.schema}.${table.table}`, placesOf(table)])),
    schemas: new Map(Object.entries(row.schemas)),
    addresses: new Map(Object.entries(row.addresses)),
  };
}

function placesOf(table: TableJson): TablePlaces {
  const { keyType, hashBuckets, bounds, buckets, method } = table;
  const lists = method === 'range' ? [] : buckets.slice(hashBuckets).map(({ keys }) => keys ?? []);
  const isHash = method === 'hash' && lists.length === 0;
  return {
    ...{ name: table.table, keyColumn: table.keyColumn, keyType, hashBuckets, buckets },
    keyTypeModifier: table.keyTypeModifier ?? -1,
    directory: isHash ? undefined : new KeyDirectory({ keyType, hashBuckets, bounds, lists }),
  };
}

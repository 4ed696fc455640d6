/**
 * Functions that the router itself carries out, about where tables, tenants and schemas live; Citus's names for some of them
 * included: SELECT postern.unshard_table('t'), SELECT postern.pin_tenant('t', 'acme', 'n2').
 */
import { invalidParameter, notSupported } from '../base/errors.ts';
import type { RouterCommand } from './plan.ts';

/** Parameter names, in order. */
export const PLACEMENT_PARAMETERS: Readonly<Record<string, readonly string[]>> = {
  unshard_table: ['table_name'],
  undistribute_table: ['table_name', 'cascade_via_foreign_keys'],
  pin_tenant: ['table_name', 'tenant', 'node'],
  distribute_schema: ['schema', 'node'],
  undistribute_schema: ['schema'],
  citus_schema_distribute: ['schemaname'],
  citus_schema_undistribute: ['schemaname'],
};

export const PLACEMENT_USAGE: Readonly<Record<string, string>> = {
  unshard_table: "Say SELECT postern.unshard_table('table').",
  undistribute_table: "Say SELECT undistribute_table('table').",
  pin_tenant: "Say SELECT postern.pin_tenant('table', 'tenant', 'node').",
  distribute_schema: "Say SELECT postern.distribute_schema('schema', node => 'node').",
  undistribute_schema: "Say SELECT postern.undistribute_schema('schema').",
  citus_schema_distribute: "Say SELECT citus_schema_distribute('schema').",
  citus_schema_undistribute: "Say SELECT citus_schema_undistribute('schema').",
};

/** Citus's names count without a schema too. */
export function isPlacementFunction(schema: string | undefined, name: string): boolean {
  if (!(name in PLACEMENT_PARAMETERS)) return false;
  const isCitus = name === 'undistribute_table' || name.startsWith('citus_');
  return schema === 'postern' || (isCitus && schema === undefined);
}

/** undefined: another function. `column`: what the client's column is called. */
export function placementCommand(
  name: string,
  values: ReadonlyMap<string, string>,
  column: string,
): RouterCommand | undefined {
  const needed = (parameter: string): string => {
    const value = values.get(parameter);
    if (value) return value;
    throw invalidParameter(`${name} needs "${parameter}"`, PLACEMENT_USAGE[name]);
  };
  switch (name) {
    case 'unshard_table':
    case 'undistribute_table':
      if (/^(t|true|on|1)$/i.test(values.get('cascade_via_foreign_keys') ?? ''))
        throw notSupported(
          'undistribute_table with cascade_via_foreign_keys is not supported',
          'Undistribute the tables that reference it first, one by one.',
        );
      return { kind: 'unshardTable', relation: needed('table_name'), functionName: column };
    case 'pin_tenant':
      return {
        ...{ kind: 'pinTenant', relation: needed('table_name'), node: needed('node'), functionName: column },
        tenant: values.get('tenant') ?? needed('tenant'),
      };
    case 'distribute_schema':
    case 'citus_schema_distribute': {
      const schema = values.get('schema') ?? needed('schemaname');
      return { kind: 'distributeSchema', schema, node: values.get('node'), functionName: column };
    }
    case 'undistribute_schema':
    case 'citus_schema_undistribute': {
      const schema = values.get('schema') ?? needed('schemaname');
      return { kind: 'undistributeSchema', schema, functionName: column };
    }
    default:
      return undefined;
  }
}

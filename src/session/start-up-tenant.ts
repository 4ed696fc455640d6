/**
 * The tenant that a client names in its start-up packet, as `postern.tenant`. It is no setting of a server's: limits and turns go by
 * it, and clients of different tenants still share connections and batches. So it holds from login to the end.
 */

import { Settings } from '../backend/settings.ts';
import { BOUNDS } from '../base/bounds.ts';
import { invalidParameter } from '../base/errors.ts';
import { TENANT_SETTING } from '../plan/settings.ts';

/** The settings without it, and the tenant; undefined: none is named. Throws 22023. */
export function takeTenant(settings: Settings): { settings: Settings; tenant: string | undefined } {
  const tenant = settings.values.get(TENANT_SETTING);
  if (tenant === undefined) return { settings, tenant: undefined };
  const isTooLong = tenant.length > BOUNDS.tenantLengthMax;
  if (tenant === '' || isTooLong)
    throw invalidParameter(
      `invalid value for parameter "${TENANT_SETTING}"`,
      `Give a name of 1 to ${BOUNDS.tenantLengthMax} characters.`,
    );
  const values = new Map(settings.values);
  values.delete(TENANT_SETTING);
  return { settings: new Settings(values), tenant };
}

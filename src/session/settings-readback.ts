/** What a transaction has left of the session-level settings that it may have changed, as the server says. */
import type { BackendConnection } from '../backend/connection.ts';
import { ask } from '../backend/internal-query.ts';
import { quoteLiteral } from '../pg/identifier.ts';

/** By name (undefined: not set any more); and search_path as it is now. Rejects when the connection is lost. */
export async function readBack(
  connection: BackendConnection,
  touched: ReadonlySet<string>,
): Promise<{ readonly changes: Map<string, string | undefined>; readonly searchPath: string }> {
  const names = [...touched];
  if (!names.includes('search_path')) names.push('search_path');
  const list = names.map((name) => `pg_catalog.current_setting(${quoteLiteral(name)}, true)`);
  const [values = []] = await ask(connection, `SELECT ${list.join(', ')}`);
  const changes = new Map<string, string | undefined>();
  names.forEach((name, i) => {
    if (touched.has(name)) changes.set(name, values[i] ?? undefined);
  });
  return { changes, searchPath: values[names.indexOf('search_path')] ?? '' };
}

/** What a server says of leaves in DDL, said of their tables: all of one table's leaves say the same, which is told once. */
import { LEAF_SCHEMA } from '../catalog/map.ts';
import { ServerError } from '../platform/control-connection.ts';

const PREFIX = new RegExp(`"?${LEAF_SCHEMA}"?\\.`, 'g');
const SUFFIX = /_b\d+_g\d+(?!\d)/g;

/** Errors that name no leaf pass as they are. */
export function inTableNames(error: unknown): unknown {
  if (!(error instanceof ServerError) || ![...error.fields.values()].some((text) => SUFFIX_ONCE.test(text)))
    return error;
  const told = new Map<string, string>();
  for (const [code, text] of error.fields) {
    if (code === 's' && text === LEAF_SCHEMA) continue;
    const lines = text.replaceAll(PREFIX, '').replaceAll(SUFFIX, '').split('\n');
    told.set(code, [...new Set(lines)].join('\n'));
  }
  return new ServerError(error.nodeName, told);
}

const SUFFIX_ONCE = new RegExp(SUFFIX.source);

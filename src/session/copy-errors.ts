/**
 * Errors of a COPY … FROM in the client's terms: the table by its own name, and lines counted in the client's data, whatever
 * part of them the server has seen.
 */
import type { ReferenceTable, ShardedTable } from '../catalog/map.ts';
import type { CopyDataError } from '../copy/line-rows.ts';
import { ServerError } from '../platform/control-connection.ts';
import { inUsersNames, type LeafTarget } from './leaf-errors.ts';

/** Where the rows of a part have come from. */
export interface PartOrigin {
  /** What the server calls the table. */
  readonly relation: string;
  readonly leaf: LeafTarget | undefined;
  /** The client's line for one of the part's. */
  readonly lineOf: (line: number) => number;
  /** The fields that the router has put in front of rows. */
  readonly prefix: RegExp | undefined;
}

/** The fields of an error or notice, and the line of the client's data that it is about, if it is about one. */
export function inClientsTerms(
  fields: Map<string, string>,
  table: ShardedTable | ReferenceTable,
  origin: PartOrigin,
): { readonly fields: Map<string, string>; readonly line: number | undefined } {
  let line: number | undefined;
  const where = fields.get('W');
  const told = new Map(fields);
  if (where !== undefined) {
    const start = `COPY ${origin.relation}, line `;
    const lines = where.split('\n').map((one) => {
      if (!one.startsWith(start)) return one;
      const [digits = ''] = /^\d+/.exec(one.slice(start.length)) ?? [];
      line = origin.lineOf(Number(digits));
      const rest = one.slice(start.length + digits.length);
      return `COPY ${table.name}, line ${line}${withoutPrefix(rest, origin.prefix)}`;
    });
    told.set('W', lines.join('\n'));
  }
  return { fields: origin.leaf ? inUsersNames(told, origin.leaf) : told, line };
}

/** `: "the line"`, as the client has sent it. */
function withoutPrefix(rest: string, prefix: RegExp | undefined): string {
  const start = ': "';
  return prefix && rest.startsWith(start) ? start + rest.slice(start.length).replace(prefix, '') : rest;
}

/** What the router has found out by itself, in the server's form. */
export function errorOfData(
  error: CopyDataError,
  table: ShardedTable | ReferenceTable,
  columns: readonly string[],
): ServerError {
  const { column, line, hint } = error;
  const place = column === undefined ? '' : `, column ${columns[column] ?? ''}`;
  return copyError(error.sqlState, error.message, {
    ...(line > 0 && { where: `COPY ${table.name}, line ${line}${place}` }),
    ...(hint !== undefined && { hint }),
  });
}

export function copyError(
  sqlState: string,
  message: string,
  more: { readonly where?: string; readonly hint?: string } = {},
): ServerError {
  const fields = new Map([
    ['S', 'ERROR'],
    ['V', 'ERROR'],
    ['C', sqlState],
    ['M', message],
  ]);
  if (more.hint !== undefined) fields.set('H', more.hint);
  if (more.where !== undefined) fields.set('W', more.where);
  return new ServerError('', fields);
}

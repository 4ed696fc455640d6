/** Identifiers and literals as PostgreSQL writes them (documentation: "Lexical Structure"). */

/** NAMEDATALEN − 1: the longest identifier, in bytes. */
export const IDENTIFIER_BYTES_MAX = 63;

/** Always quoted, so that no keyword list is needed and case is kept. */
export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** `schema.name`, both quoted. */
export function quoteQualified(schema: string, name: string): string {
  return `${quoteIdentifier(schema)}.${quoteIdentifier(name)}`;
}

/** A string literal that is right whatever standard_conforming_strings says. */
export function quoteLiteral(value: string): string {
  const doubled = value.replaceAll("'", "''");
  return value.includes('\\') ? ` E'${doubled.replaceAll('\\', '\\\\')}'` : `'${doubled}'`;
}

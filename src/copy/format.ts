/**
 * The options of a COPY statement as they decide on the form of its data (documentation: "COPY"), and the text of options for
 * the COPYs that Postern sends in its place.
 *
 * Boundary: a server has looked at the options before the data are read by them; what it refuses never comes here.
 */

/** An option as it is written: FORCE_QUOTE (a, b) has a list, HEADER may have no value. */
export interface CopyOption {
  /** In lower case. */
  readonly name: string;
  readonly value: string | readonly string[] | undefined;
}

/** All columns: FORCE_NULL *. */
export const ALL_COLUMNS = '*';

export interface CopyFormat {
  readonly kind: 'text' | 'csv' | 'binary';
  /** Bytes of characters. */
  readonly delimiter: number;
  readonly quote: number;
  readonly escape: number;
  /** What stands for NULL. */
  readonly nullText: Buffer;
  /** What stands for a column's default. */
  readonly defaultText: Buffer | undefined;
  /** `match`: the names in it have to be the columns'. */
  readonly header: 'none' | 'line' | 'match';
  /** CSV: columns whose value is never NULL, and those whose quoted value may be. */
  readonly forceNotNull: ReadonlySet<string> | typeof ALL_COLUMNS;
  readonly forceNull: ReadonlySet<string> | typeof ALL_COLUMNS;
  readonly forceQuote: ReadonlySet<string> | typeof ALL_COLUMNS;
}

export function formatOf(options: readonly CopyOption[]): CopyFormat {
  const text = (name: string): string | undefined => {
    const value = options.find((option) => option.name === name)?.value;
    return typeof value === 'string' ? value : undefined;
  };
  const columns = (name: string): ReadonlySet<string> | typeof ALL_COLUMNS => {
    const value = options.find((option) => option.name === name)?.value;
    return value === ALL_COLUMNS ? ALL_COLUMNS : new Set(typeof value === 'string' ? [value] : value);
  };
  const named = text('format')?.toLowerCase();
  const kind = named === 'csv' || named === 'binary' ? named : 'text';
  const isCsv = kind === 'csv';
  const quote = byteOf(text('quote') ?? '"');
  const defaultText = text('default');
  return {
    kind,
    delimiter: byteOf(text('delimiter') ?? (isCsv ? ',' : '\t')),
    quote,
    escape: isCsv ? byteOf(text('escape') ?? text('quote') ?? '"') : quote,
    nullText: Buffer.from(text('null') ?? (isCsv ? '' : '\\N')),
    defaultText: defaultText === undefined ? undefined : Buffer.from(defaultText),
    header: headerOf(options),
    forceNotNull: columns('force_not_null'),
    forceNull: columns('force_null'),
    forceQuote: columns('force_quote'),
  };
}

export function isAmong(columns: ReadonlySet<string> | typeof ALL_COLUMNS, name: string): boolean {
  return columns === ALL_COLUMNS || columns.has(name);
}

/** As PostgreSQL reads a boolean option; one without a value is on. */
export function isOptionOn(option: CopyOption | undefined): boolean {
  if (!option) return false;
  const { value } = option;
  return value === undefined || (typeof value === 'string' && /^(true|on|1)$/i.test(value));
}

function headerOf(options: readonly CopyOption[]): CopyFormat['header'] {
  const option = options.find(({ name }) => name === 'header');
  if (typeof option?.value === 'string' && option.value.toLowerCase() === 'match') return 'match';
  return isOptionOn(option) ? 'line' : 'none';
}

function byteOf(character: string): number {
  return Buffer.from(character)[0] ?? 0;
}

/** ` WITH (…)`, or nothing. `quote`: of a name and of a string. */
export function optionsText(
  options: readonly CopyOption[],
  quote: { readonly name: (name: string) => string; readonly text: (text: string) => string },
): string {
  if (options.length === 0) return '';
  const written = options.map(({ name, value }) => {
    if (value === undefined) return quote.name(name);
    if (value === ALL_COLUMNS) return `${quote.name(name)} *`;
    if (typeof value === 'string') return `${quote.name(name)} ${quote.text(value)}`;
    return `${quote.name(name)} (${value.map(quote.name).join(', ')})`;
  });
  return ` WITH (${written.join(', ')})`;
}

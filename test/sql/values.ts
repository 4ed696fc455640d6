/** What generated statements are made of: values by chance, written into the text or sent as parameters. */
import type { SeededRandom } from '../tpc/random.ts';

/** Values are written into the text, or sent as parameters: `of(x)` in a template is either. */
export class Template {
  readonly values: unknown[] = [];
  readonly #asParameters: boolean;

  constructor(asParameters: boolean) {
    this.#asParameters = asParameters;
  }

  /** `type`: what the parameter is cast to, since not each place says what it is. */
  of(value: number | string | null, type: string): string {
    if (!this.#asParameters) {
      if (value === null) return 'NULL';
      return typeof value === 'number' ? String(value) : `'${value.replaceAll("'", "''")}'`;
    }
    this.values.push(value);
    return `$${this.values.length}::${type}`;
  }
}

/** By kind. A name that ends in `!` has an ORDER BY that decides the order of all rows. */
export type Maker = (random: SeededRandom, t: Template) => string;
export type Makers = Readonly<Record<string, Maker>>;

export const NAMES = [
  'Ada',
  'Ben',
  'Cyd',
  'Éva',
  "O'Neil",
  '',
  'zoë',
  'a very long name that is far beyond forty characters',
];
export const LABELS = [' red', 'Blue ', 'bad', 'x', null, 'ü'];
export const TIERS = ['low', 'mid', 'high', null];
export const CODES = ['EUR', 'USD', 'JPY', 'XXX'];
export const SENSORS = ['a', 'b', 'kitchen', 'Küche', "it's", ''];
export const TENANTS = ['acme', 'globex', 'initech', 'umbrella', 'hooli', ''];
export const DAYS = ['2025-12-31', '2026-01-01', '2026-02-14', '2026-05-31', '2026-06-01', '2027-01-01'];

export const id: Maker = (random, t) => t.of(random.between(1, 30), 'bigint');
export const no: Maker = (random, t) => t.of(random.between(1, 6), 'int');
export const money: Maker = (random, t) => t.of((random.between(-2000, 90_000) / 100).toFixed(2), 'numeric');
export const pick = <T extends string | null>(
  random: SeededRandom,
  t: Template,
  of: readonly T[],
  type: string,
): string => t.of(random.pick(of), type);

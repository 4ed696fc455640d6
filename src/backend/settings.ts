/**
 * The session-level settings (GUCs and role) of one client, as far as they differ from a fresh login; and the text that
 * brings a backend from one client's settings to another's.
 *
 * Invariant: no client's statement is sent on a backend before that backend's settings equal the client's: the switch is
 * answered first (session/lease.ts waits for it), since a switch that fails would leave the previous client's in force.
 */
import { quoteIdentifier, quoteLiteral } from '../pg/identifier.ts';

export class Settings {
  static readonly none = new Settings(new Map());
  /** Lower-case name → value as current_setting() prints it. */
  readonly values: ReadonlyMap<string, string>;
  /** Equal keys mean equal settings. */
  readonly key: string;
  #readingKey: string | undefined;

  constructor(values: ReadonlyMap<string, string>) {
    this.values = values;
    this.key =
      values.size === 0 ? '' : JSON.stringify([...values].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)));
  }

  /** Equal keys mean that a text, prepared, means the same, search_path aside. */
  get readingKey(): string {
    if (this.#readingKey === undefined) {
      const relevant = [...this.values].filter(([name]) => decidesReading(name));
      this.#readingKey = new Settings(new Map(relevant)).key;
    }
    return this.#readingKey;
  }

  /** A server would end a connection that rests with these. */
  get endRest(): boolean {
    return this.values.size > 0 && this.values.has('idle_session_timeout');
  }

  /** With which a connection may rest, whoever has had it: the time-out is that of a client, and the router keeps it. */
  get atRest(): Settings {
    return this.endRest ? this.with(new Map([['idle_session_timeout', undefined]])) : this;
  }

  with(changes: ReadonlyMap<string, string | undefined>): Settings {
    const values = new Map(this.values);
    for (const [name, value] of changes) {
      if (value === undefined) values.delete(name);
      else values.set(name, value);
    }
    const changed = new Settings(values);
    return changed.key === this.key ? this : changed;
  }
}

/** Settings that many clients have and that have no part in what a text means. */
const NO_PART_IN_READING = new Set([
  'application_name',
  'client_min_messages',
  'extra_float_digits',
  'idle_in_transaction_session_timeout',
  'lock_timeout',
  'search_path',
  'statement_timeout',
  'synchronous_commit',
  'transaction_timeout',
  'work_mem',
]);

/** May this setting change what a text means when it is prepared? One with a dot is an application's own. */
export function decidesReading(name: string): boolean {
  return !name.includes('.') && !NO_PART_IN_READING.has(name);
}

/**
 * One simple-protocol text. The role goes back to the login role first and is set last, since some settings may be changed
 * by the login role only.
 */
export function settingsSwitchText(from: Settings, to: Settings): string {
  const parts: string[] = [];
  if (from.values.has('role') && from.values.get('role') !== to.values.get('role')) parts.push('RESET ROLE');
  for (const name of from.values.keys()) {
    if (name !== 'role' && !to.values.has(name)) parts.push(`RESET ${settingName(name)}`);
  }
  for (const [name, value] of to.values) {
    if (name !== 'role' && from.values.get(name) !== value) parts.push(setText(name, value));
  }
  const role = to.values.get('role');
  if (role !== undefined && role !== from.values.get('role')) parts.push(setText('role', role));
  return parts.join(';');
}

/** set_config and not SET: a list such as search_path is taken as current_setting() printed it. */
function setText(name: string, value: string): string {
  return `SELECT pg_catalog.set_config(${quoteLiteral(name)},${quoteLiteral(value)},false)`;
}

/** `app.tenant` → "app"."tenant", as RESET wants it. */
function settingName(name: string): string {
  return name.split('.').map(quoteIdentifier).join('.');
}

/** A time as current_setting() prints it: `500ms`, `10s`, `2min`, `0`; 0 for what is none. */
export function millisecondsOf(text: string): number {
  const match = /^(\d+)(us|ms|s|min|h|d)?$/.exec(text);
  if (!match) return 0;
  const unit = { us: 0.001, ms: 1, s: 1_000, min: 60_000, h: 3_600_000, d: 86_400_000 }[match[2] ?? 'ms'];
  return Number(match[1]) * (unit ?? 1);
}

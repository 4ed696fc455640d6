/**
 * What the open transaction, or what was sent since the connection was taken, may have changed of the session's settings.
 * Nothing of it is believed: it is read back from the server when the transaction is over (lease.ts).
 */
import { decidesReading } from '../backend/settings.ts';
import type { SessionEffect } from '../plan/plan.ts';
import type { ClientState } from './state.ts';

/** How many scopes were made for transactions that have changed settings. */
let transactionScopes = 0;

export class ChangedSettings {
  readonly #state: ClientState;
  /** Session-level settings that may have changed since the connection was taken. */
  readonly touched = new Set<string>();
  /** The search_path that is believed may not be the server's. */
  searchPathStale = false;
  /** The open transaction or pipeline has changed settings, maybe for itself only. */
  inTransaction = false;
  #scope: string | undefined;

  constructor(state: ClientState) {
    this.#state = state;
  }

  /** What decides the meaning of a text that is prepared now, see StatementRegistry. */
  get scope(): string {
    return this.#scope ?? this.#state.scope;
  }

  get mustBeRead(): boolean {
    return this.touched.size > 0 || this.searchPathStale;
  }

  noteSet(effect: Extract<SessionEffect, { kind: 'set' }>): void {
    this.inTransaction = true;
    for (const name of effect.names) {
      if (name === 'search_path' || name === 'role') this.searchPathStale = true;
      if (name === 'search_path' || decidesReading(name)) this.ownScope();
      if (!effect.local) this.touched.add(name);
    }
  }

  /** A set_config whose name is computed. */
  noteSetMany(): void {
    this.inTransaction = true;
    this.ownScope();
  }

  noteResetAll(): void {
    this.inTransaction = true;
    const { settings, defaults } = this.#state;
    for (const { values } of [settings, defaults])
      for (const name of values.keys()) if (name !== 'role') this.touched.add(name);
    this.searchPathStale = true;
  }

  /** What it takes back is not known here. */
  noteRollbackToSavepoint(): void {
    if (this.touched.size > 0) this.searchPathStale = true;
  }

  /** What is prepared from here to the end of the transaction is for this transaction alone. */
  ownScope(): void {
    this.#scope = `transaction ${++transactionScopes}`;
  }

  /** The transaction is over, and nothing has to be read back. */
  endScope(): void {
    this.#scope = undefined;
  }

  /** What a lost SET would have changed is not known, and one that was rolled back has changed nothing: the settings before it stay. */
  forget(): void {
    this.#scope = undefined;
    this.touched.clear();
    this.searchPathStale = false;
    const state = this.#state;
    state.setSearchPath(state.settings.values.get('search_path') ?? state.loginSearchPath);
  }

  /** All of it is known again. */
  noteRead(): void {
    this.touched.clear();
    this.searchPathStale = false;
  }
}

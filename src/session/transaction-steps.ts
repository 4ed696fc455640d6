/**
 * What the open transaction has done to its session so far: settings and savepoints, in order, and how they are made again
 * on a node that it comes to later (branches.ts), or moves to (lease.ts).
 *
 * Invariant: steps that are made again leave the same settings now, and after a ROLLBACK TO any of the savepoints; where
 * that can't be had, it is refused.
 */
import { notSupported } from '../base/errors.ts';
import { quoteIdentifier, quoteLiteral } from '../pg/identifier.ts';
import type { SessionEffect } from '../plan/plan.ts';

export type TransactionStep =
  | { readonly kind: 'set'; readonly name: string; readonly local: boolean }
  | { readonly kind: 'savepoint'; readonly name: string }
  | { readonly kind: 'constraints'; readonly deferred: boolean }
  | { readonly kind: 'notify'; readonly nodeId: number }
  | { readonly kind: 'cursor'; readonly name: string; readonly nodeId: number };

interface NumberedStep {
  readonly step: TransactionStep;
  readonly number: number;
}

/** Settings that SET takes only before the transaction's first query; set_config() would be one. */
const TRANSACTION_SETTINGS = new Set([
  'transaction_isolation',
  'transaction_read_only',
  'transaction_deferrable',
]);

export class TransactionSteps {
  #steps: NumberedStep[] = [];
  #last = 1;
  #blockedBy: string | undefined;
  /** What the branches have of settings may differ. */
  isUnknown = false;
  /** Cursors WITH HOLD, by name: they outlive their transaction. */
  readonly #held = new Map<string, number>();

  /** The number of the step made last: what a node that has made them all has seen. */
  get last(): number {
    return this.#last;
  }

  /** Has a session-level SET of this name been made? */
  hasSessionSet(name?: string): boolean {
    return this.#steps.some(
      ({ step }) => step.kind === 'set' && !step.local && (name === undefined || step.name === name),
    );
  }

  /** Has it been set, for the session or the transaction? */
  hasSet(name: string): boolean {
    return this.#steps.some(({ step }) => step.kind === 'set' && step.name === name);
  }

  get lastSavepoint(): string | undefined {
    const last = this.#steps.findLast(({ step }) => step.kind === 'savepoint')?.step;
    return last?.kind === 'savepoint' ? last.name : undefined;
  }

  /** Is there anything but settings to be made again on a node that comes to it? */
  get hasMoreThanSettings(): boolean {
    return this.#steps.some(({ step: { kind } }) => kind === 'savepoint' || kind === 'constraints');
  }

  /** Why that node's part can't be prepared, as far as is known. */
  unpreparableOn(nodeId: number): string | undefined {
    const hasNotified = this.#steps.some(({ step }) => step.kind === 'notify' && step.nodeId === nodeId);
    return hasNotified ? 'NOTIFY' : undefined;
  }

  /** Where a cursor of this name was declared, in this transaction or WITH HOLD before; undefined: nowhere that is known. */
  cursorNodeId(name: string): number | undefined {
    const found = this.#steps.find(({ step }) => step.kind === 'cursor' && step.name === name)?.step;
    return found?.kind === 'cursor' ? found.nodeId : this.#held.get(name);
  }

  clear(): void {
    if (this.#steps.length > 0) this.#steps = [];
    this.#blockedBy = undefined;
    this.isUnknown = false;
  }

  get isBlocked(): boolean {
    return this.#blockedBy !== undefined;
  }

  /** Something was done that can't be made again anywhere else. `isUnknown`: nor on the nodes that the transaction is on. */
  block(what: string, { isUnknown = false }: { isUnknown?: boolean } = {}): void {
    this.#blockedBy = what;
    this.isUnknown ||= isUnknown;
  }

  /** What the server of that node has carried out. */
  note(effect: SessionEffect, nodeId: number): void {
    switch (effect.kind) {
      case 'set':
        for (const name of effect.names) {
          // Under it, the session's own new value can't be read any more.
          if (effect.local && this.hasSessionSet(name)) this.block('a SET LOCAL that hides a SET');
          this.add({ kind: 'set', name, local: effect.local });
        }
        break;
      case 'savepoint':
        this.add({ kind: 'savepoint', name: effect.name });
        break;
      case 'releaseSavepoint':
        this.release(effect.name);
        break;
      case 'rollbackToSavepoint':
        this.rollbackTo(effect.name);
        break;
      case 'constraints':
        this.add(effect);
        break;
      case 'notify':
        this.add({ kind: 'notify', nodeId });
        break;
      case 'declareCursor':
        this.add({ kind: 'cursor', name: effect.name, nodeId });
        if (effect.hold) this.#held.set(effect.name, nodeId);
        break;
      case 'closeCursor':
        this.#closeCursor(effect.name);
        break;
      case 'commit':
      case 'rollback':
        this.clear();
        break;
    }
  }

  /** No rollback opens it again. */
  #closeCursor(name: string | undefined): void {
    this.#steps = this.#steps.filter(
      ({ step }) => step.kind !== 'cursor' || (name !== undefined && step.name !== name),
    );
    if (name === undefined) this.#held.clear();
    else this.#held.delete(name);
  }

  add(step: TransactionStep): void {
    this.#steps.push({ step, number: ++this.#last });
  }

  /** RELEASE: the savepoint and those after it are no more; what was set since stays. */
  release(name: string): void {
    const at = this.#indexOf(name);
    if (at >= 0) this.#steps = this.#steps.filter(({ step }, i) => i < at || step.kind !== 'savepoint');
  }

  /** ROLLBACK TO: all since the savepoint is undone. */
  rollbackTo(name: string): void {
    const at = this.#indexOf(name);
    if (at >= 0) this.#steps.length = at + 1;
  }

  /** The question for the values of what was set after step `seen`, as the server has computed them; undefined: nothing was. */
  question(seen = 0): string | undefined {
    const list = this.#settings(seen).map(
      ({ name }) => `pg_catalog.current_setting(${quoteLiteral(name)}, true)`,
    );
    return list.length === 0 ? undefined : `SELECT ${list.join(', ')}`;
  }

  /**
   * The statements that make the steps after `seen` again, one by one; `values` answer question(seen). Savepoints are made
   * again on a node that has seen nothing; any other has them. Throws 0A000.
   */
  replay(values: readonly (string | null)[], seen = 0): string[] {
    const settings = this.#settings(seen);
    const own: string[] = [];
    const others: string[] = [];
    for (const { step, number } of this.#steps) {
      if (step.kind === 'savepoint') {
        if (seen === 0) others.push(`SAVEPOINT ${quoteIdentifier(step.name)}`);
        continue;
      }
      if (step.kind === 'constraints' && seen === 0)
        others.push(`SET CONSTRAINTS ALL ${step.deferred ? 'DEFERRED' : 'IMMEDIATE'}`);
      if (step.kind !== 'set') continue;
      const at = settings.findIndex((setting) => setting.number === number);
      const value = values[at];
      if (at < 0 || value === null || value === undefined) continue;
      if (TRANSACTION_SETTINGS.has(step.name)) own.push(`SET LOCAL ${step.name} = ${quoteLiteral(value)}`);
      else
        others.push(
          `SELECT pg_catalog.set_config(${quoteLiteral(step.name)}, ${quoteLiteral(value)}, ${step.local})`,
        );
    }
    return [...own, ...others];
  }

  /** The last SET of each name after `seen`. Throws 0A000 if an earlier one of it is behind a savepoint: its value is gone. */
  #settings(seen: number): { name: string; number: number }[] {
    if (this.#blockedBy !== undefined) {
      throw notSupported(
        `${this.#blockedBy} in a transaction that goes on to another node`,
        'Make such settings outside of the transaction.',
      );
    }
    const last = new Map<string, { number: number; savepoints: number }>();
    let savepoints = 0;
    for (const { step, number } of this.#steps) {
      if (step.kind === 'savepoint') savepoints++;
      else if (step.kind === 'set' && number > seen) {
        const before = last.get(step.name);
        if (before && before.savepoints !== savepoints) {
          throw notSupported(
            `the transaction has set "${step.name}" before and after a savepoint on another node`,
            'Make settings (SET LOCAL, set_config) before the first SAVEPOINT.',
          );
        }
        last.delete(step.name);
        last.set(step.name, { number, savepoints });
      }
    }
    return [...last].map(([name, { number }]) => ({ name, number }));
  }

  #indexOf(savepoint: string): number {
    return this.#steps.findLastIndex(({ step }) => step.kind === 'savepoint' && step.name === savepoint);
  }
}

/** Is it something that note() takes note of? */
export function isStep({ kind }: SessionEffect): boolean {
  return STEPS.has(kind);
}

const STEPS = new Set<SessionEffect['kind']>([
  ...(['set', 'savepoint', 'releaseSavepoint', 'rollbackToSavepoint', 'commit', 'rollback'] as const),
  ...(['constraints', 'notify', 'declareCursor', 'closeCursor'] as const),
]);

/**
 * What the bank's clients have seen, and whether it is true: judged against what stands on the servers at the end. Pure.
 *
 * A transfer has two or more legs, each an account and an amount, which sum to nothing. Each leg changes a balance and leaves
 * a row in the ledger, in one transaction: so what has become of each transfer can be told, not only that the sum is right.
 */
import { unreachable } from '../../src/base/assert.ts';

export interface Leg {
  readonly account: number;
  readonly amount: number;
}

/**
 * What its client was told. `ok`: COMMIT. `refused`: an error that says it is not committed, or COMMIT was never sent.
 * `unknown`: 08007, or the connection to its own router was lost during COMMIT. `lost`: XX001, committed and a part of it is gone.
 */
export type View = 'ok' | 'refused' | 'unknown' | 'lost';

export interface Transfer {
  readonly id: number;
  readonly legs: readonly Leg[];
  /** synchronous_commit was off: on one node a crash may undo what was told OK, as PostgreSQL has it. */
  readonly lazy: boolean;
  view: View;
  /** What the view was made of: an SQLSTATE or a message. */
  told: string;
  /** From 08007, and what postern.outcome() has made of it in the end. */
  token?: string;
  outcome?: string;
}

export interface LedgerRow extends Leg {
  readonly transfer: number;
}

/** All as read from the servers themselves when everything has healed. */
export interface Books {
  readonly balances: ReadonlyMap<number, number>;
  readonly ledger: readonly LedgerRow[];
  /** By account. */
  readonly nodeOf: ReadonlyMap<number, number>;
  readonly initialBalance: number;
}

/** Each violation in one line; empty: all is true. */
export function judge(transfers: readonly Transfer[], books: Books): string[] {
  const rows = new Map<number, LedgerRow[]>();
  const expected = new Map([...books.balances.keys()].map((account) => [account, books.initialBalance]));
  for (const row of books.ledger) {
    const list = rows.get(row.transfer);
    if (list) list.push(row);
    else rows.set(row.transfer, [row]);
    expected.set(row.account, (expected.get(row.account) ?? Number.NaN) + row.amount);
  }
  const violations = transfers.flatMap((transfer) =>
    judgeTransfer(transfer, rows.get(transfer.id) ?? [], isDistributed(transfer, books.nodeOf)),
  );
  const known = new Set(transfers.map(({ id }) => id));
  for (const id of rows.keys()) if (!known.has(id)) violations.push(`transfer ${id}: nobody has made it`);
  let sum = 0;
  let sumExpected = 0;
  for (const [account, balance] of books.balances) {
    sum += balance;
    sumExpected += books.initialBalance;
    if (balance !== expected.get(account))
      violations.push(`account ${account}: balance ${balance}, its ledger says ${expected.get(account)}`);
  }
  // A part that is known to be lost changes the sum, by what is left of its transfer.
  for (const { id, view } of transfers)
    if (view === 'lost') for (const { amount } of rows.get(id) ?? []) sumExpected += amount;
  if (sum !== sumExpected) violations.push(`the sum is ${sum}, not ${sumExpected}`);
  return violations;
}

/** Has it written on more than one node? */
export function isDistributed({ legs }: Transfer, nodeOf: ReadonlyMap<number, number>): boolean {
  return new Set(legs.map(({ account }) => nodeOf.get(account))).size > 1;
}

function judgeTransfer(transfer: Transfer, rows: readonly LedgerRow[], distributed: boolean): string[] {
  const { id, legs, view, told } = transfer;
  const there = legs.filter(({ account, amount }) =>
    rows.some((row) => row.account === account && row.amount === amount),
  );
  const name = `transfer ${id} (${legs.map(({ account, amount }) => `${account}: ${amount}`).join(', ')}; ${view}, ${told})`;
  if (view === 'lost') return [];
  if (rows.length > there.length) return [`${name}: the ledger has other rows of it`];
  if (there.length > 0 && there.length < legs.length)
    return [`${name}: half of it, only account ${there.map(({ account }) => account).join(', ')}`];
  const isThere = there.length > 0;
  switch (view) {
    case 'ok':
      if (isThere || (transfer.lazy && !distributed)) return [];
      return [`${name}: it is not there`];
    case 'refused':
      return isThere ? [`${name}: it is there`] : [];
    case 'unknown':
      return judgeOutcome(transfer, isThere, name);
    default:
      return unreachable(view);
  }
}

function judgeOutcome({ token, outcome }: Transfer, isThere: boolean, name: string): string[] {
  if (token === undefined) return [];
  if (outcome === (isThere ? 'committed' : 'rolled back')) return [];
  return [`${name}: postern.outcome() says ${outcome ?? 'nothing'}, and it is ${isThere ? '' : 'not '}there`];
}

/**
 * A router's process for the bank: `startRouter` as `postern serve` starts it, with short times, the faults that its parent
 * names, and one armed step of a commit at which it kills itself, stops itself, or waits for its parent to have done its
 * worst. It ends with its parent.
 */
import { startRouter } from '../../src/cli/router.ts';
import type { ProtocolFaults } from '../../src/txn/commit-protocol.ts';
import type { TransactionsOptions } from '../../src/txn/transactions.ts';

/** Its own end: `kill` and `stop` are SIGKILL and SIGSTOP, `tell` waits for `go`. */
export type StepAction = 'kill' | 'stop' | 'tell';

export interface BankRouterOptions {
  readonly nodes: readonly { readonly name: string; readonly dsn: string }[];
  readonly faults: ProtocolFaults;
  readonly times: NonNullable<TransactionsOptions['times']>;
}

export type ToRouter =
  | { readonly kind: 'start'; readonly options: BankRouterOptions }
  /** At the `count`th effect of that kind from now on. */
  | { readonly kind: 'arm'; readonly effect: string; readonly count: number; readonly action: StepAction }
  | { readonly kind: 'disarm' }
  | { readonly kind: 'go' };

export type FromRouter =
  | { readonly kind: 'serving'; readonly port: number }
  | { readonly kind: 'failed'; readonly text: string }
  | { readonly kind: 'reached'; readonly effect: string; readonly nodeId: number };

let armed: Extract<ToRouter, { kind: 'arm' }> | undefined;
let left = 0;
let goOn: () => void = () => {};

const tell = (message: FromRouter): Promise<void> =>
  new Promise((resolve) => process.send!(message, undefined, {}, () => resolve()));

/** Is not async: an effect that nobody waits at costs nothing. */
function beforeEffect(effect: string, nodeId: number): Promise<void> | void {
  if (armed?.effect !== effect || --left > 0) return;
  const { action } = armed;
  armed = undefined;
  return reached(action, effect, nodeId);
}

async function reached(action: StepAction, effect: string, nodeId: number): Promise<void> {
  const gone = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  await tell({ kind: 'reached', effect, nodeId });
  if (action === 'tell') await gone;
  else process.kill(process.pid, action === 'kill' ? 'SIGKILL' : 'SIGSTOP');
}

async function start({ nodes, faults, times }: BankRouterOptions): Promise<void> {
  const log = (level: string) => (message: string) => process.stderr.write(`${level} ${message}\n`);
  const router = await startRouter({
    listen: { host: '127.0.0.1', port: 0 },
    database: 'app',
    nodes,
    home: nodes[0]!.name,
    users: [{ name: 'app', password: undefined }],
    log: { info: log('info'), warn: log('warn'), error: log('error') },
    transactions: { times, faults: { ...faults, beforeEffect } },
    beforeDdlStep: (step) => beforeEffect(`ddl ${step}`, 0),
  });
  await tell({ kind: 'serving', port: router.port });
}

process.on('disconnect', () => process.exit(0));
process.on('message', (message: ToRouter) => {
  switch (message.kind) {
    case 'start':
      start(message.options).catch(async (error: Error) => {
        await tell({ kind: 'failed', text: error.message });
        process.exit(1);
      });
      return;
    case 'arm':
      armed = message;
      left = message.count;
      return;
    case 'disarm':
      armed = undefined;
      goOn();
      return;
    case 'go':
      goOn();
  }
});

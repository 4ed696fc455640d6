/**
 * A workload made ready to run: each transaction's script as a flat list of instructions, whose expressions are closures
 * and whose messages are bytes; the hot loop (load-client.ts) parses, looks up and encodes nothing.
 *
 * A template is shared by all clients of a thread; what a client changes (its variables and the buffer its messages are
 * put together in) is its own. The variables live as long as the client, over all its transactions, as in pgbench.
 */
import { invalidParameter, PosternError } from '../../base/errors.ts';
import { FrameWriter } from '../../wire/frame-writer.ts';
import { encodeParse, encodeSync } from '../../wire/frontend.ts';
import { compileExpression, type Evaluate } from '../workload/expression-compiler.ts';
import { parseScript, type ResultTarget, type ScriptCommand } from '../workload/pgbench-script.ts';
import type { SqlPiece } from '../workload/script-sql.ts';
import type { Value } from '../workload/script-value.ts';
import { type Workload, withSchema } from '../workload/workload.ts';
import { extendedMessage, type MessageTemplate, queryMessage, SYNC } from './message-template.ts';

/** How statements are sent: as text, parsed each time, or parsed once a connection. */
export type Protocol = 'simple' | 'extended' | 'prepared';

export type Instruction = { readonly line: number } & (
  | { readonly kind: 'set'; readonly slot: number; readonly evaluate: Evaluate }
  /** Goes on at `target` unless the condition is true. */
  | { readonly kind: 'branch'; readonly condition: Evaluate; target: number }
  | { readonly kind: 'jump'; target: number }
  | { readonly kind: 'sleep'; readonly amount: Evaluate; readonly unitMs: number }
  | {
      readonly kind: 'send';
      readonly message: MessageTemplate;
      /** How many ReadyForQuery answer it. */
      readonly syncs: 0 | 1;
      /** What has been put together goes out, and is waited for. */
      readonly writes: boolean;
      readonly into: ResultTarget | undefined;
    }
);

export interface TransactionTemplate {
  readonly name: string;
  readonly instructions: readonly Instruction[];
}

export interface WorkloadTemplate {
  /** Sent once on each connection, answered by one ReadyForQuery; empty if nothing is prepared. */
  readonly preparation: Buffer;
  readonly transactions: readonly TransactionTemplate[];
  /** Cumulated: a number drawn from [0, 1) means the first transaction whose share is above it. */
  readonly shares: readonly number[];
  /** The variables' places among a client's values. */
  readonly slots: ReadonlyMap<string, number>;
  /** What is set before the first transaction. */
  readonly initial: ReadonlyMap<string, Value>;
}

/** Throws PosternError (22023), with the line, for a script that can't be run, or not by this protocol. */
export function compileWorkload(options: {
  workload: Workload;
  protocol: Protocol;
  /** Empty, or ends in a dot. */
  schema: string;
}): WorkloadTemplate {
  const { workload, protocol, schema } = options;
  const scripts = workload.transactions.map(({ name, script }) => ({
    name,
    commands: parseScript(withSchema(script, schema), name),
  }));
  const initial = new Map<string, Value>(Object.entries(workload.variables));
  const compiler = new Compiler(
    protocol,
    initial,
    scripts.flatMap(({ commands }) => commands),
  );
  const transactions = scripts.map(({ name, commands }) => compiler.transaction(name, commands));
  const weights = workload.transactions.map((transaction) => transaction.weight);
  const sumOf = (some: readonly number[]): number => some.reduce((sum, weight) => sum + weight, 0);
  return {
    preparation: compiler.preparation(),
    transactions,
    shares: weights.map((_, index) => sumOf(weights.slice(0, index + 1)) / sumOf(weights)),
    slots: compiler.slots,
    initial,
  };
}

class Compiler {
  readonly slots = new Map<string, number>();
  private readonly protocol: Protocol;
  private readonly assigned: ReadonlySet<string>;
  /** \gset makes variables whose names are known when the result comes. */
  private readonly hasResults: boolean;
  /** Prepared statements by their text. */
  private readonly prepared = new Map<string, string>();

  constructor(protocol: Protocol, initial: ReadonlyMap<string, Value>, commands: readonly ScriptCommand[]) {
    this.protocol = protocol;
    const set = commands.flatMap((command) => (command.kind === 'set' ? [command.name] : []));
    this.assigned = new Set(['client_id', ...initial.keys(), ...set]);
    this.hasResults = commands.some((command) => command.kind === 'sql' && command.into !== undefined);
    for (const name of this.assigned) this.slotOf(name);
  }

  preparation(): Buffer {
    const writer = new FrameWriter();
    for (const [text, name] of this.prepared) encodeParse(writer, name, text, []);
    if (this.prepared.size > 0) encodeSync(writer);
    return Buffer.from(writer.take());
  }

  transaction(name: string, commands: readonly ScriptCommand[]): TransactionTemplate {
    let line = 1;
    try {
      const instructions: Instruction[] = [];
      const blocks: OpenBlock[] = [];
      let inPipeline = false;
      for (const command of commands) {
        line = command.line;
        switch (command.kind) {
          case 'startpipeline':
            if (this.protocol === 'simple') {
              throw invalidParameter(
                'a pipeline is not possible in the simple protocol',
                'Choose the protocol extended or prepared.',
              );
            }
            inPipeline = true;
            break;
          case 'endpipeline':
          case 'syncpipeline':
            inPipeline = command.kind === 'syncpipeline';
            instructions.push({
              kind: 'send',
              line,
              message: SYNC,
              syncs: 1,
              writes: !inPipeline,
              into: undefined,
            });
            break;
          case 'sql':
            instructions.push(this.statement(command, inPipeline));
            break;
          case 'set': {
            const evaluate = compileExpression(command.expression, (of) => this.knownSlot(of));
            instructions.push({ kind: 'set', line, slot: this.slotOf(command.name), evaluate });
            break;
          }
          case 'sleep': {
            const amount = compileExpression(command.amount, (of) => this.knownSlot(of));
            instructions.push({ kind: 'sleep', line, amount, unitMs: command.unitMs });
            break;
          }
          default:
            this.condition(command, instructions, blocks);
        }
      }
      return { name, instructions };
    } catch (error) {
      if (!(error instanceof PosternError)) throw error;
      throw invalidParameter(`${name}:${line}: ${error.message}`, error.hint);
    }
  }

  private condition(
    command: Extract<ScriptCommand, { kind: 'if' } | { kind: 'elif' } | { kind: 'else' | 'endif' }>,
    instructions: Instruction[],
    blocks: OpenBlock[],
  ): void {
    const { line } = command;
    if (command.kind === 'if') blocks.push({ branch: undefined, jumps: [] });
    const block = blocks.at(-1)!;
    if (command.kind === 'elif' || command.kind === 'else') {
      const jump: Jump = { kind: 'jump', line, target: 0 };
      block.jumps.push(jump);
      instructions.push(jump);
    }
    // The branch before, if its condition is not true, goes on here.
    if (block.branch !== undefined) block.branch.target = instructions.length;
    block.branch = undefined;
    if (command.kind === 'if' || command.kind === 'elif') {
      const condition = compileExpression(command.condition, (of) => this.knownSlot(of));
      const branch: Branch = { kind: 'branch', line, condition, target: 0 };
      block.branch = branch;
      instructions.push(branch);
    }
    if (command.kind !== 'endif') return;
    for (const jump of block.jumps) jump.target = instructions.length;
    blocks.pop();
  }

  private statement(command: Extract<ScriptCommand, { kind: 'sql' }>, inPipeline: boolean): Instruction {
    const { line, into } = command;
    const [texts, names] = this.separate(command.pieces);
    const slots = names.map((name) => this.slotOf(name));
    const common = { kind: 'send', line, syncs: inPipeline ? 0 : 1, writes: !inPipeline, into } as const;
    if (this.protocol === 'simple') return { ...common, message: queryMessage(texts, slots) };
    if (command.isCombined) {
      throw invalidParameter(
        `several statements in one (\\;) are not possible in the ${this.protocol} protocol`,
        'Choose the protocol simple, or a pipeline.',
      );
    }
    const text = texts.reduce((sum, part, index) => `${sum}$${index}${part}`);
    const name = this.protocol === 'prepared' ? this.preparedName(text) : '';
    const describes = into !== undefined;
    return { ...common, message: extendedMessage({ text, name, slots, describes, isLast: !inPipeline }) };
  }

  /** The text around the variables, and their names. A name that nothing sets is text. */
  private separate(pieces: readonly SqlPiece[]): [texts: string[], names: string[]] {
    const texts = [''];
    const names: string[] = [];
    const isSimple = this.protocol === 'simple';
    let inQuotes = false;
    for (const piece of pieces) {
      if (typeof piece === 'string') {
        texts[texts.length - 1] += inQuotes ? piece.slice(1) : piece;
        inQuotes = false;
      } else if (!this.assigned.has(piece.variable) && (piece.quoting !== 'none' || !this.hasResults)) {
        texts[texts.length - 1] += `:${piece.variable}`;
      } else if (piece.quoting === 'whole' && !isSimple) {
        // A parameter is a text already: its quotes go.
        texts[texts.length - 1] = texts.at(-1)!.slice(0, -1);
        inQuotes = true;
        names.push(piece.variable);
        texts.push('');
      } else if (piece.quoting === 'part' && !isSimple) {
        throw invalidParameter(
          `:${piece.variable} stands within quotes, where the ${this.protocol} protocol has no parameters`,
          'Choose the protocol simple, or put nothing else into the quotes.',
        );
      } else {
        names.push(piece.variable);
        texts.push('');
      }
    }
    return [texts, names];
  }

  private preparedName(text: string): string {
    let name = this.prepared.get(text);
    if (name === undefined) {
      name = `postern_wall_${this.prepared.size}`;
      this.prepared.set(text, name);
    }
    return name;
  }

  private knownSlot(name: string): number {
    if (!this.assigned.has(name) && !this.hasResults) throw invalidParameter(`undefined variable "${name}"`);
    return this.slotOf(name);
  }

  private slotOf(name: string): number {
    let slot = this.slots.get(name);
    if (slot === undefined) {
      slot = this.slots.size;
      this.slots.set(name, slot);
    }
    return slot;
  }
}

/** An \if that has not come to its \endif. */
interface OpenBlock {
  branch: Branch | undefined;
  readonly jumps: Jump[];
}

type Branch = Extract<Instruction, { kind: 'branch' }>;
type Jump = Extract<Instruction, { kind: 'jump' }>;

/**
 * Scripts in pgbench's format: text to commands. A statement may go over several lines and ends with `;`, or with the
 * backslash of a meta command; a meta command is one line. What pgbench has and this has not is refused with its line.
 * Source: PostgreSQL documentation, pgbench, "Custom Scripts" and "Meta Commands"; psql, for how quotes and comments end.
 *
 * Invariant: a script that parses has an SQL statement, its \if and pipelines are closed, and each branch of an \if leaves a
 * pipeline as it found it; so whoever runs it needs no check of these.
 */
import { invalidParameter, PosternError } from '../../base/errors.ts';
import { type Expression, parseExpression } from './expression.ts';
import { type SqlPiece, SqlReader } from './script-sql.ts';

export type ScriptCommand = { readonly line: number } & (
  | {
      readonly kind: 'sql';
      readonly pieces: readonly SqlPiece[];
      /** Several statements of one message, parted by `\;`. */
      readonly isCombined: boolean;
      readonly into: ResultTarget | undefined;
    }
  | { readonly kind: 'set'; readonly name: string; readonly expression: Expression }
  | { readonly kind: 'if'; readonly condition: Expression }
  | { readonly kind: 'elif'; readonly condition: Expression }
  | { readonly kind: 'sleep'; readonly amount: Expression; readonly unitMs: number }
  | { readonly kind: 'else' | 'endif' }
  | { readonly kind: 'startpipeline' | 'syncpipeline' | 'endpipeline' }
);

/** Where a result's columns go: into variables of their names, with the prefix before them. */
export interface ResultTarget {
  /** gset wants one row of the last result; aset takes the last row of each result that has any. */
  readonly kind: 'gset' | 'aset';
  readonly prefix: string;
}

const SCRIPT_CHARACTERS_MAX = 1_000_000;
const VARIABLE_NAME = /^[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*$/;
const UNITS_MS: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1000 };
const REFUSED: Readonly<Record<string, string>> = {
  shell: 'it runs commands of the system, and the load generator runs none',
  setshell: 'it runs commands of the system, and the load generator runs none',
  setrandom: 'pgbench has dropped it too: write \\set NAME random(FROM, TO)',
};

/** `name` stands before the line in errors: `orders.sql:12: …`. Throws PosternError (22023). */
export function parseScript(text: string, name: string): ScriptCommand[] {
  if (text.length > SCRIPT_CHARACTERS_MAX) {
    throw invalidParameter(`${name}: a script is at most ${SCRIPT_CHARACTERS_MAX} characters long`);
  }
  const commands: ScriptCommand[] = [];
  const reader = new SqlReader(text);
  /** Of what is looked at; undefined: where the reader is. */
  let line: number | undefined;
  try {
    while (!reader.isAtEnd) {
      line = undefined;
      const statement = reader.statement();
      line = statement.line;
      if (statement.pieces.length > 0) commands.push({ kind: 'sql', ...statement, into: undefined });
      if (!reader.isAtMetaCommand) continue;
      line = reader.line;
      addMetaCommand(commands, reader.metaCommand(), line);
    }
    checkStructure(commands, (wrong) => (line = wrong));
    return commands;
  } catch (error) {
    if (!(error instanceof PosternError)) throw error;
    throw invalidParameter(`${name}:${line ?? reader.line}: ${error.message}`, error.hint);
  }
}

function addMetaCommand(commands: ScriptCommand[], words: string, line: number): void {
  const [, command = '', rest = ''] = /^(\S*)\s*(.*?)\s*$/s.exec(words)!;
  const name = command.toLowerCase();
  switch (name) {
    case 'set': {
      const [, variable = '', expression = ''] = /^(\S*)\s*(.*)$/s.exec(rest)!;
      commands.push({
        kind: 'set',
        line,
        name: variableName(variable),
        expression: parseExpression(expression),
      });
      return;
    }
    case 'if':
    case 'elif':
      commands.push({ kind: name, line, condition: parseExpression(rest) });
      return;
    case 'else':
    case 'endif':
    case 'startpipeline':
    case 'syncpipeline':
    case 'endpipeline':
      if (rest !== '') throw invalidParameter(`\\${name} stands alone on its line`);
      commands.push({ kind: name, line });
      return;
    case 'sleep':
      commands.push({ kind: 'sleep', line, ...sleepOf(rest) });
      return;
    case 'gset':
    case 'aset': {
      const before = commands.at(-1);
      if (before?.kind !== 'sql' || before.into !== undefined) {
        throw invalidParameter(`\\${name} follows an SQL statement`);
      }
      if (rest !== '') variableName(rest);
      commands[commands.length - 1] = { ...before, into: { kind: name, prefix: rest } };
      return;
    }
    default: {
      const reason = REFUSED[name];
      throw invalidParameter(
        `\\${command} is not supported${reason === undefined ? '' : `: ${reason}`}`,
        'Supported are \\set, \\if, \\elif, \\else, \\endif, \\sleep, \\gset, \\aset, \\startpipeline, \\syncpipeline and \\endpipeline',
      );
    }
  }
}

function variableName(text: string): string {
  if (!VARIABLE_NAME.test(text)) throw invalidParameter(`"${text}" is not the name of a variable`);
  return text;
}

function sleepOf(rest: string): { amount: Expression; unitMs: number } {
  const parts = /^(:?\w+)\s*?(?:\s(us|ms|s)|(?<=\d)(us|ms|s))?$/i.exec(
    rest.replace(/^(\d+)(us|ms|s)$/i, '$1 $2'),
  );
  const amount = parts?.[1];
  if (amount === undefined || !/^(:.*|\d+)$/.test(amount)) {
    throw invalidParameter('\\sleep is followed by a whole number or a variable, and us, ms or s');
  }
  return { amount: parseExpression(amount), unitMs: UNITS_MS[(parts?.[2] ?? 's').toLowerCase()]! };
}

/** `at` is told the line of what is looked at. */
function checkStructure(commands: readonly ScriptCommand[], at: (line: number) => void): void {
  interface Block {
    readonly line: number;
    /** Whether a pipeline was open where it began. */
    readonly inPipeline: boolean;
    hasElse: boolean;
  }
  const blocks: Block[] = [];
  let inPipeline = false;
  let pipelineLine = 0;
  const innermost = (command: string): Block => {
    const block = blocks.at(-1);
    if (block === undefined) throw invalidParameter(`\\${command} without \\if`);
    return block;
  };
  for (const command of commands) {
    at(command.line);
    switch (command.kind) {
      case 'if':
        blocks.push({ line: command.line, inPipeline, hasElse: false });
        break;
      case 'elif':
      case 'else':
      case 'endif': {
        const block = innermost(command.kind);
        if (block.hasElse && command.kind !== 'endif')
          throw invalidParameter(`\\${command.kind} after \\else`);
        if (inPipeline !== block.inPipeline) {
          throw invalidParameter('a pipeline begins and ends on the same side of an \\if');
        }
        if (command.kind === 'else') block.hasElse = true;
        if (command.kind === 'endif') blocks.pop();
        break;
      }
      case 'startpipeline':
        if (inPipeline) throw invalidParameter('\\startpipeline within a pipeline');
        inPipeline = true;
        pipelineLine = command.line;
        break;
      case 'syncpipeline':
      case 'endpipeline':
        if (!inPipeline) throw invalidParameter(`\\${command.kind} without \\startpipeline`);
        if (command.kind === 'endpipeline') inPipeline = false;
        break;
      case 'sql':
        if (inPipeline && command.into !== undefined) {
          throw invalidParameter(`\\${command.into.kind} is not possible within a pipeline`);
        }
        break;
      case 'set':
      case 'sleep':
        break;
    }
  }
  const open = blocks.at(-1);
  at(open?.line ?? pipelineLine);
  if (open !== undefined) throw invalidParameter('\\if without \\endif');
  if (inPipeline) throw invalidParameter('\\startpipeline without \\endpipeline');
  at(commands.at(-1)?.line ?? 1);
  if (!commands.some(({ kind }) => kind === 'sql')) throw invalidParameter('the script has no SQL statement');
}

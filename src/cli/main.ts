#!/usr/bin/env node
/**
 * The command line. Exit status: 0 done, 1 it failed (one line on stderr says why and what to do), 2 the command line
 * itself is wrong, 130 interrupted before the work was done. What each command does is loaded only when it runs.
 */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { registerDoctorCommand } from './doctor.ts';
import { registerFrontCommand } from './front.ts';
import { registerServeCommand } from './serve.ts';
import { registerUpCommand } from './up.ts';
import { registerWallCommands } from './wall.ts';

const STATUS_USAGE = 2;

function program(): Command {
  const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  const command: Command = new Command('postern')
    .description(
      'Finds the write ceiling of a PostgreSQL primary, says what causes it, and takes an application past it table by table.',
    )
    .version(manifest.version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(usageLine(text, command)) })
    .addHelpText(
      'after',
      [
        '',
        'Start here:',
        '  postern up --quick                       a cluster on this machine, and its wall measured',
        '  postern wall measure postgres://…        the wall of a server of yours',
        '  postern front postgres://…               before one server of yours, to merge commits',
        '  postern serve -c postern.yaml            the router over servers of yours',
        '  postern doctor -c postern.yaml           what differs between them, and what to run',
      ].join('\n'),
    );
  registerUpCommand(command);
  registerFrontCommand(command);
  registerServeCommand(command);
  registerDoctorCommand(command);
  registerWallCommands(command);
  return command;
}

/** commander's complaint, hint included, as one line. */
function usageLine(text: string, program: Command): string {
  return `postern: ${text
    .replace(/^error: /, '')
    .trim()
    .replace(/\s*\n\s*/g, ' ')} (try "${namedCommand(program)} --help")\n`;
}

/** As far as the command line names one. */
function namedCommand(program: Command): string {
  let named = program;
  let words = program.name();
  for (const word of process.argv.slice(2)) {
    const next = named.commands.find((each) => each.name() === word);
    if (next === undefined) break;
    named = next;
    words += ` ${word}`;
  }
  return words;
}

async function main(): Promise<void> {
  // A reader that has gone away (`postern --help | head`) is no failure of ours.
  process.stdout.on('error', () => {});
  const command = program();
  if (process.argv.length <= 2) {
    command.outputHelp();
    return;
  }
  try {
    await command.parseAsync();
  } catch (error) {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode === 0 ? 0 : STATUS_USAGE;
      return;
    }
    // Every command tells its own failures; what arrives here is a bug, and its trace is wanted.
    console.error(error);
    process.exitCode = 1;
  }
}

await main();

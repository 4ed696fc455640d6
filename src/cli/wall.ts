/** `postern wall` and its commands, each in a file of its own. */
import type { Command } from 'commander';
import { registerWallExits } from './wall-exits.ts';
import { registerWallExplain } from './wall-explain.ts';
import { registerWallMeasure } from './wall-measure.ts';
import { registerWallModel } from './wall-model.ts';
import { registerWallWatch } from './wall-watch.ts';

export function registerWallCommands(program: Command): void {
  const wall = program.command('wall').description('find the write ceiling of a PostgreSQL server');
  registerWallMeasure(wall);
  registerWallExplain(wall);
  registerWallModel(wall);
  registerWallExits(wall);
  registerWallWatch(wall);
}

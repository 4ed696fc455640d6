/** Files that a command writes when it has ended. */
import { accessSync, constants, existsSync } from 'node:fs';
import * as path from 'node:path';

/** Throws the system's error now, rather than after minutes of work whose result could then not be written. */
export function checkWritable(files: readonly (string | undefined)[]): void {
  for (const file of files) {
    if (file !== undefined) accessSync(existsSync(file) ? file : path.dirname(file), constants.W_OK);
  }
}

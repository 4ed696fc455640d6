/** Files that a command writes when it has ended. */
import { accessSync, constants, existsSync } from 'node:fs';
import * as path from 'node:path';
import { invalidParameter } from '../base/errors.ts';

/** Throws 22023 now, rather than after minutes of work whose result could then not be written. */
export function checkWritable(files: readonly (string | undefined)[]): void {
  for (const file of files) {
    if (file === undefined) continue;
    try {
      accessSync(existsSync(file) ? file : path.dirname(file), constants.W_OK);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      const why =
        code === 'ENOENT' ? 'there is no such directory' : code === 'EACCES' ? 'permission denied' : message;
      throw invalidParameter(`cannot write ${file}: ${why}`);
    }
  }
}

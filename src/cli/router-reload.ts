/**
 * A router that goes by a new configuration while it serves. Its parts say which keys they can change; a key that has changed and
 * that no part changes takes effect with a restart.
 */
import { isDeepStrictEqual } from 'node:util';
import type { RouterOptions } from './router-options.ts';

export interface ReloadPart {
  readonly keys: readonly (keyof RouterOptions)[];
  /** Not called where none of the keys is configured at all, as in front mode. Throws: what it had stays. */
  reload(options: RouterOptions): void | Promise<void>;
}

/** Of the whole router, and not of a worker: replacing the workers is not enough. */
export const FIRST_PROCESS_KEYS: ReadonlySet<string> = new Set([
  ...['listen', 'workers', 'connectionsPerNode', 'coalesce', 'http'],
]);

/** Plain data: it goes between processes as JSON. */
export interface ReloadResult {
  /** Keys that differ from before and hold from now on. */
  readonly changed: readonly string[];
  /** Keys that differ from what this process was started with. */
  readonly needRestart: readonly string[];
  /** One line each. */
  readonly failures: readonly string[];
}

/** What is no part of a configuration. */
const NOT_CONFIGURED: ReadonlySet<string> = new Set([
  ...['log', 'onFindings', 'statementsEveryMs', 'beforeDdlStep', 'transactions'],
]);

export class RouterReload {
  readonly #parts: readonly ReloadPart[];
  #options: Partial<RouterOptions>;
  readonly #atStart: Partial<RouterOptions>;

  constructor(atStart: Partial<RouterOptions>, parts: readonly ReloadPart[]) {
    this.#atStart = atStart;
    this.#options = atStart;
    this.#parts = parts;
  }

  async reload(options: Partial<RouterOptions>): Promise<ReloadResult> {
    const before = this.#options;
    this.#options = options;
    const changed = new Set<string>();
    const failures: string[] = [];
    const reloadable = new Set<string>();
    for (const part of this.#parts) {
      for (const key of part.keys) reloadable.add(key);
      if (!part.keys.some((key) => key in options)) continue;
      try {
        // Also without a difference: a file that is named there may have changed.
        await part.reload(options as RouterOptions);
        for (const key of part.keys) if (!isDeepStrictEqual(before[key], options[key])) changed.add(key);
      } catch (error) {
        failures.push(`${part.keys.join(', ')}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
    const needRestart = [...new Set([...Object.keys(this.#atStart), ...Object.keys(options)])].filter(
      (key) =>
        !reloadable.has(key) &&
        !NOT_CONFIGURED.has(key) &&
        !isDeepStrictEqual(this.#atStart[key as keyof RouterOptions], options[key as keyof RouterOptions]),
    );
    return { changed: [...changed].sort(), needRestart: needRestart.sort(), failures };
  }
}

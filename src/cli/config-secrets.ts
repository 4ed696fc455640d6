/** Files and variables that postern.yaml names. What is in them stands in no error. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { invalidParameter } from '../base/errors.ts';

export interface ConfigPlace {
  /** Of the configuration: what it names is relative to it. */
  readonly directory: string;
  readonly environment: NodeJS.ProcessEnv;
}

interface SecretSource {
  readonly password_file?: string | undefined;
  readonly password_env?: string | undefined;
}

/** `owner`: as errors name whose it is. undefined: none is named. */
export function readSecret(place: ConfigPlace, owner: string, from: SecretSource): string | undefined {
  const { password_file: file, password_env: variable } = from;
  if (file !== undefined)
    return notEmpty(
      readLine(place, file, `the password file of ${owner}`),
      `${file}, the password file`,
      owner,
    );
  if (variable === undefined) return undefined;
  const value = place.environment[variable];
  if (value === undefined)
    throw invalidParameter(`the environment has no ${variable}, the password of ${owner}`);
  return notEmpty(value, `${variable}, the variable of the password`, owner);
}

/** A file that is being written, a secret that was not mounted: whoever proves to know nothing must not come in by it. */
function notEmpty(secret: string, where: string, owner: string): string {
  if (secret === '') throw invalidParameter(`${where} of ${owner}, is empty`);
  return secret;
}

/** A file's text without the line end at its end. */
export function readLine(place: ConfigPlace, file: string, what: string): string {
  return readText(place, file, what).replace(/\r?\n$/, '');
}

export function readText(place: ConfigPlace, file: string, what: string): string {
  try {
    return readFileSync(resolve(place.directory, file), 'utf8');
  } catch {
    throw invalidParameter(`cannot read ${what}: ${file}`);
  }
}

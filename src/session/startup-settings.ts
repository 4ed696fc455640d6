/** The settings that a start-up packet asks for: as parameters of their own, or in `options`. */
import { Settings } from '../backend/settings.ts';
import { notSupported } from '../base/errors.ts';
import { refuseSetting, TENANT_SETTING } from '../plan/settings.ts';

const NOT_SETTINGS = new Set(['user', 'database', 'replication', 'options', 'client_encoding']);
const ENCODINGS_TAKEN = new Set(['utf8', 'unicode', 'sqlascii']);

/** Throws 0A000 for what the router can't give each of its backends. */
export function startupSettings(parameters: ReadonlyMap<string, string>): Settings {
  const encoding = parameters.get('client_encoding');
  if (encoding !== undefined && !ENCODINGS_TAKEN.has(encoding.toLowerCase().replaceAll(/[^a-z0-9]/g, '')))
    throw notSupported(`client_encoding ${encoding} is not supported`, 'Use UTF8.');
  const values = startupValues(parameters);
  for (const [name, value] of values) if (name !== TENANT_SETTING) refuseSetting(name, [value]);
  return new Settings(values);
}

/** By their names in lower case, as they are said. */
function startupValues(parameters: ReadonlyMap<string, string>): Map<string, string> {
  const values = new Map<string, string>();
  for (const [name, value] of optionSettings(parameters.get('options') ?? '')) values.set(name, value);
  for (const [name, value] of parameters) if (!NOT_SETTINGS.has(name)) values.set(name.toLowerCase(), value);
  return values;
}

/** `-c name=value` and `--name=value`, blanks in values escaped with a backslash (documentation: libpq "options"). */
function optionSettings(options: string): [string, string][] {
  const words = (options.match(/(?:\\.|[^\s\\])+/g) ?? []).map((word) => word.replaceAll(/\\(.)/g, '$1'));
  const settings: [string, string][] = [];
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    let text: string | undefined;
    if (word === '-c') text = words[++i];
    else if (word.startsWith('-c')) text = word.slice(2);
    else if (word.startsWith('--')) text = word.slice(2);
    const at = text?.indexOf('=') ?? -1;
    if (text === undefined || at <= 0)
      throw notSupported(`the start-up option "${word}" is not supported`, 'Use -c name=value.');
    settings.push([text.slice(0, at).replaceAll('-', '_').toLowerCase(), text.slice(at + 1)]);
  }
  return settings;
}

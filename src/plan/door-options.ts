/**
 * The options of Postern in SQL: WITH (postern.door = 'sharded', postern.key = 'id', …) of CREATE TABLE, and SET (…) of ALTER
 * TABLE. PostgreSQL's grammar takes them, and its servers refuse the namespace, so none may reach a server.
 */
import type { DefElem, Node } from '@pgsql/types';
import { invalidParameter, notSupported } from '../base/errors.ts';
import { stringsOf } from '../sql/facts.ts';
import { type PlacementClause, readPlacementOptions } from './placement-options.ts';

export interface DoorOptions {
  /** Undefined: only `coalesce` is given. */
  readonly door: 'single' | 'sharded' | 'reference' | undefined;
  readonly key: string | undefined;
  readonly placement: PlacementClause;
  readonly colocateWith: string | undefined;
  readonly coalesce: CoalesceOption | undefined;
}

/** May writes to the table share a transaction with others? `default`: by what the table has. */
export type CoalesceOption = 'on' | 'off' | 'default';

const NAMESPACE = 'postern';
const OPTIONS = [
  'door',
  'key',
  'method',
  'bounds',
  'values',
  'buckets',
  'nodes',
  'colocate_with',
  'coalesce',
];
const NO_PLACEMENT: PlacementClause = { placement: undefined, nodes: undefined };
const DOORS_TO_COME = ['leaderless', 'multi_primary', 'write_behind'];

/** The options of Postern among those of the statement, in the order of the text. */
export function posternOptions(options: readonly Node[] | undefined): DefElem[] {
  return (options ?? []).flatMap((node) => {
    const option = 'DefElem' in node ? posternOption(node.DefElem) : undefined;
    return option ? [option] : [];
  });
}

/** The option as one of Postern's, if it is one. pg_dump writes `"postern.door"`, a name with a dot in it. */
export function posternOption(option: DefElem): DefElem | undefined {
  if (option.defnamespace === NAMESPACE) return option;
  const prefix = `${NAMESPACE}.`;
  if (option.defnamespace !== undefined || !option.defname?.startsWith(prefix)) return undefined;
  return { ...option, defnamespace: NAMESPACE, defname: option.defname.slice(prefix.length) };
}

export function readDoorOptions(options: readonly DefElem[]): DoorOptions {
  const values = new Map<string, string>();
  for (const option of options) {
    const name = option.defname ?? '';
    if (!OPTIONS.includes(name)) {
      throw invalidParameter(
        `unrecognized option "${NAMESPACE}.${name}"`,
        `The options are ${OPTIONS.map((known) => `${NAMESPACE}.${known}`).join(', ')}.`,
      );
    }
    if (values.has(name)) throw invalidParameter(`option "${NAMESPACE}.${name}" is given twice`);
    values.set(name, optionText(option));
  }
  const coalesce = coalesceOptionOf(values.get('coalesce'));
  values.delete('coalesce');
  const door = values.get('door');
  if (door === undefined && values.size === 0) {
    return { door, key: undefined, placement: NO_PLACEMENT, colocateWith: undefined, coalesce };
  }
  if (door === undefined) {
    throw invalidParameter('option "postern.door" is missing', "Say postern.door = 'sharded'.");
  }
  if (DOORS_TO_COME.includes(door)) {
    throw notSupported(
      `door "${door}" is not there yet`,
      "Use postern.door = 'sharded' or 'reference', or none.",
    );
  }
  if (door !== 'sharded' && door !== 'reference' && door !== 'single') {
    throw invalidParameter(`unknown door "${door}"`, "The doors are 'single', 'sharded' and 'reference'.");
  }
  if (door === 'reference' && (values.size > 1 || coalesce !== undefined)) {
    throw invalidParameter('door "reference" has no other options', 'Leave the other postern options out.');
  }
  if (door === 'single' && values.size > 1) {
    throw invalidParameter(
      'door "single" has no options but postern.coalesce',
      'Leave the other postern options out.',
    );
  }
  if (door === 'sharded' && !values.get('key')) {
    throw invalidParameter('option "postern.key" is missing', "Name the column: postern.key = 'account_id'.");
  }
  return {
    door,
    key: values.get('key'),
    placement: readPlacementOptions({
      method: values.get('method'),
      bounds: values.get('bounds'),
      values: values.get('values'),
      buckets: values.get('buckets'),
      nodes: values.get('nodes'),
    }),
    colocateWith: values.get('colocate_with'),
    coalesce,
  };
}

export function coalesceOptionOf(text: string | undefined): CoalesceOption | undefined {
  switch (text?.toLowerCase()) {
    case undefined:
      return undefined;
    case 'on':
    case 'true':
      return 'on';
    case 'off':
    case 'false':
      return 'off';
    case 'default':
      return 'default';
    default:
      throw invalidParameter(`invalid value "${text}" for postern.coalesce`, 'It is on, off, or default.');
  }
}

/** 'x' and x and "x" alike; the grammar reads a bare word as a type name. */
function optionText(option: DefElem): string {
  const argument = option.arg;
  if (argument && 'String' in argument) return argument.String.sval ?? '';
  if (argument && 'Integer' in argument) return String(argument.Integer.ival ?? 0);
  if (argument && 'Float' in argument) return argument.Float.fval ?? '';
  if (argument && 'TypeName' in argument) {
    const name = stringsOf(argument.TypeName.names)?.at(-1);
    if (name !== undefined) return name;
  }
  throw invalidParameter(`option "${NAMESPACE}.${option.defname}" needs a value`);
}

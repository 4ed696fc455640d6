/**
 * The options of Postern in SQL: WITH (postern.door = 'sharded', postern.key = 'id', …) of CREATE TABLE, and SET (…) of ALTER
 * TABLE. PostgreSQL's grammar takes them, and its servers refuse the namespace, so none may reach a server.
 */
import type { DefElem, Node } from '@pgsql/types';
import { BOUNDS } from '../base/bounds.ts';
import { invalidParameter, notSupported } from '../base/errors.ts';
import { stringsOf } from '../sql/facts.ts';

export interface DoorOptions {
  /** Undefined: only `coalesce` is given. */
  readonly door: 'single' | 'sharded' | 'reference' | undefined;
  readonly key: string | undefined;
  readonly bucketCount: number | undefined;
  readonly colocateWith: string | undefined;
  readonly coalesce: CoalesceOption | undefined;
}

/** May writes to the table share a transaction with others? `default`: by what the table has. */
export type CoalesceOption = 'on' | 'off' | 'default';

const NAMESPACE = 'postern';
const OPTIONS = ['door', 'key', 'buckets', 'colocate_with', 'coalesce'];
const DOORS_TO_COME = ['leaderless', 'multi_primary', 'write_behind'];
/** A bucket is a table on a node; beyond this a catalog of them is slow to read and to plan over. */
const BUCKETS_MAX = BOUNDS.bucketsMax;

/** The options of Postern among those of the statement, in the order of the text. */
export function posternOptions(options: readonly Node[] | undefined): DefElem[] {
  return (options ?? []).flatMap((node) =>
    'DefElem' in node && node.DefElem.defnamespace === NAMESPACE ? [node.DefElem] : [],
  );
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
    return { door, key: undefined, bucketCount: undefined, colocateWith: undefined, coalesce };
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
    bucketCount: bucketCountOf(values.get('buckets')),
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

export function bucketCountOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const count = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (count < 1 || count > BUCKETS_MAX) {
    throw invalidParameter(
      `invalid number of buckets "${text}"`,
      `It is a whole number from 1 to ${BUCKETS_MAX}.`,
    );
  }
  return count;
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

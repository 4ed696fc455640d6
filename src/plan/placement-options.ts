/**
 * What a statement says about the placement of a table's keys: `postern.method`, `postern.bounds`, `postern.values`,
 * `postern.buckets`, `postern.nodes`, as options or as arguments. Values stay as written here; a server reads them.
 */
import { BOUNDS } from '../base/bounds.ts';
import { invalidParameter } from '../base/errors.ts';

export type PlacementOptions =
  /** `bucketCount`: default: 32. */
  | { readonly method: 'hash'; readonly bucketCount: number | undefined }
  /** `bounds`: an array literal. */
  | { readonly method: 'range'; readonly bounds: string }
  /** `lists`: an array literal for each bucket. `bucketCount`: of keys that are not listed, by hash; default: they have none. */
  | { readonly method: 'list'; readonly lists: readonly string[]; readonly bucketCount: number | undefined };

export interface PlacementTexts {
  readonly method: string | undefined;
  readonly bounds: string | undefined;
  readonly values: string | undefined;
  readonly buckets: string | undefined;
  readonly nodes: string | undefined;
}

export interface PlacementClause {
  /** Undefined: that of the table it is colocated with, or by hash. */
  readonly placement: PlacementOptions | undefined;
  /** Names of the nodes of the buckets that have bounds or values of their own, in their order; undefined: in turn. */
  readonly nodes: readonly string[] | undefined;
}

export function readPlacementOptions(texts: PlacementTexts): PlacementClause {
  const { method, bounds, values, buckets } = texts;
  const nodes = texts.nodes === undefined ? undefined : elementsOf(texts.nodes, 'postern.nodes');
  const given = (name: string, text: string | undefined, of: string) => {
    if (text !== undefined)
      throw invalidParameter(
        `postern.${name} goes with ${of}`,
        `Leave postern.${name} out, or give postern.method.`,
      );
  };
  switch (method?.toLowerCase()) {
    case undefined:
    case 'hash': {
      given('bounds', bounds, "postern.method = 'range'");
      given('values', values, "postern.method = 'list'");
      given('nodes', texts.nodes, "postern.method = 'range' or 'list'");
      const bucketCount = bucketCountOf(buckets);
      const isSaid = method !== undefined || bucketCount !== undefined;
      return { placement: isSaid ? { method: 'hash', bucketCount } : undefined, nodes };
    }
    case 'range':
      given('values', values, "postern.method = 'list'");
      given('buckets', buckets, "postern.method = 'hash' or 'list'");
      if (bounds === undefined)
        throw invalidParameter('option "postern.bounds" is missing', "Say postern.bounds = '{100,200}'.");
      return { placement: { method: 'range', bounds: arrayText(bounds, 'postern.bounds') }, nodes };
    case 'list': {
      given('bounds', bounds, "postern.method = 'range'");
      const bucketCount = buckets === '0' ? 0 : bucketCountOf(buckets);
      const lists = values === undefined ? [] : listsOf(values);
      return { placement: { method: 'list', lists, bucketCount }, nodes };
    }
    default:
      throw invalidParameter(`unknown method "${method}"`, "The methods are 'hash', 'range' and 'list'.");
  }
}

function bucketCountOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const count = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (count < 1 || count > BOUNDS.bucketsMax) {
    throw invalidParameter(
      `invalid number of buckets "${text}"`,
      `It is a whole number from 1 to ${BOUNDS.bucketsMax}.`,
    );
  }
  return count;
}

/** `{1,2}`, `(1,2)` and `1,2` alike. */
function arrayText(text: string, option: string): string {
  return `{${elementsOf(text, option).join(',')}}`;
}

/** `{acme,globex}`: a bucket for each; `{{acme,globex},{initech}}`: acme and globex share one. */
function listsOf(text: string): string[] {
  return elementsOf(text, 'postern.values').map((element) =>
    /^[{(]/.test(element) ? arrayText(element, 'postern.values') : `{${element}}`,
  );
}

const CLOSING: Readonly<Record<string, string>> = { '{': '}', '(': ')' };

/** The parts between the commas outside of quotes and inner brackets, as they are written. */
function elementsOf(text: string, option: string): string[] {
  const malformed = () =>
    invalidParameter(
      `malformed value of ${option}: "${text}"`,
      `Write it as '{a,b}'; quote with double quotes.`,
    );
  let inner = text.trim();
  const close = CLOSING[inner[0] ?? ''];
  if (close !== undefined) {
    if (!inner.endsWith(close)) throw malformed();
    inner = inner.slice(1, -1);
  }
  if (inner.trim() === '') return [];
  const elements: string[] = [];
  let depth = 0;
  let isQuoted = false;
  let start = 0;
  for (let at = 0; at < inner.length; at++) {
    const character = inner[at]!;
    if (character === '\\') at++;
    else if (character === '"') isQuoted = !isQuoted;
    else if (isQuoted) continue;
    else if (character in CLOSING) depth++;
    else if (character === '}' || character === ')') depth--;
    else if (character === ',' && depth === 0) {
      elements.push(inner.slice(start, at).trim());
      start = at + 1;
    }
    if (depth < 0) throw malformed();
  }
  if (isQuoted || depth > 0) throw malformed();
  elements.push(inner.slice(start).trim());
  if (elements.includes('')) throw malformed();
  return elements;
}

/**
 * A relation taken apart into what it consists of, each under a name and with a text that is equal where it means the same: leaves of
 * one table, a face on two nodes, copies of a reference table. And how to say, in SQL, that a relation shall have a part or be rid of it.
 *
 * Names and texts of a leaf are those of its table: the suffix of its bucket is cut off, and put on again for the leaf that is mended.
 */
import { assert } from '../base/assert.ts';
import { LEAF_SCHEMA, leafName } from '../catalog/map.ts';
import { GUARD_TRIGGER } from '../catalog/reference-guard.ts';
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../pg/identifier.ts';
import type { ColumnFacts, GrantFacts, RelationFacts } from './relation-facts.ts';

export type PartKind =
  | 'column'
  | 'constraint'
  | 'foreign key'
  | 'index'
  | 'trigger'
  | 'policy'
  | 'privilege'
  | 'storage parameter'
  | 'property';

export interface Part {
  readonly kind: PartKind;
  /** As the user knows it. */
  readonly name: string;
  /** As it is called on that very relation. */
  readonly real: string;
  /** What is compared, and shown. */
  readonly text: string;
  /** Not there: of a constraint that old rows have not been held against, an index that is not used. */
  readonly isInvalid?: boolean;
  readonly column?: ColumnFacts;
  readonly grant?: GrantFacts;
  readonly unique?: boolean;
  /** Of a trigger: how it is switched, as in pg_trigger.tgenabled. */
  readonly enabled?: string;
}

/** By kind and name. */
export type Shape = ReadonlyMap<string, Part>;

/** The CHECK of a leaf that lets in the rows of its bucket alone (doors/sharded/leaf.ts). */
export const BUCKET_CONSTRAINT = 'postern_bucket';

/** How names of a relation become those of its table, and back. */
export interface Naming {
  plainName(name: string): string;
  plainText(text: string): string;
  realName(plain: string): string;
  realText(plain: string): string;
}

export const OWN_NAMES: Naming = {
  plainName: (name) => name,
  plainText: (text) => text,
  realName: (plain) => plain,
  realText: (plain) => plain,
};

export interface LeafPlace {
  readonly bucket: number;
  readonly generation: number;
}

/** Where a leaf that a foreign key names stands: its table's id, and its table's leaf of a bucket. */
export interface LeafNames {
  tableOfLeaf(leaf: string): number | undefined;
  leafOfTable(tableId: number, bucket: number): string | undefined;
}

const LEAF_IN_TEXT = new RegExp(`\\b${LEAF_SCHEMA}\\.("(?:[^"]|"")+"|[\\w$]+)`, 'gu');
const TABLE_IN_TEXT = new RegExp(`${LEAF_SCHEMA}\\.\\[(\\d+)\\]`, 'g');

/** `known`: names of the table's constraints and indexes that may have been cut. */
export function leafNaming(place: LeafPlace, known: readonly string[], leaves: LeafNames): Naming {
  const { bucket, generation } = place;
  const suffix = `_b${bucket}_g${generation}`;
  const cut = new Map(known.map((name) => [leafName(name, bucket, generation), name]));
  const plainName = (name: string): string =>
    cut.get(name) ?? (name.endsWith(suffix) ? name.slice(0, -suffix.length) : name);
  return {
    plainName,
    plainText: (text) =>
      text.replaceAll(LEAF_IN_TEXT, (whole, quoted: string) => {
        const name = quoted.startsWith('"') ? quoted.slice(1, -1).replaceAll('""', '"') : quoted;
        const tableId = leaves.tableOfLeaf(name);
        return tableId === undefined ? whole : `${LEAF_SCHEMA}.[${tableId}]`;
      }),
    realName: (plain) => leafName(plain, bucket, generation),
    realText: (plain) =>
      plain.replaceAll(TABLE_IN_TEXT, (whole, id: string) => {
        const leaf = leaves.leafOfTable(Number(id), bucket);
        return leaf === undefined ? whole : quoteQualified(LEAF_SCHEMA, leaf);
      }),
  };
}

export function shapeOf(relation: RelationFacts, naming: Naming): Shape {
  const shape = new Map<string, Part>();
  const add = (part: Omit<Part, 'real'> & { readonly real?: string }) =>
    shape.set(keyOf(part), { real: part.name, ...part });
  const property = (name: string, text: string) => add({ kind: 'property', name, text });
  for (const column of relation.columns)
    add({ kind: 'column', name: column.name, text: columnText(column), column });
  for (const { name, kind, definition, valid } of relation.constraints) {
    if (name === BUCKET_CONSTRAINT) continue;
    const part = { text: naming.plainText(definition), isInvalid: !valid };
    // Constraints that are no index's and no foreign key keep the face's names, since they are the table's own.
    const plain = kind === 'c' ? name : naming.plainName(name);
    add({ kind: kind === 'f' ? 'foreign key' : 'constraint', name: plain, real: name, ...part });
  }
  for (const { name, unique, definition, valid, ofConstraint } of relation.indexes) {
    const plain = naming.plainName(name);
    const tail = definition.slice(definition.indexOf(' USING '));
    const isInvalid = !valid && relation.kind === 'r';
    if (!ofConstraint)
      add({
        ...{ kind: 'index', name: plain, real: name, isInvalid, unique },
        text: `${unique ? 'UNIQUE ' : ''}INDEX${tail}`,
      });
    else if (isInvalid) {
      const key = keyOf({ kind: 'constraint', name: plain });
      const constraint = shape.get(key);
      if (constraint) shape.set(key, { ...constraint, isInvalid });
    }
  }
  for (const { name, definition, enabled } of relation.triggers) {
    if (name === GUARD_TRIGGER) continue;
    const text = naming.plainText(definition.replace(` ON ${relation.printed} `, ' ON … '));
    add({ kind: 'trigger', name, text, enabled });
  }
  for (const { name, definition } of relation.policies) add({ kind: 'policy', name, text: definition });
  for (const grant of relation.grants) {
    if (grant.grantee === relation.owner) continue;
    add({
      kind: 'privilege',
      name: grantName(grant),
      text: grant.grantable ? 'with grant option' : 'granted',
      grant,
    });
  }
  for (const { name, value } of relation.options) add({ kind: 'storage parameter', name, text: value });
  property('owner', relation.owner);
  property('row-level security', relation.rowSecurity ? 'on' : 'off');
  property('row-level security for the owner', relation.forcedRowSecurity ? 'on' : 'off');
  property('persistence', relation.persistence === 'u' ? 'unlogged' : 'logged');
  return shape;
}

export function keyOf({ kind, name }: Pick<Part, 'kind' | 'name'>): string {
  return `${kind} ${name}`;
}

function grantName({ privilege, grantee, column }: GrantFacts): string {
  const what = column === null ? privilege : `${privilege} (${column})`;
  return `${what} of ${grantee ?? 'PUBLIC'}`;
}

function columnText(column: ColumnFacts): string {
  const { type, collation, notNull, expression, generated, identity } = column;
  const parts = [type];
  if (collation !== null) parts.push(`COLLATE ${collation}`);
  if (notNull) parts.push('NOT NULL');
  if (identity !== '') parts.push(`GENERATED ${identity === 'a' ? 'ALWAYS' : 'BY DEFAULT'} AS IDENTITY`);
  else if (generated !== '')
    parts.push(`GENERATED ALWAYS AS (${expression}) ${generated === 's' ? 'STORED' : 'VIRTUAL'}`);
  else if (expression !== null) parts.push(`DEFAULT ${expression}`);
  return parts.join(' ');
}

/** The relation that statements are for. */
export interface Target {
  readonly schema: string;
  readonly name: string;
  readonly naming: Naming;
  readonly isPartitioned: boolean;
}

export function qualified({ schema, name }: Pick<Target, 'schema' | 'name'>): string {
  return quoteQualified(schema, name);
}

const SWITCHES: Readonly<Record<string, string>> = {
  O: 'ENABLE TRIGGER',
  D: 'DISABLE TRIGGER',
  R: 'ENABLE REPLICA TRIGGER',
  A: 'ENABLE ALWAYS TRIGGER',
};

export function createPart(part: Part, target: Target): readonly string[] {
  const table = qualified(target);
  const real = quoteIdentifier(target.naming.realName(part.name));
  const own = quoteIdentifier(part.name);
  const text = target.naming.realText(part.text);
  switch (part.kind) {
    case 'column':
      return [`ALTER TABLE ${table} ADD COLUMN ${own} ${text}`];
    case 'constraint':
    case 'foreign key': {
      const name = text.startsWith('CHECK ') ? own : real;
      return [`ALTER TABLE ${table} ADD CONSTRAINT ${name} ${text}`];
    }
    case 'index': {
      const tail = text.slice(text.indexOf(' USING '));
      const only = target.isPartitioned ? 'ONLY ' : '';
      return [`CREATE ${part.unique ? 'UNIQUE ' : ''}INDEX ${real} ON ${only}${table}${tail}`];
    }
    case 'trigger':
      return [text.replace(' ON … ', ` ON ${table} `), ...switchTrigger(part, table, 'O')];
    case 'policy':
      return [`CREATE POLICY ${own} ON ${table}${part.text}`];
    case 'privilege':
      return [
        `GRANT ${grantWords(part)}${table} TO ${granteeOf(part)}${part.grant!.grantable ? ' WITH GRANT OPTION' : ''}`,
      ];
    case 'storage parameter':
      return [`ALTER TABLE ${table} SET (${own} = ${quoteLiteral(part.text)})`];
    case 'property':
      return [propertyStatement(part, table)];
  }
}

/** `part` is one of that very relation. */
export function dropPart(part: Part, target: Target): readonly string[] {
  const table = qualified(target);
  const own = quoteIdentifier(part.real);
  switch (part.kind) {
    case 'column':
      return [`ALTER TABLE ${table} DROP COLUMN ${own}`];
    case 'constraint':
    case 'foreign key':
      return [`ALTER TABLE ${table} DROP CONSTRAINT ${own}`];
    case 'index':
      return [`DROP INDEX ${quoteQualified(target.schema, part.real)}`];
    case 'trigger':
      return [`DROP TRIGGER ${own} ON ${table}`];
    case 'policy':
      return [`DROP POLICY ${own} ON ${table}`];
    case 'privilege':
      return [`REVOKE ${grantWords(part)}${table} FROM ${granteeOf(part)}`];
    case 'storage parameter':
      return [`ALTER TABLE ${table} RESET (${own})`];
    case 'property':
      return [];
  }
}

/** From `found` to `expected`, which have the same kind and name and other texts. */
export function changePart(found: Part, expected: Part, target: Target): readonly string[] {
  const table = qualified(target);
  switch (expected.kind) {
    case 'column':
      return changeColumn(found, expected, table);
    case 'trigger':
      if (found.text === expected.text) return switchTrigger(expected, table, found.enabled ?? 'O');
      return [...dropPart(found, target), ...createPart(expected, target)];
    case 'privilege':
      if (expected.grant?.grantable) return createPart(expected, target);
      return [`REVOKE GRANT OPTION FOR ${grantWords(found)}${table} FROM ${granteeOf(found)}`];
    case 'property':
    case 'storage parameter':
      return createPart(expected, target);
    default:
      return [...dropPart(found, target), ...createPart(expected, target)];
  }
}

export function validatePart({ real }: Part, target: Target, isIndex: boolean): readonly string[] {
  if (isIndex) return [`REINDEX INDEX ${quoteQualified(target.schema, real)}`];
  return [`ALTER TABLE ${qualified(target)} VALIDATE CONSTRAINT ${quoteIdentifier(real)}`];
}

function changeColumn(found: Part, expected: Part, table: string): readonly string[] {
  const [is, shall] = [found.column, expected.column];
  assert(is && shall, 'the part of a column has the column');
  const alter = `ALTER TABLE ${table} ALTER COLUMN ${quoteIdentifier(expected.name)}`;
  const statements: string[] = [];
  const changesType = is.type !== shall.type || is.collation !== shall.collation;
  const plainDefault = (column: ColumnFacts) => (column.generated === '' ? column.expression : null);
  if (changesType) {
    const collate = shall.collation === null ? '' : ` COLLATE ${shall.collation}`;
    if (plainDefault(is) !== null) statements.push(`${alter} DROP DEFAULT`);
    statements.push(
      `${alter} TYPE ${shall.type}${collate} USING ${quoteIdentifier(expected.name)}::${shall.type}`,
    );
  }
  if (is.notNull !== shall.notNull) statements.push(`${alter} ${shall.notNull ? 'SET' : 'DROP'} NOT NULL`);
  const wanted = plainDefault(shall);
  if (wanted !== plainDefault(is) || (changesType && wanted !== null))
    statements.push(wanted === null ? `${alter} DROP DEFAULT` : `${alter} SET DEFAULT ${wanted}`);
  if (is.identity !== shall.identity && shall.identity === '') statements.push(`${alter} DROP IDENTITY`);
  return statements;
}

function switchTrigger(part: Part, table: string, from: string): readonly string[] {
  const enabled = part.enabled ?? 'O';
  if (enabled === from) return [];
  return [`ALTER TABLE ${table} ${SWITCHES[enabled]} ${quoteIdentifier(part.name)}`];
}

function grantWords({ grant }: Part): string {
  assert(grant, 'the part of a privilege has the privilege');
  return `${grant.privilege}${grant.column === null ? '' : ` (${quoteIdentifier(grant.column)})`} ON `;
}

function granteeOf({ grant }: Part): string {
  return grant?.grantee == null ? 'PUBLIC' : quoteIdentifier(grant.grantee);
}

function propertyStatement({ name, text }: Part, table: string): string {
  const alter = `ALTER TABLE ${table}`;
  if (name === 'owner') return `${alter} OWNER TO ${quoteIdentifier(text)}`;
  if (name === 'persistence') return `${alter} SET ${text.toUpperCase()}`;
  if (name === 'row-level security')
    return `${alter} ${text === 'on' ? 'ENABLE' : 'DISABLE'} ROW LEVEL SECURITY`;
  return `${alter} ${text === 'on' ? '' : 'NO '}FORCE ROW LEVEL SECURITY`;
}

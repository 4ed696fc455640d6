/**
 * The SQL that makes leaves after a face: ordinary tables with the face's columns, constraints and indexes, each with a
 * CHECK that lets in only the rows of its bucket.
 *
 * Invariant: a row is in the leaf of the bucket that PostgreSQL's own hash or comparison gives it, whatever a router believed: the
 * server refuses others. The check needs no privilege on the face (it calls a function on its OID; tried on 15 and 18).
 * Invariant: names that an error message may bear are the face's with `leafSuffix`, so cutting it gives the user's name.
 * Check constraints keep the face's names, since they are a table's own and not a schema's.
 */
import { LEAF_SCHEMA, leafName, type TablePlacement } from '../../catalog/map.ts';
import { bucketCondition } from '../../catalog/placement-sql.ts';
import { storageClause } from '../../ddl/definition.ts';
import { statementOn } from '../../ddl/table-extras.ts';
import { quoteIdentifier, quoteQualified } from '../../pg/identifier.ts';
import type { Face } from './face.ts';
import { definitionOnLeaf, type ForeignTargets } from './foreign-keys.ts';
import type { ShardKey } from './key.ts';

export const BUCKET_CONSTRAINT = 'postern_bucket';

export interface LeafSpec {
  readonly bucket: number;
  readonly placement: TablePlacement;
  readonly generation: number;
  readonly key: ShardKey;
  /** Storage parameters, e.g. fillfactor, as text values by name. */
  readonly storage: ReadonlyMap<string, string>;
  /** Default: the face has no foreign key to a sharded table. */
  readonly targets?: ForeignTargets;
  /** It is of another node's bucket, and takes no row: home's catalogs show by it what a face can't have. */
  readonly isForCatalog?: boolean;
}

export function qualifiedLeaf(table: string, bucket: number, generation: number): string {
  return quoteQualified(LEAF_SCHEMA, leafName(table, bucket, generation));
}

/** Statements to be run with the owner's role, which then owns the leaf. */
export function createLeafStatements(face: Face, spec: LeafSpec): string[] {
  const faceName = quoteQualified(face.schema, face.name);
  const leaf = qualifiedLeaf(face.name, spec.bucket, spec.generation);
  const nameOnLeaf = (name: string) => quoteIdentifier(leafName(name, spec.bucket, spec.generation));
  const key = { name: quoteIdentifier(spec.key.column), type: spec.key.type };
  const check = spec.isForCatalog
    ? 'false'
    : bucketCondition(spec.placement, key, { face: faceName, bucket: spec.bucket });
  const statements = [
    `CREATE TABLE ${leaf} (LIKE ${faceName} INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY, ` +
      `CONSTRAINT ${BUCKET_CONSTRAINT} CHECK (${check}))${storageClause(spec.storage)}`,
  ];
  const definitionOf = (constraint: Face['constraints'][number]) => {
    const key = face.references.find(({ name }) => name === constraint.name);
    return key ? definitionOnLeaf(key, spec.targets ?? new Map(), spec.bucket) : constraint.definition;
  };
  const alterations = [
    ...face.sequences.map((column) => `ALTER COLUMN ${quoteIdentifier(column.name)} DROP DEFAULT`),
    ...face.constraints.map(
      (constraint) => `ADD CONSTRAINT ${nameOnLeaf(constraint.name)} ${definitionOf(constraint)}`,
    ),
  ];
  if (alterations.length > 0) statements.push(`ALTER TABLE ${leaf} ${alterations.join(', ')}`);
  for (const index of face.indexes) {
    const unique = index.unique ? 'UNIQUE ' : '';
    statements.push(`CREATE ${unique}INDEX ${nameOnLeaf(index.name)} ON ${leaf}${index.tail}`);
  }
  for (const grant of face.grants) {
    const grantee = grant.grantee === undefined ? 'PUBLIC' : quoteIdentifier(grant.grantee);
    const option = grant.grantable ? ' WITH GRANT OPTION' : '';
    statements.push(`GRANT ${grant.privilege} ON ${leaf} TO ${grantee}${option}`);
  }
  return [...statements, ...face.extras.statements.map((statement) => statementOn(leaf, statement))];
}

/**
 * Takes the foreign keys of the face away, which its leaves have, and every privilege on it, the owner's too: a function or view
 * that reaches the empty face then gets 42501 and not an empty answer. But for REFERENCES, so that the owner's next table can name it
 * in a foreign key. Run last: making leaves LIKE the face needs SELECT on it.
 */
export function closeFaceStatements(face: Face): string[] {
  const grantees = new Set(['PUBLIC', quoteIdentifier(face.owner)]);
  for (const grant of face.grants)
    if (grant.grantee !== undefined) grantees.add(quoteIdentifier(grant.grantee));
  for (const grantee of face.extras.columnGrantees)
    if (grantee !== undefined) grantees.add(quoteIdentifier(grantee));
  const name = quoteQualified(face.schema, face.name);
  // The server checks a deletion of a referenced row against the face too, as its owner, who may not read it any more.
  const dropped = face.foreignKeys.map((key) => `DROP CONSTRAINT ${quoteIdentifier(key)}`);
  const drop = dropped.length > 0 ? [`ALTER TABLE ${name} ${dropped.join(', ')}`] : [];
  return [
    ...drop,
    `REVOKE ALL ON ${name} FROM ${[...grantees].join(', ')}`,
    `GRANT REFERENCES ON ${name} TO ${quoteIdentifier(face.owner)}`,
  ];
}

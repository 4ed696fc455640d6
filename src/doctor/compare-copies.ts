/** Copies of reference tables and the tables of lookups: what each node should have of them. Their rows are compared in contents.ts. */
import { LOOKUP_KEY } from '../catalog/lookup-objects.ts';
import {
  LEAF_SCHEMA,
  type Lookup,
  leafName,
  type ReferenceTable,
  type ShardedTable,
} from '../catalog/map.ts';
import { GUARD_TRIGGER, guardSql } from '../catalog/reference-guard.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../pg/identifier.ts';
import { type NodeTables, relationKey, type TablesContext, tableWords } from './compare-leaves.ts';
import { compareShapes } from './compare-shapes.ts';
import { type Finding, onNode } from './finding.ts';
import type { RelationFacts } from './relation-facts.ts';
import { recordFace, remakeCopies, remakeLookup } from './remake.ts';
import { OWN_NAMES, shapeOf } from './shape.ts';

/** The values of a copy all come from home, whatever its own defaults are; the key of a SERIAL column is home's. */
export function compareCopies(context: TablesContext, tables: readonly ReferenceTable[]): readonly Finding[] {
  const home = context.nodes.find(({ node }) => node.id === context.map.homeNodeId);
  return tables.flatMap((table) => {
    const truth = home?.relations.get(relationKey(table.schema, table.name));
    return context.nodes.flatMap((on): readonly Finding[] => {
      const is = on.relations.get(relationKey(table.schema, table.name));
      return is ? copyItself(context, on, table, is, truth) : [missingCopy(on, table)];
    });
  });
}

function missingCopy(on: NodeTables, table: ReferenceTable): Finding {
  const record = on.records.faces.find(({ tableId }) => tableId === table.id);
  const object = `copy of ${tableWords(table)}`;
  const base = { topic: 'references', severity: 'error', node: on.node.name, object } as const;
  if (record?.relation != null)
    return {
      ...base,
      message: `it is called ${record.relation} there: every write to the table fails`,
      ...{ found: record.relation, expected: tableWords(table) },
      remedies: onNode(
        on.node.name,
        `ALTER TABLE ${record.relation.split('.').map(quoteIdentifier).join('.')} RENAME TO ${quoteIdentifier(table.name)}`,
      ),
    };
  return {
    ...base,
    message: 'it is not there: every write to the table fails',
    advice: "All copies are made anew from home's rows.",
    remedies: remakeCopies(table),
  };
}

function copyItself(
  context: TablesContext,
  on: NodeTables,
  table: ReferenceTable,
  is: RelationFacts,
  truth: RelationFacts | undefined,
): readonly Finding[] {
  const node = on.node.name;
  const name = quoteQualified(table.schema, table.name);
  const object = `copy of ${tableWords(table)}`;
  const findings: Finding[] = [];
  const guard = is.triggers.find((trigger) => trigger.name === GUARD_TRIGGER);
  if (!guard || guard.enabled === 'D') {
    const ids = node === nodeNameOf(context) ? context.map.nodes.map(({ id }) => id) : undefined;
    findings.push({
      ...{ topic: 'references', severity: 'error', node, object },
      message: guard
        ? 'its guard is disabled: a write on that node alone makes the copies differ'
        : 'its guard is missing: a write on that node alone makes the copies differ',
      remedies: onNode(
        node,
        guard ? `ALTER TABLE ${name} ENABLE TRIGGER ${GUARD_TRIGGER}` : guardSql(name, ids),
      ),
    });
  }
  if (!on.records.faces.some(({ tableId, oid }) => tableId === table.id && oid === is.oid))
    findings.push({
      ...{ topic: 'references', severity: 'error', node, object, message: 'the node has no record of it' },
      remedies: onNode(node, recordFace(table.id, name)),
    });
  if (!truth || truth === is) return findings;
  return [
    ...findings,
    ...compareShapes({
      ...{ topic: 'references', node, object, against: "home's table" },
      target: { schema: table.schema, name: table.name, naming: OWN_NAMES, isPartitioned: false },
      found: shapeOf(withoutDefaults(is), OWN_NAMES),
      expected: shapeOf(withoutDefaults(truth), OWN_NAMES),
    }),
  ];
}

function nodeNameOf({ map }: TablesContext): string | undefined {
  return map.nodes.find(({ id }) => id === map.homeNodeId)?.name;
}

function withoutDefaults(relation: RelationFacts): RelationFacts {
  const columns = relation.columns.map((column) =>
    column.generated === '' ? { ...column, expression: null, identity: '' as const } : column,
  );
  return { ...relation, columns };
}

/** Entries of a lookup are in tables beside the leaves, for the same buckets on the same nodes. */
export function compareLookups(context: TablesContext): readonly Finding[] {
  return context.tables.flatMap((table) =>
    (table.lookups ?? []).flatMap((lookup) =>
      context.nodes.flatMap((on) =>
        [...table.buckets.entries()].flatMap(([bucket, { nodeId, generation }]) => {
          const name = leafName(lookup.table.name, bucket, generation);
          if (nodeId !== on.node.id || on.relations.has(relationKey(LEAF_SCHEMA, name))) return [];
          return [missingLookup(on, table, { lookup, bucket, generation, name })];
        }),
      ),
    ),
  );
}

function missingLookup(
  on: NodeTables,
  table: ShardedTable,
  at: {
    readonly lookup: Lookup;
    readonly bucket: number;
    readonly generation: number;
    readonly name: string;
  },
): Finding {
  const { lookup, bucket, generation, name } = at;
  const leaf = leafName(table.name, bucket, generation);
  const owner = on.relations.get(relationKey(LEAF_SCHEMA, leaf))?.owner;
  const kept = quoteQualified(LEAF_SCHEMA, name);
  const columns = lookup.columns.map(quoteIdentifier).join(', ');
  const key = quoteIdentifier(leafName(`${lookup.table.name}_pkey`, bucket, generation));
  return {
    ...{ topic: 'lookups', severity: 'error', node: on.node.name },
    object: `lookup ${lookup.name} of ${tableWords(table)}, bucket ${bucket}`,
    message: 'its table is not there: writes of such values fail',
    expected: name,
    advice:
      'An empty one is made, so that the constraint can be dropped and made anew from the rows of the table.',
    remedies: [
      ...onNode(
        on.node.name,
        `CREATE TABLE ${kept} AS SELECT ${columns}, ${quoteIdentifier(table.keyColumn)} AS ${LOOKUP_KEY} FROM ${quoteQualified(LEAF_SCHEMA, leaf)} WITH NO DATA`,
        `ALTER TABLE ${kept} ADD CONSTRAINT ${key} PRIMARY KEY (${columns})`,
        ...(owner === undefined ? [] : [`ALTER TABLE ${kept} OWNER TO ${quoteIdentifier(owner)}`]),
        `DELETE FROM ${INTERNAL_SCHEMA}.local_lookups WHERE lookup_id = ${lookup.id} AND bucket = ${bucket}`,
        `INSERT INTO ${INTERNAL_SCHEMA}.local_lookups (table_id, lookup_id, bucket, generation, leaf) VALUES (${table.id}, ${lookup.id}, ${bucket}, ${generation}, ${quoteLiteral(kept)}::regclass)`,
      ),
      ...remakeLookup(table, lookup),
    ],
  };
}

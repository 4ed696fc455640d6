/**
 * Faces of sharded tables, and schemas of a node of their own: what each node should have of them, beside leaves (compare-leaves.ts). And
 * what is in Postern's schema and shouldn't be.
 */

import { LEAF_SCHEMA, leafBucketsOn, leafName, type ShardedTable } from '../catalog/map.ts';
import { partitionStrategy } from '../catalog/placement-sql.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../pg/identifier.ts';
import type { CatalogFacts } from './catalog-facts.ts';
import { majority, type NodeTables, relationKey, type TablesContext, tableWords } from './compare-leaves.ts';
import { compareShapes } from './compare-shapes.ts';
import { type Finding, onNode } from './finding.ts';
import type { RelationFacts } from './relation-facts.ts';
import { recordFace } from './remake.ts';
import { createPart, leafNaming, OWN_NAMES, type Part, type Shape, shapeOf, type Target } from './shape.ts';

/** In the order in which they are mended: leaves are made after faces. */
export function compareFaces(context: TablesContext, catalog: CatalogFacts): readonly Finding[] {
  const home = context.nodes.find(({ node }) => node.id === context.map.homeNodeId);
  const findings: Finding[] = catalog.faceless.map(({ schema, name }) => ({
    ...{ topic: 'tables', severity: 'error', node: catalog.home, object: `table ${schema}.${name}` },
    message:
      'its face was dropped on the home node: nothing can be planned for it, while its rows are still in its leaves',
    advice: `Restore the definition of ${schema}.${name} from a backup of ${catalog.home} (pg_restore --schema-only), then put it into the record: UPDATE ${INTERNAL_SCHEMA}.local_tables SET face = … WHERE table_id = …`,
    remedies: [],
  }));
  for (const table of context.tables) {
    const truth = home?.relations.get(relationKey(table.schema, table.name));
    for (const on of context.nodes) {
      const is = on.relations.get(relationKey(table.schema, table.name));
      if (is?.kind === 'p') findings.push(...faceItself(on, table, is, truth));
      else findings.push(missingFace(on, table, is, truth));
    }
    if (truth && home && !context.underDdl.has(table.id))
      findings.push(...behindLeaves(context, home, table, truth));
  }
  return findings;
}

function faceItself(
  on: NodeTables,
  table: ShardedTable,
  is: RelationFacts,
  truth: RelationFacts | undefined,
): readonly Finding[] {
  const findings: Finding[] = [];
  const node = on.node.name;
  const name = quoteQualified(table.schema, table.name);
  const base = { topic: 'tables', node, object: `face of ${tableWords(table)}` } as const;
  if (is.children > 0)
    findings.push({
      ...{ ...base, severity: 'error', message: 'it has partitions: rows in them are seen by no router' },
      advice: 'Move their rows through the router, and then drop them. The query lists them.',
      remedies: onNode(
        node,
        `SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = ${quoteLiteral(name)}::regclass`,
      ),
    });
  const open = is.grants.filter(
    ({ grantee, privilege }) => grantee !== is.owner || privilege !== 'REFERENCES',
  );
  if (open.length > 0)
    findings.push({
      ...{ ...base, severity: 'error' },
      message:
        'there are privileges on it: functions and views of that node would take it for an empty table',
      found: open.map(({ grantee, privilege }) => `${privilege} of ${grantee ?? 'PUBLIC'}`).join(', '),
      remedies: onNode(
        node,
        ...[...new Set(open.map(({ grantee }) => grantee))].map(
          (grantee) => `REVOKE ALL ON ${name} FROM ${grantee === null ? 'PUBLIC' : quoteIdentifier(grantee)}`,
        ),
        `GRANT REFERENCES ON ${name} TO ${quoteIdentifier(is.owner)}`,
      ),
    });
  const record = on.records.faces.find(({ tableId }) => tableId === table.id);
  if (!record || record.oid !== is.oid)
    findings.push({
      ...{ ...base, severity: 'error', message: 'the node has no record of it' },
      remedies: onNode(node, recordFace(table.id, name)),
    });
  if (!truth || truth === is) return findings;
  if (truth.partitionKey !== is.partitionKey)
    findings.push({
      ...{ ...base, severity: 'error', message: 'it is partitioned otherwise than on the home node' },
      ...{ found: is.partitionKey ?? '', expected: truth.partitionKey ?? '' },
      advice: 'DROP TABLE it there with CASCADE, and let this command say how to make it anew.',
      remedies: [],
    });
  findings.push(
    ...compareShapes({
      ...base,
      against: "home's face",
      target: faceTarget(table),
      found: shapeOf(is, OWN_NAMES),
      expected: shapeOf(truth, OWN_NAMES),
      // An own sequence has no other use there than to be what the column has by default.
      ignores: ({ kind }) => kind === 'privilege' || kind === 'storage parameter',
    }),
  );
  return findings;
}

function faceTarget({ schema, name }: ShardedTable): Target {
  return { schema, name, naming: OWN_NAMES, isPartitioned: true };
}

function missingFace(
  on: NodeTables,
  table: ShardedTable,
  is: RelationFacts | undefined,
  truth: RelationFacts | undefined,
): Finding {
  const node = on.node.name;
  const base = { topic: 'tables', severity: 'error', node, object: `face of ${tableWords(table)}` } as const;
  const record = on.records.faces.find(({ tableId }) => tableId === table.id);
  if (record?.relation != null && record.relation !== relationKey(table.schema, table.name)) {
    const [schema = '', ...rest] = record.relation.split('.');
    const old = rest.join('.');
    const statements = [];
    if (old !== table.name)
      statements.push(`ALTER TABLE ${quoteQualified(schema, old)} RENAME TO ${quoteIdentifier(table.name)}`);
    if (schema !== table.schema)
      statements.push(
        `ALTER TABLE ${quoteQualified(schema, table.name)} SET SCHEMA ${quoteIdentifier(table.schema)}`,
      );
    return {
      ...base,
      message: `it is called ${record.relation} there`,
      ...{ found: record.relation, expected: tableWords(table) },
      remedies: onNode(node, ...statements),
    };
  }
  if (is)
    return {
      ...base,
      message: 'a table without partitions has its name there',
      advice: 'Rename that table, or drop it, and let this command say how to make the face anew.',
      remedies: [],
    };
  if (!truth) return { ...base, message: 'it is not there', remedies: [] };
  const shape = shapeOf(truth, OWN_NAMES);
  const target = faceTarget(table);
  const name = quoteQualified(table.schema, table.name);
  const parts = [...shape.values()];
  const columns = parts
    .filter(({ kind }) => kind === 'column')
    .map((part) => `${quoteIdentifier(part.name)} ${columnWithoutSequence(part, table)}`);
  return {
    ...base,
    message: 'it is not there: new leaves can be made there no more, and DDL of the table fails',
    remedies: onNode(
      node,
      `CREATE TABLE ${name} (${columns.join(', ')}) PARTITION BY ${truth.partitionKey ?? `${partitionStrategy(table.placement)} (${quoteIdentifier(table.keyColumn)})`}`,
      `ALTER TABLE ${name} OWNER TO ${quoteIdentifier(truth.owner)}`,
      ...parts
        .filter(({ kind, name: what, text }) =>
          kind === 'property'
            ? what.startsWith('row') && text === 'on'
            : !['column', 'privilege'].includes(kind),
        )
        .flatMap((part) => createPart(part, target)),
      `REVOKE ALL ON ${name} FROM PUBLIC, ${quoteIdentifier(truth.owner)}`,
      `GRANT REFERENCES ON ${name} TO ${quoteIdentifier(truth.owner)}`,
      recordFace(table.id, name),
    ),
  };
}

/** As SERIAL makes it: a sequence of the node's own, from which nobody takes a value. */
function columnWithoutSequence(part: Part, table: ShardedTable): string {
  const column = table.columns.find(({ name }) => name === part.name);
  const { column: facts } = part;
  if (!column?.sequence || !facts || facts.identity !== '') return part.text;
  const serial = { smallint: 'smallserial', integer: 'serial', bigint: 'bigserial' }[facts.type];
  return serial ?? facts.type;
}

/** What most leaves have and the face of home lacks: clients are not shown it, and new leaves won't have it. */
function behindLeaves(
  context: TablesContext,
  home: NodeTables,
  table: ShardedTable,
  truth: RelationFacts,
): readonly Finding[] {
  const leaves = leafShapes(context, table, truth);
  const face = shapeOf(truth, OWN_NAMES);
  const findings: Finding[] = [];
  for (const [key, part] of majority(leaves, undefined)) {
    const isOfLeaves = !['column', 'constraint', 'index'].includes(part.kind);
    if (isOfLeaves || face.has(key)) continue;
    findings.push({
      ...{
        topic: 'tables',
        severity: 'warning',
        node: home.node.name,
        object: `face of ${tableWords(table)}`,
      },
      message: `${part.kind} ${part.name} is missing, and leaves have it`,
      expected: part.text,
      remedies: onNode(home.node.name, ...createPart(part, faceTarget(table))),
    });
  }
  return findings;
}

function leafShapes(context: TablesContext, table: ShardedTable, truth: RelationFacts): readonly Shape[] {
  const known = [...truth.constraints, ...truth.indexes].map(({ name }) => name);
  const none = { tableOfLeaf: () => undefined, leafOfTable: () => undefined };
  return context.nodes.flatMap(({ node, relations }) =>
    leafBucketsOn(table, node.id, context.map.homeNodeId).flatMap((bucket) => {
      const { generation } = table.buckets[bucket]!;
      const leaf = relations.get(relationKey(LEAF_SCHEMA, leafName(table.name, bucket, generation)));
      return leaf ? [shapeOf(leaf, leafNaming({ bucket, generation }, known, none))] : [];
    }),
  );
}

/** Tables in the leaves' schema that the map doesn't know of, and records of what is no more. */
export function findStrangers(context: TablesContext, catalog: CatalogFacts): readonly Finding[] {
  const { map } = context;
  const knownIds = new Set<number>();
  const tables: ShardedTable[] = [];
  for (const bySchema of map.tables.values())
    for (const table of bySchema.values()) {
      knownIds.add(table.id);
      tables.push(table);
    }
  for (const bySchema of map.references.values()) for (const { id } of bySchema.values()) knownIds.add(id);
  const isBusy = catalog.unfinishedTables.some(({ isWorkedOn }) => isWorkedOn);
  const findings: Finding[] = [];
  for (const on of context.nodes) {
    const expected = expectedLeaves(tables, on.node.id, map.homeNodeId);
    for (const relation of on.relations.values()) {
      if (relation.schema !== LEAF_SCHEMA || expected.has(relation.name)) continue;
      const record = [...on.records.leaves, ...on.records.lookups].find(
        (one) => one.relation === relation.name,
      );
      // Found by its record as a leaf that was renamed.
      const wanted = record && tables.find(({ id }) => id === record.tableId);
      if (wanted?.buckets[record!.bucket]?.generation === record?.generation && wanted) continue;
      if (isBusy) continue;
      findings.push(stranger(on, relation, { isRecorded: record !== undefined, tables }));
    }
    for (const { tableId, relation } of on.records.faces) {
      if (knownIds.has(tableId) || relation !== null || isBusy) continue;
      if (catalog.faceless.some(({ id }) => id === tableId)) continue;
      findings.push({
        ...{ topic: 'tables', severity: 'note', node: on.node.name, object: `record of table ${tableId}` },
        message: 'neither the catalog nor the node has that table',
        remedies: onNode(
          on.node.name,
          `DELETE FROM ${INTERNAL_SCHEMA}.local_tables WHERE table_id = ${tableId}`,
        ),
      });
    }
  }
  return findings;
}

function expectedLeaves(
  tables: readonly ShardedTable[],
  nodeId: number,
  homeNodeId: number,
): ReadonlySet<string> {
  const names = new Set<string>();
  for (const table of tables) {
    for (const bucket of leafBucketsOn(table, nodeId, homeNodeId))
      names.add(leafName(table.name, bucket, table.buckets[bucket]!.generation));
    for (const lookup of table.lookups ?? [])
      for (const [bucket, place] of table.buckets.entries())
        if (place.nodeId === nodeId) names.add(leafName(lookup.table.name, bucket, place.generation));
  }
  return names;
}

function stranger(
  on: NodeTables,
  relation: RelationFacts,
  { isRecorded, tables }: { readonly isRecorded: boolean; readonly tables: readonly ShardedTable[] },
): Finding {
  const owner = tables.find(({ name, buckets }) =>
    buckets.some(({ generation }, bucket) => leafName(name, bucket, generation) === relation.name),
  );
  const name = quoteQualified(LEAF_SCHEMA, relation.name);
  const generation = /_b(\d+)_g(\d+)$/.exec(relation.name);
  const why = owner
    ? `the catalog has this bucket of ${tableWords(owner)} on another node`
    : generation
      ? 'the catalog knows no such bucket with this generation'
      : 'it is no leaf of any table';
  return {
    ...{ topic: 'leaves', severity: isRecorded ? 'note' : 'warning', node: on.node.name },
    object: `table ${LEAF_SCHEMA}.${relation.name}`,
    message: `${why}: no statement reads or writes it`,
    found: `${Math.round(relation.bytes / 1024)} kB`,
    advice: 'Look first whether it holds rows that are missing elsewhere; keep a copy of them.',
    remedies: onNode(on.node.name, `DROP TABLE ${name}`),
  };
}

/** Schemas that live on a node of their own. */
export function comparePlacedSchemas(
  context: TablesContext,
  schemas: ReadonlyMap<string, ReadonlySet<string>>,
): readonly Finding[] {
  return [...context.map.schemas.values()].flatMap(({ name, nodeId }): readonly Finding[] => {
    const on = context.nodes.find(({ node }) => node.id === nodeId);
    if (!on || schemas.get(on.node.name)?.has(name) !== false) return [];
    return [
      {
        ...{ topic: 'tables', severity: 'error', node: on.node.name, object: `schema ${name}` },
        message: 'it lives on this node, with all its tables, and is not there',
        advice: 'Restore it from a backup of that node.',
        remedies: [],
      },
    ];
  });
}

/**
 * One examination of a cluster: reads each node's facts and the catalog, over connections of its own, and compares them.
 *
 * Invariant: it writes nothing: its sessions are read-only, and take no lock that a client's statement or DDL waits for.
 * Invariant: every wait is bounded; a node that doesn't answer is a finding, and the others are looked at all the same.
 * Invariant: nothing is said of tables that changed while it looked: if the epoch has moved on, all is read again.
 */
import type { ReferenceTable, ShardedTable } from '../catalog/map.ts';
import { meshRoleOf } from '../mesh/nodes.ts';
import { ControlConnection } from '../platform/control-connection.ts';
import { type CatalogFacts, type LocalRecords, readCatalog, readRecords } from './catalog-facts.ts';
import { type Claims, judgeLogins, readClaims } from './claims.ts';
import { compareCopies, compareLookups } from './compare-copies.ts';
import { compareLeaves, type NodeTables, relationKey, type TablesContext } from './compare-leaves.ts';
import { compareObjects } from './compare-objects.ts';
import { compareRoles } from './compare-roles.ts';
import { compareFaces, comparePlacedSchemas, findStrangers } from './compare-tables.ts';
import {
  CONTENT_BYTES_MAX,
  CONTENT_SETTINGS,
  type ContentResult,
  compareLookupContents,
  compareReferenceContents,
} from './contents.ts';
import { bySeverity, type Examination, type Finding, type Unread } from './finding.ts';
import {
  compareNodes,
  compareServer,
  judgeCatalog,
  judgeMesh,
  judgeServers,
  judgeTransactions,
} from './judge-cluster.ts';
import { type RelationFacts, readRelations } from './relation-facts.ts';
import { readServer, type ServerFacts } from './server-facts.ts';
import { compareRoleSettings, compareSettings } from './setting-rules.ts';

export interface ExamineOptions {
  readonly nodes: readonly { readonly name: string; readonly dsn: string }[];
  readonly home: string;
  /** Roles that the configuration lets in by name. */
  readonly users: readonly string[];
  readonly connectionsPerNode: number;
  /** Roles that may log in at nodes round the routers. */
  readonly allowed: readonly string[];
  /** Tell of this node alone. */
  readonly only?: string | undefined;
  /** Read the contents of large reference tables and of lookups too. */
  readonly deep?: boolean | undefined;
  /** Younger prepared transactions are under way. */
  readonly preparedSeconds?: number | undefined;
}

const STATEMENT_TIMEOUT_MS = 30_000;
const DEEP_TIMEOUT_MS = 3_600_000;
const LOCK_TIMEOUT_MS = 3_000;
const PREPARED_SECONDS = 60;
const READINGS_MAX = 3;

/** With the name that bypass looks for, so that no router takes it for somebody else's. */
const APPLICATION_NAME = 'postern doctor';

interface Tables {
  readonly catalog: CatalogFacts;
  readonly nodes: readonly NodeTables[];
}

/** undefined: no node has answered, so there was nothing to be examined. */
export async function examine(options: ExamineOptions): Promise<Examination | undefined> {
  const findings: Finding[] = [];
  const unread: Unread[] = [
    { what: 'free disk space', node: undefined, why: 'PostgreSQL does not tell it: watch the machines' },
  ];
  const connections = await openAll(options, findings);
  if (connections.size === 0) return undefined;
  try {
    const visit = new Visit(options, connections, { findings, unread });
    const looked = await visit.run();
    const { only } = options;
    const told = findings.filter(({ node }) => only === undefined || node === only || node === undefined);
    return { findings: bySeverity(told), unread, looked };
  } finally {
    await Promise.all([...connections.values()].map((connection) => connection.close()));
  }
}

async function openAll(
  { nodes, deep }: ExamineOptions,
  findings: Finding[],
): Promise<Map<string, ControlConnection>> {
  const connections = new Map<string, ControlConnection>();
  await Promise.all(
    nodes.map(async ({ name, dsn }) => {
      try {
        const connection = await ControlConnection.open({
          ...{ nodeName: name, dsn, applicationName: APPLICATION_NAME, lockTimeoutMs: LOCK_TIMEOUT_MS },
          statementTimeoutMs: deep ? DEEP_TIMEOUT_MS : STATEMENT_TIMEOUT_MS,
        });
        await connection.query('SET default_transaction_read_only = on');
        connections.set(name, connection);
      } catch (error) {
        findings.push({
          ...{ topic: 'nodes', severity: 'error', node: name, object: `node ${name}`, remedies: [] },
          message: 'it could not be asked, and nothing was looked at there',
          found: (error as Error).message,
          advice: 'Check that the server runs, its address, and the password of Postern’s role.',
        });
      }
    }),
  );
  return connections;
}

class Visit {
  readonly #options: ExamineOptions;
  readonly #connections: ReadonlyMap<string, ControlConnection>;
  readonly #findings: Finding[];
  readonly #unread: Unread[];
  readonly #looked: string[] = [];

  constructor(
    options: ExamineOptions,
    connections: ReadonlyMap<string, ControlConnection>,
    told: { readonly findings: Finding[]; readonly unread: Unread[] },
  ) {
    this.#options = options;
    this.#connections = connections;
    this.#findings = told.findings;
    this.#unread = told.unread;
  }

  async run(): Promise<readonly string[]> {
    const servers = await this.#readServers();
    const home = servers.find(({ node }) => node === this.#options.home);
    const homeConnection = this.#connections.get(this.#options.home);
    const tables = homeConnection && (await this.#readTables(homeConnection));
    const claims = homeConnection && (await this.#attempt('logins', () => readClaims(homeConnection)));
    if (!home) this.#skip('all that is compared with the home node', 'it did not answer');
    this.#judgeServers(servers, home, { catalog: tables?.catalog, claims: claims ?? undefined });
    if (tables) {
      this.#compareTables(servers, tables);
      await this.#compareContents(tables);
    }
    return this.#looked;
  }

  async #readServers(): Promise<readonly ServerFacts[]> {
    const servers: ServerFacts[] = [];
    await Promise.all(
      [...this.#connections].map(async ([name, connection]) => {
        const unread = (what: string, why: string) => this.#unread.push({ what, node: name, why });
        const facts = await this.#need(
          'settings, roles and objects',
          () => readServer(connection, unread),
          name,
        );
        if (facts) servers.push(facts);
      }),
    );
    this.#looked.push(
      `${count(servers.length, 'server')}: versions, settings, collations, clocks, prepared transactions, replication slots`,
    );
    return servers.sort((a, b) => a.node.localeCompare(b.node));
  }

  #judgeServers(
    servers: readonly ServerFacts[],
    home: ServerFacts | undefined,
    { catalog, claims }: { readonly catalog: CatalogFacts | undefined; readonly claims: Claims | undefined },
  ): void {
    const { connectionsPerNode, users, preparedSeconds = PREPARED_SECONDS } = this.#options;
    const routers = Math.max(
      1,
      catalog?.routers?.filter(({ heartbeatSeconds }) => heartbeatSeconds < 60).length ?? 1,
    );
    const add = (findings: readonly Finding[]) => this.#findings.push(...findings);
    if (catalog)
      add(
        compareNodes(
          { names: this.#options.nodes.map(({ name }) => name), home: this.#options.home },
          catalog,
          servers,
        ),
      );
    add(judgeServers(servers, { perNode: connectionsPerNode, routers }));
    for (const server of servers) {
      if (home) {
        add(compareServer(server, home));
        add(compareSettings(server, home));
      }
      if (home && server !== home) {
        add(compareRoles(server, home, users));
        add(compareRoleSettings(server, home));
        add(compareObjects(server, home, new Set(catalog?.map.schemas.keys())));
      }
      add(judgeTransactions(server, catalog?.clusterId, preparedSeconds));
    }
    if (home && servers.length > 1)
      this.#looked.push(
        `${count(home.roles.length, 'role')}, ${count(home.schemas.length, 'schema')}, ${count(home.extensions.length, 'extension')}, ${count(home.types.length, 'type')} and ${count(home.functions.length, 'function')} of home, on each other node`,
      );
    if (catalog && home) {
      add(judgeMesh(servers, home, meshRoleOf(catalog.clusterId)));
      this.#looked.push(home.hasMesh ? 'the role of the mesh' : 'the mesh: there is none yet');
    }
    if (catalog) add(judgeCatalog(catalog, preparedSeconds));
    this.#judgeLogins(servers, catalog, claims);
  }

  #judgeLogins(
    servers: readonly ServerFacts[],
    catalog: CatalogFacts | undefined,
    claims: Claims | undefined,
  ): void {
    if (!catalog) return;
    if (!claims || claims.areStale || claims.processes === 0) {
      const why = !claims
        ? 'no router of this version has ever served'
        : claims.areStale
          ? 'a router has not said for a while which connections are its own'
          : 'no router serves';
      this.#skip('logins that go round the routers', why);
      return;
    }
    const allowed = new Set(this.#options.allowed);
    const seen = servers.filter(({ seesSessions }) => seesSessions);
    for (const server of servers) {
      if (!server.seesSessions) {
        this.#skip(
          'logins that go round the routers',
          'GRANT pg_read_all_stats to the role of Postern',
          server.node,
        );
        continue;
      }
      this.#findings.push(
        ...judgeLogins(server, {
          controlRole: server.requirements.role,
          meshRole: meshRoleOf(catalog.clusterId),
          allowed,
          claimed: claims.backends.get(server.node) ?? new Set(),
        }),
      );
    }
    if (seen.length > 0)
      this.#looked.push(
        `logins at ${count(seen.length, 'node')}, against what ${count(claims.processes, 'router process', 'router processes')} claim`,
      );
  }

  /** Of one epoch. undefined: there is no catalog, or it kept changing. */
  async #readTables(home: ControlConnection): Promise<Tables | undefined> {
    for (let reading = 0; reading < READINGS_MAX; reading++) {
      const catalog = await this.#need('the catalog', () => readCatalog(home), home.nodeName);
      if (!catalog) {
        if (!this.#hasUnread('the catalog'))
          this.#skip('the catalog and all tables', 'there is none: no router has served yet');
        return undefined;
      }
      const tables = [...tablesOf(catalog), ...referencesOf(catalog)];
      const nodes: NodeTables[] = [];
      for (const [node, read] of await Promise.all(
        catalog.nodes.map(async (node) => [node, await this.#readNode(node.name, tables)] as const),
      ))
        if (read) nodes.push({ node, ...read });
      const after = await this.#need('the catalog', () => readCatalog(home), home.nodeName);
      if (after?.map.epoch === catalog.map.epoch) return { catalog, nodes };
    }
    this.#skip('tables', 'the schema was changed all the time');
    return undefined;
  }

  async #readNode(
    name: string,
    tables: readonly { readonly schema: string; readonly name: string }[],
  ): Promise<{ relations: ReadonlyMap<string, RelationFacts>; records: LocalRecords } | undefined> {
    const connection = this.#connections.get(name);
    if (!connection) return undefined;
    return await this.#need(
      'tables and leaves',
      async () => {
        const records = await readRecords(connection);
        const relations = await readRelations(connection, tables);
        return {
          records,
          relations: new Map(relations.map((one) => [relationKey(one.schema, one.name), one])),
        };
      },
      name,
    );
  }

  #compareTables(servers: readonly ServerFacts[], { catalog, nodes }: Tables): void {
    const tables = tablesOf(catalog);
    const references = referencesOf(catalog);
    const context: TablesContext = {
      ...{ map: catalog.map, tables, nodes, cutNames: catalog.cutNames },
      underDdl: new Set(catalog.unfinishedDdl.map(({ tableId }) => tableId)),
    };
    this.#findings.push(
      ...compareFaces(context, catalog),
      ...compareCopies(context, references),
      ...compareLookups(context),
      ...compareLeaves(context),
      ...findStrangers(context, catalog),
      ...comparePlacedSchemas(
        context,
        new Map(servers.map(({ node, schemas }) => [node, new Set(schemas.map(({ name }) => name))])),
      ),
    );
    const leaves = tables.reduce((sum, { buckets }) => sum + buckets.length, 0);
    this.#looked.push(
      `${count(tables.length, 'sharded table')} with ${count(leaves, 'leaf', 'leaves')}, ${count(references.length, 'reference table')}, ${count(
        tables.reduce((sum, { lookups = [] }) => sum + lookups.length, 0),
        'lookup',
      )}`,
    );
  }

  async #compareContents({ catalog, nodes }: Tables): Promise<void> {
    const { deep = false, home } = this.#options;
    const homeTables = nodes.find(({ node }) => node.name === home);
    if (!homeTables) return;
    const asked = nodes.map(({ node }) => this.#connections.get(node.name)!);
    for (const connection of asked)
      await this.#attempt('contents', () => connection.query(CONTENT_SETTINGS), connection.nodeName);
    const inOrder = [...nodes].sort((a, b) => Number(b.node.name === home) - Number(a.node.name === home));
    let compared = 0;
    for (const table of referencesOf(catalog)) {
      const key = relationKey(table.schema, table.name);
      const with_ = inOrder.filter(({ relations }) => relations.has(key));
      if (with_[0]?.node.name !== home || with_.length < 2) continue;
      if (!deep && (homeTables.relations.get(key)?.bytes ?? 0) > CONTENT_BYTES_MAX) {
        this.#skip(`contents of reference table ${key}`, 'it is large: read it with --deep');
        continue;
      }
      const connections = with_.map(({ node }) => [node.name, this.#connections.get(node.name)!] as const);
      this.#take(
        await this.#attempt(`contents of reference table ${key}`, () =>
          compareReferenceContents(table, connections),
        ),
      );
      compared++;
    }
    if (compared > 0) this.#looked.push(`the rows of ${count(compared, 'reference table')}, on all nodes`);
    await this.#compareLookups({ catalog, nodes });
  }

  async #compareLookups({ catalog, nodes }: Tables): Promise<void> {
    const lookups = tablesOf(catalog).flatMap((table) =>
      (table.lookups ?? []).map((lookup) => ({ table, lookup })),
    );
    if (lookups.length === 0) return;
    if (!this.#options.deep) {
      this.#skip('entries of lookups', 'they are read with --deep');
      return;
    }
    const connectionOf = (nodeId: number) =>
      this.#connections.get(nodes.find(({ node }) => node.id === nodeId)?.node.name ?? '');
    for (const { table, lookup } of lookups)
      this.#take(
        await this.#attempt(`entries of lookup ${lookup.name}`, () =>
          compareLookupContents(table, lookup, connectionOf),
        ),
      );
    this.#looked.push(`the entries of ${count(lookups.length, 'lookup')}, against the rows`);
  }

  #take(result: ContentResult | undefined): void {
    this.#findings.push(...(result?.findings ?? []));
    this.#unread.push(...(result?.unread ?? []));
  }

  #skip(what: string, why: string, node?: string): void {
    this.#unread.push({ what, node, why });
  }

  #hasUnread(what: string): boolean {
    return this.#unread.some((one) => one.what === what);
  }

  /** Without it so little was looked at that nobody may take the rest for all. */
  async #need<T>(what: string, work: () => Promise<T>, node: string): Promise<T | undefined> {
    const before = this.#unread.length;
    const result = await this.#attempt(what, work, node);
    const failure = this.#unread.slice(before).find((one) => one.what === what && one.node === node);
    if (failure)
      this.#findings.push({
        ...{ topic: 'nodes', severity: 'error', node, object: what, remedies: [] },
        message: 'they could not be read, and nothing is said of them',
        found: failure.why,
      });
    return result;
  }

  /** What fails is not known, and is told as that. */
  async #attempt<T>(what: string, work: () => Promise<T>, node?: string): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      this.#unread.push({ what, node, why: (error as Error).message });
      return undefined;
    }
  }
}

function tablesOf({ map }: CatalogFacts): readonly ShardedTable[] {
  return [...map.tables.values()].flatMap((bySchema) => [...bySchema.values()]);
}

function referencesOf({ map }: CatalogFacts): readonly ReferenceTable[] {
  return [...map.references.values()].flatMap((bySchema) => [...bySchema.values()]);
}

function count(number: number, one: string, many = `${one}s`): string {
  return `${number} ${number === 1 ? one : many}`;
}

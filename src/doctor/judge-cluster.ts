/**
 * What is to be said of servers as a whole: what each has and lacks, versions, collations and clocks against home's, which node it says
 * that it is, transactions and slots that hold something up, routers that are gone.
 */
import { judgeCluster, judgeNode } from '../catalog/requirements.ts';
import { quoteIdentifier, quoteLiteral } from '../pg/identifier.ts';
import type { CatalogFacts } from './catalog-facts.ts';
import { type Finding, onNode, throughRouter } from './finding.ts';
import type { ServerFacts } from './server-facts.ts';

/** Of two clocks, beyond what the measurement leaves open. */
const CLOCK_APART_MS = 500;
const ROUTER_SILENT_S = 60;
const FOREIGN_PREPARED_S = 300;
const SLOT_KEPT_BYTES = 1_000_000_000;

export function judgeServers(
  servers: readonly ServerFacts[],
  connections: { readonly perNode: number; readonly routers: number },
): readonly Finding[] {
  const judged = [
    ...servers.flatMap(({ requirements }) =>
      judgeNode(requirements, connections.perNode * connections.routers),
    ),
    ...judgeCluster(servers.map(({ requirements }) => requirements)),
  ];
  return judged.map(({ node, severity, message, hint, run = [] }) => ({
    ...{ topic: 'nodes', severity, node, object: 'server', message, advice: hint },
    remedies: onNode(node, ...run),
  }));
}

export function compareServer(server: ServerFacts, home: ServerFacts): readonly Finding[] {
  if (server.node === home.node) return [];
  const findings: Finding[] = [];
  const add = (rest: Omit<Finding, 'node'>) => findings.push({ node: server.node, ...rest });
  const [is, shall] = [server.requirements, home.requirements];
  const isOtherMajor = majorOf(is.versionNumber) !== majorOf(shall.versionNumber);
  if (is.versionNumber !== shall.versionNumber)
    add({
      ...{ topic: 'nodes', severity: isOtherMajor ? 'warning' : 'note', object: 'version' },
      message: isOtherMajor
        ? 'it runs another major version: functions and collations may give other answers'
        : 'it runs another minor version',
      ...{ found: is.version, expected: shall.version },
      remedies: [{ at: 'machine', node: server.node, text: 'Bring the servers to the same version.' }],
    });
  for (const [sorter, words] of Object.entries(SORTERS)) {
    if (server.sorting[sorter] === home.sorting[sorter]) continue;
    add({
      ...{
        topic: 'nodes',
        object: `collations (${words})`,
        severity: sorter === 'default' ? 'warning' : 'note',
      },
      message: 'text may sort otherwise there: reads over nodes that compare text are refused',
      ...{ found: server.sorting[sorter] || '(none)', expected: home.sorting[sorter] || '(none)' },
      advice:
        sorter === 'default'
          ? 'A database keeps the collation that it was made with. Make it anew with the LOCALE of the home node’s, or give columns that are compared COLLATE "C".'
          : 'It concerns columns and statements that name such a collation. Give the servers the same version of the library.',
      remedies: [],
    });
  }
  const apartMs = Math.abs(server.clock.offsetMs - home.clock.offsetMs);
  const boundMs = server.clock.boundMs + home.clock.boundMs;
  if (apartMs - boundMs > CLOCK_APART_MS)
    add({
      ...{ topic: 'clocks', severity: 'warning', object: 'clock' },
      message: `it is ${describeMs(apartMs)} ${server.clock.offsetMs > home.clock.offsetMs ? 'ahead of' : 'behind'} that of ${home.node} (± ${describeMs(boundMs)})`,
      advice: 'now() and what is compared with it differ by that. Postern itself relies on no clock.',
      remedies: [
        { at: 'machine', node: server.node, text: 'chronyc makestep, and keep chrony or ntpd running there' },
      ],
    });
  return findings;
}

const SORTERS = { default: 'of the database', libc: 'of the operating system', icu: 'of ICU' } as const;

function majorOf(versionNumber: number): number {
  return Math.floor(versionNumber / 10_000);
}

function describeMs(ms: number): string {
  return ms >= 10_000 ? `${Math.round(ms / 1000)} s` : `${Math.round(ms)} ms`;
}

export interface ConfiguredNodes {
  readonly names: readonly string[];
  readonly home: string;
}

export function compareNodes(
  configured: ConfiguredNodes,
  catalog: CatalogFacts,
  servers: readonly ServerFacts[],
): readonly Finding[] {
  const findings: Finding[] = [];
  const add = (rest: Omit<Finding, 'topic'>) => findings.push({ topic: 'nodes', ...rest });
  if (catalog.home !== configured.home)
    add({
      ...{ severity: 'error', node: configured.home, object: 'home' },
      message: 'the configuration names another home than the catalog: routers refuse to start',
      ...{ found: configured.home, expected: catalog.home },
      remedies: [{ at: 'machine', text: `home: ${catalog.home}   # in postern.yaml` }],
    });
  for (const { name } of catalog.nodes)
    if (!configured.names.includes(name))
      add({
        ...{ severity: 'error', node: name, object: `node ${name}` },
        message: 'the catalog has it, and the configuration lacks it: routers refuse to start',
        remedies: [{ at: 'machine', text: `Add node ${name} to nodes: in postern.yaml.` }],
      });
  for (const name of configured.names)
    if (!catalog.nodes.some((node) => node.name === name))
      add({
        ...{ severity: 'note', node: name, object: `node ${name}` },
        message: 'the configuration has it, and the catalog does not: it joins when a router starts',
        remedies: [],
      });
  for (const { node, local } of servers) {
    const known = catalog.nodes.find(({ name }) => name === node);
    if (!known) continue;
    if (!local)
      add({
        ...{ severity: 'error', node, object: `node ${node}` },
        message: 'nothing of Postern’s is on this server, and the catalog says that it is a node',
        advice: 'Check its connection string. If its data was lost, restore it from a backup of that node.',
        remedies: [],
      });
    else if (local.clusterId !== catalog.clusterId || local.nodeId !== known.id)
      add({
        ...{ severity: 'error', node, object: `node ${node}` },
        message: 'this server is another node',
        found: `node ${local.nodeName} of ${local.clusterId === catalog.clusterId ? 'this cluster' : 'another cluster'}`,
        expected: `node ${node} of this cluster`,
        advice: 'Check the connection strings: two of them were mixed up, or this is a copy of another node.',
        remedies: [],
      });
  }
  return findings;
}

export function judgeTransactions(
  server: ServerFacts,
  clusterId: string | undefined,
  preparedSeconds: number,
): readonly Finding[] {
  const findings: Finding[] = [];
  for (const { gid, owner, ageSeconds } of server.prepared) {
    const isOurs = clusterId !== undefined && gid.startsWith(`postern:${clusterId}:`);
    if (ageSeconds < (isOurs ? preparedSeconds : Math.max(preparedSeconds, 0) * (FOREIGN_PREPARED_S / 60)))
      continue;
    const words = `prepared transaction ${gid}`;
    const old = `it was prepared ${describeMs(ageSeconds * 1000)} ago by ${owner}, and keeps its locks`;
    if (isOurs)
      findings.push({
        ...{ topic: 'transactions', severity: 'warning', node: server.node, object: words, message: old },
        advice:
          'A router ends it as soon as it can ask the node that decides. The first query says what it waits for; never end it by hand before you know what was decided.',
        remedies: throughRouter('SELECT * FROM postern.prepared'),
      });
    else
      findings.push({
        ...{ topic: 'transactions', severity: 'warning', node: server.node, object: words },
        message: `${old}; it is none of Postern’s`,
        advice:
          'Ask whoever has made it whether it is to be committed. Vacuum and new replication slots wait for it.',
        remedies: onNode(server.node, `ROLLBACK PREPARED ${quoteLiteral(gid)}`),
      });
  }
  for (const { name, kind, active, keptBytes, walStatus } of server.slots) {
    if (active) continue;
    const isBad = walStatus === 'lost' || walStatus === 'unreserved' || (keptBytes ?? 0) > SLOT_KEPT_BYTES;
    findings.push({
      ...{ topic: 'transactions', severity: isBad ? 'warning' : 'note', node: server.node },
      object: `replication slot ${name}`,
      message: `nobody reads it, and the server keeps WAL for it${keptBytes === null ? '' : ` (${Math.round(keptBytes / 1e6)} MB)`}`,
      found: `${kind}, ${walStatus ?? 'status not known'}`,
      advice: 'If its standby or its stream does not come back:',
      remedies: onNode(server.node, `SELECT pg_drop_replication_slot(${quoteLiteral(name)})`),
    });
  }
  return findings;
}

/** Before the first read through it there is no mesh, and nothing is amiss. What is in it is made afresh whenever it is not as it should be. */
export function judgeMesh(
  servers: readonly ServerFacts[],
  home: ServerFacts,
  meshRole: string,
): readonly Finding[] {
  if (!home.hasMesh) return [];
  return servers.flatMap(({ node, meshRoles }): readonly Finding[] => {
    const role = meshRoles.find(({ name }) => name === meshRole);
    const base = { topic: 'mesh', severity: 'warning', node, object: `role ${meshRole}` } as const;
    const own = quoteIdentifier(meshRole);
    if (!role)
      return [
        {
          ...base,
          message: 'it is not there: reads over several nodes through the mesh fail',
          advice: 'Its password is known to routers alone.',
          remedies: [
            {
              at: 'machine',
              text: 'Restart the routers: the first such read makes the role, with its password.',
            },
          ],
        },
      ];
    const run = [
      ...(role.mayLogIn ? [] : [`ALTER ROLE ${own} LOGIN VALID UNTIL 'infinity'`]),
      ...(role.readsAll ? [] : [`GRANT pg_read_all_data TO ${own}`]),
    ];
    if (run.length === 0) return [];
    return [
      {
        ...base,
        message: 'it may not log in, or not read: reads over several nodes through the mesh fail',
        remedies: onNode(node, ...run),
      },
    ];
  });
}

export function judgeCatalog(catalog: CatalogFacts, preparedSeconds: number): readonly Finding[] {
  const findings: Finding[] = [];
  for (const { name, state, isWorkedOn } of catalog.unfinishedTables) {
    if (isWorkedOn) continue;
    findings.push({
      ...{ topic: 'tables', severity: 'warning', node: catalog.home, object: `table ${name}` },
      message: `it is half ${state === 'creating' ? 'made' : 'dropped'}, and nobody works on it`,
      advice: 'A router cleans it up within half a minute, if all nodes answer. Start one if there is none.',
      remedies: [],
    });
  }
  for (const { statement, role, ageSeconds } of catalog.unfinishedDdl) {
    if (ageSeconds < preparedSeconds) continue;
    findings.push({
      ...{ topic: 'tables', severity: 'warning', node: catalog.home, object: `DDL of ${role}` },
      message: `it is not complete, since ${describeMs(ageSeconds * 1000)}`,
      found: statement,
      advice: `If no client waits for it, complete it in a session of role ${role}:`,
      remedies: throughRouter('SELECT postern.resume_ddl()'),
    });
  }
  const live = (catalog.routers ?? []).filter((router) => router.heartbeatSeconds <= ROUTER_SILENT_S);
  for (const { name, heartbeatSeconds } of catalog.routers ?? []) {
    if (heartbeatSeconds <= ROUTER_SILENT_S) continue;
    findings.push({
      ...{ topic: 'routers', severity: 'note', node: undefined, object: `router ${name}` },
      message: `nothing was heard of it for ${describeMs(heartbeatSeconds * 1000)}`,
      advice: 'If it was stopped, nothing is to be done. If it should be serving, look at its log.',
      remedies: [],
    });
  }
  const versions = [...new Set(live.map(({ version }) => version))];
  if (versions.length > 1)
    findings.push({
      ...{ topic: 'routers', severity: 'note', node: undefined, object: 'versions of routers' },
      message: 'routers of several versions serve at the same time',
      found: live.map(({ name, version }) => `${name} ${version}`).join(', '),
      remedies: [],
    });
  return findings;
}

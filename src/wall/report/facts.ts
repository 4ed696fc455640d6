/** What a measurement's figures have to be read with, as lines of name and value, for the terminal and the page. Pure. */
import { isVoid, type SweepPoint, type SweepResult } from '../measure/sweep.ts';
import { gibibytes, percent } from './html.ts';

export type Fact = readonly [name: string, value: string];

/** The few that no figure may stand without. */
export function essentialFacts(result: SweepResult): Fact[] {
  const { server, machine } = result;
  return [
    ['unit', `transactions a second of workload ${result.workload}, ${result.protocol} protocol`],
    ['durability', durability(server.settings)],
    ['server', `PostgreSQL ${server.version ?? 'unknown'}, ${standbys(server.replicas)}`],
    ['hardware', result.sharesMachine ? machineText(machine) : 'of the server: not visible from here'],
    ['client', clientText(result)],
    ['data', dataText(result)],
    ['checkpoints', checkpointText(result.points)],
    ['full-page images', fullPageText(result)],
    ['errors', errorText(result.points)],
    ['void points', voidText(result.points)],
    ['stolen CPU', stealText(result.points)],
    ...(result.traffic === undefined ? [] : [['other traffic', result.traffic] as const]),
    ...(server.unread.length === 0 ? [] : [['not readable', server.unread.join(', ')] as const]),
  ];
}

/** All of them. */
export function allFacts(result: SweepResult): Fact[] {
  const { server, machine } = result;
  return [
    ['target', result.target],
    ...essentialFacts(result),
    ['encrypted', result.tls ? 'yes' : 'no'],
    ['started', result.startedAt],
    ['generator on', machineText(machine)],
    ['system', `${machine.platform}, Node ${machine.nodeVersion}`],
    ...Object.entries(server.settings).map(([name, value]): Fact => [name, value || '–']),
  ];
}

const DURABILITY_SETTINGS = [
  ...['fsync', 'synchronous_commit', 'full_page_writes', 'wal_level', 'synchronous_standby_names'],
];

/** The settings that a commit's OK rests on. */
export function durability(settings: Readonly<Record<string, string>>): string {
  const told = DURABILITY_SETTINGS.map(
    (name) => `${name}=${settings[name] === '' ? "''" : (settings[name] ?? 'unknown')}`,
  );
  const isDurable = settings.fsync === 'on' && settings.synchronous_commit !== 'off';
  const warning = settings.fsync === undefined || isDurable ? '' : ' (commits are NOT durable)';
  return told.join(', ') + warning;
}

function standbys(replicas: number | undefined): string {
  if (replicas === undefined) return 'standbys unknown';
  return replicas === 0
    ? 'no standby'
    : replicas === 1
      ? '1 streaming standby'
      : `${replicas} streaming standbys`;
}

function clientText({ sharesMachine, machine, tls }: SweepResult): string {
  const place = sharesMachine
    ? 'on the same machine as the server: they take its cores from each other'
    : `on another machine (${machineText(machine)})`;
  return tls ? `${place}; over TLS` : place;
}

function machineText(machine: SweepResult['machine']): string {
  return `${machine.cores} × ${machine.cpuModel}, ${gibibytes(machine.memoryBytes)}`;
}

function dataText(result: SweepResult): string {
  const { dataBytes, sharedBuffersBytes, sharesMachine, machine } = result;
  if (dataBytes === undefined) return 'size unknown (not in tables of the measurement)';
  const over = (bytes: number, name: string): string => `${(dataBytes / bytes).toFixed(2)} of ${name}`;
  return [
    `${gibibytes(dataBytes)} at the end`,
    ...(sharedBuffersBytes === undefined ? [] : [over(sharedBuffersBytes, 'shared_buffers')]),
    ...(sharesMachine ? [over(machine.memoryBytes, 'memory')] : []),
  ].join(', ');
}

function checkpointText(points: readonly SweepPoint[]): string {
  const known = points.flatMap(({ checkpoints }) => (checkpoints === undefined ? [] : [checkpoints]));
  if (known.length === 0) return 'unknown';
  const sum = known.reduce((total, count) => total + count, 0);
  return sum === 0
    ? 'none while it was measured: over hours the figure is lower'
    : `${sum} while it was measured, in ${known.filter((count) => count > 0).length} of ${known.length} points`;
}

function fullPageText(result: SweepResult): string {
  const shares = result.points.flatMap(({ fullPageImageShare: share }) =>
    share === undefined ? [] : [share],
  );
  if (shares.length === 0) return 'unknown';
  return `${percent(shares.reduce((sum, share) => sum + share, 0) / shares.length, 1)} of WAL records`;
}

function errorText(points: readonly SweepPoint[]): string {
  const counts = new Map<string, number>();
  for (const { errors } of points) {
    for (const [state, count] of Object.entries(errors)) counts.set(state, (counts.get(state) ?? 0) + count);
  }
  if (counts.size === 0) return 'none';
  return [...counts].map(([state, count]) => `${count} × ${state}`).join(', ');
}

function stealText(points: readonly SweepPoint[]): string {
  const shares = points.flatMap(({ stealShare }) => (stealShare === undefined ? [] : [stealShare]));
  if (shares.length === 0) return 'unknown';
  return `at most ${percent(Math.max(...shares), 1)} of the generator's machine`;
}

function voidText(points: readonly SweepPoint[]): string {
  const voided = points.filter((point) => isVoid(point)).length;
  return voided === 0 ? 'none' : `${voided} of ${points.length}`;
}

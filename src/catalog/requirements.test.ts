import { expect, test } from 'vitest';
import { judgeCluster, judgeNode, type NodeFacts } from './requirements.ts';

const GOOD: NodeFacts = {
  node: 'a',
  versionNumber: 160_004,
  version: '16.4',
  maxPreparedTransactions: 100,
  walLevel: 'logical',
  connectionsMax: 97,
  inRecovery: false,
  encoding: 'UTF8',
  postgresFdw: true,
  fsync: true,
  synchronousCommit: 'on',
  role: 'postgres',
  superuser: true,
  mayReplicate: true,
  mayCreateInDatabase: true,
  mayCreateMesh: true,
  place: '5@1.5:5432',
};

test('a node that has everything has no findings', () => {
  expect(judgeNode(GOOD, 50)).toEqual([]);
  expect(judgeNode({ ...GOOD, versionNumber: 140_000 }, 50)).toEqual([]);
  expect(judgeNode({ ...GOOD, versionNumber: 180_004 }, 50)).toEqual([]);
});

test.each<[string, Partial<NodeFacts>, string]>([
  ['old', { versionNumber: 130_020, version: '13.20' }, 'error'],
  ['new', { versionNumber: 190_000, version: '19.0' }, 'warning'],
  ['standby', { inRecovery: true }, 'error'],
  ['encoding', { encoding: 'LATIN1' }, 'error'],
  ['no prepared transactions', { maxPreparedTransactions: 0 }, 'warning'],
  ['wal level', { walLevel: 'replica' }, 'warning'],
  ['no fdw', { postgresFdw: false }, 'warning'],
  ['connections', { connectionsMax: 49 }, 'warning'],
  ['fsync', { fsync: false }, 'warning'],
  ['asynchronous commit', { synchronousCommit: 'off' }, 'warning'],
  ['ordinary role', { superuser: false }, 'note'],
  ['no mesh', { mayCreateMesh: false }, 'note'],
  ['no replication', { mayReplicate: false }, 'warning'],
])('%s', (_, facts, severity) => {
  expect(judgeNode({ ...GOOD, ...facts }, 50).map((finding) => finding.severity)).toEqual([severity]);
});

test('a role that may not create schemas is an error', () => {
  const findings = judgeNode({ ...GOOD, superuser: false, mayCreateInDatabase: false }, 50);
  expect(findings.map((finding) => finding.severity)).toEqual(['error', 'note']);
});

test('two nodes that are one database', () => {
  expect(judgeCluster([GOOD, { ...GOOD, node: 'b', place: '5@1.5:5433' }])).toEqual([]);
  expect(judgeCluster([GOOD, { ...GOOD, node: 'b' }])).toMatchObject([{ node: 'b', severity: 'error' }]);
});

import { describe, expect, it } from 'vitest';
import { ActivityProfileBuilder } from '../server/activity-sampler.ts';
import { groupOf, groupShares, waitShares } from './waits.ts';

describe('wait events', () => {
  it.each([
    ['IO:WALSync', 'flush'],
    ['IO:WalSync', 'flush'],
    ['LWLock:WALWrite', 'flush'],
    ['IO:WalWrite', 'flush'],
    ['LWLock:WALInsert', 'insertion'],
    ['IPC:SyncRep', 'replication'],
    ['LWLock:SyncRep', 'replication'],
    ['Lock:transactionid', 'lock'],
    ['Lock:extend', 'named'],
    ['LWLock:BufferContent', 'named'],
    ['Client:ClientRead', 'client'],
  ])('%s is %s, in the spelling of any version', (event, group) => {
    expect(groupOf(event.toLowerCase())).toBe(group);
  });

  it('are shares of all that was seen', () => {
    const builder = new ActivityProfileBuilder();
    builder.add([
      { state: 'active', type: 'LWLock', event: 'WALWrite', count: 3 },
      { state: 'active', type: 'IO', event: 'WALWrite', count: 1 },
      { state: 'active', type: null, event: null, count: 2 },
      { state: 'idle', type: 'Client', event: 'ClientRead', count: 1 },
      { state: 'idle in transaction', type: 'Client', event: 'ClientRead', count: 1 },
      { state: 'active', type: 'IO', event: 'DataFileRead', count: 2 },
    ]);
    const profile = builder.profile();
    expect(profile).toMatchObject({ samples: 1, sessions: 10 });
    const { of, named } = groupShares(waitShares(profile));
    expect(of).toEqual({ flush: 0.4, insertion: 0, replication: 0, lock: 0, cpu: 0.2, client: 0.2 });
    expect(named).toMatchObject({ event: 'IO:DataFileRead', share: 0.2 });
  });
});

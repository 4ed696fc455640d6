import { describe, expect, it } from 'vitest';
import { LOG_DEFAULTS } from './log.ts';
import type { RouterOptions } from './router-options.ts';
import { type ReloadPart, RouterReload } from './router-reload.ts';

const OPTIONS: RouterOptions = {
  listen: { host: '127.0.0.1', port: 0 },
  database: 'app',
  nodes: [{ name: 'n1', dsn: 'postgres://app@127.0.0.1/app' }],
  home: 'n1',
  users: [{ name: 'app', password: undefined }],
  logging: LOG_DEFAULTS,
};

function reloading(parts: readonly ReloadPart[]): RouterReload {
  return new RouterReload(OPTIONS, parts);
}

describe('a reload', () => {
  it('has each part go by what is configured, and says what differs', async () => {
    const heard: unknown[] = [];
    const reload = reloading([
      { keys: ['logging'], reload: ({ logging }) => void heard.push(logging) },
      { keys: ['users'], reload: async ({ users }) => void heard.push(users) },
    ]);
    const logging = { ...LOG_DEFAULTS, connections: false };
    const next = { ...OPTIONS, logging };
    expect(await reload.reload(next)).toEqual({ changed: ['logging'], needRestart: [], failures: [] });
    expect(heard).toEqual([logging, OPTIONS.users]);
    // The same once more differs in nothing.
    expect(await reload.reload(next)).toMatchObject({ changed: [] });
  });

  it('says what no part can change, as long as it differs from the start', async () => {
    const reload = reloading([{ keys: ['logging'], reload: () => {} }]);
    const moved = { ...OPTIONS, listen: { host: '127.0.0.1', port: 7 }, connectionsPerNode: 5 };
    expect((await reload.reload(moved)).needRestart).toEqual(['connectionsPerNode', 'listen']);
    expect((await reload.reload(moved)).needRestart).toEqual(['connectionsPerNode', 'listen']);
    expect((await reload.reload(OPTIONS)).needRestart).toEqual([]);
  });

  it('goes on when a part can’t, and says why', async () => {
    const heard: string[] = [];
    const reload = reloading([
      {
        keys: ['tls'],
        reload: () => {
          throw new Error('no such certificate');
        },
      },
      { keys: ['logging'], reload: () => void heard.push('logging') },
    ]);
    const { failures } = await reload.reload({ ...OPTIONS, tls: undefined });
    expect([failures, heard]).toEqual([['tls: no such certificate'], ['logging']]);
  });

  it('leaves parts alone of which nothing is configured at all', async () => {
    const reload = reloading([
      {
        keys: ['users'],
        reload: () => {
          throw new Error('front mode has no users');
        },
      },
    ]);
    expect((await reload.reload({ logging: LOG_DEFAULTS })).failures).toEqual([]);
  });
});

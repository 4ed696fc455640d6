import { describe, expect, it } from 'vitest';
import { cannotConnect, nodeUnresponsive, PosternError } from '../base/errors.ts';
import type { Host } from '../pg/dsn.ts';
import { closeWhenOutdated, tellHosts, tryHosts } from './hosts.ts';

const HOSTS: readonly Host[] = ['a', 'b', 'c'].map((host) => ({ host, port: 1 }));

interface Opened {
  readonly host: string;
  isClosed: boolean;
}

/** `kinds`: what each host does; `never`: nothing at all. */
function trial(kinds: Record<string, 'primary' | 'standby' | 'away' | 'never' | Error>, hosts = HOSTS) {
  const tried: string[] = [];
  const opened: Opened[] = [];
  const answer = tryHosts<Opened>({
    nodeName: 'n1',
    hosts,
    open: async ({ host }) => {
      tried.push(host);
      const kind = kinds[host]!;
      if (kind === 'never') return await new Promise(() => {});
      if (kind instanceof Error) throw kind;
      if (kind === 'away') throw cannotConnect('n1', 'refused');
      const one = { host, isClosed: false };
      opened.push(one);
      return one;
    },
    isPrimary: ({ host }) => kinds[host] === 'primary',
    close: (one) => {
      one.isClosed = true;
    },
  });
  return { answer, tried, opened };
}

describe('tryHosts', () => {
  it('takes the first primary, and lets go of standbys', async () => {
    const { answer, opened } = trial({ a: 'standby', b: 'away', c: 'primary' });
    expect((await answer).host).toBe('c');
    expect(opened.map(({ host, isClosed }) => [host, isClosed])).toEqual([
      ['a', true],
      ['c', false],
    ]);
  });

  it('does not wait for one that answers nothing', async () => {
    const { answer } = trial({ a: 'never', b: 'primary', c: 'never' });
    expect((await answer).host).toBe('b');
  });

  it('closes one that comes too late', async () => {
    let open: (one: Opened) => void = () => {};
    const late: Opened = { host: 'a', isClosed: false };
    const answer = tryHosts<Opened>({
      nodeName: 'n1',
      hosts: HOSTS,
      open: ({ host }) =>
        host === 'a'
          ? new Promise((resolve) => (open = resolve))
          : Promise.resolve({ host, isClosed: false }),
      isPrimary: () => true,
      close: (one) => {
        one.isClosed = true;
      },
    });
    expect(await answer).toEqual({ host: 'b', isClosed: false });
    open(late);
    await expect.poll(() => late.isClosed).toBe(true);
  });

  it('says of each host why not', async () => {
    const { answer } = trial({ a: 'standby', b: 'away', c: new Error('no such host') });
    await expect(answer).rejects.toMatchObject({
      sqlState: '08001',
      message:
        'node "n1" cannot be reached: none of its hosts is a primary that answers (a:1: it is a standby, or on an older timeline, or of another cluster of servers; b:1: refused; c:1: no such host)',
    });
  });

  it('tells a refusal of the login before all else', async () => {
    const refusal = new PosternError({ sqlState: '28P01', message: 'wrong password' });
    await expect(trial({ a: 'standby', b: refusal, c: 'away' }).answer).rejects.toBe(refusal);
  });

  it('takes a single host as it is', async () => {
    const { answer } = trial({ a: 'standby' }, HOSTS.slice(0, 1));
    expect((await answer).host).toBe('a');
  });

  it('follows what the prober has found out', async () => {
    const found = { primary: 2, timeline: 3, systemId: '7', excluded: new Set([0]), closed: undefined };
    tellHosts(HOSTS, { ...found, isWatched: false });
    try {
      const { answer, tried } = trial({ a: 'primary', b: 'primary', c: 'away' });
      expect((await answer).host).toBe('b');
      expect(tried).toEqual(['c', 'b']);
      await expect(trial({ a: 'primary', b: 'away', c: 'away' }).answer).rejects.toMatchObject({
        sqlState: '08001',
      });
      // Once a prober looks, an old primary that has just come back is not mistaken for a new one.
      tellHosts(HOSTS, { ...found, isWatched: true });
      const strict = trial({ a: 'primary', b: 'primary', c: 'away' });
      await expect(strict.answer).rejects.toMatchObject({ sqlState: '08001' });
      expect(strict.tried).toEqual(['c']);
      const why = nodeUnresponsive('n1', 'then');
      tellHosts(HOSTS, { ...found, isWatched: true, closed: why });
      const shut = trial({ a: 'primary', b: 'primary', c: 'primary' });
      await expect(shut.answer).rejects.toBe(why);
      expect(shut.tried).toEqual([]);
    } finally {
      tellHosts(HOSTS, undefined);
    }
    expect((await trial({ a: 'primary', b: 'primary', c: 'primary' }).answer).host).toBe('a');
  });

  it('has connections to other hosts closed when another one is the primary', () => {
    const closed: string[] = [];
    const [a, b] = HOSTS.slice(0, 2).map((host) =>
      closeWhenOutdated(HOSTS, host, () => closed.push(host.host)),
    );
    closeWhenOutdated(HOSTS, HOSTS[2]!, () => closed.push('c'))();
    try {
      const found = {
        primary: 1,
        timeline: 3,
        systemId: '7',
        excluded: new Set<number>(),
        closed: undefined,
      };
      tellHosts(HOSTS, { ...found, isWatched: true });
      expect(closed).toEqual(['a']);
    } finally {
      for (const forget of [a!, b!]) forget();
      tellHosts(HOSTS, undefined);
    }
  });
});

import { describe, expect, it } from 'vitest';
import { BOUNDS } from '../base/bounds.ts';
import { RoleLookup, type VerifierSource } from './role-lookup.ts';

/** Home, as far as the look-up sees it: answers when it is told to, and a clock that is moved by hand. */
class Home {
  now = 0;
  isAway = false;
  readonly asked: (readonly unknown[])[] = [];
  readonly roles = new Map<string, unknown[]>();
  #held: (() => void)[] | undefined;
  readonly timers: { atMs: number; then: () => void }[] = [];

  lookup(source: VerifierSource = 'pg_authid'): RoleLookup {
    return new RoleLookup(source, {
      ask: async (text, values) => {
        this.asked.push(values);
        const held = this.#held;
        if (held) await new Promise<void>((resolve) => held.push(resolve));
        if (this.isAway) throw new Error('home is away');
        if (!text.includes('rolname')) return [[values[0], `secret of ${values[0]}`]];
        return (values[0] as string[]).flatMap((name) =>
          this.roles.has(name) ? [this.roles.get(name)!] : [],
        );
      },
      now: () => this.now,
      after: (ms, then) => {
        const timer = { atMs: this.now + ms, then };
        this.timers.push(timer);
        return { cancel: () => this.timers.splice(this.timers.indexOf(timer), 1) };
      },
    });
  }

  add(name: string, validForS: string | null = null, canLogIn = 'true'): void {
    this.roles.set(name, [name, canLogIn, validForS, '["crew"]', 'secret', `id of ${name}`]);
  }

  hold(): () => void {
    const held: (() => void)[] = [];
    this.#held = held;
    return () => {
      this.#held = undefined;
      for (const resolve of held) resolve();
    };
  }
}

function home(): Home {
  const made = new Home();
  made.add('ann');
  return made;
}

describe('what home says of a role', () => {
  it('is told', async () => {
    const it = home();
    it.add('bob', '2.5', 'false');
    const lookup = it.lookup();
    expect(await lookup.find('ann')).toEqual({
      id: 'id of ann',
      canLogIn: true,
      validUntilMs: Number.POSITIVE_INFINITY,
      groups: new Set(['crew']),
      storedPassword: 'secret',
    });
    expect(await lookup.find('bob')).toMatchObject({ canLogIn: false, validUntilMs: 2_500 });
    expect(await lookup.find('carl')).toBeUndefined();
  });

  it('decides for a second', async () => {
    const it = home();
    const lookup = it.lookup();
    await lookup.find('ann');
    it.roles.clear();
    it.now = 999;
    expect(await lookup.find('ann')).toBeDefined();
    it.now = 1_000;
    expect(await lookup.find('ann')).toBeUndefined();
  });

  it('is asked for again when it is doubted, also while it was being asked for', async () => {
    const it = home();
    const lookup = it.lookup();
    const release = it.hold();
    const first = lookup.find('ann');
    lookup.doubt('ann');
    release();
    await first;
    it.roles.clear();
    expect(await lookup.find('ann')).toBeUndefined();
    it.add('ann');
    expect(await lookup.find('ann')).toBeUndefined();
    lookup.doubt('ann');
    expect(await lookup.find('ann')).toBeDefined();
  });

  it('is asked for all names that wait in one go', async () => {
    const it = home();
    const lookup = it.lookup();
    const release = it.hold();
    const first = lookup.find('first');
    const many = Array.from({ length: 500 }, (_, i) => lookup.find(`role ${i % 250}`));
    release();
    await Promise.all([first, ...many]);
    expect(it.asked.map(([names]) => (names as string[]).length)).toEqual([1, 250]);
  });

  it('is waited for by a bounded number', async () => {
    const it = home();
    const lookup = it.lookup();
    const release = it.hold();
    const first = lookup.find('first');
    const waiting = Array.from({ length: BOUNDS.roleLookupsWaitingMax }, (_, i) => lookup.find(`role ${i}`));
    await expect(lookup.find('one more')).rejects.toMatchObject({ sqlState: '53300' });
    release();
    await Promise.all([first, ...waiting]);
  });

  it('is not pushed out by made-up names', async () => {
    const it = home();
    const lookup = it.lookup();
    await lookup.find('ann');
    await Promise.all(Array.from({ length: BOUNDS.roleLookupsWaitingMax }, (_, i) => lookup.find(`x${i}`)));
    await lookup.find('y');
    it.now = 2_000;
    it.isAway = true;
    expect(await lookup.find('ann')).toBeDefined();
    await expect(lookup.find('x0')).rejects.toMatchObject({ sqlState: '57P03' });
  });

  it('holds for five minutes while home is away', async () => {
    const it = home();
    const lookup = it.lookup();
    await lookup.find('ann');
    it.isAway = true;
    it.now = 299_999;
    expect(await lookup.find('ann')).toBeDefined();
    it.now = 300_000;
    await expect(lookup.find('ann')).rejects.toMatchObject({ sqlState: '57P03' });
    it.isAway = false;
    expect(await lookup.find('ann')).toBeDefined();
  });

  it('is used while home is away, though it is doubted', async () => {
    const it = home();
    const lookup = it.lookup();
    await lookup.find('ann');
    it.isAway = true;
    lookup.doubt('ann');
    expect(await lookup.find('ann')).toBeDefined();
    it.isAway = false;
    it.roles.clear();
    it.now = 1_000;
    expect(await lookup.find('ann')).toBeUndefined();
  });

  it('is not waited for longer than a second where it is known', async () => {
    const it = home();
    const lookup = it.lookup();
    await lookup.find('ann');
    it.now = 5_000;
    const release = it.hold();
    const found = lookup.find('ann');
    expect(it.timers.map(({ atMs }) => atMs)).toEqual([6_000]);
    it.now = 6_000;
    it.timers[0]!.then();
    expect(await found).toBeDefined();
    // And nobody waits at all in the second after.
    expect(await lookup.find('ann')).toBeDefined();
    release();
  });

  it('has passwords of auth_query, for roles that are there', async () => {
    const it = home();
    const lookup = it.lookup({ query: 'SELECT usename, passwd FROM lookup($1)' });
    expect(await lookup.find('ann')).toMatchObject({ storedPassword: 'secret of ann' });
    expect(await lookup.find('carl')).toBeUndefined();
    expect(it.asked).toEqual([[['ann']], ['ann'], [['carl']]]);
  });
});

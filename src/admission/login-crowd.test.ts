/** Who has to go of those that have not logged in: the silent, the oldest first, and never who waits for the router. */
import { describe, expect, it } from 'vitest';
import { LoginCrowd, type Stranger } from './login-crowd.ts';

interface Named extends Stranger {
  readonly name: string;
}

const silent = (name: string): Named => ({ name, hasStarted: false, awaitsClient: true });
const asked = (name: string): Named => ({ name, hasStarted: true, awaitsClient: true });
const served = (name: string): Named => ({ name, hasStarted: true, awaitsClient: false });
const names = (gone: readonly Named[]) => gone.map(({ name }) => name);

describe('a crowd before the login', () => {
  it('loses the oldest that has said nothing, and only as many as are too many', () => {
    const crowd = new LoginCrowd<Named>({ logins: 2, loginsPerAddress: 100 });
    for (const one of [served('a'), silent('b'), asked('c'), silent('d')]) crowd.add(one, '10.0.0.1', 0);
    expect(names(crowd.tick(50))).toEqual([]);
    expect(names(crowd.tick(100))).toEqual(['b', 'd']);
    expect(crowd.count).toBe(2);
    expect(names(crowd.tick(5_000))).toEqual([]);
  });

  it('loses next who was asked for a password and gives none, after a while', () => {
    const crowd = new LoginCrowd<Named>({ logins: 1, loginsPerAddress: 100 });
    for (const one of [served('a'), asked('b'), asked('c'), served('d')]) crowd.add(one, '10.0.0.1', 0);
    expect(names(crowd.tick(900))).toEqual([]);
    expect(names(crowd.tick(1_000))).toEqual(['b', 'c']);
    // Those that the router keeps waiting stay, however many.
    expect(names(crowd.tick(60_000))).toEqual([]);
  });

  it('looks at each address by itself, and not at this machine', () => {
    const crowd = new LoginCrowd<Named>({ logins: 100, loginsPerAddress: 1 });
    for (const name of ['a', 'b', 'c']) crowd.add(silent(name), '10.0.0.1', 0);
    crowd.add(silent('d'), '10.0.0.2', 0);
    for (const address of ['127.0.0.1', '::1', '::ffff:127.0.0.1'])
      for (const name of ['l', 'm']) crowd.add(silent(name), address, 0);
    expect(names(crowd.tick(100))).toEqual(['a', 'b']);
  });

  it('refuses only beyond ten times the bound, and forgets who has left', () => {
    const crowd = new LoginCrowd<Named>({ logins: 1, loginsPerAddress: 1 });
    const all = [...'abcdefghijk'].map(silent);
    expect(all.slice(0, 10).map((one) => crowd.add(one, '10.0.0.1', 0))).toEqual(Array(10).fill(true));
    expect([crowd.isCrowded, crowd.add(all[10]!, '10.0.0.1', 0)]).toEqual([true, false]);
    crowd.remove(all[0]!);
    crowd.remove(all[0]!);
    expect(crowd.add(all[10]!, '10.0.0.1', 0)).toBe(true);
    expect(names(crowd.tick(100))).toEqual([...'bcdefghij']);
    expect([...crowd]).toEqual([all[10]]);
    expect(crowd.isCrowded).toBe(false);
  });

  it('keeps an honest client that comes in a flood', () => {
    const crowd = new LoginCrowd<Named>({ logins: 10, loginsPerAddress: 1_000 });
    let honest: { name: string; hasStarted: boolean; awaitsClient: boolean } | undefined;
    const gone = new Set<Named>();
    for (let ms = 0; ms < 2_000; ms++) {
      if (ms % 4 === 0) crowd.add(silent(`${ms}`), '10.0.0.1', ms);
      if (ms === 1_001) {
        honest = silent('honest') as typeof honest;
        crowd.add(honest!, '10.0.0.2', ms);
      }
      // It says who it is when its first bytes are there.
      if (ms === 1_050) honest!.hasStarted = true;
      if (ms % 100 === 0) for (const one of crowd.tick(ms)) gone.add(one);
    }
    expect(gone.size).toBeGreaterThan(300);
    expect(gone.has(honest!)).toBe(false);
  });
});

/** Who is next of a role: against the plainest way to say it, and what fairness promises. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Holding, NEED, type Need, type Tenant, WaitingLine, type Waits } from './waiting-line.ts';

interface Named extends Waits {
  readonly name: string;
}

const one = (name: string, tenant: Tenant, sinceMs = 0, need: Need = NEED.ordinary): Named => ({
  ...{ name, tenant, sinceMs, need, user: 'app', waits: false },
});
const holding = (
  held: ReadonlyMap<Tenant, number>,
  perTenant = Number.POSITIVE_INFINITY,
  perBucket = Number.POSITIVE_INFINITY,
): Holding => ({
  ...{ fits: () => true, heldBy: (tenant) => held.get(tenant) ?? 0, perTenant, perBucket },
});
const NOTHING_HELD = holding(new Map());

function order(line: WaitingLine<Named>, given: Holding = NOTHING_HELD): string[] {
  const names: string[] = [];
  for (let next = line.take('app', given); next; next = line.take('app', given)) names.push(next.name);
  return names;
}

describe('a line', () => {
  it('gives each tenant its turn, however many wait of one', () => {
    const line = new WaitingLine<Named>();
    for (let i = 0; i < 1_000; i++) line.add(one(`a${i}`, 'acme', i));
    line.add(one('b0', 'other', 1_000));
    line.add(one('b1', 'other', 1_001));
    expect(order(line).slice(0, 4)).toEqual(['a0', 'b0', 'a1', 'b1']);
    expect(line.count).toBe(0);
  });

  it('serves who holds fewer first, and nobody beyond its limit', () => {
    const line = new WaitingLine<Named>();
    for (const [i, tenant] of ['acme', 'acme', 'other', 'third'].entries())
      line.add(one(`${tenant}${i}`, tenant, i));
    const held = new Map<Tenant, number>([
      ['acme', 1],
      ['other', 2],
    ]);
    expect(line.countServable('app', NEED.ordinary, holding(held, 2))).toBe(2);
    expect(line.take('app', holding(held, 2))?.name).toBe('third3');
    expect(line.take('app', holding(held, 2))?.name).toBe('acme0');
    expect(line.take('app', holding(new Map([...held, ['acme', 2]]), 2))).toBeUndefined();
    expect(line.count).toBe(2);
  });

  it('gives the kinds turns, and between those goes by their arrival', () => {
    const line = new WaitingLine<Named>();
    const kinds: Tenant[] = [undefined, 1, undefined, 1, 2, undefined, 'acme'];
    for (const [i, tenant] of kinds.entries()) line.add(one(`${i}${tenant ?? ''}`, tenant, i));
    expect(order(line)).toEqual(['0', '11', '2', '6acme', '42', '5', '31']);
  });

  it('keeps no kind waiting for the crowd of another: merged commits have no key', () => {
    for (const crowd of ['acme', 1, undefined]) {
      for (const other of ['other', 2, undefined].filter((kind) => typeof kind !== typeof crowd)) {
        const line = new WaitingLine<Named>();
        for (let i = 0; i < 1_000; i++) line.add(one('crowd', crowd, i));
        for (let i = 0; i < 2; i++) line.add(one('other', other, 1_000 + i));
        expect(order(line).slice(0, 4).sort()).toEqual(['crowd', 'crowd', 'other', 'other']);
      }
    }
  });

  it('serves the greater need first, whatever the limits of tenants', () => {
    const line = new WaitingLine<Named>();
    line.add(one('ordinary', 'acme', 0));
    line.add(one('beside', 'acme', 1, NEED.beside));
    line.add(one('brief', 'acme', 2, NEED.brief));
    expect(line.greatestNeed).toBe(NEED.brief);
    const full = holding(new Map([['acme', 9]]), 1);
    expect(line.take('app', { ...full, fits: (_, need) => need !== NEED.brief })?.name).toBe('beside');
    expect(line.take('app', full)?.name).toBe('brief');
    expect(line.greatestNeed).toBe(NEED.ordinary);
    expect(line.take('app', full)).toBeUndefined();
  });

  it('forgets who leaves', () => {
    const line = new WaitingLine<Named>();
    const all = [one('a', 'acme', 0), one('b', 'acme', 1), one('c', undefined, 2)];
    for (const each of all) line.add(each);
    expect(line.remove(all[0]!)).toBe(true);
    expect(line.remove(all[0]!)).toBe(false);
    expect([line.oldest()?.name, line.oldest('app')?.name, line.oldest('web')]).toEqual([
      'b',
      'b',
      undefined,
    ]);
    expect(line.removeAll('web')).toEqual([]);
    expect(line.removeAll()).toHaveLength(2);
    expect([line.count, line.userCount, line.countOf('app')]).toEqual([0, 0, 0]);
  });

  it('is what the plainest way gives', () => {
    const event = fc.oneof(
      fc.record({
        kind: fc.constant('add' as const),
        tenant: fc.constantFrom(undefined, 'acme', 'other', 1, 2),
        need: fc.constantFrom(NEED.ordinary, NEED.ordinary, NEED.beside),
      }),
      fc.record({ kind: fc.constant('remove' as const), of: fc.nat(40) }),
      fc.record({
        kind: fc.constant('take' as const),
        held: fc.array(fc.nat(3), { minLength: 4, maxLength: 4 }),
      }),
    );
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60 }), (events) => {
        const line = new WaitingLine<Named>();
        const dumb = new DumbLine();
        for (const [i, each] of events.entries()) {
          if (each.kind === 'add') {
            const waiter = one(`${i}`, each.tenant, i, each.need);
            line.add(waiter);
            dumb.add(waiter);
          } else if (each.kind === 'remove') {
            const waiter = dumb.all.find(({ name }) => name === `${each.of}`);
            if (waiter) line.remove(waiter);
            if (waiter) dumb.remove(waiter);
          } else {
            const given = holding(
              new Map((['acme', 'other', 1, 2] as const).map((t, n) => [t, each.held[n]!])),
              3,
              2,
            );
            expect(line.countServable('app', NEED.beside, given)).toBe(
              dumb.all.filter(({ need }) => need >= NEED.beside).length,
            );
            expect(line.take('app', given)?.name).toBe(dumb.take(given)?.name);
          }
          expect(line.count).toBe(dumb.all.length);
          expect(line.oldest()?.name).toBe(dumb.all[0]?.name);
        }
      }),
      { seed: 3, numRuns: 500 },
    );
  });
});

/** Turns as numbers: when each tenant had its last one, or came. */
class DumbLine {
  readonly all: Named[] = [];
  readonly #turns = new Map<string, number>();
  readonly #kinds = new Map<string, number>();
  #clock = 0;
  #served = 0;

  #key({ tenant, need }: Named): string {
    return `${need} ${typeof tenant} ${tenant}`;
  }

  add(waiter: Named): void {
    const key = this.#key(waiter);
    if (!this.all.some((other) => this.#key(other) === key)) this.#turns.set(key, this.#clock++);
    this.all.push(waiter);
  }

  remove(waiter: Named): void {
    this.all.splice(this.all.indexOf(waiter), 1);
  }

  take({ heldBy, perTenant, perBucket }: Holding): Named | undefined {
    const may = (each: Named) => {
      if (each.tenant === undefined || each.need !== NEED.ordinary) return true;
      return heldBy(each.tenant) < (typeof each.tenant === 'string' ? perTenant : perBucket);
    };
    const needs = [...new Set(this.all.map(({ need }) => need))].sort((a, b) => b - a);
    for (const need of needs) {
      const kinds = [
        ...new Set(this.all.filter((each) => each.need === need).map(({ tenant }) => typeof tenant)),
      ];
      const lastOf = (kind: string) => this.#kinds.get(`${need} ${kind}`) ?? 0;
      if (this.#served % 2 === 1) kinds.sort((a, b) => lastOf(a) - lastOf(b));
      for (const kind of kinds) {
        const candidates = this.all.filter(
          (each) => each.need === need && typeof each.tenant === kind && may(each),
        );
        candidates.sort(
          (a, b) =>
            heldBy(a.tenant) - heldBy(b.tenant) ||
            this.#turns.get(this.#key(a))! - this.#turns.get(this.#key(b))! ||
            a.sinceMs - b.sinceMs,
        );
        const [next] = candidates;
        if (!next) continue;
        this.remove(next);
        this.#turns.set(this.#key(next), this.#clock++);
        this.#kinds.set(`${need} ${kind}`, ++this.#served);
        return next;
      }
    }
    return undefined;
  }
}

/** The decisions about who is let in: a table of the cases, and random courses against the invariants of SPEC.md. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type AdmissionEffect,
  type AdmissionState,
  type Applicant,
  admissionStart,
  admissionStep,
  type ClientLimits,
} from './client-admission.ts';

const NO_LIMITS: ClientLimits = {
  clients: 100,
  roles: new Map(),
  tenants: new Map(),
  queue: { clients: 10, waitMs: 1_000 },
  reserved: { role: 'control', clients: 1 },
};

function course(limits: Partial<ClientLimits>) {
  const state = admissionStart({ ...NO_LIMITS, ...limits });
  let nowMs = 0;
  const told = (effects: readonly AdmissionEffect[]) =>
    effects.map((effect) =>
      effect.kind === 'admit' ? `in ${effect.id}` : `no ${effect.id} ${effect.refusal.limit}`,
    );
  return {
    state,
    arrive: (id: string, who: Partial<Applicant> = {}) => {
      const client = { id, role: 'app', database: 'shop', tenant: undefined, ...who };
      return told(admissionStep(state, { kind: 'arrive', client, atMs: nowMs++ }));
    },
    adopt: (id: string) => {
      const client = { id, role: 'app', database: 'shop', tenant: undefined };
      return told(admissionStep(state, { kind: 'adopt', client }));
    },
    leave: (id: string) => told(admissionStep(state, { kind: 'leave', id })),
    tick: (atMs: number) => told(admissionStep(state, { kind: 'tick', atMs })),
    reload: (changed: Partial<ClientLimits>) =>
      told(admissionStep(state, { kind: 'reload', limits: { ...NO_LIMITS, ...limits, ...changed } })),
  };
}

describe('who is let in', () => {
  it('waits when all places are taken, and follows who leaves', () => {
    const { arrive, leave } = course({ clients: 1 });
    expect(arrive('a')).toEqual(['in a']);
    expect(arrive('b')).toEqual([]);
    expect(leave('a')).toEqual(['in b']);
    expect(leave('b')).toEqual([]);
  });

  it('is told which limit it was', () => {
    const limits = { clientsPerRole: 2, clientsPerTenant: 1, clientsPerDatabase: 3 };
    const { arrive } = course({ ...limits, queue: { clients: 0, waitMs: 1_000 } });
    expect(arrive('a', { tenant: 'acme' })).toEqual(['in a']);
    expect(arrive('b', { tenant: 'acme' })).toEqual(['no b tenant']);
    expect(arrive('c')).toEqual(['in c']);
    expect(arrive('d', { tenant: 'other' })).toEqual(['no d role']);
    expect(arrive('e', { role: 'web' })).toEqual(['in e']);
    expect(arrive('f', { role: 'batch' })).toEqual(['no f database']);
  });

  it('has limits of single roles and tenants in place of those for each', () => {
    const roles = new Map([['web', 2]]);
    const tenants = new Map([['acme', 0]]);
    const { arrive } = course({ clientsPerRole: 1, roles, tenants, queue: { clients: 0, waitMs: 0 } });
    expect(arrive('a', { role: 'web' })).toEqual(['in a']);
    expect(arrive('b', { role: 'web' })).toEqual(['in b']);
    expect(arrive('c', { role: 'web' })).toEqual(['no c role']);
    expect(arrive('d', { role: 'app', tenant: 'acme' })).toEqual(['no d tenant']);
    expect(arrive('e', { role: 'app' })).toEqual(['in e']);
  });

  it('waits no longer than it may, and then hears why', () => {
    const { arrive, tick, leave } = course({ clients: 1 });
    arrive('a');
    arrive('b');
    expect(tick(1_000)).toEqual([]);
    expect(tick(1_001)).toEqual(['no b clients']);
    expect(leave('b')).toEqual([]);
    expect(leave('a')).toEqual([]);
  });

  it('leaves the queue when its client goes away', () => {
    const { arrive, leave } = course({ clients: 1 });
    arrive('a');
    arrive('b');
    arrive('c');
    expect(leave('b')).toEqual([]);
    expect(leave('a')).toEqual(['in c']);
  });

  it('has turns by role and tenant, however many wait of one', () => {
    const { arrive, leave } = course({ clients: 1 });
    arrive('x');
    for (const id of ['a1', 'a2', 'a3']) arrive(id, { tenant: 'acme' });
    arrive('b1', { tenant: 'other' });
    arrive('w1', { role: 'web' });
    const order = ['x'];
    for (let i = 0; i < 5; i++) order.push(leave(order.at(-1)!)[0]!.slice(3));
    expect(order).toEqual(['x', 'a1', 'w1', 'b1', 'a2', 'a3']);
  });

  it('lets one pass whose like is not at its limit', () => {
    const { arrive } = course({ clientsPerRole: 1 });
    arrive('a');
    expect(arrive('b')).toEqual([]);
    expect(arrive('c', { role: 'web' })).toEqual(['in c']);
  });

  it('gives a place in a full queue to a role with fewer in it, and takes it from the last of the crowd', () => {
    const { arrive, leave } = course({ clients: 1, queue: { clients: 3, waitMs: 1_000 } });
    arrive('x');
    for (const id of ['a', 'b', 'c']) arrive(id);
    expect(arrive('d')).toEqual(['no d clients']);
    expect(arrive('w', { role: 'web' })).toEqual(['no c clients']);
    expect(arrive('v', { role: 'web' })).toEqual(['no v clients']);
    expect(leave('x')).toEqual(['in a']);
    expect(leave('a')).toEqual(['in w']);
  });

  it('keeps a place for the reserved role, whatever the limits', () => {
    const { arrive, leave } = course({ clients: 1, clientsPerRole: 1, clientsPerDatabase: 1 });
    arrive('a');
    arrive('b');
    expect(arrive('c', { role: 'control' })).toEqual(['in c']);
    expect(arrive('d', { role: 'control' })).toEqual([]);
    // The place that becomes free is the reserved one: others do not get it.
    expect(leave('c')).toEqual(['in d']);
    expect(leave('d')).toEqual([]);
    expect(leave('a')).toEqual(['in b']);
  });

  it('counts who comes from elsewhere, and throws nobody out when limits are lowered', () => {
    const { arrive, adopt, reload, leave, state } = course({ clients: 1 });
    arrive('a');
    expect(adopt('b')).toEqual([]);
    expect(arrive('c')).toEqual([]);
    expect(reload({ clients: 2 })).toEqual([]);
    expect(reload({ clients: 4 })).toEqual(['in c']);
    expect(reload({ clients: 1 })).toEqual([]);
    expect(state.inside.size).toBe(3);
    expect(arrive('d')).toEqual([]);
    for (const id of ['a', 'b']) expect(leave(id)).toEqual([]);
    expect(leave('c')).toEqual(['in d']);
  });
});

describe('any course of events', () => {
  const limitOf = fc.option(fc.integer({ min: 0, max: 4 }), { nil: undefined });
  const limits = fc.record({
    clients: fc.integer({ min: 0, max: 6 }),
    clientsPerRole: limitOf,
    clientsPerTenant: limitOf,
    clientsPerDatabase: limitOf,
    queueClients: fc.integer({ min: 0, max: 5 }),
  });
  const event = fc.oneof(
    fc.record({
      kind: fc.constant('arrive' as const),
      role: fc.constantFrom('app', 'web', 'control'),
      tenant: fc.constantFrom(undefined, 'acme', 'other'),
    }),
    fc.record({ kind: fc.constant('leave' as const), of: fc.nat(30) }),
    fc.record({ kind: fc.constant('tick' as const), afterMs: fc.integer({ min: 0, max: 600 }) }),
  );

  it('keeps every limit, lets nobody wait for nothing, and ends each wait once', () => {
    fc.assert(
      fc.property(limits, fc.array(event, { maxLength: 60 }), (given, events) => {
        const { queueClients, ...rest } = given;
        const all: ClientLimits = { ...NO_LIMITS, ...rest, queue: { clients: queueClients, waitMs: 1_000 } };
        const state = admissionStart(all);
        const fate = new Map<string, string>();
        let nowMs = 0;
        for (const [i, one] of events.entries()) {
          let effects: AdmissionEffect[] = [];
          if (one.kind === 'arrive') {
            const client = { id: `${i}`, role: one.role, database: 'shop', tenant: one.tenant };
            fate.set(client.id, 'waits');
            effects = admissionStep(state, { kind: 'arrive', client, atMs: nowMs });
          } else if (one.kind === 'leave') {
            const id = `${one.of}`;
            if (fate.has(id)) fate.set(id, 'left');
            effects = admissionStep(state, { kind: 'leave', id });
          } else {
            nowMs += one.afterMs;
            effects = admissionStep(state, { kind: 'tick', atMs: nowMs });
          }
          for (const effect of effects) {
            expect(fate.get(effect.id)).toBe('waits');
            fate.set(effect.id, effect.kind);
          }
          check(state, all, fate);
        }
      }),
      { seed: 7, numRuns: 300 },
    );
  });
});

/** Counted afresh from who is inside, in the plainest way. */
function check(state: AdmissionState, limits: ClientLimits, fate: ReadonlyMap<string, string>): void {
  const inside = [...state.inside.values()];
  const waiting = [...state.waiting.values()];
  expect(inside.map(({ id }) => id).sort()).toEqual(idsOf(fate, 'admit'));
  expect(waiting.map(({ id }) => id).sort()).toEqual(idsOf(fate, 'waits'));
  expect(state.line.count).toBe(waiting.length);
  expect(waiting.length).toBeLessThanOrEqual(limits.queue.clients);
  const room = (one: Applicant): boolean => {
    if (one.role === limits.reserved.role) return inside.length < limits.clients + limits.reserved.clients;
    const of = (key: 'role' | 'tenant' | 'database') =>
      inside.filter((other) => other[key] === one[key]).length;
    return (
      inside.length < limits.clients &&
      of('role') < (limits.clientsPerRole ?? Number.POSITIVE_INFINITY) &&
      of('database') < (limits.clientsPerDatabase ?? Number.POSITIVE_INFINITY) &&
      (one.tenant === undefined || of('tenant') < (limits.clientsPerTenant ?? Number.POSITIVE_INFINITY))
    );
  };
  expect(waiting.filter(room)).toEqual([]);
  expect(inside.length).toBeLessThanOrEqual(limits.clients + limits.reserved.clients);
}

function idsOf(fate: ReadonlyMap<string, string>, what: string): string[] {
  return [...fate]
    .filter(([, end]) => end === what)
    .map(([id]) => id)
    .sort();
}

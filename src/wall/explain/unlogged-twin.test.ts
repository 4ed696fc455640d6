import { describe, expect, it } from 'vitest';
import { WORKLOAD_NAMES, workloadByName } from '../workload/built-in-workloads.ts';
import { unloggedSetup } from './unlogged-twin.ts';

describe('unloggedSetup', () => {
  it('makes tables unlogged, and nothing else', () => {
    expect(
      unloggedSetup([
        "CREATE TABLE {schema}t (note text DEFAULT 'CREATE TABLE')",
        'CREATE INDEX ON {schema}t (note)',
      ]),
    ).toEqual([
      "CREATE UNLOGGED TABLE {schema}t (note text DEFAULT 'CREATE TABLE')",
      'CREATE INDEX ON {schema}t (note)',
    ]);
    expect(unloggedSetup([])).toBeUndefined();
    expect(unloggedSetup(['SELECT 1'])).toBeUndefined();
  });

  it.each(WORKLOAD_NAMES)('knows the tables of %s', (name) => {
    const { setup } = workloadByName(name);
    const made = setup.filter((statement) => /\bTABLE\b/.test(statement) && /\bCREATE\b/.test(statement));
    const unlogged = unloggedSetup(setup)!.filter((statement) => /\bUNLOGGED TABLE\b/.test(statement));
    expect(unlogged).toHaveLength(made.length);
  });
});

import { describe, expect, it } from 'vitest';
import { benchRatios, cellName } from './bench-ratios.ts';

const cells = [1, 64].map((clients) => ({ name: cellName('A', 'prepared', clients) }));
const names = benchRatios([...cells, { name: 'pgbench B simple 8' }]).map(({ name }) => name);

describe('benchRatios', () => {
  it('has every ratio that has a target', () => {
    expect(names).toEqual(
      expect.arrayContaining([
        ...['A_8', 'A_64', 'A_128', 'A_250', 'B_64', 'B_128', 'added_us_1', 'router_cpu_us_64'],
        ...['passthrough_vs_pgbouncer', 'errors_1pct_64', 'errors_5pct_64', 'locked_row_64'],
        ...['A_512_vs_250', 'C_64', 'simple_64', 'extended_64', 'idle_5000_64', 'idle_client_kib'],
        ...['workers_cpu_2_vs_1', 'workers_cpu_4_vs_1', 'workers_router_cpu_4_vs_1_128'],
      ]),
    );
    expect(new Set(names).size).toBe(names.length);
  });

  it('has the router over direct for every other cell, and for one with a target only that', () => {
    expect(names).toContain('pgbench_B_simple_8');
    expect(names).not.toContain('A_prepared_64');
  });
});

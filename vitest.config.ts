import { defineConfig } from 'vitest/config';

/** Unit tests need nothing; tests with servers start their own, so few files run at a time. */
export default defineConfig({
  test: {
    testTimeout: 60_000,
    hookTimeout: 120_000,
    teardownTimeout: 30_000,
    maxWorkers: 2,
    setupFiles: ['test/support/replay.ts'],
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['src/**/*.test.ts', 'bench/**/*.test.ts'],
          exclude: ['src/**/*.pg.test.ts'],
        },
      },
      { extends: true, test: { name: 'layers', include: ['test/layers.test.ts'] } },
      {
        extends: true,
        test: {
          name: 'servers',
          include: ['src/**/*.pg.test.ts', 'test/**/*.test.ts'],
          exclude: ['test/layers.test.ts'],
        },
      },
    ],
  },
});

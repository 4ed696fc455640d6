import { defineConfig } from 'vitest/config';

/** What these find out would be another thing beside other tests: they run by themselves, one file after the other. */
const MEASURES = [
  'src/wall/{explain,measure,server}/*.pg.test.ts',
  'src/cli/wall-*.pg.test.ts',
  'test/wall/*.test.ts',
];

/** Unit tests need nothing; tests with servers start their own, so few files run at a time: one more than small machines have cores, since much of it is waiting. */
export default defineConfig({
  test: {
    testTimeout: 60_000,
    hookTimeout: 120_000,
    teardownTimeout: 30_000,
    maxWorkers: 3,
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
          globalSetup: ['test/support/data-template-setup.ts'],
          include: ['src/**/*.pg.test.ts', 'test/**/*.test.ts'],
          exclude: ['test/layers.test.ts', ...MEASURES],
        },
      },
      {
        extends: true,
        test: {
          name: 'measures',
          globalSetup: ['test/support/data-template-setup.ts'],
          include: MEASURES,
          fileParallelism: false,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});

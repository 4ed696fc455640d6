/**
 * Generated cases are the same in each run of the tests, so that a red one is the change's fault. FC_SEED=random draws
 * others; FC_SEED and FC_PATH, as fast-check prints them (`{ seed: …, path: "…" }`), bring a failure again, the failing case
 * first. See CONTRIBUTING.md.
 */
import fc from 'fast-check';

const { FC_SEED, FC_PATH } = process.env;
const SEED_DEFAULT = 20_261_122;

if (FC_SEED !== 'random') {
  fc.configureGlobal({
    ...fc.readConfigureGlobal(),
    seed: FC_SEED === undefined ? SEED_DEFAULT : Number(FC_SEED),
    ...(FC_PATH !== undefined && { path: FC_PATH }),
  });
}

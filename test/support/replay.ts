/**
 * Replays a failed property: fast-check prints `{ seed: …, path: "…" }`, and FC_SEED and FC_PATH bring the same values
 * again, the failing one first. See CONTRIBUTING.md.
 */
const { FC_SEED, FC_PATH } = process.env;

if (FC_SEED !== undefined) {
  const { default: fc } = await import('fast-check');
  fc.configureGlobal({
    ...fc.readConfigureGlobal(),
    seed: Number(FC_SEED),
    ...(FC_PATH !== undefined && { path: FC_PATH }),
  });
}

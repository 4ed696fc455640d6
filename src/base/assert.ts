/** Assertions stay on in production. One that fails is a bug in Postern, never a user's mistake. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}

/** Ends an exhaustive switch: a case that the types say can't happen. */
export function unreachable(value: never): never {
  throw new AssertionError(`unreachable: ${JSON.stringify(value)}`);
}

class AssertionError extends Error {
  constructor(message: string) {
    super(`a bug in Postern: ${message}`);
    this.name = 'AssertionError';
  }
}

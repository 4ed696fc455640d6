import { describe, expect, it } from 'vitest';
import { takeListenDescriptor } from './listen-fds.ts';

describe('a socket that a service manager hands over', () => {
  it.each([
    [{ LISTEN_PID: '7', LISTEN_FDS: '1' }, 3],
    [{ LISTEN_PID: '7', LISTEN_FDS: '2', LISTEN_FDNAMES: 'a:b' }, 3],
    [{ LISTEN_PID: '8', LISTEN_FDS: '1' }, undefined],
    [{ LISTEN_PID: '7', LISTEN_FDS: '0' }, undefined],
    [{ LISTEN_FDS: '1' }, undefined],
    [{}, undefined],
  ])('%j is %s, and no child hears of it', (given, descriptor) => {
    const environment: NodeJS.ProcessEnv = { ...given, HOME: '/' };
    expect(takeListenDescriptor(environment, 7)).toBe(descriptor);
    expect(environment).toEqual({ HOME: '/' });
  });
});

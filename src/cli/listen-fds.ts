/**
 * A socket that systemd listens on for this process (sd_listen_fds(3)): the port stays open while the process is replaced, and
 * clients that come meanwhile wait in it.
 */

/** The first descriptor that is handed over; those behind it have names that Postern doesn't ask for. */
const FIRST = 3;

/** undefined: none is handed over, or to another process. What says so is taken out of the environment, so that no child reads it. */
export function takeListenDescriptor(environment: NodeJS.ProcessEnv, processId: number): number | undefined {
  const { LISTEN_PID: forProcess, LISTEN_FDS: count } = environment;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete environment[name];
  return Number(forProcess) === processId && Number(count) >= 1 ? FIRST : undefined;
}

/**
 * Ctrl-C and its relatives: the first asks for an orderly end, at whatever point the command is; the second for an
 * immediate one. SIGTERM and a closed terminal count alike.
 */

// `npm start` passes a Ctrl-C on to a program that the terminal has told already: twice within this is once.
const SAME_REQUEST_MS = 300;

export interface Interrupt {
  /** Aborted by the first request. */
  readonly signal: AbortSignal;
  /** Aborted by the second. */
  readonly urgent: AbortSignal;
}

export function listenForInterrupt(): Interrupt {
  const first = new AbortController();
  const second = new AbortController();
  let requestedAt = 0;
  const request = () => {
    const now = performance.now();
    if (!first.signal.aborted) {
      requestedAt = now;
      first.abort();
    } else if (now - requestedAt > SAME_REQUEST_MS) {
      second.abort();
    }
  };
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, request);
  // Nobody reads any more (`postern up | head`): the same as a closed terminal, however often it is noticed.
  const unread = (): void => {
    if (!first.signal.aborted) request();
  };
  process.stdout.on('error', unread);
  process.stderr.on('error', unread);
  return { signal: first.signal, urgent: second.signal };
}

/** Resolves when the signal is aborted; at once if it is already. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** What went wrong with TLS, in words: OpenSSL's reason without its numbers and the places in its source. */

export function tlsReason(error: unknown): string {
  const { reason, message, code } = error as { reason?: string; message?: string; code?: string };
  if (reason) return reason;
  const withoutPlace = /error:[0-9A-Fa-f]+:[^:]*:[^:]*:([^:\n]+)/.exec(message ?? '')?.[1];
  return withoutPlace ?? (message || code || 'unknown reason');
}

/** Of any socket's error. An AggregateError (several addresses tried) has no message of its own. */
export function socketReason(error: Error): string {
  const { code } = error as NodeJS.ErrnoException;
  if (code?.startsWith('ERR_SSL_')) return `TLS: ${tlsReason(error)}`;
  return error.message || (code ?? 'unknown reason');
}

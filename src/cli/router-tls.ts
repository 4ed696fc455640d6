/** TLS with clients, as a part of a router: its log, its figures, its place in a reload. */
import type { Log } from '../observe/log.ts';
import type { MetricSamples } from '../observe/metric-samples.ts';
import { ClientTls, type ClientTlsOptions } from '../platform/client-tls.ts';
import type { ReloadPart } from './router-reload.ts';
import { workerPlace } from './worker-side.ts';

export interface RouterTls {
  readonly clientTls: ClientTls;
  readonly reload: ReloadPart;
  addMetrics(samples: MetricSamples): void;
  close(): void;
}

/** Throws 22023 for files that can't be used. */
export function openTls(options: ClientTlsOptions | undefined, log: Log): RouterTls {
  // All processes have the same files: one of them is enough to say what has become of those.
  const isFirst = (workerPlace()?.index ?? 0) === 0;
  const clientTls = new ClientTls(options, isFirst ? log : undefined);
  return {
    clientTls,
    reload: { keys: ['tls'], reload: ({ tls }) => clientTls.reload(tls) },
    addMetrics: (samples) => {
      if (!clientTls.enabled) return;
      const { handshakes, failedHandshakes, refusedCertificates, reloads, failedReloads } =
        clientTls.counters;
      samples.setEach('postern_tls_handshakes_total', { ok: handshakes, failed: failedHandshakes });
      samples.set('postern_tls_certificates_refused_total', refusedCertificates);
      samples.setEach('postern_tls_reloads_total', { ok: reloads, failed: failedReloads });
      samples.set('postern_tls_certificate_expiry_seconds', clientTls.certificateExpiresAtMs! / 1_000);
    },
    close: () => clientTls.close(),
  };
}

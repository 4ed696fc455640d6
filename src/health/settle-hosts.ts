/**
 * Finds the primary of a node before anything is opened to it: where several hosts call themselves one, the first that answers may
 * be an old one that has come back. What is found is told to platform/hosts.ts, and the node's prober goes on from there.
 */
import { invalidParameter } from '../base/errors.ts';
import { type Dsn, describeHosts } from '../pg/dsn.ts';
import { knownOfHosts, tellHosts } from '../platform/hosts.ts';
import { choosePrimary, NO_PRIMARY_YET } from './choose-primary.ts';
import { HostProbe } from './host-probe.ts';

/** How long hosts that have not answered are waited for when one has that is a primary. */
const OTHERS_WAIT_MS = 1_000;

/**
 * Nothing is told where no host is a primary, or where a prober looks already. Rejects if they are primaries of several clusters of
 * servers: which of them is meant can't be known.
 */
export async function settleHosts(node: { readonly nodeName: string; readonly dsn: Dsn }): Promise<void> {
  const { hosts } = node.dsn;
  if (hosts.length < 2 || knownOfHosts(hosts).isWatched) return;
  const probes = hosts.map((host) => new HostProbe({ ...node, host }));
  let timer: NodeJS.Timeout | undefined;
  await new Promise<void>((resolve) => {
    const asked = probes.map(async (probe) => {
      await probe.ask(() => performance.now());
      if (probe.answer?.kind === 'primary') timer ??= setTimeout(resolve, OTHERS_WAIT_MS);
    });
    void Promise.all(asked).then(() => resolve());
  });
  clearTimeout(timer);
  for (const probe of probes) probe.stop();
  const { known, isThere, outdated, foreign } = choosePrimary(
    probes.map(({ answer }) => answer),
    NO_PRIMARY_YET,
  );
  if (foreign.length > 0) {
    const where = describeHosts([known.place!, ...foreign].map((place) => hosts[place]!));
    throw invalidParameter(
      `the hosts of node "${node.nodeName}" belong to different clusters of servers: ${where}`,
      'Name one primary and its standbys.',
    );
  }
  if (!isThere || known.place === undefined || knownOfHosts(hosts).isWatched) return;
  tellHosts(hosts, {
    ...{ primary: known.place, timeline: known.timeline, systemId: known.systemId },
    ...{ excluded: new Set(outdated), isWatched: false, closed: undefined },
  });
}

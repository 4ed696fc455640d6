/** The role of the control path: for it, places are kept among the clients. */
import { parseDsn } from '../pg/dsn.ts';
import type { RouterOptions } from './router-options.ts';

export function controlRole({ nodes, home }: Pick<RouterOptions, 'nodes' | 'home'>): string | undefined {
  const node = nodes.find(({ name }) => name === home);
  return node && parseDsn(node.dsn).user;
}

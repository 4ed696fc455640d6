/**
 * Who may come in from where, and what is asked of them: the rules of pg_hba.conf, and which of them decides.
 *
 * The first rule that fits decides, and no other is looked at, whatever comes of it. No rule: nobody comes in.
 * Source: PostgreSQL documentation, "The pg_hba.conf File".
 */
import { contains, type IpAddress, type IpNetwork } from './ip-network.ts';

export type HbaMethod = 'trust' | 'reject' | 'scram-sha-256' | 'md5' | 'password' | 'cert';

export type HbaDatabase =
  | { readonly kind: 'all' | 'sameuser' | 'samerole' }
  | { readonly kind: 'name'; readonly name: string };

export type HbaRole = { readonly kind: 'all' } | { readonly kind: 'name' | 'member'; readonly name: string };

export interface HbaRule {
  readonly line: number;
  readonly connection: 'host' | 'hostssl' | 'hostnossl';
  readonly databases: readonly HbaDatabase[];
  readonly roles: readonly HbaRole[];
  readonly networks: 'all' | readonly IpNetwork[];
  readonly method: HbaMethod;
  /** A certificate that the client's authority has signed; `verify-full`: and that names the role. */
  readonly clientCertificate: 'verify-ca' | 'verify-full' | undefined;
  /** What of the certificate is compared with the role. */
  readonly clientName: 'CN' | 'DN';
  /** Its names are mapped to roles by this map of the ident file. */
  readonly map: string | undefined;
}

export interface HbaRequest {
  /** Undefined: the client has gone. */
  readonly address: IpAddress | undefined;
  readonly encrypted: boolean;
  readonly database: string;
  readonly user: string;
  /** Roles that the user is a member of, at any distance. */
  readonly groups: ReadonlySet<string>;
}

export function matchRule(rules: readonly HbaRule[], request: HbaRequest): HbaRule | undefined {
  return rules.find(
    (rule) =>
      (rule.connection === 'host' || (rule.connection === 'hostssl') === request.encrypted) &&
      isFrom(rule, request.address) &&
      rule.databases.some((database) => isDatabase(database, request)) &&
      rule.roles.some((role) => isRole(role, request)),
  );
}

/** Do any of them ask for the groups of a role? */
export function namesGroups(rules: readonly HbaRule[]): boolean {
  return rules.some(
    ({ databases, roles }) =>
      databases.some(({ kind }) => kind === 'samerole') || roles.some(({ kind }) => kind === 'member'),
  );
}

function isFrom({ networks }: HbaRule, address: IpAddress | undefined): boolean {
  if (networks === 'all') return true;
  return address !== undefined && networks.some((network) => contains(network, address));
}

function isDatabase(database: HbaDatabase, { database: name, user, groups }: HbaRequest): boolean {
  switch (database.kind) {
    case 'all':
      return true;
    case 'sameuser':
      return name === user;
    case 'samerole':
      return name === user || groups.has(name);
    case 'name':
      return database.name === name;
  }
}

/** A role counts as a member of itself. */
function isRole(role: HbaRole, { user, groups }: HbaRequest): boolean {
  if (role.kind === 'all') return true;
  return role.name === user || (role.kind === 'member' && groups.has(role.name));
}

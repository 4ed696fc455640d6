/**
 * Who may log in, what is asked of them, and with what the router logs in at the nodes for them. One for each process; a login is an
 * Attempt (attempt.ts), which session/login-exchange.ts carries through.
 *
 *   rules ──▶ the method        listed users ─┐
 *   (without rules: listed users by           ├─▶ verifiers ──▶ Attempt ──▶ learnt credentials ──▶ pools
 *   their entry, others by SCRAM)  home ──────┘
 *
 * Invariant: whatever a client says, the answers for a role that is not there are those for a wrong password, in words, in bytes and
 * in time; where the salt comes from is the same for both, over all processes of a router.
 * Invariant: no secret leaves it but as a Credential for a node, or packed for the process that takes over.
 */
import { type Credential, NO_CREDENTIAL } from '../backend/credential.ts';
import { BOUNDS } from '../base/bounds.ts';
import { objectError, type PosternError } from '../base/errors.ts';
import { makeScramVerifier, mockScramVerifier, type ScramVerifier } from '../wire/scram.ts';
import { Attempt, type Challenge, type RoleState } from './attempt.ts';
import { type HbaMethod, type HbaRule, matchRule, namesGroups } from './hba-rules.ts';
import { type IdentMaps, isMapped } from './ident-file.ts';
import { isLoopback, parseAddress } from './ip-network.ts';
import { LearntCredentials, packCredential, unpackCredential } from './learnt-credentials.ts';
import { isOneOf, PasswordChecks } from './password-checks.ts';
import type { RoleLookup, VerifierSource } from './role-lookup.ts';
import {
  credentialOfSecret,
  isTrusted,
  parseStoredSecret,
  type StoredSecret,
  secretsOf,
  type UserEntry,
} from './user-entry.ts';

export interface AuthenticationOptions {
  /** The first of a name counts. */
  readonly users: readonly UserEntry[];
  /** Default: listed users come from everywhere. */
  readonly rules?: readonly HbaRule[] | undefined;
  readonly ident?: IdentMaps | undefined;
  /** Roles that are not listed log in with what the home node has of them. Default: they don't. */
  readonly fromNodes?: boolean | undefined;
  /** In place of pg_authid: a query that gives name and password for $1. */
  readonly authQuery?: string | undefined;
}

export interface AuthenticatorParts {
  readonly roles: RoleLookup;
  /** Does home let the role in with this password, and ask for it? */
  readonly checkAtHome: (user: string, password: string) => Promise<boolean>;
  /** The same in all processes of all routers over one catalog, and known to nobody else: where no password is, it gives the salt. */
  readonly mockSecret: Buffer;
  /** Monotonic milliseconds. */
  readonly now: () => number;
}

export interface LoginRequest {
  readonly user: string;
  readonly database: string;
  /** As the socket tells it; undefined: the client has gone. */
  readonly address: string | undefined;
  readonly security: {
    readonly encrypted: boolean;
    /** One that the authority for clients has signed. */
    readonly certificate?: { readonly commonName: string; readonly distinguishedName: string } | undefined;
  };
}

/** PostgreSQL cuts names off there; a longer one is nobody's. */
const NAME_BYTES_MAX = 63;
/** So that those who log in find room in the line. */
const RECHECKED_MAX = 500;

export class Authenticator {
  readonly #parts: AuthenticatorParts;
  readonly #checks = new PasswordChecks();
  readonly #learnt = new LearntCredentials();
  #options: AuthenticationOptions;
  #listed: ReadonlyMap<string, UserEntry>;
  /** Of entries whose passwords the configuration has. */
  readonly #verifiers = new WeakMap<UserEntry, Promise<ScramVerifier[]>>();
  /** Told of roles for which the nodes get something else from now on. */
  onCredential: ((user: string) => void) | undefined;
  /** By name: the role that had it when home was last asked. */
  readonly #roleIds = new Map<string, string>();
  #recheckedAt = 0;
  /** Told when the name of a role that clients may be in as belongs to another role: renamed, or dropped and made anew. */
  onReplaced: ((user: string) => void) | undefined;

  constructor(options: AuthenticationOptions, parts: AuthenticatorParts) {
    this.#parts = parts;
    this.#options = options;
    this.#listed = byName(options.users);
  }

  /** Holds for logins that begin from now on. */
  reload(options: AuthenticationOptions): void {
    this.#options = options;
    const before = this.#listed;
    this.#listed = byName(options.users);
    for (const name of new Set([...before.keys(), ...this.#listed.keys()])) this.onCredential?.(name);
    this.#parts.roles.source = verifierSource(options);
  }

  /** What is asked of this client. Throws 28000 when nothing is: no rule lets it in; 57P03: home has to be asked, and is away. */
  async begin(request: LoginRequest): Promise<Attempt> {
    const { user } = request;
    const entry = this.#listed.get(user);
    const { rules } = this.#options;
    // Whoever comes from a wrong place costs home nothing.
    if (rules && !namesGroups(rules)) this.#ruleFor(request, NO_GROUPS, rules);
    const role = await this.#roleOf(user);
    const { method, certificateMisfit } = this.#decide(request, role);
    const isExpired = role !== undefined && role !== 'unknown' && role.validUntilMs <= this.#parts.now();
    const { secrets, reason } = this.#secretsFor(user, { entry, role, isExpired });
    const challenge = await this.#challenge(method, { user, entry, secrets });
    return new Attempt({
      ...{ user, method, challenge, isExpired, certificateMisfit },
      role: entry || this.#options.fromNodes ? role : undefined,
      reason: challenge.kind === 'nothing' ? undefined : reason,
    });
  }

  /** A login that finish() has let in; what is given has to be called when the client has gone. */
  enter(attempt: Attempt, credential: Credential | undefined): () => void {
    if (attempt.roleId !== undefined && attempt.roleId !== this.#roleIds.get(attempt.user))
      throw objectError('28000', `role "${attempt.user}" has been replaced meanwhile`);
    const release = this.#learnt.hold(attempt.user);
    if (credential && this.#learnt.learn(attempt.user, credential)) this.onCredential?.(attempt.user);
    return release;
  }

  /** A login has failed. What is known of the role may be too old. */
  failed(user: string): void {
    this.#parts.roles.doubt(user);
  }

  /** Roles have been changed through this router. */
  doubtRoles(): void {
    this.#parts.roles.doubt();
    this.recheckRoles();
  }

  /** Whoever is in is so under a name: is it still the same role's? Of many, some at a time. */
  recheckRoles(): void {
    const { users } = this.#learnt;
    for (let i = 0; i < Math.min(users.length, RECHECKED_MAX); i++)
      void this.#roleOf(users[this.#recheckedAt++ % users.length]!).catch(() => {});
  }

  /** With what the router logs in at a node as this role. */
  credentialOf(user: string): Credential {
    const entry = this.#listed.get(user);
    const learnt = this.#learnt.of(user);
    for (const secret of entry ? secretsOf(entry) : []) {
      const credential = credentialOfSecret(secret) ?? learnt;
      if (credential) return credential;
    }
    return learnt ?? NO_CREDENTIAL;
  }

  /** What a process has to be given that takes over clients of this role; undefined: it knows as much. A secret. */
  exportCredential(user: string): string | undefined {
    const learnt = this.#learnt.of(user);
    return learnt && packCredential(learnt);
  }

  /** Takes over a client. What is given has to be called when it has gone. */
  adopt(user: string, packed: string | undefined): () => void {
    const release = this.#learnt.hold(user);
    // Whoever has logged in here has done so later.
    if (packed !== undefined && !this.#learnt.of(user)) this.#learnt.learn(user, unpackCredential(packed));
    return release;
  }

  /**
   * Home is asked whether the answer is needed or not, so that it tells nobody who is listed. A role that is listed comes in while
   * home is away, if nothing is known against it.
   */
  async #roleOf(user: string): Promise<RoleState> {
    const { rules, fromNodes } = this.#options;
    if (Buffer.byteLength(user) > NAME_BYTES_MAX) return undefined;
    try {
      const role = await this.#parts.roles.find(user);
      if (role) this.#noteRole(user, role.id);
      return role;
    } catch (error) {
      if ((fromNodes && !this.#listed.has(user)) || (rules && namesGroups(rules))) throw error;
      return 'unknown';
    }
  }

  /** Backends, sessions and keys belong to a name: those of the role that had it before are not for the one that has it now. */
  #noteRole(user: string, id: string): void {
    const before = this.#roleIds.get(user);
    if (before === id) return;
    if (before === undefined && this.#roleIds.size >= BOUNDS.rolesKnownMax) {
      const [oldest] = this.#roleIds.keys();
      this.#roleIds.delete(oldest!);
    }
    this.#roleIds.set(user, id);
    if (before === undefined) return;
    this.#learnt.forget(user);
    this.onReplaced?.(user);
  }

  #decide(
    request: LoginRequest,
    role: RoleState,
  ): { method: Exclude<HbaMethod, 'reject'>; certificateMisfit: string | undefined } {
    const { rules } = this.#options;
    if (!rules) {
      const entry = this.#listed.get(request.user);
      const method = entry && isTrusted(entry) ? 'trust' : 'md5';
      return { method, certificateMisfit: undefined };
    }
    const groups = role === undefined || role === 'unknown' ? NO_GROUPS : role.groups;
    const rule = this.#ruleFor(request, groups, rules);
    return { method: rule.method, certificateMisfit: this.#certificateMisfit(rule, request, groups) };
  }

  /** Throws 28000 when the client can't meet what the rule asks for. */
  #ruleFor(
    request: LoginRequest,
    groups: ReadonlySet<string>,
    rules: readonly HbaRule[],
  ): HbaRule & { readonly method: Exclude<HbaMethod, 'reject'> } {
    const { user, database, security } = request;
    // A link-local address comes with the name of its interface, of which networks know nothing.
    const address =
      request.address === undefined ? undefined : parseAddress(request.address.replace(/%.*/, ''));
    const rule = matchRule(rules, { address, encrypted: security.encrypted, database, user, groups });
    if (!rule || rule.method === 'reject') throw refusedByRule(request, rule);
    if (rule.clientCertificate && !security.certificate)
      throw objectError('28000', 'connection requires a valid client certificate');
    if (rule.method === 'password' && !security.encrypted && !(address && isLoopback(address)))
      throw objectError(
        '28000',
        'a password would be sent in the clear over a network',
        'Connect with sslmode=require, or have a rule with scram-sha-256.',
      );
    return { ...rule, method: rule.method };
  }

  #certificateMisfit(
    rule: HbaRule,
    { security: { certificate }, user }: LoginRequest,
    groups: ReadonlySet<string>,
  ): string | undefined {
    if (rule.clientCertificate !== 'verify-full' || !certificate) return undefined;
    const systemName = rule.clientName === 'DN' ? certificate.distinguishedName : certificate.commonName;
    const fits =
      systemName !== '' &&
      (rule.map === undefined
        ? systemName === user
        : isMapped(this.#options.ident ?? new Map(), rule.map, { systemName, user, groups }));
    return fits ? undefined : `the certificate's name is "${systemName.slice(0, 200)}"`;
  }

  /** What the role's password is known by, and why nothing will do. */
  #secretsFor(
    user: string,
    of: { entry: UserEntry | undefined; role: RoleState; isExpired: boolean },
  ): { secrets: readonly StoredSecret[]; reason: string | undefined } {
    const { entry, role, isExpired } = of;
    const { fromNodes } = this.#options;
    if (!entry && !fromNodes) return { secrets: [], reason: 'the role is not listed' };
    if (role === undefined) return { secrets: [], reason: 'the home node has no such role' };
    if (isExpired) return { secrets: [], reason: "the role's VALID UNTIL has passed" };
    if (entry && !isTrusted(entry)) {
      const secrets = secretsOf(entry);
      return { secrets, reason: secrets.length === 0 ? 'the role is listed without a password' : undefined };
    }
    if (fromNodes && role !== 'unknown' && role.storedPassword !== undefined) {
      try {
        return { secrets: [parseStoredSecret(role.storedPassword)], reason: undefined };
      } catch {
        return {
          secrets: [],
          reason: `what the home node has of the password of "${user}" is not understood`,
        };
      }
    }
    return { secrets: [], reason: 'no password is known of the role' };
  }

  async #challenge(
    method: Exclude<HbaMethod, 'reject'>,
    of: { user: string; entry: UserEntry | undefined; secrets: readonly StoredSecret[] },
  ): Promise<Challenge> {
    const { user, entry, secrets } = of;
    switch (method) {
      case 'trust':
      case 'cert':
        return { kind: 'nothing' };
      case 'password': {
        const isListed = entry !== undefined && !isTrusted(entry);
        const check = (password: string): Promise<boolean> =>
          this.#checks.run(() =>
            isListed || !this.#options.fromNodes
              ? isOneOf(secrets, user, password)
              : this.#parts.checkAtHome(user, password),
          );
        return { kind: 'password', check };
      }
      case 'md5': {
        const [only] = secrets;
        if (only?.kind === 'md5') return { kind: 'md5', hash: only.hash };
        return this.#scram(user, entry, secrets);
      }
      case 'scram-sha-256':
        return this.#scram(user, entry, secrets);
    }
  }

  async #scram(
    user: string,
    entry: UserEntry | undefined,
    secrets: readonly StoredSecret[],
  ): Promise<Challenge> {
    const usable = secrets.filter(({ kind }) => kind !== 'md5');
    if (usable.length === 0)
      return {
        kind: 'scram',
        verifiers: [mockScramVerifier({ userName: user, secret: this.#parts.mockSecret })],
        isKnown: [true],
      };
    const isListed = entry !== undefined && secretsOf(entry) === secrets;
    let verifiers = isListed ? this.#verifiers.get(entry) : undefined;
    if (!verifiers) {
      verifiers = this.#verifiersOf(user, usable);
      if (entry) this.#verifiers.set(entry, verifiers);
    }
    return {
      kind: 'scram',
      verifiers: await verifiers,
      isKnown: usable.map(({ kind }) => kind === 'password'),
    };
  }

  /** With one salt for all: that of a verifier, or the one that the name would have if there were no such role. */
  #verifiersOf(user: string, secrets: readonly StoredSecret[]): Promise<ScramVerifier[]> {
    const given = secrets.find((secret) => secret.kind === 'scram');
    const { salt, iterations } =
      given?.verifier ?? mockScramVerifier({ userName: user, secret: this.#parts.mockSecret });
    return Promise.all(
      secrets.map((secret) =>
        secret.kind === 'scram'
          ? secret.verifier
          : makeScramVerifier({
              password: secret.kind === 'password' ? secret.password : '',
              salt,
              iterations,
            }),
      ),
    );
  }
}

const NO_GROUPS: ReadonlySet<string> = new Set();

export function verifierSource(options: AuthenticationOptions): VerifierSource {
  if (!options.fromNodes) return 'none';
  return options.authQuery === undefined ? 'pg_authid' : { query: options.authQuery };
}

function byName(users: readonly UserEntry[]): Map<string, UserEntry> {
  const entries = new Map<string, UserEntry>();
  for (const entry of users) if (!entries.has(entry.name)) entries.set(entry.name, entry);
  return entries;
}

/** In PostgreSQL's words. */
function refusedByRule(request: LoginRequest, rule: HbaRule | undefined): PosternError {
  const { user, database, security } = request;
  const address = request.address?.replace(/^::ffff:(?=\d+\.)/, '') ?? '???';
  const who = `host "${address}", user "${user}", database "${database}", ${security.encrypted ? 'SSL encryption' : 'no encryption'}`;
  return objectError(
    '28000',
    rule ? `pg_hba.conf rejects connection for ${who}` : `no pg_hba.conf entry for ${who}`,
  );
}

/** Puts together how clients of a router are authenticated: the rules' texts parsed, home asked over a connection of its own. */
import { createHash } from 'node:crypto';
import { networkInterfaces } from 'node:os';
import { type AuthenticationOptions, Authenticator, verifierSource } from '../auth/authenticator.ts';
import { parseHba } from '../auth/hba-file.ts';
import type { HbaRule } from '../auth/hba-rules.ts';
import { parseIdent } from '../auth/ident-file.ts';
import { type IpNetwork, parseNetwork } from '../auth/ip-network.ts';
import { RoleLookup } from '../auth/role-lookup.ts';
import type { UserEntry } from '../auth/user-entry.ts';
import type { BackendConnection } from '../backend/connection.ts';
import type { Credential } from '../backend/credential.ts';
import { objectError, PosternError } from '../base/errors.ts';
import type { MetricSamples } from '../observe/metric-samples.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import { HomeControl } from './home-control.ts';

/** Beside the listed users. Texts, as they were written; names for the errors in them. */
export interface AuthenticationConfig {
  /** In pg_hba.conf's format. Default: listed users come from everywhere. */
  readonly rules?: string | undefined;
  readonly rulesName?: string | undefined;
  /** In pg_ident.conf's format. */
  readonly ident?: string | undefined;
  readonly identName?: string | undefined;
  readonly fromNodes?: boolean | undefined;
  readonly authQuery?: string | undefined;
}

export interface AuthenticationSetup {
  readonly users: readonly UserEntry[];
  readonly authentication?: AuthenticationConfig | undefined;
  /** With clients. Here to say which rules can fit nobody. */
  readonly tls?: { readonly clientCaFile?: string | undefined } | undefined;
}

/** How soon it is noticed that a role whose clients are in was replaced round this process. */
const RECHECK_INTERVAL_MS = 10_000;

/** Of the control connection that asks home for roles. */
export const LOGIN_LIMITS = {
  applicationName: 'postern logins',
  connectTimeoutMs: 3_000,
  statementTimeoutMs: 3_000,
  lockTimeoutMs: 2_000,
};

/** Throws 22023 with file and line. `notes`: one line each for what was passed over, or lets nobody in. */
export function readAuthentication(setup: AuthenticationSetup): {
  readonly options: AuthenticationOptions;
  readonly notes: readonly string[];
} {
  const { rules, rulesName = 'hba', ident, identName = 'ident', ...rest } = setup.authentication ?? {};
  const hba =
    rules === undefined ? undefined : parseHba({ file: rulesName, text: rules, ownNetworks: ownNetworks() });
  return {
    options: {
      ...rest,
      users: setup.users,
      rules: hba?.rules,
      ident: ident === undefined ? undefined : parseIdent(ident, identName),
    },
    notes: [
      ...(hba?.notes ?? []),
      ...(hba?.rules ?? []).flatMap((rule) => idleRule(rule, rulesName, setup.tls)),
    ],
  };
}

/** As PostgreSQL logs it. */
function idleRule(rule: HbaRule, file: string, tls: AuthenticationSetup['tls']): string[] {
  const place = `${file}, line ${rule.line}`;
  if (rule.connection === 'hostssl' && !tls) return [`${place}: fits nobody, there is no tls: with clients`];
  if (rule.clientCertificate && tls?.clientCaFile === undefined)
    return [`${place}: lets nobody in, tls.client_ca_file says by whom certificates have to be signed`];
  return [];
}

export function openAuthentication(
  setup: AuthenticationSetup & {
    /** With LOGIN_LIMITS. */
    readonly openControl: () => Promise<ControlConnection>;
    /** A connection of the data path to home. */
    readonly openAtHome: (user: string, credential: Credential) => Promise<BackendConnection>;
    /** Known to nobody else, and the same in all processes; any length. */
    readonly secret: Buffer;
    readonly log: { info(message: string): void };
  },
): {
  readonly authenticator: Authenticator;
  /** The connection that home is asked over. */
  readonly control: HomeControl;
  addMetrics(samples: MetricSamples): void;
  /** Throws when the home node is there and verifiers can't be read on it. */
  check(): Promise<void>;
  reload(setup: AuthenticationSetup): Promise<void>;
  close(): Promise<void>;
} {
  const { options, notes } = readAuthentication(setup);
  for (const note of notes) setup.log.info(note);
  const control = new HomeControl(setup.openControl);
  const roles = new RoleLookup(verifierSource(options), {
    ask: (text, values) =>
      control.use(async (home) => {
        const rows = await home.query<Record<string, unknown>>(text, values);
        return rows.map((row) => Object.values(row));
      }),
    now: () => performance.now(),
    after: (ms, then) => {
      const timer = setTimeout(then, ms);
      timer.unref();
      return { cancel: () => clearTimeout(timer) };
    },
  });
  const authenticator = new Authenticator(options, {
    roles,
    checkAtHome: (user, password) => checkAtHome(setup.openAtHome, user, password),
    mockSecret: createHash('sha256').update('postern salts').update(setup.secret).digest(),
    now: () => performance.now(),
  });
  const recheck = setInterval(() => authenticator.recheckRoles(), RECHECK_INTERVAL_MS);
  recheck.unref();
  return {
    authenticator,
    control,
    addMetrics: (samples) => roles.addMetrics(samples),
    check: () => roles.check(),
    reload: async (next) => {
      const read = readAuthentication(next);
      await roles.check(verifierSource(read.options));
      for (const note of read.notes) setup.log.info(note);
      authenticator.reload(read.options);
    },
    close: () => {
      clearInterval(recheck);
      return control.close();
    },
  };
}

/** A home that lets the router in without asking has checked nothing. */
async function checkAtHome(
  openAtHome: (user: string, credential: Credential) => Promise<BackendConnection>,
  user: string,
  password: string,
): Promise<boolean> {
  let wasAsked = false;
  const credential: Credential = {
    kind: 'password',
    get password() {
      wasAsked = true;
      return password;
    },
  };
  try {
    const connection = await openAtHome(user, credential);
    connection.destroy();
  } catch (error) {
    if (error instanceof PosternError && error.sqlState === '28P01') return false;
    throw error;
  }
  if (wasAsked) return true;
  throw objectError(
    '28000',
    `the home node asks for no password of role "${user}", and so cannot check one`,
    'Have its pg_hba.conf ask this router for a password, or list the role with one.',
  );
}

/** Of this machine, for samehost and samenet. */
function ownNetworks(): IpNetwork[] {
  return Object.values(networkInterfaces())
    .flat()
    .flatMap((own) => {
      const network = own?.cidr ? parseNetwork(own.cidr) : undefined;
      return network ? [network] : [];
    });
}

/** Who may log in, of postern.yaml: `users`, `users_file`, `hba`, `hba_file`, `ident`, `ident_file`, `authentication`. */
import { z } from 'zod';
import { isTrusted, parseStoredSecret, type StoredSecret, type UserEntry } from '../auth/user-entry.ts';
import { misfitOf, parseUsersFile } from '../auth/users-file.ts';
import { invalidParameter } from '../base/errors.ts';
import { type ConfigPlace, readLine, readSecret, readText } from './config-secrets.ts';
import { type AuthenticationConfig, readAuthentication } from './router-auth.ts';

const userSchema = z
  .strictObject({
    name: z.string().min(1).max(63),
    password_file: z.string().optional(),
    password_env: z.string().optional(),
    /** A SCRAM-SHA-256 verifier, as in pg_authid. */
    verifier_file: z.string().optional(),
    /** No password is asked for. For loopback and sealed networks only. */
    trust: z.boolean().optional(),
  })
  .refine(
    (user) =>
      [user.password_file, user.password_env, user.verifier_file, user.trust].filter(
        (given) => given !== undefined && given !== false,
      ).length === 1,
    { message: 'give exactly one of password_file, password_env, verifier_file, trust: true' },
  );

/** To be spread into the schema of the file. */
export const authShape = {
  users: z.array(userSchema).default([]),
  /** PgBouncer's format. */
  users_file: z.string().optional(),
  /** pg_hba.conf's format, here or in a file. */
  hba: z.string().optional(),
  hba_file: z.string().optional(),
  /** pg_ident.conf's. */
  ident: z.string().optional(),
  ident_file: z.string().optional(),
  authentication: z
    .strictObject({
      /** Roles that are not listed log in with what the home node has of them. */
      from_nodes: z.boolean().optional(),
      auth_query: z
        .string()
        .refine((text) => text.includes('$1'), 'must have $1 where the name of the role goes')
        .optional(),
    })
    .optional(),
};

type AuthConfig = z.infer<z.ZodObject<typeof authShape>>;

/** Throws 22023 that says what is wrong where. */
export function authOptions(
  config: AuthConfig,
  place: ConfigPlace,
): { readonly users: readonly UserEntry[]; readonly authentication: AuthenticationConfig | undefined } {
  const { from_nodes: fromNodes, auth_query: authQuery } = config.authentication ?? {};
  const listed = listedUsers(config, place);
  const ofFile = usersOfFile(config, place);
  const trusted = ofFile.find(({ name }) => listed.some((user) => user.name === name && isTrusted(user)));
  if (trusted)
    throw invalidParameter(`user "${trusted.name}" is listed with trust, and with a password in users_file`);
  const users = [...listed, ...ofFile];
  if (users.length === 0 && !fromNodes)
    throw invalidParameter(
      'nobody may log in: give users, users_file, or authentication with from_nodes: true',
      'docs/guide/authentication.md shows each of them.',
    );
  if (authQuery !== undefined && !fromNodes)
    throw invalidParameter('authentication.auth_query goes with from_nodes: true');
  const rules = oneOf(config, 'hba', place);
  const ident = oneOf(config, 'ident', place);
  const authentication = {
    ...(rules && { rules: rules.text, rulesName: rules.name }),
    ...(ident && { ident: ident.text, identName: ident.name }),
    ...{ fromNodes, authQuery },
  };
  // Here for its errors: the router reads them once more.
  readAuthentication({ users, authentication });
  return { users, authentication };
}

/** Entries of one name are all right at once, while a password is changed. */
function listedUsers(config: AuthConfig, place: ConfigPlace): UserEntry[] {
  const secrets = new Map<string, StoredSecret[]>();
  const trusted = new Set<string>();
  for (const user of config.users) {
    const secret = secretOf(user, place);
    if (!secret) trusted.add(user.name);
    else secrets.set(user.name, [...(secrets.get(user.name) ?? []), secret]);
    const misfit = misfitOf(secrets.get(user.name) ?? []);
    if (misfit !== undefined) throw invalidParameter(`user "${user.name}": ${misfit}`);
    if (trusted.has(user.name) && secrets.has(user.name))
      throw invalidParameter(`user "${user.name}" is listed with trust and with a password`);
  }
  return [
    ...[...trusted].map((name) => ({ name, password: undefined })),
    ...[...secrets].map(([name, ofName]) => ({ name, password: undefined, secrets: ofName })),
  ];
}

function secretOf(user: AuthConfig['users'][number], place: ConfigPlace): StoredSecret | undefined {
  const owner = `user "${user.name}"`;
  if (user.verifier_file === undefined) {
    const password = readSecret(place, owner, user);
    return password === undefined ? undefined : { kind: 'password', password };
  }
  const text = readLine(place, user.verifier_file, `the verifier file of ${owner}`);
  try {
    const secret = parseStoredSecret(text);
    if (secret.kind === 'scram') return secret;
  } catch {
    // Said below, without what is in it.
  }
  throw invalidParameter(
    `the verifier file of ${owner} holds no SCRAM-SHA-256 verifier: ${user.verifier_file}`,
    'It has the form SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey, as in pg_authid.rolpassword.',
  );
}

function usersOfFile({ users_file: file }: AuthConfig, place: ConfigPlace): UserEntry[] {
  return file === undefined ? [] : parseUsersFile(readText(place, file, 'users_file'), file);
}

function oneOf(
  config: AuthConfig,
  key: 'hba' | 'ident',
  place: ConfigPlace,
): { text: string; name: string } | undefined {
  const { [key]: inline, [`${key}_file` as const]: file } = config;
  if (inline !== undefined && file !== undefined)
    throw invalidParameter(`give ${key} or ${key}_file, not both`);
  if (file !== undefined) return { text: readText(place, file, `${key}_file`), name: file };
  return inline === undefined ? undefined : { text: inline, name: key };
}

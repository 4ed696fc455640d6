/**
 * Settings that have to be the same on every node, since a client's statement may run on any of them: what a value reads as, what a
 * transaction may do. And those that hurt a router wherever they are set.
 */
import { quoteIdentifier, quoteLiteral } from '../pg/identifier.ts';
import { type Finding, onNode, type Severity } from './finding.ts';
import type { RoleSetting, ServerFacts } from './server-facts.ts';

interface Rule {
  readonly severity: Severity;
  /** What another value on one node does. */
  readonly because: string;
}

const READS_OTHERWISE: Rule = {
  severity: 'warning',
  because: 'The same text means another value there, or the same value is told in another text.',
};

const RULES: Readonly<Record<string, Rule>> = {
  TimeZone: READS_OTHERWISE,
  DateStyle: READS_OTHERWISE,
  IntervalStyle: READS_OTHERWISE,
  bytea_output: READS_OTHERWISE,
  extra_float_digits: READS_OTHERWISE,
  standard_conforming_strings: READS_OTHERWISE,
  backslash_quote: READS_OTHERWISE,
  array_nulls: READS_OTHERWISE,
  transform_null_equals: READS_OTHERWISE,
  xmloption: READS_OTHERWISE,
  default_text_search_config: READS_OTHERWISE,
  lc_monetary: READS_OTHERWISE,
  lc_numeric: READS_OTHERWISE,
  lc_time: READS_OTHERWISE,
  default_transaction_isolation: {
    severity: 'warning',
    because: 'A transaction that begins there keeps other promises.',
  },
  default_transaction_read_only: { severity: 'error', because: 'Writes are refused on one of them.' },
  default_transaction_deferrable: { severity: 'warning', because: 'A transaction may wait there.' },
  row_security: { severity: 'warning', because: 'Statements on tables with row-level security may fail.' },
  synchronous_commit: {
    severity: 'warning',
    because: 'What a commit has survived when a client hears of it depends on the node.',
  },
  password_encryption: {
    severity: 'note',
    because: 'A password that is set on that node itself gets another kind of verifier.',
  },
  lc_messages: { severity: 'note', because: 'Errors of that node come in another language.' },
};

/** Judged as they are, whatever the other nodes have. */
const FULL_PAGE_WRITES = 'full_page_writes';

export const SETTING_NAMES: readonly string[] = [...Object.keys(RULES), FULL_PAGE_WRITES];

const RELOAD = 'SELECT pg_reload_conf()';

/** Settings of role or database that end connections, or statements, of which a router would rather know itself. */
const TIMEOUTS: Readonly<Record<string, string>> = {
  statement_timeout: 'Statements of that role end earlier than the router knows.',
  idle_in_transaction_session_timeout: 'Transactions that wait for another node may be ended.',
  idle_session_timeout: 'Connections that a router keeps for later are closed.',
  transaction_timeout: 'Transactions over several nodes may be ended half-way, and are rolled back.',
  lock_timeout: 'Statements of that role wait for locks for less long than the router knows.',
};

export function compareSettings(server: ServerFacts, home: ServerFacts): readonly Finding[] {
  const findings: Finding[] = [];
  const add = (object: string, rest: Omit<Finding, 'topic' | 'node' | 'object'>) =>
    findings.push({ topic: 'settings', node: server.node, object, ...rest });
  if (server.node !== home.node) {
    for (const [name, { severity, because }] of Object.entries(RULES)) {
      const [found, expected] = [server.settings[name], home.settings[name]];
      // A setting of one version alone, or one that is judged by itself.
      if (found === undefined || expected === undefined || found === expected) continue;
      if (name === 'synchronous_commit' && found === 'off') continue;
      add(`setting ${name}`, {
        ...{ severity, found, expected, advice: because },
        message: `it is ${found} there, and ${expected} on ${home.node}`,
        remedies: onNode(server.node, `ALTER SYSTEM SET ${name} = ${quoteLiteral(expected)}`, RELOAD),
      });
    }
  }
  if (
    server.settings.default_transaction_read_only === 'on' &&
    home.settings.default_transaction_read_only === 'on'
  )
    add('setting default_transaction_read_only', {
      ...{ severity: 'error', found: 'on', expected: 'off', message: 'every transaction is read-only there' },
      remedies: onNode(server.node, 'ALTER SYSTEM SET default_transaction_read_only = off', RELOAD),
    });
  if (server.settings[FULL_PAGE_WRITES] === 'off')
    add(`setting ${FULL_PAGE_WRITES}`, {
      ...{ severity: 'warning', found: 'off', expected: 'on' },
      message: 'a crash of that machine can tear its pages',
      remedies: onNode(server.node, `ALTER SYSTEM SET ${FULL_PAGE_WRITES} = on`, RELOAD),
    });
  for (const [name, value] of Object.entries(server.fileSettings ?? {})) {
    if (value === '0') continue;
    add(`setting ${name}`, {
      ...{ severity: 'note', found: value, expected: '0', advice: TIMEOUTS[name] },
      message: `it is ${value} for everybody on that server`,
      remedies: onNode(server.node, `ALTER SYSTEM RESET ${name}`, RELOAD),
    });
  }
  return findings;
}

/** Settings of roles and of the database: those of home are what clients were given. */
export function compareRoleSettings(server: ServerFacts, home: ServerFacts): readonly Finding[] {
  const findings: Finding[] = [];
  const ownRoles = new Set([server.requirements.role, home.requirements.role]);
  const known = new Set(server.roles.map(({ name }) => name));
  const [found, expected] = [byKey(server), byKey(home)];
  for (const key of new Set([...expected.keys(), ...found.keys()])) {
    const setting = (expected.get(key) ?? found.get(key))!;
    const [is, shall] = [found.get(key)?.value, expected.get(key)?.value];
    const isOfPostern = setting.role !== null && ownRoles.has(setting.role);
    // A role that is missing there is a finding of its own.
    if (is === shall || isOfPostern || (setting.role !== null && !known.has(setting.role))) continue;
    const whose = whoseSetting(setting, server.database);
    findings.push({
      ...{ topic: 'settings', node: server.node, object: `setting ${setting.name} of ${whose.words}` },
      severity: setting.name in TIMEOUTS ? 'note' : 'warning',
      message:
        shall === undefined ? `it is set there, and not on ${home.node}` : `it is not as on ${home.node}`,
      ...{ found: is ?? '(not set)', expected: shall ?? '(not set)' },
      advice: TIMEOUTS[setting.name] ?? RULES[setting.name]?.because,
      remedies: onNode(
        server.node,
        shall === undefined
          ? `${whose.alter} RESET ${quoteSetting(setting.name)}`
          : `${whose.alter} SET ${quoteSetting(setting.name)} = ${valueText(setting.name, shall)}`,
      ),
    });
  }
  return findings;
}

function byKey({ roleSettings }: ServerFacts): ReadonlyMap<string, RoleSetting> {
  return new Map(
    roleSettings.map((setting) => [`${setting.role ?? ''} ${setting.inDatabase} ${setting.name}`, setting]),
  );
}

function whoseSetting({ role, inDatabase }: RoleSetting, database: string): { words: string; alter: string } {
  if (role === null)
    return inDatabase
      ? { words: `database ${database}`, alter: `ALTER DATABASE ${quoteIdentifier(database)}` }
      : { words: 'all roles', alter: 'ALTER ROLE ALL' };
  const where = inDatabase ? ` IN DATABASE ${quoteIdentifier(database)}` : '';
  return {
    words: `role ${role}${inDatabase ? ` in database ${database}` : ''}`,
    alter: `ALTER ROLE ${quoteIdentifier(role)}${where}`,
  };
}

/** `postern.tenant` has a dot between its two identifiers. */
function quoteSetting(name: string): string {
  return name.split('.').map(quoteIdentifier).join('.');
}

/** Lists of names are stored as they were written, and each name is an identifier. */
function valueText(name: string, value: string): string {
  return /^(search_path|temp_tablespaces|session_preload_libraries|local_preload_libraries)$/.test(name)
    ? value
    : quoteLiteral(value);
}

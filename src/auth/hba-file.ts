/**
 * Reads pg_hba.conf's own format. What can't hold for a router (Unix sockets, GSSAPI) is passed over and told; what would need
 * somebody else to ask (LDAP, PAM, a name server) is an error that names the way that works.
 * Source: PostgreSQL documentation, "The pg_hba.conf File".
 */
import type { HbaDatabase, HbaMethod, HbaRole, HbaRule } from './hba-rules.ts';
import { fault, readTokens, type Token, type TokenLine } from './hba-tokens.ts';
import { type IpNetwork, networkOfMask, parseAddress, parseNetwork } from './ip-network.ts';

export interface HbaSource {
  /** For errors: the file, or the key of the configuration. */
  readonly file: string;
  readonly text: string;
  /** This machine's own addresses with their networks, for samehost and samenet. */
  readonly ownNetworks: readonly IpNetwork[];
}

export interface HbaFile {
  readonly rules: readonly HbaRule[];
  /** One line each for what was passed over. */
  readonly notes: readonly string[];
}

const METHODS: readonly HbaMethod[] = ['trust', 'reject', 'scram-sha-256', 'md5', 'password', 'cert'];

const ELSEWHERE = new Set(['ldap', 'pam', 'radius', 'bsd', 'gss', 'sspi', 'krb5', 'ident', 'peer', 'oauth']);

/** Throws 22023 with file and line at the first line that is not understood. */
export function parseHba(source: HbaSource): HbaFile {
  const rules: HbaRule[] = [];
  const notes: string[] = [];
  for (const line of readTokens(source.text, source.file)) {
    const reader = new LineReader(line, source);
    const kind = reader.keyword('the type of connection');
    switch (kind) {
      case 'host':
      case 'hostssl':
      case 'hostnossl':
        rules.push(reader.rule(kind));
        break;
      case 'hostnogssenc':
        rules.push(reader.rule('host'));
        break;
      case 'local':
        notes.push(`${reader.place}: passed over, the router listens on no Unix socket`);
        break;
      case 'hostgssenc':
        notes.push(`${reader.place}: passed over, no connection of the router's is encrypted by GSSAPI`);
        break;
      default:
        throw reader.fault(
          kind.startsWith('include')
            ? `"${kind}" is not supported: put all rules into one file`
            : `"${kind}" is no type of connection: host, hostssl, hostnossl`,
        );
    }
  }
  return { rules, notes };
}

class LineReader {
  readonly #line: TokenLine;
  readonly #source: HbaSource;
  #at = 0;

  constructor(line: TokenLine, source: HbaSource) {
    this.#line = line;
    this.#source = source;
  }

  get place(): string {
    return `${this.#source.file}, line ${this.#line.line}`;
  }

  fault(what: string): Error {
    return fault({ file: this.#source.file, line: this.#line.line }, what);
  }

  keyword(what: string): string {
    const [token, ...more] = this.#field(what);
    if (more.length > 0) throw this.fault(`${what} is a single word`);
    return token!.text;
  }

  rule(connection: HbaRule['connection']): HbaRule {
    const databases = this.#field('the database').map((token) => this.#database(token));
    const roles = this.#field('the role').map((token) => this.#role(token));
    const networks = this.#networks();
    const method = this.#method();
    const options = this.#options(connection, method);
    return { line: this.#line.line, connection, databases, roles, networks, method, ...options };
  }

  #field(what: string): readonly Token[] {
    const field = this.#line.fields[this.#at++];
    if (!field) throw this.fault(`the line ends before ${what}`);
    return field;
  }

  #database({ text, quoted }: Token): HbaDatabase {
    this.#refuseExpression(text);
    if (quoted) return { kind: 'name', name: text };
    this.#refuseList(text);
    if (text === 'all' || text === 'sameuser' || text === 'samerole') return { kind: text };
    if (text === 'samegroup') return { kind: 'samerole' };
    // Replication connections don't go through the router, so this word fits none.
    return { kind: 'name', name: text === 'replication' ? '' : text };
  }

  #role({ text, quoted }: Token): HbaRole {
    this.#refuseExpression(text);
    if (quoted) return { kind: 'name', name: text };
    this.#refuseList(text);
    if (text === 'all') return { kind: 'all' };
    return text.startsWith('+') ? { kind: 'member', name: text.slice(1) } : { kind: 'name', name: text };
  }

  #refuseList(text: string): void {
    if (text.startsWith('@')) throw this.fault(`"${text}": a file of names is not supported; name them here`);
  }

  /** With quotes or without, as PostgreSQL reads it: a rule that refuses so many must not refuse nobody. */
  #refuseExpression(text: string): void {
    if (text.startsWith('/'))
      throw this.fault(`"${text}": regular expressions are not supported; name them, or use +group`);
  }

  #networks(): HbaRule['networks'] {
    const [first, ...more] = this.#field('the address');
    const { text, quoted } = first!;
    if (more.length > 0) throw this.fault('write one line for each address');
    const own = this.#source.ownNetworks;
    if (text === 'all' && !quoted) return 'all';
    if (text === 'samenet' && !quoted) return own;
    if (text === 'samehost' && !quoted)
      return own.map(({ address }) => ({ address, prefixBits: address.length * 8 }));
    if (text.includes('/')) {
      const network = parseNetwork(text);
      if (!network) throw this.fault(`"${text}" is no network, as 10.0.0.0/8 or fd00::/8 are`);
      return [network];
    }
    const address = parseAddress(text);
    if (!address)
      throw this.fault(
        `"${text}" is no address: host names are not supported (the router asks no name server); write a network, as 10.0.0.0/8`,
      );
    const maskText = this.keyword('the mask of the address (write 10.0.0.1/32 for one address)');
    const mask = parseAddress(maskText);
    const network = mask && networkOfMask(address, mask);
    if (!network) throw this.fault(`"${maskText}" is no mask for ${text} (write ${text}/32 for one address)`);
    return [network];
  }

  #method(): HbaMethod {
    const text = this.keyword('the method');
    const method = METHODS.find((known) => known === text);
    if (method) return method;
    throw this.fault(
      ELSEWHERE.has(text)
        ? `method "${text}" is not supported: with "password" over TLS the home node checks it, by whatever method it has`
        : `"${text}" is no method: ${METHODS.join(', ')}`,
    );
  }

  #options(
    connection: HbaRule['connection'],
    method: HbaMethod,
  ): Pick<HbaRule, 'clientCertificate' | 'clientName' | 'map'> {
    if (method === 'cert' && connection !== 'hostssl') throw this.fault('method "cert" is for hostssl alone');
    let clientCertificate: HbaRule['clientCertificate'] = method === 'cert' ? 'verify-full' : undefined;
    let clientName: HbaRule['clientName'] = 'CN';
    let map: string | undefined;
    while (this.#at < this.#line.fields.length) {
      const option = this.keyword('an option');
      const at = Math.max(option.indexOf('='), 0);
      const [name, value] = [option.slice(0, at), option.slice(at + 1)];
      if (name === 'clientcert' && (value === 'verify-ca' || value === 'verify-full')) {
        if (connection !== 'hostssl') throw this.fault('"clientcert" is for hostssl alone');
        if (method === 'cert' && value === 'verify-ca')
          throw this.fault('method "cert" always means clientcert=verify-full');
        clientCertificate = value;
      } else if (name === 'clientname' && (value === 'CN' || value === 'DN')) {
        if (connection !== 'hostssl') throw this.fault('"clientname" is for hostssl alone');
        clientName = value;
      } else if (name === 'map' && value !== '') {
        if (method !== 'cert') throw this.fault('"map" is for method "cert" alone');
        map = value;
      } else
        throw this.fault(
          // Without its value: those of LDAP and RADIUS hold passwords.
          `${name === '' ? 'what stands behind the method' : `the option ${name}`} is none of clientcert, clientname and map, or has no such value`,
        );
    }
    return { clientCertificate, clientName, map };
  }
}

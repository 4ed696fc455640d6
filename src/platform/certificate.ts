/**
 * What has to be known of an X.509 certificate and Node does not tell: the hash for channel binding, and its subject as
 * PostgreSQL prints it. A strict reader of DER (ITU-T X.690) over the bytes; certificates come from strangers.
 *
 * Invariant: every length is checked against what is there before it is used; what is not DER is undefined, never a guess.
 */
import { createHash } from 'node:crypto';
import type { TLSSocket } from 'node:tls';

/** What the other side has shown, in DER. */
export function peerCertificate(socket: TLSSocket): Buffer | undefined {
  return (socket.getPeerCertificate() as { raw?: Buffer } | undefined)?.raw;
}

/** One value: its tag (low tag numbers alone; X.509 has no others) and where its content lies. */
interface Element {
  readonly tag: number;
  readonly start: number;
  readonly contentStart: number;
  readonly end: number;
}

const Tag = {
  integer: 0x02,
  bitString: 0x03,
  oid: 0x06,
  utf8String: 0x0c,
  numericString: 0x12,
  printableString: 0x13,
  teletexString: 0x14,
  ia5String: 0x16,
  visibleString: 0x1a,
  universalString: 0x1c,
  bmpString: 0x1e,
  sequence: 0x30,
  set: 0x31,
  context0: 0xa0,
} as const;

class NotDer extends Error {}

/** Elements between two places of a buffer, one after another. */
class DerReader {
  readonly #der: Buffer;
  readonly #end: number;
  #position: number;

  constructor(der: Buffer, start = 0, end = der.length) {
    this.#der = der;
    this.#position = start;
    this.#end = end;
  }

  get atEnd(): boolean {
    return this.#position >= this.#end;
  }

  get nextTag(): number | undefined {
    return this.atEnd ? undefined : this.#der[this.#position];
  }

  next(tag?: number): Element {
    const der = this.#der;
    const start = this.#position;
    if (start + 2 > this.#end) throw new NotDer();
    const found = der[start]!;
    if ((tag !== undefined && found !== tag) || (found & 0x1f) === 0x1f) throw new NotDer();
    let contentStart = start + 2;
    let length = der[start + 1]!;
    if (length >= 0x80) {
      const bytes = length & 0x7f;
      // Indefinite lengths are no DER; more than three bytes is more than a certificate can have.
      if (bytes === 0 || bytes > 3 || contentStart + bytes > this.#end) throw new NotDer();
      length = der.readUIntBE(contentStart, bytes);
      if (length < 0x80 || (bytes > 1 && length < 2 ** (8 * (bytes - 1)))) throw new NotDer();
      contentStart += bytes;
    }
    const end = contentStart + length;
    if (end > this.#end) throw new NotDer();
    this.#position = end;
    return { tag: found, start, contentStart, end };
  }

  /** The elements within the next one. */
  enter(tag: number): DerReader {
    const { contentStart, end } = this.next(tag);
    return new DerReader(this.#der, contentStart, end);
  }

  oid(): string {
    const { contentStart, end } = this.next(Tag.oid);
    const parts: number[] = [];
    let value = 0;
    for (let at = contentStart; at < end; at++) {
      const byte = this.#der[at]!;
      if ((value === 0 && byte === 0x80) || value > Number.MAX_SAFE_INTEGER / 256) throw new NotDer();
      value = value * 128 + (byte & 0x7f);
      if (byte & 0x80) continue;
      if (parts.length === 0) {
        const first = Math.min(Math.floor(value / 40), 2);
        parts.push(first, value - 40 * first);
      } else parts.push(value);
      value = 0;
    }
    if (parts.length === 0 || (this.#der[end - 1]! & 0x80) !== 0) throw new NotDer();
    return parts.join('.');
  }
}

function read<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (error instanceof NotDer) return undefined;
    throw error;
  }
}

/** The hash of a signature algorithm, by its OID. RFC 5929: for MD5 and SHA-1, SHA-256 is taken. */
const SIGNATURE_HASHES: ReadonlyMap<string, string> = new Map([
  ['1.2.840.113549.1.1.4', 'sha256'],
  ['1.2.840.113549.1.1.5', 'sha256'],
  ['1.2.840.113549.1.1.14', 'sha224'],
  ['1.2.840.113549.1.1.11', 'sha256'],
  ['1.2.840.113549.1.1.12', 'sha384'],
  ['1.2.840.113549.1.1.13', 'sha512'],
  ['1.2.840.10045.4.1', 'sha256'],
  ['1.2.840.10045.4.3.1', 'sha224'],
  ['1.2.840.10045.4.3.2', 'sha256'],
  ['1.2.840.10045.4.3.3', 'sha384'],
  ['1.2.840.10045.4.3.4', 'sha512'],
  ['1.2.840.10040.4.3', 'sha256'],
  ['2.16.840.1.101.3.4.3.1', 'sha224'],
  ['2.16.840.1.101.3.4.3.2', 'sha256'],
]);
const HASHES: ReadonlyMap<string, string> = new Map([
  ['1.2.840.113549.2.5', 'sha256'],
  ['1.3.14.3.2.26', 'sha256'],
  ['2.16.840.1.101.3.4.2.4', 'sha224'],
  ['2.16.840.1.101.3.4.2.1', 'sha256'],
  ['2.16.840.1.101.3.4.2.2', 'sha384'],
  ['2.16.840.1.101.3.4.2.3', 'sha512'],
]);
const RSA_PSS = '1.2.840.113549.1.1.10';

/**
 * The channel binding data of type tls-server-end-point (RFC 5929): the hash of the server's certificate. Undefined where there
 * is none: for a signature without a hash of its own (Ed25519, Ed448), PostgreSQL has none either.
 */
export function tlsServerEndPoint(certificate: Buffer): Buffer | undefined {
  const name = read(() => signatureHash(certificate));
  return name === undefined ? undefined : createHash(name).update(certificate).digest();
}

function signatureHash(certificate: Buffer): string | undefined {
  const outer = new DerReader(certificate).enter(Tag.sequence);
  outer.next(Tag.sequence);
  const algorithm = outer.enter(Tag.sequence);
  const oid = algorithm.oid();
  if (oid !== RSA_PSS) return SIGNATURE_HASHES.get(oid);
  // RFC 4055: the hash is the first of the parameters, SHA-1 if it is left out.
  if (algorithm.nextTag !== Tag.sequence) return 'sha256';
  const parameters = algorithm.enter(Tag.sequence);
  if (parameters.nextTag !== Tag.context0) return 'sha256';
  return HASHES.get(parameters.enter(Tag.context0).enter(Tag.sequence).oid());
}

/** OpenSSL's short names of what a subject may hold. */
const SHORT_NAMES: ReadonlyMap<string, string> = new Map([
  ['2.5.4.3', 'CN'],
  ['2.5.4.4', 'SN'],
  ['2.5.4.5', 'serialNumber'],
  ['2.5.4.6', 'C'],
  ['2.5.4.7', 'L'],
  ['2.5.4.8', 'ST'],
  ['2.5.4.9', 'street'],
  ['2.5.4.10', 'O'],
  ['2.5.4.11', 'OU'],
  ['2.5.4.12', 'title'],
  ['2.5.4.13', 'description'],
  ['2.5.4.15', 'businessCategory'],
  ['2.5.4.17', 'postalCode'],
  ['2.5.4.20', 'telephoneNumber'],
  ['2.5.4.41', 'name'],
  ['2.5.4.42', 'GN'],
  ['2.5.4.43', 'initials'],
  ['2.5.4.44', 'generationQualifier'],
  ['2.5.4.46', 'dnQualifier'],
  ['2.5.4.65', 'pseudonym'],
  ['2.5.4.97', 'organizationIdentifier'],
  ['0.9.2342.19200300.100.1.1', 'UID'],
  ['0.9.2342.19200300.100.1.3', 'mail'],
  ['0.9.2342.19200300.100.1.25', 'DC'],
  ['1.2.840.113549.1.9.1', 'emailAddress'],
  ['1.2.840.113549.1.9.2', 'unstructuredName'],
]);
const COMMON_NAME = '2.5.4.3';

export interface CertificateSubject {
  /** The first CN; undefined: it has none, or one with a zero byte in it, which is an attack (CVE-2009-4034). */
  readonly commonName: string | undefined;
  /** RFC 2253, as OpenSSL prints it: `CN=ann,OU=Till,O=Shop`. */
  readonly distinguishedName: string;
}

/** Undefined: the certificate can't be read. */
export function subjectOf(certificate: Buffer): CertificateSubject | undefined {
  return read(() => {
    const body = new DerReader(certificate).enter(Tag.sequence).enter(Tag.sequence);
    if (body.nextTag === Tag.context0) body.next();
    body.next(Tag.integer);
    // Signature algorithm, issuer, validity.
    for (let i = 0; i < 3; i++) body.next(Tag.sequence);
    const subject = body.enter(Tag.sequence);
    let commonName: string | undefined;
    const parts: string[] = [];
    while (!subject.atEnd) {
      const set = subject.enter(Tag.set);
      const values: string[] = [];
      while (!set.atEnd) {
        const pair = set.enter(Tag.sequence);
        const oid = pair.oid();
        const value = pair.next();
        const text = textOf(certificate, value);
        if (oid === COMMON_NAME && commonName === undefined) commonName = nameOf(certificate, value);
        const shortName = SHORT_NAMES.get(oid);
        const shown =
          text === undefined || shortName === undefined
            ? `#${certificate.toString('hex', value.start, value.end).toUpperCase()}`
            : escaped(text);
        values.push(`${shortName ?? oid}=${shown}`);
      }
      parts.push(values.reverse().join('+'));
    }
    const isSound = commonName !== undefined && commonName !== '' && !commonName.includes('\0');
    return { commonName: isSound ? commonName : undefined, distinguishedName: parts.reverse().join(',') };
  });
}

/** Its bytes as they are, whatever they say of their encoding: PostgreSQL compares those with the name of the role. */
function nameOf(der: Buffer, { contentStart, end }: Element): string {
  const bytes = der.subarray(contentStart, end);
  const text = bytes.toString('utf8');
  return Buffer.from(text).equals(bytes) ? text : '';
}

/** Undefined: no text, or of an encoding that it breaks. */
function textOf(der: Buffer, { tag, contentStart, end }: Element): string | undefined {
  const bytes = der.subarray(contentStart, end);
  switch (tag) {
    case Tag.utf8String: {
      const text = bytes.toString('utf8');
      return Buffer.from(text).equals(bytes) ? text : undefined;
    }
    case Tag.numericString:
    case Tag.printableString:
    case Tag.teletexString:
    case Tag.ia5String:
    case Tag.visibleString:
      return bytes.toString('latin1');
    case Tag.bmpString:
      return bytes.length % 2 === 0 ? Buffer.from(bytes).swap16().toString('utf16le') : undefined;
    case Tag.universalString: {
      if (bytes.length % 4 !== 0) return undefined;
      const points = Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readUInt32BE(4 * i));
      return points.every((point) => point <= 0x10ffff) ? String.fromCodePoint(...points) : undefined;
    }
    default:
      return undefined;
  }
}

/** RFC 2253 with what is not printable ASCII as hexadecimal pairs of its UTF-8 bytes: XN_FLAG_RFC2253 of OpenSSL. */
function escaped(text: string): string {
  const bytes = Buffer.from(text);
  let result = '';
  bytes.forEach((byte, at) => {
    const character = String.fromCharCode(byte);
    const isEdge = at === 0 || at === bytes.length - 1;
    if (byte < 0x20 || byte >= 0x7f) result += `\\${byte.toString(16).toUpperCase().padStart(2, '0')}`;
    else if (
      ',+"\\<>;'.includes(character) ||
      (isEdge && character === ' ') ||
      (at === 0 && character === '#')
    )
      result += `\\${character}`;
    else result += character;
  });
  return result;
}

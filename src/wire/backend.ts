/**
 * The messages that a server sends: encoded on the router's client side, decoded on its server side where the router has
 * to look inside. Rows and most other messages pass through as frames and never come here.
 *
 * Decoders check every field against the frame's end. Text of a server is read leniently: before authentication it may be
 * in any encoding, and a database in SQL_ASCII sends what it has.
 */
import { type PosternError, protocolViolation } from '../base/errors.ts';
import { OID } from '../pg/oid.ts';
import { type Body, BodyCursor } from './body-cursor.ts';
import type { FrameWriter } from './frame-writer.ts';
import { Backend } from './message-types.ts';

/** The Int32 at the start of an Authentication message (documentation: "Message Formats"). */
const AUTHENTICATION = {
  ok: 0,
  cleartextPassword: 3,
  md5Password: 5,
  sasl: 10,
  saslContinue: 11,
  saslFinal: 12,
} as const;

/** pg_type.typlen of the types of fixed length that the router describes itself; every other is −1, variable. */
const FIXED_TYPE_LENGTHS: ReadonlyMap<number, number> = new Map([
  [OID.bool, 1],
  [OID.int2, 2],
  [OID.int4, 4],
  [OID.int8, 8],
  [OID.oid, 4],
  [OID.float4, 4],
  [OID.float8, 8],
  [OID.date, 4],
  [OID.timestamp, 8],
  [OID.timestamptz, 8],
  [OID.uuid, 16],
]);

/** BackendKeyData and CancelRequest of protocol 3.2 have 4 to 256 bytes; of 3.0, 4. */
const SECRET_KEY_BYTES_MAX = 256;

export interface FieldDescription {
  readonly name: string;
  readonly tableOid: number;
  readonly columnNumber: number;
  readonly typeOid: number;
  readonly typeLength: number;
  readonly typeModifier: number;
  /** 0: text, 1: binary. */
  readonly format: number;
}

export type AuthenticationRequest =
  | { readonly kind: 'ok' }
  | { readonly kind: 'cleartext' }
  | { readonly kind: 'md5'; readonly salt: Buffer }
  | { readonly kind: 'sasl'; readonly mechanisms: string[] }
  | { readonly kind: 'saslContinue'; readonly data: string }
  | { readonly kind: 'saslFinal'; readonly data: string }
  | { readonly kind: 'other'; readonly code: number };

function encodeBare(writer: FrameWriter, type: number): void {
  writer.begin(type);
  writer.end();
}

function encodeAuthentication(writer: FrameWriter, code: number, data: string): void {
  writer.begin(Backend.Authentication);
  writer.int32(code);
  writer.string(data);
  writer.end();
}

export function encodeAuthenticationOk(writer: FrameWriter): void {
  encodeAuthentication(writer, AUTHENTICATION.ok, '');
}

export function encodeAuthenticationCleartext(writer: FrameWriter): void {
  encodeAuthentication(writer, AUTHENTICATION.cleartextPassword, '');
}

export function encodeAuthenticationMd5(writer: FrameWriter, salt: Buffer): void {
  writer.begin(Backend.Authentication);
  writer.int32(AUTHENTICATION.md5Password);
  writer.bytes(salt, 0, salt.length);
  writer.end();
}

export function encodeAuthenticationSasl(writer: FrameWriter, mechanisms: readonly string[]): void {
  writer.begin(Backend.Authentication);
  writer.int32(AUTHENTICATION.sasl);
  for (const mechanism of mechanisms) writer.cstring(mechanism);
  writer.uint8(0);
  writer.end();
}

export function encodeAuthenticationSaslContinue(writer: FrameWriter, data: string): void {
  encodeAuthentication(writer, AUTHENTICATION.saslContinue, data);
}

export function encodeAuthenticationSaslFinal(writer: FrameWriter, data: string): void {
  encodeAuthentication(writer, AUTHENTICATION.saslFinal, data);
}

export function encodeParameterStatus(writer: FrameWriter, name: string, value: string): void {
  writer.begin(Backend.ParameterStatus);
  writer.cstring(name);
  writer.cstring(value);
  writer.end();
}

/** @param secretKey four bytes as a number for protocol 3.0; up to 256 bytes from 3.2 on */
export function encodeBackendKeyData(writer: FrameWriter, pid: number, secretKey: number | Buffer): void {
  writer.begin(Backend.BackendKeyData);
  writer.int32(pid);
  if (typeof secretKey === 'number') writer.int32(secretKey);
  else writer.bytes(secretKey, 0, secretKey.length);
  writer.end();
}

/** @param minorVersion the version of protocol 3 that the session will speak */
export function encodeNegotiateProtocolVersion(
  writer: FrameWriter,
  minorVersion: number,
  unsupportedOptions: readonly string[],
): void {
  writer.begin(Backend.NegotiateProtocolVersion);
  // The documentation says "minor version"; servers send both halves, and libpq expects both.
  writer.int16(3);
  writer.int16(minorVersion);
  writer.int32(unsupportedOptions.length);
  for (const option of unsupportedOptions) writer.cstring(option);
  writer.end();
}

/** I: idle, T: in a transaction block, E: in a failed one. */
export function encodeReadyForQuery(writer: FrameWriter, status: 'I' | 'T' | 'E'): void {
  writer.begin(Backend.ReadyForQuery);
  writer.uint8(status.charCodeAt(0));
  writer.end();
}

export function encodeErrorResponse(writer: FrameWriter, error: PosternError): void {
  writer.begin(Backend.ErrorResponse);
  encodeField(writer, 'S', error.severity);
  encodeField(writer, 'V', error.severity);
  encodeField(writer, 'C', error.sqlState);
  encodeField(writer, 'M', error.message);
  encodeField(writer, 'D', error.detail);
  encodeField(writer, 'H', error.hint);
  encodeField(writer, 'P', error.position?.toString());
  writer.uint8(0);
  writer.end();
}

export function encodeNoticeResponse(
  writer: FrameWriter,
  severity: 'NOTICE' | 'WARNING' | 'INFO',
  sqlState: string,
  message: string,
): void {
  writer.begin(Backend.NoticeResponse);
  encodeField(writer, 'S', severity);
  encodeField(writer, 'V', severity);
  encodeField(writer, 'C', sqlState);
  encodeField(writer, 'M', message);
  writer.uint8(0);
  writer.end();
}

export function encodeNotificationResponse(
  writer: FrameWriter,
  { processId, channel, payload }: { processId: number; channel: string; payload: string },
): void {
  writer.begin(Backend.NotificationResponse);
  writer.int32(processId);
  writer.cstring(channel);
  writer.cstring(payload);
  writer.end();
}

/** A server's error (E) or notice (N) with its fields, some of them perhaps changed. */
export function encodeErrorFields(
  writer: FrameWriter,
  type: 'E' | 'N',
  fields: ReadonlyMap<string, string>,
): void {
  writer.begin(type === 'E' ? Backend.ErrorResponse : Backend.NoticeResponse);
  for (const [code, value] of fields) encodeField(writer, code, value);
  writer.uint8(0);
  writer.end();
}

function encodeField(writer: FrameWriter, code: string, value: string | undefined): void {
  if (value === undefined) return;
  writer.uint8(code.charCodeAt(0));
  writer.cstring(value);
}

export function encodeCommandComplete(writer: FrameWriter, tag: string): void {
  writer.begin(Backend.CommandComplete);
  writer.cstring(tag);
  writer.end();
}

export function encodeParseComplete(writer: FrameWriter): void {
  encodeBare(writer, Backend.ParseComplete);
}

export function encodeBindComplete(writer: FrameWriter): void {
  encodeBare(writer, Backend.BindComplete);
}

export function encodeCloseComplete(writer: FrameWriter): void {
  encodeBare(writer, Backend.CloseComplete);
}

export function encodeNoData(writer: FrameWriter): void {
  encodeBare(writer, Backend.NoData);
}

export function encodeEmptyQueryResponse(writer: FrameWriter): void {
  encodeBare(writer, Backend.EmptyQueryResponse);
}

export function encodePortalSuspended(writer: FrameWriter): void {
  encodeBare(writer, Backend.PortalSuspended);
}

export function encodeParameterDescription(writer: FrameWriter, typeOids: readonly number[]): void {
  writer.begin(Backend.ParameterDescription);
  writer.int16(typeOids.length);
  for (const oid of typeOids) writer.int32(oid);
  writer.end();
}

/** Columns that belong to no table, in text format. */
export function encodeRowDescription(
  writer: FrameWriter,
  fields: readonly { readonly name: string; readonly typeOid: number }[],
): void {
  writer.begin(Backend.RowDescription);
  writer.int16(fields.length);
  for (const field of fields) {
    writer.cstring(field.name);
    writer.int32(0);
    writer.int16(0);
    writer.int32(field.typeOid);
    writer.int16(FIXED_TYPE_LENGTHS.get(field.typeOid) ?? -1);
    writer.int32(-1);
    writer.int16(0);
  }
  writer.end();
}

export function encodeDataRow(writer: FrameWriter, values: readonly (string | null)[]): void {
  writer.begin(Backend.DataRow);
  writer.int16(values.length);
  for (const value of values) {
    if (value === null) writer.int32(-1);
    else writer.countedString(value);
  }
  writer.end();
}

const cursor = new BodyCursor();

/** Of ErrorResponse and NoticeResponse; keys are the one-letter codes ("Error and Notice Message Fields"), in order. */
export function readErrorFields(body: Body): Map<string, string> {
  const fields = new Map<string, string>();
  cursor.open(body);
  for (let code = cursor.uint8(); code !== 0; code = cursor.uint8()) {
    fields.set(String.fromCharCode(code), cursor.lenientCstring());
  }
  cursor.finish();
  return fields;
}

/** Of CommandComplete. */
export function readCommandTag(body: Body): string {
  cursor.open(body);
  const tag = cursor.lenientCstring();
  cursor.finish();
  return tag;
}

/** Of ReadyForQuery: the byte I, T or E. */
export function readReadyStatus(body: Body): number {
  cursor.open(body);
  const status = cursor.uint8();
  cursor.finish();
  if (status !== 0x49 && status !== 0x54 && status !== 0x45) {
    throw protocolViolation(`invalid transaction status ${status}`);
  }
  return status;
}

export function readParameterStatus(body: Body): { name: string; value: string } {
  cursor.open(body);
  const name = cursor.lenientCstring();
  const value = cursor.lenientCstring();
  cursor.finish();
  return { name, value };
}

export function readBackendKeyData(body: Body): { pid: number; secretKey: Buffer } {
  cursor.open(body);
  const pid = cursor.int32();
  const keyBytes = cursor.remainingBytes;
  if (keyBytes < 4 || keyBytes > SECRET_KEY_BYTES_MAX)
    throw protocolViolation('invalid length of cancel key');
  const secretKey = cursor.bytes(keyBytes);
  cursor.finish();
  return { pid, secretKey };
}

export function readAuthentication(body: Body): AuthenticationRequest {
  cursor.open(body);
  const code = cursor.int32();
  const request = readAuthenticationOf(code);
  if (request.kind !== 'other') cursor.finish();
  return request;
}

function readAuthenticationOf(code: number): AuthenticationRequest {
  switch (code) {
    case AUTHENTICATION.ok:
      return { kind: 'ok' };
    case AUTHENTICATION.cleartextPassword:
      return { kind: 'cleartext' };
    case AUTHENTICATION.md5Password:
      return { kind: 'md5', salt: cursor.bytes(4) };
    case AUTHENTICATION.sasl: {
      const mechanisms: string[] = [];
      for (let name = cursor.lenientCstring(); name !== ''; name = cursor.lenientCstring())
        mechanisms.push(name);
      return { kind: 'sasl', mechanisms };
    }
    case AUTHENTICATION.saslContinue:
      return { kind: 'saslContinue', data: cursor.lenientCountedText(cursor.remainingBytes) };
    case AUTHENTICATION.saslFinal:
      return { kind: 'saslFinal', data: cursor.lenientCountedText(cursor.remainingBytes) };
    default:
      return { kind: 'other', code };
  }
}

/** For rows that the router asked for in text format. */
export function readDataRowText(body: Body): (string | null)[] {
  cursor.open(body);
  const count = cursor.uint16();
  const values: (string | null)[] = [];
  for (let i = 0; i < count; i++) {
    const valueBytes = cursor.int32();
    values.push(valueBytes === -1 ? null : cursor.lenientCountedText(valueBytes));
  }
  cursor.finish();
  return values;
}

/** The values as they are: copies, good for as long as they are wanted. */
export function readDataRow(body: Body): (Buffer | null)[] {
  cursor.open(body);
  const count = cursor.uint16();
  const values: (Buffer | null)[] = [];
  for (let i = 0; i < count; i++) {
    const valueBytes = cursor.int32();
    const start = cursor.skip(Math.max(valueBytes, 0));
    values.push(valueBytes < 0 ? null : Buffer.from(body.buffer.subarray(start, start + valueBytes)));
  }
  cursor.finish();
  return values;
}

export function readRowDescription(body: Body): FieldDescription[] {
  cursor.open(body);
  const count = cursor.uint16();
  const fields: FieldDescription[] = [];
  for (let i = 0; i < count; i++) {
    fields.push({
      name: cursor.lenientCstring(),
      tableOid: cursor.uint32(),
      columnNumber: cursor.int16(),
      typeOid: cursor.uint32(),
      typeLength: cursor.int16(),
      typeModifier: cursor.int32(),
      format: cursor.int16(),
    });
  }
  cursor.finish();
  return fields;
}

export function readParameterDescription(body: Body): number[] {
  cursor.open(body);
  const count = cursor.uint16();
  const typeOids: number[] = [];
  for (let i = 0; i < count; i++) typeOids.push(cursor.uint32());
  cursor.finish();
  return typeOids;
}

/** Of a NotificationResponse. */
export function readNotificationChannel(body: Body): string {
  cursor.open(body);
  cursor.int32();
  return cursor.lenientCstring();
}

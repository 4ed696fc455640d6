import { expect, it } from 'vitest';
import { cannotConnect, connectionLost } from '../base/errors.ts';
import { ServerError } from '../platform/control-connection.ts';
import { answerOf } from './host-probe.ts';

function caused(cause: Error & { code?: string }, of = cannotConnect('n1', cause.message)): Error {
  of.cause = cause;
  return of;
}

const withCode = (code: string): Error & { code: string } =>
  Object.assign(new Error(`it was ${code}`), { code });

it.each([
  ['a server that is full', caused(withCode('53300')), 'refusing'],
  ['a wrong password', caused(withCode('28P01')), 'refusing'],
  ['a server that starts', caused(withCode('57P03')), 'away'],
  ['nobody there', caused(withCode('ECONNREFUSED')), 'away'],
  ['a name that is not known', caused(withCode('ENOTFOUND')), 'away'],
  ['a packet that is lost', caused(withCode('ETIMEDOUT')), 'silent'],
  ['a login that hangs', caused(new Error('timeout expired')), 'silent'],
  ['a connection that hangs', caused(new Error('no connection within 3000 ms')), 'silent'],
  ['encryption that hangs', caused(new Error('no TLS within 3000 ms')), 'silent'],
  ['a question that hangs', caused(new Error('Query read timeout'), connectionLost('n1')), 'silent'],
  ['a connection that breaks', caused(new Error('Connection terminated'), connectionLost('n1')), 'away'],
  ['an error of the statement', new ServerError('n1', new Map([['C', '57014']])), 'refusing'],
  ['a server that stops', new ServerError('n1', new Map([['C', '57P01']])), 'away'],
  ['whatever else', cannotConnect('n1', 'none of its hosts is a primary'), 'away'],
])('%s', (_, error, kind) => {
  expect(answerOf(error).kind).toBe(kind);
});

/** What a client has named and there is not, in PostgreSQL's words. */
import { objectError, type PosternError } from '../base/errors.ts';

export function noStatement(name: string): PosternError {
  return name === ''
    ? objectError('26000', 'unnamed prepared statement does not exist')
    : objectError('26000', `prepared statement "${name}" does not exist`);
}

export function noPortal(name: string): PosternError {
  return objectError('34000', `portal "${name}" does not exist`);
}

/** In a transaction that failed before a node knew of it, or whose node was lost, there is none to go back to. */
export function noSavepoint(name: string): PosternError {
  return objectError('3B001', `savepoint "${name}" does not exist`);
}

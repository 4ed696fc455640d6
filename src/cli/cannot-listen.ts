/** Why a port can't be had, and what to do. */
import { notSupported, PosternError } from '../base/errors.ts';

export function cannotListen(
  listen: { host: string; port: number },
  error: NodeJS.ErrnoException,
  /** Where the port is given. */
  option = '--port',
): PosternError {
  const where = `${listen.host}:${listen.port}`;
  switch (error.code) {
    case 'EADDRINUSE':
      return new PosternError({
        sqlState: '55006',
        message: `port ${listen.port} is in use`,
        hint: `Choose another one with ${option}, or stop what listens there.`,
      });
    case 'EACCES':
      return notSupported(`no permission to listen on ${where}`, `Choose a port above 1023 with ${option}.`);
    default:
      return new PosternError({ sqlState: '58000', message: `cannot listen on ${where}: ${error.message}` });
  }
}

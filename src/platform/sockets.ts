/** Outgoing TCP connections, with a bound on the wait. */
import { connect as connectTcp, type Socket } from 'node:net';

/** Connects, with no delay and keepalives; rejects with a plain Error that says why. */
export function connect(options: { host: string; port: number; timeoutMs: number }): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = options.host.startsWith('/')
      ? connectTcp({ path: `${options.host}/.s.PGSQL.${options.port}` })
      : connectTcp({ host: options.host, port: options.port, noDelay: true, keepAlive: true });
    const timer = setTimeout(() => {
      socket.destroy();
      reject(new Error(`no connection within ${options.timeoutMs} ms`));
    }, options.timeoutMs);
    const onError = (error: Error): void => {
      clearTimeout(timer);
      reject(error);
    };
    socket.once('error', onError);
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.off('error', onError);
      socket.setKeepAlive(true, 30_000);
      resolve(socket);
    });
  });
}

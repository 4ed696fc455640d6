/** The log of `serve` and `front`: lines of JSON on the standard output, by pino. docs/reference/logs.md lists what they hold. */
import { pino } from 'pino';
import { type ClientLogOptions, ClientLogs } from '../observe/client-log.ts';
import type { Log, LogLevel } from '../observe/log.ts';

export interface LogOptions extends ClientLogOptions {
  /** The least that is written. */
  readonly level: LogLevel;
}

export const LOG_DEFAULTS: LogOptions = {
  ...{ level: 'info', connections: true, statementsSlowerThanMs: Number.POSITIVE_INFINITY },
};

export interface ProcessLog extends Log {
  setLevel(level: LogLevel): void;
}

/** `worker`: this process's place; undefined: it is the first one, or alone. */
export function openLog(options: {
  readonly level: LogLevel;
  readonly worker?: number | undefined;
}): ProcessLog {
  const logger = pino({
    base: options.worker === undefined ? null : { worker: options.worker },
    level: options.level,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  });
  const write =
    (level: LogLevel): Log[LogLevel] =>
    (message, fields = {}) =>
      logger[level](fields, message);
  return {
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    setLevel: (level) => {
      logger.level = level;
    },
  };
}

const LEFT_OUT_INTERVAL_MS = 5_000;

/** `stop`: at the end of the process's service. */
export function openClientLogs(
  log: Log,
  options: ClientLogOptions = LOG_DEFAULTS,
): { readonly logs: ClientLogs; stop(): void } {
  const logs = new ClientLogs({
    ...{ log, options, processId: process.pid },
    now: () => performance.now(),
    wallMs: Date.now,
  });
  const timer = setInterval(() => logs.tick(), LEFT_OUT_INTERVAL_MS);
  timer.unref();
  return {
    logs,
    stop: () => {
      clearInterval(timer);
      logs.tick();
    },
  };
}

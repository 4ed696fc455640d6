/** What the router writes its log to: a message and named values. In cli/log.ts it becomes lines of JSON. */

export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

export type LogLevel = 'info' | 'warn' | 'error';

export type Log = Record<LogLevel, (message: string, fields?: LogFields) => void>;

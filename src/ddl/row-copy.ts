/** The settings under which the rows of a table are copied from one server to another in DDL. */

/** How long the rows of one node may take. */
export const ROW_COPY_TIMEOUT_MS = 4 * 3_600_000;

/** Values must read on one server as they were written on the other. */
export const ROW_COPY_SETTINGS = `SET LOCAL statement_timeout = ${ROW_COPY_TIMEOUT_MS};
SET LOCAL idle_in_transaction_session_timeout = ${ROW_COPY_TIMEOUT_MS};
SET LOCAL datestyle = 'ISO'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL extra_float_digits = 1;
SET LOCAL row_security = off`;

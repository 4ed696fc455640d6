import { expect, it } from 'vitest';
import { readOpenFilesMax } from './idle-clients.ts';

it('reads how many files a process may open', () => {
  const head = 'Limit                     Soft Limit           Hard Limit           Units     \n';
  const line = (soft: string): string => `${head}Max open files            ${soft}   20000   files     \n`;
  expect(readOpenFilesMax(line('1024'))).toBe(1_024);
  expect(readOpenFilesMax(line('unlimited'))).toBe(Number.POSITIVE_INFINITY);
  expect(readOpenFilesMax(head)).toBe(0);
});

import { expect, it } from 'vitest';
import { quotedList, settingsText } from './build.ts';

it('quotes each name of a list, whoever has written it', () => {
  expect(quotedList('"$user", public')).toBe("'$user', 'public'");
  expect(quotedList('A,"b ""c"" d" , e')).toBe(`'a', 'b "c" d', 'e'`);
  expect(quotedList('')).toBe("''");
  expect(quotedList('""')).toBe("''");
  const evil = 'public;ALTER/**/ROLE/**/app/**/SUPERUSER--';
  expect(settingsText('m', [{ role: 'app', name: 'search_path', value: evil }], new Set(['app']))).toContain(
    `ALTER ROLE "app" IN DATABASE "m" SET "search_path" = 'public;alter/**/role/**/app/**/superuser--';`,
  );
});
